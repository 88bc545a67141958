/* expert_stats.h -- which experts a run used, how evenly, and how often the same again.
 *
 * Counts routes as they are chosen, in memory that is sized when it is opened and does not grow
 * with the run. Prompt and decode tokens are counted apart, each layer on its own; sums over layers
 * are made when the result is written. docs/expert-stats.md defines every number.
 *
 * Non-goals: cost (bytes, time) and cache hits; those belong to the trace.
 */
#ifndef TTX_EXPERT_STATS_H
#define TTX_EXPERT_STATS_H

#include "err.h"
#include "route.h"

#include <stdint.h>
#include <stdio.h>

typedef struct ttx_expert_stats ttx_expert_stats;

/* For a model of that many layers, dense ones included, and experts a layer (1..TTX_MAX_EXPERTS).
 * The caller frees *out; it is NULL after an error: TTX_E_USAGE (sizes), TTX_E_RUNTIME (memory). */
int ttx_expert_stats_new(ttx_expert_stats **out, uint32_t n_layer, uint32_t n_expert, ttx_err *err);
void ttx_expert_stats_free(ttx_expert_stats *s); /* NULL is fine */

/* Bytes of memory that they take. */
uint64_t ttx_expert_stats_bytes(uint32_t n_layer, uint32_t n_expert);

/* Counts what it is told; allocates nothing. A route with a layer or an expert that the model does
 * not have is left out. Borrows `s`; one thread at a time. */
ttx_route_sink ttx_expert_stats_sink(ttx_expert_stats *s);

/* Everything, as one JSON object and a newline. Errors: TTX_E_RUNTIME (`out` does not take it). */
int ttx_expert_stats_json(const ttx_expert_stats *s, FILE *out, ttx_err *err);

/* For people: a summary with percentages, some 30 lines; a line for each layer. */
void ttx_expert_stats_print(const ttx_expert_stats *s, FILE *out);
void ttx_expert_stats_print_layers(const ttx_expert_stats *s, FILE *out);

#endif
