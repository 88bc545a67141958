/* touch.c -- see touch.h. */
#include "touch.h"

#include "budget.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

enum {
    PIECE = 2 << 20,
    LOOK_EVERY = 4,    /* pieces between two looks at what is left */
    SPARE = 128 << 20, /* bytes: what others and the kernel may need at once ... */
    SPARE_SHARE = 16,  /* ... but no more than such a part of the budget */
    NICE = 19          /* computing goes first: 1.1 times as fast as with its own priority */
};

struct ttx_touch {
    pthread_t thread;
    uint8_t *mem;
    size_t bytes;
    ttx_touch_limits limits;
    atomic_bool stop;
};

static bool scarce(const ttx_touch_limits *l) {
    uint64_t spare = l->budget / SPARE_SHARE < SPARE ? l->budget / SPARE_SHARE : SPARE;
    return ttx_memory_limit() < l->budget || ttx_memory_available() < l->reserved + spare;
}

static void *touch(void *arg) {
    ttx_touch *t = arg;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE); /* of this thread alone */
    for (size_t at = 0; at < t->bytes && !atomic_load(&t->stop); at += PIECE) {
        size_t left = t->bytes - at;
        if (at / PIECE % LOOK_EVERY == 0 && scarce(&t->limits)) break;
        if (madvise(t->mem + at, left < PIECE ? left : PIECE, MADV_POPULATE_WRITE)) break;
    }
    return NULL;
}

ttx_touch *ttx_touch_start(uint8_t *mem, size_t bytes, const ttx_touch_limits *limits) {
    ttx_touch *t = malloc(sizeof *t);
    if (!t) return NULL;
    *t = (ttx_touch){.mem = mem, .bytes = bytes, .limits = *limits};
    sigset_t all, before;
    sigfillset(&all); /* signals are for the engine's thread */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&t->thread, NULL, touch, t);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!rc) return t;
    free(t);
    return NULL;
}

void ttx_touch_stop(ttx_touch *t) {
    if (!t) return;
    atomic_store(&t->stop, true);
    pthread_join(t->thread, NULL);
    free(t);
}
