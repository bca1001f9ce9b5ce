//! Selection and attention together, on every adapter: in one pass, token by token, and in one call.

mod common;

use common::gpu::{Buffers, bind, buffer, contexts, problem_of, read_words, submit, tiers};
use common::select::{HIP, SelectCase, assert_lists_equal, shape, three_stages};
use common::selected::SelectedCase;
use common::{Case, Exp};
use wattn::quality::captured_mass;
use wattn::{
    AttentionOutput, AttentionPath, AttentionPlan, AttentionShape, BlockListsView, BoundAttention, BoundSelection,
    Context, DType, DeviceSpeed, Engine, Granularity, HostBlockLists, HostTensor, Mask, Measure, Selection,
    SelectionArgs, SelectionMethod, SelectionPlan, SelectionProblem, SparseOptions, Tier, U32View, cpu,
};

/// Small integers: every score is exact, and so is every list.
fn integers(shape: AttentionShape, seed: u64) -> Case<f32> {
    let problem = SelectionProblem::new(shape, DType::F32, HIP);
    let SelectCase { mut q, k, .. } = SelectCase::integers("", problem, seed);
    q.data_mut().iter_mut().for_each(|x| *x /= 12.0);
    Case { q, k, ..Case::random(shape, Mask::Causal, seed) }
}

/// Both operators over the same buffers, bound once.
struct Layer {
    selection: SelectionProblem,
    buffers: Buffers,
    select: BoundSelection,
    attend: BoundAttention,
    indices: wgpu::Buffer,
    counts: wgpu::Buffer,
}

impl Layer {
    fn new(ctx: &Context, tier: Tier, case: &Case<f32>, selection: SelectionProblem) -> Self {
        let problem = problem_of(case, DType::F32).with_blocks(selection.blocks());
        let buffers = Buffers::new(ctx, case, &problem);
        let lists = selection.blocks().indices_shape(&case.shape);
        let [indices, counts] = [lists.iter().product(), lists[..3].iter().product::<u32>()]
            .map(|words| buffer(ctx, &vec![7u32; words as usize]));
        let view = |buffer| U32View::new(buffer, 0, wgpu::Buffer::size(buffer) / 4);
        let blocks = BlockListsView::new(view(&indices), view(&counts));
        let args = buffers.args();
        let plan = SelectionPlan::with_tier(&selection, ctx.caps(), tier).unwrap();
        let selecting = SelectionArgs::new(args.q(), args.k(), blocks).with_seq_lens_kv(args.seq_lens_kv());
        let select = Selection::prepare(ctx, &plan).unwrap().bind(selecting).unwrap();
        let attend =
            bind(ctx, &AttentionPlan::with_tier(&problem, ctx.caps(), tier).unwrap(), args.with_blocks(blocks));
        Self { selection, buffers, select, attend, indices, counts }
    }

    /// One step in one pass, and its results.
    fn step(&self, ctx: &Context, step: u64) -> (HostBlockLists, AttentionOutput) {
        submit(ctx, |encoder| {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            self.select.encode_step_in(&mut pass, step);
            self.attend.encode_in(&mut pass);
        });
        let lists = self.selection.blocks().indices_shape(self.selection.shape());
        let (indices, counts) = (read_words(ctx, &self.indices), read_words(ctx, &self.counts));
        let blocks = HostBlockLists::new(lists, indices, counts).unwrap();
        let (out, lse) = self.buffers.read(ctx);
        (blocks, AttentionOutput::new(out, lse))
    }
}

/// A decode loop: lengths and queries change in their buffers, lists stay on the GPU between kernels, and every token is right.
#[test]
fn a_decode_loop_stays_on_the_device() {
    let hip = HIP.with_refresh_interval(3);
    let methods: [SelectionMethod; 2] = [three_stages().into(), hip.into()];
    for (method, granularity) in methods.iter().flat_map(|method| Granularity::ALL.map(|each| (method, each))) {
        let mut case = integers(shape(2, [1, 300], [2, 2], 16), 5);
        case.seq_lens_kv = Some(vec![220, 150]);
        let selection = SelectionProblem::new(case.shape, DType::F32, method.clone())
            .with_granularity(granularity)
            .with_selection_scale(1.0)
            .with_seq_lens_kv();
        for ctx in contexts() {
            for tier in tiers(ctx.caps(), &[DType::F32]) {
                let layer = Layer::new(ctx, tier, &case, selection.clone());
                let mut cache = cpu::StageCache::default();
                let mut expected = HostBlockLists::empty(selection.blocks().indices_shape(&case.shape));
                for step in 0..7u64 {
                    let lens = [220 + step as u32, 150 + 20 * step as u32];
                    let mut now = Case { seq_lens_kv: Some(lens.to_vec()), ..case.clone() };
                    now.q.data_mut().rotate_left(5 * step as usize);
                    ctx.queue().write_buffer(&layer.buffers.q, 0, bytemuck::cast_slice(now.q.data()));
                    let on_gpu = layer.buffers.seq_lens_kv.as_ref().unwrap();
                    ctx.queue().write_buffer(on_gpu, 0, bytemuck::cast_slice(&lens));
                    if let Some(stage) = selection.first_stage(step) {
                        let inputs = now.inputs();
                        expected = cpu::select_from(&selection, &inputs.for_selection(), stage, &mut cache).unwrap();
                    }
                    let (blocks, output) = layer.step(ctx, step);
                    let name = format!("{} {tier} {granularity} step {step}", ctx.describe());
                    assert_lists_equal(&blocks, &expected, &name);
                    let selected = SelectedCase { name, case: now, selection: selection.blocks(), blocks };
                    selected.check(&output, Exp::Gpu(16)); // no tile is smaller
                }
            }
        }
    }
}

/// With query blocks of one query, the lists of a prompt's last queries equal the lists of decoding them one by one, and the results are
/// equal up to rounding.
#[test]
fn decoding_is_the_end_of_the_prompt() {
    let hip = HIP.with_block_size_q(1).with_stride_q(1);
    let infinite = three_stages()
        .with_block_size_q(1)
        .with_stages(three_stages().stages.into_iter().map(|stage| stage.with_stride_q(1)).collect());
    let methods: [SelectionMethod; 2] = [hip.into(), infinite.into()];
    for method in methods {
        let select =
            |shape| SelectionProblem::new(shape, DType::F32, method.clone()).with_selection_scale(1.0).with_margin(16);
        let prompt = integers(shape(1, [5, 300], [2, 2], 16), 9);
        for ctx in contexts() {
            let tier = ctx.caps().best_tier();
            let (lists, together) = Layer::new(ctx, tier, &prompt, select(prompt.shape)).step(ctx, 0);
            for query in 0..5usize {
                let of = AttentionShape { seq_len_q: 1, ..prompt.shape };
                let width = 4 * 16;
                let row = prompt.q.data()[query * width..][..width].to_vec();
                let seq_lens_kv = Some(vec![296 + query as u32]);
                let case = Case { shape: of, q: HostTensor::new(of.q(), row).unwrap(), seq_lens_kv, ..prompt.clone() };
                let (blocks, output) = Layer::new(ctx, tier, &case, select(of).with_seq_lens_kv()).step(ctx, 0);
                let name = format!("{} query {query}", ctx.describe());
                for set in 0..blocks.shape()[1] {
                    assert_eq!(blocks.list(0, set, 0), lists.list(0, set, query as u32), "{name} set {set}");
                }
                for head in 0..4 {
                    let (one, row) = (output.out.row(0, 0, head), together.out.row(0, query, head));
                    // Scores are small integers over 4: only the exponentials and the sums of about 50 keys round.
                    assert!(one.iter().zip(row).all(|(x, y)| (x - y).abs() < 5e-6), "{name}: {one:?} {row:?}");
                }
                SelectedCase { name, case, selection: select(of).blocks(), blocks }.check(&output, Exp::Gpu(16));
            }
        }
    }
}

/// The one-shot call gives the same on a GPU and on the CPU.
#[test]
fn the_one_call() {
    let case = integers(shape(1, [20, 300], [2, 2], 16), 12);
    let selection = SelectionProblem::new(case.shape, DType::F32, HIP).with_selection_scale(1.0);
    let options = SparseOptions::default().with_captured_mass(Measure::Compute).with_recall(Measure::Compute);
    for ctx in contexts() {
        let (engine, name) = (Engine::Gpu(ctx.clone()), ctx.describe());
        for dense_below in [0, 290, 299, 300] {
            let options = options.with_dense_below(dense_below);
            let run = |engine: &Engine| {
                engine.attend_sparse(&case.problem(), &selection, &case.inputs(), &options).wait().unwrap()
            };
            let (got, expected) = (run(&engine), run(&Engine::cpu()));
            assert_eq!(
                (got.path, &got.blocks, &got.recall),
                (expected.path, &expected.blocks, &expected.recall),
                "{name}"
            );
            let (mass, expected) = (got.captured_mass.unwrap(), expected.captured_mass.unwrap());
            for (mass, expected) in mass.data().iter().zip(expected.data()) {
                assert!((mass - expected).abs() < 1e-5 && *mass <= 1.0 + 1e-5, "{name}: {mass} {expected}");
            }
            let dense = engine.attend(&case.problem(), &case.inputs()).wait().unwrap();
            match got.blocks {
                None => assert_eq!(got.output, dense, "{name}"),
                Some(blocks) => {
                    assert_eq!(mass, captured_mass(&got.output.lse, &dense.lse).unwrap());
                    let selection = selection.clone().with_dense_below(dense_below).blocks();
                    SelectedCase { name: name.clone(), case: case.clone(), selection, blocks }
                        .check(&got.output, Exp::Gpu(16));
                }
            }
        }
    }
}

/// By default the one-shot call is dense up to the crossover of its device.
#[test]
fn the_one_call_follows_the_speed_of_its_device() {
    let case = integers(shape(1, [1, 2500], [2, 2], 16), 13);
    let selection = SelectionProblem::new(case.shape, DType::F32, HIP).with_selection_scale(1.0);
    for ctx in contexts() {
        // Speeds without any latency, or with only latency; reads that take no time, or much.
        for (bytes_per_us, trip_ns, expected) in
            [(1, 0, AttentionPath::Sparse), (u64::MAX, 1 << 40, AttentionPath::Dense)]
        {
            let speed = DeviceSpeed::H100.with_bytes_per_us(bytes_per_us).with_trip_ns(trip_ns).with_dispatch_ns(1);
            let ctx = ctx.with_speed(speed);
            let crossover = SelectionPlan::crossover(&selection, ctx.caps()).unwrap();
            assert_eq!(crossover >= 2500, expected == AttentionPath::Dense, "{crossover}");
            let engine = Engine::Gpu(ctx);
            let options = SparseOptions::default();
            let got = engine.attend_sparse(&case.problem(), &selection, &case.inputs(), &options).wait().unwrap();
            assert_eq!(got.path, expected, "{crossover}");
            let options = options.with_dense_below(crossover);
            let same = engine.attend_sparse(&case.problem(), &selection, &case.inputs(), &options).wait().unwrap();
            assert_eq!(got.output, same.output);
        }
    }
}
