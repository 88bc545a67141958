/* kv.c -- see kv.h. */
#include "kv.h"

#include <sys/mman.h>

static uint64_t layer_bytes(const ttx_kv *kv) {
    return (uint64_t)kv->n_head * kv->n_ctx * (kv->k_row + kv->v_row);
}

static ttx_kv describe(const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type, ttx_dtype v_type) {
    return (ttx_kv){
        .k_type = k_type,
        .v_type = v_type,
        .n_ctx = n_ctx,
        .n_layer = hp->n_layer,
        .n_head = hp->n_head_kv,
        .k_row = ttx_dtype_bytes(k_type, hp->d_k),
        .v_row = ttx_dtype_bytes(v_type, hp->d_v),
    };
}

uint64_t ttx_kv_bytes(const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type, ttx_dtype v_type) {
    ttx_kv kv = describe(hp, n_ctx, k_type, v_type);
    return kv.n_layer * layer_bytes(&kv);
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
    d.bytes = d.n_layer * layer_bytes(&d);
    void *p = mmap(NULL, d.bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return ttx_fail_nomem(err, "KV cache", d.bytes);
    d.mem = p;
    *kv = d;
    return TTX_OK;
}

void ttx_kv_close(ttx_kv *kv) {
    if (kv->mem) munmap(kv->mem, kv->bytes);
    *kv = (ttx_kv){0};
}

uint8_t *ttx_kv_k(const ttx_kv *kv, int layer, int head) {
    return kv->mem + (uint64_t)layer * layer_bytes(kv) + (uint64_t)head * kv->n_ctx * kv->k_row;
}

uint8_t *ttx_kv_v(const ttx_kv *kv, int layer, int head) {
    return kv->mem + (uint64_t)layer * layer_bytes(kv) +
           (uint64_t)kv->n_head * kv->n_ctx * kv->k_row + (uint64_t)head * kv->n_ctx * kv->v_row;
}
