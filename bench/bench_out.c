/* bench_out.c -- results as Markdown for people, and as rows for machines.
 *
 * The machine formats have llama-bench's fields under llama-bench's names, in its order and units,
 * and then ours. What is unknown is null.
 */
#include "bench_int.h"

#include "kinds.h"
#include "pool.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a row says ---- */

typedef struct row {
    result_row r;
    char type[64], k_type[16], v_type[16], load_mode[16], prefetch[16];
    double *ns, *ts, *ttft; /* [n_reps] */
} row;

static double known(double v) {
    return v > 0 ? v : NAN;
}

static double count_params(const ttx_model *m) {
    double n = 0;
    for (uint32_t i = 0; i < gguf_n_tensors(m->file); i++)
        n += (double)gguf_tensors(m->file)[i].n_elements;
    return n;
}

/* "llama 0.13B Q4_1": architecture, parameters, the type that most bytes are of. */
static void describe_model(const ttx_model *m, char *buf, size_t size) {
    uint64_t bytes[TTX_DTYPE_COUNT] = {0}, most = 0;
    const char *name = "?";
    for (uint32_t i = 0; i < gguf_n_tensors(m->file); i++) {
        const gguf_tensor *t = &gguf_tensors(m->file)[i];
        if ((bytes[t->type] += t->size) <= most) continue;
        most = bytes[t->type];
        name = ttx_dtype_get(t->type)->name;
    }
    snprintf(buf, size, "%s %.2fB %s", m->arch->name, count_params(m) * 1e-9, name);
}

static void put_setup(row *r, const bench_out *o, const bench_subject *s, const bench_test *t) {
    bench_choice(bench_kv_types, t->k_type, r->k_type);
    bench_choice(bench_kv_types, t->v_type, r->v_type);
    bench_choice(bench_load_modes, t->load_mode, r->load_mode);
    result_text(&r->r, "build_commit", "ttx-" TTX_VERSION);
    result_int(&r->r, "build_number", 0);
    result_text(&r->r, "cpu_info", o->cpu);
    result_text(&r->r, "gpu_info", "");
    result_text(&r->r, "backends", "CPU");
    result_text(&r->r, "model_filename", gguf_path(s->model->file));
    result_text(&r->r, "model_type", r->type);
    result_int(&r->r, "model_size", (double)ttx_model_bytes(s->model));
    result_int(&r->r, "model_n_params", count_params(s->model));
    result_int(&r->r, "n_batch", t->n_ubatch);
    result_int(&r->r, "n_ubatch", t->n_ubatch);
    result_int(&r->r, "n_threads", t->n_threads);
    result_text(&r->r, "type_k", r->k_type);
    result_text(&r->r, "type_v", r->v_type);
    result_int(&r->r, "n_gpu_layers", 0);
    result_text(&r->r, "load_mode", r->load_mode);
    result_int(&r->r, "n_prompt", t->n_prompt);
    result_int(&r->r, "n_gen", t->n_gen);
    result_int(&r->r, "n_depth", t->n_depth);
}

static void put_results(row *r, const bench_subject *s, const bench_result *b) {
    bench_spread ns = bench_spread_of(r->ns, b->n_reps), ts = bench_spread_of(r->ts, b->n_reps);
    bench_spread ttft = bench_spread_of(r->ttft, b->n_reps);
    result_text(&r->r, "test_time", b->started);
    result_int(&r->r, "avg_ns", floor(ns.mean));
    result_int(&r->r, "stddev_ns", floor(ns.stddev));
    result_real(&r->r, "avg_ts", ts.mean);
    result_real(&r->r, "stddev_ts", ts.stddev);
    result_list(&r->r, "samples_ns", r->ns, b->n_reps);
    result_list(&r->r, "samples_ts", r->ts, b->n_reps);
    result_text(&r->r, "isa", ttx_isa_name(s->isa));
    result_real(&r->r, "median_ts", ts.median);
    result_real(&r->r, "bound_ts", known(b->bound_ts));
    result_real(&r->r, "bound_share", known(b->bound_share));
    result_real(&r->r, "mem_gbps", known(s->limits->read_gbps));
    result_real(&r->r, "peak_gops", known(s->limits->peak_gops));
    result_text(&r->r, "peak_unit", s->limits->peak_unit);
    result_real(&r->r, "bytes_per_token", known(b->bytes_per_token));
    result_real(&r->r, "ops_per_token", known(b->ops_per_token));
    result_real(&r->r, "ttft_ms", b->test.n_prompt ? ttft.median * 1e-6 : NAN);
    result_real(&r->r, "step_ms_p50", bench_step_quantile(b, 0.50));
    result_real(&r->r, "step_ms_p95", bench_step_quantile(b, 0.95));
    result_real(&r->r, "step_ms_p99", bench_step_quantile(b, 0.99));
}

/* Beyond RAM the limits are the disk's; of memory nothing is known. */
static void put_ram(row *r, const bench_result *b) {
    const ram_setup *set = b->ram->setup;
    bench_choice(bench_prefetches, set->prefetch, r->prefetch);
    result_text(&r->r, "prefetch", r->prefetch);
    ram_put(&r->r, b->ram);
}

static int make_row(row *r, const bench_out *o, const bench_subject *s, const bench_result *b,
                    ttx_err *err) {
    size_t n = (size_t)b->n_reps;
    *r = (row){.ns = malloc(3 * n * sizeof *r->ns + 1)};
    if (!r->ns) return ttx_fail_nomem(err, "a row of results", 3 * n * sizeof *r->ns);
    r->ts = r->ns + n;
    r->ttft = r->ts + n;
    for (int i = 0; i < b->n_reps; i++) {
        r->ns[i] = (double)b->ns[i];
        r->ts[i] = bench_ts(b, i);
        r->ttft[i] = (double)b->ttft_ns[i];
    }
    describe_model(s->model, r->type, sizeof r->type);
    put_setup(r, o, s, &b->test);
    put_results(r, s, b);
    if (b->ram) put_ram(r, b);
    return TTX_OK;
}

/* ---- Markdown ---- */

const char *bench_test_name(const bench_test *t, char buf[64]) {
    char depth[24] = "";
    if (t->n_depth) snprintf(depth, sizeof depth, " @ d%d", t->n_depth);
    if (!t->n_gen)
        snprintf(buf, 64, "pp%d%s", t->n_prompt, depth);
    else if (!t->n_prompt)
        snprintf(buf, 64, "tg%d%s", t->n_gen, depth);
    else
        snprintf(buf, 64, "pp%d+tg%d%s", t->n_prompt, t->n_gen, depth);
    return buf;
}

/* What is not as usual about how a test ran. */
static void describe_setup(const row *r, const bench_test *t, const bench_subject *s, char *buf,
                           size_t size) {
    int n = snprintf(buf, size, "%s t%d", ttx_isa_name(s->isa), t->n_threads);
    if (t->n_ubatch != 512) n += snprintf(buf + n, size - (size_t)n, " ub%d", t->n_ubatch);
    if (t->k_type) n += snprintf(buf + n, size - (size_t)n, " k:%s", r->k_type);
    if (t->v_type) n += snprintf(buf + n, size - (size_t)n, " v:%s", r->v_type);
    if (t->load_mode) snprintf(buf + n, size - (size_t)n, " %s", r->load_mode);
}

static void print_md(bench_out *o, const bench_subject *s, const row *r, const bench_result *b) {
    if (!o->n_rows)
        fprintf(o->to,
                "| %-24s | %10s | %-14s | %18s | %16s | %8s | %6s | %20s | %9s |\n"
                "|:%.24s-|-%.10s:|:%.14s-|-%.18s:|-%.16s:|-%.8s:|-%.6s:|-%.20s:|-%.9s:|\n",
                "model", "size", "setup", "test", "t/s (median)", "limit", "share",
                "step p50/95/99 ms", "ttft ms", "------------------------",
                "------------------------", "------------------------", "------------------------",
                "------------------------", "------------------------", "------------------------",
                "------------------------", "------------------------");
    char test[64], setup[64], speed[32], limit[16] = "", share[16] = "", step[40] = "",
                                         ttft[16] = "";
    bench_spread ts = bench_spread_of(r->ts, b->n_reps);
    describe_setup(r, &b->test, s, setup, sizeof setup);
    snprintf(speed, sizeof speed, "%.2f ± %.2f", ts.median, ts.stddev);
    if (b->bound_ts > 0) {
        snprintf(limit, sizeof limit, "%.1f", b->bound_ts);
        snprintf(share, sizeof share, "%.1f %%", 100 * b->bound_share);
    }
    if (b->n_steps)
        snprintf(step, sizeof step, "%.2f / %.2f / %.2f", bench_step_quantile(b, 0.5),
                 bench_step_quantile(b, 0.95), bench_step_quantile(b, 0.99));
    if (b->test.n_prompt)
        snprintf(ttft, sizeof ttft, "%.1f", bench_spread_of(r->ttft, b->n_reps).median * 1e-6);
    /* One column more for the two bytes of the plus-minus sign. */
    fprintf(o->to, "| %-24s | %6.0f MiB | %-14s | %18s | %17s | %8s | %6s | %20s | %9s |\n",
            r->type, (double)ttx_model_bytes(s->model) / (1 << 20), setup,
            bench_test_name(&b->test, test), speed, limit, share, step, ttft);
}

static void print_ram_md(bench_out *o, const row *r, const bench_result *b) {
    const ram_setup *set = b->ram->setup;
    char test[64], setup[64];
    double step[3] = {bench_step_quantile(b, 0.5), bench_step_quantile(b, 0.95),
                      bench_step_quantile(b, 0.99)};
    if (*set->step)
        snprintf(setup, sizeof setup, "%s %s %s", r->load_mode, set->ram ? set->ram : "",
                 set->step);
    else
        snprintf(setup, sizeof setup, "%s %s prefetch %s", r->load_mode, set->ram ? set->ram : "",
                 r->prefetch);
    ram_print_md(o->to, r->type, setup, bench_test_name(&b->test, test),
                 bench_spread_of(r->ts, b->n_reps).median, step, b->ram, !o->n_rows);
}

/* ---- a whole output ---- */

static void read_cpu_name(char *buf, size_t size) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    snprintf(buf, size, "?");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!colon) continue;
        snprintf(buf, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
}

void bench_out_begin(bench_out *o, FILE *to, result_format format) {
    *o = (bench_out){.to = to, .format = format};
    read_cpu_name(o->cpu, sizeof o->cpu);
    result_begin(to, format);
}

int bench_out_row(bench_out *o, const bench_subject *s, const bench_result *b, ttx_err *err) {
    row r;
    int rc = make_row(&r, o, s, b, err);
    if (rc) return rc;
    if (o->format == RESULT_MD && b->ram)
        print_ram_md(o, &r, b);
    else if (o->format == RESULT_MD)
        print_md(o, s, &r, b);
    else
        rc = result_print(o->to, o->format, "ttx_bench", &r.r, o->n_rows, err);
    o->n_rows++;
    fflush(o->to);
    free(r.ns);
    return rc;
}

void bench_out_end(bench_out *o, const ttx_limits *lim) {
    result_end(o->to, o->format);
    if (o->format != RESULT_MD) return;
    fprintf(o->to, "\nCPU: %s, %d cores.", o->cpu, ttx_cpu_count());
    if (lim->read_gbps > 0)
        fprintf(o->to, " Reads %.1f GB/s (%s).", lim->read_gbps, lim->read_kernel);
    if (lim->peak_gops > 0) fprintf(o->to, " Peak %.0f GOPS (%s).", lim->peak_gops, lim->peak_unit);
    fputc('\n', o->to);
}
