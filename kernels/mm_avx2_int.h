/* mm_avx2_int.h -- what the AVX2 files about weights share: unpacking of bytes, and who fills what.
 * To be included by *_avx2.c only.
 */
#ifndef TTX_MM_AVX2_INT_H
#define TTX_MM_AVX2_INT_H

#include "kernels_int.h"

#include <immintrin.h>
#include <string.h>

#define TTX_INLINE static inline __attribute__((always_inline))

void ttx_dot_avx2_init(ttx_kernels *k);
void ttx_dot_float_avx2_init(ttx_kernels *k);
void ttx_dequant_avx2_init(ttx_kernels *k);
void ttx_gemm_avx2_init(ttx_kernels *k);
void ttx_dot_avx512_init(ttx_kernels *k);
void ttx_dot_vnni_init(ttx_kernels *k);
void ttx_dot_float_avx512_init(ttx_kernels *k);

/* ttx_kernels.dequant of this level. */
typedef void (*ttx_dequant_fn)(float *dst, const void *src, int64_t n);
extern const ttx_dequant_fn ttx_dequant_avx2[TTX_DTYPE_COUNT];

TTX_INLINE float ttx_hsum(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

TTX_INLINE uint16_t ttx_load16(const void *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

TTX_INLINE uint32_t ttx_load32(const void *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

TTX_INLINE __m256i ttx_load256(const void *p) {
    return _mm256_loadu_si256(p);
}

TTX_INLINE float ttx_half(uint16_t h) {
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

/* 8 weights as F32. */
TTX_INLINE __m256 ttx_load_f32(const uint8_t *p) {
    return _mm256_loadu_ps((const void *)p);
}

TTX_INLINE __m256 ttx_load_f16(const uint8_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}

TTX_INLINE __m256 ttx_load_bf16(const uint8_t *p) {
    __m256i v = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(v, 16));
}

/* All ones in the dwords below n: which blocks of a group exist. */
TTX_INLINE __m256i ttx_mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first dwords of n (1..8) blocks of `stride` bytes as two vectors of four, then zeros. */
TTX_INLINE void ttx_gather32(__m128i v[2], const uint8_t *p, size_t stride, int n) {
    for (int h = 0; h < 2; h++) {
        __m128i d[4];
        for (int i = 0; i < 4; i++, p += stride)
            d[i] = _mm_cvtsi32_si128(4 * h + i < n ? (int)ttx_load32(p) : 0);
        v[h] = _mm_unpacklo_epi64(_mm_unpacklo_epi32(d[0], d[1]), _mm_unpacklo_epi32(d[2], d[3]));
    }
}

/* The F16 values at the low and at the high ends of 8 dwords. */
TTX_INLINE __m256 ttx_low_halves(const __m128i v[2]) {
    const __m128i low = _mm_set1_epi32(0xffff);
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm_and_si128(v[0], low), _mm_and_si128(v[1], low)));
}

TTX_INLINE __m256 ttx_high_halves(const __m128i v[2]) {
    return _mm256_cvtph_ps(_mm_packus_epi32(_mm_srli_epi32(v[0], 16), _mm_srli_epi32(v[1], 16)));
}

/* Low nibbles of 16 bytes in the low half, high nibbles in the high half. */
TTX_INLINE __m256i ttx_nibbles(const uint8_t *qs) {
    __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)qs));
    v = _mm256_srlv_epi32(v, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

/* 16 in the bytes whose bit in the 32 bits at qh is set. */
TTX_INLINE __m256i ttx_fifth_bits(const uint8_t qh[4]) {
    const __m256i which =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    __m256i v = _mm256_shuffle_epi8(_mm256_set1_epi32((int)ttx_load32(qh)), which);
    v = _mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit);
    return _mm256_and_si256(v, _mm256_set1_epi8(16));
}

/* book[i] for each byte i < 16. */
TTX_INLINE __m256i ttx_codes(__m128i book, __m256i i) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(book), i);
}

/* ttx_e8m0_half of each dword. */
TTX_INLINE __m256 ttx_e8m0_halves(__m256i e) {
    __m256i tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x200000), e); /* e < 2: subnormal */
    __m256i plain = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    __m256i is_tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(plain, tiny, is_tiny));
}

#endif
