/* rope.h -- the angles of rotary position embedding. */
#ifndef TTX_ROPE_H
#define TTX_ROPE_H

#include "arch.h"

/* Fills cs with n_rot/2 pairs (cos, sin) for one position. `freqs`: n_rot/2 divisors of the
 * frequencies, or NULL. */
void ttx_rope_row(const ttx_rope *r, const float *freqs, int32_t pos, float *cs);

#endif
