#!/usr/bin/env python3
"""`ttx tokenize` from outside: output forms, input forms, there and back, errors.

    tokenize_test.py TTX
"""
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import vocab_files

BYTES = bytes(range(256)) * 2 + "Grüße, 世界 <s> ab\n".encode() + b"\xff\xe4\xb8"


def main():
    ttx = str(Path(sys.argv[1]).resolve())
    os.chdir(tempfile.mkdtemp(prefix="ttx-tokenize-"))
    Path("bpe.gguf").write_bytes(vocab_files.bpe("gpt-2", ["a b", "Ġ a"], ["<x>"]))
    Path("spm.gguf").write_bytes(vocab_files.spm())
    Path("text").write_bytes(BYTES)

    def run(*args, stdin=b"", code=0):
        p = subprocess.run([ttx, "tokenize", *args], input=stdin, capture_output=True, timeout=60)
        assert p.returncode == code, (args, p)
        return p.stdout if code == 0 else p.stderr.decode()

    assert run("-m", "bpe.gguf", "-p", "ab<x>\n a", "--ids") == b"[256, 258, 10, 257]\n"
    assert run("-m", "bpe.gguf", "-p", "a<x>", "--ids", "--no-parse-special") == b"[97, 60, 120, 62]\n"
    assert run("-m", "bpe.gguf", "-p", "a\n") == b"    97 -> 'a'\n    10 -> '\n'\n"
    assert run("-m", "bpe.gguf", "-p", "", "--ids") == b"[]\n"
    assert run("-m", "bpe.gguf", "-p", r"\n", "--ids") == b"[92, 110]\n", "escapes are text"
    assert run("-m", "spm.gguf", "-p", "a", "--ids") == b"[1, 262]\n"
    assert run("-m", "spm.gguf", "-p", "a", "--ids", "--no-bos") == b"[262]\n"
    assert run("-m", "spm.gguf", "-p", "", "--ids") == b"[1]\n"

    for model in "bpe.gguf", "spm.gguf":
        for extra in [], ["--no-bos"], ["--no-parse-special"]:
            ids = run("-m", model, "--ids", "-f", "text", *extra)
            assert run("-m", model, "--ids", "-f", "/dev/stdin", *extra, stdin=BYTES) == ids
            assert run("-m", model, "--detokenize", "-f", "/dev/stdin", *extra, stdin=ids) == BYTES, (model, extra)
    assert run("-m", "spm.gguf", "--detokenize", "-p", "1 262\n260", "--no-bos") == b"<s>aa"
    assert run("-m", "spm.gguf", "--detokenize", "-p", "") == b""

    texts = ["ab", "", "ü", " a\n"]
    Path("lines").write_text(json.dumps(texts))
    lines = json.loads(run("-m", "bpe.gguf", "--lines-json", "lines", "--ids"))
    assert lines == [json.loads(run("-m", "bpe.gguf", "--ids", "-p", t)) for t in texts]
    Path("lines").write_text("[]")
    assert json.loads(run("-m", "bpe.gguf", "--lines-json", "lines")) == []

    model = ["-m", "bpe.gguf"]
    for args, code, message in [
        (model, 2, "tokenize: expects one of -p, -f and --lines-json"),
        ([*model, "-p", "a", "-f", "text"], 2, "tokenize: expects one of -p, -f and --lines-json"),
        ([*model, "-f", "nothing"], 1, "nothing: cannot open: No such file or directory"),
        ([*model, "-f", "."], 1, ".: cannot read: Is a directory"),
        ([*model, "--detokenize", "-p", "1 x2"], 2, "--detokenize: expected token ids, found 'x2'"),
        ([*model, "--detokenize", "-p", "259"], 2, "--detokenize: expected ids below 259, found 259"),
        ([*model, "--detokenize", "-p", "-1"], 2, "--detokenize: expected ids below 259, found -1"),
        ([*model, "--detokenize", "--lines-json", "lines"], 2, "--detokenize takes its ids from -p or -f"),
        ([*model, "--lines-json", "text"], 2, "text: expected a JSON array of strings"),
    ]:
        assert run(*args, code=code) == f"ttx: {message}\n", (args, run(*args, code=code))
    Path("lines").write_text('["a", 1]')
    p = subprocess.run([ttx, "tokenize", *model, "--lines-json", "lines"], capture_output=True, timeout=60)
    assert p.stdout == b"", "nothing is printed of what is refused"
    Path("lines").write_text("[1]")
    assert run(*model, "--lines-json", "lines", code=2) == "ttx: lines: expected strings only\n"
    Path("lines").write_text('["\\u0000"]')
    assert "NUL" in run(*model, "--lines-json", "lines", code=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
