#!/usr/bin/env python3
"""ttx sim and ttx tune from outside: rows, formats, what it agrees with a run on, what it refuses.

    sim_command.py TTX TINY_MODEL
"""
import csv
import io
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

TTX, TINY_MODEL = (str(Path(a).resolve()) for a in sys.argv[1:3])
MACHINE = ["--disk", "100", "--latency", "10", "--compute", "0.01", "-c", "128", "-ub", "32"]
POLICIES = ["lru", "lfu-aged", "least-stale", "layer-aware"]


def ttx(*args):
    return subprocess.run([TTX, *args], capture_output=True, text=True, errors="replace", timeout=120)


def sim(model, *args):
    p = ttx("sim", "-m", model, *MACHINE, *args)
    assert p.returncode == 0 and not p.stderr, p
    return p.stdout


def rows(model, *args):
    return json.loads(sim(model, *args, "-o", "json"))


def smallest():
    """MiB of the smallest budget that a run takes, and of one that holds about half of the experts."""
    p = ttx("sim", "-m", "moe.gguf", *MACHINE, "--routes", "r.csv", "--ram", "1M")
    assert p.returncode == 1 and "memory budget: expected at least" in p.stderr, p
    words = p.stderr.split()
    return int(words[words.index("least") + 1])


def order():
    least = smallest()
    r = rows("moe.gguf", "--routes", "r.csv", "--ram", f"{least}M,{least + 6}M", "--guess", "off,previous")
    assert [(x["policy"], x["guess"]) for x in r] == 2 * (
        [(p, g) for p in POLICIES for g in ("off", "previous")] + [("optimum", "off")]), r
    for x in r:
        assert 0 <= x["hit_rate"] <= 1 and x["n_steps"] == 256 and x["disk_mbps"] == 100, x
        assert x["bound_ts"] <= x["bound_guess_ts"] * 1.000001 <= x["bound_free_ts"] * 1.000002, x
        assert x["bound_free_ts"] <= 100.0001, x
        best = next(y for y in r if y["policy"] == "optimum" and y["ram_bytes"] == x["ram_bytes"])
        assert x["hit_rate"] <= best["hit_rate"] + 1e-9, (x, best)
        if x["guess"] == "off":
            assert x["predicted_ts"] <= x["bound_ts"] * 1.000001 and x["guesses"] == 0, x
    assert r[9]["hit_rate"] > r[0]["hit_rate"], "more memory, more hits"
    assert r[0]["mb_per_token"] > 0


def like_a_run():
    """The same hits and bytes as a run with the same routes, budget and policy."""
    ram = f"{smallest() + 4}M"
    p = ttx("run", "-m", "moe.gguf", "-p", "a", "-n", "41", "--temp", "0", "--ignore-eos", "--ram", ram, "-lm", "stream",
            "-c", "128", "-ub", "32", "--routes", "r.csv", "--prefetch", "layer", "--expert-cache", "lru", "--json",
            "run.json")
    assert p.returncode == 0, p
    run = json.loads(Path("run.json").read_text())
    n = run["prompt_n"] + run["decode_n"]
    x = rows("moe.gguf", "--routes", "r.csv", "--ram", ram, "--guess", "off", "--policy", "lru", "--steps", str(n),
             "--warm-up", "0")[0]
    r = run["residency"]
    hits = r["expert_hits"] / r["expert_uses"]
    assert run["prompt_n"] <= 2 and abs(x["hit_rate"] - hits) < 0.02, (x, r)
    read = r["read_bytes"] / n / 1e6
    assert abs(x["mb_per_token"] - read) < 0.05 * read, (x, read)


def from_trace():
    p = ttx("run", "-m", "moe.gguf", "-p", "the end", "-n", "20", "--temp", "0", "--ignore-eos", "--trace", "trace",
            "-c", "128")
    assert p.returncode == 0, p
    p = ttx("sim", "-m", "moe.gguf", "--trace", "trace", "--ram", f"{smallest() + 4}M", "--disk", "100", "-c", "128",
            "-o", "json", "--policy", "lru", "--guess", "off", "-ub", "32")
    assert p.returncode == 0 and not p.stderr, p
    r = json.loads(p.stdout)
    assert len(r) == 2 and 0 < r[0]["compute_s"] < 1 and r[0]["hit_rate"] > 0, r


def dense():
    p = ttx("sim", "-m", "t.gguf", *MACHINE, "--ram", "1M")
    words = p.stderr.split()
    least = int(words[words.index("least") + 1])
    r = rows("t.gguf", "--ram", f"{least + 1}M,{least + 64}M")
    assert len(r) == 2 and r[0]["policy"] == "" and r[0]["hit_rate"] is None, r
    assert r[0]["mb_per_token"] > 0 and r[1]["mb_per_token"] == 0 and abs(r[1]["predicted_ts"] - 100) < 1e-3, r
    assert r[0]["predicted_ts"] <= r[0]["bound_ts"] * 1.000001, r


def formats():
    args = ["--routes", "r.csv", "--ram", f"{smallest() + 4}M", "--policy", "lru", "--guess", "off"]
    want = rows("moe.gguf", *args)
    table = list(csv.DictReader(io.StringIO(sim("moe.gguf", *args, "-o", "csv"))))
    assert [t["policy"] for t in table] == ["lru", "optimum"] and list(table[0]) == list(want[0]), table
    assert [json.loads(line) for line in sim("moe.gguf", *args, "-o", "jsonl").splitlines()] == want
    db = sqlite3.connect(":memory:")
    db.executescript(sim("moe.gguf", *args, "-o", "sql"))
    assert db.execute("SELECT policy, n_steps FROM ttx_sim").fetchall() == [("lru", 256), ("optimum", 256)]
    lines = sim("moe.gguf", *args).splitlines()
    assert len({line.count("|") for line in lines[:4]}) == 1 and "lru" in lines[2] and "Disk 100 MB/s" in lines[5], lines


def tune():
    """What is chosen is the fastest of what was simulated; the hints are such that a run takes them."""
    ram = f"{smallest() + 5}M"
    p = ttx("tune", "-m", "moe.gguf", "--ram", ram, "-n", "40", "-c", "128", "-ub", "32", "-o", "hints.json")
    assert p.returncode == 0 and not p.stderr, p
    table = [line.split() for line in p.stdout.splitlines() if "hits" in line]
    assert [(t[0], t[1]) for t in table] == [
        (q, g) for q in POLICIES for g in ("off", "router", "previous", "frequency", "successor")], p
    hints = json.loads(Path("hints.json").read_text())
    run, best = hints["run"], max(float(t[-2]) for t in table)
    assert abs(run["predicted_ts"] - best) < 0.02 * best and run["ram"] == ram and run["compute_s"] > 0, (run, best)
    chosen = next(t for t in table if t[0] == run["expert_cache"] and float(t[-2]) == best)
    assert run["prefetch"] == ("layer" if chosen[1] == "off" else "all"), (run, chosen)
    uses = [x["uses"] for x in hints["warm_experts"]]
    assert uses and uses == sorted(uses, reverse=True) and all(x["layer_id"] < 4 and x["expert_id"] < 16
                                                               for x in hints["warm_experts"]), hints
    text = ["run", "-m", "moe.gguf", "-p", "the end", "-n", "8", "--temp", "0", "--ignore-eos", "-c", "128", "-ub", "32"]
    plain, hinted = ttx(*text), ttx(*text, "--hints", "hints.json", "--json", "run.json")
    assert hinted.returncode == 0 and hinted.stdout == plain.stdout, hinted
    taken = "hints.json: taking --ram {ram} --load-mode {load_mode} --expert-cache {expert_cache} --prefetch {prefetch} " \
        "--guess {guess}\n".format(**run)
    assert run["load_mode"] == "stream" and hinted.stderr.startswith("ttx: " + taken), hinted
    budget = json.loads(Path("run.json").read_text())["residency"]["budget_bytes"]
    assert budget == int(ram[:-1]) << 20, budget
    other = ttx(*text, "--hints", "hints.json", "--ram", f"{smallest() + 9}M", "--guess", "previous", "--json", "run.json")
    assert other.returncode == 0 and other.stdout == plain.stdout, other
    taken = "hints.json: taking --load-mode {load_mode} --expert-cache {expert_cache} --prefetch {prefetch}\n".format(**run)
    assert other.stderr.startswith("ttx: " + taken), other
    assert json.loads(Path("run.json").read_text())["residency"]["budget_bytes"] == smallest() + 9 << 20
    for key, value, message in [
        ("ram", "lots", "expected 'ram' to be a size, a percentage or 'auto', found 'lots'"),
        ("expert_cache", "best", "expected expert-cache out of lru|lfu-aged|least-stale|layer-aware, found 'best'"),
        ("prefetch", 3, "expected 'prefetch' to be a short text"),
    ]:
        Path("wrong.json").write_text(json.dumps({**hints, "run": {**run, key: value}}))
        p = ttx(*text, "--hints", "wrong.json")
        assert p.returncode == 2 and p.stderr == f"ttx: wrong.json: run: {message}\n", p
    p = ttx("tune", "-m", "t.gguf", "--ram", "60M", "-n", "8", "-c", "128", "-ub", "32", "-o", "dense.json")
    assert p.returncode == 0 and json.loads(Path("dense.json").read_text())["pin"] == {"ranges": []}, p
    p = ttx("tune", "-m", "t.gguf", "--ram", "60M", "-n", "128", "-c", "128")
    assert p.returncode == 2 and p.stderr == ("ttx: -n: expected 8 tokens fewer than the context of 128, found 128\n"), p
    p = ttx("tune", "-m", "t.gguf", "--ram", "much")
    assert p.returncode == 2 and "expected a size" in p.stderr and p.stderr.count("\n") == 1, p


def refused():
    routes = ["--routes", "r.csv", "--ram", "64M"]
    for args, message in [
        (["moe.gguf", "--ram", "64M"], "sim: expected --trace or --routes for a model with experts, found neither"),
        (["moe.gguf", *routes, "--trace", "t"], "sim: expected one of --trace and --routes, found both"),
        (["t.gguf", *routes], "--routes: expected a model with experts, found one without"),
        (["moe.gguf", *routes, "--policy", "best"], "--policy: expected a list out of "
         "lru|lfu-aged|least-stale|layer-aware, found 'best'"),
        (["moe.gguf", *routes, "--warm-up", "320"], "--warm-up: expected fewer than the 320 steps, found 320"),
        (["moe.gguf", "--routes", "r.csv", "--ram", "some"], "--ram: expected a size, a percentage or 'auto', found 'some'"),
    ]:
        p = ttx("sim", "-m", *args[:1], *MACHINE, *args[1:], "-o", "csv")
        assert p.returncode == 2 and p.stderr == f"ttx: {message}\n" and not p.stdout, (args, p)
    p = ttx("sim", "-m", "moe.gguf", *routes, "--disk", "1")
    assert p.returncode == 2 and p.stderr.startswith("ttx: --compute: expected the seconds of a token"), p
    p = ttx("sim", "-m", "moe.gguf", *MACHINE, "--trace", "none", "--ram", "64M")
    assert p.returncode == 1 and p.stderr.count("\n") == 1, p


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        fields = ["n_ctx=512", "type=Q8_0", "n_vocab=2048", "vocab=1"]
        subprocess.run([TINY_MODEL, "t.gguf", "n_embd=256", "n_layer=8", "n_ff=704", *fields], check=True)
        subprocess.run([TINY_MODEL, "moe.gguf", "arch=mixtral", "n_embd=256", "n_layer=4", "n_expert=16", "n_ff=256", "n_ff_exp=256",
                        *fields], check=True)
        p = ttx("run", "-m", "moe.gguf", "-p", "a", "-n", "100", "--temp", "1", "--seed", "3", "--ignore-eos",
                "--save-routes", "r.csv", "-c", "128")
        assert p.returncode == 0, p
        for test in (order, like_a_run, from_trace, dense, formats, tune, refused):
            test()
            print(f"{test.__name__}: good", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
