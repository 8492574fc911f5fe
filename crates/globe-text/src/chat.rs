//! Messages to prompt text by the checkpoint's own chat template, with the rules of Python.

use std::{collections::BTreeMap, fmt};

use globe_format::{Files, read_file};
use minijinja::{
    Environment, ErrorKind,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde, Value},
};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::Map;

use crate::{
    error::{Error, Result},
    json::{bad, read_object},
    strftime::strftime,
};

const BUILT_IN: &str = include_str!("../templates/chatml.jinja");

/// Steps a template may take. A template is code from a download; ours take a few hundred.
const FUEL: u64 = 10_000_000;

/// Name of the template in its environment; without an ending, nothing is escaped as HTML.
const NAME: &str = "chat_template";

/// Tokens a template may print by name, read from `tokenizer_config.json`.
const TOKEN_FIELDS: [&str; 4] = ["bos_token", "eos_token", "pad_token", "unk_token"];

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Standing instructions.
    System,
    /// The question.
    User,
    /// The answer, in examples and training texts.
    Assistant,
}

/// One part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", content = "text", rename_all = "lowercase")]
pub enum Content {
    /// An image, rendered as a placeholder.
    Image,
    /// Text, rendered as it is.
    Text(String),
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// Parts in order.
    pub content: Vec<Content>,
}

impl Message {
    /// A message of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, content: vec![Content::Text(text.into())] }
    }
}

/// System and assistant messages are one string where possible, because many templates accept
/// nothing else there; user messages are a list of parts.
impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut message = serializer.serialize_struct("Message", 2)?;
        message.serialize_field("role", &self.role)?;
        match (self.role, self.content.as_slice()) {
            (Role::System | Role::Assistant, [Content::Text(text)]) => {
                message.serialize_field("content", text)?;
            }
            (_, parts) => message.serialize_field("content", parts)?,
        }
        message.end()
    }
}

/// Where a chat template came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemplateSource {
    /// `chat_template.jinja`.
    Jinja,
    /// `chat_template.json`.
    Json,
    /// `tokenizer_config.json`.
    TokenizerConfig,
    /// No file has one: the ChatML of Qwen2.5-VL, built in.
    BuiltIn,
}

impl TemplateSource {
    /// File name, or `built-in`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jinja => "chat_template.jinja",
            Self::Json => "chat_template.json",
            Self::TokenizerConfig => "tokenizer_config.json",
            Self::BuiltIn => "built-in",
        }
    }
}

impl fmt::Display for TemplateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A parsed chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    env: Environment<'static>,
    source: TemplateSource,
    tokens: BTreeMap<&'static str, String>,
}

impl ChatTemplate {
    /// The template of a model folder: the first of `chat_template.jinja`, `chat_template.json`
    /// and `tokenizer_config.json`, else the built-in one. [`ChatTemplate::source`] says which.
    pub async fn load<F: Files>(files: &F) -> Result<Self> {
        let config = read_object(files, TemplateSource::TokenizerConfig.name()).await?;
        let config = config.unwrap_or_default();
        let (text, source) = find(files, &config).await?;
        let mut template = Self::new(text, source)?;
        template.tokens = tokens(&config);
        Ok(template)
    }

    /// The ChatML of Qwen2.5-VL in our wording.
    pub fn built_in() -> Result<Self> {
        Self::new(BUILT_IN.into(), TemplateSource::BuiltIn)
    }

    /// Parses a template; `source` is how errors call it.
    pub fn new(template: String, source: TemplateSource) -> Result<Self> {
        let mut env = environment();
        env.add_template_owned(NAME, template).map_err(|error| {
            let (line, reason) = explain(&error);
            Error::TemplateSyntax { source_file: source, line, reason }
        })?;
        Ok(Self { env, source, tokens: BTreeMap::new() })
    }

    /// Sets the time that `strftime_now` prints, in UTC. Without it, a template that prints the
    /// date is refused, so that prompts stay reproducible.
    pub fn with_now(mut self, unix_s: i64) -> Self {
        self.env.add_function("strftime_now", move |format: String| {
            strftime(&format, unix_s).map_err(|directive| {
                invalid(format!("strftime_now: directive `{directive}` is not supported"))
            })
        });
        self
    }

    /// Where the template came from.
    pub fn source(&self) -> TemplateSource {
        self.source
    }

    /// The prompt: all messages, then the start of the assistant's turn.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        self.render_turns(messages, true)
    }

    /// All messages, and the start of the assistant's turn where asked for.
    pub fn render_turns(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String> {
        let mut context: BTreeMap<&str, Value> =
            self.tokens.iter().map(|(name, token)| (*name, Value::from(token.as_str()))).collect();
        context.insert("messages", Value::from(Serde(messages)));
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        let template = self.env.get_template(NAME).map_err(|error| self.failed(&error))?;
        template.render(Value::from_pairs(context)).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &minijinja::Error) -> Error {
        let (line, reason) = explain(error);
        Error::TemplateRender { source_file: self.source, line, reason }
    }
}

/// The settings transformers gives Jinja.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    env.set_syntax(syntax.expect("only delimiters can be invalid, and they are the stock ones"));
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.add_filter("tojson", to_json);
    env.add_function("raise_exception", |message: String| -> std::result::Result<(), _> {
        Err(invalid(message))
    });
    env.add_function("strftime_now", |_: String| -> std::result::Result<(), _> {
        Err(invalid("prints the date, but the caller set none".into()))
    });
    env
}

/// Like `json.dumps(value, ensure_ascii=False, indent=indent)`: nothing is escaped as HTML.
fn to_json(value: &Value, kwargs: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    if kwargs.get::<Option<bool>>("ensure_ascii")? == Some(true) {
        return Err(invalid("tojson: ensure_ascii=true is not supported".into()));
    }
    kwargs.assert_all_used()?;
    let mut out = Vec::new();
    let written = match indent {
        Some(n) => {
            let indent = " ".repeat(n.min(16));
            let format = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, format))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
    };
    written.map_err(|error| invalid(format!("tojson: {error}")))?;
    String::from_utf8(out).map_err(|error| invalid(format!("tojson: {error}")))
}

/// Python's separators: a space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W>(&mut self, writer: &mut W) -> std::io::Result<()>
    where
        W: ?Sized + std::io::Write,
    {
        writer.write_all(b": ")
    }
}

/// The first template there is, and its source.
async fn find<F: Files>(
    files: &F,
    config: &Map<String, serde_json::Value>,
) -> Result<(String, TemplateSource)> {
    let jinja = TemplateSource::Jinja.name();
    if let Some(bytes) = read_file(files, jinja).await? {
        let text = String::from_utf8(bytes).map_err(|error| bad(jinja, error.to_string()))?;
        return Ok((text, TemplateSource::Jinja));
    }
    let json = TemplateSource::Json;
    if let Some(object) = read_object(files, json.name()).await? {
        let missing = || bad(json.name(), "no field `chat_template`".into());
        return Ok((template_field(json.name(), &object)?.ok_or_else(missing)?, json));
    }
    let source = TemplateSource::TokenizerConfig;
    Ok(match template_field(source.name(), config)? {
        Some(text) => (text, source),
        None => (BUILT_IN.into(), TemplateSource::BuiltIn),
    })
}

/// `chat_template` as one text, or the one named `default` of a list.
fn template_field(file: &str, object: &Map<String, serde_json::Value>) -> Result<Option<String>> {
    let named = match object.get("chat_template") {
        None | Some(serde_json::Value::Null) => return Ok(None),
        Some(serde_json::Value::String(text)) => return Ok(Some(text.clone())),
        Some(serde_json::Value::Array(named)) => named.as_slice(),
        Some(_) => return Err(bad(file, "chat_template is neither text nor a list".into())),
    };
    let default = named.iter().find(|entry| entry["name"] == "default");
    match default.and_then(|entry| entry["template"].as_str()) {
        Some(text) => Ok(Some(text.into())),
        None => Err(bad(file, "chat_template has no template named `default`".into())),
    }
}

/// Special tokens by field, each a text or an object with `content`.
fn tokens(config: &Map<String, serde_json::Value>) -> BTreeMap<&'static str, String> {
    let text = |field: &str| {
        let value = config.get(field)?;
        Some(value.as_str().or_else(|| value["content"].as_str())?.to_string())
    };
    TOKEN_FIELDS.into_iter().filter_map(|field| Some((field, text(field)?))).collect()
}

/// Line and reason, down to the innermost cause.
fn explain(error: &minijinja::Error) -> (usize, String) {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_string);
    (error.line().unwrap_or(0), reason)
}

fn invalid(reason: String) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, reason)
}
