//! Costs of kernels, counted in the texts that GPUs get: products and loads of a tile, constant indices of arrays that belong in registers,
//! dependent waits of a round of a search. Needs no GPU.

#[path = "common/counts.rs"]
mod counts;
#[path = "common/devices.rs"]
mod devices;

use counts::{
    barriers, count, function, indexed_locals, loads, matrix_loads, matrix_stores, multiply_adds, parse, products,
    spirv_words,
};
use devices::{FIRST_SEARCHES, matrix_gpu};
use naga::{Function, Statement};
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, Candidates, DType, DeviceCaps, Hip, Mask, Preset, SelectionPlan,
    SelectionProblem, Sharing, Specialization, Tier,
};

/// The conversion of bf16 to f16 costs no additional product, load or barrier of workgroup memory.
#[test]
fn attention_of_heads_128_wide() {
    for (dtype, seq_len_q, kernel) in [
        (DType::F16, 8192, "attend_prefill"),
        (DType::F16, 16, "attend_decode"),
        (DType::BF16, 8192, "attend_prefill"),
        (DType::BF16, 16, "attend_decode"),
    ] {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q,
            seq_len_kv: 8192,
            num_q_heads: 8,
            num_kv_heads: 8,
            head_dim: 128,
            head_dim_v: 128,
        };
        let mut problem = AttentionProblem::new(shape, dtype).with_mask(Mask::Causal);
        if dtype == DType::BF16 {
            problem = problem.with_bf16_by_f16_matrices();
        } else {
            assert_eq!(AttentionPlan::best_tier(&problem, &matrix_gpu()), Tier::Matrix);
        }
        let plan = AttentionPlan::with_tier(&problem, &matrix_gpu(), Tier::Matrix).unwrap();
        let attending = plan.dispatches().iter().find(|dispatch| dispatch.kernel().name() == kernel).unwrap();
        let specialization = &attending.specialization;
        let module = parse(&specialization.wgsl());
        let rows = function(&module, "attend_rows");
        assert_eq!(indexed_locals(&module, rows), [""; 0], "{kernel}");

        // For each subgroup and row of matrices: 8 products of 16 x 16 for the scores of a tile of 16 keys, and 8 for its values; the
        // products with the last tile's values stand after the loops. The loop over tiles lies in a loop that runs where sums move.
        let (tiling, tile_kv) = (plan.tiling(), plan.tiling().tile_kv());
        let scores = (tiling.rows / 16 * (tile_kv / 16) * (128 / 16)) as usize;
        let mut found = Vec::new();
        count(&rows.body, 0, &products(rows), &mut found);
        assert_eq!(found[..3], [scores, 0, 2 * scores], "{kernel}");
        assert_eq!(found[3..].iter().sum::<usize>(), 0, "{kernel}");

        // Matrices of keys and of values are loaded once for all rows of a subgroup, and weights once. Queries are loaded outside the walk.
        let mut found = Vec::new();
        count(&rows.body, 0, &matrix_loads(rows), &mut found);
        let (row_tiles, key_tiles) = ((tiling.rows / 16) as usize, (tile_kv / 16) as usize);
        let resumed = row_tiles * specialization.constant("CARRIED_COLUMNS").unwrap() as usize;
        let of_values = key_tiles * (128 / 16) + row_tiles * key_tiles;
        let all_sums = row_tiles * (128 / 16);
        let queries = row_tiles * (128 / 16);
        let of_tile = of_values + key_tiles * (128 / 16);
        assert_eq!(found[..3], [of_values, resumed + queries, of_tile + all_sums], "{kernel}");
        let mut found = Vec::new();
        count(&rows.body, 0, &matrix_stores, &mut found);
        // Stores of sums: in the loop that stores out or the state of a cut walk, and in the loop that moves sums. Stores of a tile's
        // scores.
        assert_eq!(found[1..3], [all_sums, row_tiles * key_tiles + all_sums], "{kernel}");

        // Two barriers a tile, and three for each column of sums that move, in a loop outside. Two in each of the loops that load queries,
        // resume a state, and store out or a state.
        let mut found = Vec::new();
        count(&rows.body, 0, &barriers, &mut found);
        assert_eq!(found[1..3], [3 * 2, 2 + 3], "{kernel}");

        let of = (tiling.rows, tile_kv, tiling.groups);
        if kernel == "attend_prefill" {
            // The tiling of the fastest prototype on an H100: 32 rows a subgroup, so that a load serves two products, and 8 subgroups,
            // which share a copy of 512 bytes a key.
            assert_eq!(of, (32, 16, 8));
        } else {
            // One group loads all of a tile, and has no registers for a larger tile.
            assert_eq!(of, (16, 16, 1));
        }
        let wgsl = specialization.wgsl();
        println!("{dtype} {kernel}: {} bytes of WGSL, {} words of SPIR-V", wgsl.len(), spirv_words(&module));
    }
}

/// 8192 queries and keys of 8 heads.
fn prompt(head_dim: u32) -> AttentionShape {
    AttentionShape {
        batch_size: 1,
        seq_len_q: 8192,
        seq_len_kv: 8192,
        num_q_heads: 8,
        num_kv_heads: 8,
        head_dim,
        head_dim_v: head_dim,
    }
}

/// The kernel that finds the exponents of bf16 has four loads of an invocation in flight, of neighbouring columns, and two barriers in all.
#[test]
fn exponents_of_heads() {
    let shape = prompt(128);
    let problem = AttentionProblem::new(shape, DType::BF16).with_bf16_by_f16_matrices();
    let plan = AttentionPlan::new(&problem, &matrix_gpu()).unwrap();
    let finding = &plan.dispatches()[0];
    assert_eq!((finding.kernel().name(), plan.dispatches().len()), ("find_exponents", 2), "{plan}");
    // 24 heads in 32 parts: several workgroups for each core of a large GPU.
    assert_eq!(finding.workgroups, [24 * 32, 1, 1], "{plan}");
    let module = parse(&finding.specialization.wgsl());
    let entry = &module.entry_points[0].function;
    assert_eq!(indexed_locals(&module, entry), [""; 0], "{plan}");
    for buffer in ["q", "k", "v"] {
        let mut found = Vec::new();
        count(&entry.body, 0, &loads(&module, entry, buffer), &mut found);
        assert_eq!(found, [0, 4], "{buffer}: {plan}");
    }
    let mut found = Vec::new();
    count(&entry.body, 0, &barriers, &mut found);
    assert_eq!(found.iter().sum::<usize>(), 2, "{plan}");
}

/// Rows of a prompt without matrices. A load of workgroup memory must serve enough arithmetic: workgroup memory gives a core 32 numbers in
/// the time of 128 multiply-adds, so that a vec4 for each of four lanes takes the time of 16 multiply-adds of each at worst. The test also
/// counts loads from storage, and the registers of an invocation, of which hardware has 255.
#[test]
fn prompts_in_staged_tiles() {
    for (head_dim, least) in [(64, 16), (128, 16), (256, 10)] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let shape = prompt(head_dim);
            let plan =
                AttentionPlan::new(&AttentionProblem::new(shape, dtype).with_mask(Mask::Causal), &gpu()).unwrap();
            let (tiling, what) = (plan.tiling(), format!("{plan}"));
            assert_eq!(tiling.sharing, Sharing::Tiles, "{what}");
            let specialization = &plan.dispatches()[0].specialization;
            let constant = |name| specialization.constant(name).unwrap() as usize;
            let module = parse(&specialization.wgsl());
            let rows = function(&module, "attend_rows");
            assert_eq!(indexed_locals(&module, rows), [""; 0], "{what}");
            let by_depth = |counts: &dyn Fn(&Statement) -> usize| {
                let mut found = Vec::new();
                count(&rows.body, 0, &counts, &mut found);
                found
            };

            // Loops over tiles, over their slices, and over columns or values of a slice: scores, sums, sums behind masks.
            let (adds, reads) = (by_depth(&multiply_adds(&module, rows)), by_depth(&loads(&module, rows, "staged")));
            assert_eq!(adds.iter().sum::<usize>(), adds[3], "{what}");
            let (of_rows, keys, columns) = (tiling.rows as usize, tiling.keys as usize, constant("COLS"));
            assert_eq!(adds[3], of_rows * (4 * keys + 2 * 16 * columns), "{what}");
            assert_eq!(reads[3], 3 * of_rows + keys + 2 * 4 * columns, "{what}");
            assert!(adds[3] >= least * reads[3], "{} multiply-adds for {} loads: {what}", adds[3], reads[3]);

            // Loads of a slice stand together, before the computation that they overlap with. The first values are loaded beside the keys.
            let each = |name| constant(name);
            let loaded = ["k", "q", "v"].map(|name| by_depth(&loads(&module, rows, name))[2]);
            assert_eq!(loaded, [each("K_EACH"), each("Q_EACH"), 2 * each("V_EACH")], "{what}");
            // Neighbours take neighbouring elements: a row's columns of a slice are at least a sector of memory.
            let bytes = if dtype == DType::F32 { 16 } else { 8 };
            assert!(constant("SLICE4") * bytes >= 32, "{what}");

            // In vec4: sums, scores, loads under way, operands.
            let ahead = each("V_EACH").max(each("K_EACH") + each("Q_EACH")) * bytes / 16;
            let operands = (keys + 1).max(4 * columns + 1);
            let live = of_rows * columns + of_rows * keys / 4 + ahead + operands;
            assert!(live <= 48, "{live} vec4: {what}");

            // Two barriers a slice, and two around the maxima of rows.
            let slices = constant("SLICES") + constant("STEPS");
            println!("{head_dim} {dtype}: {tiling}; {live} vec4 alive, {} barriers a tile", 2 * slices);
            assert_eq!(by_depth(&barriers)[1..3], [1, 4], "{what}");
        }
    }
}

/// One query of heads 128 wide: a lane has as many bytes of keys and values under way as the prototypes that reached the memory's rate on
/// an H100 (8 rows of keys for one head, 4 for four heads, 16 bytes of each row a lane), and nothing in the walk waits for other subgroups.
#[test]
fn decoding_loads_rows_side_by_side() {
    for (dtype, num_kv_heads, lanes, keys) in
        [(DType::F16, 32, 16, 8), (DType::F16, 8, 16, 4), (DType::BF16, 32, 16, 8), (DType::F32, 32, 32, 8)]
    {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: 1,
            seq_len_kv: 16384,
            num_q_heads: 32,
            num_kv_heads,
            head_dim: 128,
            head_dim_v: 128,
        };
        let problem = AttentionProblem::new(shape, dtype).with_mask(Mask::Causal);
        let plan = AttentionPlan::new(&problem, &matrix_gpu()).unwrap();
        let tiling = plan.tiling();
        assert_eq!((tiling.sharing, tiling.lanes, tiling.keys), (Sharing::Columns, lanes, keys), "{plan}");
        let lane = plan.loads();
        assert_eq!((lane.bytes, lane.run_bytes, lane.in_flight), (16, lanes * 16, keys), "{plan}");
        // Once for all heads of a KV head, and four workgroups for each core of a large GPU.
        assert_eq!(tiling.rows, 32 / num_kv_heads, "{plan}");
        assert_eq!(num_kv_heads * tiling.num_splits, 512, "{plan}");

        let module = parse(&plan.dispatches()[0].specialization.wgsl());
        let rows = function(&module, "attend_rows");
        assert_eq!(indexed_locals(&module, rows), [""; 0], "{plan}");
        let elements = 16 / (4 * dtype.size_bytes() as usize);
        for buffer in ["k", "v"] {
            let mut found = Vec::new();
            count(&rows.body, 0, &loads(&module, rows, buffer), &mut found);
            // The loads of the first tile stand before the queries are read, the loads of the next tile in the loop.
            assert_eq!(found[..2], [keys as usize * elements; 2], "{buffer}: {plan}");
        }
        let mut found = Vec::new();
        count(&rows.body, 0, &barriers, &mut found);
        // The results of all rows are added up together: one barrier for that, and one for further turns.
        assert_eq!(found, [2, 0, 0], "{plan}");
    }
}

/// A million keys of one head fill a device; the keys of a single workgroup need no merge.
#[test]
fn splits_follow_the_keys() {
    let plan = |num_heads, seq_len_kv, mask| {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q: 1,
            seq_len_kv,
            num_q_heads: num_heads,
            num_kv_heads: num_heads,
            head_dim: 128,
            head_dim_v: 128,
        };
        AttentionPlan::new(&AttentionProblem::new(shape, DType::F16).with_mask(mask), &matrix_gpu()).unwrap()
    };
    assert_eq!(plan(1, 1 << 20, Mask::Causal).tiling().num_splits, 512);
    // More than a MiB of keys and values for each workgroup: twice as many workgroups.
    assert_eq!(plan(1, (1 << 20) + 512, Mask::Causal).tiling().num_splits, 1024);
    assert_eq!(plan(32, 4096, Mask::Causal).tiling().num_splits, 16);
    // At least two tiles of 64 keys.
    assert_eq!(plan(32, 1024, Mask::Causal).tiling().num_splits, 8);
    let window = Mask::Window { left: Some(250), right: Some(0) };
    for alone in [plan(32, 256, Mask::Causal), plan(2, 100, Mask::Causal), plan(32, 1 << 20, window)] {
        assert_eq!(alone.dispatches().len(), 1, "{alone}");
        assert_eq!(alone.tiling().workgroup_size(), 256, "{alone}");
    }
}

#[test]
fn scores_of_hip() {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 8192,
        seq_len_kv: 8192,
        num_q_heads: 1,
        num_kv_heads: 1,
        head_dim: 128,
        head_dim_v: 128,
    };
    let plan = SelectionPlan::new(&SelectionProblem::new(shape, DType::F16, Hip::default()), &matrix_gpu()).unwrap();
    assert_eq!(plan.tier(), Tier::Matrix, "{plan}");
    let module = parse(&plan.dispatches()[1].specialization.wgsl());
    let scoring = function(&module, "score_candidates");
    assert_eq!(indexed_locals(&module, scoring), [""; 0]);
    let mut found = Vec::new();
    count(&scoring.body, 0, &products(scoring), &mut found);
    assert_eq!(found.iter().sum::<usize>(), 128 / 16);
}

/// The waits of one round of a search, or of a descent.
#[derive(Debug, PartialEq)]
struct Round {
    /// Keys whose rows a lane loads at a time, bytes of them under way, and how often the lane waits for keys.
    keys: usize,
    bytes: usize,
    trips: usize,
    /// Barriers of a round, and loads from scratch memory in their text.
    barriers: usize,
    scratch_loads: usize,
}

fn round_of(specialization: &Specialization, keys_of_round: u32) -> Round {
    let module = parse(&specialization.wgsl());
    let constant = |name| specialization.constant(name).unwrap() as usize;
    // Where subgroups share rows, one function scores them, in loops over keys and KV heads; otherwise there is one for each owner.
    let is_shared = specialization.modules().any(|module| module.name() == "score_columns");
    let scoring = function(&module, if is_shared { "score_candidates" } else { "best_scores" });
    assert_eq!(indexed_locals(&module, scoring), [""; 0]);
    let mut found = Vec::new();
    count(&scoring.body, 0, &loads(&module, scoring, "k"), &mut found);
    let all: usize = found.iter().sum();
    // Either all before the loop over samples, or four in a loop over the columns of the rows.
    let walks = if found[if is_shared { 2 } else { 0 }] == all { 1 } else { constant("HEAD_DIM4") };
    let owners = if is_shared { constant("GROUPS") } else { constant("OWNERS") };
    let passes = (keys_of_round as usize).div_ceil(4 * owners);
    let of_round: Vec<&Function> = module
        .functions
        .iter()
        .map(|(_, function)| function)
        .filter(|function| function.name.as_deref().is_some_and(|name| !["join_groups", "end_search"].contains(&name)))
        .collect();
    let sum = |counts: &dyn Fn(&Function) -> Vec<usize>, weights: [usize; 3]| -> usize {
        let by_depth = |function: &&Function| {
            counts(function).iter().enumerate().map(|(depth, found)| found * weights[depth.min(2)]).sum::<usize>()
        };
        of_round.iter().map(by_depth).sum()
    };
    let barriers = |function: &Function| {
        let mut found = Vec::new();
        count(&function.body, 0, &barriers, &mut found);
        found
    };
    let scratch_loads = |function: &Function| {
        let mut found = Vec::new();
        count(&function.body, 0, &loads(&module, function, "scratch"), &mut found);
        found
    };
    Round {
        keys: 4,
        bytes: all * 8,
        trips: passes * walks,
        // The loop over digits has four rounds.
        barriers: sum(&barriers, [1, 4, 4]),
        scratch_loads: sum(&scratch_loads, [1, 1, 1]),
    }
}

/// One query against 131072 keys.
fn one_query(heads: [u32; 2], method: impl Into<wattn::SelectionMethod>) -> SelectionProblem {
    let shape = AttentionShape {
        batch_size: 1,
        seq_len_q: 1,
        seq_len_kv: 131_072,
        num_q_heads: heads[0],
        num_kv_heads: heads[1],
        head_dim: 128,
        head_dim_v: 128,
    };
    SelectionProblem::new(shape, DType::F16, method)
}

/// A large GPU without matrices.
fn gpu() -> DeviceCaps {
    let mut caps = matrix_gpu();
    caps.matrix_tiles.clear();
    caps
}

/// HiP for one query: 512 halves of 2 keys a round, by one workgroup. On a large GPU its lanes wait for memory four times a round, with 64
/// KiB of f16 under way, and five times for one another. Where each lane walks through its own keys and candidates lie in scratch memory,
/// it waits 32 times for keys, ten times for other lanes, and for scratch memory in between.
#[test]
fn a_round_of_hip() {
    for heads in [[2, 2], [32, 8]] {
        let problem = one_query(heads, Hip::decode());
        let plan = SelectionPlan::new(&problem, &gpu()).unwrap();
        let tiling = plan.tiling();
        assert_eq!((tiling.sharing, tiling.candidates), (Sharing::Columns, Candidates::Workgroup), "{plan}");
        assert_eq!((tiling.lanes, tiling.search_size()), (8, 512), "{plan}");
        assert_eq!(plan.scratch_bytes(), 0, "{plan}");
        let round = round_of(&plan.dispatches()[1].specialization, 1024);
        assert_eq!(round, Round { keys: 4, bytes: 128, trips: 4, barriers: 5, scratch_loads: 0 });
        assert_eq!(round.bytes * tiling.search_size() as usize, 64 << 10);
        assert_eq!(plan.loads().to_string(), "8 bytes of k an invocation, in runs of 64, 16 under way");

        let plan = SelectionPlan::with_tiling(&problem, &gpu(), Tier::SubgroupF16, FIRST_SEARCHES).unwrap();
        assert_eq!(plan.loads().to_string(), "8 bytes of k an invocation, in runs of 8, 4 under way");
        let round = round_of(&plan.dispatches()[1].specialization, 1024);
        assert_eq!(round, Round { keys: 4, bytes: 32, trips: 32, barriers: 10, scratch_loads: 5 });
    }
}

/// A round of InfiniteHiP's descent loads the rows of both halves' keys, for two chunks at a time.
#[test]
fn a_round_of_a_descent() {
    let plan = SelectionPlan::new(&one_query([32, 8], Preset::ThreeK), &gpu()).unwrap();
    for dispatch in plan.dispatches().iter().filter(|dispatch| dispatch.kernel().name() == "score_chunks") {
        let owners = dispatch.specialization.constant("OWNERS").unwrap();
        let round = round_of(&dispatch.specialization, 4 * owners);
        assert_eq!(round, Round { keys: 4, bytes: 128, trips: 1, barriers: 0, scratch_loads: 0 });
    }
}
