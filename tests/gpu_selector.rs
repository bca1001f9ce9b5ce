//! A method from outside the crate, made of the public operators: Quest behind `Selector`, on every adapter, on the CPU and by the oracle.

mod common;

use common::gpu::contexts;
use half::f16;
use wattn::{
    AttentionPath, AttentionProblem, AttentionShape, BlockListSpec, BlockScoreProblem, BlockScoring, DType, Element,
    Engine, Error, Granularity, Hip, HostInputs, HostTensor, Mask, Measure, PoolProblem, Pooling, Reduction,
    SelectionInputs, SelectionMethod, SelectionPlan, SelectionProblem, Selector, SelectorStep, SparseOptions,
    TopKProblem, cpu,
};

/// The pages of keys with the largest bounds; the queries' own pages are always among them.
#[derive(Clone, Debug, PartialEq)]
struct Quest {
    page: u32,
    pages: u32,
    block_size_q: u32,
}

impl Quest {
    fn own_pages(&self) -> u32 {
        (self.block_size_q - 1).div_ceil(self.page) + 1
    }
}

impl Selector for Quest {
    fn name(&self) -> &str {
        "Quest"
    }

    fn lists(&self, _: &AttentionShape, granularity: Granularity) -> BlockListSpec {
        BlockListSpec::new(self.block_size_q, self.page, self.pages).with_granularity(granularity)
    }

    fn validate(&self, _: Mask) -> wattn::Result<()> {
        if self.pages < self.own_pages() {
            let rule = "must hold the pages of the queries";
            return Err(Error::Invalid { field: "pages", value: self.pages.into(), rule });
        }
        Ok(())
    }

    fn steps(&self, problem: &SelectionProblem) -> Vec<SelectorStep> {
        let (shape, dtype) = (*problem.shape(), problem.dtype());
        let pool = PoolProblem::new(shape.k(), dtype, self.page, Pooling::MinMax);
        let score = BlockScoreProblem::new(shape, dtype, self.page, BlockScoring::Bound)
            .with_query_blocks(self.block_size_q, Reduction::Max)
            .with_granularity(problem.granularity())
            .with_mask(problem.mask());
        let best = TopKProblem::new(score.scores_shape(), self.pages)
            .with_block_size(self.page)
            .with_forced_last(self.own_pages());
        vec![
            SelectorStep::pool(pool, "bounds of pages"),
            SelectorStep::score(score, "bounds of pages", "bounds of scores"),
            SelectorStep::top_k(best, "bounds of scores"),
        ]
    }
}

const DECODE: Quest = Quest { page: 16, pages: 6, block_size_q: 1 };
const PROMPT: Quest = Quest { page: 16, pages: 9, block_size_q: 64 };

fn shape(batch_size: u32, seq_len_q: u32, seq_len_kv: u32) -> AttentionShape {
    AttentionShape { batch_size, seq_len_q, seq_len_kv, num_q_heads: 4, num_kv_heads: 2, head_dim: 32, head_dim_v: 16 }
}

/// Eighths from -1 to 1, so that sums are exact and bounds are the same everywhere.
fn painted<T: Element>(shape: [u32; 4], step: u64) -> HostTensor<T> {
    let number = |i: u64| T::from_f32(((i * step + i / 64 * 31) % 8209 % 17) as f32 / 8.0 - 1.0);
    HostTensor::new(shape, (0..shape.iter().map(|&n| u64::from(n)).product()).map(number).collect()).unwrap()
}

/// All engines give the same lists, all attend to them, and the measures of quality take them.
fn check<T: Element>(
    engine: &Engine,
    quest: &Quest,
    shape: AttentionShape,
    granularity: Granularity,
    lens: Option<&[u32]>,
) {
    let what = format!("{engine}: {quest:?}, {}, {granularity}, {lens:?}", T::DTYPE);
    let [q, k, v] = [(shape.q(), 7), (shape.k(), 11), (shape.v(), 13)].map(|(shape, step)| painted::<T>(shape, step));
    let selection = SelectionProblem::new(shape, T::DTYPE, quest.clone()).with_granularity(granularity);
    let (mut inputs, mut select) = (HostInputs::new(&q, &k, &v), SelectionInputs::new(&q, &k));
    if let Some(lens) = lens {
        (inputs, select) = (inputs.with_seq_lens_kv(lens), select.with_seq_lens_kv(lens));
    }
    let lists = Engine::Oracle.select(&selection, &select).wait().unwrap();
    assert!(lists.block_counts().iter().all(|&count| count > 0 && count <= quest.pages), "{what}");
    assert!(lists.block_counts().contains(&quest.pages), "{what}: a list is full");
    assert_eq!(engine.select(&selection, &select).wait().unwrap(), lists, "{what}");

    let attention = AttentionProblem::new(shape, T::DTYPE).with_mask(Mask::Causal);
    let options =
        SparseOptions::default().with_dense_below(0).with_captured_mass(Measure::Compute).with_recall(Measure::Compute);
    let exact =
        cpu::oracle::attend(&attention.clone().with_blocks(selection.blocks()), &inputs.with_blocks(&lists)).unwrap();
    let got = engine.attend_sparse(&attention, &selection, &inputs, &options).wait().unwrap();
    assert_eq!((got.path, got.blocks.as_ref()), (AttentionPath::Sparse, Some(&lists)), "{what}");
    let off = got.output.out.data().iter().zip(exact.out.data()).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0.0, f32::max) < 1e-4, "{what}");
    let recall = got.recall.unwrap().mean();
    assert!(recall > 0.05 && recall <= 1.0, "{what}: {recall}");
    assert!(got.captured_mass.unwrap().data().iter().all(|&mass| mass > 0.0 && mass < 1.001), "{what}");
}

fn check_all(engine: &Engine, f16s: bool) {
    for granularity in [Granularity::QueryHead, Granularity::KvHead, Granularity::Layer] {
        check::<f32>(engine, &DECODE, shape(1, 1, 1000), granularity, None);
        check::<f32>(engine, &PROMPT, shape(1, 150, 500), granularity, None);
    }
    check::<f32>(engine, &DECODE, shape(3, 1, 300), Granularity::QueryHead, Some(&[300, 17, 121]));
    check::<f32>(engine, &PROMPT, shape(2, 70, 400), Granularity::KvHead, Some(&[400, 177]));
    if f16s {
        check::<f16>(engine, &PROMPT, shape(2, 70, 400), Granularity::QueryHead, None);
    }
}

#[test]
fn quest_is_a_selector_on_every_adapter() {
    for ctx in contexts() {
        let plan =
            SelectionPlan::new(&SelectionProblem::new(shape(1, 1, 1000), DType::F32, DECODE), ctx.caps()).unwrap();
        assert_eq!((plan.dispatches().len(), plan.num_dispatches(5)), (3, 3));
        assert!(plan.to_string().starts_with("selection  Quest, "), "{plan}");
        assert!(
            plan.samples_bytes() >= 4 * 63 * 2 * 64 && plan.scratch_bytes() >= 4 * 63 * 4 && plan.cache_bytes() == 0
        );
        check_all(&Engine::from(ctx.clone()), true);
    }
}

#[test]
fn quest_is_a_selector_on_the_cpu() {
    check_all(&Engine::cpu(), true);
    check_all(&Engine::Oracle, false);
}

#[test]
fn methods_are_compared_and_recognised() {
    let [quest, same, other] = [DECODE, DECODE, PROMPT].map(SelectionMethod::from);
    assert!(quest == same && quest != other && quest != SelectionMethod::from(Hip::default()));
    assert_eq!(SelectionMethod::from(Hip::default()), Hip::default().into());
    assert!(matches!(SelectionMethod::from(Hip::default()), SelectionMethod::Hip(_)), "it has kernels of its own");
    let problem = SelectionProblem::new(shape(1, 1, 1000), DType::F32, DECODE);
    assert_eq!((problem.num_stages(), problem.first_stage(3), problem.margin()), (1, Some(0), 0));
    assert_eq!((problem.blocks().max_blocks, problem.method().selector().name()), (6, "Quest"));
}

/// Quest with other steps.
#[derive(Clone, Debug)]
struct Broken(fn(Vec<SelectorStep>) -> Vec<SelectorStep>);

impl PartialEq for Broken {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::fn_addr_eq(self.0, other.0)
    }
}

impl Selector for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn lists(&self, shape: &AttentionShape, granularity: Granularity) -> BlockListSpec {
        DECODE.lists(shape, granularity)
    }

    fn steps(&self, problem: &SelectionProblem) -> Vec<SelectorStep> {
        (self.0)(DECODE.steps(problem))
    }
}

#[test]
fn broken_steps_are_named() {
    let told = |edit| {
        let problem = SelectionProblem::new(shape(1, 1, 1000), DType::F32, Broken(edit));
        let planned = SelectionPlan::new(&problem, &wattn::DeviceCaps::BASELINE);
        assert_eq!(problem.validate().is_ok(), planned.is_ok());
        planned.map_err(|error| error.to_string()).err().unwrap_or_default()
    };
    assert_eq!(told(|steps| steps), "");
    assert!(told(|_| Vec::new()).contains("must end with a top-k"));
    assert!(told(|steps| steps[..2].to_vec()).contains("must end with a top-k"));
    assert!(told(|steps| vec![steps[2], steps[0], steps[1]]).contains("may read what an earlier step wrote"));
    assert!(told(|steps| steps[1..].to_vec()).contains("may read what an earlier step wrote"));
    assert!(told(|steps| vec![steps[0], steps[0], steps[1], steps[2]]).contains("must write each tensor once"));
    assert!(told(|steps| vec![steps[0], steps[1], steps[2], steps[2]]).contains("must end with the top-k"));
    let other_type = |mut steps: Vec<SelectorStep>| {
        steps[0] = SelectorStep::pool(PoolProblem::new(shape(1, 1, 1000).k(), DType::F16, 16, Pooling::MinMax), "x");
        steps
    };
    assert!(told(other_type).contains("must have the selection's shape, dtype and mask"));
    let other_room = |mut steps: Vec<SelectorStep>| {
        steps[2] = SelectorStep::top_k(TopKProblem::new([1, 4, 1, 63], 5).with_block_size(16), "bounds of scores");
        steps
    };
    assert!(told(other_room).contains("the sizes that `lists` gives"));
    let few = SelectionProblem::new(shape(1, 1, 1000), DType::F32, Quest { pages: 1, block_size_q: 64, ..DECODE });
    assert!(matches!(few.validate(), Err(Error::Invalid { field: "pages", value: 1, .. })));
}
