//! Display names and folded keys of one table, with exact and one-typo lookup.

use std::ops::Range;

/// Shorter keys have too many neighbours: `Paris` is one letter from `Parys` and `Pari`.
const MIN_TYPO_CHARS: usize = 6;

/// Names of the rows of a table; row `i` is owner `i`.
#[derive(Debug)]
pub(crate) struct Names {
    text: String,
    display: Vec<Span>,
    keys: Vec<Key>,
    /// `hash << 32 | key index`, sorted: the index of exact lookups.
    order: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug, Clone, Copy)]
struct Key {
    span: Span,
    owner: u32,
    primary: bool,
}

/// A row that bears the key looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hit {
    pub owner: u32,
    /// The key is the row's own name, not an alternate.
    pub primary: bool,
}

impl Names {
    /// Lines of `text`: per row its display name, then `n_keys[row]` keys, the primary one first.
    /// An empty line stands for the display name in ASCII lower case. None if the counts differ.
    pub(crate) fn read(text: &str, n_keys: &[u32]) -> Option<Self> {
        let total: u64 = n_keys.iter().map(|&n| u64::from(n)).sum();
        // Every key takes a byte at least, so this also bounds the allocation.
        if total > text.len() as u64 {
            return None;
        }
        let mut names = Self {
            text: text.to_owned(),
            display: Vec::with_capacity(n_keys.len()),
            keys: Vec::with_capacity(total as usize),
            order: Vec::new(),
        };
        let mut at = 0;
        for (owner, &n) in n_keys.iter().enumerate() {
            let display = next_line(text, &mut at)?;
            names.display.push(span(&display)?);
            for i in 0..n {
                let line = next_line(text, &mut at)?;
                let span = names.key_span(&display, line)?;
                names.keys.push(Key { span, owner: owner as u32, primary: i == 0 });
            }
        }
        if at != text.len() {
            return None;
        }
        names.order = names.hashed();
        Some(names)
    }

    fn key_span(&mut self, display: &Range<usize>, line: Range<usize>) -> Option<Span> {
        if !line.is_empty() {
            return span(&line);
        }
        let start = self.text.len();
        let lower = self.text[display.clone()].to_ascii_lowercase();
        self.text.push_str(&lower);
        span(&(start..self.text.len()))
    }

    fn hashed(&self) -> Vec<u64> {
        let mut order: Vec<u64> = self
            .keys
            .iter()
            .enumerate()
            .map(|(i, key)| u64::from(hash(self.slice(key.span))) << 32 | i as u64)
            .collect();
        order.sort_unstable();
        order
    }

    fn slice(&self, span: Span) -> &str {
        &self.text[span.start as usize..span.end as usize]
    }

    /// The name shown for a row.
    pub(crate) fn display(&self, owner: u32) -> &str {
        self.slice(self.display[owner as usize])
    }

    /// Rows with exactly this key.
    pub(crate) fn find<'a>(&'a self, key: &'a str) -> impl Iterator<Item = Hit> + 'a {
        let hash = u64::from(hash(key)) << 32;
        let first = self.order.partition_point(|&o| o < hash);
        self.order[first..]
            .iter()
            .take_while(move |&&o| o >> 32 == hash >> 32)
            .map(|&o| &self.keys[(o & 0xFFFF_FFFF) as usize])
            .filter(move |k| self.slice(k.span) == key)
            .map(|k| Hit { owner: k.owner, primary: k.primary })
    }

    /// Rows with a key one insertion, deletion, substitution or transposition away, for keys long
    /// enough. A scan of all keys: only for names that are not found exactly.
    pub(crate) fn find_with_typo(&self, key: &str) -> Vec<Hit> {
        if key.chars().count() < MIN_TYPO_CHARS {
            return Vec::new();
        }
        self.keys
            .iter()
            .filter(|k| one_edit_apart(key, self.slice(k.span)))
            .map(|k| Hit { owner: k.owner, primary: k.primary })
            .collect()
    }
}

fn next_line(text: &str, at: &mut usize) -> Option<Range<usize>> {
    let start = *at;
    let len = text[start..].bytes().position(|b| b == b'\n')?;
    *at = start + len + 1;
    Some(start..start + len)
}

fn span(range: &Range<usize>) -> Option<Span> {
    Some(Span { start: u32::try_from(range.start).ok()?, end: u32::try_from(range.end).ok()? })
}

/// FNV-1a: short keys, no adversary, the same on every platform.
fn hash(key: &str) -> u32 {
    key.bytes().fold(0x811C_9DC5, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}

/// Damerau-Levenshtein distance of exactly 1, in characters.
fn one_edit_apart(a: &str, b: &str) -> bool {
    // A character is 4 bytes at most.
    if a.len().abs_diff(b.len()) > 4 || a == b {
        return false;
    }
    let (a, b) = without_common_ends(a, b);
    let (mut a, mut b) = (a.chars(), b.chars());
    match (a.next(), a.next(), b.next(), b.next()) {
        (Some(a0), Some(a1), Some(b0), Some(b1)) => {
            a0 == b1 && a1 == b0 && a.next().is_none() && b.next().is_none()
        }
        (_, None, _, None) => true,
        _ => false,
    }
}

fn without_common_ends<'a>(a: &'a str, b: &'a str) -> (&'a str, &'a str) {
    let mut start = a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count();
    while !(a.is_char_boundary(start) && b.is_char_boundary(start)) {
        start -= 1;
    }
    let (a, b) = (&a[start..], &b[start..]);
    let mut end = a.bytes().rev().zip(b.bytes().rev()).take_while(|(x, y)| x == y).count();
    while !(a.is_char_boundary(a.len() - end) && b.is_char_boundary(b.len() - end)) {
        end -= 1;
    }
    (&a[..a.len() - end], &b[..b.len() - end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_edit_of_every_kind() {
        for (a, b, expected) in [
            ("munich", "munch", true),
            ("munich", "munnich", true),
            ("munich", "monich", true),
            ("munich", "muinch", true),
            ("munich", "munich", false),
            ("munich", "mcinuh", false),
            ("munich", "mun", false),
            ("мюнхен", "мюнхн", true),
            ("мюнхен", "мюнхин", true),
            ("мюнхен", "мнюхен", true),
            ("aab", "ab", true),
            ("", "a", true),
            ("ab", "cd", false),
        ] {
            assert_eq!(one_edit_apart(a, b), expected, "{a} {b}");
            assert_eq!(one_edit_apart(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn finds_rows_by_every_key() {
        let names = Names::read("Munich\n\nmunchen\nRome\nrome\nroma\n", &[2, 2]).unwrap();
        let owners = |key| names.find(key).map(|h| (h.owner, h.primary)).collect::<Vec<_>>();
        assert_eq!(owners("munich"), [(0, true)]);
        assert_eq!(owners("munchen"), [(0, false)]);
        assert_eq!(owners("roma"), [(1, false)]);
        assert!(owners("oslo").is_empty());
        assert_eq!(names.find_with_typo("munihc"), [Hit { owner: 0, primary: true }]);
        assert!(names.find_with_typo("rom").is_empty(), "too short");
    }

    #[test]
    fn counts_must_fit_the_text() {
        assert!(Names::read("A\n\n", &[2]).is_none());
        assert!(Names::read("A\n\nB\n", &[1]).is_none());
        assert!(Names::read("A\n", &[u32::MAX]).is_none());
        assert!(Names::read("A", &[0]).is_none());
    }

    proptest! {
        #[test]
        fn an_edit_is_found(word in "[a-zа-яあ-ん]{6,12}", at in 0_usize..6, with in "[a-z]") {
            let mut chars: Vec<char> = word.chars().collect();
            chars.insert(at, with.chars().next().unwrap());
            let longer: String = chars.iter().collect();
            prop_assert!(one_edit_apart(&word, &longer));
        }

        #[test]
        fn any_pair_is_symmetric(a in ".{0,9}", b in ".{0,9}") {
            prop_assert_eq!(one_edit_apart(&a, &b), one_edit_apart(&b, &a));
        }
    }
}
