/* gemm_avx2.c -- class PROMPT with AVX2, for every type: F32 FMA on weights unpacked in tiles.
 *
 * A tile of TILE_ROWS rows by TILE_K weights is dequantised to F32 in the thread's scratch (it
 * stays in L1) and multiplied with all columns. The inner kernel keeps 4 rows x 3 columns in
 * accumulators of 8 lanes along K and sums the lanes at the end of each tile, always in the same
 * way; y collects the tiles in ascending order of K. So the bits of (row, column) do not depend on
 * what is beside it, and activations are read as they lie, without packing.
 *
 * Non-goal: repacking for an outer-product kernel. It would save the lane sums (4 % at TILE_K 512)
 * and cost a transposition of every tile.
 */
#include "types_avx2.h"

enum { TILE_ROWS = 8, TILE_K = 512 };
_Static_assert(TILE_ROWS *TILE_K * sizeof(float) <= TTX_MM_SCRATCH, "the tile fits the scratch");

/* The sums of the lanes of four vectors. */
TTX_INLINE __m128 lane_sums(const __m256 v[4]) {
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

/* y[4 rows] of one column: set by the first tile, added to by the others. */
TTX_INLINE void put(float *y, __m128 v, int rows, bool first) {
    if (rows >= 4) {
        _mm_storeu_ps(y, first ? v : _mm_add_ps(_mm_loadu_ps(y), v));
        return;
    }
    __m128i mask = _mm256_castsi256_si128(ttx_mask(rows));
    _mm_maskstore_ps(y, mask, first ? v : _mm_add_ps(_mm_maskload_ps(y, mask), v));
}

/* 4 rows of a tile by nc columns over k weights; `rows` of the 4 are stored. */
TTX_INLINE void inner(const float *w, const float *x, int64_t ld, int64_t k, int nc, float *y,
                      int64_t ldy, int rows, bool first) {
    __m256 acc[3][4];
    for (int c = 0; c < nc; c++)
        for (int r = 0; r < 4; r++) acc[c][r] = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 8 <= k; i += 8) {
        __m256 xv[3];
        for (int c = 0; c < nc; c++) xv[c] = _mm256_loadu_ps(x + c * ld + i);
#pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
            __m256 wv = _mm256_load_ps(w + r * TILE_K + i);
            for (int c = 0; c < nc; c++) acc[c][r] = _mm256_fmadd_ps(wv, xv[c], acc[c][r]);
        }
    }
    if (i < k) { /* the tile is padded with zeros, the activations are not */
        __m256i mask = ttx_mask((int)(k - i));
        for (int c = 0; c < nc; c++)
            for (int r = 0; r < 4; r++)
                acc[c][r] = _mm256_fmadd_ps(_mm256_load_ps(w + r * TILE_K + i),
                                            _mm256_maskload_ps(x + c * ld + i, mask), acc[c][r]);
    }
    for (int c = 0; c < nc; c++) put(y + c * ldy, lane_sums(acc[c]), rows, first);
}

/* A tile by all columns. y points to its first row. */
static void multiply(const float *tile, int rows, int64_t k0, int64_t k, const ttx_act *x, float *y,
                     int64_t ldy) {
    for (int64_t c = 0; c < x->n_cols; c += 3) {
        const float *xc = x->f32 + c * x->ld + k0;
        for (int r = 0; r < rows; r += 4) {
            const float *w = tile + r * TILE_K;
            float *yc = y + c * ldy + r;
            bool first = k0 == 0;
            switch (x->n_cols - c) {
            case 1: inner(w, xc, x->ld, k, 1, yc, ldy, rows - r, first); break;
            case 2: inner(w, xc, x->ld, k, 2, yc, ldy, rows - r, first); break;
            default: inner(w, xc, x->ld, k, 3, yc, ldy, rows - r, first);
            }
        }
    }
}

static void gemm(const ttx_mm *m, int64_t r0, int64_t r1, float *tile, ttx_dtype type) {
    ttx_dequant_fn dequant = ttx_dequant_avx2[type];
    for (int64_t r = r0; r < r1; r += TILE_ROWS) {
        int rows = r1 - r < TILE_ROWS ? (int)(r1 - r) : TILE_ROWS;
        if (rows < TILE_ROWS) memset(tile, 0, TILE_ROWS * TILE_K * sizeof *tile);
        for (int64_t k0 = 0; k0 < m->k; k0 += TILE_K) {
            int64_t k = m->k - k0 < TILE_K ? m->k - k0 : TILE_K;
            const uint8_t *w =
                m->w + (size_t)r * m->row_bytes + ttx_dtype_bytes(type, (uint64_t)k0);
            for (int i = 0; i < rows; i++) {
                dequant(tile + i * TILE_K, w + (size_t)i * m->row_bytes, k);
                for (int64_t j = k; j % 8; j++) tile[i * TILE_K + j] = 0.0f;
            }
            multiply(tile, rows, k0, k, m->x, m->y + r, m->ldy);
        }
    }
}

#define MATMUL(t, T, ...)                                                            \
    static void prompt_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        gemm(m, r0, r1, scratch, TTX_##T);                                           \
    }
TTX_TYPES_AVX2(MATMUL)
MATMUL(f32, F32)
MATMUL(f16, F16)
MATMUL(bf16, BF16)

void ttx_gemm_avx2_init(ttx_kernels *k) {
#define ENTRY(t, T, ...) k->matmul[TTX_PROMPT][TTX_##T] = prompt_##t;
    TTX_TYPES_AVX2(ENTRY)
    ENTRY(f32, F32)
    ENTRY(f16, F16)
    ENTRY(bf16, BF16)
}
