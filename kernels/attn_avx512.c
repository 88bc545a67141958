/* attn_avx512.c -- attention over the KV cache with AVX-512.
 *
 * A tile of queries meets a chunk of positions in three passes, each of which reads a long run of
 * memory once: scores (four keys meet all queries, six at a time, as dot products held in
 * registers), softmax over the whole chunk, values (six queries at a time gather 64 columns).
 * Milakov and Gimelshein, arXiv:1805.02867 (softmax in parts). F16 is converted on the way into a
 * register, which costs less than to store what was converted and read it back; so is Q8_0 for few
 * queries. For many, and where rows are not whole vectors, it is unpacked once for the whole tile.
 *
 * Why the bits of a query do not depend on its company: a score is sixteen lanes over d_k, added
 * across in one fixed order, whichever register tile it was in. A column of the result is, per
 * block of 64 positions (at multiples of 64 from position 0), a sum over the positions of the
 * query's own range in ascending order, starting from zero, then added to that of the blocks
 * before. Positions outside the range are not multiplied by a zero weight, they do not take part,
 * so what other queries see (an inf, say) cannot leak in.
 */
#include "attn_int.h"

#include "avx512_math.h"
#include "quant_blocks.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
/* For loops over registers, so that an array of them becomes registers. Clang does it unasked (and
 * too late when asked). */
#ifdef __clang__
#define UNROLL
#else
#define UNROLL _Pragma("GCC unroll 6")
#endif

enum { TILE = TTX_ATTN_TILE, BLOCK = TTX_ATTN_BLOCK, CHUNK = TTX_ATTN_CHUNK };
enum { KEYS = 4, PANEL = 64, GROUP = 6, AHEAD = 8192 /* bytes to fetch ahead */ };

/* The queries in work and their state; lives at the start of the scratch. */
typedef struct tile {
    float s[TILE][CHUNK + 16];  /* scores of a chunk, then weights */
    float panel[BLOCK][PANEL];  /* columns of V, if they are unpacked */
    float m[TILE], l[TILE];     /* maximum and sum */
    int32_t lo[TILE], hi[TILE]; /* what each query sees of the chunk */
    float *q, *acc, *keys;      /* rows of ldk, ldv and ldk (unpacked K) floats */
    int64_t n, ldk, ldv;        /* n queries */
} tile;

/* K and V of a chunk are long runs of memory. The hardware's prefetcher loses them at the end of
 * every page, so that they are fetched far ahead, into the second-level cache. `next` is what is
 * read after `end`, or NULL. */
typedef struct stream {
    const uint8_t *end, *next;
} stream;

/* Fetches what is read AHEAD bytes after the `bytes` at p. */
INLINE void fetch(stream s, const uint8_t *p, size_t bytes) {
    p += AHEAD;
    if (p >= s.end) p = s.next ? s.next + (p - s.end) : NULL;
    for (size_t i = 0; p && i < bytes; i += 64) _mm_prefetch((const char *)(p + i), _MM_HINT_T1);
}

/* ---- unpacking ---- */

/* Sixteen values of a row from column c, a multiple of 16; the type is a constant. */
INLINE __m512 load16(ttx_dtype type, const uint8_t *row, int64_t c) {
    if (type == TTX_F32) return _mm512_loadu_ps(row + 4 * c);
    if (type == TTX_F16) return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(row + 2 * c)));
    const ttx_q8_0 *b = (const ttx_q8_0 *)row + c / 32;
    __m512i q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(b->qs + c % 32)));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(q), _mm512_cvtph_ps(_mm256_set1_epi16((int16_t)b->d)));
}

INLINE void unpack_as(ttx_dtype type, float *dst, const uint8_t *row, int64_t c, int64_t n) {
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(dst + i, load16(type, row, c + i));
    if (i == n) return;
    __mmask16 tail = ttx_mask16(n - i);
    __m512 x = type == TTX_F16 ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(tail, row + 2 * (c + i)))
                               : _mm512_maskz_loadu_ps(tail, row + 4 * (c + i));
    _mm512_storeu_ps(dst + i, x);
}

/* n values of a row from column c (a multiple of 16), with zeros up to a whole vector. */
static void unpack(float *dst, const uint8_t *row, int64_t c, int64_t n, ttx_dtype type) {
    if (type == TTX_F16)
        unpack_as(TTX_F16, dst, row, c, n);
    else if (type == TTX_Q8_0)
        unpack_as(TTX_Q8_0, dst, row, c, n);
    else
        unpack_as(TTX_F32, dst, row, c, n);
}

/* Whether rows of d elements are read as they lie, for n queries. */
static bool direct(ttx_dtype type, int64_t d, int64_t n) {
    return d % 16 == 0 && (type != TTX_Q8_0 || n <= GROUP);
}

/* Queries of the next group, of `left`: groups of nearly the same size. */
INLINE int64_t group_of(int64_t left) {
    int64_t groups = (left + GROUP - 1) / GROUP;
    return (left + groups - 1) / groups;
}

/* ---- scores ---- */

/* The sums of four vectors' lanes. */
INLINE __m128 sum_lanes(__m512 a, __m512 b, __m512 c, __m512 d) {
    __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    __m512 s = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
    __m256 h = _mm256_add_ps(_mm512_castps512_ps256(s), _mm512_extractf32x8_ps(s, 1));
    return _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
}

/* s[i][0..4) = q[i] . k[0..4) for n_q queries; d in whole vectors. n_q and type are constants. */
INLINE void dots(int n_q, ttx_dtype type, float *s, const float *q, int64_t ldq,
                 const uint8_t *const k[KEYS], int64_t d) {
    __m512 sum[GROUP][KEYS];
    UNROLL
    for (int i = 0; i < n_q; i++) {
        UNROLL
        for (int j = 0; j < KEYS; j++) sum[i][j] = _mm512_setzero_ps();
    }
    for (int64_t c = 0; c < d; c += 16) {
        __m512 y[KEYS];
        UNROLL
        for (int j = 0; j < KEYS; j++) y[j] = load16(type, k[j], c);
        UNROLL
        for (int i = 0; i < n_q; i++) {
            __m512 x = _mm512_loadu_ps(q + i * ldq + c);
            UNROLL
            for (int j = 0; j < KEYS; j++) sum[i][j] = _mm512_fmadd_ps(x, y[j], sum[i][j]);
        }
    }
    UNROLL
    for (int i = 0; i < n_q; i++)
        _mm_storeu_ps(s + i * (CHUNK + 16), sum_lanes(sum[i][0], sum[i][1], sum[i][2], sum[i][3]));
}

/* Scores of four keys, from position j of the chunk, for all queries. */
INLINE void dots_tile(ttx_dtype type, tile *t, int64_t j, const uint8_t *const k[KEYS], int64_t d) {
    for (int64_t i = 0, n; i < t->n; i += n) {
        float *s = &t->s[i][j];
        const float *q = t->q + i * t->ldk;
        switch (n = group_of(t->n - i)) {
        case 1: dots(1, type, s, q, t->ldk, k, d); break;
        case 2: dots(2, type, s, q, t->ldk, k, d); break;
        case 3: dots(3, type, s, q, t->ldk, k, d); break;
        case 4: dots(4, type, s, q, t->ldk, k, d); break;
        case 5: dots(5, type, s, q, t->ldk, k, d); break;
        default: dots(6, type, s, q, t->ldk, k, d);
        }
    }
}

/* Scores of the positions [j0, j1) of the chunk, whose keys start at k, for every query. Keys are
 * taken by four from multiples of four, an end of [j0, j1) being repeated beyond it; what is
 * computed outside a query's range is never read. */
INLINE void score_as(ttx_dtype type, tile *t, const ttx_attn *a, const uint8_t *k,
                     const uint8_t *next, bool as_is, int64_t j0, int64_t j1) {
    int64_t d = (a->d_k + 15) / 16 * 16;
    stream s = {ttx_attn_row(k, j1, a->k_bytes), next};
    for (int64_t j = j0 / KEYS * KEYS; j < j1; j += KEYS) {
        const uint8_t *key[KEYS];
        for (int64_t i = 0; i < KEYS; i++) {
            key[i] = ttx_attn_row(k, j + i < j0 ? j0 : j + i >= j1 ? j1 - 1 : j + i, a->k_bytes);
            if (as_is) continue;
            unpack(t->keys + i * t->ldk, key[i], 0, a->d_k, a->k_type);
        }
        fetch(s, key[0], KEYS * a->k_bytes);
        if (!as_is)
            for (int64_t i = 0; i < KEYS; i++) key[i] = (const uint8_t *)(t->keys + i * t->ldk);
        dots_tile(type, t, j, key, d);
    }
}

static void score_chunk(tile *t, const ttx_attn *a, const uint8_t *k, const uint8_t *next,
                        int64_t j0, int64_t j1) {
    if (!direct(a->k_type, a->d_k, t->n))
        score_as(TTX_F32, t, a, k, next, false, j0, j1);
    else if (a->k_type == TTX_F16)
        score_as(TTX_F16, t, a, k, next, true, j0, j1);
    else if (a->k_type == TTX_Q8_0)
        score_as(TTX_Q8_0, t, a, k, next, true, j0, j1);
    else
        score_as(TTX_F32, t, a, k, next, true, j0, j1);
}

/* ---- softmax ---- */

static float exp1(float x) {
    return _mm512_cvtss_f32(ttx_exp16(_mm512_set1_ps(x)));
}

/* Ones in the lanes of the vector at j that lie in [lo, hi). */
INLINE __mmask16 inside(int64_t j, int32_t lo, int32_t hi) {
    return ttx_mask16(hi - j) & (__mmask16)~ttx_mask16(lo - j);
}

/* Raw scores of query i to weights e^(score - maximum), and its m and l. */
static void weigh(tile *t, int64_t i, float scale, float cap) {
    float *s = t->s[i];
    int32_t lo = t->lo[i], hi = t->hi[i];
    __m512 top = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (int64_t j = lo / 16 * 16; j < hi; j += 16) {
        __mmask16 in = inside(j, lo, hi);
        __m512 x = _mm512_mul_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(scale));
        if (cap > 0) {
            const __m512 c = _mm512_set1_ps(cap);
            x = _mm512_mul_ps(c, ttx_tanh16(_mm512_div_ps(x, c)));
        }
        _mm512_storeu_ps(s + j, x);
        top = _mm512_mask_max_ps(top, in, x, top); /* a NaN leaves top as it is */
    }
    float m = _mm512_reduce_max_ps(top);
    for (int64_t j = lo / 16 * 16; j < hi; j += 16) {
        __m512 p = ttx_exp16(_mm512_sub_ps(_mm512_loadu_ps(s + j), _mm512_set1_ps(m)));
        _mm512_storeu_ps(s + j, p);
        sum = _mm512_mask_add_ps(sum, inside(j, lo, hi), sum, p);
    }
    t->l[i] = _mm512_reduce_add_ps(sum);
    t->m[i] = m;
}

/* ---- values ---- */

/* Rows from which values are gathered: those of the chunk, or the panel of the block at j = 0. */
typedef struct rows {
    const uint8_t *p;
    size_t row_bytes;
    int64_t c; /* the first column to read */
    bool far;  /* not in a cache */
    stream s;
} rows;

/* acc[i] += sum over j in the query's range and the block [b, b + 64) of s[i][j] * v[j], for n_q
 * queries from i0 and 16 * n_v columns, those from c of the result; v.p is the row of position b.
 * n_q, n_v and type are constants. */
INLINE void gather(int n_q, int n_v, ttx_dtype type, tile *t, int64_t i0, int64_t b, rows v,
                   int64_t c) {
    __m512 sum[GROUP][PANEL / 16];
    int32_t lo[GROUP], hi[GROUP], first = BLOCK, last = 0, from = 0, to = BLOCK;
    UNROLL
    for (int i = 0; i < n_q; i++) {
        int32_t l = t->lo[i0 + i] - (int32_t)b, h = t->hi[i0 + i] - (int32_t)b;
        lo[i] = l < 0 ? 0 : l;
        hi[i] = h > BLOCK ? BLOCK : h;
        first = lo[i] < first ? lo[i] : first; /* [first, last): what one of them sees */
        last = hi[i] > last ? hi[i] : last;
        from = lo[i] > from ? lo[i] : from; /* [from, to): what all of them see */
        to = hi[i] < to ? hi[i] : to;
        UNROLL
        for (int k = 0; k < n_v; k++) sum[i][k] = _mm512_setzero_ps();
    }
    if (from >= to) from = to = last;
    for (int64_t j = first; j < last;) {
        for (; j < last && (j < from || j >= to); j++) {
            const uint8_t *row = ttx_attn_row(v.p, j, v.row_bytes);
            UNROLL
            for (int k = 0; k < n_v; k++) {
                __m512 y = load16(type, row, v.c + 16 * k);
                UNROLL
                for (int i = 0; i < n_q; i++)
                    sum[i][k] =
                        _mm512_mask3_fmadd_ps(_mm512_set1_ps(t->s[i0 + i][b + j]), y, sum[i][k],
                                              (__mmask16) - (lo[i] <= j && j < hi[i]));
            }
        }
        for (; j < to; j++) {
            const uint8_t *row = ttx_attn_row(v.p, j, v.row_bytes);
            if (v.far) fetch(v.s, row, v.row_bytes);
            __m512 y[PANEL / 16];
            UNROLL
            for (int k = 0; k < n_v; k++) y[k] = load16(type, row, v.c + 16 * k);
            UNROLL
            for (int i = 0; i < n_q; i++) {
                __m512 w = _mm512_set1_ps(t->s[i0 + i][b + j]);
                UNROLL
                for (int k = 0; k < n_v; k++) sum[i][k] = _mm512_fmadd_ps(w, y[k], sum[i][k]);
            }
        }
    }
    UNROLL
    for (int i = 0; i < n_q; i++) {
        float *acc = t->acc + (i0 + i) * t->ldv + c;
        UNROLL
        for (int k = 0; k < n_v; k++)
            _mm512_storeu_ps(acc + 16 * k, _mm512_add_ps(_mm512_loadu_ps(acc + 16 * k), sum[i][k]));
    }
}

INLINE void gather_tile(int n_v, ttx_dtype type, tile *t, int64_t b, rows v, int64_t c) {
    for (int64_t i = 0, n; i < t->n; i += n) {
        switch (n = group_of(t->n - i)) {
        case 1: gather(1, n_v, type, t, i, b, v, c); break;
        case 2: gather(2, n_v, type, t, i, b, v, c); break;
        case 3: gather(3, n_v, type, t, i, b, v, c); break;
        case 4: gather(4, n_v, type, t, i, b, v, c); break;
        case 5: gather(5, n_v, type, t, i, b, v, c); break;
        default: gather(6, n_v, type, t, i, b, v, c);
        }
        v.far = false;
    }
}

/* Columns [c, c + w) of the block at b, as they lie (w = 64 or less) or unpacked on the way. */
INLINE void gather_columns(ttx_dtype type, tile *t, int64_t b, rows v, int64_t c, int64_t w) {
    if (w == PANEL) {
        gather_tile(PANEL / 16, type, t, b, v, c);
        return;
    }
    for (int64_t i = 0; i < w; i += 16, v.c += 16, v.far = false)
        gather_tile(1, type, t, b, v, c + i);
}

/* The values of the block at position b of the chunk, of which [j0, j1) is seen, to every query. */
static void gather_block(tile *t, const ttx_attn *a, const uint8_t *v, stream next, int64_t b,
                         int64_t j0, int64_t j1) {
    bool as_is = direct(a->v_type, a->d_v, t->n);
    j0 = j0 > b ? j0 : b;
    j1 = j1 < b + BLOCK ? j1 : b + BLOCK;
    for (int64_t c = 0; c < a->d_v; c += PANEL) {
        int64_t w = a->d_v - c < PANEL ? a->d_v - c : PANEL;
        rows from = {ttx_attn_row(v, b, a->v_bytes), a->v_bytes, c, c == 0, next};
        if (!as_is) {
            for (int64_t j = j0; j < j1; j++)
                unpack(t->panel[j - b], ttx_attn_row(v, j, a->v_bytes), c, w, a->v_type);
            from = (rows){(const uint8_t *)t->panel, sizeof t->panel[0], 0, false, next};
            gather_columns(TTX_F32, t, b, from, c, w);
        } else if (a->v_type == TTX_F16) {
            gather_columns(TTX_F16, t, b, from, c, w);
        } else if (a->v_type == TTX_Q8_0) {
            gather_columns(TTX_Q8_0, t, b, from, c, w);
        } else {
            gather_columns(TTX_F32, t, b, from, c, w);
        }
    }
}

/* ---- chunks ---- */

static void load_queries(tile *t, const ttx_attn *a, int64_t q0, int64_t n) {
    t->n = n;
    for (int64_t i = 0; i < n; i++)
        unpack_as(TTX_F32, t->q + i * t->ldk, (const uint8_t *)(a->q + (q0 + i) * a->ldq), 0,
                  a->d_k);
}

/* State (acc, m, l) of the tile's queries, whose first is q0, over one chunk. */
static void run_chunk(tile *t, const ttx_attn *a, int64_t q0, int64_t chunk) {
    int64_t base = chunk * CHUNK, j0 = CHUNK, j1 = 0;
    bool more = false;
    for (int64_t i = 0; i < t->n; i++) {
        int32_t lo = ttx_attn_clamp(a->start[q0 + i] - base, 0, CHUNK);
        int32_t hi = ttx_attn_clamp(a->end[q0 + i] - base, lo, CHUNK);
        t->lo[i] = lo;
        t->hi[i] = hi;
        memset(t->acc + i * t->ldv, 0, sizeof *t->acc * (size_t)((a->d_v + 15) / 16 * 16));
        if (lo == hi) continue;
        more |= a->end[q0 + i] > base + CHUNK;
        if (lo < j0) j0 = lo;
        if (hi > j1) j1 = hi;
    }
    const uint8_t *k = a->k + (size_t)chunk * a->k_chunk, *v = a->v + (size_t)chunk * a->v_chunk;
    stream s = {ttx_attn_row(v, j1, a->v_bytes), more ? k + a->k_chunk : NULL};
    if (j0 < j1) score_chunk(t, a, k, ttx_attn_row(v, j0, a->v_bytes), j0, j1);
    for (int64_t i = 0; i < t->n; i++) weigh(t, i, a->scale, a->softcap);
    for (int64_t b = j0 / BLOCK * BLOCK; b < j1; b += BLOCK) gather_block(t, a, v, s, b, j0, j1);
}

/* ---- merging ---- */

static void scale_add(float *out, float a, const float *acc, float b, int64_t d) {
    const __m512 va = _mm512_set1_ps(a), vb = _mm512_set1_ps(b);
    for (int64_t c = 0; c < d; c += 16) {
        __mmask16 in = ttx_mask16(d - c);
        __m512 x = _mm512_mul_ps(_mm512_maskz_loadu_ps(in, out + c), va);
        x = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(in, acc + c), vb, x);
        _mm512_mask_storeu_ps(out + c, in, x);
    }
}

static void divide(float *out, float l, int64_t d) {
    const __m512 vl = _mm512_set1_ps(l);
    for (int64_t c = 0; c < d; c += 16) {
        __mmask16 in = ttx_mask16(d - c);
        _mm512_mask_storeu_ps(out + c, in, _mm512_div_ps(_mm512_maskz_loadu_ps(in, out + c), vl));
    }
}

#include "attn_tiles_int.h"

void ttx_attn_avx512_init(ttx_kernels *k) {
    k->attention = attention;
    k->attention_chunk = attention_chunk;
    k->attention_merge = attention_merge;
}
