//! Every reader of files against files that are nearly valid: an error or a result, and never a panic, an abort, gigabytes or a long wait.
//! A few thousand files with each run of the tests; for a longer run
//!
//! `WATTN_FUZZ_SECONDS=3600 cargo test --release --test fuzz -- --ignored --nocapture`
//!
//! Seeds are printed; `WATTN_FUZZ_SEED=N` begins with one. A file that fails is kept in `target/tmp`.

mod mutate;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use mutate::mutate;
use safetensors::tensor::{Dtype, TensorView, serialize};
use wattn::bench::{Report, compare, lines};
use wattn::lm::{Model, Session, SessionOptions};
use wattn::tune::{Candidate, DeviceKey, Entry, TuningTable};
use wattn::{
    AttentionClass, AttentionPlan, AttentionProblem, AttentionShape, DType, DeviceCaps, Engine, Hip, Mask,
    SelectionClass, SelectionPlan, SelectionProblem, Tier,
};

/// Longest time for one file.
const LONGEST: Duration = Duration::from_secs(10);

/// Reads a file in every way that the program does.
type Reader = Box<dyn FnMut(&[u8])>;

/// One reader.
struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    /// Files in a run of all tests.
    cases: usize,
    read: Reader,
}

/// The files that the program and the library read, except language models.
fn files() -> Vec<Target> {
    let mut targets = vec![tuning(), report(), kept()];
    targets.extend(attend_arguments().into_iter().map(|(name, more)| attend(name, more)));
    targets
}

/// Files of language models.
fn checkpoints() -> Vec<Target> {
    checkpoint_files().into_iter().map(|(name, case, file)| checkpoint(name, case, file)).collect()
}

fn root() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Reads files until a count or a time is reached.
fn run(target: &mut Target, seed: u64, cases: usize, until: Option<Instant>) {
    let begin = Instant::now();
    let mut done = 0;
    while until.map_or(done < cases, |until| Instant::now() < until) {
        let mut random = Rng::with_seed(seed.wrapping_add(done as u64));
        let base = random.usize(0..target.seeds.len());
        let file = mutate(&target.seeds[base], &target.seeds, &mut random);
        let clock = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| (target.read)(&file)));
        if ended.is_err() || clock.elapsed() > LONGEST {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{}-{seed}-{done}", target.name));
            std::fs::write(&path, &file).unwrap();
            let seed = seed.wrapping_add(done as u64);
            panic!("{}: seed {seed}, {:?}: {}", target.name, clock.elapsed(), path.display());
        }
        done += 1;
    }
    println!("{}: {done} files from seed {seed} in {:?}", target.name, begin.elapsed());
}

fn first_seed() -> u64 {
    std::env::var("WATTN_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

#[test]
fn files_that_are_nearly_right() {
    all_of(files());
}

#[test]
fn checkpoints_that_are_nearly_right() {
    all_of(checkpoints());
}

fn all_of(targets: Vec<Target>) {
    for mut target in targets {
        for seed in target.seeds.clone() {
            (target.read)(&seed);
        }
        let cases = target.cases;
        run(&mut target, first_seed(), cases, None);
    }
    assert_memory();
}

#[test]
#[ignore = "runs for WATTN_FUZZ_SECONDS, by default an hour"]
fn for_a_long_time() {
    for_long(files());
}

#[test]
#[ignore = "runs for WATTN_FUZZ_SECONDS, by default an hour"]
fn checkpoints_for_a_long_time() {
    for_long(checkpoints());
}

fn for_long(mut targets: Vec<Target>) {
    let seconds = std::env::var("WATTN_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3600);
    let end = Instant::now() + Duration::from_secs(seconds);
    let slice = Duration::from_secs(seconds / targets.len() as u64 / 4).max(Duration::from_secs(1));
    let mut seed = first_seed().wrapping_add(1 << 32);
    while Instant::now() < end {
        for target in &mut targets {
            run(target, seed, 0, Some(end.min(Instant::now() + slice)));
        }
        seed = seed.wrapping_add(1 << 32);
        assert_memory();
    }
}

/// Peak memory of this process: seeds, a small model, and the readers' memory.
fn assert_memory() {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return };
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most: u64 = most.and_then(|most| most.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
    println!("at most {} MiB", most >> 10);
    assert!(most < 400 << 10, "{most} KiB");
}

/// Tables of `wattn tune`, and plans made with them.
fn tuning() -> Target {
    let shape = |seq_len_q, seq_len_kv| AttentionShape {
        batch_size: 1,
        seq_len_q,
        seq_len_kv,
        num_q_heads: 8,
        num_kv_heads: 2,
        head_dim: 64,
        head_dim_v: 64,
    };
    let attention = [(512, 4096), (1, 16384)]
        .map(|(q, kv)| AttentionProblem::new(shape(q, kv), DType::F32).with_mask(Mask::Causal));
    let selection = SelectionProblem::new(shape(64, 16384), DType::F32, Hip::default());
    let key = DeviceKey {
        adapter: "Card".to_owned(),
        pci: [1, 2],
        backend: "vulkan".to_owned(),
        driver: ["a".to_owned(), "1.0".to_owned()],
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let caps = DeviceCaps::BASELINE;
    let mut table = TuningTable::new();
    for problem in &attention {
        let tiling = AttentionPlan::new(problem, &caps).unwrap().tiling();
        let (class, candidate) = (AttentionClass::of(problem), Candidate { tier: Tier::Baseline, tiling });
        table.set_attention(&key, Entry { class, candidate, seconds: 1.0, untuned_seconds: 1.5, left_out: 0 });
    }
    let tiling = SelectionPlan::new(&selection, &caps).unwrap().tiling();
    let (class, candidate) = (SelectionClass::of(&selection), Candidate { tier: Tier::Baseline, tiling });
    table.set_selection(&key, Entry { class, candidate, seconds: 1.0, untuned_seconds: 1.5, left_out: 0 });
    let seeds = vec![table.to_json().unwrap().into_bytes()];
    let read = move |file: &[u8]| {
        let Ok(table) = TuningTable::from_json(file) else { return };
        let caps = caps.clone().with_tuning(table.tuning(&key));
        // A tiling that does not fit is passed over, whatever it says.
        for problem in &attention {
            AttentionPlan::new(problem, &caps).unwrap();
        }
        SelectionPlan::new(&selection, &caps).unwrap();
        table.to_json().unwrap();
    };
    Target { name: "tuning", seeds, cases: 4000, read: Box::new(read) }
}

/// Reports of `wattn bench`.
fn report() -> Target {
    let seed = std::fs::read(root().join("tests/golden/bench_report.json")).unwrap();
    let whole = Report::from_json(&seed).unwrap();
    let read = move |file: &[u8]| {
        let Ok(report) = Report::from_json(file) else { return };
        let _ = (compare(&whole, &report), compare(&report, &whole), lines(&report.cases), report.wrong());
    };
    Target { name: "report", seeds: vec![seed], cases: 1500, read: Box::new(read) }
}

/// Compiled pipelines and verdicts on matrices.
fn kept() -> Target {
    let seeds = vec![wattn::pack_kept(b"right\n"), wattn::pack_kept(&[7; 300])];
    let read = |file: &[u8]| {
        let _ = wattn::unpack_kept(file);
    };
    Target { name: "kept", seeds, cases: 4000, read: Box::new(read) }
}

fn attend_arguments() -> [(&'static str, &'static [&'static str]); 3] {
    [
        ("attend", &[]),
        ("attend-hip", &["--attention", "hip", "--hip-k", "4", "--hip-block-q", "2", "--sink", "2", "--window", "2"]),
        ("attend-blocks", &["--attention", "blocks", "--block-q", "3", "--block-size", "2"]),
    ]
}

/// The tensors of `wattn attend`, through the program: it must end by itself, within 400 MiB of addresses.
fn attend(name: &'static str, more: &'static [&'static str]) -> Target {
    let bytes = |count: usize, size: usize| vec![1u8; count * size];
    let file = |dtype: Dtype, size: usize, lens: Dtype, lens_size: usize| {
        let tensors = [
            ("q", dtype, vec![2, 3, 2, 8], bytes(96, size)),
            ("k", dtype, vec![2, 5, 1, 8], bytes(80, size)),
            ("v", dtype, vec![2, 5, 1, 4], bytes(40, size)),
            ("seq_lens_kv", lens, vec![2], [3u8, 5].iter().flat_map(|&n| padded(n, lens_size)).collect()),
            ("block_indices", lens, vec![2, 2, 1, 2], bytes(0, 1)),
            ("block_counts", lens, vec![2, 2, 1], bytes(0, 1)),
        ];
        let views = tensors.iter().map(|(name, dtype, shape, data)| {
            let data = if data.is_empty() {
                let count: usize = shape.iter().product();
                (0..count).flat_map(|at| padded(if at % 2 == 0 { 0 } else { 2 }, lens_size)).collect()
            } else {
                data.clone()
            };
            (*name, *dtype, shape.clone(), data)
        });
        let views: Vec<_> = views.collect();
        let views = views
            .iter()
            .map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
        serialize(views, None).unwrap()
    };
    let seeds = vec![
        file(Dtype::F32, 4, Dtype::I32, 4),
        file(Dtype::F16, 2, Dtype::I64, 8),
        file(Dtype::BF16, 2, Dtype::U8, 1),
    ];
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::var_os("CARGO_BIN_EXE_wattn").unwrap_or_else(|| env!("CARGO_BIN_EXE_wattn").into());
    let read = move |bytes: &[u8]| {
        let (input, output) = (folder.path().join("in"), folder.path().join("out"));
        std::fs::write(&input, bytes).unwrap();
        let limited = if cfg!(target_os = "linux") { "ulimit -v 400000 -t 10; exec \"$@\"" } else { "exec \"$@\"" };
        let mut command = Command::new("bash");
        command.args(["-c", limited, "bash"]).arg(&program).args(["attend", "--backend", "cpu", "--threads", "1"]);
        command.args(more).arg("--input").arg(&input).arg("--output").arg(&output);
        let done = command.stdin(Stdio::null()).output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr);
        match done.status.code() {
            Some(0) => {}
            Some(2) => assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}"),
            other => panic!("{other:?}: {stderr}"),
        }
    };
    Target { name, seeds, cases: 60, read: Box::new(read) }
}

/// A small number of `size` bytes.
fn padded(number: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes[0] = number;
    bytes
}

fn checkpoint_files() -> [(&'static str, &'static str, &'static str); 5] {
    [
        ("config", "qwen3_f16", "config.json"),
        ("config-llama", "llama_f32_sharded", "config.json"),
        ("tokenizer", "qwen3_f16", "tokenizer.json"),
        ("index", "qwen2_bf16_sharded", "model.safetensors.index.json"),
        ("tensors", "qwen3_f16", "model.safetensors"),
    ]
}

/// A file of a checkpoint beside whole ones; a model that opens reads a few tokens.
fn checkpoint(name: &'static str, case: &'static str, file: &'static str) -> Target {
    let from = root().join("tests/golden/lm").join(case);
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(&from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    let seeds = vec![std::fs::read(from.join(file)).unwrap()];
    let read = move |bytes: &[u8]| {
        std::fs::write(folder.path().join(file), bytes).unwrap();
        let Ok(model) = Model::open(folder.path()) else { return };
        let model = std::sync::Arc::new(model);
        let Ok(tokens) = model.tokenizer().encode_prompt("a b") else { return };
        let _ = model.tokenizer().decode(&tokens);
        let options = SessionOptions::new(model.config(), 8);
        if let Ok(mut session) = Session::new(&model, &Engine::cpu(), &options) {
            let _ = session.read(&tokens[..tokens.len().min(4)]);
            let _ = session.logits();
        }
    };
    Target { name, seeds, cases: 150, read: Box::new(read) }
}
