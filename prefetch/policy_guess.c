/* policy_guess.c -- see policy_guess.h. */
#include "policy_guess.h"

#include "policy.h"
#include "route.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int ttx_guesser_open(ttx_guesser *g, ttx_guess_kind kind, uint32_t n_layer, uint32_t n_expert,
                     ttx_err *err) {
    size_t n = (size_t)n_layer * n_expert, pairs = n * n_expert;
    *g = (ttx_guesser){.kind = kind,
                       .n_layer = n_layer,
                       .n_expert = n_expert,
                       .before = n_layer,
                       .layer = n_layer};
    g->last = calloc(n_layer + 1u, sizeof *g->last);
    if (kind == TTX_GUESS_FREQUENCY) g->often = calloc(n + 1, sizeof *g->often);
    if (kind == TTX_GUESS_SUCCESSOR) g->follow = calloc(pairs + 1, 1);
    if (!g->last || (kind == TTX_GUESS_FREQUENCY && !g->often))
        return ttx_fail_nomem(err, "predictor", n * sizeof *g->often);
    if (kind == TTX_GUESS_SUCCESSOR && !g->follow) return ttx_fail_nomem(err, "predictor", pairs);
    return TTX_OK;
}

void ttx_guesser_close(ttx_guesser *g) {
    free(g->often);
    free(g->follow);
    free(g->last);
    *g = (ttx_guesser){0};
}

void ttx_guesser_step(ttx_guesser *g) {
    g->step++;
    if (g->step % TTX_GUESS_PAUSE) return;
    g->rare = g->reads < TTX_GUESS_RARE;
    g->reads = 0;
}

/* ---- learning ---- */

static uint8_t *follow_row(const ttx_guesser *g, uint32_t layer, uint32_t before) {
    return g->follow + ((size_t)layer * g->n_expert + before) * g->n_expert;
}

/* Counts that would overflow are halved with all of their row. */
static void count_pair(ttx_guesser *g, uint32_t layer, uint32_t before, uint32_t expert) {
    uint8_t *row = follow_row(g, layer, before);
    if (++row[expert] < UINT8_MAX) return;
    for (uint32_t i = 0; i < g->n_expert; i++) row[i] /= 2;
}

/* A step of a layer: what was counted in it ages. */
static void age(ttx_guesser *g, uint32_t layer) {
    float *often = g->often + (size_t)layer * g->n_expert;
    float less = exp2f(-1.0f / TTX_HALF_LIFE);
    for (uint32_t i = 0; i < g->n_expert; i++) often[i] *= less;
}

void ttx_guesser_chose(ttx_guesser *g, uint32_t layer, uint32_t expert) {
    struct ttx_guess_layer *l = &g->last[layer];
    if (layer != g->layer || l->step != g->step) { /* the first of a layer */
        g->before = g->layer;
        g->layer = layer;
        l->n = 0;
        l->step = g->step;
        if (g->often) age(g, layer);
    }
    if (l->n < TTX_GUESS_MOST) l->expert[l->n++] = (uint16_t)expert;
    if (g->often) g->often[(size_t)layer * g->n_expert + expert] += 1;
    if (!g->follow || g->before == g->n_layer) return;
    const struct ttx_guess_layer *b = &g->last[g->before];
    for (int i = 0; i < b->n; i++) count_pair(g, layer, b->expert[i], expert);
}

/* ---- guessing ---- */

/* The n of highest score; ties go to the lower index; those without any score are none. */
static int best_of(const float *score, uint32_t n_expert, int n, uint16_t *expert) {
    int found = 0;
    for (uint32_t e = 0; e < n_expert; e++) {
        if (score[e] <= 0 || (found == n && score[e] <= score[expert[found - 1]])) continue;
        int at = found < n ? found++ : n - 1;
        for (; at > 0 && score[expert[at - 1]] < score[e]; at--) expert[at] = expert[at - 1];
        expert[at] = (uint16_t)e;
    }
    return found;
}

int ttx_guesser_guess(ttx_guesser *g, uint32_t *layer, uint16_t expert[TTX_GUESS_MOST]) {
    float score[TTX_MAX_EXPERTS] = {0};
    if (g->kind == TTX_GUESS_ROUTER || g->layer == g->n_layer || g->n_expert > TTX_MAX_EXPERTS)
        return 0;
    *layer = (g->layer + 1) % g->n_layer;
    while (!g->last[*layer].n && *layer != g->layer) *layer = (*layer + 1) % g->n_layer;
    const struct ttx_guess_layer *next = &g->last[*layer], *now = &g->last[g->layer];
    if (g->kind == TTX_GUESS_PREVIOUS) {
        memcpy(expert, next->expert, (size_t)next->n * sizeof *expert);
        return next->n;
    }
    for (uint32_t e = 0; g->often && e < g->n_expert; e++)
        score[e] = g->often[(size_t)*layer * g->n_expert + e];
    for (int i = 0; g->follow && i < now->n; i++) {
        const uint8_t *row = follow_row(g, *layer, now->expert[i]);
        for (uint32_t e = 0; e < g->n_expert; e++) score[e] += row[e];
    }
    return best_of(score, g->n_expert, now->n, expert);
}

/* ---- judging ---- */

void ttx_guesser_read(ttx_guesser *g) {
    g->reads++;
}

void ttx_guesser_settle(ttx_guesser *g, bool right) {
    g->judged++;
    g->judged_right += right;
}

static bool rests(const ttx_guesser *g) {
    return g->step < g->again || g->rare;
}

bool ttx_guesser_pays(ttx_guesser *g, uint64_t now_ns, uint64_t waited_ns) {
    if (!g->judged_ns || rests(g)) { /* time without guesses does not count */
        g->judged_ns = now_ns;
        g->judged_waited_ns = waited_ns;
    }
    if (g->judged >= TTX_GUESS_JUDGED) {
        uint64_t time = now_ns - g->judged_ns, waited = waited_ns - g->judged_waited_ns;
        uint32_t sixths = 3 * waited > 2 * time ? 4 : 3; /* that must have been right */
        if (6 * g->judged_right < sixths * g->judged) g->again = g->step + TTX_GUESS_PAUSE;
        g->judged = g->judged_right = 0;
        g->judged_ns = now_ns;
        g->judged_waited_ns = waited_ns;
    }
    return !rests(g);
}
