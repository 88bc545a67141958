/* sim_test.c -- the simulator on a machine where everything takes a second: what comes out was
 * worked out by hand.
 *
 * Two layers; each has one matrix of 1 MiB for all tokens, and experts of 1 MiB of which a token
 * uses one. Computing takes a second for each MiB, and so does the disk.
 */
#include "check_harness.h"
#include "sim.h"

#include <fcntl.h>
#include <math.h>
#include <unistd.h>

static int failures;

enum { MIB = 1 << 20, DENSE = 16, LAYERS = 2, EXPERTS = 4, STEPS = 40, WARM_UP = 8 };

#define CHECK_NEAR(found, expected)                                                           \
    do {                                                                                      \
        double f_ = (found), e_ = (expected);                                                 \
        if (fabs(f_ - e_) <= 1e-6 * (1 + fabs(e_))) break;                                    \
        failures++;                                                                           \
        printf("%s:%d: %s: expected %.9g, found %.9g\n", __FILE__, __LINE__, #found, e_, f_); \
    } while (0)

/* Tensor i of the file: MiB after MiB. */
static void add(ttx_plan *p, uint16_t layer, uint32_t at, uint32_t n_expert) {
    ttx_err err = {0};
    ttx_access a = {.layer = layer,
                    .tensor = at,
                    .range = {0, (uint64_t)at * MIB, (n_expert ? n_expert : 1) * (uint64_t)MIB},
                    .n_expert = n_expert,
                    .n_expert_used = n_expert ? 1 : 0,
                    .launch = at,
                    .expert = -1};
    CHECK_INT(ttx_plan_add(p, &a, &err), 0);
}

static ttx_plan plan_of(uint32_t n_layer, uint32_t n_expert) {
    ttx_plan p = {0};
    for (uint32_t i = 0; i < n_layer; i++) {
        uint16_t l = (uint16_t)i;
        add(&p, l, l * (1 + n_expert), 0);
        if (n_expert) add(&p, l, l * (1 + n_expert) + 1, n_expert);
    }
    return p;
}

/* Every layer goes round through `n` of the experts. */
static ttx_sim_routes routes_of(uint16_t *v, uint32_t n) {
    for (uint32_t s = 0; s < STEPS; s++)
        for (uint32_t l = 0; l < LAYERS; l++) v[s * LAYERS + l] = (uint16_t)(s % n);
    return (ttx_sim_routes){STEPS, LAYERS, EXPERTS, 1, v};
}

/* n of the EXPERTS, by chance. */
static void draw(uint16_t *v, int n) {
    uint32_t random = 1;
    for (int i = 0; i < n; i++) {
        random = random * 1664525 + 1013904223;
        v[i] = (uint16_t)(random >> 30);
    }
}

static ttx_sim_settings settings(const ttx_source *source, const ttx_plan *plan,
                                 const ttx_sim_routes *routes, double compute_s) {
    ttx_residency_settings res = ttx_residency_default_settings();
    res.mode = TTX_LOAD_STREAM;
    res.plan = plan;
    res.rows_at_once = 1;
    res.prefetch = TTX_PREFETCH_LAYER;
    res.policy = TTX_CACHE_LRU;
    return (ttx_sim_settings){.sources = source,
                              .n_sources = 1,
                              .residency = res,
                              .routes = routes,
                              .machine = {.disk_bytes_s = MIB, .compute_s = compute_s},
                              .n_step = STEPS,
                              .warm_up = WARM_UP,
                              .router_right = 1};
}

/* The smallest budget, and `more` MiB. */
static ttx_sim_result simulate(ttx_sim_settings *set, double more) {
    ttx_residency_layout l;
    ttx_sim_result r = {0};
    ttx_err err = {0};
    set->residency.budget = 1;
    CHECK_INT(ttx_residency_describe(&set->residency, &l, &err), TTX_E_RUNTIME);
    err = (ttx_err){0};
    set->residency.budget = l.smallest + (uint64_t)(more * MIB);
    if (ttx_simulate(&r, set, &err)) {
        failures++;
        printf("cannot simulate: %s\n", err.msg);
    }
    CHECK_INT(r.n_step, set->n_step - WARM_UP);
    return r;
}

static void check_dense(const ttx_source *source) {
    ttx_plan plan = {0};
    for (int i = 0; i < DENSE; i++) add(&plan, (uint16_t)i, (uint16_t)i, 0);
    ttx_sim_settings set = settings(source, &plan, NULL, DENSE);
    ttx_sim_result r = simulate(&set, 2 * DENSE); /* room for all */
    CHECK_NEAR(r.seconds, DENSE * r.n_step);
    CHECK_NEAR(r.stall_s, 0);
    CHECK_NEAR(r.bytes, 0);
    /* What is not kept is read for each token, behind the computation but for moments between
     * operations. */
    r = simulate(&set, 6);
    double rest = DENSE - (double)r.layout.pinned / MIB;
    CHECK(rest >= DENSE - 6 && rest < DENSE);
    CHECK_NEAR(r.bytes, rest * MIB * r.n_step);
    CHECK_NEAR(r.bound_s, DENSE * r.n_step);
    CHECK(r.seconds >= DENSE * r.n_step && r.seconds <= 1.1 * DENSE * r.n_step);
    /* Eight times as fast at computing: now the disk is the limit. */
    set.machine.compute_s = DENSE / 8.0;
    r = simulate(&set, 6);
    CHECK_NEAR(r.bound_s, rest * r.n_step);
    CHECK(r.seconds >= rest * r.n_step && r.seconds <= 1.1 * rest * r.n_step);
    ttx_plan_free(&plan);
}

static void check_experts(const ttx_source *source) {
    uint16_t v[STEPS * LAYERS];
    ttx_plan plan = plan_of(LAYERS, EXPERTS);
    ttx_sim_routes routes = routes_of(v, EXPERTS);
    ttx_sim_settings set = settings(source, &plan, &routes, 4);
    /* Room for 4 experts of 8, and LRU: every one is missed. A layer: 1 s, the read, 1 s. */
    ttx_sim_result r = simulate(&set, 3);
    CHECK_INT(r.layout.n_slots, 4);
    CHECK_INT(r.expert_uses, 2 * r.n_step);
    CHECK_INT(r.expert_hits, 0);
    CHECK_NEAR(r.bytes, 2.0 * MIB * r.n_step);
    CHECK_NEAR(r.stall_s, 2 * r.n_step);
    CHECK_NEAR(r.seconds, 6 * r.n_step);
    CHECK_NEAR(r.bound_s, 6 * r.n_step);
    CHECK_NEAR(r.bound_free_s, 4 * r.n_step);
    /* Known one router before, a read has 2 s of computation to hide behind. */
    CHECK_NEAR(r.bound_guess_s, 4 * r.n_step);
    /* Latency adds to each. */
    set.machine.disk_latency_s = 0.5;
    r = simulate(&set, 3);
    CHECK_NEAR(r.seconds, 7 * r.n_step);
    set.machine.disk_latency_s = 0;
    /* The optimum: in a cycle of 8 through 4 slots, 3 of 7 more uses hit. */
    set.residency.policy = TTX_CACHE_OPTIMUM;
    ttx_sim_result best = simulate(&set, 3);
    CHECK(best.expert_hits >= best.expert_uses * 3 / 8 && best.expert_hits < best.expert_uses / 2);
    CHECK_NEAR(best.seconds, 4 * best.n_step + (double)(best.expert_uses - best.expert_hits));
    /* Guesses that are always right hide the reads of layer 1: that of layer 0 is not guessed. */
    set.residency.policy = TTX_CACHE_LRU;
    set.residency.prefetch |= TTX_PREFETCH_EXPERT;
    r = simulate(&set, 3);
    CHECK_INT(r.guesses, r.n_step);
    CHECK_INT(r.guesses_used, r.n_step);
    CHECK_NEAR(r.seconds, 5 * r.n_step);
    /* Room for all. */
    r = simulate(&set, 8);
    CHECK_INT(r.expert_hits, r.expert_uses);
    CHECK_NEAR(r.seconds, 4 * r.n_step);
    /* Computing is what was measured with these routes, also if the model would take more experts.
     */
    for (size_t i = 0; i < plan.n; i++) plan.v[i].n_expert_used *= 2;
    routes.n_step = EXPERTS; /* they repeat */
    r = simulate(&set, 12);
    CHECK_INT(r.expert_hits, r.expert_uses);
    CHECK_NEAR(r.seconds, 4 * r.n_step);
    /* Too small a budget. */
    ttx_err err = {0};
    set.residency.budget = MIB;
    CHECK_INT(ttx_simulate(&r, &set, &err), TTX_E_RUNTIME);
    ttx_plan_free(&plan);
}

/* Guesses that are right go on and are of use; those that are wrong stop, and cost little until
 * then. */
static void check_switch(const ttx_source *source) {
    enum { MANY = 1000 };
    static uint16_t v[MANY * LAYERS];
    ttx_plan plan = plan_of(LAYERS, EXPERTS);
    ttx_sim_routes routes = {MANY, LAYERS, EXPERTS, 1, v};
    draw(v, MANY * LAYERS);
    ttx_sim_settings set = settings(source, &plan, &routes, 4);
    set.n_step = MANY;
    ttx_sim_result off = simulate(&set, 3);
    set.residency.prefetch |= TTX_PREFETCH_EXPERT;
    ttx_sim_result right = simulate(&set, 3);
    CHECK(right.guesses_used == right.guesses && right.guesses > MANY / 3);
    CHECK(right.seconds < 0.95 * off.seconds);
    set.router_right = 0;
    ttx_sim_result wrong = simulate(&set, 3);
    CHECK(wrong.guesses_used * 2 < wrong.guesses);
    /* 419 if they never paused; each pause is for a sixth of the time. */
    CHECK(wrong.guesses >= TTX_GUESS_JUDGED && wrong.guesses < 400);
    CHECK(wrong.seconds < 1.1 * off.seconds);
    printf("guesses: none %.0f s, right %.0f s (%llu), wrong %.0f s (%llu)\n", off.seconds,
           right.seconds, (unsigned long long)right.guesses, wrong.seconds,
           (unsigned long long)wrong.guesses);
    ttx_plan_free(&plan);
}

/* Five layers; only the last one's experts are missed, one in each step, and reading one takes
 * three layers' computing. */
static void check_ahead(const ttx_source *source) {
    enum { DEEP = 5 };
    static uint16_t v[STEPS * DEEP];
    ttx_plan plan = plan_of(DEEP, EXPERTS);
    for (int i = 0; i < STEPS; i++) v[i * DEEP + DEEP - 1] = (uint16_t)(i % EXPERTS);
    ttx_sim_routes routes = {STEPS, DEEP, EXPERTS, 1, v};
    ttx_sim_settings set = settings(source, &plan, &routes, 2 * DEEP);
    set.machine.disk_bytes_s = MIB / 6.0;
    ttx_sim_result r = simulate(&set, 2 * DEEP - 1);
    CHECK_INT(r.layout.n_slots, DEEP - 1 + EXPERTS - 1);
    CHECK_NEAR(r.seconds, (2 * DEEP + 6) * r.n_step);
    CHECK_NEAR(r.bound_guess_s, (2 * DEEP + 4) * r.n_step); /* who looks one layer ahead */
    set.residency.prefetch |= TTX_PREFETCH_EXPERT;
    r = simulate(&set, 2 * DEEP - 1);
    CHECK_INT(r.guesses_used, r.n_step);
    CHECK_NEAR(r.seconds, 2 * DEEP * r.n_step);
    ttx_plan_free(&plan);
}

/* What was read for a coming layer is still there when it comes: neither other guesses nor what is
 * missed on the way replace it. */
static void check_kept(const ttx_source *source) {
    enum { DEEP = 8, MANY = 400 };
    static uint16_t v[MANY * DEEP];
    ttx_plan plan = plan_of(DEEP, EXPERTS);
    draw(v, MANY * DEEP);
    ttx_sim_routes routes = {MANY, DEEP, EXPERTS, 1, v};
    ttx_sim_settings set = settings(source, &plan, &routes, 8 * DEEP);
    set.n_step = MANY;
    set.residency.prefetch |= TTX_PREFETCH_EXPERT;
    for (int policy = 0; policy < TTX_CACHE_OPTIMUM; policy++) {
        set.residency.policy = (ttx_cache_policy)policy;
        ttx_sim_result r = simulate(&set, 17);
        CHECK_INT(r.layout.n_slots, 12);
        CHECK(r.guesses > MANY);
        CHECK_INT(r.guesses_used, r.guesses);
    }
    /* A slow disk, and guesses of which some are wrong: 29,404 s; 29,628 s if what is missed took
     * the places of those that were read for coming layers. */
    set.residency.policy = TTX_CACHE_LEAST_STALE;
    set.router_right = 0.75;
    set.machine.disk_bytes_s = MIB / 4.0;
    double seconds = simulate(&set, 17).seconds;
    printf("guesses ahead: %.0f s\n", seconds);
    CHECK(seconds < 29500);
    ttx_plan_free(&plan);
}

int main(void) {
    ttx_source source = {"self", open("/proc/self/exe", O_RDONLY | O_CLOEXEC), NULL, 64 * MIB, 0};
    if (source.fd < 0) return 1;
    check_dense(&source);
    check_experts(&source);
    check_switch(&source);
    check_ahead(&source);
    check_kept(&source);
    close(source.fd);
    printf("%d failures\n", failures);
    return failures != 0;
}
