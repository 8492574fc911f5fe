//! A policy that is a table: logits by the prompt's class, the position and the token before.
//! Small enough to compute everything exactly, and a real [`Policy`] in every respect.

use std::collections::BTreeMap;

use globe_rng::philox;
use globe_train::{
    Completion, Gradient, Policy, PolicyError, PolicyResult, PolicyState, Prompt, Sampling,
    Sequence, Side, StateSink, StateSource, StepOutcome, Stop, Tensors, TokenLogps,
    optimiser::{AdamW, AdamWConfig, clip_by_norm, global_norm},
};

/// Token 0 ends an answer.
pub const WORDS: &[&str] = &[
    "",
    "<think>I can see palm trees.</think>\n",
    "<answer>\ncountry: ",
    "France",
    "Japan",
    "Kenya",
    "\ncity: ",
    "Paris",
    "Kyoto",
    "Nairobi",
    "\n</answer>",
    "Yes",
    "No",
];

/// What comes after what in a well-formed answer; names differ by photo and are to be learnt.
const FOLLOWS: &[(usize, &[usize])] = &[
    (START, &[1]),
    (1, &[2]),
    (2, &[3, 4, 5]),
    (3, &[6]),
    (4, &[6]),
    (5, &[6]),
    (6, &[7, 8, 9]),
    (7, &[10]),
    (8, &[10]),
    (9, &[10]),
    (10, &[0]),
];

const VOCAB: usize = WORDS.len();
const START: usize = VOCAB;
const TABLE: &str = "table";

/// Logit of what follows in a well-formed answer at the start: it succeeds sometimes.
const HEAD_START: f32 = 3.0;

pub struct Tabular {
    classes: usize,
    table: Vec<f32>,
    reference: Vec<f32>,
    gradient: Vec<f32>,
    adam: AdamW,
    /// Failures to come, by call.
    pub fail_backward: Option<(usize, fn() -> PolicyError)>,
    pub poison_backward: Option<usize>,
    pub backward_calls: usize,
    pub reference_passes: usize,
    pub trained_passes: usize,
    pub largest_batch: usize,
    /// Ids of the prompts of every backward pass.
    pub seen: Vec<Vec<String>>,
}

impl Tabular {
    /// `classes` kinds of photos; the kind of a prompt is the number its id ends with.
    pub fn new(classes: usize) -> Self {
        let mut table = vec![0.0; classes * (VOCAB + 1) * VOCAB];
        for class in 0..classes {
            for (before, after) in FOLLOWS {
                for token in *after {
                    table[row(class, *before) + token] = HEAD_START;
                }
            }
        }
        let config = AdamWConfig { weight_decay: 0.0, ..AdamWConfig::default() };
        Self {
            classes,
            reference: table.clone(),
            gradient: vec![0.0; table.len()],
            table,
            adam: AdamW::new(config),
            fail_backward: None,
            poison_backward: None,
            backward_calls: 0,
            reference_passes: 0,
            trained_passes: 0,
            largest_batch: 0,
            seen: Vec::new(),
        }
    }

    pub fn table(&self) -> &[f32] {
        &self.table
    }

    fn class(&self, prompt: &Prompt) -> usize {
        let number = prompt.id.trim_start_matches(|c: char| !c.is_ascii_digit());
        number.parse::<usize>().unwrap_or(0) % self.classes
    }

    /// Rows of the table that predict the tokens.
    fn rows(&self, sequence: &Sequence<'_>) -> Vec<usize> {
        let class = self.class(sequence.prompt);
        let before = std::iter::once(START).chain(sequence.ids.iter().map(|&id| id as usize));
        before.take(sequence.ids.len()).map(|before| row(class, before)).collect()
    }

    fn log_softmax(table: &[f32], row: usize, temperature: f64) -> Vec<f64> {
        let logits: Vec<f64> =
            table[row..row + VOCAB].iter().map(|&x| f64::from(x) / temperature).collect();
        let most = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = logits.iter().map(|x| (x - most).exp()).sum();
        logits.iter().map(|x| x - most - sum.ln()).collect()
    }

    fn token_logps(&self, table: &[f32], sequence: &Sequence<'_>, temperature: f64) -> TokenLogps {
        let mut out = TokenLogps::default();
        for (row, &id) in self.rows(sequence).into_iter().zip(sequence.ids) {
            let logps = Self::log_softmax(table, row, temperature);
            out.logp.push(logps[id as usize] as f32);
            out.entropy.push(-logps.iter().map(|l| l * l.exp()).sum::<f64>() as f32);
        }
        out
    }

    fn sample(&self, prompt: &Prompt, seed: u64, sample: u32, how: &Sampling) -> Completion {
        let (mut ids, mut logp) = (Vec::new(), Vec::new());
        let mut row_at = row(self.class(prompt), START);
        while ids.len() < how.max_tokens && ids.last() != Some(&0) {
            let logps = Self::log_softmax(&self.table, row_at, how.temperature);
            let draw = f64::from(uniform(seed, sample, ids.len() as u32));
            let mut sum = 0.0;
            let found = logps.iter().position(|l| {
                sum += l.exp();
                draw < sum
            });
            let id = found.unwrap_or(VOCAB - 1);
            logp.push(logps[id] as f32);
            ids.push(id as u32);
            row_at = row(self.class(prompt), id);
        }
        let text = ids.iter().map(|&id| WORDS[id as usize]).collect();
        let stop = if ids.last() == Some(&0) { Stop::End } else { Stop::Length };
        Completion { ids, logp, text, stop }
    }
}

fn row(class: usize, before: usize) -> usize {
    (class * (VOCAB + 1) + before) * VOCAB
}

impl Policy for Tabular {
    fn identity(&self) -> String {
        format!("table of {}", self.classes)
    }

    fn rollout(
        &mut self,
        prompts: &[Prompt],
        seeds: &[u64],
        sampling: &Sampling,
    ) -> PolicyResult<Vec<Vec<Completion>>> {
        let group = |(prompt, &seed): (&Prompt, &u64)| {
            (0..sampling.group_size as u32)
                .map(|i| self.sample(prompt, seed, i, sampling))
                .collect()
        };
        Ok(prompts.iter().zip(seeds).map(group).collect())
    }

    fn encode(&mut self, text: &str) -> PolicyResult<Vec<u32>> {
        let (mut rest, mut ids) = (text, Vec::new());
        while !rest.is_empty() {
            let found = (1..VOCAB).find(|&i| rest.starts_with(WORDS[i]));
            let id = found.ok_or_else(|| PolicyError::failed(format!("no token for `{rest}`")))?;
            ids.push(id as u32);
            rest = &rest[WORDS[id].len()..];
        }
        ids.push(0);
        Ok(ids)
    }

    fn prompt_tokens(&mut self, prompts: &[&Prompt]) -> PolicyResult<Vec<usize>> {
        Ok(prompts.iter().map(|prompt| prompt.id.len()).collect())
    }

    fn logps(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        side: Side,
    ) -> PolicyResult<Vec<TokenLogps>> {
        match side {
            Side::Reference => self.reference_passes += 1,
            Side::Trained => self.trained_passes += 1,
        }
        let table = if side == Side::Reference { &self.reference } else { &self.table };
        Ok(batch.iter().map(|s| self.token_logps(table, s, temperature)).collect())
    }

    fn backward(
        &mut self,
        batch: &[Sequence<'_>],
        temperature: f64,
        gradient: &mut Gradient<'_>,
    ) -> globe_train::Result<()> {
        self.backward_calls += 1;
        self.largest_batch = self.largest_batch.max(batch.len());
        self.seen.push(batch.iter().map(|s| s.prompt.id.clone()).collect());
        if let Some((at, error)) = self.fail_backward.filter(|(at, _)| *at == self.backward_calls) {
            let _ = at;
            return Err(error().into());
        }
        let logps: Vec<TokenLogps> =
            batch.iter().map(|s| self.token_logps(&self.table, s, temperature)).collect();
        let dlogp = gradient(&logps)?;
        for (sequence, dlogp) in batch.iter().zip(&dlogp) {
            let rows = self.rows(sequence);
            for ((row, &id), &d) in rows.into_iter().zip(sequence.ids).zip(dlogp) {
                let p = Self::log_softmax(&self.table, row, temperature);
                for (token, logp) in p.iter().enumerate() {
                    let hot = f64::from(u8::from(token == id as usize));
                    let change = f64::from(d) * (hot - logp.exp()) / temperature;
                    self.gradient[row + token] += change as f32;
                }
            }
        }
        if self.poison_backward == Some(self.backward_calls) {
            self.gradient[0] = f32::NAN;
        }
        Ok(())
    }

    fn step(&mut self, lr: f64, max_grad_norm: f64) -> PolicyResult<StepOutcome> {
        let grad_norm = global_norm([&self.gradient[..]]);
        let applied = grad_norm.is_finite();
        if applied {
            let factor = clip_by_norm(grad_norm, max_grad_norm);
            self.gradient.iter_mut().for_each(|g| *g *= factor);
            self.adam.begin_step();
            self.adam
                .update(TABLE, &mut self.table, &self.gradient, lr)
                .map_err(|e| PolicyError::failed(e.to_string()))?;
        }
        self.gradient.fill(0.0);
        Ok(StepOutcome { grad_norm, applied })
    }

    fn save_to(&mut self, sink: &mut dyn StateSink) -> globe_train::Result<()> {
        let mut parameters = Tensors::default();
        parameters.insert(TABLE.into(), &[self.table.len()], self.table.clone());
        PolicyState { parameters, optimiser: self.adam.save(), adapter: None }.save_to(sink)
    }

    fn load_from(&mut self, state: &StateSource<'_>) -> globe_train::Result<()> {
        self.table = state.parameters.read(TABLE)?.into_owned();
        self.adam.load(&state.collect()?.optimiser)
    }

    fn memory_bytes(&self) -> Option<u64> {
        Some(4 * self.table.len() as u64)
    }
}

/// A number in `[0, 1)` by seed, answer and position.
fn uniform(seed: u64, sample: u32, position: u32) -> f32 {
    let [word, ..] = philox([position, sample, 0, 0], [seed as u32, (seed >> 32) as u32]);
    (word >> 8) as f32 / (1u32 << 24) as f32
}

/// Mean of a metric over some steps.
pub fn mean(steps: &[BTreeMap<String, f64>], name: &str) -> f64 {
    let values: Vec<f64> = steps.iter().filter_map(|s| s.get(name).copied()).collect();
    values.iter().sum::<f64>() / values.len() as f64
}
