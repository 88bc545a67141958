#!/usr/bin/env python3
"""Makes traces of imaginary runs, as docs/trace-format.md describes them, for tests of their readers.

    report_traces.py DIR [--layers N] [--experts E] [--prompt N] [--decode N] [--io] [--seed N]

The model is small, but has what real ones have: heads of several queries a key, experts, tied
embeddings, caches, shards. Needs nothing but Python.
"""
import argparse
import json
import random
import struct
import zlib
from pathlib import Path

ACCESS, ROUTE, IO, FAULT, TOKEN, RESTART, LONG = range(1, 8)
OPS = ["GET_ROWS", "RMS_NORM", "MUL_MAT", "MUL_MAT_ID", "TOP_K", "ADD", "SCALE", "ROPE", "SET_ROWS",
       "FLASH_ATTN_EXT", "GLU", "SOFTCAP"]
OP = {name: i for i, name in enumerate(OPS)}
FIRST, STRIDED, WRITE = 1, 2, 4
NO32, NO64, NO16, NO8 = 2**32 - 1, 2**64 - 1, 2**16 - 1, 255
NAN = float("nan")
RECORD = struct.Struct("<QQQQIIIfHHHHBBBBBBBB")
FRAME = struct.Struct("<8sQQQIIIIIIB3s")
ENUMS = {
    "kind": ["", "ACCESS", "ROUTE", "IO", "FAULT", "TOKEN", "RESTART", "LONG"],
    "operation_type": OPS,
    "phase": ["PROMPT", "GENERATE"],
    "qkv_type": ["", "Q", "K", "V", "O"],
    "residency": ["", "resident", "prefetched", "late", "missed"],
    "io_cause": ["DEMAND", "PREFETCH", "SPECULATE", "LOAD"],
    "fault": ["MINOR_FAULT", "MAJOR_FAULT"],
}
FIELDS = [("timestamp_ns", "<u8", 0), ("tensor_ptr", "<u8", 8), ("expert_weight", "<f4", 8), ("end_ns", "<u8", 8),
          ("file_offset", "<u8", 16), ("batch", "<u8", 16), ("size_bytes", "<u8", 24), ("duration_ns", "<u4", 32),
          ("token_id", "<u4", 36), ("tensor_idx", "<u4", 40), ("vocab_id", "<u4", 40), ("routing_score", "<f4", 44),
          ("n_tokens", "<u2", 48), ("layer_id", "<u2", 50), ("attention_head", "<u2", 52), ("expert_id", "<u2", 54),
          ("kind", "u1", 56), ("operation_type", "u1", 57), ("phase", "u1", 58), ("qkv_type", "u1", 59),
          ("expert_rank", "u1", 60), ("residency", "u1", 61), ("shard", "u1", 62), ("flags", "u1", 63)]


def record(kind, time, op=0, ptr=0, offset=NO64, size=0, ns=0, token=NO32, tensor=NO32, score=NAN, n=1, layer=NO16,
           head=NO16, expert=NO16, phase=1, qkv=0, rank=NO8, residency=0, shard=NO8, flags=0):
    return RECORD.pack(time, ptr, offset, size, ns, token, tensor, score, n, layer, head, expert, kind, op, phase, qkv,
                       rank, residency, shard, flags)


def frame(kind, first=0, lost=0, time=0, n=0, crc=0, end=0):
    head = FRAME.pack(b"TTXTRACE", first, lost, time, 1, n, crc, end, 0, 0, kind, bytes(3))
    return head + struct.pack("<I", zlib.crc32(head))


def records_file(records, block=1000, end=0, lost=0):
    """The bytes of tensor_access.bin."""
    out = [frame(240)]
    for at in range(0, len(records), block):
        part = records[at:at + block]
        body = b"".join(part)
        out += [frame(241, at, n=len(part), crc=zlib.crc32(body)), body]
    if end is not None:
        out.append(frame(242, len(records), lost=lost, end=end))
    return b"".join(out)


class Model:
    def __init__(self, layers=4, heads=6, kv_heads=2, embd=96, vocab=64, experts=0, used=2, ctx=256, shards=1):
        self.layers, self.heads, self.kv_heads, self.embd, self.vocab = layers, heads, kv_heads, embd, vocab
        self.experts, self.used, self.ctx = experts, used, ctx
        self.tensors, self.sizes, self.index = [], [4096] * shards, {}
        self.head_bytes = embd * (embd // heads)
        kv = self.head_bytes * kv_heads
        self.add("token_embd.weight", "embedding", vocab * embd)
        for l in range(layers):
            p = f"blk.{l}."
            self.add(p + "attn_norm.weight", "norm", embd * 4, l)
            self.add(p + "attn_q.weight", "attention", embd * embd, l, qkv=1, n_head=heads)
            self.add(p + "attn_k.weight", "attention", kv, l, qkv=2, n_head=kv_heads)
            self.add(p + "attn_v.weight", "attention", kv, l, qkv=3, n_head=kv_heads)
            self.add(p + "attn_output.weight", "attention", embd * embd, l, qkv=4, n_head=heads, strided=True)
            self.add(p + "ffn_norm.weight", "norm", embd * 4, l)
            if experts:
                self.add(p + "ffn_gate_inp.weight", "router", embd * experts * 4, l)
                for name in ("gate", "up", "down"):
                    self.add(p + f"ffn_{name}_exps.weight", "expert", 8192 * experts, l, n_expert=experts,
                             expert_bytes=8192)
            else:
                for name in ("gate", "up", "down"):
                    self.add(p + f"ffn_{name}.weight", "ffn", embd * embd * 3, l)
        self.add("output_norm.weight", "norm", embd * 4)
        for l in range(layers):
            for i, name in enumerate("kv"):
                self.index[f"cache_{name}_l{l}"] = len(self.tensors)
                self.tensors.append({"name": f"cache_{name}_l{l}", "component": "kv_cache", "layer": l, "qkv": 2 + i,
                                     "n_head": kv_heads, "size": kv_heads * ctx * 32})

    def add(self, name, component, size, layer=None, **more):
        shard = len(self.tensors) % len(self.sizes)
        t = {"name": name, "component": component, "shard": shard, "offset": self.sizes[shard], "size": size, **more}
        if layer is not None:
            t["layer"] = layer
        self.sizes[shard] += (size + 31) // 32 * 32
        self.index[name] = len(self.tensors)
        self.tensors.append(t)

    def metadata(self, complete=True, records=0, seconds=1.0, lost=0):
        names, kinds, offsets = zip(*FIELDS)
        meta = {
            "trace_version": 1, "complete": complete, "start_time_utc": "2030-01-02T03:04:05Z",
            "model_file": "imaginary.gguf", "model_hash": "fnv1a64:0123456789abcdef",
            "shards": [{"path": f"imaginary-{i}.gguf", "size": s} for i, s in enumerate(self.sizes)],
            "model_metadata": {"architecture": "imaginary", "num_layers": self.layers, "num_heads": self.heads,
                               "num_kv_heads": self.kv_heads, "hidden_dim": self.embd, "vocab_size": self.vocab,
                               "num_experts": self.experts, "num_experts_used": self.used if self.experts else 0},
            "inference_config": {"prompt": "imaginary"}, "system_info": {"cpu": "none"},
            "trace_config": {"level": "head"},
            "record_dtype": {"names": names, "formats": kinds, "offsets": offsets, "itemsize": 64},
            "enums": ENUMS, "tensors": self.tensors,
        }
        if complete:
            meta["trace_stats"] = {"total_entries": records, "lost": lost, "duration_seconds": seconds,
                                   "log_file_size_mb": records * 64 / 1e6}
        return meta


class Run:
    """Records of an imaginary run, and what tokens.csv says of it."""

    def __init__(self, model, seed=1, io=False):
        self.m, self.random, self.io = model, random.Random(seed), io
        self.records, self.tokens, self.now, self.batch = [], [], 1000, 0

    def launch(self, operands, gap=120):
        """operands: lists of keyword arguments of record(); the first carries the duration."""
        ns = 500 + sum(o.get("size", 0) for o in operands) // 10 + self.random.randrange(200)
        self.now += gap
        for i, o in enumerate(operands):
            o = dict(o)
            flags = o.pop("flags", 0) | (FIRST if i == 0 else 0)
            self.records.append(record(ACCESS, self.now, ns=ns if i == 0 else 0, flags=flags, **o))
        self.now += ns

    def operand(self, name, op, expert=NO16, residency=None, **more):
        i = self.m.index[name]
        t = self.m.tensors[i]
        if residency is None:
            residency = self.random.choice([1, 1, 1, 2, 3, 4]) if self.io else 0
        base = dict(op=OP[op], tensor=i, layer=t.get("layer", NO16), qkv=t.get("qkv", 0), shard=t.get("shard", NO8),
                    residency=residency, **more)
        if "offset" not in t:
            return [base]
        if expert != NO16:
            size = t["expert_bytes"]
            return [dict(base, offset=t["offset"] + expert * size, size=size, expert=expert)]
        if "n_head" not in t:
            return [dict(base, offset=t["offset"], size=t["size"])]
        n = t["n_head"]
        size = t["size"] // n
        if t.get("strided"):
            return [dict(base, offset=t["offset"] + h * 16, size=size, head=h, flags=STRIDED) for h in range(n)]
        return [dict(base, offset=t["offset"] + h * size, size=size, head=h) for h in range(n)]

    def eval(self, first, words, phase):
        """A batch: the tokens first, first + 1, ..."""
        m, n, start = self.m, len(words), self.now
        who = dict(token=first, n=n, phase=phase)
        embd = m.tensors[0]
        row = embd["size"] // m.vocab
        self.launch([dict(op=OP["GET_ROWS"], tensor=0, offset=embd["offset"] + w * row, size=row, shard=embd["shard"],
                          token=first + i, n=1, phase=phase) for i, w in enumerate(words)])
        for l in range(m.layers):
            self.layer(l, first, words, who)
        self.launch(self.operand("output_norm.weight", "RMS_NORM", **who))
        self.launch([dict(op=OP["MUL_MAT"], tensor=0, offset=embd["offset"], size=embd["size"], shard=embd["shard"],
                          **who)])
        for i, w in enumerate(words):
            device = self.random.randrange(9) * 4096 if self.io and i == 0 else 0
            self.records.append(record(TOKEN, start, ptr=self.now, offset=self.batch, size=device, token=first + i, tensor=w,
                                       n=n, phase=phase))
            self.tokens.append((first + i, w, f'w"{w}"', ENUMS["phase"][phase], self.batch, start, self.now))
        self.batch += 1
        self.now += 5000

    def layer(self, l, first, words, who):
        m, p, n = self.m, f"blk.{l}.", len(words)
        self.launch(self.operand(p + "attn_norm.weight", "RMS_NORM", **who))
        self.launch([o for x in "qkv" for o in self.operand(f"{p}attn_{x}.weight", "MUL_MAT", **who)])
        self.launch([dict(op=OP["ROPE"], layer=l, size=m.embd * 4 * n, **who)])
        caches = [(name, m.index[f"cache_{name}_l{l}"]) for name in "kv"]
        self.launch([dict(op=OP["SET_ROWS"], tensor=i, layer=l, qkv=2 + (name == "v"), head=h, size=32 * n, flags=WRITE,
                          **who) for name, i in caches for h in range(m.kv_heads)])
        reads = [dict(op=OP["FLASH_ATTN_EXT"], tensor=i, layer=l, qkv=2 + (name == "v"), head=h,
                      size=32 * (first + n), **who) for name, i in caches for h in range(m.kv_heads)]
        group = m.heads // m.kv_heads
        reads += [dict(op=OP["FLASH_ATTN_EXT"], tensor=caches[0][1], layer=l, qkv=1, head=h, rank=h // group, **who)
                  for h in range(m.heads)]
        self.launch(reads)
        self.launch(self.operand(p + "attn_output.weight", "MUL_MAT", **who))
        self.launch([dict(op=OP["ADD"], layer=l, size=m.embd * 8 * n, **who)])
        self.launch(self.operand(p + "ffn_norm.weight", "RMS_NORM", **who))
        if m.experts:
            self.experts(l, first, words, who)
        else:
            self.launch([o for x in ("gate", "up") for o in self.operand(f"{p}ffn_{x}.weight", "MUL_MAT", **who)])
            self.launch([dict(op=OP["GLU"], layer=l, size=m.embd * 12 * n, **who)])
            self.launch(self.operand(p + "ffn_down.weight", "MUL_MAT", **who))
        if self.io:
            self.events(l, who)

    def experts(self, l, first, words, who):
        m, p, phase = self.m, f"blk.{l}.", who["phase"]
        self.launch(self.operand(p + "ffn_gate_inp.weight", "MUL_MAT", **who))
        self.launch([dict(op=OP["TOP_K"], layer=l, size=m.experts * 4 * len(words), **who)])
        takers = {}
        for i, w in enumerate(words):
            # A word has its favourite; the rest is chance.
            chosen = [(w + l) % m.experts]
            chosen += self.random.sample([e for e in range(m.experts) if e != chosen[0]], m.used - 1)
            for rank, e in enumerate(chosen):
                weight = struct.unpack("<I", struct.pack("<f", 0.7 if rank == 0 else 0.3 / (m.used - 1)))[0]
                self.records.append(record(ROUTE, self.now, ptr=weight, token=first + i, n=1, layer=l, expert=e,
                                           rank=rank, score=1.5 - rank, phase=phase))
                takers.setdefault(e, []).append((first + i, rank))
        ready = list(takers.items())
        if self.io and len(words) == 1:  # streamed: some come first, whichever
            self.random.shuffle(ready)
        parts = [ready[:1], ready[1:]] if self.io and len(words) == 1 else [ready]
        for part, name in ((p, n) for p in parts for n in ("gate", "up", "down")):
            operands = []
            for e, served in part:
                token, rank = served[0]
                one = dict(rank=rank, score=1.5 - rank) if len(words) == 1 else {}
                operands += self.operand(f"{p}ffn_{name}_exps.weight", "MUL_MAT_ID", expert=e,
                                         **dict(who, token=token, n=len(served)), **one)
            self.launch(operands)

    def events(self, l, who):
        t = self.random.choice([t for t in self.m.tensors if t.get("layer") == l and "offset" in t])
        i = self.m.index[t["name"]]
        if self.random.random() < 0.7:
            size = min(t["size"], 4096)
            at = t["offset"] + self.random.randrange(t["size"] - size + 1)
            self.records.append(record(IO, self.now, op=self.random.randrange(4), offset=at, size=size,
                                       ns=self.random.randrange(1000, 900000), tensor=i, layer=l, shard=t["shard"],
                                       token=who["token"], phase=who["phase"], n=0))
        if self.random.random() < 0.5:
            at = t["offset"] + self.random.randrange(t["size"])
            self.records.append(record(FAULT, self.now, op=self.random.randrange(2), ptr=0x7f0000000000 + at,
                                       offset=at // 4096 * 4096, size=4096, tensor=i, layer=l, shard=t["shard"],
                                       token=who["token"], phase=who["phase"], n=0))

    def restart(self, to=0):
        self.records.append(record(RESTART, self.now, token=to, n=0))

    def write(self, folder, complete=True, end=0, lost=0):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        n = len(self.records)
        meta = self.m.metadata(complete, n, self.now / 1e9, lost)
        (folder / "trace_metadata.json").write_text(json.dumps(meta))
        (folder / "tensor_access.bin").write_bytes(records_file(self.records, end=end, lost=lost))
        lines = ["token_id,vocab_id,text,phase,batch,start_ns,end_ns"]
        for token, word, text, *rest in self.tokens:
            text = '"' + text.replace('"', '""') + '"'
            lines.append(",".join(map(str, [token, word, text, *rest])))
        (folder / "tokens.csv").write_text("\n".join(lines) + "\n")
        names = [f"{i},{t['name']}" for i, t in enumerate(self.m.tensors)]
        (folder / "tensor_names.txt").write_text("idx,name\n" + "\n".join(names) + "\n")


def make(folder, layers=4, experts=0, prompt=12, decode=20, io=False, seed=1, shards=1, restarts=0):
    run = Run(Model(layers=layers, experts=experts, shards=shards, ctx=prompt + decode + 1), seed, io)
    words = [run.random.randrange(run.m.vocab) for _ in range(prompt + decode)]
    for turn in range(restarts + 1):
        if turn:
            run.restart()
        for at in range(0, prompt, 8):
            run.eval(at, words[at:min(at + 8, prompt)], 0)
        for at in range(prompt, prompt + decode):
            run.eval(at, [words[at]], 1)
    run.write(folder)
    return run


def make_stats(folder):
    """A trace of level stats: tokens, and sums of tensors."""
    run = Run(Model(layers=3))
    run.eval(0, [1, 2, 3], 0)
    run.eval(3, [4], 1)
    run.records = [r for r in run.records if r[56] == TOKEN]
    run.write(folder)
    meta = json.loads((folder / "trace_metadata.json").read_text())
    meta["trace_config"]["level"] = "stats"
    (folder / "trace_metadata.json").write_text(json.dumps(meta))
    lines = [f"{i},{t['name']},4,{4 * t['size']}" for i, t in enumerate(run.m.tensors)]
    (folder / "tensor_stats.csv").write_text("idx,name,accesses,bytes\n" + "\n".join(lines) + "\n,,9,999\n")
    return run


def main():
    p = argparse.ArgumentParser()
    p.add_argument("folder")
    for name, default in (("layers", 4), ("experts", 0), ("prompt", 12), ("decode", 20), ("seed", 1), ("shards", 1),
                          ("restarts", 0)):
        p.add_argument("--" + name, type=int, default=default)
    p.add_argument("--io", action="store_true")
    a = vars(p.parse_args())
    make(**a)


if __name__ == "__main__":
    main()
