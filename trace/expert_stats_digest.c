/* expert_stats_digest.c -- from counters to numbers; docs/expert-stats.md defines them. */
#include "expert_stats_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const int expert_stats_shares[SHARES] = {50, 80, 90, 95, 99};
const double expert_stats_frequencies[FREQUENCY_BINS - 1] = {0, 0.25, 0.5, 1, 2, 4};

double expert_stats_ratio(double n, double of) {
    return of > 0 ? n / of : (double)NAN;
}

const char *expert_stats_routing(const struct cell *c) {
    if (!c->routes) return "none";
    return !c->hashed ? "top-k" : c->hashed == c->routes ? "hash" : "mixed";
}

static void add_counts(uint64_t *to, const uint64_t *from, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) to[i] += from[i];
}

static void add_cell(struct cell *to, const struct cell *from, uint32_t n_expert) {
    to->routes += from->routes;
    to->hashed += from->hashed;
    to->activations += from->activations;
    add_counts(to->count, from->count, n_expert);
    for (uint32_t i = 0; i < n_expert; i++) to->weight[i] += from->weight[i];
    add_counts(to->rank_count, from->rank_count, TTX_MAX_EXPERTS_USED);
    for (int i = 0; i < TTX_MAX_EXPERTS_USED; i++) to->rank_weight[i] += from->rank_weight[i];
    to->weight_sum += from->weight_sum;
    if (from->weight_min < to->weight_min) to->weight_min = from->weight_min;
    if (from->weight_max > to->weight_max) to->weight_max = from->weight_max;
    add_counts(to->weight_bin, from->weight_bin, WEIGHT_BINS);
    to->pairs += from->pairs;
    to->chosen += from->chosen;
    to->kept += from->kept;
    to->slots += from->slots;
    to->same_slot += from->same_slot;
    to->jaccard += from->jaccard;
    add_counts(to->reuse, from->reuse, REUSE_BINS);
    to->first_uses += from->first_uses;
    add_counts(to->spans, from->spans, UNION_SPANS);
    add_counts(to->span_experts, from->span_experts, UNION_SPANS);
}

void expert_stats_total(struct total *t, const ttx_expert_stats *s, enum phase p) {
    memset(t, 0, sizeof *t);
    t->cell = (struct cell){
        .count = t->count, .weight = t->weight, .weight_min = INFINITY, .weight_max = -INFINITY};
    for (uint32_t i = 0; i < s->n_layer; i++) {
        const struct cell *c = layer_cell(s, i, p);
        add_cell(&t->cell, c, s->n_expert);
        if (c->routes > t->tokens) t->tokens = c->routes;
        t->layers += c->routes > 0;
    }
}

static int by_count(const void *a, const void *b) {
    const struct share *x = a, *y = b;
    if (x->count != y->count) return x->count > y->count ? -1 : 1;
    return x->expert < y->expert ? -1 : 1;
}

void expert_stats_spread(struct spread *d, const uint64_t *count, uint32_t n_expert) {
    struct share sorted[TTX_MAX_EXPERTS];
    uint64_t sum = 0, cumulative = 0;
    double entropy = 0;
    *d = (struct spread){0};
    for (uint32_t i = 0; i < n_expert; i++) {
        sorted[i] = (struct share){i, count[i], NAN, NAN};
        sum += count[i];
    }
    qsort(sorted, n_expert, sizeof *sorted, by_count);
    for (uint32_t i = 0; i < n_expert; i++) {
        struct share *e = &sorted[i];
        cumulative += e->count;
        e->share = expert_stats_ratio((double)e->count, (double)sum);
        e->cumulative = expert_stats_ratio((double)cumulative, (double)sum);
        if (e->count) entropy -= e->share * log2(e->share);
        d->dead += e->count == 0;
        for (int j = 0; j < SHARES; j++)
            if (sum && !d->experts_for[j] &&
                cumulative * 100 >= sum * (uint64_t)expert_stats_shares[j])
                d->experts_for[j] = i + 1;
        double frequency = (double)(e->count * n_expert) / (sum ? (double)sum : 1);
        int bin = e->count ? 1 : 0;
        while (bin && bin < FREQUENCY_BINS - 1 && frequency >= expert_stats_frequencies[bin]) bin++;
        d->frequency[bin]++;
    }
    d->n_top = n_expert < TOP ? n_expert : TOP;
    memcpy(d->top, sorted, d->n_top * sizeof *sorted);
    d->entropy = sum ? entropy : (double)NAN;
    d->entropy_ratio = expert_stats_ratio(d->entropy, log2(n_expert));
    d->effective = exp2(d->entropy);
    d->effective_ratio = d->effective / n_expert;
}

struct layer_mean expert_stats_layer_mean(const ttx_expert_stats *s, enum phase p) {
    struct layer_mean m = {0};
    double n = 0;
    for (uint32_t i = 0; i < s->n_layer; i++) {
        const struct cell *c = layer_cell(s, i, p);
        struct spread d;
        if (!c->routes) continue;
        expert_stats_spread(&d, c->count, s->n_expert);
        m.entropy += d.entropy;
        m.entropy_ratio += d.entropy_ratio;
        m.effective += d.effective;
        m.effective_ratio += d.effective_ratio;
        m.dead += d.dead;
        n++;
    }
    return (struct layer_mean){
        expert_stats_ratio(m.entropy, n), expert_stats_ratio(m.entropy_ratio, n),
        expert_stats_ratio(m.effective, n), expert_stats_ratio(m.effective_ratio, n),
        expert_stats_ratio(m.dead, n)};
}

double expert_stats_quantile(const struct cell *c, double q) {
    uint64_t seen = 0;
    double rank = ceil(q * (double)c->activations);
    if (!c->activations) return (double)NAN;
    for (uint32_t i = 0; i < WEIGHT_BINS; i++) {
        seen += c->weight_bin[i];
        if (!c->weight_bin[i] || (double)seen < rank) continue;
        uint32_t bits = ((i + ((127 - 12) << 6)) << 17) | 1u << 16; /* the bin's middle */
        float middle;
        memcpy(&middle, &bits, sizeof middle);
        if (i == 0) middle = 0; /* and everything below the first bin */
        return (double)fminf(fmaxf(middle, c->weight_min), c->weight_max);
    }
    return (double)c->weight_max;
}

/* Puts a pair into its place among the highest lifts; ties go to the lower layer and experts,
 * which come first. Returns how many there are now. */
static int insert_pair(struct pair top[TOP], int n, const struct pair *p) {
    int at = n;
    while (at && top[at - 1].lift < p->lift) at--;
    if (at == TOP) return n;
    if (n < TOP) n++;
    memmove(&top[at + 1], &top[at], (size_t)(n - 1 - at) * sizeof *top);
    top[at] = *p;
    return n;
}

int expert_stats_pairs(struct pair top[TOP], const ttx_expert_stats *s, enum phase p,
                       uint32_t first, uint32_t end) {
    int n = 0;
    bool counted = false;
    for (uint32_t layer = first; layer < end; layer++) {
        const struct cell *c = layer_cell(s, layer, p);
        if (!c->together) continue;
        counted = true;
        /* One in a hundred tokens: chance alone makes rare pairs look strong. */
        uint64_t least = c->routes / 100 > MIN_TOGETHER ? c->routes / 100 : MIN_TOGETHER;
        for (uint32_t a = 0; c->routes >= least && a < s->n_expert; a++) {
            for (uint32_t b = a + 1; c->count[a] && b < s->n_expert; b++) {
                uint64_t together = c->together[pair_index(a, b)];
                if (together < least) continue;
                double lift = (double)together * (double)c->routes /
                              ((double)c->count[a] * (double)c->count[b]);
                n = insert_pair(top, n, &(struct pair){layer, a, b, together, lift});
            }
        }
    }
    return counted ? n : -1;
}
