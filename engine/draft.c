/* draft.c -- see draft.h.
 *
 * A guess is scored whether it was evaluated or not: accept() compares it with what came. So the
 * chance of a hit is known also for a width that is not in use.
 */
#include "draft.h"

#include <stdbool.h>
#include <stdlib.h>

enum {
    MIN_MATCH = 2, /* tokens that must agree; one alone says little */
    MAX_MATCH = 6, /* more say no more */
    FORGET = 256   /* steps after which the time of an unused size is measured again */
};

struct ttx_draft {
    uint32_t n, cap;
    /* The running guess: tokens from `source` on, after a match of length `match`; 0: none. */
    uint32_t source, match;
    float hit[MAX_MATCH + 1];          /* chance that the next token of a guess is right */
    double seconds[TTX_DRAFT_MAX + 2]; /* of a batch, by size; 0: not known */
    uint64_t step, timed_at[TTX_DRAFT_MAX + 2];
    int32_t token[]; /* the text */
};

int ttx_draft_open(ttx_draft **out, uint32_t n_ctx, ttx_err *err) {
    size_t size = sizeof(ttx_draft) + n_ctx * sizeof(int32_t);
    ttx_draft *d = *out = calloc(1, size);
    if (!d) return ttx_fail_nomem(err, "drafts", size);
    d->cap = n_ctx;
    for (int i = 0; i <= MAX_MATCH; i++) d->hit[i] = 0.5f;
    return TTX_OK;
}

void ttx_draft_close(ttx_draft *d) {
    free(d);
}

void ttx_draft_accept(ttx_draft *d, int32_t token) {
    if (d->match) {
        bool right = d->token[d->source] == token;
        float *hit = &d->hit[d->match];
        *hit += ((right ? 1.0f : 0.0f) - *hit) / 16;
        d->source++;
        if (!right) d->match = 0;
    }
    if (d->n < d->cap) d->token[d->n++] = token;
}

/* The longest match of the end of the text with an earlier part of it; of equally long ones the
 * latest. */
static void find_match(ttx_draft *d) {
    d->match = 0;
    for (uint32_t at = d->n; at-- > 1 && d->match < MAX_MATCH;) { /* what follows begins at `at` */
        uint32_t len = 0;
        while (len < MAX_MATCH && len < at && d->token[at - 1 - len] == d->token[d->n - 1 - len])
            len++;
        if (len < MIN_MATCH || len <= d->match) continue;
        d->match = len;
        d->source = at;
    }
}

/* Seconds that a batch of n is expected to take: measured, or on the line through the two largest
 * smaller sizes that were. Negative: too far from what is known. */
static double expected_seconds(const ttx_draft *d, size_t n) {
    if (d->seconds[n] > 0) return d->seconds[n];
    size_t last = n - 1;
    while (last > 1 && !(d->seconds[last] > 0)) last--;
    if (n > 2 * last) return -1;
    double slope = 0;
    for (size_t i = last; i-- > 1;)
        if (d->seconds[i] > 0) {
            slope = (d->seconds[last] - d->seconds[i]) / (double)(last - i);
            break;
        }
    return d->seconds[last] + (slope > 0 ? slope * (double)(n - last) : 0);
}

static size_t best_width(ttx_draft *d, size_t max) {
    double gain = 1, p = 1, best = 1 / d->seconds[1];
    size_t width = 0;
    for (size_t w = 1; w <= max; w++) {
        p *= d->hit[d->match];
        gain += p;
        double s = expected_seconds(d, w + 1);
        if (s <= 0 || gain / s <= best) continue;
        best = gain / s;
        width = w;
    }
    return width;
}

size_t ttx_draft_propose(ttx_draft *d, int32_t guess[TTX_DRAFT_MAX], size_t max) {
    if (d->n == d->cap || !(d->seconds[1] > 0)) return 0; /* first, a plain step is timed */
    if (!d->match) find_match(d);
    if (!d->match) return 0;
    if (max > TTX_DRAFT_MAX) max = TTX_DRAFT_MAX;
    size_t n = best_width(d, max), known = d->n - d->source;
    for (size_t i = 0; i < n; i++) /* beyond the text's end the guess repeats itself */
        guess[i] = i < known ? d->token[d->source + i] : guess[i - known];
    return n;
}

void ttx_draft_timed(ttx_draft *d, size_t n, double seconds) {
    d->step++;
    for (size_t i = 2; i < TTX_DRAFT_MAX + 2; i++)
        if (d->step - d->timed_at[i] > FORGET) d->seconds[i] = 0;
    double *s = &d->seconds[n];
    *s += *s > 0 ? (seconds - *s) / 4 : seconds;
    d->timed_at[n] = d->step;
}
