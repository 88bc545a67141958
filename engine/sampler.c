/* sampler.c -- see sampler.h. */
#include "sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef struct candidate {
    float logit, p;
    int32_t id;
} candidate;

struct ttx_sampler {
    ttx_sampler_settings set;
    uint32_t n_vocab;
    uint64_t rng[4];
    candidate *c;     /* [n_vocab] */
    int32_t *history; /* ring of the last n_history tokens */
    uint32_t n_history, n_seen;
};

ttx_sampler_settings ttx_sampler_default_settings(void) {
    return (ttx_sampler_settings){.temp = 0.8f,
                                  .top_k = 40,
                                  .top_p = 0.95f,
                                  .min_p = 0.05f,
                                  .repeat_penalty = 1,
                                  .repeat_last_n = 64};
}

/* ---- random numbers: xoshiro256** seeded by splitmix64 (Blackman and Vigna, public domain) ----
 */

static uint64_t rotl(uint64_t x, int k) {
    return x << k | x >> (64 - k);
}

static uint64_t next_u64(uint64_t s[4]) {
    uint64_t result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

static void seed_rng(uint64_t s[4], uint64_t seed) {
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        s[i] = z ^ z >> 31;
    }
}

/* ---- the chain ---- */

/* Best first; equal logits by id. */
static bool before(candidate a, candidate b) {
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

static int compare(const void *a, const void *b) {
    return before(*(const candidate *)a, *(const candidate *)b) ? -1 : 1;
}

static void sift_down(candidate *heap, size_t n, size_t i) {
    for (;;) {
        size_t worst = i, l = 2 * i + 1;
        if (l < n && before(heap[worst], heap[l])) worst = l;
        if (l + 1 < n && before(heap[worst], heap[l + 1])) worst = l + 1;
        if (worst == i) return;
        candidate t = heap[i];
        heap[i] = heap[worst];
        heap[worst] = t;
        i = worst;
    }
}

/* The k best, sorted, at the front: a heap of k whose root is the worst kept. */
static size_t top_k(candidate *c, size_t n, int32_t k) {
    if (k <= 0 || (size_t)k > n) k = (int32_t)n;
    if ((size_t)k < n) {
        for (size_t i = (size_t)k / 2; i-- > 0;) sift_down(c, (size_t)k, i);
        for (size_t i = (size_t)k; i < n; i++) {
            if (!before(c[i], c[0])) continue;
            c[0] = c[i];
            sift_down(c, (size_t)k, 0);
        }
    }
    qsort(c, (size_t)k, sizeof *c, compare);
    return (size_t)k;
}

static void softmax(candidate *c, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += c[i].p = expf(c[i].logit - c[0].logit);
    for (size_t i = 0; i < n; i++) c[i].p = (float)(c[i].p / sum);
}

/* The fewest best whose probabilities reach p. */
static size_t top_p(candidate *c, size_t n, float p) {
    if (p >= 1) return n;
    softmax(c, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        if ((sum += c[i].p) >= p) return i + 1;
    return n;
}

/* Those at least min_p as probable as the best. */
static size_t min_p(const candidate *c, size_t n, float p) {
    if (p <= 0) return n;
    float least = c[0].logit + logf(p);
    size_t kept = 1;
    while (kept < n && c[kept].logit >= least) kept++;
    return kept;
}

static void penalise(ttx_sampler *s) {
    if (s->set.repeat_penalty == 1) return;
    uint32_t n = s->n_seen < s->n_history ? s->n_seen : s->n_history;
    for (uint32_t i = 0; i < n; i++) {
        candidate *c = &s->c[s->history[i]];
        if (c->p != 0) continue; /* a token counts once, however often it was seen */
        c->p = 1;
        float *logit = &c->logit;
        *logit = *logit > 0 ? *logit / s->set.repeat_penalty : *logit * s->set.repeat_penalty;
    }
}

int ttx_sampler_draw(ttx_sampler *s, const float *logits, const int32_t *banned, size_t n_banned,
                     int32_t *token, ttx_err *err) {
    for (uint32_t i = 0; i < s->n_vocab; i++)
        s->c[i] = (candidate){.logit = isnan(logits[i]) ? -INFINITY : logits[i], .id = (int32_t)i};
    for (size_t i = 0; i < n_banned; i++) s->c[banned[i]].logit = -INFINITY;
    penalise(s);
    size_t n = top_k(s->c, s->n_vocab, s->set.temp <= 0 ? 1 : s->set.top_k);
    if (s->c[0].logit == -INFINITY)
        return ttx_fail(err, TTX_E_RUNTIME, "logits: expected numbers, found none in %u values",
                        s->n_vocab);
    n = top_p(s->c, n, s->set.top_p);
    n = min_p(s->c, n, s->set.min_p);
    if (s->set.temp > 0)
        for (size_t i = 0; i < n; i++) s->c[i].logit /= s->set.temp;
    softmax(s->c, n);
    double draw = (double)(next_u64(s->rng) >> 11) * 0x1p-53;
    size_t i = 0;
    while (i + 1 < n && (draw -= s->c[i].p) >= 0) i++;
    while (i > 0 && s->c[i].p == 0) i--; /* rounded, they may sum to less than the draw */
    *token = s->c[i].id;
    return TTX_OK;
}

void ttx_sampler_accept(ttx_sampler *s, int32_t token) {
    if (s->n_history) s->history[s->n_seen++ % s->n_history] = token;
}

int ttx_sampler_open(ttx_sampler **out, const ttx_sampler_settings *set, uint32_t n_vocab,
                     uint32_t n_history_max, ttx_err *err) {
    *out = NULL;
    ttx_sampler *s = calloc(1, sizeof *s);
    if (!s) return ttx_fail_nomem(err, "sampler", sizeof *s);
    s->set = *set;
    s->n_vocab = n_vocab;
    uint32_t n = set->repeat_last_n < 0 ? n_history_max : (uint32_t)set->repeat_last_n;
    s->n_history = n < n_history_max ? n : n_history_max;
    s->c = calloc(n_vocab, sizeof *s->c);
    s->history = calloc(s->n_history ? s->n_history : 1, sizeof *s->history);
    if (!s->c || !s->history) {
        ttx_sampler_close(s);
        return ttx_fail_nomem(err, "sampler", n_vocab * sizeof *s->c);
    }
    seed_rng(s->rng, set->seed);
    *out = s;
    return TTX_OK;
}

void ttx_sampler_close(ttx_sampler *s) {
    if (!s) return;
    free(s->c);
    free(s->history);
    free(s);
}
