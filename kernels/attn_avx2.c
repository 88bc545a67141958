/* attn_avx2.c -- attention over the KV cache with AVX2, FMA and F16C.
 *
 * A tile of queries meets a block of 64 positions at a time, inside a chunk. Four keys meet all
 * queries, three at a time, as dot products held in registers; then comes the softmax, the online
 * one (Milakov and Gimelshein, arXiv:1805.02867); then three queries at a time gather 32 columns
 * of the values. F16 is converted on the way into a register, which costs less than to store what
 * was converted and read it back, however often it is repeated; Q8_0, and rows that are not whole
 * vectors, are unpacked once for the whole tile.
 *
 * Why the bits of a query do not depend on its company: a score is eight lanes over d_k, added
 * across in one fixed order, whichever register tile it was in. The blocks lie at multiples of 64
 * from position 0. A column of the result is, per block, a sum over the positions of the query's
 * own range in ascending order, starting from zero, then added to the rescaled sum of the blocks
 * before. Positions outside the range are not multiplied by a zero weight, they do not take part,
 * so what other queries see (an inf, say) cannot leak in.
 */
#include "attn_int.h"

#include "avx2_math.h"
#include "quant_blocks.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
/* For loops over registers, so that an array of them becomes registers. Clang does it unasked (and
 * too late when asked). */
#ifdef __clang__
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 4")
#endif

enum { TILE = TTX_ATTN_TILE, BLOCK = TTX_ATTN_BLOCK, KEYS = 4, PANEL = 32, GROUP = 3 };
/* The queries in work and their state; lives at the start of the scratch. */
typedef struct tile {
    float s[TILE][BLOCK];              /* scores of a block, then weights */
    float panel[BLOCK][PANEL];         /* columns of V, if they are unpacked */
    float m[TILE], l[TILE], fix[TILE]; /* running maximum and sum; rescaling for this block */
    int32_t start[TILE], end[TILE];    /* range of each query, as positions of this chunk */
    int32_t lo[TILE], hi[TILE];        /* the same relative to the block, clipped to it */
    float *q, *acc, *keys;             /* rows of ldk, ldv and ldk (unpacked K) floats */
    int64_t n, ldk, ldv;               /* n queries */
} tile;

/* ---- unpacking ---- */

/* Whether rows of d elements can be used as they lie, `width` columns at a time. */
static bool direct(ttx_dtype type, int64_t d, int64_t width) {
    return type != TTX_Q8_0 && d % width == 0;
}

/* Eight values of a row from column c, of F16 or F32 (a constant). */
INLINE __m256 load8(ttx_dtype type, const uint8_t *row, int64_t c) {
    if (type == TTX_F16) return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(row + 2 * c)));
    return _mm256_loadu_ps((const float *)(const void *)(row + 4 * c));
}

INLINE void unpack_as(ttx_dtype type, float *dst, const uint8_t *row, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(dst + i, load8(type, row, i));
    if (i == n) return;
    uint8_t tail[32] = {0};
    int64_t size = type == TTX_F16 ? 2 : 4;
    memcpy(tail, row + i * size, (size_t)((n - i) * size));
    _mm256_storeu_ps(dst + i, load8(type, tail, 0));
}

static void unpack_q8_0(float *dst, const uint8_t *row, int64_t n) {
    const ttx_q8_0 *b = (const ttx_q8_0 *)row;
    for (int64_t i = 0; i < n; i += 32, b++) {
        const __m256 d = _mm256_set1_ps(_cvtsh_ss(b->d));
        for (int64_t j = 0; j < 32; j += 8) {
            __m128i q = _mm_loadl_epi64((const __m128i *)(b->qs + j));
            __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
            _mm256_storeu_ps(dst + i + j, _mm256_mul_ps(x, d));
        }
    }
}

/* n values of a row from column c (a multiple of 32), with zeros up to a whole vector. */
static void unpack(float *dst, const uint8_t *row, int64_t c, int64_t n, ttx_dtype type) {
    if (type == TTX_F16)
        unpack_as(TTX_F16, dst, row + 2 * c, n);
    else if (type == TTX_Q8_0)
        unpack_q8_0(dst, row + c / 32 * (int64_t)sizeof(ttx_q8_0), n);
    else
        unpack_as(TTX_F32, dst, row + 4 * c, n);
}

/* K and V of a head are two streams that are read in short runs in turn, which the hardware's
 * prefetcher loses at each turn: so, while one is read, the run of the other that comes next is
 * fetched, into the second-level cache (it would not fit the first). */
INLINE void fetch(const uint8_t *p, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const char *)(p + i), _MM_HINT_T1);
}

/* ---- scores ---- */

/* The sums of four vectors. Each is ((0 + 2) + (1 + 3)) + ((4 + 6) + (5 + 7)) of its lanes. */
INLINE __m128 sum_lanes(__m256 a, __m256 b, __m256 c, __m256 d) {
    __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    __m256d x = _mm256_castps_pd(ab), y = _mm256_castps_pd(cd);
    __m256 s = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)),
                             _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

/* s[i][0..4) = q[i] . k[0..4) for n_q queries; d in whole vectors. n_q and type are constants. */
INLINE void dots(int n_q, ttx_dtype type, float *s, const float *q, int64_t ldq,
                 const uint8_t *const k[KEYS], int64_t d) {
    __m256 sum[GROUP][KEYS];
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int j = 0; j < KEYS; j++) sum[i][j] = _mm256_setzero_ps();
    }
    for (int64_t c = 0; c < d; c += 8) {
        __m256 x[GROUP];
        UNROLL
        for (int i = 0; i < n_q; i++) x[i] = _mm256_loadu_ps(q + i * ldq + c);
        UNROLL
        for (int j = 0; j < KEYS; j++) {
            __m256 y = load8(type, k[j], c);
            UNROLL
            for (int i = 0; i < n_q; i++) sum[i][j] = _mm256_fmadd_ps(x[i], y, sum[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n_q; i++)
        _mm_storeu_ps(s + i * BLOCK, sum_lanes(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
}

/* Scores of four keys, from position j of the block, for all queries. */
INLINE void dots_tile(ttx_dtype type, tile *t, int64_t j, const uint8_t *const k[KEYS], int64_t d) {
    int64_t i = 0;
    for (; i + 3 <= t->n; i += 3) dots(3, type, &t->s[i][j], t->q + i * t->ldk, t->ldk, k, d);
    if (t->n - i == 2) dots(2, type, &t->s[i][j], t->q + i * t->ldk, t->ldk, k, d);
    if (t->n - i == 1) dots(1, type, &t->s[i][j], t->q + i * t->ldk, t->ldk, k, d);
}

/* Scores of the positions [j0, j1) of the block for every query; k and v are its rows 0. Keys are
 * taken by four from multiples of four, an end of [j0, j1) being repeated beyond it; what is
 * computed outside a query's range is never read. */
static void score_block(tile *t, const ttx_attn *a, const uint8_t *k, const uint8_t *v, int64_t j0,
                        int64_t j1) {
    bool as_is = direct(a->k_type, a->d_k, 8);
    int64_t d = (a->d_k + 7) / 8 * 8;
    for (int64_t j = j0 / KEYS * KEYS; j < j1; j += KEYS) {
        const uint8_t *key[KEYS];
        for (int64_t i = 0; i < KEYS; i++) {
            int64_t r = j + i < j0 ? j0 : j + i >= j1 ? j1 - 1 : j + i;
            fetch(ttx_attn_row(v, r, a->v_bytes), a->v_bytes);
            key[i] = ttx_attn_row(k, r, a->k_bytes);
            if (as_is) continue;
            unpack(t->keys + i * t->ldk, key[i], 0, a->d_k, a->k_type);
            key[i] = (const uint8_t *)(t->keys + i * t->ldk);
        }
        if (as_is && a->k_type == TTX_F16)
            dots_tile(TTX_F16, t, j, key, d);
        else
            dots_tile(TTX_F32, t, j, key, d);
    }
}

/* ---- softmax ---- */

INLINE float first(__m256 x) {
    return _mm256_cvtss_f32(x);
}

static float exp1(float x) {
    return first(ttx_exp8(_mm256_set1_ps(x)));
}

INLINE float max_lanes(__m256 x) {
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}

/* Ones in the lanes of the vector at j that lie in [lo, hi). */
INLINE __m256 inside(int64_t j, int32_t lo, int32_t hi) {
    __m256i at =
        _mm256_add_epi32(_mm256_set1_epi32((int)j), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), at);
    return _mm256_castsi256_ps(
        _mm256_andnot_si256(below, _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), at)));
}

/* Raw scores of query i to weights e^(score - maximum), and its m, l and fix. Only the vectors
 * that touch [lo, hi) are read or written. */
static void weigh_block(tile *t, int64_t i, float scale, float cap) {
    const __m256 none = _mm256_set1_ps(-INFINITY);
    float *s = t->s[i];
    int32_t lo = t->lo[i], hi = t->hi[i];
    t->fix[i] = 1;
    if (lo >= hi) return;
    __m256 top = none, sum = _mm256_setzero_ps();
    for (int64_t j = lo / 8 * 8; j < hi; j += 8) {
        __m256 x = _mm256_mul_ps(_mm256_loadu_ps(s + j), _mm256_set1_ps(scale));
        if (cap > 0) {
            const __m256 c = _mm256_set1_ps(cap);
            x = _mm256_mul_ps(c, ttx_tanh8(_mm256_div_ps(x, c)));
        }
        if (j < lo || j + 8 > hi) x = _mm256_blendv_ps(none, x, inside(j, lo, hi));
        _mm256_storeu_ps(s + j, x);
        top = _mm256_max_ps(x, top); /* a NaN leaves top as it is */
    }
    float m = max_lanes(top);
    if (t->m[i] > m) m = t->m[i];
    for (int64_t j = lo / 8 * 8; j < hi; j += 8) {
        __m256 p = ttx_exp8(_mm256_sub_ps(_mm256_loadu_ps(s + j), _mm256_set1_ps(m)));
        _mm256_storeu_ps(s + j, p);
        sum = _mm256_add_ps(sum, p);
    }
    __m128 total = sum_lanes(sum, sum, sum, sum);
    if (m != t->m[i]) t->fix[i] = exp1(t->m[i] - m);
    t->l[i] = t->l[i] * t->fix[i] + _mm_cvtss_f32(total);
    t->m[i] = m;
}

/* ---- values ---- */

/* Rows of the block from which values are gathered: packed ones, or the panel. */
typedef struct rows {
    const uint8_t *p;
    size_t row_bytes;
    int64_t c; /* the first column to read */
} rows;

/* sum[0..n_v) += s[j] * row j, for j in [j0, j1), of one query. */
INLINE void gather_one(int n_v, ttx_dtype type, __m256 *sum, rows v, const float *s, int64_t j0,
                       int64_t j1) {
    for (int64_t j = j0; j < j1; j++) {
        const uint8_t *row = ttx_attn_row(v.p, j, v.row_bytes);
        __m256 w = _mm256_broadcast_ss(s + j);
        UNROLL
        for (int b = 0; b < n_v; b++)
            sum[b] = _mm256_fmadd_ps(w, load8(type, row, v.c + 8 * b), sum[b]);
    }
}

/* acc[i] = acc[i] * fix[i] + sum over j in [lo[i], hi[i]) of s[i][j] * v[j], for n_q queries from
 * i0 and 8 * n_v columns, those from c of the result. n_q, n_v and type are constants. */
INLINE void gather(int n_q, int n_v, ttx_dtype type, tile *t, int64_t i0, rows v, int64_t c) {
    __m256 sum[GROUP][PANEL / 8];
    int64_t lo = 0, hi = BLOCK; /* what all of them see */
    for (int i = 0; i < n_q; i++) {
        if (t->lo[i0 + i] > lo) lo = t->lo[i0 + i];
        if (t->hi[i0 + i] < hi) hi = t->hi[i0 + i];
    }
    if (hi < lo) hi = lo; /* nothing */
    UNROLL
    for (int i = 0; i < n_q; i++) {
        int64_t end = t->hi[i0 + i];
        UNROLL
        for (int b = 0; b < n_v; b++) sum[i][b] = _mm256_setzero_ps();
        gather_one(n_v, type, sum[i], v, t->s[i0 + i], t->lo[i0 + i], lo < end ? lo : end);
    }
    for (int64_t j = lo; j < hi; j++) {
        const uint8_t *row = ttx_attn_row(v.p, j, v.row_bytes);
        UNROLL
        for (int b = 0; b < n_v; b++) {
            __m256 y = load8(type, row, v.c + 8 * b);
            UNROLL
            for (int i = 0; i < n_q; i++)
                sum[i][b] = _mm256_fmadd_ps(_mm256_broadcast_ss(&t->s[i0 + i][j]), y, sum[i][b]);
        }
    }
    UNROLL
    for (int i = 0; i < n_q; i++) {
        gather_one(n_v, type, sum[i], v, t->s[i0 + i], hi, t->hi[i0 + i]);
        __m256 fix = _mm256_set1_ps(t->fix[i0 + i]);
        float *acc = t->acc + (i0 + i) * t->ldv + c;
        UNROLL
        for (int b = 0; b < n_v; b++)
            _mm256_storeu_ps(acc + 8 * b,
                             _mm256_fmadd_ps(_mm256_loadu_ps(acc + 8 * b), fix, sum[i][b]));
    }
}

INLINE void gather_tile(int n_v, ttx_dtype type, tile *t, rows v, int64_t c) {
    int64_t i = 0;
    for (; i + 3 <= t->n; i += 3) gather(3, n_v, type, t, i, v, c);
    if (t->n - i == 2) gather(2, n_v, type, t, i, v, c);
    if (t->n - i == 1) gather(1, n_v, type, t, i, v, c);
}

/* The columns [c, c + w) of the positions [j0, j1), unpacked on the way. */
static void gather_panel(tile *t, const ttx_attn *a, const uint8_t *v, int64_t c, int64_t w,
                         int64_t j0, int64_t j1) {
    for (int64_t j = j0; j < j1; j++)
        unpack(t->panel[j], ttx_attn_row(v, j, a->v_bytes), c, w, a->v_type);
    rows panel = {(const uint8_t *)t->panel, sizeof t->panel[0], 0};
    if (w > 24)
        gather_tile(4, TTX_F32, t, panel, c);
    else if (w > 16) /* no wider than acc's rows, which may be as narrow */
        gather_tile(3, TTX_F32, t, panel, c);
    else if (w > 8)
        gather_tile(2, TTX_F32, t, panel, c);
    else
        gather_tile(1, TTX_F32, t, panel, c);
}

/* The values of the positions [j0, j1) to every query. `k_next`: K of the next block, or NULL. */
static void gather_block(tile *t, const ttx_attn *a, const uint8_t *v, const uint8_t *k_next,
                         int64_t j0, int64_t j1) {
    bool as_is = direct(a->v_type, a->d_v, PANEL);
    for (int64_t c = 0; c < a->d_v; c += PANEL) {
        int64_t w = a->d_v - c < PANEL ? a->d_v - c : PANEL;
        rows from = {v, a->v_bytes, c};
        for (int64_t j = j0; k_next && j < j1; j++)
            fetch(ttx_attn_row(k_next, j, a->k_bytes) + a->k_bytes * (size_t)c / (size_t)a->d_v,
                  a->k_bytes * (size_t)w / (size_t)a->d_v);
        if (!as_is)
            gather_panel(t, a, v, c, w, j0, j1);
        else if (a->v_type == TTX_F16)
            gather_tile(4, TTX_F16, t, from, c);
        else
            gather_tile(4, TTX_F32, t, from, c);
    }
}

/* ---- chunks ---- */

static void load_queries(tile *t, const ttx_attn *a, int64_t q0, int64_t n) {
    t->n = n;
    for (int64_t i = 0; i < n; i++) {
        float *q = t->q + i * t->ldk;
        if (a->d_k % 8 != 0) _mm256_storeu_ps(q + a->d_k / 8 * 8, _mm256_setzero_ps());
        memcpy(q, a->q + (q0 + i) * a->ldq, sizeof *q * (size_t)a->d_k);
    }
}

/* The block that starts at position `base`; `more`: the next one of the chunk comes after it. */
static void run_block(tile *t, const ttx_attn *a, int64_t base, bool more) {
    int64_t j0 = BLOCK, j1 = 0;
    for (int64_t i = 0; i < t->n; i++) {
        t->lo[i] = ttx_attn_clamp(t->start[i] - base, 0, BLOCK);
        t->hi[i] = ttx_attn_clamp(t->end[i] - base, 0, BLOCK);
        if (t->lo[i] >= t->hi[i]) continue;
        if (t->lo[i] < j0) j0 = t->lo[i];
        if (t->hi[i] > j1) j1 = t->hi[i];
    }
    if (j0 >= j1) return;
    size_t chunk = (size_t)(base / TTX_ATTN_CHUNK);
    const uint8_t *k = ttx_attn_row(a->k + chunk * a->k_chunk, base % TTX_ATTN_CHUNK, a->k_bytes);
    const uint8_t *v = ttx_attn_row(a->v + chunk * a->v_chunk, base % TTX_ATTN_CHUNK, a->v_bytes);
    score_block(t, a, k, v, j0, j1);
    for (int64_t i = 0; i < t->n; i++) weigh_block(t, i, a->scale, a->softcap);
    gather_block(t, a, v, more ? ttx_attn_row(k, BLOCK, a->k_bytes) : NULL, j0, j1);
}

/* State (acc, m, l) of the tile's queries, whose first is q0, over one chunk. */
static void run_chunk(tile *t, const ttx_attn *a, int64_t q0, int64_t chunk) {
    int64_t base = chunk * TTX_ATTN_CHUNK, first = base + TTX_ATTN_CHUNK, last = base;
    for (int64_t i = 0; i < t->n; i++) {
        t->start[i] = ttx_attn_clamp(a->start[q0 + i], base, base + TTX_ATTN_CHUNK);
        t->end[i] = ttx_attn_clamp(a->end[q0 + i], t->start[i], base + TTX_ATTN_CHUNK);
        t->m[i] = -INFINITY;
        t->l[i] = 0;
        memset(t->acc + i * t->ldv, 0, sizeof *t->acc * (size_t)((a->d_v + 7) / 8 * 8));
        if (t->start[i] == t->end[i]) continue;
        if (t->start[i] < first) first = t->start[i];
        if (t->end[i] > last) last = t->end[i];
    }
    for (int64_t b = first / BLOCK * BLOCK; b < last; b += BLOCK)
        run_block(t, a, b, b + BLOCK < last);
}

/* ---- merging ---- */

INLINE __m256 load(const float *p, int64_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, ttx_mask8(n));
}

INLINE void store(float *p, __m256 x, int64_t n) {
    if (n >= 8)
        _mm256_storeu_ps(p, x);
    else
        _mm256_maskstore_ps(p, ttx_mask8(n), x);
}

static void scale_add(float *out, float a, const float *acc, float b, int64_t d) {
    const __m256 va = _mm256_set1_ps(a), vb = _mm256_set1_ps(b);
    for (int64_t c = 0; c < d; c += 8) {
        __m256 x = _mm256_mul_ps(load(out + c, d - c), va);
        store(out + c, _mm256_fmadd_ps(load(acc + c, d - c), vb, x), d - c);
    }
}

static void divide(float *out, float l, int64_t d) {
    const __m256 vl = _mm256_set1_ps(l);
    for (int64_t c = 0; c < d; c += 8)
        store(out + c, _mm256_div_ps(load(out + c, d - c), vl), d - c);
}

#include "attn_tiles_int.h"

void ttx_attn_avx2_init(ttx_kernels *k) {
    k->attention = attention;
    k->attention_chunk = attention_chunk;
    k->attention_merge = attention_merge;
}
