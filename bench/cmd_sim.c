/* cmd_sim.c -- ttx sim: what a memory budget, a cache policy and guesses would give.
 *
 * A row for each budget, policy and predictor, and one for Belady's optimum. The bounds of a row
 * are those of the same budget and policy without guesses: what the reads of that run cost at
 * least.
 */
#include "bench_int.h"
#include "disk_probe.h"
#include "sim_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    ttx_engine_args engine;
    const char *trace, *routes;
    ttx_opt_list ram, policy, guess;
    float disk_mb, latency_us, compute_s, router_right;
    uint32_t n_step, warm_up;
    int32_t format;
} settings;

typedef struct sim_out {
    const settings *set;
    sim_model *m;
    ttx_sim_settings how;
    bench_values policy, guess;
    int n_rows;
} sim_out;

/* ---- rows ---- */

static double per_token(const ttx_sim_result *r, double seconds) {
    return seconds > 0 ? r->n_step / seconds : NAN;
}

static double share(double part, double all) {
    return all > 0 ? part / all : NAN;
}

static void print_md(sim_out *o, const char *policy, const char *guess, const ttx_sim_result *r,
                     const ttx_sim_result *plain) {
    const ttx_residency_layout *l = &r->layout;
    char cache[40] = "-", hits[16] = "-";
    if (!o->n_rows)
        puts("| ram MiB | policy      | guess     | pinned MiB | cache: experts, cycles | hits % | "
             "MB/token | stall ms |    t/s |  bound | guessing | min(compute, disk) |\n"
             "|--------:|:------------|:----------|-----------:|-----------------------:|-------:|-"
             "--------:|---------:|-------:|-------:|---------:|-------------------:|");
    if (l->n_experts) {
        snprintf(cache, sizeof cache, "%u of %u, %.1f", l->n_slots, l->n_experts,
                 share((double)l->cache, (double)l->expert_cycle));
        snprintf(hits, sizeof hits, "%.1f",
                 100 * share((double)r->expert_hits, (double)r->expert_uses));
    }
    printf("| %7.0f | %-11s | %-9s | %10.0f | %22s | %6s | %8.1f | %8.1f | %6.2f | %6.2f | %8.2f | "
           "%18.2f |\n",
           (double)l->budget / (1 << 20), policy, guess, (double)l->pinned / (1 << 20), cache, hits,
           r->bytes * 1e-6 / r->n_step, r->stall_s * 1e3 / r->n_step, per_token(r, r->seconds),
           per_token(plain, plain->bound_s), per_token(plain, plain->bound_guess_s),
           per_token(plain, plain->bound_free_s));
}

static int print_row(sim_out *o, const char *policy, const char *guess, const ttx_sim_result *r,
                     const ttx_sim_result *plain, ttx_err *err) {
    const ttx_residency_layout *l = &r->layout;
    const ttx_sim_machine *mach = &o->how.machine;
    result_row row = {0};
    int rc = TTX_OK;
    result_text(&row, "model_filename", gguf_path(o->m->file));
    result_int(&row, "ram_bytes", (double)l->budget);
    result_text(&row, "policy", policy);
    result_text(&row, "guess", guess);
    result_real(&row, "disk_mbps", mach->disk_bytes_s * 1e-6);
    result_real(&row, "disk_latency_us", mach->disk_latency_s * 1e6);
    result_real(&row, "compute_s", mach->compute_s);
    result_int(&row, "n_steps", r->n_step);
    result_int(&row, "pinned_bytes", (double)l->pinned);
    result_int(&row, "ring_bytes", (double)l->ring);
    result_int(&row, "expert_cache_bytes", (double)l->cache);
    result_int(&row, "n_experts", l->n_experts);
    result_int(&row, "n_expert_slots", l->n_slots);
    result_real(&row, "token_cycles", share((double)l->cache, (double)l->expert_cycle));
    result_real(&row, "hit_rate", share((double)r->expert_hits, (double)r->expert_uses));
    result_real(&row, "mb_per_token", r->bytes * 1e-6 / r->n_step);
    result_real(&row, "stall_ms", r->stall_s * 1e3 / r->n_step);
    result_int(&row, "guesses", (double)r->guesses);
    result_int(&row, "guesses_used", (double)r->guesses_used);
    result_real(&row, "predicted_ts", per_token(r, r->seconds));
    result_real(&row, "bound_ts", per_token(plain, plain->bound_s));
    result_real(&row, "bound_guess_ts", per_token(plain, plain->bound_guess_s));
    result_real(&row, "bound_free_ts", per_token(plain, plain->bound_free_s));
    if (o->set->format == RESULT_MD)
        print_md(o, policy, guess, r, plain);
    else
        rc = result_print(stdout, (result_format)o->set->format, "ttx_sim", &row, o->n_rows, err);
    o->n_rows++;
    return rc;
}

/* ---- runs ---- */

static int run_policy(sim_out *o, ttx_engine_args *a, ttx_err *err) {
    ttx_sim_result plain, r;
    char policy[16], guess[16];
    bench_choice(TTX_CACHE_POLICY_NAMES, a->cache_policy, policy);
    a->prefetch = SIM_LAYERS_ONLY;
    int rc = sim_model_run(o->m, a, &o->how, &plain, err);
    for (int i = 0; i < o->guess.n && !rc; i++) {
        bool off = o->guess.v[i] == 0;
        a->prefetch = off ? SIM_LAYERS_ONLY : 0;
        a->guess = off ? 0 : o->guess.v[i] - 1;
        rc = sim_model_run(o->m, a, &o->how, &r, err);
        if (!rc)
            rc = print_row(o, policy, bench_choice(SIM_GUESSES, o->guess.v[i], guess), &r, &plain,
                           err);
    }
    return rc;
}

static int run_budget(sim_out *o, const char *ram, ttx_err *err) {
    ttx_engine_args a = o->set->engine;
    ttx_sim_result r;
    int rc = TTX_OK;
    a.ram = ram;
    if (!o->m->has_experts) {
        a.prefetch = SIM_LAYERS_ONLY;
        rc = sim_model_run(o->m, &a, &o->how, &r, err);
        return rc ? rc : print_row(o, "", "", &r, &r, err);
    }
    for (int i = 0; i < o->policy.n && !rc; i++) {
        a.cache_policy = o->policy.v[i];
        rc = run_policy(o, &a, err);
    }
    if (!rc) rc = sim_model_optimum(o->m, &a, &o->how, &r, err);
    return rc ? rc : print_row(o, "optimum", "off", &r, &r, err);
}

static int run_budgets(sim_out *o, ttx_err *err) {
    int rc = TTX_OK;
    for (int i = 0; i < o->set->ram.n && !rc; i++) {
        char *list = strdup(o->set->ram.v[i]), *rest = NULL;
        if (!list) return ttx_fail_nomem(err, "budgets", 1);
        for (char *ram = strtok_r(list, ",", &rest); ram && !rc; ram = strtok_r(NULL, ",", &rest))
            rc = run_budget(o, ram, err);
        free(list);
    }
    return rc;
}

/* ---- the machine ---- */

static int choose_machine(sim_out *o, ttx_err *err) {
    const settings *set = o->set;
    ttx_sim_machine *mach = &o->how.machine;
    mach->compute_s = set->compute_s > 0 ? (double)set->compute_s : o->m->compute_s;
    if (mach->compute_s <= 0)
        return ttx_fail(err, TTX_E_USAGE,
                        "--compute: expected the seconds of a token that waits for nothing, found "
                        "none (a --trace knows them; ttx tune measures them)");
    if (set->disk_mb > 0) {
        mach->disk_bytes_s = (double)set->disk_mb * 1e6;
        mach->disk_latency_s = (double)set->latency_us * 1e-6;
        return TTX_OK;
    }
    ttx_disk disk;
    int rc = ttx_disk_measure(&disk, o->m->sources[0].path, TTX_DISK_BYTES, err);
    mach->disk_bytes_s = disk.bytes_s;
    mach->disk_latency_s = disk.latency_s;
    return rc;
}

static int default_choices(bench_values *v, const char *choices) {
    v->n = 0;
    for (const char *c = choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL) {
        v->v[v->n] = v->n;
        v->n++;
    }
    return TTX_OK;
}

static int read_lists(sim_out *o, ttx_err *err) {
    const settings *set = o->set;
    if (set->warm_up >= set->n_step)
        return ttx_fail(err, TTX_E_USAGE, "--warm-up: expected fewer than the %u steps, found %u",
                        set->n_step, set->warm_up);
    int rc = set->policy.n ? bench_parse_names(&o->policy, &set->policy, "--policy",
                                               TTX_CACHE_POLICY_NAMES, err)
                           : default_choices(&o->policy, TTX_CACHE_POLICY_NAMES);
    if (rc) return rc;
    o->guess = (bench_values){{0, 1}, 2}; /* off, router */
    return set->guess.n ? bench_parse_names(&o->guess, &set->guess, "--guess", SIM_GUESSES, err)
                        : TTX_OK;
}

static int run(const void *arg, ttx_err *err) {
    const settings *set = arg;
    sim_model m;
    sim_out o = {.set = set, .m = &m};
    int rc = read_lists(&o, err);
    if (rc) return rc;
    rc = sim_model_open(&m, &set->engine, set->trace, set->routes, set->n_step, err);
    o.how.n_step = set->n_step;
    o.how.warm_up = set->warm_up;
    o.how.router_right = set->router_right;
    if (!rc) rc = choose_machine(&o, err);
    if (!rc) {
        result_begin(stdout, (result_format)set->format);
        rc = run_budgets(&o, err);
        result_end(stdout, (result_format)set->format);
        if (!rc && set->format == RESULT_MD)
            printf(
                "\nDisk %.0f MB/s and %.0f us a read; computing %.1f ms a token; %u tokens after "
                "%u.\n",
                o.how.machine.disk_bytes_s * 1e-6, o.how.machine.disk_latency_s * 1e6,
                o.how.machine.compute_s * 1e3, set->n_step - set->warm_up, set->warm_up);
    }
    sim_model_close(&m);
    return rc;
}

static void defaults(void *arg) {
    settings *s = arg;
    ttx_engine_args_defaults(&s->engine);
    s->n_step = 320;
    s->warm_up = 64;
    s->router_right = SIM_ROUTER_RIGHT;
}

#define SIM(field) offsetof(settings, field)
static const ttx_opt options[] = {
    TTX_OPT_MODEL,
    {"--trace", OPT_STR, SIM(trace), "DIR", "take routes and computing time from this trace",
     .group = "What happens"},
    {"--routes", OPT_STR, SIM(routes), "FILE", "take routes from a file (route_trace v1)"},
    {"--steps", OPT_U32, SIM(n_step), "N", "tokens to decode", .min = 1, .max = 1 << 20},
    {"--warm-up", OPT_U32, SIM(warm_up), "N", "tokens of them that are not counted",
     .max = 1 << 20},
    {"--ram", OPT_LIST, SIM(ram), "SIZE,...", "memory budgets: 3G, 50% or auto",
     .group = "What is compared", .required = true},
    {"--policy", OPT_LIST, SIM(policy), "POLICY,...", "cache policies: " TTX_CACHE_POLICY_NAMES,
     .shown_default = "all"},
    {"--guess", OPT_LIST, SIM(guess), "HOW,...",
     "which experts are read before they are chosen: off|" TTX_GUESS_NAMES,
     .shown_default = "off,router"},
    {"--disk", OPT_FLOAT, SIM(disk_mb), "MB/S", "speed of the disk", .min = 0.001, .max = 1e6,
     .shown_default = "measured: reads of the model file", .group = "The machine"},
    {"--latency", OPT_FLOAT, SIM(latency_us), "US",
     "with --disk: microseconds of a read besides its bytes' time", .max = 1e7},
    {"--compute", OPT_FLOAT, SIM(compute_s), "S", "seconds of a token that waits for nothing",
     .min = 1e-9, .max = 1e6, .shown_default = "the trace's"},
    SIM_ROUTER_RIGHT_OPT(SIM(router_right)),
    {"-c, --ctx-size", OPT_U32, TTX_ARG(n_ctx), "N", "context size in tokens", .max = 1 << 30,
     .shown_default = "as ttx run", .group = "The run"},
    {"-ub, --ubatch-size", OPT_U32, TTX_ARG(n_ubatch), "N",
     "tokens of a prompt that are computed at once", .min = 1, .max = 1 << 16},
    {"--n-expert-used", OPT_U32, TTX_ARG(n_expert_used), "K", "experts that a token uses", .min = 1,
     .max = 1024, .shown_default = "the model's"},
    {"-o, --output", OPT_ENUM, SIM(format), "FORMAT", "how to print the results",
     .choices = RESULT_FORMATS, .group = "Output"},
    {.kind = OPT_END},
};

const ttx_command ttx_cmd_sim = {
    .name = "sim",
    .summary = "predict the speed of a model larger than memory",
    .usage = "ttx sim -m FILE --routes FILE --ram SIZE[,SIZE...] [options]",
    .about =
        "Runs the streaming mode's own code, layout, ring, cache and guesses, on a disk and a "
        "clock\n"
        "that are made up, with the experts that a real run chose. A row for each budget, policy\n"
        "and predictor, and one for Belady's optimum, which knows the future.\n"
        "\n"
        "Beside the predicted speed stand the speeds that the same reads allow at most: 'bound',\n"
        "if experts are known after their router; 'guessing', if they are known one router "
        "before;\n"
        "and the smaller of computing and reading alone. See docs/simulator.md.",
    .examples = "  # which policy, and how much memory?\n"
                "  ttx sim -m big.gguf --routes big.route.csv --compute 0.08 --ram 4G,6G,8G\n"
                "  # a model without experts\n"
                "  ttx sim -m 7b.gguf --ram 2G,3G --disk 1200 --compute 0.15",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
};
