/* bench_run.c -- runs one test: random tokens or those of a text, the same in every run; nothing is
 * sampled.
 *
 * What is timed is evaluation alone, as llama-bench does. The positions before the test (its depth)
 * are evaluated once and kept: a repetition rewinds to them.
 */
#include "bench_int.h"

#include "clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct runner {
    ttx_session *s;
    const bench_test *t;
    const bench_how *how;
    uint32_t n_vocab;
    uint64_t random;
    size_t at_text;
    uint32_t base;   /* position at which repetitions begin */
    int32_t *tokens; /* [longest run of tokens] */
    /* Of the repetition, which the meter cuts into pieces. */
    double gbps;                   /* where the piece began */
    uint64_t piece_ns, metered_ns; /* when it began; what measuring took in all pieces */
    uint64_t meter_ns;             /* until the next reading */
    double gb, seconds;            /* what could have been delivered, of the pieces before */
} runner;

/* Knuth's MMIX generator: fixed, so that every run and every build sees the same tokens. */
static int32_t draw(runner *r) {
    if (r->how->n_text) return r->how->text[r->at_text++ % r->how->n_text];
    r->random = r->random * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((r->random >> 33) % r->n_vocab);
}

/* ---- the meter ---- */

static void begin_piece(runner *r) {
    r->gb = r->seconds = 0;
    r->metered_ns = 0;
    r->meter_ns = r->how->meter_ns;
    if (r->how->meter) r->gbps = r->how->meter(r->how->meter_ctx);
    r->piece_ns = ttx_now_ns();
}

/* A piece of the repetition ends, and another begins: what it could have read is what was measured
 * before and after it. */
static void next_piece(runner *r) {
    uint64_t now = ttx_now_ns();
    double s = (double)(now - r->piece_ns) * 1e-9;
    if (!r->how->meter) return;
    double gbps = r->how->meter(r->how->meter_ctx);
    if (r->gbps > 0 && gbps > 0) {
        r->gb += s * (r->gbps + gbps) / 2;
        r->seconds += s;
    }
    r->gbps = gbps;
    r->piece_ns = ttx_now_ns();
    uint64_t took = r->piece_ns - now;
    r->metered_ns += took;
    /* Measuring takes a twentieth of the time at most, however slow what it measures has become. */
    r->meter_ns = 20 * took > r->how->meter_ns ? 20 * took : r->how->meter_ns;
}

/* ---- tokens ---- */

/* Evaluates n random tokens as a prompt, in pieces between which Ctrl-C is noticed. */
static int eval_prompt(runner *r, int32_t n, ttx_err *err) {
    for (int32_t i = 0; i < n; i++) r->tokens[i] = draw(r);
    for (int32_t at = 0; at < n;) {
        if (*r->how->interrupted) return TTX_E_INTERRUPTED;
        int32_t piece = n - at < r->t->n_ubatch ? n - at : r->t->n_ubatch;
        ttx_want want = at + piece == n ? TTX_WANT_LAST : TTX_WANT_NONE;
        int rc = ttx_session_eval(r->s, r->tokens + at, (size_t)piece, TTX_PROMPT, want, err);
        if (rc) return rc;
        at += piece;
    }
    return TTX_OK;
}

/* Decodes n tokens, or at least one within max_s (0: all); *done: how many. step_ms (may be NULL)
 * receives the time of each. */
static int eval_steps(runner *r, int32_t n, double max_s, int32_t *done, float *step_ms,
                      ttx_err *err) {
    uint64_t begin = ttx_now_ns();
    for (*done = 0; *done < n; ++*done) {
        if (*r->how->interrupted) return TTX_E_INTERRUPTED;
        int32_t token = draw(r);
        uint64_t start = ttx_now_ns();
        if (*done && max_s > 0 && (double)(start - begin - r->metered_ns) * 1e-9 > max_s) break;
        int rc = ttx_session_eval(r->s, &token, 1, TTX_EXACT, TTX_WANT_LAST, err);
        if (rc) return rc;
        uint64_t now = ttx_now_ns();
        if (step_ms) step_ms[*done] = (float)((double)(now - start) * 1e-6);
        if (step_ms && now - r->piece_ns > r->meter_ns) next_piece(r);
    }
    return TTX_OK;
}

static int warm_up(runner *r, ttx_err *err) {
    const bench_test *t = r->t;
    int32_t n = t->n_prompt < t->n_ubatch ? t->n_prompt : t->n_ubatch, done;
    int32_t more = t->n_gen < t->n_ubatch ? t->n_gen : t->n_ubatch; /* what there is room for */
    int rc = eval_prompt(r, n, err);
    for (int32_t sum = t->n_depth + n; more && !rc && sum < r->how->n_touch; sum += more) {
        ttx_session_rewind(r->s, r->base);
        rc = eval_prompt(r, more, err);
    }
    if (!rc && t->n_gen) rc = eval_steps(r, r->how->n_warm_up, r->how->max_s / 4, &done, NULL, err);
    if (r->how->go_on) r->base = ttx_session_pos(r->s);
    return rc;
}

static void mark(const runner *r, bool begin) {
    if (r->how->mark) r->how->mark(r->how->mark_ctx, begin);
}

/* *over: there was no time for all tokens, and there is none for another repetition. */
static int repeat(runner *r, bench_result *out, bool *over, ttx_err *err) {
    const bench_test *t = r->t;
    int i = out->n_reps;
    int32_t done;
    ttx_session_rewind(r->s, r->base);
    if (r->how->delay_s) nanosleep(&(struct timespec){.tv_sec = r->how->delay_s}, NULL);
    begin_piece(r);
    mark(r, true);
    uint64_t start = ttx_now_ns();
    int rc = eval_prompt(r, t->n_prompt, err);
    out->ttft_ns[i] = ttx_now_ns() - start;
    if (!rc) rc = eval_steps(r, t->n_gen, r->how->max_s, &done, out->step_ms + out->n_steps, err);
    if (rc) return rc;
    out->ns[i] = ttx_now_ns() - start - r->metered_ns;
    *over = done < t->n_gen;
    if (*over && i) return TTX_OK; /* repetitions are of the same length: this one does not count */
    mark(r, false);
    next_piece(r);
    out->gbps[i] = r->seconds > 0 ? r->gb / r->seconds : 0;
    out->test.n_gen = done;
    out->n_steps += (size_t)done;
    out->n_reps++;
    return TTX_OK;
}

static int allocate(runner *r, bench_result *out, ttx_err *err) {
    const bench_test *t = r->t;
    size_t reps = (size_t)r->how->n_reps;
    size_t n = (size_t)(t->n_prompt > t->n_depth ? t->n_prompt : t->n_depth);
    n = (n > (size_t)t->n_gen ? n : (size_t)t->n_gen) + 1; /* a warm-up's */
    r->tokens = malloc(n * sizeof *r->tokens);
    out->ns = calloc(reps, sizeof *out->ns);
    out->ttft_ns = calloc(reps, sizeof *out->ttft_ns);
    out->gbps = calloc(reps, sizeof *out->gbps);
    out->step_ms = calloc(reps * (size_t)t->n_gen + 1, sizeof *out->step_ms);
    if (!r->tokens || !out->ns || !out->ttft_ns || !out->gbps || !out->step_ms)
        return ttx_fail_nomem(err, "samples", reps * (size_t)t->n_gen * sizeof *out->step_ms);
    return TTX_OK;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

int bench_run(bench_result *out, ttx_session *s, uint32_t n_vocab, const bench_test *t,
              const bench_how *how, ttx_err *err) {
    runner r = {
        .s = s, .t = t, .how = how, .n_vocab = n_vocab, .random = 1, .base = (uint32_t)t->n_depth};
    bool over = false;
    *out = (bench_result){.test = *t};
    time_t now = time(NULL);
    struct tm utc;
    strftime(out->started, sizeof out->started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    int rc = allocate(&r, out, err);
    if (rc) goto done;
    if (how->progress) how->progress(how->progress_ctx, t, 0, 0);
    if (ttx_session_pos(s) > (uint32_t)t->n_depth) ttx_session_rewind(s, (uint32_t)t->n_depth);
    rc = eval_prompt(&r, t->n_depth - (int32_t)ttx_session_pos(s), err);
    if (!rc && how->warm_up) rc = warm_up(&r, err);
    while (!rc && !over && out->n_reps < how->n_reps) {
        rc = repeat(&r, out, &over, err);
        if (!rc && how->progress)
            how->progress(how->progress_ctx, t, out->n_reps, bench_ts(out, out->n_reps - 1));
    }
    qsort(out->step_ms, out->n_steps, sizeof *out->step_ms, ascending);
done:
    free(r.tokens);
    return rc;
}

void bench_result_free(bench_result *r) {
    free(r->ns);
    free(r->ttft_ns);
    free(r->gbps);
    free(r->step_ms);
    *r = (bench_result){0};
}

/* ---- statistics ---- */

double bench_ts(const bench_result *r, int i) {
    return (double)(r->test.n_prompt + r->test.n_gen) / ((double)(r->ns[i] + 1) * 1e-9);
}

ttx_disk bench_disk_beside(const bench_result *r, const ttx_disk *before) {
    ttx_disk d = *before;
    double sum = 0, ns = 0;
    for (int i = 0; i < r->n_reps; i++) {
        if (r->gbps[i] <= 0) continue;
        sum += r->gbps[i] * (double)r->ns[i];
        ns += (double)r->ns[i];
    }
    if (ns <= 0) return d;
    d.bytes_s = 1e9 * sum / ns;
    d.latency_s *= before->bytes_s / d.bytes_s;
    return d;
}

static int ascending_double(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* stddev is the sample's (n - 1), as llama-bench's. */
bench_spread bench_spread_of(const double *v, int n) {
    bench_spread s = {0};
    double squares = 0;
    double *sorted = n > 0 ? malloc((size_t)n * sizeof *sorted) : NULL;
    for (int i = 0; i < n; i++) s.mean += v[i] / n;
    for (int i = 0; i < n; i++) squares += (v[i] - s.mean) * (v[i] - s.mean);
    if (n > 1) s.stddev = sqrt(squares / (n - 1));
    s.median = s.mean; /* without memory for better */
    if (!sorted) return s;
    memcpy(sorted, v, (size_t)n * sizeof *v);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending_double);
    s.median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
    free(sorted);
    return s;
}

double bench_median(const double *v, int n) {
    return bench_spread_of(v, n).median;
}

double bench_step_quantile(const bench_result *r, double q) {
    if (!r->n_steps) return NAN;
    return r->step_ms[(size_t)(q * (double)(r->n_steps - 1) + 0.5)];
}
