/* act_avx2.c -- quantisation of activations with AVX2, with the bits of the scalar level; and the
 * list of the AVX2 files about weights.
 */
#include "act_int.h"
#include "mm_avx2_int.h"

#include <float.h>
#include <math.h>

/* 4 x 8 values, x / d, to 32 bytes. packs works within halves, so the dwords come out as
 * a0 b0 c0 d0 | a1 b1 c1 d1 and are put in order. */
TTX_INLINE __m256i rounded(const __m256 v[4], __m256 d) {
    __m256i q[4];
    for (int i = 0; i < 4; i++) q[i] = _mm256_cvtps_epi32(_mm256_div_ps(v[i], d));
    __m256i ab = _mm256_packs_epi32(q[0], q[1]), cd = _mm256_packs_epi32(q[2], q[3]);
    return _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

/* The largest |v| as bits, so that NaN counts as the largest. */
TTX_INLINE uint32_t largest(const __m256 v[4]) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256i top = _mm256_setzero_si256();
    for (int i = 0; i < 4; i++)
        top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
    __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
    t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(t);
}

/* One block of 32; see the contract at ttx_act. */
TTX_INLINE void quantise_block(const float *x, int8_t *q8, float *d, int16_t sum[2]) {
    __m256 v[4];
    for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(x + 8 * i);
    uint32_t top = largest(v);
    float f;
    memcpy(&f, &top, sizeof f);
    *d = top < 0x7f800000u ? f / 127.0f : NAN;
    __m256i q = _mm256_setzero_si256();
    if (*d >= FLT_MIN)
        q = rounded(v, _mm256_set1_ps(*d));
    else if (*d < FLT_MIN)
        *d = 0.0f;
    _mm256_storeu_si256((void *)q8, q);
    __m256i s = _mm256_maddubs_epi16(_mm256_set1_epi8(1), q); /* pairs */
    s = _mm256_madd_epi16(s, _mm256_set1_epi16(1));           /* fours */
    s = _mm256_hadd_epi32(s, s);
    s = _mm256_hadd_epi32(s, s);
    sum[0] = (int16_t)_mm256_extract_epi32(s, 0);
    sum[1] = (int16_t)_mm256_extract_epi32(s, 4);
}

static void act_q8(const ttx_act *x, int64_t c0, int64_t c1) {
    ttx_walk_q8(x, c0, c1, quantise_block);
}

/* One column of a panel of `width`; p points to its first four values. */
static void panel_column(const float *x, int64_t k, uint8_t *p, size_t width) {
    for (int64_t i = 0; i < k; i += 32, x += 32, p += TTX_PANEL_BLOCK * width) {
        int8_t q[32];
        int16_t sum[2];
        float f[3];
        quantise_block(x, q, f, sum);
        f[1] = f[0] * (float)(sum[0] + sum[1]);
        f[2] = f[0] * (float)sum[1];
        __m256i v = _mm256_xor_si256(ttx_load256(q), _mm256_set1_epi8((char)128)); /* + 128 */
        _mm256_storeu_si256((void *)q, v);
        for (size_t j = 0; j < 8; j++) memcpy(p + 4 * j * width, q + 4 * j, 4);
        for (size_t j = 0; j < 3; j++) memcpy(p + 4 * (8 + j) * width, &f[j], 4);
    }
}

static void act_panel(const ttx_act *x, int64_t p0, int64_t p1) {
    ttx_walk_panels(x, p0, p1, panel_column);
}

void ttx_mm_avx2_init(ttx_kernels *k) {
    k->act_q8 = act_q8;
    k->act_panel = act_panel;
    ttx_dot_avx2_init(k);
    ttx_dot_float_avx2_init(k);
    ttx_dequant_avx2_init(k);
    ttx_gemm_avx2_init(k);
}
