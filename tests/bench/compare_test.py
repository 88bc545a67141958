#!/usr/bin/env python3
"""bench/compare with made-up peers: turns, medians, ratios, notes, failures.

    compare_test.py COMPARE TTX TINY_MODEL
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

COMPARE, TTX, TINY_MODEL = (str(Path(a).resolve()) for a in sys.argv[1:4])
PLOT = str(Path(COMPARE).with_name("plot"))

# A llama-bench of which run i reports speeds[i]; it keeps a diary of its calls.
FAKE = """#!{python}
import json, sys, time
argv = sys.argv[1:]
with open("diary", "a") as f:
    f.write("{name} " + " ".join(argv) + "\\n")
n = sum(line.startswith("{name} ") for line in open("diary")) - 1
speeds = {speeds}
if speeds[n] is None:
    print("out of luck", file=sys.stderr)
    sys.exit(3)
time.sleep({sleep})
print("load_backend: loaded CPU backend from /opt/libggml-cpu-zen9.so", file=sys.stderr)
tests = [(int(argv[argv.index("-p") + 1]), 0), (0, int(argv[argv.index("-n") + 1]))]
json.dump([{{"build_commit": "abc", "build_number": 7, "n_prompt": p, "n_gen": g, "n_depth": 0,
            "model_type": "fake", "model_size": 1000, "avg_ts": speeds[n] * (10 if p else 1){more}}}
           for p, g in tests], sys.stdout)
"""


def fake(name, speeds, more="", sleep=0):
    Path(name).write_text(FAKE.format(python=sys.executable, name=name, speeds=speeds, more=more, sleep=sleep))
    Path(name).chmod(0o755)
    return str(Path(name).resolve())


def compare(*args):
    Path("diary").unlink(missing_ok=True)
    return subprocess.run([COMPARE, *args], capture_output=True, text=True, timeout=120)


def medians():
    ours = ', "isa": "avx9", "bound_ts": 100.0 + n, "bound_share": 0.5 + n / 8, "mem_gbps": 40.0 + n, "peak_gops": 900.0'
    ttx = fake("ttx", [4.0, 8.0, 6.0], ours)
    a, b = fake("a", [8.0, 4.0, 6.0]), fake("b", [2.0, 2.0, 2.0])
    p = compare("-m", "m.gguf", "--ttx", ttx, "--peer", f"A={a}", "--peer", f"B={b} --own '1 2'", "-p", "32", "-n", "8",
                "-t", "2", "-r", "3", "-ctk", "q8_0", "--json", "out.json")
    assert p.returncode == 0, p
    calls = Path("diary").read_text().splitlines()
    assert [c.split()[0] for c in calls] == ["ttx", "a", "b", "a", "b", "ttx", "b", "ttx", "a"], calls
    own = [c.split() for c in calls]
    assert own[0][1] == "bench" and own[0][2:] == own[1][1:], "the same flags for everybody"
    flags = "-m m.gguf -p 32 -n 8 -d 0 -t 2 -ub 512 -ctk q8_0 -ctv f16 -r 1 -o json"
    assert " ".join(own[1][1:]) == flags, own[1]
    result = json.loads(Path("out.json").read_text())
    assert result["rounds"] == 3 and result["engines"]["A"]["variant"] == "zen9"
    assert result["engines"]["ttx"]["variant"] == "avx9" and result["engines"]["A"]["version"] == "abc 7"
    assert result["machine"]["cores"] == len(os.sched_getaffinity(0)) and result["machine"]["cpu"]
    prompt, decode = result["results"]
    assert (prompt["n_prompt"], prompt["n_gen"], decode["n_gen"]) == (32, 0, 8)
    assert decode["engines"]["ttx"] == {"median": 6.0, "min": 4.0, "max": 8.0, "samples": [4.0, 8.0, 6.0]}
    assert decode["ratios"]["A"]["samples"] == [0.5, 2.0, 1.0] and decode["ratios"]["A"]["median"] == 1.0
    assert decode["ratios"]["B"]["median"] == 3.0 and prompt["engines"]["B"]["median"] == 20.0
    assert decode["bound_ts"] == 101.0 and decode["bound_share"] == 0.625
    row = [c.strip() for c in p.stdout.splitlines()[-1].split("|")]
    assert row[2:5] == ["tg8", "6.00 (4.00..8.00)", "62.5 % of 101.0"], row
    assert row[5:9] == ["6.00 (4.00..8.00)", "1.000 (0.500..2.000)", "2.00 (2.00..2.00)", "3.000 (2.000..4.000)"], row
    assert "reads 41.0 GB/s, peak 900 GOPS" in p.stdout and "A: abc 7, zen9 kernels." in p.stdout


def plotted():
    """out.json of medians() as a picture: a bar for each test, of the peer that is asked for."""
    p = subprocess.run([PLOT, "out.json", "-o", "out.svg"], capture_output=True, text=True)
    assert p.returncode == 0, p
    svg = ElementTree.parse("out.svg").getroot()
    texts = [t.text for t in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert "ttx / A" in texts and {"m tg8", "m pp32", "6.0, 6.0", "60.0, 60.0"} <= set(texts), texts
    bars = [r for r in svg.iter("{http://www.w3.org/2000/svg}rect") if len(r)]
    assert [b[0].text for b in bars] == ["1.000", "1.000"], "decode, then prompt"
    p = subprocess.run([PLOT, "out.json", "--peer", "B", "-o", "out.svg"], capture_output=True, text=True)
    assert p.returncode == 0 and "3.000" in Path("out.svg").read_text(), p
    Path("bad.json").write_text("{}")
    for args, message in ((["bad.json"], "expected results of bench/compare --json"),
                          (["none.json"], "No such file"), (["out.json", "--peer", "C"], "expected tests of ttx and C")):
        p = subprocess.run([PLOT, *args, "-o", "no.svg"], capture_output=True, text=True)
        assert p.returncode == 1 and message in p.stderr and len(p.stderr.splitlines()) == 1, p
    assert not Path("no.svg").exists()


def real():
    """With the true ttx: its fields are understood."""
    subprocess.run([TINY_MODEL, "t.gguf"], check=True)
    slow = fake("slow", [1.0])
    # The wrapper keeps the test short: limits have a test of their own.
    Path("quick").write_text(f'#!/bin/sh\nexec "{TTX}" "$@" --no-limits\n')
    Path("quick").chmod(0o755)
    p = compare("-m", "t.gguf", "--ttx", "./quick", "--peer", f"slow={slow}", "-p", "8", "-n", "4", "-r", "1")
    assert p.returncode == 0 and "slow t/s" in p.stdout and "ttx: ttx-" in p.stdout, p
    assert len(p.stdout.splitlines()[-1].split("|")) == 8, p.stdout


def failures():
    ttx = fake("ttx", [1.0, None])
    p = compare("-m", "m.gguf", "--ttx", ttx, "-r", "2")
    assert p.returncode == 1 and p.stderr.splitlines()[-1].startswith("compare: ttx: "), p
    assert p.stderr.endswith("out of luck\n") and not p.stdout, p
    p = compare("-m", "m.gguf", "--ttx", "./missing")
    assert p.returncode == 1 and "cannot run ./missing: No such file" in p.stderr, p
    Path("talk").write_text("#!/bin/sh\necho hello\n")
    Path("talk").chmod(0o755)
    p = compare("-m", "m.gguf", "--ttx", "./talk")
    assert p.returncode == 1 and "expected llama-bench's JSON, found: 'hello" in p.stderr, p
    for peer in ("x", "=y", "x=", "x= ", "ttx=y", "x=y 'z"):
        p = compare("-m", "m.gguf", "--peer", peer)
        assert p.returncode == 2 and f"found '{peer}'" in p.stderr, p


def interrupted(sig):
    """Ctrl-C and timeout(1) keep the rounds that are done."""
    ttx = fake("ttx", [3.0, 5.0, 7.0], sleep=0.5)
    Path("diary").unlink(missing_ok=True)
    with subprocess.Popen([COMPARE, "-m", "m.gguf", "--ttx", ttx, "-r", "3", "--json", "out.json"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as p:
        deadline = time.time() + 60
        calls = lambda: Path("diary").exists() and len(Path("diary").read_text().splitlines())
        while calls() < 2 and time.time() < deadline:
            time.sleep(0.05)
        os.killpg(p.pid, sig)
        p.communicate(timeout=60)
    result = json.loads(Path("out.json").read_text())
    assert p.returncode == 0 and result["rounds"] == 1, (p.returncode, result)
    assert result["results"][0]["engines"]["ttx"]["samples"] == [30.0], result


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for test in (medians, plotted, real, failures, lambda: interrupted(signal.SIGINT),
                     lambda: interrupted(signal.SIGTERM)):
            test()
        os.chdir("/")


if __name__ == "__main__":
    main()
