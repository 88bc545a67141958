/* bench_out.c -- results as Markdown for people, and as JSON, JSON lines, CSV and SQL.
 *
 * The machine formats have llama-bench's fields under llama-bench's names, in its order and units,
 * and then ours. All of them print one list of fields. What is unknown is null.
 */
#include "bench_int.h"

#include "kinds.h"
#include "pool.h"

#include <cJSON.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a row says ---- */

typedef enum kind { TEXT, INTEGER, REAL, LIST } kind;

typedef struct field {
    const char *name;
    kind kind;
    const char *text;
    double number;
    const double *list; /* [n]; only JSON has lists */
    int n;
} field;

enum { MAX_FIELDS = 48 };

typedef struct row {
    field f[MAX_FIELDS];
    int n;
    char type[64], k_type[16], v_type[16], load_mode[16];
    double *ns, *ts, *ttft; /* [n_reps] */
} row;

static void put_text(row *r, const char *name, const char *text) {
    r->f[r->n++] = (field){name, TEXT, .text = text};
}

static void put_int(row *r, const char *name, double v) {
    r->f[r->n++] = (field){name, INTEGER, .number = v};
}

static void put_real(row *r, const char *name, double v) {
    r->f[r->n++] = (field){name, REAL, .number = v};
}

static void put_list(row *r, const char *name, const double *v, int n) {
    r->f[r->n++] = (field){name, LIST, .list = v, .n = n};
}

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
    put_text(r, "build_commit", "ttx-" TTX_VERSION);
    put_int(r, "build_number", 0);
    put_text(r, "cpu_info", o->cpu);
    put_text(r, "gpu_info", "");
    put_text(r, "backends", "CPU");
    put_text(r, "model_filename", gguf_path(s->model->file));
    put_text(r, "model_type", r->type);
    put_int(r, "model_size", (double)ttx_model_bytes(s->model));
    put_int(r, "model_n_params", count_params(s->model));
    put_int(r, "n_batch", t->n_ubatch);
    put_int(r, "n_ubatch", t->n_ubatch);
    put_int(r, "n_threads", t->n_threads);
    put_text(r, "type_k", r->k_type);
    put_text(r, "type_v", r->v_type);
    put_int(r, "n_gpu_layers", 0);
    put_text(r, "load_mode", r->load_mode);
    put_int(r, "n_prompt", t->n_prompt);
    put_int(r, "n_gen", t->n_gen);
    put_int(r, "n_depth", t->n_depth);
}

static void put_results(row *r, const bench_subject *s, const bench_result *b) {
    bench_spread ns = bench_spread_of(r->ns, b->n_reps), ts = bench_spread_of(r->ts, b->n_reps);
    bench_spread ttft = bench_spread_of(r->ttft, b->n_reps);
    put_text(r, "test_time", b->started);
    put_int(r, "avg_ns", floor(ns.mean));
    put_int(r, "stddev_ns", floor(ns.stddev));
    put_real(r, "avg_ts", ts.mean);
    put_real(r, "stddev_ts", ts.stddev);
    put_list(r, "samples_ns", r->ns, b->n_reps);
    put_list(r, "samples_ts", r->ts, b->n_reps);
    put_text(r, "isa", ttx_isa_name(s->isa));
    put_real(r, "median_ts", ts.median);
    put_real(r, "bound_ts", known(b->bound_ts));
    put_real(r, "bound_share", b->bound_ts > 0 ? ts.median / b->bound_ts : NAN);
    put_real(r, "mem_gbps", known(s->limits->read_gbps));
    put_real(r, "peak_gops", known(s->limits->peak_gops));
    put_text(r, "peak_unit", s->limits->peak_unit);
    put_real(r, "bytes_per_token", known(b->bytes_per_token));
    put_real(r, "ops_per_token", known(b->ops_per_token));
    put_real(r, "ttft_ms", b->test.n_prompt ? ttft.median * 1e-6 : NAN);
    put_real(r, "step_ms_p50", bench_step_quantile(b, 0.50));
    put_real(r, "step_ms_p95", bench_step_quantile(b, 0.95));
    put_real(r, "step_ms_p99", bench_step_quantile(b, 0.99));
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
    return TTX_OK;
}

/* ---- machine formats ---- */

static int print_json(bench_out *o, const row *r, ttx_err *err) {
    cJSON *obj = cJSON_CreateObject();
    for (int i = 0; i < r->n; i++) {
        const field *f = &r->f[i];
        cJSON *v = f->kind == TEXT    ? cJSON_CreateString(f->text)
                   : f->kind == LIST  ? cJSON_CreateDoubleArray(f->list, f->n)
                   : isnan(f->number) ? cJSON_CreateNull()
                                      : cJSON_CreateNumber(f->number);
        cJSON_AddItemToObject(obj, f->name, v);
    }
    char *text = o->format == BENCH_JSON ? cJSON_Print(obj) : cJSON_PrintUnformatted(obj);
    cJSON_Delete(obj);
    if (!text) return ttx_fail_nomem(err, "a row as JSON", 4096);
    fprintf(o->to, "%s%s", o->format == BENCH_JSON && o->n_rows ? ",\n" : "", text);
    if (o->format == BENCH_JSONL) fputc('\n', o->to);
    free(text);
    return TTX_OK;
}

/* Text between quotes, which are doubled inside. */
static void print_quoted(FILE *to, const char *s, char quote) {
    fputc(quote, to);
    for (; *s; s++) {
        if (*s == quote) fputc(quote, to);
        fputc(*s, to);
    }
    fputc(quote, to);
}

/* The fields of a row, lists left out; unknown numbers as `unknown`. */
static void print_fields(FILE *to, const row *r, char quote, const char *unknown) {
    const char *comma = "";
    for (int i = 0; i < r->n; i++) {
        const field *f = &r->f[i];
        if (f->kind == LIST) continue;
        fputs(comma, to);
        comma = quote == '\'' ? ", " : ",";
        if (f->kind == TEXT)
            print_quoted(to, f->text, quote);
        else if (isnan(f->number))
            fputs(unknown, to);
        else
            fprintf(to, f->kind == INTEGER ? "%.0f" : "%.6f", f->number);
    }
}

static void print_names(FILE *to, const row *r, const char *separator, bool types) {
    static const char *const sql[] = {"TEXT", "INTEGER", "REAL"};
    bool first = true;
    for (int i = 0; i < r->n; i++) {
        if (r->f[i].kind == LIST) continue;
        fprintf(to, "%s%s", first ? "" : separator, r->f[i].name);
        if (types) fprintf(to, " %s", sql[r->f[i].kind]);
        first = false;
    }
}

static void print_csv(bench_out *o, const row *r) {
    if (!o->n_rows) {
        print_names(o->to, r, ",", false);
        fputc('\n', o->to);
    }
    print_fields(o->to, r, '"', "");
    fputc('\n', o->to);
}

static void print_sql(bench_out *o, const row *r) {
    if (!o->n_rows) {
        fputs("CREATE TABLE IF NOT EXISTS ttx_bench (\n  ", o->to);
        print_names(o->to, r, ",\n  ", true);
        fputs("\n);\n\n", o->to);
    }
    fputs("INSERT INTO ttx_bench (", o->to);
    print_names(o->to, r, ", ", false);
    fputs(") VALUES (", o->to);
    print_fields(o->to, r, '\'', "NULL");
    fputs(");\n", o->to);
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
        snprintf(share, sizeof share, "%.1f %%", 100 * ts.median / b->bound_ts);
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

void bench_out_begin(bench_out *o, FILE *to, bench_format format) {
    *o = (bench_out){.to = to, .format = format};
    read_cpu_name(o->cpu, sizeof o->cpu);
    if (format == BENCH_JSON) fputs("[\n", to);
}

int bench_out_row(bench_out *o, const bench_subject *s, const bench_result *b, ttx_err *err) {
    row r;
    int rc = make_row(&r, o, s, b, err);
    if (rc) return rc;
    switch (o->format) {
    case BENCH_MD: print_md(o, s, &r, b); break;
    case BENCH_JSON:
    case BENCH_JSONL: rc = print_json(o, &r, err); break;
    case BENCH_CSV: print_csv(o, &r); break;
    case BENCH_SQL: print_sql(o, &r); break;
    }
    o->n_rows++;
    fflush(o->to);
    free(r.ns);
    return rc;
}

void bench_out_end(bench_out *o, const ttx_limits *lim) {
    if (o->format == BENCH_JSON) fputs("\n]\n", o->to);
    if (o->format != BENCH_MD) return;
    fprintf(o->to, "\nCPU: %s, %d cores.", o->cpu, ttx_cpu_count());
    if (lim->read_gbps > 0)
        fprintf(o->to, " Reads %.1f GB/s (%s).", lim->read_gbps, lim->read_kernel);
    if (lim->peak_gops > 0) fprintf(o->to, " Peak %.0f GOPS (%s).", lim->peak_gops, lim->peak_unit);
    fputc('\n', o->to);
}
