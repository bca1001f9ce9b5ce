//! Refusals of inputs, builders and engines; and getters read the values that setters set.

use wattn::{
    AttentionProblem, AttentionShape, BlockListSpec, Context, ContextOptions, DType, Engine, Error, Granularity, Hip,
    HostBlockLists, HostInputs, HostTensor, InfiniteHip, Mask, Preset, SelectionInputs, SelectionProblem,
    SoftwareAdapters, SparseOptions, Stage, Tier, Tiling, cpu,
};

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 3,
    seq_len_kv: 9,
    num_q_heads: 4,
    num_kv_heads: 2,
    head_dim: 8,
    head_dim_v: 4,
};

const SPEC: BlockListSpec = BlockListSpec::new(2, 4, 2).with_granularity(Granularity::KvHead).with_window_size(2);

fn tensors() -> [HostTensor; 3] {
    [SHAPE.q(), SHAPE.k(), SHAPE.v()].map(|shape| {
        let len: u32 = shape.iter().product();
        HostTensor::new(shape, (0..len).map(|i| (i * 37 % 64) as f32 / 64.0 - 0.5).collect()).unwrap()
    })
}

fn problem() -> AttentionProblem {
    AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::Causal)
}

fn gpu() -> Context {
    let options = ContextOptions::default().with_software(SoftwareAdapters::Accept);
    Context::request(&options).wait().expect("`bash tests/run` installs a software adapter")
}

/// Refusals on the CPU, by the oracle and on a GPU alike; a call with lists takes them.
#[test]
fn lists_come_exactly_where_the_problem_takes_them() {
    let [q, k, v] = tensors();
    let inputs = HostInputs::new(&q, &k, &v);
    let lists = HostBlockLists::empty(SPEC.indices_shape(&SHAPE));
    let refused = |error: &Error, expected: &str| matches!(error, Error::Argument { argument: "blocks", rule } if *rule == expected);
    let mut outputs = Vec::new();
    for engine in [Engine::cpu(), Engine::Oracle, Engine::Gpu(gpu())] {
        let error = engine.attend(&problem().with_blocks(SPEC), &inputs).wait().unwrap_err();
        assert!(refused(&error, "is required by the problem"), "{engine}: {error}");
        let error = engine.attend(&problem(), &inputs.with_blocks(&lists)).wait().unwrap_err();
        assert!(refused(&error, "is not part of the problem"), "{engine}: {error}");
        let wrong = HostBlockLists::empty([2, 4, 2, 2]);
        let error = engine.attend(&problem().with_blocks(SPEC), &inputs.with_blocks(&wrong)).wait().unwrap_err();
        assert!(matches!(error, Error::Shape { tensor: "block_indices", .. }), "{engine}: {error}");
        outputs.push(engine.attend(&problem().with_blocks(SPEC), &inputs.with_blocks(&lists)).wait().unwrap());
    }
    let exact = cpu::oracle::attend(&problem().with_blocks(SPEC), &inputs.with_blocks(&lists)).unwrap();
    assert_eq!(outputs[1], exact);
    for output in &outputs {
        // Rows see the window alone: weighted means of two values below 1.
        assert!(output.out.data().iter().zip(exact.out.data()).all(|(x, y)| (x - y).abs() < 1e-5));
    }
    let selection = SelectionProblem::new(SHAPE, DType::F32, Hip::new());
    let call = Engine::cpu();
    let call = call.attend_sparse(&problem(), &selection, &inputs.with_blocks(&lists), &SparseOptions::default());
    assert!(refused(&call.wait().unwrap_err(), "is not part of the problem"), "a selection makes its own lists");
}

#[test]
fn lengths_are_those_of_the_batch() {
    let [q, k, v] = tensors();
    let inputs = HostInputs::new(&q, &k, &v);
    for engine in [Engine::cpu(), Engine::Oracle, Engine::Gpu(gpu())] {
        let error = engine.attend(&problem(), &inputs.with_seq_lens_kv(&[9])).wait().unwrap_err();
        assert!(matches!(error, Error::Length { tensor: "seq_lens_kv", expected: 2, actual: 1 }), "{error}");
        let error = engine.attend(&problem(), &inputs.with_seq_lens_kv(&[9, 10])).wait().unwrap_err();
        assert!(matches!(error, Error::Invalid { field: "seq_lens_kv", value: 10, .. }), "{error}");
        let selection = SelectionProblem::new(SHAPE, DType::F32, Hip::new());
        let select = |lens| engine.select(&selection, &SelectionInputs::new(&q, &k).with_seq_lens_kv(lens)).wait();
        assert!(matches!(select(&[9]), Err(Error::Length { tensor: "seq_lens_kv", .. })));
        assert!(matches!(select(&[9, 10]), Err(Error::Invalid { field: "seq_lens_kv", value: 10, .. })));
    }
}

/// A context that is held to a tier takes no other tier, in dense attention and in selections.
#[test]
fn a_tier_that_is_not_there_is_an_error() {
    let [q, k, v] = tensors();
    let (inputs, selection) = (HostInputs::new(&q, &k, &v), SelectionProblem::new(SHAPE, DType::F32, Hip::new()));
    let context = gpu();
    for tier in Tier::ALL {
        let held = context.with_tier(tier);
        assert_eq!((held.caps().tier(), context.caps().tier()), (Some(tier), None));
        let (attended, selected) =
            (held.attend(&problem(), &inputs).wait(), held.select(&selection, &inputs.for_selection()).wait());
        match context.caps().require(tier) {
            // Matrices take f16.
            Ok(()) if tier.matrix() => assert!(attended.is_err(), "{tier}"),
            Ok(()) => {
                let got = attended.unwrap();
                let exact = cpu::oracle::attend(&problem(), &inputs).unwrap();
                assert!(got.out.data().iter().zip(exact.out.data()).all(|(x, y)| (x - y).abs() < 1e-5), "{tier}");
                assert_eq!(selected.unwrap(), cpu::select(&selection, &inputs.for_selection()).unwrap(), "{tier}");
                let name = Engine::Gpu(held).describe();
                assert!(name.contains(&format!(", {tier} tier")), "{name}");
            }
            Err(lacking) => {
                for error in [attended.unwrap_err(), selected.unwrap_err()] {
                    assert_eq!(error.to_string(), lacking.to_string());
                }
            }
        }
    }
}

/// The same work, awaited by an executor that has no part in polling the device.
#[test]
fn awaiting_gives_what_waiting_gives() {
    let [q, k, v] = tensors();
    let (inputs, engine) = (HostInputs::new(&q, &k, &v), Engine::Gpu(gpu()));
    let awaited = pollster::block_on(async {
        // Both calls are in flight at the same time.
        let calls = [engine.attend(&problem(), &inputs), engine.attend(&problem(), &inputs)];
        let [first, second] = calls;
        (second.await.unwrap(), first.await.unwrap())
    });
    let waited = engine.attend(&problem(), &inputs).wait().unwrap();
    assert_eq!(awaited, (waited.clone(), waited));
    let error = pollster::block_on(engine.attend(&problem(), &inputs.with_seq_lens_kv(&[1]))).unwrap_err();
    assert!(matches!(error, Error::Length { .. }), "{error}");
}

#[test]
fn getters_read_what_setters_set() {
    let built = problem()
        .with_softmax_scale(0.25)
        .with_out_dtype(DType::F16)
        .with_blocks(SPEC)
        .with_lse()
        .with_seq_lens_kv()
        .with_aligned_rows();
    assert_eq!((built.mask(), built.softmax_scale(), built.out_dtype()), (Mask::Causal, 0.25, DType::F16));
    assert_eq!((built.blocks(), built.lse(), built.seq_lens_kv()), (Some(&SPEC), true, true));
    assert_eq!((built.aligned_rows(), built.bf16_by_f16_matrices()), (true, false));
    assert_eq!([built.q_shape(), built.k_shape(), built.v_shape()], [[2, 3, 4, 8], [2, 9, 2, 8], [2, 9, 2, 4]]);
    assert_eq!([built.out_shape(), built.lse_shape()], [[2, 3, 4, 4], [2, 3, 4, 1]]);
    let plain = AttentionProblem::new(SHAPE, DType::F32);
    assert_eq!((plain.mask(), plain.out_dtype(), plain.blocks()), (Mask::Full, DType::F32, None));
    assert!(!plain.lse() && !plain.seq_lens_kv() && !plain.aligned_rows());

    let selection = SelectionProblem::new(SHAPE, DType::F32, Hip::new())
        .with_granularity(Granularity::Layer)
        .with_selection_scale(2.0)
        .with_margin(7)
        .with_dense_below(5)
        .with_seq_lens_kv();
    assert_eq!((selection.granularity(), selection.selection_scale()), (Granularity::Layer, 2.0));
    assert_eq!((selection.margin(), selection.dense_below(), selection.seq_lens_kv()), (7, 5, true));
    assert_eq!((selection.q_shape(), selection.k_shape()), (SHAPE.q(), SHAPE.k()));

    let [q, k, v] = tensors();
    let lists = HostBlockLists::empty(SPEC.indices_shape(&SHAPE));
    let inputs = HostInputs::new(&q, &k, &v).with_seq_lens_kv(&[1, 2]).with_blocks(&lists);
    assert!(core::ptr::eq(inputs.q(), &q) && core::ptr::eq(inputs.k(), &k) && core::ptr::eq(inputs.v(), &v));
    assert_eq!((inputs.seq_lens_kv(), inputs.blocks()), (Some(&[1, 2][..]), Some(&lists)));
    assert_eq!(inputs.for_selection().seq_lens_kv(), Some(&[1, 2][..]));
}

/// Constructors have the documented defaults.
#[test]
fn constructors_have_their_defaults() {
    let spec = BlockListSpec::new(64, 16, 8);
    assert_eq!((spec.block_size_q, spec.block_size, spec.max_blocks), (64, 16, 8));
    assert_eq!(
        (spec.granularity, spec.sink_size, spec.window_size, spec.dense_below),
        (Granularity::QueryHead, 0, 0, 0)
    );
    let stage = Stage::new(32, 64);
    assert_eq!((stage.chunk_size, stage.keep, stage.stride_q, stage.refresh_interval), (32, 64, 1, 1));
    let (infinite, preset) = (InfiniteHip::new(vec![stage]), InfiniteHip::from(Preset::ThreeK));
    assert_eq!(infinite, preset.with_stages(vec![stage]));
    assert_eq!(Hip::new(), Hip::default());
    let tiling = Tiling::new(8, 2, 4, 1);
    assert_eq!((tiling.lanes, tiling.rows, tiling.keys, tiling.groups, tiling.num_splits), (8, 2, 4, 1, 1));
    assert_eq!(tiling.with_num_splits(3).num_splits, 3);
}
