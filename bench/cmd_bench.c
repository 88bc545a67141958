/* cmd_bench.c -- ttx bench: how fast a model runs, and how fast this machine could run it.
 *
 * Flags, tests and field names are llama-bench's: every combination of the listed values is one
 * test, repeated -r times after a warm-up. Beside each result stands its limit (see bound.c), from
 * what the machine was measured to do beside it.
 */
#include "bench_int.h"
#include "engine_ram.h"
#include "mem_group.h"
#include "page_drop.h"

#include "models.h"
#include "pool.h"
#include "readfile.h"
#include "roofline.h"
#include "tokenizer.h"

#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_METER_NS 400000000u /* between two looks at what memory can do */
enum { SLOWEST_S = 256 };          /* beyond RAM a second for each token of the default test */

typedef struct bench {
    const bench_settings *set;
    bench_matrix x;
    bench_how how;
    ttx_limits limits;       /* measured last */
    ttx_meter *memory_meter; /* NULL: beyond RAM, no limits asked for, or no memory for it */
    bench_out out;
    ttx_engine engine;
    int n_engines;  /* that will be opened, one after the other */
    char trace[64]; /* --roofline: a directory for the time of the run */
    bool show;
    /* Of tests beyond RAM. */
    bool beyond;
    ram_watch watch;
    ram_result ram;
    ttx_disk disk;
    ttx_disk_meter *disk_meter; /* of the present setup; NULL: none */
    double base_ts, base_mb;    /* of the ladder's last baseline */
    int32_t *text;
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

/* What else came of a test, and against the ladder's baseline. */
static int measure_ram(bench *b, bench_result *r, ttx_err *err) {
    ram_result *ram = &b->ram;
    double n = (double)r->n_reps * (r->test.n_prompt + r->test.n_gen), seconds = 0;
    ttx_disk disk = bench_disk_beside(r, &b->disk);
    for (int i = 0; i < r->n_reps; i++) seconds += (double)r->ns[i] * 1e-9;
    int rc = ram_watch_result(&b->watch, ram, &disk, n, seconds, err);
    if (rc) return rc;
    double ts = n / seconds;
    if (r->test.n_prompt) /* its routes are not recorded, and the bounds are of decoding */
        ram->reread = ram->bound_ts = ram->bound_guess_ts = ram->bound_free_ts = NAN;
    ram->group_peak = b->set->mem_limit ? (double)mem_group_peak() : NAN;
    ram->change_mb = ram->change_ms = ram->change_ts = NAN;
    if (strcmp(ram->setup->step, "baseline") == 0) {
        b->base_ts = ts;
        b->base_mb = ram->mb_token;
    } else if (*ram->setup->step && b->base_ts > 0) {
        ram->change_mb = ram->mb_token - b->base_mb;
        ram->change_ms = 1e3 / ts - 1e3 / b->base_ts;
        ram->change_ts = ts / b->base_ts - 1;
    }
    r->ram = ram;
    return TTX_OK;
}

/* Each repetition beside what memory could do in its time. */
static int judge(bench *b, bench_result *r, ttx_err *err) {
    ttx_limits l = b->limits;
    double *share = calloc((size_t)r->n_reps + 1, sizeof *share);
    int rc = share ? TTX_OK : ttx_fail_nomem(err, "samples", sizeof *share);
    for (int i = 0; i < r->n_reps && !rc; i++) {
        if (b->memory_meter) l.read_gbps = r->gbps[i];
        rc = bench_bound(r, b->engine.model, &l, err);
        share[i] = r->bound_ts > 0 ? bench_ts(r, i) / r->bound_ts : 0;
    }
    if (!rc) rc = bench_bound(r, b->engine.model, &b->limits, err);
    r->bound_share = rc ? 0 : bench_median(share, r->n_reps);
    free(share);
    return rc;
}

static int run_test(bench *b, ttx_session *s, bench_test t, ttx_err *err) {
    bench_result r = {0};
    const ttx_model *m = b->engine.model;
    if (t.n_prompt + t.n_gen == 0) return TTX_OK;
    int rc = bench_run(&r, s, m->hp.n_vocab, &t, &b->how, err);
    if (t.n_gen) b->how.n_touch = 0; /* once is enough */
    hide_progress(b);
    if (!rc && b->beyond) rc = measure_ram(b, &r, err);
    if (!rc && b->memory_meter) b->limits.read_gbps = bench_median(r.gbps, r.n_reps);
    if (!rc) rc = ttx_limits_peak_again(&b->limits, err);
    if (!rc && !b->set->roofline) rc = judge(b, &r, err);
    bench_subject subject = {m, &b->limits, b->engine.rt.isa};
    if (!rc && !b->set->roofline) rc = bench_out_row(&b->out, &subject, &r, err);
    bench_result_free(&r);
    return rc;
}

/* All tests that differ in their tokens alone share a session, and the positions before them. */
static int run_session(bench *b, bench_test t, ttx_err *err) {
    const bench_matrix *x = &b->x;
    ttx_session *s = NULL;
    ttx_engine_args args = common_args(b);
    args.n_ctx = (uint32_t)(t.n_depth + x->most_tokens);
    if (b->beyond) { /* as the memory was planned for */
        args.n_ctx = (uint32_t)(bench_greatest(&x->n_depth) + x->most_tokens);
        args.ram = b->ram.setup->ram;
    }
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

/* ---- models ---- */

/* Takes every shard out of the page cache. */
static int drop_model(bench *b, const char *path, ttx_err *err) {
    gguf_file *file = NULL;
    double bytes = 0, left = 0, share;
    int rc = gguf_open(&file, path, err);
    for (uint32_t i = 0; !rc && i < gguf_n_shards(file); i++) {
        const gguf_shard *s = gguf_get_shard(file, i);
        rc = page_drop(s->path, &share, err);
        bytes += (double)s->size;
        left += share * (double)s->size;
    }
    gguf_close(file);
    b->ram.cached = bytes > 0 ? left / bytes : 0;
    if (!rc && b->ram.cached > 0.01)
        ttx_note("--cold: %.1f %% of %s stayed in the page cache: somebody else has it mapped",
                 100 * b->ram.cached, path);
    return rc;
}

/* Tokens of --file, to take turns with. */
static int read_text(bench *b, ttx_err *err) {
    enum { MAX_TEXT = 1 << 26 };
    ttx_tokenizer *tok = NULL;
    char *text = NULL;
    size_t n = 0;
    int rc = ttx_read_file(b->set->text, MAX_TEXT, &text, &n, err);
    if (!rc) rc = ttx_tokenizer_load(&tok, b->engine.file, err);
    if (!rc) rc = ttx_tokenize(tok, text, n, TTX_TOK_ADD_SPECIAL, &b->text, &b->how.n_text, err);
    if (!rc && !b->how.n_text)
        rc = ttx_fail(err, TTX_E_USAGE, "%s: expected text, found none", b->set->text);
    b->how.text = b->text;
    ttx_tokenizer_free(tok);
    free(text);
    return rc;
}

/* What a setup makes of the options of all. */
static ttx_engine_args setup_args(const bench *b, const char *path, const ram_setup *s) {
    const bench_matrix *x = &b->x;
    ttx_engine_args args = common_args(b);
    args.model = path;
    args.n_threads = x->most_threads;
    args.load_mode = s->load_mode;
    if (!b->beyond) return args;
    args.ram = s->ram;
    args.prefetch = s->prefetch;
    if (s->pin) args.pin = s->pin;
    if (!s->pattern) args.hints = args.pattern = NULL;
    args.n_ctx = (uint32_t)(bench_greatest(&x->n_depth) + x->most_tokens);
    args.n_ubatch = (uint32_t)bench_greatest(&x->n_ubatch);
    args.k_type = x->k_type.v[0];
    args.v_type = x->v_type.v[0];
    return args;
}

/* Before the model takes its memory. No meter where all reads go on record. */
static void measure_disk(bench *b, ttx_engine_args *args) {
    const char *path = args->model;
    bool recorded = args->trace && args->trace_level == TTX_LEVEL_IO;
    ttx_err why = {0};
    if (ttx_disk_measure(&b->disk, path, TTX_DISK_BYTES, &why)) {
        ttx_note("%s: no bound", why.msg);
        b->disk = (ttx_disk){0};
    } else if (!recorded && ram_meter_open(&b->disk_meter, args, &why)) {
        ttx_note("%s: the bound is of the disk before the test", why.msg);
    }
}

static void watch_ram(bench *b, uint64_t read_at_open) {
    ram_watch_open(&b->watch, &b->engine, b->disk_meter);
    b->watch.read_at_open = read_at_open;
    b->how.mark = ram_watch_mark;
    b->how.mark_ctx = b->how.meter_ctx = &b->watch;
    b->how.meter = b->disk_meter ? ram_watch_meter : NULL;
    b->how.meter_ns = RAM_METER_NS;
}

/* How many tokens use each expert eight times in the mean: e^-8 of them are left out. */
static int32_t tokens_for_experts(const bench *b) {
    const ttx_hparams *hp = &b->engine.model->hp;
    bool mapped = ttx_residency_mode(b->engine.rt.residency) == TTX_LOAD_MMAP;
    if (b->beyond || b->set->roofline || !mapped || !hp->n_expert_used) return 0;
    return (int32_t)(8 * hp->n_expert / hp->n_expert_used);
}

static int open_setup(bench *b, const char *path, ttx_engine_args *args, ttx_err *err) {
    int rc = TTX_OK;
    if (b->beyond) measure_disk(b, args);
    if (!rc && b->set->cold) rc = drop_model(b, path, err);
    uint64_t read = ram_device_bytes();
    if (!rc) rc = ttx_engine_open(&b->engine, args, err);
    if (rc) return rc;
    if (args->verbose)
        ttx_note("%s: %s, %.1f MiB of weights, %s kernels, loaded in %.3f s", path,
                 b->engine.model->arch->name, (double)ttx_model_bytes(b->engine.model) / (1 << 20),
                 ttx_isa_name(b->engine.rt.isa), b->engine.load_s);
    b->how.n_touch = tokens_for_experts(b);
    if (!b->beyond) return TTX_OK;
    watch_ram(b, read);
    return b->set->text ? read_text(b, err) : TTX_OK;
}

static int run_setup(bench *b, const char *path, const ram_setup *s, int32_t isa, ttx_err *err) {
    bench_test t = {.load_mode = s->load_mode, .isa = isa};
    ttx_engine_args args = setup_args(b, path, s);
    args.isa = isa;
    b->ram = (ram_result){.setup = s, .cached = NAN};
    int rc = open_setup(b, path, &args, err);
    if (!rc) rc = run_sessions(b, t, err);
    if (b->set->roofline) {
        rc = ttx_trace_close(b->engine.rt.trace, rc, NULL, err);
        b->engine.rt.trace = NULL;
        if (!rc) rc = show_roofline(b, b->trace, err);
    }
    rc = ttx_engine_finish(&b->engine, rc, err);
    ttx_engine_close(&b->engine);
    ram_watch_close(&b->watch);
    ttx_disk_meter_close(b->disk_meter);
    b->disk_meter = NULL;
    free(b->text);
    b->text = NULL;
    b->how.n_text = 0;
    return rc;
}

static int run_model(bench *b, const char *path, ttx_err *err) {
    int rc = TTX_OK;
    for (int i = 0; i < b->x.n_setups && !rc; i++)
        for (int k = 0; k < b->x.isa.n && !rc; k++)
            rc = run_setup(b, path, &b->x.setups[i], b->x.isa.v[k], err);
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
    b->n_engines += b->x.n_setups * b->x.isa.n;
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

static int read_settings(bench *b, ttx_err *err) {
    const bench_settings *set = b->set;
    int rc = bench_read_matrix(&b->x, set, err);
    if (rc) return rc;
    b->beyond = bench_is_beyond(set);
    b->show = set->progress || isatty(STDERR_FILENO);
    b->how = (bench_how){.n_reps = (int)(set->n_reps ? set->n_reps
                                         : b->beyond ? 1
                                                     : 5),
                         .warm_up = !set->no_warm_up,
                         .n_warm_up = b->x.n_warm_up,
                         .go_on = b->beyond,
                         .max_s = set->max_s  ? set->max_s
                                  : b->beyond ? SLOWEST_S
                                              : 0,
                         .delay_s = set->delay_s,
                         .progress = show_progress,
                         .progress_ctx = b};
    return TTX_OK;
}

/* ---- the command ---- */

static double read_memory(void *meter) {
    return ttx_meter_read(meter);
}

static int measure_limits(bench *b, ttx_err *err) {
    b->limits = (ttx_limits){.read_kernel = "", .peak_unit = ""};
    if (b->set->no_limits || b->beyond) return TTX_OK; /* the disk is the limit */
    if (b->show) fputs("\rmeasuring what the machine can do\033[K", stderr);
    int rc = ttx_limits_measure(&b->limits, err);
    if (!rc) rc = ttx_meter_open(&b->memory_meter, &b->limits, err);
    if (b->memory_meter) {
        b->how.meter = read_memory;
        b->how.meter_ctx = b->memory_meter;
        b->how.meter_ns = MEMORY_METER_NS;
    }
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

static int run_all(bench *b, ttx_err *err) {
    int rc = measure_limits(b, err);
    if (!rc && b->set->roofline) rc = run_roofline(b, err);
    if (rc || b->set->roofline) return rc;
    bench_out_begin(&b->out, stdout, (result_format)b->set->format);
    rc = for_models(b, run_model, err);
    hide_progress(b);
    bench_out_end(&b->out, &b->limits);
    return rc;
}

static int run(const void *arg, ttx_err *err) {
    const bench_settings *set = arg;
    int exit_code = -1, rc = TTX_OK;
    bench *b = calloc(1, sizeof *b);
    if (!b) return ttx_fail_nomem(err, "settings", sizeof *b);
    b->set = set;
    rc = read_settings(b, err);
    if (!rc) rc = for_models(b, check_model, err);
    if (!rc) rc = check_records(b, err);
    if (!rc && set->mem_limit) rc = mem_group_enter(set->mem_limit, &exit_code, err);
    if (!rc && exit_code < 0) {
        b->how.interrupted = ttx_catch_interrupt();
        rc = run_all(b, err);
        hide_progress(b);
    }
    ttx_meter_close(b->memory_meter);
    free(b->x.rams);
    free(b);
    return rc || exit_code < 0 ? rc : exit_code;
}

static void defaults(void *arg) {
    bench_settings *s = arg;
    ttx_engine_args_defaults(&s->engine);
}

#define BENCH(field) offsetof(bench_settings, field)
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
     .max = 100000, .shown_default = "5; beyond RAM 1"},
    {"--delay", OPT_U32, BENCH(delay_s), "S", "seconds to wait before each repetition", .min = 0,
     .max = 3600},
    {"--no-warmup", OPT_FLAG, BENCH(no_warm_up), .help = "measure the first run too"},
    {"--no-limits", OPT_FLAG, BENCH(no_limits),
     .help = "do not measure what the machine can do (2 s, 2 GiB)"},
    {"-f, --file", OPT_STR, BENCH(text), "FILE",
     "beyond RAM: take tokens from this text, in place of random ones"},
    {"--warm-up", OPT_U32, BENCH(n_warm_up), "N", "tokens that a warm-up decodes", .min = 1,
     .max = 1 << 20, .shown_default = "1; beyond RAM 64"},
    {"--max-seconds", OPT_U32, BENCH(max_s), "S",
     "end decoding after this time: what takes longer has fewer tokens", .max = 1 << 20,
     .shown_default = "no limit; beyond RAM 256"},
    {"--ram", OPT_LIST, BENCH(ram), "SIZE,...",
     "memory budgets: 3G, 50% or auto; a model larger than that is streamed",
     .group = "Beyond RAM"},
    {"--prefetch", OPT_LIST, BENCH(prefetch), "WHAT,...",
     "what is read before it is needed: auto, off, layer, expert, all, on",
     .shown_default = "auto"},
    {"--pin", OPT_STR, TTX_ARG(pin), "WHAT", "weights that stay in memory: see ttx run",
     .shown_default = "auto"},
    {"--evict", OPT_ENUM, TTX_ARG(evict), "HOW", "mmap: what becomes of pages that have been used",
     .choices = TTX_EVICT_CHOICES},
    {"--expert-cache", OPT_ENUM, TTX_ARG(cache_policy), "POLICY",
     "which expert leaves the cache: see ttx run", .choices = TTX_CACHE_POLICY_NAMES,
     .shown_default = TTX_CACHE_DEFAULT_NAME},
    {"--guess", OPT_ENUM, TTX_ARG(guess), "HOW", "which experts are guessed: see ttx run",
     .choices = TTX_GUESS_NAMES, .shown_default = "router"},
    {"--hints", OPT_STR, TTX_ARG(hints), "FILE", "hints of an earlier run: see ttx run"},
    {"--pattern", OPT_STR, TTX_ARG(pattern), "FILE", "pattern of an earlier run: see ttx run"},
    {"--cold", OPT_FLAG, BENCH(cold),
     .help = "drop the model from the page cache before it is opened"},
    {"--mem-limit", OPT_SIZE, BENCH(mem_limit), "SIZE",
     "run inside a memory cgroup with this limit (needs the right to make one)"},
    {"--ladder", OPT_FLAG, BENCH(ladder),
     .help = "nothing, then one switch after the other (pin, layers ahead, --hints and --pattern, "
             "experts ahead), mapped and streamed, each against nothing"},
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
        "The machine is measured before the tests: the most bytes that all cores together read a\n"
        "second (2 GiB in huge pages), and the most operations of its best arithmetic unit; and\n"
        "again, memory beside each repetition, the unit after each test, since virtual machines\n"
        "change by the second. From them follows each test's limit (bound_ts): decoding must\n"
        "read the weights of a token and the keys and values that it attends to, a prompt must\n"
        "do its multiply-adds. There is no limit for decoding models that are smaller than twice\n"
        "the last-level cache.\n"
        "\n"
        "Any option of 'Beyond RAM' turns to what matters there: 256 tokens decoded after 64 of\n"
        "warm-up, MB read a token, experts found in the cache, waiting, major faults, what part\n"
        "of the reading was hidden, bytes read by distinct bytes touched, the disk's speed\n"
        "(O_DIRECT on the model's file: depths 1 to 64 before, then at the beginning and end of\n"
        "each repetition and every 2 s of its decoding) and the bound that follows for the same\n"
        "reads (docs/simulator.md). There is no bound for mapped models: who waited for pages is\n"
        "not known.\n"
        "\n"
        "--expert-stats and --save-routes record all that runs: warm-ups and depths too.",
    .examples = "  # prompt of 512, decoding of 128\n  ttx bench -m model.gguf\n"
                "  # how does it scale, with threads and with context?\n"
                "  ttx bench -m model.gguf -p 256 -n 32 -t 1,2 -d 0,4096\n"
                "  # where is the next per cent?\n"
                "  ttx bench -m model.gguf -p 256 -n 32 -r 2 --roofline\n"
                "  # a model larger than memory: is reading ahead worth it?\n"
                "  ttx bench -m big.gguf --ram 8G,5G --prefetch off,on --cold\n"
                "  # figures for a script\n"
                "  ttx bench -m a.gguf,b.gguf -p 0 -n 64 -o json",
    .options = options,
    .settings_size = sizeof(bench_settings),
    .defaults = defaults,
    .run = run,
};
