//! Huffman codes: their definition in a file, and a table-driven decoder.

use crate::error::Result;

use super::bits::BitReader;
use super::damaged;

/// Longest code in bits.
const MAX_LENGTH: usize = 16;
/// Codes up to this length are decoded by one look-up; longer ones are rare.
const LOOKAHEAD: u32 = 9;

/// Huffman codes as a file defines them.
pub(super) struct Codes {
    /// Number of codes of each length from 1 bit on.
    counts: [u8; MAX_LENGTH],
    /// Symbols in the order of their codes.
    symbols: Vec<u8>,
}

impl Codes {
    /// Codes from a table of known content.
    pub(super) fn new(counts: [u8; MAX_LENGTH], symbols: &[u8]) -> Self {
        Self { counts, symbols: symbols.to_vec() }
    }

    /// Parses one definition; returns what follows it.
    pub(super) fn parse(body: &[u8]) -> Result<(Self, &[u8])> {
        let short = || damaged("a huffman table is cut off");
        let (&counts, rest) = body.split_first_chunk().ok_or_else(short)?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        if total > 256 {
            return Err(damaged(format!("a huffman table has {total} codes")));
        }
        let (symbols, rest) = rest.split_at_checked(total).ok_or_else(short)?;
        Ok((Self::new(counts, symbols), rest))
    }

    /// The decoder for these codes.
    ///
    /// # Errors
    /// [`crate::Error::Damaged`] if more codes of one length are declared than exist.
    pub(super) fn decoder(&self) -> Result<Decoder> {
        let mut decoder = Decoder {
            short: [0; 1 << LOOKAHEAD],
            ends: [0; MAX_LENGTH + 2],
            offsets: [0; MAX_LENGTH + 1],
            symbols: [0; 256],
        };
        decoder.symbols[..self.symbols.len()].copy_from_slice(&self.symbols);
        // Beyond every 17-bit number: decoding stops there.
        decoder.ends[MAX_LENGTH + 1] = u32::MAX;
        let (mut code, mut idx) = (0_u32, 0_usize);
        for (length, &count) in (1..).zip(&self.counts) {
            decoder.offsets[length] = (idx as i32) - (code as i32);
            for _ in 0..count {
                decoder.add_short(code, length as u32, self.symbols[idx]);
                (code, idx) = (code + 1, idx + 1);
            }
            // The code of only ones is reserved.
            if count > 0 && code >= 1 << length {
                return Err(damaged(format!(
                    "a huffman table has too many codes of {length} bits"
                )));
            }
            decoder.ends[length] = if count > 0 { code } else { 0 };
            code <<= 1;
        }
        Ok(decoder)
    }
}

/// Maps bits to symbols.
pub(super) struct Decoder {
    /// By the next [`LOOKAHEAD`] bits: length times 256 plus symbol, or 0 for longer codes.
    short: [u16; 1 << LOOKAHEAD],
    /// By length: the number after the last code, 0 if there is none.
    ends: [u32; MAX_LENGTH + 2],
    /// By length: index of a code's symbol less the code.
    offsets: [i32; MAX_LENGTH + 1],
    symbols: [u8; 256],
}

impl Decoder {
    fn add_short(&mut self, code: u32, length: u32, symbol: u8) {
        let Some(free_bits) = LOOKAHEAD.checked_sub(length) else { return };
        let start = (code as usize) << free_bits;
        // Too many codes leave the table; the caller reports them.
        if let Some(entries) = self.short.get_mut(start..start + (1 << free_bits)) {
            entries.fill((length as u16) << 8 | u16::from(symbol));
        }
    }

    /// Whether every symbol is at most `max`.
    pub(super) fn symbols_at_most(&self, max: u8) -> bool {
        self.symbols.iter().all(|&symbol| symbol <= max)
    }

    /// The next symbol. Bits that are no code yield 0, as in libjpeg. Leaves at least 15 bits
    /// for [`BitReader::peek`].
    #[inline]
    pub(super) fn symbol(&self, bits: &mut BitReader<'_>) -> u8 {
        bits.refill();
        let entry = self.short[bits.peek(LOOKAHEAD) as usize];
        if entry != 0 {
            bits.consume(u32::from(entry >> 8));
            return entry as u8;
        }
        self.long_symbol(bits)
    }

    #[cold]
    fn long_symbol(&self, bits: &mut BitReader<'_>) -> u8 {
        let mut length = LOOKAHEAD as usize + 1;
        while bits.peek(length as u32) >= self.ends[length] {
            length += 1;
        }
        let code = bits.peek(length as u32) as i32;
        bits.consume(length as u32);
        match self.offsets.get(length) {
            Some(offset) => self.symbols[(code + offset) as usize & 0xff],
            None => 0,
        }
    }
}
