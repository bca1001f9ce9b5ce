"""Text of the Rust documentation that comes with a toolchain, split into training and held-out documents.

    python corpus.py --docs "$(rustc --print sysroot)/share/doc/rust/html" --out work

Writes `work/train.jsonl` and `work/heldout.jsonl`, one `{"path", "text"}` a line. A document is one page of a book, or the
documentation comments of one source file of the standard library. About one document in sixty is held out, chosen by the
hash of its path; a training document that shares long passages with a held-out one is dropped.
"""

import argparse
import hashlib
import json
import pathlib
import re

from lxml import html

BOOKS = [
    "book", "reference", "nomicon", "rustc", "cargo", "rust-by-example", "error_codes", "edition-guide", "embedded-book",
    "clippy", "rustdoc", "style-guide", "unstable-book",
]
SOURCES = ["alloc", "core", "proc_macro", "std", "test"]
# Whole books on one page, indexes and translations repeat what other pages say.
SKIPPED_NAMES = {"print.html", "toc.html", "404.html", "SUMMARY.html", "README.html", "index.html"}
# `stdarch` is four megabytes of generated lists of processor instructions.
SKIPPED_FOLDERS = {"2018-edition", "first-edition", "second-edition", "es", "ja", "ko", "zh", "stdarch"}
BLOCKS = {"p", "pre", "li", "h1", "h2", "h3", "h4", "h5", "h6", "tr", "blockquote", "dt", "dd", "div", "table", "ul", "ol"}
SHORTEST = 400  # bytes: shorter pages are redirects and tables of contents
SHINGLE = 80  # bytes of a passage that no two sets may share more than a few of


def page_text(path: pathlib.Path) -> str:
    """The main text of a rendered book page, with headings marked by `#` and code kept as it is."""
    main = html.fromstring(path.read_bytes()).find(".//main")
    if main is None:
        return ""
    parts: list[str] = []

    def walk(node, verbatim):
        if not isinstance(node.tag, str) or node.tag in {"script", "style", "button", "svg"}:
            return
        if "boring" in (node.get("class") or "").split():  # lines that the book hides
            return
        block = node.tag in BLOCKS
        if block:
            parts.append("\n" if node.tag in {"li", "tr"} else "\n\n")
        if re.fullmatch("h[1-6]", node.tag):
            parts.append("#" * int(node.tag[1]) + " ")
        if node.tag == "li":
            parts.append("- ")
        if node.tag in {"td", "th"}:
            parts.append(" | ")
        verbatim = verbatim or node.tag == "pre"
        code = node.tag == "code" and not verbatim
        parts.append("`" if code else "")
        for text, child in [(node.text, None), *((child.tail, child) for child in node)]:
            if child is not None:
                walk(child, verbatim)
            if text:
                parts.append(text if verbatim else re.sub(r"\s+", " ", text))
        parts.append("`" if code else "")
        if block and node.tag != "tr":
            parts.append("\n")

    walk(main, False)
    return tidy("".join(parts))


def source_text(path: pathlib.Path) -> str:
    """The documentation comments of a rendered source file, in the order of the file."""
    without_numbers = re.sub(r"<a[^>]*data-nosnippet[^>]*>[^<]*</a>", "", path.read_text())
    code = html.fromstring(without_numbers).find(".//pre/code")
    if code is None:
        return ""
    lines, was_doc = [], False
    for line in code.text_content().splitlines():
        found = re.match(r"\s*//[/!] ?(.*)", line)
        if found:
            lines.append(found[1])
        elif was_doc:
            lines.append("")
        was_doc = bool(found)
    return tidy("\n".join(lines))


def tidy(text: str) -> str:
    text = text.replace("\u00a0", " ").replace("\u200b", "")
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def shingles(text: str) -> set[int]:
    data = text.encode()
    return {hash(data[at : at + SHINGLE]) for at in range(0, len(data) - SHINGLE, 1)}


def documents(docs: pathlib.Path):
    for book in BOOKS:
        for path in sorted((docs / book).rglob("*.html")):
            relative = path.relative_to(docs)
            if path.name not in SKIPPED_NAMES and not SKIPPED_FOLDERS & set(relative.parts):
                yield str(relative), page_text(path)
    for library in SOURCES:
        for path in sorted((docs / "src" / library).rglob("*.html")):
            relative = path.relative_to(docs)
            if not SKIPPED_FOLDERS & set(relative.parts):
                yield str(relative), source_text(path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--held-out-one-in", type=int, default=60)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    seen, train, heldout = set(), [], []
    for path, text in documents(args.docs):
        digest = hashlib.sha256(text.encode()).digest()
        if len(text.encode()) < SHORTEST or digest in seen:
            continue
        seen.add(digest)
        chosen = int.from_bytes(hashlib.sha256(path.encode()).digest()[:4], "big") % args.held_out_one_in == 0
        (heldout if chosen else train).append({"path": path, "text": text})

    secret = set().union(*(shingles(document["text"]) for document in heldout))
    kept = []
    for document in train:
        data = document["text"].encode()
        pieces = [hash(data[at : at + SHINGLE]) in secret for at in range(0, len(data) - SHINGLE, SHINGLE // 2)]
        if sum(pieces) <= len(pieces) * 0.02:
            kept.append(document)
    for name, part in [("train", kept), ("heldout", heldout)]:
        with open(args.out / f"{name}.jsonl", "w") as file:
            for document in part:
                file.write(json.dumps(document, ensure_ascii=False) + "\n")
        size = sum(len(document["text"].encode()) for document in part)
        print(f"{name}: {len(part)} documents, {size} bytes")
    print(f"dropped from training, too like a held-out document: {len(train) - len(kept)}")


if __name__ == "__main__":
    main()
