//! Against Python: data and templates of `golden/`, made by `golden/make.py`.

use std::collections::BTreeMap;

use globe_format::MemoryFiles;
use globe_text::{ChatTemplate, Content, Message, Prompt, Role, Tokenizer, expand_images};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Golden {
    conversations: BTreeMap<String, Vec<RawMessage>>,
    encoded: Vec<Encoded>,
    rendered: Vec<Rendered>,
    expanded: Vec<Expanded>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: String,
    content: Value,
}

#[derive(Deserialize)]
struct Encoded {
    text: String,
    ids: Vec<u32>,
    decoded: String,
    without_special: String,
}

#[derive(Deserialize)]
struct Rendered {
    chat: String,
    template: String,
    prompt: String,
    turns: String,
}

#[derive(Deserialize)]
struct Expanded {
    chat: String,
    counts: Vec<usize>,
    ids: Vec<u32>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/golden.json")).expect("made by make.py")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::from_json(include_bytes!("golden/tokenizer.json")).expect("made by make.py")
}

fn template(file: &str) -> ChatTemplate {
    let text = match file {
        "template.jinja" => include_str!("golden/template.jinja"),
        "stock.jinja" => include_str!("golden/stock.jinja"),
        "python.jinja" => include_str!("golden/python.jinja"),
        other => panic!("no template {other}"),
    };
    let files = MemoryFiles::from_iter([
        ("chat_template.jinja", text.as_bytes().to_vec()),
        ("tokenizer_config.json", br#"{"eos_token":"<|im_end|>"}"#.to_vec()),
    ]);
    pollster::block_on(ChatTemplate::load(&files)).expect("valid").with_now(0)
}

impl From<&RawMessage> for Message {
    fn from(raw: &RawMessage) -> Self {
        let role = match raw.role.as_str() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => panic!("no role {other}"),
        };
        let part = |part: &Value| match part["text"].as_str() {
            Some(text) => Content::Text(text.into()),
            None => Content::Image,
        };
        match &raw.content {
            Value::String(text) => Message::text(role, text.as_str()),
            parts => {
                let parts = parts.as_array().expect("a text or a list");
                Message { role, content: parts.iter().map(part).collect() }
            }
        }
    }
}

fn messages(golden: &Golden, chat: &str) -> Vec<Message> {
    golden.conversations[chat].iter().map(Message::from).collect()
}

#[test]
fn encodes_and_decodes_like_python() {
    let tokenizer = tokenizer();
    let golden = golden();
    assert!(golden.encoded.len() > 15);
    for case in golden.encoded {
        assert_eq!(tokenizer.encode(&case.text).unwrap(), case.ids, "{:?}", case.text);
        assert_eq!(tokenizer.decode(&case.ids, false).unwrap(), case.decoded);
        assert_eq!(tokenizer.decode(&case.ids, true).unwrap(), case.without_special);
    }
}

#[test]
fn renders_like_python() {
    let golden = golden();
    assert_eq!(golden.rendered.len(), 15);
    for case in &golden.rendered {
        let messages = messages(&golden, &case.chat);
        let template = template(&case.template);
        let place = format!("{} with {}", case.chat, case.template);
        assert_eq!(template.render(&messages).unwrap(), case.prompt, "{place}");
        let turns = template.render_turns(&messages, false).unwrap();
        assert_eq!(turns, case.turns, "{place}");
    }
}

#[test]
fn the_built_in_template_renders_like_the_stock_one() {
    let golden = golden();
    let built_in = ChatTemplate::built_in().unwrap();
    for case in golden.rendered.iter().filter(|case| case.template == "stock.jinja") {
        let messages = messages(&golden, &case.chat);
        assert_eq!(built_in.render(&messages).unwrap(), case.prompt, "{}", case.chat);
        assert_eq!(built_in.render_turns(&messages, false).unwrap(), case.turns, "{}", case.chat);
    }
}

#[test]
fn the_stock_prompt_is_the_python_conversation() {
    assert_eq!(Prompt::reason().messages(1), messages(&golden(), "stock"));
}

#[test]
fn expanding_ids_equals_expanding_text() {
    let golden = golden();
    let tokenizer = tokenizer();
    let image = tokenizer.id("<|image_pad|>").unwrap();
    for case in &golden.expanded {
        let prompt = ChatTemplate::built_in().unwrap();
        let prompt = prompt.render(&messages(&golden, &case.chat)).unwrap();
        let ids = expand_images(&tokenizer.encode(&prompt).unwrap(), image, &case.counts).unwrap();
        assert_eq!(ids, case.ids, "{}", case.chat);
    }
    assert!(golden.expanded.iter().any(|case| case.counts.len() > 1));
}
