#!/usr/bin/env python3
"""ttx's chat formats against Jinja and the templates that models carry.

    chat_compare.py CHAT_RENDER

Templates: SmolLM2's from its GGUF file, and those of the tokenizer packages (chat_template in
tokenizer_config.json), as fetch_models.py brings them. Skipped (77) without Jinja2 or templates.
"""
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "fixtures"))
import fetch_models

try:
    import jinja2.sandbox
except ImportError:
    print("skipped: no jinja2")
    sys.exit(77)

CONVERSATIONS = [
    ["Hi"],
    ["What is 2+2?\nExplain.", "It is 4.", "And 3+3?"],
    ["One", "1", "Two", "2", "Three <b>&amp;</b>"],
]
SYSTEMS = [None, "Answer briefly.\nIn German: äöü."]


def templates():
    found = {}
    for config in sorted(fetch_models.VOCABS.glob("*/tokenizer_config.json")):
        c = json.loads(config.read_text())
        if isinstance(c.get("chat_template"), str):
            bos = c.get("bos_token") or ""
            found[config.parent.name] = (c["chat_template"], bos["content"] if isinstance(bos, dict) else bos)
    for model in sorted(fetch_models.MODELS.glob("*.gguf")):
        import gguf
        fields = gguf.GGUFReader(model).fields
        if "tokenizer.chat_template" in fields:
            found[model.stem] = (fields["tokenizer.chat_template"].contents(), "<|im_start|>")
    return found


def by_jinja(template, bos, system, turns):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(turns)]
    text = env.from_string(template).render(messages=messages, add_generation_prompt=True, bos_token=bos,
                                            eos_token="")
    return text.removeprefix(bos) if "bos_token" in template else text


def main():
    render = sys.argv[1]
    compared = 0
    for name, (template, bos) in templates().items():
        with tempfile.NamedTemporaryFile("w", encoding="utf-8") as f:
            f.write(template)
            f.flush()
            for system in SYSTEMS:
                for turns in CONVERSATIONS:
                    expected = by_jinja(template, bos, system, turns)
                    argv = [render, f.name, "-" if system is None else system, *turns]
                    found = subprocess.run(argv, check=True, capture_output=True).stdout.decode()
                    assert found == expected, f"{name}, system {system!r}:\n{expected!r}\n{found!r}"
                    compared += 1
        print(f"{name}: as Jinja has it")
    if not compared:
        print("skipped: no templates")
        return 77
    return 0


if __name__ == "__main__":
    sys.exit(main())
