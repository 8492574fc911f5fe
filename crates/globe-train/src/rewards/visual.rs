//! Does the thought name what can be seen, and only that?

use std::collections::{BTreeMap, BTreeSet};

use globe_geo::fold;
use serde::{Deserialize, Serialize};

use super::{Attempt, Judge, JudgeRequest, Reward, read_answer};
use crate::Result;

/// A sentence states clues only if it has this many other words, and
/// [`WORDS_PER_CLUE`] for each clue: `beach, palm tree, bus` states nothing.
const MIN_OTHER_WORDS: usize = 3;
const WORDS_PER_CLUE: usize = 2;

/// Words before a clue that deny it.
const NEGATIONS: &[&str] = &["no", "not", "without", "neither", "nor", "lack", "absence", "isnt"];

/// How far before a clue a denial reaches, in words.
const NEGATION_REACH: usize = 4;

/// Words that name no clue by themselves.
const ARTICLES: &[&str] = &["a", "an", "the"];

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VisualForm {
    /// Harmonic mean of recall and precision.
    #[default]
    F1,
    /// Share of the annotated clues that are stated, as in GLOBE's released code.
    Recall,
    /// Share of the stated clues that are annotated or verified, as in GLOBE's paper.
    Precision,
}

/// All clues that can be recognised in a text: those annotated anywhere in the data.
#[derive(Clone, Debug, Default)]
pub struct Lexicon {
    /// Phrases by their first word.
    by_first: BTreeMap<String, Vec<Vec<String>>>,
}

impl Lexicon {
    /// From the clues of all rows.
    pub fn new<'a>(clues: impl IntoIterator<Item = &'a str>) -> Self {
        let phrases: BTreeSet<Vec<String>> = clues.into_iter().map(phrase).collect();
        let mut by_first: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
        for phrase in phrases {
            if let Some(first) = phrase.first().cloned() {
                by_first.entry(first).or_default().push(phrase);
            }
        }
        Self { by_first }
    }

    /// The longest clue, of these or the annotated ones, that starts at `words[0]`.
    fn at<'a>(
        &'a self,
        words: &[String],
        annotated: &'a BTreeSet<Vec<String>>,
    ) -> Option<&'a [String]> {
        let known = self.by_first.get(words.first()?).into_iter().flatten();
        let fits = known.chain(annotated).filter(|p| words.starts_with(p));
        fits.max_by_key(|p| p.len()).map(Vec::as_slice)
    }
}

/// The visual-clue reward.
pub struct Visual {
    lexicon: Lexicon,
    form: VisualForm,
    verifier: Option<Box<dyn Judge>>,
}

/// Clues of a thought.
#[derive(Debug, Default, PartialEq)]
struct Stated {
    /// In sentences that say something about them.
    fairly: BTreeSet<Vec<String>>,
    /// Those, and those in mere lists.
    all: BTreeSet<Vec<String>>,
}

impl Visual {
    /// Recognises the clues of `lexicon`.
    pub fn new(lexicon: Lexicon, form: VisualForm) -> Self {
        Self { lexicon, form, verifier: None }
    }

    /// Asks `judge` whether a clue that is stated but not annotated can be seen; it then counts as
    /// right for precision, not for recall.
    pub fn with_verifier(mut self, judge: impl Judge + 'static) -> Self {
        self.verifier = Some(Box::new(judge));
        self
    }

    fn stated(&self, thought: &str, annotated: &BTreeSet<Vec<String>>) -> Stated {
        let mut stated = Stated::default();
        for sentence in thought.split(['.', '!', '?', '\n', ';', '。', '！', '？']) {
            read_sentence(&words(sentence), &self.lexicon, annotated, &mut stated);
        }
        stated
    }

    /// How many of the clues the verifier sees.
    fn verified(&mut self, attempt: &Attempt<'_>, clues: &[&Vec<String>]) -> Result<usize> {
        let Some(judge) = self.verifier.as_mut().filter(|_| !clues.is_empty()) else {
            return Ok(0);
        };
        let image = attempt.sample.image.bytes()?;
        let questions: Vec<String> = clues
            .iter()
            .map(|c| format!("Is this visible in the photo: {}? Answer Yes or No.", c.join(" ")))
            .collect();
        let requests: Vec<_> =
            questions.iter().map(|question| JudgeRequest { image: &image, question }).collect();
        let answers = judge.judge(&requests)?;
        Ok(answers.iter().filter(|a| a.p_yes().is_some_and(|p| p > 0.5)).count())
    }

    fn value(&mut self, attempt: &Attempt<'_>) -> Result<Option<f64>> {
        let clues = attempt.sample.clues.iter().map(|c| phrase(c)).filter(|p| !p.is_empty());
        let annotated: BTreeSet<Vec<String>> = clues.collect();
        if annotated.is_empty() {
            return Ok(None);
        }
        let Some(thought) = read_answer(attempt.text).thought else {
            return Ok(Some(0.0));
        };
        let stated = self.stated(&thought, &annotated);
        let hits = stated.fairly.intersection(&annotated).count();
        let recall = hits as f64 / annotated.len() as f64;
        if self.form == VisualForm::Recall {
            return Ok(Some(recall));
        }
        let foreign: Vec<_> = stated.fairly.difference(&annotated).collect();
        let right = hits + self.verified(attempt, &foreign)?;
        let precision = right as f64 / stated.all.len().max(1) as f64;
        let sum = recall + precision;
        Ok(Some(match self.form {
            VisualForm::Precision => precision,
            _ if sum > 0.0 => 2.0 * recall * precision / sum,
            _ => 0.0,
        }))
    }
}

impl Reward for Visual {
    fn name(&self) -> &str {
        "visual"
    }

    fn score(&mut self, attempts: &[Attempt<'_>]) -> Result<Vec<Option<f64>>> {
        attempts.iter().map(|a| self.value(a)).collect()
    }
}

fn read_sentence(
    words: &[String],
    lexicon: &Lexicon,
    annotated: &BTreeSet<Vec<String>>,
    stated: &mut Stated,
) {
    let (mut here, mut n_clue_words, mut denied_words) = (BTreeSet::new(), 0, 0);
    let mut at = 0;
    while at < words.len() {
        let Some(clue) = lexicon.at(&words[at..], annotated) else {
            at += 1;
            continue;
        };
        let before = &words[at.saturating_sub(NEGATION_REACH)..at];
        if before.iter().any(|w| NEGATIONS.contains(&w.as_str())) {
            denied_words += clue.len();
        } else {
            here.insert(clue.to_vec());
            n_clue_words += clue.len();
        }
        at += clue.len();
    }
    let others = words.len() - n_clue_words - denied_words;
    let fair = others >= MIN_OTHER_WORDS.max(WORDS_PER_CLUE * here.len());
    if fair {
        stated.fairly.extend(here.iter().cloned());
    }
    stated.all.extend(here);
}

/// A clue as its words without articles.
fn phrase(clue: &str) -> Vec<String> {
    let mut words = words(clue);
    words.retain(|w| !ARTICLES.contains(&w.as_str()));
    words
}

/// Folded words, plurals reduced by the plainest rule, the same on both sides.
fn words(text: &str) -> Vec<String> {
    let singular = |word: &str| match word.strip_suffix('s') {
        Some(stem) if stem.len() > 2 && !stem.ends_with(['s', 'u', 'i']) => stem.to_owned(),
        _ => word.to_owned(),
    };
    fold(text).split(' ').filter(|w| !w.is_empty()).map(singular).collect()
}
