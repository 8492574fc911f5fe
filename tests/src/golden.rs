//! The committed checkpoints and what transformers computed with them.

use std::path::PathBuf;

use globe_format::{Checkpoint, Folder, Mapped};
use globe_image::{DecodeLimits, Photo, decode};
use globe_text::Prompt;
use serde_json::Value;

/// Every committed checkpoint.
pub const GOLDENS: [&str; 7] =
    ["untied", "tied", "window56", "window112", "two_images", "deep", "head128"];

/// One checkpoint folder with its expected values.
pub struct Golden {
    /// Name of the folder.
    pub name: &'static str,
    /// The model folder.
    pub folder: Folder,
    /// Facts about the run.
    pub facts: Value,
    expected: Checkpoint<Mapped>,
}

/// `tests/golden` in the repository.
pub fn golden_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

/// The program `globe`, which `cargo test` alone does not build for the tests of another package.
///
/// # Panics
/// If it was not built.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test is a file");
    let name = format!("globe{}", std::env::consts::EXE_SUFFIX);
    let program = test.ancestors().nth(2).expect("tests are in a folder beside it").join(name);
    assert!(program.is_file(), "{} is missing: cargo build --workspace first", program.display());
    program
}

impl Golden {
    /// Opens a committed checkpoint.
    ///
    /// # Panics
    /// If its files are absent or damaged.
    pub fn open(name: &'static str) -> Self {
        let path = golden_root().join(name);
        let folder = Folder::open(&path).expect("a committed folder");
        let facts = std::fs::read(path.join("golden.json")).expect("golden.json");
        let facts = serde_json::from_slice(&facts).expect("golden.json is JSON");
        let expected = Checkpoint::open_file(&folder, "golden.safetensors");
        let expected = pollster::block_on(expected).expect("golden.safetensors");
        Self { name, folder, facts, expected }
    }

    /// An expected float tensor.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        pollster::block_on(self.expected.read_f32(name)).expect("an expected tensor")
    }

    /// An expected integer tensor.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn ints(&self, name: &str) -> Vec<i32> {
        let bytes = pollster::block_on(self.expected.read_bytes(name)).expect("an expected tensor");
        bytes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect()
    }

    /// Whether a tensor of that name is expected.
    pub fn has(&self, name: &str) -> bool {
        self.expected.info(name).is_some()
    }

    /// The photos of the prompt.
    ///
    /// # Panics
    /// If one is absent or damaged.
    pub fn photos(&self) -> Vec<Photo> {
        let names = self.facts["images"].as_array().expect("a list of images");
        names
            .iter()
            .map(|name| {
                let name = name.as_str().expect("a file name");
                let bytes = std::fs::read(golden_root().join(name)).expect("a committed image");
                decode(&bytes, &DecodeLimits::default()).expect("an image")
            })
            .collect()
    }

    /// The prompt with images.
    ///
    /// # Panics
    /// If golden.json has none.
    pub fn prompt(&self) -> Prompt {
        Prompt { system: self.facts["system"].as_str().map(Into::into), user: self.fact("prompt") }
    }

    /// The prompt without images; the template decides about the system message.
    ///
    /// # Panics
    /// If golden.json has none.
    pub fn text_only_prompt(&self) -> Prompt {
        Prompt { system: None, user: self.fact("text_only_prompt") }
    }

    fn fact(&self, field: &str) -> String {
        self.facts[field].as_str().expect("a text in golden.json").into()
    }
}
