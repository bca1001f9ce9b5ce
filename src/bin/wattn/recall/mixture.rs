//! One distribution from those of all heads, learnt while the text is read.
//!
//! Geometric mixing, as in the PAQ family of compressors: `p[b] ~ exp(sum over experts of weight * ln p_expert[b])`.
//! The experts are the heads, each smoothed with a little of the running byte frequency, and that frequency itself.
//! After each byte the weights take one step down the gradient of its cost. Only bytes that were already scored change
//! anything.

/// Distribution over the next byte.
pub(crate) type Distribution = [f32; 256];

/// Share of the byte frequency in each head's distribution: a head that has not seen a byte must not forbid it.
const SMOOTHING: f32 = 0.01;

/// Step of the gradient descent. Weights move slowly: they express which head to trust, not what the text says.
const LEARNING_RATE: f32 = 0.002;

/// Sum of the first weights. Above 1, because heads that agree are more certain together than each alone.
const INITIAL_WEIGHT: f32 = 1.3;

/// Initial sum of the byte counts, spread evenly.
const PRIOR_COUNT: f32 = 16.0;

pub(crate) struct Mixture {
    /// A weight for each head, and last the weight of the byte frequency.
    weights: Vec<f32>,
    counts: [f32; 256],
    seen: f32,
    /// `ln p` of each expert for the byte that comes next.
    logs: Vec<Distribution>,
    mixed: Distribution,
}

impl Mixture {
    pub(crate) fn new(heads: usize) -> Self {
        let experts = heads + 1;
        Self {
            weights: vec![INITIAL_WEIGHT / experts as f32; experts],
            counts: [PRIOR_COUNT / 256.0; 256],
            seen: PRIOR_COUNT,
            logs: vec![[0.0; 256]; experts],
            mixed: [1.0 / 256.0; 256],
        }
    }

    /// The distribution of the next byte. `heads` holds a distribution of 256 for each head, one after the other.
    pub(crate) fn predict(&mut self, heads: &[f32]) -> &Distribution {
        let frequency = self.counts.map(|count| count / self.seen);
        let (last, logs) = match self.logs.split_last_mut() {
            Some(split) => split,
            None => return &self.mixed,
        };
        for (log, head) in logs.iter_mut().zip(heads.chunks_exact(256)) {
            for ((log, &p), &f) in log.iter_mut().zip(head).zip(&frequency) {
                // Rounding can take a weight slightly below 0.
                *log = ((1.0 - SMOOTHING) * p.max(0.0) + SMOOTHING * f).ln();
            }
        }
        *last = frequency.map(f32::ln);

        let mut sums = [0.0f32; 256];
        for (log, &weight) in self.logs.iter().zip(&self.weights) {
            for (sum, &log) in sums.iter_mut().zip(log) {
                *sum += weight * log;
            }
        }
        let max = sums.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers = sums.map(|sum| (sum - max).exp());
        let total: f32 = powers.iter().sum();
        self.mixed = powers.map(|power| power / total);
        &self.mixed
    }

    /// Learns from the byte that came after the last [`Self::predict`].
    pub(crate) fn observe(&mut self, byte: u8) {
        for (weight, log) in self.weights.iter_mut().zip(&self.logs) {
            let expected: f32 = self.mixed.iter().zip(log).map(|(p, log)| p * log).sum();
            *weight += LEARNING_RATE * (log[usize::from(byte)] - expected);
        }
        self.count(byte);
    }

    /// Counts a byte that was not predicted: the first one.
    pub(crate) fn count(&mut self, byte: u8) {
        self.counts[usize::from(byte)] += 1.0;
        self.seen += 1.0;
    }

    /// The weights of the heads, and last the weight of the byte frequency.
    pub(crate) fn weights(&self) -> &[f32] {
        &self.weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head that is nearly certain of `byte`, and a head that knows nothing.
    fn heads(byte: u8) -> Vec<f32> {
        let mut heads = vec![0.0; 512];
        heads[usize::from(byte)] = 1.0;
        heads[256..].fill(1.0 / 256.0);
        heads
    }

    fn cost(mixture: &mut Mixture, text: &[u8]) -> f64 {
        let mut bits = 0.0;
        for &byte in text {
            let p = mixture.predict(&heads(byte))[usize::from(byte)];
            bits -= f64::from(p).log2();
            mixture.observe(byte);
        }
        bits
    }

    #[test]
    fn probabilities_sum_to_one_and_are_positive() {
        let mut mixture = Mixture::new(2);
        for byte in 0..=255u8 {
            let p = mixture.predict(&heads(byte.wrapping_mul(37)));
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-4);
            assert!(p.iter().all(|&p| p > 0.0));
            mixture.observe(byte);
        }
    }

    #[test]
    fn slightly_negative_weights_do_no_harm() {
        let mut mixture = Mixture::new(1);
        let mut head = vec![-1e-9; 256];
        head[9] = 1.0;
        assert!(mixture.predict(&head).iter().all(|p| p.is_finite() && *p > 0.0));
    }

    #[test]
    fn a_prediction_depends_on_the_past_only() {
        let (mut a, mut b) = (Mixture::new(2), Mixture::new(2));
        cost(&mut a, b"the same past");
        cost(&mut b, b"the same past");
        assert_eq!(a.predict(&heads(1)), b.predict(&heads(1)));
        a.observe(1);
        b.observe(2);
        assert_ne!(a.predict(&heads(3)), b.predict(&heads(3)), "what was observed must count afterwards");
    }

    #[test]
    fn trust_moves_to_the_head_that_is_right() {
        let mut mixture = Mixture::new(2);
        let text: Vec<u8> = (0..2000u32).map(|i| (i * i % 61) as u8).collect();
        let early = cost(&mut mixture, &text[..200]) / 200.0;
        cost(&mut mixture, &text[200..1800]);
        let late = cost(&mut mixture, &text[1800..]) / 200.0;
        assert!(late < early);
        assert!(mixture.weights()[0] > mixture.weights()[1]);
    }
}
