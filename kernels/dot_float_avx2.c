/* dot_float_avx2.c -- class EXACT for F32, F16 and BF16 weights with AVX2: F32 activations, F32
 * FMA, four accumulators of 8 lanes along K, 1 or 2 columns at a time.
 */
#include "mm_avx2_int.h"

typedef __m256 (*load_fn)(const uint8_t *w);

/* The last n < 8 weights, then zeros; nothing beyond is read. */
TTX_INLINE __m256 load_tail(load_fn load, const uint8_t *w, size_t size, int64_t n) {
    uint8_t buf[32] = {0};
    memcpy(buf, w, size * (size_t)n);
    return load(buf);
}

TTX_INLINE void dot_row(load_fn load, size_t size, const ttx_mm *m, int64_t r, int64_t c, int nc) {
    const uint8_t *w = m->w + (size_t)r * m->row_bytes;
    const float *x = m->x->f32 + c * m->x->ld;
    __m256 acc[2][4];
    for (int j = 0; j < nc; j++)
        for (int i = 0; i < 4; i++) acc[j][i] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 32 <= m->k; k += 32)
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            __m256 v = load(w + size * (size_t)(k + 8 * i));
#pragma GCC unroll 2
            for (int j = 0; j < nc; j++)
                acc[j][i] =
                    _mm256_fmadd_ps(v, _mm256_loadu_ps(x + j * m->x->ld + k + 8 * i), acc[j][i]);
        }
    for (; k < m->k; k += 8) {
        int64_t n = m->k - k < 8 ? m->k - k : 8;
        __m256 v = load_tail(load, w + size * (size_t)k, size, n);
        for (int j = 0; j < nc; j++)
            acc[j][0] = _mm256_fmadd_ps(
                v, _mm256_maskload_ps(x + j * m->x->ld + k, ttx_mask((int)n)), acc[j][0]);
    }
    for (int j = 0; j < nc; j++)
        m->y[(c + j) * m->ldy + r] = ttx_hsum(_mm256_add_ps(_mm256_add_ps(acc[j][0], acc[j][1]),
                                                            _mm256_add_ps(acc[j][2], acc[j][3])));
}

TTX_INLINE void dot_matmul(load_fn load, size_t size, const ttx_mm *m, int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r++) {
        int64_t c = 0;
        for (; c + 2 <= m->x->n_cols; c += 2) dot_row(load, size, m, r, c, 2);
        for (; c < m->x->n_cols; c++) dot_row(load, size, m, r, c, 1);
    }
}

#define MATMUL(t, size)                                                             \
    static void exact_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        (void)scratch;                                                              \
        dot_matmul(ttx_load_##t, size, m, r0, r1);                                  \
    }
MATMUL(f32, 4)
MATMUL(f16, 2)
MATMUL(bf16, 2)

void ttx_dot_float_avx2_init(ttx_kernels *k) {
    k->matmul[TTX_EXACT][TTX_F32] = exact_f32;
    k->matmul[TTX_EXACT][TTX_F16] = exact_f16;
    k->matmul[TTX_EXACT][TTX_BF16] = exact_bf16;
}
