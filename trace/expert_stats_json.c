/* expert_stats_json.c -- expert statistics as JSON; docs/expert-stats.md describes the members.
 *
 * Every name and text is a constant of this file and everything else is a number, so nothing has
 * to be escaped, and the text is written as it is made.
 */
#include "expert_stats_int.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

struct json {
    FILE *f;
    bool comma; /* something stands before the next member */
};

/* Begins a member of an object, or with NULL an element of an array. */
static void key(struct json *j, const char *name) {
    if (j->comma) fputc(',', j->f);
    if (name) fprintf(j->f, "\"%s\":", name);
    j->comma = true;
}

static void begin(struct json *j, const char *name, char bracket) {
    key(j, name);
    fputc(bracket, j->f);
    j->comma = false;
}

static void end(struct json *j, char bracket) {
    fputc(bracket, j->f);
    j->comma = true;
}

static void put_text(struct json *j, const char *name, const char *text) {
    key(j, name);
    fprintf(j->f, "\"%s\"", text);
}

static void put_count(struct json *j, const char *name, uint64_t n) {
    key(j, name);
    fprintf(j->f, "%" PRIu64, n);
}

static void put_number(struct json *j, const char *name, double x) {
    key(j, name);
    if (isfinite(x))
        fprintf(j->f, "%.15g", x);
    else
        fputs("null", j->f);
}

/* {"0": n, "1": n, ...} */
static void put_counts(struct json *j, const char *name, const uint64_t *count, uint32_t n) {
    begin(j, name, '{');
    for (uint32_t i = 0; i < n; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        put_count(j, id, count[i]);
    }
    end(j, '}');
}

static void put_weights(struct json *j, const struct cell *c, uint32_t n_expert) {
    static const char *const names[] = {"0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"};
    static const double quantiles[] = {0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99};
    begin(j, "weight", '{');
    put_number(j, "sum", c->weight_sum);
    put_number(j, "mean", expert_stats_ratio(c->weight_sum, (double)c->activations));
    put_number(j, "min", (double)c->weight_min);
    put_number(j, "max", (double)c->weight_max);
    begin(j, "quantiles", '{');
    for (size_t i = 0; i < sizeof quantiles / sizeof *quantiles; i++)
        put_number(j, names[i], expert_stats_quantile(c, quantiles[i]));
    end(j, '}');
    begin(j, "by_rank", '[');
    for (int i = 0; i < TTX_MAX_EXPERTS_USED && c->rank_count[i]; i++) {
        begin(j, NULL, '{');
        put_count(j, "activations", c->rank_count[i]);
        put_number(j, "mean", c->rank_weight[i] / (double)c->rank_count[i]);
        end(j, '}');
    }
    end(j, ']');
    begin(j, "sum_by_expert", '{');
    for (uint32_t i = 0; i < n_expert; i++) {
        char id[16];
        snprintf(id, sizeof id, "%u", i);
        put_number(j, id, c->weight[i]);
    }
    end(j, '}');
    end(j, '}');
}

static void put_frequencies(struct json *j, const struct spread *d) {
    begin(j, "frequency_histogram", '[');
    for (int i = 0; i < FREQUENCY_BINS; i++) {
        begin(j, NULL, '{');
        put_number(j, "below",
                   i == 0                   ? 0
                   : i < FREQUENCY_BINS - 1 ? expert_stats_frequencies[i]
                                            : (double)NAN);
        put_count(j, "experts", d->frequency[i]);
        end(j, '}');
    }
    end(j, ']');
}

static void put_spread(struct json *j, const uint64_t *count, uint32_t n_expert) {
    struct spread d;
    expert_stats_spread(&d, count, n_expert);
    put_number(j, "entropy_bits", d.entropy);
    put_number(j, "entropy_ratio", d.entropy_ratio);
    put_number(j, "effective_experts", d.effective);
    put_number(j, "effective_ratio", d.effective_ratio);
    put_count(j, "dead_experts", d.dead);
    begin(j, "top", '[');
    for (uint32_t i = 0; i < d.n_top; i++) {
        begin(j, NULL, '{');
        put_count(j, "expert", d.top[i].expert);
        put_count(j, "activations", d.top[i].count);
        put_number(j, "share", d.top[i].share);
        put_number(j, "cumulative", d.top[i].cumulative);
        end(j, '}');
    }
    end(j, ']');
    begin(j, "experts_for_percent", '{');
    for (int i = 0; i < SHARES; i++) {
        char percent[16];
        snprintf(percent, sizeof percent, "%d", expert_stats_shares[i]);
        put_count(j, percent, d.experts_for[i]);
    }
    end(j, '}');
    put_frequencies(j, &d);
}

static void put_past(struct json *j, const struct cell *c, uint32_t n_expert) {
    begin(j, "adjacent", '{');
    put_count(j, "pairs", c->pairs);
    put_number(j, "overlap", expert_stats_ratio((double)c->kept, (double)c->chosen));
    put_number(j, "jaccard", expert_stats_ratio(c->jaccard, (double)c->pairs));
    put_number(j, "position_stability", expert_stats_ratio((double)c->same_slot, (double)c->slots));
    end(j, '}');
    begin(j, "reuse_distance", '{');
    put_count(j, "first_uses", c->first_uses);
    begin(j, "histogram", '[');
    for (int i = 0; i < REUSE_BINS; i++) {
        begin(j, NULL, '{');
        put_number(j, "up_to", i < REUSE_BINS - 1 ? (double)(1u << i) : (double)NAN);
        put_count(j, "uses", c->reuse[i]);
        end(j, '}');
    }
    end(j, ']');
    end(j, '}');
    begin(j, "union", '[');
    for (int i = 0; i < UNION_SPANS; i++) {
        double mean = expert_stats_ratio((double)c->span_experts[i], (double)c->spans[i]);
        begin(j, NULL, '{');
        put_count(j, "tokens", 1u << i);
        put_count(j, "spans", c->spans[i]);
        put_number(j, "experts", mean);
        put_number(j, "share", mean / n_expert);
        end(j, '}');
    }
    end(j, ']');
}

static void put_pairs(struct json *j, const ttx_expert_stats *s, enum phase p, uint32_t first,
                      uint32_t last) {
    struct pair top[TOP];
    int n = expert_stats_pairs(top, s, p, first, last);
    if (n < 0) {
        put_number(j, "co_activation", (double)NAN);
        return;
    }
    begin(j, "co_activation", '[');
    for (int i = 0; i < n; i++) {
        begin(j, NULL, '{');
        put_count(j, "layer", top[i].layer);
        put_count(j, "a", top[i].a);
        put_count(j, "b", top[i].b);
        put_count(j, "together", top[i].together);
        put_number(j, "lift", top[i].lift);
        end(j, '}');
    }
    end(j, ']');
}

/* What a layer and all layers together have in common. */
static void put_cell(struct json *j, const struct cell *c, uint32_t n_expert) {
    put_count(j, "routes", c->routes);
    put_count(j, "activations", c->activations);
    put_text(j, "routing", expert_stats_routing(c));
    put_counts(j, "expert_activations", c->count, n_expert);
    put_spread(j, c->count, n_expert);
    put_weights(j, c, n_expert);
    put_past(j, c, n_expert);
}

static void put_phase(struct json *j, const ttx_expert_stats *s, enum phase p,
                      const struct total *t) {
    struct layer_mean m = expert_stats_layer_mean(s, p);
    begin(j, p == PROMPT ? "prompt" : "decode", '{');
    put_count(j, "tokens", t->tokens);
    put_count(j, "layers_routed", t->layers);
    put_cell(j, &t->cell, s->n_expert);
    put_pairs(j, s, p, 0, s->n_layer);
    begin(j, "mean_over_layers", '{');
    put_number(j, "entropy_bits", m.entropy);
    put_number(j, "entropy_ratio", m.entropy_ratio);
    put_number(j, "effective_experts", m.effective);
    put_number(j, "effective_ratio", m.effective_ratio);
    put_number(j, "dead_experts", m.dead);
    end(j, '}');
    begin(j, "layers", '{');
    for (uint32_t i = 0; i < s->n_layer; i++) {
        const struct cell *c = layer_cell(s, i, p);
        char id[16];
        if (!c->routes) continue;
        snprintf(id, sizeof id, "%u", i);
        begin(j, id, '{');
        put_cell(j, c, s->n_expert);
        put_pairs(j, s, p, i, i + 1);
        end(j, '}');
    }
    end(j, '}');
    end(j, '}');
}

/* Prompt and decode together: the counts alone. */
static void put_all(struct json *j, const ttx_expert_stats *s, const struct total *prompt,
                    const struct total *decode) {
    uint64_t sum[TTX_MAX_EXPERTS];
    put_count(j, "total_tokens", prompt->tokens + decode->tokens);
    put_count(j, "total_activations", prompt->cell.activations + decode->cell.activations);
    for (uint32_t i = 0; i < s->n_expert; i++) sum[i] = prompt->count[i] + decode->count[i];
    put_counts(j, "expert_activations", sum, s->n_expert);
    begin(j, "per_layer", '{');
    for (uint32_t layer = 0; layer < s->n_layer; layer++) {
        const struct cell *a = layer_cell(s, layer, PROMPT), *b = layer_cell(s, layer, DECODE);
        char id[16];
        if (!a->routes && !b->routes) continue;
        snprintf(id, sizeof id, "%u", layer);
        for (uint32_t i = 0; i < s->n_expert; i++) sum[i] = a->count[i] + b->count[i];
        put_counts(j, id, sum, s->n_expert);
    }
    end(j, '}');
}

int ttx_expert_stats_json(const ttx_expert_stats *s, FILE *out, ttx_err *err) {
    struct json j = {out, false};
    struct total prompt, decode;
    expert_stats_total(&prompt, s, PROMPT);
    expert_stats_total(&decode, s, DECODE);
    errno = 0;
    begin(&j, NULL, '{');
    put_text(&j, "format", "ttx expert_stats v1");
    put_count(&j, "n_layer", s->n_layer);
    put_count(&j, "n_expert", s->n_expert);
    put_all(&j, s, &prompt, &decode);
    put_phase(&j, s, PROMPT, &prompt);
    put_phase(&j, s, DECODE, &decode);
    end(&j, '}');
    fputc('\n', out);
    if (fflush(out) != 0 || ferror(out))
        return ttx_fail(err, TTX_E_RUNTIME, "expert statistics: cannot write: %s", strerror(errno));
    return TTX_OK;
}
