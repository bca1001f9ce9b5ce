//! The buffers and uniforms bound to a kernel, by the names of its bindings.

use crate::shader::{Binding, BindingKind};
use crate::{Context, Error, Pipeline, Result};

/// Buffers and uniforms for the bindings of a kernel, each by its name in WGSL, in any order.
#[derive(Clone, Debug, Default)]
pub struct Slots<'a> {
    slots: Vec<(&'static str, Slot<'a>)>,
}

/// The resource of one binding.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slot<'a> {
    /// Buffer, offset and size in bytes.
    Range(&'a wgpu::Buffer, u64, u64),
    /// The contents of a uniform.
    Bytes(&'a [u8]),
}

impl<'a> Slots<'a> {
    /// No slots yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// A whole buffer.
    #[must_use]
    pub fn buffer(self, name: &'static str, buffer: &'a wgpu::Buffer) -> Self {
        self.range(name, buffer, 0, buffer.size())
    }

    /// A part of a buffer: where it begins, and its size in bytes.
    #[must_use]
    pub fn range(self, name: &'static str, buffer: &'a wgpu::Buffer, offset: u64, size: u64) -> Self {
        self.with(name, Slot::Range(buffer, offset, size))
    }

    /// A uniform's contents, copied when it is bound.
    #[must_use]
    pub fn uniform(self, name: &'static str, bytes: &'a [u8]) -> Self {
        self.with(name, Slot::Bytes(bytes))
    }

    pub(crate) fn with(mut self, name: &'static str, slot: Slot<'a>) -> Self {
        self.slots.push((name, slot));
        self
    }

    /// The resource for a binding. There are only a few.
    pub(crate) fn get(&self, name: &str) -> Option<Slot<'a>> {
        self.slots.iter().find(|(given, _)| *given == name).map(|(_, slot)| *slot)
    }

    /// Fails unless these are the pipeline's bindings, each once and of the right kind.
    pub(crate) fn check(&self, pipeline: &Pipeline) -> Result<()> {
        let (kernel, bindings) = (pipeline.name(), pipeline.bindings());
        let wrong = |binding, rule| Err(Error::Slot { kernel, binding, rule });
        for (at, (name, _)) in self.slots.iter().enumerate() {
            if !bindings.iter().any(|binding| binding.name == *name) {
                return wrong(name, "the kernel has no such binding");
            }
            if self.slots[..at].iter().any(|(earlier, _)| earlier == name) {
                return wrong(name, "is given twice");
            }
        }
        for binding in bindings {
            match self.get(binding.name) {
                None => return wrong(binding.name, "nothing is given for it"),
                Some(slot) => check_slot(kernel, binding, slot)?,
            }
        }
        self.check_apart(bindings)
    }

    /// wgpu tracks whole buffers, and forbids reading and writing one in the same dispatch even where the ranges differ.
    fn check_apart(&self, bindings: &[Binding]) -> Result<()> {
        let buffer = |binding: &Binding| match self.get(binding.name) {
            Some(Slot::Range(buffer, ..)) => Some(buffer),
            _ => None,
        };
        for written in bindings.iter().filter(|binding| binding.kind == BindingKind::Write) {
            let other = bindings.iter().find(|other| {
                other.name != written.name && buffer(other).is_some() && buffer(other) == buffer(written)
            });
            if let Some(other) = other {
                return Err(Error::Overlap { written: written.name, other: other.name });
            }
        }
        Ok(())
    }
}

fn check_slot(kernel: &'static str, binding: &Binding, slot: Slot<'_>) -> Result<()> {
    let tensor = binding.name;
    let bytes = 4 * binding.fields.len() as u64; // only a few
    match (slot, binding.kind.is_storage()) {
        (Slot::Bytes(_), true) => {
            Err(Error::Slot { kernel, binding: tensor, rule: "is a storage buffer, not a uniform" })
        }
        (Slot::Bytes(given), false) if given.len() as u64 == bytes => Ok(()),
        (Slot::Bytes(given), false) => {
            Err(Error::Length { tensor, expected: bytes / 4, actual: (given.len() / 4) as u64 })
        }
        (Slot::Range(buffer, offset, size), is_storage) => {
            let usage = if is_storage { wgpu::BufferUsages::STORAGE } else { wgpu::BufferUsages::UNIFORM };
            let missing = usage - buffer.usage();
            if !missing.is_empty() {
                return Err(Error::Usage { tensor, missing });
            }
            let size = if is_storage { size } else { size.max(bytes) };
            match offset.checked_add(size) {
                Some(end) if end <= buffer.size() && size > 0 => Ok(()),
                Some(_) if size == 0 => Err(Error::Slot { kernel, binding: tensor, rule: "wgpu binds nothing empty" }),
                end => Err(Error::OutOfBounds { tensor, end: end.unwrap_or(u64::MAX), len: buffer.size() }),
            }
        }
    }
}

/// A stand-in for a binding that is never touched: wgpu has no empty bindings, and forbids reading and writing one buffer at once.
pub(crate) fn unused(ctx: &Context, kind: BindingKind) -> &wgpu::Buffer {
    match kind {
        BindingKind::Write => ctx.unused_write(),
        BindingKind::Read | BindingKind::Uniform | BindingKind::Stretch => ctx.unused_read(),
    }
}
