/* sim_disk.c -- a disk that reads nothing, a future that is known, and the bounds of both. */
#include "sim_int.h"

#include <errno.h>
#include <stdlib.h>

/* ---- the disk ---- */

static double later(double a, double b) {
    return a > b ? a : b;
}

static int submit(ttx_io *io, const ttx_io_read *r, int n) {
    sim_disk *d = (sim_disk *)io;
    if (d->n + n > SIM_DEPTH) return -EAGAIN;
    for (int i = 0; i < n; i++) {
        int at = (d->first + d->n++) % SIM_DEPTH;
        d->free_at = later(d->now, d->free_at) + r[i].bytes / d->bytes_s;
        d->v[at].tag = r[i].tag;
        d->v[at].bytes = r[i].bytes;
        d->v[at].there = d->free_at + d->latency_s;
    }
    return 0;
}

static int reap(ttx_io *io, ttx_io_done *done, int max, bool wait) {
    sim_disk *d = (sim_disk *)io;
    int n = 0;
    if (wait && d->n && d->v[d->first].there > d->now) {
        d->waited_s += d->v[d->first].there - d->now;
        d->now = d->v[d->first].there;
    }
    for (; n < max && d->n && d->v[d->first].there <= d->now; d->n--) {
        done[n++] = (ttx_io_done){d->v[d->first].tag, (int32_t)d->v[d->first].bytes};
        d->first = (d->first + 1) % SIM_DEPTH;
    }
    return n;
}

static void close_disk(ttx_io *io) {
    (void)io;
}

void sim_disk_open(sim_disk *d, const ttx_sim_machine *m) {
    *d = (sim_disk){.io = {"simulated disk", submit, reap, close_disk},
                    .bytes_s = m->disk_bytes_s,
                    .latency_s = m->disk_latency_s};
}

/* ---- the future ---- */

static const uint16_t *route_of(const ttx_sim_routes *r, uint32_t step, uint32_t layer) {
    return r->expert + ((size_t)step * r->n_layer + layer) * r->k;
}

int sim_future_open(sim_future *f, const ttx_sim_routes *r, ttx_err *err) {
    size_t row = (size_t)r->n_layer * r->n_expert, n = row * (r->n_step + 1u);
    *f = (sim_future){.routes = r, .next = malloc(n * sizeof *f->next)};
    if (!f->next) return ttx_fail_nomem(err, "future of experts", n * sizeof *f->next);
    for (size_t i = 0; i < row; i++) f->next[r->n_step * row + i] = UINT32_MAX;
    for (uint32_t s = r->n_step; s-- > 0;) {
        uint32_t *now = f->next + s * row;
        for (size_t i = 0; i < row; i++) now[i] = now[row + i];
        for (uint32_t l = 0; l < r->n_layer; l++)
            for (uint32_t i = 0; i < r->k && route_of(r, s, l)[i] != TTX_SIM_NONE; i++)
                now[l * r->n_expert + route_of(r, s, l)[i]] = s;
    }
    return TTX_OK;
}

void sim_future_close(sim_future *f) {
    free(f->next);
    *f = (sim_future){0};
}

double sim_future_next(void *ctx, uint32_t layer, uint32_t expert) {
    const sim_future *f = ctx;
    const ttx_sim_routes *r = f->routes;
    /* Layers up to the present one are past in this step. */
    uint32_t now = f->step % r->n_step, from = now + (layer <= f->layer);
    const uint32_t *next = f->next + (size_t)layer * r->n_expert + expert;
    double step = next[(size_t)from * r->n_layer * r->n_expert];
    if (step == UINT32_MAX) step = (double)next[0] + r->n_step; /* steps repeat */
    return (step - now) * r->n_layer + layer - f->layer;
}

/* ---- the bounds ---- */

void sim_bound_compute(sim_bound *b, double seconds) {
    b->t += seconds;
    b->tg += seconds;
    b->compute_s += seconds;
}

/* Those that are there come first, the others as they arrive. */
static double experts_end(double start, uint32_t hits, uint32_t misses, double seconds,
                          double *disk_free, double read_s) {
    double t = start + hits * seconds;
    for (uint32_t i = 0; i < misses; i++) {
        *disk_free += read_s;
        t = later(t, *disk_free) + seconds;
    }
    return t;
}

void sim_bound_experts(sim_bound *b, uint32_t hits, uint32_t misses, double seconds, double bytes) {
    double read_s = bytes / b->bytes_s, routed = b->tg;
    b->disk_free = later(b->disk_free, b->t);
    b->t = experts_end(b->t, hits, misses, seconds, &b->disk_free, read_s);
    b->disk_freeg = later(b->disk_freeg, b->router_beforeg);
    b->tg = experts_end(b->tg, hits, misses, seconds, &b->disk_freeg, read_s);
    b->router_beforeg = routed;
    b->compute_s += (hits + misses) * seconds;
}
