#!/usr/bin/env python3
"""Every allocation of a command that loads a model fails once: an error in one line, never a crash.

    alloc_run.py TTX TINY_MODEL FAILMALLOC_SO

tests/failmalloc.c makes the Nth allocation fail, for N = 1, 2, ... until a run comes through with
none left. Each of the runs must end with the right output, or with code 1 and one line that says
so on standard error (after the notes that it may have printed before).
"""
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TTX, TINY_MODEL, LIBRARY = (str(Path(a).resolve()) for a in sys.argv[1:4])

MODEL = ["-m", "t.gguf"]
COMMANDS = [
    (["run", *MODEL, "-p", "the hand of", "-n", "4", "--temp", "0", "-t", "2", "-v"], b""),
    (["run", *MODEL, "-f", "prompt", "-n", "2", "--temp", "0", "-t", "1", "--no-mmap", "--ignore-eos",
      "--json", "-", "--repeat-penalty", "1.1", "--log-file", "log"], b""),
    (["run", *MODEL, "-i", "-n", "2", "--temp", "0", "-t", "1"], b"the\nhand of\n"),
    (["run", *MODEL, "--chat", "-sys", "of", "-p", "the", "-n", "2", "--temp", "0", "-t", "1"], b""),
    (["run", "-m", "m.gguf", "-p", "the", "-n", "2", "--temp", "0", "-t", "1", "--routes", "routes",
      "--save-routes", "saved", "--expert-stats", "stats"], b""),
    (["eval", *MODEL, "--tokens", "ids", "--logits", "out.npy", "-t", "1"], b""),
    (["eval", *MODEL, "-f", "prompt", "-c", "8", "--compare", "ref.npy", "-t", "1"], b""),
    (["plan", *MODEL], b""),
    (["plan", *MODEL, "--json"], b""),
    (["tokenize", *MODEL, "-f", "prompt"], b""),
    (["tokenize", *MODEL, "--detokenize", "-p", "[1, 288, 291]"], b""),
]
VARYING = (b"_s\"", b"_tps\"", b"_ms_", b"peak_rss")  # figures of time and memory


def run(args, stdin, at):
    """(code, output without what varies, standard error, whether the failure happened)"""
    fired = Path("fired")
    fired.unlink(missing_ok=True)
    env = {**os.environ, "LD_PRELOAD": LIBRARY, "FAILMALLOC_AT": str(at), "FAILMALLOC_LOG": "fired"}
    p = subprocess.run([TTX, *args], env=env, input=stdin, capture_output=True, timeout=60)
    out = [line for line in p.stdout.split(b"\n") if not any(v in line for v in VARYING)]
    return p.returncode, out, p.stderr.decode(errors="replace").splitlines(), fired.exists()


def exhaust(args, stdin):
    """How many allocations the command makes, and without how many it does."""
    code, expected, _, _ = run(args, stdin, 0)
    assert code == 0 and any(expected), (args, code)
    survived = 0
    for at in range(1, 10_000):
        code, out, err, fired = run(args, stdin, at)
        where = f"{args}: allocation {at}: code {code}, {err}"
        assert all(line.startswith("ttx: ") for line in err), where
        if code == 0:
            assert out == expected, where
            if not fired:
                return at - 1, survived
            survived += 1
            continue
        assert fired and code == 1 and err, where
        assert not err[-1].startswith(("ttx: t.gguf: llama,", "ttx: m.gguf: llama,", "ttx: load ")), where  # an error
    raise AssertionError("no end of allocations")


def main():
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        subprocess.run([TINY_MODEL, "t.gguf", "vocab", "n_vocab=320", "n_ctx=256",
                        "chat_template=<|im_start|>"], check=True)
        subprocess.run([TINY_MODEL, "m.gguf", "arch=mixtral", "split_experts", "vocab", "n_vocab=320",
                        "n_ctx=256"], check=True)
        subprocess.run([TTX, "run", "-m", "m.gguf", "-p", "the", "-n", "2", "--n-expert-used", "3",
                        "--save-routes", "routes"], check=True, capture_output=True)
        Path("ids").write_text("[1, 288, 291]")
        Path("prompt").write_text("the hand of a man and the end of an inn")
        subprocess.run([TTX, "eval", *MODEL, "-f", "prompt", "-c", "8", "--logits", "ref.npy"],
                       check=True, capture_output=True)
        for args, stdin in COMMANDS:
            n, survived = exhaust(args, stdin)
            print(f"{' '.join(args)}: {n} allocations failed in turn, {survived} done without", flush=True)
            assert n >= 10
        os.chdir("/")


if __name__ == "__main__":
    main()
