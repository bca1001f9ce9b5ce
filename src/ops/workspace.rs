//! Scratch memory between the dispatches of a call.

use crate::{Context, Error, Result};

/// One storage buffer for partial results. Calls that are encoded one after another may share it, whatever their sizes.
#[derive(Clone, Debug)]
pub struct Workspace {
    pub(crate) buffer: wgpu::Buffer,
}

impl Workspace {
    /// Allocates at least `bytes`, as [`AttentionPlan::workspace_bytes`](crate::AttentionPlan::workspace_bytes) says.
    ///
    /// # Errors
    /// [`Error::Limit`] or [`Error::OutOfMemory`].
    ///
    /// # Cost
    /// Allocates one buffer.
    pub fn new(ctx: &Context, bytes: u64) -> Result<Self> {
        let available = ctx.caps().max_buffer_bytes;
        if bytes > available {
            return Err(Error::Limit { limit: "max_buffer_size", needed: bytes, available });
        }
        let buffer = ctx.scoped("allocating a workspace", || {
            ctx.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("wattn.workspace"),
                size: bytes.max(256).next_multiple_of(4),
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        })?;
        Ok(Self { buffer })
    }

    /// Wraps a buffer of the caller's.
    ///
    /// # Errors
    /// [`Error::Usage`] when it lacks `STORAGE`.
    pub fn from_buffer(buffer: wgpu::Buffer) -> Result<Self> {
        let missing = wgpu::BufferUsages::STORAGE - buffer.usage();
        if missing.is_empty() { Ok(Self { buffer }) } else { Err(Error::Usage { tensor: "workspace", missing }) }
    }

    /// Bytes in the buffer.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.buffer.size()
    }
}
