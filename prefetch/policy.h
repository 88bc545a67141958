/* policy.h -- which expert leaves a full cache.
 *
 * A policy follows what happens (steps, layers, uses, loads) and says of an expert how much it is
 * worth to keep: the one worth least goes. Who may go at all (not what is in use or being read),
 * and where the bytes are, is the caller's. It reads nothing and takes no clock, so that the
 * engine's cache and the simulator run the same code.
 */
#ifndef TTX_POLICY_H
#define TTX_POLICY_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

/* Uses count half after TTX_HALF_LIFE steps. "Distance": layers until an expert's layer is run
 * again. */
typedef enum ttx_cache_policy {
    TTX_CACHE_LRU,      /* the one that was not used for longest */
    TTX_CACHE_LFU_AGED, /* the one used least often of late, as its uses will count when its layer
                           is run again: of equal ones the most distant goes */
    TTX_CACHE_LEAST_STALE, /* the one passed over by its router most often since its last use; of
                              those the most distant (after SpecMD, arXiv 2602.03921) */
    TTX_CACHE_LAYER_AWARE, /* the one whose next use is expected last, from how often it was used of
                              late and its distance */
    TTX_CACHE_POLICIES,
    TTX_CACHE_OPTIMUM = TTX_CACHE_POLICIES /* whose next use is last, known from the future: the
                                              simulator's (L. A. Belady, 1966) */
} ttx_cache_policy;

/* In the order of the enumeration, as options name them. */
#define TTX_CACHE_POLICY_NAMES "lru|lfu-aged|least-stale|layer-aware"
#define TTX_CACHE_DEFAULT      TTX_CACHE_LFU_AGED
#define TTX_CACHE_DEFAULT_NAME "lfu-aged"

enum { TTX_HALF_LIFE = 12 }; /* as routes of real models have it: docs/simulator.md */

/* What is yet to come: layers from now on until the expert is used. */
typedef struct ttx_future {
    double (*next_use)(void *ctx, uint32_t layer, uint32_t expert);
    void *ctx;
} ttx_future;

typedef struct ttx_policy_expert {
    uint64_t tick; /* of the last use or load */
    uint64_t step; /* of the last use */
    double weight; /* log2 of the decayed uses as they would count at step 0: it need not be updated
                      as time goes by, and orders experts as the decayed uses do */
} ttx_policy_expert;

typedef struct ttx_policy {
    ttx_cache_policy kind;
    uint32_t n_layer, n_expert;
    uint64_t step, tick;
    uint32_t layer;       /* that is being run */
    ttx_policy_expert *v; /* [n_layer][n_expert] */
    ttx_future future;
} ttx_policy;

/* `future` of TTX_CACHE_OPTIMUM alone. Errors: TTX_E_RUNTIME (no memory). */
int ttx_policy_open(ttx_policy *p, ttx_cache_policy kind, uint32_t n_layer, uint32_t n_expert,
                    const ttx_future *future, ttx_err *err);
void ttx_policy_close(ttx_policy *p); /* one that is all zeros is fine */

/* The layer that is run from now on; layer 0 begins a step. */
void ttx_policy_layer(ttx_policy *p, uint32_t layer);
void ttx_policy_use(ttx_policy *p, uint32_t layer, uint32_t expert);
/* It came into the cache, which counts as half a use: an expert that was read on a guess must not
 * be the first to go. */
void ttx_policy_load(ttx_policy *p, uint32_t layer, uint32_t expert);
/* What it is worth to keep the expert, comparable with others' at this moment only. */
double ttx_policy_worth(const ttx_policy *p, uint32_t layer, uint32_t expert);
/* Used in this step or the last one. */
bool ttx_policy_is_recent(const ttx_policy *p, uint32_t layer, uint32_t expert);

#endif
