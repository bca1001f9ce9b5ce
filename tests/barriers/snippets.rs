//! Faults that the analysis finds and correct code that it accepts, in shaders of a few lines.

use std::collections::BTreeMap;

use super::lower::lower;
use super::machine;
use super::shadow::Fault;

/// Runs the body of a kernel of eight invocations in two subgroups.
fn run(body: &str) -> Result<(), Fault> {
    let source = format!(
        "enable f16;
        enable wgpu_cooperative_matrix;
        diagnostic(off, derivative_uniformity);
        @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
        var<workgroup> words: array<u32, 64>;
        var<workgroup> vectors: array<vec4<f32>, 16>;
        var<workgroup> halves: array<f16, 64>;
        var<workgroup> matrix: array<f32, 64>;
        var<workgroup> flag: atomic<u32>;
        var<private> own: array<u32, 4>;
        @compute @workgroup_size(8)
        fn kernel(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) workgroup: vec3<u32>) {{
            {body}
        }}"
    );
    let mut buffers = BTreeMap::from([("buffer", vec![0; 64])]);
    machine::run(&lower(&source, 4), [2, 1, 1], &Vec::new(), &mut buffers).map(|_| ())
}

fn assert_race(body: &str) {
    let result = run(body);
    assert!(matches!(result, Err(Fault::Race(_))), "{body}: {result:?}");
}

fn assert_clean(body: &str) {
    run(body).unwrap_or_else(|fault| panic!("{body}: {fault}"));
}

#[test]
fn words_need_a_barrier() {
    assert_race("words[lane] = 1u; buffer[workgroup.x * 8u + lane] = words[lane ^ 1u];");
    assert_clean("words[lane] = 1u; workgroupBarrier(); buffer[workgroup.x * 8u + lane] = words[lane ^ 1u];");
    // Also before the next write, and among several writers.
    assert_race("words[lane] = 1u; workgroupBarrier(); own[0] = words[lane ^ 1u]; words[lane] = own[0];");
    assert_race("words[lane / 2u] = 1u;");
    assert_clean("words[lane] = 1u; words[lane] += 1u; words[lane + 8u] = words[lane];");
    assert_race("vectors[lane] = vec4<f32>(1.0); own[0] = u32(vectors[lane ^ 1u].x);");
    assert_clean("if lane == 0u { words[0] = 1u; } workgroupBarrier(); words[lane] = 1u;");
}

#[test]
fn halves_of_a_word_are_places_of_their_own() {
    assert_clean("halves[lane] = f16(lane);");
    assert_race("halves[lane] = f16(lane); own[0] = u32(f32(halves[lane ^ 1u]));");
}

#[test]
fn a_barrier_orders_its_own_memory() {
    let through = |barrier: &str| {
        format!("buffer[workgroup.x * 8u + lane] = 1u; {barrier}(); own[0] = buffer[workgroup.x * 8u + (lane ^ 1u)];")
    };
    assert_race(&through("workgroupBarrier"));
    assert_clean(&through("storageBarrier"));
    assert_race("words[lane] = 1u; storageBarrier(); own[0] = words[lane ^ 1u];");
    assert_race("buffer[workgroup.x * 8u + lane] = 1u; words[0] = 0u; own[0] = workgroupUniformLoad(&words[0]);");
    // Nothing orders one workgroup after another.
    assert_race("buffer[lane] = 1u;");
}

#[test]
fn a_load_that_is_uniform_is_two_barriers() {
    assert_clean("if lane == 3u { words[0] = 1u; } let x = workgroupUniformLoad(&words[0]); words[lane] = x;");
    assert_race("if lane == 3u { words[0] = 1u; } let x = words[0]; words[lane + 1u] = x;");
}

#[test]
fn atomics_of_one_kind_need_no_order() {
    let begun = "if lane == 0u { atomicStore(&flag, 0u); } workgroupBarrier();";
    assert_clean(&format!("{begun} atomicAdd(&flag, 1u); workgroupBarrier(); own[0] = atomicLoad(&flag);"));
    assert_race(&format!("{begun} atomicAdd(&flag, 1u); own[0] = atomicLoad(&flag);"));
    assert_race(&format!("{begun} atomicAdd(&flag, lane); atomicMax(&flag, lane);"));
    // The order matters where the results are read.
    assert_race(&format!("{begun} own[0] = atomicAdd(&flag, 1u); words[lane] = own[0];"));
    assert_race("if lane == 0u { atomicStore(&flag, 0u); } atomicAdd(&flag, 1u);");
    assert_clean(&format!("{begun} atomicOr(&flag, 1u << lane); workgroupBarrier(); words[lane] = atomicLoad(&flag);"));
    assert_race(&format!("{begun} atomicOr(&flag, 1u << lane); atomicAnd(&flag, 3u);"));
}

#[test]
fn barriers_are_reached_by_all() {
    let is_divergent = |body: &str| {
        let result = run(body);
        assert!(matches!(result, Err(Fault::NotUniform(_))), "{body}: {result:?}");
    };
    is_divergent("if lane < 4u { workgroupBarrier(); }");
    is_divergent("if lane == 7u { return; } workgroupBarrier();");
    is_divergent("for (var i = 0u; i < lane; i++) { workgroupBarrier(); }");
    is_divergent("for (var i = 0u; i < 3u; i++) { if i == lane { break; } storageBarrier(); }");
    is_divergent("for (var i = 0u; i < 3u; i++) { if i == lane { continue; } storageBarrier(); }");
    is_divergent("if lane == 0u { words[0] = 1u; own[0] = workgroupUniformLoad(&words[0]); }");
    is_divergent("if lane != 2u { own[0] = subgroupAdd(lane); }");
    assert_clean("for (var i = 0u; i < workgroup.x + 2u; i++) { workgroupBarrier(); }");
    assert_clean("if lane < 4u { own[0] = subgroupAdd(lane); }");
}

#[test]
fn subgroups_order_nothing() {
    assert_race("words[lane] = 1u; own[0] = subgroupShuffleXor(lane, 1u); own[1] = words[lane ^ 1u];");
}

/// The lane that holds an element of a matrix is unknown.
#[test]
fn matrices_are_touched_by_no_lane_in_particular() {
    let store = "let zero = coop_mat8x8<f32, C>(); if lane < 4u { coopStoreT(zero, &matrix[0], 8u); }";
    let load = "if lane < 4u { var loaded = coopLoadT<coop_mat8x8<f32, C>>(&matrix[0], 8u); }";
    assert_clean(&format!("{store} workgroupBarrier(); {load} own[0] = u32(matrix[lane]);"));
    assert_race(&format!("{store} own[0] = u32(matrix[0]);"));
    assert_race(&format!("{store} {load}"));
    assert_race(&format!("{store} workgroupBarrier(); {load} matrix[lane] = 1.0;"));
    assert_race(&format!("{store} {}", store.replace("zero", "again")));
}

#[test]
fn matrices_lie_at_multiples_of_16_bytes() {
    let store = |at: u32, stride: u32| {
        run(&format!(
            "let zero = coop_mat8x8<f32, C>(); if lane < 4u {{ coopStoreT(zero, &matrix[{at}], {stride}u); }}"
        ))
    };
    assert!(store(0, 8).is_ok(), "{:?}", store(0, 8));
    for (at, stride) in [(1, 8), (2, 8), (0, 6)] {
        let result = store(at, stride);
        assert!(matches!(result, Err(Fault::Misaligned(_))), "at {at} in rows of {stride}: {result:?}");
    }
}

#[test]
fn indices_stay_inside_and_nothing_is_read_unwritten() {
    let is_outside = |body: &str| {
        let result = run(body);
        assert!(matches!(result, Err(Fault::Bounds(_))), "{body}: {result:?}");
    };
    is_outside("words[lane + 60u] = 1u;");
    is_outside("own[lane] = 1u;");
    is_outside("own[0] = buffer[lane + 9u];");
    is_outside("own[0] = subgroupShuffle(lane, lane);");
    assert_clean("if lane < 4u { own[lane] = 1u; }");
    let result = run("if workgroup.x == 0u { words[lane] = 1u; } workgroupBarrier(); own[0] = words[lane];");
    assert!(matches!(result, Err(Fault::Unwritten(_))), "the second workgroup begins anew: {result:?}");
}
