/* model.c -- see model.h: finds every tensor of the architecture's table and checks its shape. */
#include "model.h"

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
    }
    return 1;
}

/* Vectors (norms, biases) are read as they are: F32. Matrices need a kernel for their type. */
static int check_tensor(const ttx_model *m, const gguf_tensor *t, const ttx_tensor_def *d,
                        ttx_err *err) {
    const char *path = gguf_path(m->file), *type = ttx_dtype_get(t->type)->name;
    uint64_t want[4] = {1, 1, 1, 1};
    for (int i = 0; i < 3; i++) want[i] = dim_size(&m->hp, d->shape[i]);
    if (memcmp(want, t->ne, sizeof want) != 0)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: tensor '%s': expected shape %llux%llux%llu, found %llux%llux%llu%s",
                        path, t->name, (unsigned long long)want[0], (unsigned long long)want[1],
                        (unsigned long long)want[2], (unsigned long long)t->ne[0],
                        (unsigned long long)t->ne[1], (unsigned long long)t->ne[2],
                        t->ne[3] == 1 ? "" : " and a fourth dimension");
    if (d->shape[1] == TTX_D_NONE && t->type != TTX_F32)
        return ttx_fail(err, TTX_E_MODEL, "%s: tensor '%s': expected type F32, found %s", path,
                        t->name, type);
    if (!ttx_dtype_get(t->type)->computable)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: tensor '%s': type %s is not supported (supported: F32 F16 BF16 Q4_0 "
                        "Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4)",
                        path, t->name, type);
    return TTX_OK;
}

static ttx_weight make_weight(const gguf_tensor *t) {
    return (ttx_weight){
        .tensor = t,
        .k = (int64_t)t->ne[0],
        .rows = (int64_t)t->ne[1],
        .n_mat = (int64_t)t->ne[2],
        .row_bytes = ttx_dtype_bytes(t->type, t->ne[0]),
    };
}

static int load_tensor(ttx_model *m, const ttx_tensor_def *d, int layer, ttx_err *err) {
    char name[96];
    if (d->role < TTX_W_PER_LAYER)
        snprintf(name, sizeof name, "%s", d->name);
    else {
        const char *percent = strstr(d->name, "%d"); /* "blk.%d.rest" */
        snprintf(name, sizeof name, "%.*s%d%s", (int)(percent - d->name), d->name, layer,
                 percent + 2);
    }
    ttx_weight *w = (ttx_weight *)ttx_model_weight(m, d->role, layer);
    const gguf_tensor *t = gguf_find_tensor(m->file, name);
    if (!t && (d->flags & TTX_T_TIED)) {
        *w = m->w[TTX_W_TOKEN_EMBD];
        m->tied_output = true;
        return TTX_OK;
    }
    if (!t && (d->flags & TTX_T_OPTIONAL)) return TTX_OK;
    if (!t)
        return ttx_fail(err, TTX_E_MODEL, "%s: tensor '%s': expected by architecture '%s', missing",
                        gguf_path(m->file), name, m->arch->name);
    int rc = check_tensor(m, t, d, err);
    if (!rc) *w = make_weight(t);
    return rc;
}

static int load_tensors(ttx_model *m, ttx_err *err) {
    m->layers = calloc(m->hp.n_layer, sizeof *m->layers);
    if (!m->layers) return ttx_fail_nomem(err, "layer table", m->hp.n_layer * sizeof *m->layers);
    for (const ttx_tensor_def *d = m->arch->tensors; d->name; d++) {
        int n = d->role < TTX_W_PER_LAYER ? 1 : (int)m->hp.n_layer;
        for (int il = 0; il < n; il++) {
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
    free(m->layers);
    free(m);
}

ttx_range ttx_weight_range(const ttx_weight *w, int64_t i) {
    uint64_t size = w->tensor->size / (uint64_t)w->n_mat;
    return (ttx_range){w->tensor->shard, w->tensor->offset + size * (uint64_t)i, size};
}

uint64_t ttx_model_bytes(const ttx_model *m) {
    uint64_t sum = 0;
    for (int r = 0; r < TTX_W_PER_LAYER; r++)
        if (m->w[r].tensor && !(r == TTX_W_OUTPUT && m->tied_output)) sum += m->w[r].tensor->size;
    for (uint32_t il = 0; il < m->hp.n_layer; il++)
        for (int r = TTX_W_PER_LAYER; r < TTX_W_COUNT; r++) {
            const ttx_weight *w = ttx_model_weight(m, (ttx_role)r, (int)il);
            if (w->tensor) sum += w->tensor->size;
        }
    return sum;
}
