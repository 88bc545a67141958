#!/usr/bin/env python3
"""Is ttx as exact as llama.cpp? Compares both with the truth, on small and on real models.

    exactness.py --ttx BIN [--quick] [--only REGEX] [--no-ppl]

The truth is llama.cpp on a model's F32 twin (every weight dequantised), F32 KV cache, no flash
attention. Distances are KL(truth || x) of the next-token distribution at a position, in float64.

  twin      ttx on the twin, F32 KV, as one batch and token by token: mean KL over 96 positions
            (with experts: 600) below 1e-9 (Gemma 3: 3e-6), and greedy continuations of 20 prompts by 32 tokens the
            same. A tie is allowed: two best tokens no further apart than three times the distance
            between ttx and the truth that was just measured (llama.cpp's GELU is a 16-bit table:
            Gemma 3 comes that close, the others do not).
  quantised ttx on the quantised file: median and 10 %-trimmed mean over the pooled positions of all
            seeds at most 1.1 times llama.cpp's own (same KV type, as one batch or token by
            token, whichever is larger).
  ppl       perplexity of a text on real models and on some small ones: on twins within 0.01 % of the
            truth; on quantised files within 0.5 % of the range that the truth and llama.cpp's
            builds for different instruction sets span (on Gemma 3 Q4_K_M llama.cpp is further than
            that from the truth, on SmolLM2 its builds are from each other).

Small models are random, of every architecture x type, and a seed per variant (fixtures/archs.py).
Those with experts read prompts of 600 tokens, gpt-oss also one that ends past position 4,096.
Where two experts are nearly tied, rounding chooses, and all that follows differs: twins are
compared on tokens for which no router of theirs has a margin below 1e-5 (router_margin; tokens are
drawn before anything is compared). Quantised files are compared on any tokens, over more positions.
--quick: two types an architecture, fewer prompts, of the real models only SmolLM2's twin, and no
perplexity: for test.sh.
References are kept between runs in --work; delete it to start afresh. Exit code 1 if any fails.
"""
import argparse
import hashlib
import json
import re
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import reflib
from reflib import archs, dump, fetch_models, fixture, llama, load, quantise, run

# Of fixtures/archs.py, with their types.
DENSE = dict.fromkeys(["llama", "qwen2", "qwen3", "gemma3"], quantise.TYPES)
EXPERTS = dict.fromkeys(["mixtral", "gpt-oss", "qwen2moe", "qwen3moe", "olmoe"], ["F16", "Q8_0", "Q4_K", "MXFP4"])
N_TWIN = 96          # positions of the twin comparison
N_QUANT = 1000       # pooled positions of a quantised type
N_EXPERTS = 600      # positions of a prompt of a model with experts: more than any attention window
N_PROMPTS_EXPERTS = 3  # of them a seed: near ties of routers make the spread wide
LONG = (4096, 4596)  # positions of the long text: past the original context of gpt-oss
TIE = 1e-5           # two router logits nearer than this are a tie that rounding decides
N_PROMPTS, N_GREEDY = 20, 32
N_VOCAB = 2048       # of the generated models
RATIO = 1.1
NEGLIGIBLE = 1e-11   # a KL below this is rounding of the reference itself; no ratio is formed
PPL_TYPE = "Q4_K"    # whose small models also read the text
BUILDS = ["haswell"] # of llama.cpp, besides its best for this machine: what is rounded how depends on it
N_TEXT = 20480       # bytes of the text below whose perplexity is measured
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

    def __init__(self, opt, name, folder, windows=None, prompts=(), gemma=False, n_twin=N_TWIN, first=0):
        self.opt, self.name, self.dir = opt, name, folder
        self.limit = 3e-6 if gemma else 1e-9
        self.windows, self.prompts = windows, prompts
        self.n_twin = n_twin  # positions of the first window that the twin is compared on
        self.first = first    # of a window, the positions before this one are context
        self.dir.mkdir(parents=True, exist_ok=True)
        self.quant, self.twin = self.dir / "q.gguf", self.dir / "f32.gguf"

    def reference_jobs(self, with_quant):
        """Jobs of llama.cpp whose results are missing."""
        d = self.dir
        tokens, prompts = dump(d / "tokens.json", self.windows), dump(d / "prompts.json", self.prompts)
        common = ["--tokens", tokens, "--threads", self.opt.threads, "--first", self.first]
        jobs = [(d / "truth.npy", ["logits", "--model", self.twin, *common]),
                (d / "greedy.json", ["generate", "--model", self.twin, "--prompts", prompts, "-n", N_GREEDY,
                                     "--threads", self.opt.threads])]
        if with_quant:
            f16 = ["--model", self.quant, *common, "--kv", "f16"]
            jobs += [(d / "batch.npy", ["logits", *f16]), (d / "step.npy", ["logits", *f16, "--step"])]
        return [[*j, "--out", out] for out, j in jobs if not out.exists()]

    def ttx_logits(self, model, tokens, *flags):
        path, ids = self.dir / "ttx.npy", dump(self.dir / "ttx.json", tokens)
        run(self.opt.ttx, "eval", "-m", model, "--tokens", ids, "--logits", path, *self.opt.ttx_flags, *flags)
        rows = np.load(path, mmap_mode="r")
        path.unlink()
        return rows

    def check_twin(self):
        """[mean KL as a batch, step by step], {prompt: what happened} where greedy choices differ, ties."""
        f32 = ["-ctk", "f32", "-ctv", "f32"]
        tokens = self.windows[0][:self.n_twin]
        truth = np.load(self.dir / "truth.npy", mmap_mode="r")[:len(tokens) - self.first]
        kl = [divergence(truth, self.ttx_logits(self.twin, tokens, *f32, *s)[self.first:]).mean() for s in ([], ["--step"])]
        noise = 3 * np.sqrt(2 * min(max(kl), self.limit))  # of a difference of logits: KL is about its variance / 2
        wrong, self.ties = {}, set()
        for i, g in enumerate(load(self.dir / "greedy.json")):
            if not g["ids"]:
                continue
            # Fed with llama.cpp's continuation, ttx must choose each of its tokens.
            rows = self.ttx_logits(self.twin, g["prompt"] + g["ids"][:-1], *f32, "--step")[len(g["prompt"]) - 1:]
            at = np.arange(len(rows))
            gap = rows.max(1) - rows[at, g["ids"]]
            if (gap > noise).any():
                wrong[i] = f"prompt {i}, token {gap.argmax()}: llama.cpp's choice is {gap.max():.1e} below ttx's"
            elif gap.any():
                self.ties.add(i)
        return kl, wrong

    def check_quant(self):
        """KL per position: {who: float64 [positions]} for llama.cpp and ttx, batch and step."""
        truth = np.load(self.dir / "truth.npy", mmap_mode="r")
        out = {f"llama {m}": divergence(truth, np.load(self.dir / f"{m}.npy", mmap_mode="r")) for m in ("batch", "step")}
        for mode, flags in (("batch", []), ("step", ["--step"])):
            rows = [self.ttx_logits(self.quant, w, "-ctk", "f16", "-ctv", "f16", *flags)[self.first:] for w in self.windows]
            ends = np.cumsum([0, *map(len, rows)])
            out[f"ttx {mode}"] = np.concatenate([divergence(truth[a:b], r) for a, b, r in zip(ends, ends[1:], rows)])
        return out

    def check_text(self):
        """`ttx run` itself on the twin: how many prompts give llama.cpp's text."""
        same, remark = 0, ""
        for i, (p, g) in enumerate(zip(self.prompts, load(self.dir / "greedy.json"))):
            text = run(self.opt.ttx, "run", "-m", self.twin, "-p", p, "-n", N_GREEDY, "--temp", "0", "--no-escape",
                       "-ctk", "f32", "-ctv", "f32", *self.opt.ttx_flags).decode()
            # A continuation that stops inside a character: llama.cpp prints U+FFFD, ttx nothing.
            ok = i in self.ties or text.rstrip("\n") == g["text"].rstrip("\n\ufffd")
            same += ok
            remark = remark or ("" if ok else f"run -p {p!r}: {text!r}, not {g['text']!r}")
        return same, remark


class Report:
    """Prints results as they come, and keeps their numbers in a file that a later run adds to."""

    def __init__(self, path):
        self.failed = self.passed = 0
        self.path, self.lock = path, threading.Lock()
        self.numbers = load(path) if path and path.exists() else {}

    def line(self, name, what, ok, text, remark="", **numbers):
        self.failed, self.passed = self.failed + (not ok), self.passed + ok
        sys.stdout.write(f"{'pass' if ok else 'FAIL'}  {name:18} {what:10} {text}\n" + (f"      {remark}\n" if remark and not ok else ""))
        sys.stdout.flush()
        with self.lock:
            self.numbers.setdefault(name, {})[what] = {"pass": bool(ok), **numbers}
            if self.path:
                self.path.write_text(json.dumps(self.numbers, indent=1))

    def twin(self, case, name):
        kl, wrong = case.check_twin()
        n = len(case.prompts)
        ties = f" ({len(case.ties)} by a tie)" if case.ties else ""
        self.line(name, "twin", max(kl) < case.limit and not wrong,
                  f"KL batch {kl[0]:.1e} step {kl[1]:.1e} (< {case.limit:.0e})  greedy {n - len(wrong)}/{n}{ties}",
                  next(iter(wrong.values()), ""), kl=kl, greedy=n - len(wrong), prompts=n, ties=len(case.ties))

    def quant(self, name, pooled):
        for mode in ("batch", "step"):
            x = pooled[f"ttx {mode}"]
            cells, ratios, ok = [], {}, True
            for label, f in (("median", np.median), ("trimmed", trimmed), ("mean", np.mean), ("max", np.max)):
                own = max(f(pooled["llama batch"]), f(pooled["llama step"]))
                good = f(x) <= max(RATIO * own, NEGLIGIBLE)
                if label in ("median", "trimmed"):
                    ok &= bool(good)
                ratios[label] = [f(x), own]
                cells.append(f"{label} {f(x):.2e}/{own:.2e}={f(x) / own if own > 0 else 0:4.2f}")
            self.line(name, mode, ok, f"{len(x)}: " + "  ".join(cells), n=len(x), **ratios)

    def ppl_twin(self, name, ours, truth):
        off = abs(ours / truth - 1)
        self.line(name, "ppl twin", off <= 1e-4, f"{ours:.4f}, truth {truth:.4f}: off by {off:.4%} (<= 0.01%)", ours=ours, truth=truth)

    def ppl_quant(self, name, what, ours, truth, builds):
        """builds: {build of llama.cpp: its perplexity}."""
        known = [truth, *builds.values()]
        outside = max(min(known) / ours, ours / max(known), 1) - 1
        cells = "  ".join(f"{k} {v:.4f} ({v / truth - 1:+.2%})" for k, v in {"ttx": ours, **builds}.items())
        own = list(builds.values())
        self.line(name, what, outside <= 5e-3, f"truth {truth:.4f}  {cells}  llama.cpp's spread {max(own) / min(own) - 1:.2%}",
                  ours=ours, truth=truth, builds=builds)


# ---- models ----

def ordinary(rng, n):
    """Random tokens that are neither bytes nor special."""
    return rng.integers(N_VOCAB // 8, N_VOCAB - 300, n).tolist()


def draw_tokens(case, rng, n):
    """The tokens of the twin's comparison. Of a model with experts, such that no router of its twin comes near a tie:
    there the truth itself would depend on rounding, and every later position on that choice."""
    for _ in range(100):
        ids = ordinary(rng, n)
        if case.arch not in EXPERTS:
            return ids
        margin = run(case.opt.margin, case.twin, dump(case.dir / "ids.json", ids)).decode()
        if float(margin.split()[0]) >= TIE:
            return ids
    raise reflib.Failed(f"{case.name}: no {n} tokens without a near tie of a router")


def small_case(opt, arch, type_name, seed, n_tokens, n_windows, first):
    rng = np.random.default_rng([seed, 7])
    case = Case(opt, f"{arch} {type_name}", opt.work / f"{arch}-{type_name}-{seed}-{n_tokens}", gemma=arch == "gemma3",
                n_twin=n_tokens if arch in EXPERTS else N_TWIN, first=first)
    case.arch, case.make = arch, ["--arch", arch, "--type", type_name, "--seed", seed]
    fixture("make_model", *case.make, "-o", case.quant)
    fixture("twin", case.quant, case.twin)
    case.windows = [draw_tokens(case, rng, n_tokens), *(ordinary(rng, n_tokens) for _ in range(n_windows - 1))]
    n_prompts = 0 if first else 4 if opt.quick else N_PROMPTS
    case.prompts = [ordinary(rng, 8 + 2 * i) for i in range(n_prompts)]
    return case


def check_split(report, case, name):
    """Old files have a tensor for each expert. llama.cpp no longer reads them; ttx gives the same bits."""
    split = case.dir / "split.gguf"
    fixture("make_model", *case.make, "--split", "-o", split)
    same = [np.array_equal(*(case.ttx_logits(m, case.windows[0], *flags) for m in (case.quant, split)))
            for flags in ([], ["--step"])]
    report.line(name, "split", all(same), f"the bits of merged experts: batch {same[0]}, step {same[1]}")


def run_small(opt, report, name, arch, type_name, seeds, n_tokens, n_windows=1, first=0):
    cases = [small_case(opt, arch, type_name, s, n_tokens, n_windows, first) for s in seeds]
    with_quant = type_name != "F32"
    llama([j for c in cases for j in c.reference_jobs(with_quant)], cases[0].dir)
    for s, c in zip(seeds, cases):
        report.twin(c, f"{name} #{s}")
        if arch == "mixtral":
            check_split(report, c, f"{name} #{s}")
    if with_quant:
        parts = [c.check_quant() for c in cases]
        report.quant(name, {k: np.concatenate([p[k] for p in parts]) for k in parts[0]})
    if type_name == PPL_TYPE and opt.ppl and not opt.quick and arch in DENSE:
        check_ppl(opt, report, cases[0], name)
    for c in cases:
        c.quant.unlink()
        c.twin.unlink()
        if not opt.quick:
            shutil.rmtree(c.dir)


def text_windows(folder, model, n_bytes, size):
    """(ids of whole windows of a text as ttx eval and llama.cpp's perplexity tool cut it, file of that text)."""
    text = Path(TEXT).read_text()[:n_bytes]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "text.txt"
    path.write_text(text)
    llama([["tokenize", "--model", model, "--strings", dump(folder / "strings.json", [text]), "--no-special",
            "--out", folder / "ids.json"], ["pieces", "--model", model, "--out", folder / "pieces.json"]], folder)
    ids, info = load(folder / "ids.json")[0], load(folder / "pieces.json")
    if info["add_bos"]:
        ids = [info["bos"], *ids]
    windows = [ids[i:i + size] for i in range(0, len(ids) - size + 1, size)]
    return [[info["bos"], *w[1:]] if info["add_bos"] else w for w in windows], path


def reference_ppl(opt, folder, model, windows, kv, isa=None, *flags):
    out = folder / f"nll-{kv}-{isa}.npy"
    if not out.exists():
        llama([["nll", "--model", model, "--tokens", dump(folder / "windows.json", windows), "--first", len(windows[0]) // 2,
                "--kv", kv, "--threads", opt.threads, *flags, "--out", out]], folder, isa)
    return float(np.exp(-np.load(out).mean()))


def ttx_ppl(opt, model, text, kv, *flags):
    out = run(opt.ttx, "eval", "-m", model, "-f", text, "-c", 512, "-ctk", kv, "-ctv", kv, *opt.ttx_flags, *flags).decode()
    return float(re.search(r"perplexity: ([0-9.]+)", out)[1])


def check_ppl(opt, report, case, name):
    windows, text = text_windows(case.dir, case.quant, N_TEXT, 512)
    truth = reference_ppl(opt, case.dir, case.twin, windows, "f32")
    report.ppl_twin(name, ttx_ppl(opt, case.twin, text, "f32"), truth)
    builds = {isa or "llama.cpp": reference_ppl(opt, case.dir, case.quant, windows, "f16", isa, "--fast") for isa in (None, *BUILDS)}
    for what, flags in (("ppl batch", []), ("ppl step", ["--step"])):
        report.ppl_quant(name, what, ttx_ppl(opt, case.quant, text, "f16", *flags), truth, builds)


def run_real(opt, report, name, n_positions):
    model = fetch_models.fetch_model(name)
    folder = opt.work / name
    windows, _ = text_windows(folder, model, N_TEXT, n_positions)
    case = Case(opt, name, folder, windows[:1], PROMPTS[:6] if opt.quick else PROMPTS, gemma=name == "gemma3")
    case.quant = model
    if not case.twin.exists():
        part = case.twin.with_suffix(".part")
        fixture("twin", model, part)
        part.rename(case.twin)
    llama(case.reference_jobs(with_quant=not opt.quick), folder)
    report.twin(case, name)
    same, remark = case.check_text()
    report.line(name, "ttx run", same == len(case.prompts), f"same text {same}/{len(case.prompts)}", remark)
    if opt.quick:
        return
    report.quant(name, case.check_quant())
    for f in ("truth", "batch", "step"):
        (folder / f"{f}.npy").unlink()
    if opt.ppl:
        check_ppl(opt, report, case, name)


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
    p.add_argument("--threads", default="1", help="of both programs (llama.cpp's threads spin: slow on a busy machine)")
    p.add_argument("--jobs", type=int, default=2, help="models at a time")
    p.add_argument("--margin", type=lambda s: Path(s).resolve(), help="router_margin (default: beside ttx)")
    p.add_argument("--isa", default="auto", help="ttx's kernels: avx2, vnni ...")
    p.add_argument("--json", type=Path, metavar="FILE", help="add the numbers to this file")
    p.add_argument("--work", type=Path, default=reflib.CACHE / "exactness")
    opt = p.parse_args()
    opt.margin = opt.margin or opt.ttx.with_name("router_margin")
    opt.work = work_folder(opt.work, opt.quick)
    opt.ttx_flags = ["-t", opt.threads, "--isa", opt.isa]
    report = Report(opt.json)
    start = time.time()

    jobs = []
    for arch, types in {**DENSE, **EXPERTS}.items():
        seeds = range(len(archs.ARCHS[arch]["variants"]))
        for type_name in (["Q8_0", "Q4_K"] if opt.quick and arch in DENSE else ["Q4_K"] if opt.quick else types):
            n_tokens, n_windows = N_TWIN if type_name == "F32" else -(-N_QUANT // len(seeds)), 1
            if arch in EXPERTS and not opt.quick:
                n_tokens, n_windows = N_EXPERTS, N_PROMPTS_EXPERTS
            name = f"{arch} {type_name}"
            jobs.append((name, run_small, (name, arch, type_name, seeds, n_tokens, n_windows)))
    for type_name in [] if opt.quick else EXPERTS["gpt-oss"]:
        name = f"gpt-oss-long {type_name}"
        jobs.append((name, run_small, (name, "gpt-oss", type_name, range(3), LONG[1], 1, LONG[0])))
    jobs += [("smollm2", run_real, ("smollm2", N_TWIN if opt.quick else N_QUANT))]
    if not opt.quick:
        jobs += [("gemma3", run_real, ("gemma3", 400))]

    jobs = [j for j in jobs if re.search(opt.only, j[0])]

    def attempt(job):
        name, f, args = job
        try:
            f(opt, report, *args)
        except Exception as e:  # one model's trouble must not hide the others' results
            report.line(name, "", False, f"{type(e).__name__}: {e}")
    with ThreadPoolExecutor(opt.jobs) as pool:  # the real models first: they take longest
        list(pool.map(attempt, sorted(jobs, key=lambda j: j[1] != run_real)))
    print(f"{report.passed} passed, {report.failed} failed\n{time.time() - start:.0f} s", flush=True)
    sys.exit(1 if report.failed or not report.passed else 0)


if __name__ == "__main__":
    main()
