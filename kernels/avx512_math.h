/* avx512_math.h -- exp, sigmoid and tanh on sixteen floats, for the files built with AVX-512.
 *
 * Accurate to about one ulp over the whole range, subnormal results included; NaN goes through
 * (that is why constants are the first operand of min and max). e^x = 2^(k/16) 2^n e^r: a table of
 * sixteen powers lies in one register, which leaves a short polynomial for |r| <= ln(2) / 32.
 */
#ifndef TTX_AVX512_MATH_H
#define TTX_AVX512_MATH_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

/* Ones in the first n lanes; n may be negative or more than 16. */
static inline __mmask16 ttx_mask16(int64_t n) {
    return (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}

static inline __m512 ttx_abs16(__m512 x) {
    return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x);
}

static inline __m512 ttx_sign16(__m512 x) {
    return _mm512_and_ps(_mm512_set1_ps(-0.0f), x);
}

/* e^(x + lo) = p * 2^floor(n), p in [0.97, 2.05]. x is clamped to [-170, 89], beyond which the
 * product is 0 or inf; |lo| is a correction, small against 1. `fine`: within half an ulp or little
 * more, else one. */
typedef struct ttx_exp16_parts {
    __m512 p, n;
} ttx_exp16_parts;

static inline ttx_exp16_parts ttx_exp16_split(__m512 x, __m512 lo, bool fine) {
    const __m512 power =
        _mm512_setr_ps(/* 2^(k/16) */
                       0x1p+0f, 0x1.0b5586p+0f, 0x1.172b84p+0f, 0x1.2387a6p+0f, 0x1.306fep+0f,
                       0x1.3dea64p+0f, 0x1.4bfdaep+0f, 0x1.5ab07ep+0f, 0x1.6a09e6p+0f,
                       0x1.7a1148p+0f, 0x1.8ace54p+0f, 0x1.9c4918p+0f, 0x1.ae89fap+0f,
                       0x1.c199bep+0f, 0x1.d5818ep+0f, 0x1.ea4afap+0f);
    const __m512 rest =
        _mm512_setr_ps(/* what they lack */
                       0, 0x1.9f3122p-25f, -0x1.c15742p-27f, 0x1.ceac48p-25f, 0x1.4636e2p-25f,
                       0x1.824684p-25f, -0x1.593abcp-25f, -0x1.5bd5ecp-27f, 0x1.9fcef4p-26f,
                       -0x1.829fdp-25f, 0x1.15506ep-27f, 0x1.51f848p-27f, -0x1.a94b14p-26f,
                       -0x1.3d56b2p-27f, -0x1.822dbcp-27f, 0x1.52486cp-27f);
    const __m512 round = _mm512_set1_ps(0x1.8p19f); /* its last bit is worth 1/16 */
    x = _mm512_max_ps(_mm512_set1_ps(-170.0f), _mm512_min_ps(_mm512_set1_ps(89.0f), x));
    __m512 t = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504f), round);
    __m512 n = _mm512_sub_ps(t, round);
    /* ln 2 in two parts; n times the first is exact */
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);
    r = _mm512_add_ps(_mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860682e-6f), r), lo);
    __m512 q = _mm512_fmadd_ps(r, _mm512_set1_ps(0x1.555556p-5f), _mm512_set1_ps(0x1.555556p-3f));
    q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(0.5f));
    q = _mm512_fmadd_ps(q, _mm512_mul_ps(r, r), r);
    __m512i k = _mm512_castps_si512(t);
    __m512 two = _mm512_permutexvar_ps(k, power);
    if (!fine) return (ttx_exp16_parts){_mm512_fmadd_ps(two, q, two), n};
    q = _mm512_fmadd_ps(two, q, _mm512_permutexvar_ps(k, rest));
    return (ttx_exp16_parts){_mm512_add_ps(two, q), n};
}

static inline __m512 ttx_exp16(__m512 x) {
    ttx_exp16_parts e = ttx_exp16_split(x, _mm512_setzero_ps(), false);
    return _mm512_scalef_ps(e.p, e.n);
}

/* x / (1 + e^-(t + lo)), where t has the sign of x and |t| >= |x| if x < -1. Written with e^-|t|,
 * which cannot overflow, and times x before the scaling, so that it underflows only once. */
static inline __m512 ttx_sigmoid_mul16(__m512 x, __m512 t, __m512 lo) {
    const __m512 minus_zero = _mm512_set1_ps(-0.0f);
    __mmask16 below = _mm512_movepi32_mask(_mm512_castps_si512(t));
    ttx_exp16_parts e =
        ttx_exp16_split(_mm512_or_ps(t, minus_zero),
                        _mm512_mask_xor_ps(lo, (__mmask16)~below, lo, minus_zero), true);
    __m512 least = _mm512_max_ps(_mm512_set1_ps(-170.0f), x); /* -inf * 0 is to be 0 */
    __m512 top = _mm512_mask_scalef_ps(x, below, _mm512_mul_ps(least, e.p), e.n);
    return _mm512_div_ps(top, _mm512_add_ps(_mm512_set1_ps(1.0f), _mm512_scalef_ps(e.p, e.n)));
}

static inline __m512 ttx_tanh16(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    __m512 a = ttx_abs16(x), z = _mm512_mul_ps(x, x);
    /* |x| < 5/8: x + x^3 p(x^2) */
    __m512 p = _mm512_set1_ps(2.2925577e-3f);
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(-8.34378037e-3f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(2.17688682e-2f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(-5.39592534e-2f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(1.33333035e-1f));
    p = _mm512_fmadd_ps(p, z, _mm512_set1_ps(-3.33333332e-1f));
    __m512 near = _mm512_fmadd_ps(_mm512_mul_ps(x, z), p, x);
    /* beyond: 1 - 2e / (1 + e), e = e^-2|x| */
    __m512 e = ttx_exp16(_mm512_mul_ps(_mm512_set1_ps(-2.0f), a));
    __m512 far = _mm512_sub_ps(one, _mm512_div_ps(_mm512_add_ps(e, e), _mm512_add_ps(one, e)));
    far = _mm512_or_ps(far, ttx_sign16(x));
    return _mm512_mask_mov_ps(far, _mm512_cmp_ps_mask(a, _mm512_set1_ps(0.625f), _CMP_LT_OQ), near);
}

#endif
