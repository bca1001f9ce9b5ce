//! The functions and types of each family of modules: every member has them, and a kernel may call no others. Needs no GPU.

use std::collections::{BTreeMap, BTreeSet};

use wattn::kernels;

/// Families of one member so far.
const OF_ONE: [&str; 1] = ["paging"];

/// Families, the signatures of their functions, and their types and constants.
const FAMILIES: [(&str, &[&str], &[&str]); 31] = [
    ("lengths", &["fn seq_len_kv_of(batch: u32) -> u32"], &[]),
    ("lse", &["fn put_lse(batch: u32, query: u32, head: u32, value: f32)"], &[]),
    ("sampling", &["fn sampled_queries(q_block: u32, sample: u32) -> SampledQueries"], &["SampledQueries"]),
    (
        "best_scores",
        &[
            "fn owner_of(thread: Thread) -> u32",
            "fn stores(c: u32, thread: Thread) -> bool",
            "fn best_scores(k_at: vec4<u32>, keys: vec4<i32>, place: SamplePlace, num_heads: u32, thread: Thread) -> vec4<f32>",
        ],
        &[],
    ),
    ("marks", &["fn mark_of(i: u32) -> u32"], &[]),
    (
        "top_k",
        &[
            "fn begin_top_k(index: u32)",
            "fn put_key(i: u32, key: u32)",
            "fn keep_best(count: u32, keep: u32, index: u32) -> u32",
            "fn keep_all(count: u32, index: u32) -> u32",
        ],
        &[],
    ),
    (
        "beam",
        &[
            "fn begin_searches(workgroup: u32, index: u32)",
            "fn begin_search()",
            "fn end_search()",
            "fn put_group(i: u32, first: u32, size: u32)",
            "fn join_groups()",
            "fn group_first(i: u32) -> u32",
            "fn branch(candidate: u32) -> Branch",
            "fn first_probe(candidate: u32) -> u32",
            "fn put_score(i: u32, score: f32)",
            "fn keep_candidate(i: u32, place: u32)",
            "fn keep_best_halves(index: u32) -> u32",
        ],
        &[],
    ),
    (
        "walk",
        &[
            "fn rows_of_workgroup(place: WorkgroupPlace) -> RowTile",
            "fn walk_of(place: WorkgroupPlace, rows: RowTile) -> Walk",
            "fn walk_key(walk: Walk, at: u32) -> u32",
            "fn next_tile(walk: Walk, at: u32) -> u32",
            "fn walk_is_full(walk: Walk, tile_begin: u32) -> bool",
            "fn walk_rows(walk: Walk, at: u32) -> RowRange",
        ],
        &["Walk", "RowRange", "WALK_IS_RUN"],
    ),
    (
        "modify",
        &[
            "fn score_row(tile: Tile, row: u32, walk: Walk) -> ScoreRow",
            "fn modified(product: f32, scale: f32, row: ScoreRow, key: u32) -> f32",
            "fn modified4(product4: vec4<f32>, scale: f32, row: ScoreRow, walk: Walk, at: u32) -> vec4<f32>",
            "fn is_seen_whole(walk: Walk, tile_begin: u32) -> bool",
            "fn is_hidden(tile: Tile, row: u32, walk: Walk, key: u32) -> bool",
        ],
        &[], // of a chain the assembler writes ScoreRow
    ),
    (
        "modifier",
        &[
            "fn row_part(query: ScoreQuery) -> RowPart",
            "fn modify(score: f32, query: ScoreQuery, part: RowPart, key: u32) -> f32",
        ],
        &["RowPart"],
    ),
    ("sink", &["fn total_of(sum: f32, head: u32, reference: f32) -> f32"], &[]),
    (
        "kept_sink",
        &["fn keep_total(row: u32, head: u32, reference: f32)", "fn kept_total(row: u32, sum: f32) -> f32"],
        &[],
    ),
    ("number", &["fn number_at(at: u32) -> f32"], &[]),
    (
        "gather",
        &[
            "fn gather_slots(walk: Walk, rows: KeyRows, tile_begin: u32, thread: Thread)",
            "fn gathered_slot(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32",
            "fn gathered_slot_in_range(walk: Walk, rows: KeyRows, tile_begin: u32, index: u32, thread: Thread) -> u32",
        ],
        &[],
    ),
    (
        "paging",
        &[
            "fn key_rows_of(strides: Strides, batch: u32, kv_head: u32) -> KeyRows",
            "fn slot_of_key(rows: KeyRows, key: u32) -> u32",
            "fn slot_row(rows: KeyRows, slot: u32) -> u32",
            "fn key_row(rows: KeyRows, key: u32) -> u32",
            "fn key_row4(rows: KeyRows, keys: vec4<u32>) -> vec4<u32>",
            "fn run_row(rows: KeyRows, first: u32, steps: u32, last: u32) -> u32",
        ],
        &["Strides", "KeyRows"],
    ),
    (
        "resume",
        &[
            "fn part_of(walk: Walk) -> Part",
            "fn carried4(i: u32, tile: Tile) -> vec4<f32>",
            "fn carry4(i: u32, value: vec4<f32>, tile: Tile)",
        ],
        &["Part"],
    ),
    ("chunk", &["fn widen_part(chunk: Chunk, part: u32) -> vec4<f32>"], &["Chunk"]),
    ("join", &["fn join_parts(own: Merged, index: u32) -> Merged"], &[]),
    (
        "fold",
        &[
            "fn is_folded_after(number: u32, next: u32) -> bool",
            "fn fold4(at: u32, value: vec4<f32>)",
            "fn scale_folded(at: u32, factor: f32)",
            "fn folded4(at: u32) -> vec4<f32>",
            "fn carry_folded(first: u32, tile: Tile)",
            "fn resume_folded(first: u32, tile: Tile)",
        ],
        &[],
    ),
    (
        "factors",
        &[
            "fn prepare_factors(tile: Tile, own_row: u32)",
            "fn factor_q(elem: QElem4, tile: Tile, head: u32) -> vec4<f16>",
            "fn factor_k(elem: KElem4) -> vec4<f16>",
            "fn factor_v(elem: VElem4) -> vec4<f16>",
            "fn score_scale(i: u32) -> f32",
            "fn unscaled4(mean: vec4<f32>, non_finite: bool) -> vec4<f32>",
        ],
        &[],
    ),
    ("rows", &["fn first_row_of(rows: RowTile, thread: Thread) -> u32", "fn attend_rows(tile: Tile, walk: Walk)"], &[]),
    ("matrix", &[], &["MatrixA", "MatrixB", "MatrixC"]),
    (
        "tiles",
        &[
            "fn put_a4(at: u32, value: vec4<f16>)",
            "fn a4(at: u32) -> vec4<f16>",
            "fn put_k4(at: u32, value: vec4<f16>)",
            "fn put_sums4(at: u32, value: vec4<f32>)",
            "fn sums4(at: u32) -> vec4<f32>",
        ],
        &[],
    ),
    ("values", &["fn put_v4(at: u32, value: vec4<f16>)"], &[]),
    ("score", &["fn score_candidates(place: QueryBlock, thread: Thread, index: u32)"], &[]),
    ("elem", &["fn widen(elem: Elem4) -> vec4<f32>"], &["Elem4"]),
    ("q", &["fn keep_queries(tile: Tile, own: u32)", "fn query4(slot: u32, begin: u32, d4: u32) -> vec4<f32>"], &[]),
    ("out", &["fn narrow(value: vec4<f32>) -> OutElem4"], &["OutElem4"]),
    (
        "shuffle",
        &[
            "fn group_of(thread: Thread) -> u32",
            "fn lane_of(thread: Thread) -> u32",
            "fn invocation_of_lane(lane: u32, thread: Thread) -> u32",
            "fn from_lane(value: vec4<f32>, lane: u32, thread: Thread) -> vec4<f32>",
        ],
        &["Thread"],
    ),
    (
        "reduce",
        &[
            "fn give_max(value: f32, r: u32, thread: Thread) -> f32",
            "fn join_max(thread: Thread)",
            "fn give_sum(value: f32, r: u32, thread: Thread) -> f32",
            "fn join_sum(thread: Thread)",
            "fn take(given: f32, r: u32, thread: Thread) -> f32",
        ],
        &[],
    ),
    // No family: each of these modules is chosen where it is called.
    ("shared", &[], &[]),
];

fn code(wgsl: &str) -> String {
    let lines: Vec<&str> = wgsl.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    lines.join("\n")
}

/// The functions of a text, each on one line without its body.
fn signatures(wgsl: &str) -> BTreeSet<String> {
    let text = code(wgsl);
    let heads = text
        .match_indices("fn ")
        .filter(|(at, _)| text[..*at].chars().next_back().is_none_or(|before| before.is_whitespace()));
    let one_line = |(at, _): (usize, &str)| {
        let head = text[at..].split('{').next().unwrap();
        head.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(").replace(", )", ")")
    };
    heads.map(one_line).collect()
}

fn names_of(signatures: &BTreeSet<String>) -> BTreeSet<String> {
    signatures.iter().map(|signature| signature["fn ".len()..].split('(').next().unwrap().to_owned()).collect()
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').collect()
}

#[test]
fn every_member_offers_what_its_family_does() {
    let described: BTreeMap<_, _> =
        FAMILIES.iter().map(|&(family, functions, types)| (family, (functions, types))).collect();
    let mut members = BTreeMap::<_, u32>::new();
    for module in kernels::modules::ALL {
        *members.entry(module.family()).or_default() += 1;
        let (functions, types) =
            described.get(module.family()).unwrap_or_else(|| panic!("{} has no family", module.name()));
        let (found, text) = (signatures(module.wgsl()), code(module.wgsl()));
        for &function in *functions {
            assert!(found.contains(function), "{} lacks: {function}", module.name());
        }
        for name in *types {
            let declared = ["alias", "struct", "const"].map(|kind| format!("{kind} {name} "));
            assert!(declared.iter().any(|start| text.contains(start.as_str())), "{} lacks {name}", module.name());
        }
    }
    assert_eq!(members.len(), FAMILIES.len(), "{members:?}");
    let has_all = |(family, &number): (&&str, &u32)| number > 1 || OF_ONE.contains(family);
    assert!(members.iter().all(has_all), "a family has two members at least: {members:?}");
}

/// Functions of only one member are private: no kernel and no other module calls them.
#[test]
fn nobody_calls_what_a_family_does_not_offer() {
    let offered: BTreeSet<String> = FAMILIES
        .iter()
        .flat_map(|(_, functions, _)| names_of(&functions.iter().map(|it| (*it).to_owned()).collect()))
        .collect();
    for module in kernels::modules::ALL.iter().filter(|module| module.family() != "shared") {
        for name in names_of(&signatures(module.wgsl())).difference(&offered) {
            // What a kernel has as well is what both offer to another family: `candidate_key` to `top_k`.
            if kernels::ALL.iter().any(|kernel| names_of(&signatures(kernel.wgsl())).contains(name)) {
                continue;
            }
            let kernels = kernels::ALL.iter().map(|kernel| (kernel.name(), kernel.wgsl()));
            let others = kernels::modules::ALL.iter().map(|other| (other.name(), other.wgsl()));
            for (other, wgsl) in kernels.chain(others).filter(|(other, _)| *other != module.name()) {
                let declares = names_of(&signatures(wgsl)).contains(name);
                let calls = words(&code(wgsl)).contains(name.as_str()) && !declares;
                assert!(!calls, "{other} calls {name}, which only {} has", module.name());
            }
        }
    }
}
