/* dot_avx2.h -- class EXACT for quantised weights with AVX2: the one loop that all types share.
 *
 * 256 weights (eight blocks of 32) are a group. A type says how to read the scales of a group and
 * how to unpack the integers of one block; the loop does the rest, for 1 or 4 columns at a time.
 * In the notation of unpack.h, for block b with activations x (scale dx, sums sum):
 *
 *     acc += (s * dx)[b] * (float)(q . x)          by 8 lanes, even and odd b apart
 *     low += m[b] * dx[b] * (float)(c16 . sum)[b]  for the whole group, one lane a block
 *
 * and the product is hsum(acc - low) at the end. Types with scales for 16 weights multiply them in
 * as integers (s16, c16). Unsigned types with an offset (w = s * (q - o)) let m = s * o.
 *
 * Integer ranges: pairs of products are summed in 16 bits, |q| * 127 * 2 <= 32512 for |q| <= 128;
 * signed types multiply |q| by x with the sign of q, as x is never -128.
 *
 * To be included by *_avx2.c only.
 */
#ifndef TTX_DOT_AVX2_H
#define TTX_DOT_AVX2_H

#include "mm_avx2_int.h"

typedef struct ttx_group {
    __m256 s;    /* of each block */
    __m256 m;    /* of each block; unused if the type has no minimum */
    __m256i c16; /* 16-bit factors of the 16 sums; all 1 for scales by 32 */
    __m256i s16; /* scales by 16: those of even sub-blocks in the low half, odd in the high */
} ttx_group;

/* A type. All members are compile-time constants once the loop is inlined. */
typedef struct ttx_dot_type {
    size_t bytes;   /* of a group */
    bool is_signed; /* quants() are int8; else uint8 below 128 */
    bool has_min;   /* m is used */
    bool by_16;     /* s16 is used */
    /* Of the first n (1..8) blocks of a group; scales of the others 0. Reads nothing beyond. */
    void (*scales)(ttx_group *g, const uint8_t *w, int n);
    __m256i (*quants)(const uint8_t *w, int b);
} ttx_dot_type;

/* All ones in the dwords below n: which blocks of a group exist. */
TTX_INLINE __m256i ttx_mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

TTX_INLINE __m256i ttx_dot_block(const ttx_dot_type *t, const ttx_group *g, __m256i q, __m256i x,
                                 int b) {
    __m256i factor = _mm256_set1_epi16(1);
    if (t->by_16) /* word b of each half, eight times */
        factor = _mm256_shuffle_epi8(g->s16, _mm256_set1_epi16((short)(2 * b | (2 * b + 1) << 8)));
    __m256i pairs = t->is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
                                 : _mm256_maddubs_epi16(q, x);
    return _mm256_madd_epi16(pairs, factor);
}

/* One group of one row by nc columns from c on; k: where it starts. */
TTX_INLINE void ttx_dot_group(const ttx_dot_type *t, const ttx_act *x, int64_t c, int nc, int64_t k,
                              const uint8_t *w, int n, __m256 acc[][2], __m256 low[]) {
    ttx_group g;
    float s[4][8];
    const int8_t *q8[4];
    t->scales(&g, w, n);
    for (int j = 0; j < nc; j++) {
        int64_t at = (c + j) * x->k + k;
        q8[j] = x->q8 + at;
        __m256 dx = n == 8 ? _mm256_loadu_ps(x->d + at / 32)
                           : _mm256_maskload_ps(x->d + at / 32, ttx_mask(n));
        _mm256_storeu_ps(s[j], _mm256_mul_ps(g.s, dx));
        if (t->has_min) {
            const void *p = x->sum + at / 16;
            __m256i sums = n == 8 ? ttx_load256(p) : _mm256_maskload_epi32(p, ttx_mask(n));
            sums = _mm256_madd_epi16(sums, g.c16);
            low[j] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), dx), g.m, low[j]);
        }
    }
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) { /* a constant bound: b is a constant once unrolled */
        if (b >= n) break;
        __m256i q = t->quants(w, b);
#pragma GCC unroll 4
        for (int j = 0; j < nc; j++) {
            __m256i dot = ttx_dot_block(t, &g, q, ttx_load256(q8[j] + 32 * b), b);
            acc[j][b % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_broadcast_ss(&s[j][b]),
                                            acc[j][b % 2]);
        }
    }
}

TTX_INLINE void ttx_dot_row(const ttx_dot_type *t, const ttx_mm *m, int64_t r, int64_t c, int nc) {
    const uint8_t *w = m->w + (size_t)r * m->row_bytes;
    __m256 acc[4][2], low[4];
    for (int j = 0; j < nc; j++) acc[j][0] = acc[j][1] = low[j] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 256 <= m->k; k += 256, w += t->bytes)
        ttx_dot_group(t, m->x, c, nc, k, w, 8, acc, low);
    if (k < m->k) ttx_dot_group(t, m->x, c, nc, k, w, (int)(m->k - k) / 32, acc, low);
    for (int j = 0; j < nc; j++) {
        __m256 sum = _mm256_add_ps(acc[j][0], acc[j][1]);
        if (t->has_min) sum = _mm256_sub_ps(sum, low[j]);
        m->y[(c + j) * m->ldy + r] = ttx_hsum(sum);
    }
}

TTX_INLINE void ttx_dot_matmul(const ttx_dot_type *t, const ttx_mm *m, int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r++) {
        int64_t c = 0;
        for (; c + 4 <= m->x->n_cols; c += 4) ttx_dot_row(t, m, r, c, 4);
        for (; c < m->x->n_cols; c++) ttx_dot_row(t, m, r, c, 1);
    }
}

#endif
