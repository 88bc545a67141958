/* advise.h -- advice to the page cache about ranges of files, many at once and without waiting.
 *
 * Advice goes to the kernel through io_uring, whose workers carry it out beside the computation;
 * where that is forbidden, by plain system calls. It is never a duty: what the kernel refuses is
 * left out, with one line. One thread uses it.
 */
#ifndef TTX_ADVISE_H
#define TTX_ADVISE_H

#include "residency.h"

typedef enum ttx_advice {
    TTX_ADVISE_IN,   /* read it into the page cache */
    TTX_ADVISE_COLD, /* it is the first to go when memory is short */
    TTX_ADVISE_OUT   /* free its memory now */
} ttx_advice;

typedef struct ttx_advisor ttx_advisor;

/* `sources` is borrowed. `calls`: use plain system calls. Errors: TTX_E_RUNTIME (no memory). */
int ttx_advisor_open(ttx_advisor **out, const ttx_source *sources, uint32_t n_sources, bool calls,
                     void (*warn)(void *ctx, const char *line), void *warn_ctx, ttx_err *err);
void ttx_advisor_close(ttx_advisor *a); /* NULL is fine */

/* IN takes the pages that the range touches, the others those that lie inside it. */
void ttx_advise(ttx_advisor *a, ttx_advice what, ttx_range range);
/* Hands over what is waiting, as far as there is room. */
void ttx_advise_pump(ttx_advisor *a);

/* Whether all of the range is in the page cache, or on its way there. */
bool ttx_is_cached(const ttx_source *s, ttx_range range);
/* Whether it can be used without waiting, going by samples of its pages. */
bool ttx_is_present(const ttx_source *s, ttx_range range);

#endif
