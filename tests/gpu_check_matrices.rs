//! A device's matrices are tried before they are used, on every adapter: correct matrices are kept, wrong ones given up with a reason, and
//! the verdict is kept in a file. `bash tests/matrix` provides a software device with matrices. Software tolerates mistakes that hardware
//! does not, so the wrong products here come from a changed text.

#[cfg(feature = "cli")]
#[path = "common/cli.rs"]
mod cli;
mod common;

use std::path::{Path, PathBuf};

use common::gpu::{contexts, matrix_contexts, open_each};
use common::{Case, shape};
use half::f16;
use wattn::{
    AttentionPlan, AttentionProblem, AttentionShape, Context, ContextOptions, DType, Edit, Error, Hip, Mask,
    SelectionPlan, SelectionProblem, Tier,
};

fn replaced(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the check has no {from:?}");
    text.replace(from, to)
}

/// Imitates a card that misplaces an array: a load from some column begins eight columns further on. (That card ignores the low bits of a
/// matrix's address, so a shift by four columns, 8 bytes, would have no effect there.)
fn shifted(_: &wgpu::Device, text: String) -> String {
    replaced(&text, "&tile_v[at * PER_VEC4]", "&tile_v[(at + 2u) * PER_VEC4]")
}

/// A device's mistakes, made in the text. All changed loads stay within their arrays.
const WRONG: [(&str, Edit); 14] = [
    ("values shifted by eight columns", shifted),
    ("keys shifted by eight columns", |_, text| {
        replaced(&text, "&tile_k[at * PER_VEC4]", "&tile_k[(at + 2u) * PER_VEC4]")
    }),
    ("queries shifted by eight columns", |_, text| {
        replaced(&text, "&tile_a[at * PER_VEC4]", "&tile_a[(at + 2u) * PER_VEC4]")
    }),
    ("weights shifted by eight columns", |_, text| {
        replaced(&text, "&tile_a[weights_at * PER_VEC4]", "&tile_a[(weights_at + 2u) * PER_VEC4]")
    }),
    ("keys transposed", |_, text| replaced(&text, "coopLoad<MatrixB>(&tile_k", "coopLoadT<MatrixB>(&tile_k")),
    ("values transposed", |_, text| replaced(&text, "coopLoadT<MatrixB>(&tile_v", "coopLoad<MatrixB>(&tile_v")),
    ("queries transposed", |_, text| replaced(&text, "coopLoadT<MatrixA>(&tile_a[at", "coopLoad<MatrixA>(&tile_a[at")),
    ("weights transposed", |_, text| {
        replaced(&text, "coopLoadT<MatrixA>(&tile_a[weights_at", "coopLoad<MatrixA>(&tile_a[weights_at")
    }),
    ("first sums transposed", |_, text| replaced(&text, "coopLoadT<MatrixC>", "coopLoad<MatrixC>")),
    ("scores transposed", |_, text| replaced(&text, "coopStoreT(products", "coopStore(products")),
    ("sums transposed", |_, text| replaced(&text, "coopStoreT(acc[", "coopStore(acc[")),
    ("columns of sums transposed", |_, text| replaced(&text, "coopStore(acc[", "coopStoreT(acc[")),
    ("another stride of keys", |_, text| replaced(&text, "K_STRIDE4 * PER_VEC4)", "(K_STRIDE4 - 2u) * PER_VEC4)")),
    ("the next row of values", |_, text| {
        replaced(
            &text,
            "&tile_v[at * PER_VEC4]",
            "&tile_v[select(at + V_STRIDE4, at, at > EDGE * V_STRIDE4) * PER_VEC4]",
        )
    }),
];

/// The verdict of the edited check on a device.
fn check_with(ctx: &Context, edit: Edit) -> wattn::Result<Context> {
    pollster::block_on(ctx.check_matrices_edited(edit))
}

fn options(ctx: &Context) -> ContextOptions {
    ContextOptions::default().with_adapter_name(ctx.device().adapter_info().name)
}

fn request_with(options: &ContextOptions, edit: Edit) -> Context {
    pollster::block_on(Context::request_edited(options, edit)).unwrap()
}

/// The files of verdicts in a folder.
fn verdicts(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.to_string_lossy().contains("wattn_matrices")).collect()
}

fn attends(ctx: &Context) {
    let case = Case::<f16>::random(shape(1, [17, 33], [1, 2]), Mask::Causal, 3);
    let got = ctx.attend(&case.problem(), &case.inputs()).wait().unwrap();
    assert!(got.out.data().iter().all(|x| x.is_finite()));
}

#[test]
fn matrices_that_are_right_are_kept() {
    for ctx in contexts() {
        let begin = std::time::Instant::now();
        let tried = ctx.check_matrices().wait().unwrap();
        println!("{}: tried in {:?}", ctx.describe(), begin.elapsed());
        assert_eq!(ctx.caps().matrix_fault, None, "{}", ctx.describe());
        assert_eq!(tried.caps(), ctx.caps(), "{}", ctx.describe());
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn every_mistake_takes_the_matrices_away() {
    for ctx in matrix_contexts() {
        for (what, edit) in WRONG {
            let faulty = check_with(ctx, edit).unwrap();
            let reason = faulty.caps().matrix_fault.as_deref().unwrap_or_else(|| panic!("{what}: not seen"));
            assert!(reason.starts_with("a product of whole numbers is wrong: "), "{what}: {reason}");
            assert_eq!(faulty.caps().matrix_edge(), None, "{what}");
        }
        // The context itself is unchanged, and a correct check gives its matrices back.
        assert!(ctx.caps().matrix_edge().is_some());
        let faulty = check_with(ctx, shifted).unwrap();
        assert_eq!(faulty.check_matrices().wait().unwrap().caps(), ctx.caps());
    }
}

/// Attention and selection fall to the next tier and say why; the tier itself is an error.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn plans_fall_to_the_next_tier() {
    let heads = AttentionShape {
        batch_size: 1,
        seq_len_q: 512,
        seq_len_kv: 512,
        num_q_heads: 2,
        num_kv_heads: 2,
        head_dim: 64,
        head_dim_v: 64,
    };
    let problem = AttentionProblem::new(heads, DType::F16).with_mask(Mask::Causal);
    let selection = SelectionProblem::new(heads, DType::F16, Hip::default().with_stride_q(1));
    for ctx in matrix_contexts() {
        let faulty = check_with(ctx, shifted).unwrap();
        // A software device would take no matrices for it in any case.
        let mut caps = faulty.caps().clone();
        caps.software = false;
        let plan = AttentionPlan::new(&problem, &caps).unwrap();
        assert_ne!(plan.tier(), Tier::Matrix);
        assert!(plan.to_string().contains("not taken  matrix: a product of whole numbers is wrong"), "{plan}");
        let error = AttentionPlan::with_tier(&problem, &caps, Tier::Matrix).unwrap_err();
        assert!(matches!(error, Error::FaultyFeature { .. }), "{error}");
        let error = SelectionPlan::with_tier(&selection, &caps, Tier::Matrix).unwrap_err();
        assert!(matches!(error, Error::FaultyFeature { .. }), "{error}");
        // A plan made before the check does not run afterwards either.
        let plan = AttentionPlan::with_tier(&problem, ctx.caps(), Tier::Matrix).unwrap();
        let error = wattn::Attention::prepare(&faulty, &plan).unwrap_err();
        assert!(matches!(error, Error::FaultyFeature { .. }), "{error}");
        attends(&faulty);
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn a_shader_that_is_refused_takes_the_matrices_away() {
    for ctx in matrix_contexts() {
        let faulty = check_with(ctx, |_, text| replaced(&text, "fn check_matrices", "fn another_name")).unwrap();
        let reason = faulty.caps().matrix_fault.as_deref().unwrap();
        assert!(reason.starts_with("the shader that tries it is refused: ") && !reason.contains('\n'), "{reason}");
        attends(&faulty);
    }
}

/// A lost device leaves no verdict for the next start, and the context has no matrices.
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn a_device_that_is_lost_is_opened_again() {
    let lose: Edit = |device, text| {
        device.destroy();
        text
    };
    for ctx in matrix_contexts() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(ctx).with_pipeline_cache(folder.path());
        let opened = request_with(&options, lose);
        let reason = opened.caps().matrix_fault.as_deref().unwrap();
        assert!(reason.starts_with("it could not be tried: the device was lost"), "{reason}");
        attends(&opened);
        opened.save_pipelines().unwrap();
        assert!(verdicts(folder.path()).is_empty());
        let own = Context::request(&options).wait().unwrap();
        assert!(matches!(check_with(&own, lose), Err(Error::DeviceLost { .. })));
    }
}

#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn verdicts_are_kept() {
    for ctx in matrix_contexts() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(ctx).with_pipeline_cache(folder.path());
        let fault = |edit| {
            let opened = request_with(&options, edit);
            let fault = opened.caps().matrix_fault.clone();
            (opened, fault)
        };
        let honest: Edit = |_, text| text;

        // The file is found and honoured: the correct check does not run.
        let (opened, found) = fault(shifted);
        assert!(found.is_some() && verdicts(folder.path()).is_empty());
        opened.save_pipelines().unwrap();
        let files = verdicts(folder.path());
        assert_eq!(files.len(), 1, "{files:?}");
        let written = std::fs::read(&files[0]).unwrap();
        let (opened, kept) = fault(honest);
        assert_eq!(kept, found);
        opened.save_pipelines().unwrap();
        assert_eq!(std::fs::read(&files[0]).unwrap(), written);

        // The file is damaged or not the library's own: the check runs again.
        let mut damaged = written.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for bad in [&written[..written.len() - 7], &damaged, b"right"] {
            std::fs::write(&files[0], bad).unwrap();
            assert_eq!(fault(honest).1, None);
        }

        // A requested check runs whatever the file says, and its verdict is kept as well.
        std::fs::write(&files[0], &written).unwrap();
        let (opened, kept) = fault(honest);
        assert!(kept.is_some());
        let tried = opened.check_matrices().wait().unwrap();
        assert_eq!(tried.caps().matrix_fault, None);
        tried.save_pipelines().unwrap();
        assert_eq!(fault(shifted).1, None);
        assert_eq!(verdicts(folder.path()), files);
    }
    // Without a folder nothing is kept.
    for ctx in matrix_contexts() {
        assert!(request_with(&options(ctx), shifted).caps().matrix_fault.is_some());
        assert_eq!(request_with(&options(ctx), |_, text| text).caps().matrix_fault, None);
    }
}

/// A program's own device has the matrices that it reports until the program asks for a trial.
#[test]
fn a_device_of_ones_own_is_tried_when_asked() {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle().with_env());
    for adapter in pollster::block_on(wattn::adapters(&instance)) {
        let Ok(ours) = Context::open(&adapter, &ContextOptions::default()).wait() else {
            println!("passed over {}", wattn::describe_adapter(&adapter.get_info()));
            continue;
        };
        let yours = Context::with_adapter(&adapter, ours.device().clone(), ours.queue().clone()).unwrap();
        assert_eq!(yours.caps().matrix_fault, None);
        let tried = check_with(&yours, shifted).map(|tried| tried.caps().matrix_fault.is_some());
        if yours.caps().matrix_edge().is_some() {
            assert!(tried.unwrap());
        }
    }
}

#[cfg(feature = "cli")]
#[test]
#[ignore = "needs cooperative matrices: bash tests/matrix"]
fn the_program_says_why() {
    use cli::{assert_fails, assert_succeeds, wattn_in};

    for ctx in matrix_contexts() {
        let folder = tempfile::tempdir().unwrap();
        let name = ctx.device().adapter_info().name;
        let options = options(ctx).with_pipeline_cache(folder.path().join("wattn"));
        request_with(&options, shifted).save_pipelines().unwrap();
        let reason = "a product of whole numbers is wrong: sums[";
        let info = assert_succeeds(&wattn_in(folder.path(), &["info", "--adapter", &name]));
        assert!(
            info.contains("matrix units      no") && info.contains(&format!("matrices unused   {reason}")),
            "{info}"
        );
        let shape = "1,512,512,2,2,64,64";
        let arguments = ["info", "--adapter", &name, "--shape", shape, "--dtype", "f16", "--tier", "matrix"];
        let info = assert_succeeds(&wattn_in(folder.path(), &arguments));
        let error =
            "no plan: matrix needs the device feature EXPERIMENTAL_COOPERATIVE_MATRIX, which does not work here: ";
        assert!(info.contains(&format!("{error}{reason}")), "{info}");
        // Every command reports it where the matrix tier is forced.
        let arguments = ["recall", "--adapter", &name, "--tier", "matrix"];
        assert_fails(&wattn_in(folder.path(), &arguments), reason);
    }
}

/// Applications move these futures between threads.
#[test]
fn opening_can_be_sent_to_another_thread() {
    fn assert_send(_: impl Send) {}
    let options = ContextOptions::default();
    assert_send(Context::request(&options));
    for ctx in contexts() {
        assert!(ctx.passed_over().is_empty(), "opened by adapter");
        assert_send(ctx.check_matrices());
    }
}

#[test]
fn adapters_that_do_not_open_are_passed_over_by_the_tests() {
    let adapters = [("Card", 1), ("Card/PCIe", 2), ("Card", 3), ("Other", 4), ("Other", 5)];
    let open = |&(name, number): &(&str, i32)| match number {
        2 | 4 => Err(Error::RequestDevice { adapter: name.to_owned(), reason: "Parent device is lost".to_owned() }),
        _ => Ok(number),
    };
    let (opened, passed_over) = open_each(&adapters, |adapter| adapter.0.to_owned(), open);
    assert_eq!(opened, [1, 5]);
    assert_eq!(passed_over.len(), 2);
    assert!(passed_over[0].starts_with("Card/PCIe: ") && passed_over[0].contains("Parent device is lost"));
}
