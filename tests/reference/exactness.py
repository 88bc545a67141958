#!/usr/bin/env python3
"""Is ttx as exact as llama.cpp? Compares both with the truth, on small and on real models.

    exactness.py --ttx BIN [--quick] [--only REGEX] [--no-ppl]

The truth is llama.cpp on a model's F32 twin (every weight dequantised), F32 KV cache, no flash
attention. Distances are KL(truth || x) of the next-token distribution at a position, in float64.

  twin      ttx on the twin, F32 KV, as one batch and token by token: mean KL over 96 positions
            below 1e-9 (Gemma 3: 3e-6), and greedy continuations of 20 prompts by 32 tokens the same.
  quantised ttx on the quantised file: median and 10 %-trimmed mean over the pooled positions of all
            seeds at most 1.1 times llama.cpp's own (same KV type, as one batch or token by
            token, whichever is larger).
  ppl       perplexity of a text on real models and on some small ones: within 0.01 % on twins, on
            quantised files within 0.5 % or within the spread of llama.cpp's own builds.

Small models are random, of every architecture x type, and a seed per variant (fixtures/archs.py).
--quick: two types an architecture, the twins of the real models and no perplexity: for test.sh.
References are kept between runs in --work; delete it to start afresh. Exit code 1 if any fails.
"""
import argparse
import hashlib
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np

import reflib
from reflib import archs, dump, fetch_models, fixture, llama, load, quantise, run

N_TWIN = 96          # positions of the twin comparison
N_QUANT = 1000       # pooled positions of a quantised type
N_PROMPTS, N_GREEDY = 20, 32
RATIO = 1.1
NEGLIGIBLE = 1e-11   # a KL below this is rounding of the reference itself; no ratio is formed
TEXT = "/usr/share/common-licenses/GPL-3"
PROMPTS = [
    "The capital of France is", "Once upon a time, there was", "def fibonacci(n):", "Water boils at", "In 1969,",
    "The three primary colours are", "Dear Sir or Madam,", "A recipe for bread:", "To be, or not to be,", "for (int i = 0;",
    "The mitochondria is", "Roses are red,", "Q: What is 2 + 2?\nA:", "The quick brown fox", "Die Hauptstadt von Deutschland ist",
    "import numpy as np\n", "The meaning of life", "SELECT name FROM", "My favourite book is", "Photosynthesis is the process",
]


def divergence(p, q):
    """KL(p || q) of every row of two arrays of log-probabilities, after renormalising: float64 [rows].

    Written as sum p log(p/q) - p + q, every term of which is positive, so that nothing cancels."""
    out = np.empty(len(p))
    for i in range(len(p)):
        a, b = p[i].astype(np.float64), q[i].astype(np.float64)
        a -= np.log(np.exp(a).sum())
        b -= np.log(np.exp(b).sum())
        d = b - a
        out[i] = (np.exp(a) * (np.expm1(d) - d)).sum()
    return out


def trimmed(x):
    cut = len(x) // 10
    return np.sort(x)[cut:len(x) - cut].mean()


class Case:
    """One model: its files, the reference's results, and ttx's distances from them."""

    def __init__(self, opt, name, folder, gemma, windows, prompts):
        self.opt, self.name, self.dir = opt, name, folder
        self.limit = 3e-6 if gemma else 1e-9
        self.windows, self.prompts = windows, prompts
        self.dir.mkdir(parents=True, exist_ok=True)
        self.quant, self.twin = self.dir / "q.gguf", self.dir / "f32.gguf"

    def reference_jobs(self, with_quant):
        """Jobs of llama.cpp whose results are missing."""
        d = self.dir
        tokens, prompts = dump(d / "tokens.json", self.windows), dump(d / "prompts.json", self.prompts)
        common = ["--tokens", tokens]
        jobs = [(d / "truth.npy", ["logits", "--model", self.twin, *common]),
                (d / "greedy.json", ["generate", "--model", self.twin, "--prompts", prompts, "-n", N_GREEDY])]
        if with_quant:
            f16 = ["--model", self.quant, *common, "--kv", "f16"]
            jobs += [(d / "batch.npy", ["logits", *f16]), (d / "step.npy", ["logits", *f16, "--step"])]
        return [[*j, "--out", out] for out, j in jobs if not out.exists()]

    def ttx_logits(self, model, tokens, *flags):
        path, ids = self.dir / "ttx.npy", dump(self.dir / "ttx.json", tokens)
        run(self.opt.ttx, "eval", "-m", model, "--tokens", ids, "--logits", path, "-t", self.opt.threads, *flags)
        rows = np.load(path, mmap_mode="r")
        path.unlink()
        return rows

    def check_twin(self):
        """[mean KL as a batch, step by step], greedy prompts that agree, a remark."""
        f32 = ["-ctk", "f32", "-ctv", "f32"]
        tokens = self.windows[0][:N_TWIN]
        truth = np.load(self.dir / "truth.npy", mmap_mode="r")[:len(tokens)]
        kl = [divergence(truth, self.ttx_logits(self.twin, tokens, *f32, *s)).mean() for s in ([], ["--step"])]
        same, remark = 0, ""
        for i, g in enumerate(load(self.dir / "greedy.json")):
            if not g["ids"]:
                same += 1
                continue
            # Fed with llama.cpp's continuation, ttx must choose each of its tokens.
            rows = self.ttx_logits(self.twin, g["prompt"] + g["ids"][:-1], *f32, "--step")[len(g["prompt"]) - 1:]
            wrong = np.flatnonzero(rows.argmax(1) != g["ids"])
            if len(wrong) == 0:
                same += 1
            elif not remark:
                r = np.sort(rows[wrong[0]])
                remark = f"prompt {i} token {wrong[0]}: the two best are {r[-1] - r[-2]:.1e} apart"
        return kl, same, remark

    def check_quant(self):
        """KL per position: {who: float64 [positions]} for llama.cpp and ttx, batch and step."""
        truth = np.load(self.dir / "truth.npy", mmap_mode="r")
        out = {f"llama {m}": divergence(truth, np.load(self.dir / f"{m}.npy", mmap_mode="r")) for m in ("batch", "step")}
        for mode, flags in (("batch", []), ("step", ["--step"])):
            rows = [self.ttx_logits(self.quant, w, "-ctk", "f16", "-ctv", "f16", *flags) for w in self.windows]
            ends = np.cumsum([0, *map(len, self.windows)])
            out[f"ttx {mode}"] = np.concatenate([divergence(truth[a:b], r) for a, b, r in zip(ends, ends[1:], rows)])
        return out

    def check_text(self):
        """`ttx run` itself on the twin: how many prompts give llama.cpp's text."""
        same, remark = 0, ""
        for p, g in zip(self.prompts, load(self.dir / "greedy.json")):
            text = run(self.opt.ttx, "run", "-m", self.twin, "-p", p, "-n", N_GREEDY, "--temp", "0", "--no-escape",
                       "-ctk", "f32", "-ctv", "f32", "-t", self.opt.threads).decode()
            # A continuation that stops inside a character: llama.cpp prints U+FFFD, ttx nothing.
            ok = text.rstrip("\n") == g["text"].rstrip("\n\ufffd")
            same += ok
            remark = remark or ("" if ok else f"run -p {p!r}: {text!r}, not {g['text']!r}")
        return same, remark


class Report:
    def __init__(self):
        self.failed = self.passed = 0

    def line(self, name, what, ok, text, remark=""):
        self.failed, self.passed = self.failed + (not ok), self.passed + ok
        print(f"{'pass' if ok else 'FAIL'}  {name:18} {what:10} {text}" + (f"\n      {remark}" if remark and not ok else ""),
              flush=True)

    def twin(self, case, name):
        kl, same, remark = case.check_twin()
        self.line(name, "twin", max(kl) < case.limit and same == len(case.prompts),
                  f"KL batch {kl[0]:.1e} step {kl[1]:.1e} (< {case.limit:.0e})  greedy {same}/{len(case.prompts)}", remark)

    def quant(self, name, pooled):
        for mode in ("batch", "step"):
            x = pooled[f"ttx {mode}"]
            cells, ok = [], True
            for label, f in (("median", np.median), ("trimmed", trimmed), ("mean", np.mean), ("max", np.max)):
                own = max(f(pooled["llama batch"]), f(pooled["llama step"]))
                good = f(x) <= max(RATIO * own, NEGLIGIBLE)
                if label in ("median", "trimmed"):
                    ok &= bool(good)
                cells.append(f"{label} {f(x):.2e}/{own:.2e}={f(x) / own if own > 0 else 0:4.2f}")
            self.line(name, f"{mode} {len(x)}", ok, "  ".join(cells))

    def ppl(self, name, what, ours, theirs, limit, spread=None):
        """spread: called if the limit is missed, gives the relative spread of llama.cpp's builds."""
        off = abs(ours / theirs - 1)
        extra = ""
        if off > limit and spread:
            limit = max(limit, spread())
            extra = f" (spread of llama.cpp's builds {limit:.2%})"
        self.line(name, f"ppl {what}", off <= limit, f"{ours:.4f}, llama.cpp {theirs:.4f}: off by {off:.4%}, allowed {limit:.2%}{extra}")


# ---- models ----

def small_case(opt, arch, type_name, seed, n_tokens):
    rng = np.random.default_rng([seed, 7])
    n_vocab = 2048
    ids = lambda n: rng.integers(n_vocab // 8, n_vocab - 300, n).tolist()  # ordinary tokens
    prompts = [ids(8 + 2 * i) for i in range(N_PROMPTS)]
    case = Case(opt, f"{arch} {type_name}", opt.work / f"{arch}-{type_name}-{seed}", arch == "gemma3", [ids(n_tokens)], prompts)
    fixture("make_model", "--arch", arch, "--type", type_name, "--seed", seed, "-o", case.quant)
    fixture("twin", case.quant, case.twin)
    return case


def run_small(opt, report, arch, type_name, seeds, n_tokens):
    cases = [small_case(opt, arch, type_name, s, n_tokens) for s in seeds]
    with_quant = type_name != "F32"
    llama([j for c in cases for j in c.reference_jobs(with_quant)], opt.work)
    for s, c in zip(seeds, cases):
        report.twin(c, f"{c.name} #{s}")
    if with_quant:
        parts = [c.check_quant() for c in cases]
        report.quant(f"{arch} {type_name}", {k: np.concatenate([p[k] for p in parts]) for k in parts[0]})
    for c in cases:
        c.quant.unlink()
        c.twin.unlink()
        if not opt.quick:
            shutil.rmtree(c.dir)


def text_windows(opt, model, n_bytes, size):
    """(ids of whole windows of a text as ttx eval and llama.cpp's perplexity tool cut it, file of that text)."""
    text = Path(TEXT).read_text()[:n_bytes]
    path = opt.work / "text.txt"
    path.write_text(text)
    llama([["tokenize", "--model", model, "--strings", dump(opt.work / "strings.json", [text]), "--no-special",
            "--out", opt.work / "ids.json"], ["pieces", "--model", model, "--out", opt.work / "pieces.json"]], opt.work)
    ids, info = load(opt.work / "ids.json")[0], load(opt.work / "pieces.json")
    if info["add_bos"]:
        ids = [info["bos"], *ids]
    windows = [ids[i:i + size] for i in range(0, len(ids) - size + 1, size)]
    return [[info["bos"], *w[1:]] if info["add_bos"] else w for w in windows], path


def perplexity(opt, name, model, windows, what, isa=None):
    out = opt.work / f"nll-{name}-{what}-{isa}.npy"
    if not out.exists():
        kv = "f32" if what == "twin" else "f16"
        llama([["nll", "--model", model, "--tokens", dump(opt.work / "w.json", windows), "--first", len(windows[0]) // 2,
                "--kv", kv, "--out", out]], opt.work, isa)
    return float(np.exp(-np.load(out).mean()))


def check_ppl(opt, report, name, quant, twin, n_bytes=24000):
    windows, text = text_windows(opt, quant, n_bytes, 512)
    for what, model, limit in (("twin", twin, 1e-4), ("quantised", quant, 5e-3)):
        kv = "f32" if what == "twin" else "f16"
        out = run(opt.ttx, "eval", "-m", model, "-f", text, "-c", 512, "-ctk", kv, "-ctv", kv, "-t", opt.threads).decode()
        ours = float(re.search(r"perplexity: ([0-9.]+)", out)[1])
        theirs = perplexity(opt, name, model, windows, what)

        def spread():
            all_builds = [theirs, *(perplexity(opt, name, model, windows, what, isa) for isa in ("haswell", "x64"))]
            return max(all_builds) / min(all_builds) - 1
        report.ppl(name, what, ours, theirs, limit, spread if what == "quantised" else None)


def run_real(opt, report, name, n_positions):
    model = fetch_models.fetch_model(name)
    windows, _ = text_windows(opt, model, 24000, n_positions)
    folder = opt.work / name
    case = Case(opt, name, folder, name == "gemma3", windows[:1], PROMPTS)
    case.quant = model
    if not case.twin.exists():
        part = case.twin.with_suffix(".part")
        fixture("twin", model, part)
        part.rename(case.twin)
    llama(case.reference_jobs(with_quant=not opt.quick), opt.work)
    report.twin(case, name)
    same, remark = case.check_text()
    report.line(name, "ttx run", same == len(PROMPTS), f"same text {same}/{len(PROMPTS)}", remark)
    if not opt.quick:
        report.quant(name, case.check_quant())
        for f in ("truth", "batch", "step"):
            (folder / f"{f}.npy").unlink()
    if not opt.quick and opt.ppl:
        check_ppl(opt, report, name, model, case.twin)


# ---- the program ----

def work_folder(root, quick):
    """A folder for this version of generator and reference: others are stale."""
    h = hashlib.sha256()
    for f in sorted([*reflib.FIXTURES.glob("*.py"), reflib.HERE / "driver.mjs", reflib.HERE / "package-lock.json", Path(__file__)]):
        h.update(f.read_bytes())
    path = root / f"{'quick' if quick else 'full'}-{h.hexdigest()[:12]}"
    for old in root.glob(f"{'quick' if quick else 'full'}-*"):
        if old != path:
            shutil.rmtree(old)
    path.mkdir(parents=True, exist_ok=True)
    return path


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ttx", required=True, type=lambda s: Path(s).resolve())
    p.add_argument("--quick", action="store_true")
    p.add_argument("--only", default="", metavar="REGEX", help="cases whose name matches: 'llama Q4_K', 'smollm2' ...")
    p.add_argument("--no-ppl", dest="ppl", action="store_false")
    p.add_argument("--threads", default="2")
    p.add_argument("--work", type=Path, default=reflib.CACHE / "exactness")
    opt = p.parse_args()
    opt.work = work_folder(opt.work, opt.quick)
    report = Report()
    start = time.time()

    jobs = []
    for arch, spec in archs.ARCHS.items():
        n_variants = len(spec["variants"])
        for type_name in (["F32", "Q8_0", "Q4_K"] if opt.quick else quantise.TYPES):
            seeds = range(n_variants)
            n_tokens = N_TWIN if type_name == "F32" else -(-N_QUANT // n_variants)
            jobs.append((f"{arch} {type_name}", run_small, (arch, type_name, seeds, n_tokens)))
    jobs += [("smollm2", run_real, ("smollm2", N_TWIN if opt.quick else N_QUANT))]
    if not opt.quick:
        jobs += [("gemma3", run_real, ("gemma3", 400))]

    for name, f, args in jobs:
        if not re.search(opt.only, name):
            continue
        try:
            f(opt, report, *args)
        except reflib.Failed as e:
            report.line(name, "", False, str(e))
    print(f"{report.passed} passed, {report.failed} failed\n{time.time() - start:.0f} s", flush=True)
    sys.exit(1 if report.failed or not report.passed else 0)


if __name__ == "__main__":
    main()
