//! What the benches share: problems, inputs, a check against the oracle before anything is timed, and the devices.

#![allow(dead_code, unreachable_pub, reason = "each bench uses its own part")]

pub mod sparse;
mod sparse_gpu;

use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Throughput, measurement::WallTime};
use wattn::{
    Attention, AttentionArgs, AttentionOutput, AttentionPlan, AttentionProblem, AttentionShape, BoundAttention,
    Context, ContextOptions, DType, HostInputs, HostTensor, Layout, Mask, TensorView, TensorViewMut, cpu,
};
use wgpu::util::DeviceExt as _;

/// (heads, query rows, keys, width): causal, f32, one sequence, as many KV heads as query heads.
#[derive(Clone, Copy, Debug)]
pub struct Case(pub u32, pub u32, pub u32, pub u32);

impl Case {
    pub fn name(self) -> String {
        let Self(heads, query, keys, width) = self;
        format!("{heads}x{query}x{keys}x{width}")
    }

    pub fn problem(self) -> AttentionProblem {
        let Self(heads, seq_len_q, seq_len_kv, width) = self;
        let (num_q_heads, num_kv_heads) = (heads, heads);
        let (head_dim, head_dim_v) = (width, width);
        let shape =
            AttentionShape { batch_size: 1, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v };
        AttentionProblem::new(shape, DType::F32).mask(Mask::Causal).with_lse()
    }

    /// Operations of half the square, whatever is computed: criterion's "elem/s" are FLOP/s.
    pub fn throughput(self) -> Throughput {
        let Self(heads, query, keys, width) = self;
        Throughput::Elements(4 * u64::from(heads) * (u64::from(query) * u64::from(keys) / 2) * u64::from(width))
    }
}

/// q, k and v, uniform in [-1, 1), from a linear congruential generator.
pub struct Tensors([HostTensor; 3]);

impl Tensors {
    pub fn random(shape: &AttentionShape) -> Self {
        Self([(shape.q(), 1), (shape.k(), 2), (shape.v(), 3)].map(|(shape, seed)| {
            let mut state: u64 = seed;
            let mut tensor = HostTensor::zeros(shape);
            for x in tensor.data_mut() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *x = (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
            }
            tensor
        }))
    }

    pub fn inputs(&self) -> HostInputs<'_> {
        let [q, k, v] = &self.0;
        HostInputs { q, k, v, seq_lens_kv: None }
    }
}

/// First, middle and last query of the first and last head against the f64 oracle.
pub fn check(problem: &AttentionProblem, inputs: &HostInputs<'_>, got: &AttentionOutput) {
    check_rows(problem.shape(), got, |q_index, q_head| cpu::oracle::attend_row(problem, inputs, 0, q_index, q_head));
}

/// First, middle and last query of the first and last head against `(out, lse)` in f64.
pub fn check_rows(shape: &AttentionShape, got: &AttentionOutput, oracle: impl Fn(u32, u32) -> (Vec<f64>, f64)) {
    for q_index in [0, shape.seq_len_q / 2, shape.seq_len_q - 1] {
        for q_head in [0, shape.num_q_heads - 1] {
            let (row, lse) = oracle(q_index, q_head);
            let out = got.out.row(0, q_index as usize, q_head as usize);
            let got_lse = got.lse.row(0, q_index as usize, q_head as usize)[0];
            // Ten times the error that was seen; |out| is at most 1 and lse about 10. The tests hold the exact bound.
            let worst = out.iter().zip(&row).map(|(x, y)| (f64::from(*x) - y).abs()).fold(0.0, f64::max);
            let worst_lse = (f64::from(got_lse) - lse).abs();
            assert!(
                worst < 5e-6 && worst_lse < 5e-6,
                "query {q_index} head {q_head}: out {worst:e}, lse {worst_lse:e}"
            );
        }
    }
}

/// Times the CPU path.
pub fn bench_cpu(group: &mut BenchmarkGroup<'_, WallTime>, case: Case) {
    let problem = case.problem();
    let tensors = Tensors::random(problem.shape());
    let inputs = tensors.inputs();
    check(&problem, &inputs, &cpu::attend(&problem, &inputs).expect("the problem is valid"));
    group.throughput(case.throughput());
    group.bench_function(format!("cpu/{}", case.name()), |bencher| {
        bencher.iter(|| cpu::attend(std::hint::black_box(&problem), std::hint::black_box(&inputs)));
    });
}

/// Every adapter, software ones too, or those that `WATTN_TEST_ADAPTER` names.
pub fn contexts() -> Vec<Context> {
    let wanted = std::env::var("WATTN_TEST_ADAPTER").unwrap_or_default().to_lowercase();
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    let adapters = pollster::block_on(wattn::adapters(&instance));
    let mut names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    names.retain(|name| name.to_lowercase().contains(&wanted));
    names.dedup();
    let open = |name: &String| Context::request_blocking(&ContextOptions::default().adapter_name(name));
    names.iter().map(|name| open(name).expect("the adapter was there")).collect()
}

/// A short name for the benchmark's path: the adapter's first word.
pub fn device_name(ctx: &Context) -> String {
    let name = ctx.device().adapter_info().name.to_lowercase();
    name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or("gpu").to_owned()
}

/// Attention with its buffers on a device.
pub struct OnDevice {
    pub bound: BoundAttention,
    ctx: Context,
    out: wgpu::Buffer,
    lse: wgpu::Buffer,
    problem: AttentionProblem,
}

impl OnDevice {
    pub fn new(ctx: &Context, plan: &AttentionPlan, inputs: &HostInputs<'_>) -> Self {
        let problem = plan.problem().clone();
        let shape = problem.shape();
        let upload = |tensor: &HostTensor| {
            let contents = bytemuck::cast_slice(tensor.data());
            let usage = wgpu::BufferUsages::STORAGE;
            ctx.device().create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
        };
        let output = |elements: usize| {
            let (size, usage) = (elements as u64 * 4, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC);
            ctx.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let (q, k, v) = (upload(inputs.q), upload(&heads_outermost(inputs.k)), upload(&heads_outermost(inputs.v)));
        let rows = shape.seq_len_q as usize * shape.num_q_heads as usize;
        let (out, lse) = (output(rows * shape.head_dim_v as usize), output(rows));
        let attention = Attention::prepare(ctx, plan).expect("the plan was made for this device");
        let args = AttentionArgs {
            q: TensorView::new(&q, DType::F32, seq_major(shape.q())),
            k: TensorView::new(&k, DType::F32, head_major(shape.k())),
            v: TensorView::new(&v, DType::F32, head_major(shape.v())),
            seq_lens_kv: None,
            blocks: None,
            out: TensorViewMut::new(&out, DType::F32, seq_major(shape.out())),
            lse: Some(TensorViewMut::new(&lse, DType::F32, seq_major(shape.lse()))),
        };
        let bound = attention.bind(args).expect("the buffers fit the plan");
        Self { bound, ctx: ctx.clone(), out, lse, problem }
    }

    /// Runs once and waits.
    pub fn run(&self) -> Duration {
        let begin = Instant::now();
        let mut encoder = self.ctx.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.bound.encode(&mut encoder);
        self.ctx.queue().submit([encoder.finish()]);
        self.ctx.device().poll(wgpu::PollType::wait_indefinitely()).expect("the device works");
        begin.elapsed()
    }

    pub fn read(&self) -> AttentionOutput {
        let shape = self.problem.shape();
        let read = |buffer, shape| {
            let view = TensorView::new(buffer, DType::F32, seq_major(shape));
            self.ctx.read_blocking(view).expect("the buffer can be read")
        };
        AttentionOutput { out: read(&self.out, shape.out()), lse: read(&self.lse, shape.lse()) }
    }
}

/// The same tensor as KV caches hold it, in ours and in ONNX Runtime: `[batch, head, seq, dim]` in memory.
fn heads_outermost(tensor: &HostTensor) -> HostTensor {
    let [batch, seq, heads, _] = tensor.shape();
    let rows = (0..batch as usize)
        .flat_map(|b| (0..heads as usize).flat_map(move |h| (0..seq as usize).flat_map(move |s| tensor.row(b, s, h))));
    HostTensor::new(tensor.shape(), rows.copied().collect()).expect("as many elements as before")
}

fn head_major([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::head_major(batch, seq, heads, dim)
}

fn seq_major([batch, seq, heads, dim]: [u32; 4]) -> Layout {
    Layout::seq_major(batch, seq, heads, dim)
}

/// Times the best f32 tier of a device, from encoding to completion. Prints the plan.
pub fn bench_gpu(group: &mut BenchmarkGroup<'_, WallTime>, ctx: &Context, case: Case) {
    let problem = case.problem();
    let plan = AttentionPlan::new(&problem, ctx.caps()).expect("the problem fits the device");
    println!("{}\n{plan}", ctx.describe());
    let tensors = Tensors::random(problem.shape());
    let on_device = OnDevice::new(ctx, &plan, &tensors.inputs());
    on_device.run();
    check(&problem, &tensors.inputs(), &on_device.read());
    group.throughput(case.throughput());
    group.bench_function(format!("{}/{}", device_name(ctx), case.name()), |bencher| {
        bencher.iter_custom(|runs| (0..runs).map(|_| on_device.run()).sum());
    });
}
