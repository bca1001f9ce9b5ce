#!/usr/bin/env bash
# A config.json with both rope_parameters and rope_scaling: the old key wins, and takes the new one's rope_theta away with it.
#
# Guess: transformers 5 writes rope_parameters and reads rope_scaling from files of old; where both stand, the new one wins, or loading
#   fails (85 %).
# What happens: rope_scaling replaces rope_parameters whole. The base of the rotation, which stands nowhere else in a file that
#   transformers 5 wrote, falls back to 10000, without a warning: adding a rope_scaling for longer contexts to such a file, as cards of
#   models of transformers 4's time advise, turns every position by other angles. Only null and {} leave rope_parameters alone.
# Version: transformers 5.24.0 (no torch needed).
# Source: run, with LlamaConfig.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" transformers==5.24.0
cat >"$work/load.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import transformers

SIZES = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1, "max_position_embeddings": 4096}
NEW = {"rope_type": "default", "rope_theta": 1000000.0}
OLD = {"rope_type": "yarn", "factor": 4.0}
folder = Path(sys.argv[1]) / "model"
folder.mkdir()


def load(**keys):
    (folder / "config.json").write_text(json.dumps(SIZES | keys))
    found = transformers.AutoConfig.from_pretrained(folder).rope_parameters
    print(f"  {' + '.join(f'{k} {v}' for k, v in keys.items())}\n    -> {found}")
    return found["rope_type"], found.get("factor"), found["rope_theta"]


print("rope_parameters that LlamaConfig holds")
assert load(rope_parameters=NEW) == ("default", None, 1000000.0), "CHANGED"
assert load(rope_parameters=NEW, rope_scaling=None) == ("default", None, 1000000.0), "CHANGED"
assert load(rope_parameters=NEW, rope_scaling={}) == ("default", None, 1000000.0), "CHANGED"
assert load(rope_parameters=NEW, rope_scaling=OLD) == ("yarn", 4.0, 10000.0), "CHANGED: the old key won"
assert load(rope_parameters=NEW, rope_scaling=OLD, rope_theta=70000.0) == ("yarn", 4.0, 70000.0), "CHANGED: the old keys won"
PYTHON
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error "$work/python/bin/python" "$work/load.py" "$work"
