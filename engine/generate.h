/* generate.h -- one conversation with a model: prompts in, text out, with the clock running.
 *
 * What `ttx run` does between its options and its summary.
 */
#ifndef TTX_GENERATE_H
#define TTX_GENERATE_H

#include "draft.h"
#include "engine_args.h"
#include "sampler.h"
#include "tokenizer.h"

#include <signal.h>

typedef enum ttx_stop {
    TTX_STOP_EOG,     /* the model ended its text */
    TTX_STOP_COUNT,   /* as many tokens as were asked for */
    TTX_STOP_CONTEXT, /* no position is left */
    TTX_STOP_INTERRUPT
} ttx_stop;

typedef struct ttx_gen_stats {
    double prompt_s, decode_s;
    double ttft_s;   /* first prompt's evaluation and the first draw */
    size_t prompt_n; /* prompt tokens evaluated */
    size_t decode_n; /* tokens evaluated after the prompt, without guesses that were wrong */
    size_t n_tokens; /* tokens generated */
    size_t drafted_n, accepted_n; /* tokens guessed and evaluated; those that were right */
    float *step_ms;               /* [decode_n]; tokens of a batch share its time */
    ttx_stop stop;                /* why the last turn ended */
} ttx_gen_stats;

/* The line on the terminal that says how it goes. All zeros is the state before the first. */
typedef struct ttx_live {
    uint64_t at; /* ns */
    size_t n;
    bool shown;
    ttx_residency_counters count;
} ttx_live;

typedef struct ttx_gen {
    /* Borrowed; set by the caller. */
    const ttx_tokenizer *tok;
    ttx_session *session;
    ttx_sampler *sampler;
    ttx_detok *detok;
    ttx_draft *draft; /* NULL: no guessing; else the session keeps TTX_DRAFT_MAX + 1 outputs */
    uint32_t n_vocab, n_ubatch;
    int32_t n_predict; /* per turn; negative: no limit */
    bool ignore_eos;
    const volatile sig_atomic_t *interrupted;
    /* Receives text as it becomes whole characters; false: the reader has gone. */
    bool (*text)(void *ctx, const char *bytes, size_t n);
    void *text_ctx;
    const ttx_residency *residency;
    /* Owned. */
    ttx_gen_stats stats;
    int32_t *eog; /* tokens that must not come when ignore_eos */
    size_t n_eog;
    int32_t pending; /* generated, shown, not yet evaluated; -1: none */
    /* The guesses in the last batch; `row`: how many of them have been confirmed, and so the row of
     * logits that is the latest. */
    int32_t guess[TTX_DRAFT_MAX];
    size_t n_guess, row;
    ttx_live live;
} ttx_gen;

/* Checks and allocates what a conversation needs; the fields above are set. */
int ttx_gen_open(ttx_gen *g, ttx_err *err);
void ttx_gen_close(ttx_gen *g);

/* Evaluates the prompt after what is there, then generates. An interruption is no error: see
 * stats.stop. Errors: TTX_E_USAGE (the prompt does not fit), TTX_E_RUNTIME. */
int ttx_gen_turn(ttx_gen *g, const int32_t *prompt, size_t n, ttx_err *err);

/* Median and other quantiles of step_ms (sorts a copy of it in place: call once, at the end). */
float ttx_gen_quantile(ttx_gen_stats *s, double q);

#endif
