#!/usr/bin/env python3
"""What a streamed run says of itself, and holds to.

    facts_test.py TTX TINY_MODEL [API_TEST]

A prompt of more than 512 tokens reads the model once; rows of logits are part of the budget; counters
agree with what was computed; drafts change nothing but the bytes read; guesses that are wrong stop; the
live line appears on a terminal, and only there; libttx streams too.
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


def check_drafts(ttx, name, model, out):
    """Verified guesses: the same text, and of a dense model fewer passes over the disk."""
    options = ["-p", "the end of the end of the end of the", "-n", "120", "-c", "256", "-ub", "32"]
    low = least([ttx, "run", "-m", model, *options, "--draft-ngram"])
    streamed = ["-lm", "stream", "--ram", f"{low + 1}M"]
    text, _ = run(ttx, model, out, *options, stderr=subprocess.DEVNULL)
    same, plain = run(ttx, model, out, *options, *streamed, stderr=subprocess.DEVNULL)
    drafted, n = run(ttx, model, out, *options, *streamed, "--draft-ngram", stderr=subprocess.DEVNULL)
    assert text == same == drafted, name
    assert plain["residency"]["read_bytes"] > 0 and n["drafted_n"] >= n["accepted_n"] >= 0, n
    print(f"{name}: {n['accepted_n']:.0f} of {n['drafted_n']:.0f} drafts right; "
          f"{n['residency']['read_bytes'] / plain['residency']['read_bytes']:.2f} of the bytes")
    if n["accepted_n"] > 20 and name == "dense":
        assert n["residency"]["read_bytes"] < plain["residency"]["read_bytes"], (n, plain)


def check_switch(ttx, model, out):
    """Experts that are forced by a file are not those that the routers name: guesses stop."""
    rows = "".join(f"0,{int(s > 0)},{s},{l},{k},{(3 * s + l + k) % 8},0.5,0,0\n"
                   for s in range(300) for l in range(8) for k in (0, 1))
    Path(model + ".csv").write_text("# route_trace v1\n# model=x arch=mixtral n_layer=8 n_expert=8 n_expert_used=2\n"
                                    + "".join(f"# layer={l} expert_bytes=1 dense_bytes=1\n" for l in range(8))
                                    + "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n" + rows)
    options = ["-p", "the", "-n", "280", "-c", "512", "-lm", "stream", "--ram", "75M", "--routes", model + ".csv"]
    off, _ = run(ttx, model, out, *options, "--prefetch", "layer", stderr=subprocess.DEVNULL)
    text, n = run(ttx, model, out, *options, "--prefetch", "all", stderr=subprocess.DEVNULL)
    r = n["residency"]
    print(f"forced experts: {r['guesses_used']:.0f} of {r['guesses']:.0f} guesses right")
    assert text == off
    assert 64 < r["guesses"] < 5 * 200 and r["guesses_used"] < r["guesses"] * 2 / 3, r  # of 280 tokens, 7 layers, 2 experts


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
            check_drafts(ttx, name, model, out)
        check_logits(ttx, model)
        check_counters(ttx, model, out)
        check_switch(ttx, model, out)
        check_live(ttx, model, out)
        if len(sys.argv) > 3:
            subprocess.run([sys.argv[3], model, "75"], check=True)


if __name__ == "__main__":
    main()
