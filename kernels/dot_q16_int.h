/* dot_q16_int.h -- class EXACT for quantised weights with AVX-512: integer dot products against Q16
 * activations. Included by dot_q16_avx512.c, dot_q16_vnni.c and dot_nibbles_vbmi.c.
 *
 * Activations of 15 bits are split into two planes of bytes, x = hi * 2^n + lo, so that the weights
 * are unpacked once, to bytes, and multiplied by both planes. At the start of a call the planes are
 * put, in the thread's scratch, into the order in which the type's weights come out of its blocks.
 * Rows are taken four at a time: they share the loads of the planes, and their scales are decoded
 * together. The last rows of a range are joined by copies of the last one, whose results are
 * dropped: the bits of a row do not depend on its neighbours. Memory is prefetched in its own
 * order, across the four rows and beyond.
 *
 * To be included by *_avx512.c, *_vnni.c and *_vbmi.c only.
 */
#ifndef TTX_DOT_Q16_INT_H
#define TTX_DOT_Q16_INT_H

#include "quant_blocks.h"
#include "rows_avx512_int.h"

TTX_INLINE __m512i ttx_load512(const void *p) {
    return _mm512_loadu_si512(p);
}

TTX_INLINE __m128i load128(const void *p) {
    return _mm_loadu_si128(p);
}

/* 16 bytes at each of four places. */
TTX_INLINE __m512i load4(const void *a, const void *b, const void *c, const void *d) {
    __m256i lo = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(a)), load128(b), 1);
    __m256i hi = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(c)), load128(d), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(lo), hi, 1);
}

/* The bits `mask` of each byte; v shifted right within words, or left if `by` is negative. */
TTX_INLINE __m512i bits(__m512i v, int by, int mask) {
    __m512i m = _mm512_set1_epi8((char)mask);
    if (by > 0) return _mm512_and_si512(_mm512_srli_epi16(v, (unsigned)by), m);
    if (by < 0) return _mm512_and_si512(_mm512_slli_epi16(v, (unsigned)-by), m);
    return _mm512_and_si512(v, m);
}

TTX_INLINE __m512i zero512(void) {
    return _mm512_setzero_si512();
}

/* The codebooks, shifted up so that their entries are unsigned. */
TTX_INLINE __m128i ttx_iq4_book(void) {
    return _mm_add_epi8(_mm_setr_epi8(TTX_IQ4_CODES), _mm_set1_epi8(127));
}

TTX_INLINE __m128i ttx_mxfp4_book(void) {
    return _mm_add_epi8(_mm_setr_epi8(TTX_MXFP4_CODES), _mm_set1_epi8(12));
}

/* Views of the activations of one column. */
typedef struct column {
    const int16_t *q16;
    const float *d;
    const int32_t *sum;
} column;

TTX_INLINE column column_of(const ttx_act *x, int64_t c) {
    return (column){x->q16 + c * x->k, x->d16 + c * ttx_q16_blocks(x->k),
                    x->sum16 + c * (x->k / 16)};
}

/* The 128-bit lane r of v to row r: always to lane 0, so that the bits do not depend on r. */
TTX_INLINE void add_lanes(__m512 y[ROWS], __m512 v) {
    y[0] = _mm512_add_ps(y[0], _mm512_zextps128_ps512(_mm512_castps512_ps128(v)));
    y[1] = _mm512_add_ps(y[1], _mm512_zextps128_ps512(_mm512_extractf32x4_ps(v, 1)));
    y[2] = _mm512_add_ps(y[2], _mm512_zextps128_ps512(_mm512_extractf32x4_ps(v, 2)));
    y[3] = _mm512_add_ps(y[3], _mm512_zextps128_ps512(_mm512_extractf32x4_ps(v, 3)));
}

/* The sums of four vectors: a row's bits do not depend on its place among the four. */
TTX_INLINE __m128 sum_rows(const __m512 y[ROWS]) {
    __m512 a = _mm512_add_ps(_mm512_unpacklo_ps(y[0], y[1]), _mm512_unpackhi_ps(y[0], y[1]));
    __m512 b = _mm512_add_ps(_mm512_unpacklo_ps(y[2], y[3]), _mm512_unpackhi_ps(y[2], y[3]));
    __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
    a = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d));
    a = _mm512_add_ps(a, _mm512_castpd_ps(_mm512_unpackhi_pd(c, d)));
    __m256 e = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    return _mm_add_ps(_mm256_castps256_ps128(e), _mm256_extractf128_ps(e, 1));
}

TTX_INLINE void store_rows(const ttx_mm *m, int64_t c, int64_t r, int64_t r1,
                           const __m512 y[ROWS]) {
    float *to = m->y + c * m->ldy + r;
    if (r1 - r >= ROWS)
        _mm_storeu_ps(to, sum_rows(y));
    else
        _mm_mask_storeu_ps(to, (__mmask8)((1 << (r1 - r)) - 1), sum_rows(y));
}

/* The matmul of a type: its column is put in order by pack(&type, a, column, k), four rows are
 * multiplied by rows(&type, y, w, k, a, scales of the column, where to prefetch from). A macro, as
 * gcc does not see through a type that is handed on as a pointer to void. */
#define Q16_MATMUL(name, type_t, act_t, pack, rows, ...)                               \
    static void exact_##name(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        const type_t type = {__VA_ARGS__};                                             \
        act_t *a = scratch;                                                            \
        const uint8_t *w[ROWS];                                                        \
        __m512 y[ROWS];                                                                \
        for (int64_t r = r0, end; r < r1; r = end) {                                   \
            end = m->x->n_cols == 1 || r1 - r < BAND ? r1 : r + BAND;                  \
            for (int64_t c = 0; c < m->x->n_cols; c++) {                               \
                column x = column_of(m->x, c);                                         \
                pack(&type, a, x, m->k);                                               \
                for (int64_t i = r; i < end; i += ROWS) {                              \
                    four_rows(w, m, i, end);                                           \
                    rows(&type, y, w, m->k, a, x.d, next_rows(w[0], m->row_bytes));    \
                    store_rows(m, c, i, end, y);                                       \
                }                                                                      \
            }                                                                          \
        }                                                                              \
    }

#endif
