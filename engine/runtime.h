/* runtime.h -- what a run of the engine works with: threads, kernels, residency, and a
 * trace if one is taken.
 *
 * Passed explicitly to whoever computes; there are no mutable globals. One runtime serves one model
 * file and any number of sessions, one at a time.
 */
#ifndef TTX_RUNTIME_H
#define TTX_RUNTIME_H

#include "gguf.h"
#include "kinds.h"
#include "pool.h"
#include "recorder.h"
#include "residency.h"

typedef struct ttx_runtime_settings {
    int n_threads; /* 0: every core this process may use */
    int isa;       /* a ttx_isa; -1: the best of this CPU */
    ttx_residency_settings residency;
    bool no_residency; /* ttx_runtime_open_residency will be called */
} ttx_runtime_settings;

typedef struct ttx_runtime {
    ttx_pool *pool;
    ttx_kernels *kernels;
    ttx_residency *residency;
    ttx_isa isa;
    ttx_trace *trace; /* NULL: none is taken. Opened and closed by the caller */
} ttx_runtime;

ttx_runtime_settings ttx_runtime_default_settings(void);

/* `file` must outlive the runtime. Errors: TTX_E_USAGE (an ISA this CPU lacks), TTX_E_RUNTIME. */
int ttx_runtime_open(ttx_runtime *rt, const gguf_file *file, const ttx_runtime_settings *settings,
                     ttx_err *err);
/* The residency of a runtime that was opened without. Errors: TTX_E_RUNTIME. */
int ttx_runtime_open_residency(ttx_runtime *rt, const gguf_file *file,
                               const ttx_residency_settings *settings, ttx_err *err);
void ttx_runtime_close(ttx_runtime *rt); /* one that is all zeros is fine */

#endif
