//! Grids with their buffers bound, and their submission to the queue.

use core::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::device::slots::{Slot, unused};
use crate::shader::BindingKind;
use crate::{Context, Error, Pipeline, Result, Slots};

/// Distance in bytes from one uniform to the next: the largest alignment that a device may ask for.
const UNIFORM_STRIDE: usize = 256;

/// One grid of a kernel with its buffers bound, ready to be encoded any number of times.
#[derive(Clone, Debug)]
pub struct Step {
    pipeline: Pipeline,
    bind_group: wgpu::BindGroup,
    /// Whether each stretch has a uniform of its own.
    dynamic: bool,
    /// Workgroups of each stretch.
    stretches: Arc<[[u32; 3]]>,
}

impl Pipeline {
    /// Binds buffers and uniforms for a grid of workgroups.
    ///
    /// # Errors
    /// An error that names the binding: [`Error::Slot`], [`Error::Length`] for a uniform of another size, [`Error::Usage`],
    /// [`Error::OutOfBounds`], [`Error::Overlap`]. [`Error::Limit`] for a grid past the device's. [`Error::Validation`] where wgpu refuses
    /// a binding: an offset that is not aligned, a buffer of another device.
    ///
    /// # Cost
    /// Creates a bind group, and one small buffer if there are uniforms. Submits nothing.
    pub fn bind(&self, ctx: &Context, slots: &Slots<'_>, workgroups: [u32; 3]) -> Result<Step> {
        slots.check(self)?;
        let workgroups = ctx.caps().fit_grid(workgroups.map(u64::from))?;
        let record = self.bindings().iter().find(|binding| binding.kind == BindingKind::Stretch);
        let record = match record.and_then(|binding| slots.get(binding.name)) {
            Some(Slot::Bytes(bytes)) => bytes,
            _ => &[],
        };
        ctx.scoped("binding buffers", || Step::new(ctx, self, slots, &[workgroups], &[record]))?
    }
}

impl Step {
    /// A grid cut into stretches, each with the contents of its own uniform if the kernel has one for stretches.
    pub(crate) fn new(
        ctx: &Context,
        pipeline: &Pipeline,
        slots: &Slots<'_>,
        stretches: &[[u32; 3]],
        records: &[impl AsRef<[u8]>],
    ) -> Result<Self> {
        let label = pipeline.label();
        let uniforms = Uniforms::new(pipeline, slots, records);
        let needed = uniforms.contents.len() as u64;
        // wgpu takes offsets of uniforms in 32 bits.
        let available = ctx.caps().max_buffer_bytes.min(u32::MAX.into());
        if needed > available {
            return Err(Error::Limit { limit: "max_buffer_size (uniforms of all stretches)", needed, available });
        }
        let buffer = (needed > 0).then(|| ctx.upload(label, &uniforms.contents, wgpu::BufferUsages::UNIFORM));
        let resource = |(at, binding): (usize, &crate::Binding)| {
            let range = |buffer, offset, size| {
                let size = wgpu::BufferSize::new(size);
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size })
            };
            match (&uniforms.places[at], &buffer, slots.get(binding.name)) {
                (Some(place), Some(buffer), _) => range(buffer, place.start, place.end - place.start),
                (_, _, Some(Slot::Range(buffer, offset, size))) if size > 0 => range(buffer, offset, size),
                (_, _, Some(_)) => unused(ctx, binding.kind).as_entire_binding(),
                (_, _, None) => panic!("{label}: nothing is bound to {}", binding.name),
            }
        };
        let resources = pipeline.bindings().iter().enumerate().map(resource);
        let entries: Vec<_> =
            (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
        let descriptor = wgpu::BindGroupDescriptor { label: Some(label), layout: pipeline.layout(), entries: &entries };
        // wgpu reports a buffer of another device as a validation error, but panics for one of another instance.
        let bind_group =
            catch_unwind(AssertUnwindSafe(|| ctx.device().create_bind_group(&descriptor))).map_err(|_| {
                let message = "a buffer belongs to another wgpu instance".to_owned();
                Error::Validation { during: "binding buffers", message }
            })?;
        let dynamic = pipeline.bindings().iter().any(|binding| binding.kind == BindingKind::Stretch);
        Ok(Self { pipeline: pipeline.clone(), bind_group, dynamic, stretches: stretches.into() })
    }

    pub(crate) fn num_stretches(&self) -> usize {
        self.stretches.len()
    }

    /// Encodes one compute pass.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let descriptor = wgpu::ComputePassDescriptor { label: Some(self.pipeline.label()), timestamp_writes: None };
        self.encode_in(&mut encoder.begin_compute_pass(&descriptor));
    }

    /// Encodes into the caller's compute pass. Sets its pipeline and bind group 0.
    ///
    /// # Cost
    /// Allocates, submits and waits for nothing. Cannot fail.
    pub fn encode_in(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.encode_stretches_in(pass, 0..self.num_stretches());
    }

    /// Some of the stretches, in order.
    pub(crate) fn encode_stretches_in(&self, pass: &mut wgpu::ComputePass<'_>, stretches: Range<usize>) {
        pass.set_pipeline(self.pipeline.pipeline());
        for (index, [x, y, z]) in stretches.clone().zip(&self.stretches[stretches]) {
            // The buffer's size, and so every offset in it, fits 32 bits: checked above.
            let offset = [(index * UNIFORM_STRIDE) as u32];
            pass.set_bind_group(0, &self.bind_group, if self.dynamic { &offset } else { &[] });
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

/// All uniforms of a step in one buffer.
struct Uniforms {
    contents: Vec<u8>,
    /// For each binding the offset of its bytes; for `stretch`, of the first stretch.
    places: Vec<Option<Range<u64>>>,
}

impl Uniforms {
    fn new(pipeline: &Pipeline, slots: &Slots<'_>, records: &[impl AsRef<[u8]>]) -> Self {
        let mut contents = Vec::new();
        let mut push = |bytes: &[u8]| {
            let begin = contents.len();
            contents.extend_from_slice(bytes);
            contents.resize(begin + bytes.len().next_multiple_of(UNIFORM_STRIDE), 0);
            begin as u64..(begin + bytes.len().next_multiple_of(16)) as u64
        };
        let bindings = pipeline.bindings().iter();
        let places = bindings.map(|binding| {
            let size = 4 * binding.fields.len();
            match (binding.kind, slots.get(binding.name)) {
                (BindingKind::Stretch, _) => {
                    let each = records.iter().map(|record| {
                        let bytes = record.as_ref();
                        assert_eq!(bytes.len(), size, "{}: {}", pipeline.name(), binding.name);
                        assert!(size <= UNIFORM_STRIDE, "{}: {}", pipeline.name(), binding.name);
                        push(bytes)
                    });
                    // An empty grid encodes nothing, but still needs a uniform to bind.
                    let first = each.reduce(|first, _| first);
                    Some(first.unwrap_or_else(|| push(&vec![0; size])))
                }
                (BindingKind::Uniform, Some(Slot::Bytes(bytes))) => {
                    assert_eq!(bytes.len(), size, "{}: {}", pipeline.name(), binding.name);
                    Some(push(bytes))
                }
                _ => None,
            }
        });
        let places = places.collect();
        Self { contents, places }
    }
}

/// The number of dispatches of several grids.
pub(crate) fn num_stretches<'a>(steps: impl Iterator<Item = &'a Step>) -> usize {
    steps.map(Step::num_stretches).sum()
}

/// Encodes one dispatch, numbered over all grids.
pub(crate) fn encode_stretch_in<'a>(
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

/// Submits grids: together, or, where one of them is cut, each dispatch on its own, since the watchdogs of some systems time each
/// submission.
pub(crate) fn submit(ctx: &Context, label: &'static str, steps: &[&Step]) {
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
