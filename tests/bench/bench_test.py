#!/usr/bin/env python3
"""ttx bench from outside: which tests it runs, what it prints in each format, what it refuses.

    bench_test.py TTX TINY_MODEL

Nothing here depends on how fast anything is.
"""
import csv
import io
import json
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TTX, TINY_MODEL = (str(Path(a).resolve()) for a in sys.argv[1:3])

# As llama-bench names and orders them.
LLAMA_FIELDS = ["build_commit", "build_number", "cpu_info", "gpu_info", "backends", "model_filename",
                "model_type", "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "type_k",
                "type_v", "n_gpu_layers", "load_mode", "n_prompt", "n_gen", "n_depth", "test_time", "avg_ns",
                "stddev_ns", "avg_ts", "stddev_ts"]
OWN_FIELDS = ["isa", "median_ts", "bound_ts", "bound_share", "mem_gbps", "peak_gops", "peak_unit",
              "bytes_per_token", "ops_per_token", "ttft_ms", "step_ms_p50", "step_ms_p95", "step_ms_p99"]


def bench(*args):
    return subprocess.run([TTX, "bench", *args], capture_output=True, text=True, timeout=120)


def good(*args):
    p = bench("-m", "t.gguf", "--no-limits", "-r", "1", "-t", "1", *args)
    assert p.returncode == 0 and not p.stderr, p
    return p.stdout


def tests(*args):
    """The records of a run."""
    return json.loads(good(*args, "-o", "json"))


def shapes(*args, keys=("n_prompt", "n_gen", "n_depth")):
    return [tuple(r[k] for k in keys) for r in tests(*args)]


def lists():
    assert shapes("-p", "4,8", "-n", "2") == [(4, 0, 0), (8, 0, 0), (0, 2, 0)]
    assert shapes("-p", "4", "-p", "8", "-n", "0") == [(4, 0, 0), (8, 0, 0)]
    assert shapes("-p", "0", "-n", "1-3") == [(0, 1, 0), (0, 2, 0), (0, 3, 0)]
    assert shapes("-p", "0", "-n", "1-8*2,10-16+4") == [(0, n, 0) for n in (1, 2, 4, 8, 10, 14)]
    assert shapes("-p", "0", "-n", "0", "-pg", "4,2", "-pg", "8,1") == [(4, 2, 0), (8, 1, 0)]
    assert shapes("-p", "4", "-n", "1", "-d", "0,16") == [(4, 0, 0), (0, 1, 0), (4, 0, 16), (0, 1, 16)]
    keys = ("type_k", "type_v", "n_threads", "n_ubatch")
    assert shapes("-p", "4", "-n", "0", "-ctk", "f16,q8_0", "-ctv", "f32", "-ub", "2-3", keys=keys) == [
        ("f16", "f32", 1, 2), ("q8_0", "f32", 1, 2), ("f16", "f32", 1, 3), ("q8_0", "f32", 1, 3)]
    modes = shapes("-p", "4", "-n", "0", "-lm", "mmap,none", "--isa", "scalar", keys=("load_mode", "isa"))
    assert modes == [("mmap", "scalar"), ("none", "scalar")]
    p = bench("-m", "t.gguf,t.gguf", "-m", "t.gguf", "--no-limits", "-p", "2", "-n", "0", "-r", "1", "-t", "1,2",
              "-o", "json")
    assert [r["n_threads"] for r in json.loads(p.stdout)] == [1, 2] * 3


def defaults():
    p = bench("-m", "t.gguf", "--no-limits", "-o", "jsonl")
    rows = [json.loads(line) for line in p.stdout.splitlines()]
    assert [(r["n_prompt"], r["n_gen"], len(r["samples_ts"])) for r in rows] == [(512, 0, 5), (0, 128, 5)]
    assert all(r["n_threads"] == len(os.sched_getaffinity(0)) or r["n_threads"] > 0 for r in rows)


def figures():
    p = bench("-m", "t.gguf", "--no-limits", "-t", "1", "-p", "6", "-n", "3", "-pg", "6,3", "-r", "4", "-o", "json")
    prompt, decode, both = json.loads(p.stdout)
    for r, n in ((prompt, 6), (decode, 3), (both, 9)):
        ns, ts = r["samples_ns"], r["samples_ts"]
        assert len(ns) == len(ts) == 4 and min(ns) > 0
        assert all(abs(t - n * 1e9 / x) < 1e-3 * t for t, x in zip(ts, ns))
        assert abs(r["avg_ts"] - statistics.mean(ts)) < 1e-6 * r["avg_ts"]
        assert abs(r["stddev_ts"] - statistics.stdev(ts)) < 1e-6 * r["avg_ts"]
        assert abs(r["median_ts"] - statistics.median(ts)) < 1e-6 * r["avg_ts"]
        assert abs(r["avg_ns"] - statistics.mean(ns)) <= 1 and abs(r["stddev_ns"] - statistics.stdev(ns)) <= 1
        assert r["bound_ts"] is r["bound_share"] is r["mem_gbps"] is r["peak_gops"] is None
        assert r["bytes_per_token"] > 0 and r["ops_per_token"] > 0
    for r in (decode, both):
        assert 0 < r["step_ms_p50"] <= r["step_ms_p95"] <= r["step_ms_p99"] <= max(r["samples_ns"]) * 1e-6
    assert prompt["step_ms_p50"] is None and decode["ttft_ms"] is None
    assert abs(prompt["ttft_ms"] - statistics.median(prompt["samples_ns"]) * 1e-6) < 0.1
    assert 0 < both["ttft_ms"] < max(both["samples_ns"]) * 1e-6
    plan = json.loads(subprocess.run([TTX, "plan", "-m", "t.gguf", "--json"], capture_output=True, check=True).stdout)
    # Steps at positions 0, 1 and 2 see 2 positions on average: 2 layers, 2 heads, K and V of 32 halves.
    assert decode["bytes_per_token"] == sum(a["size_bytes"] for a in plan) + 2 * 2 * 2 * 2 * 32 * 2
    assert decode["model_size"] == sum(a["size_bytes"] for a in plan) - 64 * 4 + 96 * 64 * 4
    assert prompt["model_n_params"] == decode["model_size"] // 4


def formats():
    args = ["-p", "4", "-n", "2"]
    rows = list(csv.DictReader(io.StringIO(good(*args, "-o", "csv"))))
    assert list(rows[0]) == LLAMA_FIELDS + OWN_FIELDS, list(rows[0])
    assert [(r["n_prompt"], r["n_gen"], r["bound_ts"]) for r in rows] == [("4", "0", ""), ("0", "2", "")]
    record = tests(*args)[0]
    samples = ["samples_ns", "samples_ts"]
    assert list(record) == LLAMA_FIELDS + samples + OWN_FIELDS, list(record)
    lines = good(*args, "-o", "jsonl").splitlines()
    assert [json.loads(line)["n_gen"] for line in lines] == [0, 2]
    db = sqlite3.connect(":memory:")
    db.executescript(good(*args, "-o", "sql"))
    assert db.execute("SELECT n_prompt, n_gen, bound_ts, type_k FROM ttx_bench").fetchall() == [
        (4, 0, None, "f16"), (0, 2, None, "f16")]
    lines = good(*args, "-pg", "4,2", "-d", "8").splitlines()
    widths = {len(line) for line in lines[:5]}
    assert len(widths) == 1 and lines[5] == "" and lines[6].startswith("CPU: "), lines
    assert [line.split("|")[4].strip() for line in lines[2:5]] == ["pp4 @ d8", "tg2 @ d8", "pp4+tg2 @ d8"]


def quoting():
    name = "it's a \"model\", t.gguf"
    os.link("t.gguf", name)
    args = ["bench", "-m", name.replace(",", ""), "--no-limits", "-p", "2", "-n", "0", "-r", "1"]
    os.link("t.gguf", name.replace(",", ""))
    name = name.replace(",", "")
    run = lambda f: subprocess.run([TTX, *args, "-o", f], capture_output=True, text=True, check=True).stdout
    assert next(csv.DictReader(io.StringIO(run("csv"))))["model_filename"] == name
    assert json.loads(run("json"))[0]["model_filename"] == name
    db = sqlite3.connect(":memory:")
    db.executescript(run("sql"))
    assert db.execute("SELECT model_filename FROM ttx_bench").fetchall() == [(name,)]


def experts():
    """The options of ttx run that are about experts: counted is what ran."""
    run = lambda *args: bench("-m", "moe.gguf", "--no-limits", "-r", "2", "-t", "1", "-p", "0", "-n", "3", "--no-warmup",
                              "-o", "json", *args)
    p = run("--expert-stats", "e.json", "--save-routes", "a.csv")
    stats = json.loads(Path("e.json").read_text())
    assert p.returncode == 0 and not p.stderr and stats["total_tokens"] == 6, (p, stats)
    assert stats["total_activations"] == 6 * 2 * 2  # layers, experts
    rows = lambda name: [line.split(",")[1:6] for line in Path(name).read_text().splitlines() if line[0] not in "#t"]
    p = run("--n-expert-used", "3", "--save-routes", "b.csv")
    assert p.returncode == 0 and "3 experts a token instead of the model's 2" in p.stderr, p
    assert len(rows("b.csv")) == len(rows("a.csv")) // 2 * 3
    # Replayed, the first turn of the file is that of every repetition.
    p = run("--routes", "b.csv", "--save-routes", "c.csv")
    first, n = rows("b.csv"), len(rows("b.csv")) // 2
    assert p.returncode == 0 and rows("c.csv") == first[:n] * 2 and first[:n] != first[n:], p
    p = run("--routes", "none.csv")
    assert p.returncode == 1 and "none.csv: cannot open" in p.stderr, p


def roofline():
    """Where the time goes: what was read and computed is what the plan says, the time is that of the steps."""
    args = ["-m", "moe.gguf", "--no-limits", "-t", "1", "-p", "8", "-n", "4", "-r", "3", "--roofline"]
    p = bench(*args, "-o", "json")
    o = json.loads(p.stdout)
    assert p.returncode == 0 and not p.stderr and not [f for f in os.listdir(tempfile.gettempdir()) if "ttx-roofline" in f], p
    assert o["prompt"]["tokens"] == 24 and o["decode"]["tokens"] == 12, "without the warm-up"
    for phase in (o["prompt"], o["decode"]):
        assert 0 < sum(r["ns"] for r in phase["rows"]) <= phase["ns"]
        assert all(abs(r["time_share"] - r["ns"] / phase["ns"]) < 1e-9 for r in phase["rows"])
        assert phase["rows"] == sorted(phase["rows"], key=lambda r: -r["ns"])
        assert all(r["bound_share"] is None for r in phase["rows"]), "no limits, no shares"
    plan = json.loads(subprocess.run([TTX, "plan", "-m", "moe.gguf", "--json"], capture_output=True, check=True).stdout)
    matrices = {"MUL_MAT": 0, "MUL_MAT_ID": 0, "GET_ROWS": 0}
    for a in plan:
        if a["op"] in matrices:
            matrices[a["op"]] += a["size_bytes"] * (a["n_expert_used"] / a["n_expert"] if a["n_expert"] else 1)
    for op, size in matrices.items():
        rows = [r for r in o["decode"]["rows"] if r["op"] == op]
        assert sum(r["bytes"] for r in rows) == 12 * size, (op, rows)
        # F32: two operations for each four bytes; none for rows that are looked up
        assert sum(r["ops"] for r in rows) == (0 if op == "GET_ROWS" else 12 * size / 2), (op, rows)
    attention = next(r for r in o["decode"]["rows"] if r["op"] == "FLASH_ATTN_EXT")
    assert attention["type"] == "f16 cache" and attention["launches"] == 3 * 4 * 2, attention
    # steps at positions 8 to 11 see 9 to 12; 4 heads of 32 and 32, 2 layers
    assert attention["ops"] == 3 * 2 * sum(range(9, 13)) * 2 * 4 * (32 + 32), attention
    p = bench(*args)
    assert p.returncode == 0 and "| MUL_MAT_ID " in p.stdout and "decode: 12 tokens" in p.stdout, p
    for more, message in [
        (["-d", "0,8"], "--roofline: expected one value of each option, no -pg and no --trace, found more"),
        (["-pg", "8,4"], "--roofline: expected one value of each option, no -pg and no --trace, found more"),
        (["--trace", "t"], "--roofline: expected one value of each option, no -pg and no --trace, found more"),
        (["-o", "csv"], "--roofline: expected -o md or json, found another"),
        (["--no-warmup"], "--roofline: expected a warm-up, found --no-warmup"),
    ]:
        p = bench(*args, *more)
        assert p.returncode == 2 and p.stderr == f"ttx: {message}\n" and not p.stdout, (more, p)


RAM_FIELDS = ["prefetch", "ram", "step", "pin", "disk_mbps", "mb_per_token", "total_mb", "hit_rate", "guess_rate",
              "stall_ms", "compute_ms", "major_faults", "overlap", "io_time_share", "reread_factor", "disk_bound_ts", "disk_bound_guess_ts",
              "disk_bound_free_ts", "cold_s", "cached_share", "group_peak_bytes", "budget_bytes",
              "pinned_bytes", "dense_bytes", "expert_cache_bytes", "n_expert_slots", "n_experts", "change_mb_per_token",
              "change_ms_per_token", "change_ts"]


def beyond_ram():
    """Budgets and switches side by side; what is read and found agrees with the layout."""
    subprocess.run([TINY_MODEL, "big.gguf", "arch=mixtral", "n_embd=256", "n_layer=4", "n_expert=16", "n_ff=256",
                    "n_ff_exp=256", "n_ctx=512", "type=Q8_0", "n_vocab=2048", "vocab=1"], check=True)
    Path("text").write_text("the end of the world as we know it and the sound of the sea " * 8)
    run = lambda *args: bench("-m", "big.gguf", "-t", "1", "-ub", "32", "-n", "24", "--warm-up", "8", *args)
    p = run("--ram", "1M", "-o", "json")
    assert p.returncode == 1 and "memory budget: expected at least" in p.stderr, p
    words = p.stderr.split()
    least = int(words[words.index("least") + 1])
    rams = [f"{least + 2}M", f"{least + 4}M"]
    p = run("--ram", ",".join(rams), "--prefetch", "off,on", "-lm", "stream", "--cold", "-f", "text", "-o", "json")
    rows = json.loads(p.stdout)
    assert p.returncode == 0 and not p.stderr, p
    assert [(r["ram"], r["prefetch"]) for r in rows] == [(m, f) for m in rams for f in ("off", "on")], rows
    for r in rows:
        assert [k for k in r if k not in LLAMA_FIELDS + OWN_FIELDS] == ["samples_ns", "samples_ts"] + RAM_FIELDS, list(r)
        assert r["n_gen"] == 24 and len(r["samples_ts"]) == 1 and r["disk_mbps"] > 0 and r["cached_share"] < 0.01, r
        assert 0 <= r["hit_rate"] <= 1 and 0 <= r["overlap"] <= 1 and 0 <= r["io_time_share"] <= 1 <= r["reread_factor"], r
        assert r["disk_bound_ts"] <= r["disk_bound_guess_ts"] * 1.000001 <= r["disk_bound_free_ts"] * 1.000002, r
        assert r["compute_ms"] + r["stall_ms"] <= 1.01 * r["samples_ns"][0] * 1e-6 / 24, r
        assert r["budget_bytes"] == int(r["ram"][:-1]) << 20 and 0 < r["pinned_bytes"] <= r["dense_bytes"], r
        assert 0 < r["n_expert_slots"] < r["n_experts"] == 64, r
        assert r["total_mb"] * 1e6 >= r["mb_per_token"] * 1e6 * 24 + r["pinned_bytes"] / 2, r
        assert r["change_ts"] is r["group_peak_bytes"] is None and r["cold_s"] > r["samples_ns"][0] * 1e-9, r
    off = [r for r in rows if r["prefetch"] == "off"]
    assert off[1]["hit_rate"] >= off[0]["hit_rate"] and off[1]["mb_per_token"] <= off[0]["mb_per_token"], off
    p = run("--ram", rams[0], "--ladder", "-o", "jsonl", "-f", "text")
    steps = [json.loads(line) for line in p.stdout.splitlines()]
    names = ["baseline", "+ pin", "+ layers ahead", "+ experts ahead"]
    assert [(r["load_mode"], r["step"]) for r in steps] == [(m, n) for m in ("mmap", "stream") for n in names], p
    for r in steps:
        base = next(b for b in steps if b["load_mode"] == r["load_mode"])
        if r is base:
            assert r["change_ts"] is None
            continue
        assert abs(r["change_ts"] - (r["median_ts"] / base["median_ts"] - 1)) < 1e-3, (r, base)
        assert abs(r["change_mb_per_token"] - (r["mb_per_token"] - base["mb_per_token"])) < 1e-6
    assert steps[4]["mb_per_token"] >= steps[5]["mb_per_token"], "what is pinned is not read"
    p = run("--ram", ",".join(rams))
    lines = p.stdout.splitlines()
    assert p.returncode == 0 and len({line.count("|") for line in lines[:4]}) == 1 and rams[1] in lines[3], p
    p = bench("-m", "big.gguf", "-p", "128", "-n", "0", "-ub", "128", "-r", "1", "--ram", rams[0], "-o", "json")
    assert p.returncode == 0, ("a warm-up's prompt and the test's fit the context", p)
    p = bench("-m", "big.gguf", "-n", "200000", "--max-seconds", "3", "--cold", "-o", "json", "-r", "2")
    assert p.returncode == 0, p
    r = json.loads(p.stdout)
    assert len(r) == 1 and 0 < r[0]["n_gen"] < 200000 and len(r[0]["samples_ts"]) == 1, r
    mb = os.path.getsize("big.gguf") * 1e-6
    assert r[0]["total_mb"] < mb + 8 and r[0]["mb_per_token"] * r[0]["n_gen"] < 8, "what measuring the disk reads is not counted"


def limited():
    """Inside a memory cgroup, where one may be made."""
    run = lambda *args: bench("-m", "big.gguf", "-t", "1", "-n", "8", "--mem-limit", *args)
    p = run("200M", "-o", "json")
    if p.returncode == 1:
        assert p.stderr.startswith("ttx: --mem-limit: expected the right to make a memory cgroup") and not p.stdout, p
        return
    assert p.returncode == 0 and 0 < json.loads(p.stdout)[0]["group_peak_bytes"] <= 200 << 20, p
    p = run("200M", "-m", "none.gguf")
    assert p.returncode == 1 and p.stderr.count("\n") == 1, p
    assert not [d for d in Path("/sys/fs/cgroup").glob("*/**/ttx-bench-*")], "groups are removed"
    p = run("2M")
    told = ("ttx: memory budget: expected at least ", "ttx: --mem-limit: killed")  # a sanitizer alone takes more
    assert p.returncode == 1 and p.stderr.startswith(told) and p.stderr.count("\n") == 1, p
    p = run("6M", "-lm", "none")
    assert p.returncode == 1 and p.stderr == ("ttx: --mem-limit: killed, which the kernel does when memory is short\n"), p


def refused():
    numbers = "expected numbers from {} and ranges such as 512,1024 or 1-8*2, found '{}'"
    cases = [
        (["-p", "x"], "-p: " + numbers.format(0, "x")),
        (["-p", "1,"], "-p: " + numbers.format(0, "1,")),
        (["-p", "-5"], "-p: " + numbers.format(0, "-5")),
        (["-n", "8-4"], "-n: " + numbers.format(0, "8-4")),
        (["-n", "1-4+0"], "-n: " + numbers.format(0, "1-4+0")),
        (["-n", "0-4*2"], "-n: " + numbers.format(0, "0-4*2")),
        (["-n", "1-4*1"], "-n: " + numbers.format(0, "1-4*1")),
        (["-n", "1-4/2"], "-n: " + numbers.format(0, "1-4/2")),
        (["-n", "99999999999"], "-n: " + numbers.format(0, "99999999999")),
        (["-t", "0"], "-t: " + numbers.format(1, "0")),
        (["-p", "999999999"], "-p: expected at most 16777216, found 999999999"),
        (["-p", "1-1000"], "-p: expected at most 256 values"),
        (["-pg", "512"], "-pg: expected PROMPT,GEN such as 512,128, found '512'"),
        (["-pg", "0,5"], "-pg: expected PROMPT,GEN such as 512,128, found '0,5'"),
        (["-ctk", "f16,q4_0"], "-ctk: expected a list out of f16|f32|q8_0, found 'f16,q4_0'"),
        (["-lm", ""], "-lm: expected a list out of auto|mmap|mlock|stream|none, found ''"),
        (["--prefetch", "some"], "--prefetch: expected a list out of auto|off|layer|expert|all|on, found 'some'"),
        (["--ram", "1G,x"], "--ram: expected a size, a percentage or 'auto', found 'x'"),
        (["--ladder", "-lm", "mmap"], "--ladder: expected no -lm, --prefetch and --pin, which are its steps"),
        (["--roofline", "--ram", "1G"], "--roofline: expected none of --ram, --prefetch, --cold, --mem-limit and "
         "--ladder, found one"),
        (["-p", "0", "-n", "0"], "bench: expected a test, found none (-p 0 and -n 0 leave theirs out)"),
    ]
    for args, message in cases:
        p = bench("-m", "t.gguf", "--no-limits", *args)
        assert p.returncode == 2 and p.stderr == f"ttx: {message}\n" and not p.stdout, (args, p)
    p = bench("-m", "t.gguf,none.gguf", "-o", "json", "--progress")
    assert p.returncode == 1 and p.stderr.startswith("ttx: none.gguf: ") and not p.stdout, p
    assert "measuring" not in p.stderr, "the machine is measured for models that are there"
    p = bench("-m", "t.gguf,t.gguf", "--no-limits", "--save-routes", "r.csv")
    assert p.returncode == 2 and p.stderr == ("ttx: --save-routes: expected one model, load mode and isa, found 2 "
                                              "of them\n"), p
    p = bench("-m", "t.gguf", "--no-limits", "-p", "2", "-n", "0", "--expert-stats", "no.json", "-o", "jsonl")
    assert p.returncode == 2 and "expected a model with experts" in p.stderr and not os.path.exists("no.json"), p


def interrupted():
    """Ctrl-C leaves what was measured, complete, and code 130."""
    with open("out", "w") as out, subprocess.Popen(
            [TTX, "bench", "-m", "t.gguf", "--no-limits", "-p", "1", "-n", "1000000", "-r", "1", "-o", "json"],
            stdout=out, stderr=subprocess.PIPE) as p:
        deadline = time.time() + 60
        while "step_ms_p99" not in Path("out").read_text() and time.time() < deadline:
            time.sleep(0.01)
        p.send_signal(signal.SIGINT)
        err = p.communicate(timeout=60)[1]
    records = json.loads(Path("out").read_text())
    assert p.returncode == 130 and not err and [r["n_prompt"] for r in records] == [1], (p.returncode, records, err)


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        # 96 rows of 64 in the embedding, and the sizes that `figures` counts with.
        subprocess.run([TINY_MODEL, "t.gguf", "n_ctx=2000000"], check=True)
        subprocess.run([TINY_MODEL, "moe.gguf", "arch=mixtral"], check=True)
        for test in (lists, defaults, figures, formats, quoting, experts, roofline, beyond_ram, limited, refused, interrupted):
            test()
            print(f"{test.__name__}: good", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
