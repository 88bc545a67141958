/* draft_test.c -- what prompt lookup guesses, and when it stops guessing. */
#include "check_harness.h"
#include "draft.h"
#include "engine_rig.h"

static int failures;

static ttx_draft *open_draft(uint32_t n_ctx) {
    ttx_draft *d;
    ttx_err err = {0};
    if (ttx_draft_open(&d, n_ctx, &err)) rig_die("draft", err.msg);
    return d;
}

static void feed(ttx_draft *d, const int32_t *token, size_t n) {
    for (size_t i = 0; i < n; i++) ttx_draft_accept(d, token[i]);
}

/* Every size as cheap as one token: a machine that waits for its disk. */
static void all_alike(ttx_draft *d) {
    for (size_t n = 1; n <= TTX_DRAFT_MAX + 1; n++) ttx_draft_timed(d, n, 1);
}

static void matches(void) {
    int32_t guess[TTX_DRAFT_MAX];
    ttx_draft *d = open_draft(100);
    feed(d, (int32_t[]){1, 2, 3, 4, 5, 1, 2}, 7);
    CHECK_INT(ttx_draft_propose(d, guess, 8), 0); /* no time is known */
    all_alike(d);
    CHECK_INT(ttx_draft_propose(d, guess, 3), 3); /* after 1 2 came 3 4 5 */
    CHECK_INT(guess[0], 3);
    CHECK_INT(guess[2], 5);
    CHECK_INT(ttx_draft_propose(d, guess, 8), 8); /* 3 4 5 1 2, and again */
    CHECK_INT(guess[4], 2);
    CHECK_INT(guess[5], 3);
    ttx_draft_accept(d, 9);                       /* wrong */
    CHECK_INT(ttx_draft_propose(d, guess, 8), 0); /* 2 9 is new */
    feed(d, (int32_t[]){2, 3, 7, 1, 2}, 5);       /* 3 after 1 2, but 7 after 2 3 of late */
    CHECK_INT(ttx_draft_propose(d, guess, 1), 1);
    CHECK_INT(guess[0], 9); /* the latest of equal matches */
    ttx_draft_close(d);

    d = open_draft(100);
    all_alike(d);
    feed(d, (int32_t[]){5, 1, 2, 8, 6, 1, 2, 7, 5, 1, 2}, 11);
    CHECK_INT(ttx_draft_propose(d, guess, 1), 1);
    CHECK_INT(guess[0], 8); /* 5 1 2 is longer than the later 1 2 */
    ttx_draft_close(d);

    d = open_draft(4); /* what it has no room for it does not know */
    all_alike(d);
    feed(d, (int32_t[]){1, 2, 1, 2, 1, 2}, 6);
    CHECK_INT(ttx_draft_propose(d, guess, 4), 0);
    ttx_draft_close(d);
}

/* A text in which guesses are always right, or never. `cost`: seconds of a further token. Returns
 * the widest guess of the last 50 steps; *tried: of any step. */
static size_t widest(bool right, double cost, size_t *tried) {
    int32_t guess[TTX_DRAFT_MAX];
    size_t late = 0, n = 0;
    ttx_draft *d = open_draft(10000);
    *tried = 0;
    feed(d, (int32_t[]){1, 2}, 2);
    for (int step = 0; step < 250; step++) {
        n = ttx_draft_propose(d, guess, TTX_DRAFT_MAX);
        if (n > *tried) *tried = n;
        if (step >= 200 && n > late) late = n;
        ttx_draft_timed(d, 1 + n, 1 + cost * (double)n);
        /* 1 2 is followed by 3 and so on, or always by something new */
        feed(d, (int32_t[]){right ? 3 : 10 + step, right ? 4 : 1000 + step, 1, 2}, 4);
    }
    ttx_draft_close(d);
    return late;
}

static void widths(void) {
    size_t tried;
    CHECK_INT(widest(true, 0, &tried), TTX_DRAFT_MAX); /* free: as wide as it goes */
    CHECK_INT(widest(false, 0.2, &tried), 0);          /* never right */
    CHECK_INT(tried > 0, 1);
    CHECK_INT(widest(true, 1.2, &tried), 0); /* right, but dearer than a step */
    CHECK_INT(tried, 1);
}

int main(void) {
    matches();
    widths();
    return failures != 0;
}
