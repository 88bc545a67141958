/* kv.h -- the KV cache: keys and values of every position, layer and KV head.
 *
 * Layout: for each layer all of K, then all of V; within one, head by head; within a head, row by
 * row in order of position. So one head's keys are one stream of memory, which is how attention
 * reads them. Rows are F32, F16 or Q8_0.
 */
#ifndef TTX_KV_H
#define TTX_KV_H

#include "arch.h"
#include "dtype.h"

typedef struct ttx_kv {
    uint8_t *mem; /* one mapping; pages appear as positions are first written */
    uint64_t bytes;
    ttx_dtype k_type, v_type;
    uint32_t n_ctx, n_layer, n_head;
    size_t k_row, v_row; /* bytes of one position of one head */
} ttx_kv;

/* Bytes that a cache of n_ctx positions takes. */
uint64_t ttx_kv_bytes(const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type, ttx_dtype v_type);

/* Errors: TTX_E_RUNTIME (no memory), TTX_E_USAGE (a type that does not fit the head size). */
int ttx_kv_open(ttx_kv *kv, const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type,
                ttx_dtype v_type, ttx_err *err);
void ttx_kv_close(ttx_kv *kv); /* one that is all zeros is fine */

/* Row of position 0 of a layer's head. */
uint8_t *ttx_kv_k(const ttx_kv *kv, int layer, int head);
uint8_t *ttx_kv_v(const ttx_kv *kv, int layer, int head);

#endif
