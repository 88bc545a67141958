/* access_pattern.h -- access_pattern.json of a trace: what one decode token touches, in order. */
#ifndef TTX_ACCESS_PATTERN_H
#define TTX_ACCESS_PATTERN_H

#include "model.h"
#include "trace_tensors.h"

#include <stdio.h>

/* Writes the plan of a decode step, the ranges of experts, and which experts followed which in the
 * trace at `dir` (NULL: not yet known). Errors: TTX_E_RUNTIME. */
int ttx_access_pattern_write(const ttx_model *m, const ttx_trace_tensors *t, const char *hash,
                             const char *dir, FILE *out, ttx_err *err);

#endif
