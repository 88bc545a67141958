#!/usr/bin/env python3
"""Every allocation on the way of a command fails once: an error in one line, never a crash.

    alloc_failures.py TTX FAILMALLOC_SO
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gguf_writer import *

# Enough of everything to make tables grow: pairs, tensors out of order, strings, two shards.
PAIRS = [arch()] + [kv(f"x.{i}", U32, i) for i in range(150)]
WORDS = [kv("tokenizer.ggml.tokens", ARR, (STR, ["word"] * 40000))]  # more than one chunk
LAST = T("z.weight", [4])


def models(folder):
    tensors = [T(f"blk.{i}.ffn_up.weight", [4], offset=32 * (199 - i)) for i in range(200)]
    names = [shard_name(i, 2) for i in range(2)]
    (folder / names[0]).write_bytes(shard(0, 2, 201, tensors, PAIRS + WORDS))
    (folder / names[1]).write_bytes(shard(1, 2, 201, [LAST]))
    return names[1]


def exhaust(ttx, library, folder, args):
    """Number of allocations that the command made; raises on the first one that is not handled."""
    fired = folder / "fired"
    expected = None
    survived = 0
    for at in range(0, 100_000):
        fired.unlink(missing_ok=True)
        env = {**os.environ, "LD_PRELOAD": library, "FAILMALLOC_AT": str(at),
               "FAILMALLOC_LOG": str(fired)}
        p = subprocess.run([ttx, *args], cwd=folder, env=env, capture_output=True, timeout=60)
        if at == 0:
            assert p.returncode == 0 and p.stdout, p
            expected = p.stdout
            continue
        if not fired.exists():
            assert p.returncode == 0 and p.stdout == expected
            return at - 1, survived
        if p.returncode == 0:  # it did without
            assert p.stdout == expected and p.stderr == b"", (at, p.stderr)
            survived += 1
            continue
        line = p.stderr.decode()
        assert p.returncode == 1 and line.startswith("ttx: ") and line.count("\n") == 1, (at, p)
    raise AssertionError("no end of allocations")


def main():
    ttx, library = (str(Path(a).resolve()) for a in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = models(folder)
        for view in ([], ["--json"], ["--io"], ["--io", "--json"], ["--metadata"]):
            # JSON allocates for every cell: a small model shows all its ways
            args = ["gguf-dump", "-m", model, *view]
            if view == ["--json"]:
                (folder / "small.gguf").write_bytes(gguf([arch()], [LAST]))
                args[2] = "small.gguf"
            n, survived = exhaust(ttx, library, folder, args)
            print(f"{' '.join(args)}: {n} allocations failed in turn, {survived} done without")
            assert n >= 20
    return 0


if __name__ == "__main__":
    sys.exit(main())
