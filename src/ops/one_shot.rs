//! Slices in, vectors out: the convenient way, which uploads, computes and reads back in one call.

use super::{Attention, AttentionArgs, U32View};
use crate::{
    AttentionOutput, AttentionPlan, AttentionProblem, Context, DType, Element, HostInputs, HostTensor, Layout, Result,
    TensorView, TensorViewMut, Tier,
};

impl Context {
    /// Attention over tensors in host memory. `out` is read back as f32, and the lse always.
    ///
    /// # Errors
    /// Those of [`HostInputs::validate`], of [`AttentionPlan::new`], of [`Attention::bind`] and of [`Context::read`].
    ///
    /// # Cost
    /// Compiles on a cache miss, allocates all buffers, submits, and reads back.
    pub async fn attend<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Result<AttentionOutput> {
        self.attend_with_tier(problem, inputs, self.caps().best_tier()).await
    }

    /// [`Context::attend`] with one tier.
    ///
    /// # Errors
    /// Those of [`Context::attend`] and [`AttentionPlan::with_tier`].
    pub async fn attend_with_tier<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
        tier: Tier,
    ) -> Result<AttentionOutput> {
        let problem = one_shot_problem(problem, inputs);
        inputs.validate(&problem)?;
        let plan = AttentionPlan::with_tier(&problem, self.caps(), tier)?;
        self.attend_planned(&plan, inputs).await
    }

    /// [`Context::attend`] with a plan. Its problem must ask for f32 out, for the lse, and for `seq_lens_kv` exactly when
    /// they are given.
    ///
    /// # Errors
    /// Those of [`Context::attend`].
    pub async fn attend_planned<T: Element>(
        &self,
        plan: &AttentionPlan,
        inputs: &HostInputs<'_, T>,
    ) -> Result<AttentionOutput> {
        let problem = plan.problem();
        inputs.validate(problem)?;
        let shape = problem.shape();
        let attention = Attention::prepare(self, plan)?;
        let buffers = self.scoped("uploading q, k and v", || Buffers::new(self, problem, inputs))?;
        let view = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorView::new(buffer, problem.dtype(), Layout::seq_major(batch, seq, heads, dim))
        };
        let view_mut = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorViewMut::new(buffer, DType::F32, Layout::seq_major(batch, seq, heads, dim))
        };
        let bound = attention.bind(AttentionArgs {
            q: view(&buffers.q, shape.q()),
            k: view(&buffers.k, shape.k()),
            v: view(&buffers.v, shape.v()),
            seq_lens_kv: buffers.seq_lens_kv.as_ref().map(|buffer| U32View::new(buffer, 0, shape.batch_size.into())),
            out: view_mut(&buffers.out, shape.out()),
            lse: Some(view_mut(&buffers.lse, shape.lse())),
        })?;
        self.scoped("submitting attention", || {
            let mut encoder = self
                .device()
                .create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("wattn.attention") });
            bound.encode(&mut encoder);
            self.queue().submit([encoder.finish()]);
        })?;
        Ok(AttentionOutput {
            out: self.read(view_mut(&buffers.out, shape.out()).as_view()).await?,
            lse: self.read(view_mut(&buffers.lse, shape.lse()).as_view()).await?,
        })
    }

    /// [`Context::attend`], waiting on this thread.
    ///
    /// # Errors
    /// Those of [`Context::attend`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn attend_blocking<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Result<AttentionOutput> {
        pollster::block_on(self.attend(problem, inputs))
    }
}

/// The caller's problem, with the outputs that a one-shot call gives.
fn one_shot_problem<T: Element>(problem: &AttentionProblem, inputs: &HostInputs<'_, T>) -> AttentionProblem {
    let problem = problem.clone().out_dtype(DType::F32).with_lse();
    if inputs.seq_lens_kv.is_some() { problem.with_seq_lens_kv() } else { problem }
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
    fn new<T: Element>(ctx: &Context, problem: &AttentionProblem, inputs: &HostInputs<'_, T>) -> Self {
        let upload = |label, contents: &[u8]| ctx.upload(label, contents, wgpu::BufferUsages::STORAGE);
        let tensor = |label, tensor: &HostTensor<T>| upload(label, bytemuck::cast_slice(tensor.data()));
        let empty = |label, shape: [u32; 4]| {
            let elements: u64 = shape.iter().map(|&n| u64::from(n)).product();
            ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: elements * 4,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        };
        Self {
            q: tensor("wattn.q", inputs.q),
            k: tensor("wattn.k", inputs.k),
            v: tensor("wattn.v", inputs.v),
            seq_lens_kv: inputs.seq_lens_kv.map(|lens| upload("wattn.seq_lens_kv", bytemuck::cast_slice(lens))),
            out: empty("wattn.out", problem.shape().out()),
            lse: empty("wattn.lse", problem.shape().lse()),
        }
    }
}
