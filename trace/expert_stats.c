/* expert_stats.c -- the counting; see expert_stats.h. Runs between the kernels of a decode step, so
 * it touches few cache lines: one pass over the chosen experts, one over the recent past. */
#include "expert_stats_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Pairs of experts are counted in as many layers as fit: 1024 experts take 2 MiB a layer. */
static const size_t together_bytes = (size_t)256 << 20;

/* Cells that count pairs of experts, of which there are n_pair. */
static size_t cells_with_pairs(size_t n_cell, size_t n_pair) {
    size_t n = n_pair ? together_bytes / sizeof(uint32_t) / n_pair : 0;
    return n < n_cell ? n : n_cell;
}

uint64_t ttx_expert_stats_bytes(uint32_t n_layer, uint32_t n_expert) {
    size_t n_cell = (size_t)n_layer * PHASES, n_pair = (size_t)n_expert * (n_expert - 1) / 2;
    size_t an_expert = sizeof(uint64_t) + sizeof(double);
    return n_cell * (sizeof(struct cell) + n_expert * an_expert) +
           n_layer * (sizeof(struct history) + n_expert * sizeof(uint64_t)) +
           cells_with_pairs(n_cell, n_pair) * n_pair * sizeof(uint32_t);
}

int ttx_expert_stats_new(ttx_expert_stats **out, uint32_t n_layer, uint32_t n_expert,
                         ttx_err *err) {
    *out = NULL;
    if (!n_layer || !n_expert || n_expert > TTX_MAX_EXPERTS)
        return ttx_fail(err, TTX_E_USAGE,
                        "expert statistics: expected layers and 1..%d experts, found %u and %u",
                        TTX_MAX_EXPERTS, n_layer, n_expert);
    ttx_expert_stats *s = calloc(1, sizeof *s);
    if (!s) return ttx_fail_nomem(err, "expert statistics", sizeof *s);
    size_t n_cell = (size_t)n_layer * PHASES, n_pair = (size_t)n_expert * (n_expert - 1) / 2;
    size_t n_together = cells_with_pairs(n_cell, n_pair);
    *s = (ttx_expert_stats){.n_layer = n_layer, .n_expert = n_expert};
    s->cells = calloc(n_cell, sizeof *s->cells);
    s->histories = calloc(n_layer, sizeof *s->histories);
    s->counts = calloc(n_cell * n_expert, sizeof *s->counts);
    s->weights = calloc(n_cell * n_expert, sizeof *s->weights);
    s->lasts = calloc((size_t)n_layer * n_expert, sizeof *s->lasts);
    s->togethers = calloc(n_together * n_pair + 1, sizeof *s->togethers);
    if (!s->cells || !s->histories || !s->counts || !s->weights || !s->lasts || !s->togethers) {
        ttx_expert_stats_free(s);
        return ttx_fail_nomem(err, "expert statistics", ttx_expert_stats_bytes(n_layer, n_expert));
    }
    for (size_t i = 0; i < n_cell; i++) {
        struct cell *c = &s->cells[i];
        c->count = s->counts + i * n_expert;
        c->weight = s->weights + i * n_expert;
        c->together = i < n_together ? s->togethers + i * n_pair : NULL;
        c->weight_min = INFINITY;
        c->weight_max = -INFINITY;
    }
    for (uint32_t i = 0; i < n_layer; i++) s->histories[i].last = s->lasts + (size_t)i * n_expert;
    *out = s;
    return TTX_OK;
}

void ttx_expert_stats_free(ttx_expert_stats *s) {
    if (!s) return;
    free(s->cells);
    free(s->histories);
    free(s->counts);
    free(s->weights);
    free(s->lasts);
    free(s->togethers);
    free(s);
}

/* 64 bins for each power of two: a float's exponent and the top six bits of its fraction. */
static uint32_t weight_bin(float w) {
    const uint32_t lowest = (127 - 12) << 6;
    uint32_t bits;
    memcpy(&bits, &w, sizeof bits);
    if (!(w > 0) || bits >> 17 < lowest) return 0;
    uint32_t bin = (bits >> 17) - lowest;
    return bin < WEIGHT_BINS ? bin : WEIGHT_BINS - 1;
}

static void count_weights(struct cell *c, const ttx_route *r) {
    for (int32_t i = 0; i < r->k; i++) {
        float w = r->weight[i];
        c->count[r->expert[i]]++;
        c->weight[r->expert[i]] += (double)w;
        c->rank_count[i]++;
        c->rank_weight[i] += (double)w;
        c->weight_sum += (double)w;
        if (w < c->weight_min) c->weight_min = w;
        if (w > c->weight_max) c->weight_max = w;
        c->weight_bin[weight_bin(w)]++;
    }
}

static void count_together(struct cell *c, const ttx_route *r) {
    for (int32_t i = 1; i < r->k; i++)
        for (int32_t j = 0; j < i; j++)
            c->together[pair_index((uint32_t)r->expert[i], (uint32_t)r->expert[j])]++;
}

/* 1, 2, 3-4, 5-8, ... */
static int reuse_bin(uint64_t distance) {
    int bin = distance > 1 ? 64 - __builtin_clzll(distance - 1) : 0;
    return bin < REUSE_BINS ? bin : REUSE_BINS - 1;
}

/* Moves the layer's clock to the token of `r`. Tokens that do not follow one another (a rewind, a
 * new sequence, tokens that the layer was not run for) begin a new past. */
static void advance(struct history *h, const ttx_route *r) {
    enum phase phase = r->decode ? DECODE : PROMPT;
    h->now++;
    if (!h->running || r->step != h->next_step) {
        h->start = h->now;
        h->in_phase = h->k = 0;
        memset(h->newest, 0, sizeof h->newest);
    }
    h->in_phase = h->phase == phase ? h->in_phase + 1 : 1;
    h->phase = phase;
    h->running = true;
    h->next_step = r->step + 1;
    h->newest[h->now % RECENT_TOKENS] = 0;
}

/* Returns how many of the token's experts the token before had chosen too. */
static int32_t count_reuse(struct cell *c, struct history *h, const ttx_route *r) {
    int32_t kept = 0;
    for (int32_t i = 0; i < r->k; i++) {
        uint64_t *last = &h->last[r->expert[i]];
        if (*last < h->start) {
            c->first_uses++;
        } else {
            uint64_t distance = h->now - *last;
            kept += distance == 1;
            c->reuse[reuse_bin(distance)]++;
            if (distance < RECENT_TOKENS) h->newest[*last % RECENT_TOKENS]--;
        }
        *last = h->now;
    }
    h->newest[h->now % RECENT_TOKENS] = (uint16_t)r->k;
    return kept;
}

static void count_adjacent(struct cell *c, const struct history *h, const ttx_route *r,
                           int32_t kept) {
    int32_t slots = h->k < r->k ? h->k : r->k;
    c->pairs++;
    c->chosen += (uint64_t)r->k;
    c->kept += (uint64_t)kept;
    c->jaccard += (double)kept / (h->k + r->k - kept);
    c->slots += (uint64_t)slots;
    for (int32_t i = 0; i < slots; i++) c->same_slot += h->expert[i] == r->expert[i];
}

/* The spans that end with the newest token and lie in its phase as a whole. An expert belongs to
 * the token that used it last, so the experts of a span are the sum over its tokens. */
static void count_spans(struct cell *c, const struct history *h) {
    uint64_t experts = 0, back = 0;
    for (int i = 0; i < UNION_SPANS && h->in_phase >= 1u << i; i++) {
        for (; back < 1u << i; back++) experts += h->newest[(h->now - back) % RECENT_TOKENS];
        c->spans[i]++;
        c->span_experts[i] += experts;
    }
}

static void count_route(void *ctx, const ttx_route *r) {
    ttx_expert_stats *s = ctx;
    if (r->layer >= s->n_layer || r->k < 1 || r->k > TTX_MAX_EXPERTS_USED) return;
    for (int32_t i = 0; i < r->k; i++)
        if (r->expert[i] < 0 || (uint32_t)r->expert[i] >= s->n_expert) return;
    struct cell *c = &s->cells[(size_t)r->layer * PHASES + (r->decode ? DECODE : PROMPT)];
    struct history *h = &s->histories[r->layer];
    c->routes++;
    c->hashed += r->hashed;
    c->activations += (uint64_t)r->k;
    count_weights(c, r);
    if (c->together) count_together(c, r);
    advance(h, r);
    int32_t kept = count_reuse(c, h, r);
    if (h->now > h->start) count_adjacent(c, h, r, kept);
    count_spans(c, h);
    h->k = r->k;
    memcpy(h->expert, r->expert, (size_t)r->k * sizeof *r->expert);
}

static void begin_sequence(void *ctx) {
    ttx_expert_stats *s = ctx;
    for (uint32_t i = 0; i < s->n_layer; i++) s->histories[i].running = false;
}

ttx_route_sink ttx_expert_stats_sink(ttx_expert_stats *s) {
    return (ttx_route_sink){count_route, begin_sequence, s};
}
