/* pool.c -- see pool.h.
 *
 * One task at a time. `state` holds its number (high half), whether it is open, and how many
 * workers are inside. A worker enters an open task by counting itself in; the caller works too,
 * closes the task when no item is left, and waits for those inside. A worker that the system has
 * not let run in time is not waited for: it finds the task closed. Whoever waits spins for a
 * bounded time (a decode step launches the next task within microseconds) and then sleeps on a
 * futex.
 *
 * Each thread has a contiguous share of the items and takes from its start on, so that what it
 * reads from memory is one stream; when its share is done, it helps with the others'. It takes half
 * of what is left at a time: few beginnings, each of which costs (activations are put in order,
 * memory is not asked ahead), yet small pieces where the threads wait for each other.
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

#define OPEN   (1ull << 31)
#define INSIDE (OPEN - 1)
#define NUMBER (1ull << 32) /* the step from one task's number to the next */

/* What is left of a thread's share: the first item that nobody has taken. */
struct share {
    _Alignas(64) _Atomic int64_t next;
    int64_t end;
};

struct ttx_pool {
    int n_threads;
    pthread_t *threads;   /* n_threads - 1 of them */
    struct share *shares; /* n_threads */
    /* The task. Written by the caller only while it is closed and nobody is inside. */
    ttx_task task;
    void *ctx;
    int64_t chunk;
    int active; /* workers with a lower index take part */
    bool stop;
    _Alignas(64) _Atomic uint64_t state;
    _Alignas(64) atomic_int sleepers; /* threads in futex_wait, or about to be */
};

struct worker_arg {
    ttx_pool *pool;
    int index;
};

/* The halves of `state`, as futex words (little-endian). */
static uint32_t *half(ttx_pool *p, int high) {
    return (uint32_t *)(void *)&p->state + high;
}

static void wake_sleepers(ttx_pool *p, int high) {
    if (atomic_load(&p->sleepers))
        syscall(SYS_futex, half(p, high), FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

/* Returns the state once (state & mask) differs from `old`. The mask covers one half. */
static uint64_t wait_change(ttx_pool *p, uint64_t mask, uint64_t old) {
    uint64_t s;
    for (int i = 0; i < SPIN_STEPS; i++) {
        s = atomic_load_explicit(&p->state, memory_order_acquire);
        if ((s & mask) != old) return s;
        __builtin_ia32_pause();
    }
    int high = mask >= NUMBER;
    atomic_fetch_add(&p->sleepers, 1);
    while (((s = atomic_load(&p->state)) & mask) == old)
        syscall(SYS_futex, half(p, high), FUTEX_WAIT_PRIVATE, (uint32_t)(s >> 32 * high), NULL,
                NULL, 0);
    atomic_fetch_sub(&p->sleepers, 1);
    return s;
}

/* Half of what is left of a share, in whole chunks, one at least; false: nothing is left. */
static bool take(struct share *s, int64_t chunk, int64_t *begin, int64_t *end) {
    *begin = atomic_load_explicit(&s->next, memory_order_relaxed);
    do {
        int64_t left = s->end - *begin, n = left / 2 / chunk * chunk;
        if (left <= 0) return false;
        *end = *begin + (n > chunk ? n : left < chunk ? left : chunk);
    } while (!atomic_compare_exchange_weak_explicit(&s->next, begin, *end, memory_order_relaxed,
                                                    memory_order_relaxed));
    return true;
}

static void work(ttx_pool *p, int worker) {
    int64_t begin, end;
    for (int i = 0; i < p->active; i++)
        while (take(&p->shares[(worker + i) % p->active], p->chunk, &begin, &end))
            p->task(p->ctx, begin, end, worker);
}

/* Counts this worker in, if the task is still the one of `s` and open. */
static bool enter(ttx_pool *p, uint64_t s) {
    uint64_t number = s & ~(NUMBER - 1);
    while ((s & ~(NUMBER - 1)) == number && (s & OPEN))
        if (atomic_compare_exchange_weak(&p->state, &s, s + 1)) return true;
    return false;
}

static void *worker_main(void *arg) {
    struct worker_arg w = *(struct worker_arg *)arg;
    free(arg);
    ttx_pool *p = w.pool;
    for (uint64_t seen = 0;;) {
        uint64_t s = wait_change(p, ~(NUMBER - 1), seen);
        seen = s & ~(NUMBER - 1);
        if (!enter(p, s)) continue;
        if (p->stop) return NULL;
        if (w.index < p->active) work(p, w.index);
        if ((atomic_fetch_sub(&p->state, 1) & (OPEN | INSIDE)) == 1) wake_sleepers(p, 0);
    }
}

static void open_task(ttx_pool *p) {
    uint64_t s = atomic_load_explicit(&p->state, memory_order_relaxed);
    atomic_store(&p->state, (s & ~(NUMBER - 1)) + NUMBER + OPEN);
    wake_sleepers(p, 1);
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
    p->chunk = chunk;
    p->active = active;
    int64_t n_chunks = (n + chunk - 1) / chunk, begin = 0;
    for (int i = 0; i < active; i++) {
        int64_t end = i + 1 < active ? n_chunks * (i + 1) / active * chunk : n;
        atomic_store_explicit(&p->shares[i].next, begin, memory_order_relaxed);
        p->shares[i].end = end;
        begin = end;
    }
    open_task(p);
    work(p, 0);
    uint64_t s = atomic_fetch_and(&p->state, ~OPEN);
    while (s & INSIDE) s = wait_change(p, OPEN | INSIDE, s & INSIDE);
}

int ttx_pool_create(ttx_pool **out, int n_threads, ttx_err *err) {
    *out = NULL;
    if (n_threads < 1)
        return ttx_fail(err, TTX_E_USAGE, "threads: expected at least 1, found %d", n_threads);
    ttx_pool *p = aligned_alloc(64, sizeof *p);
    pthread_t *threads = calloc((size_t)n_threads, sizeof *threads);
    struct share *shares = aligned_alloc(64, (size_t)n_threads * sizeof *shares);
    if (!p || !threads || !shares) {
        free(p);
        free(threads);
        free(shares);
        return ttx_fail_nomem(err, "thread pool", sizeof *p);
    }
    memset(p, 0, sizeof *p);
    memset(shares, 0, (size_t)n_threads * sizeof *shares);
    p->threads = threads;
    p->shares = shares;
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
    open_task(p);
    for (int i = 0; i < p->n_threads - 1; i++) pthread_join(p->threads[i], NULL);
    free(p->threads);
    free(p->shares);
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
