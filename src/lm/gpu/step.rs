//! Pipelines of the models' own kernels, and dispatches with their buffers bound.

use std::sync::Arc;

use crate::lm::error::LmResult;
use crate::lm::kernels::{LmKernel, LmVariant};
use crate::{Context, Pipeline};

/// Makes dispatches; pipelines are compiled on first use.
#[derive(Clone, Debug)]
pub(in crate::lm) struct Pipelines {
    ctx: Context,
}

/// One dispatch.
#[derive(Debug)]
pub(in crate::lm) struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    workgroups: [u32; 3],
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
        kernel: LmKernel,
        params: &[u8],
        buffers: &[&wgpu::Buffer],
        workgroups: [u64; 3],
    ) -> LmResult<Step> {
        self.variant(LmVariant::plain(kernel), params, buffers, workgroups)
    }

    /// A dispatch of a variant. `buffers` are those of the kernel's bindings after the uniform.
    pub(in crate::lm) fn variant(
        &self,
        variant: LmVariant,
        params: &[u8],
        buffers: &[&wgpu::Buffer],
        workgroups: [u64; 3],
    ) -> LmResult<Step> {
        let uniform = self.uniform(params)?;
        self.variant_with(variant, &uniform, buffers, workgroups)
    }

    /// The same with a uniform that the caller writes to.
    pub(in crate::lm) fn variant_with(
        &self,
        variant: LmVariant,
        uniform: &wgpu::Buffer,
        buffers: &[&wgpu::Buffer],
        workgroups: [u64; 3],
    ) -> LmResult<Step> {
        let workgroups = self.ctx.caps().fit_grid(workgroups)?;
        let pipeline = self.ctx.lm_pipelines().get_or(&self.ctx, &variant, || compile(&self.ctx, variant))?;
        let entries: Vec<_> = (0..)
            .zip([&uniform].into_iter().chain(buffers))
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = self.ctx.scoped("binding a model", || {
            self.ctx.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(pipeline.label),
                layout: &pipeline.layout,
                entries: &entries,
            })
        })?;
        Ok(Step { pipeline, bind_group, workgroups })
    }

    pub(in crate::lm) fn uniform(&self, params: &[u8]) -> LmResult<wgpu::Buffer> {
        let upload = || self.ctx.upload("wattn.lm.params", params, wgpu::BufferUsages::UNIFORM);
        Ok(self.ctx.scoped("binding a model", upload)?)
    }
}

fn compile(ctx: &Context, variant: LmVariant) -> Pipeline {
    let label = Some(variant.kernel.name());
    let source = wgpu::ShaderSource::Wgsl(variant.wgsl().into());
    let module = ctx.device().create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
    Pipeline::new(ctx, variant.kernel.name(), variant.kernel.name(), &module, variant.kernel.bindings())
}

impl Step {
    pub(in crate::lm) fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.workgroups;
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[0]);
        pass.dispatch_workgroups(x, y, z);
    }
}
