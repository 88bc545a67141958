/* model.c -- see model.h: finds every tensor of the architecture's table and checks its shape. */
#include "model.h"

#include "route.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t dim_size(const ttx_hparams *hp, ttx_dim d) {
    switch (d) {
    case TTX_D_NONE: return 1;
    case TTX_D_EMBD: return hp->n_embd;
    case TTX_D_VOCAB: return hp->n_vocab;
    case TTX_D_Q: return (uint64_t)hp->n_head * hp->d_k;
    case TTX_D_K: return (uint64_t)hp->n_head_kv * hp->d_k;
    case TTX_D_V: return (uint64_t)hp->n_head_kv * hp->d_v;
    case TTX_D_ATTN: return (uint64_t)hp->n_head * hp->d_v;
    case TTX_D_FF: return hp->n_ff;
    case TTX_D_HEAD_K: return hp->d_k;
    case TTX_D_ROT_HALF: return hp->rope[TTX_ROPE_GLOBAL].n_rot / 2;
    case TTX_D_HEADS: return hp->n_head;
    case TTX_D_EXPERTS: return hp->n_expert;
    case TTX_D_USED: return hp->n_expert_used;
    case TTX_D_FF_EXP: return hp->n_ff_exp;
    case TTX_D_FF_SHEXP: return hp->n_ff_shexp;
    }
    return 1;
}

/* Vectors (norms, biases) are read as they are: F32. Matrices need a kernel for their type. */
static int check_type(const ttx_model *m, const gguf_tensor *t, const ttx_tensor_def *d,
                      ttx_err *err) {
    const char *path = gguf_path(m->file), *type = ttx_dtype_get(t->type)->name;
    bool vector = d->shape[1] == TTX_D_NONE && !(d->flags & TTX_T_I32);
    if ((vector || (d->flags & TTX_T_F32)) && t->type != TTX_F32)
        return ttx_fail(err, TTX_E_MODEL, "%s: tensor '%s': expected type F32, found %s", path,
                        t->name, type);
    if ((d->flags & TTX_T_I32) && t->type != TTX_I32)
        return ttx_fail(err, TTX_E_MODEL, "%s: tensor '%s': expected type I32, found %s", path,
                        t->name, type);
    if (!(d->flags & TTX_T_I32) && !ttx_dtype_get(t->type)->computable)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: tensor '%s': type %s is not supported (supported: F32 F16 BF16 Q4_0 "
                        "Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4)",
                        path, t->name, type);
    return TTX_OK;
}

static int check_shape(const ttx_model *m, const gguf_tensor *t, const uint64_t want[4],
                       ttx_err *err) {
    if (memcmp(want, t->ne, 4 * sizeof *want) == 0) return TTX_OK;
    return ttx_fail(
        err, TTX_E_MODEL, "%s: tensor '%s': expected shape %llux%llux%llu, found %llux%llux%llu%s",
        gguf_path(m->file), t->name, (unsigned long long)want[0], (unsigned long long)want[1],
        (unsigned long long)want[2], (unsigned long long)t->ne[0], (unsigned long long)t->ne[1],
        (unsigned long long)t->ne[2], t->ne[3] == 1 ? "" : " and a fourth dimension");
}

/* Puts the layer, and the expert of a split name, into a name pattern. Patterns are ours: at most
 * two %d, in this order. */
static void make_name(char *name, size_t size, const char *pattern, int layer, int expert) {
    int numbers[2] = {layer, expert}, next = 0;
    size_t n = 0;
    for (const char *p = pattern; *p && n + 12 < size; p++) {
        if (p[0] == '%' && p[1] == 'd' && next < 2) {
            n += (size_t)snprintf(name + n, size - n, "%d", numbers[next++]);
            p++;
        } else {
            name[n++] = *p;
        }
    }
    name[n] = 0;
}

static ttx_weight make_weight(const gguf_tensor *t) {
    return (ttx_weight){
        .tensor = t,
        .type = t->type,
        .k = (int64_t)t->ne[0],
        .rows = (int64_t)t->ne[1],
        .n_mat = (int64_t)t->ne[2],
        .row_bytes = ttx_dtype_bytes(t->type, t->ne[0]),
    };
}

/* One tensor an expert: all of one shape and type. */
static int load_split(ttx_model *m, const ttx_tensor_def *d, int layer, ttx_weight *w,
                      ttx_err *err) {
    uint32_t n = m->hp.n_expert;
    uint64_t want[4] = {dim_size(&m->hp, d->shape[0]), dim_size(&m->hp, d->shape[1]), 1, 1};
    const gguf_tensor **split = ttx_arena_array(&m->arena, n, sizeof *split);
    if (!split) return ttx_fail_nomem(err, "expert table", n * sizeof *split);
    for (uint32_t e = 0; e < n; e++) {
        char name[96];
        make_name(name, sizeof name, d->split, layer, (int)e);
        const gguf_tensor *t = split[e] = gguf_find_tensor(m->file, name);
        if (!t)
            return ttx_fail(err, TTX_E_MODEL,
                            "%s: tensor '%s': expected one for each of %u experts, missing",
                            gguf_path(m->file), name, n);
        int rc = check_shape(m, t, want, err);
        if (!rc) rc = check_type(m, t, d, err);
        if (rc) return rc;
        if (t->type != split[0]->type)
            return ttx_fail(err, TTX_E_MODEL,
                            "%s: tensor '%s': expected type %s as expert 0 has, found %s",
                            gguf_path(m->file), name, ttx_dtype_get(split[0]->type)->name,
                            ttx_dtype_get(t->type)->name);
    }
    *w = make_weight(split[0]);
    w->split = split;
    w->n_mat = n;
    return TTX_OK;
}

static int load_tensor(ttx_model *m, const ttx_tensor_def *d, int layer, ttx_err *err) {
    char name[96], first[96];
    ttx_weight *w = (ttx_weight *)ttx_model_weight(m, d->role, layer);
    make_name(name, sizeof name, d->name, layer, 0);
    const gguf_tensor *t = gguf_find_tensor(m->file, name);
    if (!t && (d->flags & TTX_T_TIED)) {
        *w = m->w[TTX_W_TOKEN_EMBD];
        m->tied_output = true;
        return TTX_OK;
    }
    if (!t && (d->flags & TTX_T_OPTIONAL)) return TTX_OK;
    if (!t && d->split) {
        make_name(first, sizeof first, d->split, layer, 0);
        if (gguf_find_tensor(m->file, first)) return load_split(m, d, layer, w, err);
    }
    if (!t)
        return ttx_fail(err, TTX_E_MODEL, "%s: tensor '%s': expected by architecture '%s', missing",
                        gguf_path(m->file), name, m->arch->name);
    uint64_t want[4] = {1, 1, 1, 1};
    for (int i = 0; i < 3; i++) want[i] = dim_size(&m->hp, d->shape[i]);
    int rc = check_shape(m, t, want, err);
    if (!rc) rc = check_type(m, t, d, err);
    if (!rc) *w = make_weight(t);
    return rc;
}

static int load_tensors(ttx_model *m, ttx_err *err) {
    m->layers = calloc(m->hp.n_layer, sizeof *m->layers);
    if (!m->layers) return ttx_fail_nomem(err, "layer table", m->hp.n_layer * sizeof *m->layers);
    unsigned other = m->hp.n_expert ? TTX_T_DENSE : TTX_T_MOE;
    for (const ttx_tensor_def *d = m->arch->tensors; d->name; d++) {
        int n = d->role < TTX_W_PER_LAYER ? 1 : (int)m->hp.n_layer;
        for (int il = 0; il < n && !(d->flags & other); il++) {
            int rc = load_tensor(m, d, il, err);
            if (rc) return rc;
        }
    }
    return TTX_OK;
}

static int find_arch(ttx_model *m, const ttx_arch *const *archs, ttx_err *err) {
    gguf_str name;
    int rc = gguf_get_str(m->file, "general.architecture", true, &name, err);
    if (rc) return rc;
    char known[160] = "";
    for (; *archs; archs++) {
        if (strlen((*archs)->name) == name.n && memcmp((*archs)->name, name.s, name.n) == 0) {
            m->arch = *archs;
            return TTX_OK;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", (*archs)->name);
    }
    return ttx_fail(err, TTX_E_MODEL, "%s: architecture '%.*s' is not supported; known: %s",
                    gguf_path(m->file), (int)(name.n < 40 ? name.n : 40), name.s, known);
}

int ttx_model_load(ttx_model **out, const gguf_file *file, const ttx_arch *const *archs,
                   ttx_err *err) {
    *out = NULL;
    ttx_model *m = calloc(1, sizeof *m);
    if (!m) return ttx_fail_nomem(err, "model", sizeof *m);
    m->file = file;
    int rc;
    if ((rc = find_arch(m, archs, err))) goto error;
    if ((rc = ttx_hparams_load(&m->hp, file, m->arch, err))) goto error;
    if ((rc = load_tensors(m, err))) goto error;
    *out = m;
    return TTX_OK;
error:
    ttx_model_free(m);
    return rc;
}

void ttx_model_free(ttx_model *m) {
    if (!m) return;
    ttx_arena_free(&m->arena);
    free(m->layers);
    free(m);
}

ttx_range ttx_weight_range(const ttx_weight *w, int64_t i) {
    const gguf_tensor *t = ttx_weight_tensor(w, i);
    uint64_t size = w->split ? t->size : t->size / (uint64_t)w->n_mat;
    return (ttx_range){t->shard, t->offset + (w->split ? 0 : size * (uint64_t)i), size};
}

int ttx_model_set_experts_used(ttx_model *m, uint32_t k, ttx_err *err) {
    uint32_t most = m->hp.n_expert < TTX_MAX_EXPERTS_USED ? m->hp.n_expert : TTX_MAX_EXPERTS_USED;
    if (!m->hp.n_expert)
        return ttx_fail(err, TTX_E_USAGE,
                        "experts used: expected a model with experts, found %s without",
                        gguf_path(m->file));
    if (k < 1 || k > most)
        return ttx_fail(err, TTX_E_USAGE, "experts used: expected 1..%u, found %u", most, k);
    m->hp.n_expert_used = k;
    return TTX_OK;
}

uint64_t ttx_model_bytes(const ttx_model *m) {
    uint64_t sum = 0;
    for (int r = 0; r < TTX_W_PER_LAYER; r++)
        if (m->w[r].tensor && !(r == TTX_W_OUTPUT && m->tied_output)) sum += m->w[r].tensor->size;
    for (uint32_t il = 0; il < m->hp.n_layer; il++)
        for (int r = TTX_W_PER_LAYER; r < TTX_W_COUNT; r++) {
            const ttx_weight *w = ttx_model_weight(m, (ttx_role)r, (int)il);
            if (w->tensor) sum += ttx_weight_range(w, 0).size * (uint64_t)w->n_mat;
        }
    return sum;
}
