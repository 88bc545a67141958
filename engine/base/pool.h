/* pool.h -- a fixed set of threads that share one piece of work at a time.
 *
 * The caller's thread is worker 0 and works too. Work is an index range, handed out in pieces, so
 * that a thread the machine has disturbed does not hold up the others. Which thread computes an
 * index must never change a result: that is the rule for every task.
 * Workers spin for a short while after a task and then sleep. Not re-entrant: one caller, one task.
 */
#ifndef TTX_POOL_H
#define TTX_POOL_H

#include "err.h"

#include <stdint.h>

typedef struct ttx_pool ttx_pool;

/* Computes the items [begin, end); `worker` in [0, n_threads) tells whose scratch to use. */
typedef void (*ttx_task)(void *ctx, int64_t begin, int64_t end, int worker);

/* n_threads >= 1 counts the caller. Errors: TTX_E_RUNTIME. */
int ttx_pool_create(ttx_pool **out, int n_threads, ttx_err *err);
void ttx_pool_destroy(ttx_pool *p); /* NULL is fine */

int ttx_pool_threads(const ttx_pool *p);

/* Runs the items [0, n), each once, in pieces of whole chunks of `chunk` items (the last piece of a
 * thread's share may be shorter), on at most `max_threads` workers (0: all);
 * returns when all are done. */
void ttx_pool_run(ttx_pool *p, int64_t n, int64_t chunk, int max_threads, ttx_task task, void *ctx);

/* Cores that this process may use (affinity and cgroup quota respected), at least 1. */
int ttx_cpu_count(void);

#endif
