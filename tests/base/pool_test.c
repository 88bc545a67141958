/* pool_test.c -- every item of a task is run once, by a worker that may, in whole chunks. */
#include "pool.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 1 << 15, ROUNDS = 40 };

typedef struct run {
    atomic_int *times; /* [n] */
    int64_t n, chunk;
    int n_workers;
    atomic_int wrong;
} run;

static void count(void *ctx, int64_t begin, int64_t end, int worker) {
    run *r = ctx;
    bool whole = begin % r->chunk == 0 && (end % r->chunk == 0 || end == r->n);
    if (begin < 0 || begin >= end || end > r->n || !whole || worker < 0 || worker >= r->n_workers)
        atomic_fetch_add(&r->wrong, 1);
    for (int64_t i = begin; i < end; i++) atomic_fetch_add(&r->times[i], 1);
}

static int check(ttx_pool *pool, int64_t n, int64_t chunk, int max_threads) {
    static atomic_int times[MOST];
    int all = ttx_pool_threads(pool);
    run r = {times, n, chunk, max_threads && max_threads < all ? max_threads : all, 0};
    for (int64_t i = 0; i < n; i++) times[i] = 0;
    ttx_pool_run(pool, n, chunk, max_threads, count, &r);
    for (int64_t i = 0; i < n; i++)
        if (times[i] != 1) r.wrong++;
    if (r.wrong)
        printf("%d threads of %d, %lld items in chunks of %lld: %d wrong\n", max_threads, all,
               (long long)n, (long long)chunk, r.wrong);
    return r.wrong;
}

int main(void) {
    static const int64_t chunks[] = {1, 4, 16, 64, 1000};
    int wrong = 0;
    for (int threads = 1; threads <= 8; threads++) {
        ttx_pool *pool;
        ttx_err err = {0};
        if (ttx_pool_create(&pool, threads, &err)) {
            printf("%s\n", err.msg);
            return 1;
        }
        for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++)
            for (int64_t times = 0; times < ROUNDS; times++)
                for (int64_t more = -1; more <= 1; more++) {
                    int64_t n = chunks[c] * times + more;
                    if (n < 0 || n > MOST) continue;
                    wrong += check(pool, n, chunks[c], 0);
                    wrong += check(pool, n, chunks[c], 1 + threads / 2);
                }
        ttx_pool_destroy(pool);
    }
    return wrong != 0;
}
