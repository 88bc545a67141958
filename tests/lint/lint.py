#!/usr/bin/env python3
"""Checks that keep the tree as docs/architecture.md describes it.

    lint.py CHECK SOURCE_DIR BUILD_DIR

CHECK is one of the functions below that take (tree). Prints one line per finding and exits with 1
if there are any; exits with 77 (skipped) where the tool it needs is missing.
"""
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# The one direction of dependence: what the files of a folder may include, besides their own.
# The longest folder that holds a file counts. None: everything.
MAY_INCLUDE = {
    "engine/base": [],
    "gguf": ["engine/base"],
    "kernels": ["engine/base"],
    "trace": ["engine/base"],
    "prefetch": ["engine/base", "trace"],
    "engine": ["engine/base", "gguf", "kernels", "trace", "prefetch"],
    "models": ["engine/base", "gguf", "kernels", "trace", "prefetch", "engine"],
    "tests": None,
    "bench": None,
}

# Headers that only these files may include, tests and bench aside.
RESTRICTED = {
    # Every access to a weight goes through the op layer, so that none escapes the trace. The runtime
    # chooses the table.
    "kernels.h": ["kernels/*", "engine/op*.c", "engine/op_int.h", "engine/runtime.c"],
    "op_int.h": ["engine/op*.c"],
}

# Files over everything, besides main.c and cmd_*.c: what commands share, and the library's face.
TOP_FILES = ["engine/engine_args.c", "engine/engine_ram.c", "engine/engine_trace.c", "engine/generate.c", "engine/note.c", "engine/ttx_api.c"]

# Commands and main print; libraries never do, and never end the process.
FORBIDDEN_CALLS = ["abort", "exit", "_exit", "quick_exit", "assert", "printf", "vprintf", "puts",
                   "putchar", "perror", "system"]
FORBIDDEN_WORDS = ["stdout", "stderr"]
ALLOWED = {
    "engine/engine_args.c": ["stderr"],  # progress, and statistics asked for there
    "engine/note.c": ["stderr"],
    "engine/generate.c": ["stderr"],
    "engine/base/outfile.c": ["stdout"],  # opens what commands write to: a file, or standard output
}

# Names that may occur in several folders.
COMMON_NAMES = {"CMakeLists.txt", "README.md", "__init__.py", ".gitignore"}

SKIPPED = 77


class Tree:
    def __init__(self, source, build):
        self.source, self.build = Path(source).resolve(), Path(build).resolve()
        self.files = []
        for folder, folders, names in os.walk(self.source):
            folders[:] = sorted(d for d in folders if d not in (".git", "node_modules", "__pycache__")
                                and not d.startswith("build"))
            here = Path(folder).relative_to(self.source)
            self.files += [here / n for n in sorted(names) if not n.endswith((".pyc", ".gguf", ".log"))]

    def text(self, file):
        return (self.source / file).read_text(errors="replace")

    def with_suffix(self, *suffixes):
        return [f for f in self.files if f.suffix in suffixes]


def folder_of(file):
    """The row of MAY_INCLUDE that a file belongs to; None for the files of no library."""
    rows = [r for r in MAY_INCLUDE if file.as_posix().startswith(r + "/")]
    return max(rows, key=len, default=None)


def is_program(file):
    return file.name == "main.c" or file.name.startswith("cmd_")


def without_comments(code, strings=True):
    """C code with comments blanked, and with string literals emptied unless `strings`."""
    def blank(m):
        if m[0][0] == "/":
            return re.sub(r"[^\n]", " ", m[0])
        return m[0] if strings else '""'
    return re.sub(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, code,
                  flags=re.S)


def tool(name):
    if not shutil.which(name):
        print(f"{name} is not installed")
        sys.exit(SKIPPED)
    return name


def output_of(command, **options):
    """Findings of a tool: its output, if it failed."""
    r = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    return r.stdout.strip().splitlines() or [f"{command[0]} failed"] if r.returncode else []


def includes(tree):
    """Includes follow the arrows between the folders."""
    homes = {f.name: f for f in tree.with_suffix(".h")}
    for file in tree.with_suffix(".c", ".h"):
        folder = folder_of(file)
        if folder is None:
            yield f"{file}: belongs to no folder that tests/lint/lint.py knows"
            continue
        for name in re.findall(r'^\s*#\s*include\s+"([^"]+)"', without_comments(tree.text(file)), re.M):
            name = Path(name).name
            home = homes.get(name)
            if home is None:
                yield f'{file}: includes "{name}", which no folder has'
                continue
            there = folder_of(home)
            if MAY_INCLUDE[folder] is None:
                continue
            if not any(file.match(pattern) for pattern in RESTRICTED.get(name, ["*"])):
                yield f"{file}: may not include {name}; only {', '.join(RESTRICTED[name])} may"
            elif there == folder:
                continue
            elif name.endswith("_int.h"):
                yield f"{file}: includes {home}, which is internal to {there}"
            elif there not in MAY_INCLUDE[folder] and not is_program(file) and file.as_posix() not in TOP_FILES:
                yield f"{file}: {folder} may not include from {there}: {name}"


def calls(tree):
    """Libraries neither print nor end the process."""
    pattern = re.compile(r"(?<![\w.>])(?:(" + "|".join(FORBIDDEN_CALLS) + r")\s*\(|("
                         + "|".join(FORBIDDEN_WORDS) + r")\b)")
    for file in tree.with_suffix(".c", ".h"):
        if is_program(file) or folder_of(file) in ("tests", "bench"):
            continue
        for number, line in enumerate(without_comments(tree.text(file), strings=False).splitlines(), 1):
            for m in pattern.finditer(line):
                word = m[1] or m[2]
                if word not in ALLOWED.get(file.as_posix(), []):
                    yield f"{file}:{number}: a library may not use {word}"


def globals(tree):  # noqa: A001
    """Libraries keep nothing in writable memory of their own: everything is passed."""
    # A line of objdump: address, flags, section, size, name. Sections of constants that need
    # relocation (.data.rel.ro) are not writable.
    pattern = re.compile(r"^\S+ .{5}[^d][O ] (\.t?data|\.t?bss|\*COM\*)(?!\.rel\.ro)\S*\s+\S+ (?:\.hidden )?(\S+)", re.M)
    for row in (r for r, others in MAY_INCLUDE.items() if others is not None):
        for file in sorted((tree.build / row / "CMakeFiles").glob("ttx_*/*.o")):
            symbols = subprocess.run([tool("objdump"), "-t", file], check=True, stdout=subprocess.PIPE,
                                     text=True).stdout
            for m in pattern.finditer(symbols):
                yield f"{row}/{file.stem}: {m[2]} is a mutable global"


def names(tree):
    """A file's name says which file it is."""
    seen = {}
    for file in tree.files:
        if file.name in COMMON_NAMES:
            continue
        if file.name in seen:
            yield f"{file}: has the name of {seen[file.name]}"
        seen.setdefault(file.name, file)


def docs(tree):
    """Files that documents name exist, and so do documents that anything names."""
    path = re.compile(r"(?<![\w/.~-])((?:engine|gguf|kernels|trace|prefetch|bench|tests|models|docs|\.ci)"
                      r"/[\w./*-]*[\w*/])")
    for file in tree.files:
        if file.suffix in (".md", ".c", ".h", ".py", ".sh", ".txt", ".yml") or not file.suffix:
            text = tree.text(file)
            found = path.findall(text) if file.suffix == ".md" else re.findall(r"\bdocs/[\w-]+\.md\b", text)
            for name in sorted(set(found)):
                name = name.rstrip("/")
                # A program is named without the ending of its source.
                if not any(tree.source.glob(name)) and not any(tree.source.glob(name + ".*")):
                    yield f"{file}: names {name}, which does not exist"
        if file.suffix == ".md":
            for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", tree.text(file)):
                if not (tree.source / file.parent / link).exists():
                    yield f"{file}: links to {link}, which does not exist"


def format(tree):  # noqa: A001
    """All C files are formatted by .clang-format, as version 14 understands it."""
    tool("clang-format")
    version = subprocess.run(["clang-format", "--version"], stdout=subprocess.PIPE, text=True).stdout
    if " 14." not in version:
        print(f"formatting is defined by clang-format 14; this is {version.strip()}")
        sys.exit(SKIPPED)
    files = [str(f) for f in tree.with_suffix(".c", ".h")]
    findings = output_of(["clang-format", "--dry-run", "-Werror", *files], cwd=tree.source)
    yield from sorted({f.split(":")[0] + ": run clang-format -i on it" for f in findings if ": error:" in f})


def tidy(tree):
    """clang-tidy, with the checks of .clang-tidy, on every source file that is built."""
    tool("clang-tidy")
    with open(tree.build / "compile_commands.json") as f:
        built = sorted({c["file"] for c in json.load(f)})
    command = ["clang-tidy", "-p", str(tree.build), "--quiet", "--extra-arg=-Wno-unknown-warning-option"]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for lines in pool.map(lambda file: output_of([*command, file]), built):
            errors = [line for line in lines if re.search(r": (error|warning): ", line)]
            yield from errors or lines


def cppcheck(tree):
    """cppcheck on the libraries and commands."""
    # Weights are bytes that are read as what their type says: casts between pointers are the design.
    # Uninitialised variables and values out of range: it misjudges loops; the compilers, clang-tidy
    # and the sanitizers see them more exactly.
    command = [tool("cppcheck"), "--quiet", "--error-exitcode=1", "-j", str(os.cpu_count()),
               "--enable=warning,performance,portability", "--suppress=invalidPointerCast",
               "--suppress=uninitvar", "--suppress=invalidFunctionArg", "--inline-suppr", "--std=c11",
               "-D_GNU_SOURCE", "-D__x86_64__",
               "--template={file}:{line}: {id}: {message}"]
    files = [f for f in tree.with_suffix(".c") if folder_of(f) != "tests"]
    folders = sorted({str(f.parent) for f in tree.with_suffix(".h")})
    yield from output_of([*command, *[f"-I{d}" for d in folders], *map(str, files)], cwd=tree.source)


def shell(tree):
    """shellcheck on every shell script."""
    # SC2115, rm -rf "$x/y" with an empty x: the scripts end at unset variables.
    scripts = [str(f) for f in tree.files if re.match(r"#!.*\b(ba)?sh\b|# shellcheck shell", tree.text(f))]
    yield from output_of([tool("shellcheck"), "-x", "-e", "SC2115", *scripts], cwd=tree.source)


CHECKS = {f.__name__: f for f in (includes, calls, globals, names, docs, format, tidy, cppcheck, shell)}


def main():
    check, source, build = sys.argv[1:]
    findings = list(CHECKS[check](Tree(source, build)))
    print("\n".join(findings))
    sys.exit(1 if findings else 0)


if __name__ == "__main__":
    main()
