/* io_threads.c -- the back end of blocking reads: see io.h.
 *
 * A few threads take reads from a queue and put results into another. For systems that forbid
 * io_uring (containers often do).
 */
#include "io.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    N_THREADS = 8
}; /* reads that the device sees at once: enough for most to reach full speed */

struct threads {
    ttx_io io;
    pthread_t thread[N_THREADS];
    int n_threads;
    const int *fds;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool stop;
    /* Both are rings of `depth`; `todo` of reads, `results` of results. */
    uint32_t depth, n_todo, first_todo, n_results, first_result, in_flight;
    ttx_io_read *todo;
    ttx_io_done *results;
};

static void *thread_main(void *arg) {
    struct threads *t = arg;
    pthread_mutex_lock(&t->lock);
    for (;;) {
        while (!t->n_todo && !t->stop) pthread_cond_wait(&t->work, &t->lock);
        if (!t->n_todo) break;
        ttx_io_read r = t->todo[t->first_todo];
        t->first_todo = (t->first_todo + 1) % t->depth;
        t->n_todo--;
        pthread_mutex_unlock(&t->lock);
        ssize_t n = pread(t->fds[r.file], r.to, r.bytes, (off_t)r.offset);
        int32_t result = n < 0 ? -errno : (int32_t)n;
        pthread_mutex_lock(&t->lock);
        t->results[(t->first_result + t->n_results++) % t->depth] = (ttx_io_done){r.tag, result};
        pthread_cond_signal(&t->done);
    }
    pthread_mutex_unlock(&t->lock);
    return NULL;
}

static int submit(ttx_io *io, const ttx_io_read *v, int n) {
    struct threads *t = (struct threads *)io;
    if ((uint32_t)n > t->depth - t->in_flight) return -EBUSY;
    pthread_mutex_lock(&t->lock);
    for (int i = 0; i < n; i++) t->todo[(t->first_todo + t->n_todo++) % t->depth] = v[i];
    t->in_flight += (uint32_t)n;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    return 0;
}

static int reap(ttx_io *io, ttx_io_done *v, int max, bool wait) {
    struct threads *t = (struct threads *)io;
    int n = 0;
    pthread_mutex_lock(&t->lock);
    while (wait && t->in_flight && !t->n_results) pthread_cond_wait(&t->done, &t->lock);
    for (; n < max && t->n_results; n++, t->n_results--, t->in_flight--) {
        v[n] = t->results[t->first_result];
        t->first_result = (t->first_result + 1) % t->depth;
    }
    pthread_mutex_unlock(&t->lock);
    return n;
}

static void close_threads(ttx_io *io) {
    struct threads *t = (struct threads *)io;
    pthread_mutex_lock(&t->lock);
    t->stop = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < t->n_threads; i++) pthread_join(t->thread[i], NULL);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->work);
    pthread_cond_destroy(&t->done);
    free(t->todo);
    free(t->results);
    free(t);
}

int ttx_io_threads_open(ttx_io **out, const int *fds, uint32_t n_fds, uint32_t depth,
                        ttx_err *err) {
    (void)n_fds;
    *out = NULL;
    struct threads *t = calloc(1, sizeof *t);
    if (!t) return ttx_fail_nomem(err, "read threads", sizeof *t);
    t->io = (ttx_io){"threads", submit, reap, close_threads};
    t->fds = fds;
    t->depth = depth;
    t->todo = calloc(depth, sizeof *t->todo);
    t->results = calloc(depth, sizeof *t->results);
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    pthread_cond_init(&t->done, NULL);
    int rc = t->todo && t->results ? 0 : ENOMEM;
    while (!rc && t->n_threads < N_THREADS) {
        rc = pthread_create(&t->thread[t->n_threads], NULL, thread_main, t);
        if (!rc) t->n_threads++;
    }
    if (rc && !t->n_threads) {
        close_threads(&t->io);
        return ttx_fail(err, TTX_E_RUNTIME, "cannot start threads for reading: %s", strerror(rc));
    }
    *out = &t->io;
    return TTX_OK;
}
