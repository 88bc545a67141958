/* engine_trace.h -- `--trace` and its kin: opening and ending a trace of what a command computes.
 */
#ifndef TTX_ENGINE_TRACE_H
#define TTX_ENGINE_TRACE_H

#include "engine_args.h"

/* Bytes of memory that the trace takes that the options ask for, statistics of experts included; 0:
 * they ask for none. */
uint64_t ttx_engine_trace_bytes(const ttx_model *m, const ttx_engine_args *a);

/* If the options ask for a trace and there is none yet: opens one for this session's runtime. Its
 * document gets the options, and what the command has put into e->trace_config. Errors:
 * TTX_E_USAGE, TTX_E_RUNTIME. */
int ttx_engine_trace_open(ttx_engine *e, const ttx_engine_args *a, const ttx_session *s,
                          ttx_err *err);
/* Ends it, and says on stderr what there is. Returns rc, or an error of writing. */
int ttx_engine_trace_close(ttx_engine *e, int rc, ttx_err *err);

#endif
