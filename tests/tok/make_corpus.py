#!/usr/bin/env python3
"""Seeds for fuzz_tokenizer: texts for every fixed vocabulary, and a few vocabularies.

    make_corpus.py FOLDER
"""
import sys
from pathlib import Path

TEXTS = [
    "Hello world's 123 we'LL! abc ab\u00e9", "a  b\n\n c\r\n\r\n  ", "<x>y<x <x> y<x>y<", "\u4e16\u754c\u3042\u3000\u3002 ~x!abc",
    "e\u0301\U0001F469\u200D\U0001F467 \u00c9AB\u00e9A", "\u2581a \u2581", " ", "",
]
BROKEN = [b"\xff\xfe\x00a", b"\xc3", b"\xe6\x97 a", b"a\xf0\x9f\x98", b"\xed\xa0\x80\xc0\x80"]


def vocabulary(pre, tokens, merges, text):
    """As check_vocab cuts it: kind, counts, tokens with type and score, merges, BOS, text."""
    out = bytes([0x80, pre, len(tokens), len(merges)])
    for kind, token in tokens:
        out += bytes([kind << 5 | len(token)]) + token + b"\xff"
    for merge in merges:
        out += bytes([len(merge)]) + merge
    return out + b"\1" + text


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    n = 0
    for which in range(12):
        for text in [t.encode() for t in TEXTS] + BROKEN:
            for parse in (0, 0x20):
                (folder / f"text-{n:03}").write_bytes(bytes([which | parse]) + text)
                n += 1
    for pre in (0x00, 0x82, 0x05, 0x0B, 0x8B):
        tokens = [(1, b"a"), (1, b"b"), (1, b"ab"), (3, b"<s>"), (4, b"ab<"), (6, b"<0x41>"), (2, b"?"), (1, b"")]
        (folder / f"vocab-{pre:02x}").write_bytes(vocabulary(pre, tokens, [b"a b", b"b c", b" "], b"abab<s>ab<A \xff"))


main()
