/* mapped.h -- the modes in which the page cache holds the model: what it is told beforehand.
 *
 * The page cache evicts what was not used for longest, which for a model that is larger than memory
 * is the very thing that comes next. The access plan knows better: weights of the layers ahead are
 * asked for in time, experts as soon as a router has chosen them, hot weights are locked, and what
 * has been used may be given up. All of it changes speed alone.
 */
#ifndef TTX_MAPPED_H
#define TTX_MAPPED_H

#include "residency.h"

typedef struct mapped mapped;

/* `sources` is borrowed, the plan is needed during the call. *out is NULL if the settings ask for
 * nothing. Errors: TTX_E_RUNTIME (no memory). */
int mapped_open(mapped **out, const ttx_source *sources, uint32_t n_sources,
                const ttx_residency_settings *set, ttx_err *err);
void mapped_close(mapped *m); /* NULL is fine */

/* The calls of residency.h. */
void mapped_layer(mapped *m, int layer);
void mapped_hint(mapped *m, ttx_range range);
ttx_residency_state mapped_use(mapped *m, ttx_range range);
void mapped_use_any(mapped *m, const ttx_range *set, int n, bool *got);

const ttx_residency_counters *mapped_counters(const mapped *m);

#endif
