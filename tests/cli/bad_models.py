#!/usr/bin/env python3
"""Golden bad models: well-formed GGUF files that are no model, each refused with exactly the line
and the exit code on record.

    bad_models.py TTX [--update]

The record is bad_models.golden: "case: code: line"; tests/gguf/bad_files.py has the cases in which
the file itself is damaged, and says how to add one. Here a case is (name, model(...)[, command]),
or (name, {file name: bytes}, command) where a route file belongs to it.
"""
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "gguf"))
from bad_files import observe  # noqa: E402
from gguf_writer import *  # noqa: E402,F403

GOLDEN = Path(__file__).with_suffix(".golden")
RUN, PLAN = ["run", "-p", "x", "-n", "1", "-t", "1"], ["plan"]
IQ2_XS, TQ1_0 = 17, 34
BLOCKS.update({IQ2_XS: (256, 74), TQ1_0: (256, 54)})

EMBD, FF, HEADS, KV_HEADS, LAYERS, VOCAB = 64, 96, 4, 2, 2, 300
HEAD = EMBD // HEADS
EXPERTS, USED, EXPERT_FF, SHARED_FF = 4, 2, 32, 48
MOE = ("mixtral", "qwen2moe", "qwen3moe", "olmoe", "gpt-oss")
IDS = 26  # I32 as a type of tensors
BLOCKS[IDS] = (1, 4)
NAN, INF = float("nan"), float("inf")


def arch_of(name):
    return "llama" if name == "mixtral" else name


def hyperparameters(name):
    """key -> (type, value)"""
    own = {
        "context_length": (U32, 128), "embedding_length": (U32, EMBD), "block_count": (U32, LAYERS),
        "feed_forward_length": (U32, FF), "attention.head_count": (U32, HEADS),
        "attention.head_count_kv": (U32, KV_HEADS),
        "attention.layer_norm_rms_epsilon": (F32T, 1e-5), "rope.dimension_count": (U32, HEAD),
        "rope.freq_base": (F32T, 10000.0),
    }
    if name == "gemma3":
        own |= {"attention.sliding_window": (U32, 32), "attention.key_length": (U32, HEAD)}
    if name in MOE:
        own |= {"expert_count": (U32, EXPERTS), "expert_used_count": (U32, USED),
                "expert_feed_forward_length": (U32, EXPERT_FF)}
    if name == "qwen2moe":
        own |= {"expert_shared_feed_forward_length": (U32, SHARED_FF)}
    if name == "gpt-oss":
        own |= {"attention.sliding_window": (U32, 32)}
    name = arch_of(name)
    return {"general.architecture": (STR, name)} | {f"{name}.{k}": v for k, v in own.items()}


def vocabulary():
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    pieces += [f"x{i}" for i in range(VOCAB - len(pieces))]
    types = [2, 3, 3] + [6] * 256 + [1] * (VOCAB - 259)
    return {
        "tokenizer.ggml.model": (STR, "llama"), "tokenizer.ggml.tokens": (ARR, (STR, pieces)),
        "tokenizer.ggml.scores": (ARR, (F32T, [-i for i in range(VOCAB)])),
        "tokenizer.ggml.token_type": (ARR, (I32, types)),
    }


def moe_tensors(name, rows):
    q, k = HEADS * HEAD, KV_HEADS * HEAD
    ff = FF if name in ("mixtral", "olmoe") else EXPERT_FF
    rows |= {"ffn_gate_inp.weight": [EMBD, EXPERTS], "ffn_gate_exps.weight": [EMBD, ff, EXPERTS],
             "ffn_up_exps.weight": [EMBD, ff, EXPERTS], "ffn_down_exps.weight": [ff, EMBD, EXPERTS]}
    if name == "olmoe":
        rows |= {"attn_q_norm.weight": [q], "attn_k_norm.weight": [k]}
    if name == "qwen2moe":
        rows |= {"ffn_gate_shexp.weight": [EMBD, SHARED_FF], "ffn_up_shexp.weight": [EMBD, SHARED_FF],
                 "ffn_down_shexp.weight": [SHARED_FF, EMBD], "ffn_gate_inp_shexp.weight": [EMBD]}
    if name == "gpt-oss":
        rows["post_attention_norm.weight"] = rows.pop("ffn_norm.weight")
        rows |= {"attn_output.bias": [EMBD], "attn_sinks.weight": [HEADS], "ffn_gate_inp.bias": [EXPERTS],
                 "ffn_gate_exps.bias": [ff, EXPERTS], "ffn_up_exps.bias": [ff, EXPERTS],
                 "ffn_down_exps.bias": [EMBD, EXPERTS]}
    return rows


def layer_tensors(name, i):
    q, k = HEADS * HEAD, KV_HEADS * HEAD
    rows = {
        "attn_norm.weight": [EMBD], "attn_q.weight": [EMBD, q], "attn_k.weight": [EMBD, k],
        "attn_v.weight": [EMBD, k], "attn_output.weight": [q, EMBD], "ffn_norm.weight": [EMBD],
        "ffn_gate.weight": [EMBD, FF], "ffn_up.weight": [EMBD, FF], "ffn_down.weight": [FF, EMBD],
    }
    if name in MOE:
        rows = moe_tensors(name, {n: ne for n, ne in rows.items() if n[:4] != "ffn_" or "norm" in n})
    if name in ("qwen2", "qwen2moe", "gpt-oss"):
        rows |= {"attn_q.bias": [q], "attn_k.bias": [k], "attn_v.bias": [k]}
    if name in ("qwen3", "qwen3moe", "gemma3"):
        rows |= {"attn_q_norm.weight": [HEAD], "attn_k_norm.weight": [HEAD]}
    if name == "gemma3":
        rows |= {"post_attention_norm.weight": [EMBD], "post_ffw_norm.weight": [EMBD]}
    return {f"blk.{i}.{n}": ne for n, ne in rows.items()}


def model(changes=(), tensors=(), *, of="llama"):
    """A good model with changes: {key: (type, value)}, {tensor: shape or T}; None takes one away.
    A key without its prefix is the architecture's."""
    known = hyperparameters(of) | vocabulary()
    for key, v in dict(changes).items():
        if not key.startswith(("general.", "tokenizer.")):
            key = f"{arch_of(of)}.{key}"
        known[key] = v
    shapes = {"token_embd.weight": [EMBD, VOCAB], "output_norm.weight": [EMBD]}
    for i in range(LAYERS):
        shapes |= layer_tensors(of, i)
    shapes |= dict(tensors)
    return gguf([kv(k, *v) for k, v in known.items() if v is not None],
                [t if isinstance(t, T) else T(n, t) for n, t in shapes.items() if t is not None])


def key(which, *v, **more):
    """A model with one key changed, or without it."""
    return model({which: v or None}, **more)


def tensor(which, *v, **more):
    """A model with one tensor changed ([shape] or [shape, type]), or without it."""
    return model((), {which: T(which, *v) if v else None}, **more)


def split(changes=()):
    """A Mixtral of old: a tensor for each expert's matrix, with changes ({name: T or None})."""
    shapes = {}
    for i in range(LAYERS):
        for part, ne in (("gate", [EMBD, FF]), ("up", [EMBD, FF]), ("down", [FF, EMBD])):
            shapes[f"blk.{i}.ffn_{part}_exps.weight"] = None
            shapes |= {f"blk.{i}.ffn_{part}.{e}.weight": ne for e in range(EXPERTS)}
    return model((), shapes | dict(changes), of="mixtral")


def routes(text, command="--routes", of="mixtral", first="# route_trace v1\n"):
    """A good model and a route file, by default with the right first lines."""
    lines = [first, "# model=x\n", "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"]
    text = text if isinstance(text, bytes) else ("".join(lines) + text).encode()
    return {"model.gguf": model(of=of), "r.csv": text}, [*RUN, command, "r.csv"]


def zeros_but(n, at, v):
    return struct.pack(f"<{n}f", *(v if i == at else 0 for i in range(n)))


def router(name, ne, data, type=F32, of="mixtral"):
    """A model with the values of one tensor of layer 1's router, all others 0; to be computed."""
    name = f"blk.1.{name}"
    model_file = model((), {name: T(name, ne, type, data=data)}, of=of)
    return {"model.gguf": model_file, "ids": b"[5, 6, 7]"}, ["eval", "--tokens", "ids", "-t", "1"]


BPE = {"tokenizer.ggml.model": (STR, "gpt2"), "tokenizer.ggml.pre": (STR, "smollm")}
TOKENS = "tokenizer.ggml.tokens"

CASES = [
    # the architecture (that an unknown one's message lists the known ones: see main)
    ("arch-missing", key("general.architecture")),
    ("arch-number", key("general.architecture", U32, 7)),
    # sizes
    ("context-missing", key("context_length")),
    ("context-0", key("context_length", U32, 0)),
    ("context-huge", key("context_length", U32, 2**32 - 1)),
    ("context-negative", key("context_length", I32, -1)),
    ("context-64-bit", key("context_length", U64, 2**32)),
    ("context-string", key("context_length", STR, "4096")),
    ("context-float", key("context_length", F32T, 4096.5)),
    ("context-array", key("context_length", ARR, (U32, [4096]))),
    ("context-bool", key("context_length", BOOL, 1)),
    ("embedding-missing", key("embedding_length")),
    ("embedding-0", key("embedding_length", U32, 0)),
    ("embedding-other", key("embedding_length", U32, 128)),
    ("layers-missing", key("block_count")),
    ("layers-0", key("block_count", U32, 0)),
    ("layers-huge", key("block_count", U32, 2**31)),
    ("layers-more-than-tensors", key("block_count", U32, 3)),
    ("ff-missing", key("feed_forward_length")),
    ("ff-0", key("feed_forward_length", U32, 0)),
    ("ff-other", key("feed_forward_length", U32, 97)),
    ("ff-array", key("feed_forward_length", ARR, (U32, [FF, FF]))),
    # heads
    ("heads-missing", key("attention.head_count")),
    ("heads-0", key("attention.head_count", U32, 0)),
    ("heads-huge", key("attention.head_count", U32, 2**30)),
    ("heads-array", key("attention.head_count", ARR, (U32, [4, 4]))),
    ("heads-more-than-embedding", key("attention.head_count", U32, EMBD * 2)),
    ("heads-other", key("attention.head_count", U32, 2)),
    ("kv-heads-0", key("attention.head_count_kv", U32, 0)),
    ("kv-heads-not-dividing", key("attention.head_count_kv", U32, 3)),
    ("kv-heads-too-many", key("attention.head_count_kv", U32, 8)),
    ("kv-heads-array", key("attention.head_count_kv", ARR, (U32, [2, 2]))),
    ("key-length-0", key("attention.key_length", U32, 0)),
    ("key-length-huge", key("attention.key_length", U32, 1 << 20)),
    ("value-length-0", key("attention.value_length", U32, 0)),
    ("value-length-other", key("attention.value_length", U32, HEAD * 2)),
    # numbers
    ("eps-missing", key("attention.layer_norm_rms_epsilon")),
    ("eps-negative", key("attention.layer_norm_rms_epsilon", F32T, -1e-5)),
    ("eps-large", key("attention.layer_norm_rms_epsilon", F32T, 1.5)),
    ("eps-nan", key("attention.layer_norm_rms_epsilon", F32T, NAN)),
    ("eps-string", key("attention.layer_norm_rms_epsilon", STR, "1e-5")),
    ("rope-dimensions-0", key("rope.dimension_count", U32, 0)),
    ("rope-dimensions-odd", key("rope.dimension_count", U32, HEAD - 1)),
    ("rope-dimensions-more-than-head", key("rope.dimension_count", U32, HEAD + 2)),
    ("rope-base-0", key("rope.freq_base", F32T, 0.0)),
    ("rope-base-negative", key("rope.freq_base", F32T, -10000.0)),
    ("rope-base-inf", key("rope.freq_base", F64T, INF)),
    ("rope-scaling-unknown", key("rope.scaling.type", STR, "longrope")),
    ("rope-scaling-number", key("rope.scaling.type", U32, 1)),
    ("rope-scaling-unprintable", key("rope.scaling.type", STR, "\x1b[2J\nttx: all is well")),
    ("rope-factor-negative", key("rope.scaling.factor", F32T, -2.0)),
    ("rope-context-0", model({"rope.scaling.type": (STR, "yarn"), "rope.scaling.factor": (F32T, 4.0),
                              "rope.scaling.original_context_length": (U32, 0)})),
    ("window-negative", key("attention.sliding_window", I32, -5, of="gemma3")),
    ("window-period-huge", key("attention.sliding_window_pattern", U32, 1 << 20, of="gemma3")),
    ("softcap-nan", key("final_logit_softcapping", F32T, NAN, of="gemma3")),
    # tensors
    ("embedding-tensor-missing", tensor("token_embd.weight")),
    ("norm-missing", tensor("output_norm.weight")),
    ("tensor-missing", tensor("blk.1.attn_k.weight")),
    ("tensor-missing-in-first-layer", tensor("blk.0.ffn_down.weight")),
    ("bias-missing", tensor("blk.1.attn_v.bias", of="qwen2")),
    ("head-norm-missing", tensor("blk.0.attn_q_norm.weight", of="qwen3")),
    ("post-norm-missing", tensor("blk.1.post_ffw_norm.weight", of="gemma3")),
    ("shape-turned", tensor("blk.0.ffn_up.weight", [FF, EMBD])),
    ("shape-shorter", tensor("blk.1.attn_v.weight", [EMBD, KV_HEADS * HEAD - 1])),
    ("shape-of-3", tensor("blk.0.attn_q.weight", [EMBD, HEADS * HEAD, 2])),
    ("shape-of-4", tensor("blk.0.attn_q.weight", [EMBD, HEADS * HEAD, 1, 2])),
    ("shape-of-vector", tensor("blk.0.attn_norm.weight", [EMBD, 2])),
    ("shape-of-bias", tensor("blk.0.attn_q.bias", [EMBD + 1])),
    ("shape-of-output", tensor("output.weight", [EMBD, VOCAB - 1])),
    ("shape-of-rope-factors", tensor("rope_freqs.weight", [HEAD])),
    ("type-of-norm", tensor("blk.1.ffn_norm.weight", [EMBD], F16)),
    ("type-of-bias", tensor("blk.0.attn_k.bias", [KV_HEADS * HEAD], BF16, of="qwen2")),
    ("type-not-supported", model({"embedding_length": (U32, 256)}, {
        "token_embd.weight": T("token_embd.weight", [256, VOCAB], IQ2_XS)})),
    ("type-of-one-layer", model({"feed_forward_length": (U32, 256)}, {
        f"blk.{i}.ffn_{n}.weight": T(f"blk.{i}.ffn_{n}.weight", ne, TQ1_0 if (i, n) == (1, "down") else F32)
        for i in range(LAYERS) for n, ne in (("gate", [EMBD, 256]), ("up", [EMBD, 256]), ("down", [256, EMBD]))})),
    ("type-double", tensor("blk.0.attn_q.weight", [EMBD, HEADS * HEAD], F64)),
    # experts
    ("experts-missing", key("expert_count", of="qwen3moe")),
    ("experts-0", key("expert_count", U32, 0, of="qwen3moe")),
    ("experts-0-but-used", key("expert_count", U32, 0, of="mixtral")),
    ("experts-too-many", key("expert_count", U32, 1025, of="mixtral")),
    ("experts-huge", key("expert_count", U32, 2**32 - 1, of="gpt-oss")),
    ("experts-more-than-tensors-have", key("expert_count", U32, 8, of="qwen2moe")),
    ("experts-fewer-than-tensors-have", key("expert_count", U32, 3, of="gpt-oss")),
    ("experts-array", key("expert_count", ARR, (U32, [4, 4]), of="olmoe")),
    ("top-k-missing", key("expert_used_count", of="qwen3moe")),
    ("top-k-missing-in-llama", key("expert_used_count", of="mixtral")),
    ("top-k-0", key("expert_used_count", U32, 0, of="olmoe")),
    ("top-k-more-than-experts", key("expert_used_count", U32, EXPERTS + 1, of="mixtral")),
    ("top-k-too-many", key("expert_used_count", U32, 33, of="gpt-oss")),
    ("expert-width-missing", key("expert_feed_forward_length", of="qwen3moe")),
    ("expert-width-0", key("expert_feed_forward_length", U32, 0, of="gpt-oss")),
    ("expert-width-other", key("expert_feed_forward_length", U32, 40, of="qwen3moe")),
    ("expert-width-nowhere", model({"feed_forward_length": None, "expert_feed_forward_length": None},
                                   of="qwen2moe")),
    ("shared-width-other", key("expert_shared_feed_forward_length", U32, 50, of="qwen2moe")),
    ("window-missing", key("attention.sliding_window", of="gpt-oss")),
    ("router-missing", tensor("blk.1.ffn_gate_inp.weight", of="mixtral")),
    ("router-shape", tensor("blk.0.ffn_gate_inp.weight", [EMBD, EXPERTS + 1], of="olmoe")),
    ("router-bias-missing", tensor("blk.0.ffn_gate_inp.bias", of="gpt-oss")),
    ("selection-bias-shape", tensor("blk.1.exp_probs_b.bias", [EXPERTS - 1], of="qwen3moe")),
    ("selection-bias-type", tensor("blk.1.exp_probs_b.bias", [EXPERTS], F16, of="qwen3moe")),
    ("expert-table-shape", tensor("blk.1.ffn_gate_tid2eid.weight", [USED + 1, VOCAB], IDS, of="mixtral")),
    ("expert-table-type", tensor("blk.1.ffn_gate_tid2eid.weight", [USED, VOCAB], F32, of="mixtral")),
    ("experts-tensor-missing", tensor("blk.1.ffn_up_exps.weight", of="qwen3moe")),
    ("experts-count", tensor("blk.0.ffn_gate_exps.weight", [EMBD, FF, EXPERTS - 1], of="mixtral")),
    ("experts-flat", tensor("blk.0.ffn_gate_exps.weight", [EMBD, FF * EXPERTS], of="mixtral")),
    ("experts-turned", tensor("blk.1.ffn_down_exps.weight", [EMBD, EXPERT_FF, EXPERTS], of="gpt-oss")),
    ("experts-type", tensor("blk.1.ffn_down_exps.weight", [EXPERT_FF, EMBD, EXPERTS], F64, of="gpt-oss")),
    ("expert-bias-missing", tensor("blk.1.ffn_down_exps.bias", of="gpt-oss")),
    ("expert-bias-shape", tensor("blk.0.ffn_up_exps.bias", [EXPERT_FF], of="gpt-oss")),
    ("expert-bias-type", tensor("blk.0.ffn_up_exps.bias", [EXPERT_FF, EXPERTS], F16, of="gpt-oss")),
    ("sinks-missing", tensor("blk.0.attn_sinks.weight", of="gpt-oss")),
    ("sinks-shape", tensor("blk.0.attn_sinks.weight", [KV_HEADS], of="gpt-oss")),
    ("shared-expert-missing", tensor("blk.0.ffn_up_shexp.weight", of="qwen2moe")),
    ("shared-gate-missing", tensor("blk.1.ffn_gate_inp_shexp.weight", of="qwen2moe")),
    ("whole-norm-shape", tensor("blk.1.attn_q_norm.weight", [HEAD], of="olmoe")),
    ("split-first-missing", split({"blk.0.ffn_up.0.weight": None})),
    ("split-one-missing", split({"blk.1.ffn_up.2.weight": None})),
    ("split-last-missing", split({"blk.1.ffn_down.3.weight": None})),
    ("split-shape", split({"blk.0.ffn_gate.1.weight": [EMBD, FF - 1]})),
    ("split-of-3", split({"blk.0.ffn_gate.1.weight": [EMBD, FF, 2]})),
    ("split-types-mixed", split({"blk.1.ffn_gate.3.weight": T("blk.1.ffn_gate.3.weight", [EMBD, FF], F16)})),
    # experts: what only computing shows
    ("router-nan", *router("ffn_gate_inp.weight", [EMBD, EXPERTS], zeros_but(EMBD * EXPERTS, 70, NAN))),
    ("router-infinite", *router("ffn_gate_inp.bias", [EXPERTS], zeros_but(EXPERTS, 2, INF), of="gpt-oss")),
    ("selection-bias-nan", *router("exp_probs_b.bias", [EXPERTS], zeros_but(EXPERTS, 1, NAN))),
    ("expert-table-outside", *router("ffn_gate_tid2eid.weight", [USED, VOCAB],
                                     struct.pack("<2i", 1, EXPERTS) * VOCAB, IDS)),
    ("expert-table-negative", *router("ffn_gate_tid2eid.weight", [USED, VOCAB],
                                      struct.pack("<2i", -1, 2) * VOCAB, IDS)),
    # experts: what does not go with the command line
    ("used-0", model(of="mixtral"), [*RUN, "--n-expert-used", "0"]),
    ("used-too-many", model(of="mixtral"), [*RUN, "--n-expert-used", "5"]),
    ("used-out-of-range", model(of="mixtral"), [*RUN, "--n-expert-used", "1025"]),
    ("used-in-dense", model(), [*RUN, "--n-expert-used", "1"]),
    ("routes-in-dense", *routes("0,0,0,0,0,1,0.5,0,0\n", of="llama")),
    ("save-routes-in-dense", *routes("", "--save-routes", of="llama")),
    ("statistics-in-dense", *routes("", "--expert-stats", of="llama")),
    ("routes-none", model(of="mixtral"), [*RUN, "--routes", "none.csv"]),
    ("routes-folder", model(of="mixtral"), [*RUN, "--routes", "."]),
    ("routes-empty", *routes(b"")),
    ("routes-garbage", *routes(bytes(range(256)) * 9)),
    ("routes-gguf", *routes(model(of="mixtral"))),
    ("routes-long-line", *routes("0" * 600 + "\n")),
    ("routes-version", *routes("0,0,0,0,0,1,0.5,0,0\n", first="# route_trace v2\n")),
    ("routes-columns", *routes(b"# route_trace v1\nturn,step\n0,0\n")),
    ("routes-no-rows", *routes("")),
    ("routes-layers", *routes("0,0,0,2,0,1,0.5,0,0\n")),
    ("routes-layer-huge", *routes("0,0,0,4294967296,0,1,0.5,0,0\n")),
    ("routes-expert", *routes("0,0,0,1,0,4,0.5,0,0\n")),
    ("routes-expert-negative", *routes("0,0,0,1,0,-1,0.5,0,0\n")),
    ("routes-expert-twice", *routes("0,0,0,1,0,2,0.5,0,0\n0,0,0,1,1,2,0.5,0,0\n")),
    ("routes-slot-missing", *routes("0,0,0,1,0,2,0.5,0,0\n0,0,0,1,2,3,0.5,0,0\n")),
    ("routes-slot-first", *routes("0,0,0,1,1,2,0.5,0,0\n")),
    ("routes-twice", *routes("0,0,0,1,0,2,0.5,0,0\n0,0,1,1,0,2,0.5,0,0\n0,0,0,1,0,2,0.5,0,0\n")),
    ("routes-phase", *routes("0,2,0,1,0,2,0.5,0,0\n")),
    ("routes-step", *routes("0,0,16777216,1,0,2,0.5,0,0\n")),
    ("routes-weight-nan", *routes("0,0,0,1,0,2,nan,0,0\n")),
    ("routes-field-missing", *routes("0,0,0,1,0,2,0.5,0\n")),
    ("routes-field-more", *routes("0,0,0,1,0,2,0.5,0,0,0\n")),
    # vocabulary
    ("vocabulary-missing", key(TOKENS)),
    ("vocabulary-empty", key(TOKENS, ARR, (STR, []))),
    ("vocabulary-of-numbers", key(TOKENS, ARR, (U32, [1, 2, 3]))),
    ("vocabulary-scalar", key(TOKENS, STR, "abc")),
    ("vocabulary-shorter-than-embedding", key(TOKENS, ARR, (STR, ["a"] * (VOCAB - 1)))),
    ("vocabulary-longer-than-embedding", key(TOKENS, ARR, (STR, ["a"] * (VOCAB + 1)))),
    ("no-vocabulary-no-embedding", model({TOKENS: None}, {"token_embd.weight": None}), PLAN),
    ("tokenizer-missing", key("tokenizer.ggml.model")),
    ("tokenizer-unknown", key("tokenizer.ggml.model", STR, "wordpiece")),
    ("scores-missing", key("tokenizer.ggml.scores")),
    ("scores-too-few", key("tokenizer.ggml.scores", ARR, (F32T, [0.0] * 5))),
    ("scores-strings", key("tokenizer.ggml.scores", ARR, (STR, ["0"] * VOCAB))),
    ("scores-nan", key("tokenizer.ggml.scores", ARR, (F32T, [0.0] * (VOCAB - 1) + [NAN]))),
    ("types-too-many", key("tokenizer.ggml.token_type", ARR, (I32, [1] * (VOCAB + 1)))),
    ("bos-outside", key("tokenizer.ggml.bos_token_id", U32, VOCAB)),
    ("eos-negative", key("tokenizer.ggml.eos_token_id", I32, -7)),
    ("bos-wanted-but-none", model({"tokenizer.ggml.add_bos_token": (BOOL, 1),
                                   "tokenizer.ggml.bos_token_id": (I32, -1)})),
    ("merges-missing", model(BPE)),
    ("merges-numbers", model(BPE | {"tokenizer.ggml.merges": (ARR, (U32, [1]))})),
    ("pre-tokenizer-unknown", model(BPE | {"tokenizer.ggml.pre": (STR, "none-such")})),
    ("pre-tokenizer-number", model(BPE | {"tokenizer.ggml.pre": (U32, 3)})),
]


def check_good(ttx):
    """What the cases start from is accepted; and an unknown architecture's message."""
    for name in ("llama", "qwen2", "qwen3", "gemma3", *MOE):
        line = observe(ttx, (name, model(of=name), ["tokenize", "-p", "", "--no-bos", "--ids"]))
        plan = observe(ttx, (name, model(of=name), PLAN))
        if "printed" not in plan or line != f"{name}: printed 3 bytes before it failed":
            yield f"a good model of {name}: {plan}; {line}"
    plan = observe(ttx, ("split", split(), PLAN))
    if "printed" not in plan:
        yield f"a good model with split experts: {plan}"
    for unknown in ("", "frob", "llama2", "\x1b[2J\nllama", "n" * 300):
        line = observe(ttx, ("x", model({"general.architecture": (STR, unknown)}), RUN))
        shown = "".join(c if " " <= c <= "~" else "?" for c in unknown)[:30]
        head = f"x: 3: ttx: model.gguf: architecture '{shown}"
        if not line.startswith(head) or "\n" in line or "known: llama, qwen2, qwen3, gemma3" not in line:
            yield f"unknown architecture: {line!r}"


def main():
    ttx, update = str(Path(sys.argv[1]).resolve()), "--update" in sys.argv[2:]
    seen = [observe(ttx, case if len(case) > 2 else (*case, RUN)) for case in CASES]
    if update:
        GOLDEN.write_text("\n".join(seen) + "\n")
        print(f"{len(seen)} lines written to {GOLDEN}; read the difference before you keep it")
        return 0
    findings = list(check_good(ttx))
    by_name = {line.split(":")[0]: line for line in GOLDEN.read_text().splitlines()}
    for line in seen:
        expected = by_name.pop(line.split(":")[0], "(no line on record)")
        if line != expected:
            findings.append(f"expected {expected}\n   found {line}")
    findings += [f"no case for the line on record: {line}" for line in by_name.values()]
    print(f"{len(seen)} bad models: {len(findings)} findings", *findings, sep="\n")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
