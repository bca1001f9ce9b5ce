//! Attention in Burn on wgpu, for comparison: causal, one sequence. See `benches/peers/burn_ratio.py`, which runs it.
//!
//! `burn_attention KERNEL DTYPE RUNS CASE...` prints one JSON object: the adapter, and for each case `heads x query x keys x width` the
//! best and the median time. The query rows are the last of the keys: as many as keys, or one. A few rows are compared with f64 before
//! anything is timed. Kernels:
//!
//! - `attention`: what Burn's own `attention` takes; with its autotuning, the fastest of the others that it finds.
//! - `unit`: one kernel, without matrix units.
//! - `matrix`: one kernel, with matrix units.
//! - `separate`: a product, a softmax and a product, with the scores in memory.

use std::time::Instant;

use burn::tensor::module::{attention, attention_fallback};
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, DeviceKind, Tensor, TensorData};
use burn_backend::ops::FloatTensorOps;
use burn_cubecl::cubecl::future::block_on;
use burn_cubecl::cubecl::wgpu::{WgpuDevice, WgpuDeviceKind};
use burn_cubecl::kernel::attention::flash_attention;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cubek::attention::forward::launch::{BlueprintStrategy, Strategy};
use cubek::attention::forward::routines::blackbox_accelerated::BlackboxAcceleratedStrategy;
use serde_json::json;

type Failure = Box<dyn std::error::Error>;

/// A sample lasts this long, of as many calls as that takes: the wait at its end should not count.
const SAMPLE_SECONDS: f64 = 0.02;

/// One sequence.
#[derive(Clone, Copy, Debug)]
struct Case {
    heads: usize,
    query: usize,
    keys: usize,
    width: usize,
}

impl Case {
    fn parse(text: &str) -> Result<Self, Failure> {
        let numbers = text.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
        match numbers[..] {
            [heads, query, keys, width] if query == keys || query == 1 => Ok(Self { heads, query, keys, width }),
            _ => Err(format!("{text} is not heads x query x keys x width with as many queries as keys, or one").into()),
        }
    }

    /// A single last row sees all keys, which Burn's causal mask would hide from it.
    fn options(self) -> AttentionModuleOptions {
        AttentionModuleOptions { is_causal: self.query > 1, ..Default::default() }
    }
}

/// Queries, keys and values on the host, rounded to the type that is measured, and their values.
struct Inputs {
    data: [TensorData; 3],
    values: [Vec<f32>; 3],
}

impl Inputs {
    fn new(case: Case, dtype: DType) -> Result<Self, Failure> {
        let mut state = 1_u32;
        let mut tensor = |rows: usize| {
            // xorshift; the upper 24 bits are a number in [-1, 1).
            let values = (0..case.heads * rows * case.width).map(|_| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            });
            TensorData::new(values.collect(), [1, case.heads, rows, case.width]).convert_dtype(dtype)
        };
        let data = [tensor(case.query), tensor(case.keys), tensor(case.keys)];
        let [q, k, v] = &data;
        let values = [host(q.clone())?, host(k.clone())?, host(v.clone())?];
        Ok(Self { data, values })
    }

    /// The largest error of the first, the middle and the last row of every head.
    fn error(&self, case: Case, out: &[f32]) -> f64 {
        let Case { heads, query, keys, width } = case;
        let [q, k, v] = &self.values;
        let row =
            |tensor: &[f32], at: usize| tensor[at * width..][..width].iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let mut worst = 0.0_f64;
        for (head, q_row) in (0..heads).flat_map(|head| [0, query / 2, query - 1].map(|q_row| (head, q_row))) {
            let q_values = row(q, head * query + q_row);
            let seen = keys - query + q_row + 1;
            let score = |key| {
                let products = row(k, head * keys + key).into_iter().zip(&q_values).map(|(k, q)| k * q);
                products.sum::<f64>() / (width as f64).sqrt()
            };
            let scores: Vec<f64> = (0..seen).map(score).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let sum: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            let mut expected = vec![0.0; width];
            for (key, score) in scores.iter().enumerate() {
                let weight = (score - max).exp() / sum;
                expected.iter_mut().zip(row(v, head * keys + key)).for_each(|(out, v)| *out += weight * v);
            }
            for (out, expected) in row(out, head * query + q_row).into_iter().zip(expected) {
                // Not `max` alone, which drops NaN.
                let error = (out - expected).abs();
                worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
            }
        }
        worst
    }
}

fn host(data: TensorData) -> Result<Vec<f32>, Failure> {
    Ok(data.convert_dtype(DType::F32).as_slice::<f32>().map_err(|error| format!("{error:?}"))?.to_vec())
}

/// The adapter, as Burn names its device and as the layers below do.
struct Adapter {
    device: Device,
    below: CubeDevice,
}

impl Adapter {
    fn wait(&self) -> Result<(), Failure> {
        self.device.sync().map_err(|error| format!("{error:?}").into())
    }
}

/// What a case gave.
struct Measured {
    /// Seconds of the first call: compiling, and with autotuning the trials, belong to it.
    first: f64,
    /// Seconds of one call, by sample, ascending.
    seconds: Vec<f64>,
    /// The largest.
    error: f64,
}

/// A call of one kernel, which leaves its result on the device; and how to read that.
struct Call<'a, T> {
    run: Box<dyn Fn() -> Result<T, Failure> + 'a>,
    read: fn(T) -> Result<TensorData, Failure>,
}

impl<T> Call<'_, T> {
    fn measure(&self, case: Case, inputs: &Inputs, adapter: &Adapter, runs: usize) -> Result<Measured, Failure> {
        adapter.wait()?;
        let start = Instant::now();
        let out = host((self.read)((self.run)()?)?)?;
        let first = start.elapsed().as_secs_f64();
        let error = inputs.error(case, &out);
        // Values are about 1: this catches a wrong mask, and f16 holds three digits.
        if error >= 1e-2 {
            return Err(format!("wrong result: off by {error:.1e}").into());
        }
        let sample = |calls: usize| -> Result<f64, Failure> {
            adapter.wait()?;
            let start = Instant::now();
            for _ in 0..calls {
                (self.run)()?;
            }
            adapter.wait()?;
            Ok(start.elapsed().as_secs_f64() / calls as f64)
        };
        let calls = (SAMPLE_SECONDS / sample(1)?).ceil() as usize;
        let mut seconds = (0..runs).map(|_| sample(calls)).collect::<Result<Vec<_>, _>>()?;
        seconds.sort_by(f64::total_cmp);
        Ok(Measured { first, seconds, error })
    }
}

/// A call through Burn's tensors.
fn whole<'a>(call: impl Fn([Tensor<4>; 3]) -> Tensor<4> + 'a, inputs: &Inputs, device: &Device) -> Call<'a, Tensor<4>> {
    let tensors = inputs.data.clone().map(|data| {
        let dtype = data.dtype();
        Tensor::from_data(data, (device, dtype))
    });
    Call { run: Box::new(move || Ok(call(tensors.clone()))), read: |out| Ok(out.into_data()) }
}

/// A call of one kernel below, so that none other can take its place.
fn single<'a>(strategy: Strategy, case: Case, inputs: &Inputs, device: &CubeDevice) -> Call<'a, CubeTensor> {
    let tensors = inputs.data.clone().map(|data| CubeBackend::float_from_data(data, device));
    let run = move || {
        let [q, k, v] = tensors.clone();
        flash_attention(q, k, v, None, None, case.options(), strategy.clone())
            .map_err(|error| format!("{error:?}").into())
    };
    Call {
        run: Box::new(run),
        read: |out| block_on(CubeBackend::float_into_data(out)).map_err(|error| format!("{error:?}").into()),
    }
}

fn measure(kernel: &str, case: Case, dtype: DType, runs: usize, adapter: &Adapter) -> Result<Measured, Failure> {
    let inputs = Inputs::new(case, dtype)?;
    let options = case.options();
    match kernel {
        "attention" => whole(|[q, k, v]| attention(q, k, v, None, None, options), &inputs, &adapter.device)
            .measure(case, &inputs, adapter, runs),
        "separate" => whole(|[q, k, v]| attention_fallback(q, k, v, None, None, options), &inputs, &adapter.device)
            .measure(case, &inputs, adapter, runs),
        "unit" => single(Strategy::Unit(BlueprintStrategy::Inferred(())), case, &inputs, &adapter.below)
            .measure(case, &inputs, adapter, runs),
        "matrix" => {
            // The largest of those that Burn's autotuning tries.
            let shape = BlackboxAcceleratedStrategy { num_planes: 8, seq_q: 1, seq_kv: 1 };
            single(Strategy::BlackboxAccelerated(BlueprintStrategy::Inferred(shape)), case, &inputs, &adapter.below)
                .measure(case, &inputs, adapter, runs)
        }
        _ => Err(format!("{kernel} is none of attention, unit, matrix, separate").into()),
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kernel, dtype, runs, cases @ ..] = arguments.as_slice() else {
        return Err("usage: burn_attention KERNEL f32|f16 RUNS CASE...".into());
    };
    let element = match dtype.as_str() {
        "f32" => DType::F32,
        "f16" => DType::F16,
        _ => return Err(format!("{dtype} is neither f32 nor f16").into()),
    };
    let below = CubeDevice::Wgpu(WgpuDevice::new(WgpuDeviceKind::DefaultDevice));
    let adapter = Adapter { device: Device::wgpu(DeviceKind::DefaultDevice), below };
    let client = adapter.below.client();
    let mut results = Vec::new();
    for text in cases {
        let case = Case::parse(text)?;
        let Measured { first, seconds, error } = measure(kernel, case, element, runs.parse()?, &adapter)?;
        let best = seconds[0];
        let Case { heads, query, keys, width } = case;
        // Half the square, whatever was computed.
        let flop = 4.0 * (heads * query * keys / 2 * width) as f64;
        results.push(json!({
            "heads": heads, "query": query, "keys": keys, "width": width, "kernel": kernel, "dtype": dtype,
            "first": first, "seconds": best, "median": seconds[seconds.len() / 2], "gflops": flop / best / 1e9, "error": error,
        }));
    }
    let name = &client.properties().identity.name;
    println!("{}", json!({ "adapter": name, "runtime": client.name(), "results": results }));
    Ok(())
}
