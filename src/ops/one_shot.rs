//! Slices in, vectors out: uploads, computes and reads back in one call.

use super::{Attention, AttentionArgs, BlockListBuffers, U32View};
use crate::{
    AnyHostTensor, AttentionOutput, AttentionPlan, AttentionProblem, Context, DType, Element, Error, HostInputs,
    HostTensor, Layout, Pending, Result, TensorView, TensorViewMut,
};

impl Context {
    /// Attention over tensors in host memory. `out` is read back as f32, and the lse always.
    ///
    /// # Errors
    /// The errors of [`HostInputs::validate`], [`AttentionPlan::new`], [`Attention::bind`] and [`Context::read`].
    ///
    /// # Cost
    /// Compiles on a cache miss, allocates all buffers, submits, and reads back.
    pub fn attend<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Pending<'static, Result<AttentionOutput>> {
        Pending::begun(self.one_shot_plan(problem, inputs).and_then(|plan| self.start(&plan, inputs)))
    }

    /// [`Context::attend`] with a plan. Its problem must ask for f32 out, for the lse, and for `seq_lens_kv` exactly when
    /// they are given.
    ///
    /// # Errors
    /// The errors of [`Context::attend`].
    pub fn attend_planned<T: Element>(
        &self,
        plan: &AttentionPlan,
        inputs: &HostInputs<'_, T>,
    ) -> Pending<'static, Result<AttentionOutput>> {
        Pending::begun(inputs.validate(plan.problem()).and_then(|()| self.start(plan, inputs)))
    }

    /// The plan for the caller's problem with the outputs of a one-shot call: f32 out and the lse.
    fn one_shot_plan<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Result<AttentionPlan> {
        inputs.validate(problem)?;
        let tier = AttentionPlan::best_tier(problem, self.caps());
        let mut problem = problem.clone().with_out_dtype(DType::F32).with_lse();
        if inputs.seq_lens_kv.is_some() {
            problem = problem.with_seq_lens_kv();
        }
        AttentionPlan::with_tier(&problem, self.caps(), tier)
    }

    /// Uploads, encodes and submits valid inputs, and begins to read back.
    fn start<'a, T: Element>(
        &self,
        plan: &AttentionPlan,
        inputs: &HostInputs<'a, T>,
    ) -> Result<Pending<'static, Result<AttentionOutput>>> {
        let problem = plan.problem();
        let shape = problem.shape();
        let element = problem.dtype().size_bytes();
        for (shape, element) in [
            (problem.q_shape(), element),
            (problem.k_shape(), element),
            (problem.v_shape(), element),
            (problem.out_shape(), 4),
        ] {
            let (needed, available) = (num_elements(shape) * element, self.caps().max_buffer_bytes);
            if needed > available {
                return Err(Error::Limit { limit: "max_buffer_size", needed, available });
            }
        }
        let attention = Attention::prepare(self, plan)?;
        let blocks = inputs.blocks.map(|blocks| BlockListBuffers::upload(self, blocks)).transpose()?;
        let buffers = self.scoped("uploading q, k and v", || Buffers::new(self, problem, inputs))?;
        let view = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorView::new(buffer, problem.dtype(), Layout::seq_major(batch, seq, heads, dim))
        };
        let view_mut = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorViewMut::new(buffer, DType::F32, Layout::seq_major(batch, seq, heads, dim))
        };
        let upload = |(name, tensor): &(&'a str, AnyHostTensor<'a>)| {
            self.upload_checked("wattn.tensor", tensor.bytes()).map(|buffer| (*name, *tensor, buffer))
        };
        let tensors = inputs.tensors.iter().map(upload).collect::<Result<Vec<_>>>()?;
        let args = AttentionArgs::new(
            view(&buffers.q, problem.q_shape()),
            view(&buffers.k, problem.k_shape()),
            view(&buffers.v, problem.v_shape()),
            view_mut(&buffers.out, problem.out_shape()),
        )
        .with_seq_lens_kv(buffers.seq_lens_kv.as_ref().map(|buffer| U32View::new(buffer, 0, shape.batch_size.into())))
        .with_blocks(blocks.as_ref().map(BlockListBuffers::view))
        .with_lse(view_mut(&buffers.lse, problem.lse_shape()));
        let bound = attention.bind(tensors.iter().fold(args, |args, (name, tensor, buffer)| {
            let [batch, heads, queries, keys] = tensor.shape();
            let layout = Layout::seq_major(batch, heads, queries, keys);
            args.with_tensor(name, TensorView::new(buffer, tensor.dtype(), layout))
        }))?;
        self.scoped("submitting attention", || bound.submit(self))?;
        Ok(buffers.output(self, problem))
    }
}

/// Out or lse in the buffer of a one-shot call.
fn result_view(buffer: &wgpu::Buffer, [batch, seq, heads, dim]: [u32; 4]) -> TensorView<'_> {
    TensorView::new(buffer, DType::F32, Layout::seq_major(batch, seq, heads, dim))
}

fn num_elements(shape: [u32; 4]) -> u64 {
    shape.iter().map(|&n| u64::from(n)).product()
}

struct Buffers {
    q: wgpu::Buffer,
    k: wgpu::Buffer,
    v: wgpu::Buffer,
    seq_lens_kv: Option<wgpu::Buffer>,
    out: wgpu::Buffer,
    lse: wgpu::Buffer,
}

impl Buffers {
    fn output(&self, ctx: &Context, problem: &AttentionProblem) -> Pending<'static, Result<AttentionOutput>> {
        let out = ctx.read(result_view(&self.out, problem.out_shape()));
        let lse = ctx.read(result_view(&self.lse, problem.lse_shape()));
        Pending::new(async { Ok(AttentionOutput { out: out.await?, lse: lse.await? }) })
    }

    fn new<T: Element>(ctx: &Context, problem: &AttentionProblem, inputs: &HostInputs<'_, T>) -> Self {
        let upload = |label, contents: &[u8]| ctx.upload(label, contents, wgpu::BufferUsages::STORAGE);
        let tensor = |label, tensor: &HostTensor<T>| upload(label, bytemuck::cast_slice(tensor.data()));
        let empty = |label, shape: [u32; 4]| {
            ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: num_elements(shape) * 4,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        };
        Self {
            q: tensor("wattn.q", inputs.q),
            k: tensor("wattn.k", inputs.k),
            v: tensor("wattn.v", inputs.v),
            seq_lens_kv: inputs.seq_lens_kv.map(|lens| upload("wattn.seq_lens_kv", bytemuck::cast_slice(lens))),
            out: empty("wattn.out", problem.out_shape()),
            lse: empty("wattn.lse", problem.lse_shape()),
        }
    }
}
