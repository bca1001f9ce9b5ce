//! A kernel of a ceiling with its buffers, ready to run.

use super::clock::{Clock, Elapsed};
use super::kernels::BenchKernel;
use crate::{Context, Pipeline, Result, Slots, Step};

/// A kernel, compiled, with its buffers.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    ctx: Context,
    pub(super) kernel: BenchKernel,
    pipeline: Pipeline,
    buffers: Vec<(&'static str, wgpu::Buffer)>,
}

impl Prepared {
    pub(super) fn new(ctx: &Context, kernel: BenchKernel) -> Result<Self> {
        // Every index is bounded by the number of workgroups, for which the buffers were made.
        let pipeline = Pipeline::of_operator(ctx, &kernel.specialization())?;
        Ok(Self { ctx: ctx.clone(), kernel, pipeline, buffers: Vec::new() })
    }

    pub(super) fn with_buffer(mut self, name: &'static str, buffer: &wgpu::Buffer) -> Self {
        self.buffers.push((name, buffer.clone()));
        self
    }

    pub(super) fn upload(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let (label, usage) = (self.pipeline.label(), wgpu::BufferUsages::STORAGE);
        self.ctx.scoped("uploading operands", || self.ctx.upload(label, bytes, usage))
    }

    pub(super) fn output(&self, size: u64) -> Result<wgpu::Buffer> {
        self.ctx.scoped("creating outputs", || {
            self.ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some(self.pipeline.label()),
                size,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            })
        })
    }

    /// The kernel with its parameters and buffers, and a grid of this many workgroups.
    pub(super) fn bind(&self, params: &[u8], workgroups: u32) -> Result<Step> {
        let slots = self
            .buffers
            .iter()
            .fold(Slots::new().uniform("params", params), |slots, (name, buffer)| slots.buffer(name, buffer));
        let step = self.pipeline.bind(&self.ctx, &slots, [workgroups, 1, 1])?;
        // Writes for this run must not be copied within its time.
        self.ctx.scoped("uploading operands", || self.ctx.queue().submit([]))?;
        Ok(step)
    }

    /// Time of one dispatch.
    pub(super) fn time(&self, clock: &Clock, params: &[u8], workgroups: u32) -> Result<Elapsed> {
        let step = self.bind(params, workgroups)?;
        clock.time(|pass| step.encode_in(pass))
    }
}
