/* dot_avx2.c -- class EXACT for quantised weights with AVX2: integer dot products against Q8
 * activations. One loop serves all types and takes 1 or 4 columns at a time. In the notation of
 * unpack.h, for block b with activations x (scale dx, sums of 16 values sum):
 *
 *     acc += (s * dx)[b] * (float)(q . x)          by 8 lanes, even and odd b apart
 *     low += m[b] * dx[b] * (float)(c16 . sum)[b]  for the whole group, one lane a block
 *
 * and the product is hsum(acc - low) at the end. Types with scales by 16 multiply them in as
 * integers (s16, c16); c16 is all 1 for the others. Unsigned types with an offset, w = s * (q - o),
 * have m = s * o.
 *
 * Integer ranges: pairs of products are summed in 16 bits, |q| * 127 * 2 <= 32512 for |q| <= 128;
 * signed types multiply |q| by x with the sign of q, as x is never -128.
 */
#include "types_avx2.h"

TTX_INLINE __m256i dot_block(const ttx_type_avx2 *t, const ttx_group *g, __m256i q, __m256i x,
                             int b) {
    __m256i factor = _mm256_set1_epi16(1);
    if (t->by_16) /* word b of each half, eight times */
        factor = _mm256_shuffle_epi8(g->s16, _mm256_set1_epi16((short)(2 * b | (2 * b + 1) << 8)));
    __m256i pairs = t->is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
                                 : _mm256_maddubs_epi16(q, x);
    return _mm256_madd_epi16(pairs, factor);
}

/* One group of one row by nc columns from c on; k: where it starts. */
TTX_INLINE void dot_group(const ttx_type_avx2 *t, const ttx_act *x, int64_t c, int nc, int64_t k,
                          const uint8_t *w, int n, __m256 acc[][2], __m256 low[]) {
    ttx_group g;
    float s[4][8];
    const int8_t *q8[4];
    t->scales(&g, w, n);
    bool has_low = t->has_min || t->offset;
    __m256 m = t->has_min ? g.m : _mm256_mul_ps(g.s, _mm256_set1_ps((float)t->offset));
    __m256i c16 = t->by_16 ? g.c16 : _mm256_set1_epi16(1);
    for (int j = 0; j < nc; j++) {
        int64_t at = (c + j) * x->k + k;
        q8[j] = x->q8 + at;
        __m256 dx = n == 8 ? _mm256_loadu_ps(x->d + at / 32)
                           : _mm256_maskload_ps(x->d + at / 32, ttx_mask(n));
        _mm256_storeu_ps(s[j], _mm256_mul_ps(g.s, dx));
        if (has_low) {
            const void *p = x->sum + at / 16;
            __m256i sums = n == 8 ? ttx_load256(p) : _mm256_maskload_epi32(p, ttx_mask(n));
            sums = _mm256_madd_epi16(sums, c16);
            low[j] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), dx), m, low[j]);
        }
    }
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) { /* a constant bound: b is a constant once unrolled */
        if (b >= n) break;
        __m256i q = t->quants(w, b);
#pragma GCC unroll 4
        for (int j = 0; j < nc; j++) {
            __m256i dot = dot_block(t, &g, q, ttx_load256(q8[j] + 32 * b), b);
            acc[j][b % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), _mm256_broadcast_ss(&s[j][b]),
                                            acc[j][b % 2]);
        }
    }
}

TTX_INLINE void dot_row(const ttx_type_avx2 *t, const ttx_mm *m, int64_t r, int64_t c, int nc) {
    const uint8_t *w = m->w + (size_t)r * m->row_bytes;
    __m256 acc[4][2], low[4];
    for (int j = 0; j < nc; j++) acc[j][0] = acc[j][1] = low[j] = _mm256_setzero_ps();
    int64_t k = 0;
    for (; k + 256 <= m->k; k += 256, w += t->bytes) dot_group(t, m->x, c, nc, k, w, 8, acc, low);
    if (k < m->k) dot_group(t, m->x, c, nc, k, w, (int)(m->k - k) / 32, acc, low);
    for (int j = 0; j < nc; j++) {
        __m256 sum = _mm256_add_ps(acc[j][0], acc[j][1]);
        if (t->has_min || t->offset) sum = _mm256_sub_ps(sum, low[j]);
        m->y[(c + j) * m->ldy + r] = ttx_hsum(sum);
    }
}

TTX_INLINE void dot_matmul(const ttx_type_avx2 *t, const ttx_mm *m, int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r++) {
        int64_t c = 0;
        for (; c + 4 <= m->x->n_cols; c += 4) dot_row(t, m, r, c, 4);
        for (; c < m->x->n_cols; c++) dot_row(t, m, r, c, 1);
    }
}

#define MATMUL(t, T, ...)                                                           \
    static void exact_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        const ttx_type_avx2 type = TTX_TYPE_AVX2(t, __VA_ARGS__);                   \
        (void)scratch;                                                              \
        dot_matmul(&type, m, r0, r1);                                               \
    }
TTX_TYPES_AVX2(MATMUL)

void ttx_dot_avx2_init(ttx_kernels *k) {
#define ENTRY(t, T, ...) k->matmul[TTX_EXACT][TTX_##T] = exact_##t;
    TTX_TYPES_AVX2(ENTRY)
}
