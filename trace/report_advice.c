/* report_advice.c -- advice drawn from a trace: hot and cold, what to pin, which experts to have
 * ready, what costs most, how far the run could have been foreseen.
 */
#include "report_advice.h"

#include <stdlib.h>
#include <string.h>

const char *const rp_group_names[RP_GROUPS] = {
    "embeddings", "layers", "early_layers", "late_layers", "kv_cache", "weights", "outside_layers"};

static void add(rp_row *to, const rp_row *from) {
    to->records += from->records;
    to->accesses += from->accesses;
    to->bytes += from->bytes;
    to->ns += from->ns;
}

static void sum_groups(const ttx_report *r, rp_advice *a) {
    for (uint32_t i = 0; i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        if (w->layer < r->n_layer) {
            a->layer_ns[w->layer] += w->ns;
            a->layer_bytes[w->layer] += w->bytes;
        }
        if (w->tensor == TTX_REC_NO_TENSOR) continue;
        const ttx_trace_tensor *t = &r->meta.tensors[w->tensor];
        bool file = w->tensor < r->meta.n_file_tensor;
        add(&a->group[file ? RP_WEIGHTS : RP_CACHE], w);
        if (!file) continue;
        add(&a->qkv[t->qkv], w);
        if (strcmp(t->component, "embedding") == 0) add(&a->group[RP_EMBEDDING], w);
        add(&a->group[w->layer < r->n_layer ? RP_LAYERS : RP_OUTSIDE], w);
        if (w->layer >= r->n_layer) continue;
        if (w->layer < r->n_layer / 3) add(&a->group[RP_EARLY], w);
        if (w->layer >= r->n_layer - r->n_layer / 3) add(&a->group[RP_LATE], w);
    }
}

static void rank_layers(const ttx_report *r, rp_advice *a) {
    for (uint32_t l = 0; l < r->n_layer; l++) { /* by insertion */
        uint32_t at = a->n_slowest;
        while (at && a->layer_ns[a->slowest[at - 1]] < a->layer_ns[l]) at--;
        if (at >= RP_SLOWEST) continue;
        uint32_t n = a->n_slowest < RP_SLOWEST ? a->n_slowest : RP_SLOWEST - 1;
        memmove(a->slowest + at + 1, a->slowest + at, (n - at) * sizeof *a->slowest);
        a->slowest[at] = l;
        a->n_slowest = n + 1;
    }
}

/* Each kind once, in the order in which the first layer that has them comes to them. */
static void order_qkv(const ttx_report *r, rp_advice *a) {
    uint16_t layer = TTX_REC_NO_LAYER;
    for (uint32_t i = 0; i < r->seq.n_base && a->n_qkv < sizeof a->qkv_order; i++) {
        const ttx_trace_tensor *t = &r->meta.tensors[r->objects[r->seq.base[i] & ~RP_PART].tensor];
        if (!t->qkv || (layer != TTX_REC_NO_LAYER && t->layer != layer)) continue;
        layer = t->layer;
        if (!memchr(a->qkv_order, t->qkv, a->n_qkv)) a->qkv_order[a->n_qkv++] = t->qkv;
    }
}

/* ---- pins, experts ---- */

static void fit_pins(const ttx_report *r, rp_advice *a) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < a->n_pin; i++) total += r->objects[a->pins[i]].size;
    a->ram = r->set.ram ? r->set.ram : total / 2;
    a->pinned = rp_pin(r, a->pins, a->n_pin, a->ram, a->fits, &a->saved);
    for (uint32_t i = 0; i < a->n_pin; i++) a->n_fit += a->fits[i];
}

static int by_use(const void *a, const void *b) {
    const rp_warm *x = a, *y = b;
    if (x->tokens != y->tokens) return x->tokens > y->tokens ? -1 : 1;
    if (x->accesses != y->accesses) return x->accesses > y->accesses ? -1 : 1;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return x->expert < y->expert ? -1 : x->expert > y->expert;
}

static bool rank_experts(const ttx_report *r, rp_advice *a) {
    const rp_routes *s = &r->routes;
    size_t n = (size_t)r->n_layer * s->n_expert;
    if (!n) return true;
    if (!(a->warm = calloc(n, sizeof *a->warm))) return false;
    for (size_t i = 0; i < n; i++)
        a->warm[i] = (rp_warm){.layer = (uint16_t)(i / s->n_expert),
                               .expert = (uint16_t)(i % s->n_expert),
                               .tokens = s->n[i]};
    for (uint32_t i = 0; i < r->n_object; i++) {
        const rp_object *o = &r->objects[i];
        uint32_t layer = r->meta.tensors[o->tensor].layer, e = rp_expert_of(r, o);
        if (e >= s->n_expert || layer >= r->n_layer) continue;
        rp_warm *w = &a->warm[(size_t)layer * s->n_expert + e];
        w->accesses += o->accesses;
        w->bytes += o->bytes;
        w->size += o->size;
    }
    for (size_t i = 0; i < n; i++)
        if (a->warm[i].tokens || a->warm[i].accesses) a->warm[a->n_warm++] = a->warm[i];
    qsort(a->warm, a->n_warm, sizeof *a->warm, by_use);
    return true;
}

/* ---- reuse ---- */

/* The distance up to which a share of the reuses lies. */
static double distance_at(const rp_reuse *u, double share) {
    uint64_t all = 0, n = 0;
    for (uint32_t i = 0; i < RP_DISTANCES; i++) all += u->n[i];
    for (uint32_t i = 0; i < RP_DISTANCES && all; i++) {
        n += u->n[i];
        if ((double)n >= share * (double)all) return (double)rp_distance_of(i);
    }
    return 0;
}

static void sum_reuse(const ttx_report *r, rp_advice *a) {
    uint64_t n = 0, read = 0;
    for (uint32_t i = 0; i < RP_DISTANCES; i++) n += r->reuse.n[i];
    for (uint32_t i = 0; i < TTX_IO_CAUSE_COUNT; i++) read += r->io.cause[i].bytes;
    a->distance_mean = rp_ratio(r->reuse.distance_sum, (double)n);
    a->distance_p50 = distance_at(&r->reuse, 0.5);
    a->distance_p90 = distance_at(&r->reuse, 0.9);
    a->reread = rp_ratio((double)r->file_bytes_read,
                         (double)rp_io_distinct(&r->io, r->io.touched, 0, r->file_bytes));
    a->disk_reread =
        rp_ratio((double)read, (double)rp_io_distinct(&r->io, r->io.read, 0, r->file_bytes));
    a->others = r->seq.n_token > 1 ? (double)(r->seq.n_token - 1) : 0;
}

bool rp_advise(const ttx_report *r, rp_advice *a) {
    *a = (rp_advice){0};
    a->sums = rp_tensor_sums(r, r->set.hot_by, &a->order, &a->n_tensor);
    a->pins = rp_pin_order(r, &a->n_pin);
    a->fits = calloc((size_t)a->n_pin + 1, sizeof *a->fits);
    a->layer_ns = calloc((size_t)r->n_layer + 1, sizeof *a->layer_ns);
    a->layer_bytes = calloc((size_t)r->n_layer + 1, sizeof *a->layer_bytes);
    if (!a->sums || !a->pins || !a->fits || !a->layer_ns || !a->layer_bytes) return false;
    if (!rp_cache_curve(r, a->curve) || !rank_experts(r, a)) return false;
    if (!rp_routes_sum(r, &a->routes)) return false;
    sum_groups(r, a);
    rank_layers(r, a);
    order_qkv(r, a);
    fit_pins(r, a);
    sum_reuse(r, a);
    return true;
}

void rp_advice_free(rp_advice *a) {
    free(a->sums);
    free(a->order);
    free(a->pins);
    free(a->fits);
    free(a->warm);
    free(a->layer_ns);
    free(a->layer_bytes);
}
