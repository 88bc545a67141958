/* attn_tiles_int.h -- the part of attention that the vector levels have in common: which tile of
 * queries meets which chunk, and how chunks are merged.
 *
 * Included once, at the end of an attn_LEVEL.c, so that it is built with that level's flags. The
 * file defines before it:
 *   tile                                    state of the queries in work, the start of the scratch;
 *                                           with m, l, q, acc, keys, n, ldk, ldv
 *   load_queries(t, a, q0, n)               takes the queries [q0, q0 + n)
 *   run_chunk(t, a, q0, chunk)              their acc, m and l over one chunk
 *   exp1(x)                                 e^x of one value
 *   scale_add(out, va, acc, vb, d)          out = out * va + acc * vb, fused
 *   divide(out, l, d)                       out = out / l
 */
#ifndef TTX_ATTN_TILES_INT_H
#define TTX_ATTN_TILES_INT_H

#include "attn_int.h"

#include <math.h>
#include <string.h>

static tile *tile_open(const ttx_attn *a, void *scratch) {
    tile *t = scratch;
    t->ldk = ttx_attn_ld(a->d_k);
    t->ldv = ttx_attn_ld(a->d_v);
    t->q = (float *)scratch + (sizeof *t + 63) / 64 * 16;
    t->acc = t->q + TTX_ATTN_TILE * t->ldk;
    t->keys = t->acc + TTX_ATTN_TILE * t->ldv;
    return t;
}

/* Adds the state of the next chunk to (out, m, l). An empty state, on either side, costs no bit. */
static void absorb(float *out, float *m, float *l, const float *acc, float pm, float pl,
                   int64_t d) {
    if (pl == 0) return;
    float top = pm > *m ? pm : *m, a = *l == 0 ? 0 : exp1(*m - top), b = exp1(pm - top);
    scale_add(out, a, acc, b, d);
    *l = *l * a + pl * b;
    *m = top;
}

/* Divides by the sum, in which the sink takes part; one that drowns everything makes it inf. */
static void finish(float *out, float m, float l, const float *sink, int64_t d) {
    if (l == 0) return;
    if (sink) l += exp1(*sink - m);
    divide(out, l, d);
}

static int64_t tile_size(const ttx_attn *a, int64_t q0) {
    return a->n_q - q0 < TTX_ATTN_TILE ? a->n_q - q0 : TTX_ATTN_TILE;
}

static void attention_chunk(const ttx_attn *a, int64_t chunk, float *part, void *scratch) {
    tile *t = tile_open(a, scratch);
    for (int64_t q0 = 0; q0 < a->n_q; q0 += TTX_ATTN_TILE) {
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
    float m[TTX_ATTN_TILE], l[TTX_ATTN_TILE];
    for (int64_t q0 = 0; q0 < a->n_q; q0 += TTX_ATTN_TILE) {
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

#endif
