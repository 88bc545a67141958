/* dot_32_avx2.c -- class EXACT with AVX2 for the types in blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1,
 * Q8_0, IQ4_NL, MXFP4. See dot_avx2.h for the loop and blocks.h for the layouts.
 */
#include "blocks.h"
#include "dot_avx2.h"

#define BLOCK(T, w, b) ((const T *)(const void *)(w) + (b))

TTX_INLINE void offset_scales(ttx_group *g, const uint8_t *w, size_t stride, int n, float offset) {
    g->s = ttx_halves(w, stride, n);
    g->m = _mm256_mul_ps(g->s, _mm256_set1_ps(offset));
    g->c16 = _mm256_set1_epi16(1);
}

/* d and m lie side by side. */
TTX_INLINE void min_scales(ttx_group *g, const uint8_t *w, size_t stride, int n) {
    g->s = ttx_halves(w, stride, n);
    g->m = _mm256_xor_ps(ttx_halves(w + 2, stride, n), _mm256_set1_ps(-0.0f));
    g->c16 = _mm256_set1_epi16(1);
}

TTX_INLINE void q4_0_scales(ttx_group *g, const uint8_t *w, int n) {
    offset_scales(g, w, sizeof(ttx_q4_0), n, 8);
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
    offset_scales(g, w, sizeof(ttx_q5_0), n, 16);
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
    g->s = ttx_halves(w, sizeof(ttx_q8_0), n);
}
TTX_INLINE __m256i q8_0_quants(const uint8_t *w, int b) {
    return ttx_load256(BLOCK(ttx_q8_0, w, b)->qs);
}

TTX_INLINE void iq4_nl_scales(ttx_group *g, const uint8_t *w, int n) {
    g->s = ttx_halves(w, sizeof(ttx_iq4_nl), n);
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
    g->m = _mm256_mul_ps(g->s, _mm256_set1_ps(12));
    g->c16 = _mm256_set1_epi16(1);
}
TTX_INLINE __m256i mxfp4_quants(const uint8_t *w, int b) {
    const __m128i book = _mm_add_epi8(_mm_setr_epi8(TTX_MXFP4_CODES), _mm_set1_epi8(12));
    return ttx_codes(book, ttx_nibbles(BLOCK(ttx_mxfp4, w, b)->qs));
}

#define MATMUL(t, T, sign, min)                                                                    \
    static void exact_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) {                \
        const ttx_dot_type type = {8 * sizeof(ttx_##t), sign, min, false, t##_scales, t##_quants}; \
        (void)scratch;                                                                             \
        ttx_dot_matmul(&type, m, r0, r1);                                                          \
    }
#define TYPES(X)                   \
    X(q4_0, Q4_0, false, true)     \
    X(q4_1, Q4_1, false, true)     \
    X(q5_0, Q5_0, false, true)     \
    X(q5_1, Q5_1, false, true)     \
    X(q8_0, Q8_0, true, false)     \
    X(iq4_nl, IQ4_NL, true, false) \
    X(mxfp4, MXFP4, false, true)
TYPES(MATMUL)

void ttx_dot_32_avx2_init(ttx_kernels *k) {
#define ENTRY(t, T, sign, min) k->matmul[TTX_EXACT][TTX_##T] = exact_##t;
    TYPES(ENTRY)
}
