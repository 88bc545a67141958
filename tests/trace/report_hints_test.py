#!/usr/bin/env python3
"""`ttx report --hints`: hints.json against what the records say, and the words that are printed.

    report_hints_test.py TTX
"""
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import report_test as reports
import report_traces as rt
from report_test import check


def objects_of(file, meta):
    """{(tensor, expert or None): [accesses, bytes, size]} of what was accessed."""
    out = {}
    for a in file:
        t = meta["tensors"][a["tensor"]]
        expert = a["expert"] if "n_expert" in t else None
        o = out.setdefault((a["tensor"], expert), [0, 0, t["expert_bytes"] if "n_expert" in t else t["size"]])
        o[0] += 1
        o[1] += a["size"]
    return out


def place_of(key, meta):
    t = meta["tensors"][key[0]]
    at = dict(tensor_name=t["name"], layer_id=t.get("layer"), shard=t["shard"], file_offset=t["offset"])
    if key[1] is not None:
        at.update(expert_id=key[1], file_offset=t["offset"] + key[1] * t["expert_bytes"])
    return at


def check_pins(name, h, objects, meta, ram):
    order = sorted(objects, key=lambda k: (-int(objects[k][1] / objects[k][2] * 65536), objects[k][2], k[0], k[1] or 0))
    wanted = [dict(place_of(k, meta), size_bytes=objects[k][2], accesses=objects[k][0], bytes=objects[k][1])
              for k in order]
    ranges = h["pin"]["ranges"]
    check(name + " pins", [{k: v for k, v in r.items() if k != "fits"} for r in ranges], wanted)
    left, saved = ram, 0
    for r in ranges:
        fits = r["size_bytes"] <= left
        check(f"{name} fits {r['tensor_name']}", r["fits"], fits)
        if fits:
            left -= r["size_bytes"]
            saved += max(0, r["bytes"] - r["size_bytes"])
    check(name + " pinned", (h["pin"]["ram"], h["pin"]["bytes"], h["pin"]["saved_bytes"]), (ram, ram - left, saved))
    check(name + " saved", h["pin"]["saved_share"], saved / sum(o[1] for o in objects.values()))


def check_warm(name, h, rows, objects, meta):
    if not meta["model_metadata"]["num_experts"]:
        check(name + " no experts", "warm_experts" in h, False)
        return
    tokens, accesses, size = Counter(), Counter(), Counter()
    for v in rows:
        if v["kind"] == rt.ROUTE:
            tokens[v["layer"], v["expert"]] += 1
    for (tensor, expert), o in objects.items():
        if expert is not None:
            accesses[meta["tensors"][tensor]["layer"], expert] += o[0]
    for t in meta["tensors"]:
        for e in range(t.get("n_expert", 0)):
            size[t["layer"], e] += t["expert_bytes"]
    order = sorted(tokens, key=lambda k: (-tokens[k], -accesses[k], k))
    check(name + " warm", h["warm_experts"], [dict(layer_id=k[0], expert_id=k[1], tokens=tokens[k], accesses=accesses[k],
                                                   size_bytes=size[k]) for k in order])
    n, used = meta["model_metadata"]["num_experts"], meta["model_metadata"]["num_experts_used"]
    decode = [v for v in rows if v["kind"] == rt.ROUTE and v["phase"] == 1]
    shares = []
    for l in {v["layer"] for v in decode}:
        count = Counter(v["expert"] for v in decode if v["layer"] == l)
        shares.append(sum(c for _, c in count.most_common(used)) / sum(count.values()))
    check(name + " by frequency", h["predictability"]["experts_by_frequency"], sum(shares) / len(shares))
    check(name + " by chance", h["predictability"]["experts_by_chance"], used / n)


def check_prefetch(name, h, file, meta):
    first = next(a["token"] for a in file if a["phase"] == 1)
    base = []
    for a in file:
        if a["phase"] == 1 and a["token"] != first:
            break
        if a["phase"] == 1 and a["op"] != rt.OP["GET_ROWS"]:
            base.append((a["tensor"], a["expert"] if "n_expert" in meta["tensors"][a["tensor"]] else None))
    sizes = {k: meta["tensors"][k[0]]["size" if k[1] is None else "expert_bytes"] for k in base}
    check(name + " prefetch", h["prefetch"], [dict(place_of(k, meta), size_bytes=sizes[k]) for k in base])
    qkv = [meta["tensors"][k[0]].get("qkv") for k in base if meta["tensors"][k[0]].get("layer") == 0]
    check(name + " order of attention", h["attention"]["order"], ["_QKVO"[q] for q in dict.fromkeys(qkv) if q])


def check_traffic(name, h, access, file, meta):
    layers, tensors = meta["model_metadata"]["num_layers"], meta["tensors"]
    third = layers // 3
    inside = {"layers": lambda l: l is not None, "early_layers": lambda l: l is not None and l < third,
              "late_layers": lambda l: l is not None and l >= layers - third, "outside_layers": lambda l: l is None,
              "weights": lambda l: True}
    n_file = sum("offset" in t for t in tensors)
    for group, holds in inside.items():
        mine = [v for v in access if v["tensor"] < n_file and holds(tensors[v["tensor"]].get("layer"))]
        got = h["traffic"][group]
        check(f"{name} {group}", (got["records"], got["bytes"]), (len(mine), sum(v["size"] for v in mine)))
        check(f"{name} {group} accesses", got["accesses"],
              sum(holds(tensors[a["tensor"]].get("layer")) for a in file))
    cache = sum(v["size"] for v in access if n_file <= v["tensor"] < len(tensors))
    check(name + " cache", h["traffic"]["kv_cache"]["bytes"], cache)
    check(name + " kv share", h["traffic"]["kv_share"], cache / (cache + h["traffic"]["weights"]["bytes"]))


def check_hints(ttx, folder, by, ram):
    r = subprocess.run([ttx, "report", "--hints", "--hot-by", by, "--ram", str(ram), folder], capture_output=True,
                       text=True)
    check(f"{folder.name} hints", (r.returncode, r.stderr), (0, ""))
    h = json.loads((folder / "analysis/hints.json").read_text())
    meta, rows = json.loads((folder / "trace_metadata.json").read_text()), list(reports.rows_of(folder))
    name, n_file = f"{folder.name} by {by}", sum("offset" in t for t in meta["tensors"])
    access = [v for v in rows if v["kind"] == rt.ACCESS]
    file = [a for a in reports.accesses_of(rows, meta) if a["tensor"] < n_file]
    check(name + " hash", h["model_hash"], meta["model_hash"])
    count, size = Counter(a["tensor"] for a in file), Counter()
    for a in file:
        size[a["tensor"]] += a["size"]
    key = (lambda i: (-count[i], -size[i], i)) if by == "access" else (lambda i: (-size[i], -count[i], i))
    names = [meta["tensors"][i]["name"] for i in sorted(range(n_file), key=key)]
    check(name + " hot", [t["tensor_name"] for t in h["hot"]], names[:math.ceil(n_file / 10)])
    check(name + " cold", [t["tensor_name"] for t in h["cold"]], names[n_file - n_file // 2:])
    objects = objects_of(file, meta)
    check_pins(name, h, objects, meta, ram)
    check_warm(name, h, rows, objects, meta)
    check_prefetch(name, h, file, meta)
    check_traffic(name, h, access, file, meta)
    first, distances = reports.lru_distances(file, meta)
    check(name + " distance", h["reuse"]["mean_distance"], sum(distances) / len(distances))
    for share in ("p50", "p90"):
        at = sum(d <= h["reuse"][share + "_distance"] for d in distances) / len(distances)
        check(f"{name} {share}", at >= int(share[1:]) / 100, True)
    said = ["Hot", "Cold", "embeddings", "early_layers", "kv_cache", "slowest layers", "Attention", "Q K V O", "sequential",
            "reuse distance", "jumps a token", "equals the first one's", "foretold", "LRU", "pinned", "Pin, with",
            "Prefetch"]
    if meta["model_metadata"]["num_experts"]:
        said += ["chosen again by the next token", "favours token", "to have ready"]
    for words in said:
        check(f"{name} prints {words}", words in r.stdout, True)
    return h


def main():
    ttx = sys.argv[1]
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        for name, how in (("dense", {}), ("experts", dict(layers=5, experts=8, io=True, decode=60)),
                          ("shards", dict(shards=3, experts=4))):
            rt.make(home / name, **how)
            for by, ram in (("access", 100000), ("bytes", 31000)):
                check_hints(ttx, home / name, by, ram)
    print("\n".join(reports.failures[:40]))
    sys.exit(bool(reports.failures))


if __name__ == "__main__":
    main()
