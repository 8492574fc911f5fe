//! Files of a packed folder that are not what the manifest says, all in one report.

use std::fmt;

use crate::listing::Listing;

/// What is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is absent.
    Missing,
    /// It is shorter or longer.
    Size {
        /// Bytes in the manifest.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// Its bytes are not those that were written.
    Digest {
        /// SHA-256 in the manifest.
        expected: String,
        /// SHA-256 of the bytes.
        found: String,
    },
}

/// Every damaged file of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DamageReport {
    /// Files with what is wrong, in the order of the manifest.
    pub files: Vec<(String, Damage)>,
    /// Files looked at.
    pub checked: usize,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Size { expected, found } if found < expected => {
                write!(f, "truncated: expected {expected} bytes, found {found}")
            }
            Self::Size { expected, found } => {
                write!(f, "too long: expected {expected} bytes, found {found}")
            }
            Self::Digest { expected, found } => {
                write!(f, "changed: expected sha256 {expected}, found {found}")
            }
        }
    }
}

impl fmt::Display for DamageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> =
            self.files.iter().map(|(name, damage)| format!("{name}: {damage}")).collect();
        write!(
            f,
            "{} of {} files are damaged; download them again, or delete the folder and convert \
             again:{}",
            lines.len(),
            self.checked,
            Listing(&lines)
        )
    }
}
