/* cmd_bench.c -- ttx bench: how fast a model runs, and how fast this machine could run it.
 *
 * Flags, tests and field names are llama-bench's: every combination of the listed values is one
 * test, repeated -r times after a warm-up. Beside each result stands its limit (see bound.c), from
 * what the machine was measured to do just before.
 */
#include "bench_int.h"

#include "models.h"
#include "pool.h"
#include "roofline.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct settings {
    ttx_engine_args engine; /* what is the same in every test; the lists replace the rest */
    ttx_opt_list models, n_prompt, n_gen, pg, n_depth, n_ubatch, n_threads, k_type, v_type;
    ttx_opt_list load_mode, isa;
    uint32_t n_reps, delay_s;
    int32_t format;
    bool no_warm_up, no_limits, progress, roofline;
} settings;

/* The lists, read. */
typedef struct matrix {
    bench_values n_prompt, n_gen, pg, n_depth, n_ubatch, n_threads, k_type, v_type, load_mode, isa;
    int32_t most_threads, most_tokens; /* of one test, its depth aside */
} matrix;

typedef struct bench {
    const settings *set;
    matrix x;
    bench_how how;
    ttx_limits limits; /* the best seen so far */
    ttx_limits before; /* measured last */
    bench_out out;
    ttx_engine engine;
    int n_engines;  /* that will be opened, one after the other */
    char trace[64]; /* --roofline: a directory for the time of the run */
    bool show;
} bench;

static void show_progress(void *ctx, const bench_test *t, int rep, double ts) {
    const bench *b = ctx;
    char name[64];
    if (!b->show) return;
    fprintf(stderr, "\r%s: %s, repetition %d of %d", gguf_path(b->engine.file),
            bench_test_name(t, name), rep, b->how.n_reps);
    if (rep) fprintf(stderr, ", %.2f t/s", ts);
    fputs("\033[K", stderr);
}

static void hide_progress(const bench *b) {
    if (b->show) fputs("\r\033[K", stderr);
}

/* ---- tests ---- */

/* What the options say for every test. */
static ttx_engine_args common_args(const bench *b) {
    ttx_engine_args args = b->set->engine;
    if (b->set->roofline) {
        args.trace = b->trace;
        args.trace_level = TTX_LEVEL_TENSOR;
    }
    return args;
}

static int run_test(bench *b, ttx_session *s, bench_test t, ttx_err *err) {
    bench_result r = {0};
    const ttx_model *m = b->engine.model;
    if (t.n_prompt + t.n_gen == 0) return TTX_OK;
    int rc = bench_run(&r, s, m->hp.n_vocab, &t, &b->how, err);
    hide_progress(b);
    ttx_limits after = b->before;
    if (!rc && !b->set->no_limits) rc = ttx_limits_again(&after, err);
    ttx_limits around = ttx_limits_best(&b->before, &after);
    b->limits = ttx_limits_best(&b->limits, &after);
    b->before = after;
    if (!rc && !b->set->roofline) rc = bench_bound(&r, m, &around, err);
    bench_subject subject = {m, &around, b->engine.rt.isa};
    if (!rc && !b->set->roofline) rc = bench_out_row(&b->out, &subject, &r, err);
    bench_result_free(&r);
    return rc;
}

/* All tests that differ in their tokens alone share a session, and the positions before them. */
static int run_session(bench *b, bench_test t, ttx_err *err) {
    const matrix *x = &b->x;
    ttx_session *s = NULL;
    ttx_engine_args args = common_args(b);
    args.n_ctx = (uint32_t)(t.n_depth + x->most_tokens);
    args.n_ubatch = (uint32_t)t.n_ubatch;
    args.n_threads = t.n_threads;
    args.k_type = t.k_type;
    args.v_type = t.v_type;
    int rc = ttx_engine_session(&b->engine, &args, 1, &s, err);
    for (int i = 0; i < x->n_prompt.n && !rc; i++) {
        t.n_prompt = x->n_prompt.v[i], t.n_gen = 0;
        rc = run_test(b, s, t, err);
    }
    for (int i = 0; i < x->n_gen.n && !rc; i++) {
        t.n_prompt = 0, t.n_gen = x->n_gen.v[i];
        rc = run_test(b, s, t, err);
    }
    for (int i = 0; i + 1 < x->pg.n && !rc; i += 2) {
        t.n_prompt = x->pg.v[i], t.n_gen = x->pg.v[i + 1];
        rc = run_test(b, s, t, err);
    }
    ttx_session_close(s);
    return rc;
}

/* Every combination of what a session is opened with; the last list varies fastest. */
static int run_sessions(bench *b, bench_test t, ttx_err *err) {
    enum { N = 5 };
    const bench_values *lists[N] = {&b->x.n_ubatch, &b->x.k_type, &b->x.v_type, &b->x.n_threads,
                                    &b->x.n_depth};
    int32_t *fields[N] = {&t.n_ubatch, &t.k_type, &t.v_type, &t.n_threads, &t.n_depth};
    int at[N] = {0}, rc = TTX_OK;
    for (int i = 0; i >= 0 && !rc;) {
        for (int k = 0; k < N; k++) *fields[k] = lists[k]->v[at[k]];
        rc = run_session(b, t, err);
        for (i = N - 1; i >= 0 && ++at[i] == lists[i]->n; i--) at[i] = 0;
    }
    return rc;
}

/* What a trace of the one test says, beside the limits around it. */
static int show_roofline(const bench *b, const char *trace, ttx_err *err) {
    roofline *r = malloc(sizeof *r);
    char k_type[16], v_type[16];
    if (!r) return ttx_fail_nomem(err, "a roofline", sizeof *r);
    bench_choice(bench_kv_types, b->x.k_type.v[0], k_type);
    bench_choice(bench_kv_types, b->x.v_type.v[0], v_type);
    roofline_begin(r, b->engine.model, &b->limits, k_type, v_type);
    int rc = roofline_read(r, trace, err);
    if (!rc && b->set->format == RESULT_JSON)
        rc = roofline_json(r, stdout, err);
    else if (!rc)
        roofline_print(r, stdout);
    free(r);
    return rc;
}

static int run_model(bench *b, const char *path, ttx_err *err) {
    int rc = TTX_OK;
    for (int i = 0; i < b->x.load_mode.n && !rc; i++)
        for (int k = 0; k < b->x.isa.n && !rc; k++) {
            bench_test t = {.load_mode = b->x.load_mode.v[i], .isa = b->x.isa.v[k]};
            ttx_engine_args args = common_args(b);
            args.model = path;
            args.n_threads = b->x.most_threads;
            args.load_mode = t.load_mode;
            args.isa = t.isa;
            rc = ttx_engine_open(&b->engine, &args, err);
            if (!rc && args.verbose)
                ttx_note("%s: %s, %.1f MiB of weights, %s kernels, loaded in %.3f s", path,
                         b->engine.model->arch->name,
                         (double)ttx_model_bytes(b->engine.model) / (1 << 20),
                         ttx_isa_name(b->engine.rt.isa), b->engine.load_s);
            if (!rc) rc = run_sessions(b, t, err);
            if (b->set->roofline) {
                rc = ttx_trace_close(b->engine.rt.trace, rc, NULL, err);
                b->engine.rt.trace = NULL;
                if (!rc) rc = show_roofline(b, b->trace, err);
            }
            rc = ttx_engine_finish(&b->engine, rc, err);
            ttx_engine_close(&b->engine);
        }
    return rc;
}

/* Better to fail before the machine is measured than after it. */
static int check_model(bench *b, const char *path, ttx_err *err) {
    gguf_file *file = NULL;
    ttx_model *model = NULL;
    int rc = gguf_open(&file, path, err);
    if (!rc) rc = ttx_model_load(&model, file, ttx_archs, err);
    ttx_model_free(model);
    gguf_close(file);
    b->n_engines += b->x.load_mode.n * b->x.isa.n;
    return rc;
}

static int for_models(bench *b, int (*what)(bench *, const char *, ttx_err *), ttx_err *err) {
    const ttx_opt_list *models = &b->set->models;
    int rc = TTX_OK;
    for (int i = 0; i < models->n && !rc; i++) {
        char *names = strdup(models->v[i]), *rest = NULL;
        if (!names) return ttx_fail_nomem(err, "model names", strlen(models->v[i]));
        for (char *name = strtok_r(names, ",", &rest); name && !rc;
             name = strtok_r(NULL, ",", &rest))
            rc = what(b, name, err);
        free(names);
    }
    return rc;
}

/* ---- what was asked ---- */

enum { MAX_TOKENS = 1 << 24 };

static int read_lists(matrix *x, const settings *set, ttx_err *err) {
    const struct {
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
    return rc;
}

static int32_t greatest(const bench_values *v) {
    int32_t m = 0;
    for (int i = 0; i < v->n; i++) m = v->v[i] > m ? v->v[i] : m;
    return m;
}

/* A roofline is of one test: prompt, then decoding. */
static int choose_roofline(matrix *x, const settings *set, ttx_err *err) {
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

static int read_settings(bench *b, ttx_err *err) {
    matrix *x = &b->x;
    int rc = read_lists(x, b->set, err);
    if (!rc && b->set->roofline) rc = choose_roofline(x, b->set, err);
    if (rc) return rc;
    x->most_threads = greatest(&x->n_threads);
    int32_t p = greatest(&x->n_prompt), n = greatest(&x->n_gen);
    x->most_tokens = p > n ? p : n;
    for (int i = 0; i + 1 < x->pg.n; i += 2) {
        int32_t both = x->pg.v[i] + x->pg.v[i + 1];
        if (both > MAX_TOKENS)
            return ttx_fail(err, TTX_E_USAGE, "-pg: expected at most %d tokens, found %d",
                            MAX_TOKENS, both);
        x->most_tokens = both > x->most_tokens ? both : x->most_tokens;
    }
    if (!x->most_tokens)
        return ttx_fail(err, TTX_E_USAGE,
                        "bench: expected a test, found none (-p 0 and -n 0 leave theirs out)");
    /* A warm-up decodes one token past the prompt. */
    x->most_tokens++;
    b->show = b->set->progress || isatty(STDERR_FILENO);
    b->how = (bench_how){.n_reps = (int)b->set->n_reps,
                         .warm_up = !b->set->no_warm_up,
                         .delay_s = b->set->delay_s,
                         .progress = show_progress,
                         .progress_ctx = b};
    return TTX_OK;
}

/* ---- the command ---- */

static int measure_limits(bench *b, ttx_err *err) {
    b->limits = b->before = (ttx_limits){.read_kernel = "", .peak_unit = ""};
    if (b->set->no_limits) return TTX_OK;
    if (b->show) fputs("\rmeasuring what the machine can do\033[K", stderr);
    int rc = ttx_limits_measure(&b->limits, err);
    b->before = b->limits;
    hide_progress(b);
    if (!rc && b->limits.read_gbps <= 0)
        ttx_note("too little free memory to measure the bandwidth: no limits for decoding");
    if (!rc && b->limits.peak_gops <= 0)
        ttx_note("the peak of this CPU's AMX tiles is not known: no limits for prompts");
    return rc;
}

/* A file of records describes one model, run in one way. */
static int check_records(const bench *b, ttx_err *err) {
    const ttx_engine_args *a = &b->set->engine;
    const char *option = b->set->roofline  ? "--roofline"
                         : a->trace        ? "--trace"
                         : a->save_routes  ? "--save-routes"
                         : a->expert_stats ? "--expert-stats"
                                           : NULL;
    if (!option || b->n_engines < 2) return TTX_OK;
    return ttx_fail(err, TTX_E_USAGE, "%s: expected one model, load mode and isa, found %d of them",
                    option, b->n_engines);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static int run_roofline(bench *b, ttx_err *err) {
    const char *tmp = getenv("TMPDIR");
    int n =
        snprintf(b->trace, sizeof b->trace, "%s/ttx-roofline-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (n >= (int)sizeof b->trace || !mkdtemp(b->trace))
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot create: %s", b->trace, strerror(errno));
    int rc = for_models(b, run_model, err);
    nftw(b->trace, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return rc;
}

static int run(const void *arg, ttx_err *err) {
    bench b = {.set = arg};
    int rc = read_settings(&b, err);
    if (!rc) rc = for_models(&b, check_model, err);
    if (!rc) rc = check_records(&b, err);
    if (rc) return rc;
    b.how.interrupted = ttx_catch_interrupt();
    if ((rc = measure_limits(&b, err))) return rc;
    if (b.set->roofline) {
        rc = run_roofline(&b, err);
        hide_progress(&b);
        return rc;
    }
    bench_out_begin(&b.out, stdout, (result_format)b.set->format);
    rc = for_models(&b, run_model, err);
    hide_progress(&b);
    bench_out_end(&b.out, &b.limits);
    return rc;
}

static void defaults(void *arg) {
    settings *s = arg;
    ttx_engine_args_defaults(&s->engine);
    s->n_reps = 5;
}

#define BENCH(field) offsetof(settings, field)
static const ttx_opt options[] = {
    {"-m, --model", OPT_LIST, BENCH(models), "FILE,...", "GGUF models, or any shard of one",
     .group = "Model", .required = true},
    {"-lm, --load-mode", OPT_LIST, BENCH(load_mode), "MODE,...",
     "auto, mmap, mlock, stream or none: see ttx run", .shown_default = "mmap"},
    {"-p, --n-prompt", OPT_LIST, BENCH(n_prompt), "N,...", "tokens of a prompt; 0: no such test",
     .shown_default = "512", .group = "Tests"},
    {"-n, --n-gen", OPT_LIST, BENCH(n_gen), "N,...", "tokens to decode; 0: no such test",
     .shown_default = "128"},
    {"-pg", OPT_LIST, BENCH(pg), "N,N", "a prompt and decoding after it, as one test"},
    {"-d, --n-depth", OPT_LIST, BENCH(n_depth), "N,...", "tokens in the context before a test",
     .shown_default = "0"},
    {"-r, --repetitions", OPT_U32, BENCH(n_reps), "N", "how often each test is run", .min = 1,
     .max = 100000},
    {"--delay", OPT_U32, BENCH(delay_s), "S", "seconds to wait before each repetition", .min = 0,
     .max = 3600},
    {"--no-warmup", OPT_FLAG, BENCH(no_warm_up), .help = "measure the first run too"},
    {"--no-limits", OPT_FLAG, BENCH(no_limits),
     .help = "do not measure what the machine can do (2 s, 2 GiB)"},
    {"-t, --threads", OPT_LIST, BENCH(n_threads), "N,...", "threads", .shown_default = "every core",
     .group = "Engine"},
    {"-ub, --ubatch-size", OPT_LIST, BENCH(n_ubatch), "N,...",
     "tokens of a prompt that are computed at once", .shown_default = "512"},
    {"-ctk, --cache-type-k", OPT_LIST, BENCH(k_type), "TYPE,...",
     "type of cached keys: f16, f32 or q8_0", .shown_default = "f16"},
    {"-ctv, --cache-type-v", OPT_LIST, BENCH(v_type), "TYPE,...",
     "type of cached values: f16, f32 or q8_0", .shown_default = "f16"},
    {"--isa", OPT_LIST, BENCH(isa), "LEVEL,...",
     "highest instruction set to use: auto, scalar, avx2, avx512, vnni or amx",
     .shown_default = "auto"},
    TTX_OPTS_EXPERTS,
    TTX_OPTS_TRACE,
    {"-v, --verbose", OPT_FLAG, TTX_ARG(verbose), .help = "say more on stderr"},
    {"--roofline", OPT_FLAG, BENCH(roofline),
     .help = "instead: where the time of -p and -n goes, by operation and type, beside the limits",
     .group = "Output"},
    {"-o, --output", OPT_ENUM, BENCH(format), "FORMAT", "how to print the results",
     .choices = RESULT_FORMATS},
    {"--progress", OPT_FLAG, BENCH(progress),
     .help = "show progress on stderr even if it is no terminal"},
    {"-b, --batch-size", OPT_IGNORED1, .arg = "N", .help = "see -ub",
     .group = "Accepted for llama-bench command lines, without effect"},
    {"-fa, --flash-attn", OPT_IGNORED1, .arg = "on|off|auto", .help = "attention is always fused"},
    {"-ngl, --n-gpu-layers", OPT_IGNORED1, .arg = "N", .help = "there is no GPU here"},
    {"-ncmoe, --n-cpu-moe", OPT_IGNORED1, .arg = "N", .help = "all experts are on the CPU"},
    {"--poll", OPT_IGNORED1, .arg = "N", .help = "threads spin briefly, then sleep"},
    {.kind = OPT_END},
};

const ttx_command ttx_cmd_bench = {
    .name = "bench",
    .summary = "measure speed, beside what the machine could do",
    .usage = "ttx bench -m FILE[,FILE...] [options]",
    .about =
        "Takes llama-bench's flags and prints its fields. Values are lists and ranges (512,1024;\n"
        "1-8*2; 64-256+64), and every combination is one test: pp512 evaluates a prompt of 512\n"
        "random tokens, tg128 decodes 128 tokens one by one, \"@ d4096\" with 4096 tokens in the\n"
        "context before. Each test is warmed up, then run -r times.\n"
        "\n"
        "Before the tests, and shortly after each, the machine is measured: the most bytes that "
        "all\n"
        "cores together read a second (2 GiB in huge pages), and the most operations of its best\n"
        "arithmetic unit. From the better of both follows each test's limit (bound_ts): decoding "
        "must read the weights of a token\n"
        "and the keys and values that it attends to, a prompt must do its multiply-adds. There is\n"
        "no limit for decoding models that are smaller than twice the last-level cache.\n"
        "\n"
        "--expert-stats and --save-routes record all that runs: warm-ups and depths too.",
    .examples = "  # prompt of 512, decoding of 128\n  ttx bench -m model.gguf\n"
                "  # how does it scale, with threads and with context?\n"
                "  ttx bench -m model.gguf -p 256 -n 32 -t 1,2 -d 0,4096\n"
                "  # where is the next per cent?\n"
                "  ttx bench -m model.gguf -p 256 -n 32 -r 2 --roofline\n"
                "  # figures for a script\n"
                "  ttx bench -m a.gguf,b.gguf -p 0 -n 64 -o json",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
};
