/* attn_scalar.c -- attention over the KV cache: the reference version.
 *
 * Softmax over a chunk of positions at a time: scores, maximum, exponentials, weighted sum of the
 * values, with sums in double; then the chunks are merged. Milakov and Gimelshein,
 * arXiv:1805.02867 (softmax in parts); Dao et al., arXiv:2205.14135 (attention without the score
 * matrix). A row of K or V is unpacked once for all queries of a tile; nothing else is tuned.
 */
#include "attn_int.h"

#include "quant_blocks.h"
#include "half.h"
#include "scalar_math.h"

#include <math.h>

/* What a tile of queries needs of the scratch, apart from one row. */
typedef struct tile {
    float s[TTX_ATTN_TILE][TTX_ATTN_CHUNK]; /* scores, then probabilities */
    float m[TTX_ATTN_TILE], l[TTX_ATTN_TILE];
} tile;

size_t ttx_attn_scratch(int64_t d_k, int64_t d_v) {
    int64_t lk = ttx_attn_ld(d_k), lv = ttx_attn_ld(d_v), d = d_k > d_v ? d_k : d_v;
    size_t scalar = sizeof(tile) + sizeof(float) * (size_t)(d + TTX_ATTN_TILE * (d_v + 2)) +
                    sizeof(double) * (size_t)(TTX_ATTN_TILE * d_v);
    /* attn_avx2.c, attn_avx512.c: queries and results of a tile, four keys, the tile's own state */
    size_t vector =
        sizeof(float) * (size_t)((TTX_ATTN_TILE + 4) * lk + TTX_ATTN_TILE * lv +
                                 TTX_ATTN_TILE * (TTX_ATTN_CHUNK + 24) + TTX_ATTN_BLOCK * 64 + 64);
    return ((scalar > vector ? scalar : vector) + 63) / 64 * 64;
}

static void unpack(float *dst, const uint8_t *src, int64_t n, ttx_dtype type) {
    if (type == TTX_F32) memcpy(dst, src, (size_t)n * sizeof *dst);
    if (type == TTX_F16)
        for (int64_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, src + 2 * i, sizeof h);
            dst[i] = ttx_f16_to_f32(h);
        }
    if (type == TTX_Q8_0)
        for (int64_t i = 0; i < n; i++) {
            const ttx_q8_0 *b = (const ttx_q8_0 *)src + i / 32;
            dst[i] = ttx_f16_to_f32(b->d) * b->qs[i % 32];
        }
}

static float score(const ttx_attn *a, const float *q, const float *k) {
    double dot = 0;
    for (int64_t i = 0; i < a->d_k; i++) dot += (double)q[i] * k[i];
    float s = (float)dot * a->scale;
    return a->softcap > 0 ? a->softcap * (float)ttx_tanh(s / a->softcap) : s;
}

/* Scores to exp(score - maximum), which is returned; the sum goes to *l. */
static float exponentials(float *s, int64_t n, float *l) {
    float m = -INFINITY;
    double sum = 0;
    for (int64_t j = 0; j < n; j++) m = s[j] > m ? s[j] : m;
    for (int64_t j = 0; j < n; j++) {
        s[j] = (float)ttx_exp((double)s[j] - m);
        sum += s[j];
    }
    *l = (float)sum;
    return m;
}

static int64_t clamp(int64_t x, int64_t lo, int64_t hi) {
    return x < lo ? lo : x > hi ? hi : x;
}

/* The parts of the queries [q0, q0 + n) over one chunk. */
static void chunk_tile(const ttx_attn *a, int64_t q0, int64_t n, int64_t chunk, float *part,
                       void *scratch) {
    tile *t = scratch;
    double *acc = (double *)(t + 1);
    float *row = (float *)(acc + TTX_ATTN_TILE * a->d_v);
    int64_t base = chunk * TTX_ATTN_CHUNK, len = ttx_attn_part_len(a->d_v);
    const uint8_t *k = a->k + (size_t)chunk * a->k_chunk, *v = a->v + (size_t)chunk * a->v_chunk;
    int64_t lo[TTX_ATTN_TILE], hi[TTX_ATTN_TILE], first = TTX_ATTN_CHUNK, last = 0;
    for (int64_t i = 0; i < n; i++) {
        lo[i] = clamp(a->start[q0 + i] - base, 0, TTX_ATTN_CHUNK);
        hi[i] = clamp(a->end[q0 + i] - base, lo[i], TTX_ATTN_CHUNK);
        if (lo[i] < hi[i] && lo[i] < first) first = lo[i];
        if (lo[i] < hi[i] && hi[i] > last) last = hi[i];
    }
    for (int64_t j = first; j < last; j++) {
        unpack(row, k + (size_t)j * a->k_bytes, a->d_k, a->k_type);
        for (int64_t i = 0; i < n; i++)
            if (lo[i] <= j && j < hi[i]) t->s[i][j] = score(a, a->q + (q0 + i) * a->ldq, row);
    }
    for (int64_t i = 0; i < n; i++)
        t->m[i] = exponentials(t->s[i] + lo[i], hi[i] - lo[i], &t->l[i]);
    memset(acc, 0, sizeof *acc * (size_t)(n * a->d_v));
    for (int64_t j = first; j < last; j++) {
        unpack(row, v + (size_t)j * a->v_bytes, a->d_v, a->v_type);
        for (int64_t i = 0; i < n; i++)
            if (lo[i] <= j && j < hi[i])
                for (int64_t c = 0; c < a->d_v; c++)
                    acc[i * a->d_v + c] += (double)t->s[i][j] * row[c];
    }
    for (int64_t i = 0; i < n; i++, part += len) {
        for (int64_t c = 0; c < a->d_v; c++) part[c] = (float)acc[i * a->d_v + c];
        part[a->d_v] = t->m[i];
        part[a->d_v + 1] = t->l[i];
    }
}

/* Adds the next chunk's part to (out, m, l). An empty part, or an empty state, costs no bit. */
static void absorb(float *out, float *m, float *l, const float *part, int64_t d_v) {
    float pm = part[d_v], pl = part[d_v + 1];
    if (pl == 0) return;
    float top = pm > *m ? pm : *m;
    float a = *l == 0 ? 0 : (float)ttx_exp((double)*m - top);
    float b = (float)ttx_exp((double)pm - top);
    for (int64_t c = 0; c < d_v; c++) out[c] = out[c] * a + part[c] * b;
    *l = *l * a + pl * b;
    *m = top;
}

/* Divides by the sum, in which the sink takes part; one that drowns everything makes it inf. */
static void finish(float *out, float m, float l, const float *sink, int64_t d_v) {
    if (l == 0) return;
    if (sink) l += (float)ttx_exp((double)*sink - m);
    for (int64_t c = 0; c < d_v; c++) out[c] /= l;
}

static void attention_chunk(const ttx_attn *a, int64_t chunk, float *part, void *scratch) {
    for (int64_t q0 = 0; q0 < a->n_q; q0 += TTX_ATTN_TILE) {
        int64_t n = a->n_q - q0 < TTX_ATTN_TILE ? a->n_q - q0 : TTX_ATTN_TILE;
        chunk_tile(a, q0, n, chunk, part + q0 * ttx_attn_part_len(a->d_v), scratch);
    }
}

static void attention_merge(const ttx_attn *a, const float *part, int64_t n_chunk) {
    int64_t len = ttx_attn_part_len(a->d_v);
    for (int64_t i = 0; i < a->n_q; i++) {
        float *out = a->out + i * a->ldo, m = -INFINITY, l = 0;
        memset(out, 0, sizeof *out * (size_t)a->d_v);
        for (int64_t c = 0; c < n_chunk; c++)
            absorb(out, &m, &l, part + (c * a->n_q + i) * len, a->d_v);
        finish(out, m, l, a->sink ? a->sink + i : NULL, a->d_v);
    }
}

/* As attention_chunk for every chunk and attention_merge, without room for all the parts. */
static void attention(const ttx_attn *a, void *scratch) {
    int64_t len = ttx_attn_part_len(a->d_v);
    int64_t d = a->d_k > a->d_v ? a->d_k : a->d_v;
    float *part = (float *)((double *)((tile *)scratch + 1) + TTX_ATTN_TILE * a->d_v) + d;
    for (int64_t q0 = 0; q0 < a->n_q; q0 += TTX_ATTN_TILE) {
        int64_t n = a->n_q - q0 < TTX_ATTN_TILE ? a->n_q - q0 : TTX_ATTN_TILE;
        float m[TTX_ATTN_TILE], l[TTX_ATTN_TILE];
        int64_t first = INT64_MAX, last = 0;
        for (int64_t i = 0; i < n; i++) {
            m[i] = -INFINITY;
            l[i] = 0;
            memset(a->out + (q0 + i) * a->ldo, 0, sizeof(float) * (size_t)a->d_v);
            if (a->start[q0 + i] < first) first = a->start[q0 + i];
            if (a->end[q0 + i] > last) last = a->end[q0 + i];
        }
        for (int64_t c = first / TTX_ATTN_CHUNK; c * TTX_ATTN_CHUNK < last; c++) {
            chunk_tile(a, q0, n, c, part, scratch);
            for (int64_t i = 0; i < n; i++)
                absorb(a->out + (q0 + i) * a->ldo, &m[i], &l[i], part + i * len, a->d_v);
        }
        for (int64_t i = 0; i < n; i++)
            finish(a->out + (q0 + i) * a->ldo, m[i], l[i], a->sink ? a->sink + q0 + i : NULL,
                   a->d_v);
    }
}

void ttx_attn_scalar_init(ttx_kernels *k) {
    k->attention = attention;
    k->attention_chunk = attention_chunk;
    k->attention_merge = attention_merge;
}
