#!/usr/bin/env python3
"""A streamed run stays within its budget, uses it, and says what a mapped run says.

    memory_test.py TTX TINY_MODEL [BUDGETS]

Makes a dense model and one with experts of about 100 MB each, and runs them with random budgets in a
memory cgroup (v1) of twice the budget: the most that the group ever used, page cache included, must
not be above the budget. Exits with 77 (skipped) where no such group can be made.
"""
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from memory_group import MemoryGroup, can_be_made

SKIPPED = 77
MIB = 1 << 20
MODELS = {
    "dense": ["arch=llama", "n_embd=1024", "n_layer=8", "n_ff=2816", "n_head=16", "n_head_kv=4",
              "d_head=64", "n_rot=64"],
    "experts": ["arch=mixtral", "n_embd=512", "n_layer=8", "n_expert=8", "n_ff=1024", "n_ff_exp=1024", "n_head=8",
                "n_head_kv=4", "d_head=64", "n_rot=64"],
}


def run(ttx, model, *options, group=None):
    command = [ttx, "run", "-m", model, "-p", "the end of the", "-n", "24", "--temp", "0",
               "--ignore-eos", "-c", "256", "-ub", "64", "-t", "2", *options]
    return subprocess.run(command, capture_output=True, preexec_fn=group and group.enter)


def smallest(ttx, model, *options):
    p = run(ttx, model, "--ram", "1M", *options)
    words = p.stderr.decode().split()
    assert p.returncode == 1 and "expected at least" in p.stderr.decode(), p
    return int(words[words.index("least") + 1])


def in_group(ttx, model, budget, text, *options):
    """Runs once; returns the peak in MiB and the run's own numbers."""
    with MemoryGroup("test", 2 * budget * MIB) as group, tempfile.NamedTemporaryFile() as out:
        p = run(ttx, model, "-lm", "stream", "--ram", f"{budget}M", "--json", out.name, *options, group=group)
        assert p.returncode == 0, p
        assert p.stdout == text, (budget, p.stdout, text)
        return group.peak() / MIB, json.loads(Path(out.name).read_text())["residency"]


def check_budget(ttx, name, model, text, budget, *options):
    """Within it, and all of it used."""
    peak, n = in_group(ttx, model, budget, text, *options)
    kept = n["pinned_bytes"] + n["expert_cache_bytes"]
    wanted = min(budget * MIB - n["reserved_bytes"] - n["ring_bytes"] - 16 * MIB,
                 n["dense_bytes"] + n["expert_bytes"])
    print(f"{name}: budget {budget} MiB, peak {peak:.1f}, reserved {n['reserved_bytes'] / MIB:.1f}, kept "
          f"{kept / MIB:.1f} of {(n['dense_bytes'] + n['expert_bytes']) / MIB:.1f}, read {n['read_bytes'] / MIB:.1f}")
    assert peak <= budget, (name, budget, peak)
    assert kept >= wanted, (name, budget, kept, wanted)


def check(ttx, name, model, n_budgets):
    text = run(ttx, model, "-lm", "mmap").stdout
    least, most = smallest(ttx, model), Path(model).stat().st_size // MIB + 30
    for budget in [least] + [random.randint(least, most) for _ in range(n_budgets - 1)]:
        check_budget(ttx, name, model, text, budget)


def check_traced(ttx, name, model, folder):
    """What a trace takes is in the budget: the rings alone are 9 MiB."""
    text = run(ttx, model, "-lm", "mmap").stdout
    least = smallest(ttx, model)
    for i, options in enumerate([("stats",), ("head", "--trace-compress", "zstd"), ("io",)]):
        options = ["--trace", f"{folder}/{name}-{i}", "--trace-level", *options]
        traced = smallest(ttx, model, *options)
        assert least + 9 <= traced <= least + 24, (least, traced)
        check_budget(ttx, f"{name}, {options[3]} traced", model, text, traced, *options)


def main():
    ttx, tiny = sys.argv[1:3]
    n_budgets = int(sys.argv[3]) if len(sys.argv) > 3 else 4
    if not can_be_made():
        sys.exit(SKIPPED)
    seed = int(os.environ.get("SEED", random.randrange(1 << 30)))
    print(f"SEED={seed}")
    random.seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        for name, fields in MODELS.items():
            model = f"{folder}/{name}.gguf"
            subprocess.run([tiny, model, *fields, "type=Q8_0", "n_vocab=2048", "n_ctx=256", "vocab=1"],
                           check=True)
            check(ttx, name, model, n_budgets)
            check_traced(ttx, name, model, folder)


if __name__ == "__main__":
    main()
