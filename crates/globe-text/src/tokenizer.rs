//! Text to token ids and back, from `tokenizer.json`.

use globe_format::{Files, read_file};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    json::bad,
};

/// File the tokenizer is read from.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

pub(crate) const IM_END: &str = "<|im_end|>";

/// What the decoder puts in place of bytes that are not, or not yet, a character.
const REPLACEMENT: char = '\u{fffd}';

/// A tokenizer whose decoder is byte-level, or absent.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    byte_level: bool,
    /// The token with the highest id.
    last: (String, u32),
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model folder.
    pub async fn load<F: Files>(files: &F) -> Result<Self> {
        let json = read_file(files, TOKENIZER_FILE).await?;
        let absent = || globe_format::Error::NotFound { file: TOKENIZER_FILE.into() };
        Self::from_json(&json.ok_or_else(absent)?)
    }

    /// A tokenizer from the bytes of `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let byte_level = check_shape(json)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| bad(TOKENIZER_FILE, error.to_string()))?;
        // A file may ask to cut or fill every text; a prompt must arrive as it is.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(tokenize)?;
        let last = inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
        let last = last.ok_or_else(|| bad(TOKENIZER_FILE, "the vocabulary is empty".into()))?;
        Ok(Self { inner, byte_level, last })
    }

    /// Ids of `text`. Special tokens written in it are recognised.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.inner.encode_fast(text, true).map_err(tokenize)?.get_ids().to_vec())
    }

    /// Text of `ids`. Ids that are no token, such as the padding rows of an embedding, are empty.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.decode(ids, skip_special).map_err(tokenize)
    }

    /// Decodes ids as they are sampled.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer<'_> {
        Detokenizer { tokenizer: self, skip_special, pending: Vec::new(), emitted: 0 }
    }

    /// Id of the token with exactly this text.
    pub fn id(&self, token: &str) -> Result<u32> {
        self.inner.token_to_id(token).ok_or_else(|| Error::MissingToken { token: token.into() })
    }

    /// The token with this id, in the spelling of the vocabulary.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// One more than the highest id.
    pub fn vocab_size(&self) -> usize {
        self.last.1 as usize + 1
    }

    /// Checks that a model with `model_vocab` embedding rows has one for every token.
    pub fn check_vocab(&self, model_vocab: usize) -> Result<()> {
        if self.vocab_size() <= model_vocab {
            return Ok(());
        }
        let (token, id) = self.last.clone();
        Err(Error::VocabTooLarge { token, id, model_vocab })
    }
}

/// Ids to text, one at a time: a token may end within a character, which is then held back.
///
/// All parts joined, [`Detokenizer::finish`] included, equal [`Tokenizer::decode`] of all ids. A
/// byte-level decoder lets the text be cut after any whole character; without one, spaces stand
/// between tokens, so all ids are decoded again and what is new comes out.
#[derive(Clone, Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// Ids whose text is not complete yet; all of them without a byte-level decoder.
    pending: Vec<u32>,
    /// Bytes of the text of `pending` that came out already.
    emitted: usize,
}

impl Detokenizer<'_> {
    /// The text that `id` completes, often one word, sometimes nothing.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.pending.push(id);
        let text = self.tokenizer.decode(&self.pending, self.skip_special)?;
        if text.ends_with(REPLACEMENT) {
            return Ok(String::new());
        }
        let new = text.get(self.emitted..).unwrap_or_default().to_owned();
        if self.tokenizer.byte_level {
            self.pending.clear();
        } else {
            self.emitted = text.len();
        }
        Ok(new)
    }

    /// The text still held back, with a replacement character for bytes that never completed.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.pending, self.skip_special)?;
        Ok(text.get(self.emitted..).unwrap_or_default().to_owned())
    }
}

/// The parts of `tokenizer.json` that are checked before the library sees it.
#[derive(Deserialize)]
struct Shape {
    normalizer: Option<Value>,
    decoder: Option<Value>,
}

/// Whether the decoder is byte-level. Refuses what the library would panic on, which is any wrong
/// syntax inside another decoder and a damaged `Precompiled` normalizer.
fn check_shape(json: &[u8]) -> Result<bool> {
    let shape: Shape =
        serde_json::from_slice(json).map_err(|error| bad(TOKENIZER_FILE, error.to_string()))?;
    let normalizer = shape.normalizer.unwrap_or_default().to_string();
    let decoder = shape.decoder.unwrap_or_default();
    let byte_level = decoder["type"] == "ByteLevel";
    if normalizer.contains("Precompiled") || !(byte_level || decoder.is_null()) {
        return Err(Error::NotByteLevel);
    }
    Ok(byte_level)
}

fn tokenize(error: tokenizers::Error) -> Error {
    Error::Tokenize { reason: error.to_string() }
}
