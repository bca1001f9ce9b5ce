//! Every mistake in a selection or in block-sparse attention has an error of its own. wgpu's `noop` device serves.

mod common;

use wattn::{
    Attention, AttentionArgs, AttentionPlan, AttentionProblem, AttentionShape, BlockListsView, Context, DType,
    DeviceCaps, Error, Granularity, GroupBounds, HeadReduction, Hip, HostBlockLists, HostTensor, InfiniteHip, Layout,
    Mask, Preset, Representative, Selection, SelectionArgs, SelectionInputs, SelectionMemory, SelectionMethod,
    SelectionPlan, SelectionProblem, TensorView, TensorViewMut, Tier, U32View, Workspace, cpu,
};
use wgpu::BufferUsages;

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 70,
    seq_len_kv: 900,
    num_q_heads: 4,
    num_kv_heads: 2,
    head_dim: 8,
    head_dim_v: 8,
};

const DECODE: AttentionShape = AttentionShape { seq_len_q: 1, ..SHAPE };

fn problem(method: impl Into<SelectionMethod>) -> SelectionProblem {
    SelectionProblem::new(SHAPE, DType::F32, method)
}

/// The rule of `field` that `problem` breaks, with `rule` in its message; the plan and the CPU path refuse it alike.
#[track_caller]
fn breaks(problem: &SelectionProblem, field: &str, value: u64, rule: &str) {
    let error = problem.validate().unwrap_err();
    let Error::Invalid { field: found, value: found_value, rule: found_rule } = &error else { panic!("{error}") };
    assert_eq!((*found, *found_value), (field, value), "{error}");
    assert!(found_rule.contains(rule), "{error}");
    let text = error.to_string();
    assert_eq!(SelectionPlan::new(problem, &DeviceCaps::BASELINE).unwrap_err().to_string(), text);
    let (q, k) = (HostTensor::<f32>::zeros(problem.q_shape()), HostTensor::zeros(problem.k_shape()));
    let inputs = SelectionInputs::new(&q, &k);
    assert_eq!(cpu::select(problem, &inputs).unwrap_err().to_string(), text);
}

#[test]
fn rules_of_hip_are_named() {
    let hip = Hip::default();
    let multiple = "multiple of block_size_k";
    breaks(&problem(hip.with_top_k(511)), "top_k", 511, multiple);
    breaks(&problem(hip.with_sink_size(15)), "sink_size", 15, multiple);
    breaks(&problem(hip.with_window_size(255)), "window_size", 255, multiple);
    breaks(&problem(hip.with_top_k(0)), "top_k", 0, "at least 1");
    breaks(&problem(hip.with_block_size_q(0)), "block_size_q", 0, "at least 1");
    breaks(&problem(hip.with_stride_q(0)), "stride_q", 0, "at least 1");
    breaks(&problem(hip.with_stride_q(65)), "stride_q", 65, "at most block_size_q");
    breaks(&problem(hip.with_stride_k(3)), "stride_k", 3, "at most block_size_k");
    breaks(&problem(hip.with_block_size_k(256)), "block_size_k", 256, "at most 128");
    breaks(&problem(hip.with_refresh_interval(0)), "refresh_interval", 0, "at least 1");
    breaks(&problem(hip.with_top_k(1 << 21)), "top_k", 1 << 21, "2^20");
    breaks(&problem(hip.with_block_size_q(1 << 30)), "block_size_q", 1 << 30, "2^29");
    breaks(&problem(hip).with_mask(Mask::Full), "sink_size", 16, "where the mask is not causal");
    let full = hip.with_sink_size(0).with_window_size(0).with_refresh_interval(2);
    breaks(&problem(full).with_mask(Mask::Full), "refresh_interval", 2, "no decoding");
}

#[test]
fn rules_of_stages_are_named() {
    let with = |change: fn(&mut InfiniteHip)| {
        let mut method = InfiniteHip::from(Preset::ThreeK);
        change(&mut method);
        problem(method)
    };
    breaks(&with(|m| m.stages[1].chunk_size = 48), "keep", 8192, "multiple of the stage's chunk_size");
    breaks(&with(|m| (m.stages[1].chunk_size, m.stages[1].keep) = (48, 4800)), "chunk_size", 48, "divide");
    breaks(&with(|m| m.stages[0].keep = 1000), "keep", 1000, "multiple of the stage's chunk_size");
    breaks(&with(|m| m.stages[0].refresh_interval = 12), "refresh_interval", 12, "stale chunks");
    breaks(&with(|m| m.stages[2].refresh_interval = 0), "refresh_interval", 0, "at least 1");
    breaks(&with(|m| m.stages[0].stride_q = 65), "stride_q", 65, "at most block_size_q");
    breaks(&with(|m| m.stages.clear()), "stages", 0, "from 1 to 8");
    breaks(&with(|m| m.stages.truncate(1)), "chunk_size", 256, "at most 128 keys in the last stage");
    breaks(&with(|m| m.sink_size = 4), "sink_size", 4, "multiple of the last stage's chunk_size");
    breaks(&with(|m| m.stages[0].keep = 1 << 25), "keep", 1 << 25, "2^24");
    let last = with(|m| m.representative = Representative::Last).validate().unwrap_err();
    assert!(matches!(last, Error::Argument { argument: "representative", .. }), "{last}");
    let full = with(|_| {}).with_mask(Mask::Full).validate().unwrap_err();
    assert!(matches!(full, Error::Argument { argument: "mask", .. }), "{full}");
}

#[test]
fn margins_and_intervals_must_fit_the_window() {
    let decode = |method: SelectionMethod| SelectionProblem::new(DECODE, DType::F32, method);
    let hip = Hip::decode().with_refresh_interval(9);
    decode(hip.into()).with_margin(8).validate().unwrap();
    breaks(&decode(hip.into()).with_margin(7), "margin", 7, "refresh_interval - 1");
    let least = 16; // the first interval of a single query
    decode(Preset::ThreeK.into()).with_margin(least).validate().unwrap();
    breaks(&decode(Preset::ThreeK.into()).with_margin(least - 1), "margin", 15, "first refresh_interval");
    breaks(&problem(Preset::ThreeK).with_margin(63), "margin", 63, "queries of a block - 1");
    let short = hip.with_window_size(4).with_refresh_interval(6);
    breaks(&decode(short.into()), "refresh_interval", 6, "at most window_size + 1");
}

#[test]
fn other_rules_of_a_selection_are_named() {
    for scale in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = problem(Hip::default()).with_selection_scale(scale).validate().unwrap_err();
        assert!(matches!(error, Error::SelectionScale { .. }), "{error}");
    }
    let (q, k) = (HostTensor::<f32>::zeros(SHAPE.q()), HostTensor::zeros(SHAPE.k()));
    let hip = problem(Hip::default());
    let select = |lens: &[u32]| cpu::select(&hip, &SelectionInputs::new(&q, &k).with_seq_lens_kv(lens));
    let error = select(&[900, 901]).unwrap_err();
    assert!(matches!(error, Error::Invalid { field: "seq_lens_kv", value: 901, .. }), "{error}");
    assert!(matches!(select(&[900]).unwrap_err(), Error::Length { tensor: "seq_lens_kv", .. }));
    let error = cpu::select(&hip, &SelectionInputs::new(&k, &k)).unwrap_err();
    assert!(matches!(error, Error::Shape { tensor: "q", .. }), "{error}");
    let half = SelectionProblem::new(SHAPE, DType::F16, Hip::default());
    let error = cpu::select(&half, &SelectionInputs::new(&q, &k)).unwrap_err();
    assert!(matches!(error, Error::DType { .. }), "{error}");
}

#[test]
fn lists_of_another_granularity_are_refused() {
    let v = HostTensor::<f32>::zeros(SHAPE.v());
    let (q, k) = (HostTensor::zeros(SHAPE.q()), HostTensor::zeros(SHAPE.k()));
    let inputs = wattn::HostInputs::new(&q, &k, &v);
    let selection = problem(Hip::default());
    let blocks = cpu::select(&selection, &inputs.for_selection()).unwrap();
    for granularity in [Granularity::KvHead, Granularity::Layer] {
        let other = selection.blocks().with_granularity(granularity);
        let problem = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal).with_blocks(other);
        let error = cpu::attend(&problem, &inputs.with_blocks(&blocks)).unwrap_err();
        let expected = other.indices_shape(&SHAPE);
        assert!(matches!(error, Error::Shape { tensor: "block_indices", expected: e, .. } if e == expected), "{error}");
    }
}

#[test]
fn block_selections_break_rules_by_name() {
    let good = problem(Hip::default()).blocks();
    let check = |blocks, mask, field: &str| {
        let error =
            AttentionProblem::new(SHAPE, DType::F32).with_mask(mask).with_blocks(blocks).validate().unwrap_err();
        match &error {
            Error::Invalid { field: found, .. } => assert_eq!(*found, field, "{error}"),
            Error::Argument { argument, .. } => assert_eq!(*argument, field, "{error}"),
            _ => panic!("{error}"),
        }
    };
    check(good.with_block_size(0), Mask::Causal, "block_size");
    check(good.with_block_size(129), Mask::Causal, "block_size");
    check(good.with_block_size_q(0), Mask::Causal, "block_size_q");
    check(good.with_max_blocks(0), Mask::Causal, "max_blocks");
    check(good.with_max_blocks(1 << 30), Mask::Causal, "max_blocks");
    check(good.with_window_size(1 << 30), Mask::Causal, "window_size");
    check(good, Mask::Full, "sink_size");
    check(good, Mask::Window { left: Some(3), right: None }, "mask");
}

fn noop() -> Context {
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor::default());
    Context::new(device, queue).unwrap()
}

fn buffer(ctx: &Context, words: u64) -> wgpu::Buffer {
    let (size, usage) = (words * 4, BufferUsages::STORAGE);
    ctx.device().create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
}

/// The buffers of a valid selection: q, k, indices, counts; and its memory.
struct Call {
    ctx: Context,
    selection: Selection,
    buffers: [wgpu::Buffer; 4],
    memory: [Workspace; 3],
    lens: [u64; 2],
}

impl Call {
    fn new(method: impl Into<SelectionMethod>) -> Self {
        let ctx = noop();
        let problem = problem(method);
        let plan = SelectionPlan::new(&problem, ctx.caps()).unwrap();
        let lists = problem.blocks().num_lists(&SHAPE);
        let lens = [lists * u64::from(problem.blocks().max_blocks), lists];
        let words = |shape: [u32; 4]| shape.iter().map(|&n| u64::from(n)).product();
        let buffers = [words(SHAPE.q()), words(SHAPE.k()), lens[0], lens[1]].map(|words| buffer(&ctx, words));
        let memory = [plan.samples_bytes(), plan.scratch_bytes(), plan.cache_bytes()]
            .map(|bytes| Workspace::new(&ctx, bytes).unwrap());
        let selection = Selection::prepare(&ctx, &plan).unwrap();
        Self { ctx, selection, buffers, memory, lens }
    }

    fn bind(&self, lens: Option<&wgpu::Buffer>) -> wattn::Result<()> {
        let [q, k, indices, counts] = &self.buffers;
        let view = |buffer, [batch, seq, heads, dim]: [u32; 4]| {
            TensorView::new(buffer, DType::F32, Layout::seq_major(batch, seq, heads, dim))
        };
        let args = SelectionArgs::new(
            view(q, SHAPE.q()),
            view(k, SHAPE.k()),
            BlockListsView::new(U32View::new(indices, 0, self.lens[0]), U32View::new(counts, 0, self.lens[1])),
        )
        .with_seq_lens_kv(lens.map(|lens| U32View::new(lens, 0, 2)));
        let [samples, scratch, cache] = &self.memory;
        self.selection.bind_with(args, SelectionMemory::new(samples, scratch, cache)).map(|_| ())
    }
}

#[test]
fn selections_check_their_buffers() {
    for method in [SelectionMethod::from(Hip::default()), Preset::ThreeK.into()] {
        Call::new(method.clone()).bind(None).unwrap();
        let mut call = Call::new(method.clone());
        call.lens[0] -= 1;
        let error = call.bind(None).unwrap_err();
        assert!(matches!(error, Error::Length { tensor: "block_indices", .. }), "{error}");
        let mut call = Call::new(method.clone());
        call.buffers[3] = buffer(&call.ctx, call.lens[1] - 1);
        let error = call.bind(None).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { tensor: "block_counts", .. }), "{error}");
        let mut call = Call::new(method.clone());
        call.buffers[2] = call.buffers[1].clone();
        let error = call.bind(None).unwrap_err();
        assert!(matches!(error, Error::Overlap { written: "block_indices", other: "k" }), "{error}");
        let call = Call::new(method.clone());
        let error = call.bind(Some(&buffer(&call.ctx, 2))).unwrap_err();
        assert!(matches!(error, Error::Argument { argument: "seq_lens_kv", .. }), "{error}");
        let mut call = Call::new(method.clone());
        call.memory[0] = Workspace::new(&call.ctx, 256).unwrap();
        let error = call.bind(None).unwrap_err();
        assert!(matches!(error, Error::OutOfBounds { tensor: "samples", .. }), "{error}");
    }
}

#[test]
fn limits_and_tilings_of_a_selection_are_named() {
    let caps = DeviceCaps::BASELINE;
    let long = AttentionShape { seq_len_q: 1 << 20, num_q_heads: 32, head_dim: 128, ..SHAPE };
    let error = SelectionPlan::new(&SelectionProblem::new(long, DType::F16, Hip::default()), &caps).unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    let hip = problem(Hip::default().with_group_bounds(GroupBounds::Aligned));
    let error = SelectionPlan::with_tier(&hip, &caps, Tier::Subgroup).unwrap_err();
    assert!(matches!(error, Error::MissingFeature { .. }), "{error}");
    let good = SelectionPlan::new(&hip, &caps).unwrap().tiling();
    for (tiling, field) in [
        (good.with_lanes(3), "lanes"),
        (good.with_rows(64), "rows"),
        (good.with_search_groups(0), "search_groups"),
        (good.with_lanes(4).with_score_groups(5), "score_groups"),
        (good.with_top_k_size(24), "top_k_size"),
        (good.with_max_searches(0), "max_searches"),
    ] {
        let error = SelectionPlan::with_tiling(&hip, &caps, Tier::Baseline, tiling).unwrap_err();
        assert!(matches!(error, Error::Invalid { field: f, .. } if f == field), "{error}");
    }
    let union = InfiniteHip::from(Preset::ThreeK).with_reduction(HeadReduction::Union);
    assert_eq!(problem(union).blocks().max_blocks, 4 * 256);
}

#[test]
fn lists_come_exactly_where_the_problem_takes_them() {
    let ctx = noop();
    let blocks = problem(Hip::default()).blocks();
    let dense = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal);
    let words = |shape: [u32; 4]| shape.iter().map(|&n| u64::from(n)).product();
    let [q, k, v, out] = [SHAPE.q(), SHAPE.k(), SHAPE.v(), SHAPE.out()].map(|shape| buffer(&ctx, words(shape)));
    let lists = HostBlockLists::empty(blocks.indices_shape(&SHAPE));
    let (indices, counts) =
        (buffer(&ctx, lists.block_indices().len() as u64), buffer(&ctx, lists.block_counts().len() as u64));
    let layout = |[batch, seq, heads, dim]: [u32; 4]| Layout::seq_major(batch, seq, heads, dim);
    let view =
        BlockListsView::new(U32View::new(&indices, 0, indices.size() / 4), U32View::new(&counts, 0, counts.size() / 4));
    let bind = |problem: &AttentionProblem, blocks| {
        let plan = AttentionPlan::new(problem, ctx.caps()).unwrap();
        let args = AttentionArgs::new(
            TensorView::new(&q, DType::F32, layout(SHAPE.q())),
            TensorView::new(&k, DType::F32, layout(SHAPE.k())),
            TensorView::new(&v, DType::F32, layout(SHAPE.v())),
            TensorViewMut::new(&out, DType::F32, layout(SHAPE.out())),
        )
        .with_blocks(blocks);
        Attention::prepare(&ctx, &plan).unwrap().bind(args).map(|_| ())
    };
    let sparse = dense.clone().with_blocks(blocks);
    bind(&sparse, Some(view)).unwrap();
    for (problem, blocks) in [(&sparse, None), (&dense, Some(view))] {
        let error = bind(problem, blocks).unwrap_err();
        assert!(matches!(error, Error::Argument { argument: "blocks", .. }), "{error}");
    }
    let error = ctx.check_blocks(&dense, view, None).wait().unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "selected_blocks", .. }), "{error}");
}

/// Software devices load f32 as u64, a feature without a tier of its own.
#[test]
fn a_plan_for_another_device_of_the_same_tier_is_refused() {
    let required_features = wgpu::Features::SUBGROUP;
    let (device, queue) = wgpu::Device::noop(&wgpu::DeviceDescriptor { required_features, ..Default::default() });
    let ctx = Context::new(device, queue).unwrap();
    let mut caps = ctx.caps().clone();
    (caps.software, caps.shader_int64) = (true, true);
    let plan = SelectionPlan::with_tier(&problem(Hip::default()), &caps, Tier::Subgroup).unwrap();
    let error = Selection::prepare(&ctx, &plan).unwrap_err();
    assert!(matches!(error, Error::MissingFeature { feature: "SHADER_INT64", .. }), "{error}");
}
