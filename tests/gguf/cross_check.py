#!/usr/bin/env python3
"""ttx gguf-dump against the official reader (PyPI gguf): the same tensors, the same metadata.

    cross_check.py TTX        (run by cross_check.sh, which finds the Python that has gguf)

On SmolLM2 (and Gemma 3, if it is there), and on a file with one tensor of every type that both
know. Exits with 77 where the package or the model is missing.
"""
import csv
import io
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

try:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
except ImportError:
    print("skipped: the Python package gguf is not installed (tests/reference/setup.sh)")
    sys.exit(77)

import gguf_writer as w

MODELS = Path(os.environ.get("TTX_MODELS") or Path.home() / ".cache/ttx/models")
REQUIRED, FURTHER = "SmolLM2-135M-Instruct.Q4_1.gguf", ["gemma-3-270m-Q4_K_M.gguf"]


def dump(ttx, path, *view):
    p = subprocess.run([ttx, "gguf-dump", "-m", str(path), *view], capture_output=True, check=True)
    return p.stdout.decode()


def compare_tensors(ttx, path, reader):
    rows = list(csv.DictReader(io.StringIO(dump(ttx, path))))
    assert len(rows) == len(reader.tensors)
    for r, t in zip(rows, reader.tensors):
        ne = [int(d) for d in t.shape]
        theirs = [t.name, t.tensor_type.name, len(ne), *ne, *[1] * (4 - len(ne)),
                  int(t.n_elements), int(t.data_offset), int(t.n_bytes)]
        mine = [r["tensor_name"], r["type"], int(r["n_dims"]), *(int(r[f"ne{i}"]) for i in range(4)),
                int(r["n_elements"]), int(r["file_offset"]), int(r["size_bytes"])]
        assert mine == theirs, (mine, theirs)
    return len(rows)


def compare_metadata(ttx, path, reader):
    mine = json.loads(dump(ttx, path, "--metadata", "--json"))
    # The reader shows the file's own header as fields of this name.
    theirs = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert list(mine) == list(theirs)
    for key, value in theirs.items():
        if isinstance(value, float):
            assert math.isclose(mine[key], value, rel_tol=1e-8), key
        else:
            assert mine[key] == value, key
    return len(theirs)


def every_type(folder):
    """One tensor of two rows of each type of the package."""
    tensors = []
    for t in GGMLQuantizationType:
        if t == GGMLQuantizationType.Q8_1:
            continue  # in memory only; the package counts 40 bytes a block, ggml's struct has 36
        block, size = GGML_QUANT_SIZES[t]
        tensors.append(w.T(f"t.{t.name}", [4 * block, 2], int(t), size=8 * size))
    path = folder / "types.gguf"
    path.write_bytes(w.gguf([w.arch()], tensors))
    return path


def main():
    ttx = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        path = every_type(Path(folder))
        print(f"every type: {compare_tensors(ttx, path, GGUFReader(path))} tensors")
    if not (MODELS / REQUIRED).exists():
        print(f"skipped the rest: {MODELS / REQUIRED} is missing (tests/fixtures/fetch_models.py)")
        return 77
    for name in [REQUIRED, *FURTHER]:
        path = MODELS / name
        if not path.exists():
            print(f"without {name}, which is not there")
            continue
        reader = GGUFReader(path)
        n, m = compare_tensors(ttx, path, reader), compare_metadata(ttx, path, reader)
        print(f"{name}: {n} tensors, {m} metadata pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
