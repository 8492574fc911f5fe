//! The search for the scale of one block.
//!
//! For a scale `d` each value takes the nearest whole number `q` in range; for those, the scale of
//! least squared error is `sum(x q) / sum(q q)`. The search tries several starting scales, because
//! rounding makes the error jump, and ranks them by the error after rounding to f16.

use half::f16;

use super::BLOCK;

/// Partial sums, so that the loops vectorise without changing their order between platforms.
const LANES: usize = 8;

/// Values below half of the smallest f16 have no scale; all of them become zero.
const SMALLEST: f32 = f32::from_bits((127 - 25) << 23); // 2^-25

/// How one width of integer is searched.
pub(super) struct Search {
    /// Smallest integer; the largest is one less in magnitude.
    min: f32,
    /// Starting scales: the extreme value divided by these.
    divisors: &'static [f32],
}

/// From -8 to 7. More starting scales take away less than 0.2 % of the error of bell-shaped weights.
pub(super) const Q4: Search =
    Search { min: -8.0, divisors: &[-7.0, -7.5, -8.0, -8.5, -9.0, 6.0, 6.5, 7.0, 7.5] };

/// From -128 to 127.
pub(super) const Q8: Search = Search {
    min: -128.0,
    divisors: &[-126.0, -126.75, -127.5, -128.0, -128.4, 126.4, 127.0, 127.4],
};

impl Search {
    /// Largest magnitude whose scale is a finite f16.
    pub(super) fn limit(&self) -> f32 {
        -self.min * f16::MAX.to_f32()
    }

    /// Scale and integers of a block whose values are within the limit.
    pub(super) fn quantize(&self, x: &[f32; BLOCK]) -> (f16, [i8; BLOCK]) {
        let extreme = x.iter().fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
        if extreme.abs() < SMALLEST {
            return (f16::ZERO, [0; BLOCK]);
        }
        let scale = self.exact(x, extreme).unwrap_or_else(|| {
            // Gains are differences of large sums: in f32 they rank 8-bit scales only roughly.
            let (found, plain) = (self.search(x, extreme), f16::from_f32(extreme / self.min));
            if self.error(x, found) <= self.error(x, plain) { found } else { plain }
        });
        (scale, self.nearest(x, scale.to_f32()).map(|q| q as i8))
    }

    /// The scale that stores the block without any error, if there is one: all values are multiples
    /// of it, so it divides their greatest common divisor.
    fn exact(&self, x: &[f32; BLOCK], extreme: f32) -> Option<f16> {
        let steps = -self.min as u64;
        let divisor = common_divisor(x, extreme, steps)?;
        let whole = (f64::from(extreme.abs()) / divisor).round() as u64;
        // The finest such scale first: it is the one that other programs have chosen.
        (1..=steps / whole).rev().find_map(|j| {
            // The extreme becomes negative: only that side reaches `min`.
            let d = -(divisor / j as f64).copysign(f64::from(extreme));
            let scale = f16::from_f32(d as f32);
            let d = scale.to_f32();
            let stores = |x: &f32| self.round(x / d) * d == *x;
            (d != 0.0 && x.iter().all(stores)).then_some(scale)
        })
    }

    fn search(&self, x: &[f32; BLOCK], extreme: f32) -> f16 {
        let (mut best, mut best_gain) = (f16::ZERO, 0.0);
        for divisor in self.divisors {
            let fit = self.fit(x, divisor / extreme);
            let gain = fit.gain(fit.scale);
            if gain > best_gain {
                (best, best_gain) = (fit.scale, gain);
            }
        }
        self.refine(x, best)
    }

    /// Rounding to f16 and the new scale may move values to other integers: fit again.
    fn refine(&self, x: &[f32; BLOCK], mut scale: f16) -> f16 {
        for _ in 0..2 {
            if scale == f16::ZERO {
                break;
            }
            let fit = self.fit(x, scale.to_f32().recip());
            if fit.gain(fit.scale) <= fit.gain(scale) {
                break;
            }
            scale = fit.scale;
        }
        scale
    }

    /// Integers at the scale `1 / inverse`, and the scale that fits them best.
    fn fit(&self, x: &[f32; BLOCK], inverse: f32) -> Fit {
        let (mut xq, mut qq) = ([0.0; LANES], [0.0; LANES]);
        for x in x.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                let q = self.round(x[i] * inverse);
                xq[i] += x[i] * q;
                qq[i] += q * q;
            }
        }
        let (xq, qq) = (xq.iter().sum::<f32>(), qq.iter().sum::<f32>());
        let scale = f16::from_f32(if qq > 0.0 { xq / qq } else { 0.0 });
        Fit { xq, qq, scale: if scale.is_finite() { scale } else { f16::ZERO } }
    }

    /// Squared error of the block at a scale.
    fn error(&self, x: &[f32; BLOCK], scale: f16) -> f32 {
        let d = scale.to_f32();
        let q = self.nearest(x, d);
        x.iter().zip(q).map(|(x, q)| (x - d * q) * (x - d * q)).sum()
    }

    fn nearest(&self, x: &[f32; BLOCK], d: f32) -> [f32; BLOCK] {
        if d == 0.0 { [0.0; BLOCK] } else { x.map(|x| self.round(x / d)) }
    }

    /// The nearest integer in range. Adding and taking away 1.5 * 2^23 leaves no fraction.
    fn round(&self, x: f32) -> f32 {
        const MAGIC: f32 = 12_582_912.0;
        (x.clamp(self.min, -self.min - 1.0) + MAGIC) - MAGIC
    }
}

/// The greatest common divisor of the values, unless it is below `|extreme| / steps`.
fn common_divisor(x: &[f32; BLOCK], extreme: f32, steps: u64) -> Option<f64> {
    // In units of 2^-32 of the extreme's power of two, values that are large enough are integers:
    // at most 8 bits below the extreme, and 24 bits long.
    let exponent = (extreme.to_bits() >> 23 & 0xff) as i32 - 127;
    let unit = f64::from_bits(((1023 + exponent - 32) as u64) << 52);
    let extreme = (f64::from(extreme.abs()) / unit) as u64;
    let mut divisor = extreme;
    for &x in x.iter().filter(|x| **x != 0.0) {
        let mut rest = (f64::from(x.abs()) / unit) as u64;
        // Euclid's algorithm, given up as soon as the divisor would be too small.
        while rest != 0 {
            if rest * steps < extreme {
                return None;
            }
            (divisor, rest) = (rest, divisor % rest);
        }
    }
    Some(divisor as f64 * unit)
}

/// Sums over one choice of integers.
struct Fit {
    xq: f32,
    qq: f32,
    scale: f16,
}

impl Fit {
    /// How much squared error a scale takes away: `sum(x x) - sum((x - d q)^2)`.
    fn gain(&self, scale: f16) -> f32 {
        let d = scale.to_f32();
        d * (2.0 * self.xq - d * self.qq)
    }
}
