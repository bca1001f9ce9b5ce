//! Buffers of a model.

use crate::lm::config::LmConfig;
use crate::lm::error::LmResult;
use crate::lm::kernels::WeightElem;
use crate::lm::matrix::Matrix;
use crate::lm::options::SessionOptions;
use crate::lm::weights::{Linear, Weights};
use crate::{Context, Error};

/// Size in bytes of a buffer of this many words, if the device allows it.
fn checked_size(ctx: &Context, words: u64) -> LmResult<u64> {
    let size = words.max(1) * 4;
    let caps = ctx.caps();
    for (limit, available) in [
        ("max_storage_buffer_binding_size", caps.max_storage_binding_bytes),
        ("max_buffer_size", caps.max_buffer_bytes),
    ] {
        if size > available {
            return Err(Error::Limit { limit, needed: size, available }.into());
        }
    }
    Ok(size)
}

/// A new buffer for the kernels to read and write.
pub(in crate::lm) fn buffer(ctx: &Context, label: &'static str, words: u64) -> LmResult<wgpu::Buffer> {
    let size = checked_size(ctx, words)?;
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
    let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
    Ok(ctx.scoped("allocating a model", || ctx.device().create_buffer(&descriptor))?)
}

fn upload(ctx: &Context, label: &'static str, bytes: &[u8]) -> LmResult<wgpu::Buffer> {
    Ok(ctx.scoped("uploading weights", || ctx.upload(label, bytes, wgpu::BufferUsages::STORAGE))?)
}

/// Some rows of a matrix.
#[derive(Debug)]
pub(in crate::lm) struct Rows {
    pub(in crate::lm) buffer: wgpu::Buffer,
    pub(in crate::lm) first: u32,
    pub(in crate::lm) count: u32,
}

/// A matrix, in as many buffers as the device's limits make necessary.
#[derive(Debug)]
pub(in crate::lm) struct GpuMatrix {
    pub(in crate::lm) elem: WeightElem,
    pub(in crate::lm) rows: u32,
    pub(in crate::lm) cols: u32,
    pub(in crate::lm) parts: Vec<Rows>,
}

impl GpuMatrix {
    fn new(ctx: &Context, label: &'static str, matrix: &Matrix) -> LmResult<Self> {
        let bytes = matrix.elements().bytes();
        let row_bytes = bytes.len() / matrix.rows();
        let most = ctx.caps().max_storage_binding_bytes.min(ctx.caps().max_buffer_bytes) as usize;
        let rows_of_part = (most / row_bytes).clamp(1, matrix.rows());
        let part = |(number, bytes): (usize, &[u8])| -> LmResult<Rows> {
            let (first, count) = (number * rows_of_part, bytes.len() / row_bytes);
            // Rows of a vocabulary or of a projection, below 2^32.
            Ok(Rows { buffer: upload(ctx, label, bytes)?, first: first as u32, count: count as u32 })
        };
        Ok(Self {
            elem: WeightElem::new(matrix.elements().dtype(), ctx.caps()),
            rows: matrix.rows() as u32,
            cols: matrix.cols() as u32,
            parts: bytes.chunks(rows_of_part * row_bytes).enumerate().map(part).collect::<LmResult<_>>()?,
        })
    }
}

/// A projection.
#[derive(Debug)]
pub(in crate::lm) struct GpuLinear {
    pub(in crate::lm) weight: GpuMatrix,
    pub(in crate::lm) bias: Option<wgpu::Buffer>,
}

impl GpuLinear {
    fn new(ctx: &Context, label: &'static str, linear: &Linear) -> LmResult<Self> {
        let bias = linear.bias.as_ref().map(|bias| upload(ctx, label, bytemuck::cast_slice(bias))).transpose()?;
        Ok(Self { weight: GpuMatrix::new(ctx, label, &linear.weight)?, bias })
    }
}

/// One layer and its keys and values.
#[derive(Debug)]
pub(in crate::lm) struct GpuLayer {
    pub(in crate::lm) input_norm: wgpu::Buffer,
    pub(in crate::lm) qkv: GpuLinear,
    /// The norms of q, then of k.
    pub(in crate::lm) head_norms: Option<wgpu::Buffer>,
    pub(in crate::lm) out: GpuLinear,
    pub(in crate::lm) mlp_norm: wgpu::Buffer,
    pub(in crate::lm) gate_up: GpuLinear,
    pub(in crate::lm) down: GpuLinear,
    pub(in crate::lm) k: wgpu::Buffer,
    pub(in crate::lm) v: wgpu::Buffer,
}

/// The weights and caches of a session.
#[derive(Debug)]
pub(in crate::lm) struct GpuWeights {
    pub(in crate::lm) embedding: GpuMatrix,
    pub(in crate::lm) layers: Vec<GpuLayer>,
    pub(in crate::lm) norm: wgpu::Buffer,
    /// `None`: the embedding.
    pub(in crate::lm) head: Option<GpuMatrix>,
    /// Cosine and sine, `[position, head_dim / 2, 2]`.
    pub(in crate::lm) angles: wgpu::Buffer,
}

impl GpuWeights {
    pub(in crate::lm) fn new(
        ctx: &Context,
        config: &LmConfig,
        weights: &Weights,
        options: &SessionOptions,
    ) -> LmResult<Self> {
        let capacity = options.capacity;
        let vector = |label, vector: &[f32]| upload(ctx, label, bytemuck::cast_slice(vector));
        let cache_words = u64::from(capacity) * u64::from(config.num_kv_heads) * u64::from(config.head_dim);
        // Checked before weights are uploaded.
        checked_size(ctx, cache_words)?;
        checked_size(ctx, u64::from(capacity) * u64::from(config.head_dim))?;
        let mut layers = Vec::with_capacity(weights.layers.len());
        for layer in &weights.layers {
            let head_norms = layer.head_norms.as_ref().map(|norms| vector("wattn.lm.head_norms", &norms.concat()));
            layers.push(GpuLayer {
                input_norm: vector("wattn.lm.input_norm", &layer.input_norm)?,
                qkv: GpuLinear::new(ctx, "wattn.lm.qkv", &layer.qkv)?,
                head_norms: head_norms.transpose()?,
                out: GpuLinear::new(ctx, "wattn.lm.out", &layer.out)?,
                mlp_norm: vector("wattn.lm.mlp_norm", &layer.mlp_norm)?,
                gate_up: GpuLinear::new(ctx, "wattn.lm.gate_up", &layer.gate_up)?,
                down: GpuLinear::new(ctx, "wattn.lm.down", &layer.down)?,
                k: buffer(ctx, "wattn.lm.k", cache_words)?,
                v: buffer(ctx, "wattn.lm.v", cache_words)?,
            });
        }
        let head = weights.head.as_ref().map(|head| GpuMatrix::new(ctx, "wattn.lm.head", head));
        let angles = config.rope.table(config.head_dim, config.trained_len, options.text_len, capacity);
        Ok(Self {
            embedding: GpuMatrix::new(ctx, "wattn.lm.embedding", &weights.embedding)?,
            layers,
            norm: vector("wattn.lm.norm", &weights.norm)?,
            head: head.transpose()?,
            angles: vector("wattn.lm.angles", &angles)?,
        })
    }

    pub(in crate::lm) fn head(&self) -> &GpuMatrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
