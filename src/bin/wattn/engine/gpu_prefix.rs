//! Prefix attention with keys and values in GPU buffers, bound once.
//!
//! A device limits the size of a binding, so long texts lie in *segments*, each with buffers of its own. A piece of queries sees earlier
//! segments in whole and its own segment causally; the partial results are merged through their lse, one segment after the other.

use core::ops::Range;

use wattn::{
    Attention, AttentionArgs, AttentionOutput, AttentionPlan, AttentionProblem, AttentionShape, BoundAttention,
    BoundMerge, Context, DType, Element, Error, HostTensor, Layout, Mask, Merge, MergeArgs, MergePlan, MergeProblem,
    Result, TensorView, TensorViewMut, Tier, U32View,
};

use super::{BYTES, one_hot};

/// Keys and values of a text on a GPU, and buffers for one piece of queries.
pub(crate) struct GpuPrefix {
    context: Context,
    /// Query rows of a piece. A shorter piece fills the last rows: the mask counts from the end.
    rows: u32,
    heads: u32,
    head_dim: u32,
    q: wgpu::Buffer,
    /// Keys up to the end of the piece, in its own segment.
    causal_len: wgpu::Buffer,
    /// Two partial results: the merged one so far, and the next segment's.
    parts: Results,
    merged: Results,
    merge: BoundMerge,
    segments: Vec<Segment>,
}

/// A range of keys with its buffers bound.
struct Segment {
    keys: Range<u32>,
    /// For pieces past it.
    whole: BoundAttention,
    /// For pieces that end in it.
    causal: BoundAttention,
}

struct Results {
    out: wgpu::Buffer,
    lse: wgpu::Buffer,
}

impl GpuPrefix {
    pub(super) fn new<T: Element>(
        context: &Context,
        tier: Tier,
        keys: &[HostTensor<T>],
        bytes: &[u8],
        softmax_scale: f32,
        chunk: u32,
    ) -> Result<Self> {
        let caps = context.caps();
        let binding = caps.max_storage_binding_bytes.min(caps.max_buffer_bytes);
        let [_, len, _, head_dim] = keys.first().map_or([0; 4], HostTensor::shape);
        let heads = keys.len() as u64;
        // Both at 0 would be a device that binds nothing; wgpu has none.
        let key_bytes = (heads * u64::from(head_dim)).max(BYTES.into()) * T::DTYPE.size_bytes();
        let fitting = |bytes: u64| u32::try_from(binding / bytes).unwrap_or(u32::MAX).max(1);
        let segment = fitting(key_bytes).min(len);
        // The two parts of a merge share a binding.
        let row_bytes = 2 * heads * u64::from(BYTES) * 4;
        let rows = fitting(row_bytes).min(chunk).min(len);
        Self::with_sizes(context, tier, keys, bytes, softmax_scale, [rows, segment])
    }

    /// [`GpuPrefix::new`] with the query rows of a piece and the keys of a segment.
    fn with_sizes<T: Element>(
        context: &Context,
        tier: Tier,
        keys: &[HostTensor<T>],
        bytes: &[u8],
        softmax_scale: f32,
        [rows, segment]: [u32; 2],
    ) -> Result<Self> {
        let [_, len, _, head_dim] = keys.first().map_or([0; 4], HostTensor::shape);
        let heads = keys.len() as u32; // the command line allows a few
        let input = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let (q, causal_len) = context.scoped("running recall", || {
            let elements = u64::from(rows) * u64::from(heads) * u64::from(head_dim);
            let q = buffer(context, "recall.q", elements * T::DTYPE.size_bytes(), input);
            (q, buffer(context, "recall.causal_len", 4, input))
        })?;
        let parts = Results::new(context, 2 * rows * heads)?;
        let merged = Results::new(context, rows * heads)?;
        let merge = bind_merge(context, &parts, &merged, rows * heads)?;

        let mut segments = Vec::new();
        for start in (0..len).step_by(segment.max(1) as usize) {
            let range = start..len.min(start.saturating_add(segment));
            let (k, v, whole_len) = context.scoped("running recall", || upload(context, keys, bytes, &range))??;
            let shape = AttentionShape {
                batch_size: 1,
                seq_len_q: rows,
                seq_len_kv: range.len() as u32,
                num_q_heads: heads,
                num_kv_heads: heads,
                head_dim,
                head_dim_v: BYTES,
            };
            // The other segments' results are merged into the first one's.
            let part = u64::from(start > 0) * u64::from(rows) * u64::from(heads);
            let bind = |mask, seq_len: &wgpu::Buffer| {
                let problem = AttentionProblem::new(shape, T::DTYPE)
                    .with_out_dtype(DType::F32)
                    .with_mask(mask)
                    .with_softmax_scale(softmax_scale)
                    .with_lse()
                    .with_seq_lens_kv();
                let plan = AttentionPlan::with_tier(&problem, context.caps(), tier)?;
                let view = |buffer, layout| TensorView::new(buffer, T::DTYPE, layout);
                // All heads read the same values.
                let shared = Layout { shape: shape.v(), strides: [0, BYTES.into(), 0], offset: 0 };
                let result = |buffer, [_, seq, heads, dim]: [u32; 4]| {
                    let layout = Layout::seq_major(1, seq, heads, dim).with_offset(part * u64::from(dim));
                    TensorViewMut::new(buffer, DType::F32, layout)
                };
                Attention::prepare(context, &plan)?.bind(
                    AttentionArgs::new(
                        view(&q, Layout::seq_major(1, rows, heads, head_dim)),
                        view(&k, Layout::head_major(1, shape.seq_len_kv, heads, head_dim)),
                        view(&v, shared),
                        result(&parts.out, shape.out()),
                    )
                    .with_seq_lens_kv(U32View::new(seq_len, 0, 1))
                    .with_lse(result(&parts.lse, shape.lse())),
                )
            };
            let (whole, causal) = (bind(Mask::Full, &whole_len)?, bind(Mask::Causal, &causal_len)?);
            segments.push(Segment { keys: range, whole, causal });
        }
        let context = context.clone();
        Ok(Self { context, rows, heads, head_dim, q, causal_len, parts, merged, merge, segments })
    }

    pub(super) fn attend_chunk<T: Element>(&self, q: &HostTensor<T>, chunk_start: u32) -> Result<AttentionOutput> {
        let [_, len, heads, head_dim] = q.shape();
        let expected = [1, len, self.heads, self.head_dim];
        if [heads, head_dim] != expected[2..] {
            return Err(Error::Shape { tensor: "q", expected, actual: q.shape() });
        }
        let chunk_end = chunk_start + len;
        let width = (heads * head_dim) as usize;
        let mut out = Vec::with_capacity((len * heads * BYTES) as usize);
        let mut lse = Vec::with_capacity((len * heads) as usize);
        let mut start = chunk_start;
        for (index, segment) in self.segments.iter().enumerate() {
            // A piece lies in one segment, so that every other segment lies wholly before or after it.
            while start < chunk_end && segment.keys.contains(&start) {
                let end = chunk_end.min(segment.keys.end).min(start.saturating_add(self.rows));
                let [first, last] = [start, end].map(|position| (position - chunk_start) as usize * width);
                let piece = self.attend_piece(&q.data()[first..last], start..end, index)?;
                out.extend_from_slice(piece.out.data());
                lse.extend_from_slice(piece.lse.data());
                start = end;
            }
        }
        Ok(AttentionOutput::new(
            HostTensor::new([1, len, heads, BYTES], out)?,
            HostTensor::new([1, len, heads, 1], lse)?,
        ))
    }

    /// The queries of `positions`, all in segment `own`.
    fn attend_piece<T: Element>(&self, q: &[T], positions: Range<u32>, own: usize) -> Result<AttentionOutput> {
        let count = positions.len() as u32;
        // Rows before the piece keep old contents; their results are not read.
        let skipped = u64::from(self.rows - count) * u64::from(self.heads);
        let queue = self.context.queue();
        let offset_bytes = skipped * u64::from(self.head_dim) * T::DTYPE.size_bytes();
        let causal_len = positions.end - self.segments[own].keys.start;
        self.context.scoped("running recall", || {
            queue.write_buffer(&self.q, offset_bytes, bytemuck::cast_slice(q));
            queue.write_buffer(&self.causal_len, 0, bytemuck::bytes_of(&causal_len));
            for (index, segment) in self.segments[..=own].iter().enumerate() {
                let label = Some("recall.segment");
                let mut encoder =
                    self.context.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label });
                let attention = if index == own { &segment.causal } else { &segment.whole };
                attention.encode(&mut encoder);
                if index > 0 {
                    self.merge.encode(&mut encoder);
                    if index < own {
                        self.merged.copy_to(&self.parts, &mut encoder);
                    }
                }
                // One submission for each segment keeps submissions short: systems reset a GPU that does not answer.
                queue.submit([encoder.finish()]);
            }
        })?;
        let results = if own == 0 { &self.parts } else { &self.merged };
        let read = |buffer, dim: u32| {
            let layout = Layout::seq_major(1, count, self.heads, dim).with_offset(skipped * u64::from(dim));
            self.context.read(TensorView::new(buffer, DType::F32, layout)).wait()
        };
        Ok(AttentionOutput::new(read(&results.out, BYTES)?, read(&results.lse, 1)?))
    }
}

impl Results {
    fn new(context: &Context, rows: u32) -> Result<Self> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        context.scoped("running recall", || Self {
            out: buffer(context, "recall.out", u64::from(rows) * u64::from(BYTES) * 4, usage),
            lse: buffer(context, "recall.lse", u64::from(rows) * 4, usage),
        })
    }

    /// All of it, to the start of the other.
    fn copy_to(&self, to: &Self, encoder: &mut wgpu::CommandEncoder) {
        encoder.copy_buffer_to_buffer(&self.out, 0, &to.out, 0, self.out.size());
        encoder.copy_buffer_to_buffer(&self.lse, 0, &to.lse, 0, self.lse.size());
    }
}

fn bind_merge(context: &Context, parts: &Results, merged: &Results, num_rows: u32) -> Result<BoundMerge> {
    let plan = MergePlan::new(&MergeProblem { num_parts: 2, num_rows, head_dim_v: BYTES }, context.caps())?;
    let layout = |parts, dim| Layout::seq_major(parts, num_rows, 1, dim);
    Merge::prepare(context, &plan)?.bind(MergeArgs::new(
        TensorView::new(&parts.out, DType::F32, layout(2, BYTES)),
        TensorView::new(&parts.lse, DType::F32, layout(2, 1)),
        TensorViewMut::new(&merged.out, DType::F32, layout(1, BYTES)),
        TensorViewMut::new(&merged.lse, DType::F32, layout(1, 1)),
    ))
}

/// Keys of all heads, one after the other, the one-hot values, and the number of keys.
fn upload<T: Element>(
    context: &Context,
    keys: &[HostTensor<T>],
    bytes: &[u8],
    range: &Range<u32>,
) -> Result<(wgpu::Buffer, wgpu::Buffer, wgpu::Buffer)> {
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    let head_dim = keys.first().map_or(0, |k| k.shape()[3]) as usize;
    let rows = range.start as usize..range.end as usize;
    let head_bytes = (rows.len() * head_dim) as u64 * T::DTYPE.size_bytes();
    let k = buffer(context, "recall.k", keys.len() as u64 * head_bytes, usage);
    for (at, head) in (0..).zip(keys) {
        let data = &head.data()[rows.start * head_dim..rows.end * head_dim];
        context.queue().write_buffer(&k, at * head_bytes, bytemuck::cast_slice(data));
    }
    let values = one_hot::<T>(&bytes[rows.clone()])?;
    let v = buffer(context, "recall.v", rows.len() as u64 * u64::from(BYTES) * T::DTYPE.size_bytes(), usage);
    context.queue().write_buffer(&v, 0, bytemuck::cast_slice(values.data()));
    let len = buffer(context, "recall.whole_len", 4, usage);
    context.queue().write_buffer(&len, 0, bytemuck::bytes_of(&(rows.len() as u32)));
    // Writes wait in staging memory until something is submitted.
    context.queue().submit([]);
    Ok((k, v, len))
}

fn buffer(context: &Context, label: &str, size: u64, usage: wgpu::BufferUsages) -> wgpu::Buffer {
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    context.device().create_buffer(&descriptor)
}

#[cfg(test)]
mod tests {
    use wattn::{ContextOptions, SoftwareAdapters};

    use super::*;
    use crate::engine::Engine;

    const LEN: usize = 100;
    const HEADS: usize = 2;
    const HEAD_DIM: u32 = 8;

    fn tensor(shape: [u32; 4], step: usize) -> HostTensor {
        let len: u32 = shape.iter().product();
        let data = (0..len as usize).map(|i| (i * step % 251) as f32 / 125.0 - 1.0).collect();
        HostTensor::new(shape, data).unwrap()
    }

    /// Pieces and segments whose sizes divide neither one another nor the text give the same results as a single piece.
    #[test]
    fn segments_and_pieces_change_nothing_but_rounding() {
        let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
        let context = Context::request(&options).wait().expect("`bash tests/run` installs a software adapter");
        let bytes: Vec<u8> = (0..LEN).map(|i| (i * i % 7) as u8 + b'a').collect();
        let keys = [7, 11].map(|step| tensor([1, LEN as u32, 1, HEAD_DIM], step));
        let q = tensor([1, LEN as u32, HEADS as u32, HEAD_DIM], 13);
        let oracle_engine = Engine::from(wattn::Engine::Oracle);
        let oracle = oracle_engine.prefix_attention(&keys, &bytes, 0.3, LEN as u32).unwrap();
        let expected = oracle.attend_chunk(&q, 0).unwrap();

        let tier = context.caps().best_tier();
        for [rows, segment] in [[100, 100], [100, 37], [16, 37], [16, 48]] {
            let prefix = GpuPrefix::with_sizes(&context, tier, &keys, &bytes, 0.3, [rows, segment]).unwrap();
            for chunk in [100, 60] {
                for start in (0..LEN).step_by(chunk) {
                    let end = LEN.min(start + chunk);
                    let width = HEADS * HEAD_DIM as usize;
                    let shape = [1, (end - start) as u32, HEADS as u32, HEAD_DIM];
                    let q = HostTensor::new(shape, q.data()[start * width..end * width].to_vec()).unwrap();
                    let got = prefix.attend_chunk(&q, start as u32).unwrap();
                    let tensors = [(&got.out, &expected.out, BYTES as usize), (&got.lse, &expected.lse, 1)];
                    for (got, expected, dim) in tensors {
                        let expected = &expected.data()[start * HEADS * dim..end * HEADS * dim];
                        assert_eq!(got.data().len(), expected.len());
                        for (a, e) in got.data().iter().zip(expected) {
                            // A few dozen roundings of numbers below 8.
                            assert!((a - e).abs() < 1e-5, "rows {rows} segment {segment}: {a} is not {e}");
                        }
                    }
                }
            }
        }
    }
}
