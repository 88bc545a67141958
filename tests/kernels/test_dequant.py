#!/usr/bin/env python3
"""Dequantisation of every type, bit by bit against the official `gguf` package.

Usage: test_dequant.py KERNELS_CHECK [SEED]

Random bytes as blocks, plus blocks whose scales are the edges of F16 (zero, subnormal, largest).
Blocks whose F16 fields hold Inf or NaN are compared with all NaNs equal, since their payload is
no part of the format. Every ISA level that this CPU has is tested. Exit code 77: no gguf package.
"""
import subprocess
import sys
import time

try:
    import numpy as np
    import gguf
except ImportError as missing:
    print(f"skipped: {missing} (tests/reference/setup.sh installs it)")
    sys.exit(77)

TYPES = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()
HALVES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
          "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0],
          "IQ4_XS": [0]}
EDGES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x0400, 0x8400, 0x7BFF, 0xFBFF]
N_BLOCKS = 3000


def blocks_of(name, qtype, rng):
    """[N_BLOCKS, bytes of a block]; the second half has edge values in every F16 field."""
    n_bytes = gguf.GGML_QUANT_SIZES[qtype][1]
    blocks = rng.integers(0, 256, (N_BLOCKS, n_bytes), dtype=np.uint8)
    for at in HALVES.get(name, []):
        edges = rng.choice(np.array(EDGES, dtype="<u2"), N_BLOCKS // 2)
        blocks[N_BLOCKS // 2:, at:at + 2] = edges.view(np.uint8).reshape(-1, 2)
    return blocks


def compare(checker, level, name, rng):
    qtype = gguf.GGMLQuantizationType[name]
    blocks = blocks_of(name, qtype, rng)
    with np.errstate(all="ignore"):
        want = gguf.quants.dequantize(blocks, qtype).astype(np.float32).reshape(-1)
    out = subprocess.run([checker, "--isa", level, "--dequant", name], input=blocks.tobytes(),
                         stdout=subprocess.PIPE, check=True).stdout
    got = np.frombuffer(out, np.float32)
    if got.shape != want.shape:
        return f"{got.size} elements, expected {want.size}"
    same = (got.view(np.uint32) == want.view(np.uint32)) | (np.isnan(got) & np.isnan(want))
    if not same.all():
        i = int(np.argmin(same))
        return f"{(~same).sum()} of {same.size} differ; [{i}]: {got[i]!r}, expected {want[i]!r}"
    return None


def main():
    checker = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print(f"gguf {gguf.__file__}, seed {seed}")
    failures = tested = 0
    for level in ["scalar", "avx2", "avx512", "vnni", "amx"]:
        probe = subprocess.run([checker, "--isa", level, "--dequant", "F32"], input=b"",
                               capture_output=True)
        if probe.returncode != 0:
            continue
        rng = np.random.default_rng(seed)
        for name in TYPES:
            error = compare(checker, level, name, rng)
            tested += 1
            if error:
                failures += 1
                print(f"FAIL {level}/{name}: {error}")
    print(f"{tested} types and levels, {failures} failures")
    return 1 if failures or not tested else 0


if __name__ == "__main__":
    sys.exit(main())
