"""What the training framework itself computes from the model that ships: the file that the tests compare with.

    python golden.py --model ../model

Writes `golden.safetensors` beside the model: `tokens`, the first 512 of a held-out document; `rows`, some of their
positions; `logits` there, computed in f32 by the model of `train.py` from the stored weights; `greedy`, the 256 tokens that
it takes for the best one after another.
"""

import argparse
import json
import pathlib

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from train import CONFIG, Model

PAGE = "reference/attributes/diagnostics.html"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    args = parser.parse_args()
    stored = load_file(args.model / "model.safetensors")
    model = Model(CONFIG)
    model.load_state_dict({name.removeprefix("model."): value.float() for name, value in stored.items()})
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    documents = [json.loads(line) for line in open(args.model / "heldout.jsonl")]
    text = next(document["text"] for document in documents if document["path"] == PAGE)
    tokens = torch.tensor([tokenizer.encode(text).ids[:512]])
    rows = torch.arange(15, 512, 31)
    with torch.no_grad():
        logits = model(tokens)[0][rows]
        whole, closest = tokens, float("inf")
        for _ in range(256):
            best = model(whole)[0, -1].topk(2)
            closest = min(closest, float(best.values[0] - best.values[1]))
            whole = torch.cat([whole, best.indices[:1][None]], 1)
    greedy = whole[0, 512:].int()
    tensors = {"tokens": tokens[0].int(), "rows": rows.int(), "logits": logits.contiguous(), "greedy": greedy}
    save_file(tensors, args.model / "golden.safetensors")
    print("greedy:", tokenizer.decode(greedy.tolist()))
    print(f"the two best logits are never closer than {closest:.2e}")


if __name__ == "__main__":
    main()
