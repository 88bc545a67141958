#!/usr/bin/env python3
"""Exports as other programs read them: Perfetto's file decoded with the protos of PyPI's `perfetto`,
Chrome's and speedscope's JSON, Parquet through `ttx export`; each against the records.

    export_test.py TTX PACKAGE

Exits with 77 (skipped) where the libraries are missing.
"""
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.dont_write_bytecode = True
try:
    import pyarrow.parquet as pq
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as protos
except ImportError as e:
    print(f"{e.name} is not installed")
    sys.exit(77)

import report_test as reports
import report_traces as rt
from report_test import check

BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4


class Perfetto:
    """A file, decoded: names of tracks, and events of each with their names and arguments."""

    def __init__(self, path):
        trace = protos.Trace()
        trace.ParseFromString(path.read_bytes())
        self.tracks, self.units, self.events, names = {}, {}, {}, {}
        for p in trace.packet:
            for kind in ("event_categories", "event_names", "debug_annotation_names"):
                names.update({(kind, v.iid): v.name for v in getattr(p.interned_data, kind)})
            if p.HasField("track_descriptor"):
                t = p.track_descriptor
                self.tracks[t.uuid] = t.thread.thread_name or t.process.process_name or t.name
                self.units[t.uuid] = t.counter.unit if t.HasField("counter") else None
            if not p.HasField("track_event"):
                continue
            e = p.track_event
            args = {names["debug_annotation_names", a.name_iid]:
                    a.string_value if a.HasField("string_value") else a.uint_value for a in e.debug_annotations}
            name = names["event_names", e.name_iid] if e.name_iid else e.name
            value = e.double_counter_value if e.HasField("double_counter_value") else e.counter_value
            self.events.setdefault(e.track_uuid, []).append(
                dict(type=e.type, ns=p.timestamp, name=name, args=args, value=value,
                     categories=[names["event_categories", c] for c in e.category_iids]))

    def of(self, track, kind=None):
        return [e for uuid, name in self.tracks.items() if name == track for e in self.events.get(uuid, [])
                if kind is None or e["type"] == kind]

    def slices(self, track):
        """(begin, end) of each slice of the tracks of this name; they nest or follow one another."""
        out = []
        for uuid in [u for u, name in self.tracks.items() if name == track]:
            opened = []
            for e in self.events.get(uuid, []):
                if e["type"] == BEGIN:
                    opened.append(e)
                elif e["type"] == END:
                    check(f"{track}: an end has a beginning", bool(opened), True)
                    begun = opened.pop()
                    check(f"{track}: ends behind its beginning", e["ns"] >= begun["ns"], True)
                    out.append((begun, e["ns"]))
            check(f"{track}: all are closed", opened, [])
        return out


def launches_of(rows):
    """[first record, records, bytes] of each launch."""
    out = []
    for v in rows:
        if v["kind"] != rt.ACCESS:
            continue
        if v["flags"] & rt.FIRST:
            out.append([v, 0, 0])
        out[-1][1] += 1
        out[-1][2] += v["size"]
    return out


def check_perfetto(ttx, folder, home):
    name, path = folder.name, home / (folder.name + ".pftrace")
    subprocess.run([ttx, "export", folder, "--format", "perfetto", "-o", path], check=True)
    meta, rows, p = json.loads((folder / "trace_metadata.json").read_text()), list(reports.rows_of(folder)), Perfetto(path)
    names = [t["name"] for t in meta["tensors"]]
    launches, slices = launches_of(rows), p.slices("compute")
    check(name + " launches", len(slices), len(launches))
    for (begun, end), (first, n, size) in zip(slices, launches):
        args = dict(n_tokens=first["n"], operands=n, bytes=size, token=first["token"])
        if first["layer"] != rt.NO16:
            args["layer"] = first["layer"]
        if first["tensor"] < len(names):
            args["tensor"] = names[first["tensor"]]
            check(name + " category", begun["categories"], [meta["tensors"][first["tensor"]]["component"]])
        check(name + " launch", (begun["ns"], end, begun["name"], begun["args"]),
              (first["time"], first["time"] + first["ns"], rt.OPS[first["op"]], args))
    reads = sorted((v["time"], v["time"] + v["ns"], v["size"], v["offset"], rt.ENUMS["io_cause"][v["op"]]) for v in rows
                   if v["kind"] == rt.IO)
    found = sorted((b["ns"], end, b["args"]["bytes"], b["args"]["file_offset"], b["args"]["cause"])
                   for b, end in p.slices("I/O"))
    check(name + " reads", found, reads)
    faults = [(v["time"], v["offset"], v["op"]) for v in rows if v["kind"] == rt.FAULT]
    check(name + " faults", [(e["ns"], e["args"]["file_offset"], e["args"]["major"])
                             for e in p.of("page faults", INSTANT)], faults)
    check(name + " count of faults", [e["value"] for e in p.of("page faults so far", COUNTER)],
          list(range(1, len(faults) + 1)))
    batches = {v["offset"]: v for v in rows if v["kind"] == rt.TOKEN}
    check(name + " batches", [(b["ns"], end, b["name"], b["args"]["n_tokens"]) for b, end in p.slices("tokens")],
          [(v["time"], v["ptr"], rt.ENUMS["phase"][v["phase"]], v["n"]) for v in batches.values()])
    rates = [e["value"] for e in p.of("tokens/s", COUNTER)]
    check(name + " rates", [round(r, 6) for r in rates],
          [round(v["n"] * 1e9 / (v["ptr"] - v["time"]), 6) for v in batches.values()])
    read = sum(v["size"] for v in rows if v["kind"] == rt.ACCESS and v["shard"] != rt.NO8)
    check(name + " bytes", p.of("bytes read from the model", COUNTER)[-1]["value"], read)
    check(name + " blocks", sum(e["args"]["records"] for e in p.of("trace writer", INSTANT)), len(rows))
    layers = Counter(b["args"]["layer"] for b, _ in p.slices("layers"))
    check(name + " layers", set(layers), set(range(meta["model_metadata"]["num_layers"])))
    check(name + " units", {p.tracks[u]: unit for u, unit in p.units.items() if unit is not None},
          {"bytes read from the model": 3, "page faults so far": 2, "tokens/s": 2})


def check_json(ttx, folder):
    name, rows = folder.name, list(reports.rows_of(folder))
    out = subprocess.run([ttx, "export", folder, "-f", "chrome", "-o", "-"], capture_output=True, check=True).stdout
    events = json.loads(out)["traceEvents"]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    of = lambda track, ph: [e for e in events if tracks.get(e["tid"]) == track and e["ph"] == ph]  # noqa: E731
    launches = launches_of(rows)
    check(name + " chrome launches", [(e["args"]["operands"], e["args"]["bytes"]) for e in of("compute", "X")],
          [(n, size) for _, n, size in launches])
    check(name + " chrome reads", sum(e["args"]["bytes"] for e in of("I/O", "X")),
          sum(v["size"] for v in rows if v["kind"] == rt.IO))
    check(name + " chrome faults", len(of("page faults", "i")), sum(v["kind"] == rt.FAULT for v in rows))
    out = subprocess.run([ttx, "export", folder, "-f", "speedscope"], capture_output=True, check=True).stdout
    profile = json.loads(out)["profiles"][0]
    opened = Counter(e["frame"] for e in profile["events"] if e["type"] == "O")
    check(name + " speedscope launches", sum(n for f, n in opened.items() if f < len(rt.OPS)), len(launches))


def check_parquet(ttx, package, folder, home):
    """Through the command: with the package, and without."""
    path, python = home / "all.parquet", home / "bin"
    python.mkdir()
    (python / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (python / "python3").chmod(0o755)
    env = dict(os.environ, PATH=f"{python}:{os.environ['PATH']}", PYTHONPATH=str(package), PYTHONDONTWRITEBYTECODE="1")
    r = subprocess.run([ttx, "export", folder, "-f", "parquet", "-o", path], capture_output=True, text=True, env=env)
    check("parquet", (r.returncode, r.stderr), (0, ""))
    rows = [v for v in reports.rows_of(folder) if v["kind"] == rt.ACCESS]
    table = pq.read_table(path)
    check("parquet rows", (table.num_rows, sum(table["size_bytes"].to_pylist())), (len(rows), sum(v["size"] for v in rows)))
    r = subprocess.run([ttx, "export", folder, "-f", "parquet", "-o", home / "x.parquet"], capture_output=True, text=True,
                       env=dict(env, PYTHONPATH=""))
    check("without the package", (r.returncode, "pip install './trace/python[parquet]'" in r.stderr, r.stderr.count("\n")),
          (1, True, 1))
    check("nothing is left", (home / "x.parquet").exists(), False)


def main():
    ttx, package = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        for name, how in (("dense", {}), ("experts", dict(layers=5, experts=8, io=True)), ("shards", dict(shards=3))):
            rt.make(home / name, **how)
            check_perfetto(ttx, home / name, home)
            check_json(ttx, home / name)
        check_parquet(ttx, package, home / "experts", home)
    print("\n".join(f[:500] for f in reports.failures[:20]))
    sys.exit(bool(reports.failures))


if __name__ == "__main__":
    main()
