//! A method from outside the crate, made of the public operators: Quest behind `Selector`, on every adapter, on the CPU and by the oracle.

mod common;

use common::gpu::{buffer, contexts};
use half::f16;
use wattn::{
    AttentionPath, AttentionProblem, AttentionShape, BlockListSpec, BlockListsView, BlockScoreProblem, BlockScoring,
    DType, Element, Engine, Error, Granularity, Hip, HostInputs, HostTensor, Layout, Mark, Mask, Measure, PoolProblem,
    Pooling, Reduction, Selection, SelectionArgs, SelectionInputs, SelectionMethod, SelectionPlan, SelectionProblem,
    Selector, SelectorStep, SparseOptions, TensorView, TopKProblem, U32View, cpu,
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

/// Quest whose caller pins pages and hides others.
#[derive(Clone, Debug, PartialEq)]
struct Pinned(Quest);

impl Selector for Pinned {
    fn name(&self) -> &str {
        "pinned Quest"
    }

    fn lists(&self, shape: &AttentionShape, granularity: Granularity) -> BlockListSpec {
        self.0.lists(shape, granularity)
    }

    fn steps(&self, problem: &SelectionProblem) -> Vec<SelectorStep> {
        let mut steps = self.0.steps(problem);
        let Some(SelectorStep::TopK { problem, .. }) = steps.pop() else { panic!("the last step") };
        steps.push(SelectorStep::top_k(problem.with_marks(), "bounds of scores"));
        steps
    }
}

/// Marks of a prime period: a page in 13 of every list is forced, four are forbidden.
fn marks([batch, sets, q_blocks, pages]: [u32; 4]) -> Vec<Mark> {
    let mark = |at: u32| match at % 13 {
        5 => Mark::Forced,
        1 | 2 | 7 | 11 => Mark::Forbidden,
        _ => Mark::Free,
    };
    let of_list = |list: u32| (0..pages).map(move |page| mark(page + 3 * list));
    (0..batch * sets * q_blocks).flat_map(of_list).collect()
}

/// The same lists from every engine; a forced page is in its list, a forbidden one in none.
fn check_pinned<T: Element>(engine: &Engine, quest: &Quest, shape: AttentionShape, lens: Option<&[u32]>) {
    let what = format!("{engine}: {quest:?}, {}, {lens:?}", T::DTYPE);
    let (q, k) = (painted::<T>(shape.q(), 7), painted::<T>(shape.k(), 11));
    let selection = SelectionProblem::new(shape, T::DTYPE, Pinned(quest.clone()));
    let marks_shape @ [_, sets, q_blocks, pages] = selection.marks_shape().unwrap();
    let marks = marks(marks_shape);
    let mut unmarked = SelectionInputs::new(&q, &k);
    if let Some(lens) = lens {
        unmarked = unmarked.with_seq_lens_kv(lens);
    }
    let inputs = unmarked.with_marks(&marks);
    let lists = Engine::Oracle.select(&selection, &inputs).wait().unwrap();
    assert_eq!(engine.select(&selection, &inputs).wait().unwrap(), lists, "{what}");
    let free = SelectionProblem::new(shape, T::DTYPE, quest.clone());
    let without = Engine::Oracle.select(&free, &unmarked).wait().unwrap();
    assert_ne!(without, lists, "{what}");
    let (mut forced, mut hidden) = (0, 0);
    for (index, marks) in marks.chunks(pages as usize).enumerate() {
        let [batch, set, q_block] =
            [index as u32 / q_blocks / sets, index as u32 / q_blocks % sets, index as u32 % q_blocks];
        let [list, without] = [&lists, &without].map(|lists| lists.list(batch, set, q_block));
        let marked =
            |list: &[u32], wanted| list.iter().filter(|&&key| marks[(key / quest.page) as usize] == wanted).count();
        assert_eq!(marked(list, Mark::Forbidden), 0, "{what}: {list:?}");
        forced += marked(list, Mark::Forced);
        hidden += marked(without, Mark::Forbidden);
    }
    assert!(forced >= lists.block_counts().len() && hidden > 0, "{what}: {forced} forced, {hidden} hidden");
}

fn check_all_pinned(engine: &Engine) {
    let quest = |quest: Quest, pages| Quest { pages, ..quest };
    check_pinned::<f32>(engine, &quest(DECODE, 8), shape(1, 1, 1000), None);
    check_pinned::<f32>(engine, &quest(DECODE, 8), shape(3, 1, 300), Some(&[300, 250, 270]));
    check_pinned::<f32>(engine, &quest(PROMPT, 12), shape(1, 150, 500), None);
    check_pinned::<f16>(engine, &quest(PROMPT, 12), shape(2, 70, 400), Some(&[400, 377]));
}

#[test]
fn marks_of_a_call_reach_the_top_k() {
    contexts().iter().for_each(|ctx| check_all_pinned(&Engine::from(ctx.clone())));
    check_all_pinned(&Engine::cpu());
}

#[test]
fn marks_that_do_not_fit_are_named() {
    let shape = shape(1, 1, 1000);
    let (q, k, v) = (painted::<f32>(shape.q(), 7), painted(shape.k(), 11), painted(shape.v(), 13));
    let (free, inputs) = (SelectionProblem::new(shape, DType::F32, DECODE), SelectionInputs::new(&q, &k));
    let pinned = SelectionProblem::new(shape, DType::F32, Pinned(DECODE));
    assert_eq!((free.marks_shape(), pinned.marks_shape()), (None, Some([1, 4, 1, 63])));
    let hip = SelectionProblem::new(shape, DType::F32, Hip::decode());
    let all = marks([1, 4, 1, 63]);
    let mut engines: Vec<Engine> = contexts().iter().cloned().map(Engine::from).collect();
    engines.extend([Engine::cpu(), Engine::Oracle]);
    for engine in engines {
        let told = |problem: &SelectionProblem, inputs: &SelectionInputs<'_>| {
            engine.select(problem, inputs).wait().unwrap_err().to_string()
        };
        assert_eq!(told(&pinned, &inputs), "`marks`: is required by the problem", "{engine}");
        for problem in [&free, &hip] {
            assert_eq!(told(problem, &inputs.with_marks(&all)), "`marks`: is not part of the problem", "{engine}");
        }
        let short = told(&pinned, &inputs.with_marks(&all[1..]));
        assert!(short.contains("marks") && short.contains("252") && short.contains("251"), "{engine}: {short}");
        let attention = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
        let inputs = HostInputs::new(&q, &k, &v);
        let sparse = engine.attend_sparse(&attention, &pinned, &inputs, &SparseOptions::default()).wait();
        assert!(matches!(sparse, Err(Error::Argument { argument: "marks", .. })), "{engine}");
    }
}

/// Marks in buffers of the caller's: their number and their buffer are checked as those of other tensors.
#[test]
fn marks_are_bound_like_other_tensors() {
    for ctx in contexts() {
        let shape = shape(1, 1, 1000);
        let pinned = SelectionProblem::new(shape, DType::F32, Pinned(DECODE));
        let selection = Selection::prepare(ctx, &SelectionPlan::new(&pinned, ctx.caps()).unwrap()).unwrap();
        let hip = SelectionProblem::new(shape, DType::F32, Hip::decode());
        let hip = Selection::prepare(ctx, &SelectionPlan::new(&hip, ctx.caps()).unwrap()).unwrap();
        let [q, k] = [shape.q(), shape.k()].map(|shape| buffer(ctx, painted::<f32>(shape, 7).data()));
        let [marks, indices, counts] = [252usize, 4 * 32, 4].map(|len| buffer(ctx, &vec![0u32; len]));
        let view = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorView::new(buffer, DType::F32, Layout::seq_major(batch, seq, heads, dim))
        };
        let told = |selection: &Selection, max_blocks: u64, marks: Option<U32View<'_>>| {
            let lists = BlockListsView::new(U32View::new(&indices, 0, 4 * max_blocks), U32View::new(&counts, 0, 4));
            let args = SelectionArgs::new(view(&q, shape.q()), view(&k, shape.k()), lists).with_marks(marks);
            selection.bind(args).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(told(&selection, 6, Some(U32View::new(&marks, 0, 252))), "");
        assert_eq!(told(&selection, 6, None), "`marks`: is required by the problem");
        assert!(told(&selection, 6, Some(U32View::new(&marks, 0, 251))).contains("marks"));
        assert!(told(&selection, 6, Some(U32View::new(&marks, 1, 252))).contains("marks"));
        assert!(told(&selection, 6, Some(U32View::new(&indices, 0, 252))).contains("marks"));
        let max_blocks = u64::from(hip.plan().problem().blocks().max_blocks);
        let not_taken = told(&hip, max_blocks, Some(U32View::new(&marks, 0, 252)));
        assert_eq!(not_taken, "`marks`: is not part of the problem");
    }
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
    assert!(
        told(|steps| vec![steps[2].clone(), steps[0].clone(), steps[1].clone()])
            .contains("may read what an earlier step wrote")
    );
    assert!(told(|steps| steps[1..].to_vec()).contains("may read what an earlier step wrote"));
    assert!(
        told(|steps| vec![steps[0].clone(), steps[0].clone(), steps[1].clone(), steps[2].clone()])
            .contains("must write each tensor once")
    );
    assert!(
        told(|steps| vec![steps[0].clone(), steps[1].clone(), steps[2].clone(), steps[2].clone()])
            .contains("must end with the top-k")
    );
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
