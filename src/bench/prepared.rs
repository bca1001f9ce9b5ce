//! A kernel of a ceiling, ready to run.

use super::clock::{Clock, Elapsed};
use super::kernels::BenchKernel;
use crate::pipeline::{Pipeline, module};
use crate::{Context, Result};

/// A kernel, compiled, with the buffers that follow its uniform.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    ctx: Context,
    pub(super) kernel: BenchKernel,
    pipeline: std::sync::Arc<Pipeline>,
    buffers: Vec<wgpu::Buffer>,
}

impl Prepared {
    pub(super) fn new(ctx: &Context, kernel: BenchKernel) -> Result<Self> {
        let pipeline = ctx.scoped("creating a pipeline", || {
            let module = module(ctx, kernel.label(), kernel.wgsl());
            Pipeline::new(ctx, kernel.label(), kernel.name(), &module, kernel.bindings())
        })?;
        Ok(Self { ctx: ctx.clone(), kernel, pipeline: pipeline.into(), buffers: Vec::new() })
    }

    pub(super) fn with_buffers(mut self, buffers: Vec<wgpu::Buffer>) -> Self {
        self.buffers = buffers;
        self
    }

    pub(super) fn upload(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let (label, usage) = (self.kernel.label(), wgpu::BufferUsages::STORAGE);
        self.ctx.scoped("uploading operands", || self.ctx.upload(label, bytes, usage))
    }

    pub(super) fn output(&self, size: u64) -> Result<wgpu::Buffer> {
        self.ctx.scoped("creating outputs", || {
            self.ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(self.kernel.label()),
                size,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        })
    }

    /// The kernel's parameters and buffers.
    pub(super) fn bind(&self, params: &[u8]) -> Result<wgpu::BindGroup> {
        let label = Some(self.kernel.label());
        let bind_group = self.ctx.scoped("binding a ceiling", || {
            let uniform = self.ctx.upload(self.kernel.label(), params, wgpu::BufferUsages::UNIFORM);
            let entries: Vec<_> = (0..)
                .zip([&uniform].into_iter().chain(&self.buffers))
                .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
                .collect();
            let layout = &self.pipeline.layout;
            self.ctx.device().create_bind_group(&wgpu::BindGroupDescriptor { label, layout, entries: &entries })
        })?;
        // What was written for this run must not be copied within its time.
        self.ctx.scoped("uploading operands", || self.ctx.queue().submit([]))?;
        Ok(bind_group)
    }

    /// One dispatch.
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass<'_>, bind_group: &wgpu::BindGroup, workgroups: u32) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, bind_group, &[0]);
        pass.dispatch_workgroups(workgroups, 1, 1);
    }

    /// Time of one dispatch.
    pub(super) fn time(&self, clock: &Clock, params: &[u8], workgroups: u32) -> Result<Elapsed> {
        let bind_group = self.bind(params)?;
        clock.time(|pass| self.encode(pass, &bind_group, workgroups))
    }
}
