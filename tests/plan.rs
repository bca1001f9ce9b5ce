//! Plans are pure: properties of all plans, for any problem and device, and the full tables of a few. No GPU.
//!
//! After a deliberate change, `WATTN_BLESS=1 cargo test --test plan` writes the golden tables anew.

#[path = "common/devices.rs"]
mod devices;

use std::fmt::Write as _;

use devices::matrix_gpu;
use proptest::prelude::*;
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, DispatchBudget, Granularity, HeadReduction,
    Hip, InfiniteHip, Kernel, Mask, Preset, SelectionMethod, SelectionPlan, SelectionProblem, Tier, kernels,
};

/// Devices as they report themselves.
fn devices() -> Vec<(&'static str, DeviceCaps)> {
    let device = |change: fn(&mut DeviceCaps)| {
        let mut caps = DeviceCaps::BASELINE;
        change(&mut caps);
        caps
    };
    vec![
        ("WebGPU defaults", DeviceCaps::BASELINE),
        (
            "subgroups of 32, f16, 48 KiB",
            device(|caps| {
                caps.shader_f16 = true;
                caps.subgroup_size = Some(32..=32);
                caps.max_workgroup_storage_bytes = 48 << 10;
                caps.max_invocations_per_workgroup = 1024;
            }),
        ),
        ("subgroups of 8 to 32", device(|caps| caps.subgroup_size = Some(8..=32))),
        ("subgroups of 32 to 64", device(|caps| caps.subgroup_size = Some(32..=64))),
        ("subgroups of 4 to 64, f16", {
            device(|caps| {
                caps.shader_f16 = true;
                caps.subgroup_size = Some(4..=64);
            })
        }),
        ("subgroups of 64", device(|caps| caps.subgroup_size = Some(64..=64))),
        ("software, subgroups of 8, u64", {
            device(|caps| {
                (caps.software, caps.shader_int64) = (true, true);
                caps.subgroup_size = Some(8..=8);
            })
        }),
        ("software, subgroups of 4", {
            device(|caps| {
                caps.software = true;
                caps.subgroup_size = Some(4..=4);
            })
        }),
        ("matrices of 16, subgroups of 32, 48 KiB", matrix_gpu()),
    ]
}

fn shapes() -> impl Strategy<Value = AttentionShape> {
    let lengths = (0u32..5, prop_oneof![0u32..40, 0u32..70_000], prop_oneof![0u32..40, 0u32..1_100_000]);
    (lengths, 1u32..9, 1u32..17, 1u32..65, 1u32..65).prop_map(
        |((batch_size, seq_len_q, seq_len_kv), kv, group, d, dv)| AttentionShape {
            batch_size,
            seq_len_q,
            seq_len_kv,
            num_q_heads: kv * group,
            num_kv_heads: kv,
            head_dim: 4 * d,
            head_dim_v: 4 * dv,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_plan_fits_its_device(shape in shapes(), device in 0usize..9, dtype in 0usize..3) {
        let (name, caps) = &devices()[device];
        let problem = AttentionProblem::new(shape, DType::ALL[dtype]).with_mask(Mask::Causal).with_lse();
        for tier in Tier::ALL.into_iter().filter(|&tier| caps.require(tier).is_ok()) {
            if tier.matrix() && problem.dtype() != DType::F16 {
                continue;
            }
            let plan = AttentionPlan::with_tier(&problem, caps, tier).unwrap();
            let tiling = plan.tiling();
            let what = format!("{name}\n{plan}");
            prop_assert!(tiling.workgroup_size() <= caps.max_invocations_per_workgroup, "{}", what);
            let storage = plan.workgroup_storage_bytes();
            prop_assert!(storage <= u64::from(caps.max_workgroup_storage_bytes), "{}", what);

            // Every row belongs to a workgroup, and no workgroup is without rows.
            let attend = &plan.dispatches()[0];
            let rows = u64::from(shape.seq_len_q) * u64::from(shape.group_size());
            let tiles = rows.div_ceil(u64::from(tiling.tile_q()));
            let wanted = tiles * u64::from(tiling.num_splits * shape.num_kv_heads * shape.batch_size);
            let [x, y, z] = attend.workgroups.map(u64::from);
            prop_assert!(x * y * z >= wanted && (x * y * z - wanted) < y.max(1), "{}", what);
            prop_assert!(x.max(y) <= u64::from(caps.max_workgroups_per_dimension), "{}", what);

            // Splits and merge come together, and their workspace stays small at any length, as does the state of cut walks.
            let kernels: Vec<&Kernel> = plan.dispatches().iter().map(|dispatch| dispatch.kernel()).collect();
            if tiling.num_splits == 1 {
                prop_assert_eq!(kernels, [&kernels::ATTEND_PREFILL]);
                prop_assert!(plan.workspace_bytes() <= 16 << 20, "{}", what);
                let is_cut = attend.stretches.iter().any(|stretch| stretch.first_tile > 0);
                prop_assert_eq!(plan.workspace_bytes() > 0, is_cut, "{}", what);
            } else {
                prop_assert_eq!(kernels, [&kernels::ATTEND_DECODE, &kernels::MERGE_SPLITS]);
                prop_assert!(plan.workspace_bytes() <= 33 << 20, "{}", what);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// bf16 by f16 matrices is a permission: where the device or the number of rows does not allow it, the plan equals the plan without
    /// permission.
    #[test]
    fn bf16_take_matrices_where_they_may(shape in shapes(), device in 0usize..9, window in any::<bool>()) {
        let (name, caps) = &devices()[device];
        let mask = if window { Mask::Window { left: Some(20), right: Some(0) } } else { Mask::Causal };
        let problem = AttentionProblem::new(shape, DType::BF16).with_mask(mask).with_lse();
        let allowed = problem.clone().with_bf16_by_f16_matrices();
        let (without, plan) = (AttentionPlan::new(&problem, caps).unwrap(), AttentionPlan::new(&allowed, caps).unwrap());
        let what = format!("{name}\n{without}\n{plan}");
        prop_assert!(!without.tier().matrix(), "{}", what);
        if !plan.tier().matrix() {
            prop_assert_eq!(plan.dispatches(), without.dispatches());
            prop_assert_eq!(plan.tiling(), without.tiling());
            prop_assert_eq!(plan.workspace_bytes(), without.workspace_bytes());
            prop_assert!(AttentionPlan::with_tier(&allowed, caps, Tier::Matrix).is_ok() == caps.matrix_edge().is_some());
            return Ok(());
        }
        let rows = u64::from(shape.seq_len_q) * u64::from(shape.group_size());
        prop_assert!(rows >= 32 && caps.matrix_edge() == Some(16), "{}", what);
        // The exponents are found first, and lie at the end of the workspace; the rest equals the plan for f16 with at least that many
        // rows.
        let f16 = AttentionPlan::new(&AttentionProblem::new(shape, DType::F16).with_mask(mask).with_lse(), caps).unwrap();
        let kernels = |plan: &AttentionPlan| plan.dispatches().iter().map(|dispatch| dispatch.kernel()).collect::<Vec<_>>();
        prop_assert_eq!(kernels(&plan)[0], &kernels::FIND_EXPONENTS);
        prop_assert_eq!(&kernels(&plan)[1..], &kernels(&f16)[..]);
        prop_assert_eq!(plan.tiling(), f16.tiling());
        let heads = u64::from(shape.batch_size) * u64::from(shape.num_q_heads + 2 * shape.num_kv_heads);
        let exponents = plan.workspace_bytes() - f16.workspace_bytes().next_multiple_of(256);
        prop_assert!(exponents.is_multiple_of(heads.max(1) * 4) && exponents <= heads * 32 * 4, "{}", what);
        for dispatch in plan.dispatches() {
            prop_assert!(dispatch.workgroups.iter().all(|&n| n <= caps.max_workgroups_per_dimension), "{}", what);
        }
    }
}

/// Selections of every kind.
fn methods() -> Vec<SelectionMethod> {
    let union = InfiniteHip::from(Preset::FiveK).with_reduction(HeadReduction::Union);
    let mut methods: Vec<SelectionMethod> = Preset::ALL.into_iter().map(SelectionMethod::from).collect();
    methods.extend([Hip::default().into(), Hip::decode().into(), Hip::default().with_top_k(4096).into()]);
    methods.push(union.into());
    methods
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_selection_fits_its_device(shape in shapes(), device in 0usize..9, method in 0usize..10, sets in 0usize..3) {
        let (name, caps) = &devices()[device];
        // Tensors larger than a binding are an error that says so; most of these problems are smaller.
        let shape = AttentionShape { seq_len_q: shape.seq_len_q.min(2000), ..shape };
        let problem = SelectionProblem::new(shape, DType::F16, methods()[method].clone())
            .with_granularity(Granularity::ALL[sets]);
        for tier in Tier::ALL.into_iter().filter(|&tier| caps.require(tier).is_ok()) {
            let plan = match SelectionPlan::with_tier(&problem, caps, tier) {
                Ok(plan) => plan,
                Err(error) => {
                    prop_assert!(matches!(error, wattn::Error::Limit { .. }), "{name} {error}");
                    continue;
                }
            };
            let what = format!("{name}\n{plan}");
            let tiling = plan.tiling();
            let sizes = [tiling.search_size(), tiling.lanes * tiling.score_groups, tiling.top_k_size];
            prop_assert!(sizes.iter().all(|&size| size <= caps.max_invocations_per_workgroup), "{}", what);
            prop_assert!(plan.workgroup_storage_bytes() <= u64::from(caps.max_workgroup_storage_bytes), "{}", what);
            for dispatch in plan.dispatches() {
                prop_assert!(dispatch.workgroups.iter().all(|&n| n <= caps.max_workgroups_per_dimension), "{}", what);
            }
            prop_assert!(plan.samples_bytes() <= caps.max_buffer_bytes, "{}", what);
            for bytes in [plan.scratch_bytes(), plan.cache_bytes()] {
                prop_assert!(bytes <= caps.max_storage_binding_bytes, "{}", what);
            }
            // Attention to the lists is planned like any other attention.
            let attention = AttentionProblem::new(shape, DType::F16).with_mask(Mask::Causal).with_blocks(problem.blocks());
            if let Ok(plan) = AttentionPlan::with_tier(&attention, caps, tier) {
                prop_assert!(plan.dispatches().len() <= 2 && plan.workspace_bytes() <= 33 << 20, "{}\n{}", what, plan);
            }
        }
    }
}

/// HiP's scratch memory does not grow with the queries; InfiniteHiP's scores take one number for each query block and chunk.
#[test]
fn selections_of_long_prompts_need_little_memory() {
    let caps = DeviceCaps::BASELINE;
    let plan = |seq_len_q, seq_len_kv, method: SelectionMethod| {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q,
            seq_len_kv,
            num_q_heads: 2,
            num_kv_heads: 2,
            head_dim: 128,
            head_dim_v: 128,
        };
        SelectionPlan::new(&SelectionProblem::new(shape, DType::F16, method), &caps).unwrap()
    };
    let [short, long] = [32_768, 65_536].map(|len| plan(len, 131_072, Hip::default().into()));
    assert_eq!(short.scratch_bytes(), long.scratch_bytes());
    assert!(long.scratch_bytes() <= 8 << 20, "{long}");
    // 512 query blocks x 4091 chunks (specification 6.3).
    let infinite = plan(32_768, 1 << 20, Preset::ThreeK.into());
    assert_eq!(infinite.scratch_bytes(), 512 * 4091 * 4, "{infinite}");
}

/// 131072 x 131072 causal, in chunks of queries, needs no memory that grows with both lengths, besides its tensors.
#[test]
fn long_contexts_need_next_to_no_workspace() {
    for (name, caps) in devices() {
        for seq_len_q in [1, 64, 1024, 4096, 131_072] {
            let shape = AttentionShape {
                batch_size: 1,
                seq_len_q,
                seq_len_kv: 131_072,
                num_q_heads: 8,
                num_kv_heads: 2,
                head_dim: 128,
                head_dim_v: 128,
            };
            let problem = AttentionProblem::new(shape, DType::F16).with_mask(Mask::Causal);
            let plan = AttentionPlan::new(&problem, &caps).unwrap();
            assert!(plan.workspace_bytes() <= 33 << 20, "{name}\n{plan}");
        }
    }
}

/// The tier that a plan takes unasked.
#[test]
fn tiny_subgroups_of_unknown_size_are_left_alone() {
    let tiers: Vec<(&str, Tier)> = devices().iter().map(|(name, caps)| (*name, caps.best_tier())).collect();
    let wanted = [
        Tier::Baseline,
        Tier::SubgroupF16,
        Tier::Subgroup,
        Tier::Subgroup,
        Tier::F16,
        Tier::Subgroup,
        Tier::Subgroup,
        Tier::Subgroup,
        Tier::SubgroupF16,
    ];
    assert_eq!(tiers.iter().map(|(_, tier)| *tier).collect::<Vec<_>>(), wanted, "{tiers:?}");
}

#[test]
fn plans_print_as_the_golden_table() {
    let shape = |seq_len_q, seq_len_kv, num_q_heads, head_dim| AttentionShape {
        batch_size: 1,
        seq_len_q,
        seq_len_kv,
        num_q_heads,
        num_kv_heads: 8,
        head_dim,
        head_dim_v: head_dim,
    };
    let mut table = "Written by `WATTN_BLESS=1 cargo test --test plan`.\n".to_owned();
    for (name, caps) in devices() {
        for (shape, dtype) in [
            (shape(4096, 4096, 32, 128), DType::F16),
            (shape(1, 65536, 32, 128), DType::F16),
            (shape(512, 512, 8, 64), DType::F32),
            (shape(1, 4096, 8, 256), DType::BF16),
        ] {
            let problem = AttentionProblem::new(shape, dtype).with_mask(Mask::Causal).with_lse();
            let plan = AttentionPlan::new(&problem, &caps).unwrap();
            writeln!(table, "\n{name}\n{plan}").unwrap();
        }
    }
    // With the permission for bf16, devices without matrices have the plan without permission.
    for (name, caps) in devices().iter().filter(|(name, _)| ["WebGPU defaults", devices()[8].0].contains(name)) {
        for (seq_len_q, num_q_heads) in [(4096, 32), (8, 32), (1, 32)] {
            let problem =
                AttentionProblem::new(shape(seq_len_q, 4096, num_q_heads, 128), DType::BF16).with_mask(Mask::Causal);
            let plan = AttentionPlan::new(&problem.with_lse().with_bf16_by_f16_matrices(), caps).unwrap();
            writeln!(table, "\n{name}\n{plan}").unwrap();
        }
    }
    for (name, caps) in devices().iter().take(2) {
        for method in [Hip::decode().into(), SelectionMethod::from(Preset::ThreeK)] {
            let problem = SelectionProblem::new(shape(1, 65536, 32, 128), DType::F16, method);
            let plan = SelectionPlan::new(&problem, caps).unwrap();
            let attention = AttentionProblem::new(*problem.shape(), DType::F16).with_mask(Mask::Causal);
            let sparse = AttentionPlan::new(&attention.with_blocks(problem.blocks()), caps).unwrap();
            writeln!(table, "\n{name}\n{plan}\n{sparse}").unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/plans.txt");
    if std::env::var_os("WATTN_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert!(golden == table, "the plans changed; if that was meant, run WATTN_BLESS=1 cargo test --test plan\n{table}");
}

/// Plain attention takes four storage buffers, and each feature adds its own. A plan that needs more than the device has names the
/// features.
#[test]
fn storage_buffers_are_taken_for_what_is_asked_for() {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 1,
        seq_len_kv: 4096,
        num_q_heads: 8,
        num_kv_heads: 2,
        head_dim: 64,
        head_dim_v: 64,
    };
    let mut caps = DeviceCaps::BASELINE;
    caps.budget = DispatchBudget::new(1, 1);
    let buffers_of = |plan: &AttentionPlan| {
        let of = |dispatch: &wattn::Dispatch| {
            dispatch.specialization.bindings().iter().filter(|binding| binding.kind.is_storage()).count()
        };
        plan.dispatches().iter().map(of).max().unwrap()
    };
    for seq_len_q in [1, 300] {
        let shape = AttentionShape { seq_len_q, ..shape };
        let plain = AttentionProblem::new(shape, DType::F32).with_mask(Mask::Causal);
        caps.max_storage_buffers = 4;
        let plan = AttentionPlan::new(&plain, &caps).unwrap();
        assert_eq!(buffers_of(&plan), 4, "{plan}");
        let error = AttentionPlan::new(&plain.clone().with_seq_lens_kv(), &caps).unwrap_err();
        let expected = "max_storage_buffers_per_shader_stage (key lengths): 5 needed, the device allows 4";
        assert_eq!(error.to_string(), expected);

        // Lists, lengths and a cut walk, on a device with WebGPU's default limits.
        caps.max_storage_buffers = 8;
        let blocks = SelectionProblem::new(shape, DType::F32, Hip::decode()).blocks();
        let sparse = plain.with_blocks(blocks).with_seq_lens_kv();
        let plan = AttentionPlan::new(&sparse, &caps).unwrap();
        let is_cut = |dispatch: &wattn::Dispatch| dispatch.stretches.iter().any(|stretch| stretch.first_tile > 0);
        assert!(plan.dispatches().iter().any(is_cut), "{plan}");
        assert_eq!(buffers_of(&plan), if plan.tiling().num_splits > 1 { 7 } else { 8 }, "{plan}");
        // With an lse no buffer is left for the state: the walk stays whole.
        let plan = AttentionPlan::new(&sparse.with_lse(), &caps).unwrap();
        assert_eq!(plan.dispatches().iter().any(is_cut), plan.tiling().num_splits > 1, "{plan}");
        assert!(buffers_of(&plan) <= 8, "{plan}");
    }
}
