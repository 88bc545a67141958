#!/usr/bin/env python3
"""What goes wrong under a run that goes on: the file is cut short, the memory group shrinks. The run
ends with one clear line, or goes on; what it has said up to then is right.

    faults_test.py TTX TINY_MODEL

The last part needs a memory cgroup (v1) and is left out where none can be made.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory_group import MemoryGroup, can_be_made

MIB = 1 << 20
FIELDS = ["arch=mixtral", "n_embd=512", "n_layer=8", "n_expert=8", "n_ff=1024", "n_ff_exp=1024", "n_head=8",
          "n_head_kv=4", "d_head=64", "n_rot=64", "type=Q8_0", "n_vocab=2048", "n_ctx=512", "vocab=1"]


class Run:
    """ttx run, begun; `started` returns when there is some text."""

    def __init__(self, ttx, model, *options, group=None):
        self.process = subprocess.Popen(
            [ttx, "run", "-m", model, "-p", "the end of the", "-n", "300", "--temp", "0", "--ignore-eos", "-c", "512",
             "-ub", "64", "-t", "2", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=group and group.enter)
        self.text = b""

    def started(self):
        self.text = self.process.stdout.read1(1)

    def end(self):
        out, err = self.process.communicate()
        return self.process.returncode, self.text + out, err.decode()


def check_truncated(ttx, model, text, options, expected):
    copy = model.parent / "copy.gguf"
    shutil.copy(model, copy)
    run = Run(ttx, copy, *options)
    run.started()
    os.truncate(copy, copy.stat().st_size // 2)
    code, found, said = run.end()
    last = said.strip().splitlines()[-1] if said else ""
    assert code == 1 and expected in last, (options, code, said)
    assert found and text.startswith(found) and found != text, (options, found)


def check_shrinking(ttx, model, text):
    if not can_be_made():
        return
    with MemoryGroup("faults") as group:
        run = Run(ttx, model, "-lm", "stream", "--ram", "140M", group=group)
        time.sleep(0.05)
        shrunk = 0
        for _ in range(100):  # as soon as it is possible: while the cache is still small, or never
            try:
                shrunk = max(group.read("memory.usage_in_bytes") + 8 * MIB, 60 * MIB)
                group.write("memory.limit_in_bytes", shrunk)
                break
            except OSError:
                time.sleep(0.01)
        code, found, said = run.end()
        peak = group.peak()
        print(f"limit {shrunk / MIB:.0f} MiB, peak {peak / MIB:.0f} MiB, exit code {code}")
        if code == 0:
            assert found == text, (found, text)
            assert "the limit of memory fell to" in said, said
            assert peak <= shrunk + MIB, (peak, shrunk)
        else:  # what is pinned alone was too much
            assert code == 1 and "the limit of memory fell to" in said.splitlines()[-1], (code, said)
            assert text.startswith(found)


def main():
    ttx, tiny = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.gguf"
        subprocess.run([tiny, model, *FIELDS], check=True)
        code, text, said = Run(ttx, model, "-lm", "mmap").end()
        assert code == 0, said
        check_truncated(ttx, model, text, ["-lm", "mmap"], "a page cannot be read")
        check_truncated(ttx, model, text, ["-lm", "stream", "--ram", "60M"], "found the end of the file")
        check_shrinking(ttx, model, text)


if __name__ == "__main__":
    main()
