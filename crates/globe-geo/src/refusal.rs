//! Words that say "no place".

use crate::fold;

/// Whole values, folded.
const BLANK_VALUES: &[&str] = &[
    "unknown",
    "unknown city",
    "unknown country",
    "unknown location",
    "unsure",
    "uncertain",
    "unclear",
    "unidentified",
    "unidentifiable",
    "undetermined",
    "undeterminable",
    "indeterminate",
    "indeterminable",
    "unspecified",
    "unavailable",
    "none",
    "null",
    "nil",
    "nan",
    "na",
    "not sure",
    "not certain",
    "not clear",
    "not specified",
    "not applicable",
    "not available",
    "not provided",
    "not identifiable",
    "not determinable",
    "not visible",
    "not found",
    "any",
    "anywhere",
    "various",
    "insufficient information",
    "no answer",
    "no idea",
    "tbd",
    "inconnu",
    "inconnue",
    "unbekannt",
    "desconocido",
    "desconocida",
    "desconhecido",
    "desconhecida",
    "sconosciuto",
    "onbekend",
    "nieznane",
    "неизвестно",
    "неизвестен",
    "未知",
    "不明",
    "不确定",
    "无法确定",
    "わからない",
    "알 수 없음",
    "غیر معروف",
];

/// Beginnings of values and phrases within sentences, folded.
const REFUSALS: &[&str] = &[
    "cannot be determined",
    "can not be determined",
    "cannot be identified",
    "could not be determined",
    "cannot determine",
    "can not determine",
    "cant determine",
    "could not determine",
    "couldnt determine",
    "cannot identify",
    "cant identify",
    "cannot tell",
    "cant tell",
    "cannot pinpoint",
    "cant pinpoint",
    "cannot provide",
    "cant provide",
    "cannot help",
    "cant help",
    "cannot assist",
    "cant assist",
    "cannot say",
    "unable to",
    "not able to",
    "not possible to",
    "impossible to",
    "not enough information",
    "insufficient information",
    "hard to determine",
    "difficult to determine",
    "i do not know",
    "i dont know",
    "i am not sure",
    "im not sure",
    "i am sorry",
    "im sorry",
    "no idea",
    "location is unknown",
    "无法确定",
    "无法判断",
    "特定できません",
    "не могу определить",
    "no puedo determinar",
    "je ne peux pas",
];

/// True for a value that names nothing: empty, punctuation, `unknown`, `N/A`, `cannot determine`.
///
/// `NA` in capitals is Namibia.
pub(crate) fn is_blank(value: &str) -> bool {
    if value.trim() == "NA" {
        return false;
    }
    let key = fold(value);
    key.is_empty()
        || BLANK_VALUES.contains(&key.as_str())
        || key.starts_with("unknown ")
        || REFUSALS.iter().any(|r| key.contains(r))
}

/// True for a text that says the place cannot be told.
pub(crate) fn is_refusal(text: &str) -> bool {
    let key = fold(text);
    BLANK_VALUES.contains(&key.as_str()) || REFUSALS.iter().any(|r| key.contains(r))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_and_names() {
        for blank in [
            "",
            " ",
            "?",
            "Unknown",
            "N/A",
            "n.a.",
            "na",
            "None",
            "Not sure.",
            "未知",
            "I can't determine the city",
            "unknown (rural area)",
        ] {
            assert!(is_blank(blank), "{blank}");
        }
        for name in ["NA", "Nice", "Nantes", "Unna", "東京", "Noneuil", "Anyang"] {
            assert!(!is_blank(name), "{name}");
        }
    }

    #[test]
    fn every_entry_is_folded() {
        for entry in BLANK_VALUES.iter().chain(REFUSALS) {
            assert_eq!(fold(entry), *entry);
        }
    }
}
