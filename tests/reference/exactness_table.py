#!/usr/bin/env python3
"""The numbers of exactness.py --json as Markdown tables, on standard output.

    exactness_table.py FILE.json ...       later files replace the lines of earlier ones
"""
import json
import sys
from pathlib import Path

COLUMNS = ["model", "twin: KL", "greedy", "batch: median", "trimmed", "step: median", "trimmed", "positions"]


def row(cells):
    print("| " + " | ".join(cells) + " |")


def ratios(r):
    """ttx's distance from the truth over llama.cpp's: median and trimmed mean."""
    return [f"{a / b:.2f}" if a / b >= 0.01 else "< 0.01" for a, b in (r["median"], r["trimmed"])] if r else ["", ""]


def distances(name, lines, seeds):
    """One row: the seeds' twins together (largest KL, sum of prompts), and the pooled positions."""
    twins = [x["twin"] for x in seeds if "twin" in x]
    kl = f"{max(max(t['kl']) for t in twins):.1e}" if twins else ""
    n = sum(t["prompts"] for t in twins)
    greedy = f"{sum(t['greedy'] for t in twins)}/{n}" if n else ""
    ties = sum(t["ties"] for t in twins)
    batch, step = lines.get("batch"), lines.get("step")
    failed = [] if all(part["pass"] for x in [lines, *seeds] for part in x.values()) else ["FAILED"]
    row([" ".join([name, *failed]), kl, greedy + (f", {ties} tied" if ties else ""), *ratios(batch), *ratios(step),
         str(batch["n"]) if batch else ""])


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data = {}
    for path in sys.argv[1:]:
        data.update(json.loads(Path(path).read_text()))
    names = list(dict.fromkeys(n.split(" #")[0] for n in sorted(data, key=lambda n: n.split()[0])))
    row(COLUMNS)
    row(["---"] * len(COLUMNS))
    for name in names:
        lines = data.get(name, {})
        seeds = [v for n, v in data.items() if n.startswith(f"{name} #")]
        distances(name, lines, [*seeds, {"twin": lines["twin"]}] if "twin" in lines else seeds)
    print()
    row(["perplexity of", "truth", "ttx", "llama.cpp, by build"])
    row(["---"] * 4)
    for name in names:
        for what in ("ppl twin", "ppl batch", "ppl step"):
            if x := data.get(name, {}).get(what):
                cell = lambda v: f"{v:.4f} ({v / x['truth'] - 1:+.3%})"
                builds = ", ".join(f"{k} {cell(v)}" for k, v in x.get("builds", {}).items())
                row([f"{name}, {what[4:]}", f"{x['truth']:.4f}", cell(x["ours"]), builds])


if __name__ == "__main__":
    main()
