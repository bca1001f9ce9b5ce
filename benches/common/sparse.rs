//! Selection and block-sparse attention, ready to run on each device.

use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, SamplingMode, measurement::WallTime};
use wattn::{
    AttentionOutput, AttentionProblem, AttentionShape, Context, DType, DeviceCaps, HostBlocks, HostInputs, Mask,
    SelectionMethod, SelectionProblem, cpu,
};

use super::{Tensors, check_rows};

/// Causal attention of one sequence in f32, and the selection that takes most of it away.
#[derive(Clone)]
pub struct SparseCase {
    pub name: String,
    pub selection: SelectionProblem,
}

impl SparseCase {
    /// Heads of queries and of keys, queries, keys. Heads are 128 wide.
    pub fn new(
        name: &str,
        [num_q_heads, num_kv_heads, seq_len_q, seq_len_kv]: [u32; 4],
        method: impl Into<SelectionMethod>,
    ) -> Self {
        let (batch_size, head_dim, head_dim_v) = (1, 128, 128);
        let shape =
            AttentionShape { batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim, head_dim_v };
        Self {
            name: format!("{name} {num_q_heads}/{num_kv_heads} heads, {seq_len_q}x{seq_len_kv}"),
            selection: SelectionProblem::new(shape, DType::F32, method),
        }
    }

    pub fn dense(&self) -> AttentionProblem {
        AttentionProblem::new(*self.selection.shape(), DType::F32).mask(Mask::Causal).with_lse()
    }

    pub fn sparse(&self) -> AttentionProblem {
        self.dense().selected_blocks(self.selection.blocks())
    }

    /// Narrower heads, where k would not fit into one binding of the device; says so.
    pub fn fitted(&self, caps: &DeviceCaps) -> Self {
        let mut shape = *self.selection.shape();
        let bytes = |width: u32| u64::from(shape.num_kv_heads * shape.seq_len_kv) * u64::from(width) * 4;
        let mut width = shape.head_dim;
        while width > 4 && bytes(width) > caps.max_storage_binding_bytes.min(caps.max_buffer_bytes) {
            width /= 2;
        }
        if width == shape.head_dim {
            return self.clone();
        }
        println!("{}: heads {width} wide instead of {}: k must fit into one binding", self.name, shape.head_dim);
        (shape.head_dim, shape.head_dim_v) = (width, width);
        let selection = SelectionProblem::new(shape, DType::F32, self.selection.method().clone())
            .granularity(self.selection.blocks().granularity);
        Self { name: format!("{} d{width}", self.name), selection }
    }
}

/// Calls on one device, with everything prepared that can be; each returns the time from its start to its completion.
pub struct Runs<'a> {
    /// The device.
    pub device: String,
    /// The case as this device computes it.
    pub case: SparseCase,
    /// Dense attention.
    pub dense: Box<dyn FnMut() -> Duration + 'a>,
    /// What a step of decoding selects; step 0 selects everything.
    pub select: Box<dyn FnMut(u64) -> Duration + 'a>,
    /// Attention to what was selected last.
    pub attend: Box<dyn FnMut() -> Duration + 'a>,
    /// Both, one after the other.
    pub both: Box<dyn FnMut(u64) -> Duration + 'a>,
    /// Results of the three, after each ran once with step 0: dense, the lists, sparse.
    pub results: Box<dyn FnMut() -> (AttentionOutput, HostBlocks, AttentionOutput) + 'a>,
}

impl<'a> Runs<'a> {
    /// The calls on the CPU path.
    pub fn on_cpu(case: &SparseCase, inputs: HostInputs<'a>) -> Self {
        use std::{cell::RefCell, rc::Rc};
        let (dense, selection, sparse) = (case.dense(), case.selection.clone(), case.sparse());
        let attend_dense = move || cpu::attend(&dense, &inputs).expect("the problem is valid");
        let attend_sparse =
            move |blocks: &HostBlocks| cpu::attend_selected(&sparse, &inputs, blocks).expect("the lists are valid");
        // What was selected last, and what its stages keep for the next steps.
        let mut cache = cpu::StageCache::default();
        let mut select_from = move |first_stage| {
            cpu::select_from(&selection, &inputs.for_selection(), first_stage, &mut cache)
                .expect("the problem is valid")
        };
        let blocks = Rc::new(RefCell::new(select_from(0)));
        let (of_steps, selected) = (case.selection.clone(), Rc::clone(&blocks));
        let select = Rc::new(RefCell::new(move |step| {
            timed(|| {
                if let Some(stage) = of_steps.first_stage(step) {
                    *selected.borrow_mut() = select_from(stage);
                }
            })
        }));
        let (attend, attended) = (attend_sparse.clone(), Rc::clone(&blocks));
        let attend = Rc::new(move || timed(|| drop(std::hint::black_box(attend(&attended.borrow())))));
        let (first, then, again) = (Rc::clone(&select), Rc::clone(&attend), attend_dense.clone());
        Self {
            device: "cpu".to_owned(),
            case: case.clone(),
            dense: Box::new(move || timed(|| drop(std::hint::black_box(attend_dense())))),
            select: Box::new(move |step| (select.borrow_mut())(step)),
            attend: Box::new(move || attend()),
            both: Box::new(move |step| (first.borrow_mut())(step) + then()),
            results: Box::new(move || {
                let blocks = blocks.borrow().clone();
                let sparse = attend_sparse(&blocks);
                (again(), blocks, sparse)
            }),
        }
    }

    /// First, middle and last query of the first and last head, of both kinds of attention, against the f64 oracle; and
    /// the lists against their rules.
    pub fn check(&mut self, inputs: &HostInputs<'_>) {
        let (dense, blocks, sparse) = (self.results)();
        let (case, shape) = (&self.case, self.case.selection.shape());
        blocks.validate(&case.selection.blocks(), shape, None).expect("the selection keeps to the rules");
        let (dense_problem, problem) = (case.dense(), case.sparse());
        check_rows(shape, &dense, |q_index, q_head| {
            cpu::oracle::attend_row(&dense_problem, inputs, 0, q_index, q_head)
        });
        check_rows(shape, &sparse, |q_index, q_head| {
            cpu::oracle::attend_selected_row(&problem, inputs, &blocks, 0, q_index, q_head)
        });
    }
}

fn timed(run: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    run();
    begin.elapsed()
}

/// Calls `then` with the runs on the CPU, then on each context.
pub fn on_each_device(case: &SparseCase, contexts: &[Context], mut then: impl FnMut(Runs<'_>, &HostInputs<'_>)) {
    let tensors = Tensors::random(case.selection.shape());
    then(Runs::on_cpu(case, tensors.inputs()), &tensors.inputs());
    for ctx in contexts {
        let fitted = case.fitted(ctx.caps());
        let narrower = (fitted.name != case.name).then(|| Tensors::random(fitted.selection.shape()));
        let inputs = narrower.as_ref().unwrap_or(&tensors).inputs();
        then(Runs::on_gpu(ctx, &fitted, &inputs), &inputs);
    }
}

/// Benchmarks one call and returns its fastest sample in seconds, to which nothing else on the machine added; `None` when
/// the filter leaves it out.
pub fn time(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut run: impl FnMut() -> Duration) -> Option<f64> {
    let mut samples = Vec::new();
    group.bench_function(name, |bencher| {
        bencher.iter_custom(|runs| {
            let total: Duration = (0..runs).map(|_| run()).sum();
            samples.push(total.as_secs_f64() / runs as f64);
            total
        });
    });
    samples.into_iter().reduce(f64::min)
}

/// Seconds of each of `N` parts in its fastest round, to which nothing else on the machine added. Every round runs all
/// parts, so that none has the machine's slow phases to itself; short ones are repeated within a round.
pub fn interleaved<const N: usize>(mut run: impl FnMut(usize) -> Duration) -> [f64; N] {
    let (least_rounds, most_rounds, least_time) = (5, 30, Duration::from_secs(3));
    let least_part = Duration::from_millis(10);
    let repeats: [u32; N] = core::array::from_fn(|part| {
        run(part); // the first time may allocate
        (least_part.as_secs_f64() / run(part).as_secs_f64()).ceil().clamp(1.0, 1000.0) as u32
    });
    let (mut fastest, begin) = ([f64::INFINITY; N], Instant::now());
    for round in 0..most_rounds {
        if round >= least_rounds && begin.elapsed() >= least_time {
            break;
        }
        for (part, (fastest, repeats)) in fastest.iter_mut().zip(repeats).enumerate() {
            let total: Duration = (0..repeats).map(|_| run(part)).sum();
            *fastest = fastest.min(total.as_secs_f64() / f64::from(repeats));
        }
    }
    fastest
}

/// Settings for calls that take from microseconds to seconds.
pub fn settings(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
}

/// The exponent `e` of `time ~ length^e`, by least squares of the logarithms.
pub fn exponent(points: &[(f64, f64)]) -> f64 {
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (mean_x, mean_y) = (mean(|(x, _)| x.ln()), mean(|(_, y)| y.ln()));
    let covariance: f64 = points.iter().map(|(x, y)| (x.ln() - mean_x) * (y.ln() - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x.ln() - mean_x).powi(2)).sum();
    covariance / variance
}
