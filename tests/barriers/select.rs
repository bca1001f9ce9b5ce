//! Selections: HiP's search and InfiniteHiP's stages, and the check of lists.

use half::f16;
use wattn::cpu::twins;
use wattn::{
    BlockListSpec, Candidates, DeviceCaps, Dispatch, Element, Granularity, HostBlockLists, MatrixTile, Selection,
    SelectionPlan, SelectionTiling, Sharing, Tier,
};

use super::common;
use super::common::bound_selection::run_twins;
use super::common::select::{SelectCase, assert_lists_equal, integer_cases};
use super::launch::{Buffers, Case, Launch, Uniforms, from_bytes, garbage, to_bytes};

/// Workgroups of twice as many invocations as a compaction has parts; several searches for each.
const TILING: SelectionTiling = SelectionTiling::SMALLEST
    .with_lanes(4)
    .with_rows(2)
    .with_search_groups(8)
    .with_score_groups(4)
    .with_top_k_size(32)
    .with_max_searches(2)
    .with_sharing(Sharing::Keys)
    .with_candidates(Candidates::Scratch);

/// The same where lanes share the rows of keys, and candidates lie in workgroup memory.
const COLUMNS: SelectionTiling =
    TILING.with_rows(1).with_sharing(Sharing::Columns).with_candidates(Candidates::Workgroup);

/// As many invocations as candidates, the condition of a top-k by depths.
const DEPTHS: SelectionTiling = COLUMNS.with_search_groups(32).with_top_k_size(128);

fn launch(dispatch: &Dispatch, subgroup_size: u32, uniforms: Vec<Uniforms>) -> Launch {
    let grids = dispatch.stretches.iter().map(|stretch| stretch.workgroups);
    Launch {
        name: dispatch.to_string(),
        rolled: dispatch.specialization.wgsl_rolled(),
        shipped: dispatch.specialization.wgsl(),
        taken: Vec::new(),
        subgroup_size: subgroup_size as usize,
        stretches: grids.zip(uniforms).collect(),
        bound: Vec::new(),
        views: Vec::new(),
    }
}

/// A selection of integers, whose lists must be those of the twins to the bit.
fn selection<T: Element>(
    case: SelectCase<T>,
    tier: Tier,
    caps: &DeviceCaps,
    subgroup_size: u32,
    tiling: SelectionTiling,
) -> Case {
    let plan = SelectionPlan::with_tiling(&case.problem, caps, tier, tiling).unwrap();
    let mut buffers = vec![
        ("q".to_owned(), to_bytes(case.q.data())),
        ("k".to_owned(), to_bytes(case.k.data())),
        ("seq_lens_kv".to_owned(), case.seq_lens_kv.as_ref().map_or(garbage(4), |lens| to_bytes(lens))),
        ("scratch".to_owned(), garbage(plan.scratch_bytes())),
        ("cache".to_owned(), garbage(plan.cache_bytes())),
    ];
    let shape = case.problem.blocks().indices_shape(case.problem.shape());
    let lists = u64::from(shape[..3].iter().product::<u32>());
    buffers.push(("block_indices".to_owned(), garbage(lists * u64::from(shape[3]) * 4)));
    buffers.push(("block_counts".to_owned(), garbage(lists * 4)));
    let mut launches = Vec::new();
    for (index, dispatch) in plan.dispatches().iter().enumerate() {
        let uniforms = Selection::uniforms(&plan, index);
        let params = dispatch.specialization.bindings().into_iter().find(|binding| binding.name == "params").unwrap();
        let stride_at = params.fields.iter().position(|name| *name == "stride_q").unwrap();
        // Stages that look at the same samples have the same stride.
        let samples = format!("samples of {}", uniforms[0][0].1[stride_at]);
        buffers.push((samples.clone(), garbage(plan.samples_bytes())));
        let bound = vec![("samples", samples), ("scores", "scratch".to_owned())];
        launches.push(Launch { bound, ..launch(dispatch, subgroup_size, uniforms) });
    }
    let name = format!("{tier} {} {tiling}", case.name);
    let check = move |buffers: &Buffers| {
        let words = |name: &str| from_bytes::<u32>(&buffers[name]);
        let got = HostBlockLists::new(shape, words("block_indices"), words("block_counts")).unwrap();
        assert_lists_equal(&got, &run_twins(&plan, &case), &case.name);
    };
    Case { name, launches, buffers: buffers.into_iter().collect(), check: Box::new(check) }
}

/// Cases that together have several rounds and stages, several searches of one workgroup, heads whose lists are united, lengths, dense
/// beginnings, and more blocks than are kept.
const CASES: [&str; 12] = [
    "HiP, prime length",
    "HiP, prefill from the start",
    "HiP, dense below",
    "HiP, several lengths",
    "HiP, Center, aligned, 22 keys",
    "HiP, strides",
    "HiP, decode settings",
    "InfiniteHiP, prime length",
    "InfiniteHiP, dense below",
    "InfiniteHiP, the preset for tests",
    "InfiniteHiP, several lengths, 24 queries",
    "InfiniteHiP, Center, Union for each",
];

fn chosen<T: Element>() -> Vec<SelectCase<T>> {
    let mut all = integer_cases::<T>();
    all.retain(|case| {
        CASES.iter().any(|name| case.name == *name || (name.ends_with("each") && case.name.starts_with(name)))
    });
    assert!(all.len() >= CASES.len(), "every case is found");
    all
}

pub(crate) fn cases() -> Vec<Case> {
    let baseline = DeviceCaps::BASELINE;
    let of = |subgroups: core::ops::RangeInclusive<u32>| {
        let mut caps = baseline.clone();
        caps.subgroup_size = Some(subgroups);
        caps
    };
    let mut cases: Vec<Case> =
        chosen::<f32>().into_iter().map(|case| selection(case, Tier::Baseline, &baseline, 4, TILING)).collect();
    cases.extend(chosen::<f32>().into_iter().map(|case| selection(case, Tier::Baseline, &baseline, 4, COLUMNS)));
    let few = |case: &SelectCase<f32>| case.name.ends_with("prime length");
    for (caps, subgroup_size) in [(of(4..=4), 4), (of(4..=8), 8)] {
        for tiling in [TILING.with_rows(4), COLUMNS, DEPTHS] {
            let few = chosen::<f32>().into_iter().filter(few);
            cases.extend(few.map(|case| selection(case, Tier::Subgroup, &caps, subgroup_size, tiling)));
        }
    }
    for (lanes, from_vec4) in [(8, true), (16, false)] {
        let mut caps = of(lanes..=lanes);
        caps.matrix_tiles = vec![MatrixTile::square(8)];
        caps.max_workgroup_storage_bytes = 48 << 10;
        (caps.shader_f16, caps.matrix_from_vec4) = (true, from_vec4);
        let tiling = TILING.with_lanes(lanes).with_search_groups(32 / lanes);
        let few = chosen::<f16>().into_iter().filter(|case| case.name.starts_with("HiP, pr"));
        cases.extend(few.map(|case| selection(case, Tier::Matrix, &caps, lanes, tiling)));
    }
    cases.extend([false, true].map(check_of_lists));
    cases
}

/// Other sizes of workgroups, of samples and of parts of a compaction.
pub(crate) fn tilings() -> Vec<Case> {
    let mut cases = Vec::new();
    for (lanes, rows, search_groups, score_groups, top_k_size) in
        [(4, 1, 1, 1, 4), (4, 8, 4, 8, 16), (8, 4, 8, 2, 64), (16, 2, 16, 4, 256)]
    {
        let tiling = TILING
            .with_lanes(lanes)
            .with_rows(rows)
            .with_search_groups(search_groups)
            .with_score_groups(score_groups)
            .with_top_k_size(top_k_size)
            .with_max_searches(1);
        let mut caps = DeviceCaps::BASELINE;
        caps.subgroup_size = Some(lanes..=lanes);
        let columns = tiling.with_rows(1).with_sharing(Sharing::Columns);
        let in_workgroup = tiling.with_candidates(Candidates::Workgroup);
        for (tier, tiling) in [
            (Tier::Baseline, tiling),
            (Tier::Subgroup, tiling),
            (Tier::Baseline, columns),
            (Tier::Subgroup, columns.with_candidates(Candidates::Workgroup)),
            (Tier::Baseline, in_workgroup),
        ] {
            let few =
                chosen::<f32>().into_iter().filter(|case| case.name.contains(", pr") || case.name.contains("Union"));
            cases.extend(few.map(|case| selection(case, tier, &caps, lanes, tiling)));
        }
    }
    cases
}

/// The check of lists, which finds the first entry that breaks a rule.
fn check_of_lists(has_lens: bool) -> Case {
    let shape = common::shape(2, [9, 40], [2, 2]);
    let selection = BlockListSpec::new(4, 8, 4).with_granularity(Granularity::KvHead).with_window_size(4);
    let mut blocks = HostBlockLists::empty(selection.indices_shape(&shape));
    blocks.set_list(0, 1, 2, &[0, 8, 30]);
    blocks.set_list(1, 0, 1, &[16, 12]);
    blocks.set_list(1, 1, 0, &[0, 64]);
    let lens = [40, 30];
    let expected = twins::check_blocks(&selection, &blocks, &lens).expect("lists that break rules");
    let lists = blocks.block_counts().len() as u32;
    let num_places = lists * (selection.max_blocks + 1);
    let uniform = vec![40, selection.max_blocks, selection.block_size, lists / shape.batch_size, num_places, 0, 0];
    let dispatches = wattn::check_dispatches(&selection, &shape, has_lens, &DeviceCaps::BASELINE).unwrap();
    let launches = dispatches
        .iter()
        .map(|dispatch| launch(dispatch, 4, vec![vec![("params", uniform.clone()), ("seq_lens_place", vec![0])]]))
        .collect();
    let buffers = [
        ("block_indices", to_bytes(blocks.block_indices())),
        ("block_counts", to_bytes(blocks.block_counts())),
        ("seq_lens_kv", to_bytes(&lens)),
        ("report", to_bytes(&[u32::MAX, 0, 0])),
    ];
    let check = move |buffers: &Buffers| assert_eq!(from_bytes::<u32>(&buffers["report"]), expected);
    Case {
        name: format!("check of lists, lengths {has_lens}"),
        launches,
        buffers: buffers.map(|(name, bytes)| (name.to_owned(), bytes)).into(),
        check: Box::new(check),
    }
}
