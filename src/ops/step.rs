//! Grids with their buffers bound, and how they reach the queue.

use core::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::bind::{Access, Bound};
use crate::pipeline::Pipeline;
use crate::plan::{Dispatch, Stretch};
use crate::{Context, Error, Result};

/// The storage bindings of one dispatch, in the order of its kernel's list, without the uniform.
pub(super) enum Slot<'a> {
    Bound(&'a Bound<'a>),
    /// Buffer, offset and size in bytes.
    Range(&'a wgpu::Buffer, u64, u64),
    Unused(Access),
}

impl Slot<'_> {
    fn resource<'s>(&'s self, ctx: &'s Context) -> wgpu::BindingResource<'s> {
        let range = |buffer, offset, size| {
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: wgpu::BufferSize::new(size) })
        };
        match *self {
            Self::Bound(bound) if bound.size_bytes == 0 => unused(ctx, bound.access).as_entire_binding(),
            Self::Bound(bound) => range(bound.buffer, bound.offset_bytes, bound.size_bytes),
            Self::Range(buffer, offset, size) => range(buffer, offset, size),
            Self::Unused(access) => unused(ctx, access).as_entire_binding(),
        }
    }
}

fn unused(ctx: &Context, access: Access) -> &wgpu::Buffer {
    match access {
        Access::Read => ctx.unused_read(),
        Access::Write => ctx.unused_write(),
    }
}

/// The uniform of a kernel.
pub(super) trait Params: bytemuck::Pod {
    /// The same for one stretch of the grid.
    fn of(self, stretch: &Stretch) -> Self;

    /// Those of some stretches, as words.
    fn in_words(self, stretches: &[Stretch]) -> Vec<Vec<u32>> {
        stretches.iter().map(|stretch| bytemuck::pod_collect_to_vec(bytemuck::bytes_of(&self.of(stretch)))).collect()
    }
}

/// Bytes from one stretch's uniform to the next: the largest alignment that a device may ask for, and no kernel's uniform is
/// larger.
const UNIFORM_STRIDE: u32 = 256;

/// One grid, ready to be encoded.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    /// Workgroups of each stretch.
    stretches: Arc<[[u32; 3]]>,
}

impl Step {
    /// A grid, with a uniform for each of its stretches.
    pub(super) fn new<P: Params>(
        ctx: &Context,
        pipeline: &Arc<Pipeline>,
        dispatch: &Dispatch,
        params: &P,
        slots: &[Slot<'_>],
    ) -> Result<Self> {
        let label = pipeline.label;
        let stride = UNIFORM_STRIDE as usize;
        let size = const { size_of::<P>() };
        assert!(size <= stride, "{label}: a uniform of {size} bytes");
        let needed = dispatch.stretches.len() as u64 * u64::from(UNIFORM_STRIDE);
        // Offsets of uniforms are 32 bits.
        let available = ctx.caps().max_buffer_bytes.min(u32::MAX.into());
        if needed > available {
            return Err(Error::Limit { limit: "max_buffer_size (uniforms of all stretches)", needed, available });
        }
        // A grid of no places encodes nothing, and has a uniform to bind all the same.
        let mut uniforms = vec![0; dispatch.stretches.len().max(1) * stride];
        for (uniform, stretch) in uniforms.chunks_exact_mut(stride).zip(&dispatch.stretches) {
            uniform[..size].copy_from_slice(bytemuck::bytes_of(&params.of(stretch)));
        }
        let uniform = ctx.upload(label, &uniforms, wgpu::BufferUsages::UNIFORM);
        let binding = wgpu::BufferBinding {
            buffer: &uniform,
            offset: 0,
            size: wgpu::BufferSize::new(size.next_multiple_of(16) as u64),
        };
        let resources =
            core::iter::once(wgpu::BindingResource::Buffer(binding)).chain(slots.iter().map(|slot| slot.resource(ctx)));
        let entries: Vec<_> =
            (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
        let descriptor = wgpu::BindGroupDescriptor { label: Some(label), layout: &pipeline.layout, entries: &entries };
        // A buffer of another device is a validation error, but for one of another instance wgpu panics.
        let bind_group =
            catch_unwind(AssertUnwindSafe(|| ctx.device().create_bind_group(&descriptor))).map_err(|_| {
                let message = "a buffer belongs to another wgpu instance".to_owned();
                Error::Validation { during: "binding buffers", message }
            })?;
        let stretches = dispatch.stretches.iter().map(|stretch| stretch.workgroups).collect();
        Ok(Self { pipeline: Arc::clone(pipeline), bind_group, stretches })
    }

    pub(super) fn num_stretches(&self) -> usize {
        self.stretches.len()
    }

    pub(super) fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_stretches_in(pass, 0..self.num_stretches());
    }

    /// Some of the stretches, in their order.
    pub(super) fn encode_stretches_in(&self, pass: &mut wgpu::ComputePass<'_>, stretches: Range<usize>) {
        pass.set_pipeline(&self.pipeline.pipeline);
        for (index, [x, y, z]) in stretches.clone().zip(&self.stretches[stretches]) {
            // The buffer, and so every offset in it, was seen to fit 32 bits.
            pass.set_bind_group(0, &self.bind_group, &[index as u32 * UNIFORM_STRIDE]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// Dispatches of some grids.
pub(super) fn num_stretches<'a>(steps: impl Iterator<Item = &'a Step>) -> usize {
    steps.map(Step::num_stretches).sum()
}

/// Encodes one dispatch of some grids, by its number among those of all.
pub(super) fn encode_stretch_in<'a>(
    steps: impl Iterator<Item = &'a Step>,
    pass: &mut wgpu::ComputePass<'_>,
    index: usize,
) {
    let mut first = 0;
    for step in steps {
        let end = first + step.num_stretches();
        if (first..end).contains(&index) {
            return step.encode_stretches_in(pass, index - first..index - first + 1);
        }
        first = end;
    }
}

/// Submits some grids: together, or where one of them is cut, each dispatch on its own, since watchdogs of some systems
/// watch submissions.
pub(super) fn submit(ctx: &Context, label: &'static str, steps: &[&Step]) {
    let submit = |encode: &mut dyn FnMut(&mut wgpu::ComputePass<'_>)| {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(label) };
        let mut encoder = ctx.device().create_command_encoder(&descriptor);
        let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None };
        encode(&mut encoder.begin_compute_pass(&descriptor));
        ctx.queue().submit([encoder.finish()]);
    };
    if steps.iter().all(|step| step.num_stretches() == 1) {
        return submit(&mut |pass| steps.iter().for_each(|step| step.encode_in(pass)));
    }
    for step in steps {
        for index in 0..step.num_stretches() {
            submit(&mut |pass| step.encode_stretches_in(pass, index..index + 1));
        }
    }
}
