/* tiny_model.c -- see tiny_model.h. The layout is drawn in gguf/gguf_read.c. */
#include "tiny_model.h"

#include "half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 512, ALIGN = 32, FIRST_PIECE = 259 };
enum { U32 = 4, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, I32 = 5 }; /* GGUF's value types */

typedef enum kind { NORM, BIAS, QK, WEIGHT, EMBEDDING, OUTPUT, DIVISORS } kind;

typedef struct tensor {
    char name[48];
    uint64_t k, rows; /* rows 0: a vector */
    kind kind;
    uint32_t type;
    uint64_t offset, bytes;
} tensor;

typedef struct writer {
    const tiny_model *t;
    FILE *f;
    tensor v[MAX_TENSORS];
    size_t n;
    uint64_t n_kv, rng;
} writer;

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
                    .rope_base = 10000};
    t.neox = strcmp(arch, "qwen2") == 0 || strcmp(arch, "qwen3") == 0;
    t.qkv_bias = strcmp(arch, "qwen2") == 0;
    t.qk_norm = strcmp(arch, "qwen3") == 0;
    t.no_ffn = strcmp(arch, "skeleton") == 0;
    if (strcmp(arch, "gemma3") == 0) {
        t.neox = t.qk_norm = t.post_norms = t.gelu = t.scaled_embd = t.tied = true;
        t.n_layer = 3;
        t.n_swa = 40;
        t.swa_period = 2;
        t.rope_base = 1e6;
        t.rope_base_swa = 10000;
    }
    return t;
}

/* ---- tensors ---- */

static void add(writer *w, const char *name, int layer, uint64_t k, uint64_t rows, kind kind) {
    tensor *x = &w->v[w->n++];
    char stem[32] = "";
    if (layer >= 0) snprintf(stem, sizeof stem, "blk.%d.", layer);
    snprintf(x->name, sizeof x->name, "%s%s", stem, name);
    x->k = k;
    x->rows = rows;
    x->kind = kind;
    x->type = rows ? w->t->type : TTX_F32;
    x->bytes = ttx_dtype_bytes((ttx_dtype)x->type, k) * (rows ? rows : 1);
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
        add(w, "attn_q_norm.weight", il, t->d_head, 0, NORM);
        add(w, "attn_k_norm.weight", il, t->d_head, 0, NORM);
    }
    if (t->post_norms) add(w, "post_attention_norm.weight", il, n, 0, NORM);
}

static void add_ffn(writer *w, int il) {
    const tiny_model *t = w->t;
    add(w, "ffn_norm.weight", il, t->n_embd, 0, NORM);
    if (t->no_ffn) return;
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
    }
}

static void put_tensor(writer *w, const tensor *x) {
    double root = sqrt((double)x->k);
    w->rng = w->t->seed;
    for (const char *s = x->name; *s; s++) w->rng = w->rng * 1099511628211u + (uint8_t)*s;
    for (uint64_t r = 0; r < x->rows; r++) {
        double std[] = {[QK] = 1.5 / root,
                        [WEIGHT] = 1 / root,
                        [EMBEDDING] = w->t->tied ? 2.8 / root : 1,
                        [OUTPUT] = 2.8 / root};
        put_row(w, x->type, x->k, std[x->kind]);
    }
    for (uint64_t i = 0; !x->rows && i < x->k; i++)
        put_float(w, x->kind == NORM   ? 0.6 + 0.8 * uniform(w)
                     : x->kind == BIAS ? 0.3 * normal(w)
                                       : 1 + 7 * uniform(w));
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
    kv_u32(w, "feed_forward_length", t->n_ff);
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
        kv_f32(w, "rope.freq_base_swa", t->rope_base_swa);
    }
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
        put_u32(w, x->rows ? 2 : 1);
        put_u64(w, x->k);
        if (x->rows) put_u64(w, x->rows);
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
