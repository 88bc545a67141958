#!/usr/bin/env python3
"""Every allocation of `ttx tokenize` fails once: an error in one line, never a crash.

    tok_alloc.py TTX FAILMALLOC_SO
"""
import sys
import tempfile
from pathlib import Path

import vocab_files
from alloc_failures import exhaust


def main():
    ttx, library = (str(Path(a).resolve()) for a in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "bpe.gguf").write_bytes(vocab_files.bpe("llama-bpe", ["a b", "Ġ a"], ["<x>"]))
        (folder / "spm.gguf").write_bytes(vocab_files.spm())
        (folder / "text").write_text("ab<x> ab " * 200)
        (folder / "ids").write_text("1 4 97 98 99 " * 50)
        for model in "bpe.gguf", "spm.gguf":
            for view in (["-f", "text"], ["-f", "text", "--ids"], ["-f", "ids", "--detokenize"]):
                args = ["tokenize", "-m", model, *view]
                n, survived = exhaust(ttx, library, folder, args)
                print(f"{' '.join(args)}: {n} allocations failed in turn, {survived} done without")
                assert n >= 10
    return 0


if __name__ == "__main__":
    sys.exit(main())
