//! Photos with questions, prepared once: patches, prompt tokens and, of a frozen tower, features.

use std::collections::VecDeque;
use std::rc::Rc;

use globe_engine::{Engine, Prepared};
use globe_image::{DecodeLimits, decode};
use globe_ops::Tensor;
use globe_text::Prompt;
use globe_train::PolicyResult;
use sha2::{Digest, Sha256};

use crate::policy::{engine_error, failed};

/// Photos kept at least: those of a generation, and of its judge's questions.
const KEPT: usize = 64;

/// A prompt ready for the model.
pub(crate) struct Look {
    pub(crate) prepared: Prepared,
    /// Features of its photo, `[image tokens, hidden]`; `None` without a photo, and for a tower that
    /// is trained, which reads `prepared.pixel_values` anew each time.
    pub(crate) features: Option<Tensor<2>>,
}

/// The last looks, newest at the end.
pub(crate) struct Looks {
    kept: VecDeque<([u8; 32], Rc<Look>)>,
    max_pixels: Option<usize>,
    is_frozen: bool,
    most: usize,
}

impl Looks {
    /// None yet. Photos are reduced to `max_pixels`, or to the model's own limit.
    pub(crate) fn new(max_pixels: Option<usize>) -> Self {
        Self { kept: VecDeque::new(), max_pixels, is_frozen: true, most: KEPT }
    }

    /// The same for a tower that is trained.
    pub(crate) fn of_trained_tower(max_pixels: Option<usize>) -> Self {
        Self { is_frozen: false, ..Self::new(max_pixels) }
    }

    /// Keeps at least `n` from now on: what is counted and then used is prepared once.
    pub(crate) fn make_room(&mut self, n: usize) {
        self.most = self.most.max(n);
    }

    /// The photo with the wording, from those kept or computed now.
    pub(crate) fn get(
        &mut self,
        engine: &Engine,
        image: &[u8],
        prompt: &Prompt,
    ) -> PolicyResult<Rc<Look>> {
        let key: [u8; 32] =
            Sha256::new().chain_update(prompt.sha256()).chain_update(image).finalize().into();
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == key) {
            let entry = self.kept.remove(at).ok_or_else(|| failed("a look vanished"))?;
            let look = entry.1.clone();
            self.kept.push_back(entry);
            return Ok(look);
        }
        let photo = decode(image, &DecodeLimits::default()).map_err(|e| failed(e.to_string()))?;
        let mut prepared =
            engine.prepare(&[&photo], prompt, self.max_pixels).map_err(engine_error)?;
        let features = match self.is_frozen {
            true => engine.encode(&mut prepared).map_err(engine_error)?,
            false => None,
        };
        let look = Rc::new(Look { prepared, features });
        if self.kept.len() >= self.most {
            self.kept.pop_front();
        }
        self.kept.push_back((key, look.clone()));
        Ok(look)
    }
}
