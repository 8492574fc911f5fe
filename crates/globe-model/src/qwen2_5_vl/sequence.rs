//! Prompts and answers laid out in one sequence, and what attention needs to keep them apart.
//!
//! A group alone is `[prompt | answer | answer ...]`; each answer sees the prompt, which is a prefix
//! of all, and itself. Several groups are `[prompt | answer | prompt | answer ...]`: there is no
//! common prefix, each token sees its own group from its first token up to itself, and positions
//! begin anew in each group. An answer of one token is only predicted, never read, so a group may
//! have any number of those besides the one that is read.

use globe_ops::{Tensor, key_ranges, tensor_i32};

use super::Qwen2_5Vl;
use super::block::BlockContext;
use crate::rope::rotary_table;
use crate::{Error, ImageGrid, Result, mrope_positions};

/// A prompt with answers to it.
#[derive(Clone)]
pub struct AnswerGroup<'a> {
    /// Tokens of the prompt, one per merged patch where an image stands.
    pub prompt: &'a [u32],
    /// Features of its images, `[image tokens, hidden]`.
    pub images: Option<Tensor<2>>,
    /// Their patch grids.
    pub grids: &'a [ImageGrid],
    /// Tokens of each answer.
    pub answers: &'a [&'a [u32]],
}

impl<'a> AnswerGroup<'a> {
    /// Whether it can share a sequence with other groups: of its answers, at most one is read.
    pub fn can_share(answers: impl IntoIterator<Item = usize>) -> bool {
        answers.into_iter().filter(|length| *length > 1).count() <= 1
    }

    /// Tokens it takes of a sequence. The last token of an answer is predicted, never read.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.read().map(<[u32]>::len).sum::<usize>()
    }

    /// What is read of each answer.
    fn read(&self) -> impl Iterator<Item = &'a [u32]> {
        self.answers.iter().map(|answer| &answer[..answer.len().saturating_sub(1)])
    }

    /// Tokens of all answers that are read, one after the other.
    pub(super) fn read_ids(&self) -> Vec<i32> {
        self.read().flatten().map(|id| *id as i32).collect()
    }
}

/// Where everything stands in a sequence.
pub(super) struct Sequence {
    pub(super) tokens: usize,
    pub(super) context: BlockContext,
    /// Tokens of each answer, group by group.
    lengths: Vec<usize>,
    /// The token after which each target comes, answer by answer.
    pub(super) sources: Vec<i32>,
    /// The token to predict there.
    pub(super) targets: Vec<i32>,
    /// Place and id of every token that was looked up in the table.
    pub(super) looked_up: Vec<[usize; 2]>,
    /// Places of the features of images.
    pub(super) image_places: Vec<i32>,
}

impl Sequence {
    /// Values of all targets, put into answers.
    pub(super) fn by_answer(&self, value: impl Fn(usize) -> f32) -> Vec<Vec<f32>> {
        let mut next = 0;
        let answer = |&length: &usize| {
            let values = (next..next + length).map(&value).collect();
            next += length;
            values
        };
        self.lengths.iter().map(answer).collect()
    }

    /// Values by answer in the order of the targets.
    pub(super) fn by_target(&self, answers: &[Vec<f32>]) -> Result<Vec<f32>> {
        let lengths: Vec<usize> = answers.iter().map(Vec::len).collect();
        if lengths != self.lengths {
            let reason =
                format!("gradients for {lengths:?} tokens, answers have {:?}", self.lengths);
            return Err(Error::Training { reason });
        }
        Ok(answers.concat())
    }
}

/// A sequence as it grows.
#[derive(Default)]
struct Places {
    /// Positions on the three axes.
    axes: [Vec<i32>; 3],
    /// Keys that each token sees besides the prefix.
    ranges: Vec<[i32; 2]>,
    lengths: Vec<usize>,
    sources: Vec<i32>,
    targets: Vec<i32>,
    looked_up: Vec<[usize; 2]>,
    image_places: Vec<i32>,
    /// No position is as large.
    n_positions: usize,
}

impl Places {
    /// Puts a group behind those that are there. `shares`: it is not alone.
    fn add(
        &mut self,
        group: &AnswerGroup,
        shares: bool,
        image_token: u32,
        merge: usize,
    ) -> Result<()> {
        let of_prompt = mrope_positions(group.prompt, image_token, group.grids, merge)?;
        let start = self.ranges.len();
        self.axes.iter_mut().zip(of_prompt.axes).for_each(|(all, own)| all.extend(own));
        for (place, id) in (start..).zip(group.prompt) {
            self.ranges.push([start as i32, place as i32 + 1]);
            match *id == image_token {
                true => self.image_places.push(place as i32),
                false => self.looked_up.push([place, *id as usize]),
            }
        }
        let prompt_end = start + group.prompt.len();
        for answer in group.answers {
            let first = self.ranges.len();
            let seen_from = if shares { start } else { first };
            for (t, next) in answer.iter().enumerate() {
                let source = if t == 0 { prompt_end } else { first + t };
                self.sources.push(source as i32 - 1);
                self.targets.push(*next as i32);
            }
            let read = &answer[..answer.len().saturating_sub(1)];
            for (place, id) in (first..).zip(read) {
                let at = (group.prompt.len() + place - first) as i32 + of_prompt.delta;
                self.axes.iter_mut().for_each(|axis| axis.push(at));
                self.ranges.push([seen_from as i32, place as i32 + 1]);
                self.looked_up.push([place, *id as usize]);
            }
            self.lengths.push(answer.len());
        }
        // An image spans at least as many tokens as positions, so none lies past these.
        let longest = group.answers.iter().map(|answer| answer.len()).max().unwrap_or(0);
        self.n_positions = self.n_positions.max(group.prompt.len() + longest);
        Ok(())
    }
}

impl Qwen2_5Vl {
    /// Where the groups stand in one sequence.
    pub(super) fn sequence(&self, groups: &[AnswerGroup]) -> Result<Sequence> {
        let (cfg, device) = (&self.config, &self.device);
        let shares = groups.len() > 1;
        if groups.is_empty() {
            return Err(Error::Training { reason: "no prompt".into() });
        }
        let mut places = Places::default();
        for group in groups {
            self.check_group(group, shares)?;
            let merge = cfg.vision.spatial_merge_size;
            places.add(group, shares, cfg.image_token_id, merge)?;
        }
        let prefix = match groups {
            [alone] => alone.prompt.len(),
            _ => 0,
        };
        let tokens = places.ranges.len();
        let index =
            |pairs: Vec<[i32; 2]>| tensor_i32(pairs.as_flattened().to_vec(), [tokens, 2], device);
        let key_ranges = key_ranges(&places.ranges, prefix, tokens);
        let (theta, head_dim) = (cfg.text.rope_theta(), cfg.text.head_dim());
        let context = BlockContext {
            rotary_table: rotary_table(places.n_positions, head_dim / 2, head_dim, theta, device),
            positions: tensor_i32(places.axes.concat(), [3, tokens], device),
            slots: tensor_i32((0..tokens as i32).collect(), [tokens], device),
            ranges: index(places.ranges),
            key_ranges: index(key_ranges),
            prefix,
            n_heads: self.heads.n_heads,
            n_kv_heads: self.heads.n_kv_heads,
            head_dim,
            sections: self.heads.sections.clone(),
            variant: self.heads.variant,
        };
        Ok(Sequence {
            tokens,
            context,
            lengths: places.lengths,
            sources: places.sources,
            targets: places.targets,
            looked_up: places.looked_up,
            image_places: places.image_places,
        })
    }

    /// What a group may not hold.
    fn check_group(&self, group: &AnswerGroup, shares: bool) -> Result<()> {
        let vocab_size = self.config.text.vocab_size;
        if group.prompt.is_empty() {
            return Err(Error::Training { reason: "a prompt has no tokens".into() });
        }
        let mut ids = group.prompt.iter().chain(group.answers.iter().copied().flatten());
        if let Some(&id) = ids.find(|id| **id as usize >= vocab_size) {
            return Err(Error::TokenOutOfRange { id, vocab_size });
        }
        if shares && !AnswerGroup::can_share(group.answers.iter().map(|answer| answer.len())) {
            let reason = "several answers of more than one token to a prompt need a sequence of \
                          their own"
                .into();
            return Err(Error::Training { reason });
        }
        let (cfg, tokens) = (&self.config.text, group.tokens());
        let windows = (0..cfg.num_hidden_layers).filter_map(|i| cfg.window_of(i));
        match windows.min() {
            Some(window) if window < tokens => {
                let reason = format!(
                    "sliding windows of {window} tokens, the prompt with its answers has {tokens}; \
                     lower rollout.max_tokens, rollout.group_size or model.max_pixels"
                );
                Err(Error::Training { reason })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IMAGE: u32 = 9;

    fn group<'a>(
        prompt: &'a [u32],
        grids: &'a [ImageGrid],
        answers: &'a [&'a [u32]],
    ) -> AnswerGroup<'a> {
        AnswerGroup { prompt, images: None, grids, answers }
    }

    #[test]
    fn groups_that_share_a_sequence_do_not_see_each_other() {
        let grids = [ImageGrid([1, 4, 4])];
        let first = group(&[1, IMAGE, IMAGE, IMAGE, IMAGE, 2], &grids, &[&[3, 4, 5]]);
        let second = group(&[6, 7], &[], &[&[8], &[1], &[2, 3]]);
        assert_eq!((first.tokens(), second.tokens()), (8, 3));
        let mut places = Places::default();
        places.add(&first, true, IMAGE, 2).unwrap();
        places.add(&second, true, IMAGE, 2).unwrap();
        for (place, range) in places.ranges.iter().enumerate() {
            let start = if place < 8 { 0 } else { 8 };
            assert_eq!(*range, [start, place as i32 + 1]);
        }
        // The image spans 2 x 2, what follows goes on at 3, and the second group begins at 0.
        assert_eq!(places.axes[1], [0, 1, 1, 2, 2, 3, 4, 5, 0, 1, 2]);
        assert_eq!(places.axes[2], [0, 1, 2, 1, 2, 3, 4, 5, 0, 1, 2]);
        assert_eq!(places.sources, [5, 6, 7, 9, 9, 9, 10]);
        assert_eq!(places.targets, [3, 4, 5, 8, 1, 2, 3]);
        assert_eq!(places.image_places, [1, 2, 3, 4]);
        assert_eq!(places.looked_up.last(), Some(&[10, 2]));
        assert_eq!(places.lengths, [3, 1, 1, 2]);
    }

    #[test]
    fn answers_to_one_prompt_see_it_as_a_prefix_and_themselves() {
        let alone = group(&[1, 2], &[], &[&[3, 4], &[5, 6, 7]]);
        let mut places = Places::default();
        places.add(&alone, false, IMAGE, 2).unwrap();
        assert_eq!(places.ranges, [[0, 1], [0, 2], [2, 3], [3, 4], [3, 5]]);
        assert_eq!(places.axes[0], [0, 1, 2, 2, 3]);
        assert_eq!(places.sources, [1, 2, 1, 3, 4]);
        assert!(AnswerGroup::can_share([1, 1, 5]) && !AnswerGroup::can_share([2, 2]));
    }
}
