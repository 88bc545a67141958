/* advise.c -- see advise.h, madvise(2), posix_fadvise(2), cachestat(2), io_uring_enter(2).
 *
 * The kernel silently cuts WILLNEED to the larger of the device's read-ahead and its largest
 * request, so a range goes in pieces of that size. OUT is two steps, since pages that are mapped
 * are not dropped: unmap, then drop; io_uring keeps their order by a link.
 */
#include "advise.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum {
    PAGE = 4096,
    DEPTH = 64,     /* pieces that the kernel has at once */
    WAITING = 8192, /* pieces that wait; more are left out */
    WORKERS = 4,    /* of io_uring: they wait for places in the device's queue */
    PIECE_MIN = 128 << 10,
    PIECE_MAX = 2 << 20,
    OUT_MAX = 64 << 20, /* a piece of the other kinds of advice */
    SAMPLE = 256 << 10,
    SYS_CACHESTAT = 451
};

typedef struct piece {
    ttx_advice what;
    uint32_t file;
    uint64_t offset, size;
} piece;

struct ttx_advisor {
    const ttx_source *sources;
    uint64_t *piece_bytes; /* [n_sources] */
    bool calls, refused[3];
    struct io_uring ring;
    uint32_t in_flight;
    piece *waiting; /* a ring of WAITING */
    uint32_t first, n;
    void (*warn)(void *ctx, const char *line);
    void *warn_ctx;
};

/* ---- opening ---- */

static uint64_t read_kib(const char *format, dev_t dev) {
    char path[96];
    unsigned long long kib = 0;
    snprintf(path, sizeof path, format, major(dev), minor(dev));
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    if (fscanf(f, "%llu", &kib) != 1) kib = 0;
    fclose(f);
    return kib * 1024;
}

/* What one call of WILLNEED reads at most. */
static uint64_t piece_limit(int fd) {
    struct stat st;
    if (fstat(fd, &st)) return PIECE_MIN;
    uint64_t ahead = read_kib("/sys/class/bdi/%u:%u/read_ahead_kb", st.st_dev);
    uint64_t request = read_kib("/sys/dev/block/%u:%u/queue/max_sectors_kb", st.st_dev);
    uint64_t v = (ahead > request ? ahead : request) / PAGE * PAGE;
    return v < PIECE_MIN ? PIECE_MIN : v > PIECE_MAX ? PIECE_MAX : v;
}

static void warn(ttx_advisor *a, const char *what, int error) {
    char line[256];
    snprintf(line, sizeof line, "%s: %s", what, strerror(error));
    if (a->warn) a->warn(a->warn_ctx, line);
}

static void open_ring(ttx_advisor *a) {
    unsigned workers[2] = {WORKERS, 0};
    int rc = io_uring_queue_init(2 * DEPTH, &a->ring, 0);
    a->calls = rc < 0;
    if (a->calls)
        warn(a, "io_uring refused, advice about the page cache is given by system calls", -rc);
    else
        io_uring_register_iowq_max_workers(&a->ring, workers); /* a refusal leaves the default */
}

int ttx_advisor_open(ttx_advisor **out, const ttx_source *sources, uint32_t n_sources, bool calls,
                     void (*warn_to)(void *ctx, const char *line), void *warn_ctx, ttx_err *err) {
    ttx_advisor *a = *out = calloc(1, sizeof *a);
    if (!a) return ttx_fail_nomem(err, "page cache advice", sizeof *a);
    a->sources = sources;
    a->warn = warn_to;
    a->warn_ctx = warn_ctx;
    a->calls = true;
    a->piece_bytes = calloc(n_sources, sizeof *a->piece_bytes);
    a->waiting = calloc(WAITING, sizeof *a->waiting);
    if (!a->piece_bytes || !a->waiting)
        return ttx_fail_nomem(err, "page cache advice", WAITING * sizeof *a->waiting);
    for (uint32_t i = 0; i < n_sources; i++) a->piece_bytes[i] = piece_limit(sources[i].fd);
    if (!calls) open_ring(a);
    return TTX_OK;
}

void ttx_advisor_close(ttx_advisor *a) {
    if (!a) return;
    if (!a->calls) io_uring_queue_exit(&a->ring); /* waits for what is under way */
    free(a->piece_bytes);
    free(a->waiting);
    free(a);
}

/* ---- giving ---- */

/* Once for each kind of advice: it is not given again. */
static void refuse(ttx_advisor *a, ttx_advice what, int error) {
    static const char *const names[] = {"reading ahead into the page cache is refused",
                                        "marking pages as cold is refused",
                                        "dropping pages is refused"};
    if (!a->refused[what]) warn(a, names[what], error);
    a->refused[what] = true;
}

static void call(ttx_advisor *a, const piece *p) {
    const ttx_source *s = &a->sources[p->file];
    void *at = (void *)(s->map + p->offset);
    int rc = 0;
    if (p->what == TTX_ADVISE_IN)
        rc = posix_fadvise(s->fd, (off_t)p->offset, (off_t)p->size, POSIX_FADV_WILLNEED);
    else if (madvise(at, p->size, p->what == TTX_ADVISE_COLD ? MADV_COLD : MADV_DONTNEED))
        rc = errno;
    else if (p->what == TTX_ADVISE_OUT)
        rc = posix_fadvise(s->fd, (off_t)p->offset, (off_t)p->size, POSIX_FADV_DONTNEED);
    if (rc) refuse(a, p->what, rc);
}

static void queue_entry(ttx_advisor *a, const piece *p) {
    const ttx_source *s = &a->sources[p->file];
    struct io_uring_sqe *e = io_uring_get_sqe(&a->ring);
    if (p->what == TTX_ADVISE_IN) {
        io_uring_prep_fadvise(e, s->fd, p->offset, (off_t)p->size, POSIX_FADV_WILLNEED);
    } else {
        int advice = p->what == TTX_ADVISE_COLD ? MADV_COLD : MADV_DONTNEED;
        io_uring_prep_madvise(e, (void *)(s->map + p->offset), (off_t)p->size, advice);
    }
    e->user_data = p->what;
    a->in_flight++;
    if (p->what != TTX_ADVISE_OUT) return;
    e->flags |= IOSQE_IO_LINK;
    e = io_uring_get_sqe(&a->ring);
    io_uring_prep_fadvise(e, s->fd, p->offset, (off_t)p->size, POSIX_FADV_DONTNEED);
    e->user_data = p->what;
    a->in_flight++;
}

static void collect(ttx_advisor *a) {
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&a->ring, &cqe) == 0) {
        if (cqe->res < 0 && cqe->res != -ECANCELED)
            refuse(a, (ttx_advice)cqe->user_data, -cqe->res);
        io_uring_cqe_seen(&a->ring, cqe);
        a->in_flight--;
    }
}

void ttx_advise_pump(ttx_advisor *a) {
    if (!a->n && !a->in_flight) return;
    if (!a->calls) collect(a);
    bool any = false;
    while (a->n && (a->calls || a->in_flight + 2 <= DEPTH)) {
        const piece *p = &a->waiting[a->first];
        a->first = (a->first + 1) % WAITING;
        a->n--;
        if (a->refused[p->what]) continue;
        if (a->calls)
            call(a, p);
        else
            queue_entry(a, p);
        any = true;
    }
    if (any && !a->calls) io_uring_submit(&a->ring);
}

void ttx_advise(ttx_advisor *a, ttx_advice what, ttx_range r) {
    uint64_t end = r.offset + r.size, at = r.offset / PAGE * PAGE;
    uint64_t most = what == TTX_ADVISE_IN ? a->piece_bytes[r.shard] : OUT_MAX;
    if (what != TTX_ADVISE_IN) {
        at = (r.offset + PAGE - 1) / PAGE * PAGE;
        end = end / PAGE * PAGE;
    }
    for (; at < end && a->n < WAITING; a->n++) {
        uint64_t n = end - at < most ? end - at : most;
        a->waiting[(a->first + a->n) % WAITING] = (piece){what, r.shard, at, n};
        at += n;
    }
    ttx_advise_pump(a);
}

/* ---- asking ---- */

bool ttx_is_cached(const ttx_source *s, ttx_range r) {
    struct {
        uint64_t offset, length;
    } range = {r.offset / PAGE * PAGE, r.offset % PAGE + r.size};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } counts = {0};
    if (syscall(SYS_CACHESTAT, s->fd, &range, &counts, 0)) return false; /* before Linux 6.5 */
    return counts.cached >= (range.length + PAGE - 1) / PAGE;
}

bool ttx_is_present(const ttx_source *s, ttx_range r) {
    uint64_t first = r.offset / PAGE, last = (r.offset + r.size - 1) / PAGE;
    for (uint64_t page = first;; page += SAMPLE / PAGE) {
        unsigned char there = 0;
        if (page > last) page = last;
        if (mincore((void *)(s->map + page * PAGE), PAGE, &there) || !(there & 1)) return false;
        if (page == last) return true;
    }
}
