/* plan.c -- see plan.h. */
#include "plan.h"

#include <stdlib.h>

int ttx_range_compare(const void *a, const void *b) {
    const ttx_range *x = a, *y = b;
    if (x->shard != y->shard) return x->shard < y->shard ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

uint32_t ttx_range_upto(const void *v, size_t stride, uint32_t n, ttx_range r) {
    uint32_t lo = 0, hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (ttx_range_compare((const char *)v + mid * stride, &r) > 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

ttx_range ttx_access_slice(const ttx_access *a, uint32_t expert) {
    ttx_range r = a->range;
    if (a->expert >= 0) return r;
    r.size /= a->n_expert;
    r.offset += r.size * expert;
    return r;
}

int ttx_plan_add(ttx_plan *p, const ttx_access *a, ttx_err *err) {
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 256;
        ttx_access *v = realloc(p->v, cap * sizeof *v);
        if (!v) return ttx_fail_nomem(err, "access plan", cap * sizeof *v);
        p->v = v;
        p->cap = cap;
    }
    p->v[p->n++] = *a;
    return TTX_OK;
}

void ttx_plan_free(ttx_plan *p) {
    free(p->v);
    *p = (ttx_plan){0};
}

uint32_t ttx_plan_layers(const ttx_plan *p) {
    uint32_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        if (p->v[i].layer != TTX_NO_LAYER && p->v[i].layer >= n) n = p->v[i].layer + 1u;
    return n;
}
