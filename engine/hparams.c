/* hparams.c -- from GGUF metadata to checked hyperparameters.
 *
 * Ranges in the tables are what arithmetic and memory can bear, not what models usually have: they
 * make every later product of sizes safe in 64 bits. Source of keys and defaults: the GGUF
 * specification and llama.cpp's converters.
 */
#include "model.h"

#include "route.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define HP(field) offsetof(ttx_hparams, field)

const ttx_hparam_def ttx_common_hparams[] = {
    {"context_length", TTX_HP_U32, HP(n_ctx_train), true, 0, 1, 1 << 27},
    {"embedding_length", TTX_HP_U32, HP(n_embd), true, 0, 1, 1 << 20},
    {"block_count", TTX_HP_U32, HP(n_layer), true, 0, 1, 1024},
    {"attention.head_count", TTX_HP_U32, HP(n_head), true, 0, 1, 1 << 14},
    {"attention.layer_norm_rms_epsilon", TTX_HP_F32, HP(rms_eps), true, 0, 0, 1},
    {0},
};

static int read_row(void *base, const gguf_file *f, const char *arch, const ttx_hparam_def *d,
                    ttx_err *err) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", arch, d->key);
    double v = d->def;
    int rc;
    if (d->type == TTX_HP_U32) {
        uint32_t u = (uint32_t)d->def;
        rc = gguf_get_u32(f, key, d->required, &u, err);
        v = u;
    } else {
        rc = gguf_get_f64(f, key, d->required, &v, err);
    }
    if (rc) return rc;
    if (!(v >= d->min && v <= d->max))
        return ttx_fail(err, TTX_E_MODEL, "%s: key '%s': expected %.10g..%.10g, found %.10g",
                        gguf_path(f), key, d->min, d->max, v);
    if (d->type == TTX_HP_U32) {
        uint32_t u = (uint32_t)v;
        memcpy((char *)base + d->offset, &u, sizeof u);
    } else {
        float x = (float)v;
        memcpy((char *)base + d->offset, &x, sizeof x);
    }
    return TTX_OK;
}

static int read_table(void *base, const gguf_file *f, const char *arch, const ttx_hparam_def *table,
                      ttx_err *err) {
    for (const ttx_hparam_def *d = table; d->type != TTX_HP_END; d++) {
        int rc = read_row(base, f, arch, d, err);
        if (rc) return rc;
    }
    return TTX_OK;
}

/* Head sizes: d_k and d_v default to n_embd / n_head. */
static int read_heads(ttx_hparams *hp, const gguf_file *f, const char *arch, ttx_err *err) {
    uint32_t even = hp->n_embd / hp->n_head;
    const ttx_hparam_def rows[] = {
        {"attention.head_count_kv", TTX_HP_U32, HP(n_head_kv), false, hp->n_head, 1, hp->n_head},
        {"attention.key_length", TTX_HP_U32, HP(d_k), false, even, 1, 4096},
        {"attention.value_length", TTX_HP_U32, HP(d_v), false, even, 1, 4096},
        {0},
    };
    int rc = read_table(hp, f, arch, rows, err);
    if (rc) return rc;
    if (hp->n_head % hp->n_head_kv)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: key '%s.attention.head_count_kv': expected a divisor of "
                        "head_count %u, found %u",
                        gguf_path(f), arch, hp->n_head, hp->n_head_kv);
    return TTX_OK;
}

static int read_scaling(const gguf_file *f, const char *arch, ttx_rope_scaling *kind,
                        ttx_err *err) {
    char key[128];
    gguf_str s = {"linear", 6}; /* what an old file with a bare factor means */
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    int rc = gguf_get_str(f, key, false, &s, err);
    if (rc) return rc;
    static const struct {
        const char *name;
        ttx_rope_scaling kind;
    } kinds[] = {{"none", TTX_ROPE_SCALING_NONE},
                 {"linear", TTX_ROPE_SCALING_LINEAR},
                 {"yarn", TTX_ROPE_SCALING_YARN}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (s.n != strlen(kinds[i].name) || memcmp(s.s, kinds[i].name, s.n) != 0) continue;
        *kind = kinds[i].kind;
        return TTX_OK;
    }
    return ttx_fail(err, TTX_E_MODEL, "%s: key '%s': expected none, linear or yarn, found '%.*s'",
                    gguf_path(f), key, (int)(s.n < 40 ? s.n : 40), s.s);
}

/* The global rotary embedding; architectures adjust it, and a local one, in configure(). */
static int read_rope(ttx_hparams *hp, const gguf_file *f, const ttx_arch *arch, ttx_err *err) {
    struct {
        float factor, factor_old, attn;
    } raw = {0};
    ttx_rope *r = &hp->rope[TTX_ROPE_GLOBAL];
    ttx_rope_scaling kind = TTX_ROPE_SCALING_LINEAR;
    int rc = read_scaling(f, arch->name, &kind, err);
    if (rc) return rc;
    const ttx_hparam_def rows[] = {
        {"rope.dimension_count", TTX_HP_U32, HP(rope[0].n_rot), false, hp->d_k, 2, hp->d_k},
        {"rope.freq_base", TTX_HP_F32, HP(rope[0].freq_base), false, 10000, 1, 1e12},
        {"rope.scaling.original_context_length", TTX_HP_U32, HP(rope[0].n_ctx_orig), false,
         hp->n_ctx_train, 1, 1 << 27},
        {"rope.scaling.yarn_beta_fast", TTX_HP_F32, HP(rope[0].beta_fast), false, 32, 0, 1e6},
        {"rope.scaling.yarn_beta_slow", TTX_HP_F32, HP(rope[0].beta_slow), false, 1, 0, 1e6},
        {0},
    };
    if ((rc = read_table(hp, f, arch->name, rows, err))) return rc;
    const ttx_hparam_def factors[] = {
        {"rope.scaling.factor", TTX_HP_F32, 0, false, 0, 0, 1e6},
        {"rope.scale_linear", TTX_HP_F32, sizeof(float), false, 0, 0, 1e6},
        {"rope.scaling.attn_factor", TTX_HP_F32, 2 * sizeof(float), false, 1, 0, 1e6},
        {0},
    };
    if ((rc = read_table(&raw, f, arch->name, factors, err))) return rc;
    if (r->n_rot % 2)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: key '%s.rope.dimension_count': expected an even number, found %u",
                        gguf_path(f), arch->name, r->n_rot);
    float factor = raw.factor > 0 ? raw.factor : raw.factor_old > 0 ? raw.factor_old : 1;
    r->layout = arch->rope_layout;
    r->freq_scale = kind == TTX_ROPE_SCALING_NONE ? 1 : 1 / factor;
    r->ext_factor = kind == TTX_ROPE_SCALING_YARN ? 1 : 0;
    r->attn_factor = raw.attn;
    r->use_freqs = true;
    hp->rope[TTX_ROPE_LOCAL] = *r;
    return TTX_OK;
}

/* The vocabulary's size is the number of its tokens; without a vocabulary, the embedding's rows. */
static int read_n_vocab(ttx_hparams *hp, const gguf_file *f, ttx_err *err) {
    const gguf_kv *tokens = NULL;
    int rc = gguf_get_array(f, "tokenizer.ggml.tokens", GGUF_STRING, false, &tokens, err);
    if (rc) return rc;
    const gguf_tensor *embd = gguf_find_tensor(f, "token_embd.weight");
    uint64_t n = tokens ? tokens->n : embd ? embd->ne[1] : 0;
    if (n < 1 || n > 1 << 24)
        return ttx_fail(err, TTX_E_MODEL, "%s: vocabulary: expected 1..16777216 tokens, found %llu",
                        gguf_path(f), (unsigned long long)n);
    hp->n_vocab = (uint32_t)n;
    return TTX_OK;
}

/* Sizes that must fit each other whatever the architecture. */
static int check_experts(const ttx_hparams *hp, const gguf_file *f, const ttx_arch *arch,
                         ttx_err *err) {
    if (!hp->n_expert) return TTX_OK;
    uint32_t most = hp->n_expert < TTX_MAX_EXPERTS_USED ? hp->n_expert : TTX_MAX_EXPERTS_USED;
    if (hp->n_expert_used < 1 || hp->n_expert_used > most)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: key '%s.expert_used_count': expected 1..%u, found %u", gguf_path(f),
                        arch->name, most, hp->n_expert_used);
    return TTX_OK;
}

int ttx_hparams_load(ttx_hparams *hp, const gguf_file *f, const ttx_arch *arch, ttx_err *err) {
    *hp = (ttx_hparams){.embd_scale = 1, .router_scale = 1};
    int rc;
    if ((rc = read_table(hp, f, arch->name, ttx_common_hparams, err))) return rc;
    if ((rc = read_heads(hp, f, arch->name, err))) return rc;
    if ((rc = read_rope(hp, f, arch, err))) return rc;
    if ((rc = read_n_vocab(hp, f, err))) return rc;
    hp->attn_scale = 1 / sqrtf((float)hp->d_k);
    if ((rc = read_table(hp, f, arch->name, arch->hparams, err))) return rc;
    if ((rc = check_experts(hp, f, arch, err))) return rc;
    return arch->configure ? arch->configure(hp, err) : TTX_OK;
}
