#!/usr/bin/env python3
"""`ttx report` on imaginary traces and on real ones of tiny models: its numbers against sums made here from the same records, its
files, its errors.

    report_test.py TTX TINY_MODEL
"""
import csv
import json
import math
import struct
import subprocess
import sys
import tempfile
from collections import Counter, OrderedDict
from itertools import groupby
from pathlib import Path

import report_traces as rt

failures = []


def check(name, got, expected):
    same = math.isclose(got, expected, rel_tol=1e-8, abs_tol=1e-12) if isinstance(expected, float) else got == expected
    if not same:
        failures.append(f"{name}: expected {expected}, found {got}")


def rows_of(folder):
    """The records of a trace as dicts, frames left out."""
    data = (folder / "tensor_access.bin").read_bytes()
    names = ("time ptr offset size ns token tensor score n layer head expert kind op phase qkv rank residency shard "
             "flags").split()
    for at in range(0, len(data) - 63, 64):
        v = dict(zip(names, rt.RECORD.unpack_from(data, at)))
        if v["kind"] < 240:
            yield v


def accesses_of(rows, meta):
    """ACCESS records with the heads of a launch on one tensor put together."""
    out = []
    for v in rows:
        if v["kind"] != rt.ACCESS:
            continue
        first, head = v["flags"] & rt.FIRST, v["head"] != rt.NO16
        last = out[-1] if out else None
        if last and head and not first and all(last[k] == v[k] for k in ("tensor", "op", "phase", "expert", "layer")):
            last["size"] += v["size"]
            last["residency"] = max(last["residency"], v["residency"])
            continue
        v = dict(v)
        if v["flags"] & rt.STRIDED:
            v["offset"] = meta["tensors"][v["tensor"]]["offset"]
        out.append(v)
    return out


def lru_distances(accesses, meta):
    """Stack distances, the slow way."""
    stack, out, first = OrderedDict(), [], 0
    for a in accesses:
        if a["op"] == rt.OP["GET_ROWS"]:
            continue
        t = meta["tensors"][a["tensor"]]
        key = (a["tensor"], a["expert"] if "n_expert" in t else None)
        size = t["expert_bytes"] if "n_expert" in t else t["size"]
        if key in stack:
            keys = list(stack)
            out.append(sum(stack[k] for k in keys[keys.index(key):]))
            del stack[key]
        else:
            first += 1
        stack[key] = size
    return first, out


def check_trace(folder):
    s = json.loads((folder / "analysis/statistics.json").read_text())
    meta = json.loads((folder / "trace_metadata.json").read_text())
    tensors, rows = meta["tensors"], list(rows_of(folder))
    n_file = sum("offset" in t for t in tensors)
    access = [v for v in rows if v["kind"] == rt.ACCESS]
    merged = accesses_of(rows, meta)
    file = [a for a in merged if a["tensor"] < n_file]
    name = folder.name
    check(name + " records", s["totals"]["records"], len(rows))
    check(name + " out of range", s["totals"]["out_of_range"], 0)
    for kind, label in enumerate(rt.ENUMS["kind"][1:], 1):
        check(f"{name} {label}", s["totals"][label], sum(v["kind"] == kind for v in rows))
    check(name + " bytes", s["totals"]["bytes"], sum(v["size"] for v in access))
    check(name + " accesses", s["totals"]["accesses"], len(merged))
    check(name + " launches", s["totals"]["launches"], sum(v["flags"] & 1 for v in access))
    check(name + " busy", s["totals"]["busy_ns"], sum(v["ns"] for v in access))

    def component(v):
        return tensors[v["tensor"]]["component"] if v["tensor"] < len(tensors) else "activation"

    for key, of, field in (("components", component, "component"),
                           ("operations", lambda v: (rt.OPS[v["op"]], rt.ENUMS["phase"][v["phase"]]), None)):
        n, size, accesses = Counter(), Counter(), Counter()
        for v in access:
            n[of(v)] += 1
            size[of(v)] += v["size"]
        for v in merged:
            accesses[of(v)] += 1
        got = {row[field] if field else (row["operation_type"], row["phase"]): row for row in s[key]}
        check(f"{name} {key}", set(got), set(n))
        for k, row in got.items():
            check(f"{name} {key} {k}", (row["records"], row["bytes"], row["accesses"]), (n[k], size[k], accesses[k]))
    layer_of = [t.get("layer") for t in tensors]
    size = Counter()
    for v in access:
        layer = layer_of[v["tensor"]] if v["tensor"] < len(tensors) else v["layer"]
        size[None if layer == rt.NO16 else layer] += v["size"]
    for row in s["layers"]:
        check(f"{name} layer {row['layer_id']}", row["bytes"], size[row["layer_id"]])
    check_tensors(name, s, meta, access, file, n_file)
    check_heads(name, s, meta, access, n_file)
    check_order(name, s, meta, file)
    check_events(name, s, meta, rows, n_file)
    check_routes(name, s, meta, rows, folder)
    check_tokens(name, s, rows)


def check_tensors(name, s, meta, access, file, n_file):
    count, size = Counter(a["tensor"] for a in file), Counter()
    for v in access:
        size[v["tensor"]] += v["size"]
    order = sorted(range(n_file), key=lambda i: (-count[i], -size[i], i))
    hot, cold = order[:math.ceil(n_file / 10)], order[n_file - n_file // 2:]
    for i, row in enumerate(s["tensors"]):
        check(f"{name} tensor {i}", row["bytes"], size[i])
        if i < n_file:
            check(f"{name} tensor {i} accesses", row["accesses"], count[i])
            check(f"{name} tensor {i} heat", row["category"], "hot" if i in hot else "cold" if i in cold else "")
    pages = set()
    at = base_of(meta)
    for a in file:
        begin = at[a["shard"]] + a["offset"]
        pages.update(range(begin // 4096, (begin + a["size"] - 1) // 4096 + 1))
    check(name + " distinct", s["totals"]["distinct_bytes"], len(pages) * 4096)


def base_of(meta):
    at, bases = 0, []
    for shard in meta["shards"]:
        bases.append(at)
        at += shard["size"]
    return bases


def check_heads(name, s, meta, access, n_file):
    count, size, read, written, queries = Counter(), Counter(), Counter(), Counter(), Counter()
    for v in access:
        if v["head"] == rt.NO16:
            continue
        key = (v["layer"], v["qkv"], v["head"])
        if v["tensor"] < n_file:
            count[key] += 1
            size[key] += v["size"]
        elif v["size"] == 0:
            queries[v["layer"], v["head"]] += 1
        elif v["flags"] & rt.WRITE:
            written[key] += v["size"]
        else:
            read[key] += v["size"]
    for row in s["heads"]:
        l = row["layer_id"]
        for qkv, letter in ((1, "q"), (2, "k"), (3, "v"), (4, "o")):
            heads = meta["model_metadata"]["num_heads" if letter in "qo" else "num_kv_heads"]
            check(f"{name} {letter}", row[letter], [count[l, qkv, h] for h in range(heads)])
            check(f"{name} {letter} bytes", row[letter + "_bytes"], [size[l, qkv, h] for h in range(heads)])
        heads = range(meta["model_metadata"]["num_kv_heads"])
        for qkv, letter in ((2, "k"), (3, "v")):
            check(f"{name} {letter} read", row[f"cache_{letter}_read"], [read[l, qkv, h] for h in heads])
            check(f"{name} {letter} written", row[f"cache_{letter}_written"], [written[l, qkv, h] for h in heads])
        check(f"{name} queries", row["query_heads"], [queries[l, h] for h in range(meta["model_metadata"]["num_heads"])])


def check_order(name, s, meta, file):
    base, near, end, n, bytes_near = base_of(meta), 0, None, 0, 0
    for a in file:
        begin = base[a["shard"]] + a["offset"]
        if end is not None:
            n += 1
            if 0 <= begin - end <= 128 << 10:
                near += 1
                bytes_near += a["size"]
        end = begin + a["size"]
    check(name + " sequential", s["sequential"]["sequential"], near)
    check(name + " sequential share", s["sequential"]["share"], near / n)
    check(name + " sequential bytes", s["sequential"]["sequential_bytes"], bytes_near)
    first, distances = lru_distances(file, meta)
    check(name + " first uses", s["reuse"]["first_uses"], first)
    check(name + " distance", s["reuse"]["mean_distance"], sum(distances) / len(distances))
    check(name + " histogram", sum(h["accesses"] for h in s["reuse"]["histogram"]), len(distances))
    for h in s["reuse"]["histogram"]:
        upto = sum(g["accesses"] for g in s["reuse"]["histogram"] if g["upto"] <= h["upto"])
        check(f"{name} distance up to {h['upto']}", upto, sum(d <= h["upto"] for d in distances))
    curve = s["reuse"]["cache"]
    check(name + " cache of everything", curve[-1]["lru"], len(distances) / (first + len(distances)))
    for p in curve[1:-1]:  # the distances of a bucket lie up to an eighth below its end
        hits = [sum(d <= p["size"] * f for d in distances) / (first + len(distances)) for f in (8 / 9, 1)]
        check(f"{name} cache of {p['size']}", hits[0] - 1e-8 <= p["lru"] <= hits[1] + 1e-8, True)
    tokens, experts, last, hits, known = OrderedDict(), OrderedDict(), None, 0, 0
    follows, turn, before = {}, 0, -1
    for a in file:
        turn += a["token"] < before  # a restart: positions begin again
        before = a["token"]
        if a["phase"] == 1 and a["n"] == 1:
            grouped = a["expert"] != rt.NO16
            tokens.setdefault((turn, a["token"]), []).append((grouped, a["op"], a["tensor"]))
            experts.setdefault((turn, a["token"]), []).append((grouped, a["op"], a["tensor"], a["expert"]))
        if a["op"] == rt.OP["GET_ROWS"]:
            continue
        key = (a["tensor"], a["expert"])
        if last in follows:
            known += 1
            hits += follows[last] == key
        if last:
            follows[last] = key
        last = key
    for label, runs in (("same_tensor_sequence", tokens), ("same_object_sequence", experts)):
        v = [in_any_order(run) for run in runs.values()]
        check(f"{name} {label}", s["predictability"][label], sum(x == v[0] for x in v[1:]) / (len(v) - 1))
    check(f"{name} successor", s["predictability"]["next_by_last_successor"], hits / known)


def in_any_order(run):
    """A token's accesses, those of experts side by side sorted."""
    return [item for grouped, part in groupby(run, lambda a: a[0]) for item in (sorted(part) if grouped else part)]


def check_events(name, s, meta, rows, n_file):
    reads = [v for v in rows if v["kind"] == rt.IO]
    check(name + " reads", s["io"]["reads"], len(reads))
    check(name + " read bytes", s["io"]["bytes"], sum(v["size"] for v in reads))
    base, pages = base_of(meta), set()
    for v in reads:
        begin = base[v["shard"]] + v["offset"]
        pages.update(range(begin // 4096, (begin + v["size"] - 1) // 4096 + 1))
    check(name + " distinct read", s["io"]["distinct_bytes"], len(pages) * 4096)
    for k, cause in enumerate(s["io"]["causes"]):
        of = [v for v in reads if v["op"] == k]
        check(f"{name} cause {k}", (cause["reads"], cause["ns"]), (len(of), sum(v["ns"] for v in of)))
    faults = [v for v in rows if v["kind"] == rt.FAULT]
    check(name + " faults", (s["faults"]["minor"], s["faults"]["major"]),
          (sum(v["op"] == 0 for v in faults), sum(v["op"] == 1 for v in faults)))
    by = Counter(v["tensor"] for v in faults)
    for i, row in enumerate(s["tensors"]):
        check(f"{name} faults of {i}", row.get("minor_faults", 0) + row.get("major_faults", 0), by[i])


def check_routes(name, s, meta, rows, folder):
    if not meta["model_metadata"]["num_experts"]:
        return
    with open(folder / "tokens.csv", newline="") as f:
        texts = {int(row["vocab_id"]): row["text"] for row in csv.DictReader(f)}
    n_expert, word, turn = meta["model_metadata"]["num_experts"], {}, 0
    count, pairs, before, waiting = Counter(), Counter(), {}, []
    again = of = 0
    chosen = OrderedDict()
    for v in rows:
        if v["kind"] == rt.RESTART:
            turn += 1
        if v["kind"] == rt.ROUTE:
            count[v["layer"], v["expert"]] += 1
            chosen.setdefault((turn, v["layer"], v["token"], v["phase"]), []).append(v["expert"])
            waiting.append(v)
        if v["kind"] == rt.TOKEN:
            word[v["token"]] = v["tensor"]
            for w in [w for w in waiting if w["token"] == v["token"]]:
                pairs[w["layer"], w["expert"], v["tensor"]] += 1
            waiting = [w for w in waiting if w["token"] != v["token"]]
    for (turn, layer, token, phase), experts in chosen.items():
        past = chosen.get((turn, layer, token - 1, 0)) or chosen.get((turn, layer, token - 1, 1))
        if phase == 1 and past:
            again += len(set(experts) & set(past))
            of += len(experts)
    check(name + " previous token", s["routes"]["predicted_by_previous_token"], again / of)
    for row in s["routes"]["layers"]:
        l = row["layer_id"]
        check(f"{name} experts of {l}", row["tokens"], [count[l, e] for e in range(n_expert)])
        of_layer = {k[1:]: n for k, n in pairs.items() if k[0] == l}
        total = sum(of_layer.values())
        by_e, by_w = Counter(), Counter()
        for (e, w), n in of_layer.items():
            by_e[e] += n
            by_w[w] += n
        information = sum(n / total * math.log2(n * total / by_e[e] / by_w[w]) for (e, w), n in of_layer.items())
        check(f"{name} information of {l}", row["word_information_bits"], information)
        for e, favoured in enumerate(row["favoured_tokens"]):
            for f in favoured:
                n = of_layer[e, f["vocab_id"]]
                check(f"{name} favoured", (f["n"], f["text"]), (n, texts[f["vocab_id"]]))
                check(f"{name} lift", f["lift"], n * total / by_e[e] / by_w[f["vocab_id"]])


def check_tokens(name, s, rows):
    tokens = [v for v in rows if v["kind"] == rt.TOKEN]
    for phase, label in enumerate(("prompt", "decode")):
        of = [v for v in tokens if v["phase"] == phase]
        batches = {v["offset"]: v["ptr"] - v["time"] for v in of}
        check(f"{name} {label}", (s["totals"][label]["tokens"], s["totals"][label]["ns"]),
              (len(of), sum(batches.values())))
        check(f"{name} {label} device bytes", s["totals"][label]["device_bytes"], sum(v["size"] for v in of))


# ---- what stands beside the records ----

def statistics(ttx, folder, warning=""):
    r = subprocess.run([ttx, "report", folder], capture_output=True, text=True)
    check(f"{folder.name} report", (r.returncode, warning in r.stderr if warning else r.stderr), (0, True if warning else ""))
    return json.loads((folder / "analysis/statistics.json").read_text())


def check_devices(ttx, home):
    """block_reads.csv against sums made here, by what lies at a place."""
    run = rt.make(home / "devices", layers=3, experts=4, shards=2, decode=6)
    rnd, base, total, lines = run.random, [0, run.m.sizes[0]], sum(run.m.sizes), []
    by_tensor, by_layer, by_expert, pages = Counter(), Counter(), Counter(), {}
    distinct, outside = set(), 0
    for i in range(400):
        shard = rnd.randrange(2)
        at = rnd.randrange(run.m.sizes[shard])
        size = min(rnd.choice([512, 4096, 16384]), run.m.sizes[shard] - at)
        lines.append(f"{rnd.choice([-5, i * 1000])},{shard},{at},{size},x,,")
        page = set(range((base[shard] + at) // 4096, (base[shard] + at + size - 1) // 4096 + 1))
        distinct |= page
        held = [j for j, t in enumerate(run.m.tensors) if t.get("shard") == shard and 0 <= at - t["offset"] < t["size"]]
        if not held:
            outside += size
            continue
        t = run.m.tensors[held[0]]
        by_tensor[held[0]] += size
        by_layer[t.get("layer")] += size
        if "n_expert" in t:
            by_expert[t["layer"], (at - t["offset"]) // t["expert_bytes"]] += size
    (home / "devices/block_reads.csv").write_text("time_ns,shard,file_offset,size_bytes,tensor_name,layer_id,expert_id\n" +
                                                  "\n".join(lines) + "\n")
    s = statistics(ttx, home / "devices")
    size = sum(int(line.split(",")[3]) for line in lines)
    device = s["io"]["device"]
    check("device bytes", (device["reads"], device["bytes"], device["distinct_bytes"], device["outside_tensors_bytes"]),
          (400, size, len(distinct) * 4096, outside))
    check("device re-reads", device["reread_factor"], size / (len(distinct) * 4096))
    for i, row in enumerate(s["tensors"]):
        check(f"device bytes of tensor {i}", row.get("device_bytes", 0), by_tensor[i])
    for row in s["layers"]:
        check(f"device bytes of layer {row['layer_id']}", row["device_bytes"], by_layer[row["layer_id"]])
    for row in s["experts"]:
        check(f"device bytes of experts", row["device_bytes"], [by_expert[row["layer_id"], e] for e in range(4)])
    check("reads of ttx", s["io"]["reads"], 0)
    (home / "devices/block_reads.csv").write_text("x\n1,2,nonsense\n")
    expect(ttx, [home / "devices"], 1, "line 2: expected the columns of block_reads.csv")


def check_stats_level(ttx, model, home):
    """The same run at levels stats and head: the same sums."""
    for level in ("stats", "head"):
        subprocess.run([ttx, "run", "-m", model, "-p", "hello there", "-n", "9", "--ignore-eos", "--trace", home / level,
                        "--trace-level", level], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    few, all_ = statistics(ttx, home / "stats", "level stats"), statistics(ttx, home / "head")
    for key in ("bytes", "weight_bytes", "cache_bytes", "activation_bytes"):
        check(f"stats {key}", few["totals"][key], all_["totals"][key])
    for a, b in zip(few["tensors"], all_["tensors"]):
        check(f"stats {a['tensor_name']}", [a.get(k) for k in ("bytes", "category", "rank")],
              [b.get(k) for k in ("bytes", "category", "rank")])
    for a, b in zip(few["layers"], all_["layers"]):
        check(f"stats layer {a['layer_id']}", a["weight_bytes"], b["weight_bytes"])
    check("stats tokens", few["totals"]["decode"]["tokens"], all_["totals"]["decode"]["tokens"])
    check("stats operations", few["operations"], [])
    sums = home / "stats/tensor_stats.csv"
    good = sums.read_text()
    sums.write_text(good.replace("\n1,", "\n1000000,", 1))
    expect(ttx, [home / "stats"], 1, "line 3: expected the columns of tensor_stats.csv")
    sums.unlink()
    expect(ttx, [home / "stats"], 0, "tensor_stats.csv is missing")


# ---- errors ----

def expect(ttx, args, code, message):
    r = subprocess.run([ttx, "report", *map(str, args)], capture_output=True, text=True)
    if r.returncode != code or message not in r.stderr or r.stderr.count("\n") != 1:
        failures.append(f"{args}: expected {code} and '{message}', found {r.returncode}: {r.stderr!r}")


def check_errors(ttx, home):
    run = rt.make(home / "bad", prompt=3, decode=3)
    records = home / "bad/tensor_access.bin"
    meta = home / "bad/trace_metadata.json"
    good, good_meta = records.read_bytes(), meta.read_text()
    expect(ttx, [], 2, "report: expects DIR")
    expect(ttx, [home / "nowhere"], 1, "cannot open")
    (home / "empty").mkdir()
    expect(ttx, [home / "empty"], 1, "expected a trace directory")
    expect(ttx, ["--hints", home / "bad", home / "bad"], 2, "--hints expects one DIR, got 2")
    records.write_bytes(good[:-30])
    expect(ttx, [home / "bad"], 0, "incomplete")
    records.write_bytes(good[:64 * 300])
    expect(ttx, [home / "bad"], 0, "incomplete")
    records.write_bytes(good[:64] + bytes(64) + good[128:])
    expect(ttx, [home / "bad"], 1, "damaged at byte 64")
    records.write_bytes(b"GGUF" + good[4:])
    expect(ttx, [home / "bad"], 1, "expected a trace, found something else")
    damaged = bytearray(good)
    damaged[64 * 5] ^= 1
    records.write_bytes(damaged)
    expect(ttx, ["--check", home / "bad"], 1, "checksum")
    records.write_bytes(good)
    for text, message in (("{", "JSON"), (good_meta.replace('"trace_version": 1', '"trace_version": 2'), "version")):
        meta.write_text(text)
        expect(ttx, [home / "bad"], 1, message)
    meta.write_text(good_meta)
    run.write(home / "limited", end=1, lost=3)
    expect(ttx, [home / "limited"], 0, "--trace-max")


def nonsense(ttx, home, seed):
    """Well-framed records of random bits: nothing to fear, nothing to crash."""
    import random
    rnd = random.Random(seed)
    model = rt.Model(layers=3, experts=rnd.choice([0, 4]), shards=rnd.choice([1, 2]))
    out = []
    for _ in range(3000):
        v = bytearray(rnd.randbytes(64))
        v[56] = rnd.randrange(1, 8) if rnd.random() < 0.9 else rnd.randrange(1, 240)
        for at, bits, chance in ((40, 5, 0.8), (50, 2, 0.8), (52, 3, 0.7), (54, 2, 0.7), (57, 3, 0.8), (58, 1, 0.8),
                                 (62, 1, 0.8), (36, 12, 0.7), (48, 4, 0.7), (24, 12, 0.5), (16, 16, 0.6), (0, 30, 0.9)):
            if rnd.random() < chance:  # mostly a number that could be meant
                width = {0: 8, 16: 8, 24: 8, 36: 4, 40: 4, 48: 2, 50: 2, 52: 2, 54: 2}.get(at, 1)
                v[at:at + width] = rnd.randrange(1 << bits).to_bytes(width, "little")
        out.append(bytes(v))
    folder = home / f"nonsense{seed}"
    folder.mkdir()
    (folder / "tensor_access.bin").write_bytes(rt.records_file(out))
    (folder / "trace_metadata.json").write_text(json.dumps(model.metadata(records=len(out))))
    for options in ([], ["--hints"], [folder]):
        r = subprocess.run([ttx, "report", folder, *options], capture_output=True, text=True, timeout=120)
        if r.returncode != 0:
            failures.append(f"nonsense {seed} {options}: {r.returncode} {r.stderr[:2000]}")
    for name in ("statistics", "hints", "comparison"):
        json.loads((folder / f"analysis/{name}.json").read_text())


def main():
    ttx, tiny = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        for name, how in (("dense", {}), ("experts", dict(layers=5, experts=8, io=True, decode=40)),
                          ("shards", dict(shards=3, io=True, prompt=30)), ("again", dict(experts=4, restarts=2))):
            rt.make(home / name, **how)
            r = subprocess.run([ttx, "report", home / name], capture_output=True, text=True)
            if r.returncode or r.stderr:
                failures.append(f"{name}: {r.returncode} {r.stderr}")
                continue
            check_trace(home / name)
        for name, fields in (("real", []), ("real_experts", ["arch=qwen3moe"])):
            model = home / f"{name}.gguf"
            subprocess.run([tiny, model, "vocab", "n_vocab=320", "n_ctx=256", *fields], check=True)
            subprocess.run([ttx, "run", "-m", model, "-p", "hello there", "-n", "24", "--ignore-eos", "--trace",
                            home / name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            subprocess.run([ttx, "report", home / name], check=True, stdout=subprocess.DEVNULL)
            check_trace(home / name)
        check_stats_level(ttx, home / "real_experts.gguf", home)
        check_devices(ttx, home)
        check_errors(ttx, home)
        for seed in range(12):
            nonsense(ttx, home, seed)
    print("\n".join(failures[:40]))
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
