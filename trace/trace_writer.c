/* trace_writer.c -- the thread that empties the rings into tensor_access.bin.
 *
 * Records go from the rings into a block; a block goes to the file when it is full or a tenth of a
 * second old, so that a run that is killed has lost no more than that. When the file cannot take
 * more (its limit, a full disk) the thread goes on emptying, so that nobody waits for it.
 */
#include "recorder_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NAP_NS = 10000000, BLOCK_AGE_NS = 100000000 };

static void give_up(struct trace_writer *w, const char *what) {
    if (!w->failed)
        ttx_fail(&w->err, TTX_E_RUNTIME, "%s/%s: %s; the trace is readable up to there", w->dir,
                 what, strerror(errno));
    w->failed = true;
    atomic_store(&w->t->off, true);
}

static bool write_all(struct trace_writer *w, const void *data, size_t n) {
    const char *p = data;
    w->bytes += n;
    while (n) {
        ssize_t k = write(w->fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) {
            give_up(w, TTX_TRACE_RECORDS);
            return false;
        }
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static ttx_frame make_frame(const struct trace_writer *w, uint8_t kind) {
    ttx_frame f = ttx_frame_make(kind);
    f.first = w->n_records;
    f.lost = atomic_load(&w->t->lost);
    f.time_ns = ttx_trace_clock(w->t);
    return f;
}

static bool write_frame(struct trace_writer *w, ttx_frame f) {
    ttx_frame_seal(&w->crc, &f);
    return write_all(w, &f, sizeof f);
}

static void write_block(struct trace_writer *w) {
    size_t n = w->n_block, size = n * sizeof *w->block;
    w->n_block = 0;
    if (!n || w->failed || w->limited) return;
    /* a frame, the records, and the frame that ends the file */
    if (w->max_bytes && w->bytes + size + 2 * sizeof(ttx_frame) > w->max_bytes) {
        w->limited = true;
        atomic_store(&w->t->off, true);
        return;
    }
    ttx_frame f = make_frame(w, TTX_FRAME_BLOCK);
    f.n_records = (uint32_t)n;
    f.crc = ttx_crc32(&w->crc, 0, w->block + 1, size);
    ttx_frame_seal(&w->crc, &f);
    memcpy(w->block, &f, sizeof f);
    if (write_all(w, w->block, size + sizeof f)) w->n_records += n;
    if (w->tokens && (fflush(w->tokens) || ferror(w->tokens))) give_up(w, "tokens.csv");
}

void trace_writer_put(struct trace_writer *w, const ttx_record *r) {
    if (!w->n_block) w->block_ns = ttx_trace_clock(w->t);
    w->block[++w->n_block] = *r;
    if (r->kind == TTX_REC_TOKEN && !w->failed && !w->limited) trace_token_row(w, r);
    if (w->n_block == TTX_TRACE_BLOCK_MAX) write_block(w);
}

static void take(struct trace_writer *w, const ttx_record *r) {
    if (w->n_pending && r->kind == TTX_REC_ACCESS && r->flags & TTX_RECF_FIRST)
        io_account_launch(w, r);
    trace_writer_put(w, r);
}

static bool empty_ring(struct trace_writer *w) {
    ttx_ring *q = &w->t->ring;
    uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&q->head, memory_order_acquire);
    uint64_t n = head - tail;
    io_account_take(w); /* after head: faults of these launches are there */
    while (tail != head) {
        uint64_t part = head - tail < 1024 ? head - tail : 1024; /* room comes back soon */
        for (uint64_t i = 0; i < part; i++) take(w, &q->v[(tail + i) & q->mask]);
        tail += part;
        atomic_store_explicit(&q->tail, tail, memory_order_release);
    }
    return n > q->mask / 4;
}

static bool empty_io(struct trace_writer *w) {
    io_ring *q = &w->io;
    uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed), first = tail;
    for (;; tail++) {
        ttx_record *slot = &q->v[tail & q->mask];
        if (!__atomic_load_n(&slot->kind, __ATOMIC_ACQUIRE)) break;
        take(w, slot);
        slot->kind = 0;
        atomic_store_explicit(&q->tail, tail + 1, memory_order_release);
    }
    return tail - first > q->mask / 4;
}

static void *writer_main(void *ctx) {
    struct trace_writer *w = ctx;
    io_account_begin(w);
    atomic_store(&w->ready, true);
    for (bool last = false; !last;) {
        last = atomic_load(&w->stop);
        bool busy = empty_ring(w);
        busy = empty_io(w) || busy;
        if (last) io_account_end(w);
        if (w->n_block && (last || ttx_trace_clock(w->t) - w->block_ns > BLOCK_AGE_NS))
            write_block(w);
        struct timespec nap = {.tv_nsec = NAP_NS};
        if (!busy && !last) nanosleep(&nap, NULL);
    }
    struct timespec cpu;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
    w->cpu_s = (double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9;
    return NULL;
}

static int open_in(const struct trace_writer *w, const char *name, int *fd, ttx_err *err) {
    char *path;
    if (asprintf(&path, "%s/%s", w->dir, name) < 0) return ttx_fail_nomem(err, "path", 256);
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int rc = *fd < 0 ? ttx_fail(err, TTX_E_RUNTIME, "%s: cannot create: %s", path, strerror(errno))
                     : TTX_OK;
    free(path);
    return rc;
}

int trace_writer_start(struct trace_writer *w, ttx_err *err) {
    int fd = -1;
    ttx_crc_init(&w->crc);
    int rc = open_in(w, TTX_TRACE_RECORDS, &w->fd, err);
    if (!rc) rc = open_in(w, "tokens.csv", &fd, err);
    if (rc) goto error;
    if (!(w->tokens = fdopen(fd, "w"))) {
        close(fd);
        rc = ttx_fail_nomem(err, "tokens.csv", BUFSIZ);
        goto error;
    }
    trace_token_row(w, NULL);
    if (!write_frame(w, make_frame(w, TTX_FRAME_HEADER))) {
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s", w->err.msg);
        goto error;
    }
    int e = pthread_create(&w->thread, NULL, writer_main, w);
    if (e) {
        rc = ttx_fail(err, TTX_E_RUNTIME, "cannot start the trace's writer: %s", strerror(e));
        goto error;
    }
    w->started = true;
    while (!atomic_load(&w->ready)) {
        struct timespec nap = {.tv_nsec = 100000};
        nanosleep(&nap, NULL);
    }
    return TTX_OK;
error:
    trace_writer_stop(w, false, NULL);
    return rc;
}

int trace_writer_stop(struct trace_writer *w, bool whole, ttx_err *err) {
    if (w->started) {
        ttx_trace_publish(w->t);
        atomic_store(&w->stop, true);
        pthread_join(w->thread, NULL);
        w->started = false;
    }
    if (whole && !w->failed && w->fd >= 0) {
        ttx_frame f = make_frame(w, TTX_FRAME_END);
        f.end = w->limited ? TTX_TRACE_LIMITED : TTX_TRACE_WHOLE;
        write_frame(w, f);
    }
    if (w->tokens && fclose(w->tokens) && whole) give_up(w, "tokens.csv");
    if (w->fd >= 0 && close(w->fd) && whole) give_up(w, TTX_TRACE_RECORDS);
    w->tokens = NULL;
    w->fd = -1;
    return w->failed ? ttx_fail(err, TTX_E_RUNTIME, "%s", w->err.msg) : TTX_OK;
}
