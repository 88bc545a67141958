#!/usr/bin/env python3
"""What ttx bench measures of this machine is of a possible size, and its results rest on it.

    limits_test.py TTX TINY_MODEL
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

TTX, TINY_MODEL = (str(Path(a).resolve()) for a in sys.argv[1:3])


def main():
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/t.gguf"
        subprocess.run([TINY_MODEL, model], check=True)
        r = subprocess.run([TTX, "bench", "-m", model, "-p", "64", "-n", "4", "-r", "2", "-o", "json"],
                           capture_output=True, text=True, check=True)
    prompt, decode = json.loads(r.stdout)
    # From a loaded laptop of 2010 to a server with a terabyte a second.
    assert prompt["mem_gbps"] is None or 0.5 < prompt["mem_gbps"] < 5000, prompt
    assert decode["bound_ts"] is None, "a tiny model lives in the cache"
    if prompt["peak_gops"] is None:  # AMX
        assert prompt["bound_ts"] is None and "AMX" in r.stderr, r
        return
    assert 1 < prompt["peak_gops"] < 1e6 and prompt["peak_unit"], prompt
    bound = prompt["peak_gops"] * 1e9 / prompt["ops_per_token"]
    assert abs(prompt["bound_ts"] - bound) < 1e-6 * bound, prompt
    assert abs(prompt["bound_share"] - prompt["median_ts"] / bound) < 1e-6 * prompt["bound_share"], prompt
    flags = Path("/proc/cpuinfo").read_text()
    if "avx512_vnni" in flags:
        # Byte products at 512 bits: nothing else here comes near.
        assert prompt["peak_unit"] == "vnni int8", prompt


if __name__ == "__main__":
    main()
