/* trace_writer.c -- the thread that empties the rings into tensor_access.bin.
 *
 * It takes its time from the computation, so it does little and seldom. Ten times a second, or when
 * a ring is half full, it copies what there is into blocks, and writes them past the page cache:
 * for a page cache the system would have to find, fill and write back new memory, which costs ten
 * times as much. Such writes begin and end at pages; the page that is not full yet is filled with
 * zeros, and written again with what follows. So a run that is killed has lost no more than a tenth
 * of a second. When the file cannot take more (its limit, a full disk) the thread goes on emptying,
 * so that nobody waits for it.
 */
#include "recorder_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    NAP_NS = 100000000,
    BLOCK_RECORDS = 4096, /* a checksum finds them in the cache */
    BLOCK_BYTES = (BLOCK_RECORDS + 1) * (int)sizeof(ttx_record),
    OUT_FULL = 1 << 20, /* is written when there is so much */
    OUT_BYTES = OUT_FULL + (2 * BLOCK_BYTES + 1000) / PAGE * PAGE + 2 * PAGE,
    END_BYTES = 128, /* of the last frame, at most */
};

static void give_up(struct trace_writer *w, const char *what) {
    if (!w->failed)
        ttx_fail(&w->err, TTX_E_RUNTIME, "%s/%s: %s; the trace is readable up to there", w->dir,
                 what, strerror(errno));
    w->failed = true;
    atomic_store(&w->t->off, true);
}

/* ---- bytes ---- */

static bool drop_direct(const struct trace_writer *w) {
    int flags = fcntl(w->fd, F_GETFL);
    return flags >= 0 && flags & O_DIRECT && fcntl(w->fd, F_SETFL, flags & ~O_DIRECT) == 0;
}

/* The first n bytes of `out` to their place in the file. */
static bool write_out(struct trace_writer *w, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t k = pwrite(w->fd, w->out + done, n - done, (off_t)(w->out_at + done));
        if (k < 0 && (errno == EINTR || (errno == EINVAL && drop_direct(w)))) continue;
        if (k <= 0) {
            if (!k) errno = ENOSPC;
            give_up(w, TTX_TRACE_RECORDS);
            return false;
        }
        done += (size_t)k;
    }
    return true;
}

/* Writes what is in `out`: with its last page, or up to there. */
static void drain(struct trace_writer *w, bool all) {
    size_t rest = w->out_n % PAGE, whole = w->out_n - rest;
    if (w->failed || !w->out_n) return;
    if (all && rest) memset(w->out + w->out_n, 0, PAGE - rest);
    if (!write_out(w, all && rest ? whole + PAGE : whole)) return;
    if (all) w->n_safe = w->n_records;
    memmove(w->out, w->out + whole, rest);
    w->out_at += whole;
    w->out_n = rest;
    if (w->tokens && (fflush(w->tokens) || ferror(w->tokens))) give_up(w, "tokens.csv");
}

/* ---- frames and blocks ---- */

static ttx_frame make_frame(const struct trace_writer *w, uint8_t kind) {
    ttx_frame f = ttx_frame_make(kind);
    f.first = w->n_records;
    f.lost = atomic_load(&w->t->lost);
    f.time_ns = ttx_trace_clock(w->t);
    return f;
}

/* The block that is being filled: a frame's place, then records. It stands behind what is to be
 * written, where it can stay, unless it has to be compressed. */
static ttx_record *block(const struct trace_writer *w) {
    return w->packer ? w->plain : (ttx_record *)(w->out + w->out_n);
}

/* Gives the block its frame; returns its size in the file. */
static size_t seal_block(struct trace_writer *w, ttx_frame f) {
    size_t size = (1 + f.n_records) * sizeof(ttx_record);
    ttx_frame_seal(&w->crc, &f);
    memcpy(block(w), &f, sizeof f);
    if (w->packer && !(size = ttx_pack(w->packer, w->out + w->out_n, w->plain, size))) {
        errno = ENOMEM;
        give_up(w, TTX_TRACE_RECORDS);
    }
    return size;
}

static void end_block(struct trace_writer *w) {
    size_t n = w->n_block;
    w->n_block = 0;
    if (!n || w->failed || w->limited) return;
    ttx_frame f = make_frame(w, TTX_FRAME_BLOCK);
    f.n_records = (uint32_t)n;
    f.crc = ttx_crc32(&w->crc, 0, block(w) + 1, n * sizeof(ttx_record));
    size_t size = seal_block(w, f);
    if (w->max_bytes && w->out_at + w->out_n + size + END_BYTES > w->max_bytes) {
        w->limited = true;
        atomic_store(&w->t->off, true);
        return;
    }
    w->out_n += size;
    w->n_records += n;
    if (w->out_n >= OUT_FULL) drain(w, false);
}

static void put_run(struct trace_writer *w, const ttx_record *v, size_t n) {
    while (n) {
        size_t room = BLOCK_RECORDS - w->n_block, part = n < room ? n : room;
        ttx_record *to = block(w) + 1 + w->n_block;
        memcpy(to, v, part * sizeof *v);
        for (size_t i = 0; i < part; i++)
            if (to[i].kind == TTX_REC_TOKEN && !w->failed && !w->limited)
                trace_token_row(w, &to[i]);
        w->n_block += part;
        if (part == room) end_block(w);
        v += part;
        n -= part;
    }
}

void trace_writer_put(struct trace_writer *w, const ttx_record *r) {
    put_run(w, r, 1);
}

/* ---- rings ---- */

static void take(struct trace_writer *w, const ttx_record *v, size_t n) {
    if (!w->n_pending) {
        put_run(w, v, n);
        return;
    }
    for (size_t i = 0; i < n; i++) { /* faults go before the launches that come after them */
        if (v[i].kind == TTX_REC_ACCESS && v[i].flags & TTX_RECF_FIRST) io_account_launch(w, &v[i]);
        put_run(w, &v[i], 1);
    }
}

static void empty_ring(struct trace_writer *w) {
    ttx_ring *q = &w->t->ring;
    uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&q->head, memory_order_acquire);
    io_account_take(w); /* after head: faults of these launches are there */
    while (tail != head) {
        uint64_t at = tail & q->mask, part = q->mask + 1 - at;
        if (part > head - tail) part = head - tail;
        if (part > BLOCK_RECORDS) part = BLOCK_RECORDS; /* room comes back soon */
        take(w, q->v + at, part);
        tail += part;
        atomic_store_explicit(&q->tail, tail, memory_order_release);
    }
}

static void empty_io(struct trace_writer *w) {
    io_ring *q = &w->io;
    uint64_t tail = atomic_load_explicit(&q->tail, memory_order_relaxed);
    for (;; tail++) {
        ttx_record *slot = &q->v[tail & q->mask];
        if (!__atomic_load_n(&slot->kind, __ATOMIC_ACQUIRE)) break;
        put_run(w, slot, 1);
        slot->kind = 0;
        atomic_store_explicit(&q->tail, tail + 1, memory_order_release);
    }
}

static void sleep_until_woken(struct trace_writer *w) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += NAP_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&w->lock);
    while (!w->woken)
        if (pthread_cond_timedwait(&w->wake, &w->lock, &until)) break;
    w->woken = false;
    pthread_mutex_unlock(&w->lock);
}

void trace_writer_wake(struct trace_writer *w) {
    pthread_mutex_lock(&w->lock);
    w->woken = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

/* Seconds of processor time that a thread has taken. */
static double cpu_of(pthread_t thread) {
    clockid_t clock;
    struct timespec t = {0};
    if (!pthread_getcpuclockid(thread, &clock)) clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *writer_main(void *ctx) {
    struct trace_writer *w = ctx;
    io_account_begin(w);
    atomic_store(&w->ready, true);
    for (bool last = false; !last;) {
        sleep_until_woken(w);
        last = atomic_load(&w->stop);
        empty_ring(w);
        empty_io(w);
        if (last) io_account_end(w);
        end_block(w);
        drain(w, true);
    }
    w->cpu_s = cpu_of(pthread_self());
    return NULL;
}

/* ---- starting and stopping ---- */

static int open_in(const struct trace_writer *w, const char *name, int *fd, ttx_err *err) {
    char *path;
    if (asprintf(&path, "%s/%s", w->dir, name) < 0) return ttx_fail_nomem(err, "path", 256);
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int rc = *fd < 0 ? ttx_fail(err, TTX_E_RUNTIME, "%s: cannot create: %s", path, strerror(errno))
                     : TTX_OK;
    free(path);
    return rc;
}

static int open_files(struct trace_writer *w, ttx_err *err) {
    const char *name = w->packer ? TTX_TRACE_RECORDS TTX_TRACE_PACKED : TTX_TRACE_RECORDS;
    int fd = -1, rc = open_in(w, name, &w->fd, err);
    if (!rc) rc = open_in(w, "tokens.csv", &fd, err);
    if (rc) return rc;
    int flags = fcntl(w->fd, F_GETFL);
    if (flags >= 0) (void)fcntl(w->fd, F_SETFL, flags | O_DIRECT); /* or through the page cache */
    if ((w->tokens = fdopen(fd, "w"))) return TTX_OK;
    close(fd);
    return ttx_fail_nomem(err, "tokens.csv", BUFSIZ);
}

static int start_thread(struct trace_writer *w, ttx_err *err) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int e = pthread_create(&w->thread, NULL, writer_main, w);
    if (e) return ttx_fail(err, TTX_E_RUNTIME, "cannot start the trace's writer: %s", strerror(e));
    w->started = true;
    while (!atomic_load(&w->ready)) {
        struct timespec nap = {.tv_nsec = 100000};
        nanosleep(&nap, NULL);
    }
    return TTX_OK;
}

uint64_t trace_writer_memory(bool compress) {
    return OUT_BYTES + BLOCK_BYTES + (compress ? TTX_PACKER_BYTES : 0);
}

int trace_writer_start(struct trace_writer *w, ttx_err *err) {
    ttx_crc_init(&w->crc);
    w->out = aligned_alloc(PAGE, OUT_BYTES);
    w->plain = malloc(BLOCK_BYTES);
    if (!w->out || !w->plain) return ttx_fail_nomem(err, "trace writer", OUT_BYTES);
    memset(w->out, 0, OUT_BYTES); /* the memory is there before it is needed */
    int rc = open_files(w, err);
    if (rc) goto error;
    trace_token_row(w, NULL);
    w->out_n = seal_block(w, make_frame(w, TTX_FRAME_HEADER));
    drain(w, true);
    rc = w->failed ? ttx_fail(err, TTX_E_RUNTIME, "%s", w->err.msg) : start_thread(w, err);
    if (rc) goto error;
    return TTX_OK;
error:
    trace_writer_stop(w, false, NULL);
    return rc;
}

int trace_writer_stop(struct trace_writer *w, bool whole, ttx_err *err) {
    if (w->started) {
        double before = cpu_of(w->thread);
        ttx_trace_publish(w->t);
        atomic_store(&w->stop, true);
        trace_writer_wake(w);
        pthread_join(w->thread, NULL);
        w->started = false;
        w->rest_cpu_s = w->cpu_s - before;
    }
    if (whole && !w->failed && w->fd >= 0) {
        ttx_frame f = make_frame(w, TTX_FRAME_END);
        f.end = w->limited ? TTX_TRACE_LIMITED : TTX_TRACE_WHOLE;
        w->out_n += seal_block(w, f);
        drain(w, true);
        w->bytes = w->out_at + w->out_n;
        if (!w->failed && ftruncate(w->fd, (off_t)w->bytes)) give_up(w, TTX_TRACE_RECORDS);
    }
    if (w->tokens && fclose(w->tokens) && whole) give_up(w, "tokens.csv");
    if (w->fd >= 0 && close(w->fd) && whole) give_up(w, TTX_TRACE_RECORDS);
    w->tokens = NULL;
    w->fd = -1;
    return w->failed ? ttx_fail(err, TTX_E_RUNTIME, "%s", w->err.msg) : TTX_OK;
}
