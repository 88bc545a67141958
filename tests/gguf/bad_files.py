#!/usr/bin/env python3
"""Golden bad files: every one must be refused with exactly the line and the exit code on record.

    bad_files.py TTX [--update]

The record is bad_files.golden: "case: code: line". To add a case, add a row to CASES and run with
--update; the difference of the golden file shows the new line, and any old one that changed.

A case is (name, files[, command]): `files` is the bytes of model.gguf or {file name: bytes}, of
which the first is opened; `command` is the command line that is given "-m FILE", by default
["gguf-dump"]. Besides, a good file is cut at every byte, and each of the stumps must be refused
in one line.
"""
import subprocess
import sys
import tempfile
from pathlib import Path

from gguf_writer import *

GOLDEN = Path(__file__).with_suffix(".golden")
DUMP = ["gguf-dump"]
A, B = T("a.weight", [32, 2]), T("b.weight", [32, 2])


def set_of(*shards, first=0):
    """Shards with their proper names; None is left out. The one at `first` is opened."""
    files = {shard_name(i, len(shards)): s for i, s in enumerate(shards)}
    order = [shard_name(first, len(shards))] + list(files)
    return {name: files[name] for name in order if files[name] is not None}


def deep(levels):
    """An array in an array in an array ..."""
    v = (U8, [1])
    for _ in range(levels - 1):
        v = (ARR, [v])
    return v


CASES = [
    # the first bytes
    ("empty", b""),
    ("magic-cut", b"GG"),
    ("magic-wrong", b"GGML" + bytes(60)),
    ("version-cut", b"GGUF\x03"),
    ("version-0", gguf(version=0)),
    ("version-1", gguf(version=1)),
    ("version-4", gguf(version=4)),
    ("big-endian", b"GGUF" + bytes([0, 0, 0, 3]) + bytes(16)),
    ("counts-cut", gguf()[:20]),
    ("pairs-huge", gguf(n_kv=1 << 63)),
    ("pairs-one-too-many", gguf([arch()], n_kv=2)),
    ("tensors-huge", gguf(n_tensors=2**64 - 1)),
    ("tensors-one-too-many", gguf([arch()], [A], n_tensors=2, with_data=False)),
    # metadata
    ("key-empty", gguf([kv("", U8, 1), arch()])),
    ("key-length-huge", gguf([u64(2**64 - 1) + bytes(30)])),
    ("key-too-long", gguf([kv("k" * 65536, U8, 1)])),
    ("key-cut", gguf([kv("general.name" * 9, U8, 1)], cut=12)),
    ("key-twice", gguf([kv("x", U8, 1), arch(), kv("x", U8, 1)])),
    ("key-unprintable", gguf([kv(b"\xff\x1b[2J\n" + b"k" * 200, BOOL, 2)])),
    ("value-type-13", gguf([string("x") + u32(13) + bytes(8)])),
    ("value-type-cut", gguf([kv("general.name", U8, 1)], cut=2)),
    ("value-cut", gguf([kv("x", U64, 1)], cut=1)),
    ("bool-2", gguf([kv("x", BOOL, 2)])),
    ("bool-in-array", gguf([kv("x", ARR, (BOOL, [0, 1, 255]))])),
    ("string-length-huge", gguf([string("x") + u32(STR) + u64(2**64 - 8)])),
    ("string-cut", gguf([arch("llama")], cut=1)),
    ("array-type-99", gguf([kv("x", ARR, u32(99) + u64(0))])),
    ("array-length-huge", gguf([kv("x", ARR, u32(U8) + u64(2**64 - 1))])),
    ("array-length-overflows", gguf([kv("x", ARR, u32(U64) + u64(1 << 61) + bytes(64))])),
    ("array-of-strings-huge", gguf([kv("x", ARR, u32(STR) + u64(1 << 60) + bytes(64))])),
    ("array-of-strings-cut", gguf([kv("x", ARR, (STR, ["abc", "def"]))], cut=2)),
    ("array-of-arrays-huge", gguf([kv("x", ARR, u32(ARR) + u64(1 << 60) + bytes(64))])),
    ("array-of-arrays-cut", gguf([kv("x", ARR, (ARR, [(U8, [1]), (U32, [1, 2])]))], cut=3)),
    ("array-too-deep", gguf([kv("x", ARR, deep(5))])),
    ("alignment-0", gguf([kv("general.alignment", U32, 0)])),
    ("alignment-4", gguf([kv("general.alignment", U32, 4)])),
    ("alignment-24", gguf([kv("general.alignment", U32, 24)])),
    ("alignment-huge", gguf([kv("general.alignment", U32, 1 << 31)])),
    ("alignment-string", gguf([kv("general.alignment", STR, "32")])),
    # tensors
    ("name-empty", gguf([], [T("", [4])])),
    ("name-too-long", gguf([], [T("n" * 256, [4])])),
    ("name-with-zero", gguf([], [T(b"a\0b", [4])])),
    ("name-cut", gguf([], [T("n" * 60, [4])], n_tensors=1)[:60]),
    ("name-twice", gguf([], [A, B, T("a.weight", [4])])),
    ("name-unprintable", gguf([], [T("\x1b[31m\nblk.0.\u00e9", [0])])),
    ("dimensions-none", gguf([], [T("a", [])])),
    ("dimensions-5", gguf([], [T("a", [1, 1, 1, 1, 1])])),
    ("dimensions-huge", gguf([], [T("a", [1], n_dims=2**32 - 1)])),
    ("dimensions-cut", gguf([], [T("a" * 30, [1, 1, 1, 1])], with_data=False)[:80]),
    ("dimension-0", gguf([], [T("a", [32, 0])])),
    ("dimensions-overflow", gguf([], [T("a", [1 << 32, 1 << 32], size=4)])),
    ("dimensions-overflow-to-small", gguf([], [T("a", [1 << 62, 1 << 62, 4], size=4)])),
    ("size-overflows", gguf([], [T("a", [1 << 61], F64, size=8)])),
    ("type-retired", gguf([], [T("a", [32], 4)])),
    ("type-out-of-range", gguf([], [T("a", [32], 2**32 - 1)])),
    ("type-cut", gguf([], [T("a" * 30, [1])], with_data=False)[:76]),
    ("row-of-part-blocks", gguf([], [T("blk.0.attn_q.weight", [48, 4], Q4_0)])),
    ("offset-cut", gguf([], [T("a" * 30, [1])], with_data=False)[:84]),
    ("offset-unaligned", gguf([], [T("a", [4], offset=8)])),
    ("offset-unaligned-64", gguf([kv("general.alignment", U32, 64)], [A, T("b", [4], offset=288)],
                                 align=64)),
    ("offset-outside", gguf([], [A, T("b", [4], offset=1 << 40)])),
    ("offset-overflows", gguf([], [T("a", [8], offset=2**64 - 32)])),
    ("end-overflows", gguf([], [T("a", [1 << 59], F64, offset=2**64 - 4096, size=8)])),
    ("data-cut", gguf([arch()], [A, T("blk.3.ffn_down.weight", [64, 64])], cut=1)),
    ("data-missing", gguf([arch()], [A, B], with_data=False)),
    ("data-overlaps", gguf([], [A, T("b", [32, 2], offset=128)])),
    ("data-overlaps-unsorted", gguf([], [T("a", [4], offset=256), T("b", [64], offset=64)])),
    ("data-shared", gguf([], [A, T("b", [32, 2], offset=0)])),
    # sets of shards
    ("shard-missing", set_of(shard(0, 3, 2, [A]), None, shard(2, 3, 2, [B]))),
    ("shard-first-missing", set_of(None, shard(1, 2, 2, [B]), first=1)),
    ("shard-other-model", set_of(shard(0, 2, 2, [A], [arch("llama")]),
                                 shard(1, 2, 2, [B], [arch("qwen2")]))),
    ("shard-other-place", set_of(shard(0, 2, 2, [A]), shard(0, 2, 2, [B]))),
    ("shard-other-count", set_of(shard(0, 2, 2, [A]), shard(1, 3, 2, [B]))),
    ("shard-not-split", set_of(shard(0, 2, 2, [A]), gguf([arch()], [B]))),
    ("shard-not-gguf", set_of(shard(0, 2, 2, [A]), b"<html>")),
    ("shard-damaged", set_of(shard(0, 2, 2, [A]), shard(1, 2, 2, [B], cut=1), first=1)),
    ("shard-name-plain", shard(0, 2, 2, [A])),
    ("shard-name-other", {"model-00002-of-00002.gguf": shard(0, 2, 2, [A])}),
    ("shard-tensor-twice", set_of(shard(0, 2, 2, [A]), shard(1, 2, 2, [A]))),
    ("shard-tensors-too-few", set_of(shard(0, 2, 3, [A]), shard(1, 2, 3, [B]))),
    ("shard-no-outside", {shard_name(0, 2): shard(2, 2, 2, [A])}),
    ("shard-no-missing", {shard_name(0, 2): gguf([kv("split.count", U16, 2)], [A])}),
    ("shard-count-huge", {shard_name(0, 2): gguf([kv("split.count", U64, 2**63)], [A])}),
    ("shard-count-string", {shard_name(0, 2): gguf([kv("split.count", STR, "2")], [A])}),
]


def run(ttx, folder, files, command):
    for name, data in files.items():
        (folder / name).write_bytes(data)
    first = next(iter(files))
    p = subprocess.run([ttx, command[0], "-m", first, *command[1:]], cwd=folder, timeout=60,
                       capture_output=True, stdin=subprocess.DEVNULL)
    return p.returncode, p.stdout, p.stderr


def observe(ttx, case):
    name, files = case[0], case[1]
    command = case[2] if len(case) > 2 else DUMP
    with tempfile.TemporaryDirectory() as folder:
        files = files if isinstance(files, dict) else {"model.gguf": files}
        code, out, err = run(ttx, Path(folder), files, command)
    if out:
        return f"{name}: printed {len(out)} bytes before it failed"
    return f"{name}: {code}: {err.decode(errors='backslashreplace').removesuffix(chr(10))!s}"


def stumps(ttx):
    """Cut everywhere, a good file must be refused in one line."""
    good = gguf([arch(), kv("x", ARR, (STR, ["a", "bc"])), kv("y", ARR, (ARR, [(U8, [1])]))], [A, B])
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = run(ttx, Path(folder), {"model.gguf": good}, DUMP)
        if code or err or out.count(b"\n") != 3:
            findings.append(f"the whole file: {code}: {err}")
        for n in range(len(good)):
            code, out, err = run(ttx, Path(folder), {"model.gguf": good[:n]}, DUMP)
            if code != 3 or out or err.count(b"\n") != 1 or not err.startswith(b"ttx: model.gguf: "):
                findings.append(f"cut to {n} bytes: {code}: {out} {err}")
    print(f"{len(good)} stumps of a good file: {len(findings)} findings")
    return findings


def main():
    ttx, update = str(Path(sys.argv[1]).resolve()), "--update" in sys.argv[2:]
    seen = [observe(ttx, case) for case in CASES]
    if update:
        GOLDEN.write_text("\n".join(seen) + "\n")
        print(f"{len(seen)} lines written to {GOLDEN}; read the difference before you keep it")
        return 0
    golden = GOLDEN.read_text().splitlines()
    findings = []
    by_name = {line.split(":")[0]: line for line in golden}
    for line in seen:
        expected = by_name.pop(line.split(":")[0], "(no line on record)")
        if line != expected:
            findings.append(f"expected {expected}\n   found {line}")
    findings += [f"no case for the line on record: {line}" for line in by_name.values()]
    print(f"{len(seen)} bad files: {len(findings)} findings")
    findings += stumps(ttx)
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
