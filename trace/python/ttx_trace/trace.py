"""Reads a trace directory; docs/trace-format.md defines it.

Records are mapped, not read: a Trace costs no memory until rows are asked for. Those of a compressed trace are
unpacked into memory.
"""
import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd

COLUMNS = ["timestamp_ns", "duration_ns", "token_id", "n_tokens", "phase", "layer_id", "operation_type", "tensor_name",
           "component_type", "file_offset", "size_bytes", "qkv_type", "attention_head", "expert_id", "expert_rank",
           "routing_score", "expert_weight", "residency", "shard", "tensor_ptr"]

VERSION = 1
ACCESS, ROUTE, IO, FAULT, TOKEN, RESTART, LONG = range(1, 8)
FRAME = 0xF0
FIRST, STRIDED, WRITE = 1, 2, 4
NO_TENSOR = NO_TOKEN = 2**32 - 1
NO_OFFSET = 2**64 - 1
NO16, NO8 = 2**16 - 1, 2**8 - 1

# The record, and what its fields are called in records that are no accesses.
RECORD = np.dtype({
    "names": ["timestamp_ns", "tensor_ptr", "expert_weight", "end_ns", "file_offset", "batch", "size_bytes",
              "duration_ns", "token_id", "tensor_idx", "vocab_id", "routing_score", "n_tokens", "layer_id",
              "attention_head", "expert_id", "kind", "operation_type", "phase", "qkv_type", "expert_rank", "residency",
              "shard", "flags"],
    "formats": ["<u8", "<u8", "<f4", "<u8", "<u8", "<u8", "<u8", "<u4", "<u4", "<u4", "<u4", "<f4", "<u2", "<u2", "<u2",
                "<u2", "u1", "u1", "u1", "u1", "u1", "u1", "u1", "u1"],
    "offsets": [0, 8, 8, 8, 16, 16, 24, 32, 36, 40, 40, 44, 48, 50, 52, 54, 56, 57, 58, 59, 60, 61, 62, 63],
    "itemsize": 64})


class TraceError(Exception):
    """A trace that cannot be read: what was expected, and what was found."""


def find(folder):
    """The run of a trace directory: itself, or the newest run_*."""
    folder = Path(folder)
    if not folder.is_dir():
        raise TraceError(f"{folder}: expected a trace directory, found none")
    runs = sorted(r for r in folder.glob("run_*") if (r / "trace_metadata.json").is_file())
    if runs:
        return runs[-1]
    if (folder / "trace_metadata.json").is_file():
        return folder
    raise TraceError(f"{folder}: expected a trace directory, found no trace_metadata.json")


def unpack(path):
    """The bytes of a file that zstd has compressed, as far as it goes: of a killed run it may end anywhere."""
    try:
        import pyarrow
    except ImportError:
        pass
    else:
        data = bytearray()
        for size in (1 << 20, 64):  # where a killed run ends, a read fails as a whole: the rest in small ones
            with pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd") as file:
                try:
                    file.read(len(data))
                    while part := file.read(size):
                        data += part
                    break
                except OSError:
                    pass
        return bytes(data)
    try:
        return subprocess.run(["zstd", "-dcq", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    except FileNotFoundError:
        raise TraceError(f"{path}: to read a compressed trace, pyarrow or the program zstd is needed") from None


class Trace:
    """A trace: `meta` (trace_metadata.json), `slots` (the file as an array), tables on demand."""

    def __init__(self, folder):
        self.dir = find(folder)
        try:
            self.meta = json.loads((self.dir / "trace_metadata.json").read_text())
            version = self.meta["trace_version"]
            self.tensors = self.meta["tensors"]
        except (ValueError, KeyError, TypeError, OSError) as e:
            raise TraceError(f"{self.dir}/trace_metadata.json: expected the metadata of a trace: {e}") from None
        if version != VERSION:
            raise TraceError(f"{self.dir}: expected trace version {VERSION}, found {version}")
        self.slots = self._slots(self.dir / "tensor_access.bin")
        self.n_file_tensor = sum("shard" in t for t in self.tensors)

    @staticmethod
    def _slots(path):
        packed = path.with_name(path.name + ".zst")
        data = unpack(packed) if not path.exists() and packed.exists() else None
        try:
            size = path.stat().st_size if data is None else len(data)
        except OSError as e:
            raise TraceError(f"{path}: cannot open: {e.strerror}") from None
        if size < 64:
            raise TraceError(f"{path}: expected a trace, found {size} bytes")
        if data is None:
            slots = np.memmap(path, RECORD, "r", shape=(size // 64,))
        else:
            slots = np.frombuffer(data, RECORD, size // 64)
        if bytes(slots[:1].view("u1")[:8]) != b"TTXTRACE":
            raise TraceError(f"{path}: expected a trace, found something else")
        return slots

    @property
    def complete(self):
        """Whether the file ends with its end mark."""
        return int(self.slots["kind"][-1]) == FRAME + 2

    def blocks(self, records=1 << 20):
        """Arrays of at most about so many records, in order; frames are left out, and what lies
        behind the last whole block of a trace that was cut short."""
        head = np.dtype({"names": ["first", "n"], "formats": ["<u8", "<u4"], "offsets": [8, 36], "itemsize": 64})
        frames, at, count, parts, n = self.slots.view(head), 1, 0, [], 0
        while at < len(self.slots):
            kind, size = int(self.slots["kind"][at]), int(frames["n"][at])
            killed = kind == 0 and len(self.slots) - at < 64  # zeros up to the end of the page
            if killed or kind == FRAME + 2 or at + 1 + size > len(self.slots):
                break
            if kind != FRAME + 1 or int(frames["first"][at]) != count or not size:
                raise TraceError(f"{self.dir}: damaged at byte {64 * at}: expected a block")
            parts.append(self.slots[at + 1:at + 1 + size])
            at, count, n = at + 1 + size, count + size, n + size
            if n >= records:
                yield np.concatenate(parts)
                parts, n = [], 0
        if parts:
            yield np.concatenate(parts)

    def records(self):
        """All records as one array."""
        blocks = list(self.blocks())
        return np.concatenate(blocks) if blocks else np.empty(0, RECORD)

    def of_kind(self, kind):
        """The records of one kind as an array."""
        blocks = [b[b["kind"] == kind] for b in self.blocks()]
        return np.concatenate(blocks) if blocks else np.empty(0, RECORD)

    def tokens(self):
        """TOKEN records: position, word, phase, batch, times; the text from tokens.csv."""
        v = self.of_kind(TOKEN)
        df = pd.DataFrame({"token_id": v["token_id"], "vocab_id": v["vocab_id"],
                           "phase": self._names("phase", v["phase"]), "batch": v["batch"],
                           "n_tokens": v["n_tokens"], "start_ns": v["timestamp_ns"], "end_ns": v["end_ns"]})
        path = self.dir / "tokens.csv"
        texts = {}
        if path.is_file():
            csv = pd.read_csv(path, usecols=["vocab_id", "text"], dtype={"text": str}, keep_default_na=False)
            texts = dict(zip(csv["vocab_id"], csv["text"]))
        df["text"] = df["vocab_id"].map(texts)
        return df

    def sums(self):
        """What a trace of level stats has instead of records: accesses and bytes of each tensor, of the whole run;
        None at other levels. Operations without a tensor are left out."""
        path = self.dir / "tensor_stats.csv"
        if self.meta.get("trace_config", {}).get("level") != "stats" or not path.is_file():
            return None
        df = pd.read_csv(path).dropna(subset=["idx"])
        tensors = [self.tensors[int(i)] for i in df["idx"]]
        df["component_type"] = [t.get("component", "") for t in tensors]
        df["layer_id"] = pd.array([t.get("layer", pd.NA) for t in tensors], dtype="Int32")
        return df.drop(columns="idx").rename(columns={"name": "tensor_name"})

    def _names(self, enum, codes):
        names = list(self.meta["enums"][enum])
        codes = np.asarray(codes).astype(np.int16)
        codes = np.where(codes < len(names), codes, -1)
        if names and names[0] == "":  # none
            names, codes = names[1:], codes - (codes >= 0)
        return pd.Categorical.from_codes(codes, names)

    def _per_tensor(self, indexes, values, none=""):
        names = list(dict.fromkeys(v for v in values if v != none))
        code = {name: i for i, name in enumerate(names)}
        codes = np.array([code.get(v, -1) for v in values] + [-1], dtype=np.int32)
        return pd.Categorical.from_codes(codes[np.minimum(indexes, len(values))], names)

    def frame(self, v, weights=None):
        """Records of accesses as a table with the columns of the format; `weights`: each record's
        expert_weight."""
        def some(values, none, kind):
            out = pd.array(values.astype(kind.lower()), dtype=kind)
            out[np.asarray(values == none)] = pd.NA
            return out
        tensor = v["tensor_idx"].astype(np.int64)
        return pd.DataFrame({
            "timestamp_ns": v["timestamp_ns"],
            "duration_ns": v["duration_ns"].astype(np.uint64),
            "token_id": some(v["token_id"].astype(np.int64), NO_TOKEN, "Int64"),
            "n_tokens": v["n_tokens"],
            "phase": self._names("phase", v["phase"]),
            "layer_id": some(v["layer_id"].astype(np.int32), NO16, "Int32"),
            "operation_type": self._names("operation_type", v["operation_type"]),
            "tensor_name": self._per_tensor(tensor, [t["name"] for t in self.tensors]),
            "component_type": self._per_tensor(tensor, [t.get("component", "") for t in self.tensors]),
            "file_offset": some(v["file_offset"], NO_OFFSET, "UInt64"),
            "size_bytes": v["size_bytes"],
            "qkv_type": self._names("qkv_type", v["qkv_type"]),
            "attention_head": some(v["attention_head"].astype(np.int32), NO16, "Int32"),
            "expert_id": some(v["expert_id"].astype(np.int32), NO16, "Int32"),
            "expert_rank": some(v["expert_rank"].astype(np.int16), NO8, "Int16"),
            "routing_score": v["routing_score"],
            "expert_weight": np.full(len(v), np.nan, np.float32) if weights is None else weights,
            "residency": self._names("residency", v["residency"]),
            "shard": some(v["shard"].astype(np.int16), NO8, "Int16"),
            "tensor_ptr": v["tensor_ptr"],
        }, columns=COLUMNS)

    def heat(self, counts, sizes):
        """'hot', 'cold' or '' of each tensor of the file, from accesses and bytes: the first tenth,
        the last half; as in docs/report.md."""
        n = self.n_file_tensor
        order = sorted(range(n), key=lambda i: (-counts[i], -sizes[i], i))
        out = [""] * len(self.tensors)
        for rank, i in enumerate(order):
            out[i] = "hot" if rank < (n + 9) // 10 else "cold" if rank >= n - n // 2 else ""
        return out


def durations(v):
    """duration_ns of all records, LONG ones put in, as uint64."""
    out = v["duration_ns"].astype(np.uint64)
    long = np.flatnonzero(v["kind"] == LONG)
    if len(long):
        first = np.flatnonzero((v["kind"] == ACCESS) & (v["flags"] & FIRST > 0))
        at = np.searchsorted(first, long)
        ok = at < len(first)
        out[first[at[ok]]] = v["size_bytes"][long[ok]]
    return out


def starts_access(v):
    """Of ACCESS records: whether each begins an access; the others are further heads of it."""
    keys = ["tensor_idx", "layer_id", "operation_type", "phase", "expert_id"]
    same = np.ones(len(v), bool)
    for k in keys:
        same[1:] &= v[k][1:] == v[k][:-1]
    same &= (v["attention_head"] != NO16) & (v["flags"] & FIRST == 0)
    if len(v):
        same[0] = False
    return ~same


def turns(v):
    """How many times the session has gone back before each record."""
    return np.cumsum(v["kind"] == RESTART)


def _keys(turn, token, layer, expert):
    """One number: 16, 24, 12, 12 bits."""
    parts = ((turn, 16, 48), (token, 24, 24), (layer, 12, 12), (expert, 12, 0))
    out = np.zeros(len(turn), np.uint64)
    for v, bits, at in parts:
        out |= (np.asarray(v).astype(np.uint64) & np.uint64((1 << bits) - 1)) << np.uint64(at)
    return out


def expert_weights(v, turn, routes, route_turn):
    """expert_weight of accesses that served one token, from its ROUTE record."""
    out = np.full(len(v), np.nan, np.float32)
    who = np.flatnonzero((v["expert_id"] != NO16) & (v["n_tokens"] <= 1))
    if not len(who) or not len(routes):
        return out
    key = _keys(route_turn, routes["token_id"], routes["layer_id"], routes["expert_id"])
    order = np.argsort(key, kind="stable")
    key = key[order]
    wanted = _keys(turn[who], v["token_id"][who], v["layer_id"][who], v["expert_id"][who])
    at = np.searchsorted(key, wanted, side="right") - 1
    found = (at >= 0) & (key[np.maximum(at, 0)] == wanted)
    out[who[found]] = routes["expert_weight"][order[at[found]]]
    return out


def expand(v, turn, routes, route_turn, batches):
    """For each access the tokens that it served: (index of the access, position, how many share it,
    which of them it is). Experts of a batch serve the tokens that were routed to them, where routes
    say so; otherwise tokens follow one another. `batches`: {(turn, position): last position of its
    batch}."""
    n = np.maximum(v["n_tokens"].astype(np.int64), 1)
    row = np.repeat(np.arange(len(v)), n)
    start = np.cumsum(n) - n
    nth = np.arange(len(row)) - np.repeat(start, n)
    token = v["token_id"][row].astype(np.int64) + nth
    batched = np.flatnonzero((v["expert_id"] != NO16) & (v["n_tokens"] > 1))
    if len(batched) and len(routes):
        r = pd.DataFrame({"turn": route_turn, "layer": routes["layer_id"], "expert": routes["expert_id"],
                          "token": routes["token_id"].astype(np.int64)})
        lists = {k: np.sort(g.to_numpy()) for k, g in r.groupby(["turn", "layer", "expert"])["token"]}
        for i in batched:
            first = int(v["token_id"][i])
            mine = lists.get((turn[i], v["layer_id"][i], v["expert_id"][i]))
            last = batches.get((turn[i], first))
            if mine is None or last is None:
                continue
            mine = mine[np.searchsorted(mine, first):np.searchsorted(mine, last, side="right")]
            if len(mine) == n[i]:
                token[start[i]:start[i] + n[i]] = mine
    return row, token, n[row], nth


def last_of_batch(v, turn):
    """{(turn, position): last position of its batch}, from TOKEN records."""
    is_token = v["kind"] == TOKEN
    df = pd.DataFrame({"turn": turn[is_token], "batch": v["batch"][is_token], "token": v["token_id"][is_token].astype(np.int64)})
    df["last"] = df.groupby(["turn", "batch"])["token"].transform("max")
    return dict(zip(zip(df["turn"], df["token"]), df["last"]))


def _shares(total, n, nth):
    """Whole numbers that add up to the total: the parts of n sharers, the nth's."""
    total, n, nth = total.astype(np.uint64), n.astype(np.uint64), nth.astype(np.uint64)
    return total * (nth + np.uint64(1)) // n - total * nth // n


def load(folder, expand_tokens=False):
    """The accesses of a trace, one row each: the columns of docs/trace-format.md, then `layer_name`
    ("layer 3", "outside") and `category` ("hot", "cold" or missing, see docs/report.md).

    expand_tokens: a batch's record stands once for each token that it served, `token_id` being the
    token's, bytes and time divided among them.
    """
    t = Trace(folder)
    v = t.records()
    turn, ns = turns(v), durations(v)
    is_access, is_route = v["kind"] == ACCESS, v["kind"] == ROUTE
    routes, route_turn = v[is_route], turn[is_route]
    batches = last_of_batch(v, turn) if expand_tokens else None
    v, turn, ns = v[is_access], turn[is_access], ns[is_access]
    begins = starts_access(v)
    n = len(t.tensors)
    index = np.minimum(v["tensor_idx"].astype(np.int64), n)
    counts = np.bincount(index[begins], minlength=n + 1)
    sizes = np.bincount(index, weights=v["size_bytes"].astype(float), minlength=n + 1)
    heat = t.heat(counts, sizes)
    weights = expert_weights(v, turn, routes, route_turn)
    if expand_tokens:
        row, token, share, nth = expand(v, turn, routes, route_turn, batches)
        v, index, turn = v[row], index[row], turn[row]
        weights = weights[row]
        known = v["token_id"] != NO_TOKEN
        v["token_id"][known] = token[known]
        v["size_bytes"] = _shares(v["size_bytes"], share, nth)
        ns = _shares(ns[row], share, nth)
    df = t.frame(v, weights)
    df["duration_ns"] = ns
    layers, code = np.unique(v["layer_id"], return_inverse=True)
    df["layer_name"] = pd.Categorical.from_codes(code, ["outside" if l == NO16 else f"layer {l}" for l in layers])
    df["category"] = t._per_tensor(index, heat)
    return df
