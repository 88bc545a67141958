/* avx2_math.h -- exp, sigmoid and tanh on eight floats, for the files built with AVX2 and FMA.
 *
 * Accurate to about one ulp over the whole range, subnormal results included; NaN goes through
 * (that is why constants are the first operand of min and max). The coefficients are Chebyshev
 * fits of this file's own making.
 */
#ifndef TTX_AVX2_MATH_H
#define TTX_AVX2_MATH_H

#include <immintrin.h>
#include <stdint.h>

/* Ones in the first n lanes, n in [0, 8]. */
static inline __m256i ttx_mask8(int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 ttx_abs8(__m256 x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

/* e^(x + lo) = p * s1 * s2, p in [0.7, 1.42], s1 and s2 powers of two that are in range even where
 * the result is not. x is clamped to [-170, 89], beyond which the product is 0 or inf; |lo| is a
 * correction, small against 1. */
typedef struct ttx_exp_parts {
    __m256 p, s1, s2;
} ttx_exp_parts;

static inline ttx_exp_parts ttx_exp8_parts(__m256 x, __m256 lo) {
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256i bias = _mm256_set1_epi32(127);
    x = _mm256_max_ps(_mm256_set1_ps(-170.0f), _mm256_min_ps(_mm256_set1_ps(89.0f), x));
    __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                               _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* ln 2 in two parts; n times the first is exact */
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);
    r = _mm256_add_ps(_mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860682e-6f), r), lo);
    /* e^r = 1 + r + r^2 q(r), |r| <= ln(2) / 2 */
    __m256 q = _mm256_set1_ps(1.39261911e-3f);
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(8.36318503e-3f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(4.16665546e-2f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(1.66665769e-1f));
    q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(0.5f));
    __m256i i = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(i, 1);
    __m256i rest = _mm256_sub_epi32(i, half);
    return (ttx_exp_parts){
        .p = _mm256_add_ps(one, _mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r)),
        .s1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)),
        .s2 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)),
    };
}

static inline __m256 ttx_exp8(__m256 x) {
    ttx_exp_parts e = ttx_exp8_parts(x, _mm256_setzero_ps());
    return _mm256_mul_ps(_mm256_mul_ps(e.p, e.s1), e.s2);
}

/* x / (1 + e^-(t + lo)), where t has the sign of x and |t| >= |x| if x < -1. Written with e^-|t|,
 * which cannot overflow, and times x before the last scaling, so that it underflows only once. */
static inline __m256 ttx_sigmoid_mul8(__m256 x, __m256 t, __m256 lo) {
    __m256 sign = _mm256_and_ps(t, _mm256_set1_ps(-0.0f));
    __m256 minus = _mm256_xor_ps(_mm256_set1_ps(-0.0f), sign);
    ttx_exp_parts e =
        ttx_exp8_parts(_mm256_or_ps(t, _mm256_set1_ps(-0.0f)), _mm256_xor_ps(lo, minus));
    __m256 below = _mm256_max_ps(_mm256_set1_ps(-170.0f), x); /* -inf * 0 is to be 0 */
    below = _mm256_mul_ps(_mm256_mul_ps(_mm256_mul_ps(below, e.s1), e.p), e.s2);
    __m256 exp = _mm256_mul_ps(_mm256_mul_ps(e.p, e.s1), e.s2);
    return _mm256_div_ps(_mm256_blendv_ps(x, below, sign),
                         _mm256_add_ps(_mm256_set1_ps(1.0f), exp));
}

static inline __m256 ttx_tanh8(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    __m256 a = ttx_abs8(x), z = _mm256_mul_ps(x, x);
    /* |x| < 5/8: x + x^3 p(x^2) */
    __m256 p = _mm256_set1_ps(2.2925577e-3f);
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-8.34378037e-3f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(2.17688682e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-5.39592534e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(1.33333035e-1f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-3.33333332e-1f));
    __m256 near = _mm256_fmadd_ps(_mm256_mul_ps(x, z), p, x);
    /* beyond: 1 - 2e / (1 + e), e = e^-2|x| */
    __m256 e = ttx_exp8(_mm256_mul_ps(_mm256_set1_ps(-2.0f), a));
    __m256 far = _mm256_sub_ps(one, _mm256_div_ps(_mm256_add_ps(e, e), _mm256_add_ps(one, e)));
    far = _mm256_or_ps(far, _mm256_and_ps(x, _mm256_set1_ps(-0.0f)));
    return _mm256_blendv_ps(far, near, _mm256_cmp_ps(a, _mm256_set1_ps(0.625f), _CMP_LT_OQ));
}

#endif
