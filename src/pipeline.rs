//! Compiled pipelines, one for each specialisation.

use core::hash::Hash;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::context::ShaderChecks;
use crate::kernels::Binding;
use crate::pipeline_store::PipelineStore;
use crate::shader::Specialization;
use crate::{Context, Error, Result};

/// A compiled variant of a kernel and the layout of its bind group.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub(crate) pipeline: wgpu::ComputePipeline,
    pub(crate) layout: wgpu::BindGroupLayout,
    pub(crate) label: &'static str,
}

/// Pipelines by what they were compiled from.
#[derive(Debug)]
pub(crate) struct PipelineCache<K> {
    pipelines: Mutex<HashMap<K, Arc<Pipeline>>>,
}

impl<K> Default for PipelineCache<K> {
    fn default() -> Self {
        Self { pipelines: Mutex::default() }
    }
}

impl<K: Clone + Eq + Hash> PipelineCache<K> {
    /// The pipeline of a key, compiled on first use.
    pub(crate) fn get_or(&self, ctx: &Context, key: &K, compile: impl FnOnce() -> Pipeline) -> Result<Arc<Pipeline>> {
        // A panic while the lock is held leaves the map whole: insertion is its only change.
        let lock = || self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = lock().get(key) {
            return Ok(Arc::clone(pipeline));
        }
        // Compiled outside the lock: two threads may do the same work, but neither waits for the other's shader.
        let pipeline = Arc::new(ctx.scoped("creating a pipeline", compile)?);
        Ok(Arc::clone(lock().entry(key.clone()).or_insert(pipeline)))
    }
}

impl PipelineCache<Specialization> {
    /// The pipeline of a specialisation, compiled on first use.
    pub(crate) fn get(&self, ctx: &Context, specialization: &Specialization) -> Result<Arc<Pipeline>> {
        // The tier is checked with the plan; this may be another device of the same tier.
        if specialization.needs_int64() && !ctx.caps().shader_int64 {
            let needed_for = "a plan made for another device";
            return Err(Error::MissingFeature { needed_for, feature: "SHADER_INT64" });
        }
        self.get_or(ctx, specialization, || compile(ctx, specialization))
    }
}

fn compile(ctx: &Context, specialization: &Specialization) -> Pipeline {
    let kernel = specialization.kernel();
    let module = module(ctx, kernel.label(), specialization.wgsl());
    Pipeline::new(ctx, kernel.label(), kernel.name(), &module, &specialization.bindings())
}

/// A shader of the crate's own, without wgpu's bounds checks unless the context wants them.
pub(crate) fn module(ctx: &Context, label: &'static str, wgsl: String) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    match ctx.shader_checks() {
        // SAFETY: the shaders are the crate's own. Every index is either bounded by shapes that `bind` checked against
        // the buffers, or clamped in the shader (key lengths read from a buffer), every loop counts up to a bound that
        // does not change, and no divisor is zero. The tests run the checked variant beside this one and compare.
        ShaderChecks::Trusted => unsafe {
            ctx.device().create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        },
        ShaderChecks::Checked => ctx.device().create_shader_module(descriptor),
    }
}

impl Pipeline {
    /// The entry point of a module whose bind group 0 has these bindings.
    pub(crate) fn new(
        ctx: &Context,
        name: &'static str,
        entry_point: &str,
        module: &wgpu::ShaderModule,
        bindings: &[Binding],
    ) -> Self {
        let (device, label) = (ctx.device(), Some(name));
        let entries: Vec<_> = (0..).zip(bindings).map(|(at, binding)| binding.layout_entry(at)).collect();
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&pipeline_layout),
            module,
            entry_point: Some(entry_point),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every workgroup array is written before it is read.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: ctx.pipeline_store().map(PipelineStore::cache),
        });
        Self { pipeline, layout, label: name }
    }
}
