/* io_picture.c -- see io_picture.h. */
#include "io_picture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LAYERS = 65536, DEFAULT_CONTEXT = 4096 };

/* An integer under "<arch>.", or `otherwise` if it is absent or odd. */
static uint32_t arch_u32(const gguf_file *f, gguf_str arch, const char *key, uint32_t otherwise) {
    char full[256];
    if (arch.n > 128) return otherwise;
    snprintf(full, sizeof full, "%.*s.%s", (int)arch.n, arch.s, key);
    uint32_t v = otherwise;
    gguf_get_u32(f, full, false, &v, NULL);
    return v;
}

/* ---- expert slices ---- */

static uint64_t gcd(uint64_t a, uint64_t b) {
    while (b) {
        uint64_t r = a % b;
        a = b;
        b = r;
    }
    return a;
}

static uint64_t pages_of(uint64_t offset, uint64_t bytes) {
    return (offset % TTX_PAGE + bytes + TTX_PAGE - 1) / TTX_PAGE;
}

static io_slices *slices_kind(io_picture *pic, const char *proj, const char *type, uint64_t bytes) {
    for (uint32_t i = 0; i < pic->n_slices; i++) {
        io_slices *s = &pic->slices[i];
        if (s->bytes == bytes && strcmp(s->type, type) == 0 && strcmp(s->proj, proj) == 0) return s;
    }
    if (pic->n_slices == TTX_SLICE_KINDS) return &pic->slices[TTX_SLICE_KINDS - 1];
    io_slices *s = &pic->slices[pic->n_slices++];
    bool last = pic->n_slices == TTX_SLICE_KINDS;
    *s = (io_slices){.proj = last ? "others" : proj,
                     .type = last ? "" : type,
                     .bytes = last ? 0 : bytes,
                     .min_pages = UINT64_MAX};
    return s;
}

static void count_slices(io_picture *pic, const gguf_tensor *t, const ttx_tensor_role *role,
                         uint64_t n, uint64_t stride) {
    io_slices *s = slices_kind(pic, role->proj, ttx_dtype_get(t->type)->name, stride);
    /* Places on the page repeat with this period, so that no count costs more than 4096 steps. */
    uint64_t period = TTX_PAGE / gcd(TTX_PAGE, stride);
    for (uint64_t i = 0; i < period && i < n; i++) {
        uint64_t offset = t->offset + i * stride, times = (n - i - 1) / period + 1;
        uint64_t pages = pages_of(offset, stride);
        s->pages += pages * times;
        s->aligned += offset % TTX_PAGE == 0 ? times : 0;
        if (pages < s->min_pages) s->min_pages = pages;
        if (pages > s->max_pages) s->max_pages = pages;
    }
    s->n += n;
    s->total += t->size;
}

/* ---- one token ---- */

/* What the walk over the tensors gathers besides the picture itself. */
typedef struct walk {
    uint64_t lone_bytes;    /* of tensors that are one expert each */
    uint64_t *layer_expert; /* [n_layers] bytes of one expert */
    uint32_t n_layers;
    int64_t first_idle_layer;
} walk;

static uint64_t row_bytes(const gguf_tensor *t) {
    return ttx_dtype_bytes(t->type, t->ne[0]);
}

static void count_expert(io_picture *pic, walk *w, const gguf_tensor *t,
                         const ttx_tensor_role *role) {
    uint64_t stride, n = ttx_expert_slices(t, role, &stride);
    if (!n) { /* no slices to choose from */
        pic->comp[TTX_COMP_EXPERT].token_bytes += t->size;
        return;
    }
    count_slices(pic, t, role, n, stride);
    uint64_t k = pic->n_expert_used && pic->n_expert_used < n ? pic->n_expert_used : n;
    if (role->expert >= 0)
        w->lone_bytes += t->size;
    else
        pic->comp[TTX_COMP_EXPERT].token_bytes += k * stride;
    if (role->layer >= 0 && (uint32_t)role->layer < w->n_layers && role->expert <= 0)
        w->layer_expert[role->layer] += stride;
}

/* A row for each token id, of which a token reads its own. */
static bool is_table_of_tokens(const ttx_tensor_role *role) {
    return role->component == TTX_COMP_EMBEDDING || strcmp(role->proj, "tid2eid") == 0;
}

static void count_tensor(io_picture *pic, walk *w, const gguf_tensor *t) {
    ttx_tensor_role role = ttx_role_of(t->name);
    io_component *c = &pic->comp[role.component];
    c->n_tensors++;
    c->bytes += t->size;
    pic->tensor_bytes += t->size;
    if (role.layer >= w->first_idle_layer)
        pic->idle_bytes += t->size;
    else if (role.component == TTX_COMP_EXPERT)
        count_expert(pic, w, t, &role);
    else
        c->token_bytes += is_table_of_tokens(&role) ? row_bytes(t) : t->size;
}

static void sum_up(io_picture *pic, const walk *w) {
    io_component *experts = &pic->comp[TTX_COMP_EXPERT];
    uint32_t k = pic->n_expert_used, e = pic->n_expert;
    bool some = k && e && k < e;
    experts->token_bytes +=
        some ? (uint64_t)((unsigned __int128)w->lone_bytes * k / e) : w->lone_bytes;
    pic->expert_token_bytes = experts->token_bytes;
    for (int c = 0; c < TTX_COMP_COUNT; c++) pic->token_bytes += pic->comp[c].token_bytes;
    pic->dense_token_bytes = pic->token_bytes - pic->expert_token_bytes;
    for (uint32_t l = 0; l < w->n_layers; l++) {
        uint64_t b = w->layer_expert[l];
        if (!b) continue;
        if (!pic->expert_min || b < pic->expert_min) pic->expert_min = b;
        if (b > pic->expert_max) pic->expert_max = b;
    }
}

/* ---- the KV cache ---- */

/* KV heads over all layers: the key is a number or one number a layer. */
static double sum_kv_heads(const gguf_file *f, gguf_str arch, uint32_t n_layers) {
    uint32_t n =
        arch_u32(f, arch, "attention.head_count_kv", arch_u32(f, arch, "attention.head_count", 0));
    char key[256];
    snprintf(key, sizeof key, "%.*s.attention.head_count_kv", (int)arch.n, arch.s);
    const gguf_kv *kv = gguf_find(f, key);
    bool each = kv && kv->type == GGUF_ARRAY && kv->elem != GGUF_STRING && kv->elem != GGUF_ARRAY;
    if (!each) return (double)n * n_layers;
    double sum = 0;
    for (uint64_t i = 0; i < kv->n && i < n_layers; i++) sum += gguf_elem_f64(kv, i);
    return sum;
}

static void measure_kv(const gguf_file *f, io_picture *pic) {
    gguf_str arch = pic->arch;
    uint32_t n_layers = arch_u32(f, arch, "block_count", 0);
    uint32_t n_head = arch_u32(f, arch, "attention.head_count", 0);
    uint32_t head = n_head ? arch_u32(f, arch, "embedding_length", 0) / n_head : 0;
    double per_head = (double)arch_u32(f, arch, "attention.key_length", head) +
                      (double)arch_u32(f, arch, "attention.value_length", head);
    double bytes = arch.n <= 128 ? 2 * per_head * sum_kv_heads(f, arch, n_layers) : 0;
    pic->kv_context = arch_u32(f, arch, "context_length", DEFAULT_CONTEXT);
    if (pic->kv_context > DEFAULT_CONTEXT) pic->kv_context = DEFAULT_CONTEXT;
    if (bytes > 0 && bytes < 1e12) pic->kv_token_bytes = (uint64_t)bytes;
    pic->ram_bytes = pic->tensor_bytes - pic->idle_bytes + pic->kv_token_bytes * pic->kv_context;
}

int io_picture_of(const gguf_file *f, io_picture *pic, ttx_err *err) {
    *pic = (io_picture){.arch = {"", 0}};
    gguf_get_str(f, "general.architecture", false, &pic->arch, NULL);
    pic->n_expert = arch_u32(f, pic->arch, "expert_count", 0);
    pic->n_expert_used = arch_u32(f, pic->arch, "expert_used_count", 0);
    for (uint32_t i = 0; i < gguf_n_shards(f); i++) pic->file_bytes += gguf_get_shard(f, i)->size;

    walk w = {.n_layers = arch_u32(f, pic->arch, "block_count", 0)};
    uint32_t idle = arch_u32(f, pic->arch, "nextn_predict_layers", 0);
    w.first_idle_layer = idle && idle <= w.n_layers ? w.n_layers - idle : INT64_MAX;
    if (w.n_layers > MAX_LAYERS) w.n_layers = MAX_LAYERS;
    w.layer_expert = calloc(w.n_layers + 1, sizeof *w.layer_expert);
    if (!w.layer_expert) return ttx_fail_nomem(err, "layers", w.n_layers * sizeof(uint64_t));

    for (uint32_t i = 0; i < gguf_n_tensors(f); i++) count_tensor(pic, &w, &gguf_tensors(f)[i]);
    const gguf_tensor *embd = gguf_find_tensor(f, "token_embd.weight");
    pic->tied = embd && !gguf_find_tensor(f, "output.weight");
    if (pic->tied) pic->comp[TTX_COMP_OUTPUT].token_bytes += embd->size;
    sum_up(pic, &w);
    measure_kv(f, pic);
    free(w.layer_expert);
    return 0;
}
