//! The `wattn` command as its users see it: files in, files out, exit codes and messages.

#[path = "common/cli.rs"]
mod program;

use std::path::Path;
use std::process::Command;

use half::{bf16, f16};
use program::{Entry, Folder, assert_fails, assert_succeeds, entry, f32s, painted, text, wattn, write_file};
use safetensors::tensor::{Dtype, SafeTensors};
use wattn::cpu::oracle;
use wattn::{AttentionProblem, AttentionShape, DType, Element, HostInputs, HostTensor, Mask};

/// Back ends that must agree with the oracle.
const BACKENDS: &[&str] = &["oracle", "cpu", "gpu"];

/// Odd sizes, grouped heads, more keys than queries, v wider than q.
const SHAPE: AttentionShape = AttentionShape {
    batch_size: 2,
    seq_len_q: 5,
    seq_len_kv: 37,
    num_q_heads: 6,
    num_kv_heads: 2,
    head_dim: 12,
    head_dim_v: 20,
};

/// Runs `attend` on painted tensors of type `T` and compares with the oracle.
fn round_trip<T: Element>(dtype: Dtype, flags: &[&str], mask: Mask, scale: Option<f32>, lens: Option<&[u32]>) {
    let folder = Folder::new();
    let (input, output) = (folder.path("in.safetensors"), folder.path("out.safetensors"));
    let (q, k, v) = (painted::<T>(SHAPE.q(), 7), painted::<T>(SHAPE.k(), 11), painted::<T>(SHAPE.v(), 13));
    let mut entries = vec![entry("q", dtype, &q), entry("k", dtype, &k), entry("v", dtype, &v)];
    if let Some(lens) = lens {
        entries.push(("seq_lens_kv", Dtype::I32, vec![lens.len()], bytemuck::cast_slice(lens).to_vec()));
    }
    write_file(&input, &entries);
    let mut problem = AttentionProblem::new(SHAPE, T::DTYPE).with_mask(mask).with_out_dtype(DType::F32);
    if let Some(scale) = scale {
        problem = problem.with_softmax_scale(scale);
    }
    let inputs = HostInputs::new(&q, &k, &v);
    let inputs = lens.map_or(inputs, |lens| inputs.with_seq_lens_kv(lens));
    let expected = oracle::attend(&problem, &inputs).unwrap();

    for backend in BACKENDS {
        let mut args = vec!["attend", "--input", text(&input), "--output", text(&output), "--backend", backend];
        args.extend(flags);
        assert_succeeds(&wattn(&args));
        let file = std::fs::read(&output).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(file.names().len(), 2);
        let (out, lse) = (file.tensor("out").unwrap(), file.tensor("lse").unwrap());
        assert_eq!((out.dtype(), lse.dtype()), (Dtype::F32, Dtype::F32));
        assert_eq!(out.shape(), SHAPE.out().map(|n| n as usize));
        assert_eq!(lse.shape(), &SHAPE.lse().map(|n| n as usize)[..3]);
        for (actual, expected) in [(f32s(&out), expected.out.data()), (f32s(&lse), expected.lse.data())] {
            for (a, e) in actual.iter().zip(expected) {
                // A few dozen f32 roundings of numbers of this size; hardware may round the weights to `T`.
                let bound =
                    1e-5 * (1.0 + e.abs()) + if *backend == "gpu" { T::DTYPE.unit_roundoff() as f32 } else { 0.0 };
                assert!((a - e).abs() <= bound, "{backend} {flags:?}: {a} is not {e}");
            }
        }
    }
    assert_eq!(folder.names(), ["in.safetensors", "out.safetensors"], "no temporary file is left");
}

#[test]
fn attend_agrees_with_the_oracle_in_every_dtype() {
    round_trip::<f32>(Dtype::F32, &[], Mask::Full, None, None);
    round_trip::<f16>(Dtype::F16, &[], Mask::Full, None, None);
    round_trip::<bf16>(Dtype::BF16, &[], Mask::Full, None, None);
}

#[test]
fn attend_agrees_with_the_oracle_under_every_mask() {
    let window = |left, right| Mask::Window { left, right };
    let cases: [(&[&str], Mask); 6] = [
        (&["--causal"], Mask::Causal),
        (&["--window-right", "0"], Mask::Causal),
        (&["--window-left", "3"], window(Some(3), None)),
        (&["--window-right", "2"], window(None, Some(2))),
        (&["--window-left", "4", "--window-right", "1"], window(Some(4), Some(1))),
        (&["--causal", "--window-left", "0"], window(Some(0), Some(0))),
    ];
    for (flags, mask) in cases {
        round_trip::<f32>(Dtype::F32, flags, mask, None, None);
        // Fewer keys than queries in one sequence: its first rows see none under a causal mask.
        round_trip::<f32>(Dtype::F32, flags, mask, None, Some(&[3, 37]));
    }
    round_trip::<f32>(Dtype::F32, &["--causal-at", "4"], Mask::causal_at(4), None, None);
}

#[test]
fn attend_takes_a_scale_and_lengths() {
    round_trip::<f32>(Dtype::F32, &["--softmax-scale", "-0.5"], Mask::Full, Some(-0.5), None);
    round_trip::<f16>(Dtype::F16, &["--softmax-scale", "0"], Mask::Full, Some(0.0), Some(&[0, 36]));
}

#[test]
fn attend_converts_when_asked() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    let (q, k, v) = (painted::<f32>(SHAPE.q(), 7), painted::<f16>(SHAPE.k(), 11), painted::<bf16>(SHAPE.v(), 13));
    write_file(&input, &[entry("q", Dtype::F32, &q), entry("k", Dtype::F16, &k), entry("v", Dtype::BF16, &v)]);
    let args = ["attend", "--input", text(&input), "--output", text(&output), "--backend", "oracle"];
    assert_fails(&wattn(&args), "`k` is F16, `q` is F32; --dtype converts all");
    assert!(!output.exists());

    assert_succeeds(&wattn(&[&args[..], &["--dtype", "bf16"]].concat()));
    fn rounded<T: Element>(tensor: &HostTensor<T>) -> HostTensor<bf16> {
        let data = tensor.data().iter().map(|x| bf16::from_f32(x.to_f32())).collect();
        HostTensor::new(tensor.shape(), data).unwrap()
    }
    let (q, k, v) = (rounded(&q), rounded(&k), rounded(&v));
    let problem = AttentionProblem::new(SHAPE, DType::BF16).with_out_dtype(DType::F32);
    let expected = oracle::attend(&problem, &HostInputs::new(&q, &k, &v)).unwrap();
    let file = std::fs::read(&output).unwrap();
    let out = f32s(&SafeTensors::deserialize(&file).unwrap().tensor("out").unwrap());
    assert_eq!(out, expected.out.data());
}

#[test]
fn attend_writes_a_summary() {
    let folder = Folder::new();
    let (input, output, json) = (folder.path("in"), folder.path("out"), folder.path("summary.json"));
    let tensors = [painted::<f32>(SHAPE.q(), 7), painted(SHAPE.k(), 11), painted(SHAPE.v(), 13)];
    let entries: Vec<Entry<'_>> =
        ["q", "k", "v"].into_iter().zip(&tensors).map(|(name, tensor)| entry(name, Dtype::F32, tensor)).collect();
    write_file(&input, &entries);
    let args = ["attend", "--input", text(&input), "--output", text(&output), "--backend", "oracle"];
    let stdout = assert_succeeds(&wattn(&[&args[..], &["--json", text(&json)]].concat()));
    assert!(stdout.contains("out [2, 5, 6, 20], lse [2, 5, 6]"), "{stdout}");
    let summary: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(summary["out"], serde_json::json!([2, 5, 6, 20]));
    assert_eq!(assert_succeeds(&wattn(&[&args[..], &["--quiet"]].concat())), "");
}

/// A safetensors file with this header and `data` zero bytes behind it.
fn raw_file(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

/// q, k, v of these shapes, all zero, with the given dtype name of `bytes` bytes.
fn shaped_file(dtype: &str, size: usize, shapes: [&[usize]; 3]) -> Vec<u8> {
    let mut end = 0;
    let tensors = ["q", "k", "v"].into_iter().zip(shapes).map(|(name, shape)| {
        let start = end;
        end += shape.iter().product::<usize>() * size;
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{end}]}}"#)
    });
    let header = format!("{{{}}}", tensors.collect::<Vec<_>>().join(","));
    raw_file(&header, end)
}

#[test]
fn bad_files_give_one_clear_line_and_no_output() {
    let good: [&[usize]; 3] = [&[1, 2, 4, 8], &[1, 3, 2, 8], &[1, 3, 2, 12]];
    let with = |index: usize, shape: &'static [usize]| {
        let mut shapes = good;
        shapes[index] = shape;
        shaped_file("F32", 4, shapes)
    };
    let lens = |dtype: &str, shape: &str, data: usize| {
        let file = shaped_file("F32", 4, good);
        let len = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header = std::str::from_utf8(&file[8..8 + len - 1]).unwrap();
        let start = file.len() - 8 - len;
        let end = start + data;
        let entry = format!(r#","seq_lens_kv":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{start},{end}]}}}}"#);
        let mut file = raw_file(&(header.to_owned() + &entry), end);
        let len = file.len();
        file[len - data..].fill(0xff);
        file
    };
    let mut truncated = shaped_file("F32", 4, good);
    truncated.truncate(truncated.len() - 5);
    let mut half_header = shaped_file("F32", 4, good);
    half_header.truncate(60);
    let huge = r#"{"q":{"dtype":"F32","shape":[4294967295,4294967295,4294967295,4294967295],"data_offsets":[0,4]}}"#;
    let wide = r#"{"q":{"dtype":"F32","shape":[1,0,1,4294967296],"data_offsets":[0,0]},
        "k":{"dtype":"F32","shape":[1,0,1,4],"data_offsets":[0,0]},
        "v":{"dtype":"F32","shape":[1,0,1,4],"data_offsets":[0,0]}}"#;
    let escape = "{\"q\\n\\u001b[31m\":{\"dtype\":\"F32\",\"shape\":[9],\"data_offsets\":[0,4]}}";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty file", vec![], "not a safetensors file"),
        ("seven bytes", vec![0; 7], "not a safetensors file"),
        ("text", b"this is not a safetensors file at all".to_vec(), "not a safetensors file"),
        ("header longer than anything", vec![0xff; 64], "not a safetensors file"),
        ("header not JSON", raw_file("[[[[[[", 0), "not a safetensors file"),
        ("header not UTF-8", [8u64.to_le_bytes(), [0xff; 8]].concat(), "not a safetensors file"),
        ("data cut off", truncated, "not a safetensors file"),
        ("header cut off", half_header, "not a safetensors file"),
        ("sizes overflow", raw_file(huge, 4), "not a safetensors file"),
        ("hostile name", raw_file(escape, 4), "not a safetensors file"),
        ("an axis past 32 bits", raw_file(wide, 0), "an axis must be below 2^32"),
        ("no tensors", raw_file("{}", 0), "there is no tensor `q`"),
        ("3 axes", with(0, &[2, 4, 8]), "`q` has 3 axes"),
        ("5 axes", with(2, &[1, 1, 3, 2, 12]), "`v` has 5 axes"),
        ("batch differs", with(1, &[2, 3, 2, 8]), "`k` has shape [2, 3, 2, 8], expected [1, 3, 2, 8]"),
        ("head_dim differs", with(1, &[1, 3, 2, 4]), "`k` has shape [1, 3, 2, 4], expected [1, 3, 2, 8]"),
        ("lengths differ", with(2, &[1, 4, 2, 12]), "`v` has shape [1, 4, 2, 12], expected [1, 3, 2, 12]"),
        ("heads do not divide", with(0, &[1, 2, 5, 8]), "num_q_heads = 5"),
        ("no heads", shaped_file("F32", 4, [&[1, 2, 0, 8], &[1, 3, 0, 8], &[1, 3, 0, 8]]), "num_kv_heads = 0"),
        ("odd head_dim", shaped_file("F32", 4, [&[1, 2, 2, 6], &[1, 3, 2, 6], &[1, 3, 2, 8]]), "head_dim = 6"),
        ("wide head_dim_v", with(2, &[1, 3, 2, 260]), "head_dim_v = 260"),
        ("wrong dtype", shaped_file("F64", 8, good), "`q` is F64, expected F32, F16 or BF16"),
        ("integers", shaped_file("I32", 4, good), "`q` is I32"),
        ("negative length", lens("I32", "[1]", 4), "`seq_lens_kv[0]` = -1: must be from 0 to seq_len_kv = 3"),
        ("length past the keys", lens("U32", "[1]", 4), "`seq_lens_kv[0]` = 4294967295: must be from 0"),
        ("too many lengths", lens("U32", "[2]", 8), "`seq_lens_kv` holds 2 lengths, there are 1 sequences"),
        ("lengths of rank 0", lens("U32", "[]", 4), "`seq_lens_kv` has 0 axes"),
        ("lengths in f32", lens("F32", "[1]", 4), "`seq_lens_kv` is F32"),
    ];
    for (name, file, part) in cases {
        let folder = Folder::new();
        let (input, output) = (folder.path("in"), folder.path("out"));
        std::fs::write(&input, file).unwrap();
        let result = wattn(&["attend", "--input", text(&input), "--output", text(&output), "--backend", "oracle"]);
        println!("{name}: {}", String::from_utf8_lossy(&result.stderr));
        assert_fails(&result, part);
        assert_eq!(folder.names(), ["in"], "{name}");
    }
}

#[test]
fn bad_paths_and_flags_give_one_clear_line() {
    let folder = Folder::new();
    let (input, output) = (folder.path("in"), folder.path("out"));
    let tensors = [painted::<f32>(SHAPE.q(), 7), painted(SHAPE.k(), 11), painted(SHAPE.v(), 13)];
    let entries: Vec<Entry<'_>> =
        ["q", "k", "v"].into_iter().zip(&tensors).map(|(name, tensor)| entry(name, Dtype::F32, tensor)).collect();
    write_file(&input, &entries);
    let files = ["attend", "--input", text(&input), "--output", text(&output), "--backend", "oracle"];
    let with = |flags: &[&str]| wattn(&[&files[..], flags].concat());
    assert_fails(&with(&["--causal", "--window-right", "1"]), "--window-right 1");
    assert_fails(&with(&["--softmax-scale", "nan"]), "softmax_scale");
    assert_fails(&with(&["--softmax-scale", "1e999"]), "softmax_scale");
    assert_fails(&with(&["--window-left", "-1"]), "--window-left");
    assert_fails(&with(&["--dtype", "f64"]), "f64");
    assert_fails(&with(&["--bf16-matrices"]), "bf16_by_f16_matrices");
    assert_succeeds(&with(&["--bf16-matrices", "--dtype", "bf16"]));
    std::fs::remove_file(&output).unwrap();
    assert_fails(&with(&["--adapter", "any"]), "--adapter");
    assert_fails(&with(&["--json", text(&folder.path("no/such/folder"))]), "its folder does not exist");
    let to = |path: &Path| wattn(&["attend", "--input", text(&input), "--output", text(path), "--backend", "oracle"]);
    assert_fails(&to(&folder.path("no/such/folder")), "its folder does not exist");
    assert_fails(&to(folder.dir.path()), "not a regular file");
    let from = |path: &Path| wattn(&["attend", "--input", text(path), "--output", text(&output)]);
    assert_fails(&from(&folder.path("missing")), "cannot read");
    assert_fails(&from(folder.dir.path()), "cannot read");
    assert_eq!(folder.names(), ["in"]);

    assert_fails(&wattn(&["attend"]), "--input");
    assert_fails(&wattn(&["attend", "--frobnicate"]), "--frobnicate");
    assert_fails(&wattn(&["frobnicate"]), "frobnicate");
    assert_fails(&wattn(&["info", "--shape", "1,2,3"]), "seven numbers");
    assert_fails(&wattn(&["info", "--shape", "1,8,8,3,2,64,64"]), "num_q_heads = 3");
    assert_fails(&wattn(&["info", "--adapter", "no adapter is called this"]), "no adapter");
}

const POEM: &str = "The king was in his counting-house, counting out his money. The queen was in the parlour, eating \
                    bread and honey. The maid was in the garden, hanging out the clothes. ";

#[test]
fn recall_reports_checks_and_draws() {
    let folder = Folder::new();
    let (file, png, json) = (folder.path("poem.txt"), folder.path("poem.png"), folder.path("poem.json"));
    std::fs::write(&file, POEM.repeat(3)).unwrap();
    let cost = |backend: &str, extra: &[&str]| {
        let outputs = ["--png", text(&png), "--json", text(&json)];
        let stdout =
            assert_succeeds(&wattn(&[&["recall", text(&file), "--backend", backend], &outputs[..], extra].concat()));
        assert!(stdout.contains("order-0 entropy") && stdout.contains(": ok"), "{stdout}");
        // Paths and device names have any length.
        let free = |line: &str| line.contains("picture") || line.contains(" tier");
        assert!(stdout.lines().all(|line| line.chars().count() <= 80 || free(line)), "{stdout}");
        assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!(report["bytes"], POEM.len() * 3);
        assert_eq!(report["check"]["ok"], true);
        assert_eq!(report["segments"].as_array().unwrap().len(), 8);
        (report["bits_per_byte"].as_f64().unwrap(), report["order0_bits_per_byte"].as_f64().unwrap())
    };
    for backend in BACKENDS {
        let (bits, order0) = cost(backend, &[]);
        assert!(bits < 0.8 * order0, "two of three stanzas were there before: {bits}, order 0 {order0}");
        // The size of chunks depends on memory; only rounding may differ.
        let (by_chunks, _) = cost(backend, &["--chunk", "100"]);
        assert!((bits - by_chunks).abs() < 1e-4, "{bits} {by_chunks}");
        for dtype in ["f16", "bf16"] {
            let (rounded, _) = cost(backend, &["--dtype", dtype, "--chunk", "77"]);
            assert!((bits - rounded).abs() < 0.2, "{dtype}: {bits} {rounded}");
        }
    }
    assert_eq!(folder.names(), ["poem.json", "poem.png", "poem.txt"]);
}

#[test]
fn recall_takes_the_smallest_texts_and_any_bytes() {
    let folder = Folder::new();
    let (file, png) = (folder.path("bytes"), folder.path("bytes.png"));
    let bytes: Vec<u8> = (0..=255).cycle().take(300).map(|n: u8| n.wrapping_mul(91)).collect();
    for len in [2, 3, 23, 24, 25, 300] {
        std::fs::write(&file, &bytes[..len]).unwrap();
        assert_succeeds(&wattn(&["recall", text(&file), "--backend", "oracle", "--png", text(&png)]));
    }
    let recall = |extra: &[&str]| wattn(&[&["recall", text(&file), "--backend", "oracle"], extra].concat());
    assert!(assert_succeeds(&recall(&["--length", "17"])).contains(": 17 bytes"));
    assert_succeeds(&recall(&["--heads", "8", "--head-dim", "4", "--seed", "18446744073709551615"]));
    for (flag, value) in
        [("--length", "1"), ("--length", "2M"), ("--heads", "0"), ("--head-dim", "6"), ("--chunk", "0")]
    {
        assert_fails(&recall(&[flag, value]), flag);
    }
    std::fs::write(&file, "a").unwrap();
    assert_fails(&recall(&[]), "at least 2 bytes");
    assert_fails(&wattn(&["recall", text(&folder.path("missing"))]), "cannot read");
}

#[test]
fn info_lists_adapters_as_text_and_json() {
    let folder = Folder::new();
    let json = folder.path("info.json");
    let stdout =
        assert_succeeds(&wattn(&["info", "--shape", "1,512,512,8,2,64,64", "--causal", "--json", text(&json)]));
    assert!(stdout.starts_with("wattn "), "{stdout}");
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    let adapters = info["adapters"].as_array().unwrap();
    assert!(!adapters.is_empty(), "no GPU adapter: `bash tests/run` installs software Vulkan drivers on Debian");
    assert_eq!(adapters.len(), info["plans"].as_array().unwrap().len());
    assert!(stdout.contains("dispatch   attend_prefill"), "{stdout}");
    // Each tier that an adapter lacks, with the missing feature.
    for adapter in adapters {
        let missed = adapter["missed_tiers"].as_array().unwrap();
        assert_eq!(missed.is_empty(), adapter["matrix_edge"].is_number(), "{adapter:#}");
        for missed in missed {
            assert!(stdout.contains(&format!("missed tier       {}", missed.as_str().unwrap())), "{stdout}");
        }
    }
    assert!(stdout.contains("crossover  dense is as fast up to "), "{stdout}");
    // Measured numbers depend on the device and on the machine's load.
    let stdout = assert_succeeds(&wattn(&["info", "--measure", "--json", text(&json)]));
    assert!(stdout.contains("  measured "), "{stdout}");
    let info: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    for adapter in info["adapters"].as_array().unwrap() {
        let speed = adapter["speed"].as_object().unwrap();
        assert!(speed.len() == 6 && speed.values().all(|number| number.as_u64().unwrap() > 0), "{speed:?}");
    }
    // An adapter without subgroups cannot plan with them; that must not be an error.
    assert_succeeds(&wattn(&["info", "--shape", "1,1,4096,8,2,64,64", "--dtype", "f16", "--tier", "subgroup"]));
    let flags = ["info", "--shape", "1,64,64,8,2,64,64", "--bf16-matrices", "--dtype"];
    let stdout = assert_succeeds(&wattn(&[&flags[..], &["bf16"]].concat()));
    assert!(stdout.contains("factors    bf16 as"), "{stdout}");
    assert_fails(&wattn(&[&flags[..], &["f32"]].concat()), "bf16_by_f16_matrices");
}

#[test]
fn a_gpu_that_is_not_there_is_never_replaced() {
    let folder = Folder::new();
    let file = folder.path("text");
    std::fs::write(&file, "to be or not to be").unwrap();
    for backend in ["auto", "gpu"] {
        let args = ["recall", text(&file), "--backend", backend, "--adapter", "no adapter is called this"];
        assert_fails(&wattn(&args), "no GPU adapter named like \"no adapter is called this\"; found: ");
    }
    // An OpenGL adapter may exist where the list of Vulkan drivers is empty; the back end of another system does not.
    let foreign = if cfg!(windows) { "metal" } else { "dx12" };
    let without_gpu = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wattn"));
        command.args(args).env("WGPU_BACKEND", foreign).output().expect("the binary starts")
    };
    assert_fails(&without_gpu(&["recall", text(&file), "--backend", "gpu"]), "no GPU adapter; found: none");
    let stdout = assert_succeeds(&without_gpu(&["recall", text(&file)]));
    assert!(stdout.contains("CPU, blockwise (no GPU)"), "{stdout}");
    let stdout = assert_succeeds(&without_gpu(&["info", "--shape", "1,1,4096,8,2,64,64"]));
    assert!(stdout.contains("no adapter found") && stdout.contains("attend_decode"), "{stdout}");
}

#[test]
fn help_says_what_to_give() {
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--help"], &["recall", "attend", "info", "Exit code"]),
        (&["recall", "--help"], &["--length", "--png", "one-hot"]),
        (&["attend", "--help"], &["num_kv_heads", "--window-left", "seq_lens_kv", "i + seq_len_kv - seq_len_q"]),
        (&["info", "--help"], &["--shape"]),
        (&["lm", "-h"], &["[possible values: auto, gpu, cpu]", "N=PRESET", "3K-fast"]),
        (&["bench", "-h"], &["[possible values: auto, gpu, cpu]", "sparse-decode/", "--quiet", "--threads"]),
        (&["tune", "-h"], &["[possible values: auto, gpu]", "needed"]),
    ];
    for (args, parts) in cases {
        let stdout = assert_succeeds(&wattn(args));
        for part in parts {
            assert!(stdout.contains(part), "{args:?} lacks {part}: {stdout}");
        }
    }
    // No command lists an option that it does not take.
    for (command, part) in [("lm", "oracle"), ("recall", "hip, blocks]"), ("tune", "--tier"), ("bench", "`oracle`")] {
        let stdout = assert_succeeds(&wattn(&[command, "-h"]));
        assert!(!stdout.contains(part), "{command}: {stdout}");
    }
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let stdout = assert_succeeds(&wattn(&["completions", shell]));
        assert!(stdout.contains("window-left") && stdout.contains("completions"), "{shell}");
    }
    assert!(assert_succeeds(&wattn(&["--version"])).contains(env!("CARGO_PKG_VERSION")));
}
