"""What Hugging Face transformers makes of other configurations and other files around the weights of `make_golden.py`.

    pip install torch transformers && python make_configs.py

Writes `configs.json`: for each variant the case whose files it changes, what it changes, and the logits of the last of the
case's first `count` tokens in f32, as bits. Made with transformers 5.24.0 and torch 2.15.0.
"""

import json
import pathlib
import shutil
import tempfile

import numpy
import torch
import transformers
from safetensors.torch import load_file, save_file

YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, rope_theta=10000.0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16, rope_theta=500.0)
DYNAMIC = dict(rope_type="dynamic", factor=4.0, rope_theta=10000.0)


def yarn(**more):
    return dict(rope_parameters={**YARN, **more})


# name: (case, fields of config.json that change, fields that are left out, what happens to the tensors, tokens)
VARIANTS = {
    "yarn mscale both": ("qwen3_f16", yarn(mscale=1.0, mscale_all_dim=1.0), [], None, 59),
    "yarn mscale ratio": ("qwen3_f16", yarn(mscale=0.707, mscale_all_dim=1.5), [], None, 59),
    "yarn mscale alone": ("qwen3_f16", yarn(mscale=2.0), [], None, 59),
    "yarn mscale zero": ("qwen3_f16", yarn(mscale=0, mscale_all_dim=1.0), [], None, 59),
    "yarn truncate false": ("qwen3_f16", yarn(truncate=False, original_max_position_embeddings=32, beta_fast=5, beta_slow=0.3), [], None, 59),
    "yarn truncate null": ("qwen3_f16", yarn(truncate=None, original_max_position_embeddings=32, beta_fast=5, beta_slow=0.3), [], None, 59),
    "yarn truncate": ("qwen3_f16", yarn(original_max_position_embeddings=32, beta_fast=5, beta_slow=0.3), [], None, 59),
    "yarn attention factor": ("qwen3_f16", yarn(attention_factor=0.7, mscale=1.0, mscale_all_dim=1.0), [], None, 59),
    "yarn betas": ("qwen3_f16", yarn(beta_fast=3, beta_slow=0.25), [], None, 59),
    "yarn betas null": ("qwen3_f16", yarn(beta_fast=None, beta_slow=None), [], None, 59),
    "yarn betas zero": ("qwen3_f16", yarn(beta_fast=0, beta_slow=0), [], None, 59),
    "yarn factor null": ("qwen3_f16", yarn(factor=None, original_max_position_embeddings=8), [], None, 59),
    "yarn factor of one": ("qwen3_f16", yarn(factor=1.0), [], None, 59),
    "yarn original above": ("qwen3_f16", dict(original_max_position_embeddings=40, **yarn()), [], None, 59),
    "yarn original missing": (
        "qwen3_f16", dict(rope_parameters=dict(rope_type="yarn", factor=4.0, rope_theta=10000.0)), [], None, 59),
    "yarn finetuned": ("qwen3_f16", yarn(finetuned=True), [], None, 59),
    "scaling beside parameters": (
        "qwen3_f16",
        dict(rope_parameters=dict(rope_type="default", rope_theta=300.0), rope_scaling=dict(type="yarn", factor=4.0),
             original_max_position_embeddings=16),
        [], None, 59),
    "scaling with theta above": (
        "qwen3_f16", dict(rope_scaling=dict(rope_type="linear", factor=3.0), rope_theta=700.0), ["rope_parameters"], None, 59),
    "scaling with its own theta": (
        "qwen3_f16", dict(rope_scaling=dict(rope_type="linear", factor=3.0, rope_theta=90.0), rope_theta=700.0), [], None, 59),
    "empty scaling": ("qwen3_f16", dict(rope_scaling={}), [], None, 59),
    "empty parameters": ("qwen3_f16", dict(rope_parameters={}), [], None, 59),
    "no type": ("qwen3_f16", dict(rope_scaling=dict(factor=2.0), rope_theta=50.0), [], None, 59),
    "both types": ("qwen3_f16", dict(rope_scaling=dict(type="yarn", rope_type="linear", factor=2.0)), [], None, 59),
    "no rope at all": ("qwen3_f16", {}, ["rope_parameters"], None, 59),
    "partial factor, default": (
        "qwen3_f16", dict(rope_parameters=dict(rope_type="default", rope_theta=100.0), partial_rotary_factor=0.5), [], None, 59),
    "llama3 original above": ("llama_f32_sharded", dict(original_max_position_embeddings=48, rope_parameters=LLAMA3), [], None, 60),
    "llama3 factors turned": (
        "llama_f32_sharded", dict(rope_parameters={**LLAMA3, "low_freq_factor": 4.0, "high_freq_factor": 1.0}), [], None, 60),
    "dynamic within": ("qwen3_f32_tied", dict(rope_parameters=DYNAMIC), [], None, 33),
    "dynamic past": ("qwen3_f32_tied", dict(rope_parameters=DYNAMIC, max_position_embeddings=16), [], None, 33),
    "dynamic at the border": ("qwen3_f32_tied", dict(rope_parameters=DYNAMIC, max_position_embeddings=33), [], None, 33),
    "no max_window_layers": ("qwen2_bf16_sharded", {}, ["max_window_layers", "layer_types"], None, 47),
    "max_window_layers": ("qwen2_bf16_sharded", dict(max_window_layers=0), ["layer_types"], None, 47),
    "layer_types": (
        "qwen2_bf16_sharded", dict(layer_types=["sliding_attention", "full_attention"]), ["max_window_layers"], None, 47),
    "old names of layer_types": ("qwen2_bf16_sharded", dict(layer_types=["attention", "sliding_attention"]), [], None, 47),
    "window that is not used": ("qwen2_bf16_sharded", dict(use_sliding_window=False), ["layer_types"], None, 47),
    "mistral, no window": ("mistral_f16", dict(sliding_window=None), [], None, 61),
    "mistral, window left out": ("mistral_f16", {}, ["sliding_window"], None, 61),
    "mistral, layer_types": ("mistral_f16", dict(layer_types=["full_attention", "sliding_attention"]), [], None, 61),
    "mistral has no biases": ("mistral_f16", dict(attention_bias=True, mlp_bias=True), [], None, 61),
    "llama, biases left out": ("llama_bf16_biased", {}, ["attention_bias", "mlp_bias"], None, 50),
    "llama, mlp_bias left out": ("llama_bf16_biased", {}, ["mlp_bias"], None, 50),
    "llama, foreign fields": (
        "llama_bf16_biased",
        dict(sliding_window=3, use_sliding_window=True, max_window_layers=0, final_logit_softcapping=1.0,
             attn_logit_softcapping=1.0, pretraining_tp=2),
        [], None, 50),
    "qwen3, foreign fields": ("qwen3_f32_tied", dict(final_logit_softcapping=1.0, mlp_bias=True), [], None, 33),
    "swish": ("qwen3_f32_tied", dict(hidden_act="swish"), [], None, 33),
    "defaults of qwen3": ("qwen3_f32_tied", {}, ["hidden_act", "rms_norm_eps", "attention_bias", "rope_parameters"], None, 33),
    "infinity": ("qwen3_f32_tied", dict(attention_dropout=float("inf"), initializer_range=float("nan")), [], None, 33),
    "tokens nowhere": ("qwen3_f32_tied", dict(bos_token_id=-1, eos_token_id=[96, 200], pad_token_id=-1), [], None, 33),
    "base model": ("llama_f32_sharded", {}, [], "base names", 60),
    "base model, tied": ("qwen3_f32_tied", {}, [], "base names", 33),
    "tied, own head": ("qwen3_f32_tied", {}, [], "head is the embedding upside down", 33),
    "tied, only the head": ("qwen3_f32_tied", {}, [], "head instead of the embedding", 33),
    "tied, the same head": ("qwen3_f32_tied", {}, [], "head beside the embedding", 33),
    "tied is left out": ("qwen3_f16", {}, ["tie_word_embeddings"], None, 59),
}


def tensors_of(folder):
    tensors = {}
    for path in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(path))
        path.unlink()
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    return tensors


def change(tensors, what):
    embedding = "model.embed_tokens.weight"
    if what == "base names":
        return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if what == "head is the embedding upside down":
        return {**tensors, "lm_head.weight": tensors[embedding].flip(0).contiguous()}
    if what == "head beside the embedding":
        return {**tensors, "lm_head.weight": tensors[embedding].clone()}
    assert what == "head instead of the embedding"
    return {("lm_head.weight" if name == embedding else name): tensor for name, tensor in tensors.items()}


def main():
    here = pathlib.Path(__file__).parent
    told = []
    for name, (case, changes, left_out, tensors, count) in VARIANTS.items():
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary) / "model"
            shutil.copytree(here / case, folder)
            config = json.loads((folder / "config.json").read_text())
            config = {key: value for key, value in {**config, **changes}.items() if key not in left_out}
            (folder / "config.json").write_text(json.dumps(config))
            tokens = load_file(folder / "golden.safetensors")["tokens"][:count]
            (folder / "golden.safetensors").unlink()
            if tensors is not None:
                save_file(change(tensors_of(folder), tensors), folder / "model.safetensors", metadata={"format": "pt"})
            model = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager").eval()
            with torch.no_grad():
                logits = model(tokens[None].long(), use_cache=False).logits[0, -1]
        bits = numpy.asarray(logits, dtype=numpy.float32).view(numpy.uint32).tolist()
        told.append(dict(name=name, case=case, changes=changes, left_out=left_out, tensors=tensors, count=count, logits=bits))
        print(name, float(logits.std()), logits[:3].tolist())
    text = ",\n".join(json.dumps(variant) for variant in told)
    (here / "configs.json").write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
