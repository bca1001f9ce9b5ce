//! The check of a device's matrices, as text: valid WGSL, translatable, laid out as the host and attention's tiles expect. Plans for a
//! device that failed it. Needs no GPU.

#[path = "common/devices.rs"]
mod devices;
#[path = "common/wgsl.rs"]
mod wgsl;

use std::collections::BTreeSet;

use devices::matrix_gpu;
use naga::AddressSpace;
use naga::valid::Capabilities;
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, Error, Hip, Mask, MatrixCheck, MatrixTile,
    SelectionPlan, SelectionProblem, Tier,
};

fn device(edge: u32, lanes: u32) -> DeviceCaps {
    let mut caps = DeviceCaps::BASELINE;
    (caps.shader_f16, caps.subgroup_size) = (true, Some(lanes..=lanes));
    caps.matrix_tiles = vec![MatrixTile::square(edge)];
    caps
}

const NAME: &str = "check_matrices";

#[test]
fn the_shader_is_laid_out_as_the_host_believes() {
    for (edge, lanes) in [(8, 4), (8, 8), (8, 32), (16, 32), (16, 64), (16, 128), (16, 256)] {
        for (matrix_from_vec4, software) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut caps = device(edge, lanes);
            (caps.matrix_from_vec4, caps.software) = (matrix_from_vec4, software);
            let check = MatrixCheck::of(&caps).unwrap();
            let what = format!("{check:?}");
            let capabilities = Capabilities::SHADER_FLOAT16 | Capabilities::COOPERATIVE_MATRIX;
            let (module, info) = wgsl::validated(&check.wgsl(), capabilities, &what);
            assert_eq!(module.entry_points.len(), 1, "{what}");
            let entry = &module.entry_points[0];
            assert_eq!(entry.name, NAME, "{what}");
            assert_eq!(entry.workgroup_size, [check.workgroup_size(), 1, 1], "{what}");
            assert!(check.workgroup_size() <= caps.max_invocations_per_workgroup, "{what}");
            wgsl::assert_layout(&module, &check.specialization().bindings(), &what);
            wgsl::translate(&module, &info, NAME, (1, 6), &what);

            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).unwrap();
            let shared = module.global_variables.iter().filter(|(_, global)| global.space == AddressSpace::WorkGroup);
            let sizes: Vec<u32> = shared.map(|(_, global)| layouter[global.ty].size).collect();
            // In any order of the variables, each size keeps the next variable at an address that matrices are loaded from.
            assert!(sizes.iter().all(|size| size.is_multiple_of(16)), "{what}: {sizes:?}");
            assert!(sizes.iter().sum::<u32>() <= 16 << 10, "{what}: {sizes:?}");
        }
    }
}

#[test]
fn a_kernel_is_one_stem_in_two_places() {
    assert_eq!(wgsl::stems("shaders/check", "wgsl"), BTreeSet::from([NAME.to_owned()]));
    assert!(wgsl::stems("src/plan", "rs").contains(NAME));
}

/// A device without any kind of matrices that kernels use has nothing to try.
#[test]
fn only_matrices_that_kernels_use_are_tried() {
    assert!(MatrixCheck::of(&DeviceCaps::BASELINE).is_none());
    let mut varying = device(16, 32);
    varying.subgroup_size = Some(8..=32);
    assert!(MatrixCheck::of(&varying).is_none());
    // Matrices once found faulty can be tried again.
    let mut faulty = device(16, 32);
    faulty.matrix_fault = Some("wrong".to_owned());
    assert!(MatrixCheck::of(&faulty).is_some());
}

fn shape() -> AttentionShape {
    AttentionShape {
        batch_size: 1,
        seq_len_q: 4096,
        seq_len_kv: 4096,
        num_q_heads: 8,
        num_kv_heads: 8,
        head_dim: 128,
        head_dim_v: 128,
    }
}

#[test]
fn plans_do_without_faulty_matrices_and_say_why() {
    let (right, mut faulty) = (matrix_gpu(), matrix_gpu());
    faulty.matrix_fault = Some("shifted by four columns".to_owned());
    assert_eq!((right.matrix_edge(), faulty.matrix_edge()), (Some(16), None));
    let line = "not taken  matrix: shifted by four columns\n";
    let attention = AttentionProblem::new(shape(), DType::F16).with_mask(Mask::Causal);
    let selection = SelectionProblem::new(shape(), DType::F16, Hip::default().with_stride_q(1));

    let [with, without] = [&right, &faulty].map(|caps| AttentionPlan::new(&attention, caps).unwrap());
    assert_eq!((with.tier(), without.tier()), (Tier::Matrix, Tier::SubgroupF16));
    assert!(!with.to_string().contains("not taken") && without.to_string().contains(line), "{without}");
    let [with, without] = [&right, &faulty].map(|caps| SelectionPlan::new(&selection, caps).unwrap());
    assert_eq!((with.tier(), without.tier()), (Tier::Matrix, Tier::SubgroupF16));
    assert!(!with.to_string().contains("not taken") && without.to_string().contains(line), "{without}");

    // Plans without matrices, by a forced tier or by their problem, have nothing to report.
    let forced = AttentionPlan::with_tier(&attention, &faulty, Tier::Baseline).unwrap();
    assert!(!forced.to_string().contains("not taken"), "{forced}");
    let f32 = AttentionPlan::new(&AttentionProblem::new(shape(), DType::F32), &faulty).unwrap();
    assert!(!f32.to_string().contains("not taken"), "{f32}");
}

#[test]
fn a_faulty_tier_cannot_be_forced() {
    let mut faulty = matrix_gpu();
    faulty.matrix_fault = Some("shifted by four columns".to_owned());
    let errors = [
        faulty.require(Tier::Matrix).unwrap_err(),
        AttentionPlan::with_tier(&AttentionProblem::new(shape(), DType::F16), &faulty, Tier::Matrix).unwrap_err(),
        SelectionPlan::with_tier(&SelectionProblem::new(shape(), DType::F16, Hip::default()), &faulty, Tier::Matrix)
            .unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(&error, Error::FaultyFeature { needed_for: "matrix", .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "matrix needs the device feature EXPERIMENTAL_COOPERATIVE_MATRIX, which does not work here: shifted by four \
             columns"
        );
    }
    // Missing matrices are not faulty.
    faulty.matrix_tiles.clear();
    assert!(matches!(faulty.require(Tier::Matrix), Err(Error::MissingFeature { .. })));
}
