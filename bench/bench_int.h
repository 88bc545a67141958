/* bench_int.h -- the parts of `ttx bench`: what is asked, what one test is, what came of it.
 *
 *     options --bench_args, bench_settings--> lists --cmd_bench--> one test at a time
 * --bench_run--> result result + limits --bound--> share of the machine --bench_out--> a row of
 * output
 */
#ifndef BENCH_INT_H
#define BENCH_INT_H

#include "bench_ram.h"
#include "engine_args.h"
#include "limits.h"
#include "result_row.h"

#include <signal.h>

/* ---- lists of values (bench_args.c) ---- */

enum { BENCH_MAX_VALUES = 256 };

typedef struct bench_values {
    int32_t v[BENCH_MAX_VALUES];
    int n;
} bench_values;

/* Every value of every time that the option was given: numbers and ranges as llama-bench writes
 * them, "512", "1,2,4", "1-4", "64-256+64", "1-8*2". Nothing given: `def`. Errors: TTX_E_USAGE. */
int bench_parse_ints(bench_values *out, const ttx_opt_list *given, const char *option, int32_t min,
                     int32_t def, ttx_err *err);
/* The same for "PROMPT,GEN": pairs, one after the other. */
int bench_parse_pairs(bench_values *out, const ttx_opt_list *given, const char *option,
                      ttx_err *err);
/* The same for names out of "a|b|c": their indices. Nothing given: 0. */
int bench_parse_names(bench_values *out, const ttx_opt_list *given, const char *option,
                      const char *choices, ttx_err *err);
/* Item i of "a|b|c", into buf; returns buf. */
const char *bench_choice(const char *choices, int32_t i, char buf[16]);

extern const char bench_kv_types[], bench_load_modes[], bench_isas[], bench_prefetches[];

/* ---- what was asked (bench_settings.c) ---- */

typedef struct bench_settings {
    ttx_engine_args engine; /* what is the same in every test; the lists replace the rest */
    ttx_opt_list models, n_prompt, n_gen, pg, n_depth, n_ubatch, n_threads, k_type, v_type;
    ttx_opt_list load_mode, isa, ram, prefetch;
    const char *text;
    uint32_t n_reps, delay_s, n_warm_up, max_s;
    uint64_t mem_limit;
    int32_t format;
    bool no_warm_up, no_limits, progress, roofline, cold, ladder;
} bench_settings;

/* The lists, read. */
typedef struct bench_matrix {
    bench_values n_prompt, n_gen, pg, n_depth, n_ubatch, n_threads, k_type, v_type, load_mode, isa;
    bench_values prefetch;
    ram_setup setups[BENCH_MAX_VALUES]; /* how models are opened */
    int n_setups;
    char *rams;                        /* what the setups' budgets point into */
    int32_t n_warm_up;                 /* tokens */
    int32_t most_threads, most_tokens; /* of one test, its depth aside */
} bench_matrix;

/* Reads the lists and makes the setups; the caller frees x->rams. Errors: TTX_E_USAGE,
 * TTX_E_RUNTIME. */
int bench_read_matrix(bench_matrix *x, const bench_settings *set, ttx_err *err);
/* Whether an option of 'Beyond RAM' was given. */
bool bench_is_beyond(const bench_settings *set);
int32_t bench_greatest(const bench_values *v);

/* ---- one test (bench_run.c) ---- */

typedef struct bench_test {
    int32_t n_prompt, n_gen, n_depth; /* tokens of a prompt, then decoded, after n_depth before */
    int32_t n_ubatch, n_threads;
    int32_t k_type, v_type, load_mode, isa; /* indices into the lists above */
} bench_test;

/* Owned by the caller; bench_result_free. */
typedef struct bench_result {
    bench_test test;
    int n_reps;        /* that were finished */
    uint64_t *ns;      /* [n_reps] of prompt and decoding together */
    uint64_t *ttft_ns; /* [n_reps] of the prompt, whose logits give the first token */
    double *gbps;      /* [n_reps] of memory, or the disk, beside it; 0: not measured */
    float *step_ms;    /* [n_steps] of each decode step of all repetitions, ascending */
    size_t n_steps;
    double bound_ts;                       /* 0: unknown */
    double bound_share;                    /* median of the repetitions' */
    double bytes_per_token, ops_per_token; /* what the bound rests on */
    char started[24];                      /* UTC, ISO 8601 */
    const ram_result *ram;                 /* NULL: not a test beyond RAM. Borrowed */
} bench_result;

typedef struct bench_how {
    int n_reps;
    bool warm_up;
    int32_t n_warm_up;   /* tokens that a warm-up decodes */
    int32_t n_touch;     /* before decoding: tokens that a warm-up evaluates as prompts at least, as
                            each first touch of a mapped expert is a page fault; not for a trace,
                            where a rewinding begins what counts */
    bool go_on;          /* repetitions begin where the warm-up ended, not before it */
    double max_s;        /* of decoding: a test that takes longer has fewer tokens; 0: no limit */
    uint32_t delay_s;    /* before each repetition */
    const int32_t *text; /* [n_text] tokens to take turns with; NULL: random ones */
    size_t n_text;
    /* What memory can do, or the disk, 1e9 bytes a second, 0 if that cannot be said; NULL: not
     * measured. It is read where a repetition begins and ends, and every meter_ns of its decoding,
     * less often if a reading takes more than a twentieth of that. */
    double (*meter)(void *ctx);
    void *meter_ctx;
    uint64_t meter_ns;
    void (*mark)(void *ctx, bool begin); /* around each repetition; may be NULL */
    void *mark_ctx;
    const volatile sig_atomic_t *interrupted;
    void (*progress)(void *ctx, const bench_test *t, int rep, double ts); /* ts of the last rep */
    void *progress_ctx;
} bench_how;

/* Runs one test in a session that has room for it. Tests beyond RAM may end early: then
 * r->test.n_gen says how many tokens there were. Errors: TTX_E_RUNTIME, TTX_E_INTERRUPTED. */
int bench_run(bench_result *r, ttx_session *s, uint32_t n_vocab, const bench_test *t,
              const bench_how *how, ttx_err *err);
void bench_result_free(bench_result *r);

/* Tokens a second of repetition i. */
double bench_ts(const bench_result *r, int i);
double bench_median(const double *v, int n);
/* The disk as the meter found it beside the repetitions: slower or faster in all. As it was before
 * if nothing was measured. */
ttx_disk bench_disk_beside(const bench_result *r, const ttx_disk *before);
typedef struct bench_spread {
    double mean, stddev, median;
} bench_spread;
bench_spread bench_spread_of(const double *v, int n);
/* Of the decode steps, in milliseconds; NaN without steps. */
double bench_step_quantile(const bench_result *r, double q);

/* ---- the limit of one test (bound.c) ---- */

/* Fills the bound fields of r: the tokens a second at which a machine of these limits could run
 * the test at most. */
int bench_bound(bench_result *r, const ttx_model *m, const ttx_limits *lim, ttx_err *err);

/* ---- output (bench_out.c) ---- */

/* What a row says besides its result. */
typedef struct bench_subject {
    const ttx_model *model;
    const ttx_limits *limits;
    ttx_isa isa;
} bench_subject;

typedef struct bench_out {
    FILE *to;
    result_format format;
    int n_rows;
    char cpu[128];
} bench_out;

void bench_out_begin(bench_out *o, FILE *to, result_format format);
int bench_out_row(bench_out *o, const bench_subject *s, const bench_result *r, ttx_err *err);
void bench_out_end(bench_out *o, const ttx_limits *lim);
/* "pp512 @ d4096": as llama-bench names tests. */
const char *bench_test_name(const bench_test *t, char buf[64]);

#endif
