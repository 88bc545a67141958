/* drift.h -- what the residual stream gains from one layer's router to the next one's.
 *
 * Between the two it goes through the one layer's experts and the other's attention. A router that
 * is asked before they have run sees a state that they will change; but what they add differs
 * little from what they added for the last tokens. So their running mean makes the guess better:
 * measured in docs/beyond-ram.md.
 */
#ifndef TTX_DRIFT_H
#define TTX_DRIFT_H

#include "arena.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct ttx_drift ttx_drift;

/* Of memory. */
uint64_t ttx_drift_bytes(uint32_t n_layer, uint32_t n_embd);
/* In the arena, which owns it; NULL: no memory. */
ttx_drift *ttx_drift_open(ttx_arena *arena, uint32_t n_layer, uint32_t n_embd);

/* The token has come to the router of `layer` with the state x [n_embd]. Learns from it if the
 * token has left the one before (ttx_drift_leave), and returns whether it had. */
bool ttx_drift_arrive(ttx_drift *d, int layer, const float *x);
/* The token leaves the router of `layer`, where its state was x [n_embd]. */
void ttx_drift_leave(ttx_drift *d, int layer, const float *x);
/* x [n_embd]: from what the state was, or is expected to be, at the router before that of `layer`
 * to what it probably will be there. */
void ttx_drift_expect(const ttx_drift *d, int layer, float *x);

#endif
