/* trace_merge.h -- the runs of several processes as one trace. */
#ifndef TTX_TRACE_MERGE_H
#define TTX_TRACE_MERGE_H

#include "err.h"

/* Writes the records of `n` traces of one model into a new trace at `out`, run after run in the
 * order in which they began, with times from the start of the first. A RESTART stands between them,
 * and batches are numbered through. `out` must not exist, or be empty. Errors: TTX_E_USAGE (`out`,
 * different models), TTX_E_RUNTIME. */
int ttx_trace_merge(const char *out, const char *const *dirs, int n, ttx_err *err);

#endif
