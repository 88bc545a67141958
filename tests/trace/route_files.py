#!/usr/bin/env python3
"""Route files for tests, made from nothing but a seed.

    route_files.py FOLDER      writes the fuzzer's seeds: small files, good and bad
"""
import random
import sys
from pathlib import Path

COLUMNS = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"


def synthetic(seed, n_layer=4, n_expert=40, k=(1, 7), turns=(12, 90)):
    """A trace with everything that is uncommon in it: turns of (prompt tokens, decode tokens) =
    turns[i], a k that varies, a last layer that skips most of the prompt, steps that are missing,
    choices that stay from token to token, weights from 1e-6 to 20."""
    rng = random.Random(seed)
    rows = []
    for turn, decode_tokens in enumerate(turns):
        prompt_tokens = 5 + 30 * turn
        for layer in range(n_layer):
            chosen = []
            for step in range(prompt_tokens + decode_tokens):
                decode = step >= prompt_tokens
                if layer == n_layer - 1 and step < prompt_tokens - 1 or rng.random() < 0.01:
                    continue
                kept = [e for e in chosen if rng.random() < 0.6]
                n = rng.randint(*k)
                pool = [e for e in range(n_expert // 2 if layer else n_expert) if e not in kept]
                chosen = (kept + rng.sample(pool, min(n, len(pool))))[:n]
                if rng.random() < 0.3:
                    rng.shuffle(chosen)
                for slot, expert in enumerate(chosen):
                    rows.append(f"{turn},{int(decode)},{step},{layer},{slot},{expert},"
                                f"{10 ** rng.uniform(-6, 1.3):.6g},0,100")
    head = ["# route_trace v1",
            f"# model=synthetic arch=test n_layer={n_layer} n_expert={n_expert} n_expert_used={k[1]}"]
    head += [f"# layer={i} expert_bytes=100 dense_bytes=1000" for i in range(n_layer)]
    return "\n".join(head + [COLUMNS] + rows) + "\n"


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    good = synthetic(1, 2, 8, (1, 3), (3, 4))
    seeds = {"good": good, "empty": "", "title": "# route_trace v1\n", "no-newline": good[:-1],
             "columns": f"# route_trace v1\n{COLUMNS}\n", "garbage": good.replace(",", ";"),
             "one-turn": synthetic(2, 1, 4, (1, 2), (2,)), "twice": good + good.splitlines()[-1] + "\n",
             "cut": good[:len(good) // 2], "long-line": "# route_trace v1\n#" + "x" * 600 + "\n"}
    for name, text in seeds.items():
        (folder / f"{name}.csv").write_text(text)


if __name__ == "__main__":
    main()
