//! Mistakes that planning finds, each with an error of its own, which names the field, the value and the rule.

#[path = "common/devices.rs"]
mod devices;

use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, Error, Hip, HostInputs, HostTensor, Mask,
    MergePlan, MergeProblem, SelectionProblem, Sharing, Tier, Tiling, cpu,
};

const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 3,
    seq_len_kv: 5,
    num_q_heads: 4,
    num_kv_heads: 2,
    head_dim: 8,
    head_dim_v: 12,
};

#[test]
fn problems_break_rules_by_name() {
    let invalid = |spoil: fn(&mut AttentionShape), wanted: (&str, u64)| {
        let mut shape = SHAPE;
        spoil(&mut shape);
        let error = AttentionPlan::new(&AttentionProblem::new(shape, DType::F32), &DeviceCaps::BASELINE).unwrap_err();
        let Error::Invalid { field, value, .. } = error else { panic!("{error}") };
        assert_eq!((field, value), wanted);
    };
    invalid(|s| s.head_dim = 0, ("head_dim", 0));
    invalid(|s| s.head_dim = 6, ("head_dim", 6));
    invalid(|s| s.head_dim = 260, ("head_dim", 260));
    invalid(|s| s.head_dim_v = 2, ("head_dim_v", 2));
    invalid(|s| s.num_q_heads = 3, ("num_q_heads", 3));
    invalid(|s| s.num_q_heads = 0, ("num_q_heads", 0));
    invalid(|s| s.num_kv_heads = 0, ("num_kv_heads", 0));
    invalid(|s| s.seq_len_kv = 1 << 30, ("seq_len_kv", 1 << 30));
    invalid(|s| s.seq_len_q = u32::MAX, ("seq_len_q", u64::from(u32::MAX)));
    for scale in [f32::NAN, f32::INFINITY] {
        let problem = AttentionProblem::new(SHAPE, DType::F32).with_softmax_scale(scale);
        assert!(matches!(problem.validate(), Err(Error::Scale { .. })));
    }
    for (problem, wanted) in [
        (MergeProblem { num_parts: 0, num_rows: 1, head_dim_v: 4 }, "num_parts"),
        (MergeProblem { num_parts: 2, num_rows: 1, head_dim_v: 5 }, "head_dim_v"),
    ] {
        let error = MergePlan::new(&problem, &DeviceCaps::BASELINE).unwrap_err();
        assert!(matches!(error, Error::Invalid { field, .. } if field == wanted), "{error}");
    }
}

/// Lengths of sequences place the queries, and so does this mask: both together are an error. Lists refuse such a mask too.
#[test]
fn causal_at_takes_lengths_of_the_shape() {
    let problem = AttentionProblem::new(SHAPE, DType::F32).with_mask(Mask::causal_at(2));
    AttentionPlan::new(&problem, &DeviceCaps::BASELINE).unwrap();
    let error = AttentionPlan::new(&problem.clone().with_seq_lens_kv(), &DeviceCaps::BASELINE).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "seq_lens_kv", .. }), "{error}");
    let [q, k, v] = [SHAPE.q(), SHAPE.k(), SHAPE.v()].map(HostTensor::<f32>::zeros);
    let lens = vec![1; SHAPE.batch_size as usize];
    let error = cpu::attend(&problem, &HostInputs::new(&q, &k, &v).with_seq_lens_kv(&lens)).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "seq_lens_kv", .. }), "{error}");
    let blocks = SelectionProblem::new(SHAPE, DType::F32, Hip::default()).blocks();
    let error = problem.with_blocks(blocks).validate().unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "mask", .. }), "{error}");
    let selection = SelectionProblem::new(SHAPE, DType::F32, Hip::default()).with_mask(Mask::causal_at(2));
    assert!(selection.validate().is_err());
}

/// An explicit permission is an error where it has no meaning: for other types, and beside lists of blocks.
#[test]
fn bf16_by_f16_matrices_is_for_dense_bf16() {
    let blocks = SelectionProblem::new(SHAPE, DType::BF16, Hip::default()).blocks();
    let bf16 = AttentionProblem::new(SHAPE, DType::BF16).with_mask(Mask::Causal).with_bf16_by_f16_matrices();
    bf16.validate().unwrap();
    let f32 = AttentionProblem::new(SHAPE, DType::F32).with_bf16_by_f16_matrices();
    let f16 = AttentionProblem::new(SHAPE, DType::F16).with_bf16_by_f16_matrices();
    for problem in [f32, f16, bf16.clone().with_blocks(blocks)] {
        let error = AttentionPlan::new(&problem, &DeviceCaps::BASELINE).unwrap_err();
        assert!(matches!(error, Error::Argument { argument: "bf16_by_f16_matrices", .. }), "{error}");
        assert_eq!(problem.validate().unwrap_err().to_string(), error.to_string());
    }
    // A forced tier is an error on a device without it, and for bf16 without the permission.
    let error = AttentionPlan::with_tier(&bf16, &DeviceCaps::BASELINE, Tier::Matrix).unwrap_err();
    assert!(matches!(error, Error::MissingFeature { .. }), "{error}");
    let plain = AttentionProblem::new(SHAPE, DType::BF16);
    let error = AttentionPlan::with_tier(&plain, &devices::matrix_gpu(), Tier::Matrix).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "tier", .. }), "{error}");
    AttentionPlan::with_tier(&bf16, &devices::matrix_gpu(), Tier::Matrix).unwrap();
}

#[test]
fn tiers_and_tilings_must_fit_the_device() {
    let problem = AttentionProblem::new(SHAPE, DType::F16);
    let caps = DeviceCaps::BASELINE;
    for (tier, wanted) in [(Tier::F16, "SHADER_F16"), (Tier::Subgroup, "SUBGROUP"), (Tier::SubgroupF16, "SHADER_F16")] {
        let error = AttentionPlan::with_tier(&problem, &caps, tier).unwrap_err();
        assert!(matches!(error, Error::MissingFeature { feature, .. } if feature == wanted), "{error}");
    }
    let good = Tiling::new(8, 2, 4, 1);
    let bad = |tiling, wanted: &str| match AttentionPlan::with_tiling(&problem, &caps, Tier::Baseline, tiling) {
        Err(Error::Invalid { field, .. } | Error::Limit { limit: field, .. }) => assert_eq!(field, wanted),
        other => panic!("{tiling:?} {other:?}"),
    };
    AttentionPlan::with_tiling(&problem, &caps, Tier::Baseline, good).unwrap();
    bad(good.with_lanes(12), "lanes");
    bad(good.with_lanes(256), "lanes");
    bad(good.with_rows(3), "rows");
    bad(good.with_rows(64), "rows");
    bad(good.with_keys(6), "keys");
    bad(good.with_keys(0), "keys");
    bad(good.with_groups(0), "groups");
    bad(good.with_num_splits(0), "num_splits");
    bad(good.with_num_splits(4097), "num_splits");
    let columns = good.with_sharing(Sharing::Columns);
    for rows in [0, 33] {
        bad(columns.with_rows(rows), "rows");
    }
    for keys in [0, 17] {
        bad(columns.with_keys(keys), "keys");
    }
    bad(columns.with_rows(32).with_keys(16).with_groups(8), "max_compute_workgroup_storage_size");
    bad(good.with_groups(64), "max_compute_invocations_per_workgroup");
    bad(good.with_lanes(32).with_rows(32).with_keys(16), "max_compute_workgroup_storage_size");
    let staged = good.with_sharing(Sharing::Tiles);
    AttentionPlan::with_tiling(&problem, &caps, Tier::Baseline, staged.with_keys(16)).unwrap();
    bad(staged.with_keys(6), "keys");
    bad(staged.with_lanes(32).with_rows(32).with_groups(8), "max_compute_workgroup_storage_size");
}
