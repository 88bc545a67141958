#!/usr/bin/env python3
"""A program that was built without tracing (-DTTX_TRACE=OFF) runs models, and refuses --trace.

    trace_off_test.py TTX TINY_MODEL
"""
import subprocess
import sys
import tempfile
from pathlib import Path

TTX, TINY = sys.argv[1:3]


def main():
    with tempfile.TemporaryDirectory() as home:
        model, out = Path(home) / "model.gguf", Path(home) / "trace"
        subprocess.run([TINY, model, "vocab=1", "n_vocab=320"], check=True)
        command = [TTX, "run", "-m", model, "-p", "abc", "-n", "4", "--temp", "0", "--ignore-eos"]
        plain = subprocess.run(command, capture_output=True)
        assert plain.returncode == 0 and plain.stdout, plain
        refused = subprocess.run([*command, "--trace", out], capture_output=True, text=True, errors="replace")
        assert refused.returncode == 2, refused
        assert refused.stderr.strip().split("\n")[-1] == "ttx: --trace: this ttx was built without tracing", refused
        assert not out.exists(), "nothing is made"


main()
