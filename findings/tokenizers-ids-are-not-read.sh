#!/usr/bin/env bash
# `tokenizers` does not read the ids of added tokens in tokenizer.json, and gives new tokens ids that are taken.
#
# Guess: an entry of added_tokens with "id": 10 has id 10, or loading fails (90 %); a token that is added gets an id that no other has
#   (97 %).
# What happens: an added token's id is the number of tokens so far, whatever the file says: 10 and 7 become 3 and 4 in a vocabulary of
#   three. Where the vocabulary has a hole that is somebody else's: with ids 0, 1 and 5 the third added token gets 5, the text of the
#   token that had it encodes to 5 still, and decodes as the new one.
#   No error, no warning, and a file saved and loaded again has it still. Pruning is one way to get a vocabulary with holes.
# Version: tokenizers 0.23.3.
# Source: run.
set -euo pipefail
source "$(dirname "$0")/common/drivers.bash"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

install_python "$work" tokenizers==0.23.3
cat >"$work/ids.py" <<'PYTHON'
import json

from tokenizers import Tokenizer, models


def words(vocabulary):
    return Tokenizer(models.WordLevel(vocabulary, unk_token="a"))


file = json.loads(words({"a": 0, "b": 1, "c": 2}).to_str())
flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
file["added_tokens"] = [{"id": 10, "content": "<x>", **flags}, {"id": 7, "content": "<y>", **flags}]
loaded = Tokenizer.from_str(json.dumps(file))
ids = {token: loaded.token_to_id(token) for token in ("<x>", "<y>")}
print("the file says <x> 10 and <y> 7; loaded:", ids)
assert ids == {"<x>": 3, "<y>": 4}, "CHANGED"

holes = words({"a": 0, "b": 1, "c": 5})
before = holes.decode(holes.encode("c").ids)
holes.add_tokens(["x", "y", "z"])
after = holes.encode("c").ids
print("a 0, b 1, c 5, then x, y and z added:", dict(sorted(holes.get_vocab().items())))
print(f"c before: decodes as {before!r}; after: encodes to {after}, decodes as {holes.decode(after)!r}")
assert holes.token_to_id("c") == holes.token_to_id("z") == 5 and before == "c" and holes.decode(after) == "z", "CHANGED"
again = Tokenizer.from_str(holes.to_str()).get_vocab()
assert again["c"] == again["z"] == 5, "CHANGED: it came back so from its own file"
PYTHON
"$work/python/bin/python" "$work/ids.py"
