/* sampler_test.c -- the chain from logits to a token, on distributions that are known. */
#include "check_harness.h"
#include "engine_rig.h"
#include "sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static ttx_sampler *open_sampler(ttx_sampler_settings set, uint32_t n_vocab, uint32_t n_history) {
    ttx_sampler *s;
    ttx_err err = {0};
    if (ttx_sampler_open(&s, &set, n_vocab, n_history, &err)) rig_die("sampler", err.msg);
    return s;
}

static int draw(ttx_sampler *s, const float *logits) {
    ttx_err err = {0};
    int32_t token = -1;
    if (ttx_sampler_draw(s, logits, NULL, 0, &token, &err)) return -1;
    return token;
}

/* Every filter off, temperature 1. */
static ttx_sampler_settings plain(void) {
    return (ttx_sampler_settings){.temp = 1, .top_p = 1, .repeat_penalty = 1, .seed = 1};
}

static void greedy(void) {
    ttx_sampler_settings set = ttx_sampler_default_settings();
    set.temp = 0;
    ttx_sampler *s = open_sampler(set, 6, 16);
    CHECK_INT(draw(s, (float[]){1, 5, 2, 5, 5, 0}), 1); /* ties to the lower id */
    CHECK_INT(draw(s, (float[]){-9, -8, -7, -6, -5, -4}), 5);
    CHECK_INT(draw(s, (float[]){0, -0.0f, 0, -0.0f, 0, 0}), 0);
    CHECK_INT(draw(s, (float[]){NAN, 1, NAN, 2, NAN, NAN}), 3); /* NaN is never taken */
    CHECK_INT(draw(s, (float[]){1, 2, INFINITY, 3, 4, 5}), 2);
    CHECK_INT(draw(s, (float[]){-INFINITY, -INFINITY, -3e38f, -INFINITY, NAN, NAN}), 2);
    ttx_err err = {0};
    int32_t token = 77, ban[] = {5, 4};
    CHECK_INT(ttx_sampler_draw(s, (float[]){-9, -8, -7, -6, -5, -4}, ban, 2, &token, &err), 0);
    CHECK_INT(token, 3);
    token = 77;
    CHECK_INT(ttx_sampler_draw(s, (float[]){NAN, NAN, NAN, NAN, NAN, NAN}, NULL, 0, &token, &err),
              TTX_E_RUNTIME);
    CHECK_INT(token, 77);
    CHECK_STR(err.msg, "logits: expected numbers, found none in 6 values");
    ttx_sampler_close(s);
    set.temp = -1; /* as 0 */
    s = open_sampler(set, 3, 16);
    CHECK_INT(draw(s, (float[]){1, 3, 2}), 1);
    ttx_sampler_close(s);
}

enum { DRAWS = 20000, V = 8 };

/* Draws many times and compares how often each token came with `want`, which sums to 1. */
static void frequencies(const char *what, ttx_sampler_settings set, const float *logits,
                        const double *want) {
    ttx_sampler *s = open_sampler(set, V, 16);
    int count[V] = {0};
    for (int i = 0; i < DRAWS; i++) {
        int id = draw(s, logits);
        if (id < 0) rig_die(what, "no draw");
        count[id]++;
    }
    for (int i = 0; i < V; i++) {
        double f = (double)count[i] / DRAWS, spread = sqrt(want[i] * (1 - want[i]) / DRAWS);
        if (fabs(f - want[i]) <= 4.5 * spread) continue; /* exactly 0 where 0 is expected */
        failures++;
        printf("%s: token %d: expected %.4f of the draws, found %.4f\n", what, i, want[i], f);
    }
    ttx_sampler_close(s);
}

/* Logits of known probabilities, in no order. */
static const double P[V] = {0.05, 0.40, 0.01, 0.20, 0.04, 0.15, 0.05, 0.10};

static void distributions(void) {
    float logits[V];
    for (int i = 0; i < V; i++) logits[i] = (float)log(P[i]) + 3;
    ttx_sampler_settings set = plain();
    frequencies("plain", set, logits, P);
    set.top_k = V + 5; /* more than there are */
    frequencies("top-k of all", set, logits, P);
    set.top_k = 3;
    frequencies("top-k 3", set, logits, (double[V]){0, 0.4 / 0.75, 0, 0.2 / 0.75, 0, 0.2});
    set.top_k = 7; /* 0.05 twice: both stay */
    double all[V];
    for (int i = 0; i < V; i++) all[i] = i == 2 ? 0 : P[i] / 0.99;
    frequencies("top-k 7", set, logits, all);
    set.top_k = 6; /* 0.05 twice, room for one: the lower id */
    set.top_k = 5;
    frequencies("top-k 5", set, logits,
                (double[V]){0.05 / 0.9, 0.4 / 0.9, 0, 0.2 / 0.9, 0, 0.15 / 0.9, 0, 0.1 / 0.9});
    set = plain();
    set.top_p = 0.7f; /* 0.4 + 0.2 do not reach it, 0.15 more do */
    frequencies("top-p 0.7", set, logits, (double[V]){0, 0.4 / 0.75, 0, 0.2 / 0.75, 0, 0.2});
    set.top_p = 0;
    frequencies("top-p 0", set, logits, (double[V]){0, 1});
    set = plain();
    set.min_p = 0.3f; /* at least 0.12 */
    frequencies("min-p 0.3", set, logits, (double[V]){0, 0.4 / 0.75, 0, 0.2 / 0.75, 0, 0.2});
    set.min_p = 1;
    frequencies("min-p 1", set, logits, (double[V]){0, 1});
    set = plain();
    set.temp = 2; /* probabilities to the power 1/2 */
    double sum = 0;
    for (int i = 0; i < V; i++) sum += all[i] = sqrt(P[i]);
    for (int i = 0; i < V; i++) all[i] /= sum;
    frequencies("temperature 2", set, logits, all);
    set.temp = 1e-30f;
    frequencies("temperature 1e-30", set, logits, (double[V]){0, 1});
    set = plain(); /* the filters come before the temperature */
    set.temp = 1000;
    set.top_p = 0.7f;
    frequencies("top-p, then temperature", set, logits,
                (double[V]){0, 1 / 3.0, 0, 1 / 3.0, 0, 1 / 3.0});
}

static void seeds(void) {
    enum { N = 200 };
    int first[N];
    float logits[V];
    for (int i = 0; i < V; i++) logits[i] = (float)log(P[i]);
    for (uint32_t seed = 1; seed < 4; seed++) {
        int same_as_first = 0;
        for (int run = 0; run < 2; run++) {
            ttx_sampler_settings set = plain();
            set.seed = seed == 3 ? 1 : seed;
            ttx_sampler *s = open_sampler(set, V, 16);
            for (int i = 0; i < N; i++) {
                int id = draw(s, logits);
                if (seed == 1 && run == 0)
                    first[i] = id;
                else
                    same_as_first += first[i] == id;
            }
            ttx_sampler_close(s);
        }
        if (seed == 1) CHECK_INT(same_as_first, N);
        if (seed == 2) CHECK(same_as_first < 2 * N * 3 / 4);
        if (seed == 3) CHECK_INT(same_as_first, 2 * N);
    }
}

static void penalties(void) {
    ttx_sampler_settings set = plain();
    set.temp = 0;
    set.repeat_penalty = 2;
    set.repeat_last_n = 3;
    ttx_sampler *s = open_sampler(set, V, 16);
    float logits[V] = {-3, 4, 3, -1, -9, -9, -9, -9};
    CHECK_INT(draw(s, logits), 1);
    ttx_sampler_accept(s, 1);
    CHECK_INT(draw(s, logits), 2); /* 4 became 2 */
    ttx_sampler_accept(s, 1);      /* seen twice, punished once: still 2, above 3 / 2 */
    ttx_sampler_accept(s, 2);
    CHECK_INT(draw(s, logits), 1);
    ttx_sampler_accept(s, 5); /* out of a window of 3: the first 1 */
    ttx_sampler_accept(s, 5);
    CHECK_INT(draw(s, logits), 1);
    ttx_sampler_accept(s, 5); /* now 2 is forgotten as well */
    CHECK_INT(draw(s, (float[V]){-9, -9, 3, -9, -9, 3.1f, -9, -9}), 2);
    CHECK_INT(draw(s, (float[V]){-9, -9, -5, -9, -9, -3, -9, -9}), 2); /* -3 became -6 */
    ttx_sampler_close(s);
    set.repeat_last_n = 0; /* off */
    s = open_sampler(set, V, 16);
    ttx_sampler_accept(s, 1);
    CHECK_INT(draw(s, logits), 1);
    ttx_sampler_close(s);
    set.repeat_last_n = -1; /* all of it */
    s = open_sampler(set, V, 16);
    ttx_sampler_accept(s, 1);
    for (int i = 0; i < 15; i++) ttx_sampler_accept(s, 7);
    CHECK_INT(draw(s, logits), 2);
    ttx_sampler_accept(s, 7);
    CHECK_INT(draw(s, logits), 1);
    ttx_sampler_close(s);
}

/* Banned tokens never come. */
static void banned(void) {
    enum { N = 3000, ALLOWED = 41 };
    float logits[N];
    int32_t ban[N - ALLOWED], token = -1;
    ttx_err err = {0};
    for (int i = 0; i < N; i++) logits[i] = i < ALLOWED ? 2 : 3;
    for (int i = 0; i < N - ALLOWED; i++) ban[i] = i + ALLOWED;
    ttx_sampler *s = open_sampler(plain(), N, 16);
    for (int i = 0; i < 200; i++) {
        CHECK_INT(ttx_sampler_draw(s, logits, ban, N - ALLOWED, &token, &err), 0);
        CHECK(token >= 0 && token < ALLOWED);
    }
    ttx_sampler_close(s);
    /* 41 times F32's 1/41 is 1 - 3.7e-8, and the first draw of this seed is 1 - 5.4e-10. */
    ttx_sampler_settings set = plain();
    set.seed = 852760224;
    s = open_sampler(set, N, 16);
    CHECK_INT(ttx_sampler_draw(s, logits, ban, N - ALLOWED, &token, &err), 0);
    CHECK_INT(token, ALLOWED - 1);
    ttx_sampler_close(s);
}

int main(void) {
    greedy();
    distributions();
    seeds();
    penalties();
    banned();
    return failures != 0;
}
