/* policy_test.c -- cache policies and predictors, on sequences that were worked out by hand. */
#include "check_harness.h"
#include "policy.h"
#include "policy_guess.h"

#include <string.h>

static int failures;

enum { LAYERS = 2, EXPERTS = 8, SLOTS = 4 };

/* A use of an expert; layer 0 after layer 1 begins a step. */
typedef struct use {
    uint32_t layer, expert;
} use;

/* A cache of SLOTS experts that does nothing but what its policy says. */
typedef struct cache {
    ttx_policy p;
    use slot[SLOTS];
    int n;
} cache;

static int find(const cache *c, use u) {
    for (int i = 0; i < c->n; i++)
        if (c->slot[i].layer == u.layer && c->slot[i].expert == u.expert) return i;
    return -1;
}

static int worst(const cache *c) {
    int w = 0;
    for (int i = 1; i < c->n; i++)
        if (ttx_policy_worth(&c->p, c->slot[i].layer, c->slot[i].expert) <
            ttx_policy_worth(&c->p, c->slot[w].layer, c->slot[w].expert))
            w = i;
    return w;
}

typedef struct sequence {
    const use *v;
    int n, at;
} sequence;

static double next_use(void *ctx, uint32_t layer, uint32_t expert) {
    const sequence *s = ctx;
    for (int i = s->at + 1; i < s->n; i++)
        if (s->v[i].layer == layer && s->v[i].expert == expert) return i - s->at;
    return 1e9;
}

/* Runs a sequence, one expert a layer; returns hits as a string of '.' (miss) and the digit of the
 * expert (hit), a step's layers side by side. */
static const char *run(ttx_cache_policy kind, const use *v, int n, char *hits) {
    cache c = {0};
    sequence s = {v, n, 0};
    ttx_future future = {next_use, &s};
    ttx_err err = {0};
    CHECK_INT(ttx_policy_open(&c.p, kind, LAYERS, EXPERTS, &future, &err), 0);
    for (s.at = 0; s.at < n; s.at++) {
        use u = v[s.at];
        ttx_policy_layer(&c.p, u.layer);
        bool hit = find(&c, u) >= 0;
        hits[s.at] = hit ? (char)('0' + u.expert) : '.';
        if (!hit) {
            c.slot[c.n < SLOTS ? c.n++ : worst(&c)] = u;
            ttx_policy_load(&c.p, u.layer, u.expert);
        }
        ttx_policy_use(&c.p, u.layer, u.expert);
    }
    hits[n] = 0;
    ttx_policy_close(&c.p);
    return hits;
}

static void expect(ttx_cache_policy kind, const use *v, int n, const char *want, const char *name) {
    char hits[64];
    if (strcmp(run(kind, v, n, hits), want) == 0) return;
    failures++;
    printf("%s: expected hits %s, found %s\n", name, want, hits);
}
#define EXPECT(kind, v, want) expect(kind, v, sizeof(v) / sizeof *(v), want, #v ", " #kind)

/* Layer 0 cycles through 0, 1, 2; layer 1 always uses 5: four experts for four slots, then a fifth.
 */
static void check_orders(void) {
    static const use fits[] = {{0, 0}, {1, 5}, {0, 1}, {1, 5}, {0, 2},
                               {1, 5}, {0, 0}, {1, 5}, {0, 1}, {1, 5}};
    for (int k = 0; k <= TTX_CACHE_OPTIMUM; k++) EXPECT((ttx_cache_policy)k, fits, "...5.50515");
    /* Now 0 to 3 in turn and 5 always: 0..3 and 5 are five. LRU drops, of layer 0, the one that
     * comes next: no hit there. The optimum drops the one just used. */
    static const use scan[] = {{0, 0}, {1, 5}, {0, 1}, {1, 5}, {0, 2}, {1, 5}, {0, 3}, {1, 5},
                               {0, 0}, {1, 5}, {0, 1}, {1, 5}, {0, 2}, {1, 5}, {0, 3}, {1, 5}};
    EXPECT(TTX_CACHE_LRU, scan, "...5.5.5.5.5.5.5");
    /* At 3 (step 4), of 0, 5, 1, 2 the next uses are 4, 1, 6 and 8 away: 2 goes. Then 0 and 1 hit,
     * at 2 the next of 0, 5, 1, 3: only 5 and 3 come again, so 0 or 1 goes, and 3 hits. */
    EXPECT(TTX_CACHE_OPTIMUM, scan, "...5.5.50515.535");
    /* What was used often stays: 0 three times, then 1, 2 and 3 once each in turn. */
    static const use often[] = {{0, 0}, {0, 0}, {0, 0}, {0, 1}, {0, 2},
                                {0, 3}, {0, 4}, {0, 1}, {0, 0}};
    EXPECT(TTX_CACHE_LRU, often, ".00....1.");      /* 4 drops 0 */
    EXPECT(TTX_CACHE_LFU_AGED, often, ".00.....0"); /* 4 drops 1, then 1 drops 2: 0 stays */
    EXPECT(TTX_CACHE_LAYER_AWARE, often, ".00.....0");
}

/* Of two experts that the same number of routers passed over, the farther layer's goes first. */
static void check_stale(void) {
    static const use v[] = {{0, 0}, {1, 5}, {0, 1}, {1, 6}, {0, 2}, {0, 0}, {1, 5}};
    /* At {0, 2} (step 3) the cache is full: 0 was passed over at steps 2 and 3, 1 at step 3, 5 at
     * step 2, 6 never. 0 goes; so {0, 0} at step 4 is a miss: now 1 was passed over twice, 2 once,
     * 5 at steps 2 and 3, 6 at step 3. Of 1 (distance 2) and 5 (distance 1), 1 goes: 5 hits. */
    EXPECT(TTX_CACHE_LEAST_STALE, v, "......5");
    /* LRU: {0, 0} drops 5, the oldest. */
    EXPECT(TTX_CACHE_LRU, v, ".......");
}

static void check_ageing(void) {
    ttx_policy p;
    ttx_err err = {0};
    CHECK_INT(ttx_policy_open(&p, TTX_CACHE_LFU_AGED, LAYERS, EXPERTS, NULL, &err), 0);
    ttx_policy_layer(&p, 0);
    for (int i = 0; i < 3; i++) ttx_policy_use(&p, 0, 0); /* three uses, now */
    for (int i = 0; i < TTX_HALF_LIFE; i++) ttx_policy_layer(&p, 0);
    for (int i = 0; i < 2; i++) ttx_policy_use(&p, 0, 1); /* they count one and a half by then */
    CHECK(ttx_policy_worth(&p, 0, 0) < ttx_policy_worth(&p, 0, 1));
    ttx_policy_use(&p, 0, 0); /* two and a half */
    CHECK(ttx_policy_worth(&p, 0, 0) > ttx_policy_worth(&p, 0, 1));
    CHECK(ttx_policy_is_recent(&p, 0, 1));
    ttx_policy_layer(&p, 0);
    CHECK(ttx_policy_is_recent(&p, 0, 1));
    ttx_policy_layer(&p, 0);
    CHECK(!ttx_policy_is_recent(&p, 0, 1));
    ttx_policy_load(&p, 0, 2);
    ttx_policy_load(&p, 0, 3);
    ttx_policy_use(&p, 0, 3);
    CHECK(ttx_policy_worth(&p, 0, 2) > ttx_policy_worth(&p, 1, 2)); /* loaded, never seen */
    CHECK(ttx_policy_worth(&p, 0, 2) < ttx_policy_worth(&p, 0, 3));
    /* Of two that were used once in the same step, the one goes whose layer comes later. */
    ttx_policy_layer(&p, 0);
    ttx_policy_use(&p, 0, 4);
    ttx_policy_layer(&p, 1);
    ttx_policy_use(&p, 1, 4);
    CHECK(ttx_policy_worth(&p, 0, 4) > ttx_policy_worth(&p, 1, 4));
    ttx_policy_layer(&p, 0);
    CHECK(ttx_policy_worth(&p, 0, 4) < ttx_policy_worth(&p, 1, 4));
    ttx_policy_close(&p);
}

/* ---- predictors ---- */

static void choose(ttx_guesser *g, uint32_t layer, uint32_t a, uint32_t b) {
    if (layer == 0) ttx_guesser_step(g);
    ttx_guesser_chose(g, layer, a);
    ttx_guesser_chose(g, layer, b);
}

/* Asks after the last choice: two experts of `layer`. */
static void expect_guess(ttx_guesser *g, uint32_t layer, int n, int a, int b) {
    uint16_t v[TTX_GUESS_MOST];
    uint32_t l = 99;
    CHECK_INT(ttx_guesser_guess(g, &l, v), n);
    CHECK_INT(l, layer);
    CHECK_INT(v[0], a);
    CHECK_INT(v[1], b);
}

static ttx_guesser opened(ttx_guess_kind kind) {
    ttx_guesser g;
    ttx_err err = {0};
    CHECK_INT(ttx_guesser_open(&g, kind, 3, EXPERTS, &err), 0);
    return g;
}

static void check_guesses(void) {
    uint16_t v[TTX_GUESS_MOST];
    uint32_t l;
    for (int k = 0; k < TTX_GUESS_KINDS; k++) {
        ttx_guesser g = opened((ttx_guess_kind)k);
        CHECK_INT(ttx_guesser_guess(&g, &l, v), 0); /* nothing is known */
        ttx_guesser_close(&g);
    }
    /* Layer 1 has no experts. */
    ttx_guesser g = opened(TTX_GUESS_PREVIOUS);
    choose(&g, 0, 1, 2);
    choose(&g, 2, 3, 4);
    expect_guess(&g, 0, 2, 1, 2);
    choose(&g, 0, 5, 1);
    expect_guess(&g, 2, 2, 3, 4);
    ttx_guesser_close(&g);

    g = opened(TTX_GUESS_FREQUENCY);
    choose(&g, 0, 1, 2);
    choose(&g, 2, 3, 4);
    choose(&g, 0, 1, 2);
    choose(&g, 2, 7, 4);
    choose(&g, 0, 1, 2);
    expect_guess(&g, 2, 2, 4, 7); /* 4 twice; 7 later than 3 */
    ttx_guesser_close(&g);

    g = opened(TTX_GUESS_SUCCESSOR);
    choose(&g, 0, 1, 2);
    choose(&g, 2, 3, 4);
    choose(&g, 0, 5, 6);
    choose(&g, 2, 6, 7);
    choose(&g, 0, 1, 6); /* 1 was followed by 3 and 4, 6 by 6 and 7: ties go to the lower */
    expect_guess(&g, 2, 2, 3, 4);
    choose(&g, 2, 4, 7); /* after 1: 4 twice, 3, 7; after 6: 7 twice, 6, 4 */
    choose(&g, 0, 1, 6);
    expect_guess(&g, 2, 2, 4, 7);
    ttx_guesser_close(&g);
}

/* Lets one guess in `n` be right, over `time`, of which `waited`; whether guessing goes on. */
static bool judged(ttx_guesser *g, uint32_t n, uint32_t right, uint64_t time, uint64_t waited) {
    static const uint64_t second = 1000000000;
    uint64_t now = g->judged_ns + time * second, waits = g->judged_waited_ns + waited * second;
    CHECK(ttx_guesser_pays(g, g->judged_ns ? g->judged_ns : 1, g->judged_waited_ns));
    for (uint32_t i = 0; i < TTX_GUESS_JUDGED; i++) {
        ttx_guesser_settle(g, i % n < right);
    }
    return ttx_guesser_pays(g, now, waits);
}

static void check_judge(void) {
    ttx_guesser g = opened(TTX_GUESS_ROUTER);
    ttx_guesser_step(&g);
    CHECK(judged(&g, 2, 1, 10, 6));  /* one in two, the disk idle for some of the time */
    CHECK(judged(&g, 3, 2, 10, 10)); /* two in three do always */
    CHECK(!judged(&g, 3, 1, 10, 0)); /* one in three never */
    for (int i = 0; i < TTX_GUESS_PAUSE; i++) {
        CHECK(!ttx_guesser_pays(&g, g.judged_ns, g.judged_waited_ns));
        ttx_guesser_read(&g); /* by the router's choice */
        ttx_guesser_step(&g);
    }
    CHECK(!judged(&g, 2, 1, 10, 7)); /* one in two, and the disk is busy */
    ttx_guesser_close(&g);
}

/* Where next to nothing is read there is nothing to guess, until more is. */
static void check_rare(void) {
    ttx_guesser g = opened(TTX_GUESS_ROUTER);
    for (int reads = TTX_GUESS_RARE - 1; reads <= TTX_GUESS_RARE; reads++) {
        for (int i = 0; i < reads; i++) ttx_guesser_read(&g);
        for (int i = 0; i < TTX_GUESS_PAUSE; i++) ttx_guesser_step(&g);
        CHECK_INT(ttx_guesser_pays(&g, 1, 0), reads >= TTX_GUESS_RARE);
    }
    ttx_guesser_close(&g);
}

int main(void) {
    check_orders();
    check_stale();
    check_ageing();
    check_guesses();
    check_judge();
    check_rare();
    printf("%d failures\n", failures);
    return failures != 0;
}
