/* dot_q16_super_int.h -- types with blocks of 256 (K-quants) against Q16 activations: all integers
 * until the end of a block. With x = 256 * hi + lo, lo unsigned, and weights below 64:
 *
 *     acc += scale * (256 * (q . hi) + (q . lo))     exact, in lanes
 *     y += (d * dx) * acc - (dmin * dx) * (mins . sums)
 *
 * Scales by 32 (Q4_K, Q5_K): both products fit words, of eight bytes by four bits, or four by five,
 * and one multiplication by pairs of words scales them and adds them up. Scales by 16 multiply
 * whole sums. |acc| < 2^31: 4 * 4 * 63 * 128 * 16383 for Q6_K, the largest.
 *
 * The scales of several blocks are decoded ahead of their products: the way to a scale is long, and
 * the CPU's registers do not let it look a block ahead.
 * To be included by dot_q16_*.c only.
 */
#ifndef TTX_DOT_Q16_SUPER_INT_H
#define TTX_DOT_Q16_SUPER_INT_H

#include "dot_q16_int.h"

/* The activations of a block. Sums, by 32 or by 16 values, as 1024 * coarse + fine; by 16: those of
 * even pieces first, then of odd ones. */
typedef struct super_act {
    uint8_t hi[256], lo[256];
    int16_t coarse[16], fine[16];
} super_act;

/* What four rows' scales are decoded to. */
typedef struct super_head {
    int8_t scale[ROWS][16]; /* by 32: bytes 8..15 */
    float d[2 * ROWS];      /* d * dx of row r at 2r */
} super_head;
enum { AHEAD = 8 }; /* blocks */

/* Where the 16 halves of blocks of 32 are in four vectors, and how many weights have a scale. */
typedef enum super_order {
    BY_16, /* vector g: the blocks g and g + 4 */
    BY_32, /* the even and the odd blocks of each 128 weights share a vector */
    PAIRS  /* by 32; first halves of the even blocks, second ones, those of odd blocks */
} super_order;

typedef struct super_type {
    size_t bytes;
    super_order order;
    void (*quants)(__m512i q[], const uint8_t *w); /* four vectors; PAIRS: see q4_k_quants */
    /* Decodes; and low[] -= the minima's part, lane r for row r. */
    void (*head)(super_head *h, const uint8_t *const w[ROWS], const super_act *a, float dx,
                 __m512 *low);
} super_type;

/* Where half h of block b is. */
TTX_INLINE int place_of(super_order order, int b, int h) {
    switch (order) {
    case BY_16: return b % 4 * 64 + b / 4 * 32 + 16 * h;
    case BY_32: return b / 4 * 128 + b % 2 * 64 + b % 4 / 2 * 32 + 16 * h;
    default: return b % 2 * 128 + 64 * h + b / 2 * 16;
    }
}

#define AT_SUPER(T, w) ((const T *)(const void *)(w))

TTX_INLINE void pack_super(const super_type *t, super_act *a, const int16_t *x,
                           const int32_t *sum) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) {
        int at = place_of(t->order, i / 2, i % 2);
        __m256i v = ttx_load256(x + 16 * i);
        _mm_storeu_si128((void *)(a->hi + at), _mm256_cvtepi16_epi8(_mm256_srai_epi16(v, 8)));
        _mm_storeu_si128((void *)(a->lo + at), _mm256_cvtepi16_epi8(v));
    }
    const __m512i even_odd =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    __m512i s = _mm512_permutexvar_epi32(even_odd, ttx_load512(sum));
    if (t->order != BY_16) /* pairs */
        s = _mm512_add_epi32(s, _mm512_shuffle_i32x4(s, s, 0x4e));
    __m256i coarse = _mm512_cvtepi32_epi16(_mm512_srai_epi32(s, 10));
    __m256i fine = _mm512_cvtepi32_epi16(_mm512_and_si512(s, _mm512_set1_epi32(1023)));
    _mm256_storeu_si256((void *)a->coarse, coarse);
    _mm256_storeu_si256((void *)a->fine, fine);
}

/* (q . hi) << 16 | (q . lo), the latter not negative and below 2^15, times the scales of the blocks
 * b, b + 2 (by 32) or b, b + 2, b + 4, b + 6 (pairs): bytes s 0 0 s. */
TTX_INLINE __m512i scale_words(__m512i acc, __m512i dot, const int8_t scale[16], super_order order,
                               int b) {
    const __m512i by_32 =
        _mm512_setr_epi32(0x08808008, 0x08808008, 0x08808008, 0x08808008, 0x08808008, 0x08808008,
                          0x08808008, 0x08808008, 0x0a80800a, 0x0a80800a, 0x0a80800a, 0x0a80800a,
                          0x0a80800a, 0x0a80800a, 0x0a80800a, 0x0a80800a);
    const __m512i pairs =
        _mm512_setr_epi32(0x08808008, 0x08808008, 0x08808008, 0x08808008, 0x0a80800a, 0x0a80800a,
                          0x0a80800a, 0x0a80800a, 0x0c80800c, 0x0c80800c, 0x0c80800c, 0x0c80800c,
                          0x0e80800e, 0x0e80800e, 0x0e80800e, 0x0e80800e);
    __m512i at = _mm512_add_epi8(order == PAIRS ? pairs : by_32, _mm512_set1_epi32(b << 24 | b));
    __m512i s = _mm512_broadcast_i32x4(load128(scale));
    return ttx_dot_words(acc, dot, _mm512_shuffle_epi8(s, at));
}

TTX_INLINE __m512i dot_by_32(const __m512i q[4], const super_act *a, const int8_t scale[16]) {
    __m512i acc = zero512();
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m512i dot = ttx_dot_bytes(zero512(), q[v], ttx_load512(a->hi + 64 * v), false);
        dot = _mm512_slli_epi32(dot, 16);
        dot = ttx_dot_bytes(dot, ttx_load512(a->lo + 64 * v), q[v], true);
        acc = scale_words(acc, dot, scale, BY_32, v / 2 * 4 + v % 2);
    }
    return acc;
}

/* Of Q4_K: weights of four bits, in two vectors of 64 bytes. */
TTX_INLINE void dot_pairs(const super_type *t, __m512i acc[ROWS], const uint8_t *const w[ROWS],
                          const super_act *a, const super_head *h) {
    __m512i v[ROWS][2], q[ROWS][2], dot[ROWS];
    EACH_ROW(i) t->quants(v[i], w[i]);
#pragma GCC unroll 2
    for (int b = 0; b < 2; b++) {
        const __m512i *hi = (const void *)(a->hi + 128 * b), *lo = (const void *)(a->lo + 128 * b);
        const __m512i hi0 = ttx_load512(hi), hi1 = ttx_load512(hi + 1);
        const __m512i lo0 = ttx_load512(lo), lo1 = ttx_load512(lo + 1);
        EACH_ROW(i) q[i][0] = bits(v[i][0], 4 * b, 15);
        EACH_ROW(i) q[i][1] = bits(v[i][1], 4 * b, 15);
        EACH_ROW(i) dot[i] = ttx_dot_bytes(zero512(), q[i][0], hi0, false);
        EACH_ROW(i) dot[i] = ttx_dot_bytes(dot[i], q[i][1], hi1, false);
        EACH_ROW(i) dot[i] = ttx_dot_bytes(_mm512_slli_epi32(dot[i], 16), lo0, q[i][0], true);
        EACH_ROW(i) dot[i] = ttx_dot_bytes(dot[i], lo1, q[i][1], true);
        EACH_ROW(i) acc[i] = scale_words(acc[i], dot[i], h->scale[i], PAIRS, b);
    }
}

TTX_INLINE __m512i dot_by_16(const __m512i q[4], const super_act *a, const int8_t scale[16]) {
    const __m512i piece = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 8, 8, 8, 8, 9, 9, 9, 9);
    __m512i acc = zero512(), s = _mm512_cvtepi8_epi32(load128(scale));
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        __m512i at = _mm512_add_epi32(piece, _mm512_set1_epi32(2 * g));
        __m512i dot = ttx_dot_bytes(zero512(), q[g], ttx_load512(a->hi + 64 * g), false);
        dot = _mm512_slli_epi32(dot, 8);
        dot = ttx_dot_bytes(dot, ttx_load512(a->lo + 64 * g), q[g], true);
        dot = _mm512_mullo_epi32(dot, _mm512_permutexvar_epi32(at, s));
        acc = _mm512_add_epi32(acc, dot);
    }
    return acc;
}

/* Adds the products of a block. */
TTX_INLINE void dot_rows_super(const super_type *t, __m512 y[ROWS], const uint8_t *const w[ROWS],
                               const super_act *a, const super_head *h) {
    if (t->order == PAIRS) {
        __m512i dot[ROWS] = {zero512(), zero512(), zero512(), zero512()};
        dot_pairs(t, dot, w, a, h);
        EACH_ROW(i)
        y[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[i]), _mm512_set1_ps(h->d[2 * i]), y[i]);
        return;
    }
    EACH_ROW(i) { /* whole rows: four times four vectors would not fit the registers */
        __m512i q[4], dot;
        t->quants(q, w[i]);
        dot = t->order == BY_16 ? dot_by_16(q, a, h->scale[i]) : dot_by_32(q, a, h->scale[i]);
        y[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(h->d[2 * i]), y[i]);
    }
}

TTX_INLINE void pack_supers(const super_type *t, super_act *a, column x, int64_t k) {
    for (int64_t i = 0; i < k; i += 256) pack_super(t, a + i / 256, x.q16 + i, x.sum + i / 16);
}

TTX_INLINE void super_rows(const super_type *t, __m512 y[ROWS], const uint8_t *const row[ROWS],
                           int64_t k, const super_act *a, const float *d, const uint8_t *ahead) {
    const uint8_t *w[ROWS] = {row[0], row[1], row[2], row[3]}, *v[ROWS];
    super_head h[AHEAD];
    __m512 low = _mm512_setzero_ps();
    for (int i = 0; i < ROWS; i++) y[i] = _mm512_setzero_ps();
    for (int64_t left = k / 256; left > 0; left -= AHEAD) {
        int m = left < AHEAD ? (int)left : AHEAD;
        for (int i = 0; i < ROWS; i++) v[i] = w[i];
        for (int b = 0; b < m; b++) {
            t->head(&h[b], v, a + b, d[b], &low);
            for (int i = 0; i < ROWS; i++) v[i] += t->bytes;
        }
        for (int b = 0; b < m; b++, a++, d++, ahead += ROWS * t->bytes) {
            prefetch_bytes(ahead, ROWS * t->bytes, PREFETCH_STEP);
            dot_rows_super(t, y, w, a, &h[b]);
            EACH_ROW(i) w[i] += t->bytes;
        }
    }
    add_lanes(y, low);
}

/* ---- the types ---- */

/* The dwords at `at` of four rows. */
TTX_INLINE __m128i row_dwords(const uint8_t *const w[ROWS], size_t at) {
    return _mm_setr_epi32((int)ttx_load32(w[0] + at), (int)ttx_load32(w[1] + at),
                          (int)ttx_load32(w[2] + at), (int)ttx_load32(w[3] + at));
}

/* Stores d * dx of four dwords (d, dmin) as F16; returns dmin * dx of row r in lane r. */
TTX_INLINE __m512 row_scales(super_head *h, __m128i v, float dx) {
    const __m512i lane = _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);
    __m256 d = _mm256_mul_ps(_mm256_cvtph_ps(v), _mm256_set1_ps(dx));
    _mm256_storeu_ps(h->d, d);
    return _mm512_permutexvar_ps(lane, _mm512_castps256_ps512(d));
}

/* The same where d, the last word of a block of `bytes`, is alone: d * dx of row r in lane r too.
 */
TTX_INLINE __m512 last_scales(super_head *h, const uint8_t *const w[ROWS], size_t bytes, float dx) {
    __m128i v = row_dwords(w, bytes - 4);
    return row_scales(h, _mm_blend_epi16(_mm_srli_epi32(v, 16), v, 0xaa), dx);
}

TTX_INLINE __m512i sums8(const int16_t s[8]) {
    return _mm512_broadcast_i32x4(load128(s));
}

/* low -= dmin * (c . sums), c: eight words a row; or sixteen, even and odd ones. */
TTX_INLINE __m512 minus_mins8(__m512 low, __m512i c, const super_act *a, __m512 dmin) {
    __m512i v = ttx_dot_words(zero512(), c, sums8(a->coarse));
    v = ttx_dot_words(_mm512_slli_epi32(v, 10), c, sums8(a->fine));
    return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(v), dmin, low);
}

TTX_INLINE __m512 minus_mins16(__m512 low, __m512i even, __m512i odd, const super_act *a,
                               __m512 dmin) {
    __m512i v = ttx_dot_words(zero512(), even, sums8(a->coarse));
    v = ttx_dot_words(v, odd, sums8(a->coarse + 8));
    v = ttx_dot_words(_mm512_slli_epi32(v, 10), even, sums8(a->fine));
    v = ttx_dot_words(v, odd, sums8(a->fine + 8));
    return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(v), dmin, low);
}

/* low -= d * offset * (c . sums), c: sixteen signed bytes a row; for w = d * c * (q - offset). */
TTX_INLINE __m512 minus_offset(__m512 low, __m512i c, const super_act *a, __m512 d, float offset) {
    __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(c, 8), 8), odd = _mm512_srai_epi16(c, 8);
    return minus_mins16(low, even, odd, a, _mm512_mul_ps(d, _mm512_set1_ps(offset)));
}

/* Q4_K and Q5_K begin alike: d, dmin, and 12 bytes A B C (dwords) of 6-bit s and m, see
 * ttx_k4_scales. In lanes, as D A B C. */
TTX_INLINE void k4_head(super_head *h, const uint8_t *const w[ROWS], const super_act *a, float dx,
                        __m512 *low) {
    const __m512i by = _mm512_setr_epi32(0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0);
    __m512i v = load4(w[0], w[1], w[2], w[3]);
    __m512i first = bits(v, 0, 63); /* in A: s[0..3], in B: m[0..3] */
    __m512i high = bits(v, 2, 48);
    __m512i last = _mm512_srlv_epi32(_mm512_shuffle_epi32(v, 0xff), by);
    last = _mm512_or_si512(high, bits(last, 0, 15));
    _mm512_storeu_si512((void *)h->scale, _mm512_unpacklo_epi32(first, last)); /* s: bytes 8..15 */
    __m512i m = _mm512_unpacklo_epi8(_mm512_unpackhi_epi32(first, last), zero512());
    *low = minus_mins8(*low, m, a, row_scales(h, row_dwords(w, 0), dx));
}

/* Nibbles of 64 bytes: blocks 0 and 2 from the low ones, 1 and 3 from the high ones. Here two
 * vectors, still packed, of first and of second halves. */
TTX_INLINE void q4_k_quants(__m512i q[2], const uint8_t *w) {
    const ttx_q4_k *p = AT_SUPER(ttx_q4_k, w);
    __m512i a = ttx_load512(p->qs), b = ttx_load512(p->qs + 64);
    q[0] = _mm512_shuffle_i32x4(a, b, 0x88);
    q[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
}

TTX_INLINE void q5_k_quants(__m512i q[4], const uint8_t *w) {
    const ttx_q5_k *p = AT_SUPER(ttx_q5_k, w);
    const __m512i by = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2); /* two blocks on */
    __m512i fifth = _mm512_srlv_epi64(_mm512_broadcast_i64x4(ttx_load256(p->qh)), by);
    for (int i = 0; i < 2; i++) {
        __m512i v = ttx_load512(p->qs + 64 * i);
        q[2 * i] = _mm512_or_si512(bits(v, 0, 15), bits(fifth, 4 * i - 4, 16));
        q[2 * i + 1] = _mm512_or_si512(bits(v, 4, 15), bits(fifth, 4 * i - 3, 16));
    }
}

/* Blocks g and g + 4 of 32: bits 2g of 64 bytes. */
TTX_INLINE void q2_k_quants(__m512i q[4], const uint8_t *w) {
    __m512i v = ttx_load512(AT_SUPER(ttx_q2_k, w)->qs);
    for (int g = 0; g < 4; g++) q[g] = bits(v, 2 * g, 3);
}
TTX_INLINE void q2_k_head(super_head *h, const uint8_t *const w[ROWS], const super_act *a, float dx,
                          __m512 *low) {
    __m512i v = load4(w[0], w[1], w[2], w[3]); /* scales come first */
    _mm512_storeu_si512((void *)h->scale, bits(v, 0, 15));
    __m512i even = _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi16(15));
    __m512 dmin = row_scales(h, row_dwords(w, offsetof(ttx_q2_k, d)), dx);
    *low = minus_mins16(*low, even, _mm512_srli_epi16(v, 12), a, dmin);
}

TTX_INLINE void q3_k_quants(__m512i q[4], const uint8_t *w) {
    const ttx_q3_k *p = AT_SUPER(ttx_q3_k, w);
    const __m512i by = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4), bit = _mm512_set1_epi8(4);
    __m512i v = ttx_load512(p->qs);
    __m512i third = _mm512_srlv_epi64(_mm512_broadcast_i64x4(ttx_load256(p->hmask)), by);
    for (int g = 0; g < 4; g++) {
        __m512i t = g < 2 ? _mm512_slli_epi16(third, (unsigned)(2 - g))
                          : _mm512_srli_epi16(third, (unsigned)(g - 2));
        q[g] = _mm512_or_si512(bits(v, 2 * g, 3), _mm512_and_si512(t, bit));
    }
}
TTX_INLINE void q3_k_head(super_head *h, const uint8_t *const w[ROWS], const super_act *a, float dx,
                          __m512 *low) {
    /* loads of 16 bytes that end with d: two unused, A B C (dwords), d */
    const size_t at = sizeof(ttx_q3_k) - 16;
    const __m512i lo =
        _mm512_broadcast_i32x4(_mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    const __m512i hi = _mm512_set1_epi32(0x0d0c0b0a);
    const __m512i lo_by = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 4, 4));
    const __m512i hi_by = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 2, 4, 6));
    __m512i v = load4(w[0] + at, w[1] + at, w[2] + at, w[3] + at);
    __m512i low4 = bits(_mm512_srlv_epi32(_mm512_shuffle_epi8(v, lo), lo_by), 0, 15);
    __m512i high2 = bits(_mm512_srlv_epi32(_mm512_shuffle_epi8(v, hi), hi_by), 0, 3);
    __m512i s = _mm512_or_si512(low4, _mm512_slli_epi16(high2, 4));
    s = _mm512_sub_epi8(s, _mm512_set1_epi8(32));
    _mm512_storeu_si512((void *)h->scale, s);
    *low = minus_offset(*low, s, a, last_scales(h, w, sizeof(ttx_q3_k), dx), 4);
}

TTX_INLINE void q6_k_quants(__m512i q[4], const uint8_t *w) {
    const ttx_q6_k *p = AT_SUPER(ttx_q6_k, w);
    const __m512i high = _mm512_set1_epi8(48);
    __m512i h = ttx_load512(p->qh);
    for (int i = 0; i < 2; i++) {
        __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(ttx_load256(p->ql + 32 * i)),
                                       ttx_load256(p->ql + 32 * i + 64), 1);
        __m512i lo = _mm512_slli_epi16(h, i ? 2 : 4), hi = i ? _mm512_srli_epi16(h, 2) : h;
        q[i] = _mm512_or_si512(bits(v, 0, 15), _mm512_and_si512(lo, high));
        q[i + 2] = _mm512_or_si512(bits(v, 4, 15), _mm512_and_si512(hi, high));
    }
}
TTX_INLINE void q6_k_head(super_head *h, const uint8_t *const w[ROWS], const super_act *a, float dx,
                          __m512 *low) {
    const size_t at = offsetof(ttx_q6_k, scales);
    __m512i s = load4(w[0] + at, w[1] + at, w[2] + at, w[3] + at);
    _mm512_storeu_si512((void *)h->scale, s);
    *low = minus_offset(*low, s, a, last_scales(h, w, sizeof(ttx_q6_k), dx), 32);
}

/* X(name, NAME, bytes, order, head) */
#define TTX_SUPER_TYPES(X)               \
    X(q2_k, Q2_K, 84, BY_16, q2_k_head)  \
    X(q3_k, Q3_K, 110, BY_16, q3_k_head) \
    X(q4_k, Q4_K, 144, PAIRS, k4_head)   \
    X(q5_k, Q5_K, 176, BY_32, k4_head)   \
    X(q6_k, Q6_K, 210, BY_16, q6_k_head)

#endif
