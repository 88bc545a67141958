/* expert_stats_print.c -- expert statistics for people. */
#include "expert_stats_int.h"

#include <inttypes.h>
#include <math.h>

/* The labels' column, and a share as a percentage. */
static void percent(FILE *out, const char *label, double share) {
    if (isfinite(share))
        fprintf(out, "  %-34s %6.2f %%\n", label, 100 * share);
    else
        fprintf(out, "  %-34s      -\n", label);
}

static void print_top(const struct spread *d, FILE *out) {
    fprintf(out, "  most used, summed over layers (share, cumulative):\n");
    for (uint32_t i = 0; i < d->n_top && d->top[i].count; i++)
        fprintf(out, "    expert %4u  %6.2f %%  %6.2f %%\n", d->top[i].expert,
                100 * d->top[i].share, 100 * d->top[i].cumulative);
}

static void print_weights(const struct cell *c, FILE *out) {
    fprintf(out, "  %-34s", "weight by rank, mean");
    for (int i = 0; i < TTX_MAX_EXPERTS_USED && c->rank_count[i]; i++)
        fprintf(out, " %.3f", c->rank_weight[i] / (double)c->rank_count[i]);
    fprintf(out, "\n  %-34s %.3f %.3f %.3f\n", "weight, 5 %, half, 95 % are below",
            expert_stats_quantile(c, 0.05), expert_stats_quantile(c, 0.5),
            expert_stats_quantile(c, 0.95));
}

static void print_reuse(const struct cell *c, FILE *out) {
    uint64_t used_again = 0;
    fprintf(out, "  used again within (of all uses)   ");
    for (int i = 0; i < UNION_SPANS; i++) {
        used_again += c->reuse[i];
        fprintf(out, " %u: %.1f %%", 1u << i,
                100 * expert_stats_ratio((double)used_again, (double)c->activations));
    }
    fprintf(out, " tokens\n");
}

static void print_union(const struct cell *c, uint32_t n_expert, FILE *out) {
    fprintf(out, "  experts of a layer for so many tokens ");
    for (int i = 0; i < UNION_SPANS && c->spans[i]; i++) {
        double mean = (double)c->span_experts[i] / (double)c->spans[i];
        fprintf(out, "%s%u: %.1f (%.0f %%)", i ? ", " : "", 1u << i, mean, 100 * mean / n_expert);
    }
    fprintf(out, "\n");
}

static void print_pairs(const ttx_expert_stats *s, enum phase p, FILE *out) {
    struct pair top[TOP];
    int n = expert_stats_pairs(top, s, p, 0, s->n_layer);
    for (int i = 0; i < n && i < 3; i++)
        fprintf(out, "  %-34s layer %u: %u and %u, %.1f x chance, %" PRIu64 " times\n",
                i ? "" : "chosen together", top[i].layer, top[i].a, top[i].b, top[i].lift,
                top[i].together);
}

static void print_phase(const ttx_expert_stats *s, enum phase p, FILE *out) {
    struct total t;
    struct spread d;
    expert_stats_total(&t, s, p);
    const struct cell *c = &t.cell;
    if (!c->routes) return;
    struct layer_mean m = expert_stats_layer_mean(s, p);
    expert_stats_spread(&d, c->count, s->n_expert);
    fprintf(out, "%s: %" PRIu64 " tokens, %u layers with experts, %" PRIu64 " activations (%s)\n",
            p == PROMPT ? "prompt" : "decode", t.tokens, t.layers, c->activations,
            expert_stats_routing(c));
    percent(out, "experts used in a layer, mean", 1 - m.dead / s->n_expert);
    percent(out, "entropy of a layer, of the most", m.entropy_ratio);
    percent(out, "effective experts of a layer", m.effective_ratio);
    percent(out, "overlap with the token before",
            expert_stats_ratio((double)c->kept, (double)c->chosen));
    percent(out, "Jaccard with the token before", expert_stats_ratio(c->jaccard, (double)c->pairs));
    percent(out, "same expert in the same slot",
            expert_stats_ratio((double)c->same_slot, (double)c->slots));
    print_reuse(c, out);
    print_union(c, s->n_expert, out);
    print_weights(c, out);
    print_pairs(s, p, out);
    print_top(&d, out);
}

void ttx_expert_stats_print(const ttx_expert_stats *s, FILE *out) {
    fprintf(out, "expert statistics: %u layers, %u experts a layer\n", s->n_layer, s->n_expert);
    print_phase(s, PROMPT, out);
    print_phase(s, DECODE, out);
}

/* A share as a percentage in a column of the table; '-': nothing was counted for it. */
static void share(FILE *out, int width, double v) {
    if (isfinite(v))
        fprintf(out, " %*.1f %%", width, 100 * v);
    else
        fprintf(out, " %*s  ", width, "-");
}

void ttx_expert_stats_print_layers(const ttx_expert_stats *s, FILE *out) {
    fprintf(out, "phase   layer  routing  tokens   used   entropy  overlap  Jaccard  same slot  "
                 "most used\n");
    for (uint32_t i = 0; i < s->n_layer * PHASES; i++) {
        const struct cell *c = &s->cells[i];
        struct spread d;
        if (!c->routes) continue;
        expert_stats_spread(&d, c->count, s->n_expert);
        fprintf(out, "%s  %5u  %-7s %7" PRIu64, i % PHASES == PROMPT ? "prompt" : "decode",
                i / PHASES, expert_stats_routing(c), c->routes);
        share(out, 5, 1 - (double)d.dead / s->n_expert);
        share(out, 7, d.entropy_ratio);
        share(out, 6, expert_stats_ratio((double)c->kept, (double)c->chosen));
        share(out, 6, expert_stats_ratio(c->jaccard, (double)c->pairs));
        share(out, 8, expert_stats_ratio((double)c->same_slot, (double)c->slots));
        fprintf(out, "  %u (%.1f %%)\n", d.top[0].expert, 100 * d.top[0].share);
    }
}
