//! Sizes that were measured for sizes that were not: what is fastest for 8192 rows is better for 16384 than a rule.

use super::{AttentionClass, SelectionClass};

/// Where a tiling that was measured comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunedAt {
    /// From a problem of the same class.
    ThisSize,
    /// From the nearest class that was measured: the same types, widths, mask and blocks, other sizes.
    NeighbouringSize,
}

impl core::fmt::Display for TunedAt {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::ThisSize => "measured",
            Self::NeighbouringSize => "measured at a neighbouring size",
        })
    }
}

/// How far a class is: steps of two in all sizes together, then in each, the most telling first; then the sizes themselves, so that of two
/// classes as near as each other it is always the smaller that counts.
type Distance = [u32; 6];

/// Rows up to which keys are read for a few queries only. What is fast there is slow for a prompt, and the other way round.
const FEW_ROWS_LOG2: u32 = 4;

fn distance(of: [u32; 3], measured: [u32; 3]) -> Distance {
    let [a, b, c] = core::array::from_fn(|at| of[at].abs_diff(measured[at]));
    [a + b + c, a, b, measured[0], measured[1], measured[2]]
}

impl AttentionClass {
    /// How far a class is that was measured; `None` where it differs in more than sizes.
    pub(super) fn distance(&self, measured: &Self) -> Option<Distance> {
        let sizes = |class: &Self| [class.rows_log2, class.keys_log2, class.sets_log2];
        let [rows_log2, keys_log2, sets_log2] = sizes(measured);
        let alike = Self { rows_log2, keys_log2, sets_log2, ..*self } == *measured;
        let few = |class: &Self| class.rows_log2 <= FEW_ROWS_LOG2;
        (alike && few(self) == few(measured)).then(|| distance(sizes(self), sizes(measured)))
    }
}

impl SelectionClass {
    /// The same for a selection. One sample for a list is decoding.
    pub(super) fn distance(&self, measured: &Self) -> Option<Distance> {
        let sizes = |class: &Self| [class.samples_log2, class.keys_log2, class.lists_log2];
        let [samples_log2, keys_log2, lists_log2] = sizes(measured);
        let alike = Self { samples_log2, keys_log2, lists_log2, ..*self } == *measured;
        let one = |class: &Self| class.samples_log2 == 0;
        (alike && one(self) == one(measured)).then(|| distance(sizes(self), sizes(measured)))
    }
}
