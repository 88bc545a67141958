#!/usr/bin/env python3
"""The commands from outside: exit codes, exact messages, what goes to which stream, figures.

    cli_test.py TTX TINY_MODEL

The models are made by TINY_MODEL (tests/engine/tiny_model_main.c): random weights, a small
SentencePiece vocabulary. Each test is a function that takes nothing; all run in one folder.
"""
import array
import ctypes
import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TTX, TINY_MODEL = (str(Path(a).resolve()) for a in sys.argv[1:3])
N_VOCAB = 320
SYS_TGKILL = 234  # of x86-64
EVEN = [-math.log(N_VOCAB)] * N_VOCAB


def ttx(*args, stdin=b"", **more):
    return subprocess.run([TTX, *map(str, args)], input=stdin, capture_output=True, timeout=120,
                          **more)


def good(*args, **more):
    p = ttx(*args, **more)
    assert p.returncode == 0, (args, p)
    return p


def tiny(name, *fields):
    subprocess.run([TINY_MODEL, name, "vocab", f"n_vocab={N_VOCAB}", *fields], check=True)
    return name


def notes(p):
    """The lines on standard error, without the two that every run has."""
    lines = p.stderr.decode().splitlines()
    assert all(line.startswith("ttx: ") for line in lines), lines
    return [line for line in lines if not re.match(r"ttx: (\S+: [\w-]+, [\d.]+ MiB of weights|load )", line)]


# What is wrong, the code, and the whole of standard error's last line; '...' stands for anything.
M = ["-m", "t.gguf"]
REFUSED = [
    ([], 2, "ttx: expects a command; see 'ttx --help'"),
    (["frob"], 2, "ttx: unknown command 'frob'; see 'ttx --help'"),
    (["--frob"], 2, "ttx: unknown option '--frob'; see 'ttx --help'"),
    (["run"], 2, "ttx: run: option '-m FILE' is required; see 'ttx run --help'"),
    (["run", "-m"], 2, "ttx: run: option '-m': expects an argument (FILE), got none"),
    (["run", "-m", "none.gguf", "-p", "x"], 1, "ttx: none.gguf: No such file or directory"),
    (["run", "-m", ".", "-p", "x"], 1, "ttx: .: expected a regular file, found a directory"),
    (["run", "-m", "text", "-p", "x"], 3, "ttx: text: ..."),
    (["run", *M], 2, "ttx: prompt: expected text, found none (give -p TEXT, -f FILE or -i)"),
    (["run", *M, "-p", ""], 2, "ttx: prompt: expected text, found none (give -p TEXT, -f FILE or -i)"),
    (["run", *M, "-f", "empty"], 2, "ttx: prompt: expected text, found none (give -p TEXT, -f FILE or -i)"),
    (["run", *M, "-p", "x", "-f", "text"], 2, "ttx: prompt: expected one of -p and -f, found both"),
    (["run", *M, "-f", "none"], 1, "ttx: none: cannot open: No such file or directory"),
    (["run", *M, "-f", "."], 1, "ttx: .: cannot read: Is a directory"),
    (["run", *M, "-p", "x", "--frob"], 2, "ttx: run: unknown option '--frob'; see 'ttx run --help'"),
    (["run", *M, "-p", "x", "--top-q", "3"], 2, "ttx: run: unknown option '--top-q'; did you mean '--top-k'?"),
    (["run", *M, "-p", "x", "stray"], 2, "ttx: run: unexpected argument 'stray'; see 'ttx run --help'"),
    (["run", *M, "-p", "x", "-c", "1k"], 2,
     "ttx: run: option '-c': expects a whole number from 0 to 1073741824, got '1k'"),
    (["run", *M, "-p", "x", "-c", "-1"], 2,
     "ttx: run: option '-c': expects a whole number from 0 to 1073741824, got '-1'"),
    (["run", *M, "-p", "x", "-n", "99999999999"], 2,
     "ttx: run: option '-n': expects a whole number from -1 to 2147483647, got '99999999999'"),
    (["run", *M, "-p", "x", "-ub", "0"], 2,
     "ttx: run: option '-ub': expects a whole number from 1 to 65536, got '0'"),
    (["run", *M, "-p", "x", "-t", "5000"], 2,
     "ttx: run: option '-t': expects a whole number from -1 to 1024, got '5000'"),
    (["run", *M, "-p", "x", "--temp", "nan"], 2,
     "ttx: run: option '--temp': expects a number from -1000000 to 1000000, got 'nan'"),
    (["run", *M, "-p", "x", "--top-p=1.5"], 2,
     "ttx: run: option '--top-p': expects a number from 0 to 1, got '1.5'"),
    (["run", *M, "-p", "x", "-s", "4294967296"], 2,
     "ttx: run: option '-s': expects a whole number from -1 to 4294967295, got '4294967296'"),
    (["run", *M, "-p", "x", "-ctk", "q4_0"], 2,
     "ttx: run: option '-ctk': expects one of f16|f32|q8_0, got 'q4_0'"),
    (["run", *M, "-p", "x", "-lm", "disk"], 2,
     "ttx: run: option '-lm': expects one of auto|mmap|mlock|stream|none, got 'disk'"),
    (["run", *M, "-p", "x", "-sys", "y"], 2, "ttx: -sys: expected --chat with it, since only a chat "
     "format has a place for a system message"),
    (["run", *M, "-p", "x", "--chat"], 3, "ttx: t.gguf: tokenizer.chat_template: ..."),
    (["run", *M, "-p", "abcdefghijklmnopq", "-c", "8"], 2,
     "ttx: prompt: expected at most 7 tokens (context 8, 0 taken), found 18; choose a larger -c"),
    (["run", *M, "-p", "x", "--json", "none/x.json"], 1,
     "ttx: none/x.json...: cannot create: No such file or directory"),
    (["run", *M, "-p", "x", "--log-file", "none/log"], 1, "ttx: none/log: cannot open: No such file or directory"),
    (["run", "-m", "d24.gguf", "-p", "x", "-ctk", "q8_0"], 2, "ttx: KV cache type: expected one whose "
     "blocks divide the head sizes 24 and 24, found Q8_0 and F16"),
    (["run", "-m", "bare.gguf", "-p", "x"], 3, "ttx: bare.gguf: key 'tokenizer.ggml.model': ..."),
    (["eval", *M], 2, "ttx: eval: expected one of -f and --tokens"),
    (["eval", *M, "-f", "text", "--tokens", "ids"], 2, "ttx: eval: expected one of -f and --tokens"),
    (["eval", *M, "-f", "text"], 2, "ttx: text: expected at least two chunks of 512 tokens, found "
     "...(choose a smaller -c)"),
    (["eval", *M, "--tokens", "text"], 2, "ttx: text: expected a JSON array of token ids"),
    (["eval", *M, "--tokens", "empty"], 2, "ttx: empty: expected a JSON array of token ids"),
    (["eval", *M, "--tokens", "ids-high"], 2, "ttx: ids-high: item 2: expected a token id in 0..319"),
    (["eval", *M, "--tokens", "ids-half"], 2, "ttx: ids-half: item 1: expected a token id in 0..319"),
    (["eval", *M, "--tokens", "ids-text"], 2, "ttx: ids-text: item 0: expected a token id in 0..319"),
    (["eval", *M, "--tokens", "ids-negative"], 2, "ttx: ids-negative: item 0: expected a token id in 0..319"),
    (["eval", *M, "--tokens", "ids-comma"], 2, "ttx: ids-comma: item 1: expected a token id in 0..319"),
    (["eval", *M, "--tokens", "ids-open"], 2, "ttx: ids-open: expected a JSON array of token ids"),
    (["eval", *M, "--tokens", "ids-tail"], 2, "ttx: ids-tail: expected a JSON array of token ids"),
    (["eval", *M, "--tokens", "ids-nul"], 2, "ttx: ids-nul: expected a JSON array of token ids"),
    (["tokenize", *M, "--detokenize", "-f", "ids-nul"], 2, "ttx: --detokenize: expected token ids, found ''"),
    (["eval", *M, "--tokens", "ids", "--compare", "text"], 2,
     "ttx: text: expected a .npy file (version 1), found another"),
    (["eval", *M, "--tokens", "ids", "--compare", "small.npy"], 2,
     "ttx: small.npy: expected 3 x 320 values, found 1 x 1"),
    (["eval", *M, "--tokens", "ids", "--compare", "nan.npy"], 2, "ttx: nan.npy: row 1: expected logarithms of "
     "probabilities that sum to 1, found a sum of ...nan"),
    (["eval", *M, "--tokens", "ids", "--compare", "raw.npy"], 2, "ttx: raw.npy: row 0: expected logarithms of "
     "probabilities that sum to 1, found a sum of 320"),
    (["run", "-m", "moe.gguf", "-p", "x", "--expert-stats", "none/x.json"], 1,
     "ttx: none/x.json: cannot create: No such file or directory"),
    (["eval", *M, "--tokens", "ids", "--logits", "none/x.npy"], 1, "ttx: none/x.npy...: cannot create: No such file or directory"),
    (["plan"], 2, "ttx: plan: option '-m FILE' is required; see 'ttx plan --help'"),
    (["plan", "-m", "none.gguf"], 1, "ttx: none.gguf: No such file or directory"),
    (["tokenize", *M], 2, "ttx: tokenize: expects one of -p, -f and --lines-json"),
    (["tokenize", *M, "-f", "none"], 1, "ttx: none: cannot open: No such file or directory"),
    (["tokenize", *M, "-f", "/dev/zero"], 2, "ttx: /dev/zero: expected at most 1073741824 bytes, found more"),
    (["tokenize", *M, "--lines-json", "mixed"], 2, "ttx: mixed: expected strings only"),
    (["tokenize", *M, "--detokenize", "-p", "1 x"], 2, "ttx: --detokenize: expected token ids, found 'x'"),
    (["tokenize", *M, "--detokenize", "-p", "320"], 2, "ttx: --detokenize: expected ids below 320, found 320"),
]


def matches(line, pattern):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("..."))), line)


def test_refused():
    findings = []
    for args, code, line in REFUSED:
        p = ttx(*args)
        last = (p.stderr.decode().splitlines() or [""])[-1]
        if p.returncode != code or not matches(last, line) or p.stdout or len(notes(p)) != 1:
            findings.append(f"{args}: {p.returncode}: {p.stdout} {p.stderr.decode()}")
    assert not findings, "\n".join(findings)
    assert not [f for f in os.listdir() if f.startswith("x.")]  # no output of what failed


def test_notes():
    p = good("run", *M, "-p", "x", "-n", 2, "-c", 500)
    assert notes(p) == ["ttx: context: 500 is more than the 256 that the model was trained for; "
                        "expect worse text"]
    assert b", context 500\n" in p.stderr
    assert notes(good("run", *M, "-p", "x", "-n", 2, "-c", 256)) == []
    assert b", context 256\n" in good("run", *M, "-p", "x", "-n", 1).stderr  # by itself: trained
    p = good("run", *M, "-p", "x", "-n", 2, "-ngl", 99, "-fa", "on", "--jinja", "-ngl", 3,
             "--no-warmup", "-st", "-no-cnv", "-lv", 1, "-ot", "exps=CPU", "-ncmoe", 4)
    given = ["-ngl", "-fa", "--jinja", "--no-warmup", "-st", "-no-cnv", "-lv", "-ot", "-ncmoe"]
    assert notes(p) == [f"ttx: option '{o}' has no effect here" for o in given], p.stderr


def greedy(ids, n):
    """What should follow, found with eval alone: the most probable token, n times."""
    ids = list(ids)
    for _ in range(n):
        Path("so-far").write_text(json.dumps(ids))
        good("eval", *M, "--tokens", "so-far", "--step", "--logits", "so-far.npy")
        last = npy("so-far.npy")[-1]
        ids.append(max(range(N_VOCAB), key=lambda i: last[i]))
    return ids


def test_text():
    """Generated text alone on standard output, and it is what the model says."""
    prompt = json.loads(good("tokenize", *M, "--ids", "-p", "the hand of").stdout)
    ids = greedy(prompt, 10)[len(prompt):]
    assert 2 not in ids  # no end of text among them
    p = good("run", *M, "-p", "the hand of", "-n", 10, "--temp", 0)
    # As a continuation: after a token that stands for itself.
    a = prompt[-1:]
    both = good("tokenize", *M, "--no-bos", "--detokenize", "-p", json.dumps(a + ids)).stdout
    one = good("tokenize", *M, "--no-bos", "--detokenize", "-p", json.dumps(a)).stdout
    assert both.startswith(one) and p.stdout == both[len(one):], (p.stdout, both)
    assert len(p.stderr.splitlines()) == 2
    for more in (["-t", 1], ["-t", 2, "-tb", 1], ["--no-mmap"], ["--mlock"], ["-lm", "none"],
                 ["-ub", 1], ["-b", 2], ["--top-k", 1, "--temp", 1], ["-s", 5]):
        assert good("run", *M, "-p", "the hand of", "-n", 10, "--temp", 0, *more).stdout == p.stdout, more


def test_prompt():
    """-p, -f, escapes."""
    def n_of(*args):
        p = good("run", *M, "-n", 1, "--temp", 0, "--json", "n.json", *args)
        return json.loads(Path("n.json").read_text())["prompt_n"], p.stdout
    Path("prompt").write_bytes(b"a\tb\n")  # the last line end is not part of it
    same = [n_of("-p", "a\\tb"), n_of("-p", "a\tb"), n_of("-p", "a\\x09b"), n_of("-f", "prompt"),
            n_of("-f", "prompt", "--no-escape"), n_of("-p", "a\tb", "--no-escape"),
            n_of("-p", "a\\tb", "--no-escape", "-e")]
    assert len(set(same)) == 1, same
    assert n_of("-p", "a\\tb", "--no-escape")[0] > same[0][0]
    assert n_of("-p", "a\\q\\")[0] == n_of("-p", "a\\q\\", "--no-escape")[0]  # no escapes
    assert n_of("-p", "</s>")[0] == 2  # special tokens are read
    Path("ids-of").write_bytes(b"\xff\x00a")
    assert n_of("-f", "ids-of", "--no-escape")[0] >= 4  # any bytes


def test_sampling():
    runs = [good("run", *M, "-p", "a", "-n", 40, "-s", s, "--ignore-eos").stdout for s in (7, 7, 8)]
    assert runs[0] == runs[1] != runs[2]
    free = {good("run", *M, "-p", "a", "-n", 40, "--ignore-eos").stdout for _ in range(3)}
    assert len(free) == 3  # the seed is random by itself
    large = [good("run", *M, "-p", "a", "-n", 40, "-s", s, "--ignore-eos").stdout for s in (4294967294, 4294967294, 7)]
    assert large[0] == large[1] != large[2] == runs[0]
    free = {good("run", *M, "-p", "a", "-n", 40, "-s", s, "--ignore-eos").stdout for s in (-1, 4294967295, -1)}
    assert len(free) == 3  # as in llama.cpp


def test_drafts():
    """Guessing changes no text, whatever is drawn, and some guesses are right."""
    accepted = 0
    for temp in 0, 0.9:
        args = ["run", *M, "-p", "hello hello hello hello", "-n", 150, "--temp", temp, "-s", 3, "--ignore-eos"]
        plain, drafted = good(*args, "--json", "plain.json"), good(*args, "--draft-ngram", "--json", "drafted.json")
        assert plain.stdout == drafted.stdout, (temp, plain.stdout, drafted.stdout)
        a, b = (json.load(open(f"{n}.json")) for n in ("plain", "drafted"))
        assert a["decode_n"] == b["decode_n"] == 149, (a, b)
        assert a["drafted_n"] == 0 and b["drafted_n"] >= b["accepted_n"], (a, b)
        accepted += b["accepted_n"]
    assert accepted > 0


def test_summary():
    start = time.monotonic()
    p = good("run", *M, "-p", "the hand of", "-n", 60, "--ignore-eos", "--json", "sum.json", "-v",
             "--log-file", "log", "-t", 1)
    wall = time.monotonic() - start
    s = json.loads(Path("sum.json").read_text())
    assert s["prompt_n"] == 6 and s["generated_n"] == 60 and s["decode_n"] == 59, s
    assert s["stop"] == "count" and s["n_ctx"] == 256 and s["n_threads"] == 1
    assert 0 < s["load_s"] < wall and 0 < s["ttft_s"] < wall
    assert s["prompt_s"] <= s["ttft_s"] and s["load_s"] + s["ttft_s"] + s["decode_s"] < wall
    assert math.isclose(s["prompt_tps"], s["prompt_n"] / s["prompt_s"], rel_tol=1e-9)
    assert math.isclose(s["decode_tps"], s["decode_n"] / s["decode_s"], rel_tol=1e-9)
    assert 0 < s["decode_ms_p50"] <= s["decode_ms_p95"] <= s["decode_ms_p99"]
    assert s["decode_ms_p50"] * 59 / 2 <= s["decode_s"] * 1e3  # half of the steps take that or more
    assert s["model_bytes"] < s["peak_rss_bytes"] < 1 << 30
    assert s["model_bytes"] == sum(int(r["size_bytes"]) for r in dump("t.gguf"))
    assert Path("log").read_bytes() == p.stderr  # -v says more, and the log has it all
    assert len(p.stderr.splitlines()) == 3
    good("run", *M, "-p", "a", "-n", 1, "--log-file", "log")
    assert Path("log").read_bytes().startswith(p.stderr + b"ttx: ")  # appended
    # what was noted before the file was opened, warnings of the engine, the error at the end
    p = good("run", *M, "-p", "a", "-n", 1, "-ngl", 9, "-c", 300, "--log-file", "notes")
    assert len(p.stderr.splitlines()) == 4 and Path("notes").read_bytes() == p.stderr, p.stderr
    p = ttx("run", *M, "-p", "abcdefghij", "-c", 8, "--log-file", "failed")
    assert p.returncode == 2 and Path("failed").read_bytes() == p.stderr and b"choose a larger -c" in p.stderr
    p = good("run", "-m", "moe.gguf", "-p", "a", "-n", 2, "--expert-stats", "-", "--log-file", "stats")
    assert b"experts" in p.stderr and Path("stats").read_bytes() == p.stderr
    p = good("run", *M, "-p", "a", "-n", 1, "--json", "-")
    assert json.loads(p.stdout[p.stdout.rindex(b"\n{") if b"\n{" in p.stdout else p.stdout.index(b"{"):])["decode_n"] == 0
    p = good("run", *M, "-p", "a", "-n", 0, "--json", "zero.json")
    assert p.stdout == b"" and json.loads(Path("zero.json").read_text())["generated_n"] == 0


def test_full_context():
    p = good("run", *M, "-p", "the", "-c", 20, "--ignore-eos", "--json", "full.json")
    s = json.loads(Path("full.json").read_text())
    assert s["stop"] == "context" and s["prompt_n"] + s["decode_n"] == 20 == s["generated_n"] + 1, s
    assert notes(p) == ["ttx: the context of 20 tokens is full; choose a larger -c"]


def test_end_of_text():
    """A model that says </s> stops; one that may not, goes on."""
    for seed in range(40):
        args = ["run", *M, "-p", "a", "-n", 200, "-s", seed, "--temp", 1.5, "--top-k", 0,
                "--top-p", 1, "--min-p", 0, "--json", "end.json"]
        good(*args)
        s = json.loads(Path("end.json").read_text())
        if s["stop"] != "end of text":
            continue
        assert s["generated_n"] <= 200 and s["decode_n"] == s["generated_n"] - 1
        good(*args, "--ignore-eos")
        s = json.loads(Path("end.json").read_text())
        assert s["stop"] == "count" and s["generated_n"] == 200
        return
    assert False, "no run came to its end"


def test_system():
    """Escapes in -sys, as in -p."""
    def n_of(text, *more):
        good("run", "-m", "chat.gguf", "--chat", "-p", "a", "-n", 1, "-sys", text, "--json", "s.json", *more)
        return json.loads(Path("s.json").read_text())["prompt_n"]
    assert n_of("a\\tb") == n_of("a\tb") == n_of("a\tb", "--no-escape") < n_of("a\\tb", "--no-escape")


def test_interactive():
    p = good("run", *M, "-i", "-n", 4, "--temp", 0, "--ignore-eos", "--json", "i.json",
             stdin=b"the\n\nhand of\r\n")
    s = json.loads(Path("i.json").read_text())
    # <s> the | four tokens, the last evaluated with the next turn | " hand of" without <s>
    assert s["prompt_n"] == 2 + 4 and s["generated_n"] == 8 and s["decode_n"] == 3 + 1 + 3, s
    first = good("run", *M, "-p", "the", "-n", 4, "--temp", 0, "--ignore-eos").stdout
    assert p.stdout.startswith(first) and len(p.stdout) > len(first)
    assert good("run", *M, "-i", stdin=b"").stdout == b""
    good("run", *M, "-i", "-n", 1, "--json", "i.json", stdin=b"a\\tb\n")  # typed: never unescaped
    typed = json.loads(Path("i.json").read_text())["prompt_n"]
    good("run", *M, "-p", "a\\tb", "--no-escape", "-n", 1, "--json", "i.json")
    assert typed == json.loads(Path("i.json").read_text())["prompt_n"]
    for text in b"the\nthe", b"the\r\n\nthe\n", b"\nthe\nthe\n\n":  # the end of the input ends a line
        good("run", *M, "-i", "-n", 1, "--json", "i.json", stdin=text)
        assert json.loads(Path("i.json").read_text())["prompt_n"] == 3, text
    good("run", *M, "-i", "-n", 1, "-c", 9000, "--json", "i.json", stdin=b"a" * 8190 + b"\nb\n")  # a long one
    assert json.loads(Path("i.json").read_text())["generated_n"] == 2
    p = good("run", *M, "-i", "-c", 12, "--ignore-eos", stdin=b"the\nthe\n")  # ends when it is full
    assert notes(p) == ["ttx: the context of 12 tokens is full; choose a larger -c"]


def interrupt(*args, when):
    """Starts a run, sends Ctrl-C once `when` has been read from the given stream."""
    p = subprocess.Popen([TTX, "run", "-m", "long.gguf", "-c", "200000", "--ignore-eos", *args],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    err = p.stderr.readline()  # the line that describes the model: the handler is set soon after
    if when == "text":
        assert len(p.stdout.read(64)) == 64
    time.sleep(0.2)
    p.send_signal(signal.SIGINT)
    out, rest = p.communicate(timeout=60)
    return p.returncode, out, (err + rest).decode()


def test_interrupt():
    code, out, err = interrupt("-p", "the", "--json", "int.json", when="text")
    assert code == 130, (code, err)
    assert re.fullmatch(r"ttx: long\.gguf: .*\nttx: load [\d.]+ s \| prompt 2 tokens, .* \| decode "
                        r"\d+ tokens, .*\n", err), err
    s = json.loads(Path("int.json").read_text())
    assert s["stop"] == "interrupt" and s["decode_n"] >= 10
    p = subprocess.Popen([TTX, "run", *M, "-i", "-n", "3"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # waits for a line
    p.stdin.write(b"the\n")
    p.stdin.flush()
    assert p.stdout.read(1)
    time.sleep(0.2)
    p.send_signal(signal.SIGINT)
    assert p.wait(timeout=60) == 130 and b"ttx: load " in p.stderr.read()
    # A signal that another thread takes, or that comes just before the wait, ends the wait too.
    p = subprocess.Popen([TTX, "run", *M, "-i", "-t", "2"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stderr.readline()
    time.sleep(0.2)
    worker = max(int(t) for t in os.listdir(f"/proc/{p.pid}/task"))
    assert worker != p.pid
    ctypes.CDLL(None).syscall(SYS_TGKILL, p.pid, worker, int(signal.SIGINT))
    assert p.wait(timeout=60) == 130 and b"ttx: load " in p.stderr.read()
    Path("book").write_text("the hand of and " * 24000)
    code, out, err = interrupt("-f", "book", "--json", "int.json", when="prompt")
    s = json.loads(Path("int.json").read_text())
    assert code == 130 and out == b"" and s["stop"] == "interrupt", (code, err)
    assert s["generated_n"] == s["decode_n"] == 0 and s["prompt_n"] < 24000 * 4, s


def test_broken_pipe():
    """A reader that goes away ends the run at once; a full disk is an error."""
    for ignored in (False, True):
        read, write = os.pipe()
        p = subprocess.Popen([TTX, "run", "-m", "long.gguf", "-c", "200000", "-p", "the", "--ignore-eos"],
                             stdout=write, stderr=subprocess.PIPE,
                             preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN if ignored else signal.SIG_DFL))
        os.close(write)
        os.read(read, 1)
        os.close(read)
        err = p.communicate(timeout=60)[1].decode()
        if ignored:
            assert p.returncode == 1, p.returncode
            assert err.splitlines()[1:] == ["ttx: standard output: cannot write: Broken pipe"], err
        else:
            assert p.returncode == -signal.SIGPIPE and len(err.splitlines()) == 1, (p.returncode, err)
    if not os.path.exists("/dev/full"):
        return
    for args in (["run", *M, "-p", "a", "-n", "8", "--temp", "0", "--ignore-eos"], ["plan", *M], ["plan", *M, "--json"],
                 ["eval", *M, "--tokens", "ids"], ["tokenize", *M, "-p", "a"]):
        with open("/dev/full", "wb") as full:
            p = subprocess.run([TTX, *args], stdout=full, stderr=subprocess.PIPE, timeout=60)
        assert p.returncode == 1, (args, p)
        assert p.stderr.decode().splitlines()[-1] == "ttx: standard output: cannot write: No space left on device"
    for args in (["eval", *M, "--tokens", "ids", "--logits", "/dev/full"], ["gguf-dump", *M, "-o", "/dev/full"],
                 ["run", *M, "-p", "a", "-n", 2, "--json", "/dev/full"],
                 ["run", "-m", "moe.gguf", "-p", "a", "-n", 2, "--save-routes", "/dev/full"]):
        p = ttx(*args)
        assert p.returncode == 1, (args, p)
        assert p.stderr.decode().splitlines()[-1] == "ttx: /dev/full: cannot write: No space left on device"


# ---- eval ----

def npy(path):
    """Rows of a float32 .npy file."""
    data = Path(path).read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    n = struct.unpack("<H", data[8:10])[0]
    head = eval(data[10:10 + n])  # noqa: S307 -- the format is a Python literal
    assert head["descr"] == "<f4" and head["fortran_order"] is False and (10 + n) % 64 == 0
    rows, cols = head["shape"]
    v = array.array("f", data[10 + n:])
    assert len(v) == rows * cols
    return [v[i * cols:(i + 1) * cols] for i in range(rows)]


WORDS = "the hand of a man and the end of an inn on the hill and then some more of the same thing "


def test_eval_tokens():
    out = good("eval", *M, "--tokens", "ids", "--logits", "a.npy").stdout.decode()
    rows, ids = npy("a.npy"), json.loads(Path("ids").read_text())
    assert len(rows) == len(ids) == 3 and len(rows[0]) == N_VOCAB
    for r in rows:
        assert abs(sum(map(math.exp, r)) - 1) < 1e-4
    nll = [-rows[i][ids[i + 1]] for i in range(2)]
    m = re.fullmatch(r"perplexity: ([\d.]+) \+/- [\d.]+ over 2 tokens\n", out)
    assert math.isclose(float(m[1]), math.exp(sum(nll) / 2), rel_tol=1e-4), out
    # Rows depend on what came before them alone.
    Path("ids-2").write_text(json.dumps(ids[:2]))
    good("eval", *M, "--tokens", "ids-2", "--logits", "b.npy")
    assert npy("b.npy") == rows[:2]
    Path("ids-1").write_text(json.dumps(ids[:1]))
    assert good("eval", *M, "--tokens", "ids-1", "--logits", "b.npy").stdout == b""
    assert npy("b.npy") == rows[:1]


def test_eval_text():
    """Whole chunks, the second half of each scored, BOS in the first place."""
    c = 64
    Path("words").write_text(WORDS * 20)
    ids = json.loads(good("tokenize", *M, "--ids", "-f", "words").stdout)
    out = good("eval", *M, "-f", "words", "-c", c, "--logits", "w.npy").stdout.decode()
    rows = npy("w.npy")
    n_chunks = len(ids) // c
    assert n_chunks >= 2 and len(rows) == n_chunks * c
    nll = [-rows[i * c + p][ids[i * c + p + 1]] for i in range(n_chunks) for p in range(c // 2, c - 1)]
    mean = sum(nll) / len(nll)
    spread = math.sqrt((sum(x * x for x in nll) / len(nll) - mean * mean) / (len(nll) - 1)) * math.exp(mean)
    m = re.fullmatch(r"perplexity: ([\d.]+) \+/- ([\d.]+) over (\d+) tokens\n", out)
    assert int(m[3]) == len(nll)
    assert math.isclose(float(m[1]), math.exp(mean), rel_tol=1e-5), (out, math.exp(mean))
    trained = good("eval", *M, "-f", "words", "-c", 0).stdout  # as run's -c 0
    assert trained == good("eval", *M, "-f", "words", "-c", 256).stdout
    p = good("eval", *M, "-f", "words", "-c", c, "-b", 64, "-ngl", 99, "-fa", "on")
    assert p.stdout.decode() == out and len(notes(p)) == 3, p
    assert math.isclose(float(m[2]), spread, rel_tol=1e-3), (out, spread)
    # The second chunk by itself, with <s> in the place of its first token, gives the same rows.
    Path("chunk").write_text(json.dumps([1] + ids[c + 1:2 * c]))
    good("eval", *M, "--tokens", "chunk", "--logits", "chunk.npy")
    assert npy("chunk.npy") == rows[c:2 * c]


def kl(*args):
    out = good(*args).stdout.decode().splitlines()
    m = re.fullmatch(r"KL divergence over (\d+) positions: mean (\S+), 10%-trimmed mean (\S+), median "
                     r"(\S+), 99% (\S+), max (\S+)", out[-2])
    top = re.fullmatch(r"same top token: ([\d.]+) %", out[-1])
    return int(m[1]), [float(x) for x in m.groups()[1:]], float(top[1])


def test_eval_compare():
    Path("words").write_text(WORDS * 20)
    text = ["eval", "-f", "words", "-c", 64]
    good(*text, *M, "--logits", "base.npy")
    base = npy("base.npy")
    n, figures, top = kl(*text, *M, "--compare", "base.npy")
    assert n == len(base) and figures == [0] * 5 and top == 100
    for same in (["-t", 1], ["-ub", 5], ["--no-mmap"]):  # the same bits
        assert kl(*text, *M, *same, "--compare", "base.npy")[1] == [0] * 5, same
    f32 = ["-ctk", "f32", "-ctv", "f32"]  # rounded keys and values would blur it
    good(*text, *M, *f32, "--logits", "f32.npy")
    n, figures, top = kl(*text, *M, *f32, "--step", "--compare", "f32.npy")
    assert 0 < figures[4] < 1e-10 and top > 99, (figures, top)
    n, figures, top = kl(*text, *M, "-ctk", "q8_0", "--compare", "base.npy")
    assert 1e-9 < figures[0] < 1e-2 and top > 70, (figures, top)
    # Another model, with every figure computed here.
    n, figures, top = kl(*text, "-m", "other.gguf", "--compare", "base.npy", "--logits", "other.npy")
    each, agree = [], 0
    for p, q in zip(base, npy("other.npy"), strict=True):
        each.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q)))
        agree += max(range(N_VOCAB), key=p.__getitem__) == max(range(N_VOCAB), key=q.__getitem__)
    each.sort()
    cut = n // 10
    want = [sum(each) / n, sum(each[cut:n - cut]) / (n - 2 * cut),
            (each[(n - 1) // 2] + each[n // 2]) / 2, each[math.ceil((n - 1) * 0.99)], each[-1]]
    assert all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(figures, want)), (figures, want)
    assert figures[0] > 0.1 and abs(top - 100 * agree / n) < 0.001


# ---- plan, tokenize ----

def dump(model):
    return json.loads(good("gguf-dump", "-m", model, "--json").stdout)


KEYS = ["op", "layer_id", "tensor_name", "file_offset", "size_bytes", "n_expert", "n_expert_used"]


def test_plan():
    tensors = {t["tensor_name"]: t for t in dump("t.gguf")}
    p = good("plan", *M, "--json")
    assert p.stderr == b""
    plan = json.loads(p.stdout)
    for a in plan:
        t = tensors[a["tensor_name"]]
        assert list(a) == KEYS and a["n_expert"] == a["n_expert_used"] == 0
        assert a["file_offset"] == t["file_offset"] and a["layer_id"] == t["layer_id"], (a, t)
        rows = t["ne1"] if a["op"] == "GET_ROWS" else 1
        assert a["size_bytes"] == t["size_bytes"] // rows
    assert sorted(a["tensor_name"] for a in plan) == sorted(tensors)  # each once
    assert plan[0]["op"] == "GET_ROWS" and plan[0]["layer_id"] is None
    assert [a["layer_id"] for a in plan if a["layer_id"] is not None] == [0] * 9 + [1] * 9
    lines = good("plan", *M).stdout.decode().splitlines()
    assert lines[0].split() == ["op", "layer", "tensor", "file", "offset", "bytes", "experts"]
    for a, line in zip(plan, lines[1:-1], strict=True):
        layer = "-" if a["layer_id"] is None else str(a["layer_id"])
        assert line.split() == [a["op"], layer, a["tensor_name"], str(a["file_offset"]),
                                str(a["size_bytes"]), "-"]
    assert lines[-1] == f"{len(plan)} accesses, {sum(a['size_bytes'] for a in plan)} bytes a token"
    assert good("plan", "-m", "bare.gguf").stdout  # needs no vocabulary


def rows_of(path):
    """{(turn, phase, step, layer): [(expert, weight)]} of a route file, and its head."""
    lines = Path(path).read_text().splitlines()
    head = [line for line in lines if line.startswith("#")]
    assert lines[len(head)].startswith("turn,phase,step,layer,slot,expert,weight,")
    rows = {}
    for line in lines[len(head) + 1:]:
        turn, phase, step, layer, slot, expert, weight = line.split(",")[:7]
        of = rows.setdefault((int(turn), int(phase), int(step), int(layer)), [])
        assert int(slot) == len(of)
        of.append((int(expert), weight))
    return rows, head


def test_routes():
    for model, k, n_expert in (("moe.gguf", 2, 8), ("oss.gguf", 4, 8)):
        command = ["run", "-m", model, "-p", "the hand", "-n", 6, "--temp", 0, "--ignore-eos"]
        plain = good(*command).stdout
        assert good(*command, "--save-routes", "a.csv").stdout == plain
        rows, head = rows_of("a.csv")
        n_prompt = len(json.loads(good("tokenize", "-m", model, "--ids", "-p", "the hand").stdout))
        # the last layer: the prompt's last token alone; the last token drawn is not evaluated
        expected = {(0, 0, s, 0) for s in range(n_prompt)} | {(0, 0, n_prompt - 1, 1)}
        expected |= {(0, 1, n_prompt + i, layer) for i in range(5) for layer in (0, 1)}
        assert set(rows) == expected, (set(rows), expected)
        assert all(len(r) == k and len({e for e, _ in r} & set(range(n_expert))) == k
                   for r in rows.values())
        assert head[0] == "# route_trace v1" and f"n_layer=2 n_expert={n_expert} n_expert_used={k}" in head[1]
        # what the routers chose, replayed, changes nothing; and is saved alike
        p = good(*command, "--routes", "a.csv", "--save-routes", "b.csv", "-t", 1)
        assert p.stdout == plain and Path("a.csv").read_text() == Path("b.csv").read_text()
        # another k: the file is obeyed
        for other in (1, 5):
            p = good(*command, "--n-expert-used", other, "--save-routes", "c.csv")
            assert notes(p) == [f"ttx: {other} experts a token instead of the model's {k}: results are "
                                "not the model's own"], p.stderr
            lossy = p.stdout
            p = good(*command, "--routes", "c.csv", "--save-routes", "d.csv")
            assert p.stdout == lossy and rows_of("c.csv")[0] == rows_of("d.csv")[0]
            assert all(len(r) == other for r in rows_of("d.csv")[0].values())
    assert notes(good(*command, "--n-expert-used", k)) == []


def test_expert_switches():
    """TTX_EXPERT_TRACE_*: what --expert-stats does, asked for by the environment."""
    def run(model, **switches):
        return good("run", "-m", model, "-p", "the hand", "-n", 6, "--temp", 0, "--ignore-eos",
                    env={**os.environ, **{"TTX_EXPERT_TRACE_" + k: v for k, v in switches.items()}})
    good("run", "-m", "moe.gguf", "-p", "the hand", "-n", 6, "--temp", 0, "--ignore-eos", "--expert-stats", "asked.json")
    text = run("moe.gguf").stdout
    p = run("moe.gguf", STATS="1", OUTPUT="switched.json", NAMES="0", PER_LAYER="")
    assert p.stdout == text and not notes(p)
    assert Path("switched.json").read_text() == Path("asked.json").read_text()
    p = run("moe.gguf", STATS="1")
    assert b"expert statistics: 2 layers, 8 experts a layer" in p.stderr
    per_layer = run("moe.gguf", STATS="1", PER_LAYER="1")
    assert re.search(rb"^decode +1 +top-k", per_layer.stderr, re.M) and not re.search(rb"^decode +1", p.stderr, re.M)
    for model in "moe.gguf", "split.gguf":
        p = run(model, NAMES="1")
        names = [t["tensor_name"] for t in dump(model) if t["component_type"] in ("router", "expert")]
        said = [re.fullmatch(r"ttx: layer \d: (.*)", line)[1] for line in notes(p)]
        assert sorted(said) == sorted(names) and len(set(said)) == len(said), said
    for switches in {}, {"STATS": "0", "OUTPUT": "none.json"}, {"STATS": ""}, {"OUTPUT": "none.json"}:
        assert not notes(run("moe.gguf", **switches))
    p = run("t.gguf", STATS="1", NAMES="1", OUTPUT="none.json")  # a dense model
    assert not notes(p) and not os.path.exists("none.json")


def test_plan_of_experts():
    tensors = {t["tensor_name"]: t for t in dump("moe.gguf")}
    plan = json.loads(good("plan", "-m", "moe.gguf", "--json").stdout)
    experts = [a for a in plan if a["op"] == "MUL_MAT_ID"]
    assert [a["tensor_name"] for a in experts] == [f"blk.{i}.ffn_{p}_exps.weight" for i in (0, 1)
                                                   for p in ("gate", "up", "down")]
    for a in plan:
        assert (a["n_expert"], a["n_expert_used"]) == ((8, 2) if a in experts else (0, 0))
    assert all(a["size_bytes"] == tensors[a["tensor_name"]]["size_bytes"] for a in experts)
    lines = good("plan", "-m", "moe.gguf").stdout.decode().splitlines()
    assert sum(line.endswith("2 of 8") for line in lines) == 6
    need = sum(a["size_bytes"] // 4 if a in experts else a["size_bytes"] for a in plan)
    assert lines[-1] == f"{len(plan)} accesses, {need} bytes a token"
    merged = good("run", "-m", "moe.gguf", "-p", "x", "-n", 9, "--temp", 0, "--ignore-eos").stdout
    assert good("run", "-m", "split.gguf", "-p", "x", "-n", 9, "--temp", 0, "--ignore-eos").stdout == merged
    lines = good("plan", "-m", "split.gguf").stdout.decode().splitlines()
    assert lines[-1].endswith(f"accesses, {need} bytes a token")


def test_tokenize():
    assert json.loads(good("tokenize", *M, "--ids", "-p", "the").stdout) == [1, 288]
    assert json.loads(good("tokenize", *M, "--ids", "--no-bos", "-p", "the").stdout) == [288]
    assert good("tokenize", *M, "-p", "the").stdout == b"     1 -> '<s>'\n   288 -> ' the'\n"
    assert good("tokenize", *M, "--detokenize", "-p", "[1, 288]").stdout == b"the"
    text = bytes(range(256))
    ids = good("tokenize", *M, "--ids", "-f", "/dev/stdin", stdin=text).stdout
    assert good("tokenize", *M, "--detokenize", "-f", "/dev/stdin", stdin=ids).stdout == text


def main():
    tests = [(n, f) for n, f in globals().items() if n.startswith("test_")]
    wanted = sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        tiny("t.gguf", "n_ctx=256")
        tiny("other.gguf", "n_ctx=256", "seed=2")
        tiny("long.gguf", "n_ctx=200000")
        tiny("chat.gguf", "n_ctx=256", "chat_template={{'<|im_start|>' + message['role']}}<|im_end|>")
        tiny("d24.gguf", "d_head=24", "n_rot=24")
        tiny("moe.gguf", "arch=mixtral", "n_ctx=256")
        tiny("split.gguf", "arch=mixtral", "n_ctx=256", "split_experts")
        tiny("oss.gguf", "arch=gpt-oss", "n_ctx=256", "expert_type=MXFP4")
        subprocess.run([TINY_MODEL, "bare.gguf"], check=True)
        for name, data in {"text": b"no model\n", "empty": b"", "ids": b"[1, 288, 291]",
                           "ids-high": b"[1, 2, 320]", "ids-half": b"[1, 2.5]", "ids-text": b'["a"]',
                           "ids-negative": b"[-1]", "ids-comma": b"[1,]", "ids-open": b"[1, 2",
                           "ids-tail": b"[1]]", "ids-nul": b"[1]\0[2]", "mixed": b'["a", 1]',
                           "small.npy": npy_of(1, 1), "raw.npy": npy_of(3, N_VOCAB),
                           "nan.npy": npy_of(3, N_VOCAB, EVEN + EVEN[1:] + [math.nan] + EVEN)}.items():
            Path(name).write_bytes(data)
        for name, test in tests:
            if wanted and name not in wanted:
                continue
            start = time.monotonic()
            test()
            print(f"{name}: ok, {time.monotonic() - start:.2f} s", flush=True)
        os.chdir("/")


def npy_of(rows, cols, values=()):
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {cols}), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + array.array("f", values or [0] * rows * cols).tobytes()


if __name__ == "__main__":
    main()
