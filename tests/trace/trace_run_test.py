#!/usr/bin/env python3
"""Traces from outside: runs of the program, what they leave when they are killed or the disk is full,
damaged directories, exports.

    trace_run_test.py TTX TINY_MODEL
"""
import csv
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

TTX, TINY = sys.argv[1:3]
HOME = Path(tempfile.mkdtemp(prefix="ttx_trace_"))
STREAM = ("-lm", "stream", "--ram", "64M")
failures = 0
COLUMNS = ("timestamp_ns,duration_ns,token_id,n_tokens,phase,layer_id,operation_type,tensor_name,"
           "component_type,file_offset,size_bytes,qkv_type,attention_head,expert_id,expert_rank,"
           "routing_score,expert_weight,residency,shard,tensor_ptr").split(",")


def check(holds, what):
    global failures
    if not holds:
        failures += 1
        print("FAILED:", what)


def ttx(*args, **options):
    return subprocess.run([TTX, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, errors="replace", timeout=120, **options)


def refuses(code, line, *args):
    """Exit code, and the one line of the error (DIR stands for the home of this test)."""
    r = ttx(*args)
    found = r.stderr.strip().replace(str(HOME), "DIR").split("\n")[-1]
    check(r.returncode == code, f"{args}: expected code {code}, found {r.returncode}: {r.stderr}")
    check(found == "ttx: " + line, f"{args}: expected\n  ttx: {line}\nfound\n  {found}")


def model(name, *fields):
    path = HOME / f"{name}.gguf"
    subprocess.run([TINY, path, "vocab=1", "n_vocab=320", *fields], check=True)
    return path


def traced(m, name, *args, n=8):
    return ttx("run", "-m", m, "-p", "abc def ghi", "-n", n, "--temp", 0, "--ignore-eos", "--trace",
               HOME / name, *args)


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def copy(name, to):
    shutil.rmtree(HOME / to, ignore_errors=True)
    shutil.copytree(HOME / name, HOME / to)
    return HOME / to


# ---- runs ----

def test_run(m, moe):
    r = traced(m, "a")
    check(r.returncode == 0 and "records of" in r.stderr, f"a traced run: {r.stderr}")
    r = ttx("trace", "check", HOME / "a")
    check(r.returncode == 0 and r.stdout.endswith("ok\n"), f"check: {r.stdout}{r.stderr}")
    meta = json.loads((HOME / "a/trace_metadata.json").read_text())
    check(meta["complete"] and meta["trace_stats"]["lost"] == 0, "metadata of a complete run")
    check(meta["inference_config"]["prompt"] == "abc def ghi", "the prompt in the metadata")
    check(meta["inference_config"]["num_tokens_generated"] == 8, "tokens generated")
    tokens = rows(HOME / "a/tokens.csv")
    prompt = [t for t in tokens if t["phase"] == "PROMPT"]
    check([int(t["token_id"]) for t in tokens] == list(range(len(tokens))), "positions in tokens.csv")
    check(len(tokens) == len(prompt) + 7, "the last token is drawn, not evaluated")
    check("abc" in "".join(t["text"] for t in prompt), "texts in tokens.csv")
    check((HOME / "a/tensor_names.txt").read_text().startswith("idx,name\n0,"), "tensor_names.txt")
    structure = ttx("gguf-dump", "-m", m).stdout
    check((HOME / "a/gguf_structure.csv").read_text() == structure, "gguf_structure.csv")
    pattern = json.loads((HOME / "a/access_pattern.json").read_text())
    plan = json.loads(ttx("plan", "-m", m, "--json").stdout)
    check([(p["tensor_name"], p["file_offset"], p["size_bytes"], p["layer_id"])
           for p in pattern["per_token_pattern"]]
          == [(p["tensor_name"], p["file_offset"], p["size_bytes"], p["layer_id"]) for p in plan],
          "access_pattern.json is the plan")
    check((HOME / "a/expert_stats.json").exists() == moe, "expert_stats.json for experts alone")
    if moe:
        follow = pattern["expert_successors"]
        check(follow and all(0 < sum(f["probability"]) <= 1.0001 for f in follow), "successors")


def test_same_place(m):
    """Another run goes beside the first, and readers take the newest."""
    traced(m, "a", n=3)
    runs = list((HOME / "a").glob("run_*"))
    check(len(runs) == 1, f"a run directory: {runs}")
    r = ttx("trace", "check", HOME / "a")
    check(r.returncode == 0 and "run_" in r.stdout, "check takes the newest")
    shutil.rmtree(runs[0])
    other = HOME / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    refuses(2, "DIR/other: expected a directory that is empty or holds a trace, found other files",
            "run", "-m", m, "-p", "x", "-n", 1, "--trace", other)
    check(os.listdir(other) == ["mine.txt"], "nothing is written beside other files")


def test_options(m):
    lines = {}
    for t in (1, 2):
        traced(m, f"t{t}", "-t", t)
        lines[t] = ttx("export", HOME / f"t{t}", "-f", "csv").stdout.count("\n")
    check(lines[1] == lines[2], f"records do not depend on threads: {lines}")
    r = traced(m, "max", "--trace-max", "40K", n=64)
    check(r.returncode == 0 and "stopped at --trace-max" in r.stderr, f"--trace-max: {r.stderr}")
    check((HOME / "max/tensor_access.bin").stat().st_size <= 40 << 10, "--trace-max holds")
    check(ttx("trace", "check", HOME / "max").returncode == 0, "a limited trace is whole")
    for level in ("stats", "tensor", "io"):
        r = traced(m, level, "--trace-level", level)
        r = ttx("trace", "check", HOME / level)
        check(r.returncode == 0, f"level {level}: {r.stdout}{r.stderr}")
    stats = json.loads((HOME / "io/trace_metadata.json").read_text())["trace_stats"]
    io = stats["io_attribution"]
    if any(line.startswith("page faults") for line in io["unavailable"]):
        print("page faults cannot be sampled here:", io["unavailable"])
    else:
        found = io["faults_minor"] + io["faults_major"] + io["faults_lost"]
        real = io["ru_minflt"] + io["ru_majflt"]
        # The counters are read a moment apart, and a sanitizer's own memory faults in between.
        check(abs(found - real) <= max(20, real / 100), f"sampled faults and ru_*flt: {io}")
        faults = [r for r in rows_of_export("io", "csv", "--all") if r["kind"] == "FAULT"]
        check(len(faults) == io["faults_minor"] + io["faults_major"], "a record for each fault")
        check(any(r["tensor_name"] and r["token_id"] for r in faults), "faults of tensors and tokens")
    counted = rows(HOME / "stats/tensor_stats.csv")
    listed = rows_of_export("tensor", "csv")
    for c in counted[:-1]:
        mine = [r for r in listed if r["tensor_name"] == c["name"]]
        check(len(mine) == int(c["accesses"])
              and sum(int(r["size_bytes"]) for r in mine) == int(c["bytes"]), f"stats of {c['name']}")
    r = ttx("bench", "-m", m, "-p", 8, "-n", 4, "-r", 2, "--no-limits", "--trace", HOME / "bench")
    check(r.returncode == 0, f"bench: {r.stderr}")
    r = ttx("trace", "check", HOME / "bench")
    check(r.returncode == 0 and "RESTART" in r.stdout, f"a traced benchmark: {r.stdout}{r.stderr}")
    traced(m, "one", n=4)
    traced(m, "two", n=5)
    check(ttx("trace", "merge", HOME / "both", HOME / "two", HOME / "one").returncode == 0, "merge")
    r = ttx("trace", "check", HOME / "both")
    check(r.returncode == 0, f"a merged trace: {r.stdout}{r.stderr}")
    check(len(rows(HOME / "both/tokens.csv")) == len(rows(HOME / "one/tokens.csv"))
          + len(rows(HOME / "two/tokens.csv")), "tokens of both")
    refuses(2, "DIR/both: expected no trace there, found one", "trace", "merge", HOME / "both",
            HOME / "one")


def test_compressed(m):
    r = traced(m, "packed", "--trace-compress", "zstd", n=40)
    if "built without libzstd" in r.stderr:
        print("built without libzstd: compressed traces are not tested")
        return
    traced(m, "plain", n=40)
    packed, plain = HOME / "packed/tensor_access.bin.zst", HOME / "plain/tensor_access.bin"
    check(packed.stat().st_size * 5 < plain.stat().st_size, f"{packed.stat().st_size} bytes packed")
    r = ttx("trace", "check", HOME / "packed")
    check(r.returncode == 0 and r.stdout.endswith("ok\n"), f"check: {r.stdout}{r.stderr}")
    drop = ("timestamp_ns", "duration_ns", "tensor_ptr")
    both = [[{k: v for k, v in row.items() if k not in drop} for row in rows_of_export(name, "csv")]
            for name in ("packed", "plain")]
    check(both[0] == both[1] and len(both[0]) > 1000, "a compressed trace has the same records")
    r = ttx("report", HOME / "packed")
    check(r.returncode == 0, f"report of a compressed trace: {r.stderr}")
    if shutil.which("zstd"):
        subprocess.run(["zstd", "-dq", packed], check=True)
        good = packed.read_bytes()
        packed.unlink()
        r = ttx("trace", "check", HOME / "packed")
        check(r.returncode == 0, f"unpacked by zstd: {r.stdout}{r.stderr}")
        (HOME / "packed/tensor_access.bin").unlink()
        packed.write_bytes(good)
    good = packed.read_bytes()
    for n in list(range(0, 60, 7)) + list(range(100, len(good), len(good) // 9)):
        packed.write_bytes(good[:n])
        r = ttx("trace", "check", HOME / "packed")
        check(r.returncode == 1 and r.stderr.count("\n") == 1, f"packed, cut at {n}: {r.stderr}")
        packed.write_bytes(good[:n] + bytes(1000))
        r = ttx("trace", "check", HOME / "packed")
        check(r.returncode == 1 and r.stderr.count("\n") == 1, f"packed, zeros at {n}: {r.stderr}")
    packed.write_bytes(good + b"x")
    r = ttx("trace", "check", HOME / "packed")
    check(r.returncode == 1 and "damaged" in r.stderr, f"a byte behind the end: {r.stderr}")
    packed.write_bytes(good)
    r = traced(m, "packed_max", "--trace-compress", "zstd", "--trace-max", "8K", n=200)
    check("stopped at --trace-max" in r.stderr, f"--trace-max, compressed: {r.stderr}")
    check((HOME / "packed_max/tensor_access.bin.zst").stat().st_size <= 8 << 10, "--trace-max holds")
    check(ttx("trace", "check", HOME / "packed_max").returncode == 0, "a limited trace is whole")


def test_streamed(m, moe):
    """The reads of a streamed run are on record: all that it counts, with cause, tensor and latency."""
    name = "streamed_moe" if moe else "streamed"
    r = traced(m, name, *STREAM, "--json", HOME / "streamed.json")
    check(r.returncode == 0, f"a streamed run: {r.stderr}")
    r = ttx("trace", "check", HOME / name)
    check(r.returncode == 0 and r.stdout.endswith("ok\n"), f"check: {r.stdout}{r.stderr}")
    table = rows_of_export(name, "csv", "--all")
    reads = [t for t in table if t["kind"] == "IO"]
    counted = json.loads((HOME / "streamed.json").read_text())["residency"]["read_bytes"]
    total = sum(int(t["size_bytes"]) for t in reads)
    # what is counted was asked for; the last page of the file is not whole
    check(0 <= counted - total < 2 * 4096, f"bytes of IO records: expected {counted}, found {total}")
    check(reads and all(t["tensor_name"] and int(t["duration_ns"]) > 0 for t in reads), "reads of tensors")
    check({t["operation_type"] for t in reads} <= {"DEMAND", "PREFETCH", "SPECULATE", "LOAD"}, "causes")
    check(any(t["expert_id"] for t in reads) == moe, "reads of experts")
    where = {t["residency"] for t in table if t["kind"] == "ACCESS" and t["file_offset"]}
    check(where and where <= {"resident", "prefetched", "late", "missed"}, f"residency of weights: {where}")


def test_guesses(m):
    """Routers asked ahead of time are on record and marked: the plan knows nothing of them."""
    r = traced(m, "guesses", "-lm", "stream", "--ram", "1M")
    least = re.search("expected at least ([0-9]+) MiB", r.stderr)
    check(least, f"the smallest budget: {r.stderr}")
    shutil.rmtree(HOME / "guesses", ignore_errors=True)
    r = traced(m, "guesses", "-lm", "stream", "--ram", f"{int(least[1]) + 16}M", n=24)
    check(r.returncode == 0, f"a run with guesses: {r.stderr}")
    r = ttx("trace", "check", HOME / "guesses")
    check(r.returncode == 0 and "23 as the plan says" in r.stdout, f"check: {r.stdout}{r.stderr}")
    data = (HOME / "guesses/tensor_access.bin").read_bytes()
    marked = [data[i:i + 64] for i in range(0, len(data), 64) if data[i + 56] == 1 and data[i + 63] & 8]
    asked = Counter(r[36:44] for r in marked)  # token, tensor
    check(asked and max(asked.values()) == 2, f"a router ahead is asked once from afar, and once more: {len(asked)} {asked.most_common(3)}")


# ---- what a run leaves when it ends badly ----

def by_signal(number):
    return lambda process, m: process.send_signal(number)


def cut_model(process, m):
    """Its mapped pages are gone."""
    os.truncate(m, 4096)


def test_killed(m, *args, how=by_signal(signal.SIGKILL)):
    shutil.rmtree(HOME / "killed", ignore_errors=True)
    p = subprocess.Popen([TTX, "run", "-m", m, "-p", "abc", "-c", "65536", "--ignore-eos", "--trace",
                          HOME / "killed", "--json", HOME / "killed.json", *args], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL)
    read = 0
    while read < 600:  # so much text that blocks have been written
        read += len(p.stdout.read1(4096))
    time.sleep(0.3)  # ... and far from the end of the context
    how(p, m)
    check(p.wait() not in (0, 130), "the run ends badly")
    check(not list(HOME.rglob("*.tmp")) and not (HOME / "killed.json").exists(), "nothing half written is left")
    r = ttx("trace", "check", HOME / "killed")
    check(r.returncode == 1 and "incomplete: ends after" in r.stderr, f"killed: {r.stderr}")
    check("problem" not in r.stdout, f"what is there holds: {r.stdout}")
    r = ttx("export", HOME / "killed", "-f", "csv", "-o", HOME / "killed.csv")
    check(r.returncode == 0 and "incomplete" in r.stderr, f"export of a killed run: {r.stderr}")
    check(len(rows(HOME / "killed.csv")) > 1000, "records of a killed run")


def test_full_disk(m, *args):
    shutil.rmtree(HOME / "full", ignore_errors=True)

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200 << 10, 200 << 10))
    r = ttx("run", "-m", m, "-p", "abc", "-n", 300, "--temp", 0, "--ignore-eos", "--trace",
            HOME / "full", *args, preexec_fn=limit)
    check(r.returncode == 1 and "tensor_access.bin: File too large; the trace is readable up to there"
          in r.stderr, f"a full disk: {r.returncode} {r.stderr}")
    check(len(r.stdout) > 300, "the text is whole all the same")
    r = ttx("trace", "check", HOME / "full")
    check(r.returncode == 1 and "incomplete" in r.stderr, f"after a full disk: {r.stderr}")


# ---- damaged directories ----

def test_damaged():
    good = (HOME / "a/tensor_access.bin").read_bytes()
    d = copy("a", "bad")
    file = d / "tensor_access.bin"
    for n in [0, 1, 63, 64, 65, 127, 128, 129, 200, len(good) // 2, len(good) - 65, len(good) - 64,
              len(good) - 1]:
        file.write_bytes(good[:n])
        r = ttx("trace", "check", d)
        check(r.returncode == 1 and r.stderr.count("\n") == 1, f"cut at {n}: {r.stderr}")
        check(("incomplete" in r.stderr) == (n >= 64), f"cut at {n}: {r.stderr}")
    for at in list(range(0, 192, 7)) + [1000, len(good) - 30]:
        file.write_bytes(good[:at] + bytes([good[at] ^ 0x41]) + good[at + 1:])
        r = ttx("trace", "check", d)
        check(r.returncode == 1 and r.stderr.count("\n") == 1, f"a wrong byte at {at}: {r.stderr}")
    file.write_bytes(good + b"x")
    refuses(1, f"DIR/bad/tensor_access.bin: damaged at byte {len(good) - 64}: expected the end of "
            "the file", "trace", "check", d)

    header = bytearray(good[:64])
    struct.pack_into("<I", header, 32, 7)
    struct.pack_into("<I", header, 60, zlib.crc32(header[:60]))
    file.write_bytes(bytes(header) + good[64:])
    refuses(1, "DIR/bad/tensor_access.bin: expected trace version 1, found 7", "trace", "check", d)
    file.write_bytes(b"GGUF" * 100)
    refuses(1, "DIR/bad/tensor_access.bin: expected a trace, found something else", "trace", "check",
            d)

    # A consistent file of nonsense: checksums fit, records do not.
    wrong = bytearray(good)
    first = 128
    struct.pack_into("<H", wrong, first + 50, 999)
    n = struct.unpack_from("<I", wrong, 64 + 36)[0]
    struct.pack_into("<I", wrong, 64 + 40, zlib.crc32(wrong[128:128 + 64 * n]))
    struct.pack_into("<I", wrong, 64 + 60, zlib.crc32(wrong[64:124]))
    file.write_bytes(wrong)
    r = ttx("trace", "check", d)
    check(r.returncode == 1 and "layer_id is none of this model's" in r.stdout, f"{r.stdout}")
    file.unlink()
    refuses(1, "DIR/bad/tensor_access.bin: cannot open: No such file or directory", "trace", "check",
            d)

    meta = json.loads((HOME / "a/trace_metadata.json").read_text())
    d = copy("a", "bad")
    for change, line in [
            ({"trace_version": 2}, "DIR/bad: expected trace version 1, found 2"),
            ({"trace_version": "x"}, "DIR/bad/trace_metadata.json: trace_version: expected a number"),
            ({"tensors": 5}, "DIR/bad/trace_metadata.json: tensors: expected a list"),
            ({"tensors": [{"name": "x", "layer": -1}]}, "DIR/bad/trace_metadata.json: tensor 0: "
             "expected name, component, layer, shard, offset, size"),
            ({"model_metadata": None},
             "DIR/bad/trace_metadata.json: model_metadata: expected an object"),
            ({"trace_config": {"level": "all"}}, "DIR/bad/trace_metadata.json: trace_config.level: "
             "expected stats, tensor, head or io"),
            ({"trace_stats": {}}, "DIR/bad/trace_metadata.json: trace_stats: expected total_entries, "
             "lost, duration_seconds")]:
        (d / "trace_metadata.json").write_text(json.dumps({**meta, **change}))
        refuses(1, line, "trace", "check", d)
        refuses(1, line, "export", d, "-f", "csv")
    (d / "trace_metadata.json").write_text("[1, 2")
    refuses(1, "DIR/bad/trace_metadata.json: text: expected a JSON object", "trace", "check", d)
    refuses(1, "DIR/none: cannot open the trace: No such file or directory", "trace", "check",
            HOME / "none")
    refuses(1, "DIR/other: expected a trace directory, found no trace_metadata.json", "export",
            HOME / "other")

    d = copy("a", "bad")
    (d / "tensor_access.bin").write_bytes(good[:-100] + b"y" + good[-99:])
    (HOME / "kept.csv").write_text("kept")
    check(ttx("export", d, "-f", "csv", "-o", HOME / "kept.csv").returncode == 1, "export of damage")
    check((HOME / "kept.csv").read_text() == "kept", "a failed export leaves the old file")


# ---- exports ----

def rows_of_export(name, form, *args):
    r = ttx("export", HOME / name, "-f", form, *args)
    check(r.returncode == 0, f"export {form}: {r.stderr}")
    if form == "csv":
        return list(csv.DictReader(r.stdout.splitlines()))
    return [json.loads(line) for line in r.stdout.splitlines()]


def test_tables(moe):
    table = rows_of_export("a", "csv")
    check(list(table[0])[:len(COLUMNS)] == COLUMNS, f"columns: {list(table[0])}")
    lines = rows_of_export("a", "jsonl")
    check(len(lines) == len(table), "as many lines as rows")
    for a, b in zip(table, lines):
        check(list(a) == list(b) and all(
            (y is None and x == "") or x == str(y) or (isinstance(y, float) and float(x) == y)
            for x, y in zip(a.values(), b.values())), f"CSV and JSON lines say the same: {a} {b}")
    decode = [r for r in table if r["phase"] == "GENERATE" and r["expert_id"]]
    check(bool(decode) == moe, "experts")
    if moe:
        check(all(r["expert_rank"] and r["routing_score"] and r["expert_weight"] for r in decode),
              "experts of a decode token have rank, score and weight")
        everything = rows_of_export("a", "csv", "--all")
        routes = [r for r in everything if r["kind"] == "ROUTE" and r["phase"] == "GENERATE"]
        used = {(r["token_id"], r["layer_id"], r["expert_id"], r["expert_weight"]) for r in decode}
        check(used == {(r["token_id"], r["layer_id"], r["expert_id"], r["expert_weight"])
                       for r in routes}, "what was routed to is what was read")


def test_pictures():
    chrome = json.loads(ttx("export", HOME / "a", "-f", "chrome").stdout)["traceEvents"]
    launches = [e for e in chrome if e["ph"] == "X" and e["tid"] == 1]
    meta = json.loads((HOME / "a/trace_metadata.json").read_text())
    check(len(launches) == meta["trace_stats"]["launches"], "a slice for each launch (chrome)")
    scope = json.loads(ttx("export", HOME / "a", "-f", "speedscope").stdout)
    profile, frames = scope["profiles"][0], scope["shared"]["frames"]
    opened, last = [], 0
    for e in profile["events"]:
        check(e["at"] >= last and e["frame"] < len(frames), "events in order (speedscope)")
        last = e["at"]
        if e["type"] == "O":
            opened.append(e["frame"])
        else:
            check(opened.pop() == e["frame"], "events nest (speedscope)")
    check(not opened and profile["endValue"] == last, "all are closed (speedscope)")
    check(ttx("export", HOME / "a", "-f", "perfetto", "-o", HOME / "a.pftrace").returncode == 0,
          "perfetto")
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
    except ImportError:
        print("perfetto is not installed: its file is decoded without its protos")
        data, at, n = (HOME / "a.pftrace").read_bytes(), 0, 0
        while at < len(data):
            check(data[at] == 10, "a packet")
            size, shift, at = 0, 0, at + 1
            while True:
                size |= (data[at] & 0x7f) << shift
                shift, at = shift + 7, at + 1
                if data[at - 1] < 0x80:
                    break
            at, n = at + size, n + 1
        check(at == len(data) and n > len(launches) * 2, "packets fill the file")
        return
    trace = protos.Trace()
    trace.ParseFromString((HOME / "a.pftrace").read_bytes())
    tracks = {p.track_descriptor.uuid: p.track_descriptor for p in trace.packet
              if p.HasField("track_descriptor")}
    compute = [u for u, t in tracks.items() if t.thread.thread_name == "compute"]
    begun = [p for p in trace.packet if p.HasField("track_event") and p.track_event.type == 1
             and p.track_event.track_uuid == compute[0]]
    check(len(begun) == len(launches), "a slice for each launch (perfetto)")


# ---- a disk's trace ----

def first_extent(path):
    """(device, place on it) of the file's first byte; None where the system does not tell."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    room = bytearray(struct.pack("=QQIIII", 0, 2**64 - 1, 0, 0, 1, 0) + bytes(56))
    try:
        fcntl.ioctl(fd, 0xC020660B, room)
    except OSError:
        return None
    finally:
        os.close(fd)
    physical, = struct.unpack_from("=Q", room, 32 + 8)
    dev = os.stat(path).st_dev
    dev = f"{os.major(dev)}:{os.minor(dev)}"
    try:
        start = int(Path(f"/sys/dev/block/{dev}/start").read_text())
        dev = Path(f"/sys/dev/block/{dev}/../dev").read_text().strip()
    except OSError:
        start = 0
    return dev.replace(":", ","), physical // 512 + start


def test_blocks(m):
    where = first_extent(m)
    traced(m, "blocks")
    meta = json.loads((HOME / "blocks/trace_metadata.json").read_text())
    if not where or not struct.unpack("=Q", struct.pack("=Q", where[1]))[0]:
        print("places of files on the disk are not told here: import-blktrace is not tested")
        return
    dev, sector = where
    t = meta["tensors"][1]
    first, last = t["offset"] // 512, (t["offset"] + t["size"] - 1) // 512
    s0 = meta["clock"]["start_monotonic_ns"] / 1e9 + 0.0001
    blk = f"  {dev}  1  7  0.000100000  99  C  R {sector + first} + {last + 1 - first} [ttx]\n"
    ftrace = (f"  ttx-99  [000] d..1. {s0:.6f}: block_rq_complete: {dev} R () {sector + first} + "
              f"{last + 1 - first} none,0,0 [ttx]\n")
    for name, text in (("blkparse", blk), ("ftrace", ftrace)):
        (HOME / "disk.txt").write_text("# a heading\n" + text + blk.replace(" C ", " D ")
                                       + blk.replace(" R ", " W "))
        r = ttx("trace", "import-blktrace", HOME / "blocks", HOME / "disk.txt")
        check(r.returncode == 0, f"{name}: {r.stderr}")
        found = rows(HOME / "blocks/block_reads.csv")
        mine = sum(int(f["size_bytes"]) for f in found if f["tensor_name"] == t["name"])
        check(mine == t["size"], f"{name}: expected {t['size']} bytes of {t['name']}, found {mine}")
        check(sum(int(f["size_bytes"]) for f in found) == (last + 1 - first) * 512, f"{name}: {found}")
    # The last block of the file is read whole, and the file ends inside of it. Experts are told apart.
    size = os.path.getsize(m)
    experts = next(t for t in meta["tensors"] if t.get("n_expert", 0) > 1)
    first, n = experts["offset"] // 512, (experts["size"] + 1023) // 512
    tail = size // 4096 * 4096
    check(size % 4096, "the model's size is an odd one")
    (HOME / "disk.txt").write_text(
        f"  {dev}  1  7  0.000100000  99  C  R {sector + first} + {n} [ttx]\n"
        f"  {dev}  1  7  0.000200000  99  C  R {sector + tail // 512} + 8 [ttx]\n")
    r = ttx("trace", "import-blktrace", HOME / "blocks", HOME / "disk.txt")
    found = rows(HOME / "blocks/block_reads.csv")
    ends = [int(f["file_offset"]) + int(f["size_bytes"]) for f in found]
    check(r.returncode == 0 and max(ends) == size, f"nothing lies behind the end: {r.stderr}{ends}")
    mine = {f["expert_id"]: int(f["size_bytes"]) for f in found if f["tensor_name"] == experts["name"]}
    check(mine == {str(e): experts["expert_bytes"] for e in range(experts["n_expert"])}, f"of experts: {mine}")
    r = ttx("report", HOME / "blocks")
    check(r.returncode == 0, f"a report of them: {r.stderr}")
    (HOME / "disk.txt").write_text("nothing\n")
    refuses(1, "DIR/disk.txt: expected blkparse's lines or block_rq_complete events of reads, found none",
            "trace", "import-blktrace", HOME / "blocks", HOME / "disk.txt")


def main():
    for name, moe, fields in (("dense", False, ()), ("moe", True, ("arch=qwen3moe",))):
        m = model(name, *fields)
        shutil.rmtree(HOME / "a", ignore_errors=True)
        test_run(m, moe)
        test_tables(moe)
        test_pictures()
        test_streamed(m, moe)
    test_guesses(model("guesses", "arch=qwen3moe", "n_embd=256", "n_layer=4", "n_expert=8", "n_ff_exp=1024",
                       "type=Q8_0"))
    test_same_place(m)
    test_options(m)
    test_compressed(m)
    test_blocks(m)
    test_damaged()
    long = model("long", "n_ctx=65536")
    test_killed(long)
    if (HOME / "packed").exists():
        test_killed(long, "--trace-compress", "zstd")
    test_full_disk(long)
    test_killed(long, *STREAM)
    test_full_disk(long, *STREAM)
    test_killed(long, how=by_signal(signal.SIGTERM))
    test_killed(long, "-lm", "mmap", how=cut_model)
    refuses(2, "parquet: expected a file (-o FILE), found none", "export", HOME / "a", "-f", "parquet")
    shutil.rmtree(HOME)
    sys.exit(failures != 0)


if __name__ == "__main__":
    main()
