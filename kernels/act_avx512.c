/* act_avx512.c -- the quantisation of activations to Q16 with AVX-512, with the bits of the scalar
 * level; and the list of the AVX-512 files about weights.
 */
#include "act_int.h"
#include "mm_avx2_int.h"

#include <float.h>
#include <math.h>

static float scale_of(const float *x, int64_t n) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i top = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i += 16) {
        __m512i v = _mm512_castps_si512(_mm512_loadu_ps(x + i));
        top = _mm512_max_epu32(top, _mm512_and_si512(v, magnitude)); /* NaN counts as the largest */
    }
    uint32_t u = _mm512_reduce_max_epu32(top);
    float f;
    memcpy(&f, &u, sizeof f);
    float d = u < 0x7f800000u ? f / TTX_Q16_MAX : NAN;
    return d < FLT_MIN ? 0.0f : d;
}

static void block_q16(const float *x, int64_t n, int16_t *q, float *d, int32_t *sum) {
    *d = scale_of(x, n);
    bool any = *d > 0.0f;
    __m512 inverse = _mm512_set1_ps(any ? 1.0f / *d : 0.0f);
    __mmask16 keep = any ? 0xffff : 0; /* not NaN times 0 */
    for (int64_t i = 0; i < n; i += 16) {
        __m512i v = _mm512_maskz_cvtps_epi32(keep, _mm512_mul_ps(_mm512_loadu_ps(x + i), inverse));
        _mm256_storeu_si256((void *)(q + i), _mm512_cvtepi32_epi16(v));
        sum[i / 16] = _mm512_reduce_add_epi32(v);
    }
}

static void act_q16(const ttx_act *x, int64_t c0, int64_t c1) {
    ttx_walk_q16(x, c0, c1, block_q16);
}

void ttx_mm_avx512_init(ttx_kernels *k) {
    k->act_q16 = act_q16;
    ttx_dot_avx512_init(k);
    ttx_dot_float_avx512_init(k);
}

void ttx_mm_vnni_init(ttx_kernels *k) {
    ttx_dot_vnni_init(k);
}
