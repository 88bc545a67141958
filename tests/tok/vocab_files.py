"""Vocabularies for tests, as GGUF files written by tests/gguf/gguf_writer.py."""
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gguf"))
from gguf_writer import ARR, BOOL, F32T, I32, STR, U32, gguf, kv


def byte_spelling():
    """The characters that stand for the bytes 0..255 in byte-level BPE."""
    itself = [b for b in range(256) if 0x21 <= b <= 0x7E or 0xA1 <= b <= 0xFF and b != 0xAD]
    others = [b for b in range(256) if b not in itself]
    return [chr(b) if b in itself else chr(256 + others.index(b)) for b in range(256)]


def file(model, tokens, types, extra):
    head = [kv("general.architecture", STR, "llama"), kv("tokenizer.ggml.model", STR, model),
            kv("tokenizer.ggml.tokens", ARR, (STR, tokens)), kv("tokenizer.ggml.token_type", ARR, (I32, types))]
    # What llama.cpp asks of any model, even where it reads the vocabulary only.
    size = [kv(f"llama.{k}", U32, v) for k, v in {
        "context_length": 64, "embedding_length": 64, "block_count": 1, "feed_forward_length": 64,
        "attention.head_count": 1, "attention.head_count_kv": 1, "rope.dimension_count": 64}.items()]
    return gguf(head + size + [kv("llama.attention.layer_norm_rms_epsilon", F32T, 1e-5)] + extra, [])


def bpe(pre, merges, special=()):
    tokens = byte_spelling() + [m.replace(" ", "") for m in merges]
    types = [1] * len(tokens) + [3] * len(special)
    return file("gpt2", tokens + list(special), types,
                [kv("tokenizer.ggml.pre", STR, pre), kv("tokenizer.ggml.merges", ARR, (STR, list(merges))),
                 kv("tokenizer.ggml.bos_token_id", U32, 0), kv("tokenizer.ggml.eos_token_id", U32, 0),
                 kv("tokenizer.ggml.add_bos_token", BOOL, False)])


def all_pairs(pre):
    """Any two neighbouring bytes of a word merge, in an arbitrary order of rank: the ids show where
    the words were."""
    pairs = [f"{a} {b}" for a in byte_spelling() for b in byte_spelling()]
    random.Random(3).shuffle(pairs)
    return bpe(pre, pairs)


def spm():
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + ["▁", "a", "b", "▁a", "ab"]
    types = [2, 3, 3] + [6] * 256 + [1] * 5
    return file("llama", tokens, types,
                [kv("tokenizer.ggml.scores", ARR, (F32T, [-float(i) for i in range(len(tokens))]))])
