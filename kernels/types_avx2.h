/* types_avx2.h -- how AVX2 reads each quantised type: the scales of 256 weights (a group: eight
 * blocks of 32) and the integers of one block, in order. Dot products and dequantisation both
 * follow from it. See quant_blocks.h for the layouts, unpack.h for the common form w = s * q - m.
 *
 * Shifts are of 16-bit lanes: what comes in from the neighbour byte is masked away.
 * To be included by *_avx2.c only.
 */
#ifndef TTX_TYPES_AVX2_H
#define TTX_TYPES_AVX2_H

#include "quant_blocks.h"
#include "mm_avx2_int.h"

typedef struct ttx_group {
    __m256 s;    /* of each block; of types with scales by 16: d */
    __m256 m;    /* of each block, if has_min; by 16: dmin */
    __m256i s16; /* by 16: 16-bit scales, those of even sub-blocks in the low half, then odd */
    __m256i c16; /* by 16: the factors of m, or without has_min the scales, in plain order */
} ttx_group;

/* All members are compile-time constants where the loops are inlined. */
typedef struct ttx_type_avx2 {
    size_t bytes;   /* of a group */
    bool is_signed; /* quants() are int8; else uint8 below 128 */
    int offset;     /* w = s * (q - offset) */
    bool has_min;   /* w = s * q - m */
    bool by_16;     /* scales by 16 weights */
    /* Of the first n (1..8) blocks of a group; scales of the others 0. Reads nothing beyond. */
    void (*scales)(ttx_group *g, const uint8_t *w, int n);
    __m256i (*quants)(const uint8_t *w, int b);
} ttx_type_avx2;

#define BLOCK(T, w, b) ((const T *)(const void *)(w) + (b))

/* Blocks that begin with d; or with d and m. */
TTX_INLINE void d_scales(ttx_group *g, const uint8_t *w, size_t stride, int n) {
    __m128i v[2];
    ttx_gather32(v, w, stride, n);
    g->s = ttx_low_halves(v);
}

TTX_INLINE void min_scales(ttx_group *g, const uint8_t *w, size_t stride, int n) {
    __m128i v[2];
    ttx_gather32(v, w, stride, n);
    g->s = ttx_low_halves(v);
    g->m = _mm256_xor_ps(ttx_high_halves(v), _mm256_set1_ps(-0.0f));
}

TTX_INLINE void q4_0_scales(ttx_group *g, const uint8_t *w, int n) {
    d_scales(g, w, sizeof(ttx_q4_0), n);
}
TTX_INLINE __m256i q4_0_quants(const uint8_t *w, int b) {
    return ttx_nibbles(BLOCK(ttx_q4_0, w, b)->qs);
}

TTX_INLINE void q4_1_scales(ttx_group *g, const uint8_t *w, int n) {
    min_scales(g, w, sizeof(ttx_q4_1), n);
}
TTX_INLINE __m256i q4_1_quants(const uint8_t *w, int b) {
    return ttx_nibbles(BLOCK(ttx_q4_1, w, b)->qs);
}

TTX_INLINE void q5_0_scales(ttx_group *g, const uint8_t *w, int n) {
    d_scales(g, w, sizeof(ttx_q5_0), n);
}
TTX_INLINE __m256i q5_0_quants(const uint8_t *w, int b) {
    const ttx_q5_0 *p = BLOCK(ttx_q5_0, w, b);
    return _mm256_or_si256(ttx_nibbles(p->qs), ttx_fifth_bits(p->qh));
}

TTX_INLINE void q5_1_scales(ttx_group *g, const uint8_t *w, int n) {
    min_scales(g, w, sizeof(ttx_q5_1), n);
}
TTX_INLINE __m256i q5_1_quants(const uint8_t *w, int b) {
    const ttx_q5_1 *p = BLOCK(ttx_q5_1, w, b);
    return _mm256_or_si256(ttx_nibbles(p->qs), ttx_fifth_bits(p->qh));
}

TTX_INLINE void q8_0_scales(ttx_group *g, const uint8_t *w, int n) {
    d_scales(g, w, sizeof(ttx_q8_0), n);
}
TTX_INLINE __m256i q8_0_quants(const uint8_t *w, int b) {
    return ttx_load256(BLOCK(ttx_q8_0, w, b)->qs);
}

TTX_INLINE void iq4_nl_scales(ttx_group *g, const uint8_t *w, int n) {
    d_scales(g, w, sizeof(ttx_iq4_nl), n);
}
TTX_INLINE __m256i iq4_nl_quants(const uint8_t *w, int b) {
    return ttx_codes(_mm_setr_epi8(TTX_IQ4_CODES), ttx_nibbles(BLOCK(ttx_iq4_nl, w, b)->qs));
}

/* The codebook is shifted up by 12, so that its entries are unsigned. */
TTX_INLINE void mxfp4_scales(ttx_group *g, const uint8_t *w, int n) {
    uint64_t e = 0;
    for (int i = 0; i < n; i++) e |= (uint64_t)BLOCK(ttx_mxfp4, w, i)->e << 8 * i;
    __m256i v = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)e));
    g->s = _mm256_and_ps(ttx_e8m0_halves(v), _mm256_castsi256_ps(ttx_mask(n)));
}
TTX_INLINE __m256i mxfp4_quants(const uint8_t *w, int b) {
    const __m128i book = _mm_add_epi8(_mm_setr_epi8(TTX_MXFP4_CODES), _mm_set1_epi8(12));
    return ttx_codes(book, ttx_nibbles(BLOCK(ttx_mxfp4, w, b)->qs));
}

#define BITS(v, mask) _mm256_and_si256(v, _mm256_set1_epi8(mask))

/* v shifted right by `by` bits, or left if negative. */
TTX_INLINE __m256i shifted(__m256i v, int by) {
    return by >= 0 ? _mm256_srli_epi16(v, by) : _mm256_slli_epi16(v, -by);
}

/* Nibbles as in Q4_K: 64 values in 32 bytes. */
TTX_INLINE __m256i k4_nibbles(const uint8_t *qs, int b) {
    return BITS(shifted(ttx_load256(qs + b / 2 * 32), b % 2 * 4), 15);
}

/* 16 signed bytes in the order of ttx_group.s16. */
TTX_INLINE void scales_by_16(ttx_group *g, __m128i s) {
    const __m128i even_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    g->s16 = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(s, even_odd));
}

TTX_INLINE void q2_k_scales(ttx_group *g, const uint8_t *w, int n) {
    const ttx_q2_k *p = (const void *)w;
    (void)n;
    __m128i v = _mm_loadu_si128((const void *)p->scales), nibble = _mm_set1_epi8(15);
    scales_by_16(g, _mm_and_si128(v, nibble));
    g->c16 = _mm256_cvtepi8_epi16(_mm_and_si128(_mm_srli_epi16(v, 4), nibble));
    g->s = _mm256_set1_ps(ttx_half(p->d));
    g->m = _mm256_set1_ps(ttx_half(p->dmin));
}
TTX_INLINE __m256i q2_k_quants(const uint8_t *w, int b) {
    const ttx_q2_k *p = (const void *)w;
    return BITS(shifted(ttx_load256(p->qs + b / 4 * 32), b % 4 * 2), 3);
}

TTX_INLINE void q3_k_scales(ttx_group *g, const uint8_t *w, int n) {
    const ttx_q3_k *p = (const void *)w;
    (void)n;
    /* two bytes early, so as not to read beyond the block */
    __m128i raw = _mm_loadu_si128((const void *)(w + offsetof(ttx_q3_k, scales) - 2));
    __m128i lo =
        _mm_shuffle_epi8(raw, _mm_setr_epi8(2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9));
    __m128i hi = _mm_shuffle_epi8(raw, _mm_set1_epi32(0x0d0c0b0a));
    lo = _mm_srlv_epi32(lo, _mm_setr_epi32(0, 0, 4, 4));
    hi = _mm_srlv_epi32(_mm_sllv_epi32(hi, _mm_setr_epi32(4, 2, 0, 0)), _mm_setr_epi32(0, 0, 0, 2));
    __m128i v =
        _mm_or_si128(_mm_and_si128(lo, _mm_set1_epi8(15)), _mm_and_si128(hi, _mm_set1_epi8(48)));
    v = _mm_sub_epi8(v, _mm_set1_epi8(32));
    scales_by_16(g, v);
    g->c16 = _mm256_cvtepi8_epi16(v);
    g->s = _mm256_set1_ps(ttx_half(p->d));
}
TTX_INLINE __m256i q3_k_quants(const uint8_t *w, int b) {
    const ttx_q3_k *p = (const void *)w;
    __m256i lo = BITS(shifted(ttx_load256(p->qs + b / 4 * 32), b % 4 * 2), 3);
    return _mm256_or_si256(lo, BITS(shifted(ttx_load256(p->hmask), b - 2), 4));
}

/* Q4_K and Q5_K begin alike: d, dmin, and 12 bytes A B C (dwords) of 6-bit s and m, see
 * ttx_k4_scales. In vectors, as v = D A B C. */
TTX_INLINE void k4_group(ttx_group *g, const uint8_t *w) {
    __m128i v = _mm_loadu_si128((const void *)w);
    __m128i first = _mm_and_si128(v, _mm_set1_epi8(63)); /* in A: s[0..3], in B: m[0..3] */
    __m128i high = _mm_and_si128(_mm_srli_epi32(v, 2), _mm_set1_epi8(48));
    __m128i low = _mm_srlv_epi32(_mm_shuffle_epi32(v, 0xff), _mm_setr_epi32(0, 0, 4, 0));
    __m128i last = _mm_or_si128(high, _mm_and_si128(low, _mm_set1_epi8(15)));
    __m128i s = _mm_srli_si128(_mm_unpacklo_epi32(first, last), 8);
    __m128i m = _mm_unpackhi_epi32(first, last);
    __m128 d = _mm_cvtph_ps(v);
    g->s = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(s)), _mm256_broadcastss_ps(d));
    g->m = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(m)),
                         _mm256_broadcastss_ps(_mm_movehdup_ps(d)));
}

TTX_INLINE void q4_k_scales(ttx_group *g, const uint8_t *w, int n) {
    (void)n;
    k4_group(g, w);
}
TTX_INLINE __m256i q4_k_quants(const uint8_t *w, int b) {
    const ttx_q4_k *p = (const void *)w;
    return k4_nibbles(p->qs, b);
}

TTX_INLINE void q5_k_scales(ttx_group *g, const uint8_t *w, int n) {
    (void)n;
    k4_group(g, w);
}
TTX_INLINE __m256i q5_k_quants(const uint8_t *w, int b) {
    const ttx_q5_k *p = (const void *)w;
    return _mm256_or_si256(k4_nibbles(p->qs, b), BITS(shifted(ttx_load256(p->qh), b - 4), 16));
}

TTX_INLINE void q6_k_scales(ttx_group *g, const uint8_t *w, int n) {
    const ttx_q6_k *p = (const void *)w;
    (void)n;
    __m128i v = _mm_loadu_si128((const void *)p->scales);
    scales_by_16(g, v);
    g->c16 = _mm256_cvtepi8_epi16(v);
    g->s = _mm256_set1_ps(ttx_half(p->d));
}
TTX_INLINE __m256i q6_k_quants(const uint8_t *w, int b) {
    const ttx_q6_k *p = (const void *)w;
    __m256i lo = ttx_load256(p->ql + b / 4 * 64 + b % 2 * 32), hi = ttx_load256(p->qh + b / 4 * 32);
    return _mm256_or_si256(BITS(shifted(lo, b % 4 / 2 * 4), 15),
                           BITS(shifted(hi, b % 4 * 2 - 4), 48));
}

TTX_INLINE void iq4_xs_scales(ttx_group *g, const uint8_t *w, int n) {
    const ttx_iq4_xs *p = (const void *)w;
    (void)n;
    __m256i lo = _mm256_set1_epi32((int)ttx_load32(p->scales_l));
    __m256i hi = _mm256_set1_epi32(p->scales_h << 4);
    lo = _mm256_srlv_epi32(lo, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    hi = _mm256_srlv_epi32(hi, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    __m256i s = _mm256_or_si256(_mm256_and_si256(lo, _mm256_set1_epi32(15)),
                                _mm256_and_si256(hi, _mm256_set1_epi32(48)));
    s = _mm256_sub_epi32(s, _mm256_set1_epi32(32));
    g->s = _mm256_mul_ps(_mm256_cvtepi32_ps(s), _mm256_set1_ps(ttx_half(p->d)));
}
TTX_INLINE __m256i iq4_xs_quants(const uint8_t *w, int b) {
    const ttx_iq4_xs *p = (const void *)w;
    return ttx_codes(_mm_setr_epi8(TTX_IQ4_CODES), ttx_nibbles(p->qs + 16 * b));
}

/* X(name, NAME, bytes of a group, is_signed, offset, has_min, by_16) */
#define TTX_TYPES_AVX2(X)                            \
    X(q4_0, Q4_0, 8 * 18, false, 8, false, false)    \
    X(q4_1, Q4_1, 8 * 20, false, 0, true, false)     \
    X(q5_0, Q5_0, 8 * 22, false, 16, false, false)   \
    X(q5_1, Q5_1, 8 * 24, false, 0, true, false)     \
    X(q8_0, Q8_0, 8 * 34, true, 0, false, false)     \
    X(iq4_nl, IQ4_NL, 8 * 18, true, 0, false, false) \
    X(mxfp4, MXFP4, 8 * 17, false, 12, false, false) \
    X(q2_k, Q2_K, 84, false, 0, true, true)          \
    X(q3_k, Q3_K, 110, false, 4, false, true)        \
    X(q4_k, Q4_K, 144, false, 0, true, false)        \
    X(q5_k, Q5_K, 176, false, 0, true, false)        \
    X(q6_k, Q6_K, 210, false, 32, false, true)       \
    X(iq4_xs, IQ4_XS, 136, true, 0, false, false)

/* const ttx_type_avx2 type = TTX_TYPE_AVX2(...) inside a function made by the list. */
#define TTX_TYPE_AVX2(t, bytes, is_signed, offset, has_min, by_16) \
    { bytes, is_signed, offset, has_min, by_16, t##_scales, t##_quants }

#endif
