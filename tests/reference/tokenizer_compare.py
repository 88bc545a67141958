#!/usr/bin/env python3
"""Does ttx tokenise as llama.cpp does, and do its tokens turn back into the same bytes?

    tokenizer_compare.py --ttx BIN [--vocab llama2,llama3,qwen3,gptoss,smollm,gemma3] [--seed N]

For every vocabulary (default: all but gemma3, whose file is large): the strings of
tokenizer_cases.py with special tokens read (and, on a sample, as plain text) must give llama.cpp's
ids; all of llama.cpp's ids must detokenise to llama.cpp's text, spaces aside (it keeps the space
that SentencePiece puts after a special token, and tidies spaces before punctuation for Llama 3;
ttx gives back what was tokenised); byte strings that are not valid UTF-8 must survive tokenising
and detokenising, but for bytes that the vocabulary has no token for. Exit code 1 if anything differs.
"""
import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import tokenizer_cases
from reflib import dump, fixture, llama, load, run
import vocab  # found through reflib

SHOWN = 8  # differences printed a vocabulary


def show(name, what, bad, total, describe):
    print(f"{'pass' if not bad else 'FAIL'}  {name:8} {what}: {total - len(bad)} of {total}", flush=True)
    for i in bad[:SHOWN]:
        print("      " + describe(i))
    return bool(bad)


def first_difference(a, b):
    i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"token {i}: llama.cpp ..{a[max(0, i - 1):i + 4]}, ttx ..{b[max(0, i - 1):i + 4]}"


def tokenize(ttx, model, texts, path, flags):
    """ttx's ids of every text. `path` holds them as JSON; ttx reads those with a NUL only from a file of their own."""
    command = [ttx, "tokenize", "-m", model, "--no-bos", "--ids", *flags]
    dump(path, [t for t in texts if "\0" not in t])
    ours = iter(json.loads(run(*command, "--lines-json", path)))

    def alone(t):
        path.write_text(t, newline="")
        return json.loads(run(*command, "-f", path))
    return [alone(t) if "\0" in t else next(ours) for t in texts]


def has_byte(v, b):
    """Can a vocabulary express byte b on its own?"""
    if v.model == "llama":
        return f"<0x{b:02X}>" in v.tokens
    printable = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]  # GPT-2's letters for bytes
    others = [x for x in range(256) if x not in printable]
    return chr(b if b in printable else 256 + others.index(b)) in v.tokens


def compare(ttx, name, work, seed):
    model = work / f"{name}.gguf"
    fixture("make_vocab", "--vocab", name, "-o", model)
    v = vocab.load(name)
    strings = tokenizer_cases.cases(seed)
    sample = strings[::5]
    all_file, sample_file = dump(work / "strings.json", strings), dump(work / "sample.json", sample)
    llama([["tokenize", "--model", model, "--strings", all_file, "--out", work / "ids.json"],
           ["tokenize", "--model", model, "--strings", sample_file, "--no-special", "--out", work / "plain.json"]], work)
    failed = False

    for what, texts, path, reference, flags in (("special tokens read", strings, all_file, "ids.json", []),
                                                ("as plain text", sample, sample_file, "plain.json", ["--no-parse-special"])):
        expected = load(work / reference)
        ours = tokenize(ttx, model, texts, path, flags)
        assert len(ours) == len(texts) == len(expected)
        bad = [i for i in range(len(texts)) if ours[i] != expected[i]]
        failed |= show(name, what, bad, len(texts), lambda i: f"{texts[i][:60]!r}: {first_difference(expected[i], ours[i])}")

    # Detokenisation: each call loads the vocabulary, so a few long lists instead of many short ones.
    expected = load(work / "ids.json")
    lists = [sum(expected[k::23], []) for k in range(23)]
    llama([["detokenize", "--model", model, "--ids", dump(work / "lists.json", lists), "--out", work / "texts.json"]], work)
    texts = load(work / "texts.json")
    ours = []
    for ids in lists:
        out = run(ttx, "tokenize", "-m", model, "--detokenize", "--no-bos", "-f", dump(work / "list.json", ids))
        ours.append(out.decode(errors="replace"))
    # How a cut character is shown is nobody's rule either.
    texts, ours = ([t.replace(" ", "").rstrip("\n\ufffd") for t in x] for x in (texts, ours))
    bad = [k for k in range(len(lists)) if texts[k] != ours[k]]
    failed |= show(name, "detokenised", bad, len(lists), lambda k: f"list {k}: " + first_text_difference(texts[k], ours[k]))

    missing = bytes(b for b in range(256) if not has_byte(v, b))
    blobs = [b.translate(None, missing) for b in tokenizer_cases.invalid_utf8(seed)]
    bad, got = [], {}
    for i, blob in enumerate(blobs):
        path = work / "blob"
        path.write_bytes(blob)
        ids = run(ttx, "tokenize", "-m", model, "-f", path, "--ids", "--no-bos")
        path.write_bytes(ids)
        got[i] = run(ttx, "tokenize", "-m", model, "--detokenize", "--no-bos", "-f", path)
        # SentencePiece vocabularies put a space before a text.
        if blob not in (got[i], got[i].removeprefix(b" ")):
            bad.append(i)
    failed |= show(name, "not UTF-8, there and back", bad, len(blobs), lambda i: f"{blobs[i][:40]!r} -> {got[i][:40]!r}")
    return failed


def first_text_difference(a, b):
    i = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"at {i}: llama.cpp {a[max(0, i - 8):i + 12]!r}, ttx {b[max(0, i - 8):i + 12]!r}"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ttx", required=True, type=lambda s: Path(s).resolve())
    p.add_argument("--vocab", default="llama2,llama3,qwen3,gptoss,smollm")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    start, failed = time.time(), 0
    names = a.vocab.split(",")
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            failed += compare(a.ttx, name, Path(work), a.seed)
    print(f"{len(names) - failed} passed, {failed} failed\n{time.time() - start:.0f} s")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
