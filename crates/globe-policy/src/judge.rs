//! The judge of locatability: another adapter over the policy's own base, asked for Yes or No.

use globe_engine::Engine;
use globe_model::LoraSet;
use globe_text::Prompt;
use globe_train::checkpoint::Adapter;
use globe_train::rewards::{Judge, JudgeRequest, YesNo};
use globe_train::{PolicyError, PolicyResult, Result};

use crate::adapter::{from_peft, shape};
use crate::look::Looks;
use crate::policy::{Shared, engine_error, model_error};

/// Yes or no by the logits of the first token of the answer (GLOBE, arXiv 2506.14674, section 3.2).
pub struct ModelJudge {
    engine: Shared,
    looks: Looks,
    /// The judge's adapter while the policy's is on the model, and the other way round.
    adapters: LoraSet,
    /// Tokens that read yes or no in any spelling.
    verdicts: Vec<(String, u32)>,
}

impl ModelJudge {
    /// A judge with an adapter of its own.
    ///
    /// # Errors
    /// [`PolicyError`] if the adapter belongs to another base.
    pub fn new(engine: Shared, adapter: Adapter, max_pixels: Option<usize>) -> PolicyResult<Self> {
        let shape = shape(&adapter.config);
        let modules = from_peft(adapter);
        let (adapters, verdicts) = {
            let engine = engine.borrow();
            let adapters = engine.lora_set(shape, &modules).map_err(engine_error)?;
            (adapters, verdicts(&engine))
        };
        Ok(Self { engine, looks: Looks::new(max_pixels), adapters, verdicts })
    }

    fn ask(&mut self, request: &JudgeRequest<'_>) -> PolicyResult<YesNo> {
        let engine = self.engine.borrow();
        let prompt = Prompt { system: None, user: request.question.to_owned() };
        let look = self.looks.get(&engine, request.image, &prompt)?;
        let (prepared, features) = (&look.prepared, look.features.clone());
        let session = engine.prefill(prepared, features, 1).map_err(engine_error)?;
        let logits = pollster::block_on(session.logits()).map_err(engine_error)?;
        let logit = |(text, id): &(String, u32)| (text.clone(), f64::from(logits[*id as usize]));
        let pairs: Vec<_> = self.verdicts.iter().map(logit).collect();
        Ok(YesNo::from_tokens(pairs.iter().map(|(text, logit)| (text.as_str(), *logit))))
    }

    fn swap(&mut self) -> PolicyResult<()> {
        let mut engine = self.engine.borrow_mut();
        engine.model_mut().swap_lora(&mut self.adapters).map_err(model_error)
    }
}

impl Judge for ModelJudge {
    fn judge(&mut self, requests: &[JudgeRequest<'_>]) -> Result<Vec<YesNo>> {
        self.swap()?;
        let answers: PolicyResult<Vec<YesNo>> = requests.iter().map(|r| self.ask(r)).collect();
        self.swap()?;
        Ok(answers.map_err(|e: PolicyError| e)?)
    }
}

/// Every token that [`YesNo::from_tokens`] counts, with its text.
fn verdicts(engine: &Engine) -> Vec<(String, u32)> {
    let vocab = engine.model().config().text.vocab_size as u32;
    let counts = |text: &str| {
        let seen = YesNo::from_tokens([(text, 0.0)]);
        seen.yes.is_finite() || seen.no.is_finite()
    };
    let text = |id| Some((engine.tokenizer().decode(&[id], false).ok()?, id));
    (0..vocab).filter_map(text).filter(|(text, _)| counts(text)).collect()
}
