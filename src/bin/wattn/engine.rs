//! Where attention is computed. The only file of the program that knows of more than one way.

use wattn::cpu;
use wattn::{
    AttentionOutput, AttentionProblem, AttentionShape, DType, Element, HostInputs, HostTensor, Mask, Result, Tier,
};

use crate::args::{Backend, EngineArgs};
use crate::failure::Failure;

/// Width of a one-hot value row: one column for each byte.
pub(crate) const BYTES: u32 = 256;

/// One way to compute attention, chosen once.
#[derive(Debug)]
pub(crate) enum Engine {
    /// Blockwise on the CPU. Holds the reason when a GPU was looked for first.
    Cpu { no_gpu: Option<String> },
    /// The definition in f64, one row at a time.
    Oracle,
}

impl Engine {
    pub(crate) fn open(args: &EngineArgs) -> Result<Self, Failure> {
        let on_cpu = matches!(args.backend, Backend::Cpu | Backend::Oracle);
        if on_cpu && (args.adapter.is_some() || args.tier.is_some()) {
            return Err(Failure::Usage("--adapter and --tier choose a GPU, --backend a CPU path".to_owned()));
        }
        match args.backend {
            Backend::Cpu => Ok(Self::Cpu { no_gpu: None }),
            Backend::Oracle => Ok(Self::Oracle),
            Backend::Gpu => Self::open_gpu(args),
            // A GPU that was named must not be replaced by something else.
            Backend::Auto if args.adapter.is_some() || args.tier.is_some() => Self::open_gpu(args),
            Backend::Auto => Self::open_gpu(args).or_else(|failure| Ok(Self::Cpu { no_gpu: Some(failure.line()) })),
        }
    }

    fn open_gpu(args: &EngineArgs) -> Result<Self, Failure> {
        let _tier: Option<Tier> = args.tier.map(Tier::from);
        Err(Failure::Usage("this build has no GPU path".to_owned()))
    }

    /// Where the work is done and, when that is not what `auto` looks for first, why.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Cpu { no_gpu: None } => "CPU, blockwise".to_owned(),
            Self::Cpu { no_gpu: Some(reason) } => format!("CPU, blockwise ({reason})"),
            Self::Oracle => "CPU, f64 oracle".to_owned(),
        }
    }

    /// Attention on host tensors, in one call.
    pub(crate) fn attend<T: Element>(
        &self,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
    ) -> Result<AttentionOutput> {
        match self {
            Self::Cpu { .. } => cpu::attend(problem, inputs),
            Self::Oracle => cpu::oracle::attend(problem, inputs),
        }
    }

    /// Keeps keys and values where the work is done; queries arrive in chunks.
    ///
    /// `keys` holds one `[1, len, 1, head_dim]` tensor for each head. Value j is the one-hot row of `bytes[j]`, the
    /// same in all heads, hence compact here.
    pub(crate) fn prefix_attention<'a, T: Element>(
        &'a self,
        keys: &'a [HostTensor<T>],
        bytes: &[u8],
        softmax_scale: f32,
    ) -> Result<PrefixAttention<'a, T>> {
        Ok(PrefixAttention { engine: self, keys, values: one_hot(bytes)?, softmax_scale })
    }
}

/// Keys and values of a text, ready for causal attention by chunks of queries.
pub(crate) struct PrefixAttention<'a, T> {
    engine: &'a Engine,
    keys: &'a [HostTensor<T>],
    values: HostTensor<T>,
    softmax_scale: f32,
}

impl<T: Element> PrefixAttention<'_, T> {
    /// Causal attention of the queries at positions `chunk_start..chunk_start + len` over the keys from 0.
    /// `q` is `[1, len, heads, head_dim]`; out is `[1, len, heads, 256]` and lse `[1, len, heads, 1]`, in f32.
    pub(crate) fn attend_chunk(&self, q: &HostTensor<T>, chunk_start: u32) -> Result<AttentionOutput> {
        let [_, len, heads, head_dim] = q.shape();
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: len,
            seq_len_kv: self.values.shape()[1],
            num_q_heads: 1,
            num_kv_heads: 1,
            head_dim,
            head_dim_v: BYTES,
        };
        let problem = AttentionProblem::new(shape, T::DTYPE)
            .out_dtype(DType::F32)
            .mask(Mask::Causal)
            .softmax_scale(self.softmax_scale);
        // Keys past the chunk do not count, so nothing is copied: the mask is aligned to this length.
        let seq_lens_kv = [chunk_start + len];
        // Heads go one by one because they share the values, which a head axis would have to repeat.
        let mut whole = AttentionOutput {
            out: HostTensor::zeros([1, len, heads, BYTES]),
            lse: HostTensor::zeros([1, len, heads, 1]),
        };
        for (head, k) in self.keys.iter().enumerate() {
            let rows = (0..len as usize).flat_map(|row| q.row(0, row, head)).copied().collect();
            let q = HostTensor::new([1, len, 1, head_dim], rows)?;
            let inputs = HostInputs { q: &q, k, v: &self.values, seq_lens_kv: Some(&seq_lens_kv) };
            let part = self.engine.attend(&problem, &inputs)?;
            interleave(whole.out.data_mut(), part.out.data(), head, heads as usize, BYTES as usize);
            interleave(whole.lse.data_mut(), part.lse.data(), head, heads as usize, 1);
        }
        Ok(whole)
    }
}

/// Copies the rows of one head to their places among all heads.
fn interleave(whole: &mut [f32], part: &[f32], head: usize, heads: usize, dim: usize) {
    for (to, from) in whole.chunks_exact_mut(heads * dim).zip(part.chunks_exact(dim)) {
        to[head * dim..][..dim].copy_from_slice(from);
    }
}

/// `[1, len, 1, 256]` with a single one in each row.
pub(crate) fn one_hot<T: Element>(bytes: &[u8]) -> Result<HostTensor<T>> {
    let width = BYTES as usize;
    let mut data = vec![T::default(); bytes.len() * width];
    for (row, &byte) in data.chunks_exact_mut(width).zip(bytes) {
        row[usize::from(byte)] = T::from_f32(1.0);
    }
    HostTensor::new([1, bytes.len() as u32, 1, BYTES], data)
}
