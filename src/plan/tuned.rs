//! Tilings measured on a device, which replace those of the heuristics.

use core::hash::Hash;
use std::collections::HashMap;

use super::attend::matrix::check_dtype;
use super::attend::rows::RowSets;
use super::{AttentionPlan, SelectionPlan, SelectionTiling, Tiling, TunedAt};
use crate::{AttentionProblem, DType, DeviceCaps, Mask, SelectionMethod, SelectionProblem, Tier};

/// Problems of attention that take the same tiling: equal in types, widths and mask, and within a factor of two in the amount of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct AttentionClass {
    /// Storage of q, k and v.
    pub dtype: DType,
    /// Width of q and k.
    pub head_dim: u32,
    /// Width of v.
    pub head_dim_v: u32,
    /// The sides of a query on which its keys end.
    pub mask: MaskKind,
    /// Keys of a selected block; `None`: attention is dense.
    pub block_size: Option<u32>,
    /// Rows that may share a tile, up to a power of two, 2^12 at the most.
    pub rows_log2: u32,
    /// Keys that a row may see, up to a power of two.
    pub keys_log2: u32,
    /// Sets of such rows, up to a power of two, 2^12 at the most.
    pub sets_log2: u32,
}

/// A mask without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum MaskKind {
    /// Every key.
    Full,
    /// Keys up to the query's own.
    Causal,
    /// Keys around the query's own.
    Window,
}

impl core::fmt::Display for MaskKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Full => "full",
            Self::Causal => "causal",
            Self::Window => "window",
        })
    }
}

/// Exponents are capped here; beyond, the grid only gets more workgroups of the same kind.
const MOST_LOG2: u32 = 12;

impl AttentionClass {
    /// The class of a problem that [`AttentionProblem::validate`] accepts.
    #[must_use]
    pub fn of(problem: &AttentionProblem) -> Self {
        let (shape, rows) = (problem.shape(), RowSets::of(problem));
        let q_blocks = u64::from(shape.seq_len_q).div_ceil(rows.block_size_q.into());
        let mask = match problem.mask {
            Mask::Full => MaskKind::Full,
            Mask::Causal | Mask::CausalAt { .. } => MaskKind::Causal,
            Mask::Window { .. } => MaskKind::Window,
        };
        let window = problem.window().unwrap_or(u64::MAX);
        let listed = problem.blocks.map_or(u64::MAX, |blocks| blocks.most_keys());
        Self {
            dtype: problem.dtype,
            head_dim: shape.head_dim,
            head_dim_v: shape.head_dim_v,
            mask,
            block_size: problem.blocks.map(|blocks| blocks.block_size),
            rows_log2: log2_up(rows.rows_per_q_block()).min(MOST_LOG2),
            keys_log2: log2_up(u64::from(shape.seq_len_kv).min(window).min(listed)),
            sets_log2: log2_up(u64::from(shape.batch_size) * u64::from(rows.num_sets) * q_blocks).min(MOST_LOG2),
        }
    }
}

impl core::fmt::Display for AttentionClass {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { dtype, head_dim, head_dim_v, mask, block_size, rows_log2, keys_log2, sets_log2 } = self;
        let blocks = block_size.map_or_else(String::new, |size| format!(" in blocks of {size}"));
        write!(
            f,
            "{dtype} {head_dim}/{head_dim_v} {mask}, 2^{sets_log2} sets of 2^{rows_log2} rows x 2^{keys_log2} keys{blocks}"
        )
    }
}

/// Selections that take the same tiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SelectionClass {
    /// The method.
    pub method: MethodKind,
    /// Storage of q and k.
    pub dtype: DType,
    /// Width of q and k.
    pub head_dim: u32,
    /// Samples that a key is scored with in one go, up to a power of two.
    pub samples_log2: u32,
    /// Keys, up to a power of two.
    pub keys_log2: u32,
    /// Lists, up to a power of two, 2^12 at the most.
    pub lists_log2: u32,
}

/// A method of selection without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tune", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case"))]
#[non_exhaustive]
pub enum MethodKind {
    /// [`Hip`](crate::Hip).
    Hip,
    /// [`InfiniteHip`](crate::InfiniteHip).
    InfiniteHip,
    /// Any other, made of operators: no tiling plays a part in it.
    Other,
}

impl MethodKind {
    /// The kind of a method.
    #[must_use]
    pub fn of(method: &SelectionMethod) -> Self {
        match method {
            SelectionMethod::Hip(_) => Self::Hip,
            SelectionMethod::InfiniteHip(_) => Self::InfiniteHip,
            SelectionMethod::Other(_) => Self::Other,
        }
    }
}

impl core::fmt::Display for MethodKind {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Hip => "HiP",
            Self::InfiniteHip => "InfiniteHiP",
            Self::Other => "operators",
        })
    }
}

impl SelectionClass {
    /// The class of a problem that [`SelectionProblem::validate`] accepts.
    #[must_use]
    pub fn of(problem: &SelectionProblem) -> Self {
        let shape = problem.shape();
        Self {
            method: MethodKind::of(problem.method()),
            dtype: problem.dtype,
            head_dim: shape.head_dim,
            samples_log2: log2_up(SelectionTiling::num_samples(problem).into()),
            keys_log2: log2_up(shape.seq_len_kv.into()),
            lists_log2: log2_up(problem.blocks().num_lists(shape)).min(MOST_LOG2),
        }
    }
}

impl core::fmt::Display for SelectionClass {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { method, dtype, head_dim, samples_log2, keys_log2, lists_log2 } = self;
        write!(f, "{method} {dtype} {head_dim}, 2^{lists_log2} lists of 2^{samples_log2} samples x 2^{keys_log2} keys")
    }
}

/// The smallest exponent of two whose power is at least `n`.
fn log2_up(n: u64) -> u32 {
    u64::BITS - n.saturating_sub(1).leading_zeros()
}

/// The fastest tiers and tilings on a device, by class of problem. A plan of an unmeasured class takes the measurement of the nearest class
/// that differs in sizes alone: rows, keys and sets, by powers of two. Prompts and decoding (up to 16 rows) take nothing from each other,
/// and no group gets more rows than the problem has. Where keys or sets differ, the rules set the number of splits. If nothing fits, the
/// plan follows the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tuning {
    attention: HashMap<AttentionClass, (Tier, Tiling)>,
    selection: HashMap<SelectionClass, (Tier, SelectionTiling)>,
}

impl Tuning {
    /// No measurements.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the tiling of a class.
    pub fn set_attention(&mut self, class: AttentionClass, tier: Tier, tiling: Tiling) {
        self.attention.insert(class, (tier, tiling));
    }

    /// Sets the tiling of a class.
    pub fn set_selection(&mut self, class: SelectionClass, tier: Tier, tiling: SelectionTiling) {
        self.selection.insert(class, (tier, tiling));
    }

    /// Number of classes of both kinds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.attention.len() + self.selection.len()
    }

    /// Whether there are no measurements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl DeviceCaps {
    /// The same caps, with plans that take measured tilings.
    #[must_use]
    pub fn with_tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = (!tuning.is_empty()).then(|| tuning.into());
        self
    }

    /// The measurements set by [`with_tuning`](Self::with_tuning); `None`: plans follow the rules.
    #[must_use]
    pub fn tuning(&self) -> Option<&Tuning> {
        self.tuning.as_deref()
    }

    /// The measured tier and tiling for a problem, if they are valid for its exact sizes. bf16 that are multiplied as f16 in this tier take
    /// the measurements of f16.
    pub(super) fn tuned_attention(&self, problem: &AttentionProblem, tier: Tier) -> Option<Tuned<Tiling>> {
        let mut class = AttentionClass::of(problem);
        if problem.is_scaled(tier) {
            class.dtype = DType::F16;
        }
        let fits = |&(tier, tiling, _): &Tuned<Tiling>| {
            self.require(tier).is_ok()
                && problem.check_tier(tier).is_ok()
                && tiling.validate(problem, self, tier).is_ok()
        };
        let nearby = |measured: &AttentionClass, tier, mut tiling: Tiling| {
            if [measured.keys_log2, measured.sets_log2] != [class.keys_log2, class.sets_log2] {
                // A tuning may hold any numbers: they are checked before use.
                tiling = Tiling { num_splits: 1, ..tiling };
                tiling.validate(problem, self, tier).ok()?;
                tiling.num_splits = tiling.splits_for(problem, self);
            }
            (u64::from(tiling.rows) <= 1 << class.rows_log2).then_some(tiling)
        };
        nearest(&self.tuning.as_ref()?.attention, &class, AttentionClass::distance, nearby, fits)
    }

    /// The same for a selection.
    pub(super) fn tuned_selection(&self, problem: &SelectionProblem) -> Option<Tuned<SelectionTiling>> {
        let class = SelectionClass::of(problem);
        let fits = |&(tier, tiling, _): &Tuned<SelectionTiling>| {
            self.require(tier).is_ok()
                && check_dtype(problem.dtype, tier).is_ok()
                && tiling.validate(self, tier).is_ok()
        };
        let nearby = |_: &SelectionClass, _, tiling: SelectionTiling| {
            (u64::from(tiling.rows) <= 1 << class.samples_log2).then_some(tiling)
        };
        nearest(&self.tuning.as_ref()?.selection, &class, SelectionClass::distance, nearby, fits)
    }
}

/// A tier, a tiling, and the class that they were measured for.
pub(super) type Tuned<T> = (Tier, T, TunedAt);

/// The measurement of a class; else the measurement of the nearest class at a finite distance, adapted by `nearby`, if it `fits`.
fn nearest<C: Copy + Eq + Hash, T: Copy>(
    measured: &HashMap<C, (Tier, T)>,
    class: &C,
    distance: impl Fn(&C, &C) -> Option<[u32; 6]>,
    nearby: impl Fn(&C, Tier, T) -> Option<T>,
    fits: impl Fn(&Tuned<T>) -> bool,
) -> Option<Tuned<T>> {
    let exact = measured.get(class).map(|&(tier, tiling)| (tier, tiling, TunedAt::ThisSize));
    exact.filter(&fits).or_else(|| {
        let others = measured.iter().filter(|&(other, _)| other != class);
        let mut others: Vec<_> = others.filter_map(|(other, &of)| Some((distance(class, other)?, other, of))).collect();
        others.sort_unstable_by_key(|&(distance, ..)| distance);
        let fitted = |(_, other, (tier, tiling)): (_, &C, (Tier, T))| {
            Some((tier, nearby(other, tier, tiling)?, TunedAt::NeighbouringSize)).filter(&fits)
        };
        others.into_iter().find_map(fitted)
    })
}

impl AttentionPlan {
    /// Whether the tile sizes come from a [`Tuning`](crate::Tuning).
    #[must_use]
    pub const fn is_tuned(&self) -> bool {
        self.tuned.is_some()
    }

    /// The class whose measured tile sizes were taken; `None`: they follow the rules.
    #[must_use]
    pub const fn tuned_at(&self) -> Option<TunedAt> {
        self.tuned
    }

    /// The plan of a tier with the measured tiling, if this tier was the fastest and memory has room for this problem, which may be larger
    /// than the measured one.
    pub(super) fn of_tuning(problem: &AttentionProblem, caps: &DeviceCaps, tier: Tier) -> Option<Self> {
        let (_, tiling, at) = caps.tuned_attention(problem, tier).filter(|&(of, ..)| of == tier)?;
        let mut plan = Self::with_tiling(problem, caps, tier, tiling).ok()?;
        plan.tuned = Some(at);
        Some(plan)
    }

    /// Estimated seconds by the device's budget, which is 100 ms for a dispatch.
    #[cfg(feature = "tune")]
    pub(crate) fn expected_seconds(&self, caps: &DeviceCaps) -> f64 {
        self.operations() as f64 / caps.budget.dispatch_operations() as f64 * 0.1
    }
}

impl SelectionPlan {
    /// The same for a selection.
    pub(super) fn of_tuning(problem: &SelectionProblem, caps: &DeviceCaps, tier: Tier) -> Option<Self> {
        let (_, tiling, at) = caps.tuned_selection(problem).filter(|&(of, ..)| of == tier)?;
        let mut plan = Self::with_tiling(problem, caps, tier, tiling).ok()?;
        plan.tuned = Some(at);
        Some(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_reach_their_number() {
        let found = [0, 1, 2, 3, 4, 5, 1 << 20, (1 << 20) + 1, u64::MAX].map(log2_up);
        assert_eq!(found, [0, 0, 1, 2, 2, 3, 20, 21, 64]);
    }
}
