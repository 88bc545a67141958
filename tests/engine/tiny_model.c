/* tiny_model.c -- see tiny_model.h. The layout is drawn in gguf/gguf_read.c. */
#include "tiny_model.h"

#include "half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 512, ALIGN = 32, FIRST_PIECE = 259 };
enum { U32 = 4, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, I32 = 5 }; /* GGUF's value types */

typedef enum kind {
    NORM,
    BIAS,
    QK,
    WEIGHT,
    EMBEDDING,
    OUTPUT,
    DIVISORS,
    EXPERT_IN,
    EXPERT_OUT,
    ROUTER,
    SELECT,
    TABLE
} kind;

typedef struct tensor {
    char name[48];
    uint64_t k, rows, n_mat; /* rows 0: a vector; n_mat 0: no third dimension */
    kind kind;
    uint32_t type;
    int first; /* of the matrices of split experts: which one this is */
    char seed[48];
    uint64_t offset, bytes;
} tensor;

typedef struct writer {
    const tiny_model *t;
    FILE *f;
    tensor v[MAX_TENSORS];
    size_t n;
    uint64_t n_kv, rng;
} writer;

static bool one_of(const char *arch, const char *a, const char *b) {
    return strcmp(arch, a) == 0 || strcmp(arch, b) == 0;
}

static void describe_gemma3(tiny_model *t) {
    t->neox = t->qk_norm = t->post_norms = t->gelu = t->scaled_embd = t->tied = t->swa_rope = true;
    t->n_layer = 3;
    t->n_swa = 40;
    t->swa_period = 2;
    t->rope_base = 1e6;
    t->rope_base_swa = 10000;
}

static void describe_gpt_oss(tiny_model *t) {
    t->qkv_bias = t->biases = t->sinks = t->clamped_swiglu = t->moe_biases = true;
    t->router = TINY_SOFTMAX_TOP_K;
    t->n_expert_used = 4;
    t->n_swa = 40;
    t->swa_period = 2;
    t->rope_base = 150000;
    t->rope_scaling = "yarn";
    t->rope_factor = 8;
    t->n_ctx_orig = 256;
}

static void describe_experts(tiny_model *t) {
    const char *arch = t->arch;
    t->n_expert = 8;
    t->n_expert_used = 2;
    t->n_ff_exp = 64;
    t->neox = true;
    t->router_norm = strcmp(arch, "qwen3moe") == 0;
    t->qkv_bias = strcmp(arch, "qwen2moe") == 0;
    t->n_ff_shexp = t->qkv_bias ? 96 : 0;
    t->qk_norm = one_of(arch, "qwen3moe", "olmoe");
    t->qk_norm_whole = strcmp(arch, "olmoe") == 0;
    if (t->qk_norm_whole) t->n_ff_exp = t->n_ff;
    if (t->qk_norm) t->n_expert = 16, t->n_expert_used = 4;
    if (strcmp(arch, "gpt-oss") == 0) describe_gpt_oss(t);
    if (strcmp(arch, "mixtral") != 0) return;
    t->arch = "llama";
    t->neox = false;
    t->router_norm = true;
    t->n_ff_exp = t->n_ff;
}

tiny_model tiny_model_of(const char *arch) {
    tiny_model t = {.arch = arch,
                    .seed = 1,
                    .type = TTX_F32,
                    .n_vocab = 96,
                    .n_ctx = 2048,
                    .n_embd = 64,
                    .n_layer = 2,
                    .n_ff = 96,
                    .n_head = 4,
                    .n_head_kv = 2,
                    .d_head = 32,
                    .n_rot = 32,
                    .eps = 1e-5,
                    .rope_base = 10000,
                    .router_scale = 1};
    t.neox = one_of(arch, "qwen2", "qwen3");
    t.qkv_bias = strcmp(arch, "qwen2") == 0;
    t.qk_norm = strcmp(arch, "qwen3") == 0;
    t.no_ffn = strcmp(arch, "skeleton") == 0;
    if (strcmp(arch, "gemma3") == 0) describe_gemma3(&t);
    if (one_of(arch, "mixtral", "gpt-oss") || one_of(arch, "qwen2moe", "qwen3moe") ||
        strcmp(arch, "olmoe") == 0)
        describe_experts(&t);
    return t;
}

/* ---- tensors ---- */

static tensor *add(writer *w, const char *name, int layer, uint64_t k, uint64_t rows, kind kind) {
    if (w->n == MAX_TENSORS) abort();
    tensor *x = &w->v[w->n++];
    char stem[32] = "";
    if (layer >= 0) snprintf(stem, sizeof stem, "blk.%d.", layer);
    snprintf(x->name, sizeof x->name, "%s%s", stem, name);
    x->k = k;
    x->rows = rows;
    x->kind = kind;
    x->type = kind == TABLE                            ? TTX_I32
              : rows && kind != ROUTER && kind != BIAS ? w->t->type
                                                       : TTX_F32;
    x->bytes = ttx_dtype_bytes((ttx_dtype)x->type, k) * (rows ? rows : 1);
    memcpy(x->seed, x->name, sizeof x->seed);
    return x;
}

static void add_matrices(writer *w, const char *name, int layer, uint64_t k, uint64_t rows,
                         const char *seed, uint64_t n_mat) {
    bool down = strncmp(seed, "ffn_down", 8) == 0;
    tensor *x = add(w, name, layer, k, rows, down ? EXPERT_OUT : EXPERT_IN);
    if (w->t->expert_type != TTX_F32) x->type = w->t->expert_type;
    x->n_mat = n_mat;
    x->bytes = ttx_dtype_bytes((ttx_dtype)x->type, k) * rows * (n_mat ? n_mat : 1);
    snprintf(x->seed, sizeof x->seed, "blk.%d.%s", layer, seed);
}

/* One matrix of each expert: "ffn_gate_exps.weight", or split "ffn_gate.0.weight" and so on. */
static void add_experts(writer *w, const char *stem, int layer, uint64_t k, uint64_t rows) {
    const tiny_model *t = w->t;
    char merged[32], name[32];
    snprintf(merged, sizeof merged, "%s_exps.weight", stem);
    if (!t->split_experts) add_matrices(w, merged, layer, k, rows, merged, t->n_expert);
    for (uint32_t e = 0; t->split_experts && e < t->n_expert; e++) {
        snprintf(name, sizeof name, "%s.%u.weight", stem, e);
        add_matrices(w, name, layer, k, rows, merged, 0);
        w->v[w->n - 1].first = (int)e;
    }
    snprintf(name, sizeof name, "%s_exps.bias", stem);
    if (t->moe_biases) add(w, name, layer, rows, t->n_expert, BIAS);
}

static void add_moe(writer *w, int il) {
    const tiny_model *t = w->t;
    add(w, "ffn_gate_inp.weight", il, t->n_embd, t->n_expert, ROUTER);
    if (t->moe_biases) add(w, "ffn_gate_inp.bias", il, t->n_expert, 0, BIAS);
    if (t->select_bias) add(w, "exp_probs_b.bias", il, t->n_expert, 0, SELECT);
    if (t->hash_routing) add(w, "ffn_gate_tid2eid.weight", il, t->n_expert_used, t->n_vocab, TABLE);
    add_experts(w, "ffn_gate", il, t->n_embd, t->n_ff_exp);
    add_experts(w, "ffn_up", il, t->n_embd, t->n_ff_exp);
    add_experts(w, "ffn_down", il, t->n_ff_exp, t->n_embd);
    if (!t->n_ff_shexp) return;
    add(w, "ffn_gate_shexp.weight", il, t->n_embd, t->n_ff_shexp, WEIGHT);
    add(w, "ffn_up_shexp.weight", il, t->n_embd, t->n_ff_shexp, WEIGHT);
    add(w, "ffn_down_shexp.weight", il, t->n_ff_shexp, t->n_embd, WEIGHT);
    add(w, "ffn_gate_inp_shexp.weight", il, t->n_embd, 0, ROUTER);
}

static void add_attention(writer *w, int il) {
    const tiny_model *t = w->t;
    uint64_t n = t->n_embd, q = (uint64_t)t->n_head * t->d_head,
             kv = (uint64_t)t->n_head_kv * t->d_head;
    add(w, "attn_norm.weight", il, n, 0, NORM);
    add(w, "attn_q.weight", il, n, q, QK);
    add(w, "attn_k.weight", il, n, kv, QK);
    add(w, "attn_v.weight", il, n, kv, WEIGHT);
    add(w, "attn_output.weight", il, q, n, WEIGHT);
    if (t->qkv_bias || t->biases) {
        add(w, "attn_q.bias", il, q, 0, BIAS);
        add(w, "attn_k.bias", il, kv, 0, BIAS);
        add(w, "attn_v.bias", il, kv, 0, BIAS);
    }
    if (t->biases) add(w, "attn_output.bias", il, n, 0, BIAS);
    if (t->qk_norm) {
        add(w, "attn_q_norm.weight", il, t->qk_norm_whole ? q : t->d_head, 0, NORM);
        add(w, "attn_k_norm.weight", il, t->qk_norm_whole ? kv : t->d_head, 0, NORM);
    }
    if (t->sinks) add(w, "attn_sinks.weight", il, t->n_head, 0, BIAS);
    if (t->post_norms) add(w, "post_attention_norm.weight", il, n, 0, NORM);
}

static void add_ffn(writer *w, int il) {
    const tiny_model *t = w->t;
    add(w, t->sinks ? "post_attention_norm.weight" : "ffn_norm.weight", il, t->n_embd, 0, NORM);
    if (t->no_ffn) return;
    if (t->n_expert) {
        add_moe(w, il);
        return;
    }
    add(w, "ffn_gate.weight", il, t->n_embd, t->n_ff, WEIGHT);
    add(w, "ffn_up.weight", il, t->n_embd, t->n_ff, WEIGHT);
    add(w, "ffn_down.weight", il, t->n_ff, t->n_embd, WEIGHT);
    if (t->biases) {
        add(w, "ffn_gate.bias", il, t->n_ff, 0, BIAS);
        add(w, "ffn_up.bias", il, t->n_ff, 0, BIAS);
        add(w, "ffn_down.bias", il, t->n_embd, 0, BIAS);
    }
    if (t->post_norms) add(w, "post_ffw_norm.weight", il, t->n_embd, 0, NORM);
}

static void add_tensors(writer *w) {
    const tiny_model *t = w->t;
    add(w, "token_embd.weight", -1, t->n_embd, t->n_vocab, EMBEDDING);
    add(w, "output_norm.weight", -1, t->n_embd, 0, NORM);
    if (!t->tied) add(w, "output.weight", -1, t->n_embd, t->n_vocab, OUTPUT);
    if (t->rope_freqs) add(w, "rope_freqs.weight", -1, t->n_rot / 2, 0, DIVISORS);
    for (uint32_t il = 0; il < t->n_layer; il++) {
        add_attention(w, (int)il);
        add_ffn(w, (int)il);
    }
    uint64_t at = 0;
    for (size_t i = 0; i < w->n; i++) {
        w->v[i].offset = at;
        at = (at + w->v[i].bytes + ALIGN - 1) / ALIGN * ALIGN;
    }
}

/* ---- numbers ---- */

static uint64_t next(writer *w) { /* splitmix64 */
    uint64_t z = w->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static double uniform(writer *w) {
    return (double)(next(w) >> 11) * 0x1p-53;
}

/* Near enough to normal, with variance 1. */
static double normal(writer *w) {
    return 2 * (uniform(w) + uniform(w) + uniform(w) - 1.5);
}

static void put_u16(writer *w, uint16_t v) {
    fwrite(&v, sizeof v, 1, w->f);
}

static void put_float(writer *w, double v) {
    float x = (float)v;
    fwrite(&x, sizeof x, 1, w->f);
}

/* n values of standard deviation `std` in blocks of the type. */
static void put_row(writer *w, uint32_t type, uint64_t n, double std) {
    uint64_t block = ttx_dtype_get(type)->block;
    for (uint64_t i = 0; i < n; i += block) {
        double scale = std * (0.7 + 0.6 * uniform(w));
        if (type == TTX_F32) put_float(w, std * normal(w));
        if (type == TTX_F16) put_u16(w, ttx_f32_to_f16((float)(std * normal(w))));
        if (type == TTX_Q8_0) {
            put_u16(w, ttx_f32_to_f16((float)(scale / 73)));
            for (int j = 0; j < 32; j++) fputc((int)(next(w) % 255) - 127, w->f);
        }
        if (type == TTX_Q4_K) { /* w = d * 32 * q - dmin * 32, q in 0..15 */
            put_u16(w, ttx_f32_to_f16((float)(scale / (32 * 4.61))));
            put_u16(w, ttx_f32_to_f16((float)(scale / (32 * 4.61) * 7.5)));
            for (int j = 0; j < 12; j++) fputc(j < 8 ? 0xa0 : 0, w->f); /* eight times 32 */
            for (int j = 0; j < 128; j++) fputc((int)(next(w) & 255), w->f);
        }
        if (type == TTX_MXFP4) { /* a power of two, and 32 numbers of four bits, mean square 2.93 */
            fputc(127 + (int)lround(log2(scale / 2.93)), w->f);
            for (int j = 0; j < 16; j++) fputc((int)(next(w) & 255), w->f);
        }
    }
}

/* Different experts for each token. */
static void put_table(writer *w, const tensor *x) {
    for (uint64_t r = 0; r < x->rows; r++) {
        uint64_t first = next(w), stride = w->t->n_expert - 1;
        for (uint64_t i = 0; i < x->k; i++) {
            uint32_t e = (uint32_t)((first + i * stride) % w->t->n_expert);
            fwrite(&e, sizeof e, 1, w->f);
        }
    }
}

static void put_rows(writer *w, const tensor *x) {
    double root = sqrt((double)x->k);
    const double std[] = {[BIAS] = 0.3,
                          [QK] = 1.5 / root,
                          [WEIGHT] = 1 / root,
                          [EXPERT_IN] = (w->t->clamped_swiglu ? 4 : 1) / root, /* to be clamped */
                          [EXPERT_OUT] = (w->t->clamped_swiglu ? 0.2 : 1) / root,
                          [EMBEDDING] = w->t->tied ? 2.8 / root : 1,
                          [OUTPUT] = 2.8 / root,
                          [ROUTER] = w->t->flat_router ? 0 : 1.5 / root};
    for (uint64_t r = 0; r < x->rows; r++) put_row(w, x->type, x->k, std[x->kind]);
}

static void put_vector(writer *w, const tensor *x) {
    for (uint64_t i = 0; i < x->k; i++) switch (x->kind) {
        case NORM: put_float(w, 0.6 + 0.8 * uniform(w)); break;
        case ROUTER:
        case BIAS: put_float(w, 0.3 * normal(w)); break;
        case SELECT: put_float(w, 0.1 * normal(w)); break;
        default: put_float(w, 1 + 7 * uniform(w)); break;
        }
}

static void put_tensor(writer *w, const tensor *x) {
    int n = x->n_mat ? (int)x->n_mat : 1;
    for (int i = x->first; i < x->first + n; i++) {
        w->rng = w->t->seed + 7919 * (uint64_t)i;
        for (const char *s = x->seed; *s; s++) w->rng = w->rng * 1099511628211u + (uint8_t)*s;
        if (x->kind == TABLE)
            put_table(w, x);
        else if (x->rows)
            put_rows(w, x);
        else
            put_vector(w, x);
    }
}

/* ---- metadata ---- */

static void put_u32(writer *w, uint32_t v) {
    fwrite(&v, sizeof v, 1, w->f);
}

static void put_u64(writer *w, uint64_t v) {
    fwrite(&v, sizeof v, 1, w->f);
}

static void put_str(writer *w, const char *s) {
    put_u64(w, strlen(s));
    fputs(s, w->f);
}

static void put_key(writer *w, const char *prefix, const char *key, uint32_t type) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", prefix, key);
    put_str(w, name);
    put_u32(w, type);
    w->n_kv++;
}

static void kv_u32(writer *w, const char *key, uint32_t v) {
    put_key(w, w->t->arch, key, U32);
    put_u32(w, v);
}

static void kv_f32(writer *w, const char *key, double v) {
    put_key(w, w->t->arch, key, F32);
    put_float(w, v);
}

static void kv_str(writer *w, const char *prefix, const char *key, const char *v) {
    put_key(w, prefix, key, STRING);
    put_str(w, v);
}

static void put_hparams(writer *w) {
    const tiny_model *t = w->t;
    kv_str(w, "general", "architecture", t->arch);
    kv_u32(w, "context_length", t->n_ctx);
    kv_u32(w, "embedding_length", t->n_embd);
    kv_u32(w, "block_count", t->n_layer);
    kv_u32(w, "feed_forward_length", t->n_ff); /* of an expert, in Mixtral and OLMoE */
    kv_u32(w, "attention.head_count", t->n_head);
    kv_u32(w, "attention.head_count_kv", t->n_head_kv);
    kv_u32(w, "attention.key_length", t->d_head);
    kv_u32(w, "attention.value_length", t->d_head);
    kv_f32(w, "attention.layer_norm_rms_epsilon", t->eps);
    kv_u32(w, "rope.dimension_count", t->n_rot);
    kv_f32(w, "rope.freq_base", t->rope_base);
    if (t->n_swa) {
        kv_u32(w, "attention.sliding_window", t->n_swa);
        kv_u32(w, "attention.sliding_window_pattern", t->swa_period);
        if (t->swa_rope) kv_f32(w, "rope.freq_base_swa", t->rope_base_swa);
    }
    if (t->n_expert) {
        kv_u32(w, "expert_count", t->n_expert);
        kv_u32(w, "expert_used_count", t->n_expert_used);
        kv_u32(w, "expert_feed_forward_length", t->n_ff_exp);
    }
    if (t->n_ff_shexp) kv_u32(w, "expert_shared_feed_forward_length", t->n_ff_shexp);
    if (t->rope_scaling) {
        kv_str(w, t->arch, "rope.scaling.type", t->rope_scaling);
        kv_f32(w, "rope.scaling.factor", t->rope_factor);
    }
    if (t->n_ctx_orig) kv_u32(w, "rope.scaling.original_context_length", t->n_ctx_orig);
    if (t->softcap > 0) kv_f32(w, "final_logit_softcapping", t->softcap);
}

/* Piece `id` of the vocabulary: three specials, the bytes, letters, pairs that merge. */
static const char *piece(uint32_t id, char buf[16]) {
    static const char *const special[] = {"<unk>", "<s>", "</s>"};
    static const char *const merged[] = {
        "th", "the", "▁the", "▁a", "an", "and", "▁and", "in", "er", "on", "▁o", "of", "▁of",
    };
    uint32_t at = id - FIRST_PIECE;
    if (id < 3) return special[id];
    if (id < FIRST_PIECE)
        snprintf(buf, 16, "<0x%02X>", id - 3);
    else if (at == 0)
        return "▁";
    else if (at <= 26)
        snprintf(buf, 16, "%c", 'a' + (int)at - 1);
    else if (at - 27 < sizeof merged / sizeof *merged)
        return merged[at - 27];
    else
        snprintf(buf, 16, "▁x%u", id);
    return buf;
}

static void put_array(writer *w, const char *key, uint32_t type) {
    put_key(w, "tokenizer.ggml", key, ARRAY);
    put_u32(w, type);
    put_u64(w, w->t->n_vocab);
}

static void put_vocab(writer *w) {
    uint32_t n = w->t->n_vocab;
    char buf[16];
    kv_str(w, "tokenizer.ggml", "model", "llama");
    put_array(w, "tokens", STRING);
    for (uint32_t i = 0; i < n; i++) put_str(w, piece(i, buf));
    put_array(w, "scores", F32);
    for (uint32_t i = 0; i < n; i++) put_float(w, i < FIRST_PIECE ? 0 : -(double)i);
    put_array(w, "token_type", I32);
    for (uint32_t i = 0; i < n; i++) put_u32(w, i == 0 ? 2 : i < 3 ? 3 : i < FIRST_PIECE ? 6 : 1);
    put_key(w, "tokenizer.ggml", "add_bos_token", BOOL);
    fputc(1, w->f);
    if (w->t->chat_template) kv_str(w, "tokenizer", "chat_template", w->t->chat_template);
}

/* ---- the file ---- */

static void put_padding(writer *w) {
    while (ftell(w->f) % ALIGN) fputc(0, w->f);
}

bool tiny_model_write(const tiny_model *t, FILE *f) {
    writer *w = calloc(1, sizeof *w);
    if (!w) return false;
    w->t = t;
    w->f = f;
    add_tensors(w);
    fputs("GGUF", f);
    put_u32(w, 3);
    put_u64(w, w->n);
    long count_at = ftell(f);
    put_u64(w, 0);
    put_hparams(w);
    if (t->vocab) put_vocab(w);
    fseek(f, count_at, SEEK_SET);
    put_u64(w, w->n_kv);
    fseek(f, 0, SEEK_END);
    for (size_t i = 0; i < w->n; i++) {
        const tensor *x = &w->v[i];
        put_str(w, x->name);
        put_u32(w, x->n_mat ? 3 : x->rows ? 2 : 1);
        put_u64(w, x->k);
        if (x->rows) put_u64(w, x->rows);
        if (x->n_mat) put_u64(w, x->n_mat);
        put_u32(w, x->type);
        put_u64(w, x->offset);
    }
    for (size_t i = 0; i < w->n; i++) {
        put_padding(w);
        put_tensor(w, &w->v[i]);
    }
    free(w);
    return fflush(f) == 0 && !ferror(f);
}
