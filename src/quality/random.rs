//! Counter-based random numbers: each is a function of a seed, a stream and an index, independent of the order of calls.

/// One stream of random numbers.
#[derive(Clone, Copy)]
pub(super) struct Random(u64);

impl Random {
    /// Streams of one seed are independent of each other.
    pub(super) const fn new(seed: u64, stream: u64) -> Self {
        Self(mix(mix(seed) ^ stream))
    }

    /// 64 bits.
    pub(super) const fn bits(self, index: u64) -> u64 {
        mix(self.0.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Uniform below `end`, which is at least 1.
    pub(super) fn below(self, index: u64, end: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(end)) >> 64) as u64 // below `end`
    }

    /// Standard normal, by the method of Box and Muller.
    pub(super) fn normal(self, index: u64) -> f32 {
        let bits = self.bits(index);
        // Uniform in (0, 1], and in [0, 1).
        let (radius, angle) =
            (((bits >> 32) as f64 + 1.0) / 2f64.powi(32), (bits & 0xffff_ffff) as f64 / 2f64.powi(32));
        ((-2.0 * radius.ln()).sqrt() * (core::f64::consts::TAU * angle).cos()) as f32
    }
}

/// The output function of SplitMix64.
const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normals_have_mean_0_and_variance_1() {
        let random = Random::new(1, 2);
        let n = 100_000;
        let values: Vec<f64> = (0..n).map(|index| random.normal(index).into()).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        // Six standard errors: 1 / sqrt(n) of the mean, sqrt(2 / n) of the variance.
        assert!(mean.abs() < 0.019 && (variance - 1.0).abs() < 0.027, "{mean} {variance}");
    }

    #[test]
    fn below_reaches_every_number() {
        let random = Random::new(3, 4);
        let mut seen = [0u32; 7];
        (0..7000).for_each(|index| seen[random.below(index, 7) as usize] += 1);
        // 1000 each, with a standard deviation of 29.
        assert!(seen.iter().all(|&n| (800..1200).contains(&n)), "{seen:?}");
    }
}
