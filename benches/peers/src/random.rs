//! Pseudo-random bits that depend on nothing but a seed: SplitMix64 (Steele, Lea, Flood 2014).

/// The generator.
pub struct Random(u64);

impl Random {
    /// The stream of tensor `index` of the model of `seed`.
    pub fn new(seed: u64, index: usize) -> Self {
        let mut random = Self(seed);
        Self(random.next() ^ index as u64)
    }

    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From -1 to 1.
    pub fn signed(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_those_of_the_paper() {
        let mut random = Random(0);
        assert_eq!(random.next(), 0xe220_a839_7b1d_cdaf);
        assert_eq!(random.next(), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn numbers_fill_their_range() {
        let mut random = Random::new(1, 2);
        let x: Vec<f32> = (0..10_000).map(|_| random.signed()).collect();
        assert!(x.iter().all(|x| (-1.0..=1.0).contains(x)));
        assert!(x.iter().sum::<f32>().abs() < 300.0);
        assert!(x.iter().any(|x| *x > 0.99) && x.iter().any(|x| *x < -0.99));
    }
}
