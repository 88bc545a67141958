/* dequant_avx2.c -- weights to F32 with AVX2, with the bits of the scalar level: s * q - m with two
 * roundings, never an FMA.
 */
#include "types_avx2.h"

/* The first n blocks of a group. */
TTX_INLINE void dequant_group(const ttx_type_avx2 *t, float *dst, const uint8_t *w, int n) {
    ttx_group g;
    float s[2][8], m[16]; /* by 16: s[j % 2][j / 2] and m[j]; by 32: s[0][b] and m[b] */
    t->scales(&g, w, n);
    for (int i = 0; i < (t->by_16 ? 2 : 1); i++) {
        __m256 v = g.s;
        if (t->by_16) {
            __m128i half = i ? _mm256_extracti128_si256(g.s16, 1) : _mm256_castsi256_si128(g.s16);
            v = _mm256_mul_ps(v, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(half)));
        }
        _mm256_storeu_ps(s[i], v);
        if (!t->has_min) continue;
        v = g.m;
        if (t->by_16) {
            __m128i half = i ? _mm256_extracti128_si256(g.c16, 1) : _mm256_castsi256_si128(g.c16);
            v = _mm256_mul_ps(v, _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(half)));
        }
        _mm256_storeu_ps(m + 8 * i, v);
    }
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) { /* a constant bound: b is a constant once unrolled */
        if (b >= n) break;
        __m256i q = _mm256_sub_epi8(t->quants(w, b), _mm256_set1_epi8((char)t->offset));
        __m128i half[2] = {_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)};
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m128i bytes = i % 2 ? _mm_srli_si128(half[i / 2], 8) : half[i / 2];
            __m256 v = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
            v = _mm256_mul_ps(v, _mm256_broadcast_ss(&s[t->by_16 ? i / 2 : 0][b]));
            if (t->has_min)
                v = _mm256_sub_ps(v, _mm256_broadcast_ss(&m[t->by_16 ? 2 * b + i / 2 : b]));
            _mm256_storeu_ps(dst + 32 * b + 8 * i, v);
        }
    }
}

TTX_INLINE void dequant_row(const ttx_type_avx2 *t, float *dst, const uint8_t *w, int64_t n) {
    for (; n >= 256; n -= 256, w += t->bytes, dst += 256) dequant_group(t, dst, w, 8);
    if (n > 0) dequant_group(t, dst, w, (int)n / 32);
}

#define DEQUANT(t, T, ...)                                            \
    static void dequant_##t(float *dst, const void *src, int64_t n) { \
        const ttx_type_avx2 type = TTX_TYPE_AVX2(t, __VA_ARGS__);     \
        dequant_row(&type, dst, src, n);                              \
    }
TTX_TYPES_AVX2(DEQUANT)

static void dequant_f32(float *dst, const void *src, int64_t n) {
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void dequant_f16(float *dst, const void *src, int64_t n) {
    const uint8_t *p = src;
    for (; n >= 8; n -= 8, p += 16, dst += 8) _mm256_storeu_ps(dst, ttx_load_f16(p));
    for (; n > 0; n--, p += 2, dst++) *dst = ttx_half(ttx_load16(p));
}

static void dequant_bf16(float *dst, const void *src, int64_t n) {
    const uint8_t *p = src;
    for (; n >= 8; n -= 8, p += 16, dst += 8) _mm256_storeu_ps(dst, ttx_load_bf16(p));
    for (; n > 0; n--, p += 2, dst++) {
        uint32_t bits = (uint32_t)ttx_load16(p) << 16;
        memcpy(dst, &bits, sizeof bits);
    }
}

const ttx_dequant_fn ttx_dequant_avx2[TTX_DTYPE_COUNT] = {
#define ENTRY(t, T, ...) [TTX_##T] = dequant_##t,
    TTX_TYPES_AVX2(ENTRY)[TTX_F32] = dequant_f32,
    [TTX_F16] = dequant_f16,
    [TTX_BF16] = dequant_bf16,
};

void ttx_dequant_avx2_init(ttx_kernels *k) {
    for (int i = 0; i < TTX_DTYPE_COUNT; i++)
        if (ttx_dequant_avx2[i]) k->dequant[i] = ttx_dequant_avx2[i];
}
