//! Resolves `#import name` lines, one level deep.

/// Why a file could not be linked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The name is not in the table: correct the import.
    #[error("unknown import `{0}`")]
    Unknown(String),
    /// The name is imported twice: remove one.
    #[error("`{0}` is imported twice")]
    Twice(String),
    /// An imported file has imports itself: import both from the kernel.
    #[error("`{0}` has imports of its own; the linker goes one level deep")]
    Nested(String),
}

/// Replaces each `#import name` line of `text` by the file of that name in `shared`.
///
/// # Errors
/// [`LinkError`] for an unknown, repeated or nested import.
pub fn link(text: &str, shared: &[(&str, &str)]) -> Result<String, LinkError> {
    let mut linked = String::with_capacity(text.len());
    let mut seen = Vec::new();
    for line in text.lines() {
        let Some(name) = line.strip_prefix("#import ") else {
            linked.push_str(line);
            linked.push('\n');
            continue;
        };
        let name = name.trim();
        if seen.contains(&name) {
            return Err(LinkError::Twice(name.into()));
        }
        seen.push(name);
        let (_, file) = shared
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| LinkError::Unknown(name.into()))?;
        if file.lines().any(|l| l.starts_with("#import ")) {
            return Err(LinkError::Nested(name.into()));
        }
        linked.push_str(file);
    }
    Ok(linked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARED: &[(&str, &str)] = &[("a", "const A: u32 = 1u;\n"), ("b", "#import a\n")];

    #[test]
    fn replaces_an_import_by_its_file() {
        assert_eq!(
            link("#import a\nfn f() {}", SHARED).unwrap(),
            "const A: u32 = 1u;\nfn f() {}\n"
        );
    }

    #[test]
    fn refuses_unknown_double_and_nested_imports() {
        assert_eq!(link("#import c", SHARED), Err(LinkError::Unknown("c".into())));
        assert_eq!(link("#import a\n#import a", SHARED), Err(LinkError::Twice("a".into())));
        assert_eq!(link("#import b", SHARED), Err(LinkError::Nested("b".into())));
    }
}
