/* act_int.h -- where the quantised forms of activations lie; what fills a block is each level's
 * own.
 *
 * The walks are inlined with the block function of the file that calls them.
 */
#ifndef TTX_ACT_INT_H
#define TTX_ACT_INT_H

#include "kernels_int.h"

#define TTX_ACT_WALK static inline __attribute__((always_inline)) void

/* 32 values to q, their scale, and the sums of each 16. */
typedef void (*ttx_block_q8_fn)(const float *x, int8_t *q, float *d, int16_t sum[2]);

TTX_ACT_WALK ttx_walk_q8(const ttx_act *x, int64_t c0, int64_t c1, ttx_block_q8_fn block) {
    for (int64_t c = c0; c < c1; c++)
        for (int64_t k = 0; k < x->k; k += 32) {
            int64_t at = c * x->k + k;
            block(x->f32 + c * x->ld + k, x->q8 + at, x->d + at / 32, x->sum + at / 16);
        }
}

/* n values (a block, or what is left of a column) to q, their scale, and the sums of each 16. */
typedef void (*ttx_block_q16_fn)(const float *x, int64_t n, int16_t *q, float *d, int32_t *sum);

TTX_ACT_WALK ttx_walk_q16(const ttx_act *x, int64_t c0, int64_t c1, ttx_block_q16_fn block) {
    for (int64_t c = c0; c < c1; c++)
        for (int64_t k = 0; k < x->k; k += TTX_Q16_BLOCK) {
            int64_t at = c * x->k + k, n = x->k - k < TTX_Q16_BLOCK ? x->k - k : TTX_Q16_BLOCK;
            float *d = x->d16 + c * ttx_q16_blocks(x->k) + k / TTX_Q16_BLOCK;
            block(x->f32 + c * x->ld + k, n, x->q16 + at, d, x->sum16 + at / 16);
        }
}

/* One column of a panel of `width`; p points to its first four values. */
typedef void (*ttx_panel_column_fn)(const float *x, int64_t k, uint8_t *p, size_t width);

TTX_ACT_WALK ttx_walk_panels(const ttx_act *x, int64_t p0, int64_t p1, ttx_panel_column_fn column) {
    for (int64_t p = p0; p < p1; p++) {
        ttx_panel panel = ttx_panel_get(x->n_cols, p);
        uint8_t *to = x->panel + ttx_panel_bytes(x->k, panel.first);
        for (int j = 0; j < panel.width; j++)
            column(x->f32 + (panel.first + j) * x->ld, x->k, to + 4 * j, (size_t)panel.width);
    }
}

#endif
