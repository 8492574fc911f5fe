//! Model folders in every state, wrong vocabularies, and properties over arbitrary text.

use std::sync::LazyLock;

use globe_format::MemoryFiles;
use globe_text::{
    ChatTemplate, Content, Error, Message, Role, StopTokens, TemplateSource, Tokenizer,
    expand_images,
};
use pollster::block_on;
use proptest::prelude::*;
use serde_json::{Value, json};

const TOKENIZER_JSON: &[u8] = include_bytes!("golden/tokenizer.json");

static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_json(TOKENIZER_JSON).expect("made by make.py"));

fn folder(files: &[(&str, &str)]) -> MemoryFiles {
    files.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect()
}

/// The fixture after `edit`.
fn edited(edit: impl FnOnce(&mut Value)) -> Result<Tokenizer, Error> {
    let mut json = serde_json::from_slice(TOKENIZER_JSON).expect("made by make.py");
    edit(&mut json);
    Tokenizer::from_json(json.to_string().as_bytes())
}

#[test]
fn the_tokenizer_loads_from_a_folder() {
    let mut files = MemoryFiles::default();
    let error = block_on(Tokenizer::load(&files)).unwrap_err();
    assert_eq!(error.to_string(), "tokenizer.json: not found in the model folder");
    files.insert("tokenizer.json", TOKENIZER_JSON.to_vec());
    let tokenizer = block_on(Tokenizer::load(&files)).unwrap();
    let image_pad = tokenizer.id("<|image_pad|>").unwrap();
    assert_eq!(tokenizer.token(image_pad).as_deref(), Some("<|image_pad|>"));
    assert_eq!(tokenizer.vocab_size(), image_pad as usize + 1);
}

#[test]
fn corrupt_tokenizers_are_errors() {
    for bytes in [&b""[..], b"{}", b"[1]", b"\xff", &TOKENIZER_JSON[..TOKENIZER_JSON.len() / 2]] {
        let error = Tokenizer::from_json(bytes).unwrap_err();
        assert!(error.to_string().starts_with("tokenizer.json: "), "{error}");
    }
    let metaspace = json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "never"});
    for (part, value) in [
        ("decoder", metaspace),
        ("normalizer", json!({"type": "Sequence", "normalizers": [{"type": "Precompiled"}]})),
    ] {
        let error = edited(|json| json[part] = value).unwrap_err();
        assert!(matches!(error, Error::NotByteLevel), "{error}");
    }
}

#[test]
fn truncation_and_padding_in_the_file_are_ignored() {
    let tokenizer = edited(|json| {
        json["truncation"] = json!({
            "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
        });
        json["padding"] = json!({
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "!"
        });
    });
    let text = "one two three four";
    assert_eq!(tokenizer.unwrap().encode(text).unwrap(), TOKENIZER.encode(text).unwrap());
}

#[test]
fn wrong_vocabularies_are_errors() {
    let error = edited(|json| {
        let added = json["added_tokens"].as_array_mut().expect("a list");
        added.retain(|token| token["content"] != "<|image_pad|>");
    });
    let error = error.unwrap().id("<|image_pad|>").unwrap_err();
    assert!(matches!(&error, Error::MissingToken { token } if token == "<|image_pad|>"));

    let size = TOKENIZER.vocab_size();
    TOKENIZER.check_vocab(size).unwrap();
    TOKENIZER.check_vocab(size + 64).unwrap();
    let error = TOKENIZER.check_vocab(size - 1).unwrap_err();
    assert!(matches!(&error, Error::VocabTooLarge { token, id, model_vocab }
        if token == "<|image_pad|>" && *id as usize == size - 1 && *model_vocab == size - 1));
}

#[test]
fn ids_without_a_token_decode_to_nothing() {
    let beyond = TOKENIZER.vocab_size() as u32 + 5;
    let mut ids = TOKENIZER.encode("ab").unwrap();
    ids.insert(1, beyond);
    ids.push(u32::MAX);
    let mut stream = TOKENIZER.detokenizer(true);
    let text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(text, TOKENIZER.decode(&ids, true).unwrap());
    assert_eq!(TOKENIZER.token(beyond), None);
}

#[test]
fn the_stream_holds_back_half_characters() {
    let ids = TOKENIZER.encode("\u{10348}").unwrap(); // not in the corpus: four byte tokens
    assert_eq!(ids.len(), 4);
    let mut stream = TOKENIZER.detokenizer(true);
    let parts: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(parts, ["", "", "", "\u{10348}"]);
    assert_eq!(stream.finish().unwrap(), "");

    let mut cut = TOKENIZER.detokenizer(true);
    assert_eq!(cut.push(ids[0]).unwrap(), "");
    assert_eq!(cut.finish().unwrap(), "\u{fffd}");
}

#[test]
fn templates_are_found_in_order() {
    let named = r#"{"chat_template":[{"name":"tools","template":"t"},
        {"name":"default","template":"config {{ eos_token }}{{ bos_token }}"}],
        "eos_token":"<e>","bos_token":{"content":"<b>"},"pad_token":null}"#;
    let mut files = Vec::new();
    let load = |files: &[(&str, &str)]| {
        let template = block_on(ChatTemplate::load(&folder(files))).unwrap();
        (template.source(), template.render(&[]).unwrap())
    };
    let (source, text) = load(&files);
    assert_eq!((source.name(), text.as_str()), ("built-in", "<|im_start|>assistant\n"));
    files.push(("tokenizer_config.json", r#"{"eos_token":"x"}"#));
    assert_eq!(load(&files).0, TemplateSource::BuiltIn);
    files[0].1 = named;
    assert_eq!(load(&files), (TemplateSource::TokenizerConfig, "config <e><b>".into()));
    files.push(("chat_template.json", r#"{"chat_template":"json"}"#));
    assert_eq!(load(&files), (TemplateSource::Json, "json".into()));
    files.push(("chat_template.jinja", "jinja {{ eos_token }}"));
    assert_eq!(load(&files), (TemplateSource::Jinja, "jinja <e>".into()));
}

#[test]
fn bad_template_files_are_errors() {
    for (file, text, part) in [
        ("chat_template.json", "{}", "chat_template.json: no field `chat_template`"),
        ("chat_template.json", "{", "chat_template.json: EOF"),
        ("chat_template.json", r#"{"chat_template":1}"#, "neither text nor a list"),
        ("tokenizer_config.json", r#"{"chat_template":[]}"#, "no template named `default`"),
        ("tokenizer_config.json", "[]", "tokenizer_config.json: invalid type"),
        ("chat_template.jinja", "a\n{% if %}", "chat_template.jinja, line 2: chat template: "),
    ] {
        let error = block_on(ChatTemplate::load(&folder(&[(file, text)]))).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let files = [("chat_template.jinja", vec![0xff])].into_iter().collect::<MemoryFiles>();
    assert!(matches!(block_on(ChatTemplate::load(&files)), Err(Error::Json { .. })));
}

fn render_error(template: &str) -> String {
    let template = ChatTemplate::new(template.into(), TemplateSource::Jinja).expect("valid");
    template.render(&[Message::text(Role::User, "x")]).expect_err("refused").to_string()
}

#[test]
fn templates_may_refuse_and_may_not_hang() {
    let refused = render_error("\n{{ raise_exception('roles must alternate') }}");
    assert_eq!(refused, "chat_template.jinja, line 2: chat template: roles must alternate");
    assert!(render_error("{{ strftime_now('%Y') }}").contains("the caller set none"));
    let nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    assert!(render_error(nested).contains("fuel"));
    assert!(render_error("{{ messages | tojson(sort_keys=true) }}").contains("sort_keys"));
    assert!(render_error("{{ 'x'.no_such_method() }}").contains("no_such_method"));

    let dated = ChatTemplate::new("{{ strftime_now('%d %b %Y') }}".into(), TemplateSource::Jinja);
    let dated = dated.unwrap().with_now(1_700_000_000);
    assert_eq!(dated.render(&[]).unwrap(), "14 Nov 2023");
}

#[test]
fn stop_tokens_fall_back_step_by_step() {
    let im_end = TOKENIZER.id("<|im_end|>").unwrap();
    let load = |files: &[(&str, &str)]| block_on(StopTokens::load(&folder(files), &TOKENIZER));
    let generation =
        |text| [("generation_config.json", text), ("config.json", r#"{"eos_token_id":9}"#)];

    let listed = load(&generation(r#"{"eos_token_id":[7,3,7],"pad_token_id":5}"#)).unwrap();
    assert_eq!((listed.eos.as_slice(), listed.pad), (&[3, 7][..], Some(5)));
    assert!(listed.contains(7) && !listed.contains(9));
    assert_eq!(load(&generation(r#"{"eos_token_id":4}"#)).unwrap().eos, [4]);
    assert_eq!(load(&generation(r#"{"eos_token_id":null}"#)).unwrap().eos, [9, im_end]);
    let nested = r#"{"text_config":{"eos_token_id":2,"pad_token_id":1}}"#;
    let nested = load(&[("config.json", nested)]).unwrap();
    assert_eq!((nested.eos, nested.pad), (vec![2, im_end], Some(1)));
    assert_eq!(load(&[]).unwrap().eos, [im_end]);

    let foreign = load(&generation(r#"{"eos_token_id":151645}"#)).unwrap();
    assert_eq!(foreign.eos, [9, im_end], "an id that is no token is passed over");
    for bad in [r#"{"eos_token_id":-1}"#, r#"{"eos_token_id":"</s>"}"#, r#"{"eos_token_id":[1.5]}"#]
    {
        let error = load(&generation(bad)).unwrap_err().to_string();
        assert!(error.contains("eos_token_id is not an id or a list of ids"), "{error}");
    }
}

#[test]
fn a_vocabulary_without_an_end_has_no_stop_token() {
    let tokenizer = edited(|json| json["added_tokens"] = json!([])).unwrap();
    let stop = block_on(StopTokens::load(&MemoryFiles::default(), &tokenizer)).unwrap();
    assert!(stop.eos.is_empty() && !stop.contains(0));
}

#[test]
fn a_tokenizer_without_a_decoder_streams_with_its_spaces() {
    let tokenizer = edited(|json| json["decoder"] = Value::Null).unwrap();
    let ids = tokenizer.encode("Where was this photo taken?").unwrap();
    let mut detokenizer = tokenizer.detokenizer(false);
    let mut text = String::new();
    for id in &ids {
        text += &detokenizer.push(*id).unwrap();
    }
    text += &detokenizer.finish().unwrap();
    assert_eq!(text, tokenizer.decode(&ids, false).unwrap());
    assert!(text.contains(' '), "{text}");
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::System), Just(Role::User), Just(Role::Assistant)]
}

fn message() -> impl Strategy<Value = Message> {
    let part = prop_oneof![Just(Content::Image), "\\PC{0,20}".prop_map(Content::Text)];
    (role(), prop::collection::vec(part, 0..4))
        .prop_map(|(role, content)| Message { role, content })
}

proptest! {
    #[test]
    fn arbitrary_templates_do_not_panic(template in "[{}%# \\-a-z'|().\\[\\]0-9]{0,60}") {
        if let Ok(template) = ChatTemplate::new(template, TemplateSource::Jinja) {
            let _ = template.render(&[Message::text(Role::User, "x")]);
        }
    }

    #[test]
    fn the_built_in_template_keeps_every_text(messages in prop::collection::vec(message(), 0..5)) {
        let text = ChatTemplate::built_in().unwrap().render(&messages).unwrap();
        let parts = messages.iter().flat_map(|message| &message.content);
        let images = parts.clone().filter(|part| **part == Content::Image).count();
        prop_assert!(text.matches("<|image_pad|>").count() >= images);
        for part in parts {
            if let Content::Text(part) = part {
                prop_assert!(text.contains(part.as_str()));
            }
        }
        prop_assert!(text.ends_with("<|im_start|>assistant\n"));
    }

    #[test]
    fn streaming_equals_decoding(
        ids in prop::collection::vec(0..TOKENIZER.vocab_size() as u32 + 3, 0..60),
        skip in any::<bool>(),
    ) {
        let mut stream = TOKENIZER.detokenizer(skip);
        let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
        text += &stream.finish().unwrap();
        prop_assert_eq!(text, TOKENIZER.decode(&ids, skip).unwrap());
    }

    /// NFC is the identity on ASCII, so every such text survives.
    #[test]
    fn ascii_round_trips(text in "[ -~\n\t]{0,80}") {
        let ids = TOKENIZER.encode(&text).unwrap();
        prop_assert_eq!(TOKENIZER.decode(&ids, false).unwrap(), text);
    }

    #[test]
    fn arbitrary_text_encodes(text in any::<String>()) {
        let ids = TOKENIZER.encode(&text).unwrap();
        prop_assert!(ids.iter().all(|&id| (id as usize) < TOKENIZER.vocab_size()));
    }

    #[test]
    fn expanding_keeps_everything_else(
        ids in prop::collection::vec(0_u32..4, 0..30),
        seed in prop::collection::vec(0_usize..9, 30),
    ) {
        let n = ids.iter().filter(|&&id| id == 3).count();
        let out = expand_images(&ids, 3, &seed[..n]).unwrap();
        prop_assert_eq!(out.iter().filter(|&&id| id == 3).count(), seed[..n].iter().sum::<usize>());
        let others = |ids: &[u32]| ids.iter().copied().filter(|&id| id != 3).collect::<Vec<_>>();
        prop_assert_eq!(others(&out), others(&ids));
    }

    #[test]
    fn mutated_tokenizers_do_not_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let mut bytes = TOKENIZER_JSON.to_vec();
        let at = at.index(bytes.len());
        bytes[at] = value;
        if let Ok(tokenizer) = Tokenizer::from_json(&bytes) {
            let _ = tokenizer.encode("Where is <|image_pad|>?");
        }
    }
}
