//! Attention with linear biases.

use crate::{AttentionShape, Error, Result};

/// `score - slope[head] * abs(position - key)`, where the query sits at `position` (ALiBi, Press et al. 2022; BLOOM, MPT). Under a causal
/// mask the distance is `position - key`.
#[derive(Clone, Debug, PartialEq)]
pub struct Alibi {
    /// `None`: the published ones.
    slopes: Option<Vec<f32>>,
}

impl Alibi {
    /// The slopes of the paper for the number of query heads, see [`published_slopes`].
    #[must_use]
    pub const fn published() -> Self {
        Self { slopes: None }
    }

    /// One slope for each query head.
    #[must_use]
    pub fn with_slopes(slopes: &[f32]) -> Self {
        Self { slopes: Some(slopes.to_vec()) }
    }

    /// The slope of each query head.
    #[must_use]
    pub fn slopes(&self, num_q_heads: u32) -> Vec<f32> {
        self.slopes.clone().unwrap_or_else(|| published_slopes(num_q_heads))
    }

    /// The slope of one query head.
    pub(crate) fn slope(&self, head: u32, num_q_heads: u32) -> f32 {
        self.slopes.as_ref().map_or_else(|| published_slope(head, num_q_heads), |slopes| slopes[head as usize])
    }

    pub(super) fn validate(&self, shape: &AttentionShape) -> Result<()> {
        let Some(slopes) = &self.slopes else { return Ok(()) };
        let (expected, actual) = (u64::from(shape.num_q_heads), slopes.len() as u64);
        if actual != expected {
            return Err(Error::Length { tensor: "alibi slopes", expected, actual });
        }
        match slopes.iter().find(|slope| !slope.is_finite()) {
            Some(&slope) => {
                Err(Error::Number { argument: "alibi slopes", value: slope.into(), rule: "must be finite" })
            }
            None => Ok(()),
        }
    }
}

/// The slopes of ALiBi for a number of heads: `2^(-8 i / n)` for head `i` from 1 on, where `n` is a power of two. For other numbers the
/// rule of the authors' code: the slopes of the largest power of two below, then every other slope of twice as many heads.
///
/// ```
/// assert_eq!(wattn::published_slopes(4), [0.25, 0.0625, 0.015625, 0.00390625]);
/// assert_eq!(wattn::published_slopes(3), [0.0625, 0.00390625, 0.25]);
/// ```
#[must_use]
pub fn published_slopes(num_heads: u32) -> Vec<f32> {
    (0..num_heads).map(|head| published_slope(head, num_heads)).collect()
}

fn published_slope(head: u32, num_heads: u32) -> f32 {
    let slope = |head: u32, of: u32| (-8.0 * f64::from(head) / f64::from(of)).exp2() as f32;
    // There is a head.
    let power = 1 << num_heads.ilog2();
    if head < power { slope(head + 1, power) } else { slope(2 * (head - power) + 1, 2 * power) }
}

impl core::fmt::Display for Alibi {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(if self.slopes.is_some() { "alibi with given slopes" } else { "alibi" })
    }
}
