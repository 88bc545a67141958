/* kv.c -- see kv.h. */
#include "kv.h"

#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20 };

static uint64_t head_bytes(const ttx_kv *kv) {
    return (uint64_t)kv->n_rows * (kv->k_row + kv->v_row);
}

static ttx_kv describe(const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type, ttx_dtype v_type) {
    ttx_kv kv = {
        .k_type = k_type,
        .v_type = v_type,
        .n_ctx = n_ctx,
        .n_layer = hp->n_layer,
        .n_head = hp->n_head_kv,
        .n_rows = n_ctx < TTX_KV_CHUNK ? n_ctx : TTX_KV_CHUNK,
        .k_row = ttx_dtype_bytes(k_type, hp->d_k),
        .v_row = ttx_dtype_bytes(v_type, hp->d_v),
    };
    uint64_t n_chunk = ((uint64_t)n_ctx + TTX_KV_CHUNK - 1) / TTX_KV_CHUNK;
    kv.chunk_bytes = kv.n_layer * kv.n_head * head_bytes(&kv);
    kv.bytes = n_chunk * kv.chunk_bytes;
    return kv;
}

uint64_t ttx_kv_bytes(const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type, ttx_dtype v_type) {
    return describe(hp, n_ctx, k_type, v_type).bytes;
}

int ttx_kv_open(ttx_kv *kv, const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type,
                ttx_dtype v_type, ttx_err *err) {
    *kv = (ttx_kv){0};
    if (hp->d_k % ttx_dtype_get(k_type)->block || hp->d_v % ttx_dtype_get(v_type)->block)
        return ttx_fail(err, TTX_E_USAGE,
                        "KV cache type: expected one whose blocks divide the head sizes %u and "
                        "%u, found %s and %s",
                        hp->d_k, hp->d_v, ttx_dtype_get(k_type)->name, ttx_dtype_get(v_type)->name);
    ttx_kv d = describe(hp, n_ctx, k_type, v_type);
    d.map_bytes = d.bytes + HUGE_PAGE;
    void *p = mmap(NULL, d.map_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return ttx_fail_nomem(err, "KV cache", d.bytes);
    d.map = p;
    /* The second chunk starts with a page. */
    uint64_t second = (uintptr_t)p + d.chunk_bytes;
    second = (second + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    d.mem = (uint8_t *)(uintptr_t)(second - d.chunk_bytes);
    if (d.bytes > d.chunk_bytes) /* a refusal costs speed alone */
        madvise(d.mem + d.chunk_bytes, d.bytes - d.chunk_bytes, MADV_HUGEPAGE);
    *kv = d;
    return TTX_OK;
}

void ttx_kv_close(ttx_kv *kv) {
    if (kv->map) munmap(kv->map, kv->map_bytes);
    *kv = (ttx_kv){0};
}

uint8_t *ttx_kv_k(const ttx_kv *kv, int layer, int head, uint32_t pos) {
    return kv->mem + pos / TTX_KV_CHUNK * kv->chunk_bytes +
           ((uint64_t)layer * kv->n_head + (uint64_t)head) * head_bytes(kv) +
           pos % TTX_KV_CHUNK * kv->k_row;
}

uint8_t *ttx_kv_v(const ttx_kv *kv, int layer, int head, uint32_t pos) {
    return kv->mem + pos / TTX_KV_CHUNK * kv->chunk_bytes +
           ((uint64_t)layer * kv->n_head + (uint64_t)head) * head_bytes(kv) +
           kv->n_rows * kv->k_row + pos % TTX_KV_CHUNK * kv->v_row;
}
