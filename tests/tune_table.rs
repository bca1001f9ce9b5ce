//! Candidates, the table of winners, and plans that use it. Needs no device.

#[path = "common/devices.rs"]
mod devices;

use devices::matrix_gpu;
use wattn::tune::{
    Candidate, DeviceKey, Entry, TuneError, TuningTable, attention_neighbours, attention_starts, selection_neighbours,
    selection_starts,
};
use wattn::{
    AttentionClass, AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, Hip, Mask, SelectionClass,
    SelectionPlan, SelectionProblem, Sharing, Tier, Tiling, TunedAt, Tuning,
};

fn shape(seq_len_q: u32, seq_len_kv: u32) -> AttentionShape {
    AttentionShape {
        batch_size: 1,
        seq_len_q,
        seq_len_kv,
        num_q_heads: 8,
        num_kv_heads: 2,
        head_dim: 64,
        head_dim_v: 64,
    }
}

fn problem(seq_len_q: u32, seq_len_kv: u32) -> AttentionProblem {
    AttentionProblem::new(shape(seq_len_q, seq_len_kv), DType::F16).with_mask(Mask::Causal)
}

fn selection(seq_len_kv: u32) -> SelectionProblem {
    SelectionProblem::new(shape(64, seq_len_kv), DType::F16, Hip::default())
}

fn key(adapter: &str) -> DeviceKey {
    DeviceKey {
        adapter: adapter.to_owned(),
        pci: [1, 2],
        backend: "vulkan".to_owned(),
        driver: ["a".to_owned(), "1.0".to_owned()],
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn entry<C, T>(class: C, tier: Tier, tiling: T) -> Entry<C, T> {
    Entry { class, candidate: Candidate { tier, tiling }, seconds: 1.0, untuned_seconds: 1.5, left_out: 0 }
}

#[test]
fn candidates_are_what_the_device_takes_each_once() {
    for caps in [DeviceCaps::BASELINE, matrix_gpu()] {
        for problem in [problem(512, 4096), problem(1, 16384)] {
            let starts = attention_starts(&problem, &caps);
            // Few rows may share the rows of keys or not; many rows may share tiles or not.
            let each = 2;
            let mut tiers: Vec<Tier> = starts.iter().map(|start| start.tier).collect();
            tiers.dedup();
            let offered: Vec<Tier> = Tier::ALL.into_iter().filter(|&tier| caps.require(tier).is_ok()).collect();
            assert_eq!(tiers, offered);
            // Where no f16 is loaded, tiers that differ only in f16 count as one.
            let of_f32 = attention_starts(&AttentionProblem::new(*problem.shape(), DType::F32), &caps);
            assert_eq!(of_f32.len(), each * if caps.shader_f16 { 2 } else { 1 });
            for start in starts {
                let around = attention_neighbours(&problem, &caps, start);
                // Every size whose half or double the device takes is tried, and no size farther away.
                let Tiling { lanes, rows, keys, groups, num_splits, .. } = start.tiling;
                let steps = [lanes, rows, keys, groups, num_splits].into_iter().enumerate().flat_map(|(size, is)| {
                    [is / 2, is * 2].map(|becomes| {
                        let mut tiling = start.tiling;
                        let Tiling { lanes, rows, keys, groups, num_splits, .. } = &mut tiling;
                        *[lanes, rows, keys, groups, num_splits].into_iter().nth(size).unwrap() = becomes;
                        tiling
                    })
                });
                for tiling in steps.filter(|tiling| *tiling != start.tiling) {
                    let taken = AttentionPlan::with_tiling(&problem, &caps, start.tier, tiling).is_ok();
                    let tried = around.iter().any(|other| other.tiling == tiling);
                    assert_eq!(tried, taken, "{start}: {tiling}");
                }
                for Candidate { tiling, .. } in &around {
                    let sizes = |of: &Tiling| [of.lanes, of.rows, of.keys, of.groups, of.num_splits];
                    let changed =
                        sizes(tiling).iter().zip(sizes(&start.tiling)).filter(|(new, old)| *new != old).count();
                    assert!(
                        changed == 1 || changed == 2 && tiling.sharing == start.tiling.sharing,
                        "{start}: {tiling}"
                    );
                }
                for (at, Candidate { tier, tiling }) in around.iter().enumerate() {
                    assert_eq!(*tier, start.tier);
                    assert!(*tiling != start.tiling && around[..at].iter().all(|other| other.tiling != *tiling));
                    AttentionPlan::with_tiling(&problem, &caps, *tier, *tiling).unwrap();
                }
            }
        }
        for start in selection_starts(&selection(8192), &caps) {
            let around = selection_neighbours(&selection(8192), &caps, start);
            // The other members of families are tried wherever the device takes them.
            for (sharing, rows) in [(Sharing::Keys, start.tiling.rows), (Sharing::Columns, 1)] {
                let tiling = start.tiling.with_sharing(sharing).with_rows(rows);
                let taken = SelectionPlan::with_tiling(&selection(8192), &caps, start.tier, tiling).is_ok();
                let tried = around.iter().any(|other| other.tiling == tiling) || tiling == start.tiling;
                assert_eq!(tried, taken, "{start}: {tiling}");
            }
            for Candidate { tier, tiling } in around {
                SelectionPlan::with_tiling(&selection(8192), &caps, tier, tiling).unwrap();
            }
        }
    }
    // The first candidates for hardware with matrices: one row of matrices and two, four groups and eight; then longer and shorter tiles.
    let mut caps = matrix_gpu();
    caps.max_workgroup_storage_bytes = 100 << 10;
    let mut starts = attention_starts(&problem(512, 4096), &caps);
    starts.retain(|start| start.tier == Tier::Matrix);
    let start = starts[0];
    let has = |of: &[Candidate<Tiling>], wanted: Tiling| of.iter().any(|candidate| candidate.tiling == wanted);
    for (rows, groups) in [(16, 4), (16, 8), (32, 4), (32, 8)] {
        assert!(has(&starts, start.tiling.with_rows(rows).with_groups(groups)), "{starts:?}");
    }
    let around = attention_neighbours(&problem(512, 4096), &caps, start);
    for keys in [start.tiling.keys / 2, 2 * start.tiling.keys] {
        assert!(has(&around, start.tiling.with_keys(keys)), "{around:?}");
    }
}

#[test]
fn classes_tell_apart_what_tiles_differently() {
    let class = AttentionClass::of(&problem(512, 4096));
    assert_eq!(class, AttentionClass::of(&problem(500, 4000)), "the same powers of two");
    assert_eq!(class, AttentionClass::of(&problem(512, 4096).with_lse().with_out_dtype(DType::F32)));
    assert_eq!(class, AttentionClass::of(&problem(512, 2049)));
    for other in [
        problem(512, 4097),
        problem(512, 2048),
        problem(256, 4096),
        problem(512, 4096).with_mask(Mask::Full),
        AttentionProblem::new(shape(512, 4096), DType::F32).with_mask(Mask::Causal),
        AttentionProblem::new(AttentionShape { head_dim: 32, ..shape(512, 4096) }, DType::F16).with_mask(Mask::Causal),
        problem(512, 4096).with_blocks(selection(4096).blocks()),
    ] {
        assert_ne!(class, AttentionClass::of(&other), "{}", AttentionClass::of(&other));
    }
    assert_eq!(class.to_string(), "f16 64/64 causal, 2^1 sets of 2^11 rows x 2^12 keys");
    assert_ne!(SelectionClass::of(&selection(8192)), SelectionClass::of(&selection(8193)));
}

#[test]
fn plans_take_what_was_measured_and_only_that() {
    let (caps, asked) = (matrix_gpu(), problem(512, 4096));
    let untuned = AttentionPlan::new(&asked, &caps).unwrap();
    assert!(!untuned.is_tuned() && !untuned.to_string().contains("measured"));
    let tiling = Tiling::new(16, 2, 4, 2);
    let mut tuning = Tuning::new();
    assert!(tuning.is_empty());
    tuning.set_attention(AttentionClass::of(&asked), Tier::Baseline, tiling);
    let of_selection = SelectionPlan::new(&selection(8192), &caps).unwrap().tiling().with_max_searches(7);
    let tier = SelectionPlan::best_tier(&selection(8192), &caps);
    tuning.set_selection(SelectionClass::of(&selection(8192)), tier, of_selection);
    assert_eq!(tuning.len(), 2);

    let tuned_caps = caps.clone().with_tuning(tuning);
    let plan = AttentionPlan::new(&asked, &tuned_caps).unwrap();
    assert_eq!((plan.tier(), plan.tiling(), plan.is_tuned()), (Tier::Baseline, tiling, true));
    assert!(plan.to_string().contains("baseline: measured, tiles of 4 rows"), "{plan}");
    assert_eq!(SelectionPlan::new(&selection(8192), &tuned_caps).unwrap().tiling(), of_selection);
    // A forced tier keeps its own tiling, and so does a problem of another class.
    let forced = AttentionPlan::with_tier(&asked, &tuned_caps, Tier::Subgroup).unwrap();
    assert_eq!(forced, AttentionPlan::with_tier(&asked, &caps, Tier::Subgroup).unwrap());
    let other = problem(512, 4096).with_mask(Mask::Full);
    assert_eq!(AttentionPlan::new(&other, &tuned_caps).unwrap(), AttentionPlan::new(&other, &caps).unwrap());
    // With the table taken away again.
    assert_eq!(AttentionPlan::new(&asked, &tuned_caps.with_tuning(Tuning::new())).unwrap(), untuned);
}

/// A device on which these classes were measured, each with its own number of keys a lane.
fn measured(classes: &[(&AttentionProblem, u32)]) -> DeviceCaps {
    let mut tuning = Tuning::new();
    for (problem, keys) in classes {
        let tiling = Tiling::new(16, 1, *keys, 4);
        tuning.set_attention(AttentionClass::of(problem), Tier::Baseline, tiling);
    }
    matrix_gpu().with_tuning(tuning)
}

/// The measured tiling that a plan has, if any.
fn taken(problem: &AttentionProblem, caps: &DeviceCaps) -> Option<(u32, TunedAt)> {
    let plan = AttentionPlan::new(problem, caps).unwrap();
    plan.tuned_at().map(|at| (plan.tiling().keys, at))
}

#[test]
fn sizes_that_were_not_measured_take_the_nearest_that_were() {
    let caps = measured(&[(&problem(8192, 8192), 4), (&problem(512, 1024), 8), (&problem(1, 4096), 12)]);
    let nearby = |keys| Some((keys, TunedAt::NeighbouringSize));
    assert_eq!(taken(&problem(8192, 8192), &caps), Some((4, TunedAt::ThisSize)));
    assert_eq!(taken(&problem(16_384, 16_384), &caps), nearby(4), "twice as long as what was measured");
    assert_eq!(taken(&problem(131_072, 131_072), &caps), nearby(4));
    assert_eq!(taken(&problem(512, 2048), &caps), nearby(8));
    assert_eq!(taken(&problem(64, 1024), &caps), nearby(8));
    // 2^11 rows and 2^11 keys are equally far from both: the smaller class counts.
    assert_eq!(taken(&problem(512, 2048), &measured(&[(&problem(512, 4096), 4), (&problem(512, 1024), 8)])), nearby(8));
    assert_eq!(taken(&problem(512, 2048), &measured(&[(&problem(512, 1024), 8), (&problem(512, 4096), 4)])), nearby(8));
    // Tilings of decoding do not serve prompts, nor the reverse.
    assert_eq!(taken(&problem(1, 65_536), &caps), nearby(12));
    let prompts = measured(&[(&problem(512, 4096), 4)]);
    assert_eq!(taken(&problem(1, 4096), &prompts), None);
    assert_eq!(taken(&problem(64, 4096), &measured(&[(&problem(1, 4096), 12)])), None);
    // Other types, widths and masks do not match either.
    let other = AttentionProblem::new(shape(512, 8192), DType::F32).with_mask(Mask::Causal);
    assert_eq!(taken(&other, &prompts), None);
    assert_eq!(taken(&problem(512, 8192).with_mask(Mask::Full), &prompts), None);
    assert_eq!(taken(&problem(512, 8192).with_blocks(selection(8192).blocks()), &prompts), None);

    let plan = AttentionPlan::new(&problem(16_384, 16_384), &caps).unwrap();
    assert!(plan.is_tuned() && plan.to_string().contains("baseline: measured at a neighbouring size, tiles"), "{plan}");
}

#[test]
fn what_a_neighbour_does_not_fit_goes_to_the_next_one() {
    // Eight rows a group where there are four.
    let few = |rows| Tiling::new(16, rows, 4, 4).with_num_splits(7);
    let mut tuning = Tuning::new();
    let group_of_16 = AttentionShape { num_q_heads: 16, num_kv_heads: 1, ..shape(1, 8192) };
    let wide = AttentionProblem::new(group_of_16, DType::F16).with_mask(Mask::Causal);
    let narrow =
        AttentionProblem::new(AttentionShape { num_q_heads: 2, ..group_of_16 }, DType::F16).with_mask(Mask::Causal);
    tuning.set_attention(AttentionClass::of(&wide), Tier::Baseline, few(16));
    let one_of_two = |tuning: &Tuning| {
        let caps = matrix_gpu().with_tuning(tuning.clone());
        let plan = AttentionPlan::new(&narrow, &caps).unwrap();
        plan.tuned_at().map(|_| plan.tiling())
    };
    assert_eq!(one_of_two(&tuning), None, "16 rows for two");
    let far = AttentionProblem::new(AttentionShape { seq_len_kv: 1 << 20, ..*narrow.shape() }, DType::F16);
    tuning.set_attention(AttentionClass::of(&far.with_mask(Mask::Causal)), Tier::Baseline, few(2));
    let tiling = one_of_two(&tuning).unwrap();
    // Tiles are the measured ones; splits follow the keys.
    assert_eq!(tiling.with_num_splits(7), few(2));
    assert_ne!(tiling.num_splits, 7);
    // Where only rows differ, the measured splits count too.
    let mut tuning = Tuning::new();
    tuning.set_attention(AttentionClass::of(&wide), Tier::Baseline, few(1));
    assert_eq!(one_of_two(&tuning), Some(few(1)));
    // A tiling that the device does not take is no candidate.
    tuning.set_attention(AttentionClass::of(&wide), Tier::Baseline, few(1).with_lanes(3));
    assert_eq!(one_of_two(&tuning), None);
}

#[test]
fn selections_take_the_nearest_too() {
    let caps = matrix_gpu();
    let tier = SelectionPlan::best_tier(&selection(8192), &caps);
    let of = |max_searches, keys: u32| {
        let tiling = SelectionPlan::new(&selection(keys), &caps).unwrap().tiling();
        (SelectionClass::of(&selection(keys)), tiling.with_max_searches(max_searches))
    };
    let mut tuning = Tuning::new();
    for (class, tiling) in [of(7, 8192), of(9, 131_072)] {
        tuning.set_selection(class, tier, tiling);
    }
    let tuned = caps.clone().with_tuning(tuning);
    let taken = |problem: &SelectionProblem| {
        let plan = SelectionPlan::new(problem, &tuned).unwrap();
        plan.tuned_at().map(|at| (plan.tiling().max_searches, at))
    };
    assert_eq!(taken(&selection(8192)), Some((7, TunedAt::ThisSize)));
    assert_eq!(taken(&selection(16_384)), Some((7, TunedAt::NeighbouringSize)));
    assert_eq!(taken(&selection(65_536)), Some((9, TunedAt::NeighbouringSize)));
    assert_eq!(taken(&selection(1 << 20)), Some((9, TunedAt::NeighbouringSize)));
    let text = SelectionPlan::new(&selection(16_384), &tuned).unwrap().to_string();
    assert!(text.contains(": measured at a neighbouring size, "), "{text}");
    let one = |hip| SelectionProblem::new(AttentionShape { num_q_heads: 2, ..shape(1, 8192) }, DType::F16, hip);
    assert_eq!(SelectionClass::of(&one(Hip::decode())).samples_log2, 0);
    assert_eq!(taken(&one(Hip::decode())), None, "decoding is no prompt");
}

#[test]
fn tables_are_kept_by_device_and_merge() {
    let (class, tiling) = (AttentionClass::of(&problem(1, 4096)), Tiling::new(8, 1, 4, 4).with_num_splits(3));
    let mut table = TuningTable::new();
    table.set_attention(&key("a"), entry(class, Tier::Baseline, tiling));
    table.set_attention(&key("a"), entry(class, Tier::Subgroup, tiling));
    let of_selection = SelectionPlan::new(&selection(8192), &DeviceCaps::BASELINE).unwrap().tiling();
    table.set_selection(&key("b"), entry(SelectionClass::of(&selection(8192)), Tier::Baseline, of_selection));
    assert_eq!(table.devices().len(), 2);
    assert_eq!(table.devices()[0].attention.len(), 1, "a class once");
    assert!((table.devices()[0].attention[0].speedup() - 1.5).abs() < 1e-12);
    assert_eq!((table.tuning(&key("a")).len(), table.tuning(&key("b")).len()), (1, 1));
    let driver = DeviceKey { driver: ["a".to_owned(), "1.1".to_owned()], ..key("a") };
    let version = DeviceKey { version: "0.0.1".to_owned(), ..key("a") };
    assert!([driver, version, key("c")].iter().all(|key| table.tuning(key).is_empty()));

    let text = table.to_json().unwrap();
    assert_eq!(TuningTable::from_json(text.as_bytes()).unwrap(), table);
    // Classes whose time ran out are measured again, and used meanwhile.
    assert!(table.has_attention(&key("a"), class) && !text.contains("left_out"));
    let mut cut = table.clone();
    cut.set_attention(&key("a"), Entry { left_out: 3, ..entry(class, Tier::Baseline, tiling) });
    assert!(!cut.has_attention(&key("a"), class) && cut.tuning(&key("a")).len() == 1);
    assert_eq!(TuningTable::from_json(cut.to_json().unwrap().as_bytes()).unwrap(), cut);
    let mut merged = TuningTable::new();
    merged.set_attention(&key("a"), entry(class, Tier::Baseline, tiling));
    merged.merge(table.clone());
    assert_eq!(merged.tuning(&key("a")), table.tuning(&key("a")), "the newer entry wins");
    assert_eq!(merged.tuning(&key("b")), table.tuning(&key("b")));
}

#[test]
fn broken_tables_are_errors_and_nonsense_in_them_is_not_taken() {
    for text in ["", "{", "[]", "{}", r#"{"schema":"1"}"#, r#"{"schema":1}"#, r#"{"schema":1,"devices":[{}]}"#] {
        assert!(matches!(TuningTable::from_json(text.as_bytes()), Err(TuneError::Json(_))), "{text}");
    }
    let newer = TuningTable::from_json(br#"{"schema":9,"devices":[]}"#);
    assert!(matches!(newer, Err(TuneError::Schema { found: 9, expected: 1 })));

    // Every number of a tiling may have any value.
    let (caps, asked, numbers) = (matrix_gpu(), problem(512, 4096), [0, 1, 3, 1 << 16, u32::MAX / 2 + 1, u32::MAX]);
    let untuned = AttentionPlan::new(&asked, &caps).unwrap();
    let sane = untuned.tiling();
    let selecting = SelectionPlan::new(&selection(8192), &caps).unwrap();
    for tier in Tier::ALL {
        for number in numbers {
            let tilings = [
                sane.with_lanes(number),
                sane.with_rows(number),
                sane.with_keys(number),
                sane.with_groups(number),
                sane.with_num_splits(number),
                Tiling::new(number, number, number, number).with_num_splits(number),
            ];
            for tiling in tilings {
                let mut tuning = Tuning::new();
                tuning.set_attention(AttentionClass::of(&asked), tier, tiling);
                let plan = AttentionPlan::new(&asked, &caps.clone().with_tuning(tuning)).unwrap();
                assert!(plan.is_tuned() || plan == untuned, "{tier} {tiling}");
            }
            let tiling = selecting.tiling();
            let tilings = [
                tiling.with_lanes(number),
                tiling.with_rows(number),
                tiling.with_search_groups(number),
                tiling.with_score_groups(number),
                tiling.with_top_k_size(number),
                tiling.with_max_searches(number),
            ];
            for tiling in tilings {
                let mut tuning = Tuning::new();
                tuning.set_selection(SelectionClass::of(&selection(8192)), tier, tiling);
                SelectionPlan::new(&selection(8192), &caps.clone().with_tuning(tuning)).unwrap();
            }
        }
    }
}
