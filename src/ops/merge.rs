//! Merge of partial attention results on the GPU.

use std::sync::Arc;

use super::bind::{Access, Expect, check_apart, check_tensor};
use super::bound::Bound;
use super::params::step;
use crate::kernels::merge_splits::MergeParams;
use crate::{Context, DType, Error, Layout, MergePlan, Pipeline, Result, Slots, TensorView, TensorViewMut};

/// A merge with its buffers bound.
pub type BoundMerge = Bound;

/// The compiled pipeline of a [`MergePlan`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Merge {
    ctx: Context,
    plan: Arc<MergePlan>,
    pipeline: Pipeline,
}

/// The tensors of one merge, all f32.
#[derive(Debug)]
pub struct MergeArgs<'a> {
    pub(crate) parts_out: TensorView<'a>,
    pub(crate) parts_lse: TensorView<'a>,
    pub(crate) out: TensorViewMut<'a>,
    pub(crate) lse: TensorViewMut<'a>,
}

impl<'a> MergeArgs<'a> {
    /// The parts are contiguous ([`Layout::seq_major`]): out `[num_parts, num_rows, 1, head_dim_v]` and lse
    /// `[num_parts, num_rows, 1, 1]`, natural log, where [`LSE_EMPTY`](crate::LSE_EMPTY) marks an empty part. The results are out
    /// `[1, num_rows, 1, head_dim_v]` and lse `[1, num_rows, 1, 1]`, natural log.
    #[must_use]
    pub const fn new(
        parts_out: TensorView<'a>,
        parts_lse: TensorView<'a>,
        out: TensorViewMut<'a>,
        lse: TensorViewMut<'a>,
    ) -> Self {
        Self { parts_out, parts_lse, out, lse }
    }
}

impl Merge {
    /// Compiles the kernel of a plan, or finds it in the context's cache.
    ///
    /// # Errors
    /// [`Error::Validation`] when the driver refuses the shader, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    ///
    /// # Cost
    /// Compiles on a cache miss. Submits nothing.
    pub fn prepare(ctx: &Context, plan: &MergePlan) -> Result<Self> {
        let pipeline = Pipeline::of_operator(ctx, &plan.dispatch.specialization)?;
        Ok(Self { ctx: ctx.clone(), plan: Arc::new(plan.clone()), pipeline })
    }

    /// Checks the views and binds their buffers for any number of `encode` calls.
    ///
    /// # Errors
    /// The errors of [`Attention::bind_with`](crate::Attention::bind_with); parts that are not contiguous are an [`Error::Layout`].
    ///
    /// # Cost
    /// Creates a bind group and a small uniform buffer. Submits nothing.
    pub fn bind(&self, args: MergeArgs<'_>) -> Result<BoundMerge> {
        let (problem, caps) = (&self.plan.problem, self.ctx.caps());
        let (parts, rows, width) = (problem.num_parts, problem.num_rows, problem.head_dim_v);
        let expect = |tensor, shape, access, at_a_time| Expect { tensor, shape, dtype: DType::F32, access, at_a_time };
        let read = [("parts_out", args.parts_out.buffer), ("parts_lse", args.parts_lse.buffer)];
        check_apart(("out", args.out.buffer), &read)?;
        check_apart(("lse", args.lse.buffer), &[read[0], read[1], ("out", args.out.buffer)])?;
        check_contiguous("parts_out", &args.parts_out.layout)?;
        check_contiguous("parts_lse", &args.parts_lse.layout)?;

        let parts_out =
            check_tensor(args.parts_out, expect("parts_out", [parts, rows, 1, width], Access::Read, 4), caps)?;
        let parts_lse = check_tensor(args.parts_lse, expect("parts_lse", [parts, rows, 1, 1], Access::Read, 1), caps)?;
        let out = check_tensor(args.out.as_view(), expect("out", [1, rows, 1, width], Access::Write, 4), caps)?;
        let lse = check_tensor(args.lse.as_view(), expect("lse", [1, rows, 1, 1], Access::Write, 1), caps)?;
        let (out_offset, [out_batch, out_seq, out_head]) = out.in_vec4();
        let params = MergeParams {
            num_parts: parts,
            num_rows: rows,
            seq_len_q: rows,
            num_q_heads: 1,
            parts_out_offset: parts_out.in_vec4().0,
            parts_lse_offset: parts_lse.offset,
            parts_lse_stride: 1,
            out_offset,
            out_batch,
            out_seq,
            out_head,
        };
        let lse_place = lse.lse_place();
        let slots = Slots::new()
            .with("partial_out", parts_out.slot())
            .with("partial_lse", parts_lse.slot())
            .with("out", out.slot())
            .with("lse", lse.slot())
            .uniform("lse_place", bytemuck::bytes_of(&lse_place));
        let step = self
            .ctx
            .scoped("binding a merge", || step(&self.ctx, &self.pipeline, &self.plan.dispatch, &params, &slots))??;
        Ok(Bound::new("wattn.merge", vec![step]))
    }
}

fn check_contiguous(tensor: &'static str, layout: &Layout) -> Result<()> {
    let [batch, seq, heads, dim] = layout.shape;
    let packed = Layout::seq_major(batch, seq, heads, dim);
    let names = ["strides[batch]", "strides[seq]"];
    for (axis, field) in names.into_iter().enumerate() {
        if layout.shape[axis] > 1 && layout.strides[axis] != packed.strides[axis] {
            let value = layout.strides[axis];
            return Err(Error::Layout { tensor, field, value, rule: "parts must be contiguous" });
        }
    }
    Ok(())
}
