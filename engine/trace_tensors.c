/* trace_tensors.c -- see trace_tensors.h. */
#include "trace_tensors.h"

#include "component.h"

#include <cJSON.h>
#include <stdio.h>

static int check_limits(const ttx_model *m, ttx_err *err) {
    if (gguf_n_shards(m->file) < TTX_REC_NO_SHARD && m->hp.n_head < TTX_REC_NO_HEAD &&
        m->hp.n_head_kv < TTX_REC_NO_RANK)
        return TTX_OK;
    return ttx_fail(err, TTX_E_USAGE,
                    "trace: expected fewer than 255 shards and KV heads, found %u and %u",
                    gguf_n_shards(m->file), m->hp.n_head_kv);
}

static ttx_trace_tensor of_file(const gguf_tensor *t) {
    ttx_tensor_role role = ttx_role_of(t->name);
    const ttx_dtype_info *type = ttx_dtype_get(t->type);
    uint64_t stride = 0, n_expert = ttx_expert_slices(t, &role, &stride);
    return (ttx_trace_tensor){
        .name = t->name,
        .component = ttx_component_name(role.component),
        .offset = t->offset,
        .size = t->size,
        .n_expert = (uint32_t)n_expert,
        .expert_bytes = n_expert ? stride : 0,
        .row_bytes = (uint32_t)ttx_dtype_bytes(t->type, t->ne[0]),
        .block_bytes = type->bytes,
        .layer = role.layer < 0 ? TTX_REC_NO_LAYER : (uint16_t)role.layer,
        .expert = role.expert < 0 ? TTX_REC_NO_EXPERT : (uint16_t)role.expert,
        .shard = (uint8_t)t->shard,
    };
}

/* What the model uses a tensor of attention for, and the heads that it is made of. */
static void set_heads(ttx_trace_tensors *t, const ttx_model *m) {
    const struct {
        ttx_role role;
        uint8_t qkv;
        uint32_t n_head;
        bool strided;
    } rows[] = {
        {TTX_W_ATTN_Q, TTX_QKV_Q, m->hp.n_head, false},
        {TTX_W_ATTN_K, TTX_QKV_K, m->hp.n_head_kv, false},
        {TTX_W_ATTN_V, TTX_QKV_V, m->hp.n_head_kv, false},
        {TTX_W_ATTN_OUTPUT, TTX_QKV_O, m->hp.n_head, true},
        {TTX_W_ATTN_Q_BIAS, TTX_QKV_Q, m->hp.n_head, false},
        {TTX_W_ATTN_K_BIAS, TTX_QKV_K, m->hp.n_head_kv, false},
        {TTX_W_ATTN_V_BIAS, TTX_QKV_V, m->hp.n_head_kv, false},
        {TTX_W_ATTN_OUTPUT_BIAS, TTX_QKV_O, 0, false},
    };
    for (uint32_t il = 0; il < m->hp.n_layer; il++)
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            const ttx_weight *w = ttx_model_weight(m, rows[i].role, (int)il);
            if (!w->tensor) continue;
            ttx_trace_tensor *d = &t->v[w->tensor->index];
            d->qkv = rows[i].qkv;
            d->n_head = (uint16_t)rows[i].n_head;
            d->strided = rows[i].strided;
        }
}

/* cache_k_l<layer> or cache_v_l<layer> */
static int add_cache(ttx_trace_tensors *t, uint32_t layer, bool v, uint64_t size, ttx_err *err) {
    char name[32];
    int n = snprintf(name, sizeof name, "cache_%c_l%u", v ? 'v' : 'k', layer);
    ttx_trace_tensor *d = &t->v[t->n++];
    *d = (ttx_trace_tensor){.name = ttx_arena_strndup(&t->arena, name, (size_t)n),
                            .component = "kv_cache",
                            .offset = TTX_REC_NO_OFFSET,
                            .size = size,
                            .layer = (uint16_t)layer,
                            .expert = TTX_REC_NO_EXPERT,
                            .shard = TTX_REC_NO_SHARD,
                            .qkv = v ? TTX_QKV_V : TTX_QKV_K};
    return d->name ? TTX_OK : ttx_fail_nomem(err, "tensor names", sizeof name);
}

int ttx_trace_tensors_make(ttx_trace_tensors *t, const ttx_model *m, uint32_t n_ctx,
                           ttx_dtype k_type, ttx_dtype v_type, ttx_err *err) {
    *t = (ttx_trace_tensors){.n_file = gguf_n_tensors(m->file)};
    size_t all = t->n_file + 2 * (size_t)m->hp.n_layer;
    uint64_t rows = (uint64_t)n_ctx * m->hp.n_head_kv;
    int rc = check_limits(m, err);
    if (rc) return rc;
    t->v = ttx_arena_array(&t->arena, all, sizeof *t->v);
    t->sources = ttx_arena_array(&t->arena, gguf_n_shards(m->file), sizeof *t->sources);
    if (!t->v || !t->sources) return ttx_fail_nomem(err, "tensor table", all * sizeof *t->v);
    for (uint32_t i = 0; i < gguf_n_shards(m->file); i++) {
        const gguf_shard *s = gguf_get_shard(m->file, i);
        t->sources[i] = (ttx_trace_source){s->fd, s->map, s->size};
    }
    for (; t->n < t->n_file; t->n++) t->v[t->n] = of_file(&gguf_tensors(m->file)[t->n]);
    set_heads(t, m);
    for (uint32_t il = 0; il < m->hp.n_layer && !rc; il++) {
        rc = add_cache(t, il, false, rows * ttx_dtype_bytes(k_type, m->hp.d_k), err);
        if (!rc) rc = add_cache(t, il, true, rows * ttx_dtype_bytes(v_type, m->hp.d_v), err);
    }
    if (rc) ttx_trace_tensors_free(t);
    return rc;
}

void ttx_trace_tensors_free(ttx_trace_tensors *t) {
    ttx_arena_free(&t->arena);
    *t = (ttx_trace_tensors){0};
}

/* ---- the document ---- */

static uint64_t hash_of(const gguf_file *f) {
    uint64_t h = 0xcbf29ce484222325;
    for (uint32_t i = 0; i < gguf_n_shards(f); i++) {
        const gguf_shard *s = gguf_get_shard(f, i);
        for (uint64_t k = 0; k < s->data_offset && k < s->size; k++)
            h = (h ^ s->map[k]) * 0x100000001b3;
        for (int k = 0; k < 64; k += 8) h = (h ^ (s->size >> k & 0xff)) * 0x100000001b3;
    }
    return h;
}

static bool add_shards(cJSON *doc, const gguf_file *f) {
    cJSON *list = cJSON_AddArrayToObject(doc, "shards");
    bool ok = list;
    for (uint32_t i = 0; ok && i < gguf_n_shards(f); i++) {
        const gguf_shard *s = gguf_get_shard(f, i);
        cJSON *o = cJSON_CreateObject();
        ok = o && cJSON_AddItemToArray(list, o) && cJSON_AddStringToObject(o, "path", s->path) &&
             cJSON_AddNumberToObject(o, "size", (double)s->size);
    }
    return ok;
}

static bool add_model(cJSON *doc, const ttx_model *m) {
    const ttx_hparams *hp = &m->hp;
    const struct {
        const char *key;
        uint32_t v;
    } rows[] = {
        {"num_layers", hp->n_layer},
        {"num_heads", hp->n_head},
        {"num_kv_heads", hp->n_head_kv},
        {"head_dim_k", hp->d_k},
        {"head_dim_v", hp->d_v},
        {"hidden_dim", hp->n_embd},
        {"vocab_size", hp->n_vocab},
        {"context_length", hp->n_ctx_train},
        {"feed_forward_length", hp->n_ff},
        {"num_experts", hp->n_expert},
        {"num_experts_used", hp->n_expert_used},
    };
    cJSON *o = cJSON_AddObjectToObject(doc, "model_metadata");
    bool ok = o && cJSON_AddStringToObject(o, "architecture", m->arch->name) &&
              cJSON_AddNumberToObject(o, "weight_bytes", (double)ttx_model_bytes(m));
    for (size_t i = 0; ok && i < sizeof rows / sizeof *rows; i++)
        ok = cJSON_AddNumberToObject(o, rows[i].key, rows[i].v);
    return ok;
}

void ttx_trace_model_hash(const ttx_model *m, char hash[TTX_MODEL_HASH]) {
    snprintf(hash, TTX_MODEL_HASH, "fnv1a64:%016llx", (unsigned long long)hash_of(m->file));
}

struct cJSON *ttx_trace_model_document(const ttx_model *m) {
    char hash[TTX_MODEL_HASH];
    ttx_trace_model_hash(m, hash);
    cJSON *doc = cJSON_CreateObject();
    bool ok = doc && cJSON_AddStringToObject(doc, "model_file", gguf_path(m->file)) &&
              cJSON_AddStringToObject(doc, "model_hash", hash) && add_shards(doc, m->file) &&
              add_model(doc, m);
    if (ok) return doc;
    cJSON_Delete(doc);
    return NULL;
}
