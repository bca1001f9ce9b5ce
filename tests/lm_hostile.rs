//! Checkpoints broken by accident or on purpose: an error that names the fault, and nothing else.

mod common;

use std::fs;
use std::path::Path;

use common::lm::{CASES, copy, folder};
use proptest::prelude::*;
use serde_json::{Value, json};
use wattn::lm::{LmConfig, LmError, Model, RopeScaling};

fn open(folder: &Path) -> LmError {
    Model::open(folder).map(|_| ()).unwrap_err()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, serde_json::to_vec(&json).unwrap()).unwrap();
}

/// Rewrites the header of a safetensors file and keeps its data.
fn edit_header(path: &Path, change: impl FnOnce(&mut Value)) {
    let bytes = fs::read(path).unwrap();
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut json: Value = serde_json::from_slice(&bytes[8..8 + len]).unwrap();
    change(&mut json);
    let header = serde_json::to_vec(&json).unwrap();
    let all = [&(header.len() as u64).to_le_bytes()[..], &header, &bytes[8 + len..]].concat();
    fs::write(path, all).unwrap();
}

#[test]
fn missing_files_are_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = copy("qwen3_f16");
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = open(folder.path());
        assert!(matches!(error, LmError::File { .. }) && error.to_string().contains(file), "{error}");
    }
}

#[test]
fn tensors_of_another_shape_are_named() {
    for (field, value, tensor) in [
        ("vocab_size", 95, "model.embed_tokens.weight"),
        ("hidden_size", 36, "model.embed_tokens.weight"),
        ("intermediate_size", 52, "model.layers.0.mlp.gate_proj.weight"),
        ("num_key_value_heads", 4, "model.layers.0.self_attn.k_proj.weight"),
        ("head_dim", 8, "model.layers.0.self_attn.q_proj.weight"),
    ] {
        let folder = copy("qwen3_f16");
        edit(&folder.path().join("config.json"), |config| config[field] = value.into());
        match open(folder.path()) {
            LmError::TensorShape { tensor: named, expected, actual } => {
                assert_eq!(named, tensor, "{field}");
                assert_ne!(expected, actual);
            }
            error => panic!("{field}: {error}"),
        }
    }
}

#[test]
fn missing_tensors_are_named() {
    let folder = copy("qwen3_f16");
    edit(&folder.path().join("config.json"), |config| {
        config["num_hidden_layers"] = 3.into();
        config["layer_types"] = Value::Null;
    });
    let error = open(folder.path());
    assert!(matches!(&error, LmError::MissingTensor { tensor } if tensor.starts_with("model.layers.2.")), "{error}");
    let folder = copy("qwen3_f32_tied");
    edit(&folder.path().join("config.json"), |config| config["tie_word_embeddings"] = false.into());
    let error = open(folder.path());
    assert!(matches!(&error, LmError::MissingTensor { tensor } if tensor == "lm_head.weight"), "{error}");
    let folder = copy("qwen3_f16");
    edit_header(&folder.path().join("model.safetensors"), |header| {
        let header = header.as_object_mut().unwrap();
        let tensor = header.remove("model.norm.weight").unwrap();
        header.insert("model.norm.wait".to_owned(), tensor);
    });
    let error = open(folder.path());
    assert!(matches!(&error, LmError::MissingTensor { tensor } if tensor == "model.norm.weight"), "{error}");
}

#[test]
fn truncated_files_name_the_tensor() {
    let folder = copy("mistral_f16");
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
    let error = open(folder.path());
    assert!(matches!(&error, LmError::Truncated { file, .. } if file == "model.safetensors"), "{error}");
    assert!(error.to_string().contains("tensor `"), "{error}");
    for len in [0, 7, 8, 20] {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(matches!(open(folder.path()), LmError::Format { .. }), "{len} bytes");
    }
    fs::write(&path, [&u64::MAX.to_le_bytes()[..], &bytes[8..]].concat()).unwrap();
    assert!(matches!(open(folder.path()), LmError::Format { .. }), "a header of 2^64 bytes");
}

#[test]
fn other_types_are_named() {
    let folder = copy("mistral_f16");
    edit_header(&folder.path().join("model.safetensors"), |header| header["model.norm.weight"]["dtype"] = "I16".into());
    let error = open(folder.path());
    assert!(
        matches!(&error, LmError::TensorDType { tensor, actual } if tensor == "model.norm.weight" && actual == "I16")
    );
}

#[test]
fn headers_whose_offsets_lie_are_refused() {
    for change in [json!([0, 8]), json!([8, 0]), json!([0, u64::MAX]), json!([-1, 5]), json!("x")] {
        let folder = copy("mistral_f16");
        let path = folder.path().join("model.safetensors");
        edit_header(&path, |header| header["model.norm.weight"]["data_offsets"] = change.clone());
        let error = open(folder.path());
        assert!(matches!(error, LmError::Format { .. }), "{change}: {error}");
    }
}

#[test]
fn an_index_that_lies_names_the_tensor() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 5] = [
        ("which is not there", |map| map["model.norm.weight"] = "model-00009-of-00005.safetensors".into()),
        ("not a file of its folder", |map| map["model.norm.weight"] = "../model.safetensors".into()),
        ("not a file of its folder", |map| map["model.norm.weight"] = "/etc/passwd".into()),
        ("not a file of its folder", |map| map["model.norm.weight"] = "".into()),
        ("which is no file name", |map| map["model.norm.weight"] = 7.into()),
    ];
    for (reason, change) in cases {
        let folder = copy("llama_f32_sharded");
        edit(&folder.path().join("model.safetensors.index.json"), |index| change(&mut index["weight_map"]));
        let error = open(folder.path());
        let named = matches!(&error, LmError::Shard { tensor, .. } if tensor == "model.norm.weight");
        assert!(named && error.to_string().contains(reason), "{reason}: {error}");
    }
    let folder = copy("llama_f32_sharded");
    for text in ["", "[]", "{\"weight_map\": 3}"] {
        fs::write(folder.path().join("model.safetensors.index.json"), text).unwrap();
        assert!(matches!(open(folder.path()), LmError::Format { .. }), "{text:?}");
    }
}

/// Files that hold other tensors than the index says: the headers of the files count.
#[test]
fn tensors_are_believed_before_an_index() {
    let whole = Model::open(&folder("llama_f32_sharded")).unwrap();
    let elsewhere = |index: &mut Value| {
        let map = index["weight_map"].as_object_mut().unwrap();
        map.remove("model.norm.weight");
        map["model.embed_tokens.weight"] = "model-00005-of-00005.safetensors".into();
        map.insert("model.layers.7.nothing".to_owned(), "model-00001-of-00005.safetensors".into());
    };
    let folder = copy("llama_f32_sharded");
    edit(&folder.path().join("model.safetensors.index.json"), elsewhere);
    let model = Model::open(folder.path()).unwrap();
    assert_eq!(model.size_bytes(), whole.size_bytes());
    // A tensor that no file has is missing, even if the index lists it.
    for entry in fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.to_string_lossy().ends_with(".safetensors") && entry.file_name().unwrap() != "golden.safetensors" {
            edit_header(&entry, |header| {
                let header = header.as_object_mut().unwrap();
                if let Some(tensor) = header.remove("model.norm.weight") {
                    header.insert("model.norm.wait".to_owned(), tensor);
                }
            });
        }
    }
    assert!(matches!(open(folder.path()), LmError::MissingTensor { tensor } if tensor == "model.norm.weight"));
}

/// One whole file takes precedence over an index: an index of an older checkpoint, a broken one, or one without its files.
#[test]
fn one_file_is_read_before_an_index() {
    for index in ["{\"weight_map\": {\"model.norm.weight\": \"old.safetensors\"}}", "nonsense"] {
        let folder = copy("qwen3_f16");
        fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        Model::open(folder.path()).unwrap();
    }
}

/// The configuration of a case with one field changed.
fn config(case: &str, field: &str, value: Value) -> Result<LmConfig, LmError> {
    let text = fs::read_to_string(folder(case).join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json[field] = value;
    LmConfig::from_json(&json.to_string())
}

#[test]
fn fields_out_of_range_are_named() {
    for (field, values) in [
        ("model_type", vec![json!("gpt2"), json!(3), json!(null)]),
        ("vocab_size", vec![json!(0), json!(-1), json!(1.5), json!("x"), json!(null), json!(u64::MAX), json!(1 << 30)]),
        ("hidden_size", vec![json!(0), json!(34), json!(1 << 20)]),
        ("num_hidden_layers", vec![json!(0), json!(1 << 20), json!(4_000_000_000u64), json!(u64::MAX)]),
        ("num_attention_heads", vec![json!(0), json!(3), json!(4096)]),
        ("num_key_value_heads", vec![json!(0), json!(3), json!(8)]),
        ("head_dim", vec![json!(6), json!(260), json!(0)]),
        ("intermediate_size", vec![json!(0), json!(50)]),
        ("rms_norm_eps", vec![json!(-1.0), json!("x")]),
        ("hidden_act", vec![json!("gelu")]),
        ("max_position_embeddings", vec![json!(0), json!("x"), json!(null)]),
        ("layer_types", vec![json!(3), json!(["full_attention"]), json!(["full_attention", "chunked_attention"])]),
        ("partial_rotary_factor", vec![json!(0.5)]),
        ("eos_token_id", vec![json!("x"), json!(1.5), json!([1, "x"]), json!(true)]),
        ("tie_word_embeddings", vec![json!(1)]),
    ] {
        for value in values {
            let error = config("qwen3_f16", field, value.clone()).unwrap_err();
            // The number of heads is checked from one of the two fields.
            let named = matches!(&error, LmError::Config { field: named, .. }
                if named == field || (field == "num_attention_heads" && named == "num_key_value_heads"));
            assert!(named, "{field} = {value}: {error}");
        }
    }
    for rope in
        [json!({"rope_type": "longrope"}), json!({"rope_type": "yarn"}), json!({"rope_type": "linear", "factor": 0})]
    {
        let error = config("qwen3_f16", "rope_parameters", rope).unwrap_err();
        assert!(matches!(error, LmError::Config { .. }), "{error}");
    }
}

#[test]
fn fields_are_read() {
    let text = |case: &str| fs::read_to_string(folder(case).join("config.json")).unwrap();
    let of = |case| LmConfig::from_json(&text(case)).unwrap();
    assert_eq!(of("qwen2_bf16_sharded").sliding_windows, [None, Some(5)]);
    assert_eq!(of("mistral_f16").sliding_windows, [Some(7), Some(7)]);
    assert!(matches!(of("qwen3_f16").rope.scaling, RopeScaling::Yarn { .. }));
    assert!(matches!(of("llama_f32_sharded").rope.scaling, RopeScaling::Llama3 { .. }));
    assert_eq!(of("llama_f32_sharded").rope.theta, 500.0);
    assert_eq!(config("qwen3_f16", "eos_token_id", json!([1, 96, -1])).unwrap().eos_tokens, [1]);
    assert_eq!(config("qwen3_f16", "bos_token_id", json!(-1)).unwrap().bos_token, None);
    assert_eq!(config("qwen3_f16", "eos_token_id", json!([2, 3])).unwrap().eos_tokens, [2, 3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Any bytes anywhere in the files: an error or a model, never a panic.
    #[test]
    fn flipped_bytes_never_panic(case in 0..CASES.len(), file in 0..3usize, at in any::<prop::sample::Index>(), byte: u8) {
        let folder = copy(CASES[case]);
        let name = ["config.json", "model.safetensors", "model-00001-of-00003.safetensors"][file];
        let path = folder.path().join(name);
        if let Ok(mut bytes) = fs::read(&path) {
            let span = bytes.len().min(2048); // only the header can be misread
            bytes[at.index(span)] = byte;
            fs::write(&path, bytes).unwrap();
            let _ = Model::open(folder.path());
        }
    }
}
