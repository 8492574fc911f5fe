//! The prompt contract: fixed wordings a model was trained or measured with.
//!
//! A wording is part of the model, so it never changes in place: a new one gets a new file and
//! version, and [`Prompt::sha256`] goes into every result.

use sha2::{Digest, Sha256};

use crate::chat::{Content, Message, Role};

const SYSTEM: &str = include_str!("../prompts/system.txt");
const REASON_V1: &str = include_str!("../prompts/reason-v1.txt");
const DIRECT_V1: &str = include_str!("../prompts/direct-v1.txt");

/// What the model is asked, apart from the images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// System message; without one, the chat template decides.
    pub system: Option<String>,
    /// Text after the images.
    pub user: String,
}

impl Prompt {
    /// Reasoning in `<think>`, then country and city in `<answer>`. Version 1.
    pub fn reason() -> Self {
        Self::stock(REASON_V1)
    }

    /// Country and city in `<answer>`, without reasoning. Version 1.
    pub fn direct() -> Self {
        Self::stock(DIRECT_V1)
    }

    fn stock(user: &str) -> Self {
        Self { system: Some(SYSTEM.trim_end().into()), user: user.trim_end().into() }
    }

    /// The conversation: the system message, then `n_images` images and the text.
    pub fn messages(&self, n_images: usize) -> Vec<Message> {
        let system = self.system.as_ref().map(|text| Message::text(Role::System, text.as_str()));
        let images = std::iter::repeat_n(Content::Image, n_images);
        let content = images.chain([Content::Text(self.user.clone())]).collect();
        system.into_iter().chain([Message { role: Role::User, content }]).collect()
    }

    /// Hash of the wording in lower-case hexadecimal. Lengths are hashed as well, so that text
    /// moved between the two fields changes it.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for text in [self.system.as_deref(), Some(&self.user)] {
            // u64::MAX is the length of no text: an absent message differs from an empty one.
            let length = text.map_or(u64::MAX, |text| text.len() as u64);
            hash.update(length.to_le_bytes());
            hash.update(text.unwrap_or_default());
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failure means a published wording changed: add a version instead.
    #[test]
    fn wordings_are_frozen() {
        assert_eq!(
            Prompt::reason().sha256(),
            "29e3837100db710ada9b184b645de26faca55a88fcef130289365a7a8f92c1b7"
        );
        assert_eq!(
            Prompt::direct().sha256(),
            "c0bcfc7621c695ad39d831517c766418071ddc22903abc44f54afa843799008a"
        );
    }

    #[test]
    fn wordings_state_the_answer_format() {
        for prompt in [Prompt::reason(), Prompt::direct()] {
            assert!(prompt.user.ends_with("</answer>"));
            assert!(
                prompt.user.contains("<answer>\ncountry: <") && prompt.user.contains("\ncity: <")
            );
            assert!(!prompt.user.contains('\r') && !prompt.user.contains("<|"));
        }
        assert!(Prompt::reason().user.contains("</think>\n<answer>"));
        assert!(!Prompt::direct().user.contains("think"));
    }

    #[test]
    fn the_hash_separates_fields() {
        let prompt = |system: Option<&str>, user: &str| {
            Prompt { system: system.map(Into::into), user: user.into() }.sha256()
        };
        let hashes = [
            prompt(None, "ab"),
            prompt(Some(""), "ab"),
            prompt(Some("a"), "b"),
            prompt(Some("ab"), ""),
        ];
        for (i, hash) in hashes.iter().enumerate() {
            assert_eq!(hash.len(), 64);
            assert!(!hashes[..i].contains(hash), "{i}");
        }
    }

    #[test]
    fn messages_put_images_first() {
        let messages = Prompt::reason().messages(2);
        assert_eq!(messages[0], Message::text(Role::System, "You are a helpful assistant."));
        assert_eq!(messages[1].content[..2], [Content::Image, Content::Image]);
        assert_eq!(messages[1].content[2], Content::Text(Prompt::reason().user));
        let bare = Prompt { system: None, user: "x".into() };
        assert_eq!(bare.messages(0), [Message::text(Role::User, "x")]);
    }
}
