//! What the matrix kernels cost, read off their text as GPUs get it: how many products a tile takes, that whatever should be in
//! registers is indexed by constants. Needs no GPU.

#[path = "common/devices.rs"]
mod devices;

use devices::matrix_gpu;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{Block, Expression, Function, Module, Statement, TypeInner};
use wattn::{AttentionPlan, AttentionProblem, AttentionShape, DType, Hip, Mask, SelectionPlan, SelectionProblem, Tier};

fn parse(wgsl: &str) -> Module {
    let module = naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{}", error.emit_to_string(wgsl)));
    Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).unwrap();
    module
}

fn function<'a>(module: &'a Module, name: &str) -> &'a Function {
    let found = module.functions.iter().find(|(_, function)| function.name.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no function {name}")).1
}

/// Statements that `counts` is true of, by how deep in loops they stand.
fn count(block: &Block, depth: usize, counts: &impl Fn(&Statement) -> usize, found: &mut Vec<usize>) {
    for statement in block {
        found.resize(found.len().max(depth + 1), 0);
        found[depth] += counts(statement);
        match statement {
            Statement::Block(inner) => count(inner, depth, counts, found),
            Statement::If { accept, reject, .. } => {
                count(accept, depth, counts, found);
                count(reject, depth, counts, found);
            }
            Statement::Loop { body, continuing, .. } => {
                count(body, depth + 1, counts, found);
                count(continuing, depth + 1, counts, found);
            }
            _ => {}
        }
    }
}

/// Products of matrices that an emitted range evaluates.
fn products(function: &Function) -> impl Fn(&Statement) -> usize + '_ {
    |statement| match statement {
        Statement::Emit(range) => range
            .clone()
            .filter(|&handle| matches!(function.expressions[handle], Expression::CooperativeMultiplyAdd { .. }))
            .count(),
        _ => 0,
    }
}

/// Matrices that an emitted range loads.
fn loads(function: &Function) -> impl Fn(&Statement) -> usize + '_ {
    |statement| match statement {
        Statement::Emit(range) => range
            .clone()
            .filter(|&handle| matches!(function.expressions[handle], Expression::CooperativeLoad { .. }))
            .count(),
        _ => 0,
    }
}

fn stores(statement: &Statement) -> usize {
    usize::from(matches!(statement, Statement::CooperativeStore { .. }))
}

fn spirv_words(module: &Module) -> usize {
    let info = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(module).unwrap();
    let options = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    naga::back::spv::write_vec(module, &info, &options, None).unwrap().len()
}

fn barriers(statement: &Statement) -> usize {
    usize::from(matches!(statement, Statement::ControlBarrier(_)))
}

/// Local arrays that are indexed by something other than a constant: drivers keep those in memory.
fn indexed_locals(module: &Module, function: &Function) -> Vec<String> {
    let mut found = Vec::new();
    for (_, expression) in function.expressions.iter() {
        let Expression::Access { base, .. } = expression else { continue };
        let mut at = *base;
        while let Expression::Access { base, .. } | Expression::AccessIndex { base, .. } = function.expressions[at] {
            at = base;
        }
        if let Expression::LocalVariable(variable) = function.expressions[at] {
            let variable = &function.local_variables[variable];
            if matches!(module.types[variable.ty].inner, TypeInner::Array { .. }) {
                found.push(variable.name.clone().unwrap_or_default());
            }
        }
    }
    found
}

#[test]
fn attention_of_heads_128_wide() {
    for (seq_len_q, kernel) in [(8192, "attend_prefill"), (16, "attend_decode")] {
        let shape = AttentionShape {
            batch_size: 1,
            seq_len_q,
            seq_len_kv: 8192,
            num_q_heads: 8,
            num_kv_heads: 8,
            head_dim: 128,
            head_dim_v: 128,
        };
        let problem = AttentionProblem::new(shape, DType::F16).mask(Mask::Causal);
        let plan = AttentionPlan::new(&problem, &matrix_gpu()).unwrap();
        assert_eq!(plan.tier(), Tier::Matrix, "{plan}");
        let specialization = &plan.dispatches()[0].specialization;
        assert_eq!(specialization.kernel().name(), kernel);
        let module = parse(&specialization.wgsl());
        let rows = function(&module, "attend_rows");
        assert_eq!(indexed_locals(&module, rows), [""; 0], "{kernel}");

        // Of each subgroup and row of matrices: 8 products of 16 x 16 for a tile of 16 keys' scores, and as many for their values. Those of
        // the first tile's scores stand before the loop.
        let (tiling, tile_kv) = (plan.tiling(), plan.tiling().tile_kv());
        let scores = tiling.rows / 16 * (tile_kv / 16) * (128 / 16);
        let mut found = Vec::new();
        count(&rows.body, 0, &products(rows), &mut found);
        assert_eq!(found[..2], [scores as usize, 2 * scores as usize], "{kernel}");
        assert_eq!(found[2..].iter().sum::<usize>(), 0, "{kernel}");

        // Matrices of keys and of values are loaded once for all rows of a subgroup, weights once.
        let mut found = Vec::new();
        count(&rows.body, 0, &loads(rows), &mut found);
        let resumed = tiling.rows / 16 * specialization.constant("CARRIED_COLUMNS").unwrap();
        let per_tile = 2 * (tile_kv / 16) * (128 / 16) + tiling.rows / 16 * (tile_kv / 16);
        assert_eq!(found[1] as u32, per_tile + resumed, "{kernel}");
        let mut found = Vec::new();
        count(&rows.body, 0, &stores, &mut found);
        // Of the next tile's scores; and in the loops that store out and the state of a walk that is cut, of the sums.
        let stored_columns = 128 / 16 + specialization.constant("CARRIED_COLUMNS").unwrap();
        assert_eq!(found[1] as u32, tiling.rows / 16 * (tile_kv / 16 + stored_columns), "{kernel}");

        // Two barriers a tile, and three for each column of sums that move, in a loop of their own. Two in the loop that
        // stores out, and four in those that carry a state.
        let mut found = Vec::new();
        count(&rows.body, 0, &barriers, &mut found);
        assert_eq!(found[1..3], [2 + 2 + 4, 3], "{kernel}");

        let of = (tiling.rows, tile_kv, tiling.groups);
        if kernel == "attend_prefill" {
            // As in the prototype that was fastest on an H100: 32 rows a subgroup, so that a load serves two products, and 8 of these, which
            // share a copy of 512 bytes a key. It has two barriers as well, and none where weights change hands.
            assert_eq!(of, (32, 16, 8));
        } else {
            assert_eq!(of, (16, 32, 1));
        }
        let wgsl = specialization.wgsl();
        println!("{kernel}: {} bytes of WGSL, {} words of SPIR-V", wgsl.len(), spirv_words(&module));
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
