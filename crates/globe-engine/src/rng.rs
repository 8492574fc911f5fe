//! Random numbers by counter: a draw depends on seed, sample and position, and on nothing before it.

/// Rounds of the published generator.
const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..ROUNDS {
        let a = u64::from(MULTIPLIERS[0]) * u64::from(c0);
        let b = u64::from(MULTIPLIERS[1]) * u64::from(c2);
        (c0, c1, c2, c3) =
            ((b >> 32) as u32 ^ c1 ^ k0, b as u32, (a >> 32) as u32 ^ c3 ^ k1, a as u32);
        k0 = k0.wrapping_add(KEY_STEPS[0]);
        k1 = k1.wrapping_add(KEY_STEPS[1]);
    }
    [c0, c1, c2, c3]
}

/// One draw: its random words depend on these numbers and on nothing before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draw {
    /// Names the run.
    pub seed: u64,
    /// Which answer.
    pub sample: u32,
    /// Which token of the answer.
    pub position: u32,
}

impl Draw {
    /// Random words for tokens `4 * quad .. 4 * quad + 4`.
    pub fn words(&self, quad: u32) -> [u32; 4] {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        philox([self.position, self.sample, quad, 1], key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the authors' Random123 distribution.
    #[test]
    fn philox_matches_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]
        );
        assert_eq!(
            philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
            [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]
        );
    }

    #[test]
    fn words_are_uniform_and_differ_by_every_part_of_the_key() {
        let draw = Draw { seed: 7, sample: 1, position: 2 };
        let n = 10_000;
        let mean =
            (0..n).map(|i| f64::from(draw.words(i)[0])).sum::<f64>() / f64::from(n) / 2f64.powi(32);
        assert!((mean - 0.5).abs() < 0.015, "mean {mean}");
        let words = draw.words(0);
        for other in [
            Draw { seed: 8, ..draw },
            Draw { seed: 7 | 1 << 40, ..draw },
            Draw { sample: 2, ..draw },
            Draw { position: 3, ..draw },
        ] {
            assert_ne!(words, other.words(0), "{other:?}");
        }
        assert_ne!(words, draw.words(1));
    }
}
