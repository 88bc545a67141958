/* dot_k_avx2.c -- class EXACT with AVX2 for the types in blocks of 256: Q2_K, Q3_K, Q4_K, Q5_K,
 * Q6_K, IQ4_XS. See dot_avx2.h for the loop and blocks.h for the layouts.
 *
 * Shifts are of 16-bit lanes: what comes in from the neighbour byte is masked away.
 */
#include "blocks.h"
#include "dot_avx2.h"

#define BITS(v, mask) _mm256_and_si256(v, _mm256_set1_epi8(mask))

/* v shifted right by `by` bits, or left if negative. */
TTX_INLINE __m256i shifted(__m256i v, int by) {
    return by >= 0 ? _mm256_srli_epi16(v, by) : _mm256_slli_epi16(v, -by);
}

/* Nibbles as in Q4_K: 64 values in 32 bytes. */
TTX_INLINE __m256i k4_nibbles(const uint8_t *qs, int b) {
    return BITS(shifted(ttx_load256(qs + b / 2 * 32), b % 2 * 4), 15);
}

/* 16 signed bytes in the order that ttx_dot_type asks for; and the plain order for the sums. */
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
    uint32_t a = ttx_load32(p->scales), b = ttx_load32(p->scales + 4);
    uint32_t h = ttx_load32(p->scales + 8);
    __m128i lo = _mm_setr_epi32((int)a, (int)b, (int)(a >> 4), (int)(b >> 4));
    __m128i hi = _mm_setr_epi32((int)(h << 4), (int)(h << 2), (int)h, (int)(h >> 2));
    __m128i v =
        _mm_or_si128(_mm_and_si128(lo, _mm_set1_epi8(15)), _mm_and_si128(hi, _mm_set1_epi8(48)));
    v = _mm_sub_epi8(v, _mm_set1_epi8(32));
    scales_by_16(g, v);
    g->c16 = _mm256_cvtepi8_epi16(v);
    float d = ttx_half(p->d);
    g->s = _mm256_set1_ps(d);
    g->m = _mm256_set1_ps(4 * d);
}
TTX_INLINE __m256i q3_k_quants(const uint8_t *w, int b) {
    const ttx_q3_k *p = (const void *)w;
    __m256i lo = BITS(shifted(ttx_load256(p->qs + b / 4 * 32), b % 4 * 2), 3);
    return _mm256_or_si256(lo, BITS(shifted(ttx_load256(p->hmask), b - 2), 4));
}

TTX_INLINE void k4_group(ttx_group *g, uint16_t d, uint16_t dmin, const uint8_t packed[12]) {
    const uint32_t six = 0x3f3f3f3f, four = 0x0f0f0f0f, high = 0x30303030;
    uint32_t a = ttx_load32(packed), b = ttx_load32(packed + 4), c = ttx_load32(packed + 8);
    uint64_t s = (a & six) | (uint64_t)((c & four) | (a >> 2 & high)) << 32;
    uint64_t m = (b & six) | (uint64_t)((c >> 4 & four) | (b >> 2 & high)) << 32;
    g->s = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)s)));
    g->m = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)m)));
    g->s = _mm256_mul_ps(g->s, _mm256_set1_ps(ttx_half(d)));
    g->m = _mm256_mul_ps(g->m, _mm256_set1_ps(ttx_half(dmin)));
    g->c16 = _mm256_set1_epi16(1);
}

TTX_INLINE void q4_k_scales(ttx_group *g, const uint8_t *w, int n) {
    const ttx_q4_k *p = (const void *)w;
    (void)n;
    k4_group(g, p->d, p->dmin, p->scales);
}
TTX_INLINE __m256i q4_k_quants(const uint8_t *w, int b) {
    const ttx_q4_k *p = (const void *)w;
    return k4_nibbles(p->qs, b);
}

TTX_INLINE void q5_k_scales(ttx_group *g, const uint8_t *w, int n) {
    const ttx_q5_k *p = (const void *)w;
    (void)n;
    k4_group(g, p->d, p->dmin, p->scales);
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
    float d = ttx_half(p->d);
    g->s = _mm256_set1_ps(d);
    g->m = _mm256_set1_ps(32 * d);
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

#define MATMUL(t, T, sign, min, by_16)                                                         \
    static void exact_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) {            \
        const ttx_dot_type type = {sizeof(ttx_##t), sign, min, by_16, t##_scales, t##_quants}; \
        (void)scratch;                                                                         \
        ttx_dot_matmul(&type, m, r0, r1);                                                      \
    }
#define TYPES(X)                      \
    X(q2_k, Q2_K, false, true, true)  \
    X(q3_k, Q3_K, false, true, true)  \
    X(q4_k, Q4_K, false, true, false) \
    X(q5_k, Q5_K, false, true, false) \
    X(q6_k, Q6_K, false, true, true)  \
    X(iq4_xs, IQ4_XS, true, false, false)
TYPES(MATMUL)

void ttx_dot_k_avx2_init(ttx_kernels *k) {
#define ENTRY(t, T, sign, min, by_16) k->matmul[TTX_EXACT][TTX_##T] = exact_##t;
    TYPES(ENTRY)
}
