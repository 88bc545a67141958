#!/usr/bin/env python3
"""Writes unicode_table.h: the class of every code point, as sorted ranges.

    python3 -m venv v && v/bin/pip install unicodedata2==15.1.0
    v/bin/python engine/tok/make_unicode.py > engine/tok/unicode_table.h

Python's own unicodedata is as old as the Python; unicodedata2 is the same module at a stated
version of Unicode. 15.1 is the version of llama.cpp's tables, whose splits ttx must reproduce.
"""

import unicodedata2 as ud

CLASSES = {"L": 1, "N": 2, "P": 3, "S": 4, "M": 5}
SPACE = 6
# The White_Space property, which \s means in the patterns; general categories do not tell it.
WHITE = {*range(0x09, 0x0E), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B)}
WHITE |= {0x2028, 0x2029, 0x202F, 0x205F, 0x3000}


def code_point_class(cp):
    if cp in WHITE:
        return SPACE
    return CLASSES.get(ud.category(chr(cp))[0], 0)


def main():
    ranges = []
    for cp in range(0x110000):
        c = code_point_class(cp)
        if not ranges or ranges[-1][1] != c:
            ranges.append((cp, c))
    words = [f"0x{start << 3 | c:x}," for start, c in ranges]
    print("/* unicode_table.h -- written by make_unicode.py: do not edit.")
    print(" *")
    print(f" * Unicode {ud.unidata_version}. Each word is first code point << 3 | class; the range ends")
    print(" * where the next one starts. */")
    print("/* clang-format off */")
    print(f"static const uint32_t unicode_ranges[{len(words)}] = {{")
    line = "   "
    for w in words:
        if len(line) + 1 + len(w) > 100:
            print(line)
            line = "   "
        line += " " + w
    print(line)
    print("};")
    print("/* clang-format on */")


main()
