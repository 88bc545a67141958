#!/usr/bin/env python3
"""What a streamed run says of itself, and holds to.

    facts_test.py TTX TINY_MODEL [API_TEST]

A prompt of more than 512 tokens reads the model once; rows of logits are part of the budget; counters
agree with what was computed; the live line appears on a terminal, and only there; libttx streams too.
"""
import json
import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path

MIB = 1 << 20
MODELS = {
    "dense": ["arch=llama", "n_embd=1024", "n_layer=8", "n_ff=2816", "n_head=16", "n_head_kv=4", "d_head=64",
              "n_rot=64", "type=Q8_0", "n_vocab=2048", "n_ctx=4096", "vocab=1"],
    "experts": ["arch=mixtral", "n_embd=512", "n_layer=8", "n_expert=8", "n_ff=1024", "n_ff_exp=1024", "n_head=8",
                "n_head_kv=4", "d_head=64", "n_rot=64", "type=Q8_0", "n_vocab=2048", "n_ctx=4096", "vocab=1"],
}
TOO_LITTLE = "expected at least "


def least(command):
    said = subprocess.run([*command, "--ram", "1M"], capture_output=True).stderr.decode()
    assert TOO_LITTLE in said, said
    return int(said.split(TOO_LITTLE)[1].split()[0])


def run(ttx, model, out, *options, **kwargs):
    command = [ttx, "run", "-m", model, "--temp", "0", "--ignore-eos", "-t", "2", "--json", out, *options]
    p = subprocess.run(command, stdout=subprocess.PIPE, check=True, **kwargs)
    return p.stdout, json.loads(Path(out).read_text())


def check_prompt(ttx, name, model, out):
    size = Path(model).stat().st_size
    options = ["-f", model + ".txt", "-n", "1", "-c", "1024", "-ub", "1024"]
    Path(model + ".txt").write_text("the end of the " * 80)
    low = least([ttx, "run", "-m", model, *options])
    for budget in low, (low + size // MIB) // 2:
        _, n = run(ttx, model, out, *options, "-lm", "stream", "--ram", f"{budget}M", stderr=subprocess.DEVNULL)
        read = n["residency"]["read_bytes"]
        print(f"{name}: prompt of {n['prompt_n']:.0f} tokens, {budget} MiB: {read / size:.3f} of the model read")
        assert n["prompt_n"] >= 512, n["prompt_n"]
        assert read <= 1.05 * size, (name, budget, read, size)


def check_logits(ttx, model):
    Path(model + ".txt").write_text("the end of the " * 90)
    options = ["-m", model, "-f", model + ".txt", "-c", "512", "-ub", "512"]
    rows = 512 * 2048 * 4 / MIB
    more = least([ttx, "eval", *options]) - least([ttx, "run", *options])
    assert rows - 1 <= more <= rows + 1, more


def check_counters(ttx, model, out):
    _, n = run(ttx, model, out, "-p", "the", "-n", "40", "-c", "128", "-lm", "stream", "--ram", "75M",
               stderr=subprocess.DEVNULL)
    r = n["residency"]
    lower = n["decode_n"] * r["expert_bytes"] * 6 / 8  # 2 of 8 are used
    assert lower <= r["unchosen_bytes"] <= lower + r["expert_bytes"], (lower, r)
    assert r["demand_bytes"] + r["order_bytes"] + r["guess_bytes"] + r["warm_bytes"] == r["read_bytes"], r
    assert 0 < r["prefetches_used"] <= r["prefetches"] and r["prefetches_late"] <= r["prefetches_used"], r
    assert 0 < r["expert_hits"] < r["expert_uses"] and 0 < r["evictions"] < r["expert_uses"], r
    assert r["guesses_used"] <= r["guesses"], r


def check_live(ttx, model, out):
    options = ["-p", "the", "-n", "1000", "-c", "4096", "-lm", "stream", "--ram", "110M"]
    terminal, theirs = pty.openpty()
    text, _ = run(ttx, model, out, *options, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            seen += os.read(terminal, 65536)
        except OSError:
            break
    os.close(terminal)
    assert b" t/s | hits " in seen and b" MB/s | waiting " in seen, seen[-2000:]
    assert seen.count(b"\r\x1b[K") >= 1, seen[-2000:]
    piped = subprocess.run([ttx, "run", "-m", model, "--temp", "0", "--ignore-eos", "-t", "2", *options],
                           capture_output=True)
    assert piped.stdout == text and b"waiting " not in piped.stderr and b"\r" not in piped.stderr, piped.stderr


def main():
    ttx, tiny = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        out = folder + "/out.json"
        for name, fields in MODELS.items():
            model = f"{folder}/{name}.gguf"
            subprocess.run([tiny, model, *fields], check=True)
            check_prompt(ttx, name, model, out)
        check_logits(ttx, model)
        check_counters(ttx, model, out)
        check_live(ttx, model, out)
        if len(sys.argv) > 3:
            subprocess.run([sys.argv[3], model, "75"], check=True)


if __name__ == "__main__":
    main()
