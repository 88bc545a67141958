#!/usr/bin/env python3
"""At least 2,000 strings that are hard to tokenise, the same on every machine.

    tokenizer_cases.py -o OUT.json [--seed N]        a JSON array of strings

Written-out cases for what pre-tokenizers and merges trip over (contractions, digits, runs of white
space, scripts, emoji sequences, special tokens and things that look like them), and seeded random
mixtures of them and of code points of all planes. No surrogates: strings are valid Unicode.
`invalid_utf8()` gives byte strings that are not, for round trips.
"""
import argparse
import json
import random

CONTRACTIONS = ["'s", "'S", "'t", "'re", "'RE", "'Re", "'ve", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D", "'x", "''s", "'\u017f",
                "\u2019s", "\u2019ll", "\uff07s", "'", "''", "'s's", "'r", "'l", "'v", "'rex", "'sss"]
SPACES = [" ", "  ", "   ", "    ", "\t", "\t\t", "\n", "\n\n", "\n\n\n", "\r\n", "\r\n\r\n", "\r", " \n", "\n ", " \n ", "\t\n", "\n\t",
          "\u00a0", "\u00a0\u00a0", "\u2003", "\u3000", "\u3000\u3000", "\u0085", "\u1680", "\u2028", "\u2029", "\u202f", "\u205f",
          "\u200b", "\u200a", "\v", "\f", "\x1c", "\x1f", "\ufeff", " " * 7, " " * 16, " " * 33, "\t" * 9, "\n" * 12, " \u00a0 ", "\u180e"]
WORDS = ["hello", "Hello", "HELLO", "hELLO", "heLLo", "iPhone", "McDonald", "don't", "I'll", "we've", "THEY'RE", "o'clock", "rock'n'roll", "x",
         "antidisestablishmentarianism", "naïve", "café", "cafe\u0301", "Ångström", "A\u030angstro\u0308m", "straße", "STRASSE", "ﬁnance", "ǅungla",
         "İstanbul", "ıstanbul", "K\u212aelvin", "œuvre", "Ærøskøbing", "smørrebrød", "zażółć", "gęślą", "příliš", "žluťoučký", "türkçe", "señor"]
NUMBERS = ["0", "7", "42", "123", "1234", "12345", "123456", "1234567", "3.14159", "1,000,000", "1e-5", "0x1F", "-273.15", "1/2", "½", "²", "x²", "Ⅷ",
           "ⅷ", "①", "㊿", "٣٤٥", "१२३", "๑๒๓", "１２３", "𝟘𝟙𝟚", "𝟏𝟐𝟑𝟒", "〇一二三", "10%", "$5.99", "€3", "#1", "1st", "v1.2.3", "2024-02-30",
           "12:34:56", "127.0.0.1", "00000000", "9" * 50]
SCRIPTS = ["日本語のテキスト", "東京都", "カタカナ", "ひらがな", "ﾊﾝｶｸ", "你好，世界！", "简体中文", "繁體中文", "한국어 문장", "한글", "\u1112\u1161\u11ab", "ㅋㅋㅋㅋ",
           "العربية", "السَّلامُ عَلَيْكُمْ", "لا", "ﷺ", "עברית", "שָׁלוֹם", "ภาษาไทย", "กำลังทดสอบ", "हिन्दी", "क्षत्रिय", "বাংলা", "தமிழ்", "తెలుగు", "മലയാളം", "සිංහල",
           "မြန်မာ", "ខ្មែរ", "ລາວ", "བོད་ཡིག", "ქართული", "ᲥᲐᲠᲗᲣᲚᲘ", "Հայերեն", "Русский язык", "Ёжик", "Українська", "Ελληνικά", "ὀξύς", "አማርኛ", "ᏣᎳᎩ", "ᚠᛇᚻ",
           "𐌰𐌽𐌳", "𒀭𒂗", "𓀀𓁐", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "𝒜𝓑", "ℕℤℝ", "𠮷野家", "𪚥", "𰻝", "Tiếng Việt", "Ti\u1ebf\u0301ng", "ꦗꦮ", "ᠮᠣᠩᠭᠣᠯ"]
EMOJI = ["😀", "👍🏽", "👩‍👩‍👧‍👦", "👨🏿‍🚀", "🏳️‍🌈", "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "🇩🇪", "🇩🇪🇫🇷", "1️⃣", "#️⃣", "❤️", "❤", "☺︎",
         "🤷🏻‍♂️", "🧑‍🤝‍🧑", "✈️", "©️", "™", "🫠", "😀😀😀😀", "‍", "️", "\u20e3", "🏽"]
MARKS = ["e\u0301", "\u0301", "\u0301\u0302\u0303", "a\u0300\u0316\u0330", "Z̸̢̛͍͓a̷l̵g̶o̴", "n\u0303", "\u0e33", "\u093f", "\u05b8", "\u064e", "x\u20d7", "\u1dc4b", "\u0489",
         "o\u0308\u0304", "\u3099か", "か\u3099", "\ufe0f", "\U000e0100", "𝅘𝅥𝅮"]
PUNCTUATION = ["!", "...", "…", "?!", "--", "—", "–", "=", "==", "===", "!=", "->", "=>", "::", "//", "/*", "*/", "\\", "\\n", "()", "(((", ")))", "[]", "{}",
               "<>", "\"", "“”", "«»", "„“", "`", "```", "'''", "\"\"\"", "@", "#", "##", "###", "$", "%", "^", "&", "&&", "*", "**", "_", "__", "~", "|",
               "||", ";", ":", ",", ".", "。", "、", "！", "？", "「」", "¿", "¡", "§", "•", "·", "→", "≤", "∑", "∀x∈ℝ", "¯\\_(ツ)_/¯", "\u0000", "\x01", "\x7f",
               "/\n", "!\n\n", "...\r\n", "}\n}\n", "))\n", "./\n", "/\r\n/", "-\n-"]
ODD = ["\u2581", "\u2581\u2581", "a\u2581b", "Ġ", "Ċ", "ĠĠ", "<0x41>", "<0x0A>", "<0xFF>", "\ufffd", "\ufffe", "\uffff", "\U0010ffff", "\U0010fffd", "\ue000",
       "\U000f0000", "\U000e0001", "\u0378", "\U0003fffd", "\u202eabc\u202c", "\u2066x\u2069", "\u00ad", "\u200c", "\u200d", "\u2060", "\u034f", "ſ", "ẞ", "ŉ", "ǆ"]
SPECIAL = ["<s>", "</s>", "<unk>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|finetune_right_pad_id|>",
           "<|reserved_special_token_5|>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|fim_prefix|>", "<|vision_start|>", "<think>", "</think>",
           "<tool_call>", "</tool_call>", "<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>", "<|startoftext|>", "<|constrain|>",
           "<repo_name>", "<file_sep>", "<gh_stars>", "<empty_output>", "<jupyter_start>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>",
           "<unused7>", "[INST]", "[/INST]", "<<SYS>>", "<|im_start", "im_end|>", "<|", "|>", "<|nonsense|>", "< |im_end|>", "<|IM_END|>", "<<|im_end|>>", "<s", "s>"]
CODE = [
    "def f(x):\n    return x**2\n\n\nif __name__ == '__main__':\n\tprint(f(3))\n", "for (int i = 0; i < n; ++i) { a[i] += b[i]; }\n", "#include <stdio.h>\n\nint main(void)\n{\n\treturn 0;\n}\n",
    "SELECT * FROM t WHERE x='it''s' AND y>=10;", "<div class=\"a b\">\n  <p>Hi&nbsp;there</p>\n</div>", "{\"key\": [1, 2.5, null, true, \"\\u00e9\\n\"]}", "$ ls -la | grep '^d' > out.txt 2>&1",
    "fn main() -> Result<(), Box<dyn Error>> { println!(\"{:?}\", x?); Ok(()) }", "a=b;c=d;;e", "https://example.org/path?q=a%20b&c=d#frag", "user.name+tag@example.co.uk", "C:\\Users\\me\\file.txt",
    "\\documentclass{article}\\begin{document}$\\frac{1}{2}$\\end{document}", "| a | b |\n|---|---|\n| 1 | 2 |\n", "- [ ] task\n- [x] done\n\n1. one\n   2. two\n", "lambda x: x if x else -x",
    "QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "deadbeefCAFEBABE0123456789abcdef", "camelCaseVariableName", "snake_case_variable_name", "SCREAMING_SNAKE_CASE", "kebab-case-name", "std::vector<std::pair<int,int>>",
    "x\n  y\n    z\n  w\n", "\tif x:\n\t\ty()\n\n\n\telse:\n", "    \n    \n", "a  b   c    d     e", "trailing space ", " leading", "  two leading", "\n\n  mixed \t \n", "no\u00a0break", "tab\tseparated\tvalues\r\n1\t2\t3\r\n",
    "//////// comment ////////", "==========", "-" * 80, "*" * 33, "#" * 20, "." * 100, "a" * 300, "ab" * 200, "A" * 64, "0" * 64, "é" * 100, "日" * 100, "😀" * 40, " " * 300 + "x", "\n" * 100, "x " * 100,
]
POOLS = [CONTRACTIONS, SPACES, WORDS, NUMBERS, SCRIPTS, EMOJI, MARKS, PUNCTUATION, ODD, SPECIAL]
# Ranges of code points, so that every plane and every kind of character occurs.
RANGES = [(0x20, 0x7e), (0x00, 0x1f), (0x80, 0xff), (0x100, 0x24f), (0x250, 0x36f), (0x370, 0x5ff), (0x600, 0x8ff), (0x900, 0xdff), (0xe00, 0x10ff), (0x1100, 0x13ff),
          (0x1400, 0x1cff), (0x1d00, 0x1fff), (0x2000, 0x2bff), (0x2c00, 0x2fff), (0x3000, 0x33ff), (0x3400, 0x9fff), (0xa000, 0xabff), (0xac00, 0xd7ff), (0xe000, 0xf8ff),
          (0xf900, 0xffff), (0x10000, 0x1ffff), (0x1d100, 0x1d7ff), (0x1f000, 0x1faff), (0x20000, 0x2ffff), (0x30000, 0x3ffff), (0x40000, 0xdffff), (0xe0000, 0xeffff), (0xf0000, 0x10ffff)]


def cases(seed=1):
    rng = random.Random(seed)
    out = [""] + [s for pool in POOLS for s in pool] + CODE
    out += [w + c for w in ("it", "IT", "été", "日", "7", "x ", "_") for c in CONTRACTIONS]
    out += [a + s + b for s in SPACES for a, b in (("a", "b"), ("", "b"), ("a", ""), (".", "1"), ("日", "x"), ("\n", "!"))]
    out += [f"x{t}y {t} z{t}" for t in SPECIAL] + [f"{t}\n{t}" for t in SPECIAL] + [f"  {t}  a" for t in SPECIAL]
    for n in range(1, 13):  # digits are grouped by threes, from the left, or one at a time
        out += ["1234567890123"[:n], " " + "9" * n, "a" + "5" * n + "b"]
    for _ in range(500):    # mixtures of written-out pieces
        out.append("".join(rng.choice(rng.choice(POOLS)) for _ in range(rng.randint(2, 12))))
    for _ in range(200):    # words as a text would have them, with odd spaces between
        out.append("".join(rng.choice(WORDS + NUMBERS + SCRIPTS) + rng.choice(SPACES[:20] + PUNCTUATION[:40] + [" "] * 40) for _ in range(rng.randint(3, 20))))
    for low, high in RANGES:
        for n in (1, 2, 5, 17):
            out.append("".join(chr(rng.randint(low, high)) for _ in range(n)))
            out.append(" ".join("".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4))) for _ in range(n)))
    for _ in range(400):    # code points of any range, next to each other
        out.append("".join(chr(rng.randint(*rng.choice(RANGES))) for _ in range(rng.randint(1, 30))))
    for _ in range(100):    # random case, random runs
        out.append("".join(rng.choice("abcXYZ \n'12") * rng.choice((1, 1, 1, 2, 3, 9)) for _ in range(rng.randint(5, 60))))
    out += ["\n".join(rng.sample(CODE[:40], 4)) for _ in range(30)]
    out = [s for s in dict.fromkeys(out) if not any(0xd800 <= ord(c) < 0xe000 for c in s)]
    assert len(out) >= 2000, len(out)
    return out


def invalid_utf8(seed=1):
    """Byte strings with stray, missing, overlong and out-of-range sequences."""
    rng = random.Random(seed)
    out = [b"\xff", b"\x80", b"a\xc3", b"\xc3(", b"\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x9f\x98 \x80", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80",
           b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfe\xff", b"caf\xe9", b"\x80" * 20, b"abc\xf0\x9f\n\xe2def", "é".encode()[::-1], bytes(range(256)), bytes(range(255, -1, -1))]
    out += [rng.randbytes(rng.randint(1, 60)) for _ in range(20)]
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-o", "--out", required=True)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    strings = cases(a.seed)
    with open(a.out, "w") as f:
        json.dump(strings, f)
    print(f"{len(strings)} strings")


if __name__ == "__main__":
    main()
