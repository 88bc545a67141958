/* ops_avx2.c -- the row-wise operations with AVX2, FMA and F16C.
 *
 * What ops_scalar.c says, eight values at a time; add, scale, rope and kv_store with its bits. A
 * tail of a row goes through the same instructions under a mask, so that an element's result does
 * not depend on where in the row it lies.
 */
#include "kernels_int.h"

#include "avx2_math.h"
#include "quant_blocks.h"

#include <math.h>
#include <string.h>

/* Up to eight values from p, zeros behind the n-th. */
static inline __m256 load(const float *p, int64_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, ttx_mask8(n));
}

static inline void store(float *p, __m256 x, int64_t n) {
    if (n >= 8)
        _mm256_storeu_ps(p, x);
    else
        _mm256_maskstore_ps(p, ttx_mask8(n), x);
}

static inline __m256d add_squares(__m256d sum, __m128 x) {
    __m256d d = _mm256_cvtps_pd(x);
    return _mm256_fmadd_pd(d, d, sum);
}

static double sum_squares(const float *x, int64_t n) {
    __m256d s[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(),
                    _mm256_setzero_pd()};
    for (int64_t i = 0; i < n; i += 16) {
        __m256 a = load(x + i, n - i);
        __m256 b = i + 8 < n ? load(x + i + 8, n - i - 8) : _mm256_setzero_ps();
        s[0] = add_squares(s[0], _mm256_castps256_ps128(a));
        s[1] = add_squares(s[1], _mm256_extractf128_ps(a, 1));
        s[2] = add_squares(s[2], _mm256_castps256_ps128(b));
        s[3] = add_squares(s[3], _mm256_extractf128_ps(b, 1));
    }
    double t[4];
    _mm256_storeu_pd(t, _mm256_add_pd(_mm256_add_pd(s[0], s[1]), _mm256_add_pd(s[2], s[3])));
    return (t[0] + t[2]) + (t[1] + t[3]);
}

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps) {
    float s = (float)(1.0 / sqrt(sum_squares(x, n) / (double)n + (double)eps));
    const __m256 scale = _mm256_set1_ps(s);
    for (int64_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(load(x + i, n - i), scale);
        store(y + i, w ? _mm256_mul_ps(v, load(w + i, n - i)) : v, n - i);
    }
}

static void add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += 8)
        store(y + i, _mm256_add_ps(load(y + i, n - i), load(x + i, n - i)), n - i);
}

static void scale(float *y, float s, int64_t n) {
    const __m256 v = _mm256_set1_ps(s);
    for (int64_t i = 0; i < n; i += 8) store(y + i, _mm256_mul_ps(load(y + i, n - i), v), n - i);
}

/* silu(x) = x * sigmoid(x). */
static __m256 silu(__m256 x) {
    return ttx_sigmoid_mul8(x, x, _mm256_setzero_ps());
}

/* 2u = 2 sqrt(2/pi) (x + 0.044715 x^3) of four values in double. */
static inline __m256d gelu_argument(__m128 x) {
    __m256d d = _mm256_cvtps_pd(x);
    __m256d c = _mm256_fmadd_pd(_mm256_mul_pd(d, d), _mm256_set1_pd(0.044715), _mm256_set1_pd(1));
    return _mm256_mul_pd(_mm256_mul_pd(d, c), _mm256_set1_pd(1.5957691216057308));
}

/* The tanh form of GELU, x * sigmoid(2u). The argument is kept as a sum of two floats: rounded to
 * one, an error of u would become an error of u ulps of the result. */
static __m256 gelu(__m256 x) {
    __m256 near = _mm256_max_ps(_mm256_set1_ps(-16), _mm256_min_ps(_mm256_set1_ps(16), x));
    __m256d t0 = gelu_argument(_mm256_castps256_ps128(near));
    __m256d t1 = gelu_argument(_mm256_extractf128_ps(near, 1));
    __m128 hi0 = _mm256_cvtpd_ps(t0), hi1 = _mm256_cvtpd_ps(t1);
    __m128 lo0 = _mm256_cvtpd_ps(_mm256_sub_pd(t0, _mm256_cvtps_pd(hi0)));
    __m128 lo1 = _mm256_cvtpd_ps(_mm256_sub_pd(t1, _mm256_cvtps_pd(hi1)));
    return ttx_sigmoid_mul8(x, _mm256_set_m128(hi1, hi0), _mm256_set_m128(lo1, lo0));
}

/* g * sigmoid(alpha g) of the clamped gate; the product alpha g is kept as a sum of two floats. */
static __m256 silu_oai(__m256 x) {
    const __m256 alpha = _mm256_set1_ps(TTX_OAI_ALPHA);
    __m256 g = _mm256_min_ps(_mm256_set1_ps(TTX_OAI_LIMIT), x), t = _mm256_mul_ps(g, alpha);
    return ttx_sigmoid_mul8(g, t, _mm256_fmsub_ps(g, alpha, t));
}

static __m256 clamp_up(__m256 u) {
    const __m256 limit = _mm256_set1_ps(TTX_OAI_LIMIT);
    u = _mm256_max_ps(_mm256_sub_ps(_mm256_setzero_ps(), limit), _mm256_min_ps(limit, u));
    return _mm256_add_ps(u, _mm256_set1_ps(1));
}

static void glu(float *y, const float *gate, const float *up, int64_t n, ttx_glu kind) {
    for (int64_t i = 0; i < n; i += 8) {
        __m256 x = load(gate + i, n - i), u = load(up + i, n - i);
        __m256 act = kind == TTX_GEGLU ? gelu(x) : kind == TTX_SWIGLU ? silu(x) : silu_oai(x);
        store(y + i, _mm256_mul_ps(act, kind == TTX_SWIGLU_OAI ? clamp_up(u) : u), n - i);
    }
}

static void softcap(float *y, float cap, int64_t n) {
    const __m256 c = _mm256_set1_ps(cap);
    for (int64_t i = 0; i < n; i += 8) {
        __m256 t = ttx_tanh8(_mm256_div_ps(load(y + i, n - i), c));
        store(y + i, _mm256_mul_ps(c, t), n - i);
    }
}

/* Four pairs (a, b) side by side and four (cos, sin); also of fewer, under the masks of load. */
static void rope_norm(float *x, const float *cs, int64_t n_rot) {
    for (int64_t i = 0; i < n_rot; i += 8) {
        __m256 ab = load(x + i, n_rot - i), t = load(cs + i, n_rot - i);
        __m256 by_cos = _mm256_mul_ps(ab, _mm256_moveldup_ps(t));
        __m256 ba = _mm256_permute_ps(ab, 0xb1);
        __m256 by_sin = _mm256_mul_ps(ba, _mm256_movehdup_ps(t));
        store(x + i, _mm256_addsub_ps(by_cos, by_sin), n_rot - i);
    }
}

/* cos0 sin0 cos1 sin1 ... to eight cosines and eight sines. */
static inline void split_pairs(const float *cs, __m256 *co, __m256 *si) {
    __m256 p = _mm256_loadu_ps(cs), q = _mm256_loadu_ps(cs + 8);
    __m256d c = _mm256_castps_pd(_mm256_shuffle_ps(p, q, 0x88));
    __m256d s = _mm256_castps_pd(_mm256_shuffle_ps(p, q, 0xdd));
    *co = _mm256_castpd_ps(_mm256_permute4x64_pd(c, 0xd8));
    *si = _mm256_castpd_ps(_mm256_permute4x64_pd(s, 0xd8));
}

static void rope_neox(float *x, const float *cs, int64_t n_rot) {
    int64_t half = n_rot / 2, i = 0;
    for (; i + 8 <= half; i += 8) {
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i), co, si;
        split_pairs(cs + 2 * i, &co, &si);
        _mm256_storeu_ps(x + i, _mm256_sub_ps(_mm256_mul_ps(a, co), _mm256_mul_ps(b, si)));
        _mm256_storeu_ps(x + half + i, _mm256_add_ps(_mm256_mul_ps(a, si), _mm256_mul_ps(b, co)));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cs[2 * i] - b * cs[2 * i + 1];
        x[half + i] = a * cs[2 * i + 1] + b * cs[2 * i];
    }
}

static void rope(float *x, const float *cs, int64_t n_rot, ttx_rope_layout layout) {
    if (layout == TTX_ROPE_NEOX)
        rope_neox(x, cs, n_rot);
    else
        rope_norm(x, cs, n_rot);
}

static void store_f16(uint8_t *dst, const float *src, int64_t n) {
    for (int64_t i = 0; i < n; i += 8) {
        __m128i h = _mm256_cvtps_ph(load(src + i, n - i), _MM_FROUND_TO_NEAREST_INT);
        if (n - i >= 8)
            _mm_storeu_si128((__m128i *)(dst + 2 * i), h);
        else
            memcpy(dst + 2 * i, &h, 2 * (size_t)(n - i));
    }
}

/* Rounds halves away from zero; 0 for what is not a number in [-127, 127]. */
static inline __m256i round_q8(__m256 x) {
    __m256 a = ttx_abs8(x), whole = _mm256_floor_ps(a);
    __m256 up = _mm256_cmp_ps(_mm256_sub_ps(a, whole), _mm256_set1_ps(0.5f), _CMP_GE_OQ);
    __m256 r = _mm256_add_ps(whole, _mm256_and_ps(up, _mm256_set1_ps(1)));
    r = _mm256_and_ps(r, _mm256_cmp_ps(r, _mm256_set1_ps(127), _CMP_LE_OQ));
    return _mm256_cvttps_epi32(_mm256_or_ps(r, _mm256_and_ps(x, _mm256_set1_ps(-0.0f))));
}

static void quantize_q8_0(ttx_q8_0 *b, const float *x) {
    __m256 v[4], m = _mm256_setzero_ps();
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(x + 8 * i);
        m = _mm256_max_ps(ttx_abs8(v[i]), m); /* a NaN leaves m as it is */
    }
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    float amax = _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
    float d = amax / 127.0f, id = d != 0 ? 1.0f / d : 0;
    b->d = _cvtss_sh(d, _MM_FROUND_TO_NEAREST_INT);
    __m256i q[4];
    for (int i = 0; i < 4; i++) q[i] = round_q8(_mm256_mul_ps(v[i], _mm256_set1_ps(id)));
    __m256i q16a = _mm256_packs_epi32(q[0], q[1]), q16b = _mm256_packs_epi32(q[2], q[3]);
    __m256i q8 = _mm256_packs_epi16(q16a, q16b); /* groups of four: 0 2 4 6 1 3 5 7 */
    q8 = _mm256_permutevar8x32_epi32(q8, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_storeu_si256((__m256i *)b->qs, q8);
}

static void kv_store(void *dst, const float *src, int64_t n, ttx_dtype type) {
    if (type == TTX_F32) memcpy(dst, src, (size_t)n * sizeof *src);
    if (type == TTX_F16) store_f16(dst, src, n);
    if (type == TTX_Q8_0)
        for (int64_t i = 0; i < n / 32; i++) quantize_q8_0((ttx_q8_0 *)dst + i, src + 32 * i);
}

void ttx_ops_avx2_init(ttx_kernels *k) {
    k->rms_norm = rms_norm;
    k->add = add;
    k->scale = scale;
    k->glu = glu;
    k->softcap = softcap;
    k->rope = rope;
    k->kv_store = kv_store;
}
