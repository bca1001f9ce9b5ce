//! Copies GPU buffers into host memory.

use futures::channel::oneshot;

use crate::pending::{Pending, poll_type};
use crate::{Context, Element, Error, HostTensor, Layout, Result, TensorView};

impl Context {
    /// Copies a tensor into host memory, contiguous in the order of its axes.
    ///
    /// # Errors
    /// [`Error::DType`], [`Error::OutOfBounds`], [`Error::Usage`] (`COPY_SRC` is needed), [`Error::Map`],
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    ///
    /// # Cost
    /// Allocates a staging buffer, submits a copy, and waits for all work submitted before.
    pub fn read<T: Element>(&self, view: TensorView<'_>) -> Pending<'static, Result<HostTensor<T>>> {
        let download = self.start_download::<T>(view);
        let (device, layout) = (self.device().clone(), view.layout);
        Pending::new(async move {
            let Some(mut download) = download? else { return Ok(HostTensor::zeros(layout.shape)) };
            // Natively a map completes only while something polls the device.
            let mapped = futures::future::poll_fn(move |task| {
                if let Err(error) = device.poll(poll_type()) {
                    return core::task::Poll::Ready(Err(Error::from(error)));
                }
                let state = futures::FutureExt::poll_unpin(&mut download.mapped, task);
                if state.is_pending() && cfg!(not(target_arch = "wasm32")) {
                    task.waker().wake_by_ref();
                }
                state.map(|result| Self::mapped(result).map(|()| core::mem::take(&mut download.staging)))
            })
            .await?;
            gather(mapped, layout)
        })
    }

    fn mapped(result: Result<Result<(), wgpu::BufferAsyncError>, oneshot::Canceled>) -> Result<()> {
        match result {
            Ok(result) => Ok(result?),
            Err(oneshot::Canceled) => Err(Error::DeviceLost { message: "a map was dropped unanswered".to_owned() }),
        }
    }

    /// Submits the copy of the bytes that the tensor spans, and asks to map it; `None` for a tensor of no elements.
    fn start_download<T: Element>(&self, view: TensorView<'_>) -> Result<Option<Download>> {
        let tensor = "read";
        if view.dtype != T::DTYPE {
            return Err(Error::DType { tensor, expected: view.dtype, actual: T::DTYPE });
        }
        if view.layout.num_elements() == 0 {
            return Ok(None);
        }
        let element = T::DTYPE.size_bytes();
        let end = view.layout.end().and_then(|end| end.checked_mul(element));
        let len = view.buffer.size();
        let end =
            end.filter(|&end| end <= len).ok_or(Error::OutOfBounds { tensor, end: end.unwrap_or(u64::MAX), len })?;
        let missing = wgpu::BufferUsages::COPY_SRC - view.buffer.usage();
        if !missing.is_empty() {
            return Err(Error::Usage { tensor, missing });
        }
        // Copies move whole words.
        let begin = view.layout.offset * element / 4 * 4;
        let size = (end - begin).next_multiple_of(4);
        let available = self.caps().max_buffer_bytes;
        if size > available {
            return Err(Error::Limit { limit: "max_buffer_size", needed: size, available });
        }
        self.scoped("reading back", || {
            let staging = self.device().create_buffer(&wgpu::BufferDescriptor {
                label: Some("wattn.staging"),
                size,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let descriptor = wgpu::CommandEncoderDescriptor { label: Some("wattn.read") };
            let mut encoder = self.device().create_command_encoder(&descriptor);
            encoder.copy_buffer_to_buffer(view.buffer, begin, &staging, 0, size);
            self.queue().submit([encoder.finish()]);
            let (sender, mapped) = oneshot::channel();
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                // The reader may have dropped its end, and then wants no answer.
                let _ = sender.send(result);
            });
            Some(Download { staging: Some(staging), mapped })
        })
    }
}

struct Download {
    staging: Option<wgpu::Buffer>,
    mapped: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
}

fn gather<T: Element>(staging: Option<wgpu::Buffer>, layout: Layout) -> Result<HostTensor<T>> {
    let lost = |message: String| Error::DeviceLost { message };
    let staging = staging.ok_or_else(|| lost("the staging buffer was read twice".to_owned()))?;
    let bytes = staging.get_mapped_range(..).map_err(|error| lost(error.to_string()))?;
    let elements: &[T] = bytemuck::cast_slice(&bytes);
    let [batch, seq, heads, dim] = layout.shape;
    // The staging buffer begins at the word that holds the first element.
    let first = (layout.offset * T::DTYPE.size_bytes() % 4 / T::DTYPE.size_bytes()) as usize;
    let mut data = Vec::with_capacity(layout.num_elements() as usize);
    for b in 0..u64::from(batch) {
        for s in 0..u64::from(seq) {
            for h in 0..u64::from(heads) {
                let at = b * layout.strides[0] + s * layout.strides[1] + h * layout.strides[2];
                data.extend_from_slice(&elements[first + at as usize..][..dim as usize]);
            }
        }
    }
    drop(bytes);
    staging.unmap();
    HostTensor::new(layout.shape, data)
}
