/* report_favours.c -- experts in statistics.json: how evenly they are used, how well the next
 * choice is predicted, which tokens they favour.
 *
 * A word w favours expert e of a layer by n(e,w) * log(n(e,w) N / (n(e) n(w))), its part of the
 * mutual information between words and experts; the sum over all, divided by N, is that
 * information.
 */
#include "report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOP = 5, PAGE_WORDS = 12000 };

typedef struct layer_words {
    uint64_t n;
    double information; /* bits */
} layer_words;

typedef struct word {
    uint16_t layer, expert;
    uint32_t vocab, n;
} word;

static int by_layer_word(const void *a, const void *b) {
    const word *x = a, *y = b;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    if (x->vocab != y->vocab) return x->vocab < y->vocab ? -1 : 1;
    return x->expert < y->expert ? -1 : x->expert > y->expert;
}

/* Keeps the n largest, in order. */
static void offer(rp_favoured *top, int n, const rp_favoured *f) {
    for (int i = 0; i < n; i++) {
        if (f->part <= top[i].part) continue;
        memmove(top + i + 1, top + i, (size_t)(n - 1 - i) * sizeof *top);
        top[i] = *f;
        return;
    }
}

/* Fills the favoured words of each expert and the information of each layer. */
static bool find_favoured(const rp_routes *s, rp_favoured *top, layer_words *layers) {
    word *v = malloc((s->n_favour + 1) * sizeof *v);
    uint64_t *by_expert = calloc((size_t)s->n_layer * s->n_expert, sizeof *by_expert);
    size_t n = 0;
    for (size_t i = 0; v && by_expert && i < s->cap_favour; i++) {
        const rp_favour *f = &s->favours[i];
        if (!f->n) continue;
        v[n++] = (word){f->layer, f->expert, f->vocab, f->n};
        by_expert[(size_t)f->layer * s->n_expert + f->expert] += f->n;
        layers[f->layer].n += f->n;
    }
    if (v && by_expert) qsort(v, n, sizeof *v, by_layer_word);
    for (size_t i = 0, end; v && by_expert && i < n; i = end) {
        uint64_t of_word = 0;
        for (end = i; end < n && v[end].layer == v[i].layer && v[end].vocab == v[i].vocab; end++)
            of_word += v[end].n;
        layer_words *l = &layers[v[i].layer];
        for (size_t k = i; k < end; k++) {
            size_t e = (size_t)v[k].layer * s->n_expert + v[k].expert;
            double lift = (double)v[k].n * (double)l->n / ((double)by_expert[e] * (double)of_word);
            double part = (double)v[k].n * log2(lift);
            l->information += part / (double)l->n;
            if (v[k].n > 1 && lift > 1)
                offer(top + e * TOP, TOP,
                      &(rp_favoured){v[k].layer, v[k].expert, v[k].vocab, v[k].n, part, lift});
        }
    }
    bool ok = v && by_expert;
    free(v);
    free(by_expert);
    return ok;
}

/* At most `most` words of each expert. */
static void put_favoured(const ttx_report *r, rp_json *j, const rp_favoured *top, int most) {
    rp_begin(j, "favoured_tokens", '[');
    for (uint32_t e = 0; e < r->routes.n_expert; e++) {
        rp_begin(j, NULL, '[');
        for (int i = 0; i < most && top[e * TOP + (uint32_t)i].n; i++) {
            const rp_favoured *f = &top[e * TOP + (uint32_t)i];
            rp_begin(j, NULL, '{');
            rp_u64(j, "vocab_id", f->vocab);
            rp_text(j, "text", rp_text_of(&r->texts, f->vocab));
            rp_u64(j, "n", f->n);
            rp_num(j, "lift", f->lift);
            rp_end(j, '}');
        }
        rp_end(j, ']');
    }
    rp_end(j, ']');
}

static int more_first(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* The share of a layer's activations that its k most used experts have: what guessing them always
 * would get right. sorted[n_expert] is scratch. */
static double top_share(const uint64_t *n, uint32_t n_expert, uint32_t k, uint64_t *sorted) {
    uint64_t all = 0, most = 0;
    memcpy(sorted, n, n_expert * sizeof *n);
    qsort(sorted, n_expert, sizeof *sorted, more_first);
    for (uint32_t e = 0; e < n_expert; e++) {
        all += sorted[e];
        if (e < k) most += sorted[e];
    }
    return rp_ratio((double)most, (double)all);
}

static double entropy(const uint64_t *n, uint32_t n_expert) {
    double all = 0, h = 0;
    for (uint32_t e = 0; e < n_expert; e++) all += (double)n[e];
    for (uint32_t e = 0; e < n_expert; e++)
        if (n[e]) h -= (double)n[e] / all * log2((double)n[e] / all);
    return h;
}

static void put_counts(rp_json *j, const char *name, const uint64_t *v, uint32_t n) {
    rp_begin(j, name, '[');
    for (uint32_t e = 0; e < n; e++) rp_u64(j, NULL, v[e]);
    rp_end(j, ']');
}

static void put_layer(const ttx_report *r, rp_json *j, uint32_t l, const rp_favoured *top,
                      const layer_words *words, uint64_t *scratch, int most) {
    const rp_routes *s = &r->routes;
    size_t at = (size_t)l * s->n_expert;
    uint32_t k = r->meta.model.n_expert_used;
    double h = entropy(s->n + at, s->n_expert);
    rp_begin(j, NULL, '{');
    rp_u64(j, "layer_id", l);
    rp_u64(j, "routes_prompt", s->routed[2 * l]);
    rp_u64(j, "routes_decode", s->routed[2 * l + 1]);
    put_counts(j, "tokens", s->n + at, s->n_expert);
    put_counts(j, "tokens_decode", s->decode + at, s->n_expert);
    put_counts(j, "chosen_first", s->first + at, s->n_expert);
    rp_begin(j, "mean_weight", '[');
    for (uint32_t e = 0; e < s->n_expert; e++)
        rp_num(j, NULL, rp_ratio(s->weight[at + e], (double)s->n[at + e]));
    rp_end(j, ']');
    rp_num(j, "entropy_bits", h);
    rp_num(j, "entropy_share", rp_ratio(h, log2(s->n_expert)));
    rp_num(j, "predicted_by_previous_token", rp_ratio((double)s->again[l], (double)s->again_of[l]));
    rp_num(j, "predicted_by_frequency", top_share(s->decode + at, s->n_expert, k, scratch));
    rp_num(j, "word_information_bits", words[l].information);
    rp_num(j, "specialisation", rp_ratio(words[l].information, h));
    put_favoured(r, j, top + at * TOP, most);
    rp_end(j, '}');
}

/* What find_favoured found, and room to sort counts of a layer. */
typedef struct route_tables {
    rp_favoured *top;   /* [n_layer][n_expert][TOP] */
    layer_words *words; /* [n_layer] */
    uint64_t *scratch;  /* [n_expert] */
} route_tables;

static void free_tables(route_tables *t) {
    free(t->top);
    free(t->words);
    free(t->scratch);
}

/* False without memory; free_tables in any case. */
static bool make_tables(const rp_routes *s, route_tables *t) {
    t->top = calloc((size_t)s->n_layer * s->n_expert * TOP, sizeof *t->top);
    t->words = calloc(s->n_layer, sizeof *t->words);
    t->scratch = malloc(s->n_expert * sizeof *t->scratch);
    return t->top && t->words && t->scratch && find_favoured(s, t->top, t->words);
}

static void sum_layers(const ttx_report *r, const route_tables *t, rp_route_sum *sum) {
    const rp_routes *s = &r->routes;
    double again = 0, of = 0, guessed = 0, decoded = 0, most = 0, layers = 0;
    *sum = (rp_route_sum){0};
    for (uint32_t l = 0; l < r->n_layer; l++) {
        const uint64_t *v = s->n + (size_t)l * s->n_expert;
        if (!s->routed[2 * l] && !s->routed[2 * l + 1]) continue;
        double h = entropy(v, s->n_expert);
        layers++;
        again += (double)s->again[l];
        of += (double)s->again_of[l];
        most += top_share(v, s->n_expert, 1, t->scratch);
        sum->entropy += rp_ratio(h, log2(s->n_expert));
        sum->specialisation += rp_ratio(t->words[l].information, h);
        if (!s->routed[2 * l + 1]) continue;
        decoded++;
        guessed += top_share(s->decode + (size_t)l * s->n_expert, s->n_expert,
                             r->meta.model.n_expert_used, t->scratch);
    }
    for (size_t i = 0; i < (size_t)s->n_layer * s->n_expert * TOP; i++)
        if (t->top[i].n) offer(sum->strongest, RP_STRONGEST, &t->top[i]);
    sum->by_previous = rp_ratio(again, of);
    sum->by_frequency = rp_ratio(guessed, decoded);
    sum->by_chance = rp_ratio(r->meta.model.n_expert_used, s->n_expert);
    sum->most_used = rp_ratio(most, layers);
    sum->entropy = rp_ratio(sum->entropy, layers);
    sum->specialisation = rp_ratio(sum->specialisation, layers);
}

bool rp_routes_sum(const ttx_report *r, rp_route_sum *sum) {
    route_tables t;
    *sum = (rp_route_sum){0};
    if (!r->routes.n_expert) return true;
    bool ok = make_tables(&r->routes, &t);
    if (ok) sum_layers(r, &t, sum);
    free_tables(&t);
    return ok;
}

void rp_routes_json(const ttx_report *r, rp_json *j, bool brief) {
    const rp_routes *s = &r->routes;
    int most = TOP; /* of a page that must stay small: fewer where experts are many */
    if (brief && s->n_layer * s->n_expert > PAGE_WORDS / TOP)
        most = (int)(PAGE_WORDS / (s->n_layer * s->n_expert));
    route_tables t;
    rp_route_sum sum;
    if (!s->n_expert) return;
    rp_begin(j, "routes", '{');
    if (make_tables(s, &t)) {
        rp_begin(j, "layers", '[');
        for (uint32_t l = 0; l < r->n_layer; l++)
            if (s->routed[2 * l] || s->routed[2 * l + 1])
                put_layer(r, j, l, t.top, t.words, t.scratch, most);
        rp_end(j, ']');
        sum_layers(r, &t, &sum);
        rp_num(j, "predicted_by_previous_token", sum.by_previous);
        rp_num(j, "predicted_by_frequency", sum.by_frequency);
        rp_num(j, "most_used_share", sum.most_used);
        rp_num(j, "entropy_share", sum.entropy);
        rp_num(j, "specialisation", sum.specialisation);
    }
    rp_u64(j, "without_word", s->dropped);
    rp_end(j, '}');
    free_tables(&t);
}
