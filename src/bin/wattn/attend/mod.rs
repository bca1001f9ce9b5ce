//! `wattn attend`: the operator on anybody's tensors, from safetensors to safetensors.

use std::path::Path;
use std::time::Instant;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::Serialize;
use wattn::{AttentionOutput, AttentionProblem, AttentionShape, DType, Element, HostInputs, HostTensor};

use crate::args::AttendArgs;
use crate::engine::Engine;
use crate::failure::Failure;
use crate::files;

/// For machines.
#[derive(Serialize)]
struct Summary {
    engine: String,
    dtype: String,
    mask: String,
    softmax_scale: f32,
    out: [u32; 4],
    seconds: f64,
}

pub(crate) fn run(args: &AttendArgs) -> Result<(), Failure> {
    let engine = Engine::open(&args.engine)?;
    for path in [Some(&args.output), args.json.as_ref()].into_iter().flatten() {
        files::check_destination(path)?;
    }
    let bytes = files::read_up_to(&args.input, u64::MAX)?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|error| Failure::content(&args.input, format!("not a safetensors file: {error}")))?;
    let input = Input::open(&args.input, &file)?;
    match args.dtype.map_or_else(|| input.common_dtype(), |dtype| Ok(dtype.into()))? {
        DType::F16 => attend::<f16>(args, &engine, &input),
        DType::BF16 => attend::<bf16>(args, &engine, &input),
        _ => attend::<f32>(args, &engine, &input),
    }
}

fn attend<T: Element>(args: &AttendArgs, engine: &Engine, input: &Input<'_>) -> Result<(), Failure> {
    let mask = args.mask.mask()?;
    let mut problem = AttentionProblem::new(input.shape, T::DTYPE).mask(mask).out_dtype(DType::F32);
    if let Some(scale) = args.softmax_scale {
        problem = problem.softmax_scale(scale);
    }
    let refused = |error: wattn::Error| Failure::content(input.path, error);
    problem.validate().map_err(refused)?;
    let (q, k, v) = (input.load::<T>(&input.q)?, input.load::<T>(&input.k)?, input.load::<T>(&input.v)?);
    let inputs = HostInputs { q: &q, k: &k, v: &v, seq_lens_kv: input.seq_lens_kv.as_deref() };
    inputs.validate(&problem).map_err(refused)?;
    input.check_memory()?;

    let start = Instant::now();
    let output = engine.attend(&problem, &inputs)?;
    let seconds = start.elapsed().as_secs_f64();
    let bytes = encode(&output).map_err(|error| Failure::content(&args.output, error))?;
    files::write_bytes(&args.output, &bytes)?;

    let out = output.out.shape();
    files::print(&format!(
        "{}: out {out:?}, lse {:?}, f32\n{mask} attention of {} inputs in {seconds:.3} s; {}\n",
        args.output.display(),
        &out[..3],
        T::DTYPE,
        engine.describe(),
    ))?;
    if let Some(path) = &args.json {
        let summary = Summary {
            engine: engine.describe(),
            dtype: T::DTYPE.to_string(),
            mask: mask.to_string(),
            softmax_scale: problem.scale(),
            out,
            seconds,
        };
        files::write_json(path, &summary)?;
    }
    Ok(())
}

/// The tensors of the file, before any number is read.
struct Input<'a> {
    path: &'a Path,
    q: TensorView<'a>,
    k: TensorView<'a>,
    v: TensorView<'a>,
    seq_lens_kv: Option<Vec<u32>>,
    /// From q, k and the last axis of v; whether the rest agrees is for the library to say.
    shape: AttentionShape,
}

impl<'a> Input<'a> {
    fn open(path: &'a Path, file: &SafeTensors<'a>) -> Result<Self, Failure> {
        let find = |name: &str| {
            let tensor = file.tensor(name).map_err(|_| Failure::content(path, format!("there is no tensor `{name}`")));
            tensor.and_then(|tensor| Ok((axes(path, name, tensor.shape())?, tensor)))
        };
        let ((q_shape, q), (k_shape, k), (v_shape, v)) = (find("q")?, find("k")?, find("v")?);
        for (name, tensor) in [("q", &q), ("k", &k), ("v", &v)] {
            if !matches!(tensor.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
                let reason = format!("`{name}` is {:?}, expected F32, F16 or BF16", tensor.dtype());
                return Err(Failure::content(path, reason));
            }
        }
        let [batch_size, seq_len_q, num_q_heads, head_dim] = q_shape;
        let [_, seq_len_kv, num_kv_heads, _] = k_shape;
        let shape = AttentionShape {
            batch_size,
            seq_len_q,
            seq_len_kv,
            num_q_heads,
            num_kv_heads,
            head_dim,
            head_dim_v: v_shape[3],
        };
        // Reading another layout of the same size as if it were ours would give numbers without meaning.
        for (tensor, actual, expected) in [("k", k_shape, shape.k()), ("v", v_shape, shape.v())] {
            if actual != expected {
                return Err(Failure::content(path, wattn::Error::Shape { tensor, expected, actual }));
            }
        }
        let seq_lens_kv = match file.tensor("seq_lens_kv") {
            Ok(tensor) => Some(lengths(path, &tensor)?),
            Err(_) => None,
        };
        Ok(Self { path, q, k, v, seq_lens_kv, shape })
    }

    fn common_dtype(&self) -> Result<DType, Failure> {
        let expected = self.q.dtype();
        for (name, tensor) in [("k", &self.k), ("v", &self.v)] {
            if tensor.dtype() != expected {
                let reason = format!("`{name}` is {:?}, `q` is {expected:?}; --dtype converts all", tensor.dtype());
                return Err(Failure::content(self.path, reason));
            }
        }
        Ok(match expected {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            _ => DType::F32,
        })
    }

    fn load<T: Element>(&self, tensor: &TensorView<'_>) -> Result<HostTensor<T>, Failure> {
        let bytes = tensor.data();
        // Through f32, which is exact for all three, so that equal types keep their bits.
        let data = match tensor.dtype() {
            Dtype::F16 => pairs(bytes).map(|pair| T::from_f32(f16::from_le_bytes(pair).to_f32())).collect(),
            Dtype::BF16 => pairs(bytes).map(|pair| T::from_f32(bf16::from_le_bytes(pair).to_f32())).collect(),
            _ => words(bytes).map(|word| T::from_f32(f32::from_le_bytes(word))).collect(),
        };
        HostTensor::new(axes(self.path, "tensor", tensor.shape())?, data)
            .map_err(|error| Failure::content(self.path, error))
    }

    /// A small file can ask for a large result (wide values, narrow queries): better an error than an abort.
    fn check_memory(&self) -> Result<(), Failure> {
        let len = self.shape.out().iter().try_fold(1usize, |n, &axis| n.checked_mul(axis as usize));
        let fits = len.is_some_and(|len| Vec::<f32>::new().try_reserve_exact(len).is_ok());
        fits.then_some(()).ok_or_else(|| Failure::content(self.path, "the result does not fit into memory"))
    }
}

fn axes(path: &Path, name: &str, shape: &[usize]) -> Result<[u32; 4], Failure> {
    let [batch, seq, heads, dim] = *shape else {
        let reason = format!("`{name}` has {} axes, expected [batch, seq, head, dim]", shape.len());
        return Err(Failure::content(path, reason));
    };
    let mut axes = [0; 4];
    for (to, from) in axes.iter_mut().zip([batch, seq, heads, dim]) {
        *to = u32::try_from(from)
            .map_err(|_| Failure::content(path, format!("`{name}` has shape {shape:?}, an axis must be below 2^32")))?;
    }
    Ok(axes)
}

fn lengths(path: &Path, tensor: &TensorView<'_>) -> Result<Vec<u32>, Failure> {
    let refuse = |reason: String| Err(Failure::content(path, format!("`seq_lens_kv` {reason}")));
    if tensor.shape().len() != 1 {
        return refuse(format!("has {} axes, expected [batch]", tensor.shape().len()));
    }
    match tensor.dtype() {
        Dtype::U32 => Ok(words(tensor.data()).map(u32::from_le_bytes).collect()),
        Dtype::I32 => {
            let signed = words(tensor.data()).map(i32::from_le_bytes);
            match signed.clone().find(|&len| len < 0) {
                Some(len) => refuse(format!("holds {len}, a length cannot be negative")),
                None => Ok(signed.map(i32::cast_unsigned).collect()),
            }
        }
        other => refuse(format!("is {other:?}, expected I32 or U32")),
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = [u8; 4]> + Clone {
    bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]])
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = [u8; 2]> + Clone {
    bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]])
}

fn encode(output: &AttentionOutput) -> Result<Vec<u8>, safetensors::SafeTensorError> {
    let bytes = |tensor: &HostTensor| tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let (out, lse) = (bytes(&output.out), bytes(&output.lse));
    let shape = output.out.shape().map(|axis| axis as usize);
    let tensors = [
        ("lse", TensorView::new(Dtype::F32, shape[..3].to_vec(), &lse)?),
        ("out", TensorView::new(Dtype::F32, shape.to_vec(), &out)?),
    ];
    serialize(tensors, None)
}
