#!/usr/bin/env python3
"""Seeds for fuzz_gguf: every golden bad file, and good ones of every kind.

    gguf_corpus.py FOLDER
"""
import sys
from pathlib import Path

from bad_files import CASES
from dump_test import MOE, MOE_KVS
from gguf_writer import *


def as_input(files):
    """A set of two shards in the fuzzer's form: padded, so that the cut lies on 16 bytes."""
    a, b = (list(files.values()) + [b""])[:2]
    if len(a) > 255 * 16 - 16:
        return a
    cut = -(-len(a) // 16)
    return b"SET" + bytes([cut]) + a + bytes(cut * 16 - len(a)) + b


def seeds():
    for name, files, *_ in CASES:
        data = as_input(files) if isinstance(files, dict) else files
        if len(data) < 8192:  # the fuzzer finds long keys by itself; short seeds are fast
            yield f"bad-{name}", data
    small = [T(t.name, [max(1, d // 32) * 32 if i == 0 else min(d, 8) for i, d in enumerate(t.ne)],
               t.type) for t in MOE]
    yield "good-moe", gguf(MOE_KVS, small)
    yield "good-v2", gguf([arch()], [T("a", [4])], version=2)
    yield "good-unsorted", gguf([], [T("b", [4], offset=64), T("a", [4], offset=0)])
    yield "good-types", gguf([
        kv("a", U8, 1), kv("b", I8, -1), kv("c", U16, 1), kv("d", I16, -1), kv("e", U32, 1),
        kv("f", I32, -1), kv("g", F32T, 1.5), kv("h", BOOL, 1), kv("i", STR, "x"), kv("j", U64, 1),
        kv("k", I64, -1), kv("l", F64T, 1e300), kv("general.alignment", U32, 64),
        kv("m", ARR, (ARR, [(U8, [1, 2]), (STR, ["a", "b"]), (ARR, [(F64T, [-1.5])])])),
        kv("n", ARR, (BOOL, [0, 1]))], [T("a", [4])], align=64)
    yield "good-set", as_input({"a": shard(0, 2, 2, [T("a", [4])]),
                                "b": shard(1, 2, 2, [T("b", [4])])})


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds():
        (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
