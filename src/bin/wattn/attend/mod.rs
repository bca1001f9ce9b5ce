//! `wattn attend`: the operator on anybody's tensors, from safetensors to safetensors.

mod file;
mod input;
mod modify;

use std::time::Instant;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde::Serialize;
use wattn::{
    AttentionOutput, AttentionProblem, BlockListSpec, DType, Element, HostBlockLists, HostInputs, HostTensor,
    LSE_EMPTY, Mask, PADDING, SelectionProblem,
};

use crate::args::AttendArgs;
use crate::args::sparse::AttentionArg;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::files;
use input::Input;
use modify::Tensors;

/// The report as JSON.
#[derive(Serialize)]
struct Summary {
    engine: String,
    dtype: String,
    attention: &'static str,
    mask: String,
    softmax_scale: f32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    score_mods: Vec<String>,
    out: [u32; 4],
    /// Seconds of selection and attention together.
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse: Option<SparseSummary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    captured_mass: Option<MassSummary>,
}

#[derive(Serialize)]
struct SparseSummary {
    granularity: String,
    block_size_q: u32,
    block_size: u32,
    sink_size: u32,
    window_size: u32,
    dense_below: u32,
    block_indices: [u32; 4],
    mean_block_count: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    selection_scale: Option<f32>,
    selection_seconds: f64,
}

/// Statistics over the rows that see a key.
#[derive(Serialize)]
struct MassSummary {
    mean: f64,
    min: f64,
    dense_seconds: f64,
}

/// The results of a run besides out and lse.
struct Sparse {
    selection: BlockListSpec,
    blocks: HostBlockLists,
    /// `None` where the lists came with the input.
    problem: Option<SelectionProblem>,
    seconds: f64,
}

/// The inputs to read, before any number is read.
enum Wanted {
    Dense,
    Selected(SelectionProblem),
    Listed(BlockListSpec),
}

pub(crate) fn run(args: &AttendArgs) -> Result<(), Failure> {
    let mask = args.mask()?;
    args.engine.check()?;
    let (input, output) = (("--input", Some(args.input.as_path())), ("--output", Some(args.output.as_path())));
    files::check_outputs(&[input], &[output, ("--json", args.json.as_deref())])?;
    let input = Input::open(&args.input)?;
    let job = Job { args, input, mask };
    match args.dtype.map_or_else(|| job.input.common_dtype(), |dtype| Ok(dtype.into()))? {
        DType::F16 => job.attend::<f16>(),
        DType::BF16 => job.attend::<bf16>(),
        DType::F32 => job.attend::<f32>(),
        other => Err(Failure::Usage(format!("this program computes in f32, f16 and bf16, not in {other}"))),
    }
}

struct Job<'a> {
    args: &'a AttendArgs,
    input: Input<'a>,
    mask: Mask,
}

impl Job<'_> {
    fn refused(&self) -> impl Fn(wattn::Error) -> Failure + use<> {
        let path = self.input.path.to_owned();
        move |error| Failure::content(&path, error)
    }

    fn attend<T: Element>(mut self) -> Result<(), Failure> {
        let (args, mask, refused) = (self.args, self.mask, self.refused());
        let mut problem = AttentionProblem::new(self.input.shape, T::DTYPE).with_mask(mask).with_out_dtype(DType::F32);
        if let Some(scale) = args.softmax_scale {
            problem = problem.with_softmax_scale(scale);
        }
        if args.bf16_matrices {
            problem = problem.with_bf16_by_f16_matrices();
        }
        let (problem, tensors) = Tensors::load(&args.scores, &mut self.input, problem)?;
        problem.validate().map_err(&refused)?;
        let wanted = self.wanted(&problem)?;
        let engine = Engine::open(&args.engine)?;
        self.input.load_lengths()?;
        let (q, k, v) = (self.input.load::<T>("q")?, self.input.load::<T>("k")?, self.input.load::<T>("v")?);
        let listed = match &wanted {
            Wanted::Listed(selection) => Some(self.input.load_blocks(selection)?),
            Wanted::Dense | Wanted::Selected(_) => None,
        };
        let tensors = tensors.by_name();
        let mut inputs = HostInputs::new(&q, &k, &v).with_tensors(&tensors);
        if let Some(lens) = &self.input.seq_lens_kv {
            inputs = inputs.with_seq_lens_kv(lens);
        }
        inputs.validate(&problem).map_err(&refused)?;

        let start = Instant::now();
        let sparse = match (wanted, listed) {
            (Wanted::Selected(selection), _) => {
                let blocks = engine.inner.select(&selection, &inputs.for_selection()).wait()?;
                let seconds = start.elapsed().as_secs_f64();
                Some(Sparse { selection: selection.blocks(), blocks, problem: Some(selection), seconds })
            }
            (Wanted::Listed(selection), Some(blocks)) => {
                Some(Sparse { selection, blocks, problem: None, seconds: 0.0 })
            }
            _ => None,
        };
        let output = match &sparse {
            None => engine.inner.attend(&problem, &inputs).wait()?,
            Some(sparse) => {
                let problem = problem.clone().with_blocks(sparse.selection);
                engine.inner.attend(&problem, &inputs.with_blocks(&sparse.blocks)).wait()?
            }
        };
        let seconds = start.elapsed().as_secs_f64();
        let mass = match args.captured_mass {
            true => Some(CapturedMass::new(&engine, &problem, &inputs, &output)?),
            false => None,
        };

        let bytes = encode(&output, sparse.as_ref(), mass.as_ref());
        let bytes = bytes.map_err(|error| Failure::content(&args.output, error))?;
        files::write_bytes(&args.output, &bytes)?;

        let out = output.out.shape();
        let kind = match args.attention {
            AttentionArg::Dense => format!("{mask} attention"),
            sparse => format!("{mask} {} attention", sparse.name()),
        };
        let mut text = format!(
            "{}: out {out:?}, lse {:?}, f32\n{kind} of {} inputs in {seconds:.3} s; {}\n",
            args.output.display(),
            &out[..3],
            T::DTYPE,
            engine.describe(),
        );
        let summary = sparse.as_ref().map(Sparse::summary);
        if let Some(SparseSummary { granularity, block_size, block_indices, mean_block_count, .. }) = &summary {
            let what = format!("lists {block_indices:?} of blocks of {block_size} keys, one for each {granularity}");
            text += &format!("{what}; {mean_block_count:.1} blocks in a list\n");
        }
        if let Some(CapturedMass { summary: MassSummary { mean, min, .. }, .. }) = &mass {
            text += &format!("captured mass: mean {mean:.5}, min {min:.5}\n");
        }
        files::tell(&text)?;
        if let Some(path) = &args.json {
            let summary = Summary {
                engine: engine.describe(),
                dtype: T::DTYPE.to_string(),
                attention: args.attention.name(),
                mask: mask.to_string(),
                softmax_scale: problem.softmax_scale(),
                score_mods: problem.score_mods().iter().map(ToString::to_string).collect(),
                out,
                seconds,
                sparse: summary,
                captured_mass: mass.map(|mass| mass.summary),
            };
            files::write_json(path, &summary)?;
        }
        Ok(())
    }

    /// The work that the options ask for, once its sizes are known to fit.
    fn wanted(&self, problem: &AttentionProblem) -> Result<Wanted, Failure> {
        let (shape, refused) = (*problem.shape(), self.refused());
        if let Some(selector) = self.args.selector(self.mask)? {
            if let Some(modifier) = problem.score_mods().iter().find(|modifier| !modifier.keeps_order()) {
                let message =
                    format!("{modifier}: selections score q·k as it is, and would miss the keys that it raises");
                return Err(Failure::Usage(message));
            }
            let problem = selector.problem(shape, problem.dtype(), problem.softmax_scale());
            problem.validate().map_err(refused)?;
            let selection = problem.blocks();
            let entries = selection.num_lists(&shape).saturating_mul(selection.max_blocks.into());
            self.input.check_memory(problem.dtype(), entries)?;
            return Ok(Wanted::Selected(problem));
        }
        if self.args.attention != AttentionArg::Blocks {
            self.input.check_memory(problem.dtype(), 0)?;
            return Ok(Wanted::Dense);
        }
        let selection = self.args.listed_blocks(self.input.max_blocks()?)?;
        selection.validate(&shape, self.mask).map_err(refused)?;
        self.input.check_memory(problem.dtype(), self.input.list_entries()?)?;
        Ok(Wanted::Listed(selection))
    }
}

impl Sparse {
    fn summary(&self) -> SparseSummary {
        let counts = self.blocks.block_counts();
        let blocks: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        SparseSummary {
            granularity: self.selection.granularity.to_string(),
            block_size_q: self.selection.block_size_q,
            block_size: self.selection.block_size,
            sink_size: self.selection.sink_size,
            window_size: self.selection.window_size,
            dense_below: self.selection.dense_below,
            block_indices: self.blocks.shape(),
            mean_block_count: blocks as f64 / counts.len().max(1) as f64,
            selection_scale: self.problem.as_ref().map(SelectionProblem::selection_scale),
            selection_seconds: self.seconds,
        }
    }
}

/// The share of the weight of dense attention that each row of sparse attention saw.
struct CapturedMass {
    /// `[batch, seq_len_q, num_q_heads]`; 1 in rows that see no key.
    rows: Vec<f32>,
    summary: MassSummary,
}

impl CapturedMass {
    fn new<T: Element>(
        engine: &Engine,
        problem: &AttentionProblem,
        inputs: &HostInputs<'_, T>,
        sparse: &AttentionOutput,
    ) -> Result<Self, Failure> {
        let start = Instant::now();
        let dense = engine.inner.attend(problem, inputs).wait()?;
        let dense_seconds = start.elapsed().as_secs_f64();
        let mass = |(sparse, dense): (&f32, &f32)| (sparse - dense).exp();
        let rows: Vec<f32> = sparse.lse.data().iter().zip(dense.lse.data()).map(mass).collect();
        let seen = || rows.iter().zip(dense.lse.data()).filter(|(_, dense)| **dense > LSE_EMPTY);
        let sum: f64 = seen().map(|(&mass, _)| f64::from(mass)).sum();
        let min = seen().map(|(&mass, _)| f64::from(mass)).fold(1.0, f64::min);
        let mean = if seen().next().is_none() { 1.0 } else { sum / seen().count() as f64 };
        Ok(Self { rows, summary: MassSummary { mean, min, dense_seconds } })
    }
}

fn encode(
    output: &AttentionOutput,
    sparse: Option<&Sparse>,
    mass: Option<&CapturedMass>,
) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let floats = |data: &[f32]| data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    // First keys and counts are below 2^31, and `PADDING` is -1.
    const { assert!(PADDING.cast_signed() == -1) };
    let integers = |data: &[u32]| data.iter().flat_map(|n| n.cast_signed().to_le_bytes()).collect::<Vec<u8>>();
    let axes = |shape: [u32; 4]| shape.map(|axis| axis as usize).to_vec();
    let data = |tensor: &HostTensor| floats(tensor.data());
    let rows = axes(output.out.shape())[..3].to_vec();
    let mut tensors = vec![
        ("lse", Dtype::F32, rows.clone(), data(&output.lse)),
        ("out", Dtype::F32, axes(output.out.shape()), data(&output.out)),
    ];
    // Callers who gave lists have them already.
    if let Some(Sparse { blocks, problem: Some(_), .. }) = sparse {
        let shape = axes(blocks.shape());
        tensors.push(("block_counts", Dtype::I32, shape[..3].to_vec(), integers(blocks.block_counts())));
        tensors.push(("block_indices", Dtype::I32, shape, integers(blocks.block_indices())));
    }
    if let Some(mass) = mass {
        tensors.push(("captured_mass", Dtype::F32, rows, floats(&mass.rows)));
    }
    let views =
        tensors.iter().map(|(name, dtype, shape, data)| Ok((*name, TensorView::new(*dtype, shape.clone(), data)?)));
    serialize(views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?, None)
}
