#!/usr/bin/env python3
"""Expert statistics, computed a second time from the definitions of docs/expert-stats.md.

    route_stats_test.py ROUTE_STATS [FOLDER]

Every member of the JSON that ROUTE_STATS writes for a route file is compared: for synthetic traces,
and for the real ones in FOLDER (by default the data/routes of ../shared, if there). Whole tokens
are looked at, as sets, with all of the past at hand; the program counts as it goes.
"""
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from fractions import Fraction
from itertools import combinations
from pathlib import Path

from route_files import synthetic

QUANTILES = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
SPANS = [1, 2, 4, 8, 16, 32, 64]
MEAN_OF = ["entropy_bits", "entropy_ratio", "effective_experts", "effective_ratio", "dead_experts"]


class Token:
    def __init__(self, turn, decode, step):
        self.turn, self.decode, self.step = turn, decode, step
        self.experts, self.weights = [], []


def read(path):
    """(layers, experts, {layer: [Token in order]})"""
    layers, sizes = {}, None
    for line in path.read_text().splitlines():
        if line.startswith("# model="):
            words = dict(w.split("=", 1) for w in line[2:].split())
            sizes = int(words["n_layer"]), int(words["n_expert"])
        if line[0] in "#t":
            continue
        turn, phase, step, layer, slot, expert, weight = line.split(",")[:7]
        if int(slot) == 0:
            layers.setdefault(int(layer), []).append(Token(int(turn), int(phase), int(step)))
        layers[int(layer)][-1].experts.append(int(expert))
        layers[int(layer)][-1].weights.append(float(weight))
    return *sizes, layers


def follows(tokens, i):
    """Is there a token just before the i-th?"""
    a, b = tokens[i - 1], tokens[i]
    return i > 0 and a.turn == b.turn and a.step + 1 == b.step


def mean(values):
    values = list(values)
    return math.fsum(values) / len(values) if values else None


def evenness(counts):
    """Of {expert: activations}, all experts in it."""
    total, n = sum(counts.values()), len(counts)
    if not total:
        return {}
    shares = [c / total for c in counts.values() if c]
    nats = math.fsum(p * math.log(1 / p) for p in shares)
    order = sorted(counts, key=lambda e: (-counts[e], e))
    reached = [sum(counts[e] for e in order[:i + 1]) for i in range(n)]
    bounds = [Fraction(0), Fraction(1, 4), Fraction(1, 2), 1, 2, 4, None]
    times_mean = [Fraction(c * n, total) for c in counts.values()]
    histogram = [sum(t == 0 for t in times_mean)]
    histogram += [sum(low <= t and t > 0 and (high is None or t < high) for t in times_mean)
                  for low, high in zip(bounds, bounds[1:])]
    return {
        "entropy_bits": nats / math.log(2), "entropy_ratio": nats / math.log(n),
        "effective_experts": math.exp(nats), "effective_ratio": math.exp(nats) / n,
        "dead_experts": sum(c == 0 for c in counts.values()),
        "top": [{"expert": e, "activations": counts[e], "share": counts[e] / total,
                 "cumulative": reached[i] / total} for i, e in enumerate(order[:10])],
        "experts_for_percent": {str(p): next(i + 1 for i, r in enumerate(reached) if 100 * r >= p * total)
                                for p in (50, 80, 90, 95, 99)},
        "frequency_histogram": [{"below": None if b is None else float(b), "experts": h}
                                for b, h in zip(bounds, histogram)],
    }


def weights_of(tokens, n_expert):
    everything = [w for t in tokens for w in t.weights]
    ranks = max(len(t.weights) for t in tokens)
    by_expert = {e: [] for e in range(n_expert)}
    for t in tokens:
        for e, w in zip(t.experts, t.weights):
            by_expert[e].append(w)
    at = sorted(everything)
    return {
        "sum": math.fsum(everything), "mean": mean(everything), "min": at[0], "max": at[-1],
        "quantiles": {str(q): at[math.ceil(q * len(at)) - 1] for q in QUANTILES},
        "by_rank": [{"activations": sum(len(t.weights) > r for t in tokens),
                     "mean": mean(t.weights[r] for t in tokens if len(t.weights) > r)}
                    for r in range(ranks)],
        "sum_by_expert": {str(e): math.fsum(w) for e, w in by_expert.items()},
    }


def past_of(layers, decode):
    """adjacent, reuse_distance and union over some layers' tokens."""
    overlap, of, jaccard, same, slots = 0, 0, [], 0, 0
    distances, unions = [], {m: [] for m in SPANS}
    for tokens in layers:
        for i, t in enumerate(tokens):
            if t.decode != decode:
                continue
            run = 1  # tokens up to this one that follow each other
            while follows(tokens, i - run + 1):
                run += 1
            if run > 1:
                a, b = tokens[i - 1].experts, t.experts
                overlap, of = overlap + len(set(a) & set(b)), of + len(b)
                jaccard.append(len(set(a) & set(b)) / len(set(a) | set(b)))
                same += sum(x == y for x, y in zip(a, b))
                slots += min(len(a), len(b))
            for e in t.experts:
                distances.append(next((d for d in range(1, run) if e in tokens[i - d].experts), None))
            for m in SPANS:
                span = tokens[i - m + 1:i + 1]
                if m <= run and all(u.decode == decode for u in span):
                    unions[m].append(len(set().union(*[u.experts for u in span])))
    bounds = [0] + [2 ** i for i in range(15)] + [math.inf]
    return {
        "adjacent": {"pairs": len(jaccard), "overlap": overlap / of if of else None, "jaccard": mean(jaccard),
                     "position_stability": same / slots if slots else None},
        "reuse_distance": {
            "first_uses": distances.count(None),
            "histogram": [{"up_to": None if high == math.inf else high,
                           "uses": sum(d is not None and low < d <= high for d in distances)}
                          for low, high in zip(bounds, bounds[1:])]},
        "union": [{"tokens": m, "spans": len(u), "experts": mean(u)} for m, u in unions.items()],
    }


def pairs_of(layers):
    found = []
    for layer, tokens in layers.items():
        alone = Counter(e for t in tokens for e in t.experts)
        together = Counter(p for t in tokens for p in combinations(sorted(t.experts), 2))
        for (a, b), n in together.items():
            if n >= 5 and n >= len(tokens) // 100:
                lift = Fraction(n * len(tokens), alone[a] * alone[b])
                found.append((-lift, layer, a, b, n))
    return [{"layer": layer, "a": a, "b": b, "together": n, "lift": float(-lift)}
            for lift, layer, a, b, n in sorted(found)[:10]]


def part(layers, decode, n_expert):
    """What a layer and all layers have in common; `layers`: {layer: tokens of both phases}."""
    own = {layer: [t for t in tokens if t.decode == decode] for layer, tokens in layers.items()}
    tokens = [t for ts in own.values() for t in ts]
    counts = Counter({e: 0 for e in range(n_expert)})
    for t in tokens:
        counts.update(t.experts)
    past = past_of(layers.values(), decode)
    for u in past["union"]:
        u["share"] = None if u["experts"] is None else u["experts"] / n_expert
    return {"routes": len(tokens), "activations": sum(counts.values()), "routing": "top-k" if tokens else "none",
            "expert_activations": {str(e): counts[e] for e in range(n_expert)}, **evenness(counts),
            **({"weight": weights_of(tokens, n_expert)} if tokens else {}), **past,
            "co_activation": pairs_of(own)}


def expected_of(path):
    n_layer, n_expert, layers = read(path)
    result = {"format": "ttx expert_stats v1", "n_layer": n_layer, "n_expert": n_expert}
    for decode, phase in enumerate(("prompt", "decode")):
        whole = part(layers, decode, n_expert)
        each = {str(l): part({l: t}, decode, n_expert) for l, t in sorted(layers.items())
                if any(x.decode == decode for x in t)}
        whole["tokens"] = max((p["routes"] for p in each.values()), default=0)
        whole["layers_routed"] = len(each)
        whole["mean_over_layers"] = {m: mean(p[m] for p in each.values()) for m in MEAN_OF}
        whole["layers"] = each
        result[phase] = whole
    both = [result["prompt"], result["decode"]]
    result["total_tokens"] = sum(p["tokens"] for p in both)
    result["total_activations"] = sum(p["activations"] for p in both)
    ids = [str(e) for e in range(n_expert)]
    result["expert_activations"] = {e: sum(p["expert_activations"][e] for p in both) for e in ids}
    result["per_layer"] = {str(l): {e: sum(p["layers"][str(l)]["expert_activations"][e]
                                           for p in both if str(l) in p["layers"]) for e in ids} for l in layers}
    return result


def tolerance(where, expected):
    if ".quantiles." not in where:
        return 1e-7 * abs(expected) + 1e-12  # the program's weights are floats: 2^-24
    if expected < 2 ** -12:
        return 2 ** -12
    return expected / 128 if expected < 16 else expected


def differences(found, expected, where=""):
    if isinstance(expected, dict) and isinstance(found, dict):
        if set(found) != set(expected):
            yield f"{where}: members differ: {sorted(set(found) ^ set(expected))}"
        for key in expected.keys() & found.keys():
            yield from differences(found[key], expected[key], f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            yield f"{where}: expected {len(expected)} elements, found {len(found)}"
        for i, (f, e) in enumerate(zip(found, expected)):
            yield from differences(f, e, f"{where}[{i}]")
    elif isinstance(expected, float) and isinstance(found, (int, float)):
        if abs(found - expected) > tolerance(where, expected):
            yield f"{where}: expected {expected}, found {found}"
    elif found != expected:
        yield f"{where}: expected {expected}, found {found}"


def check(program, path):
    found = json.loads(subprocess.run([program, path, "json"], check=True, stdout=subprocess.PIPE).stdout)
    for phase in (found["prompt"], found["decode"]):
        if phase["routes"] == 0:  # how nothing is spread: null where there is no value
            for member in ("entropy_bits", "entropy_ratio", "effective_experts", "effective_ratio"):
                assert phase.pop(member) is None
            for member in ("dead_experts", "top", "experts_for_percent", "frequency_histogram", "weight"):
                del phase[member]
    wrong = list(differences(found, expected_of(path)))
    print(f"{path.name}: {found['total_tokens']} tokens, {found['total_activations']} activations: "
          + (f"{len(wrong)} differences" if wrong else "as computed here"))
    for line in wrong[:10]:
        print(f"  {line}")
    return not wrong


def main():
    program = sys.argv[1]
    here = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "routes"
    real = sorted((Path(sys.argv[2]) if len(sys.argv) > 2 else here).glob("*.csv"))
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for seed, options in enumerate([{}, {"n_layer": 1, "n_expert": 3, "k": (1, 1)},
                                        {"n_expert": 200, "k": (20, 32), "n_layer": 2},
                                        {"turns": (0, 0, 0)}]):
            files.append(Path(folder) / f"synthetic-{seed}.csv")
            files[-1].write_text(synthetic(seed, **options))
        good = [check(program, path) for path in files + real]
    if not real:
        print("no real traces here")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
