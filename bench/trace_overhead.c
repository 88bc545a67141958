/* trace_overhead.c -- what a trace costs: decode speed with and without one, in turns.
 *
 *     trace_overhead MODEL.gguf DIR [TOKENS [PAIRS [TURNS]]]
 *     trace_overhead MODEL.gguf --serve [TOKENS]
 *
 * One process, one session: a pair decodes the same positions TURNS times without and TURNS times
 * with a trace, in turns, the order changing from turn to turn, for each level. To the traced
 * side's time is added the processor time that its writer needs for what is left at the end.
 * Printed: the median over the pairs of the traced time over the untraced one, with quartiles;
 * records, nanoseconds of overhead per record, processor time of the writer, records lost. The same
 * comparison without a trace on either side shows what is noise here. DIR is made, and takes the
 * traces.
 *
 * With --serve it decodes without a trace for every line of its input and prints the seconds:
 * trace_off.py compares two builds in that way.
 */
#include "clock.h"
#include "model.h"
#include "models.h"
#include "runtime.h"
#include "session.h"
#include "trace_tensors.h"

#include <cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PROMPT = 64, WARM = 4, MAX_PAIRS = 100, N_CTX = 512 };

typedef struct bench {
    gguf_file *file;
    ttx_model *model;
    ttx_runtime rt;
    ttx_session *session;
    ttx_trace_tensors tensors;
    struct cJSON *document;
    const char *dir;
    int tokens, pairs, turns;
} bench;

typedef struct totals {
    uint64_t records, lost, stalls;
    double traced_s, untraced_s, writer_s;
} totals;

static int fail(const ttx_err *err) {
    fprintf(stderr, "trace_overhead: %s\n", err->msg);
    return 1;
}

static int open_all(bench *b, const char *path, ttx_err *err) {
    ttx_runtime_settings rs = ttx_runtime_default_settings();
    ttx_session_settings ss = ttx_session_default_settings();
    int32_t prompt[PROMPT];
    ss.n_ctx = N_CTX;
    for (int i = 0; i < PROMPT; i++) prompt[i] = 100 + i;
    int rc = gguf_open(&b->file, path, err);
    if (!rc) rc = ttx_model_load(&b->model, b->file, ttx_archs, err);
    if (!rc) rc = ttx_runtime_open(&b->rt, b->file, &rs, err);
    if (!rc) rc = ttx_session_open(&b->session, b->model, &b->rt, &ss, err);
    if (!rc) rc = ttx_trace_tensors_make(&b->tensors, b->model, N_CTX, ss.k_type, ss.v_type, err);
    if (!rc && !(b->document = ttx_trace_model_document(b->model)))
        rc = ttx_fail_nomem(err, "metadata", 4096);
    if (!rc) rc = ttx_session_eval(b->session, prompt, PROMPT, TTX_PROMPT, TTX_WANT_LAST, err);
    return rc;
}

/* Seconds to decode the tokens after the prompt, but for the first few: opening a trace has put
 * other things into the caches. */
static int decode(bench *b, double *s, ttx_err *err) {
    ttx_session_rewind(b->session, PROMPT);
    uint64_t start = 0;
    for (int32_t i = -WARM; i < b->tokens; i++) {
        if (!i) start = ttx_now_ns();
        int32_t token = 300 + i;
        int rc = ttx_session_eval(b->session, &token, 1, TTX_EXACT, TTX_WANT_LAST, err);
        if (rc) return rc;
    }
    *s = (double)(ttx_now_ns() - start) * 1e-9;
    return TTX_OK;
}

/* The same with a trace; `use` false: with one that is open, but not told of anything, so that both
 * sides come from the same: files have been written, memory was taken, threads have slept. */
static int decode_traced(bench *b, ttx_trace_level level, bool use, totals *t, double *s,
                         ttx_err *err) {
    ttx_trace_settings set = ttx_trace_default_settings();
    ttx_trace_info info = {
        b->tensors.v, b->tensors.n, b->tensors.n_file, b->document, NULL, NULL, NULL, 0};
    ttx_trace_result r = {0};
    set.dir = b->dir;
    set.level = level;
    ttx_trace *trace;
    int rc = ttx_trace_open(&trace, &set, &info, err);
    if (use) b->rt.trace = trace;
    if (!rc) rc = decode(b, s, err);
    rc = ttx_trace_close(trace, rc, &r, err);
    b->rt.trace = NULL;
    if (!use) return rc;
    t->records += r.records;
    t->lost += r.lost;
    t->stalls += r.stalls;
    t->writer_s += r.writer_cpu_s;
    *s += r.rest_cpu_s;
    return rc;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* level TTX_LEVELS: no trace on either side. */
static int run_pair(bench *b, int pair, ttx_trace_level level, totals *t, double sum[2],
                    ttx_err *err) {
    for (int i = 0; i < 2 * b->turns; i++) {
        int side = (i ^ i >> 1 ^ pair) & 1; /* 0 1 1 0 */
        double s = 0;
        bool use = side && level < TTX_LEVELS;
        int rc = decode_traced(b, level < TTX_LEVELS ? level : TTX_LEVEL_HEAD, use, t, &s, err);
        if (rc) return rc;
        sum[side] += s;
    }
    return TTX_OK;
}

static int compare(bench *b, ttx_trace_level level, ttx_err *err) {
    double ratio[MAX_PAIRS];
    totals t = {0};
    for (int i = 0; i < b->pairs; i++) {
        double s[2] = {0};
        int rc = run_pair(b, i, level, &t, s, err);
        if (rc) return rc;
        ratio[i] = s[1] / s[0];
        t.untraced_s += s[0];
        t.traced_s += s[1];
    }
    qsort(ratio, (size_t)b->pairs, sizeof *ratio, ascending);
    double median = (ratio[(b->pairs - 1) / 2] + ratio[b->pairs / 2]) / 2;
    int q = b->pairs / 4;
    printf("%-7s %+7.2f %% (%+.2f .. %+.2f)  %.3f ms a token without",
           level < TTX_LEVELS ? ttx_trace_level_name(level) : "nothing", 100 * (median - 1),
           100 * (ratio[q] - 1), 100 * (ratio[b->pairs - 1 - q] - 1),
           t.untraced_s * 1e3 / b->pairs / b->turns / b->tokens);
    if (t.records)
        printf(
            ", %.0f records a token, %.1f ns a record, writer %.1f ns a record, stalls %llu, lost "
            "%llu",
            (double)t.records / b->pairs / b->turns / (b->tokens + WARM),
            (median - 1) * t.untraced_s * 1e9 / (double)t.records * (b->tokens + WARM) / b->tokens,
            t.writer_s * 1e9 / (double)t.records, (unsigned long long)t.stalls,
            (unsigned long long)t.lost);
    putchar('\n');
    fflush(stdout);
    return TTX_OK;
}

/* What a call site pays: slots filled one after the other, the writer emptying them. */
static int time_slots(bench *b, ttx_err *err) {
    enum { ROUNDS = 4096, EACH = 32 };
    ttx_trace_settings set = ttx_trace_default_settings();
    ttx_trace_info info = {
        b->tensors.v, b->tensors.n, b->tensors.n_file, b->document, NULL, NULL, NULL, 0};
    set.dir = b->dir;
    set.level = TTX_LEVEL_TENSOR;
    int rc = ttx_trace_open(&b->rt.trace, &set, &info, err);
    if (rc) return rc;
    ttx_trace *t = b->rt.trace;
    uint64_t start = ttx_now_ns();
    for (int i = 0; i < ROUNDS / 2; i++) {
        uint64_t begin = ttx_trace_now(t);
        ttx_record r = ttx_record_none(TTX_REC_ACCESS);
        r = ttx_trace_launch(t, begin, ttx_trace_now(t), r);
        for (uint32_t k = 0; k < EACH; k++) {
            r.tensor_idx = k % t->n_file_tensor;
            const ttx_trace_tensor *d = &t->tensors[r.tensor_idx];
            ttx_trace_access(t, &r, d->offset, d->size, NULL);
        }
        ttx_trace_publish(t);
    }
    double ns = (double)(ttx_now_ns() - start);
    ttx_trace_result res;
    rc = ttx_trace_close(t, rc, &res, err);
    b->rt.trace = NULL;
    printf("a call site: %.1f ns a record (%llu records, %llu stalls)\n", ns / (double)res.records,
           (unsigned long long)res.records, (unsigned long long)res.stalls);
    return rc;
}

/* Seconds for every line of the input. */
static int serve(bench *b, ttx_err *err) {
    double s;
    for (int c; (c = getchar()) != EOF;) {
        if (c != '\n') continue;
        int rc = decode(b, &s, err);
        if (rc) return rc;
        printf("%.9f\n", s);
        fflush(stdout);
    }
    return TTX_OK;
}

static int measure(bench *b, ttx_err *err) {
    static const ttx_trace_level levels[] = {TTX_LEVELS, TTX_LEVEL_STATS, TTX_LEVEL_TENSOR,
                                             TTX_LEVEL_HEAD};
    int rc = time_slots(b, err);
    for (size_t i = 0; i < sizeof levels / sizeof *levels && !rc; i++)
        rc = compare(b, levels[i], err);
    return rc;
}

static int number(char **argv, int argc, int i, int usual) {
    return argc > i ? atoi(argv[i]) : usual;
}

int main(int argc, char **argv) {
    ttx_err err = {0};
    if (argc < 3) {
        fputs("usage: trace_overhead MODEL.gguf DIR|--serve [TOKENS [PAIRS [TURNS]]]\n", stderr);
        return 2;
    }
    bench b = {.dir = argv[2],
               .tokens = number(argv, argc, 3, 32),
               .pairs = number(argv, argc, 4, 10),
               .turns = number(argv, argc, 5, 2)};
    if (b.tokens < 1 || b.tokens > N_CTX - PROMPT - WARM || b.pairs < 1 || b.pairs > MAX_PAIRS ||
        b.turns < 1) {
        fprintf(stderr, "trace_overhead: expected 1 to %d tokens and 1 to %d pairs\n",
                N_CTX - PROMPT - WARM, MAX_PAIRS);
        return 2;
    }
    double warm;
    int rc = open_all(&b, argv[1], &err);
    if (!rc) rc = decode(&b, &warm, &err);
    if (!rc) rc = strcmp(b.dir, "--serve") == 0 ? serve(&b, &err) : measure(&b, &err);
    cJSON_Delete(b.document);
    ttx_trace_tensors_free(&b.tensors);
    ttx_session_close(b.session);
    ttx_runtime_close(&b.rt);
    ttx_model_free(b.model);
    gguf_close(b.file);
    return rc ? fail(&err) : 0;
}
