//! Checkpoints whose files are larger than memory, or endless: refused before they are read. One test, since it measures the memory of the
//! whole process.
#![cfg(target_os = "linux")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use common::lm::{copy, golden};
use wattn::Engine;
use wattn::lm::{LmError, Model, Session, SessionOptions};

/// Size of the largest file that can lie on a disk without taking space there.
const SPARSE: u64 = 1 << 40;

/// Peak memory of the process, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn refused(folder: &Path, what: &str) -> LmError {
    let begin = std::time::Instant::now();
    let error = Model::open(folder).map(|_| ()).expect_err(what);
    assert!(begin.elapsed().as_secs() < 10, "{what} took {:?}", begin.elapsed());
    assert!(peak() < 100_000_000, "{what}: {} bytes of memory", peak());
    error
}

fn write_sparse(path: &Path, bytes: &[u8], len: u64) {
    fs::write(path, bytes).unwrap();
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// A safetensors file with tensors of zeros that take no space on the disk.
fn huge_tensors(path: &Path, tensors: &[(&str, &[u64])]) {
    let mut end = 0;
    let one = |(name, shape): &(&str, &[u64])| {
        let begin = end;
        end += 2 * shape.iter().product::<u64>();
        format!(r#""{name}":{{"dtype":"F16","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
    };
    let header = format!("{{{}}}", tensors.iter().map(one).collect::<Vec<_>>().join(","));
    let all = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    write_sparse(path, &all, all.len() as u64 + end);
}

#[test]
fn what_is_refused_takes_little_memory() {
    let files = ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"];
    let index = "model.safetensors.index.json";
    for file in files.into_iter().chain([index]) {
        for device in [true, false] {
            let folder = copy("qwen3_f16");
            let path = folder.path().join(file);
            let _ = fs::remove_file(&path);
            if file == index {
                fs::remove_file(folder.path().join("model.safetensors")).unwrap();
            }
            if device {
                symlink("/dev/zero", &path).unwrap();
            } else {
                write_sparse(&path, b"", SPARSE);
            }
            let error = refused(folder.path(), file).to_string();
            assert!(error.contains(file), "{error}");
        }
    }
    // The largest size allowed for a file of its kind.
    for (file, len) in [("config.json", 2 << 20), ("tokenizer.json", 64 << 20), ("model.safetensors", 4 << 20)] {
        let folder = copy("qwen3_f16");
        let text = match file {
            "config.json" => format!("{{\"model_type\": \"qwen3\", \"unknown\": [{}1]}}", "0,".repeat((len - 60) / 2)),
            "tokenizer.json" => " ".repeat(len),
            _ => String::new(),
        };
        if file == "model.safetensors" {
            let one = |at: usize| format!("\"{at:x}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}");
            let all: Vec<String> = (0..65_000).map(one).collect();
            let header = format!("{{{}}}", all.join(","));
            assert!(header.len() < len);
            fs::write(folder.path().join(file), [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())
                .unwrap();
        } else {
            fs::write(folder.path().join(file), text).unwrap();
        }
        refused(folder.path(), file);
    }
    // One header longer than allowed, and headers that are longer than allowed in total.
    let folder = copy("qwen3_f16");
    let path = folder.path().join("model.safetensors");
    write_sparse(&path, &(90u64 << 20).to_le_bytes(), SPARSE);
    assert!(matches!(refused(folder.path(), "a long header"), LmError::Format { .. }));
    // Tensors of the sizes that the configuration asks for, larger than any memory.
    let (vocab, width, inner) = (1 << 22, 1 << 16, 1 << 20);
    let config = r#"{"model_type":"llama","vocab_size":4194304,"hidden_size":65536,"intermediate_size":1048576,
        "num_attention_heads":256,"num_hidden_layers":1,"tie_word_embeddings":true}"#;
    fs::write(folder.path().join("config.json"), config).unwrap();
    let embedding: (&str, &[u64]) = ("model.embed_tokens.weight", &[vocab, width]);
    huge_tensors(&path, &[embedding]);
    let error = refused(folder.path(), "one of the tensors");
    assert!(matches!(error, LmError::MissingTensor { .. }), "{error}");
    let square: &[u64] = &[width, width];
    huge_tensors(
        &path,
        &[
            embedding,
            ("model.norm.weight", &[width]),
            ("model.layers.0.input_layernorm.weight", &[width]),
            ("model.layers.0.post_attention_layernorm.weight", &[width]),
            ("model.layers.0.self_attn.q_proj.weight", square),
            ("model.layers.0.self_attn.k_proj.weight", square),
            ("model.layers.0.self_attn.v_proj.weight", square),
            ("model.layers.0.self_attn.o_proj.weight", square),
            ("model.layers.0.mlp.gate_proj.weight", &[inner, width]),
            ("model.layers.0.mlp.up_proj.weight", &[inner, width]),
            ("model.layers.0.mlp.down_proj.weight", &[width, inner]),
        ],
    );
    let error = refused(folder.path(), "all tensors");
    let needed = 2 * (vocab * width + 4 * width * width + 3 * inner * width + 3 * width);
    assert!(matches!(error, LmError::Memory { what: "the model", needed: n, .. } if n == needed), "{error}");
    for layers in [4_000_000_000u64, 1 << 40, 1025] {
        let folder = copy("qwen3_f16");
        fs::write(
            folder.path().join("config.json"),
            format!("{{\"model_type\":\"qwen3\",\"num_hidden_layers\":{layers}}}"),
        )
        .unwrap();
        let error = refused(folder.path(), "many layers");
        assert!(matches!(&error, LmError::Config { field, .. } if field == "num_hidden_layers"), "{error}");
    }
    // Capacity for more tokens than fit in memory.
    let model = golden("qwen3_f16").model;
    let options = SessionOptions::new(model.config(), (1 << 29) - 1);
    let error = Session::new(&Arc::clone(&model), &Engine::cpu(), &options).unwrap_err();
    assert!(matches!(error, LmError::Memory { .. }), "{error}");
    assert!(peak() < 100_000_000);
}
