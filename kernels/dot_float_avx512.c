/* dot_float_avx512.c -- class EXACT for F32, F16 and BF16 weights with AVX-512: F32 activations,
 * F32 FMA. The sums are those of AVX2, bit for bit, two of its four accumulators in a vector; what
 * is new is prefetching. One row at a time: four streams of F16 come in slower than one.
 */
#include "rows_avx512_int.h"

enum { AHEAD = 16384, STEP = 2048 }; /* bytes: where to prefetch */

/* The first n of 16 weights, then zeros; nothing beyond is read. */
typedef __m512 (*load_fn)(const uint8_t *w, int n);

TTX_INLINE __m512 load_f32(const uint8_t *w, int n) {
    if (n == 16) return _mm512_loadu_ps(w);
    return _mm512_maskz_loadu_ps((__mmask16)((1 << n) - 1), w);
}

TTX_INLINE __m256i load_words(const uint8_t *w, int n) {
    if (n == 16) return ttx_load256(w);
    return _mm256_maskz_loadu_epi16((__mmask16)((1 << n) - 1), w);
}

TTX_INLINE __m512 load_f16(const uint8_t *w, int n) {
    return _mm512_cvtph_ps(load_words(w, n));
}

TTX_INLINE __m512 load_bf16(const uint8_t *w, int n) {
    __m512i v = _mm512_cvtepu16_epi32(load_words(w, n));
    return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16));
}

TTX_INLINE __m256 halves(__m512 v) {
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
}

/* A row by one column. */
TTX_INLINE float dot_row(load_fn load, int64_t size, const uint8_t *w, const float *x,
                         int64_t n_k) {
    __m512 a = _mm512_setzero_ps(), b = a;
    int64_t k = 0;
    for (; k + 32 <= n_k; k += 32) {
        prefetch_bytes(w + size * k + AHEAD, (size_t)(size * 32), STEP);
        a = _mm512_fmadd_ps(load(w + size * k, 16), _mm512_loadu_ps(x + k), a);
        b = _mm512_fmadd_ps(load(w + size * (k + 16), 16), _mm512_loadu_ps(x + k + 16), b);
    }
    for (; k < n_k; k += 8) { /* into the first 8 lanes */
        int n = n_k - k < 8 ? (int)(n_k - k) : 8;
        __m512 v = _mm512_maskz_loadu_ps((__mmask16)((1 << n) - 1), x + k);
        a = _mm512_mask3_fmadd_ps(load(w + size * k, n), v, a, 0xff);
    }
    return ttx_hsum(_mm256_add_ps(halves(a), halves(b)));
}

TTX_INLINE void dot_matmul(load_fn load, int64_t size, const ttx_mm *m, int64_t r0, int64_t r1) {
    for (int64_t r = r0, end; r < r1; r = end) {
        end = m->x->n_cols == 1 || r1 - r < BAND ? r1 : r + BAND;
        for (int64_t c = 0; c < m->x->n_cols; c++)
            for (int64_t i = r; i < end; i++)
                m->y[c * m->ldy + i] = dot_row(load, size, m->w + (size_t)i * m->row_bytes,
                                               m->x->f32 + c * m->x->ld, m->k);
    }
}

#define MATMUL(t, size)                                                             \
    static void exact_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        (void)scratch;                                                              \
        dot_matmul(load_##t, size, m, r0, r1);                                      \
    }
MATMUL(f32, 4)
MATMUL(f16, 2)
MATMUL(bf16, 2)

void ttx_dot_float_avx512_init(ttx_kernels *k) {
    k->matmul[TTX_EXACT][TTX_F32] = exact_f32;
    k->matmul[TTX_EXACT][TTX_F16] = exact_f16;
    k->matmul[TTX_EXACT][TTX_BF16] = exact_bf16;
}
