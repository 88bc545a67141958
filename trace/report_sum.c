/* report_sum.c -- sums over what the pass has counted: tensors from hot to cold, what pinning or a
 * cache of a size would save.
 */
#include "report_int.h"

#include <math.h>
#include <stdlib.h>

double rp_ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

/* ---- tensors ---- */

typedef struct ranked {
    uint64_t first, second;
    uint32_t index;
} ranked;

/* More first; then by index. */
static int by_rank(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->first != y->first) return x->first > y->first ? -1 : 1;
    if (x->second != y->second) return x->second > y->second ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void sum_objects(const ttx_report *r, rp_tensor_sum *v) {
    for (uint32_t i = 0; i < r->n_object; i++) {
        const rp_object *o = &r->objects[i];
        rp_tensor_sum *s = &v[o->tensor];
        s->reads += o->reads;
        s->read_bytes += o->read_bytes;
        s->device_reads += o->device_reads;
        s->device_bytes += o->device_bytes;
        s->minor += o->minor;
        s->major += o->major;
        for (int k = 0; k < TTX_RES_COUNT; k++) s->residency[k] += o->residency[k];
    }
    for (uint32_t i = 0; i < r->meta.n_file_tensor; i++) {
        const ttx_trace_tensor *t = &r->meta.tensors[i];
        uint64_t at = r->shard_at[t->shard] + t->offset;
        v[i].distinct = rp_io_distinct(&r->io, r->io.touched, at, t->size);
        v[i].read_distinct = rp_io_distinct(&r->io, r->io.read, at, t->size);
        if (r->io.device) v[i].device_distinct = rp_io_distinct(&r->io, r->io.device, at, t->size);
    }
}

static void sum_rows(const ttx_report *r, rp_tensor_sum *v) {
    for (uint32_t i = 0; i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        if (w->tensor == TTX_REC_NO_TENSOR) continue;
        rp_tensor_sum *s = &v[w->tensor];
        s->records += w->records;
        s->accesses += w->accesses;
        s->bytes += w->bytes;
        s->written += w->written;
        s->ns += w->ns;
        s->stall_ns += w->stall_ns;
    }
}

rp_tensor_sum *rp_tensor_sums(const ttx_report *r, ttx_hot_by by, uint32_t **order,
                              uint32_t *n_ranked) {
    uint32_t n = r->meta.n_file_tensor;
    rp_tensor_sum *v = calloc(r->meta.n_tensor + 1, sizeof *v);
    ranked *ranks = malloc((n + 1) * sizeof *ranks);
    *order = malloc((n + 1) * sizeof **order);
    if (!v || !ranks || !*order) {
        free(v);
        free(ranks);
        free(*order);
        *order = NULL;
        return NULL;
    }
    for (uint32_t i = 0; i < r->meta.n_tensor; i++) v[i].tensor = i;
    sum_rows(r, v);
    sum_objects(r, v);
    for (uint32_t i = 0; i < n; i++)
        ranks[i] = by == TTX_HOT_BY_BYTES ? (ranked){v[i].bytes, v[i].accesses, i}
                                          : (ranked){v[i].accesses, v[i].bytes, i};
    qsort(ranks, n, sizeof *ranks, by_rank);
    uint32_t hot = (n + 9) / 10, cold = n / 2;
    for (uint32_t i = 0; i < n; i++) {
        rp_tensor_sum *s = &v[ranks[i].index];
        s->rank = i;
        s->heat = i < hot ? 1 : i >= n - cold ? -1 : 0;
        (*order)[i] = ranks[i].index;
    }
    free(ranks);
    *n_ranked = n;
    return v;
}

/* ---- pinning and caching ---- */

uint32_t *rp_pin_order(const ttx_report *r, uint32_t *n) {
    ranked *ranks = malloc((r->n_object + 1) * sizeof *ranks);
    uint32_t *order = malloc((r->n_object + 1) * sizeof *order);
    *n = 0;
    if (ranks && order) {
        for (uint32_t i = 0; i < r->n_object; i++) {
            const rp_object *o = &r->objects[i];
            if (!o->accesses || !o->size) continue;
            /* Bytes that one pinned byte saves, times 2^16; then the smaller first. */
            uint64_t gain = (uint64_t)((double)o->bytes / (double)o->size * 65536);
            ranks[(*n)++] = (ranked){gain, UINT64_MAX - o->size, i};
        }
        qsort(ranks, *n, sizeof *ranks, by_rank);
        for (uint32_t i = 0; i < *n; i++) order[i] = ranks[i].index;
    } else {
        free(order);
        order = NULL;
    }
    free(ranks);
    return order;
}

/* Shares of accesses, and of their bytes, that an LRU cache of `size` bytes removes. */
static void lru_at(const ttx_report *r, double size, rp_cache_point *p) {
    const rp_reuse *u = &r->reuse;
    double n = 0, bytes = 0, all = (double)u->cold, all_bytes = (double)u->cold_bytes;
    for (uint32_t b = 0; b < RP_DISTANCES; b++) {
        all += (double)u->n[b];
        all_bytes += (double)u->bytes[b];
        /* Nothing is farther than everything that was used. */
        if ((double)rp_distance_of(b) > size && size < (double)u->live) continue;
        n += (double)u->n[b];
        bytes += (double)u->bytes[b];
    }
    p->lru = rp_ratio(n, all);
    p->lru_bytes = rp_ratio(bytes, all_bytes);
}

uint64_t rp_pin(const ttx_report *r, const uint32_t *order, uint32_t n, uint64_t bytes,
                bool *pinned, uint64_t *saved) {
    uint64_t used = 0;
    *saved = 0;
    for (uint32_t i = 0; i < n; i++) {
        const rp_object *o = &r->objects[order[i]];
        bool fits = o->size <= bytes - used;
        if (pinned) pinned[i] = fits;
        if (!fits) continue;
        used += o->size;
        if (o->bytes > o->size) *saved += o->bytes - o->size; /* the first is read */
    }
    return used;
}

bool rp_cache_curve(const ttx_report *r, rp_cache_point v[RP_CACHE_POINTS]) {
    uint32_t n;
    uint32_t *order = rp_pin_order(r, &n);
    if (!order) return false;
    double total = 0, all = 0;
    for (uint32_t i = 0; i < n; i++) {
        total += (double)r->objects[order[i]].size;
        all += (double)r->objects[order[i]].bytes;
    }
    for (int k = 0; k < RP_CACHE_POINTS; k++) {
        double size = k == RP_CACHE_POINTS - 1 ? total : floor(total * k / (RP_CACHE_POINTS - 1));
        uint64_t saved;
        rp_pin(r, order, n, (uint64_t)size, NULL, &saved);
        v[k] = (rp_cache_point){.bytes = size, .pinned = rp_ratio((double)saved, all)};
        lru_at(r, size, &v[k]);
    }
    free(order);
    return true;
}

int rp_cache_knee(const rp_cache_point v[RP_CACHE_POINTS], bool pinned) {
    int knee = 0, last = RP_CACHE_POINTS - 1;
    double most = 0;
    for (int k = 0; k <= last; k++) {
        double y = pinned ? v[k].pinned : v[k].lru_bytes;
        double y0 = pinned ? v[0].pinned : v[0].lru_bytes;
        double y1 = pinned ? v[last].pinned : v[last].lru_bytes;
        double above = y - (y0 + (y1 - y0) * k / last);
        if (above > most) {
            most = above;
            knee = k;
        }
    }
    return knee;
}
