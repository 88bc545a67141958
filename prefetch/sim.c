/* sim.c -- see sim.h: walks the plan step by step, as the engine would. */
#include "sim_int.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_USED = TTX_MAX_EXPERTS_USED };

typedef struct sim {
    const ttx_sim_settings *set;
    ttx_residency *r;
    sim_disk disk;
    sim_future future;
    sim_bound bound;
    double byte_s; /* seconds of computation a byte */
    uint64_t random;
    uint32_t step, n_layer;
    uint32_t asked; /* the last layer whose router has been asked in this step */
    int layer;
} sim;

/* ---- the plan ---- */

/* Does the access touch this expert? (Old files have a tensor for each.) */
static bool touches(const ttx_access *a, uint32_t layer, uint32_t expert) {
    return a->n_expert && a->layer == layer && (a->expert < 0 || (uint32_t)a->expert == expert);
}

/* ---- launches ---- */

static void compute(sim *m, double seconds) {
    m->disk.now += seconds;
}

/* Accesses [from, to) of one launch: held together. */
static int dense_launch(sim *m, size_t from, size_t to, ttx_err *err) {
    const ttx_plan *p = m->set->residency.plan;
    ttx_lease lease;
    double seconds = 0;
    size_t held = from;
    int rc = TTX_OK;
    for (; held < to && !rc; held++) {
        rc = ttx_residency_acquire(m->r, p->v[held].range, &lease, err);
        seconds += (double)p->v[held].range.size * m->byte_s;
        if (rc) break;
    }
    if (!rc) compute(m, seconds);
    sim_bound_compute(&m->bound, seconds);
    for (size_t i = from; i < held; i++) ttx_residency_release(m->r, p->v[i].range);
    return rc;
}

/* ---- experts ---- */

static int routed(const sim *m, uint32_t step, uint32_t layer, uint32_t *expert) {
    const ttx_sim_routes *r = m->set->routes;
    int n = 0;
    if (!r || layer >= r->n_layer) return 0;
    const uint16_t *v = r->expert + ((size_t)(step % r->n_step) * r->n_layer + layer) * r->k;
    while (n < (int)r->k && v[n] != TTX_SIM_NONE) {
        expert[n] = v[n];
        n++;
    }
    return n;
}

/* How many experts of the layer a counted step chooses, in the mean: of other models' routes, or
 * with another k, not as many as the plan says. */
static double mean_used(const sim *m, uint32_t layer) {
    uint32_t expert[MOST_USED];
    double sum = 0;
    for (uint32_t step = m->set->warm_up; step < m->set->n_step; step++)
        sum += routed(m, step, layer, expert);
    return sum / (m->set->n_step - m->set->warm_up);
}

/* Bytes of weights that a step computes with, in the mean. */
static double step_bytes(const sim *m) {
    const ttx_plan *p = m->set->residency.plan;
    double sum = 0, used = 0;
    int64_t layer = -1; /* that `used` is of */
    for (size_t i = 0; i < p->n; i++) {
        const ttx_access *a = &p->v[i];
        if (a->n_expert && a->layer != layer) used = mean_used(m, a->layer);
        if (a->n_expert) layer = a->layer;
        /* Old files have a tensor, and an access, for each expert. */
        sum += (double)a->range.size * (a->n_expert ? used / a->n_expert : 1);
    }
    return sum > 0 ? sum : 1;
}

/* The first tensor of an expert, which stands for all of it. */
static bool first_slice(const sim *m, uint32_t layer, uint32_t expert, ttx_range *out) {
    const ttx_plan *p = m->set->residency.plan;
    for (size_t i = 0; i < p->n; i++) {
        if (!touches(&p->v[i], layer, expert)) continue;
        *out = ttx_access_slice(&p->v[i], expert);
        return true;
    }
    return false;
}

static uint32_t draw(sim *m, uint32_t n) {
    m->random = m->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((m->random >> 33) % n);
}

/* What a coming layer's router would say now: what it is going to say, except that some experts are
 * missed. In their place stand others that the layer used of late, as a router's mistakes are.
 * Returns whether the device would take another layer's. */
static bool guess_layer(sim *m, uint32_t layer) {
    enum { LATE = 16 };
    uint32_t expert[MOST_USED], before[MOST_USED];
    ttx_range set[MOST_USED];
    int n = routed(m, m->step, layer, expert), found = 0;
    if (layer > (uint32_t)m->layer + 1) n -= n / 4; /* as op_moe does */
    for (int i = 0; i < n; i++) {
        uint32_t e = expert[i], ago = 1 + draw(m, LATE);
        if (draw(m, 1000) >= (uint32_t)(m->set->router_right * 1000)) {
            int k = ago <= m->step ? routed(m, m->step - ago, layer, before) : 0;
            if (!k) continue;
            e = before[draw(m, (uint32_t)k)];
        }
        found += first_slice(m, layer, e, &set[found]);
    }
    if (layer > m->asked) m->asked = layer;
    return ttx_residency_guess(m->r, set, found);
}

/* As op_moe does it. */
static void guess_next(sim *m, uint32_t layer) {
    if (!ttx_residency_routed(m->r)) return;
    bool more = true;
    for (uint32_t next = layer + 1; more && next <= layer + TTX_GUESS_AHEAD && next < m->n_layer;
         next++)
        if (next == layer + 1 || next > m->asked) more = guess_layer(m, next);
}

static int run_expert(sim *m, uint32_t layer, uint32_t expert, ttx_err *err) {
    const ttx_plan *p = m->set->residency.plan;
    int rc = TTX_OK;
    for (size_t i = 0; i < p->n && !rc; i++) {
        ttx_lease lease;
        if (!touches(&p->v[i], layer, expert)) continue;
        ttx_range r = ttx_access_slice(&p->v[i], expert);
        rc = ttx_residency_acquire(m->r, r, &lease, err);
        if (rc) break;
        compute(m, (double)r.size * m->byte_s);
        ttx_residency_release(m->r, r);
    }
    return rc;
}

static double expert_bytes(const sim *m, uint32_t layer, uint32_t expert) {
    const ttx_plan *p = m->set->residency.plan;
    double sum = 0;
    for (size_t i = 0; i < p->n; i++)
        if (touches(&p->v[i], layer, expert))
            sum += (double)ttx_access_slice(&p->v[i], expert).size;
    return sum;
}

/* As op_moe does it for one token. */
static int run_experts(sim *m, uint32_t layer, ttx_err *err) {
    uint32_t expert[MOST_USED];
    ttx_range set[MOST_USED];
    bool got[MOST_USED];
    int all = routed(m, m->step, layer, expert), n = 0, rc = TTX_OK;
    ttx_residency_counters before = ttx_residency_get_counters(m->r);
    for (int i = 0; i < all; i++) {
        if (!first_slice(m, layer, expert[i], &set[n])) continue;
        expert[n] = expert[i];
        ttx_residency_hint(m->r, set[n++]);
    }
    guess_next(m, layer);
    for (int left = n, rest; left && !rc; left = rest) {
        rest = 0;
        if ((rc = ttx_residency_acquire_any(m->r, set, left, got, err))) break;
        for (int i = 0; i < left; i++) {
            if (got[i]) {
                if (!rc) rc = run_expert(m, layer, expert[i], err);
                ttx_residency_release(m->r, set[i]);
                continue;
            }
            expert[rest] = expert[i];
            set[rest++] = set[i];
        }
    }
    ttx_residency_counters after = ttx_residency_get_counters(m->r);
    uint32_t hits = (uint32_t)(after.expert_hits - before.expert_hits);
    double bytes = n ? expert_bytes(m, layer, expert[0]) : 0;
    if (n) sim_bound_experts(&m->bound, hits, (uint32_t)n - hits, bytes * m->byte_s, bytes);
    return rc;
}

/* ---- steps ---- */

static void enter_layer(sim *m, const ttx_access *a) {
    bool behind = a->layer == TTX_NO_LAYER && m->layer >= 0; /* what comes after the last layer */
    int layer = behind ? (int)m->n_layer : a->layer == TTX_NO_LAYER ? -1 : a->layer;
    if (layer == m->layer) return;
    m->layer = layer;
    if (!behind) m->future.layer = (uint32_t)layer;
    ttx_residency_layer(m->r, layer);
}

static int run_step(sim *m, ttx_err *err) {
    const ttx_plan *p = m->set->residency.plan;
    int rc = TTX_OK;
    m->layer = -1;
    m->asked = 0;
    m->future.step = m->step;
    for (size_t i = 0, end; i < p->n && !rc; i = end) {
        const ttx_access *a = &p->v[i];
        enter_layer(m, a);
        for (end = i + 1; end < p->n && p->v[end].launch == a->launch && !a->n_expert; end++) {
        }
        if (!a->n_expert) {
            rc = dense_launch(m, i, end, err);
            continue;
        }
        while (end < p->n && p->v[end].n_expert && p->v[end].layer == a->layer) end++;
        rc = run_experts(m, a->layer, err);
    }
    return rc;
}

static int run(sim *m, ttx_sim_result *out, ttx_err *err) {
    const ttx_sim_settings *set = m->set;
    ttx_residency_counters from = {0};
    double start = 0, waited = 0;
    for (m->step = 0; m->step < set->n_step; m->step++) {
        if (m->step == set->warm_up) {
            from = ttx_residency_get_counters(m->r);
            start = m->disk.now;
            waited = m->disk.waited_s;
            m->bound = (sim_bound){.bytes_s = set->machine.disk_bytes_s};
        }
        int rc = run_step(m, err);
        if (rc) return rc;
    }
    ttx_residency_counters to = ttx_residency_get_counters(m->r);
    double read_s = (double)(to.bytes_read - from.bytes_read) / set->machine.disk_bytes_s;
    *out = (ttx_sim_result){
        .layout = *ttx_residency_get_layout(m->r),
        .n_step = set->n_step - set->warm_up,
        .seconds = m->disk.now - start,
        .stall_s = m->disk.waited_s - waited,
        .bytes = (double)(to.bytes_read - from.bytes_read),
        .expert_uses = to.expert_uses - from.expert_uses,
        .expert_hits = to.expert_hits - from.expert_hits,
        .guesses = to.guesses - from.guesses,
        .guesses_used = to.guesses_used - from.guesses_used,
        .bound_s = m->bound.t > read_s ? m->bound.t : read_s,
        .bound_guess_s = m->bound.tg > read_s ? m->bound.tg : read_s,
        .bound_free_s = m->bound.compute_s > read_s ? m->bound.compute_s : read_s,
    };
    return TTX_OK;
}

static uint64_t no_limit(void *ctx) {
    (void)ctx;
    return UINT64_MAX;
}

static uint64_t sim_clock(void *ctx) {
    return (uint64_t)(((const sim_disk *)ctx)->now * 1e9);
}

int ttx_simulate(ttx_sim_result *out, const ttx_sim_settings *set, ttx_err *err) {
    sim m = {.set = set, .random = 1, .bound = {.bytes_s = set->machine.disk_bytes_s}};
    ttx_residency_settings res = set->residency;
    res.limit = no_limit; /* the memory is made up too */
    int rc = TTX_OK;
    sim_disk_open(&m.disk, &set->machine);
    m.byte_s = set->machine.compute_s / step_bytes(&m);
    res.io = &m.disk.io;
    res.clock = sim_clock;
    res.clock_ctx = &m.disk;
    m.n_layer = ttx_plan_layers(res.plan);
    if (res.policy == TTX_CACHE_OPTIMUM) {
        if ((rc = sim_future_open(&m.future, set->routes, err))) goto done;
        res.future = (ttx_future){sim_future_next, &m.future};
    }
    if ((rc = ttx_residency_open(&m.r, set->sources, set->n_sources, &res, err))) goto done;
    rc = run(&m, out, err);
done:
    ttx_residency_close(m.r);
    sim_future_close(&m.future);
    return rc;
}
