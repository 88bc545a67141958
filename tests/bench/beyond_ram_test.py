#!/usr/bin/env python3
"""bench/beyond_ram: with made-up engines what it makes of their numbers, with ttx that it runs.

    beyond_ram_test.py BEYOND_RAM TTX TINY_MODEL
"""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BEYOND, TTX, TINY_MODEL = (str(Path(a).resolve()) for a in sys.argv[1:4])
GROUPS = Path("/sys/fs/cgroup/memory")

# Run i reports speeds[i]; a diary of the calls is kept.
FAKE = """#!{python}
import json, sys, time
argv = sys.argv[1:]
with open("diary", "a") as f:
    f.write("{name} " + " ".join(argv) + "\\n")
n = sum(line.startswith("{name} ") for line in open("diary")) - 1
ts = {speeds}[n]
if ts == "fail":
    sys.exit("out of luck")
time.sleep(9 if ts == "slow" else 0)
json.dump([{{"avg_ts": ts, "median_ts": ts, "disk_bound_ts": 10.0, "mb_per_token": 2.5, "total_mb": 1.2, "pinned_bytes": 500000,
            "dense_bytes": 900000,
            "group_peak_bytes": 30 << 20}}], sys.stdout)
"""


def fake(name, speeds):
    Path(name).write_text(FAKE.format(python=sys.executable, name=name, speeds=speeds))
    Path(name).chmod(0o755)
    Path("diary").unlink(missing_ok=True)
    return str(Path(name).resolve())


def beyond(*args):
    return subprocess.run([BEYOND, *args], capture_output=True, text=True, timeout=180)


def row(table, *words):
    return next(line for line in table.splitlines() if all(w in line for w in words))


def jobs(**more):
    Path("m.gguf").write_bytes(bytes(1000000))
    Path("jobs.json").write_text(json.dumps([{"name": "made up", "model": "m.gguf", "ram": ["40M"], "modes": "stream+layer", **more}]))
    return ["--jobs", "jobs.json"]


def medians():
    """Medians of the rounds, the share of the bound, and the verdicts."""
    ours, peer = fake("ours", [9.0, 20.0, 8.0, 30.0, 9.5, 25.0]), fake("peer", [2.0, 5.0, 4.0, 5.0, 3.0, 5.0])
    options = jobs(prompt=64, floor={"share": 0.95, "times": 3, "prompt_times": 6, "bytes": 0.02})
    p = beyond(*options, "--ttx", ours, "--peer", peer, "--rounds", "3", "--read-ahead", "128", "--json", "out.json")
    assert p.returncode == 0, p
    decode = row(p.stdout, "decode", "ttx stream+layer")
    assert "| 9.00 | 8.00 to 9.50 | 10.00 |" in decode and "90 % of the bound (not reached); 3.0x llama.cpp;" in decode, decode
    assert "+525.0 % bytes (not reached); peak 75 %" in decode, decode
    prompt = row(p.stdout, "prompt", "ttx")
    assert "| 25.00 |" in prompt and "5.0x llama.cpp (not reached); read 120 % of the model (not reached)" in prompt, prompt
    assert "| 3.00 | 2.00 to 4.00 |" in row(p.stdout, "decode", "llama.cpp, read-ahead 128 KiB"), p
    records = json.loads(Path("out.json").read_text())
    assert len(records) == 12 and all(r["limit_bytes"] == 40 << 20 and r["took_s"] >= 0 for r in records), records
    assert beyond("--show", "out.json").stdout == p.stdout
    calls = Path("diary").read_text().splitlines()
    assert [c.split()[0] for c in calls] == ["ours", "ours", "peer", "peer"] * 3, calls
    assert f"--mem-limit {40 << 20}" in calls[0] and "-p 64 -n 0" in calls[1] and "--repack 0" in calls[2], calls
    assert "-d 32" in calls[2] and "-d " not in calls[3], "the page cache is as full as it gets before the peer decodes"
    assert not list(GROUPS.glob("beyond-ram-*")), "groups are removed"


def interrupted():
    """What was measured before an end is there, and --resume goes on behind it."""
    options = [*jobs(), "--rounds", "2", "--json", "half.json"]
    p = beyond(*options, "--ttx", fake("ours", [5.0, "fail"]))
    assert p.returncode == 0 and [r.get("ts") for r in json.loads(Path("half.json").read_text())] == [5.0, None], p
    records = json.loads(Path("half.json").read_text())
    assert records[1]["error"] == "out of luck", records
    Path("half.json").write_text(json.dumps(records[:1]))
    p = beyond(*options, "--resume", "--ttx", fake("ours", [7.0]))
    assert p.returncode == 0 and [r["ts"] for r in json.loads(Path("half.json").read_text())] == [5.0, 7.0], p
    assert "| 6.00 | 5.00 to 7.00 |" in row(p.stdout, "decode"), p


def slow():
    """A peer that does not finish has an upper limit, no speed."""
    p = beyond(*jobs(peer_n=6), "--ttx", fake("ours", [9.0]), "--peer", fake("peer", ["slow"]), "--rounds", "1", "--read-ahead", "",
               "--time", "2")
    assert "| < 3.00 |" in row(p.stdout, "read-ahead") and "> 3.0x llama.cpp" in row(p.stdout, "ttx"), p


def killed():
    """Nothing is left behind: no engine, no group, no read-ahead that is not the machine's own."""
    ahead = lambda: {str(f): f.read_text() for f in Path("/sys/block").glob("*/queue/read_ahead_kb")}
    before = ahead()
    fake("ours", [9.0])
    p = subprocess.Popen([BEYOND, *jobs(), "--ttx", "./ours", "--peer", fake("peer", ["slow"]), "--rounds", "1", "--read-ahead", "64"],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "peer" not in (Path("diary").read_text() if Path("diary").exists() else ""):
        assert p.poll() is None, p.communicate()
        time.sleep(0.05)
    p.terminate()
    out, said = p.communicate(timeout=8)  # the engine would take 9 s
    assert p.returncode == 130 and said.endswith("beyond_ram: interrupted\n") and "| 9.00 |" in row(out, "ttx"), (p.returncode, out, said)
    assert ahead() == before and not list(GROUPS.glob("beyond-ram-*")), ahead()


def real():
    """ttx itself, streamed and mapped, with routes that are cut to the model's layers."""
    subprocess.run([TINY_MODEL, "moe.gguf", "arch=mixtral", "n_embd=256", "n_layer=2", "n_expert=16", "n_ff=256", "n_ff_exp=256",
                    "n_ctx=512", "type=Q8_0", "n_vocab=2048", "vocab=1"], check=True)
    routes = ["# route_trace v1", "# model=x arch=y n_layer=3 n_expert=16 n_expert_used=2", "turn,phase,step,layer,slot,expert,weight,"
              "residency,expert_bytes"]
    for i in range(3):
        routes.insert(2 + i, f"# layer={i} expert_bytes=100 dense_bytes=100")
    routes += [f"0,{int(s > 0)},{s},{layer},{k},{(5 * s + layer + k) % 16},0.5,0,0" for s in range(20) for layer in range(3) for k in (0, 1)]
    Path("long.route.csv").write_text("\n".join(routes) + "\n")
    Path("jobs.json").write_text(json.dumps([{"name": "tiny", "model": "moe.gguf", "layers": 2, "ram": ["200M"], "prompt": 32, "n": 24,
                                              "warm_up": 4, "routes": "long.route.csv", "modes": "stream+all,mmap+off"}]))
    p = beyond("--jobs", "jobs.json", "--ttx", TTX, "--rounds", "1", "--json", "real.json")
    records = json.loads(Path("real.json").read_text())
    assert p.returncode == 0 and len(records) == 3 and all(r.get("ts", 0) > 0 for r in records), p
    assert records[0]["kind"] == "decode" and records[0]["budget_bytes"] == 200 << 20 and records[0]["n_experts"] == 32, records
    assert records[2]["kind"] == "prompt" and records[2]["total_mb"] > 0 and not records[2]["disk_bound_ts"], records


def refused():
    for options, message in [
        (["-m", "m.gguf", "--ram", "lots"], "--ram: expected sizes such as 5G, 700M or 50% (of the model), found 'lots'"),
        (["-m", "m.gguf"], "m: expected budgets such as 5G,700M, found none"),
        ([*jobs(rounds=3)], "jobs.json: made up: expected fields out of "),
        (["--jobs", "none.json"], "none.json: "),
    ]:
        p = beyond(*options)
        assert p.returncode == 1 and p.stderr.startswith("beyond_ram: " + message) and p.stderr.count("\n") == 1, p
    p = beyond(*jobs(), "--plan")
    assert p.returncode == 0 and "made up: 3 rounds of 1 measurements at 40M: at most 5 min" in p.stdout, p
    p = beyond("--plan", "--peer", "x")
    assert p.returncode == 0 and "gpt-oss-120b: 3 rounds" in p.stdout, p


def main():
    if not os.access(GROUPS, os.W_OK):
        print("no right to make memory cgroups (v1)")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for test in (medians, interrupted, slow, killed, real, refused):
            test()
            print(f"{test.__name__}: good", flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
