/* policy.c -- see policy.h. */
#include "policy.h"

#include <math.h>
#include <stdlib.h>

int ttx_policy_open(ttx_policy *p, ttx_cache_policy kind, uint32_t n_layer, uint32_t n_expert,
                    const ttx_future *future, ttx_err *err) {
    size_t n = (size_t)n_layer * n_expert;
    *p = (ttx_policy){.kind = kind, .n_layer = n_layer, .n_expert = n_expert};
    if (future) p->future = *future;
    p->v = calloc(n + 1, sizeof *p->v);
    if (!p->v) return ttx_fail_nomem(err, "cache policy", n * sizeof *p->v);
    for (size_t i = 0; i < n; i++) p->v[i].weight = -INFINITY;
    return TTX_OK;
}

void ttx_policy_close(ttx_policy *p) {
    free(p->v);
    *p = (ttx_policy){0};
}

static ttx_policy_expert *of(const ttx_policy *p, uint32_t layer, uint32_t expert) {
    return &p->v[(size_t)layer * p->n_expert + expert];
}

/* Uses, decayed to this step. */
static double decayed(const ttx_policy *p, const ttx_policy_expert *e) {
    return exp2(e->weight - (double)p->step / TTX_HALF_LIFE);
}

static void set_decayed(const ttx_policy *p, ttx_policy_expert *e, double uses) {
    e->weight = log2(uses) + (double)p->step / TTX_HALF_LIFE;
}

void ttx_policy_layer(ttx_policy *p, uint32_t layer) {
    if (layer == 0) p->step++;
    p->layer = layer;
}

void ttx_policy_use(ttx_policy *p, uint32_t layer, uint32_t expert) {
    ttx_policy_expert *e = of(p, layer, expert);
    set_decayed(p, e, decayed(p, e) + 1);
    e->step = p->step;
    e->tick = ++p->tick;
}

void ttx_policy_load(ttx_policy *p, uint32_t layer, uint32_t expert) {
    ttx_policy_expert *e = of(p, layer, expert);
    if (decayed(p, e) < 0.5) set_decayed(p, e, 0.5);
    e->tick = ++p->tick;
}

/* Layers until `layer` is run again, in [1, n_layer]. */
static double distance(const ttx_policy *p, uint32_t layer) {
    return layer > p->layer ? layer - p->layer : layer + p->n_layer - p->layer;
}

/* How often the router of its layer ran since the expert's last use and did not choose it. */
static double passed_over(const ttx_policy *p, const ttx_policy_expert *e, uint32_t layer) {
    uint64_t last_chance = layer > p->layer ? p->step - 1 : p->step;
    return e->step < last_chance ? (double)(last_chance - e->step) : 0;
}

/* Layers until it is used, if every step uses it with the same probability. */
static double expected(const ttx_policy *p, const ttx_policy_expert *e, uint32_t layer) {
    double per_step = 1 - exp2(-1.0 / TTX_HALF_LIFE);
    double steps = (1 - exp2(-(double)p->step / TTX_HALF_LIFE)) / per_step; /* decayed likewise */
    double chance = decayed(p, e) / (steps + 1);
    if (chance < 1e-6) chance = 1e-6;
    return distance(p, layer) + p->n_layer * (chance < 1 ? 1 / chance - 1 : 0);
}

double ttx_policy_worth(const ttx_policy *p, uint32_t layer, uint32_t expert) {
    const ttx_policy_expert *e = of(p, layer, expert);
    switch (p->kind) {
    case TTX_CACHE_LFU_AGED:
        return e->weight - distance(p, layer) / (p->n_layer * (double)TTX_HALF_LIFE);
    case TTX_CACHE_LEAST_STALE:
        return -(passed_over(p, e, layer) * p->n_layer + distance(p, layer));
    case TTX_CACHE_LAYER_AWARE: return -expected(p, e, layer);
    case TTX_CACHE_OPTIMUM: return -p->future.next_use(p->future.ctx, layer, expert);
    default: return (double)e->tick;
    }
}

bool ttx_policy_is_recent(const ttx_policy *p, uint32_t layer, uint32_t expert) {
    return of(p, layer, expert)->step + 1 >= p->step;
}
