//! Keys and values of the tokens seen so far, in buffers of fixed size.

use globe_ops::{Device, Int, Tensor, scatter_rows, tensor_i32, zeros};

use crate::{Error, Result};

/// State of one conversation: passed to the model, never kept in it.
pub struct Cache {
    layers: Vec<[Option<Tensor<2>>; 2]>, // keys and values, [capacity, n_kv_heads * head_dim]
    pub(crate) rotary_table: Tensor<2>,
    /// What to add to a token's index to get its rotary position.
    pub(crate) rope_delta: i32,
    len: usize,
    capacity: usize,
}

impl Cache {
    pub(crate) fn new(
        n_layers: usize,
        width: usize,
        capacity: usize,
        rotary_table: Tensor<2>,
    ) -> Self {
        let device = rotary_table.device();
        let buffer = || Some(zeros([capacity, width], &device));
        let layers = (0..n_layers).map(|_| [buffer(), buffer()]).collect();
        Self { layers, rotary_table, rope_delta: 0, len: 0, capacity }
    }

    /// Tokens in the cache.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
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

    /// Writes the keys and values of the next tokens into `layer`; returns the whole buffers.
    pub(crate) fn write(
        &mut self,
        layer: usize,
        keys: Tensor<2>,
        values: Tensor<2>,
        slots: &Tensor<1, Int>,
    ) -> Result<[Tensor<2>; 2]> {
        let [k, v] = &mut self.layers[layer];
        Ok([write(k, keys, slots)?, write(v, values, slots)?])
    }

    /// Counts `n` tokens as seen, once every layer has written them.
    pub(crate) fn advance(&mut self, n: usize) {
        self.len += n;
    }
}

fn write(
    buffer: &mut Option<Tensor<2>>,
    rows: Tensor<2>,
    slots: &Tensor<1, Int>,
) -> Result<Tensor<2>> {
    let dest = buffer.take().expect("put back below, unless a shape check failed before");
    let dest = scatter_rows(dest, rows, slots.clone())?;
    *buffer = Some(dest.clone());
    Ok(dest)
}
