//! Pipelines of the models' own kernels, and dispatches with their buffers bound.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::lm::error::LmResult;
use crate::lm::kernels::{LmKernel, LmVariant, WeightElem};
use crate::{Context, Error};

/// A compiled variant.
#[derive(Debug)]
struct Compiled {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// The compiled variants of a context.
#[derive(Debug, Default)]
pub(crate) struct CompiledVariants(Mutex<HashMap<LmVariant, Arc<Compiled>>>);

/// Makes dispatches; pipelines are compiled on first use.
#[derive(Clone, Debug)]
pub(in crate::lm) struct Pipelines {
    ctx: Context,
}

/// One dispatch.
#[derive(Debug)]
pub(in crate::lm) struct Step {
    compiled: Arc<Compiled>,
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
        workgroups: [u32; 3],
    ) -> LmResult<Step> {
        self.variant(LmVariant { kernel, elem: WeightElem::F32, norm: false }, params, buffers, workgroups)
    }

    /// A dispatch of a variant. `buffers` are those of the kernel's bindings after the uniform.
    pub(in crate::lm) fn variant(
        &self,
        variant: LmVariant,
        params: &[u8],
        buffers: &[&wgpu::Buffer],
        workgroups: [u32; 3],
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
        workgroups: [u32; 3],
    ) -> LmResult<Step> {
        let available = self.ctx.caps().max_workgroups_per_dimension;
        if let Some(&needed) = workgroups.iter().find(|&&workgroups| workgroups > available) {
            let (needed, available) = (needed.into(), available.into());
            let limit = "max_compute_workgroups_per_dimension";
            return Err(Error::Limit { limit, needed, available }.into());
        }
        let compiled = self.compile(variant)?;
        let entries: Vec<_> = (0..)
            .zip([&uniform].into_iter().chain(buffers))
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = self.ctx.scoped("binding a model", || {
            self.ctx.device().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(variant.kernel.name()),
                layout: &compiled.layout,
                entries: &entries,
            })
        })?;
        Ok(Step { compiled, bind_group, workgroups })
    }

    pub(in crate::lm) fn uniform(&self, params: &[u8]) -> LmResult<wgpu::Buffer> {
        let upload = || self.ctx.upload("wattn.lm.params", params, wgpu::BufferUsages::UNIFORM);
        Ok(self.ctx.scoped("binding a model", upload)?)
    }

    fn compile(&self, variant: LmVariant) -> LmResult<Arc<Compiled>> {
        // A panic while the lock is held leaves the map whole: insertion is its only change.
        let lock = || self.ctx.lm_pipelines().0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = lock().get(&variant) {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(self.ctx.scoped("creating a pipeline", || compile(self.ctx.device(), variant))?);
        Ok(Arc::clone(lock().entry(variant).or_insert(compiled)))
    }
}

fn compile(device: &wgpu::Device, variant: LmVariant) -> Compiled {
    let label = Some(variant.kernel.name());
    let source = wgpu::ShaderSource::Wgsl(variant.wgsl().into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
    let entries: Vec<_> =
        (0..).zip(variant.kernel.bindings()).map(|(binding, entry)| entry.layout_entry(binding)).collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: label,
        compilation_options: wgpu::PipelineCompilationOptions {
            // Every workgroup array is written before it is read.
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        },
        cache: None,
    });
    Compiled { pipeline, layout }
}

impl Step {
    pub(in crate::lm) fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        let [x, y, z] = self.workgroups;
        pass.set_pipeline(&self.compiled.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}
