/* gemm_avx512.c -- class PROMPT with AVX-512, for every type: F32 FMA on weights unpacked in tiles.
 *
 * 32 rows by 256 weights are dequantised as they lie, then, 128 at a time, turned so that the rows
 * lie in the lanes of vectors: the tile stays in L1. An activation is broadcast from where it is
 * and multiplied with 32 rows; up to 7 columns (14 accumulators) at a time. 32 weights are a
 * chain of FMA in ascending order of K, and the chains are added up in ascending order: what is
 * beside an element in rows or columns does not matter.
 */
#include "lanes_avx512_int.h"
#include "mm_avx2_int.h"

enum {
    ROWS = 32,
    FLAT = 256,  /* weights of a row that are dequantised together, */
    TILE = 128,  /* that lie in L1 together, */
    CHAIN = 32,  /* and that are added up before their sum joins the others: accuracy */
    PANELS = 74, /* of a round */
    COLS = PANELS * TTX_PANEL_COLS,
};

/* What a thread works in. */
typedef struct work {
    float tile[TILE][ROWS];
    float sum[COLS][ROWS];       /* not in y, whose columns would evict each other */
    float flat[ROWS][FLAT + 16]; /* padded, so that rows do not share the same few cache sets */
} work;
_Static_assert(sizeof(work) <= TTX_MM_SCRATCH, "the work fits the scratch");

/* The tile of n weights by nc columns at x: sum [nc][32] is added to, or set by the first. */
TTX_INLINE void multiply(const float (*tile)[ROWS], int64_t n, const float *x, int64_t ld, int nc,
                         float *sum, bool first) {
    __m512 total[TTX_PANEL_COLS][2];
#pragma GCC unroll 7
    for (int c = 0; c < nc; c++)
        for (int h = 0; h < 2; h++)
            total[c][h] = first ? _mm512_setzero_ps() : _mm512_load_ps(sum + c * ROWS + 16 * h);
    for (int64_t k = 0; k < n;) {
        __m512 acc[TTX_PANEL_COLS][2];
#pragma GCC unroll 7
        for (int c = 0; c < nc; c++) acc[c][0] = acc[c][1] = _mm512_setzero_ps();
        for (int64_t end = n - k < CHAIN ? n : k + CHAIN; k < end; k++) {
            __m512 w0 = _mm512_load_ps(tile[k]), w1 = _mm512_load_ps(tile[k] + 16);
#pragma GCC unroll 7
            for (int c = 0; c < nc; c++) {
                __m512 v = _mm512_set1_ps(x[c * ld + k]);
                acc[c][0] = _mm512_fmadd_ps(w0, v, acc[c][0]);
                acc[c][1] = _mm512_fmadd_ps(w1, v, acc[c][1]);
            }
        }
#pragma GCC unroll 7
        for (int c = 0; c < nc; c++)
            for (int h = 0; h < 2; h++) total[c][h] = _mm512_add_ps(total[c][h], acc[c][h]);
    }
#pragma GCC unroll 7
    for (int c = 0; c < nc; c++)
        for (int h = 0; h < 2; h++) _mm512_store_ps(sum + c * ROWS + 16 * h, total[c][h]);
}

typedef void (*multiply_fn)(const float (*tile)[ROWS], int64_t n, const float *x, int64_t ld,
                            float *sum, bool first);

#define WIDTHS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define MULTIPLY(nc)                                                                           \
    static void multiply_##nc(const float(*tile)[ROWS], int64_t n, const float *x, int64_t ld, \
                              float *sum, bool first) {                                        \
        multiply(tile, n, x, ld, nc, sum, first);                                              \
    }
WIDTHS(MULTIPLY)
#define MULTIPLY_ENTRY(nc) multiply_##nc,
static const multiply_fn multiplies[TTX_PANEL_COLS] = {WIDTHS(MULTIPLY_ENTRY)};

/* Turns n weights (a last vector of four may be incomplete: the rest of it is never read). */
static void turn(work *work, int64_t k0, int64_t n) {
    for (int h = 0; h < 2; h++)
        for (int64_t k = 0; k < n; k += 4) {
            ttx_rows r = {(const uint8_t *)(work->flat[16 * h] + k0 + k), sizeof work->flat[0]};
            __m512i v[4];
            ttx_rows16(v, r, 0);
            for (int i = 0; i < 4; i++) _mm512_store_si512(work->tile[k + i] + 16 * h, v[i]);
        }
}

/* Rows [r, min(r + 32, r1)) by the panels [p0, p1). */
static void gemm_rows(const ttx_mm *m, ttx_dtype type, int64_t r, int64_t r1, int64_t p0,
                      int64_t p1, work *work) {
    const ttx_act *x = m->x;
    int64_t n_rows = r1 - r < ROWS ? r1 - r : ROWS;
    int64_t first = ttx_panel_get(x->n_cols, p0).first;
    for (int64_t k0 = 0; k0 < m->k; k0 += FLAT) {
        int64_t flat = m->k - k0 < FLAT ? m->k - k0 : FLAT;
        const uint8_t *w = m->w + (size_t)r * m->row_bytes + ttx_dtype_bytes(type, (uint64_t)k0);
        for (int64_t i = 0; i < n_rows; i++)
            ttx_dequant_avx2[type](work->flat[i], w + (size_t)i * m->row_bytes, flat);
        for (int64_t k1 = 0; k1 < flat; k1 += TILE) {
            int64_t n = flat - k1 < TILE ? flat - k1 : TILE;
            turn(work, k1, n);
            for (int64_t p = p0; p < p1; p++) {
                ttx_panel panel = ttx_panel_get(x->n_cols, p);
                multiplies[panel.width - 1](work->tile, n, x->f32 + panel.first * x->ld + k0 + k1,
                                            x->ld, work->sum[panel.first - first], k0 + k1 == 0);
            }
        }
    }
    int64_t end = ttx_panel_get(x->n_cols, p1).first;
    ttx_store_rows(m->y + first * m->ldy + r, m->ldy, work->sum, end - first, n_rows);
}

static void gemm(const ttx_mm *m, ttx_dtype type, int64_t r0, int64_t r1, work *work) {
    int64_t n = ttx_panel_count(m->x->n_cols);
    memset(work->flat, 0, sizeof work->flat); /* of rows that do not exist */
    for (int64_t p = 0; p < n; p += PANELS)
        for (int64_t r = r0; r < r1; r += ROWS)
            gemm_rows(m, type, r, r1, p, n - p < PANELS ? n : p + PANELS, work);
}

#define TYPES(X) X(F32) X(F16) X(BF16) TTX_QUANTISED(X)

#define MATMUL(T)                                                                    \
    static void prompt_##T(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        gemm(m, TTX_##T, r0, r1, scratch);                                           \
    }
TYPES(MATMUL)

void ttx_gemm_avx512_init(ttx_kernels *k) {
#define ENTRY(T) k->matmul[TTX_PROMPT][TTX_##T] = prompt_##T;
    TYPES(ENTRY)
}
