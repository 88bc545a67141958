/* drift_test.c -- what is learned of the residual stream's way from layer to layer. */
#include "check_harness.h"
#include "drift.h"

#include <math.h>

static int failures;

enum { LAYERS = 3, EMBD = 2 };

#define CHECK_NEAR(found, expected) CHECK(fabs((double)(found) - (expected)) < 1e-4)

/* One token through all layers; `gain` is what it gains on the way to each layer behind the first.
 */
static void token(ttx_drift *d, const float gain[LAYERS]) {
    float x[EMBD] = {1, -1};
    for (int l = 0; l < LAYERS; l++) {
        if (l) x[0] += gain[l], x[1] -= 2 * gain[l];
        CHECK_INT(ttx_drift_arrive(d, l, x), l > 0);
        if (l + 1 < LAYERS) ttx_drift_leave(d, l, x);
    }
}

static void expect(const ttx_drift *d, int layer, double gain) {
    float x[EMBD] = {5, 7};
    ttx_drift_expect(d, layer, x);
    CHECK_NEAR(x[0], 5 + gain);
    CHECK_NEAR(x[1], 7 - 2 * gain);
}

int main(void) {
    ttx_arena arena = {0};
    ttx_drift *d = ttx_drift_open(&arena, LAYERS, EMBD);
    if (!d) return 1;
    CHECK(ttx_drift_bytes(LAYERS, EMBD) >= (LAYERS + 1) * EMBD * sizeof(float));
    expect(d, 1, 0); /* nothing is known */
    token(d, (float[]){0, 3, -1});
    expect(d, 1, 3); /* each layer has its own */
    expect(d, 2, -1);
    token(d, (float[]){0, 6, -1});
    expect(d, 1, 4.5); /* the mean of few */
    expect(d, 2, -1);
    for (int i = 0; i < 6; i++) token(d, (float[]){0, 4.5f, 0});
    expect(d, 1, 4.5);
    token(d, (float[]){0, 12.5f, 0});
    expect(d, 1, 5.5); /* of eight */
    for (int i = 0; i < 100; i++) token(d, (float[]){0, -2, 0});
    expect(d, 1, -2); /* what was long ago is forgotten */
    expect(d, 2, 0);
    /* A token that left nowhere, or for another layer, teaches nothing. */
    float far[EMBD] = {100, 100};
    CHECK(!ttx_drift_arrive(d, 1, far));
    ttx_drift_leave(d, 0, far);
    CHECK(!ttx_drift_arrive(d, 2, far));
    CHECK(!ttx_drift_arrive(d, 1, (float[]){0, 0}));
    expect(d, 1, -2);
    expect(d, 2, 0);
    ttx_arena_free(&arena);
    return failures != 0;
}
