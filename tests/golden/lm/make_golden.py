"""Small random checkpoints of every architecture, and the logits that Hugging Face transformers computes from them.

    pip install torch transformers && python make_golden.py

Writes one folder for each case beside this file: the checkpoint as `save_pretrained` lays it out, and
`golden.safetensors` with `tokens` and `logits`, computed in f32 from the stored weights. Made with transformers 5.24.0 and
torch 2.15.0.
"""

import json
import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

SMALL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.4, bos_token_id=0, eos_token_id=1,
    pad_token_id=None, attn_implementation="eager",
)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=16)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LINEAR = dict(rope_type="linear", factor=2.0)
CASES = {
    # name: (architecture, stored as, tokens, largest shard, what differs from SMALL)
    "llama_f32_sharded": ("Llama", torch.float32, 60, "20KB", dict(rope_scaling=LLAMA3, rope_theta=500.0)),
    "llama_bf16_biased": ("Llama", torch.bfloat16, 50, "1GB",
                          dict(attention_bias=True, mlp_bias=True, rope_scaling=LINEAR, tie_word_embeddings=True)),
    "mistral_f16": ("Mistral", torch.float16, 61, "1GB", dict(sliding_window=7, head_dim=12)),
    "qwen2_bf16_sharded": ("Qwen2", torch.bfloat16, 47, "15KB",
                           dict(use_sliding_window=True, sliding_window=5, max_window_layers=1,
                                tie_word_embeddings=True, num_attention_heads=2, num_key_value_heads=1)),
    "qwen3_f16": ("Qwen3", torch.float16, 59, "1GB", dict(head_dim=16, rope_scaling=YARN, tie_word_embeddings=False)),
    "qwen3_f32_tied": ("Qwen3", torch.float32, 33, "1GB",
                       dict(head_dim=8, num_key_value_heads=4, tie_word_embeddings=True)),
}


def main():
    here = pathlib.Path(__file__).parent
    for number, (name, (architecture, dtype, count, shard, changes)) in enumerate(CASES.items()):
        torch.manual_seed(number)
        config = getattr(transformers, f"{architecture}Config")(**{**SMALL, **changes})
        causal = getattr(transformers, f"{architecture}ForCausalLM")
        model = causal(config)
        for parameter_name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # norms and biases, which are ones and zeros at first
                parameter.data = torch.rand_like(parameter) + (0.5 if "norm" in parameter_name else -0.5)
        folder = here / name
        shutil.rmtree(folder, ignore_errors=True)
        model.to(dtype).save_pretrained(folder, max_shard_size=shard)
        (folder / "generation_config.json").unlink(missing_ok=True)
        words = {f"t{token}": token for token in range(config.vocab_size)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer.save(str(folder / "tokenizer.json"))

        stored = causal.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        tokens = torch.randint(0, config.vocab_size, (1, count))
        with torch.no_grad():
            logits = stored(tokens).logits[0]
        save_file({"tokens": tokens[0].int(), "logits": logits.contiguous()}, folder / "golden.safetensors")
        print(name, json.dumps(sorted(path.name for path in folder.iterdir())), float(logits.std()))
    (here / "versions.txt").write_text(f"transformers {transformers.__version__}\ntorch {torch.__version__}\n")


if __name__ == "__main__":
    main()
