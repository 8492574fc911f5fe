//! What a question takes, planned before a weight is read, and how many answers fit at once.

use globe_format::Files;
use globe_image::PreprocessorConfig;
use globe_model::{Config, ImageGrid, MemoryPlan, Precision, WeightPlan, Workload};
use globe_ops::KvFormat;
use globe_text::{ChatTemplate, Prompt, Tokenizer};

use crate::engine::{Reader, load_preprocessor};
use crate::{Engine, Error, Prepared, Result};

/// Answers drawn at once unless the caller says otherwise: more gain little on any adapter.
pub const DEFAULT_BATCH: u32 = 8;

/// A cache has room for a prompt of a multiple of so many tokens, so that the next prompt is likely to fit
/// into it, and the steps recorded on it hold for both.
pub const PROMPT_BUCKET: usize = 256;

/// What will be asked of a model.
#[derive(Clone, Debug)]
pub struct Demand {
    /// The question.
    pub prompt: Prompt,
    /// Height and width in pixels of the photo that takes the most; `None` stands for the largest
    /// that the pixel limit lets through.
    pub photo: Option<[usize; 2]>,
    /// Photos in one prompt.
    pub photos: usize,
    /// Most pixels of a photo after resizing; `None` takes the limit of the model folder.
    pub max_pixels: Option<usize>,
    /// Answers that must fit at once.
    pub answers: usize,
    /// Most tokens of an answer.
    pub max_tokens: usize,
    /// Whether tokens seen before count.
    pub penalties: bool,
    /// How keys and values are stored.
    pub kv: KvFormat,
}

impl Default for Demand {
    /// One answer to one photo of the largest size.
    fn default() -> Self {
        Self {
            prompt: Prompt::reason(),
            photo: None,
            photos: 1,
            max_pixels: None,
            answers: 1,
            max_tokens: 512,
            penalties: false,
            kv: KvFormat::F32,
        }
    }
}

/// What a model folder will take for a demand. `dense`: on the CPU path or by the reference
/// kernels. Reads the small files and headers of the folder, no weights.
///
/// # Errors
/// [`Error`] naming the file, the field and what to do.
pub async fn plan<F: Files>(files: &F, dense: bool, demand: &Demand) -> Result<MemoryPlan> {
    let config = Config::load(files).await?;
    let reader = Reader {
        tokenizer: Tokenizer::load(files).await?,
        template: ChatTemplate::load(files).await?,
        preprocessor: load_preprocessor(files).await?,
    };
    reader.check(&config)?;
    plan_with(files, &config, &reader, dense, demand).await
}

/// The same with the small files already read.
pub(crate) async fn plan_with<F: Files>(
    files: &F,
    config: &Config,
    reader: &Reader,
    dense: bool,
    demand: &Demand,
) -> Result<MemoryPlan> {
    let grid = largest_grid(&reader.preprocessor, demand);
    let grids = vec![grid; demand.photos];
    let ids = reader.ids(&demand.prompt, &grids, config)?;
    let work = Workload {
        patches: grids.iter().map(ImageGrid::patches).sum(),
        prompt: ids.len(),
        bucket: if dense { 1 } else { PROMPT_BUCKET },
        answers: demand.answers,
        max_tokens: demand.max_tokens,
        penalties: demand.penalties,
        kv: demand.kv,
    };
    Ok(WeightPlan::of_folder(files, config, dense).await?.plan(config, &work))
}

/// Patch grid of the photo, or one with as many patches as the limit allows: also for a photo that
/// cannot be used, which is not for a plan to say.
fn largest_grid(preprocessor: &PreprocessorConfig, demand: &Demand) -> ImageGrid {
    let PreprocessorConfig { patch_size, merge_size, .. } = *preprocessor;
    let target = |[height, width]: [usize; 2]| {
        preprocessor.target_size(height, width, demand.max_pixels).ok()
    };
    if let Some([height, width]) = demand.photo.and_then(target) {
        return ImageGrid([1, height / patch_size, width / patch_size]);
    }
    let limit = demand.max_pixels.unwrap_or(preprocessor.max_pixels);
    let tokens = (limit / preprocessor.factor().pow(2)).max(1);
    ImageGrid([1, merge_size, tokens * merge_size])
}

impl Engine {
    /// What answering this prompt takes with so many answers at once.
    pub fn plan(
        &self,
        prepared: &Prepared,
        max_tokens: usize,
        penalties: bool,
        answers: usize,
    ) -> MemoryPlan {
        let work = Workload {
            patches: prepared.grids.iter().map(ImageGrid::patches).sum(),
            prompt: prepared.ids.len(),
            bucket: self.bucket(),
            answers,
            max_tokens,
            penalties,
            kv: self.model.kv(),
        };
        self.model.weights().plan(self.model.config(), &work)
    }

    /// What prompts are filled up to a multiple of.
    pub(crate) fn bucket(&self) -> usize {
        if self.model.can_batch() { PROMPT_BUCKET } else { 1 }
    }

    /// How many of `wanted` answers to draw at once: as many as the budget and the adapter's
    /// largest buffer have room for.
    ///
    /// # Errors
    /// [`Error::ContextTooLong`] if the model does not read that much, [`Error::BatchBeyondPlan`] if
    /// fewer fit and `forced`, [`Error::Model`] if not even one does.
    pub fn answers_at_once(
        &self,
        prepared: &Prepared,
        max_tokens: usize,
        penalties: bool,
        wanted: u32,
        forced: bool,
    ) -> Result<u32> {
        self.check_context(prepared, max_tokens)?;
        let plan = |rows: u32| self.plan(prepared, max_tokens, penalties, rows as usize);
        let budget = self.budget.unwrap_or(u64::MAX);
        let check = |rows: u32| -> Result<()> {
            let plan = plan(rows);
            plan.check(budget)?;
            Ok(self.compute.check_binding(plan.largest_buffer)?)
        };
        let rows = (1..=wanted).rev().find(|rows| check(*rows).is_ok());
        match rows {
            Some(rows) if rows < wanted && forced => Err(Error::BatchBeyondPlan {
                wanted,
                fits: rows,
                need: plan(wanted).device_bytes(),
                budget: self.budget,
            }),
            Some(rows) => Ok(rows),
            None => check(1).map(|()| 1),
        }
    }

    /// Bytes of the features of a photo of this height and width in pixels.
    ///
    /// # Errors
    /// [`Error::Model`] if patches do not merge as the model wants.
    pub fn feature_bytes(&self, photo: [usize; 2], max_pixels: Option<usize>) -> Result<u64> {
        let demand = Demand { photo: Some(photo), max_pixels, ..Demand::default() };
        let grid = largest_grid(&self.reader.preprocessor, &demand);
        let tokens = self.model.image_tokens(grid)? as u64;
        Ok(size_of::<f32>() as u64 * tokens * self.model.config().text.hidden_size as u64)
    }

    /// Bytes of device memory that may be used, if that is known.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }
}

/// How a model is loaded.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// How weights are held.
    pub precision: Precision,
    /// Bytes of device memory that may be used; `None` if nobody knows.
    pub budget: Option<u64>,
    /// What must fit into the budget before a weight is read.
    pub demand: Demand,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_photo_takes_more_than_the_largest() {
        let preprocessor = PreprocessorConfig::default();
        let patches = |photo, max_pixels| {
            let demand = Demand { photo, max_pixels, ..Demand::default() };
            largest_grid(&preprocessor, &demand).patches()
        };
        assert_eq!(patches(Some([280, 560]), None), 20 * 40);
        assert_eq!(patches(None, None), 1280 * 4);
        assert_eq!(patches(None, Some(28 * 28 * 10)), 40);
        for photo in [[4000, 6000], [1000, 1000], [900, 5000], [3000, 20]] {
            assert!(patches(Some(photo), None) <= patches(None, None), "{photo:?}");
        }
        // Too narrow for any model: the plan takes the worst, the photo is refused later.
        assert_eq!(patches(Some([1, 900]), None), patches(None, None));
    }
}
