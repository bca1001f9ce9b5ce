//! Tensors of an attention problem in a device's memory.

use super::inputs::Tensors;
use crate::{
    AttentionArgs, AttentionOutput, AttentionProblem, AttentionShape, BlockListsView, Context, DType, Element,
    HostTensor, Layout, Result, TensorView, TensorViewMut,
};

/// q, k and v.
#[derive(Debug)]
pub(crate) struct Uploaded {
    shape: AttentionShape,
    dtype: DType,
    buffers: [wgpu::Buffer; 3],
}

impl Uploaded {
    pub(crate) fn new(ctx: &Context, shape: AttentionShape, dtype: DType, tensors: &Tensors) -> Result<Self> {
        let inputs = tensors.inputs();
        let upload = |label, tensor: &HostTensor| ctx.upload_checked(label, &stored(tensor, dtype));
        let q = upload("wattn.bench.q", inputs.q)?;
        let k = upload("wattn.bench.k", &heads_outermost(inputs.k)?)?;
        let v = upload("wattn.bench.v", &heads_outermost(inputs.v)?)?;
        Ok(Self { shape, dtype, buffers: [q, k, v] })
    }

    /// The same numbers in other buffers.
    pub(crate) fn copied(&self, ctx: &Context) -> Result<Self> {
        let buffers = ctx.scoped("copying inputs", || {
            let mut encoder = ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            let buffers = self.buffers.each_ref().map(|from| {
                let copy = ctx.device().create_buffer(&wgpu::BufferDescriptor {
                    label: Some("wattn.bench.copy"),
                    size: from.size(),
                    usage: from.usage(),
                    mapped_at_creation: false,
                });
                encoder.copy_buffer_to_buffer(from, 0, &copy, 0, from.size());
                copy
            });
            ctx.queue().submit([encoder.finish()]);
            buffers
        })?;
        Ok(Self { buffers, ..*self })
    }

    /// Bytes of all three.
    pub(crate) fn bytes(&self) -> u64 {
        self.buffers.iter().map(wgpu::Buffer::size).sum()
    }

    pub(crate) fn views(&self) -> [TensorView<'_>; 3] {
        let ([q, k, v], shape) = (&self.buffers, &self.shape);
        [
            TensorView::new(q, self.dtype, seq_major(shape.q())),
            TensorView::new(k, self.dtype, head_major(shape.k())),
            TensorView::new(v, self.dtype, head_major(shape.v())),
        ]
    }
}

/// out and lse.
#[derive(Debug)]
pub(crate) struct Outputs {
    shape: AttentionShape,
    dtype: DType,
    out: wgpu::Buffer,
    lse: wgpu::Buffer,
}

impl Outputs {
    pub(crate) fn new(ctx: &Context, problem: &AttentionProblem) -> Result<Self> {
        let (shape, dtype) = (*problem.shape(), problem.out_dtype());
        let elements = |shape| seq_major(shape).num_elements();
        let out = output(ctx, "wattn.bench.out", elements(shape.out()) * dtype.size_bytes())?;
        let lse = output(ctx, "wattn.bench.lse", elements(shape.lse()) * 4)?;
        Ok(Self { shape, dtype, out, lse })
    }

    /// The arguments of a call.
    pub(crate) fn args<'a>(
        &'a self,
        [q, k, v]: [TensorView<'a>; 3],
        blocks: Option<BlockListsView<'a>>,
    ) -> AttentionArgs<'a> {
        AttentionArgs::new(q, k, v, TensorViewMut::new(&self.out, self.dtype, seq_major(self.shape.out())))
            .with_blocks(blocks)
            .with_lse(TensorViewMut::new(&self.lse, DType::F32, seq_major(self.shape.lse())))
    }

    /// Fills both with NaN, so that elements a call does not write are noticed.
    #[cfg(any(feature = "tune", test))]
    pub(crate) fn spoil(&self, ctx: &Context) -> Result<()> {
        ctx.scoped("spoiling outputs", || {
            for buffer in [&self.out, &self.lse] {
                ctx.queue().write_buffer(buffer, 0, &vec![0xff; buffer.size() as usize]);
            }
        })
    }

    pub(crate) fn read(&self, ctx: &Context) -> Result<AttentionOutput> {
        let view = TensorView::new(&self.out, self.dtype, seq_major(self.shape.out()));
        let out = match self.dtype {
            DType::F32 => ctx.read::<f32>(view).wait()?,
            DType::F16 => ctx.read::<half::f16>(view).wait()?.widened(),
            DType::BF16 => ctx.read::<half::bf16>(view).wait()?.widened(),
        };
        let lse = ctx.read::<f32>(TensorView::new(&self.lse, DType::F32, seq_major(self.shape.lse()))).wait()?;
        Ok(AttentionOutput { out, lse })
    }
}

/// A buffer that kernels write, and that can be read back.
fn output(ctx: &Context, label: &'static str, bytes: u64) -> Result<wgpu::Buffer> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let size = bytes.next_multiple_of(4);
    let (label, mapped_at_creation) = (Some(label), false);
    ctx.scoped("creating outputs", || {
        ctx.device().create_buffer(&wgpu::BufferDescriptor { label, size, usage, mapped_at_creation })
    })
}

/// The elements as bytes of a type, which holds them exactly.
fn stored(tensor: &HostTensor, dtype: DType) -> Vec<u8> {
    fn bytes<T: Element>(data: &[f32]) -> Vec<u8> {
        bytemuck::cast_slice(&data.iter().map(|&x| T::from_f32(x)).collect::<Vec<T>>()).to_vec()
    }
    match dtype {
        DType::F32 => bytemuck::cast_slice(tensor.data()).to_vec(),
        DType::F16 => bytes::<half::f16>(tensor.data()),
        DType::BF16 => bytes::<half::bf16>(tensor.data()),
    }
}

/// The same tensor as in KV caches, ours and ONNX Runtime's: `[batch, head, seq, dim]` in memory.
fn heads_outermost(tensor: &HostTensor) -> Result<HostTensor> {
    let [batch, seq, heads, _] = tensor.shape();
    let rows = (0..batch as usize)
        .flat_map(|b| (0..heads as usize).flat_map(move |h| (0..seq as usize).flat_map(move |s| tensor.row(b, s, h))));
    HostTensor::new(tensor.shape(), rows.copied().collect())
}

fn head_major([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::head_major(batch, seq, heads, dim)
}

fn seq_major([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::seq_major(batch, seq, heads, dim)
}
