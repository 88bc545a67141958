"""What the comparisons share: where things are, and how to run llama.cpp, ttx and the generators."""
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent / "fixtures"
CACHE = Path(os.environ.get("TTX_CACHE") or Path.home() / ".cache/ttx")
NODE = CACHE / "reference/bin/node"

sys.path.insert(0, str(FIXTURES))
import archs  # noqa: E402
import fetch_models  # noqa: E402
import quantise  # noqa: E402


class Failed(Exception):
    """A program did not do what was asked; the message says which and what it printed."""


def run(*argv, env=None, **kw):
    """Standard output of a program, as bytes; Failed if it ends with another code than 0."""
    argv = [str(a) for a in argv]
    p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env and {**os.environ, **env}, **kw)
    if p.returncode:
        raise Failed(f"{' '.join(argv)}: exit code {p.returncode}\n{p.stderr.decode(errors='replace').strip()[-2000:]}")
    return p.stdout


def fixture(tool, *args):
    """Run tests/fixtures/TOOL.py."""
    return run(sys.executable, FIXTURES / f"{tool}.py", *args)


def llama(jobs, work, isa=None):
    """Run jobs of driver.mjs (argument lists) in one process."""
    if not jobs:
        return
    path = work / "jobs.json"
    path.write_text(json.dumps([[str(a) for a in j] for j in jobs]))
    run(NODE, HERE / "driver.mjs", "jobs", path, env=isa and {"TTX_REF_ISA": isa})


def dump(path, value):
    path.write_text(json.dumps(value))
    return path


def load(path):
    return json.loads(path.read_text())
