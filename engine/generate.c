/* generate.c -- see generate.h. */
#include "generate.h"

#include "clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int ttx_gen_open(ttx_gen *g, ttx_err *err) {
    g->pending = -1;
    uint32_t n_ctx = ttx_session_n_ctx(g->session);
    g->stats.step_ms = calloc(n_ctx, sizeof *g->stats.step_ms);
    if (!g->stats.step_ms) return ttx_fail_nomem(err, "step times", n_ctx * sizeof(float));
    if (!g->ignore_eos) return TTX_OK;
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        size_t n = 0;
        for (uint32_t id = 0; id < g->n_vocab; id++)
            if (ttx_tok_is_eog(g->tok, (int32_t)id)) {
                if (pass) g->eog[n] = (int32_t)id;
                n++;
            }
        if (!pass && !(g->eog = calloc(n + 1, sizeof *g->eog)))
            return ttx_fail_nomem(err, "end tokens", n * sizeof *g->eog);
        g->n_eog = n;
    }
    return TTX_OK;
}

void ttx_gen_close(ttx_gen *g) {
    free(g->stats.step_ms);
    free(g->eog);
    g->stats.step_ms = NULL;
    g->eog = NULL;
}

static void show_progress(size_t done, size_t n) {
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rprompt %3zu %%%s", 100 * done / n, done == n ? "\r            \r" : "");
}

enum { LIVE_NS = 1000000000 }; /* between two live lines */

static double share(uint64_t part, uint64_t all) {
    return all ? 100.0 * (double)part / (double)all : 0;
}

/* Once a second one line on the terminal of standard error, which overwrites itself; nothing if
 * that is none, or if the text goes to a terminal, which may be the same. */
static void show_live(ttx_live *live, const ttx_residency *r, size_t n_tokens) {
    uint64_t now = ttx_now_ns(), ns = now - live->at;
    if (live->at && ns < LIVE_NS) return;
    ttx_residency_counters c = ttx_residency_get_counters(r), was = live->count;
    size_t n = n_tokens - live->n;
    bool first = !live->at;
    live->at = now;
    live->n = n_tokens;
    live->count = c;
    if (first || !isatty(STDERR_FILENO) || isatty(STDOUT_FILENO)) return;
    double s = (double)ns * 1e-9;
    live->shown = true;
    fprintf(stderr, "\r%zu tokens | %.2f t/s", n_tokens, (double)n / s);
    if (ttx_residency_get_layout(r))
        fprintf(stderr, " | hits %.0f %% | %.0f MB/s | waiting %.0f %%",
                share(c.expert_hits - was.expert_hits + c.dense_hits - was.dense_hits,
                      c.expert_uses - was.expert_uses + c.dense_uses - was.dense_uses),
                (double)(c.bytes_read - was.bytes_read) * 1e-6 / s,
                share(c.stall_ns - was.stall_ns, ns));
    fprintf(stderr, "\033[K");
}

static void clear_live(ttx_live *live) {
    if (live->shown) fprintf(stderr, "\r\033[K");
    live->shown = false;
}

static void accept(ttx_gen *g, int32_t token) {
    ttx_sampler_accept(g->sampler, token);
    if (g->draft) ttx_draft_accept(g->draft, token);
}

/* In pieces of n_ubatch, so that Ctrl-C is answered and progress is seen. */
static int eval_prompt(ttx_gen *g, const int32_t *prompt, size_t n, ttx_err *err) {
    uint32_t n_ctx = ttx_session_n_ctx(g->session), n_past = ttx_session_pos(g->session);
    if (n + 1 > n_ctx - n_past)
        return ttx_fail(err, TTX_E_USAGE,
                        "prompt: expected at most %u tokens (context %u, %u taken), found %zu; "
                        "choose a larger -c",
                        n_ctx - n_past ? n_ctx - n_past - 1 : 0, n_ctx, n_past, n);
    for (size_t at = 0; at < n && !*g->interrupted;) {
        size_t m = n - at < g->n_ubatch ? n - at : g->n_ubatch;
        ttx_want want = at + m == n ? TTX_WANT_LAST : TTX_WANT_NONE;
        int rc = ttx_session_eval(g->session, prompt + at, m, TTX_PROMPT, want, err);
        if (rc) return rc;
        at += m;
        g->stats.prompt_n += m;
        if (n > g->n_ubatch) show_progress(at, n);
    }
    for (size_t i = 0; i < n; i++) accept(g, prompt[i]);
    return TTX_OK;
}

static bool emit(ttx_gen *g, const char *bytes, size_t n) {
    return n == 0 || g->text(g->text_ctx, bytes, n);
}

/* Guesses for what follows the token that is about to be evaluated; at most `most`. */
static void make_guesses(ttx_gen *g, size_t most) {
    uint32_t room = ttx_session_n_ctx(g->session) - ttx_session_pos(g->session);
    if (most > room - 1) most = room - 1; /* the token itself has room */
    g->n_guess = g->draft ? ttx_draft_propose(g->draft, g->guess, most) : 0;
}

/* Evaluates a token, and with it up to `most` guesses. */
static int decode_step(ttx_gen *g, int32_t token, size_t most, ttx_err *err) {
    int32_t batch[TTX_DRAFT_MAX + 1] = {token};
    make_guesses(g, most);
    memcpy(batch + 1, g->guess, g->n_guess * sizeof *batch);
    size_t n = 1 + g->n_guess;
    uint64_t start = ttx_now_ns();
    int rc = ttx_session_eval(g->session, batch, n, TTX_EXACT, TTX_WANT_ALL, err);
    double s = (double)(ttx_now_ns() - start) * 1e-9;
    if (rc) return rc;
    if (g->draft) ttx_draft_timed(g->draft, n, s);
    g->row = 0;
    g->stats.step_ms[g->stats.decode_n++] = (float)(s * 1e3);
    g->stats.decode_s += s;
    g->stats.drafted_n += g->n_guess;
    return TTX_OK;
}

/* Whether `token` is what was guessed, so that it has been evaluated already. */
static bool guessed(ttx_gen *g, int32_t token) {
    if (g->row == g->n_guess || g->guess[g->row] != token) return false;
    g->row++;
    g->stats.accepted_n++;
    g->stats.decode_n++;
    return true;
}

/* The tokens of the last batch share its time: a guess that was right took none of its own. */
static void share_time(ttx_gen *g) {
    float *last = g->stats.step_ms + g->stats.decode_n - 1 - g->row, ms = *last;
    for (size_t i = 0; i <= g->row; i++) last[i] = ms / (float)(g->row + 1);
}

/* Ends a batch: what was guessed wrong is forgotten. */
static void drop_guesses(ttx_gen *g) {
    if (!g->n_guess) return;
    share_time(g);
    ttx_session_rewind(g->session, ttx_session_pos(g->session) - (uint32_t)(g->n_guess - g->row));
    g->n_guess = g->row = 0;
}

/* Draws the next token and shows it. *token: -1 if the text ends with what was drawn. */
static int next_token(ttx_gen *g, uint64_t start, int32_t *token, ttx_err *err) {
    const char *bytes;
    int rc = ttx_sampler_draw(g->sampler, ttx_session_logits(g->session, g->row), g->eog, g->n_eog,
                              token, err);
    if (rc) return rc;
    if (!g->stats.n_tokens++) g->stats.ttft_s = (double)(ttx_now_ns() - start) * 1e-9;
    accept(g, *token);
    if (ttx_tok_is_eog(g->tok, *token)) { /* the next turn writes its own end of this one */
        *token = -1;
        return TTX_OK;
    }
    size_t n = ttx_detok_feed(g->detok, *token, &bytes);
    if (!emit(g, bytes, n))
        return ttx_fail(err, TTX_E_RUNTIME, "standard output: cannot write: %s", strerror(errno));
    return TTX_OK;
}

static int generate(ttx_gen *g, uint64_t start, ttx_err *err) {
    const char *bytes;
    int rc = TTX_OK;
    for (int32_t made = 0; !rc; made++) {
        int32_t token;
        g->stats.stop = TTX_STOP_INTERRUPT;
        if (*g->interrupted) break;
        g->stats.stop = TTX_STOP_COUNT;
        if (made == g->n_predict) break;
        if ((rc = next_token(g, start, &token, err))) break;
        g->stats.stop = TTX_STOP_EOG;
        if (token < 0) break;
        g->pending = token;
        g->stats.stop = TTX_STOP_COUNT;
        if (made + 1 == g->n_predict) break;
        if (guessed(g, token)) {
            g->pending = -1;
            continue;
        }
        drop_guesses(g);
        g->stats.stop = TTX_STOP_CONTEXT;
        if (ttx_session_pos(g->session) == ttx_session_n_ctx(g->session)) break;
        size_t most = g->n_predict < 0 ? TTX_DRAFT_MAX : (size_t)(g->n_predict - made - 1);
        rc = decode_step(g, token, most, err);
        g->pending = -1;
        show_live(&g->live, g->residency, g->stats.n_tokens);
    }
    clear_live(&g->live);
    drop_guesses(g);
    if (rc) return rc;
    size_t n = ttx_detok_flush(g->detok, &bytes);
    emit(g, bytes, n);
    return TTX_OK;
}

int ttx_gen_turn(ttx_gen *g, const int32_t *prompt, size_t n, ttx_err *err) {
    uint64_t start = ttx_now_ns();
    int rc;
    if (!n)
        return ttx_fail(err, TTX_E_USAGE,
                        "prompt: expected text that the vocabulary has tokens for, found none");
    if (g->pending >= 0) { /* what the last turn ended with belongs to the history too */
        if ((rc = decode_step(g, g->pending, 0, err))) return rc;
        g->pending = -1;
    }
    uint64_t prompt_start = ttx_now_ns();
    if ((rc = eval_prompt(g, prompt, n, err))) return rc;
    g->stats.prompt_s += (double)(ttx_now_ns() - prompt_start) * 1e-9;
    return generate(g, start, err);
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

float ttx_gen_quantile(ttx_gen_stats *s, double q) {
    if (!s->decode_n) return 0;
    qsort(s->step_ms, s->decode_n, sizeof *s->step_ms, ascending);
    return s->step_ms[(size_t)(q * (double)(s->decode_n - 1) + 0.5)];
}
