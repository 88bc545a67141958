/* ops_avx512.c -- the row-wise operations that compute more than they move, with AVX-512.
 *
 * What ops_avx2.c says, sixteen values at a time. The others stay with AVX2: they move more than
 * they compute, and wait for memory. A tail of a row goes through the same instructions under a
 * mask.
 */
#include "kernels_int.h"

#include "avx512_math.h"

static inline __m512 load(const float *p, int64_t n) {
    return _mm512_maskz_loadu_ps(ttx_mask16(n), p);
}

static inline void store(float *p, __m512 x, int64_t n) {
    _mm512_mask_storeu_ps(p, ttx_mask16(n), x);
}

static inline __m512d low_half(__m512 x) {
    return _mm512_cvtps_pd(_mm512_castps512_ps256(x));
}

static inline __m512d high_half(__m512 x) {
    return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
}

static inline __m512 join(__m256 low, __m256 high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

/* silu(x) = x * sigmoid(x). */
static inline __m512 silu(__m512 x) {
    return ttx_sigmoid_mul16(x, x, _mm512_setzero_ps());
}

/* 2u = 2 sqrt(2/pi) (x + 0.044715 x^3) in double. */
static inline __m512d gelu_argument(__m512d d) {
    __m512d c = _mm512_fmadd_pd(_mm512_mul_pd(d, d), _mm512_set1_pd(0.044715), _mm512_set1_pd(1));
    return _mm512_mul_pd(_mm512_mul_pd(d, c), _mm512_set1_pd(1.5957691216057308));
}

/* The tanh form of GELU, x * sigmoid(2u). The argument is kept as a sum of two floats: rounded to
 * one, an error of u would become an error of u ulps of the result. */
static inline __m512 gelu(__m512 x) {
    __m512 near = _mm512_max_ps(_mm512_set1_ps(-16), _mm512_min_ps(_mm512_set1_ps(16), x));
    __m512d t0 = gelu_argument(low_half(near)), t1 = gelu_argument(high_half(near));
    __m256 hi0 = _mm512_cvtpd_ps(t0), hi1 = _mm512_cvtpd_ps(t1);
    __m256 lo0 = _mm512_cvtpd_ps(_mm512_sub_pd(t0, _mm512_cvtps_pd(hi0)));
    __m256 lo1 = _mm512_cvtpd_ps(_mm512_sub_pd(t1, _mm512_cvtps_pd(hi1)));
    return ttx_sigmoid_mul16(x, join(hi0, hi1), join(lo0, lo1));
}

/* g * sigmoid(alpha g) of the clamped gate; the product alpha g is kept as a sum of two floats. */
static inline __m512 silu_oai(__m512 x) {
    const __m512 alpha = _mm512_set1_ps(TTX_OAI_ALPHA);
    __m512 g = _mm512_min_ps(_mm512_set1_ps(TTX_OAI_LIMIT), x), t = _mm512_mul_ps(g, alpha);
    return ttx_sigmoid_mul16(g, t, _mm512_fmsub_ps(g, alpha, t));
}

static inline __m512 clamp_up(__m512 u) {
    u = _mm512_max_ps(_mm512_set1_ps(-TTX_OAI_LIMIT),
                      _mm512_min_ps(_mm512_set1_ps(TTX_OAI_LIMIT), u));
    return _mm512_add_ps(u, _mm512_set1_ps(1));
}

static void glu(float *y, const float *gate, const float *up, int64_t n, ttx_glu kind) {
    for (int64_t i = 0; i < n; i += 16) {
        __m512 x = load(gate + i, n - i), u = load(up + i, n - i);
        __m512 act = kind == TTX_GEGLU ? gelu(x) : kind == TTX_SWIGLU ? silu(x) : silu_oai(x);
        store(y + i, _mm512_mul_ps(act, kind == TTX_SWIGLU_OAI ? clamp_up(u) : u), n - i);
    }
}

static void softcap(float *y, float cap, int64_t n) {
    const __m512 c = _mm512_set1_ps(cap);
    for (int64_t i = 0; i < n; i += 16) {
        __m512 t = ttx_tanh16(_mm512_div_ps(load(y + i, n - i), c));
        store(y + i, _mm512_mul_ps(c, t), n - i);
    }
}

void ttx_ops_avx512_init(ttx_kernels *k) {
    k->glu = glu;
    k->softcap = softcap;
}
