//! Compiled pipelines, one for each specialization.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::context::ShaderChecks;
use crate::device::descriptor::check_text;
use crate::device::pipeline_store::PipelineStore;
use crate::shader::{Binding, Need, Specialization, Trust};
use crate::{Context, Error, Result};

/// A compiled variant of a kernel. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pipeline {
    compiled: Arc<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
    bindings: Vec<Binding>,
    name: &'static str,
    label: &'static str,
}

/// Pipelines by specialization; unchecked and guarded pipelines are kept separately.
#[derive(Debug, Default)]
pub(crate) struct PipelineCache {
    pipelines: [Mutex<HashMap<Specialization, Pipeline>>; 2],
}

impl PipelineCache {
    /// The pipeline of a specialization, compiled on first use.
    fn get(&self, ctx: &Context, specialization: &Specialization, trust: Trust) -> Result<Pipeline> {
        // A panic while the lock is held leaves the map whole: insertion is its only change.
        let pipelines = &self.pipelines[usize::from(trust == Trust::Guarded)];
        let lock = || pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipeline) = lock().get(specialization) {
            return Ok(pipeline.clone());
        }
        // Compiled outside the lock: two threads may do the same work, but neither waits for the other's shader.
        let pipeline = compile(ctx, specialization, specialization.wgsl(), trust)?;
        Ok(lock().entry(specialization.clone()).or_insert(pipeline).clone())
    }
}

impl Pipeline {
    /// Compiles a variant, or finds it in the context's cache. wgpu's bounds checks guard it even if the text is the crate's own, since
    /// the caller chooses the buffers and numbers that are bound.
    ///
    /// # Errors
    /// [`Error::MissingFeature`] for a feature that a text [needs](crate::Need); [`Error::Name`] for two texts that declare the same name.
    /// For texts that are not the crate's own: [`Error::Wgsl`] for invalid WGSL; [`Error::EntryPoint`], [`Error::Binding`] and
    /// [`Error::Uniform`] for a text that does not fit its descriptor. (In a browser no parser is at hand, and its own compiler reports
    /// these.) [`Error::Validation`] when the driver refuses the shader, [`Error::OutOfMemory`], [`Error::DeviceLost`].
    ///
    /// # Cost
    /// Compiles on a cache miss. Submits nothing.
    pub fn prepare(ctx: &Context, specialization: &Specialization) -> Result<Self> {
        ctx.pipelines().get(ctx, specialization, Trust::Guarded)
    }

    /// The same for operators, which make sure that no index leaves a buffer: unchecked where all texts are the crate's own.
    pub(crate) fn of_operator(ctx: &Context, specialization: &Specialization) -> Result<Self> {
        ctx.pipelines().get(ctx, specialization, specialization.trust())
    }

    /// A pipeline of an edited text, which is not cached.
    pub(crate) fn edited(ctx: &Context, specialization: &Specialization, wgsl: String) -> Result<Self> {
        compile(ctx, specialization, wgsl, specialization.trust())
    }

    /// Layout of bind group 0.
    #[must_use]
    pub fn bindings(&self) -> &[Binding] {
        &self.compiled.bindings
    }

    /// The kernel's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.compiled.name
    }

    pub(crate) fn label(&self) -> &'static str {
        self.compiled.label
    }

    pub(crate) fn pipeline(&self) -> &wgpu::ComputePipeline {
        &self.compiled.pipeline
    }

    pub(crate) fn layout(&self) -> &wgpu::BindGroupLayout {
        &self.compiled.layout
    }
}

fn compile(ctx: &Context, specialization: &Specialization, wgsl: String, trust: Trust) -> Result<Pipeline> {
    // The tier is checked with the plan; this may be another device of the same tier.
    for need in Need::ALL.into_iter().filter(|&need| specialization.needs(need)) {
        let (feature, name) = need.feature();
        if !ctx.device().features().contains(feature) || (need == Need::Int64 && !ctx.caps().shader_int64) {
            return Err(Error::MissingFeature { needed_for: specialization.kernel().name(), feature: name });
        }
    }
    let bindings = specialization.bindings();
    if trust == Trust::Guarded {
        specialization.check_names()?;
    }
    if specialization.trust() == Trust::Guarded {
        check_text(specialization.kernel().name(), &bindings, &wgsl)?;
    }
    ctx.scoped("creating a pipeline", || create(ctx, specialization, bindings, wgsl, trust))
}

fn create(
    ctx: &Context,
    specialization: &Specialization,
    bindings: Vec<Binding>,
    wgsl: String,
    trust: Trust,
) -> Pipeline {
    let (device, kernel) = (ctx.device(), specialization.kernel());
    let label = Some(kernel.label());
    let module = module(ctx, kernel.label(), wgsl, trust);
    let entries: Vec<_> = (0..).zip(&bindings).map(|(at, binding)| binding.layout_entry(at)).collect();
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
        entry_point: Some(kernel.name()),
        compilation_options: wgpu::PipelineCompilationOptions {
            // The crate's own kernels write every workgroup array before they read it.
            zero_initialize_workgroup_memory: specialization.trust() == Trust::Guarded,
            ..Default::default()
        },
        cache: ctx.pipeline_store().map(PipelineStore::cache),
    });
    Pipeline { compiled: Arc::new(Compiled { pipeline, layout, bindings, name: kernel.name(), label: kernel.label() }) }
}

/// A shader; without wgpu's bounds checks where the text is trusted and the context does not ask for them.
fn module(ctx: &Context, label: &'static str, wgsl: String, trust: Trust) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    match (ctx.shader_checks(), trust) {
        // SAFETY: all texts are the crate's own, and an operator of the crate binds the buffers. Every index is either bounded
        // by shapes that `bind` checked against the buffers, or clamped in the shader (key lengths read from a buffer), every
        // loop counts up to a bound that does not change, and no divisor is zero. The tests run the checked variant beside
        // this one and compare.
        (ShaderChecks::Trusted, Trust::Own) => unsafe {
            ctx.device().create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked())
        },
        (ShaderChecks::Checked, _) | (_, Trust::Guarded) => ctx.device().create_shader_module(descriptor),
    }
}
