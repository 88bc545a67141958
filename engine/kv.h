/* kv.h -- the KV cache: keys and values of every position, layer and KV head.
 *
 * Layout: chunks of TTX_KV_CHUNK positions; in a chunk layer by layer; in a layer head by head; of
 * a head the keys, row by row in order of position, then the values. So a head's keys of a chunk
 * are one stream of memory, which is how attention reads them, and memory is taken a chunk at a
 * time: in small pages the first, of which a short text uses little, in huge pages the others, of
 * which attention reads everything for each token. Rows are F32, F16 or Q8_0.
 */
#ifndef TTX_KV_H
#define TTX_KV_H

#include "arch.h"
#include "dtype.h"

enum { TTX_KV_CHUNK = 512 }; /* that of the attention kernels */

typedef struct ttx_kv {
    uint8_t *mem; /* pages appear as positions are first written */
    uint64_t bytes;
    void *map; /* of map_bytes, in which mem lies */
    uint64_t map_bytes;
    uint64_t chunk_bytes; /* from one chunk to the next */
    ttx_dtype k_type, v_type;
    uint32_t n_ctx, n_layer, n_head;
    uint32_t n_rows;     /* positions a chunk: TTX_KV_CHUNK, or n_ctx if there is but one chunk */
    size_t k_row, v_row; /* bytes of one position of one head */
} ttx_kv;

/* Bytes that a cache of n_ctx positions takes. */
uint64_t ttx_kv_bytes(const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type, ttx_dtype v_type);

/* Errors: TTX_E_RUNTIME (no memory), TTX_E_USAGE (a type that does not fit the head size). */
int ttx_kv_open(ttx_kv *kv, const ttx_hparams *hp, uint32_t n_ctx, ttx_dtype k_type,
                ttx_dtype v_type, ttx_err *err);
void ttx_kv_close(ttx_kv *kv); /* one that is all zeros is fine */

/* Row of a position of a layer's head. */
uint8_t *ttx_kv_k(const ttx_kv *kv, int layer, int head, uint32_t pos);
uint8_t *ttx_kv_v(const ttx_kv *kv, int layer, int head, uint32_t pos);

#endif
