//! From the answers of a batch to forward passes: one per prompt, or several prompts in one.

use std::rc::Rc;

use globe_model::{AnswerGroup, Gradients, Model, TrainingPass, VisionPass};
use globe_ops::{LogpOptions, Tensor};
use globe_train::{PolicyResult, Sequence, TokenLogps};

use crate::look::Look;
use crate::policy::model_error;

/// Answers of a batch that share a prompt.
pub(crate) struct Group {
    pub(crate) look: Rc<Look>,
    /// Their places in the batch.
    pub(crate) members: Vec<usize>,
}

impl Group {
    fn answers<'a>(&self, batch: &[Sequence<'a>]) -> Vec<&'a [u32]> {
        self.members.iter().map(|i| batch[*i].ids).collect()
    }
}

/// Puts groups into one sequence each, or several into one as long as it takes at most `limit` tokens.
/// Groups keep their order; one of several long answers stays alone, as does one beyond the limit.
pub(crate) fn packed(groups: Vec<Group>, batch: &[Sequence], limit: usize) -> Vec<Vec<Group>> {
    let mut packs: Vec<Vec<Group>> = Vec::new();
    let mut room = 0;
    for group in groups {
        let lengths = || group.members.iter().map(|i| batch[*i].ids.len());
        let read: usize = lengths().map(|length| length.saturating_sub(1)).sum();
        let tokens = group.look.prepared.ids.len() + read;
        let can_share = AnswerGroup::can_share(lengths());
        match packs.last_mut() {
            Some(last) if can_share && tokens <= room => {
                room -= tokens;
                last.push(group);
            }
            _ => {
                room = if can_share { limit.saturating_sub(tokens) } else { 0 };
                packs.push(vec![group]);
            }
        }
    }
    packs
}

/// A forward pass over groups that share a sequence, with that of the tower if it is trained.
pub(crate) struct Pass {
    text: TrainingPass,
    tower: Option<VisionPass>,
}

impl Pass {
    /// The training kernels over one sequence. `keep` keeps what [`Pass::backward`] needs, of the
    /// tower too if `trains_tower`.
    pub(crate) fn forward(
        model: &Model,
        groups: &[Group],
        batch: &[Sequence<'_>],
        options: LogpOptions,
        keep: bool,
        trains_tower: bool,
    ) -> PolicyResult<Self> {
        let has_images = groups.iter().any(|group| !group.look.prepared.grids.is_empty());
        let tower = match trains_tower && keep && has_images {
            true => Some(tower(model, groups)?),
            false => None,
        };
        let answers: Vec<Vec<&[u32]>> = groups.iter().map(|group| group.answers(batch)).collect();
        let mut seen = 0;
        let mut sequence = Vec::with_capacity(groups.len());
        for (group, answers) in groups.iter().zip(&answers) {
            let prepared = &group.look.prepared;
            let n = prepared.n_image_tokens;
            let images = match &tower {
                Some(tower) if n > 0 => {
                    let [_, hidden] = tower.features.dims();
                    Some(tower.features.clone().slice([seen..seen + n, 0..hidden]))
                }
                Some(_) => None,
                None => features(model, &group.look)?,
            };
            seen += n;
            let (prompt, grids) = (&prepared.ids[..], &prepared.grids[..]);
            sequence.push(AnswerGroup { prompt, images, grids, answers });
        }
        let text = model.forward(&sequence, options, keep).map_err(model_error)?;
        Ok(Self { text, tower })
    }

    /// Log-probabilities put where the batch has its answers.
    pub(crate) fn note(&self, groups: &[Group], all: &mut [TokenLogps]) -> PolicyResult<()> {
        let logps = pollster::block_on(self.text.logps()).map_err(model_error)?;
        let members = groups.iter().flat_map(|group| &group.members);
        for (i, answer) in members.zip(logps) {
            all[*i] = TokenLogps { logp: answer.logp, entropy: answer.entropy };
        }
        Ok(())
    }

    /// Adds gradients to `sum`, from those of all log-probabilities of the batch.
    pub(crate) fn backward(
        self,
        model: &Model,
        groups: &[Group],
        dlogps: &[Vec<f32>],
        sum: &mut Gradients,
    ) -> PolicyResult<()> {
        let members = groups.iter().flat_map(|group| &group.members);
        let dlogp: Vec<Vec<f32>> = members.map(|i| dlogps[*i].clone()).collect();
        let dfeatures = model.backward(self.text, &dlogp, sum).map_err(model_error)?;
        if let (Some(tower), Some(dfeatures)) = (self.tower, dfeatures) {
            model.backward_images(tower, dfeatures, sum).map_err(model_error)?;
        }
        Ok(())
    }
}

/// The tower over the photos of all groups, one after the other.
fn tower(model: &Model, groups: &[Group]) -> PolicyResult<VisionPass> {
    let prepared = || groups.iter().map(|group| &group.look.prepared);
    let pixel_values: Vec<&[f32]> = prepared().map(|p| &p.pixel_values[..]).collect();
    let grids: Vec<_> = prepared().flat_map(|p| p.grids.iter().copied()).collect();
    model.forward_images(&pixel_values.concat(), &grids).map_err(model_error)
}

/// Features of the photo of a look, computed now unless it has them.
pub(crate) fn features(model: &Model, look: &Look) -> PolicyResult<Option<Tensor<2>>> {
    let prepared = &look.prepared;
    if look.features.is_some() || prepared.grids.is_empty() {
        return Ok(look.features.clone());
    }
    let features = model.encode_images(prepared.pixel_values.clone(), &prepared.grids);
    Ok(Some(features.map_err(model_error)?))
}
