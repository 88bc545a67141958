#!/usr/bin/env python3
"""ttx gguf-dump on files made here: every view against what was written into them, and manners.

    dump_test.py TTX [--slow-build]      (--slow-build: no limits on time and memory)
"""
import csv
import io
import json
import math
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from gguf_writer import *

TTX, FAST = None, True  # set by main
COLUMNS = ("shard,index,tensor_name,layer_id,component_type,proj,type,n_dims,ne0,ne1,ne2,ne3,"
           "n_elements,bits_per_weight,file_offset,size_bytes,end,pad_after,n_expert,expert_stride,"
           "first_page,last_page")


def ttx(*args, **more):
    return subprocess.run([TTX, "gguf-dump", *map(str, args)], capture_output=True, timeout=120,
                          **more)


def good(*args):
    p = ttx(*args)
    assert p.returncode == 0 and p.stderr == b"", (args, p.returncode, p.stderr)
    return p.stdout.decode()


def cpu():
    """Seconds of processor time of the programs run so far: other load does not count."""
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


def rows(path):
    text = good("-m", path)
    assert text.splitlines()[0] == COLUMNS
    return list(csv.DictReader(io.StringIO(text)))


# A mixture of experts with everything that the columns and the I/O picture tell apart. Layer 1 is a
# layer of multi-token prediction; the stray name needs CSV's quotes.
E, K, WIDTH, FF, VOCAB = 8, 2, 64, 96, 50
MOE = [
    T("token_embd.weight", [WIDTH, VOCAB], Q8_0),
    T("blk.0.attn_norm.weight", [WIDTH]),
    T("blk.0.attn_q.weight", [WIDTH, WIDTH], Q4_0),
    T("blk.0.attn_q.bias", [WIDTH]),
    T("blk.0.attn_output.weight", [WIDTH, WIDTH], F16),
    T("blk.0.attn_sinks.weight", [4]),
    T("blk.0.post_attention_norm.weight", [WIDTH]),
    T("blk.0.ffn_gate_inp.weight", [WIDTH, E]),
    T("blk.0.ffn_gate_tid2eid.weight", [K, VOCAB], IDS),
    T("blk.0.ffn_gate_up_exps.weight", [WIDTH, 2 * FF, E], MXFP4),
    T("blk.0.ffn_down_exps.weight", [FF, WIDTH, E], Q8_0),
    T("blk.0.ffn_down_exps.bias", [WIDTH, E]),
    T("blk.0.ffn_up_shexp.weight", [WIDTH, FF], BF16),
    T("blk.0.ffn_gate_inp_shexp.weight", [WIDTH]),
    T("blk.1.ffn_up.weight", [WIDTH, FF], BF16),
    T("output_norm.weight", [WIDTH]),
    T("output.weight", [WIDTH, VOCAB], F16),
    T('stray, "quoted"', [1, 2, 3, 4], F64),
]
MOE_KVS = [arch("testmoe"), kv("testmoe.expert_count", U32, E),
           kv("testmoe.expert_used_count", U32, K), kv("testmoe.block_count", U32, 2),
           kv("testmoe.nextn_predict_layers", U32, 1), kv("testmoe.context_length", U32, 1000),
           kv("testmoe.attention.head_count", U32, 4), kv("testmoe.embedding_length", U32, WIDTH),
           kv("testmoe.attention.head_count_kv", ARR, (U32, [2, 1])),
           kv("testmoe.attention.key_length", U32, 24)]
# name -> layer, component, projection, slices
ROLES = {
    "token_embd.weight": ("", "embedding", "", 0),
    "blk.0.attn_norm.weight": ("0", "norm", "", 0),
    "blk.0.attn_q.weight": ("0", "attention", "q", 0),
    "blk.0.attn_q.bias": ("0", "attention", "q", 0),
    "blk.0.attn_output.weight": ("0", "attention", "o", 0),
    "blk.0.attn_sinks.weight": ("0", "attention", "sinks", 0),
    "blk.0.post_attention_norm.weight": ("0", "norm", "", 0),
    "blk.0.ffn_gate_inp.weight": ("0", "router", "", 0),
    "blk.0.ffn_gate_tid2eid.weight": ("0", "router", "tid2eid", 0),
    "blk.0.ffn_gate_up_exps.weight": ("0", "expert", "gate_up", E),
    "blk.0.ffn_down_exps.weight": ("0", "expert", "down", E),
    "blk.0.ffn_down_exps.bias": ("0", "expert", "down", E),
    "blk.0.ffn_up_shexp.weight": ("0", "ffn", "up", 0),
    "blk.0.ffn_gate_inp_shexp.weight": ("0", "ffn", "shexp_gate", 0),
    "blk.1.ffn_up.weight": ("1", "ffn", "up", 0),
    "output_norm.weight": ("", "norm", "", 0),
    "output.weight": ("", "output", "", 0),
    'stray, "quoted"': ("", "other", "", 0),
}
TYPE_NAMES = {F32: "F32", F16: "F16", Q4_0: "Q4_0", Q8_0: "Q8_0", F64: "F64", IDS: "I32", BF16: "BF16",
              MXFP4: "MXFP4"}


def expected_rows(head, align=32):
    """The rows of MOE in a file whose data starts at `head`."""
    at, out = head, []
    for i, t in enumerate(MOE):
        layer, component, proj, slices = ROLES[t.name]
        size, block = t.bytes(), BLOCKS[t.type]
        end = at + size
        next_at = -(-end // align) * align if i + 1 < len(MOE) else end
        ne = t.ne + [1] * (4 - len(t.ne))
        values = [0, i, t.name, layer, component, proj, TYPE_NAMES[t.type], len(t.ne), *ne,
                  math.prod(t.ne), f"{8 * block[1] / block[0]:g}", at, size, end, next_at - end,
                  slices or "", size // slices if slices else "", at // 4096, (end - 1) // 4096]
        out.append(dict(zip(COLUMNS.split(","), map(str, values))))
        at = next_at
    return out


def test_rows(folder):
    data = gguf(MOE_KVS, MOE)
    (folder / "moe.gguf").write_bytes(data)
    sizes = sum(-(-t.bytes() // 32) * 32 for t in MOE[:-1]) + MOE[-1].bytes()
    expected = expected_rows(len(data) - sizes)
    assert rows(folder / "moe.gguf") == expected
    objects = json.loads(good("-m", folder / "moe.gguf", "--json"))
    assert list(objects[0]) == COLUMNS.split(",")
    for o, e in zip(objects, expected, strict=True):
        shown = {k: "" if v is None else f"{v:g}" if isinstance(v, float) else str(v)
                 for k, v in o.items()}
        assert shown == e, (shown, e)


def test_whole_pages(folder):
    """Tensors that end on a page's edge: the last page is the one of the last byte."""
    tensors = [T("a", [1024]), T("b", [2048]), T("c", [1])]
    (folder / "pages.gguf").write_bytes(
        gguf([kv("general.alignment", U32, 4096)], tensors, align=4096))
    assert [(r["first_page"], r["last_page"], r["end"]) for r in rows(folder / "pages.gguf")] == [
        ("1", "1", "8192"), ("2", "3", "16384"), ("4", "4", "16388")]


def slow_pages(table, stride):
    """Pages of each slice read alone, counted one by one."""
    pages = []
    for r in table:
        for i in range(int(r["n_expert"])):
            first = int(r["file_offset"]) + i * stride
            pages.append((first + stride - 1) // 4096 - first // 4096 + 1)
    return pages


def test_io(folder):
    pic = json.loads(good("-m", folder / "moe.gguf", "--io", "--json"))
    table = rows(folder / "moe.gguf")
    size = {r["tensor_name"]: int(r["size_bytes"]) for r in table}
    for name, c in pic["components"].items():
        mine = [r for r in table if r["component_type"] == name]
        assert c["tensors"] == len(mine) and c["bytes"] == sum(int(r["size_bytes"]) for r in mine)
    idle = size["blk.1.ffn_up.weight"]
    experts = sum(size[n] for n, r in ROLES.items() if r[1] == "expert")
    dense = sum(size.values()) - experts - idle - size["token_embd.weight"] + WIDTH // 32 * 34
    dense += 4 * K - size["blk.0.ffn_gate_tid2eid.weight"]  # a row for each token id
    assert pic["architecture"] == "testmoe" and not pic["tied_output"]
    assert (pic["n_expert"], pic["n_expert_used"]) == (E, K)
    assert pic["dense_token_bytes"] == dense and pic["idle_bytes"] == idle
    assert pic["expert_token_bytes"] == experts // E * K
    assert pic["token_bytes"] == dense + experts // E * K
    assert pic["expert_min_bytes"] == pic["expert_max_bytes"] == experts // E
    assert pic["kv_token_bytes"] == 2 * (24 + WIDTH // 4) * 3 and pic["kv_context"] == 1000
    assert pic["ram_bytes"] == sum(size.values()) - idle + 1000 * pic["kv_token_bytes"]
    kinds = {(r["proj"], r["type"], int(r["expert_stride"])) for r in table if r["n_expert"]}
    assert len(pic["expert_slices"]) == len(kinds) == 3
    for s in pic["expert_slices"]:
        mine = [r for r in table if (r["proj"], r["type"], r["expert_stride"]) ==
                (s["proj"], s["type"], str(s["slice_bytes"]))]
        pages = slow_pages(mine, s["slice_bytes"])
        assert s["slices"] == len(pages) == E and s["pages"] == sum(pages)
        assert (s["min_pages"], s["max_pages"]) == (min(pages), max(pages))
        assert abs(s["read_amplification"] - sum(pages) * 4096 / s["total_bytes"]) < 1e-9
    text = good("-m", folder / "moe.gguf", "--io")
    assert "2 of 8 a layer" in text and "testmoe" in text


def test_io_many_slices(folder):
    """Slices whose places on the page repeat: the short count equals the long one."""
    n, stride = 700, 36 * 4
    tensors = [T("blk.0.ffn_up_exps.weight", [stride // 4, 1, n], offset=64)]
    (folder / "many.gguf").write_bytes(gguf([arch("x"), kv("x.expert_used_count", U32, 3)], tensors))
    s = json.loads(good("-m", folder / "many.gguf", "--io", "--json"))["expert_slices"][0]
    assert s["pages"] == sum(slow_pages(rows(folder / "many.gguf"), stride))


def test_io_tied_and_lone_experts(folder):
    """No output tensor: the embedding is read whole; one tensor an expert: k of E of their sum."""
    lone = [T(f"blk.0.ffn_{p}.{e}.weight", [32, 4]) for e in range(4) for p in ("gate", "up", "down")]
    tensors = [T("token_embd.weight", [32, 10]), *lone]
    kvs = [arch("x"), kv("x.expert_count", U32, 4), kv("x.expert_used_count", U32, 1)]
    (folder / "lone.gguf").write_bytes(gguf(kvs, tensors))
    pic = json.loads(good("-m", folder / "lone.gguf", "--io", "--json"))
    assert pic["tied_output"] and pic["dense_token_bytes"] == 32 * 4 + 32 * 10 * 4
    assert pic["expert_token_bytes"] == 3 * 32 * 4 * 4
    assert all(r["n_expert"] == "1" and r["component_type"] == "expert"
               for r in rows(folder / "lone.gguf")[1:])


def test_metadata(folder):
    texts = ["", "plain", "\u00e9\u4e2d\U0001f600", 'q"\\\n\t', "x" * 1000]
    values = {
        "a.u8": (U8, 255), "a.i8": (I8, -128), "a.u16": (U16, 65535), "a.i16": (I16, -32768),
        "a.u32": (U32, 2**32 - 1), "a.i32": (I32, -2**31), "a.u64": (U64, 2**64 - 1),
        "a.i64": (I64, -2**63), "a.f32": (F32T, 0.5), "a.f64": (F64T, 0.1), "a.bool": (BOOL, True),
        "a.string": (STR, texts[2]), "a.strings": (ARR, (STR, texts)), "a.none": (ARR, (I32, [])),
        "a.bools": (ARR, (BOOL, [True, False])), "a.long": (ARR, (U64, [2**63] + [7] * 20)),
        "a.nested": (ARR, (ARR, [(U8, [1, 2]), (STR, texts[:3]), (ARR, [(F64T, [-1.5])])])),
    }

    def plain(t, v):
        return [plain(v[0], x) for x in v[1]] if t == ARR else v

    pairs = [kv(k, *v) for k, v in values.items()]
    odd = [kv("b.cut", STR, "a" + "\u4e2d" * 100), kv("b.nan", F64T, math.nan), kv("b.inf", F32T, math.inf),
           kv("b.raw", STR, b"ok\xff\xc0\xaf\0\xed\xa0\x80end")]
    (folder / "meta.gguf").write_bytes(gguf(pairs + odd))
    got = json.loads(good("-m", folder / "meta.gguf", "--metadata", "--json"))
    for k, (t, v) in values.items():
        assert got[k] == plain(t, v), (k, got[k])
    assert got["b.nan"] is None and got["b.inf"] is None
    assert got["b.raw"] == "ok" + "\ufffd" * 7 + "end", ascii(got["b.raw"])
    text = good("-m", folder / "meta.gguf", "--metadata").splitlines()
    assert len(text) == len(values) + 4
    line = {l.split()[0]: l for l in text}
    assert line["a.long"].endswith("uint64[21] [9223372036854775808" + ", 7" * 7 + ", ...]")
    assert line["a.string"].endswith('string "\u00e9\u4e2d\U0001f600"')
    assert "\ufffd" not in line["b.cut"] and line["b.cut"].endswith('\u4e2d"... (301 bytes)')
    assert '\\"\\\\\\n\\t' in line["a.strings"] and "(1000 bytes)" in line["a.strings"]


def test_shards(folder):
    """A set gives the same rows, whichever shard it is opened by."""
    a, b, c = (T(f"{x}.weight", [32, 3]) for x in "abc")
    kvs = [arch(), kv("general.alignment", U32, 64)]
    shards = [shard(0, 3, 3, [a], kvs, align=64), shard(1, 3, 3, [b], kvs[1:], align=64),
              shard(2, 3, 3, [c])]
    for i, s in enumerate(shards):
        (folder / shard_name(i, 3, "set")).write_bytes(s)
    tables = [rows(folder / shard_name(i, 3, "set")) for i in range(3)]
    assert tables[0] == tables[1] == tables[2]
    assert [(r["shard"], r["index"], r["tensor_name"]) for r in tables[0]] == [
        ("0", "0", "a.weight"), ("1", "1", "b.weight"), ("2", "2", "c.weight")]
    assert [int(r["end"]) for r in tables[0]] == [len(s) for s in shards]
    meta = json.loads(good("-m", folder / shard_name(2, 3, "set"), "--metadata", "--json"))
    assert meta["general.architecture"] == "llama"


def test_versions_and_order(folder):
    """Version 2 reads like 3; tensors need not stand in the order of their data; one of one."""
    tensors = [T("b", [4], offset=64), T("a", [4], offset=0), T("c", [4], offset=160)]
    for version in (2, 3):
        (folder / "v.gguf").write_bytes(gguf([kv("split.count", U16, 1)], tensors, version=version))
        table = rows(folder / "v.gguf")
        assert [r["tensor_name"] for r in table] == ["b", "a", "c"]
        assert [r["pad_after"] for r in table] == ["80", "48", "0"]
    (folder / "vocab.gguf").write_bytes(gguf([arch()]))
    assert rows(folder / "vocab.gguf") == []
    assert json.loads(good("-m", folder / "vocab.gguf", "--json")) == []
    assert json.loads(good("-m", folder / "vocab.gguf", "--io", "--json"))["token_bytes"] == 0


def test_output_file(folder):
    model, out = folder / "moe.gguf", folder / "out.csv"
    good("-m", model, "-o", out)
    whole = out.read_text()
    assert whole == good("-m", model)
    assert stat.S_IMODE(out.stat().st_mode) == 0o666 & ~CURRENT_UMASK
    out.chmod(0o640)
    link = folder / "link.csv"
    link.symlink_to(out)
    good("-m", model, "--json", "-o", link)
    assert link.is_symlink() and json.loads(out.read_text())
    assert stat.S_IMODE(out.stat().st_mode) == 0o640

    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    out.write_text("precious")
    p = ttx("-m", model, "-o", out, preexec_fn=small_files)
    assert p.returncode == 1 and p.stderr.count(b"\n") == 1 and b"File too large" in p.stderr, p
    assert out.read_text() == "precious" and not list(folder.glob("*.tmp"))
    p = ttx("-m", folder / "no.gguf", "-o", out)
    assert p.returncode == 1 and out.read_text() == "precious"
    p = ttx("-m", model, "-o", folder / "no" / "out.csv")
    assert p.returncode == 1 and p.stderr.count(b"\n") == 1
    good("-m", model, "-o", "/dev/null")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    if os.path.exists("/dev/full"):
        p = ttx("-m", model, "-o", "/dev/full")
        assert p.returncode == 1 and p.stderr.count(b"\n") == 1 and b"No space" in p.stderr, p
        with open("/dev/full", "w") as full:
            p = subprocess.run([TTX, "gguf-dump", "-m", model], stdout=full, stderr=subprocess.PIPE)
        assert p.returncode == 1 and p.stderr.count(b"\n") == 1, p


def test_refusals(folder):
    for path, word in ((folder, b"directory"), (folder / "none.gguf", b"No such file"),
                       ("/dev/null", b"device")):
        p = ttx("-m", path)
        assert p.returncode == 1 and word in p.stderr and p.stderr.count(b"\n") == 1, p
    os.mkfifo(folder / "pipe")
    assert ttx("-m", folder / "pipe").returncode == 1  # does not wait for a writer
    assert ttx("-m", folder / "moe.gguf", "--io", "--metadata").returncode == 2
    before = (folder / "moe.gguf").read_bytes()
    p = ttx("-m", folder / "moe.gguf", "-o", folder / "moe.gguf")
    assert p.returncode == 2 and (folder / "moe.gguf").read_bytes() == before
    p = ttx("-m", folder / ("long" * 60 + ".gguf"))
    assert p.returncode == 1 and p.stderr.endswith(b"long.gguf: No such file or directory\n"), p


def test_many_tensors_and_closed_pipe(folder):
    n = 300_000
    tensors = [T(f"blk.{i // 12}.ffn_up_{i % 12}.weight", [2, 2]) for i in range(n)]
    path = folder / "many.gguf"
    path.write_bytes(gguf([arch()], tensors))
    for view in ([], ["--json"], ["--io"]):
        start = cpu()
        text = good("-m", path, *view)
        spent = cpu() - start
        print(f"   {n} tensors {' '.join(view)}: {spent:.2f} s, {len(text)} bytes")
        assert not FAST or spent < 60
    for ignore in (signal.SIG_DFL, signal.SIG_IGN):  # killed by SIGPIPE, or told EPIPE
        p = subprocess.Popen([TTX, "gguf-dump", "-m", path], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(
                                 signal.SIGPIPE, ignore), restore_signals=False)
        p.stdout.readline()
        p.stdout.close()
        err = p.stderr.read()
        assert p.wait(30) != 0 and err == b"", err


def test_huge_sparse_file(folder):
    """60 GiB, of which only the header is read."""
    path, rows_each = folder / "huge.gguf", 1 << 31
    tensors = [T(f"blk.{i}.ffn_up.weight", [rows_each], F32, size=4 * rows_each) for i in range(8)]
    with open(path, "wb") as f:
        f.write(gguf([arch()], tensors, with_data=False))
        f.truncate(f.tell() + 8 * 4 * rows_each)
    p = subprocess.Popen(
        ["sh", "-c", f'"{TTX}" gguf-dump -m "{path}" >/dev/null && cat /proc/$$/io'],
        stdout=subprocess.PIPE)
    start = cpu()
    out = p.communicate()[0].decode()
    spent = cpu() - start
    assert p.returncode == 0
    read = int(out.split("rchar: ")[1].split()[0])  # of the shell and the children it waited for
    print(f"   {path.stat().st_size / 2**30:.0f} GiB: {spent:.3f} s, {read} bytes read")
    assert not FAST or (spent < 30 and read < 1 << 20), (spent, read)


def main():
    global TTX, FAST
    TTX, FAST = str(Path(sys.argv[1]).resolve()), "--slow-build" not in sys.argv
    with tempfile.TemporaryDirectory() as folder:
        for name, test in list(globals().items()):
            if name.startswith("test_"):
                print(name, flush=True)
                test(Path(folder))
    return 0


CURRENT_UMASK = os.umask(0)
os.umask(CURRENT_UMASK)
if __name__ == "__main__":
    sys.exit(main())
