/* cmd_tune.c -- ttx tune: measures disk and computing, simulates, chooses, and writes hints.
 *
 * A short streamed run tells how long a token computes and which experts tokens use; the simulator
 * then tries every cache policy and predictor with them, at the same budget.
 */
#include "bench_int.h"
#include "outfile.h"
#include "sim_model.h"

#include <cJSON.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    ttx_engine_args engine;
    const char *output;
    uint32_t n_tokens;
    float router_right;
} settings;

enum { WARM_UP = 8, STREAM = 3 };

typedef struct tuning {
    const settings *set;
    ttx_engine_args args;
    ttx_engine engine;
    ttx_disk disk;
    ram_watch watch;
    ram_result measured;
    int32_t policy, guess; /* the choice; guess 0: off */
    double predicted_ts;
    uint32_t n_slots;
    bool fits; /* all of the model does */
} tuning;

/* ---- measuring ---- */

static int measure(tuning *t, ttx_err *err) {
    ttx_session *s = NULL;
    bench_result r = {0};
    bench_test test = {.n_gen = (int32_t)t->set->n_tokens, .n_ubatch = (int32_t)t->args.n_ubatch};
    bench_how how = {.n_reps = 1,
                     .warm_up = true,
                     .n_warm_up = WARM_UP,
                     .go_on = true,
                     .interrupted = ttx_catch_interrupt(),
                     .meter = ram_watch_meter,
                     .meter_ctx = &t->watch,
                     .meter_ns = RAM_METER_NS,
                     .mark = ram_watch_mark,
                     .mark_ctx = &t->watch};
    int rc = ttx_engine_session(&t->engine, &t->args, 1, &s, err);
    if (!rc) rc = bench_run(&r, s, t->engine.model->hp.n_vocab, &test, &how, err);
    if (!rc) t->disk = bench_disk_beside(&r, &t->disk);
    if (!rc)
        rc = ram_watch_result(&t->watch, &t->measured, &t->disk, r.test.n_gen,
                              (double)r.ns[0] * 1e-9, err);
    if (!rc) t->measured.change_ts = bench_ts(&r, 0);
    bench_result_free(&r);
    ttx_session_close(s);
    return rc;
}

/* ---- choosing ---- */

static int try_choice(tuning *t, sim_model *m, const ttx_sim_settings *how, int32_t policy,
                      int32_t guess, ttx_err *err) {
    ttx_engine_args a = t->args;
    ttx_sim_result r;
    char p[16], g[16];
    a.cache_policy = policy;
    a.prefetch = guess ? SIM_ALL : SIM_LAYERS_ONLY;
    a.guess = guess ? guess - 1 : 0;
    int rc = sim_model_run(m, &a, how, &r, err);
    if (rc) return rc;
    double ts = r.n_step / r.seconds;
    if (m->has_experts)
        printf("%-12s %-10s %5.1f %% hits %8.1f MB/token %8.2f t/s\n",
               bench_choice(TTX_CACHE_POLICY_NAMES, policy, p), bench_choice(SIM_GUESSES, guess, g),
               100.0 * (double)r.expert_hits / (double)(r.expert_uses + !r.expert_uses),
               r.bytes * 1e-6 / r.n_step, ts);
    t->n_slots = r.layout.n_slots;
    t->fits = r.layout.pinned == r.layout.dense && r.layout.n_slots == r.layout.n_experts;
    if (ts <= t->predicted_ts) return TTX_OK;
    t->predicted_ts = ts;
    t->policy = policy;
    t->guess = guess;
    return TTX_OK;
}

static int choose(tuning *t, ttx_err *err) {
    bool experts = t->engine.model->hp.n_expert > 0;
    sim_model m = {.file = t->engine.file,
                   .model = t->engine.model,
                   .rt = t->engine.rt,
                   .routes = t->watch.routes,
                   .budget = t->engine.needs->budget,
                   .has_experts = experts};
    ttx_sim_settings how = {
        .machine = {t->disk.bytes_s, t->disk.latency_s, t->measured.compute_ms * 1e-3},
        .n_step = experts ? t->watch.routes.n_step : WARM_UP + t->set->n_tokens,
        .warm_up = WARM_UP,
        .router_right = t->set->router_right};
    int rc = sim_model_sources(&m, err);
    for (int32_t p = 0; p < (experts ? TTX_CACHE_POLICIES : 1) && !rc; p++)
        for (int32_t g = 0; g <= (experts ? TTX_GUESS_KINDS : 0) && !rc; g++)
            rc = try_choice(t, &m, &how, p, g, err);
    free(m.sources);
    return rc;
}

/* ---- hints ---- */

typedef struct expert_use {
    uint32_t layer, expert, uses;
} expert_use;

static int most_used(const void *a, const void *b) {
    const expert_use *x = a, *y = b;
    return x->uses == y->uses ? 0 : x->uses > y->uses ? -1 : 1;
}

/* The experts that the run used, most often first, as many as the cache holds. */
static bool add_warm(const tuning *t, cJSON *root) {
    const ttx_sim_routes *r = &t->watch.routes;
    size_t n = (size_t)r->n_layer * r->n_expert;
    expert_use *v = calloc(n + 1, sizeof *v);
    cJSON *list = v ? cJSON_AddArrayToObject(root, "warm_experts") : NULL;
    bool ok = list;
    for (size_t i = 0; ok && i < n; i++)
        v[i] = (expert_use){(uint32_t)(i / r->n_expert), (uint32_t)(i % r->n_expert), 0};
    for (size_t i = 0; ok && i < (size_t)r->n_step * r->n_layer * r->k; i++)
        if (r->expert[i] < r->n_expert)
            v[i / r->k % r->n_layer * r->n_expert + r->expert[i]].uses++;
    if (ok) qsort(v, n, sizeof *v, most_used);
    for (size_t i = 0; ok && i < n && i < t->n_slots && v[i].uses; i++) {
        cJSON *o = cJSON_CreateObject();
        ok = o && cJSON_AddItemToArray(list, o) &&
             cJSON_AddNumberToObject(o, "layer_id", v[i].layer) &&
             cJSON_AddNumberToObject(o, "expert_id", v[i].expert) &&
             cJSON_AddNumberToObject(o, "uses", v[i].uses);
    }
    free(v);
    return ok;
}

static cJSON *hints(const tuning *t) {
    char hash[TTX_MODEL_HASH], p[16], g[16];
    cJSON *o = cJSON_CreateObject(), *run = cJSON_AddObjectToObject(o, "run");
    ttx_trace_model_hash(t->engine.model, hash);
    bool ok = run && cJSON_AddStringToObject(o, "model_hash", hash) &&
              cJSON_AddStringToObject(run, "ram", t->args.ram) &&
              cJSON_AddStringToObject(run, "load_mode", t->fits ? "auto" : "stream") &&
              cJSON_AddStringToObject(run, "expert_cache",
                                      bench_choice(TTX_CACHE_POLICY_NAMES, t->policy, p)) &&
              cJSON_AddStringToObject(run, "prefetch",
                                      t->fits    ? "auto"
                                      : t->guess ? "all"
                                                 : "layer") &&
              cJSON_AddStringToObject(run, "guess",
                                      bench_choice(SIM_GUESSES, t->guess ? t->guess : 1, g)) &&
              cJSON_AddNumberToObject(run, "disk_mbps", t->disk.bytes_s * 1e-6) &&
              cJSON_AddNumberToObject(run, "disk_latency_us", t->disk.latency_s * 1e6) &&
              cJSON_AddNumberToObject(run, "compute_s", t->measured.compute_ms * 1e-3) &&
              cJSON_AddNumberToObject(run, "predicted_ts", t->predicted_ts);
    if (ok && t->engine.model->hp.n_expert) ok = add_warm(t, o);
    if (ok && !t->engine.model->hp.n_expert) /* a reader expects one of the two */
        ok = cJSON_AddArrayToObject(cJSON_AddObjectToObject(o, "pin"), "ranges");
    if (ok) return o;
    cJSON_Delete(o);
    return NULL;
}

static int write_hints(const tuning *t, ttx_err *err) {
    ttx_outfile out;
    int rc = ttx_outfile_open(&out, t->set->output, err);
    if (rc) return rc;
    cJSON *o = hints(t);
    char *text = o ? cJSON_Print(o) : NULL;
    if (text)
        fprintf(out.f, "%s\n", text);
    else
        rc = ttx_fail_nomem(err, "hints", 4096);
    cJSON_Delete(o);
    free(text);
    return ttx_outfile_close(&out, rc, err);
}

/* ---- the command ---- */

static void print_choice(const tuning *t) {
    char p[16], g[16];
    printf("\nDisk %.0f MB/s and %.0f us a read; computing %.1f ms a token; "
           "measured %.2f t/s.\n",
           t->disk.bytes_s * 1e-6, t->disk.latency_s * 1e6, t->measured.compute_ms,
           t->measured.change_ts);
    if (!t->engine.model->hp.n_expert)
        printf("Expected: %.2f t/s.\n", t->predicted_ts);
    else
        printf("Expected: %.2f t/s with --ram %s --expert-cache %s --prefetch %s%s%s\n",
               t->predicted_ts, t->args.ram, bench_choice(TTX_CACHE_POLICY_NAMES, t->policy, p),
               t->guess ? "all" : "layer", t->guess ? " --guess " : "",
               t->guess ? bench_choice(SIM_GUESSES, t->guess, g) : "");
}

static int run(const void *arg, ttx_err *err) {
    tuning t = {.set = arg};
    t.args = t.set->engine;
    t.args.load_mode = STREAM;
    t.args.prefetch = SIM_LAYERS_ONLY;
    if (t.args.n_ctx == TTX_CTX_DEFAULT) t.args.n_ctx = 512;
    if (t.args.n_ctx < t.set->n_tokens + WARM_UP)
        return ttx_fail(err, TTX_E_USAGE,
                        "-n: expected %d tokens fewer than the context of %u, "
                        "found %u",
                        WARM_UP, t.args.n_ctx, t.set->n_tokens);
    ttx_disk_meter *meter = NULL;
    int rc = ttx_disk_measure(&t.disk, t.args.model, TTX_DISK_BYTES, err);
    if (!rc) rc = ram_meter_open(&meter, &t.args, err);
    if (!rc) rc = ttx_engine_open(&t.engine, &t.args, err);
    if (!rc) {
        ram_watch_open(&t.watch, &t.engine, meter);
        rc = measure(&t, err);
        if (!rc) rc = choose(&t, err);
        if (!rc) print_choice(&t);
        if (!rc && t.set->output) rc = write_hints(&t, err);
        ram_watch_close(&t.watch);
    }
    ttx_engine_close(&t.engine);
    ttx_disk_meter_close(meter);
    return rc;
}

static void defaults(void *arg) {
    settings *s = arg;
    ttx_engine_args_defaults(&s->engine);
    s->n_tokens = 64;
    s->router_right = SIM_ROUTER_RIGHT;
}

#define TUNE(field) offsetof(settings, field)
static const ttx_opt options[] = {
    TTX_OPT_MODEL,
    {"--ram", OPT_STR, TTX_ARG(ram), "SIZE", "memory budget: 3G, 50% or auto", .required = true,
     .group = "What is tuned"},
    {"-n, --n-gen", OPT_U32, TUNE(n_tokens), "N", "tokens to decode and measure", .min = 1,
     .max = 1 << 20},
    {"--routes", OPT_STR, TTX_ARG(routes), "FILE", "choose experts as a recorded run did"},
    SIM_ROUTER_RIGHT_OPT(TUNE(router_right)),
    {"-c, --ctx-size", OPT_U32, TTX_ARG(n_ctx), "N", "context size in tokens", .max = 1 << 30,
     .shown_default = "512", .group = "The run"},
    {"-t, --threads", OPT_INT, TTX_ARG(n_threads), "N", "threads", .min = -1, .max = 1024,
     .shown_default = "every core"},
    {"-ub, --ubatch-size", OPT_U32, TTX_ARG(n_ubatch), "N",
     "tokens of a prompt that are computed at once", .min = 1, .max = 1 << 16},
    {"-o, --output", OPT_STR, TUNE(output), "FILE", "write hints here, for ttx run --hints",
     .group = "Output"},
    {.kind = OPT_END},
};

const ttx_command ttx_cmd_tune = {
    .name = "tune",
    .summary = "choose how a model larger than memory is best streamed",
    .usage = "ttx tune -m FILE --ram SIZE [-o hints.json]",
    .about =
        "Measures the disk and a short streamed run, simulates every cache policy and predictor "
        "at\n"
        "the same budget with the experts that the run chose (see ttx sim), and names the best.\n"
        "The hints file holds that choice and the experts that were used most: a run with --hints\n"
        "does as was chosen and begins with a warm cache.",
    .examples = "  # once\n  ttx tune -m big.gguf --ram 8G -o hints.json\n"
                "  # from then on\n  ttx run -m big.gguf --hints hints.json -p \"Once\"",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
};
