/* bench_settings.c -- what was asked of `ttx bench`: lists of values, and the ways to open a model.
 */
#include "bench_int.h"

#include "engine_ram.h"
#include "pool.h"

#include <stdlib.h>
#include <string.h>

int32_t bench_greatest(const bench_values *v) {
    int32_t m = 0;
    for (int i = 0; i < v->n; i++) m = v->v[i] > m ? v->v[i] : m;
    return m;
}

enum { MAX_TOKENS = 1 << 24 };

bool bench_is_beyond(const bench_settings *set) {
    return set->ram.n || set->prefetch.n || set->ladder || set->cold || set->mem_limit;
}

static int read_lists(bench_matrix *x, const bench_settings *set, ttx_err *err) {
    struct {
        bench_values *to;
        const ttx_opt_list *from;
        const char *option;
        int32_t min, def;
    } ints[] = {
        {&x->n_prompt, &set->n_prompt, "-p", 0, 512},
        {&x->n_gen, &set->n_gen, "-n", 0, 128},
        {&x->n_depth, &set->n_depth, "-d", 0, 0},
        {&x->n_ubatch, &set->n_ubatch, "-ub", 1, (int32_t)ttx_session_default_settings().n_ubatch},
        {&x->n_threads, &set->n_threads, "-t", 1, ttx_cpu_count()},
    };
    int rc = TTX_OK;
    if (bench_is_beyond(set)) ints[0].def = 0, ints[1].def = 256; /* decoding is what suffers */
    for (size_t i = 0; i < sizeof ints / sizeof *ints && !rc; i++) {
        rc = bench_parse_ints(ints[i].to, ints[i].from, ints[i].option, ints[i].min, ints[i].def,
                              err);
        for (int k = 0; k < ints[i].to->n && !rc; k++)
            if (ints[i].to->v[k] > MAX_TOKENS)
                rc = ttx_fail(err, TTX_E_USAGE, "%s: expected at most %d, found %d", ints[i].option,
                              MAX_TOKENS, ints[i].to->v[k]);
    }
    if (!rc) rc = bench_parse_pairs(&x->pg, &set->pg, "-pg", err);
    if (!rc) rc = bench_parse_names(&x->k_type, &set->k_type, "-ctk", bench_kv_types, err);
    if (!rc) rc = bench_parse_names(&x->v_type, &set->v_type, "-ctv", bench_kv_types, err);
    if (!rc) rc = bench_parse_names(&x->load_mode, &set->load_mode, "-lm", bench_load_modes, err);
    if (!rc) rc = bench_parse_names(&x->isa, &set->isa, "--isa", bench_isas, err);
    if (!rc)
        rc = bench_parse_names(&x->prefetch, &set->prefetch, "--prefetch", bench_prefetches, err);
    return rc;
}

/* ---- setups ---- */

static int add_setup(bench_matrix *x, ram_setup s, ttx_err *err) {
    if (x->n_setups == BENCH_MAX_VALUES)
        return ttx_fail(err, TTX_E_USAGE, "--ram: expected at most %d setups", BENCH_MAX_VALUES);
    x->setups[x->n_setups++] = s;
    return TTX_OK;
}

enum { MMAP = 1, STREAM = 3, NONE_AHEAD = 1, LAYERS_AHEAD = 2, ALL_AHEAD = 4 }; /* choices */

/* One switch after the other, all that came before staying on, mapped and streamed. */
static int add_ladder(bench_matrix *x, const bench_settings *set, const char *ram, ttx_err *err) {
    static const int32_t modes[] = {MMAP, STREAM};
    int rc = TTX_OK;
    for (int i = 0; i < 2 && !rc; i++) {
        const ram_setup steps[] = {
            {ram, "baseline", modes[i], NONE_AHEAD, "off", false},
            {ram, "+ pin", modes[i], NONE_AHEAD, NULL, false},
            {ram, "+ layers ahead", modes[i], LAYERS_AHEAD, NULL, false},
            {ram, "+ pattern", modes[i], LAYERS_AHEAD, NULL, true},
            {ram, "+ experts ahead", modes[i], ALL_AHEAD, NULL, true},
        };
        for (size_t k = 0; k < sizeof steps / sizeof *steps && !rc; k++) {
            bool known = set->engine.hints || set->engine.pattern;
            if (strcmp(steps[k].step, "+ pattern") != 0 || known) rc = add_setup(x, steps[k], err);
        }
    }
    return rc;
}

static int add_budget(bench_matrix *x, const bench_settings *set, const char *ram, ttx_err *err) {
    uint64_t bytes;
    int rc = ram ? ttx_parse_ram(ram, &bytes, err) : TTX_OK;
    if (rc || set->ladder) return rc ? rc : add_ladder(x, set, ram, err);
    for (int i = 0; i < x->load_mode.n && !rc; i++)
        for (int k = 0; k < x->prefetch.n && !rc; k++)
            rc = add_setup(
                x, (ram_setup){ram, "", x->load_mode.v[i], x->prefetch.v[k], set->engine.pin, true},
                err);
    return rc;
}

static int read_setups(bench_matrix *x, const bench_settings *set, ttx_err *err) {
    size_t n = 1;
    char *rest = NULL;
    int rc = TTX_OK;
    if (set->ladder && (set->load_mode.n || set->prefetch.n || set->engine.pin))
        return ttx_fail(err, TTX_E_USAGE,
                        "--ladder: expected no -lm, --prefetch and --pin, which are its steps");
    if (bench_is_beyond(set) && set->roofline)
        return ttx_fail(err, TTX_E_USAGE,
                        "--roofline: expected none of --ram, --prefetch, --cold, "
                        "--mem-limit and --ladder, found one");
    if (!set->ram.n) return add_budget(x, set, NULL, err);
    for (int i = 0; i < set->ram.n; i++) n += strlen(set->ram.v[i]) + 1;
    x->rams = calloc(n, 1);
    if (!x->rams) return ttx_fail_nomem(err, "budgets", n);
    for (int i = 0; i < set->ram.n; i++) {
        strcat(x->rams, set->ram.v[i]);
        strcat(x->rams, ",");
    }
    for (char *ram = strtok_r(x->rams, ",", &rest); ram && !rc; ram = strtok_r(NULL, ",", &rest))
        rc = add_budget(x, set, ram, err);
    return rc;
}

/* A roofline is of one test: prompt, then decoding. */
static int choose_roofline(bench_matrix *x, const bench_settings *set, ttx_err *err) {
    const bench_values *lists[] = {&x->n_prompt, &x->n_gen,     &x->n_depth,
                                   &x->n_ubatch, &x->n_threads, &x->k_type,
                                   &x->v_type,   &x->load_mode, &x->isa};
    bool one = x->pg.n == 0 && !set->engine.trace;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) one = one && lists[i]->n == 1;
    if (!one)
        return ttx_fail(
            err, TTX_E_USAGE,
            "--roofline: expected one value of each option, no -pg and no --trace, found more");
    if (set->format != RESULT_MD && set->format != RESULT_JSON)
        return ttx_fail(err, TTX_E_USAGE, "--roofline: expected -o md or json, found another");
    if (set->no_warm_up)
        return ttx_fail(err, TTX_E_USAGE, "--roofline: expected a warm-up, found --no-warmup");
    x->pg = (bench_values){{x->n_prompt.v[0], x->n_gen.v[0]}, 2};
    x->n_prompt.n = x->n_gen.n = 0;
    return TTX_OK;
}

int bench_read_matrix(bench_matrix *x, const bench_settings *set, ttx_err *err) {
    int rc = read_lists(x, set, err);
    if (!rc) rc = read_setups(x, set, err);
    if (!rc && set->roofline) rc = choose_roofline(x, set, err);
    if (rc) return rc;
    x->most_threads = bench_greatest(&x->n_threads);
    int32_t p = bench_greatest(&x->n_prompt), n = bench_greatest(&x->n_gen);
    x->most_tokens = p > n ? p : n;
    for (int i = 0; i + 1 < x->pg.n; i += 2) {
        int32_t both = x->pg.v[i] + x->pg.v[i + 1];
        if (both > MAX_TOKENS)
            return ttx_fail(err, TTX_E_USAGE, "-pg: expected at most %d tokens, found %d",
                            MAX_TOKENS, both);
        x->most_tokens = both > x->most_tokens ? both : x->most_tokens;
        p = x->pg.v[i] > p ? x->pg.v[i] : p;
    }
    if (!x->most_tokens)
        return ttx_fail(err, TTX_E_USAGE,
                        "bench: expected a test, found none (-p 0 and -n 0 leave theirs out)");
    /* A warm-up decodes past its prompt; beyond RAM the test goes on where it ended. */
    x->n_warm_up = set->n_warm_up ? (int32_t)set->n_warm_up : bench_is_beyond(set) ? 64 : 1;
    x->most_tokens += x->n_warm_up;
    if (!bench_is_beyond(set) || set->no_warm_up) return TTX_OK;
    int32_t batch = bench_greatest(&x->n_ubatch);
    x->most_tokens += p < batch ? p : batch;
    return TTX_OK;
}
