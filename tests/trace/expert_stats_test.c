/* expert_stats_test.c -- expert statistics of a few tokens, computed by hand. */
#include "check_harness.h"
#include "expert_stats_int.h"

#include <math.h>
#include <stdlib.h>

static int failures;

#define CHECK_NEAR(found, expected) CHECK(fabs((found) - (expected)) < 1e-6)

static void choose(ttx_route_sink sink, uint32_t layer, uint32_t step, bool decode, int32_t k,
                   const int32_t *expert) {
    ttx_route r = {.layer = layer, .step = step, .decode = decode, .k = k};
    for (int32_t i = 0; i < k; i++) {
        r.expert[i] = expert[i];
        r.weight[i] = i ? 0.25F : 0.75F;
    }
    sink.chosen(sink.ctx, &r);
}

static void choose2(ttx_route_sink sink, uint32_t layer, uint32_t step, bool decode, int32_t a,
                    int32_t b) {
    choose(sink, layer, step, decode, 2, (int32_t[]){a, b});
}

/* Three tokens of a prompt and one that follows it; then a sequence of one token, whose step alone
 * would make it follow too. */
static ttx_expert_stats *two_sequences(void) {
    ttx_expert_stats *s = NULL;
    CHECK_INT(ttx_expert_stats_new(&s, 2, 4, NULL), TTX_OK);
    ttx_route_sink sink = ttx_expert_stats_sink(s);
    choose2(sink, 0, 0, false, 0, 1);
    choose2(sink, 0, 1, false, 1, 0);
    choose2(sink, 0, 2, false, 2, 1);
    choose2(sink, 0, 3, true, 2, 1);
    sink.restart(sink.ctx);
    choose2(sink, 0, 4, true, 0, 3);
    return s;
}

static void test_counts(void) {
    ttx_expert_stats *s = two_sequences();
    const struct cell *p = layer_cell(s, 0, PROMPT), *d = layer_cell(s, 0, DECODE);
    CHECK_INT(p->routes, 3);
    CHECK_INT(p->activations, 6);
    CHECK_INT(p->count[0], 2);
    CHECK_INT(p->count[1], 3);
    CHECK_INT(p->count[2], 1);
    CHECK_INT(p->count[3], 0);
    CHECK_NEAR(p->weight[1], 0.25 + 0.75 + 0.25);
    CHECK_NEAR(p->weight_sum, 3);
    CHECK_INT(p->together[pair_index(1, 0)], 2);
    CHECK_INT(p->together[pair_index(1, 2)], 1);
    CHECK_INT(p->together[pair_index(0, 2)], 0);
    CHECK_INT(p->rank_count[1], 3);
    CHECK_NEAR(p->rank_weight[1], 0.75);
    CHECK_NEAR(p->weight_min, 0.25);
    CHECK_NEAR(p->weight_max, 0.75);
    CHECK(fabs(expert_stats_quantile(p, 0.5) - 0.25) <= 0.25 / 128);
    CHECK(fabs(expert_stats_quantile(p, 0.51) - 0.75) <= 0.75 / 128);
    CHECK_INT(d->routes, 2);
    CHECK_INT(d->count[3], 1);
    CHECK_INT(layer_cell(s, 1, PROMPT)->routes, 0);
    ttx_expert_stats_free(s);
}

static void test_past(void) {
    ttx_expert_stats *s = two_sequences();
    const struct cell *p = layer_cell(s, 0, PROMPT), *d = layer_cell(s, 0, DECODE);
    CHECK_INT(p->pairs, 2);
    CHECK_INT(p->chosen, 4);
    CHECK_INT(p->kept, 3);
    CHECK_NEAR(p->jaccard, 1 + 1.0 / 3);
    CHECK_INT(p->slots, 4);
    CHECK_INT(p->same_slot, 0);
    CHECK_INT(p->first_uses, 3);
    CHECK_INT(p->reuse[0], 3);
    CHECK_INT(p->spans[0], 3);
    CHECK_INT(p->spans[1], 2);
    CHECK_INT(p->span_experts[1], 2 + 3);
    CHECK_INT(p->spans[2], 0);
    /* The first decoded token has the prompt's last one before it; the new sequence has none. */
    CHECK_INT(d->pairs, 1);
    CHECK_INT(d->kept, 2);
    CHECK_INT(d->same_slot, 2);
    CHECK_INT(d->reuse[0], 2);
    CHECK_INT(d->first_uses, 2);
    CHECK_INT(d->spans[0], 2);
    CHECK_INT(d->spans[1], 0); /* a span lies in one phase */
    ttx_expert_stats_free(s);
}

static void test_spread(void) {
    struct spread d;
    expert_stats_spread(&d, (uint64_t[]){2, 3, 1, 0}, 4);
    CHECK_NEAR(d.entropy, log2(6) - (2 * log2(2) + 3 * log2(3)) / 6);
    CHECK_NEAR(d.entropy_ratio, d.entropy / 2);
    CHECK_INT(d.dead, 1);
    CHECK_INT(d.n_top, 4);
    CHECK_INT(d.top[0].expert, 1);
    CHECK_INT(d.top[1].expert, 0);
    CHECK_NEAR(d.top[1].cumulative, 5.0 / 6);
    CHECK_INT(d.experts_for[0], 1); /* 50 %: exactly half */
    CHECK_INT(d.experts_for[1], 2); /* 80 % */
    CHECK_INT(d.experts_for[2], 3); /* 90 % */
    /* The mean is 1.5: nothing, 1/1.5 below 1, 2/1.5 below 2, 3/1.5 is 2 and so below 4. */
    CHECK_INT(d.frequency[0], 1);
    CHECK_INT(d.frequency[3], 1);
    CHECK_INT(d.frequency[4], 1);
    CHECK_INT(d.frequency[5], 1);
    expert_stats_spread(&d, (uint64_t[]){5, 5, 5, 5}, 4);
    CHECK_NEAR(d.entropy, 2);
    CHECK_NEAR(d.effective, 4);
    CHECK_NEAR(d.effective_ratio, 1);
    CHECK_INT(d.top[3].expert, 3); /* ties: the lower first */
    expert_stats_spread(&d, (uint64_t[]){0, 0, 0, 0}, 4);
    CHECK(isnan(d.entropy) && isnan(d.top[0].share));
    CHECK_INT(d.dead, 4);
    CHECK_INT(d.experts_for[0], 0);
}

/* A hundred experts in turn, three times, and then one token later than expected. */
static void test_long_past(void) {
    ttx_expert_stats *s = NULL;
    CHECK_INT(ttx_expert_stats_new(&s, 1, 100, NULL), TTX_OK);
    ttx_route_sink sink = ttx_expert_stats_sink(s);
    for (uint32_t i = 0; i < 300; i++) choose(sink, 0, i, true, 1, (int32_t[]){(int32_t)i % 100});
    const struct cell *d = layer_cell(s, 0, DECODE);
    CHECK_INT(d->reuse[7], 200); /* distance 100 */
    CHECK_INT(d->first_uses, 100);
    CHECK_INT(d->kept, 0);
    CHECK_INT(d->spans[6], 300 - 63);
    CHECK_INT(d->span_experts[6], 64 * (300 - 63));
    choose(sink, 0, 301, true, 1, (int32_t[]){99});
    CHECK_INT(d->pairs, 299); /* no pair with what is not the token before */
    CHECK_INT(d->first_uses, 101);
    CHECK_INT(d->spans[1], 299);
    ttx_expert_stats_free(s);

    CHECK_INT(ttx_expert_stats_new(&s, 1, 50, NULL), TTX_OK);
    sink = ttx_expert_stats_sink(s);
    for (uint32_t i = 0; i < 200; i++) choose(sink, 0, i, false, 1, (int32_t[]){(int32_t)i % 50});
    d = layer_cell(s, 0, PROMPT);
    CHECK_INT(d->reuse[6], 150); /* distance 50 */
    CHECK_INT(d->span_experts[5], 32 * 169);
    CHECK_INT(d->span_experts[6], 50 * 137);
    ttx_expert_stats_free(s);
}

static void test_pairs(void) {
    ttx_expert_stats *s = NULL;
    struct pair top[TOP];
    CHECK_INT(ttx_expert_stats_new(&s, 2, 8, NULL), TTX_OK);
    ttx_route_sink sink = ttx_expert_stats_sink(s);
    for (uint32_t i = 0; i < 20; i++) {
        int32_t b = i < 10 ? 3 : 5; /* 1 and 3 ten times; 5 and 6 ten times, but 6 alone too */
        choose2(sink, 1, i, true, i < 10 ? 1 : 6, b);
    }
    for (uint32_t i = 20; i < 24; i++) choose2(sink, 1, i, true, 6, 7); /* four are too few */
    int n = expert_stats_pairs(top, s, DECODE, 0, 2);
    CHECK_INT(n, 2);
    CHECK_INT(top[0].layer, 1);
    CHECK_INT(top[0].a, 1);
    CHECK_INT(top[0].b, 3);
    CHECK_INT(top[0].together, 10);
    CHECK_NEAR(top[0].lift, 10.0 * 24 / (10 * 10));
    CHECK_INT(top[1].a, 5);
    CHECK_NEAR(top[1].lift, 10.0 * 24 / (10 * 14));
    CHECK_INT(expert_stats_pairs(top, s, DECODE, 0, 1), 0);
    ttx_expert_stats_free(s);
    /* 1024 experts: pairs of the first layers only. */
    CHECK_INT(ttx_expert_stats_new(&s, 80, TTX_MAX_EXPERTS, NULL), TTX_OK);
    CHECK_INT(expert_stats_pairs(top, s, DECODE, 0, 1), 0);
    CHECK_INT(expert_stats_pairs(top, s, DECODE, 79, 80), -1);
    ttx_expert_stats_free(s);
}

static void test_routing(void) {
    ttx_expert_stats *s = NULL;
    struct total t;
    CHECK_INT(ttx_expert_stats_new(&s, 3, 1, NULL), TTX_OK);
    ttx_route_sink sink = ttx_expert_stats_sink(s);
    ttx_route r = {.layer = 0, .hashed = true, .k = 1};
    sink.chosen(sink.ctx, &r);
    r = (ttx_route){.layer = 1, .k = 1};
    sink.chosen(sink.ctx, &r);
    r.step = 1;
    sink.chosen(sink.ctx, &r);
    expert_stats_total(&t, s, PROMPT);
    CHECK_STR(expert_stats_routing(layer_cell(s, 0, PROMPT)), "hash");
    CHECK_STR(expert_stats_routing(layer_cell(s, 1, PROMPT)), "top-k");
    CHECK_STR(expert_stats_routing(layer_cell(s, 2, PROMPT)), "none");
    CHECK_STR(expert_stats_routing(&t.cell), "mixed");
    CHECK_INT(t.tokens, 2);
    CHECK_INT(t.layers, 2);
    CHECK_INT(t.cell.routes, 3);
    ttx_expert_stats_free(s);
}

static void test_refused(void) {
    ttx_expert_stats *s = two_sequences();
    ttx_route_sink sink = ttx_expert_stats_sink(s);
    choose2(sink, 2, 0, true, 0, 1);
    choose2(sink, 0, 1, true, 0, 4);
    choose2(sink, 0, 1, true, -1, 0);
    choose(sink, 0, 1, true, 0, NULL);
    CHECK_INT(layer_cell(s, 0, DECODE)->routes, 2);
    FILE *full = fopen("/dev/full", "w");
    ttx_err err = {0};
    CHECK_INT(ttx_expert_stats_json(s, full, &err), TTX_E_RUNTIME);
    CHECK_STR(err.msg, "expert statistics: cannot write: No space left on device");
    fclose(full);
    ttx_expert_stats_free(s);
    err = (ttx_err){0};
    CHECK_INT(ttx_expert_stats_new(&s, 1, 1025, &err), TTX_E_USAGE);
    CHECK_STR(err.msg, "expert statistics: expected layers and 1..1024 experts, found 1 and 1025");
    CHECK(!s);
    CHECK_INT(ttx_expert_stats_new(&s, 0, 8, NULL), TTX_E_USAGE);
    ttx_expert_stats_free(NULL);
}

static void test_print(void) {
    char *text = NULL;
    size_t size = 0;
    ttx_expert_stats *s = two_sequences();
    choose2(ttx_expert_stats_sink(s), 1, 2, false, 0, 1); /* one token, with none before it */
    FILE *out = open_memstream(&text, &size);
    ttx_expert_stats_print(s, out);
    ttx_expert_stats_print_layers(s, out);
    fclose(out);
    CHECK(strstr(text, "prompt: 3 tokens, 2 layers with experts, 8 activations (top-k)\n"));
    CHECK(strstr(text, "experts used in a layer, mean       62.50 %\n"));
    CHECK(strstr(text, "overlap with the token before       75.00 %\n"));
    CHECK(strstr(text, "Jaccard with the token before       66.67 %\n"));
    CHECK(strstr(text, "expert    1   50.00 %   50.00 %\n"));
    CHECK(!strstr(text, "nan"));
    free(text);
    ttx_expert_stats_free(s);
}

int main(void) {
    test_counts();
    test_past();
    test_spread();
    test_long_past();
    test_pairs();
    test_routing();
    test_refused();
    test_print();
    return failures != 0;
}
