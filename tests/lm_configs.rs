//! Variants of configurations and files around the same weights: transformers' results for each, and the fields themselves.

mod common;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::lm::{Golden, TOLERANCE, copy, difference, folder, golden, root};
use safetensors::tensor::{SafeTensors, TensorView, serialize_to_file};
use serde_json::{Map, Value, json};
use wattn::Engine;
use wattn::lm::{LmConfig, LmError, LmResult, Model, RopeScaling, Session, SessionOptions};

/// The tensors of a folder, whose files are removed.
fn take_tensors(folder: &Path) -> Vec<(String, Vec<u8>, Vec<usize>, safetensors::Dtype)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if !name.starts_with("model") {
            continue;
        }
        if name.ends_with(".safetensors") {
            let bytes = fs::read(&path).unwrap();
            for (name, tensor) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
                all.push((name, tensor.data().to_vec(), tensor.shape().to_vec(), tensor.dtype()));
            }
        }
        fs::remove_file(path).unwrap();
    }
    all
}

/// The edits of `make_configs.py` to the tensors of a folder.
fn change_tensors(folder: &Path, what: &str) {
    const EMBEDDING: &str = "model.embed_tokens.weight";
    let mut all = take_tensors(folder);
    let mut head = all.iter().find(|(name, ..)| name == EMBEDDING).unwrap().clone();
    head.0 = "lm_head.weight".to_owned();
    match what {
        "base names" => all.iter_mut().for_each(|(name, ..)| {
            if let Some(base) = name.strip_prefix("model.") {
                *name = base.to_owned();
            }
        }),
        "head is the embedding upside down" => {
            let row = head.1.len() / head.2[0];
            head.1 = head.1.chunks_exact(row).rev().flatten().copied().collect();
            all.push(head);
        }
        "head beside the embedding" => all.push(head),
        "head instead of the embedding" => {
            all.retain(|(name, ..)| name != EMBEDDING);
            all.push(head);
        }
        _ => panic!("{what}"),
    }
    let views = all
        .iter()
        .map(|(name, data, shape, dtype)| (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, &folder.join("model.safetensors")).unwrap();
}

/// JSON in Python's style.
fn with_python_numbers(text: &str) -> String {
    text.replace("\"Infinity\"", "Infinity").replace("\"NaN\"", "NaN")
}

#[test]
fn logits_are_those_of_transformers() {
    let text = fs::read_to_string(root().join("tests/golden/lm/configs.json")).unwrap();
    let quoted = text.replace(": Infinity", ": \"Infinity\"").replace(": NaN", ": \"NaN\"");
    let variants: Vec<Value> = serde_json::from_str(&quoted).unwrap();
    assert!(variants.len() > 40);
    for variant in variants {
        let [name, case] = ["name", "case"].map(|field| variant[field].as_str().unwrap());
        let count = variant["count"].as_u64().unwrap() as usize;
        let changed = copy(case);
        let config = changed.path().join("config.json");
        let mut json: Map<String, Value> = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        json.extend(variant["changes"].as_object().unwrap().clone());
        variant["left_out"].as_array().unwrap().iter().for_each(|field| drop(json.remove(field.as_str().unwrap())));
        fs::write(&config, with_python_numbers(&serde_json::to_string(&json).unwrap())).unwrap();
        if let Some(what) = variant["tensors"].as_str() {
            change_tensors(changed.path(), what);
        }
        let model = Model::open(changed.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let bits = variant["logits"].as_array().unwrap().iter().map(|bits| bits.as_u64().unwrap() as u32);
        let wanted: Vec<f32> = bits.map(f32::from_bits).collect();
        let Golden { tokens, .. } = golden(case);
        // Whatever the capacity.
        for capacity in [count as u32, 200] {
            let options = SessionOptions::new(model.config(), capacity).with_text_len(count as u32);
            let model = Arc::new(Model::open(changed.path()).unwrap());
            let mut session = Session::new(&model, &Engine::cpu(), &options).unwrap();
            session.read(&tokens[..count]).unwrap();
            let error = difference(&session.logits().unwrap(), &wanted);
            println!("{name}: {error:.1e}");
            assert!(error <= TOLERANCE, "{name}, room for {capacity}: {error:.1e}");
        }
    }
}

fn of(fields: &Value) -> LmResult<LmConfig> {
    LmConfig::from_json(&fields.to_string())
}

/// The configuration classes of transformers 5.24 with `model_type` as the only field.
#[test]
fn fields_that_are_left_out_have_the_values_of_transformers() {
    for (family, vocab, inner, kv_heads, head_dim, trained, window) in [
        ("llama", 32000, 11008, 32, 128, 2048, None),
        ("mistral", 32000, 14336, 8, 128, 131_072, Some(4096)),
        ("qwen2", 151_936, 22016, 32, 128, 32768, None),
        ("qwen3", 151_936, 22016, 32, 128, 32768, None),
    ] {
        let config = of(&json!({"model_type": family})).unwrap();
        let sizes =
            [config.vocab_size, config.hidden_size, config.intermediate_size, config.num_layers, config.trained_len];
        assert_eq!(sizes, [vocab, 4096, inner, 32, trained], "{family}");
        assert_eq!([config.num_q_heads, config.num_kv_heads, config.head_dim], [32, kv_heads, head_dim], "{family}");
        assert_eq!(config.sliding_windows, [window; 32], "{family}");
        assert_eq!((config.rms_norm_eps, config.rope.theta, config.rope.scaling), (1e-6, 10000.0, RopeScaling::None));
        assert_eq!(
            (config.tied, config.mlp_bias, config.out_bias, config.qkv_bias),
            (false, false, false, family == "qwen2")
        );
        assert_eq!((config.eos_tokens, config.bos_token), (vec![], None), "{family}");
    }
    let windows = of(&json!({"model_type": "qwen2", "use_sliding_window": true})).unwrap().sliding_windows;
    assert_eq!(windows, [vec![None; 28], vec![Some(4096); 4]].concat());
    let narrow = |family, more: Value| {
        let mut json = json!({"model_type": family, "hidden_size": 64, "num_attention_heads": 4});
        json.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        of(&json).unwrap()
    };
    // Only Qwen3's heads have a width of their own; nulls stand for values that follow from other fields.
    assert_eq!(narrow("qwen3", json!({"num_key_value_heads": 2})).head_dim, 128);
    assert_eq!(narrow("qwen2", json!({"num_key_value_heads": 2, "head_dim": null})).head_dim, 16);
    assert_eq!(narrow("mistral", json!({"num_key_value_heads": null})).num_kv_heads, 4);
    assert_eq!(narrow("llama", json!({})).num_kv_heads, 4);
}

/// All fields of `to_dict` and of old files are known; an unknown field is refused by its name.
#[test]
fn every_field_is_known_or_named() {
    let harmless: Value = serde_json::from_str(
        r#"{
        "_name_or_path": "x", "architectures": ["LlamaForCausalLM"], "transformers_version": "5.24.0", "torch_dtype": "float16",
        "dtype": "bfloat16", "use_cache": true, "initializer_range": 0.02, "attention_dropout": 0.1, "resid_pdrop": 0.1,
        "hidden_dropout": 0.2, "pretraining_tp": 4, "pad_token_id": -1, "sep_token_id": 5, "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0}, "problem_type": "regression", "return_dict": true, "output_hidden_states": true,
        "output_attentions": true, "chunk_size_feed_forward": 0, "is_encoder_decoder": false, "temperature": 0.6, "top_p": 0.9,
        "max_length": 4096, "do_sample": true, "repetition_penalty": 1.1, "auto_map": {"AutoConfig": "x"}, "tokenizer_class": "x",
        "unsloth_version": "2024", "rope_interleaved": false, "task_specific_params": {"x": 1}, "model_max_length": 8192,
        "num_experts": null, "num_local_experts": 0, "use_qk_norm": false, "embedding_multiplier": 0.0, "residual": [],
        "some_name": "", "quantization_config": null, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
        "mlp_bias": false, "sliding_window": null, "max_window_layers": 28, "use_sliding_window": false, "layer_types": null}"#,
    )
    .unwrap();
    for family in ["llama", "mistral", "qwen2", "qwen3"] {
        let mut json = json!({"model_type": family});
        json.as_object_mut().unwrap().extend(harmless.as_object().unwrap().clone());
        of(&json).unwrap_or_else(|error| panic!("{family}: {error}"));
        for (field, value) in [
            ("num_experts", json!(8)),
            ("use_qk_norm", json!(true)),
            ("embedding_multiplier", json!(12.0)),
            ("quantization_config", json!({"bits": 4})),
            ("per_layer_config", json!({"0": {"head_dim": 64}})),
            ("is_encoder_decoder", json!(true)),
            ("position_embedding_type", json!("alibi")),
        ] {
            let mut json = json.clone();
            json[field] = value;
            let error = of(&json).unwrap_err();
            let named = matches!(&error, LmError::Config { file: "config.json", field: named, .. } if named == field);
            assert!(named, "{field}: {error}");
        }
        for (rope, named) in [
            (json!({"rope_type": "yarn", "factor": 2.0, "extrapolation": 3}), "rope_scaling.extrapolation"),
            (json!({"rope_type": "longrope", "short_factor": [1.0]}), "rope_scaling.rope_type"),
            (json!({"type": "su"}), "rope_scaling.type"),
            (json!({"type": null}), "rope_scaling.type"),
            (json!({"rope_type": "yarn"}), "rope_scaling.factor"),
            (json!({"rope_type": "linear", "factor": null}), "rope_scaling.factor"),
            (json!({"rope_type": "linear", "factor": {"__float__": "Infinity"}}), "rope_scaling.factor"),
            (
                json!({"rope_type": "dynamic", "factor": 2.0, "partial_rotary_factor": 0.5}),
                "rope_scaling.partial_rotary_factor",
            ),
            (json!([1]), "rope_scaling"),
            (json!({"full_attention": {"rope_type": "default"}}), "rope_scaling.full_attention"),
        ] {
            let error = of(&json!({"model_type": family, "rope_scaling": rope.clone()})).unwrap_err();
            assert!(matches!(&error, LmError::Config { field, .. } if field == named), "{rope}: {error}");
        }
    }
}

#[test]
fn windows_that_are_named_must_be_given() {
    for family in ["mistral", "qwen2", "qwen3"] {
        let fields = json!({"model_type": family, "num_hidden_layers": 1, "use_sliding_window": true, "sliding_window": null,
            "layer_types": ["sliding_attention"]});
        let error = of(&fields).unwrap_err();
        assert!(matches!(&error, LmError::Config { field, .. } if field == "layer_types"), "{error}");
    }
}

/// The end tokens of `generation_config.json` count if it names any.
#[test]
fn end_tokens_come_from_the_generation_config() {
    for (in_config, in_generation, wanted) in [
        (json!(7), None, vec![7]),
        (json!(7), Some(json!({"eos_token_id": [2, 63]})), vec![2, 63]),
        (json!(null), Some(json!({"eos_token_id": 5, "temperature": 0.6})), vec![5]),
        (json!([7, 8]), Some(json!({"bos_token_id": 3})), vec![7, 8]),
        (json!([7, 8]), Some(json!({"eos_token_id": null})), vec![7, 8]),
        (json!(7), Some(json!({"eos_token_id": [-1, 96, 4]})), vec![4]),
    ] {
        let changed = copy("qwen3_f32_tied");
        let path = changed.path().join("config.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json["eos_token_id"] = in_config.clone();
        fs::write(&path, json.to_string()).unwrap();
        if let Some(generation) = &in_generation {
            fs::write(changed.path().join("generation_config.json"), generation.to_string()).unwrap();
        }
        let model = Model::open(changed.path()).unwrap();
        assert_eq!(model.config().eos_tokens, wanted, "{in_config} and {in_generation:?}");
    }
    let changed = copy("qwen3_f32_tied");
    for (text, part) in [
        ("[", "generation_config.json: "),
        ("{\"eos_token_id\": \"x\"}", "generation_config.json: eos_token_id = \"x\""),
    ] {
        fs::write(changed.path().join("generation_config.json"), text).unwrap();
        let error = Model::open(changed.path()).unwrap_err().to_string();
        assert!(error.starts_with(part), "{error}");
    }
}

/// Angles follow the length of the text, never the session's capacity.
#[test]
fn dynamic_angles_follow_the_text() {
    let text = fs::read_to_string(folder("qwen3_f32_tied").join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["rope_parameters"] = json!({"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0});
    json["max_position_embeddings"] = 16.into();
    let rope = of(&json).unwrap().rope;
    let rates = |len| rope.frequencies(8, 16, len).0;
    for len in [0, 1, 15, 16] {
        assert_eq!(rates(len), [1.0, 0.1, 0.01, 0.001].map(|rate: f64| rate), "{len}");
    }
    // At twice the length the base is 10000 * (4 * 2 - 3)^(8 / 6).
    let base: f64 = 10000.0 * 5.0f64.powf(8.0 / 6.0);
    let wanted = [0.0, 0.25, 0.5, 0.75].map(|share: f64| base.powf(-share));
    assert!(rates(32).iter().zip(wanted).all(|(rate, wanted)| (rate / wanted - 1.0).abs() < 1e-12));
}
