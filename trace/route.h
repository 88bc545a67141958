/* route.h -- what a router chose for one token in one layer.
 *
 * The one form in which routing decisions are passed around: from the op layer to statistics, route
 * files and traces, and from a route file back to the op layer (replay).
 */
#ifndef TTX_ROUTE_H
#define TTX_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

enum { TTX_MAX_EXPERTS = 1024, TTX_MAX_EXPERTS_USED = 32 };

typedef struct ttx_route {
    uint32_t layer;
    uint32_t step; /* position of the token in its sequence */
    bool decode;   /* false: the token was part of a prompt */
    bool hashed;   /* chosen by a table over token ids, not by score */
    int32_t token; /* vocabulary id */
    int32_t k;     /* experts chosen, best first */
    int32_t expert[TTX_MAX_EXPERTS_USED];
    float score[TTX_MAX_EXPERTS_USED];  /* by which they were selected */
    float weight[TTX_MAX_EXPERTS_USED]; /* that their outputs are multiplied with */
} ttx_route;

/* Who wants to know. Called by the launching thread, token by token in ascending position, layer
 * after layer within a step. */
typedef struct ttx_route_sink {
    void (*chosen)(void *ctx, const ttx_route *r);
    /* A new sequence begins (the KV cache was emptied or rewound). */
    void (*restart)(void *ctx);
    void *ctx;
} ttx_route_sink;

/* Chooses in the router's place, where it can: replay of a real model's routes. Fills k, expert,
 * score and weight of a route whose other fields are set; false: the router chooses. */
typedef struct ttx_route_source {
    bool (*choose)(void *ctx, ttx_route *r);
    void *ctx;
} ttx_route_source;

#endif
