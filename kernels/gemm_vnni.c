/* gemm_vnni.c -- class PROMPT with AVX-512 VNNI for quantised weights: int8 dot products of weights
 * unpacked in tiles with activations in 8 bits (TTX_ACT_PANEL).
 *
 * A tile of 32 rows by 256 weights is unpacked into the thread's scratch (it stays in L1), rows in
 * the lanes of vectors, and multiplied with all columns, up to 7 at a time: 4 values of a column
 * are broadcast and multiplied with 4 values of 16 rows by one instruction, and no sum over lanes
 * is ever needed. For each block of 32 values of K (16 if the type has scales by 16):
 *
 *     acc[row] += (s[row] * d) * (float)(q[row] . x)       and   acc[row] -= m[row] * t
 *
 * with d and t = d * sum(x) of the column. So every accumulator is one chain in ascending order of
 * K, whatever the tiles and the panels are.
 *
 * vpdpbusd multiplies unsigned by signed bytes: activations are x + 128, and the dot products start
 * at -128 * sum(q).
 */
#include "unpack_vnni.h"
#include "mm_avx2_int.h"

/* Values [4 i0, 4 i1) of a block by the nc columns at x. */
TTX_INLINE void block_part(const ttx_wblock *w, int part, int i0, int i1, const uint8_t *x, int nc,
                           bool has_min, __m512 acc[][2]) {
    __m512i dot[TTX_PANEL_COLS][2];
#pragma GCC unroll 7
    for (int c = 0; c < nc; c++)
        for (int h = 0; h < 2; h++) dot[c][h] = _mm512_load_si512(w->low[part][h]);
#pragma GCC unroll 8
    for (int i = i0; i < i1; i++) {
        __m512i w0 = _mm512_load_si512(w->q[i][0]), w1 = _mm512_load_si512(w->q[i][1]);
#pragma GCC unroll 7
        for (int c = 0; c < nc; c++) {
            __m512i v = _mm512_set1_epi32((int)ttx_load32(x + (i * nc + c) * 4));
            dot[c][0] = _mm512_dpbusd_epi32(dot[c][0], v, w0);
            dot[c][1] = _mm512_dpbusd_epi32(dot[c][1], v, w1);
        }
    }
    const float *d = (const float *)(const void *)(x + 32 * nc), *t = d + (1 + part) * nc;
#pragma GCC unroll 7
    for (int c = 0; c < nc; c++)
        for (int h = 0; h < 2; h++) {
            __m512 s = _mm512_mul_ps(_mm512_load_ps(w->s[part][h]), _mm512_set1_ps(d[c]));
            acc[c][h] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[c][h]), s, acc[c][h]);
            if (has_min)
                acc[c][h] = _mm512_fnmadd_ps(_mm512_load_ps(w->m[part][h]), _mm512_set1_ps(t[c]),
                                             acc[c][h]);
        }
}

/* A tile of n blocks by a panel of nc columns, from its block at x on: y [nc][rows] is added to, or
 * set by the first tile. */
TTX_INLINE void tile(const ttx_wblock *w, int n, const uint8_t *x, int nc, bool by_16, bool has_min,
                     float *y, bool first) {
    __m512 acc[TTX_PANEL_COLS][2];
#pragma GCC unroll 7
    for (int c = 0; c < nc; c++)
        for (int h = 0; h < 2; h++)
            acc[c][h] = first ? _mm512_setzero_ps() : _mm512_load_ps(y + c * TTX_WB_ROWS + 16 * h);
    for (; n > 0; n--, w++, x += TTX_PANEL_BLOCK * nc) {
        block_part(w, 0, 0, by_16 ? 4 : 8, x, nc, has_min, acc);
        if (by_16) block_part(w, 1, 4, 8, x, nc, has_min, acc);
    }
#pragma GCC unroll 7
    for (int c = 0; c < nc; c++)
        for (int h = 0; h < 2; h++) _mm512_store_ps(y + c * TTX_WB_ROWS + 16 * h, acc[c][h]);
}

typedef void (*tile_fn)(const ttx_wblock *w, int n, const uint8_t *x, float *y, bool first);

#define TILE(name, nc, by_16, has_min)                                                     \
    static void tile_##name##_##nc(const ttx_wblock *w, int n, const uint8_t *x, float *y, \
                                   bool first) {                                           \
        tile(w, n, x, nc, by_16, has_min, y, first);                                       \
    }
#define WIDTHS(X, name, ...) \
    X(name, 1, __VA_ARGS__)  \
    X(name, 2, __VA_ARGS__)  \
    X(name, 3, __VA_ARGS__)  \
    X(name, 4, __VA_ARGS__)  \
    X(name, 5, __VA_ARGS__)  \
    X(name, 6, __VA_ARGS__)  \
    X(name, 7, __VA_ARGS__)
WIDTHS(TILE, by32, false, false)
WIDTHS(TILE, by32m, false, true)
WIDTHS(TILE, by16, true, false)
WIDTHS(TILE, by16m, true, true)

/* [by_16][has_min][width - 1] */
#define ENTRY(name, nc, ...) tile_##name##_##nc,
static const tile_fn tiles[2][2][TTX_PANEL_COLS] = {
    {{WIDTHS(ENTRY, by32, 0)}, {WIDTHS(ENTRY, by32m, 0)}},
    {{WIDTHS(ENTRY, by16, 0)}, {WIDTHS(ENTRY, by16m, 0)}},
};
#undef ENTRY

/* What a thread works in: the tile, in L1, and the sums of its 32 rows by the columns of a round.
 * Not in y: its columns usually lie a multiple of 4096 bytes apart, and would evict each other. */
enum { ROUND_PANELS = 74, ROUND_COLS = ROUND_PANELS * TTX_PANEL_COLS };
typedef struct work {
    ttx_wblock tile[TTX_WB_GROUP];
    float sum[ROUND_COLS][TTX_WB_ROWS];
    uint8_t raw[TTX_WB_ROWS][288]; /* blocks of the last rows, if those are fewer than 32 */
} work;
_Static_assert(sizeof(work) <= TTX_MM_SCRATCH, "the work fits the scratch");

/* The tile of n blocks from block b0 on by the panels [p0, p1). */
static void multiply(const ttx_wtype *t, work *w, int64_t b0, int n, const ttx_act *x, int64_t p0,
                     int64_t p1) {
    const tile_fn *fn = tiles[t->by_16][t->has_min];
    float *sum = w->sum[0];
    for (int64_t p = p0; p < p1; p++) {
        ttx_panel panel = ttx_panel_get(x->n_cols, p);
        const uint8_t *from =
            x->panel + ttx_panel_bytes(x->k, panel.first) + ttx_panel_bytes(32 * b0, panel.width);
        fn[panel.width - 1](w->tile, n, from, sum, b0 == 0);
        sum += panel.width * TTX_WB_ROWS;
    }
}

/* n blocks of 32 rows, of which the first n_rows exist. */
static void unpack(const ttx_wtype *t, work *work, ttx_rows r, int64_t n_rows, int n) {
    if (n_rows < TTX_WB_ROWS) { /* rows that do not exist repeat the last */
        size_t bytes = t->bytes * (size_t)n / TTX_WB_GROUP;
        for (int64_t i = 0; i < TTX_WB_ROWS; i++)
            memcpy(work->raw[i], r.w + (size_t)(i < n_rows ? i : n_rows - 1) * r.stride, bytes);
        r = (ttx_rows){work->raw[0], sizeof work->raw[0]};
    }
    t->unpack(work->tile, 0, r, n);
    r.w += 16 * r.stride;
    t->unpack(work->tile, 1, r, n);
}

/* Asks for the weights of the next tile while this one is multiplied: 32 short pieces far from each
 * other, which no hardware prefetcher sees coming. */
static void prefetch(ttx_rows r, size_t bytes) {
    for (int i = 0; i < TTX_WB_ROWS; i++, r.w += r.stride)
        for (size_t at = 0; at < bytes; at += 64) _mm_prefetch((const char *)r.w + at, _MM_HINT_T1);
}

/* Rows [r, min(r + 32, r1)) by the panels [p0, p1). */
static void gemm_rows(const ttx_wtype *t, const ttx_mm *m, int64_t r, int64_t r1, int64_t p0,
                      int64_t p1, work *work) {
    ttx_rows rows = {m->w + (size_t)r * m->row_bytes, m->row_bytes};
    const ttx_rows below = {rows.w + TTX_WB_ROWS * rows.stride, rows.stride};
    for (int64_t b = 0; b < m->k / 32; b += TTX_WB_GROUP, rows.w += t->bytes) {
        int64_t rest = m->k / 32 - b;
        int n = rest < TTX_WB_GROUP ? (int)rest : TTX_WB_GROUP;
        unpack(t, work, rows, r1 - r, n);
        prefetch(rest > n ? (ttx_rows){rows.w + t->bytes, rows.stride} : below, t->bytes);
        multiply(t, work, b, n, m->x, p0, p1);
    }
    int64_t c0 = ttx_panel_get(m->x->n_cols, p0).first, c1 = ttx_panel_get(m->x->n_cols, p1).first;
    ttx_store_rows(m->y + c0 * m->ldy + r, m->ldy, work->sum, c1 - c0, r1 - r);
}

static void gemm(const ttx_wtype *t, const ttx_mm *m, int64_t r0, int64_t r1, work *work) {
    int64_t n = ttx_panel_count(m->x->n_cols);
    for (int64_t p = 0; p < n; p += ROUND_PANELS)
        for (int64_t r = r0; r < r1; r += TTX_WB_ROWS)
            gemm_rows(t, m, r, r1, p, n - p < ROUND_PANELS ? n : p + ROUND_PANELS, work);
}

#define MATMUL(T)                                                                    \
    static void prompt_##T(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        gemm(&ttx_wtypes[TTX_##T], m, r0, r1, scratch);                              \
    }
TTX_QUANTISED(MATMUL)

void ttx_gemm_vnni_init(ttx_kernels *k) {
#define ENTRIES(T)                               \
    k->matmul[TTX_PROMPT][TTX_##T] = prompt_##T; \
    k->act_form[TTX_PROMPT][TTX_##T] = TTX_ACT_PANEL;
    TTX_QUANTISED(ENTRIES)
}
