/* successors.h -- which experts served the token after one that an expert served, as counted in an
 * earlier run: a table that predicts.
 */
#ifndef TTX_SUCCESSORS_H
#define TTX_SUCCESSORS_H

#include <stdint.h>

enum { TTX_SUCCESSORS_MOST = 8 };

typedef struct ttx_successor {
    uint16_t expert;
    float probability; /* 0: no more of them */
} ttx_successor;

typedef struct ttx_successors {
    uint32_t n_layer, n_expert;
    ttx_successor *v; /* [n_layer][n_expert][TTX_SUCCESSORS_MOST], most likely first */
} ttx_successors;

static inline ttx_successor *ttx_successors_of(const ttx_successors *s, uint32_t layer,
                                               uint32_t expert) {
    return s->v + ((uint64_t)layer * s->n_expert + expert) * TTX_SUCCESSORS_MOST;
}

#endif
