#!/usr/bin/env python3
"""Real weights through the expert path: SmolLM2 rewritten as a Mixtral is still SmolLM2.

    mixtral_compare.py --ttx BIN [--isa LEVEL]

fixtures/mixtral_of.py cuts the feed-forward part of SmolLM2's F32 twin into four experts, all used
with equal weight. llama.cpp on the dense twin is the truth; from it, over 96 positions of a text,
the mean KL of llama.cpp and of ttx on the Mixtral must be below 1e-9 (ttx: as one batch and token by
token, experts merged and in tensors of their own), and the continuations of six prompts be the same.
Exit code 1 if anything differs.
"""
import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from exactness import N_GREEDY, N_TWIN, PROMPTS, TEXT, divergence
from reflib import dump, fetch_models, fixture, llama, load, run

LIMIT = 1e-9


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ttx", required=True, type=lambda s: Path(s).resolve())
    p.add_argument("--isa", default="auto")
    opt = p.parse_args()
    failed = 0

    def line(ok, text):
        nonlocal failed
        failed += not ok
        print(f"{'pass' if ok else 'FAIL'}  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="mixtral-") as folder:
        d = Path(folder)
        dense, merged, split = d / "dense.gguf", d / "merged.gguf", d / "split.gguf"
        fixture("twin", fetch_models.fetch_model("smollm2"), dense)
        fixture("mixtral_of", dense, merged)
        fixture("mixtral_of", dense, split, "--split")
        llama([["tokenize", "--model", dense, "--strings", dump(d / "text.json", [Path(TEXT).read_text()[:2000]]),
                "--no-special", "--out", d / "ids.json"]], d)
        tokens = dump(d / "ids.json", load(d / "ids.json")[0][:N_TWIN])
        prompts = dump(d / "prompts.json", PROMPTS[:6])
        llama([[*job, "--model", m, "--out", d / f"{m.stem}-{job[0]}"] for m in (dense, merged)
               for job in (["logits", "--tokens", tokens], ["generate", "--prompts", prompts, "-n", N_GREEDY])], d)
        truth = np.load(d / "dense-logits")
        text = [g["text"] for g in load(d / "dense-generate")]

        kl = divergence(truth, np.load(d / "merged-logits")).mean()
        line(kl < LIMIT, f"llama.cpp: mean KL {kl:.1e} (< {LIMIT:.0e})")
        line(text == [g["text"] for g in load(d / "merged-generate")], "llama.cpp: the same text")
        flags = ["--isa", opt.isa, "-t", 1, "-ctk", "f32", "-ctv", "f32"]
        for model in (merged, split):
            for mode in ([], ["--step"]):
                run(opt.ttx, "eval", "-m", model, "--tokens", tokens, "--logits", d / "ttx.npy", *flags, *mode)
                kl = divergence(truth, np.load(d / "ttx.npy")).mean()
                line(kl < LIMIT, f"ttx, experts {model.stem}, {'step' if mode else 'batch'}: mean KL {kl:.1e} (< {LIMIT:.0e})")
        same = sum(run(opt.ttx, "run", "-m", merged, "-p", q, "-n", N_GREEDY, "--temp", 0, "--no-escape", *flags).decode().rstrip("\n")
                   == t.rstrip("\n\ufffd") for q, t in zip(PROMPTS, text))
        line(same == len(text), f"ttx run: the same text {same}/{len(text)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
