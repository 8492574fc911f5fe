//! Where bytes come from: one file ([`Source`]) and a folder of them ([`Files`]).

use std::{borrow::Cow, collections::BTreeMap, future::Future, io, ops::Range, sync::Arc};

use crate::error::{Error, Result};

/// Most bytes [`read_file`] accepts: four times the largest `tokenizer.json` in use.
pub const MAX_WHOLE_FILE_BYTES: u64 = 128 << 20;

/// The bytes of one file.
///
/// A memory map answers at once with borrowed bytes; a browser answers later with owned ones.
/// Futures need not be `Send`, because those of a browser are not.
pub trait Source {
    /// Size of the file in bytes.
    fn size_bytes(&self) -> u64;

    /// Exactly the bytes of `range`.
    fn read(&self, range: Range<u64>) -> impl Future<Output = io::Result<Cow<'_, [u8]>>>;
}

/// The files of a model folder, by plain name.
pub trait Files {
    /// What an opened file is.
    type Source: Source;

    /// The file called `name`, or `None` when the folder has no such file.
    fn open(&self, name: &str) -> impl Future<Output = io::Result<Option<Self::Source>>>;
}

impl Source for &[u8] {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        slice(self, range).map(Cow::Borrowed)
    }
}

impl Source for Vec<u8> {
    fn size_bytes(&self) -> u64 {
        self.len() as u64
    }

    async fn read(&self, range: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
        slice(self, range).map(Cow::Borrowed)
    }
}

impl<S: Source> Source for Arc<S> {
    fn size_bytes(&self) -> u64 {
        S::size_bytes(self)
    }

    fn read(&self, range: Range<u64>) -> impl Future<Output = io::Result<Cow<'_, [u8]>>> {
        S::read(self, range)
    }
}

/// `range` of `bytes`, or an error when it leaves them.
pub(crate) fn slice(bytes: &[u8], range: Range<u64>) -> io::Result<&[u8]> {
    let bounds = usize::try_from(range.start).ok().zip(usize::try_from(range.end).ok());
    bounds.and_then(|(start, end)| bytes.get(start..end)).ok_or_else(|| {
        let reason = format!("bytes {range:?} of a file of {}", bytes.len());
        io::Error::new(io::ErrorKind::UnexpectedEof, reason)
    })
}

/// A model folder held in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles(BTreeMap<String, Arc<Vec<u8>>>);

impl MemoryFiles {
    /// Adds or replaces one file.
    pub fn insert(&mut self, name: impl Into<String>, bytes: Vec<u8>) {
        self.0.insert(name.into(), Arc::new(bytes));
    }
}

impl From<BTreeMap<String, Vec<u8>>> for MemoryFiles {
    fn from(files: BTreeMap<String, Vec<u8>>) -> Self {
        files.into_iter().collect()
    }
}

impl<N: Into<String>> FromIterator<(N, Vec<u8>)> for MemoryFiles {
    fn from_iter<I: IntoIterator<Item = (N, Vec<u8>)>>(files: I) -> Self {
        Self(files.into_iter().map(|(name, bytes)| (name.into(), Arc::new(bytes))).collect())
    }
}

impl Files for MemoryFiles {
    type Source = Arc<Vec<u8>>;

    async fn open(&self, name: &str) -> io::Result<Option<Self::Source>> {
        Ok(self.0.get(name).cloned())
    }
}

/// All bytes of the small file `name`, or `None` when the folder lacks it.
///
/// For configurations, tokenizers and templates; more than [`MAX_WHOLE_FILE_BYTES`] is an error.
pub async fn read_file<F: Files>(files: &F, name: &str) -> Result<Option<Vec<u8>>> {
    let Some(source) = open(files, name).await? else {
        return Ok(None);
    };
    let size = source.size_bytes();
    if size > MAX_WHOLE_FILE_BYTES {
        return Err(Error::FileTooLarge { file: name.into(), size, limit: MAX_WHOLE_FILE_BYTES });
    }
    Ok(Some(read(&source, name, 0..size).await?.into_owned()))
}

/// Opens `name`, with the name in the error.
pub(crate) async fn open<F: Files>(files: &F, name: &str) -> Result<Option<F::Source>> {
    files.open(name).await.map_err(|source| Error::Open { file: name.into(), source })
}

/// Reads `range`, with the file in the error, and refuses an answer of another length.
pub(crate) async fn read<'a, S: Source>(
    source: &'a S,
    file: &str,
    range: Range<u64>,
) -> Result<Cow<'a, [u8]>> {
    let fail =
        |source| Error::Read { file: file.into(), start: range.start, end: range.end, source };
    let bytes = source.read(range.clone()).await.map_err(fail)?;
    if bytes.len() as u64 != range.end.saturating_sub(range.start) {
        let reason = format!("got {} bytes", bytes.len());
        return Err(fail(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
    }
    Ok(bytes)
}

/// True when `name` stays inside its folder on every platform.
pub(crate) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && !matches!(name, "." | "..")
        && !name.contains(['/', '\\', ':'])
        && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_borrow_and_refuse_ranges_outside() {
        let bytes: &[u8] = &[1, 2, 3];
        let got = pollster::block_on(bytes.read(1..3)).unwrap();
        assert!(matches!(got, Cow::Borrowed([2, 3])));
        for range in [2..4, u64::MAX - 1..u64::MAX, Range { start: 2, end: 1 }] {
            let error = pollster::block_on(bytes.read(range)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    struct Short;

    impl Source for Short {
        fn size_bytes(&self) -> u64 {
            16
        }

        async fn read(&self, _: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
            Ok(Cow::Owned(vec![0; 3]))
        }
    }

    #[test]
    fn a_short_answer_is_an_error() {
        let error = pollster::block_on(read(&Short, "x.bin", 0..16)).unwrap_err();
        assert_eq!(error.to_string(), "x.bin: cannot read bytes 0..16: got 3 bytes");
    }

    struct Huge;

    impl Source for Huge {
        fn size_bytes(&self) -> u64 {
            u64::MAX
        }

        async fn read(&self, _: Range<u64>) -> io::Result<Cow<'_, [u8]>> {
            unreachable!("refused by size")
        }
    }

    impl Files for Huge {
        type Source = Self;

        async fn open(&self, name: &str) -> io::Result<Option<Self>> {
            match name {
                "denied" => Err(io::ErrorKind::PermissionDenied.into()),
                _ => Ok(Some(Self)),
            }
        }
    }

    #[test]
    fn read_file_reports_size_absence_and_refusal() {
        let error = pollster::block_on(read_file(&Huge, "config.json")).unwrap_err();
        assert!(matches!(error, Error::FileTooLarge { size: u64::MAX, .. }));
        let error = pollster::block_on(read_file(&Huge, "denied")).unwrap_err();
        assert!(error.to_string().starts_with("denied: cannot open: "));

        let files = MemoryFiles::from(BTreeMap::from([("a".to_string(), vec![7])]));
        assert_eq!(pollster::block_on(read_file(&files, "a")).unwrap(), Some(vec![7]));
        assert_eq!(pollster::block_on(read_file(&files, "b")).unwrap(), None);
    }

    #[test]
    fn plain_names() {
        for good in ["model.safetensors", "..a", "a b"] {
            assert!(is_plain_name(good), "{good}");
        }
        for bad in ["", ".", "..", "../a", "/a", "a/b", "a\\b", "c:a", "a\0", "a\n"] {
            assert!(!is_plain_name(bad), "{bad:?}");
        }
    }
}
