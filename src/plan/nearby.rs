//! Measured tilings for problems of other sizes: the fastest tiling for 8192 rows suits 16384 rows better than the rules do.

use super::{AttentionClass, SelectionClass};

/// The class that a measured tiling comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunedAt {
    /// The problem's own class.
    ThisSize,
    /// The nearest measured class: the same types, widths, mask and blocks, other sizes.
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

/// Distance of a class: steps of two over all sizes, then over each size, the most significant first; then the sizes themselves, so
/// that of two equally near classes the smaller always wins.
type Distance = [u32; 6];

/// Up to this many rows, calls are limited by reading keys. Tilings that are fast there are slow for a prompt, and the reverse.
const FEW_ROWS_LOG2: u32 = 4;

fn distance(of: [u32; 3], measured: [u32; 3]) -> Distance {
    let [a, b, c] = core::array::from_fn(|at| of[at].abs_diff(measured[at]));
    [a + b + c, a, b, measured[0], measured[1], measured[2]]
}

impl AttentionClass {
    /// Distance of a measured class; `None` where it differs in more than sizes.
    pub(super) fn distance(&self, measured: &Self) -> Option<Distance> {
        let sizes = |class: &Self| [class.rows_log2, class.keys_log2, class.sets_log2];
        let [rows_log2, keys_log2, sets_log2] = sizes(measured);
        let alike = Self { rows_log2, keys_log2, sets_log2, ..*self } == *measured;
        let few = |class: &Self| class.rows_log2 <= FEW_ROWS_LOG2;
        (alike && few(self) == few(measured)).then(|| distance(sizes(self), sizes(measured)))
    }
}

impl SelectionClass {
    /// The same for a selection. Lists with one sample are decoding.
    pub(super) fn distance(&self, measured: &Self) -> Option<Distance> {
        let sizes = |class: &Self| [class.samples_log2, class.keys_log2, class.lists_log2];
        let [samples_log2, keys_log2, lists_log2] = sizes(measured);
        let alike = Self { samples_log2, keys_log2, lists_log2, ..*self } == *measured;
        let one = |class: &Self| class.samples_log2 == 0;
        (alike && one(self) == one(measured)).then(|| distance(sizes(self), sizes(measured)))
    }
}
