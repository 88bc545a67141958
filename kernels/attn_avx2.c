/* attn_avx2.c -- attention over the KV cache with AVX2, FMA and F16C.
 *
 * A tile of queries meets a block of 64 positions at a time, inside a chunk: K of the block is
 * unpacked to F32 once (F32 caches are read where they lie), the scores of several queries x four
 * keys are dot products held in registers, the softmax is the online one (Milakov and Gimelshein,
 * arXiv:1805.02867), and several queries x several vectors of columns gather the values.
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
#include "blocks.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { TILE = TTX_ATTN_TILE, BLOCK = TTX_ATTN_BLOCK, MAX_COLS = 8 };

/* The queries in work and their state; lives at the start of the scratch. */
typedef struct tile {
    float s[TILE][BLOCK];              /* scores of a block, then weights */
    float m[TILE], l[TILE], fix[TILE]; /* running maximum and sum; rescaling of this block */
    int32_t start[TILE], end[TILE];    /* range of each query, relative to the chunk */
    int32_t lo[TILE], hi[TILE];        /* and to the block, clipped to it */
    float *q, *acc, *k_room, *v_room;  /* rows ttx_attn_ld() floats apart; then BLOCK rows */
    int64_t n, ldk, ldv;               /* queries; row distances in scratch */
} tile;

/* Rows of a block as F32. */
typedef struct rows {
    const float *p;
    int64_t ld;
} rows;

static tile *tile_open(const ttx_attn *a, void *scratch) {
    tile *t = scratch;
    t->ldk = ttx_attn_ld(a->d_k);
    t->ldv = ttx_attn_ld(a->d_v);
    t->q = (float *)scratch + (sizeof *t + 63) / 64 * 16;
    t->acc = t->q + TILE * t->ldk;
    t->k_room = t->acc + TILE * t->ldv;
    t->v_room = t->k_room + BLOCK * t->ldk;
    return t;
}

/* ---- unpacking ---- */

static void unpack_f32(float *dst, const uint8_t *src, int64_t n) {
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void unpack_f16(float *dst, const uint8_t *src, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(src + 2 * i))));
    if (i < n) {
        __m128i tail = _mm_setzero_si128();
        memcpy(&tail, src + 2 * i, 2 * (size_t)(n - i));
        _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(tail));
    }
}

static void unpack_q8_0(float *dst, const uint8_t *src, int64_t n) {
    const ttx_q8_0 *b = (const ttx_q8_0 *)src;
    for (int64_t i = 0; i < n; i += 32, b++) {
        __m256 d = _mm256_set1_ps(_cvtsh_ss(b->d));
        for (int64_t j = 0; j < 32; j += 8) {
            __m128i q = _mm_loadl_epi64((const __m128i *)(b->qs + j));
            __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q));
            _mm256_storeu_ps(dst + i + j, _mm256_mul_ps(x, d));
        }
    }
}

/* Rows [j0, j1) of a block whose row 0 is at src, with zeros up to a whole vector. */
static rows unpack_rows(float *room, int64_t ld, const uint8_t *src, size_t row_bytes, int64_t j0,
                        int64_t j1, int64_t d, ttx_dtype type) {
    if (type == TTX_F32 && d % 8 == 0 && row_bytes % sizeof(float) == 0)
        return (rows){(const float *)(const void *)src, (int64_t)(row_bytes / sizeof(float))};
    for (int64_t j = j0; j < j1; j++) {
        float *dst = room + j * ld;
        const uint8_t *row = src + (size_t)j * row_bytes;
        if (d % 8 != 0) _mm256_storeu_ps(dst + d / 8 * 8, _mm256_setzero_ps());
        if (type == TTX_F16)
            unpack_f16(dst, row, d);
        else if (type == TTX_Q8_0)
            unpack_q8_0(dst, row, d);
        else
            unpack_f32(dst, row, d);
    }
    return (rows){room, ld};
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

/* s[i][0..4) = q[i] . k[0..4) for n_q (a constant) queries. */
INLINE void dots(int n_q, float *s, const float *q, int64_t ldq, const float *const k[4],
                 int64_t d) {
    __m256 sum[3][4];
    for (int i = 0; i < n_q; i++)
        for (int j = 0; j < 4; j++) sum[i][j] = _mm256_setzero_ps();
    for (int64_t c = 0; c < d; c += 8) {
        __m256 x[3];
        for (int i = 0; i < n_q; i++) x[i] = _mm256_loadu_ps(q + i * ldq + c);
        for (int j = 0; j < 4; j++) {
            __m256 y = _mm256_loadu_ps(k[j] + c);
            for (int i = 0; i < n_q; i++) sum[i][j] = _mm256_fmadd_ps(x[i], y, sum[i][j]);
        }
    }
    for (int i = 0; i < n_q; i++)
        _mm_storeu_ps(s + i * BLOCK, sum_lanes(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
}

/* Scores of the keys [j0, j1) of the block for every query that sees some of them. Keys are taken
 * by four from multiples of four; beyond the ends of [j0, j1) an end is read again. */
static void score_block(tile *t, rows k, int64_t j0, int64_t j1, int64_t d) {
    int64_t from[TILE / 3 + 1], to[TILE / 3 + 1];
    for (int64_t i = 0; i < t->n; i++) {
        int64_t g = i / 3;
        if (i % 3 == 0) from[g] = BLOCK, to[g] = 0;
        if (t->lo[i] < t->hi[i]) {
            if (t->lo[i] < from[g]) from[g] = t->lo[i];
            if (t->hi[i] > to[g]) to[g] = t->hi[i];
        }
    }
    for (int64_t j = j0 / 4 * 4; j < j1; j += 4) {
        const float *key[4];
        for (int64_t i = 0; i < 4; i++) {
            int64_t r = j + i < j0 ? j0 : j + i >= j1 ? j1 - 1 : j + i;
            key[i] = k.p + r * k.ld;
        }
        for (int64_t i = 0; i < t->n; i += 3) {
            if (j + 4 <= from[i / 3] || j >= to[i / 3]) continue;
            const float *q = t->q + i * t->ldk;
            if (t->n - i >= 3)
                dots(3, &t->s[i][j], q, t->ldk, key, d);
            else if (t->n - i == 2)
                dots(2, &t->s[i][j], q, t->ldk, key, d);
            else
                dots(1, &t->s[i][j], q, t->ldk, key, d);
        }
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
    t->fix[i] = m == t->m[i] ? 1 : exp1(t->m[i] - m);
    t->l[i] = t->l[i] * t->fix[i] + _mm_cvtss_f32(total);
    t->m[i] = m;
}

/* ---- values ---- */

/* acc[i] = acc[i] * fix[i] + sum over j in [j0, j1) of s[i][j] * v[j], for n_q queries from i0 and
 * 8 * n_v columns from c (n_q and n_v are constants). */
INLINE void gather(int n_q, int n_v, tile *t, int64_t i0, int64_t c, rows v, int64_t j0,
                   int64_t j1) {
    __m256 sum[6][MAX_COLS];
    for (int i = 0; i < n_q; i++)
        for (int b = 0; b < n_v; b++) sum[i][b] = _mm256_setzero_ps();
    for (int64_t j = j0; j < j1; j++) {
        const float *row = v.p + j * v.ld + c;
        __m256 y[MAX_COLS];
        if (n_q > 1)
            for (int b = 0; b < n_v; b++) y[b] = _mm256_loadu_ps(row + 8 * b);
        for (int i = 0; i < n_q; i++) {
            __m256 w = _mm256_broadcast_ss(&t->s[i0 + i][j]);
            for (int b = 0; b < n_v; b++)
                sum[i][b] =
                    _mm256_fmadd_ps(w, n_q > 1 ? y[b] : _mm256_loadu_ps(row + 8 * b), sum[i][b]);
        }
    }
    for (int i = 0; i < n_q; i++) {
        __m256 fix = _mm256_set1_ps(t->fix[i0 + i]);
        float *acc = t->acc + (i0 + i) * t->ldv + c;
        for (int b = 0; b < n_v; b++)
            _mm256_storeu_ps(acc + 8 * b,
                             _mm256_fmadd_ps(_mm256_loadu_ps(acc + 8 * b), fix, sum[i][b]));
    }
}

/* All columns of n_q queries with the same range, n_v vectors at a time. */
INLINE void gather_all(int n_q, int n_v, tile *t, int64_t i, rows v, int64_t d) {
    int64_t c = 0;
    for (; c + 8 * n_v <= d; c += 8 * n_v) gather(n_q, n_v, t, i, c, v, t->lo[i], t->hi[i]);
    for (; c < d; c += 8) gather(n_q, 1, t, i, c, v, t->lo[i], t->hi[i]);
}

static void gather_block(tile *t, rows v, int64_t d) {
    d = (d + 7) / 8 * 8;
    for (int64_t i = 0, run; i < t->n; i += run) {
        for (run = 1; run < 6 && i + run < t->n; run++)
            if (t->lo[i + run] != t->lo[i] || t->hi[i + run] != t->hi[i]) break;
        if (t->lo[i] >= t->hi[i]) continue;
        if (run == 6)
            gather_all(6, 2, t, i, v, d);
        else if (run >= 4)
            gather_all(run = 4, 3, t, i, v, d);
        else if (run >= 2)
            gather_all(run = 2, 4, t, i, v, d);
        else
            gather_all(1, MAX_COLS, t, i, v, d);
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

static int32_t clamp(int64_t x, int64_t lo, int64_t hi) {
    return (int32_t)(x < lo ? lo : x > hi ? hi : x);
}

/* The block that starts at position `base`. */
static void run_block(tile *t, const ttx_attn *a, int64_t base) {
    int64_t d8 = (a->d_k + 7) / 8 * 8, j0 = BLOCK, j1 = 0;
    for (int64_t i = 0; i < t->n; i++) {
        t->lo[i] = clamp(t->start[i] - base, 0, BLOCK);
        t->hi[i] = clamp(t->end[i] - base, 0, BLOCK);
        if (t->lo[i] >= t->hi[i]) continue;
        if (t->lo[i] < j0) j0 = t->lo[i];
        if (t->hi[i] > j1) j1 = t->hi[i];
    }
    if (j0 >= j1) return;
    rows k = unpack_rows(t->k_room, t->ldk, a->k + (size_t)base * a->k_bytes, a->k_bytes, j0, j1,
                         a->d_k, a->k_type);
    score_block(t, k, j0, j1, d8);
    for (int64_t i = 0; i < t->n; i++)
        if (t->lo[i] < t->hi[i]) weigh_block(t, i, a->scale, a->softcap);
    rows v = unpack_rows(t->v_room, t->ldv, a->v + (size_t)base * a->v_bytes, a->v_bytes, j0, j1,
                         a->d_v, a->v_type);
    gather_block(t, v, a->d_v);
}

/* State (acc, m, l) of the tile's queries, whose first is q0, over one chunk. */
static void run_chunk(tile *t, const ttx_attn *a, int64_t q0, int64_t chunk) {
    int64_t base = chunk * TTX_ATTN_CHUNK, first = base + TTX_ATTN_CHUNK, last = base;
    for (int64_t i = 0; i < t->n; i++) {
        t->start[i] = clamp(a->start[q0 + i], base, base + TTX_ATTN_CHUNK);
        t->end[i] = clamp(a->end[q0 + i], t->start[i], base + TTX_ATTN_CHUNK);
        t->m[i] = -INFINITY;
        t->l[i] = 0;
        memset(t->acc + i * t->ldv, 0, sizeof *t->acc * (size_t)((a->d_v + 7) / 8 * 8));
        if (t->start[i] == t->end[i]) continue;
        if (t->start[i] < first) first = t->start[i];
        if (t->end[i] > last) last = t->end[i];
    }
    for (int64_t b = first / BLOCK * BLOCK; b < last; b += BLOCK) run_block(t, a, b);
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

/* Adds the state of the next chunk to (out, m, l). An empty state, on either side, costs no bit. */
static void absorb(float *out, float *m, float *l, const float *acc, float pm, float pl,
                   int64_t d) {
    if (pl == 0) return;
    float top = pm > *m ? pm : *m, a = *l == 0 ? 0 : exp1(*m - top), b = exp1(pm - top);
    const __m256 va = _mm256_set1_ps(a), vb = _mm256_set1_ps(b);
    for (int64_t c = 0; c < d; c += 8) {
        __m256 x = _mm256_mul_ps(load(out + c, d - c), va);
        store(out + c, _mm256_fmadd_ps(load(acc + c, d - c), vb, x), d - c);
    }
    *l = *l * a + pl * b;
    *m = top;
}

/* Divides by the sum, in which the sink takes part. */
static void finish(float *out, float m, float l, const float *sink, int64_t d) {
    if (l == 0) return;
    float a = 1;
    if (sink) {
        float top = *sink > m ? *sink : m;
        a = exp1(m - top);
        l = l * a + exp1(*sink - top);
    }
    const __m256 va = _mm256_set1_ps(a), vl = _mm256_set1_ps(l);
    for (int64_t c = 0; c < d; c += 8)
        store(out + c, _mm256_div_ps(_mm256_mul_ps(load(out + c, d - c), va), vl), d - c);
}

static int64_t tile_size(const ttx_attn *a, int64_t q0) {
    return a->n_q - q0 < TILE ? a->n_q - q0 : TILE;
}

static void attention_chunk(const ttx_attn *a, int64_t chunk, float *part, void *scratch) {
    tile *t = tile_open(a, scratch);
    for (int64_t q0 = 0; q0 < a->n_q; q0 += TILE) {
        load_queries(t, a, q0, tile_size(a, q0));
        run_chunk(t, a, q0, chunk);
        for (int64_t i = 0; i < t->n; i++, part += ttx_attn_part_len(a->d_v)) {
            memcpy(part, t->acc + i * t->ldv, sizeof *part * (size_t)a->d_v);
            part[a->d_v] = t->m[i];
            part[a->d_v + 1] = t->l[i];
        }
    }
}

static void attention_merge(const ttx_attn *a, const float *part, int64_t n_chunk) {
    int64_t d = a->d_v, len = ttx_attn_part_len(d);
    for (int64_t i = 0; i < a->n_q; i++) {
        float *out = a->out + i * a->ldo, m = -INFINITY, l = 0;
        memset(out, 0, sizeof *out * (size_t)d);
        for (int64_t c = 0; c < n_chunk; c++) {
            const float *p = part + (c * a->n_q + i) * len;
            absorb(out, &m, &l, p, p[d], p[d + 1], d);
        }
        finish(out, m, l, a->sink ? a->sink + i : NULL, d);
    }
}

/* As attention_chunk for every chunk and attention_merge, without room for all the parts. */
static void attention(const ttx_attn *a, void *scratch) {
    tile *t = tile_open(a, scratch);
    float m[TILE], l[TILE];
    for (int64_t q0 = 0; q0 < a->n_q; q0 += TILE) {
        int64_t from = INT64_MAX, to = 0;
        load_queries(t, a, q0, tile_size(a, q0));
        for (int64_t i = 0; i < t->n; i++) {
            m[i] = -INFINITY;
            l[i] = 0;
            memset(a->out + (q0 + i) * a->ldo, 0, sizeof(float) * (size_t)a->d_v);
            if (a->start[q0 + i] < from) from = a->start[q0 + i];
            if (a->end[q0 + i] > to) to = a->end[q0 + i];
        }
        for (int64_t c = from / TTX_ATTN_CHUNK; c * TTX_ATTN_CHUNK < to; c++) {
            run_chunk(t, a, q0, c);
            for (int64_t i = 0; i < t->n; i++)
                absorb(a->out + (q0 + i) * a->ldo, &m[i], &l[i], t->acc + i * t->ldv, t->m[i],
                       t->l[i], a->d_v);
        }
        for (int64_t i = 0; i < t->n; i++)
            finish(a->out + (q0 + i) * a->ldo, m[i], l[i], a->sink ? a->sink + q0 + i : NULL,
                   a->d_v);
    }
}

void ttx_attn_avx2_init(ttx_kernels *k) {
    k->attention = attention;
    k->attention_chunk = attention_chunk;
    k->attention_merge = attention_merge;
}
