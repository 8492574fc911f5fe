//! A model folder that JavaScript holds.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use globe_format::{Files, Source};
use js_sys::{Promise, Uint8Array};
use wasm_bindgen::prelude::{JsCast, JsValue, wasm_bindgen};
use wasm_bindgen_futures::JsFuture;

#[wasm_bindgen]
extern "C" {
    /// A folder: `open(name)` promises a file, or null if the folder has none of that name.
    pub type JsFiles;
    #[wasm_bindgen(method, catch)]
    fn open(this: &JsFiles, name: &str) -> Result<Promise, JsValue>;

    /// A file: its `size` in bytes, and `read(start, end)`, which promises a `Uint8Array`.
    pub type JsFile;
    #[wasm_bindgen(method, getter)]
    fn size(this: &JsFile) -> f64;
    #[wasm_bindgen(method, catch)]
    fn read(this: &JsFile, start: f64, end: f64) -> Result<Promise, JsValue>;
}

/// The first thing JavaScript threw: a typed error that `io::Error` would flatten to text.
type Thrown = Rc<RefCell<Option<JsValue>>>;

/// The folder as the loader reads it.
pub(crate) struct Folder {
    files: JsFiles,
    thrown: Thrown,
}

impl Folder {
    pub(crate) fn new(files: JsFiles) -> Self {
        Self { files, thrown: Rc::default() }
    }

    /// What JavaScript threw, if it threw.
    pub(crate) fn thrown(&self) -> Option<JsValue> {
        self.thrown.take()
    }
}

/// One file of the folder.
pub(crate) struct File {
    file: JsFile,
    thrown: Thrown,
}

impl Files for Folder {
    type Source = File;

    async fn open(&self, name: &str) -> io::Result<Option<File>> {
        let file = settled(self.files.open(name), &self.thrown).await?;
        if file.is_null() || file.is_undefined() {
            return Ok(None);
        }
        Ok(Some(File { file: file.unchecked_into(), thrown: self.thrown.clone() }))
    }
}

impl Source for File {
    fn size_bytes(&self) -> u64 {
        self.file.size() as u64
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        let promise = self.file.read(range.start as f64, range.end as f64);
        let bytes = settled(promise, &self.thrown).await?;
        let bytes: Uint8Array = bytes.dyn_into().map_err(|_| io::Error::other("not bytes"))?;
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

async fn settled(promise: Result<Promise, JsValue>, thrown: &Thrown) -> io::Result<JsValue> {
    let result = match promise {
        Ok(promise) => JsFuture::from(promise).await,
        Err(error) => Err(error),
    };
    result.map_err(|error| {
        let text = String::from(js_sys::Error::from(error.clone()).message());
        thrown.borrow_mut().get_or_insert(error);
        io::Error::other(text)
    })
}
