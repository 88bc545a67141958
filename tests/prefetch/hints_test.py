#!/usr/bin/env python3
"""What one run's trace teaches, the next one uses, and says the same text.

    hints_test.py TTX TINY_MODEL

Traces a run of a small model with experts, makes hints of it, and runs with them in the streaming and
the mapped mode; hints of another model, and files that are none, are refused in one line.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

FIELDS = ["arch=mixtral", "n_embd=256", "n_layer=4", "n_expert=8", "n_ff=512", "n_ff_exp=512", "n_head=4",
          "n_head_kv=2", "d_head=64", "n_rot=64", "type=Q8_0", "n_vocab=1024", "n_ctx=256", "vocab=1"]


def main():
    ttx, tiny = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        model, other = here / "model.gguf", here / "other.gguf"
        subprocess.run([tiny, model, *FIELDS], check=True)
        subprocess.run([tiny, other, *FIELDS, "n_layer=3"], check=True)

        def run(*options, model=model):
            command = [ttx, "run", "-m", model, "-p", "the end of the", "-n", "32", "--temp", "0", "--ignore-eos",
                       "-c", "128", "-ub", "32", "-t", "2", "--json", here / "run.json", *map(str, options)]
            p = subprocess.run(command, capture_output=True)
            return p.returncode, p.stdout, p.stderr.decode()

        def numbers():
            return json.loads((here / "run.json").read_text())["residency"]

        code, text, said = run("--trace", here / "trace", "--trace-level", "tensor")
        assert code == 0, said
        subprocess.run([ttx, "report", "--hints", here / "trace"], check=True, stdout=subprocess.DEVNULL)
        hints = here / "trace" / "analysis" / "hints.json"
        pattern = here / "trace" / "access_pattern.json"
        known = json.loads(hints.read_text())
        assert known["warm_experts"] and known["pin"]["ranges"]

        code, _, said = run("--ram", "1M")
        least = int(said.split("at least ")[1].split()[0])
        budget = ["-lm", "stream", "--ram", f"{least + 7}M"]
        code, found, said = run(*budget)
        assert (code, found) == (0, text), said
        cold = numbers()
        assert cold["warm_bytes"] == 0 and 0 < cold["n_expert_slots"] < cold["n_experts"], cold

        code, found, said = run(*budget, "--hints", hints)
        assert (code, found) == (0, text), said
        warm = numbers()
        assert warm["warm_bytes"] > 0, warm
        assert warm["demand_bytes"] < cold["demand_bytes"], (warm, cold)

        code, found, said = run(*budget, "--hints", hints, "--pattern", pattern)
        assert (code, found) == (0, text), said
        assert 0 < numbers()["guesses_used"] <= numbers()["guesses"], numbers()
        print("demand MiB: cold %.1f, with hints %.1f, with the pattern %.1f; %d guesses, %d right" % (
            cold["demand_bytes"] / 2**20, warm["demand_bytes"] / 2**20, numbers()["demand_bytes"] / 2**20,
            numbers()["guesses"], numbers()["guesses_used"]))

        code, found, said = run("-lm", "mmap", "--hints", hints)
        assert (code, found) == (0, text), said
        if "cannot lock" not in said:
            locked = numbers()["locked_bytes"]
            assert 0 < locked <= known["pin"]["ram"], (locked, known["pin"]["ram"])
            code, found, said = run("-lm", "mmap", "--hints", hints, "--pin", "300K")
            assert (code, found) == (0, text), said
            assert 0 < numbers()["locked_bytes"] <= 300 * 1024, numbers()

        garbage = here / "garbage.json"
        garbage.write_bytes(b"{\"format\": 1, \xff")
        listed = here / "list.txt"
        listed.write_text("# weights\nblk.0.attn_q.weight\nno.such.tensor\n")
        for options, expected in [
            (["--hints", garbage], "garbage.json: expected JSON, found something else at byte"),
            (["--pattern", garbage], "garbage.json: expected JSON, found something else at byte"),
            (["--pattern", hints], "expected a list 'per_token_pattern', found none"),
            (["--hints", pattern], "expected 'pin' or 'warm_experts', found neither"),
            (["--pin", f"@{listed}"], "list.txt: line 3: expected the name of a tensor of the model, found 'no.such.tensor'"),
        ]:
            code, found, said = run(*options)
            assert code == 2 and not found and expected in said and said.count("\n") == 1, (options, code, said)
        for option, file in ("--hints", hints), ("--pattern", pattern):
            code, found, said = run(option, file, model=other)
            assert code == 2 and "expected 'model_hash' to be that of the model" in said, (code, said)
            assert said.count("\n") == 1, said


if __name__ == "__main__":
    main()
