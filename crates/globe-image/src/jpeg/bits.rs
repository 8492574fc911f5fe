//! Bits of entropy-coded data, up to the next marker; behind it, zeros.

use super::markers::next_marker;

/// Reads bits from the most significant on, and keeps the marker that it runs into.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    pos: usize,
    /// Bits not yet consumed, from the top; zeros below them.
    buffer: u64,
    /// Number of bits in `buffer`.
    count: u32,
    /// The marker that ends this segment, once seen. The end of the file counts as one.
    marker: Option<u8>,
    /// Whether more bits were consumed than there are before the marker.
    pub exhausted: bool,
}

/// The marker that ends an image.
const END: u8 = 0xd9;

impl<'a> BitReader<'a> {
    /// Starts at `pos`.
    pub(super) fn new(bytes: &'a [u8], pos: usize) -> Self {
        Self { bytes, pos, buffer: 0, count: 0, marker: None, exhausted: false }
    }

    /// Where to look for the marker behind the data.
    pub(super) fn marker_position(&self) -> usize {
        // A marker that was read has two bytes; without one, look-ahead has passed only data.
        self.pos.saturating_sub(if self.marker.is_some() { 2 } else { 0 })
    }

    /// Makes 32 bits available unless the segment ends.
    #[inline]
    pub(super) fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(&word) = self.bytes.get(self.pos..).and_then(<[u8]>::first_chunk) {
            let word = u32::from_be_bytes(word);
            // A byte is ff where its complement is zero, and subtracting one borrows.
            let no_marker = (!word).wrapping_sub(0x0101_0101) & word & 0x8080_8080 == 0;
            if no_marker && self.marker.is_none() {
                self.buffer |= u64::from(word) << (32 - self.count);
                self.count += 32;
                self.pos += 4;
                return;
            }
        }
        self.refill_bytes();
    }

    #[cold]
    fn refill_bytes(&mut self) {
        while self.count <= 56 && self.marker.is_none() {
            let Some(byte) = self.next_byte() else { return };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn next_byte(&mut self) -> Option<u8> {
        let byte = self.take()?;
        if byte != 0xff {
            return Some(byte);
        }
        loop {
            match self.take()? {
                0 => return Some(0xff),
                0xff => {} // fill byte
                marker => {
                    self.marker = Some(marker);
                    return None;
                }
            }
        }
    }

    fn take(&mut self) -> Option<u8> {
        let byte = self.bytes.get(self.pos).copied();
        match byte {
            Some(_) => self.pos += 1,
            None => self.marker = Some(END),
        }
        byte
    }

    /// The next 1 to 32 bits, without consuming them.
    #[inline]
    pub(super) fn peek(&self, count: u32) -> u32 {
        (self.buffer >> (64 - count)) as u32
    }

    /// Consumes bits that [`Self::peek`] has shown, at most 32 between two refills.
    #[inline]
    pub(super) fn consume(&mut self, count: u32) {
        self.buffer <<= count;
        if count > self.count {
            self.exhausted = true;
        }
        self.count = self.count.saturating_sub(count);
    }

    /// The next 1 to 16 bits.
    #[inline]
    pub(super) fn take_bits(&mut self, count: u32) -> u32 {
        self.refill();
        let value = self.peek(count);
        self.consume(count);
        value
    }

    /// The next bit.
    #[inline]
    pub(super) fn take_bit(&mut self) -> bool {
        self.take_bits(1) == 1
    }

    /// `size` bits (1 to 15) as a signed value: those with a leading zero are negative.
    #[inline]
    pub(super) fn take_signed(&mut self, size: u32) -> i32 {
        let value = self.take_bits(size) as i32;
        if value < 1 << (size - 1) { value - (1 << size) + 1 } else { value }
    }

    /// Moves behind the restart marker with number `expected` (0 to 7), as libjpeg does: a marker
    /// that is missing leaves the segment empty, one that is repeated is skipped.
    pub(super) fn restart(&mut self, expected: u8) {
        (self.buffer, self.count) = (0, 0);
        let mut marker = self.marker.take();
        loop {
            let found = marker.or_else(|| next_marker(self.bytes, &mut self.pos)).unwrap_or(END);
            let ahead = found.wrapping_sub(0xd0).wrapping_sub(expected) & 7;
            match found {
                ..0xc0 => {}
                0xd0..=0xd7 if matches!(ahead, 6 | 7) => {}
                0xd0..=0xd7 if matches!(ahead, 0 | 3..=5) => {
                    self.exhausted = false;
                    return;
                }
                _ => {
                    self.marker = Some(found);
                    return;
                }
            }
            marker = None;
        }
    }

    /// Whether no further restart can bring data: a marker follows that no restart skips.
    pub(super) fn finished(&self) -> bool {
        self.exhausted && self.marker.is_some_and(|marker| matches!(marker, 0xc0..0xd0 | 0xd8..))
    }
}
