#!/usr/bin/env python3
"""What a trace says of the disk, against what the kernel counts: cold runs in a memory cgroup.

    trace_truth_test.py TTX TINY_MODEL

A dense model of 346 MiB, of which nothing is in memory, runs streamed (half of it fits the budget), mapped
with room for all, and mapped with room for less. Compared: records of reads with the process's own count of
block input (getrusage) and with the block device's requests (ftrace); page faults with ru_minflt and ru_majflt;
what `ttx trace import-blktrace` attributes to tensors with the block input of that time. Exits with 77 (skipped)
where memory cgroups (v1) or ftrace may not be used.
"""
import csv
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "prefetch"))
from memory_group import MemoryGroup  # noqa: E402

TTX, TINY = sys.argv[1:3]
SKIPPED, MIB = 77, 1 << 20
FIELDS = ["arch=llama", "n_embd=1024", "n_layer=8", "n_ff=2816", "n_head=16", "n_head_kv=4", "d_head=64", "n_rot=64",
          "vocab=1", "n_vocab=320"]
failures = 0


def near(what, found, expected, percent):
    global failures
    off = 100 * (found / max(1, expected) - 1)
    ok = abs(off) <= percent
    failures += not ok
    print(f"{'' if ok else 'FAILED: '}{what}: {found:.0f}, kernel {expected:.0f} ({off:+.2f} %)")


class BlockEvents:
    """Requests of block devices as they end, by ftrace, in an instance of its own."""

    def __init__(self, home):
        self.mount = home / "tracing"
        self.mount.mkdir()
        done = subprocess.run(["mount", "-t", "tracefs", "none", self.mount], capture_output=True)
        if done.returncode:
            raise OSError("tracefs cannot be mounted")
        self.dir = self.mount / f"instances/ttx-{os.getpid()}"
        self.dir.mkdir()
        for name, value in (("trace_clock", "mono"), ("buffer_size_kb", "16384"),
                            ("events/block/block_rq_complete/enable", "1")):
            (self.dir / name).write_text(value)

    def take(self, to):
        text = (self.dir / "trace").read_text(errors="replace")
        (self.dir / "trace").write_text("")
        to.write_text(text)

    def close(self):
        (self.dir / "events/block/block_rq_complete/enable").write_text("0")
        self.dir.rmdir()
        subprocess.run(["umount", self.mount])


def cold(model):
    fd = os.open(model, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def run(model, out, limit, n, *args):
    """Resource usage of a cold run in a memory cgroup of `limit` MiB, and the trace's metadata."""
    cold(model)
    with MemoryGroup("truth", limit * MIB) as group:
        p = subprocess.Popen([TTX, "run", "-m", model, "-p", "the end", "-n", n, "--temp", "0", "--ignore-eos", "-c",
                              "256", "--trace", out, *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                             preexec_fn=group.enter)
        said = p.stderr.read().decode()
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = status
        assert status == 0, said
    check = subprocess.run([TTX, "trace", "check", out], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr
    meta = json.loads((out / "trace_metadata.json").read_text())
    assert meta["trace_stats"]["lost"] == 0, meta["trace_stats"]
    return usage, meta


def table(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def attributed(events, out, home):
    """Bytes of the model, and of its tensors, that the device's requests brought during the trace."""
    events.take(home / "disk.txt")
    r = subprocess.run([TTX, "trace", "import-blktrace", out, home / "disk.txt"], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    rows = table(out / "block_reads.csv")
    return sum(int(r["size_bytes"]) for r in rows), sum(int(r["size_bytes"]) for r in rows if r["tensor_name"])


def streamed(model, events, home):
    out = home / "streamed"
    usage, meta = run(model, out, 1024, "16", "-lm", "stream", "--ram", "180M")
    exported = home / "streamed.csv"
    subprocess.run([TTX, "export", out, "-f", "csv", "--all", "-o", exported], check=True, stderr=subprocess.DEVNULL)
    rows = table(exported)
    reads = [r for r in rows if r["kind"] == "IO"]
    total = sum(int(r["size_bytes"]) for r in reads)
    near("streamed: bytes of IO records", total, usage.ru_inblock * 512, 1)
    # Some reads had ended before the trace began; their records came after, so they are not block events of the run.
    near("streamed: bytes of IO records, block events", total, attributed(events, out, home)[0], 1)
    assert all(r["tensor_name"] and int(r["duration_ns"]) for r in reads), "reads have a tensor and a latency"
    assert {r["operation_type"] for r in reads} >= {"PREFETCH", "LOAD"}, "reads say who asked"
    where = {r["residency"] for r in rows if r["kind"] == "ACCESS" and r["file_offset"]}
    assert {"resident", "prefetched"} <= where <= {"resident", "prefetched", "late", "missed"}, where


def mapped(model, events, home, limit):
    out = home / f"mapped{limit}"
    usage, meta = run(model, out, limit, "4", "-lm", "mmap", "--prefetch", "off", "--trace-level", "io")
    io = meta["trace_stats"]["io_attribution"]
    name = f"mapped, {limit} MiB"
    model_bytes, tensor_bytes = attributed(events, out, home)
    near(f"{name}: block events of tensors", tensor_bytes, io["block_input_bytes"], 5)
    near(f"{name}: block events of the model", model_bytes, io["block_input_bytes"], 5)
    if any(line.startswith("page faults") for line in io["unavailable"]):
        print(f"{name}: page faults cannot be sampled here: {io['unavailable']}")
        return
    near(f"{name}: faults sampled or lost", io["faults_minor"] + io["faults_major"] + io["faults_lost"],
         io["ru_minflt"] + io["ru_majflt"], 1)


def main():
    with tempfile.TemporaryDirectory(prefix="ttx_truth_") as home:
        home = Path(home)
        try:
            with MemoryGroup("truth"):
                pass
            events = BlockEvents(home)
        except OSError as e:
            print(f"skipped: needs memory cgroups (v1) and ftrace: {e}")
            return SKIPPED
        try:
            model = home / "model.gguf"
            subprocess.run([TINY, model, *FIELDS], check=True)
            streamed(model, events, home)
            mapped(model, events, home, 600)
            mapped(model, events, home, 280)
        finally:
            events.close()
    return int(failures != 0)


if __name__ == "__main__":
    sys.exit(main())
