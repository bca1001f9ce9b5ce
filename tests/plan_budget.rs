//! Grids are cut by their cost: every place once, in order, and no dispatch past the budget. No GPU.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, Dispatch, DispatchBudget, Error, Hip, Mask,
    MergePlan, MergeProblem, Preset, SelectionMethod, SelectionPlan, SelectionProblem, Tier, Tiling, kernels,
};

fn caps(budget: DispatchBudget, software: bool) -> DeviceCaps {
    let mut caps = DeviceCaps::BASELINE;
    caps.budget = budget;
    caps.software = software;
    caps
}

/// The walks of all places of a grid in tiles, row by row from the mask's definition: the last rows first, on a software device in turns
/// with the first rows.
fn walks(problem: &AttentionProblem, tiling: Tiling, software: bool) -> Vec<u64> {
    let shape = problem.shape();
    let group = shape.group_size();
    let rows = shape.seq_len_q * group;
    let mut walks = Vec::new();
    let mut row_tiles: VecDeque<u32> = (0..rows.div_ceil(tiling.tile_q())).collect();
    let mut from_front = false;
    while let Some(row_tile) = if from_front { row_tiles.pop_front() } else { row_tiles.pop_back() } {
        from_front = software && !from_front;
        let tile_rows = row_tile * tiling.tile_q()..rows.min((row_tile + 1) * tiling.tile_q());
        let seen = tile_rows.map(|row| problem.mask().visible(row / group, shape.seq_len_q, shape.seq_len_kv));
        let (begin, end) = seen.fold((u32::MAX, 0), |(begin, end), keys| (begin.min(keys.start), end.max(keys.end)));
        let tiles = end.saturating_sub(begin).div_ceil(tiling.tile_kv());
        let border = |split: u32| tiles * split / tiling.num_splits;
        walks.extend((0..tiling.num_splits).map(|split| u64::from((border(split + 1) - border(split)).max(1))));
    }
    walks.repeat((shape.num_kv_heads * shape.batch_size) as usize)
}

/// Every place of a grid belongs to exactly one stretch, in order; parts of walks follow one another without a gap. Returns the tiles of a
/// part.
fn assert_covers(dispatch: &Dispatch, num_places: u64, what: &str) -> Option<u32> {
    let (mut next, mut part) = (0, None);
    let mut walking: Option<(u32, u32, u32)> = None; // the places, and the tiles walked so far
    for stretch in &dispatch.stretches {
        if stretch.first_tile == 0 {
            assert_eq!(stretch.first, next, "{what}");
            next = stretch.end;
        } else {
            let (first, end, tile) = walking.unwrap();
            assert_eq!((stretch.first, stretch.end), (first, end), "{what}");
            let tiles = stretch.first_tile - tile;
            assert_eq!(*part.get_or_insert(tiles), tiles, "{what}");
        }
        walking = Some((stretch.first, stretch.end, stretch.first_tile));
        assert!(stretch.end > stretch.first, "{what}");
        let [x, y, z] = stretch.workgroups.map(u64::from);
        assert!(x <= 65535 && y <= 65535 && z == 1, "{what}: {stretch:?}");
        let (workgroups, places) = (x * y, u64::from(stretch.end - stretch.first));
        if dispatch.kernel() == &kernels::SEARCH_TREE {
            assert!(workgroups <= places, "{what}: {stretch:?}");
        } else if u64::from(stretch.end) < num_places {
            assert_eq!(workgroups, places, "{what}: {stretch:?} runs into the next stretch");
        } else {
            assert!(workgroups >= places && workgroups - places < y, "{what}: {stretch:?}");
        }
    }
    assert_eq!(u64::from(next), num_places, "{what}");
    part
}

fn shapes() -> impl Strategy<Value = AttentionShape> {
    (1u32..4, 0u32..3000, prop_oneof![0u32..40, 0u32..100_000], 1u32..4, 1u32..9, 1u32..33).prop_map(
        |(batch_size, seq_len_q, seq_len_kv, kv, group, width)| AttentionShape {
            batch_size,
            seq_len_q,
            seq_len_kv,
            num_q_heads: kv * group,
            num_kv_heads: kv,
            head_dim: 4 * width,
            head_dim_v: 4 * width,
        },
    )
}

fn masks() -> impl Strategy<Value = Mask> {
    let side = || prop_oneof![Just(None), (0u32..2000).prop_map(Some)];
    prop_oneof![
        Just(Mask::Full),
        Just(Mask::Causal),
        (side(), side()).prop_map(|(left, right)| Mask::Window { left, right })
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_dispatch_passes_the_budget(
        shape in shapes(),
        mask in masks(),
        (dispatch, workgroup) in (22u32..40, 20u32..34),
        splits in prop_oneof![Just(1u32), 2u32..9],
        software in any::<bool>(),
    ) {
        let budget = DispatchBudget::new(1 << dispatch, 1 << workgroup);
        let caps = caps(budget, software);
        let problem = AttentionProblem::new(shape, DType::F32).with_mask(mask);
        let chosen = AttentionPlan::new(&problem, &caps).unwrap().tiling();
        let tiling = chosen.with_num_splits(splits);
        let plan = match AttentionPlan::with_tiling(&problem, &caps, Tier::Baseline, tiling) {
            Ok(plan) => plan,
            // Partial results of many rows.
            Err(error) => {
                prop_assert!(matches!(error, wattn::Error::Limit { .. }), "{}", error);
                return Ok(());
            }
        };
        let what = format!("{budget:?}\n{plan}");
        let walks = walks(&problem, tiling, software);
        let attend = &plan.dispatches()[0];
        let part = assert_covers(attend, walks.len() as u64, &what).map_or(u64::MAX, u64::from);

        let columns = u64::from(shape.head_dim + shape.head_dim_v);
        let rows = u64::from(tiling.tile_q()) + DispatchBudget::FETCH;
        let tile = u64::from(tiling.tile_kv()) * columns * rows;
        let mut walked: BTreeMap<u32, u64> = BTreeMap::new();
        for stretch in &attend.stretches {
            let places = &walks[stretch.first as usize..stretch.end as usize];
            let first_tile = u64::from(stretch.first_tile);
            let tiles: Vec<u64> = places.iter().map(|&walk| walk.saturating_sub(first_tile).min(part)).collect();
            let operations = tiles.iter().sum::<u64>() * tile;
            prop_assert!(operations <= budget.dispatch_operations() || tiles.len() == 1, "{:?} {}", stretch, what);
            // A part has at least a tile, and an uncut walk costs no more than the work that is never cut.
            let longest = tiles.iter().copied().max().unwrap_or(0) * tile;
            let allowed = budget.workgroup_operations().min(DispatchBudget::LEAST_WORKGROUP).max(tile);
            prop_assert!(longest <= allowed.max(budget.workgroup_operations()), "{:?} {}", stretch, what);
            for (place, tiles) in (stretch.first..).zip(tiles) {
                *walked.entry(place).or_default() += tiles;
            }
        }
        // The parts of each walk add up to the walk.
        prop_assert!(walked.into_values().eq(walks.iter().copied()), "{}", what);
        for merge in &plan.dispatches()[1..] {
            let items = u64::from(shape.batch_size * shape.seq_len_q * shape.num_q_heads) * u64::from(shape.head_dim_v / 4);
            // Several invocations may share the parts of an item.
            let constant = |name| u64::from(merge.specialization.constant(name).unwrap());
            assert_covers(merge, items.div_ceil(constant("WORKGROUP_SIZE") / constant("PART_LANES")), &what);
        }
    }

    #[test]
    fn selections_are_covered(shape in shapes(), method in 0usize..4, dispatch in 16u32..36) {
        let methods: [SelectionMethod; 4] =
            [Hip::default().into(), Hip::decode().into(), Preset::ThreeK.into(), Preset::Debug.into()];
        let shape = AttentionShape { seq_len_kv: shape.seq_len_kv.max(1), ..shape };
        let problem = SelectionProblem::new(shape, DType::F32, methods[method].clone());
        let whole = SelectionPlan::new(&problem, &caps(DispatchBudget::UNLIMITED, true)).unwrap();
        let cut = SelectionPlan::new(&problem, &caps(DispatchBudget::new(1 << dispatch, 1), true)).unwrap();
        prop_assert_eq!(whole.dispatches().len(), cut.dispatches().len());
        for (whole, cut) in whole.dispatches().iter().zip(cut.dispatches()) {
            prop_assert!(whole.stretches.len() <= 1, "{:?}", whole);
            prop_assert_eq!(&whole.specialization, &cut.specialization);
            let num_places = whole.stretches.first().map_or(0, |stretch| stretch.end);
            prop_assert_eq!(assert_covers(cut, num_places.into(), &cut.to_string()), None);
        }
    }
}

/// A calibration must not choose between variants of a kernel, which may round differently.
#[test]
fn kernels_do_not_depend_on_a_clock() {
    let least = DispatchBudget::LEAST_WORKGROUP;
    let budgets = [
        DispatchBudget::UNLIMITED,
        DispatchBudget::DEFAULT,
        DispatchBudget::new(least, least),
        DispatchBudget::new(1 << 50, 1 << 45),
    ];
    for seq_len_kv in [1000, 20_000, 30_000, 1_000_000, 10_000_000] {
        for seq_len_q in [1, 7, 1000] {
            let shape = AttentionShape {
                batch_size: 1,
                seq_len_q,
                seq_len_kv,
                num_q_heads: 8,
                num_kv_heads: 2,
                head_dim: 128,
                head_dim_v: 128,
            };
            let problem = AttentionProblem::new(shape, DType::F16).with_mask(Mask::Causal);
            let plans = budgets.map(|budget| AttentionPlan::new(&problem, &caps(budget, false)).unwrap());
            for plan in &plans {
                assert_eq!(plan.tiling(), plans[0].tiling(), "{plan}");
                for (a, b) in plan.dispatches().iter().zip(plans[0].dispatches()) {
                    assert_eq!(a.specialization, b.specialization, "{plan}");
                }
            }
        }
    }
}

/// At any length each dispatch stays within the budget, including parts of single workgroups, and the number of dispatches is the work
/// divided by the budget, within a factor.
#[test]
fn ten_million_keys() {
    for software in [false, true] {
        let budget = DispatchBudget::DEFAULT;
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: 16,
            seq_len_kv: 10_000_000,
            num_q_heads: 8,
            num_kv_heads: 2,
            head_dim: 128,
            head_dim_v: 128,
        };
        let problem = AttentionProblem::new(shape, DType::F16).with_mask(Mask::Causal);
        let mut caps = caps(budget, software);
        caps.max_storage_binding_bytes = 1 << 34;
        let plan = AttentionPlan::new(&problem, &caps).unwrap();
        let tiling = plan.tiling();
        let tile = u64::from(tiling.tile_kv()) * 256 * (u64::from(tiling.tile_q()) + DispatchBudget::FETCH);
        let attend = &plan.dispatches()[0];
        let part = assert_covers(attend, walks(&problem, tiling, software).len() as u64, &plan.to_string()).unwrap();
        assert!(u64::from(part) * tile <= budget.workgroup_operations(), "{plan}");
        let operations = walks(&problem, tiling, software).iter().sum::<u64>() * tile;
        let fewest = operations.div_ceil(budget.dispatch_operations()) as usize;
        assert!((fewest..4 * fewest).contains(&attend.stretches.len()), "{fewest} {plan}");
    }
}

#[test]
fn merges_are_covered() {
    let problem = MergeProblem { num_parts: 3, num_rows: 5000, head_dim_v: 64 };
    for operations in [1, 1 << 16, 1 << 22, 1 << 40] {
        let plan = MergePlan::new(&problem, &caps(DispatchBudget::new(operations, 1), false)).unwrap();
        assert_covers(plan.dispatch(), 5000 * 16 / 64, &plan.to_string());
        let most = if operations == 1 { 1 } else { u32::MAX };
        assert!(plan.dispatch().stretches.iter().all(|stretch| stretch.end - stretch.first <= most), "{plan}");
    }
}

/// Whatever the sizes, a plan is made or refused at once, with little memory: no plan lists dispatches that would run for days, or counts
/// millions of places one by one.
#[test]
fn absurd_sizes_are_refused_at_once() {
    let largest = AttentionProblem::MAX_SEQ_LEN;
    let shape = |[batch_size, seq_len_q, seq_len_kv, num_q_heads, num_kv_heads, width]: [u32; 6]| AttentionShape {
        batch_size,
        seq_len_q,
        seq_len_kv,
        num_q_heads,
        num_kv_heads,
        head_dim: width,
        head_dim_v: width,
    };
    for sizes in [
        [1, largest, largest, 1, 1, 4],
        [1, largest, largest, 8, 8, 4],
        [1, largest, largest, 1, 1, 128],
        [u32::MAX, 1, 1, 1, 1, 4],
        [u32::MAX, largest, largest, u32::MAX, u32::MAX, 256],
        [0, largest, largest, u32::MAX, u32::MAX, 256],
        [1, 1, largest, u32::MAX, 1, 4],
        [1, 1, largest, u32::MAX / 4, u32::MAX / 4, 4],
        [1, 4 << 20, 4 << 20, 8, 8, 128],
        [u32::MAX, 0, 0, u32::MAX, u32::MAX, 256],
    ] {
        for software in [false, true] {
            for mask in [Mask::Full, Mask::Causal, Mask::sliding(100)] {
                for budget in [DispatchBudget::DEFAULT, DispatchBudget::new(1, 1), DispatchBudget::UNLIMITED] {
                    let caps = caps(budget, software);
                    let begin = std::time::Instant::now();
                    let problem = AttentionProblem::new(shape(sizes), DType::F32).with_mask(mask);
                    let what = format!("{sizes:?} {mask}");
                    match AttentionPlan::new(&problem, &caps) {
                        Ok(plan) => assert!(plan.dispatches()[0].stretches.len() <= 1 << 22, "{what}"),
                        Err(Error::TooLarge { needed, available, .. } | Error::Limit { needed, available, .. }) => {
                            assert!(needed > available, "{what}: {needed} {available}");
                        }
                        Err(error) => panic!("{what}: {error}"),
                    }
                    let selection = SelectionProblem::new(shape(sizes), DType::F32, Hip::default());
                    if let Err(error) = SelectionPlan::new(&selection, &caps) {
                        assert!(!error.to_string().is_empty());
                    }
                    assert!(begin.elapsed().as_secs() < 5, "{what}: {:?}", begin.elapsed());
                }
            }
        }
    }
}
