//! Keys and values of the tokens seen so far, in buffers of fixed size.

use globe_ops::{Device, Int, KvFormat, Tensor, Variant, rotary_split, tensor_i32, zeros};

use crate::{Error, Result};

/// State of one conversation: passed to the model, never kept in it.
///
/// Slots hold a prompt first. What follows belongs to one answer, or to several that share the
/// prompt, each with a tail of its own.
pub struct Cache {
    layers: Vec<[Option<Tensor<3>>; 2]>, // keys and values, [slots, n_kv_heads, words]
    rotary_table: Tensor<2>,
    /// What to add to a token's index to get its rotary position.
    pub(crate) rope_delta: i32,
    len: usize,
    slots: usize,
    capacity: usize,
    tail: usize,
}

/// Where the tokens of one forward pass stand.
pub(crate) struct Place<'a> {
    pub(crate) layer: usize,
    pub(crate) positions: &'a Tensor<2, Int>, // [3, tokens]
    pub(crate) slots: &'a Tensor<1, Int>,     // [tokens]
}

/// How heads are laid out in a projection.
pub(crate) struct Heads {
    pub(crate) n_heads: usize,
    pub(crate) n_kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) sections: Vec<usize>,
    pub(crate) variant: Variant,
}

impl Cache {
    /// Room for a prompt of `prompt` tokens and `rows` answers of `tail` tokens each.
    pub(crate) fn new(
        n_layers: usize,
        heads: &Heads,
        kv: KvFormat,
        [prompt, tail, rows]: [usize; 3],
        rotary_table: Tensor<2>,
    ) -> Self {
        let device = rotary_table.device();
        let (slots, capacity) = (prompt + rows * tail, prompt + tail);
        let buffer = || Some(zeros([slots, heads.n_kv_heads, kv.words(heads.head_dim)], &device));
        let layers = (0..n_layers).map(|_| [buffer(), buffer()]).collect();
        Self { layers, rotary_table, rope_delta: 0, len: 0, slots, capacity, tail }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that a prompt with one answer may have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that an answer may have after the tokens in the cache.
    pub fn tail(&self) -> usize {
        self.tail.min(self.capacity - self.len)
    }

    /// Answers that fit beside each other after a prompt of this length.
    pub fn rows_after(&self, prompt: usize) -> usize {
        let tail = self.tail.min(self.capacity.saturating_sub(prompt));
        self.slots.saturating_sub(prompt).checked_div(tail).unwrap_or(1)
    }

    /// Forgets all but the first `len` tokens; another answer to the same prompt starts here.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Errors unless `wanted` more tokens fit.
    pub(crate) fn check_room(&self, wanted: usize) -> Result<()> {
        if self.len + wanted <= self.capacity {
            return Ok(());
        }
        Err(Error::CacheFull { used: self.len, wanted, capacity: self.capacity })
    }

    /// Rows for the next `n` tokens.
    pub(crate) fn slots(&self, n: usize, device: &Device) -> Tensor<1, Int> {
        let slots = (self.len..self.len + n).map(|slot| slot as i32).collect();
        tensor_i32(slots, [n], device)
    }

    /// Keys that each of the next `n` tokens reads: all before it and itself, or the last `window`.
    pub(crate) fn ranges(
        &self,
        n: usize,
        window: Option<usize>,
        device: &Device,
    ) -> Tensor<2, Int> {
        let ranges = (self.len..self.len + n)
            .flat_map(|token| {
                let end = token + 1;
                let first = window.map_or(0, |w| end.saturating_sub(w));
                [first as i32, end as i32]
            })
            .collect();
        tensor_i32(ranges, [n, 2], device)
    }

    /// Splits a projection, turns queries and keys, and writes keys and values of the next tokens.
    /// Returns queries `[tokens, n_heads, head_dim]` and both whole buffers.
    pub(crate) fn split(
        &mut self,
        qkv: Tensor<2>,
        place: &Place,
        heads: &Heads,
    ) -> Result<[Tensor<3>; 3]> {
        let [k, v] = &mut self.layers[place.layer];
        // Taken out, so that no second handle makes the CPU path copy the buffer.
        let why = "put back below, unless a shape check failed before";
        let (old_k, old_v) = (k.take().expect(why), v.take().expect(why));
        let table = &self.rotary_table;
        let (positions, slots) = (place.positions, place.slots);
        let (n_heads, sections) = (heads.n_heads, &heads.sections[..]);
        let (q, new_k, new_v) =
            rotary_split(qkv, table, positions, slots, old_k, old_v, n_heads, sections)?;
        (*k, *v) = (Some(new_k.clone()), Some(new_v.clone()));
        Ok([q, new_k, new_v])
    }

    /// The same for a step that is recorded: the buffers change in place and stay where they are.
    pub(crate) fn split_in_place(
        &self,
        qkv: Tensor<2>,
        place: &Place,
        heads: &Heads,
    ) -> Result<[Tensor<3>; 3]> {
        let [Some(k), Some(v)] = self.layers[place.layer].clone() else {
            unreachable!("buffers are taken out only within `split`")
        };
        let table = &self.rotary_table;
        let (positions, slots) = (place.positions, place.slots);
        let (n_heads, sections) = (heads.n_heads, &heads.sections[..]);
        let (q, k, v) = rotary_split(qkv, table, positions, slots, k, v, n_heads, sections)?;
        Ok([q, k, v])
    }

    /// Counts `n` tokens as seen, once every layer has written them.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }
}
