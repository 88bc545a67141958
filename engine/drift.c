/* drift.c -- see drift.h. */
#include "drift.h"

#include <string.h>

enum { MANY = 8 }; /* the latest token's weight in the mean is 1 / MANY */

struct ttx_drift {
    uint32_t n_embd;
    int next;    /* layer that the token has left for; 0: none */
    float *left; /* [n_embd] with what state */
    uint32_t *n; /* [n_layer] tokens in the mean, up to MANY */
    float *mean; /* [n_layer][n_embd] gained on the way to this layer */
};

uint64_t ttx_drift_bytes(uint32_t n_layer, uint32_t n_embd) {
    uint64_t row = n_embd * sizeof(float);
    return sizeof(ttx_drift) + row + n_layer * (row + sizeof(uint32_t));
}

ttx_drift *ttx_drift_open(ttx_arena *arena, uint32_t n_layer, uint32_t n_embd) {
    size_t row = n_embd * sizeof(float);
    ttx_drift *d = ttx_arena_alloc(arena, sizeof *d);
    float *left = ttx_arena_alloc(arena, row), *mean = ttx_arena_alloc(arena, n_layer * row);
    uint32_t *n = ttx_arena_alloc(arena, n_layer * sizeof *n);
    if (!d || !left || !mean || !n) return NULL;
    *d = (ttx_drift){n_embd, 0, left, n, mean};
    return d;
}

bool ttx_drift_arrive(ttx_drift *d, int layer, const float *x) {
    bool known = d->next && d->next == layer;
    d->next = 0;
    if (!known) return false;
    float *mean = d->mean + (size_t)layer * d->n_embd;
    if (d->n[layer] < MANY) d->n[layer]++;
    float weight = 1.0f / (float)d->n[layer];
    for (uint32_t i = 0; i < d->n_embd; i++) mean[i] += (x[i] - d->left[i] - mean[i]) * weight;
    return true;
}

void ttx_drift_leave(ttx_drift *d, int layer, const float *x) {
    memcpy(d->left, x, d->n_embd * sizeof *x);
    d->next = layer + 1;
}

void ttx_drift_expect(const ttx_drift *d, int layer, float *x) {
    const float *mean = d->mean + (size_t)layer * d->n_embd; /* zeros until something is known */
    for (uint32_t i = 0; i < d->n_embd; i++) x[i] += mean[i];
}
