/* attn_int.h -- the sizes that the attention kernels of all levels share.
 *
 * Queries are taken in tiles, positions in blocks inside a chunk. Rows of a tile or of an
 * unpacked block are padded with zeros to whole vectors, and lie an odd number of vectors apart,
 * so that a column of rows does not fall into one cache set.
 */
#ifndef TTX_ATTN_INT_H
#define TTX_ATTN_INT_H

#include "kernels_int.h"

enum {
    TTX_ATTN_TILE = 48,  /* queries that share an unpacked block */
    TTX_ATTN_BLOCK = 64, /* positions a block; divides the chunk */
};

/* Floats of a row of d elements in scratch. */
static inline int64_t ttx_attn_ld(int64_t d) {
    return ((d + 15) / 16 | 1) * 16;
}

static inline int32_t ttx_attn_clamp(int64_t x, int64_t lo, int64_t hi) {
    return (int32_t)(x < lo ? lo : x > hi ? hi : x);
}

static inline const uint8_t *ttx_attn_row(const uint8_t *rows, int64_t j, size_t row_bytes) {
    return rows + (size_t)j * row_bytes;
}

#endif
