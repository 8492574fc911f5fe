"""Names to keys: the twin of src/fold.rs, where a test folds every city name and compares."""

import unicodedata

APOSTROPHES = set("'’‘`´ʹ") | {chr(c) for c in range(0x2B0, 0x300)}
LETTERS = {
    "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "đ": "d", "ð": "d", "þ": "th", "ł": "l", "ħ": "h",
    "ı": "i", "ŋ": "n", "ə": "a", "ς": "σ", "ي": "ی", "ى": "ی", "ك": "ک", "ة": "ه", "ـ": "",
}
TOKENS = {"st": "saint", "ste": "sainte", "mt": "mount", "ft": "fort"}
# Kana voicing marks and viramas are letters in all but name: they stay.
KEPT_CLASSES = {0, 8, 9}


def fold(text):
    """Case, accents and punctuation removed; words joined by single spaces."""
    chars = []
    for char in text:
        if char in APOSTROPHES:
            continue
        for low in char.lower():
            for part in unicodedata.normalize("NFKD", LETTERS.get(low, low)):
                chars.extend(part.lower())
    kept = "".join(c for c in chars if unicodedata.combining(c) in KEPT_CLASSES)
    spaced = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in kept)
    words = [TOKENS.get(w, w) for w in unicodedata.normalize("NFC", spaced).split()]
    return join_initials(words)


def join_initials(words):
    """Words with single spaces, and runs of single ASCII letters as one: "u s a" is "usa"."""
    out = []
    for i, word in enumerate(words):
        if i > 0 and not (is_initial(word) and is_initial(words[i - 1])):
            out.append(" ")
        out.append(word)
    return "".join(out)


def is_initial(word):
    return len(word) == 1 and word.isascii() and word.isalpha()
