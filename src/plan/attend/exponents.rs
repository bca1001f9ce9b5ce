//! bf16 as f16: the dispatch that finds the largest exponents of heads, which decide their scaling.

use std::collections::BTreeMap;

use super::AttentionPlan;
use super::matrix::check_dtype;
use crate::kernels::{self, find_exponents, modules};
use crate::plan::{Dispatch, arrays_of};
use crate::shader::{Specialization, Taken};
use crate::{AttentionProblem, DType, DeviceCaps, DispatchBudget, Result, Tier};

/// vec4 of a part: 64 KiB, which keep a workgroup busy for longer than it takes to start.
const PART4: u64 = 8192;
/// Limit on the parts of a head, since attending workgroups read the exponents of all parts. With this many, one head each of q, k and v
/// gives most cores of a large GPU a workgroup.
const MOST_PARTS: u64 = 32;
/// Elements that an invocation loads at once: 32 bytes.
const AT_ONCE: u32 = 4;

impl AttentionProblem {
    /// Whether the problem's bf16 are multiplied as f16 in a tier.
    pub(in crate::plan) const fn is_scaled(&self, tier: Tier) -> bool {
        tier.matrix() && self.bf16_by_f16_matrices
    }

    /// Checks that the kernels of a tier take the problem's tensors.
    pub(in crate::plan) fn check_tier(&self, tier: Tier) -> Result<()> {
        if self.is_scaled(tier) { Ok(()) } else { check_dtype(self.dtype, tier) }
    }

    /// The fewest rows for which matrices pay, on a device that has them for the problem. Few rows are limited by memory. bf16 are read
    /// twice: on an H100 (3 TB/s, half of 60 TFLOP/s against 190 by matrices) that costs as much as a dozen rows.
    pub(in crate::plan) fn least_matrix_rows(&self, edge: u32) -> Option<u32> {
        match self.dtype {
            DType::F16 => Some(edge),
            DType::BF16 if self.bf16_by_f16_matrices => Some(2 * edge),
            DType::F32 | DType::BF16 => None,
        }
    }
}

/// Heads of q, k and v of all sequences, and parts of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Exponents {
    pub(in crate::plan) parts: u32,
    heads: u64,
}

impl Exponents {
    /// `None` where nothing is scaled.
    pub(in crate::plan) fn of(problem: &AttentionProblem, tier: Tier) -> Option<Self> {
        let shape = problem.shape();
        let rows = u64::from(shape.seq_len_q.max(shape.seq_len_kv));
        let elements = rows * u64::from(shape.head_dim.max(shape.head_dim_v) / 4);
        // At most MOST_PARTS.
        let parts = elements.div_ceil(PART4).clamp(1, MOST_PARTS) as u32;
        let heads = u64::from(shape.batch_size) * (u64::from(shape.num_q_heads) + 2 * u64::from(shape.num_kv_heads));
        problem.is_scaled(tier).then_some(Self { parts, heads })
    }

    /// One exponent for each part of each head.
    pub(in crate::plan) fn num(&self) -> u64 {
        self.heads * u64::from(self.parts)
    }

    pub(in crate::plan) fn dispatch(&self, problem: &AttentionProblem, caps: &DeviceCaps) -> Result<Dispatch> {
        let shape = problem.shape();
        let size = find_exponents::WORKGROUP_SIZE.min(caps.max_invocations_per_workgroup);
        let lengths = modules::lengths(problem.seq_lens_kv);
        let paging = [&modules::PAGING_CONTIGUOUS, &modules::ROWS_OF_K, &modules::ROWS_OF_V];
        let common = Taken::all([&modules::ATTEND_PARAMS, &modules::STRETCH, lengths].into_iter().chain(paging));
        let formats = ["q", "k", "v"].map(|tensor| Taken::for_tensor(tensor, &modules::ELEM_BF16));
        let specialization = Specialization {
            kernel: &kernels::FIND_EXPONENTS,
            modules: common.into_iter().chain(formats).collect(),
            constants: BTreeMap::from([
                ("AT_ONCE", AT_ONCE),
                ("HEAD_DIM4", shape.head_dim / 4),
                ("HEAD_DIM_V4", shape.head_dim_v / 4),
                ("WORKGROUP_SIZE", size),
            ]),
            switches: BTreeMap::new(),
            arrays: arrays_of(caps),
            chain: Vec::new(),
        };
        let rows = u64::from(shape.seq_len_q.max(shape.seq_len_kv)).div_ceil(self.parts.into());
        let elements = rows * u64::from(shape.head_dim.max(shape.head_dim_v) / 4);
        Dispatch::even(specialization, self.num(), elements * DispatchBudget::FETCH, caps)
    }
}

impl AttentionPlan {
    /// Parts of each head whose largest exponent is found; 0: nothing is scaled.
    pub(crate) fn exponent_parts(&self) -> u32 {
        self.exponents.map_or(0, |exponents| exponents.parts)
    }

    /// The dispatch of the attending kernel.
    pub(crate) fn attending(&self) -> &Dispatch {
        &self.dispatches[usize::from(self.exponents.is_some())]
    }

    /// The exponents' range at the end of the workspace, in bytes.
    pub(crate) fn exponents_range(&self) -> core::ops::Range<u64> {
        let end = self.carried_range().end;
        self.exponents.map_or(end..end, |exponents| {
            let begin = end.next_multiple_of(256);
            begin..begin + exponents.num() * 4
        })
    }
}
