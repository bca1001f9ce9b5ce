//! Every field of a configuration is read, known to change nothing, or refused by name.

use serde_json::Value;

use super::Architecture;
use super::fields::Fields;
use crate::lm::error::LmResult;
use crate::lm::json::is_infinite;

/// Fields that every family reads.
const READ_BY_ALL: &[&str] = &[
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "vocab_size",
];

/// Fields that a family reads besides.
pub(super) const fn read_by(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Llama => &["attention_bias", "mlp_bias"],
        Architecture::Mistral => &["layer_types", "sliding_window"],
        Architecture::Qwen2 => &["layer_types", "max_window_layers", "sliding_window", "use_sliding_window"],
        Architecture::Qwen3 => {
            &["attention_bias", "layer_types", "max_window_layers", "sliding_window", "use_sliding_window"]
        }
    }
}

/// Fields of one family that have no effect in another, whose layers lack the part.
const OF_OTHER_FAMILIES: &[&str] = &[
    "attention_bias",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "layer_types",
    "max_window_layers",
    "mlp_bias",
    "sliding_window",
    "use_sliding_window",
];

/// Fields about files, programs, training, other tasks, and equivalent ways of computing.
const OF_NO_EFFECT: &[&str] = &[
    "add_cross_attention",
    "architectures",
    "attention_probs_dropout_prob",
    "attn_implementation",
    "auto_map",
    "chunk_size_feed_forward",
    "cross_attention_hidden_size",
    "dtype",
    "experts_implementation",
    "finetuning_task",
    "gradient_checkpointing",
    "hidden_dropout_prob",
    "id2label",
    "is_decoder",
    "is_llama_config",
    "label2id",
    "max_sequence_length",
    "mlp_layer_types",
    "model_max_length",
    "model_parallel",
    "name_or_path",
    "num_labels",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "return_dict",
    "rope_interleaved",
    "seq_length",
    "task_specific_params",
    "tie_encoder_decoder",
    "tie_last_hidden_states",
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "unsloth_fixed",
    "use_bfloat16",
    "use_cache",
    "use_flash_attention_2",
    "use_flash_attn",
    "use_return_dict",
];

/// Sampling options, from the time when `config.json` held them. Here the caller gives them.
const OF_GENERATION: &[&str] = &[
    "assistant_confidence_threshold",
    "assistant_lookbehind",
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "epsilon_cutoff",
    "eta_cutoff",
    "exponential_decay_length_penalty",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_assistant_tokens",
    "num_assistant_tokens_schedule",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "target_lookbehind",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
];

/// Prefixes and suffixes of names that do not concern the model: private notes of the program that wrote the file, outputs,
/// initialisation, versions, single tokens, and dropout in training.
const BEGINNINGS: &[&str] = &["_", "output_", "initializer_"];
const ENDINGS: &[&str] = &["_token_id", "_token_index", "_version", "_dropout", "_pdrop", "_drop_rate"];

/// Fields of the rotary embedding; its type decides which of them count.
const OF_ROPE: &[&str] = &[
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "factor",
    "finetuned",
    "high_freq_factor",
    "long_factor",
    "low_freq_factor",
    "mrope_section",
    "mscale",
    "mscale_all_dim",
    "original_max_position_embeddings",
    "partial_rotary_factor",
    "rope_theta",
    "rope_type",
    "short_factor",
    "truncate",
    "type",
];

/// Refuses unknown fields of `config.json`.
pub(super) fn check(fields: &Fields<'_>, architecture: Architecture) -> LmResult<()> {
    for (name, value) in fields.names() {
        if name == "quantization_config" && !switches_nothing_on(value) {
            return Err(fields.error(name, "quantised weights are not read"));
        }
        let lists = [READ_BY_ALL, read_by(architecture), OF_OTHER_FAMILIES, OF_NO_EFFECT, OF_GENERATION];
        let known = lists.iter().any(|list| list.contains(&name))
            || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
            || ENDINGS.iter().any(|ending| name.ends_with(ending));
        if !known && !switches_nothing_on(value) {
            return Err(unknown(fields, name));
        }
    }
    Ok(())
}

/// Refuses unknown fields of a rotary embedding.
pub(super) fn check_rope(fields: &Fields<'_>) -> LmResult<()> {
    match fields.names().find(|(name, value)| !OF_ROPE.contains(name) && !switches_nothing_on(value)) {
        Some((name, _)) => Err(unknown(fields, name)),
        None => Ok(()),
    }
}

fn unknown(fields: &Fields<'_>, name: &str) -> crate::lm::LmError {
    fields.error(name, "is a field that nobody here knows; take it out if it changes nothing that the model computes")
}

/// Null, false, 0, an empty value, and infinity, which is no bound.
fn switches_nothing_on(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.iter().all(switches_nothing_on),
        Value::Object(object) => is_infinite(value) || object.values().all(switches_nothing_on),
    }
}
