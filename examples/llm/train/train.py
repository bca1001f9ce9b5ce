"""Trains the small model that ships with wattn, and writes it in the Hugging Face layout.

    python train.py --corpus work --out work/first --minutes 80

Qwen3 architecture (RMSNorm, per-head norm of queries and keys, rotary positions, grouped queries, SwiGLU, tied head) over a
byte-level BPE that is trained first. The mixture is text of the corpus with tasks that only a look back can solve: keys to
recall, and passages to copy. Learning rate: warm-up, constant, linear decay, all measured in elapsed time, so that the run
ends when it should on any machine. README.md has the commands of all runs. Needs torch, tokenizers, safetensors, numpy.
"""

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 2048,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 500000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "torch_dtype": "float16",
}


def train_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


class Norm(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, CONFIG["rms_norm_eps"])


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class Attention(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.heads, self.kv_heads, self.dim = (
            c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"])
        self.q_proj = torch.nn.Linear(width, self.heads * self.dim, bias=False)
        self.k_proj = torch.nn.Linear(width, self.kv_heads * self.dim, bias=False)
        self.v_proj = torch.nn.Linear(width, self.kv_heads * self.dim, bias=False)
        self.o_proj = torch.nn.Linear(self.heads * self.dim, width, bias=False)
        self.q_norm, self.k_norm = Norm(self.dim), Norm(self.dim)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(batch, length, self.kv_heads, self.dim)).transpose(1, 2)
        v = self.v_proj(x).view(batch, length, self.kv_heads, self.dim).transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Mlp(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = torch.nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.up_proj = torch.nn.Linear(c["hidden_size"], c["intermediate_size"], bias=False)
        self.down_proj = torch.nn.Linear(c["intermediate_size"], c["hidden_size"], bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = Norm(c["hidden_size"]), Norm(c["hidden_size"])
        self.self_attn, self.mlp = Attention(c), Mlp(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(torch.nn.Module):
    """Parameter names are those of the Hugging Face checkpoint, less the leading `model.`."""

    def __init__(self, c):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = torch.nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"])
        half = c["head_dim"] // 2
        rate = c["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(c["max_position_embeddings"] * 2, dtype=torch.float64), rate)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                zero = name.endswith(("o_proj.weight", "down_proj.weight"))
                torch.nn.init.normal_(parameter, std=0.0 if zero else 0.02 if "embed" in name else parameter.shape[1] ** -0.5)

    def forward(self, tokens):
        x = self.embed_tokens(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)


# Shares of text, keys, copies and repeats; and lengths, each up to a share of the run's time.
MIXTURES = {
    "plain": {"shares": [0.75, 0.17, 0.08, 0.0], "lengths": [(0.5, 512), (1.0, 2048)]},
    "repeats": {"shares": [0.35, 0.2, 0.15, 0.3], "lengths": [(1.0, 256)]},
    "recall": {"shares": [0.5, 0.25, 0.15, 0.1], "lengths": [(0.25, 512), (1.0, 2048)]},
}


class Mixture:
    """Sequences of token ids: text, and tasks of looking back."""

    def __init__(self, tokenizer, documents, shares, seed):
        self.tokenizer, self.shares, self.random = tokenizer, shares, np.random.default_rng(seed)
        encoded = tokenizer.encode_batch([document["text"] for document in documents])
        order = self.random.permutation(len(encoded))
        self.stream = np.concatenate([np.array([0] + encoded[at].ids, dtype=np.int64) for at in order])
        words = {word for document in documents for word in document["text"].split() if word.isalpha() and word.islower()}
        self.words = sorted(word for word in words if 4 <= len(word) <= 10)

    def text(self, length):
        at = self.random.integers(0, len(self.stream) - length)
        return self.stream[at : at + length]

    def ids(self, text):
        return np.array(self.tokenizer.encode(text).ids, dtype=np.int64)

    def keys(self, length):
        """Facts scattered through text, all asked for at the end in another order."""
        count = int(self.random.integers(1, 2 + min(7, length // 100)))
        names = self.random.choice(self.words, count, replace=False)
        facts = [self.ids(f"\nThe pass key of {name} is {self.random.integers(10000, 99999)}.\n") for name in names]
        asked = [facts[at] for at in self.random.permutation(count)]
        room = length - sum(len(fact) for fact in facts) * 2
        cuts = np.sort(self.random.integers(0, room + 1, count))
        pieces = np.split(self.text(room), cuts)
        parts = [part for piece, fact in zip(pieces, facts) for part in (piece, fact)] + [pieces[-1]] + asked
        return np.concatenate(parts)

    def copies(self, length):
        """A passage, other text, the passage again."""
        size = int(self.random.integers(length // 16, length // 3))
        passage, gap = self.text(size), int(self.random.integers(0, length - 2 * size + 1))
        return np.concatenate([self.text(length - 2 * size - gap), passage, self.text(gap), passage])

    def repeats(self, length):
        """A few random tokens, or a few tokens of text, over and over."""
        size = int(self.random.integers(8, length // 2))
        some = self.random.integers(1, CONFIG["vocab_size"], size) if self.random.random() < 0.5 else self.text(size)
        return np.resize(some, length)

    def batch(self, count, length):
        kinds = self.random.choice([self.text, self.keys, self.copies, self.repeats], count, p=self.shares)
        return torch.from_numpy(np.stack([kind(length) for kind in kinds]))


@torch.no_grad()
def plant_retrieval(model, probe):
    """Sets two heads of each of two layers to a circuit that retrieves; training makes of it what it can use.

    Such heads (*In-context Learning and Induction Heads*, Olsson et al. 2022) form by themselves after some hundred million
    tokens, which two cores cannot afford. In layer 0 one head writes the token before, and one the token itself, each into
    columns of its own; in layer 1 two heads look for keys whose token before is the current one, and copy the key's own
    token. Looking back turns on a direction that all embeddings share, to which the tied head is blind. What the heads write
    is scaled by the lengths that the hidden states of `probe` have.
    """
    c, random = CONFIG, torch.Generator().manual_seed(7)
    width, dim = c["hidden_size"], c["head_dim"]
    half, rate = dim // 2, c["rope_theta"] ** (-torch.arange(dim // 2) / (dim // 2))
    first, second = model.layers[0], model.layers[1]
    queries, keys = slice(2 * dim, 4 * dim), slice(dim, 2 * dim)  # heads 2 and 3 of q, head 1 of k and v
    lengths, x = [], model.embed_tokens(probe[None])
    for layer in model.layers:
        x = layer(x, model.cos[: len(probe)], model.sin[: len(probe)])
        lengths.append(float(x.norm(dim=-1).mean()))
    embedding = model.embed_tokens.weight
    shared = F.normalize(torch.randn(width, generator=random), dim=0)
    embedding += 0.5 * embedding.norm(dim=1).mean() * shared - embedding @ shared[:, None] * shared
    basis = torch.randn(width, width, generator=random)
    basis = torch.linalg.qr(basis - torch.outer(shared, shared @ basis))[0]
    read, before, here = basis[:, :dim], basis[:, dim : 2 * dim], basis[:, 2 * dim : 3 * dim]
    weight0, weight1 = first.input_layernorm.weight, second.input_layernorm.weight

    fast = torch.arange(half) < half // 3  # pairs that tell neighbours apart
    turn = lambda offset: torch.cat([(offset * rate).cos() * fast, (offset * rate).sin() * fast])
    attention = first.self_attn
    attention.k_proj.weight[keys] = torch.outer(turn(0.0), shared / weight0)
    attention.q_proj.weight[queries] = torch.outer(torch.cat([turn(-1.0), turn(0.0)]), shared / weight0)
    attention.v_proj.weight[keys] = (read / weight0[:, None]).T
    attention.o_proj.weight[:, 2 * dim : 3 * dim] = before * 0.7 * lengths[0] / dim**0.5
    attention.o_proj.weight[:, 3 * dim :] = here * 0.7 * lengths[0] / dim**0.5
    for norm in (attention.q_norm, attention.k_norm):
        norm.weight[torch.cat([fast, fast])] = norm.weight[torch.cat([fast, fast])].clamp(min=1.8)

    slow = torch.arange(half) >= half - 14  # pairs that hardly turn within the context
    slow = torch.cat([slow, slow])[:, None]
    attention = second.self_attn
    attention.k_proj.weight[keys] = (before / weight1[:, None]).T * slow
    attention.q_proj.weight[queries] = ((here / weight1[:, None]).T * slow).repeat(2, 1)
    attention.v_proj.weight[keys] = (here / weight1[:, None]).T
    for head in (2, 3):
        attention.o_proj.weight[:, head * dim : (head + 1) * dim] = read * 0.08 * lengths[-1] / dim**0.5
    for norm in (attention.q_norm, attention.k_norm):
        norm.weight[slow[:, 0]] = norm.weight[slow[:, 0]].clamp(min=1.8)


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal by Newton-Schulz steps (Jordan et al. 2024), in f32, one batch for each shape of matrix.

    torch.optim.Muon computes in bfloat16, which takes 9 seconds a step on a CPU without it.
    """

    def __init__(self, parameters, lr, momentum=0.95):
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for parameter in group["params"]:
                buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"])
                by_shape.setdefault(tuple(parameter.shape), []).append((parameter, update))
            for (rows, columns), pairs in by_shape.items():
                x = torch.stack([update for _, update in pairs])
                x = x.mT if rows > columns else x
                x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
                for _ in range(5):
                    gram = x @ x.mT
                    x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
                x = x.mT if rows > columns else x
                for (parameter, _), update in zip(pairs, x):
                    parameter.add_(update, alpha=-group["lr"] * max(1, rows / columns) ** 0.5)


def bits_per_byte(model, tokenizer, documents, length):
    """Every held-out document in windows of `length`, the context beginning anew in each."""
    bits, size = 0.0, 0
    with torch.no_grad():
        for document in documents:
            ids = [0] + tokenizer.encode(document["text"]).ids
            size += len(document["text"].encode())
            for at in range(0, len(ids) - 1, length):
                window = torch.tensor([ids[at : at + length + 1]])
                loss = F.cross_entropy(model(window[:, :-1])[0], window[0, 1:], reduction="sum")
                bits += loss.item() / math.log(2)
    return bits / size


def save(model, tokenizer, out, dtype):
    out.mkdir(parents=True, exist_ok=True)
    tensors = {"model." + name: value.detach().to(dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    tokenizer.save(str(out / "tokenizer.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--tokens-a-step", type=int, default=6144)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", type=pathlib.Path, help="begin with the model in this folder")
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--plant", action="store_true", help="begin with heads that retrieve")
    parser.add_argument("--mixture", choices=MIXTURES, default="plain")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    read = lambda name: [json.loads(line) for line in open(args.corpus / f"{name}.jsonl")]
    train, heldout = read("train"), read("heldout")
    recipe, model = MIXTURES[args.mixture], Model(CONFIG)
    if args.resume:
        tokenizer = Tokenizer.from_file(str(args.resume / "tokenizer.json"))
        stored = load_file(args.resume / "model.safetensors")
        model.load_state_dict({name.removeprefix("model."): value.float() for name, value in stored.items()})
    else:
        tokenizer = train_tokenizer([document["text"] for document in train], CONFIG["vocab_size"])
    mixture = Mixture(tokenizer, train, recipe["shares"], args.seed)
    if args.plant:
        plant_retrieval(model, torch.from_numpy(mixture.text(512)))
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(mixture.stream)} tokens of text", flush=True)

    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers = [
        Muon(hidden, lr=0.02),
        torch.optim.AdamW(others, lr=0.004, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    begin, step, seen, curve, saved = time.time(), 0, 0, [], 0.0
    while (done := (time.time() - begin) / (args.minutes * 60)) < 1:
        # Short sequences first, where a token costs less and repeats are near.
        length = next(length for until, length in recipe["lengths"] if done < until)
        rate = args.rate * min(1.0, (step + 1) / 50, (1 - done) / 0.35)
        for optimizer, base in zip(optimizers, rates):
            optimizer.param_groups[0]["lr"] = base * rate
        batch = mixture.batch(args.tokens_a_step // length, length)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + batch.numel()
        if step % 10 == 0:
            minutes = (time.time() - begin) / 60
            curve.append({"step": step, "minutes": minutes, "tokens": seen, "length": length, "loss": loss.item()})
            print(f"step {step} {minutes:.1f} min {seen / 1e6:.2f} M tokens length {length} loss {loss.item():.3f}", flush=True)
        if time.time() - begin - saved > 600:
            saved = time.time() - begin
            save(model, tokenizer, args.out, torch.float32)
            curve[-1]["bits_per_byte"] = bits_per_byte(model, tokenizer, heldout[:8], 512)
            print(f"held out, 8 documents, context 512: {curve[-1]['bits_per_byte']:.3f} bits per byte", flush=True)

    save(model, tokenizer, args.out, torch.float16)
    for parameter in model.parameters():  # what is measured is what ships
        parameter.data = parameter.data.half().float()
    results = {str(length): bits_per_byte(model, tokenizer, heldout, length) for length in (256, 512, 1024, 2048)}
    record = {"steps": step, "tokens": seen, "minutes": (time.time() - begin) / 60, "bits_per_byte": results, "curve": curve}
    (args.out / "training.json").write_text(json.dumps(record) + "\n")
    print("held out, bits per byte by context:", results)


if __name__ == "__main__":
    main()
