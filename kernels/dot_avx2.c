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

/* What the dot products of a group need from its scales. */
typedef struct scaled_group {
    float s[4][8]; /* s * dx of each column and block */
    __m256i s16;
} scaled_group;

/* The groups whose scales are computed ahead of their dot products. Both in one step would leave
 * the latter waiting: the way to the scales is long, and the CPU does not look a group ahead. */
enum { AHEAD = 16 };

/* The columns of a call in local variables: in ttx_act the compiler would read them again and
 * again, as any store might have changed them. Each pointer is of column j. */
typedef struct columns {
    const int8_t *q8[4];
    const float *d[4];
    const int16_t *sum[4];
} columns;

/* The scales of the first n blocks of the group that starts at k, by nc columns. */
TTX_INLINE void scale_group(const ttx_type_avx2 *t, scaled_group *out, const columns *x, int nc,
                            size_t k, const uint8_t *w, int n, __m256 low[]) {
    ttx_group g;
    t->scales(&g, w, n);
    if (t->by_16) out->s16 = g.s16;
    __m256 m = t->has_min ? g.m : _mm256_mul_ps(g.s, _mm256_set1_ps((float)t->offset));
    __m256i c16 = t->by_16 ? g.c16 : _mm256_set1_epi16(1);
    for (int j = 0; j < nc; j++) {
        const float *d = x->d[j] + k / 32;
        __m256 dx = n == 8 ? _mm256_loadu_ps(d) : _mm256_maskload_ps(d, ttx_mask(n));
        _mm256_storeu_ps(out->s[j], _mm256_mul_ps(g.s, dx));
        if (!t->has_min && !t->offset) continue;
        const void *p = x->sum[j] + k / 16;
        __m256i sums = n == 8 ? ttx_load256(p) : _mm256_maskload_epi32(p, ttx_mask(n));
        sums = _mm256_madd_epi16(sums, c16);
        low[j] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), dx), m, low[j]);
    }
}

TTX_INLINE __m256i dot_block(const ttx_type_avx2 *t, __m256i s16, __m256i q, __m256i x, int b) {
    __m256i factor = _mm256_set1_epi16(1);
    if (t->by_16) /* word b of each half, eight times */
        factor = _mm256_shuffle_epi8(s16, _mm256_set1_epi16((short)(2 * b | (2 * b + 1) << 8)));
    __m256i pairs = t->is_signed ? _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
                                 : _mm256_maddubs_epi16(q, x);
    return _mm256_madd_epi16(pairs, factor);
}

/* The first n blocks of the group that starts at k, by nc columns. */
TTX_INLINE void dot_group(const ttx_type_avx2 *t, const scaled_group *g, const columns *x, int nc,
                          size_t k, const uint8_t *w, int n, __m256 acc[][2]) {
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) { /* a constant bound: b is a constant once unrolled */
        if (b >= n) break;
        __m256i q = t->quants(w, b);
#pragma GCC unroll 4
        for (int j = 0; j < nc; j++) {
            __m256i dot = dot_block(t, g->s16, q, ttx_load256(x->q8[j] + k + 32 * b), b);
            acc[j][b % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot),
                                            _mm256_broadcast_ss(&g->s[j][b]), acc[j][b % 2]);
        }
    }
}

TTX_INLINE void dot_row(const ttx_type_avx2 *t, const uint8_t *w, size_t n_k, const columns *x,
                        int nc, float *y, int64_t ldy) {
    scaled_group g[AHEAD];
    __m256 acc[4][2], low[4];
    for (int j = 0; j < nc; j++) acc[j][0] = acc[j][1] = low[j] = _mm256_setzero_ps();
    for (size_t k0 = 0; k0 < n_k; k0 += 256 * AHEAD) {
        size_t end = n_k - k0 < 256 * AHEAD ? n_k : k0 + 256 * AHEAD, k = k0;
        const uint8_t *p = w;
        int i = 0, rest = (int)((end - k0) % 256) / 32;
        for (; k + 256 <= end; k += 256, p += t->bytes)
            scale_group(t, &g[i++], x, nc, k, p, 8, low);
        if (rest) scale_group(t, &g[i], x, nc, k, p, rest, low);
        for (i = 0, k = k0; k + 256 <= end; k += 256, w += t->bytes)
            dot_group(t, &g[i++], x, nc, k, w, 8, acc);
        if (rest) dot_group(t, &g[i], x, nc, k, w, rest, acc);
    }
    for (int j = 0; j < nc; j++) {
        __m256 sum = _mm256_add_ps(acc[j][0], acc[j][1]);
        if (t->has_min || t->offset) sum = _mm256_sub_ps(sum, low[j]);
        y[j * ldy] = ttx_hsum(sum);
    }
}

/* Rows by nc columns from c on. */
TTX_INLINE void dot_columns(const ttx_type_avx2 *t, const ttx_mm *m, int64_t r0, int64_t r1,
                            int64_t c, int nc) {
    columns x;
    for (int j = 0; j < nc; j++) {
        int64_t at = (c + j) * m->x->k;
        x.q8[j] = m->x->q8 + at;
        x.d[j] = m->x->d + at / 32;
        x.sum[j] = m->x->sum + at / 16;
    }
    for (int64_t r = r0; r < r1; r++)
        dot_row(t, m->w + (size_t)r * m->row_bytes, (size_t)m->k, &x, nc, m->y + c * m->ldy + r,
                m->ldy);
}

/* Bands of rows that stay in L2 while the columns pass. */
enum { BAND = 64 };

TTX_INLINE void dot_matmul(const ttx_type_avx2 *t, const ttx_mm *m, int64_t r0, int64_t r1) {
    for (int64_t r = r0; r < r1; r += BAND) {
        int64_t end = r1 - r < BAND ? r1 : r + BAND, c = 0;
        for (; c + 4 <= m->x->n_cols; c += 4) dot_columns(t, m, r, end, c, 4);
        for (; c < m->x->n_cols; c++) dot_columns(t, m, r, end, c, 1);
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
