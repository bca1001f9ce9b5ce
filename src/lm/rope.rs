//! Rotary position embedding (*RoFormer*, section 3.4), half-split as in Llama, with the scalings of `config.json`.

use core::f64::consts::PI;

/// The changes of the angles for long contexts, relative to plain rotary embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// No changes.
    None,
    /// Positions divided by a factor (position interpolation).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// A base that grows with the length of the text beyond the trained context ("NTK-aware"). Keys that were rotated for a shorter text
    /// would not fit a longer one, so a session uses the final length of its text:
    /// [`SessionOptions::with_text_len`](super::SessionOptions::with_text_len).
    Dynamic {
        /// The largest length of the context, as a multiple of the trained one.
        factor: f64,
    },
    /// Slow rotations divided, fast ones kept, a ramp between (Llama 3.1).
    Llama3 {
        /// Divisor of the slow rotations.
        factor: f64,
        /// Rotations over the trained context below which a frequency is divided.
        low_freq_factor: f64,
        /// Rotations above which it is kept.
        high_freq_factor: f64,
        /// The trained context.
        original_len: f64,
    },
    /// YaRN (*Efficient Context Window Extension of Large Language Models*, section 3).
    Yarn {
        /// Divisor of the slow rotations.
        factor: f64,
        /// Rotations over the trained context above which a frequency is kept.
        beta_fast: f64,
        /// Rotations below which it is divided.
        beta_slow: f64,
        /// The trained context.
        original_len: f64,
        /// Factor on q and k.
        attention_factor: f64,
        /// Whether the ramp begins and ends at whole pairs of columns.
        truncate: bool,
    },
}

/// The rotation of a head.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f64,
    /// The changes for long contexts.
    pub scaling: RopeScaling,
}

impl Rope {
    /// Angle of one step for each pair of columns in a text of this many tokens, and the factor on sine and cosine.
    #[must_use]
    pub fn frequencies(&self, head_dim: u32, trained_len: u32, text_len: u32) -> (Vec<f64>, f64) {
        let dim = f64::from(head_dim);
        let plain = |theta: f64| (0..head_dim / 2).map(move |i| theta.powf(-2.0 * f64::from(i) / dim));
        match self.scaling {
            RopeScaling::None => (plain(self.theta).collect(), 1.0),
            RopeScaling::Linear { factor } => (plain(self.theta).map(|rate| rate / factor).collect(), 1.0),
            RopeScaling::Dynamic { factor } => {
                let stretch = factor * f64::from(text_len.max(trained_len)) / f64::from(trained_len) - (factor - 1.0);
                (plain(self.theta * stretch.powf(dim / (dim - 2.0))).collect(), 1.0)
            }
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_len } => {
                let scale = |rate: f64| {
                    let rotations = original_len * rate / (2.0 * PI);
                    // The ramp lies between two borders, which a file may have exchanged.
                    if rotations < low_freq_factor {
                        rate / factor
                    } else if rotations > high_freq_factor {
                        rate
                    } else {
                        let kept = (rotations - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        rate * kept + rate / factor * (1.0 - kept)
                    }
                };
                (plain(self.theta).map(scale).collect(), 1.0)
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_len, attention_factor, truncate } => {
                // The pair that makes this many rotations over the trained context.
                let pair =
                    |rotations: f64| dim * (original_len / (rotations * 2.0 * PI)).ln() / (2.0 * self.theta.ln());
                let (low, high) = (pair(beta_fast), pair(beta_slow));
                let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
                let (low, high) = (low.max(0.0), high.min(dim - 1.0));
                let high = if low == high { high + 0.001 } else { high };
                let scale = |(i, rate): (usize, f64)| {
                    let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    rate / factor * divided + rate * (1.0 - divided)
                };
                (plain(self.theta).enumerate().map(scale).collect(), attention_factor)
            }
        }
    }

    /// Cosine and sine of every position and pair of a text of `text_len` tokens, `[capacity, head_dim / 2, 2]`.
    #[must_use]
    pub(crate) fn table(&self, head_dim: u32, trained_len: u32, text_len: u32, capacity: u32) -> Vec<f32> {
        let (rates, factor) = self.frequencies(head_dim, trained_len, text_len);
        let mut table = Vec::with_capacity(capacity as usize * head_dim as usize);
        for position in 0..capacity {
            for rate in &rates {
                let (sin, cos) = (f64::from(position) * rate).sin_cos();
                table.extend([(cos * factor) as f32, (sin * factor) as f32]);
            }
        }
        table
    }
}
