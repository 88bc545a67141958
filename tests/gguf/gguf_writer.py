"""Writes GGUF files byte by byte, also ones that lie about themselves.

Deliberately not the official writer: that one refuses to write what the tests need. The layout is
drawn in gguf/gguf_read.c. Standard library only.

    data = gguf(kvs=[kv("general.architecture", STR, "llama")],
                tensors=[T("token_embd.weight", [32, 8], F32)])
"""
import struct
from dataclasses import dataclass, field

U8, I8, U16, I16, U32, I32, F32T, BOOL, STR, ARR, U64, I64, F64T = range(13)
FORMATS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32T: "f", BOOL: "B",
           U64: "Q", I64: "q", F64T: "d"}

F32, F16, Q4_0, Q8_0, Q4_K, IDS, F64, BF16, MXFP4 = 0, 1, 2, 8, 12, 26, 28, 30, 39
BLOCKS = {F32: (1, 4), F16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34), Q4_K: (256, 144), IDS: (1, 4), F64: (1, 8),
          BF16: (1, 2), MXFP4: (32, 17)}


def u32(v):
    return struct.pack("<I", v)


def u64(v):
    return struct.pack("<Q", v)


def string(s):
    b = s if isinstance(s, bytes) else s.encode()
    return u64(len(b)) + b


def value(t, v):
    """The encoding of v as type t; of an array v is (element type, list); bytes go in as they are."""
    if t == ARR:
        if isinstance(v, bytes):
            return v
        elem, items = v
        return u32(elem) + u64(len(items)) + b"".join(value(elem, i) for i in items)
    if t == STR:
        return string(v)
    return v if isinstance(v, bytes) else struct.pack("<" + FORMATS[t], v)


def kv(key, t, v):
    return string(key) + u32(t) + value(t, v)


@dataclass
class T:
    """A tensor. What is None is filled in as a correct writer would."""
    name: object
    ne: list
    type: int = F32
    offset: int = None
    n_dims: int = None
    size: int = None
    data: bytes = field(default=None, repr=False)

    def bytes(self):
        if self.size is not None:
            return self.size
        n = 1
        for d in self.ne:
            n *= d
        block, size = BLOCKS.get(self.type, (1, 4))
        return n // block * size


def gguf(kvs=(), tensors=(), *, magic=b"GGUF", version=3, n_kv=None, n_tensors=None, align=32,
         cut=0, with_data=True):
    """The bytes of a file; `cut` takes that many off its end."""
    kvs, tensors = list(kvs), list(tensors)
    out = [magic, u32(version), u64(len(tensors) if n_tensors is None else n_tensors),
           u64(len(kvs) if n_kv is None else n_kv), *kvs]
    at, places = 0, []
    for t in tensors:
        offset = at if t.offset is None else t.offset
        out += [string(t.name), u32(len(t.ne) if t.n_dims is None else t.n_dims),
                *(u64(d) for d in t.ne), u32(t.type), u64(offset)]
        places.append(offset)
        at = -(-(at + t.bytes()) // align) * align
    head = b"".join(out)
    if not tensors:
        return head[:len(head) - cut]
    head += bytes(-len(head) % align)
    if with_data:
        body = bytearray()
        for offset, t in zip(places, tensors):
            if offset + t.bytes() > 1 << 26:
                continue  # one of the lies
            body += bytes(max(0, offset + t.bytes() - len(body)))
            if t.data is not None:
                body[offset:offset + len(t.data)] = t.data
        head += bytes(body)
    return head[:len(head) - cut]


def arch(name="llama"):
    return kv("general.architecture", STR, name)


def shard(no, count, total, tensors, extra=(), **more):
    """Shard `no` (from 0) of `count`, which hold `total` tensors together."""
    return gguf([kv("split.no", U16, no), kv("split.count", U16, count),
                 kv("split.tensors.count", I32, total), *extra], tensors, **more)


def shard_name(no, count, stem="model"):
    return f"{stem}-{no + 1:05d}-of-{count:05d}.gguf"
