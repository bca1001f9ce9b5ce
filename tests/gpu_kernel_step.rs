//! Kernels of somebody else's as steps of a selection, on every adapter, on the CPU and in the oracle, and each way to get them wrong.

mod common;

use common::gpu::contexts;
use half::f16;
use wattn::kernels::modules;
use wattn::{
    AttentionShape, Binding, BlockListSpec, BlockScoreProblem, BlockScoring, DType, DeviceCaps, Element, Engine, Error,
    Granularity, HostTensor, Kernel, KernelInputs, KernelStep, PoolProblem, Pooling, Reduction, SelectionInputs,
    SelectionPlan, SelectionProblem, Selector, SelectorStep, Specialization, TopKProblem,
};

const PAGE: u32 = 16;

/// The largest squared length of a key of each page, `[batch, page, head, 1]`: an invocation for each.
static NORMS: Kernel = Kernel::new(
    "key_norms",
    "
struct Call {
    batch_size: u32,
    seq_len_kv: u32,
    num_kv_heads: u32,
    k_offset: u32,
    k_batch: u32,
    k_seq: u32,
    k_head: u32,
    page: u32,
}
@group(0) @binding(CALL_BINDING)  var<uniform>             call: Call;
@group(0) @binding(K_BINDING)     var<storage, read>       k: array<Elem4>;
@group(0) @binding(NORMS_BINDING) var<storage, read_write> norms: array<f32>;

@compute @workgroup_size(32)
fn key_norms(@builtin(global_invocation_id) at: vec3<u32>) {
    let pages = (call.seq_len_kv + call.page - 1u) / call.page;
    if at.x >= call.batch_size * pages * call.num_kv_heads {
        return;
    }
    let head = at.x % call.num_kv_heads;
    let first = at.x / call.num_kv_heads % pages * call.page;
    let batch = at.x / call.num_kv_heads / pages;
    var most = 0.0;
    for (var key = first; key < min(first + call.page, call.seq_len_kv); key += 1u) {
        let row = call.k_offset + batch * call.k_batch + key * call.k_seq + head * call.k_head;
        var norm = 0.0;
        for (var d = 0u; d < HEAD_DIM4; d += 1u) {
            let x = widen(k[row + d]);
            norm += dot(x, x);
        }
        most = max(most, norm);
    }
    norms[at.x] = most;
}",
)
.binding(&[
    Binding::uniform(
        "call",
        &["batch_size", "seq_len_kv", "num_kv_heads", "k_offset", "k_batch", "k_seq", "k_head", "page"],
    ),
    Binding::read("k"),
    Binding::write("norms"),
]);

/// Scores of pages plus a bonus for long keys and for the first channel of their bounds.
static WEIGH: Kernel = Kernel::new(
    "weigh_pages",
    "
struct Call {
    num_scores: u32,
    num_q_heads: u32,
    num_kv_heads: u32,
    pages: u32,
    width: u32,
    bonus: f32,
}
@group(0) @binding(CALL_BINDING)    var<uniform>             call: Call;
@group(0) @binding(SCORES_BINDING)  var<storage, read>       scores: array<f32>;
@group(0) @binding(NORMS_BINDING)   var<storage, read>       norms: array<f32>;
@group(0) @binding(BOUNDS_BINDING)  var<storage, read>       bounds: array<f32>;
@group(0) @binding(WEIGHED_BINDING) var<storage, read_write> weighed: array<f32>;

@compute @workgroup_size(64)
fn weigh_pages(@builtin(global_invocation_id) at: vec3<u32>) {
    if at.x >= call.num_scores {
        return;
    }
    let row = at.x / call.pages;
    let head = row % call.num_q_heads / (call.num_q_heads / call.num_kv_heads);
    let page = (row / call.num_q_heads * call.pages + at.x % call.pages) * call.num_kv_heads + head;
    weighed[at.x] = scores[at.x] + call.bonus * norms[page] + bounds[page * call.width];
}",
)
.binding(&[
    Binding::uniform("call", &["num_scores", "num_q_heads", "num_kv_heads", "pages", "width", "bonus"]),
    Binding::read("scores"),
    Binding::read("norms"),
    Binding::read("bounds"),
    Binding::write("weighed"),
]);

fn norms_on_cpu(inputs: &KernelInputs<'_>) -> wattn::Result<HostTensor> {
    let [batch_size, pages, heads, _] = inputs.shape();
    let (page, len) = (inputs.u32("page")?, inputs.u32("seq_len_kv")?);
    let norm = |batch: u32, key: u32, head: u32| {
        inputs.k().row(batch as usize, key as usize, head as usize).iter().map(|x| x * x).sum::<f32>()
    };
    let mut norms = Vec::new();
    for (batch, at) in (0..batch_size).flat_map(|batch| (0..pages).map(move |at| (batch, at))) {
        for head in 0..heads {
            let keys = at * page..len.min((at + 1) * page);
            norms.push(keys.map(|key| norm(batch, key, head)).fold(0.0, f32::max));
        }
    }
    HostTensor::new(inputs.shape(), norms)
}

fn weigh_on_cpu(inputs: &KernelInputs<'_>) -> wattn::Result<HostTensor> {
    let [scores, norms, bounds] = [inputs.tensor("scores")?, inputs.tensor("norms")?, inputs.tensor("bounds")?];
    let [batch_size, sets, _, pages] = inputs.shape();
    let (group, bonus) = (inputs.u32("num_q_heads")? / inputs.u32("num_kv_heads")?, inputs.f32("bonus")?);
    let mut weighed = Vec::new();
    for (batch, set) in (0..batch_size as usize).flat_map(|batch| (0..sets as usize).map(move |set| (batch, set))) {
        for page in 0..pages as usize {
            let head = set / group as usize;
            let [norm, bound] = [norms, bounds].map(|of| of.row(batch, page, head)[0]);
            weighed.push(scores.row(batch, set, 0)[page] + bonus * norm + bound);
        }
    }
    HostTensor::new(inputs.shape(), weighed)
}

/// Quest for single queries, whose pages of long keys come first; `edit` makes it wrong.
#[derive(Clone, Debug)]
struct LongKeys {
    bonus: f32,
    edit: fn(&SelectionProblem, Vec<SelectorStep>) -> Vec<SelectorStep>,
}

impl PartialEq for LongKeys {
    fn eq(&self, other: &Self) -> bool {
        self.bonus == other.bonus && core::ptr::fn_addr_eq(self.edit, other.edit)
    }
}

fn norms_step(problem: &SelectionProblem) -> KernelStep {
    let shape = problem.shape();
    let elem = match problem.dtype() {
        DType::F32 => &modules::ELEM_F32,
        DType::F16 => &modules::ELEM_F16_PACKED,
        _ => &modules::ELEM_BF16,
    };
    let variant = Specialization::new(&NORMS).with_module(elem).with_constant("HEAD_DIM4", shape.head_dim / 4);
    let pages = shape.seq_len_kv.div_ceil(PAGE);
    let rows = shape.batch_size * pages * shape.num_kv_heads;
    let written = [shape.batch_size, pages, shape.num_kv_heads, 1];
    KernelStep::new(variant, [rows.div_ceil(32), 1, 1], written, norms_on_cpu).with_u32("page", PAGE)
}

fn weigh_step(scores: [u32; 4], width: u32, bonus: f32) -> KernelStep {
    let num_scores: u32 = scores.iter().product();
    KernelStep::new(Specialization::new(&WEIGH), [num_scores.div_ceil(64), 1, 1], scores, weigh_on_cpu)
        .with_u32("num_scores", num_scores)
        .with_u32("pages", scores[3])
        .with_u32("width", width)
        .with_f32("bonus", bonus)
}

impl Selector for LongKeys {
    fn name(&self) -> &str {
        "long keys"
    }

    fn lists(&self, _: &AttentionShape, granularity: Granularity) -> BlockListSpec {
        BlockListSpec::new(1, PAGE, 6).with_granularity(granularity)
    }

    fn steps(&self, problem: &SelectionProblem) -> Vec<SelectorStep> {
        let (shape, dtype) = (*problem.shape(), problem.dtype());
        let pool = PoolProblem::new(shape.k(), dtype, PAGE, Pooling::MinMax);
        let score = BlockScoreProblem::new(shape, dtype, PAGE, BlockScoring::Bound)
            .with_query_blocks(1, Reduction::Max)
            .with_mask(problem.mask());
        let weigh = weigh_step(score.scores_shape(), pool.summaries_shape()[3], self.bonus);
        let best = TopKProblem::new(score.scores_shape(), 6).with_block_size(PAGE).with_forced_last(1);
        let steps = vec![
            SelectorStep::pool(pool, "bounds"),
            SelectorStep::score(score, "bounds", "scores"),
            norms_step(problem).into(),
            weigh.into(),
            SelectorStep::top_k(best, "weighed"),
        ];
        (self.edit)(problem, steps)
    }
}

const fn long_keys(bonus: f32) -> LongKeys {
    LongKeys { bonus, edit: |_, steps| steps }
}

fn shape(batch_size: u32, seq_len_kv: u32) -> AttentionShape {
    let (seq_len_q, num_q_heads, num_kv_heads) = (1, 4, 2);
    AttentionShape { batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, head_dim: 32, head_dim_v: 32 }
}

/// Eighths, so that sums are exact.
fn painted<T: Element>(shape: [u32; 4], step: u64) -> HostTensor<T> {
    let number = |i: u64| T::from_f32(((i * step + i / 64 * 31) % 8209 % 17) as f32 / 8.0 - 1.0);
    HostTensor::new(shape, (0..shape.iter().map(|&n| u64::from(n)).product()).map(number).collect()).unwrap()
}

fn engines() -> Vec<Engine> {
    let gpus = contexts().iter().cloned().map(Engine::from);
    gpus.chain([Engine::cpu(), Engine::Oracle]).collect()
}

fn check<T: Element>(engine: &Engine, shape: AttentionShape) {
    let (q, k) = (painted::<T>(shape.q(), 7), painted::<T>(shape.k(), 11));
    let inputs = SelectionInputs::new(&q, &k);
    let select = |engine: &Engine, bonus| {
        engine.select(&SelectionProblem::new(shape, T::DTYPE, long_keys(bonus)), &inputs).wait().unwrap()
    };
    let [plain, long] = [0.0, 16.0].map(|bonus| select(&Engine::Oracle, bonus));
    assert_ne!(plain, long, "the bonus counts");
    for (bonus, expected) in [(0.0, plain), (16.0, long)] {
        assert_eq!(select(engine, bonus), expected, "{engine}: {bonus}, {}, {shape:?}", T::DTYPE);
    }
}

#[test]
fn kernels_of_ones_own_select_alike_everywhere() {
    for engine in engines() {
        check::<f32>(&engine, shape(1, 1000));
        check::<f32>(&engine, shape(3, 203));
        check::<f16>(&engine, shape(2, 500));
    }
}

#[test]
fn a_plan_has_their_dispatches() {
    let plan = |bonus| {
        let problem = SelectionProblem::new(shape(1, 1000), DType::F32, long_keys(bonus));
        SelectionPlan::new(&problem, &DeviceCaps::BASELINE).unwrap()
    };
    let one = plan(0.5);
    let kernels: Vec<&str> = one.dispatches().iter().map(|dispatch| dispatch.kernel().name()).collect();
    assert_eq!(kernels, ["pool_blocks", "score_blocks", "key_norms", "weigh_pages", "select_top_k"]);
    assert_eq!(one.dispatches()[2].workgroups, [(63u32 * 2).div_ceil(32), 1, 1]);
    assert!(one.to_string().contains("weigh_pages"), "{one}");
    // Bounds beside samples; scores and norms in scratch memory; what is made of all three in the third.
    assert!(one.cache_bytes() >= 4 * 4 * 63 && one.scratch_bytes() >= 4 * (4 * 63 + 2 * 63));
    assert!(one == plan(0.5) && one != plan(0.25), "a number of a step is part of the plan");
}

/// The message of a method with other steps, of each engine; they say the same.
fn told(edit: fn(&SelectionProblem, Vec<SelectorStep>) -> Vec<SelectorStep>, lens: Option<&[u32]>) -> Vec<Error> {
    let shape = shape(1, 1000);
    let (q, k) = (painted::<f32>(shape.q(), 7), painted::<f32>(shape.k(), 11));
    let problem = SelectionProblem::new(shape, DType::F32, LongKeys { bonus: 0.5, edit });
    let mut inputs = SelectionInputs::new(&q, &k);
    if let Some(lens) = lens {
        inputs = inputs.with_seq_lens_kv(lens);
    }
    engines().iter().map(|engine| engine.select(&problem, &inputs).wait().unwrap_err()).collect()
}

#[test]
fn steps_that_do_not_fit_are_named() {
    let swapped = told(
        |_, mut steps| {
            steps.swap(2, 3);
            steps
        },
        None,
    );
    assert!(swapped.iter().all(|error| matches!(error, Error::Slot { kernel: "weigh_pages", binding: "norms", .. })));
    let twice = told(
        |_, mut steps| {
            steps.insert(3, steps[2].clone());
            steps
        },
        None,
    );
    assert!(twice.iter().all(|error| error.to_string().contains("must write each tensor once")), "{twice:?}");
    let no_number = told(
        |problem, mut steps| {
            let step = norms_step(problem);
            steps[2] = KernelStep::new(Specialization::new(&NORMS), [1; 3], [1, 63, 2, 1], norms_on_cpu).into();
            assert_ne!(steps[2], step.into());
            steps
        },
        None,
    );
    assert!(no_number.iter().all(|error| matches!(error, Error::Slot { kernel: "key_norms", binding: "page", .. })));
    let lens = told(|_, steps| steps, Some(&[900]));
    assert!(lens.iter().all(|error| error.to_string().contains("without lengths")), "{lens:?}");
    let silent = told(|_, _| vec![own(&SILENT)], None);
    assert!(silent.iter().all(|error| error.to_string().contains("kernel `silent`")), "{silent:?}");
    let both = told(|_, _| vec![own(&BOTH)], None);
    assert!(both.iter().all(|error| matches!(error, Error::Slot { kernel: "both", binding: "b", .. })), "{both:?}");
    let input = told(|_, _| vec![own(&INPUT)], None);
    assert!(input.iter().all(|error| matches!(error, Error::Slot { kernel: "input", binding: "q", .. })), "{input:?}");
}

static SILENT: Kernel = Kernel::new("silent", "").binding(&[Binding::read("k")]);
static BOTH: Kernel = Kernel::new("both", "").binding(&[Binding::write("a"), Binding::write("b")]);
static INPUT: Kernel = Kernel::new("input", "").binding(&[Binding::write("q")]);
static EVERYTHING: Kernel = Kernel::new("everything", "").binding(&[
    Binding::read("bounds"),
    Binding::read("scores"),
    Binding::read("weighed"),
    Binding::write("more"),
]);
/// Its text has no such entry point.
static ABSENT: Kernel = Kernel::new("absent", "").binding(&[Binding::read("scores"), Binding::write("weighed")]);
/// Its text reads another binding than it says.
static UNLIKE: Kernel = Kernel::new(
    "unlike",
    "
@group(0) @binding(WEIGHED_BINDING) var<storage, read_write> weighed: array<f32>;
@compute @workgroup_size(1)
fn unlike() { weighed[0] = 1.0; }",
)
.binding(&[Binding::read("scores"), Binding::write("weighed")]);

fn own(kernel: &'static Kernel) -> SelectorStep {
    KernelStep::new(Specialization::new(kernel), [1; 3], [1, 4, 1, 63], norms_on_cpu).into()
}

/// Texts are looked at where they are compiled, tensors where they are computed.
#[test]
fn each_engine_tells_what_it_alone_sees() {
    let (gpus, hosts) = (contexts().len(), 2);
    let split = |errors: Vec<Error>| {
        assert_eq!(errors.len(), gpus + hosts);
        let (of_gpus, of_hosts) = errors.split_at(gpus);
        (format!("{of_gpus:?}"), format!("{of_hosts:?}"), of_gpus.len())
    };
    let absent = |_: &SelectionProblem, mut steps: Vec<SelectorStep>| {
        steps[3] = own(&ABSENT);
        steps
    };
    let (of_gpus, of_hosts, count) = split(told(absent, None));
    assert_eq!(of_gpus.matches("EntryPoint { kernel: \"absent\"").count(), count, "{of_gpus}");
    // The function is that of another kernel: a number of it is missing.
    assert_eq!(of_hosts.matches("argument: \"number\"").count(), hosts, "{of_hosts}");
    let unlike = |_: &SelectionProblem, mut steps: Vec<SelectorStep>| {
        steps[3] = own(&UNLIKE);
        steps
    };
    let (of_gpus, ..) = split(told(unlike, None));
    assert_eq!(of_gpus.matches("Binding { kernel: \"unlike\"").count(), count, "{of_gpus}");
    let everything = |_: &SelectionProblem, mut steps: Vec<SelectorStep>| {
        steps.insert(4, own(&EVERYTHING));
        steps
    };
    let (of_gpus, ..) = split(told(everything, None));
    assert_eq!(of_gpus.matches("argument: \"steps\"").count(), count, "{of_gpus}");
}

#[test]
fn a_tensor_of_another_shape_is_refused() {
    let edit = |problem: &SelectionProblem, mut steps: Vec<SelectorStep>| {
        let elem = Specialization::new(&NORMS).with_module(&modules::ELEM_F32).with_constant("HEAD_DIM4", 8);
        let wrong = |inputs: &KernelInputs<'_>| Ok(HostTensor::zeros([1, 1, 1, inputs.u32("head_dim")?]));
        steps[2] = KernelStep::new(elem, [4, 1, 1], [1, 63, 2, 1], wrong).with_u32("page", PAGE).into();
        assert_eq!(problem.shape().head_dim, 32);
        steps
    };
    let (shape, problem) = (shape(1, 1000), LongKeys { bonus: 0.5, edit });
    let (q, k) = (painted::<f32>(shape.q(), 7), painted::<f32>(shape.k(), 11));
    let problem = SelectionProblem::new(shape, DType::F32, problem);
    for engine in [Engine::cpu(), Engine::Oracle] {
        let error = engine.select(&problem, &SelectionInputs::new(&q, &k)).wait().unwrap_err();
        assert!(matches!(error, Error::Shape { tensor: "norms", actual: [1, 1, 1, 32], .. }), "{error}");
    }
}
