/* plan.c -- see plan.h. */
#include "plan.h"

#include <stdlib.h>

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
