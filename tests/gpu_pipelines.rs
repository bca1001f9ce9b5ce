//! Compiled pipelines in a file: written whole, read again, and checked before use.

mod common;

use common::gpu::{bits, contexts};
use common::{Case, shape};
use wattn::{Context, ContextOptions, Mask, PipelineCacheState};

fn open(name: &str, folder: &std::path::Path) -> Context {
    Context::request(&ContextOptions::default().with_adapter_name(name).with_pipeline_cache(folder)).wait().unwrap()
}

/// The files of pipelines in a folder, which may be missing. Verdicts on matrices lie beside them.
fn pipeline_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| !path.to_string_lossy().contains("wattn_matrices")).collect()
}

#[test]
fn a_second_start_loads_what_the_first_compiled() {
    let case = Case::<f32>::random(shape(1, [5, 40], [1, 1]), Mask::Causal, 1);
    for ctx in contexts() {
        assert_eq!(ctx.pipeline_cache_state(), PipelineCacheState::Off);
        ctx.save_pipelines().unwrap();
        let name = ctx.device().adapter_info().name;
        let folder = tempfile::tempdir().unwrap();
        // A folder that does not exist yet.
        let cache = folder.path().join("wattn");
        let expected = bits(&ctx.attend(&case.problem(), &case.inputs()).wait().unwrap());
        let attend = |ctx: &Context| bits(&ctx.attend(&case.problem(), &case.inputs()).wait().unwrap());

        let first = open(&name, &cache);
        if first.pipeline_cache_state() == PipelineCacheState::Unsupported {
            assert!(!first.device().features().contains(wgpu::Features::PIPELINE_CACHE));
            first.save_pipelines().unwrap();
            assert!(pipeline_files(&cache).is_empty());
            continue;
        }
        assert_eq!(first.pipeline_cache_state(), PipelineCacheState::New);
        assert_eq!(attend(&first), expected);
        first.save_pipelines().unwrap();
        let files = pipeline_files(&cache);
        assert_eq!(files.len(), 1, "{files:?}");
        let written = std::fs::read(&files[0]).unwrap();

        let second = open(&name, &cache);
        assert_eq!(second.pipeline_cache_state(), PipelineCacheState::Loaded { bytes: written.len() - 32 });
        assert_eq!(attend(&second), expected);

        // A file that is cut short, damaged or not the library's own is reported, ignored, and replaced.
        let mut damaged = written.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for bad in [&written[..written.len() - 7], &damaged, b"something else"] {
            std::fs::write(&files[0], bad).unwrap();
            let third = open(&name, &cache);
            let state = third.pipeline_cache_state();
            assert!(matches!(&state, PipelineCacheState::Ignored { path, .. } if *path == files[0]), "{state:?}");
            assert_eq!(attend(&third), expected);
            third.save_pipelines().unwrap();
            let state = open(&name, &cache).pipeline_cache_state();
            assert!(matches!(state, PipelineCacheState::Loaded { .. }), "{state:?}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    for ctx in contexts() {
        let ctx = open(&ctx.device().adapter_info().name, &file.join("below"));
        match ctx.pipeline_cache_state() {
            PipelineCacheState::Unsupported if ctx.caps().matrix_edge().is_none() => ctx.save_pipelines().unwrap(),
            _ => assert!(matches!(ctx.save_pipelines(), Err(wattn::Error::File { .. }))),
        }
    }
}
