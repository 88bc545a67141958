/* pool.c -- see pool.h.
 *
 * One task at a time, announced by a generation counter. Workers wait for it by spinning for a
 * bounded number of steps (a decode step launches the next task within microseconds) and then on a
 * futex. The counter of finished workers is what the caller waits for, so that no worker still
 * reads the task when the next one is written.
 */
#include "pool.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SPIN_STEPS = 4000 }; /* about 50 us: longer than the gap between two launches of a step */

struct ttx_pool {
    int n_threads;
    pthread_t *threads; /* n_threads - 1 of them */
    /* The task of the current generation. Written by the caller only while no worker is in it. */
    ttx_task task;
    void *ctx;
    int64_t n, chunk;
    int active; /* workers with a lower index take part */
    bool stop;
    _Alignas(64) atomic_uint generation; /* futex word */
    _Alignas(64) atomic_uint done;     /* workers that have finished this generation; futex word */
    _Alignas(64) _Atomic int64_t next; /* first item that nobody has taken */
};

struct worker_arg {
    ttx_pool *pool;
    int index;
};

static void futex_wait(atomic_uint *word, unsigned expected) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
}

/* Returns when *word differs from `old`. */
static void wait_change(atomic_uint *word, unsigned old) {
    for (int i = 0; i < SPIN_STEPS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != old) return;
        __builtin_ia32_pause();
    }
    while (atomic_load_explicit(word, memory_order_acquire) == old) futex_wait(word, old);
}

static void work(ttx_pool *p, int worker) {
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&p->next, p->chunk, memory_order_relaxed);
        if (begin >= p->n) return;
        int64_t end = p->n - begin < p->chunk ? p->n : begin + p->chunk;
        p->task(p->ctx, begin, end, worker);
    }
}

static void *worker_main(void *arg) {
    struct worker_arg w = *(struct worker_arg *)arg;
    free(arg);
    ttx_pool *p = w.pool;
    for (unsigned seen = 0;; seen++) {
        wait_change(&p->generation, seen);
        if (p->stop) return NULL;
        if (w.index < p->active) work(p, w.index);
        unsigned done = atomic_fetch_add_explicit(&p->done, 1, memory_order_acq_rel) + 1;
        if (done == (unsigned)p->n_threads - 1) futex_wake_all(&p->done);
    }
}

void ttx_pool_run(ttx_pool *p, int64_t n, int64_t chunk, int max_threads, ttx_task task,
                  void *ctx) {
    if (n <= 0) return;
    int active = max_threads > 0 && max_threads < p->n_threads ? max_threads : p->n_threads;
    if (active == 1 || n <= chunk) {
        task(ctx, 0, n, 0);
        return;
    }
    p->task = task;
    p->ctx = ctx;
    p->n = n;
    p->chunk = chunk;
    p->active = active;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_acq_rel);
    futex_wake_all(&p->generation);
    work(p, 0);
    for (unsigned d;
         (d = atomic_load_explicit(&p->done, memory_order_acquire)) < (unsigned)p->n_threads - 1;)
        wait_change(&p->done, d);
}

int ttx_pool_create(ttx_pool **out, int n_threads, ttx_err *err) {
    *out = NULL;
    if (n_threads < 1)
        return ttx_fail(err, TTX_E_USAGE, "threads: expected at least 1, found %d", n_threads);
    ttx_pool *p = aligned_alloc(64, sizeof *p);
    pthread_t *threads = calloc((size_t)n_threads, sizeof *threads);
    if (!p || !threads) {
        free(p);
        free(threads);
        return ttx_fail_nomem(err, "thread pool", sizeof *p);
    }
    memset(p, 0, sizeof *p);
    p->threads = threads;
    for (p->n_threads = 1; p->n_threads < n_threads; p->n_threads++) {
        struct worker_arg *arg = malloc(sizeof *arg);
        if (arg) *arg = (struct worker_arg){p, p->n_threads};
        int rc = arg ? pthread_create(&threads[p->n_threads - 1], NULL, worker_main, arg) : ENOMEM;
        if (rc) {
            free(arg);
            int wanted = n_threads;
            ttx_pool_destroy(p);
            return ttx_fail(err, TTX_E_RUNTIME, "cannot start %d threads: %s", wanted,
                            strerror(rc));
        }
    }
    *out = p;
    return TTX_OK;
}

void ttx_pool_destroy(ttx_pool *p) {
    if (!p) return;
    p->stop = true;
    atomic_fetch_add_explicit(&p->generation, 1, memory_order_acq_rel);
    futex_wake_all(&p->generation);
    for (int i = 0; i < p->n_threads - 1; i++) pthread_join(p->threads[i], NULL);
    free(p->threads);
    free(p);
}

int ttx_pool_threads(const ttx_pool *p) {
    return p->n_threads;
}

/* CPUs granted by cgroup v2 cpu.max or v1 cfs quota, rounded up; 0: no limit found. */
static int quota_cpus(void) {
    long quota = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (f) {
        if (fscanf(f, "%ld %ld", &quota, &period) != 2) quota = -1;
        fclose(f);
    } else {
        f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "re");
        if (f && fscanf(f, "%ld", &quota) != 1) quota = -1;
        if (f) fclose(f);
        f = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "re");
        if (f && fscanf(f, "%ld", &period) != 1) period = 0;
        if (f) fclose(f);
    }
    return quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int ttx_cpu_count(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int quota = quota_cpus();
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? n : 1;
}
