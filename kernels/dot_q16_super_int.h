/* dot_q16_super_int.h -- types with blocks of 256 (K-quants) against Q16 activations: all integers
 * until the end of a block.
 *
 * The weights of a block come out as four vectors of 64 unsigned bytes, in an order of pieces of
 * 16; the activations are split at bit n, x = hi * 2^n + lo with both products of four bytes within
 * 16 bits, so that one multiplication by pairs of words scales both and adds them up:
 *
 *     t = (q . hi) << 16 | (q . lo)           16 bits each
 *     acc += t * (scale << n, scale)          exact: q . x * scale, in 16 lanes
 *     y += (d * dx) * acc - (dmin * dx) * (mins . sums)
 *
 * q . lo is not negative, so nothing is borrowed from q . hi. Bounds: 4 * 63 * 127 < 2^15, and
 * 4 * 4 * 63 * 128 * 16383 < 2^31 (Q6_K, the largest).
 * To be included by dot_q16_*.c only.
 */
#ifndef TTX_DOT_Q16_SUPER_INT_H
#define TTX_DOT_Q16_SUPER_INT_H

#include "dot_q16_int.h"

/* The activations of a block. Sums, by 32 or by 16 values, as 1024 * coarse + fine; by 16: those of
 * even pieces first, then of odd ones. */
typedef struct super_act {
    __m512i hi[4], lo[4];
    int16_t coarse[16], fine[16];
} super_act;

/* What four rows' scales are decoded to. Lane r of a vector belongs to row r. */
typedef struct super_head {
    uint8_t scale[ROWS][16]; /* of each row, as bytes */
    float d[2 * ROWS];       /* d * dx of row r at 2r */
} super_head;

typedef struct super_type {
    size_t bytes;
    int n;          /* where activations are split */
    bool by_16;     /* scales by 16 weights, not 32 */
    bool is_signed; /* scales may be negative */
    int order[16];  /* the piece of 16 in each lane of the four vectors */
    int scale[16];  /* the byte of super_head.scale that it is multiplied by */
    void (*quants)(__m512i q[4], const uint8_t *w);
    /* Decodes; and low[] -= the minima's part, lane r for row r. */
    void (*head)(super_head *h, const uint8_t *const w[ROWS], const super_act *a, float dx,
                 __m512 *low);
} super_type;

#define AT_SUPER(T, w) ((const T *)(const void *)(w))

TTX_INLINE void pack_super(const super_type *t, super_act *a, const int16_t *x,
                           const int32_t *sum) {
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m128i hi[4], lo[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            split16(&hi[i], &lo[i], x + 16 * t->order[4 * v + i], t->n, false);
        a->hi[v] = load4(&hi[0], &hi[1], &hi[2], &hi[3]);
        a->lo[v] = load4(&lo[0], &lo[1], &lo[2], &lo[3]);
    }
    const __m512i even_odd =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    __m512i s = _mm512_permutexvar_epi32(even_odd, ttx_load512(sum));
    if (!t->by_16) /* pairs */
        s = _mm512_add_epi32(s, _mm512_shuffle_i32x4(s, s, 0x4e));
    __m256i coarse = _mm512_cvtepi32_epi16(_mm512_srai_epi32(s, 10));
    __m256i fine = _mm512_cvtepi32_epi16(_mm512_and_si512(s, _mm512_set1_epi32(1023)));
    _mm256_storeu_si256((void *)a->coarse, coarse);
    _mm256_storeu_si256((void *)a->fine, fine);
}

/* The pairs of words that vector v's products are multiplied by. */
TTX_INLINE __m512i scale_pairs(const super_type *t, const uint8_t scale[16], int v) {
    const int *j = t->scale + 4 * v;
    __m512i s = _mm512_broadcast_i32x4(load128(scale));
    if (!t->is_signed) { /* n = 8: bytes s 0 0 s */
#define PAIR(i) (int)(0x00808000u | (unsigned)j[i] | (unsigned)j[i] << 24)
        return _mm512_shuffle_epi8(s, _mm512_setr_epi32(PAIR(0), PAIR(0), PAIR(0), PAIR(0), PAIR(1),
                                                        PAIR(1), PAIR(1), PAIR(1), PAIR(2), PAIR(2),
                                                        PAIR(2), PAIR(2), PAIR(3), PAIR(3), PAIR(3),
                                                        PAIR(3)));
#undef PAIR
    }
    /* n = 7: words s << 8, shifted back by 8 and by 1 */
#define PAIR(i) (int)(0x00800080u | (unsigned)j[i] << 8 | (unsigned)j[i] << 24)
    s = _mm512_shuffle_epi8(s,
                            _mm512_setr_epi32(PAIR(0), PAIR(0), PAIR(0), PAIR(0), PAIR(1), PAIR(1),
                                              PAIR(1), PAIR(1), PAIR(2), PAIR(2), PAIR(2), PAIR(2),
                                              PAIR(3), PAIR(3), PAIR(3), PAIR(3)));
#undef PAIR
    return _mm512_srav_epi16(s, _mm512_set1_epi32(1 << 16 | 8));
}

TTX_INLINE __m512i dot_super(const super_type *t, const uint8_t *w, const super_act *a,
                             const uint8_t scale[16]) {
    __m512i q[4], acc = zero512();
    t->quants(q, w);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        __m512i dot = ttx_dot_bytes(zero512(), q[v], a->hi[v], false);
        dot = ttx_dot_bytes(_mm512_slli_epi32(dot, 16), a->lo[v], q[v], true);
        acc = ttx_dot_words(acc, dot, scale_pairs(t, scale, v));
    }
    return acc;
}

/* Lane r of `low` to row r: always to lane 0, so that the bits do not depend on r. */
TTX_INLINE void add_low(__m512 y[ROWS], __m512 low) {
    y[0] = _mm512_add_ps(y[0], _mm512_zextps128_ps512(_mm512_castps512_ps128(low)));
    y[1] = _mm512_add_ps(y[1], _mm512_zextps128_ps512(_mm512_extractf32x4_ps(low, 1)));
    y[2] = _mm512_add_ps(y[2], _mm512_zextps128_ps512(_mm512_extractf32x4_ps(low, 2)));
    y[3] = _mm512_add_ps(y[3], _mm512_zextps128_ps512(_mm512_extractf32x4_ps(low, 3)));
}

TTX_INLINE void super_rows(const super_type *t, __m512 y[ROWS], const uint8_t *const row[ROWS],
                           int64_t n_k, const super_act *a, const float *d, const uint8_t *ahead) {
    const uint8_t *w[ROWS] = {row[0], row[1], row[2], row[3]};
    __m512 low = _mm512_setzero_ps();
    for (int i = 0; i < ROWS; i++) y[i] = _mm512_setzero_ps();
    for (int64_t k = 0; k < n_k; k += 256, a++, d++, ahead += ROWS * t->bytes) {
        _Alignas(64) super_head h;
        prefetch_bytes(ahead, ROWS * t->bytes);
        t->head(&h, w, a, *d, &low);
#pragma GCC unroll 4
        for (int i = 0; i < ROWS; i++) {
            __m512i dot = dot_super(t, w[i], a, h.scale[i]);
            y[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_set1_ps(h.d[2 * i]), y[i]);
            w[i] += t->bytes;
        }
    }
    add_low(y, low);
}

TTX_INLINE void super_matmul(const super_type *t, const ttx_mm *m, int64_t r0, int64_t r1,
                             super_act *a) {
    const uint8_t *w[ROWS];
    __m512 y[ROWS];
    for (int64_t r = r0, end; r < r1; r = end) {
        end = m->x->n_cols == 1 || r1 - r < BAND ? r1 : r + BAND;
        for (int64_t c = 0; c < m->x->n_cols; c++) {
            column x = column_of(m->x, c);
            for (int64_t k = 0; k < m->k; k += 256)
                pack_super(t, a + k / 256, x.q16 + k, x.sum + k / 16);
            for (int64_t i = r; i < end; i += ROWS) {
                four_rows(w, m, i, end);
                super_rows(t, y, w, m->k, a, x.d, next_rows(w[0], m->row_bytes));
                store_rows(m, c, i, end, y);
            }
        }
    }
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

/* The same of signed bytes c, and of -32 or so times d alone: w = d * c * (q - offset). */
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
    _mm512_storeu_si512(h->scale, _mm512_unpacklo_epi32(first, last)); /* s: bytes 8..15 */
    __m512i m = _mm512_unpacklo_epi8(_mm512_unpackhi_epi32(first, last), zero512());
    *low = minus_mins8(*low, m, a, row_scales(h, row_dwords(w, 0), dx));
}

/* Nibbles of 64 bytes: two blocks of 32 from the low ones, two from the high ones. */
TTX_INLINE void q4_k_quants(__m512i q[4], const uint8_t *w) {
    const ttx_q4_k *p = AT_SUPER(ttx_q4_k, w);
    for (int i = 0; i < 2; i++) {
        __m512i v = ttx_load512(p->qs + 64 * i);
        q[2 * i] = bits(v, 0, 15);
        q[2 * i + 1] = bits(v, 4, 15);
    }
}

TTX_INLINE void q5_k_quants(__m512i q[4], const uint8_t *w) {
    const ttx_q5_k *p = AT_SUPER(ttx_q5_k, w);
    const __m512i bit = _mm512_set1_epi8(16);
    const __m512i by = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2); /* blocks 2i from here on */
    __m512i fifth = _mm512_srlv_epi64(_mm512_broadcast_i64x4(ttx_load256(p->qh)), by);
    for (int i = 0; i < 2; i++) {
        __m512i v = ttx_load512(p->qs + 64 * i);
        __m512i lo = _mm512_slli_epi16(fifth, 4), hi = _mm512_slli_epi16(fifth, 3);
        if (i) lo = fifth, hi = _mm512_srli_epi16(fifth, 1);
        q[2 * i] = _mm512_or_si512(bits(v, 0, 15), _mm512_and_si512(lo, bit));
        q[2 * i + 1] = _mm512_or_si512(bits(v, 4, 15), _mm512_and_si512(hi, bit));
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
    _mm512_storeu_si512(h->scale, bits(v, 0, 15));
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
    _mm512_storeu_si512(h->scale, s);
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
    _mm512_storeu_si512(h->scale, s);
    *low = minus_offset(*low, s, a, last_scales(h, w, sizeof(ttx_q6_k), dx), 32);
}

/* The pieces in lanes, and their scales. */
#define K4_ORDER 0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15
#define K4_SCALE 8, 8, 10, 10, 9, 9, 11, 11, 12, 12, 14, 14, 13, 13, 15, 15
#define K2_ORDER 0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15

/* X(name, NAME, type) */
#define TTX_SUPER_TYPES(X)                                           \
    X(q2_k, Q2_K, 84, 8, true, false, K2_ORDER, K2_ORDER, q2_k_head) \
    X(q3_k, Q3_K, 110, 7, true, true, K2_ORDER, K2_ORDER, q3_k_head) \
    X(q4_k, Q4_K, 144, 8, false, false, K4_ORDER, K4_SCALE, k4_head) \
    X(q5_k, Q5_K, 176, 8, false, false, K4_ORDER, K4_SCALE, k4_head) \
    X(q6_k, Q6_K, 210, 7, true, true, K2_ORDER, K2_ORDER, q6_k_head)

#endif
