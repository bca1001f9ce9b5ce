//! Dispatches of the models' own kernels.

use crate::lm::error::LmResult;
use crate::lm::kernels::LmVariant;
use crate::{Context, Kernel, Pipeline, Slots, Step};

/// Makes dispatches; pipelines are compiled on first use.
#[derive(Clone, Debug)]
pub(in crate::lm) struct Pipelines {
    ctx: Context,
}

impl Pipelines {
    pub(in crate::lm) fn new(ctx: &Context) -> Self {
        Self { ctx: ctx.clone() }
    }

    pub(in crate::lm) fn context(&self) -> &Context {
        &self.ctx
    }

    /// A dispatch of a kernel that reads no weights, or reads them as f32.
    pub(in crate::lm) fn step(
        &self,
        kernel: &'static Kernel,
        slots: &Slots<'_>,
        workgroups: [u64; 3],
    ) -> LmResult<Step> {
        self.variant(LmVariant::plain(kernel), slots, workgroups)
    }

    /// A dispatch of a variant.
    pub(in crate::lm) fn variant(&self, variant: LmVariant, slots: &Slots<'_>, workgroups: [u64; 3]) -> LmResult<Step> {
        let workgroups = self.ctx.caps().fit_grid(workgroups)?;
        Ok(Pipeline::prepare(&self.ctx, &variant.specialization())?.bind(&self.ctx, slots, workgroups)?)
    }

    /// A uniform that the caller writes to.
    pub(in crate::lm) fn uniform(&self, params: &[u8]) -> LmResult<wgpu::Buffer> {
        let upload = || self.ctx.upload("wattn.lm.params", params, wgpu::BufferUsages::UNIFORM);
        Ok(self.ctx.scoped("binding a model", upload)?)
    }
}
