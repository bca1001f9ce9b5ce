//! Dense attention on the GPU.

use core::ops::Range;
use std::sync::Arc;

use super::bind::{Access, BoundTensor, Expect, U32View, check_apart, check_lens, check_tensor, check_u32};
use super::bound::{Bound, prepare};
use super::modify::Modifiers;
use super::params::{Uniforms, numbers_in_words, step};
use super::workspace::Workspace;
use crate::device::slots::Slot;
use crate::kernels::attend_prefill::AttendParams;
use crate::kernels::merge_splits::MergeParams;
use crate::kernels::places::{LsePlace, SeqLensPlace};
use crate::problem::exactly_when;
use crate::{
    AttentionPlan, AttentionProblem, AttentionShape, BlockListSpec, Context, DType, DeviceCaps, Error, Pipeline,
    Result, Slots, Step, TensorView, TensorViewMut, kernels,
};

/// Stands for an open side of a window: larger than every distance that [`AttentionProblem::validate`] allows, and small enough that
/// its sum with a position fits an `i32`.
///
/// [`AttentionProblem::validate`]: crate::AttentionProblem::validate
const OPEN_WINDOW: u32 = 1 << 30;

/// Attention with its buffers bound.
pub type BoundAttention = Bound;

/// The compiled pipelines of a plan. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Attention {
    ctx: Context,
    plan: Arc<AttentionPlan>,
    pipelines: Vec<Pipeline>,
}

/// The tensors of one attention call.
#[derive(Debug)]
pub struct AttentionArgs<'a> {
    pub(crate) q: TensorView<'a>,
    pub(crate) k: TensorView<'a>,
    pub(crate) v: TensorView<'a>,
    pub(crate) out: TensorViewMut<'a>,
    pub(crate) seq_lens_kv: Option<U32View<'a>>,
    pub(crate) blocks: Option<BlockListsView<'a>>,
    pub(crate) lse: Option<TensorViewMut<'a>>,
    pub(crate) tensors: Vec<(&'a str, TensorView<'a>)>,
}

impl<'a> AttentionArgs<'a> {
    /// q `[batch, seq_len_q, num_q_heads, head_dim]`, k `[batch, seq_len_kv, num_kv_heads, head_dim]`, v
    /// `[batch, seq_len_kv, num_kv_heads, head_dim_v]` and out `[batch, seq_len_q, num_q_heads, head_dim_v]`.
    #[must_use]
    pub const fn new(q: TensorView<'a>, k: TensorView<'a>, v: TensorView<'a>, out: TensorViewMut<'a>) -> Self {
        Self { q, k, v, out, seq_lens_kv: None, blocks: None, lse: None, tensors: Vec::new() }
    }

    /// Sets the keys of each sequence, `[batch]`, exactly when the problem says
    /// [`with_seq_lens_kv`](crate::AttentionProblem::with_seq_lens_kv). The kernels clamp values to `seq_len_kv`.
    #[must_use]
    pub fn with_seq_lens_kv(mut self, seq_lens_kv: impl Into<Option<U32View<'a>>>) -> Self {
        self.seq_lens_kv = seq_lens_kv.into();
        self
    }

    /// Sets the lists of blocks, exactly when the problem says
    /// [`with_blocks`](crate::AttentionProblem::with_blocks).
    #[must_use]
    pub fn with_blocks(mut self, blocks: impl Into<Option<BlockListsView<'a>>>) -> Self {
        self.blocks = blocks.into();
        self
    }

    /// Adds a tensor that the problem takes by name: that of a [bias](crate::Bias). Its layout has the axes `[batch, head, query, key]`,
    /// keys contiguous, any strides and offset.
    #[must_use]
    pub fn with_tensor(mut self, name: &'a str, tensor: TensorView<'a>) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// Sets where the lse goes: f32, natural log, `[batch, seq_len_q, num_q_heads, 1]`, exactly when the problem says
    /// [`with_lse`](crate::AttentionProblem::with_lse).
    #[must_use]
    pub fn with_lse(mut self, lse: impl Into<Option<TensorViewMut<'a>>>) -> Self {
        self.lse = lse.into();
        self
    }

    /// `[batch, seq_len_q, num_q_heads, head_dim]`.
    #[must_use]
    pub const fn q(&self) -> TensorView<'a> {
        self.q
    }

    /// `[batch, seq_len_kv, num_kv_heads, head_dim]`.
    #[must_use]
    pub const fn k(&self) -> TensorView<'a> {
        self.k
    }

    /// `[batch, seq_len_kv, num_kv_heads, head_dim_v]`.
    #[must_use]
    pub const fn v(&self) -> TensorView<'a> {
        self.v
    }

    /// The keys of each sequence, if they were set.
    #[must_use]
    pub const fn seq_lens_kv(&self) -> Option<U32View<'a>> {
        self.seq_lens_kv
    }
}

/// Lists of blocks in GPU buffers, written by a selection or by the caller. The kernels rely on the rules that
/// [`Context::check_blocks`](crate::Context::check_blocks) verifies; lists that break them give wrong numbers, never accesses outside
/// the buffers.
#[derive(Clone, Copy, Debug)]
pub struct BlockListsView<'a> {
    pub(crate) block_indices: U32View<'a>,
    pub(crate) block_counts: U32View<'a>,
}

impl<'a> BlockListsView<'a> {
    /// `block_indices` `[batch, set, q_block, max_blocks]`: the first key of each block, ascending and disjoint; and
    /// `block_counts` `[batch, set, q_block]`: blocks of each list, which the kernels clamp to `max_blocks`.
    #[must_use]
    pub const fn new(block_indices: U32View<'a>, block_counts: U32View<'a>) -> Self {
        Self { block_indices, block_counts }
    }
}

impl Attention {
    /// Compiles the kernels of a plan, or finds them in the context's cache.
    ///
    /// # Errors
    /// [`Error::Validation`] when the driver refuses a shader, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    ///
    /// # Cost
    /// Compiles on a cache miss. Submits nothing.
    pub fn prepare(ctx: &Context, plan: &AttentionPlan) -> Result<Self> {
        // The driver of this device must not get a plan that was made for another.
        ctx.caps().require(plan.tier())?;
        let pipelines = prepare(ctx, plan.dispatches())?;
        Ok(Self { ctx: ctx.clone(), plan: Arc::new(plan.clone()), pipelines })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &AttentionPlan {
        &self.plan
    }

    /// Binds buffers, with a workspace of our own where the plan needs one.
    ///
    /// # Errors
    /// The errors of [`Attention::bind_with`], and of [`Workspace::new`].
    ///
    /// # Cost
    /// The cost of [`Attention::bind_with`], and a workspace.
    pub fn bind(&self, args: AttentionArgs<'_>) -> Result<BoundAttention> {
        let workspace = Workspace::new(&self.ctx, self.plan.workspace_bytes())?;
        self.bind_with(args, &workspace)
    }

    /// Checks the views and binds their buffers for any number of `encode` calls.
    ///
    /// # Errors
    /// An error that names the tensor: [`Error::Shape`], [`Error::DType`], [`Error::Layout`], [`Error::OutOfBounds`],
    /// [`Error::Usage`], [`Error::Overlap`], [`Error::Limit`], [`Error::Argument`], [`Error::Length`];
    /// [`Error::Validation`] for a buffer of another device.
    ///
    /// # Cost
    /// Creates a bind group and a small uniform buffer for each dispatch. Submits nothing.
    pub fn bind_with(&self, args: AttentionArgs<'_>, workspace: &Workspace) -> Result<BoundAttention> {
        let tensors = self.check(&args)?;
        let needed = self.plan.workspace_bytes();
        if workspace.size_bytes() < needed {
            return Err(Error::OutOfBounds { tensor: "workspace", end: needed, len: workspace.size_bytes() });
        }
        if needed > 0 {
            let mut others =
                vec![("q", args.q.buffer), ("k", args.k.buffer), ("v", args.v.buffer), ("out", args.out.buffer)];
            others.extend(args.lse.as_ref().map(|lse| ("lse", lse.buffer)));
            others.extend(args.blocks.iter().flat_map(BlockListsView::buffers));
            others.extend(problem_tensors(&self.plan.problem, &args.tensors));
            check_apart(("workspace", &workspace.buffer), &others)?;
        }
        let steps = self.ctx.scoped("binding attention", || self.steps(&tensors, workspace))??;
        Ok(Bound::new("wattn.attention", steps))
    }

    fn check<'a>(&self, args: &AttentionArgs<'a>) -> Result<Tensors<'a>> {
        let (problem, caps) = (&self.plan.problem, self.ctx.caps());
        let (shape, dtype) = (problem.shape(), problem.dtype);
        // 16 bytes where the problem promises that alignment.
        let loaded = if problem.aligned_rows { 16 / dtype.size_bytes() } else { 4 };
        let input = |tensor, shape| Expect { tensor, shape, dtype, access: Access::Read, at_a_time: loaded };
        let output =
            |tensor, shape, dtype, at_a_time| Expect { tensor, shape, dtype, access: Access::Write, at_a_time };

        let seq_lens_kv = check_lens("seq_lens_kv", args.seq_lens_kv, problem.seq_lens_kv, shape.batch_size, caps)?;
        let lse = exactly_when("lse", args.lse.as_ref(), problem.lse)?
            .map(|view| check_tensor(view.as_view(), output("lse", problem.lse_shape(), DType::F32, 1), caps))
            .transpose()?;
        let blocks = exactly_when("blocks", args.blocks.as_ref(), problem.blocks.is_some())?
            .zip(problem.blocks.as_ref())
            .map(|(lists, blocks)| check_blocks(lists, blocks, shape, caps))
            .transpose()?;
        let mut read = vec![("q", args.q.buffer), ("k", args.k.buffer), ("v", args.v.buffer)];
        read.extend(args.seq_lens_kv.map(|view| ("seq_lens_kv", view.buffer)));
        read.extend(args.blocks.iter().flat_map(BlockListsView::buffers));
        let modifiers = Modifiers::check(problem, &args.tensors, caps)?;
        read.extend(problem_tensors(problem, &args.tensors));
        check_apart(("out", args.out.buffer), &read)?;
        if let Some(lse) = &args.lse {
            read.push(("out", args.out.buffer));
            check_apart(("lse", lse.buffer), &read)?;
        }
        Ok(Tensors {
            q: check_tensor(args.q, input("q", problem.q_shape()), caps)?,
            k: check_tensor(args.k, input("k", problem.k_shape()), caps)?,
            v: check_tensor(args.v, input("v", problem.v_shape()), caps)?,
            seq_lens_kv,
            blocks,
            out: check_tensor(args.out.as_view(), output("out", problem.out_shape(), problem.out_dtype, 4), caps)?,
            lse,
            modifiers,
        })
    }

    fn steps(&self, tensors: &Tensors<'_>, workspace: &Workspace) -> Result<Vec<Step>> {
        let plan = &self.plan;
        let params = Self::attend_params(plan, &tensors.places());
        let in_workspace = |range: Range<u64>| Slot::Range(&workspace.buffer, range.start, range.end - range.start);
        let mut slots = Slots::new()
            .with("q", tensors.q.slot())
            .with("k", tensors.k.slot())
            .with("v", tensors.v.slot())
            .with("out", tensors.out.slot())
            .with("partial_out", in_workspace(plan.partial_out_range()))
            .with("partial_lse", in_workspace(plan.partial_lse_range()))
            .with("exponents", in_workspace(plan.exponents_range()))
            .with("workspace", in_workspace(0..plan.workspace_bytes()));
        let seq_lens_place = tensors.seq_lens_kv.as_ref().map(BoundTensor::seq_lens_place);
        if let Some((lens, place)) = tensors.seq_lens_kv.as_ref().zip(seq_lens_place.as_ref()) {
            slots = slots.with("seq_lens_kv", lens.slot()).uniform("seq_lens_place", bytemuck::bytes_of(place));
        }
        let lse_place = tensors.lse.as_ref().map(BoundTensor::lse_place);
        if let Some((lse, place)) = tensors.lse.as_ref().zip(lse_place.as_ref()) {
            slots = slots.with("lse", lse.slot()).uniform("lse_place", bytemuck::bytes_of(place));
        }
        if let Some([indices, counts]) = &tensors.blocks {
            slots = slots.with("block_indices", indices.slot()).with("block_counts", counts.slot());
        }
        let own = tensors.modifiers.upload(&self.ctx);
        let slots = tensors.modifiers.slots(slots, &own);
        let mut steps = Vec::with_capacity(self.pipelines.len());
        for (pipeline, dispatch) in self.pipelines.iter().zip(plan.dispatches()) {
            // An empty dispatch binds nothing: its ranges of the workspace may be empty.
            if dispatch.workgroups.contains(&0) {
                continue;
            }
            steps.push(if dispatch.kernel() == &kernels::MERGE_SPLITS {
                step(&self.ctx, pipeline, dispatch, &Self::merge_params(plan, &params), &slots)?
            } else {
                step(&self.ctx, pipeline, dispatch, &params, &slots)?
            });
        }
        Ok(steps)
    }

    /// The uniforms of a dispatch's stretches over contiguous tensors, in words. For tests that run kernels without a device.
    #[doc(hidden)]
    #[must_use]
    pub fn uniforms(plan: &AttentionPlan, dispatch: usize) -> Vec<Uniforms> {
        let packed = |[_, seq, heads, dim]: [u32; 4]| [seq * heads * dim, heads * dim, dim];
        let in_vec4 = |shape| (0, packed(shape).map(|stride| stride / 4));
        let places = Places {
            q: in_vec4(plan.problem.q_shape()),
            k: in_vec4(plan.problem.k_shape()),
            v: in_vec4(plan.problem.v_shape()),
            out: in_vec4(plan.problem.out_shape()),
            blocks: [0; 2],
        };
        let params = Self::attend_params(plan, &places);
        let dispatch = &plan.dispatches()[dispatch];
        let of_call = if dispatch.kernel() == &kernels::MERGE_SPLITS {
            bytemuck::bytes_of(&Self::merge_params(plan, &params)).to_vec()
        } else {
            bytemuck::bytes_of(&params).to_vec()
        };
        let [batch, seq, head] = packed(plan.problem.lse_shape());
        let lse_place = LsePlace { offset: 0, batch, seq, head };
        let mut numbers = vec![
            ("params", of_call),
            ("lse_place", bytemuck::bytes_of(&lse_place).to_vec()),
            ("seq_lens_place", bytemuck::bytes_of(&SeqLensPlace::default()).to_vec()),
        ];
        numbers.extend(Modifiers::numbers(&plan.problem));
        numbers_in_words(&numbers, &dispatch.stretches)
    }

    fn attend_params(plan: &AttentionPlan, places: &Places) -> AttendParams {
        let problem = &plan.problem;
        let shape = problem.shape();
        let rows = plan.row_sets();
        let [num_sets, max_blocks, block_size_q, sink_size, window_size, dense_below] =
            problem.blocks.map_or([0; 6], |blocks| {
                let [_, num_sets, _, max_blocks] = blocks.indices_shape(shape);
                let sizes = [blocks.block_size_q, blocks.sink_size, blocks.window_size, blocks.dense_below];
                [num_sets, max_blocks, sizes[0], sizes[1], sizes[2], sizes[3]]
            });
        let [indices_offset, counts_offset] = places.blocks;
        let (left, right) = problem.mask.bounds(shape.seq_len_q, shape.seq_len_kv);
        let open = i64::from(OPEN_WINDOW);
        let window = |side: Option<i64>| side.unwrap_or(open).clamp(-open, open) as i32; // at most 2^30
        let (q_offset, [q_batch, q_seq, q_head]) = places.q;
        let (k_offset, [k_batch, k_seq, k_head]) = places.k;
        let (v_offset, [v_batch, v_seq, v_head]) = places.v;
        let (out_offset, [out_batch, out_seq, out_head]) = places.out;
        AttendParams {
            batch_size: shape.batch_size,
            seq_len_q: shape.seq_len_q,
            seq_len_kv: shape.seq_len_kv,
            num_rows: rows.rows_per_set(shape) as u32, // checked by the plan
            num_q_heads: shape.num_q_heads,
            group_size: rows.heads_per_set,
            row_tiles: plan.row_tiles() as u32, // checked above
            num_splits: plan.tiling().num_splits,
            window_left: window(left),
            window_right: window(right),
            scale: problem.kernel_scale(),
            q_offset,
            q_batch,
            q_seq,
            q_head,
            k_offset,
            k_batch,
            k_seq,
            k_head,
            v_offset,
            v_batch,
            v_seq,
            v_head,
            out_offset,
            out_batch,
            out_seq,
            out_head,
            heads_per_kv_head: shape.group_size() / rows.heads_per_set,
            // At least 1, since kernels divide by it.
            block_size_q: block_size_q.max(1),
            tiles_per_q_block: rows.tiles_per_q_block(plan.tiling()).max(1) as u32, // fewer than row_tiles
            num_sets,
            max_blocks,
            indices_offset,
            counts_offset,
            // Below 2^29, by the problem's validation.
            sink_size: sink_size as i32,
            window_size: window_size as i32,
            dense_below: dense_below as i32,
            part_tiles: plan.part_tiles(),
            exponent_parts: plan.exponent_parts(),
            // The workspace fits a binding, so its vec4 are counted in 32 bits.
            partial_lse_at: (plan.partial_lse_range().start / 16) as u32,
            carried_at: (plan.carried_range().start / 16) as u32,
            exponents_at: (plan.exponents_range().start / 16) as u32,
        }
    }

    fn merge_params(plan: &AttentionPlan, attend: &AttendParams) -> MergeParams {
        MergeParams {
            num_parts: plan.tiling().num_splits,
            num_rows: plan.out_rows() as u32, // checked by the plan
            seq_len_q: attend.seq_len_q,
            num_q_heads: plan.problem.shape().num_q_heads,
            parts_out_offset: 0,
            parts_lse_offset: 0,
            parts_lse_stride: 4,
            out_offset: attend.out_offset,
            out_batch: attend.out_batch,
            out_seq: attend.out_seq,
            out_head: attend.out_head,
        }
    }
}

impl<'a> BlockListsView<'a> {
    fn buffers(&self) -> [(&'static str, &'a wgpu::Buffer); 2] {
        [("block_indices", self.block_indices.buffer), ("block_counts", self.block_counts.buffer)]
    }
}

/// Checks the sizes of the lists; their contents are data.
pub(super) fn check_blocks<'a>(
    lists: &BlockListsView<'a>,
    blocks: &BlockListSpec,
    shape: &AttentionShape,
    caps: &DeviceCaps,
) -> Result<[BoundTensor<'a>; 2]> {
    let num_lists = blocks.num_lists(shape);
    let indices = check_u32(lists.block_indices, "block_indices", num_lists * u64::from(blocks.max_blocks), caps)?;
    Ok([indices, check_u32(lists.block_counts, "block_counts", num_lists, caps)?])
}

/// The buffers of tensors by name, under the names that the problem gives them.
fn problem_tensors<'a>(
    problem: &AttentionProblem,
    tensors: &[(&'a str, TensorView<'a>)],
) -> impl Iterator<Item = (&'static str, &'a wgpu::Buffer)> {
    let given = |known: &str| tensors.iter().find(|(name, _)| *name == known);
    problem.named_tensors().filter_map(move |(name, ..)| given(name).map(|(_, view)| (name, view.buffer)))
}

/// The checked tensors of a call.
struct Tensors<'a> {
    q: BoundTensor<'a>,
    k: BoundTensor<'a>,
    v: BoundTensor<'a>,
    seq_lens_kv: Option<BoundTensor<'a>>,
    /// Indices and counts.
    blocks: Option<[BoundTensor<'a>; 2]>,
    out: BoundTensor<'a>,
    lse: Option<BoundTensor<'a>>,
    modifiers: Modifiers<'a>,
}

impl Tensors<'_> {
    fn places(&self) -> Places {
        Places {
            q: self.q.in_vec4(),
            k: self.k.in_vec4(),
            v: self.v.in_vec4(),
            out: self.out.in_vec4(),
            blocks: self.blocks.as_ref().map_or([0; 2], |lists| lists.each_ref().map(|list| list.offset)),
        }
    }
}

/// Offsets and strides in the units that kernels count: vec4 elements for q, k, v and out.
struct Places {
    q: (u32, [u32; 3]),
    k: (u32, [u32; 3]),
    v: (u32, [u32; 3]),
    out: (u32, [u32; 3]),
    /// Indices and counts.
    blocks: [u32; 2],
}
