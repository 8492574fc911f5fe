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

/// A seed for one prompt of one step of a run, so that a [`Draw`] with it is keyed by
/// (seed, step, prompt, sample, position).
///
/// The counter has its highest word set, where a [`Draw`] has 1: no draw of `seed` itself is repeated.
pub fn derive(seed: u64, step: u32, prompt: u32, purpose: u32) -> u64 {
    let key = [seed as u32, (seed >> 32) as u32];
    let [low, high, ..] = philox([step, prompt, purpose, u32::MAX], key);
    u64::from(high) << 32 | u64::from(low)
}

/// Puts `items` into an order that depends only on `seed` and their number (Fisher-Yates).
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let key = [seed as u32, (seed >> 32) as u32];
    for i in (1..items.len()).rev() {
        let [low, high, ..] = philox([i as u32, (i as u64 >> 32) as u32, 0, u32::MAX - 1], key);
        let word = u64::from(high) << 32 | u64::from(low);
        // The bias of the multiplication is below i / 2^64.
        items.swap(i, ((u128::from(word) * (i as u128 + 1)) >> 64) as usize);
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

    #[test]
    fn derived_seeds_differ_by_every_part() {
        let seeds = [
            derive(1, 0, 0, 0),
            derive(2, 0, 0, 0),
            derive(1, 1, 0, 0),
            derive(1, 0, 1, 0),
            derive(1, 0, 0, 1),
            derive(1 << 32, 0, 0, 0),
        ];
        for (i, seed) in seeds.iter().enumerate() {
            assert!(!seeds[..i].contains(seed), "{i}");
        }
        assert_eq!(derive(1, 1, 0, 0), seeds[2]);
    }

    #[test]
    fn shuffles_are_permutations_and_fair() {
        let mut first = [0u32; 4];
        for seed in 0..4000 {
            let mut order = [0, 1, 2, 3];
            shuffle(&mut order, seed);
            first[order[0] as usize] += 1;
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
        // Mean 1000, standard deviation 27: five of them.
        assert!(first.iter().all(|&n| n.abs_diff(1000) < 140), "{first:?}");
        shuffle::<u8>(&mut [], 1);
    }
}
