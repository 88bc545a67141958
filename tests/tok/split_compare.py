#!/usr/bin/env python3
"""Splits that no vocabulary at hand uses, and every code point, against llama.cpp.

    split_compare.py TTX [--code-points]

Each split is tried on a made vocabulary in which any two bytes of a word merge, so that the ids show
where the words were. --code-points: all assigned planes instead of random strings; takes minutes.
"""
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import vocab_files

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))
import reflib

SPLITS = ["default", "llama-bpe", "gpt-2", "gpt-4o", "qwen2", "smollm", "tekken", "falcon", "deepseek-llm",
          "deepseek-coder", "deepseek-v3"]
PARTS = ["a", "B", "é", "É", "ß", "'s", "'LL", "'re", "1", "12345", "٣", "½", " ", "  ", "\n", "\r\n", "\t", "\u00a0",
         "\u3000", "\u2028", "\u0085", "!", "~", "$", "/", "//", "_", "<=", "...", "。", "世", "界あ", "カ", "한", "\u0301",
         "\u200d", "\ufeff", "😀", "👍🏽", "ǅ", "ª", "Ⅷ", "𝐀", "𞤀", "\u0001", "Ა", "ꭰ", "K", "Ω", "ⅎ", "ก", "՞", "ա"]


def random_strings(n):
    rnd = random.Random(11)
    some = lambda: chr(rnd.choice([rnd.randrange(1, 0x300), rnd.randrange(0x300, 0xD800), rnd.randrange(0xE000, 0x20000)]))
    return ["".join(rnd.choice(PARTS) if rnd.random() < 0.8 else some() for _ in range(rnd.randrange(1, 24)))
            for _ in range(n)]


def code_point_strings():
    planes = [*range(1, 0xD800), *range(0xE000, 0x33480), *range(0xE0000, 0xE0200), *range(0xFFF00, 0x100010)]
    return [f"a{c}a 1{c}1 !{c}! {c}{c}'s" for c in map(chr, planes)]


def main():
    if not reflib.NODE.exists():
        return 77
    ttx = str(Path(sys.argv[1]).resolve())
    strings = code_point_strings() if "--code-points" in sys.argv else random_strings(400)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        reflib.dump(folder / "strings", strings)
        for pre in SPLITS:
            model = folder / f"{pre}.gguf"
            model.write_bytes(vocab_files.all_pairs(pre))
            reflib.llama([["tokenize", "--model", model, "--strings", folder / "strings", "--out", folder / "ids"]],
                         folder)
            expected = reflib.load(folder / "ids")
            found = json.loads(subprocess.run(
                [ttx, "tokenize", "-m", model, "--no-bos", "--lines-json", folder / "strings"],
                check=True, capture_output=True).stdout)
            bad = [s for s, e, f in zip(strings, expected, found, strict=True) if e != f]
            assert not bad, f"{pre}: {len(bad)} of {len(strings)} differ, first {bad[0]!r}"
            print(f"{pre}: {len(strings)} strings as llama.cpp has them", flush=True)
            model.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
