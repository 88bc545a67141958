/* faulty_io.c -- see faulty_io.h. */
#include "faulty_io.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 256, REMEMBERED = 4096 };

struct faulty {
    ttx_io io;
    faults f;
    int fd;
    uint32_t rng;
    uint64_t n_reads, n_injected;
    uint32_t n_einval;
    ttx_io_done results[MOST];
    int n;
    uint64_t failed[REMEMBERED]; /* offsets that have failed once */
    int n_failed;
};

static bool chance(struct faulty *x, uint32_t one_in) {
    x->rng = x->rng * 1664525u + 1013904223u;
    bool hit = one_in && (x->rng >> 8) % one_in == 0;
    x->n_injected += hit;
    return hit;
}

static bool first_failure(struct faulty *x, uint64_t offset) {
    for (int i = 0; i < x->n_failed; i++)
        if (x->failed[i] == offset) return false;
    if (x->n_failed < REMEMBERED) x->failed[x->n_failed++] = offset;
    return true;
}

static int32_t read_one(struct faulty *x, const ttx_io_read *r) {
    const faults *f = &x->f;
    if (x->n_einval < f->einval_first) {
        x->n_einval++;
        x->n_injected++;
        return -EINVAL;
    }
    if (chance(x, f->eintr)) return chance(x, 2) ? -EINTR : -EAGAIN;
    if (chance(x, f->eio)) return -EIO;
    if (chance(x, f->eio_once) && first_failure(x, r->offset)) return -EIO;
    uint64_t bytes = r->bytes;
    if (f->truncate_at && r->offset + bytes > f->truncate_at)
        bytes = r->offset < f->truncate_at ? f->truncate_at - r->offset : 0;
    if (bytes > 1 && chance(x, f->short_read)) bytes = 1 + x->rng % (bytes - 1);
    ssize_t n = bytes ? pread(x->fd, r->to, bytes, (off_t)r->offset) : 0;
    return n < 0 ? -errno : (int32_t)n;
}

static int submit(ttx_io *io, const ttx_io_read *v, int n) {
    struct faulty *x = (struct faulty *)io;
    x->n_reads += (uint64_t)n;
    if (x->f.submit_fails_after && x->n_reads > x->f.submit_fails_after) return -ENOMEM;
    if (x->n + n > MOST) return -EBUSY;
    for (int i = 0; i < n; i++) x->results[x->n++] = (ttx_io_done){v[i].tag, read_one(x, &v[i])};
    return 0;
}

static int reap(ttx_io *io, ttx_io_done *v, int max, bool wait) {
    struct faulty *x = (struct faulty *)io;
    int n = 0;
    while (n < max && x->n) {
        if (!(wait && !n) && chance(x, x->f.late)) break;
        x->rng = x->rng * 1664525u + 1013904223u;
        int i = (int)((x->rng >> 8) % (uint32_t)x->n);
        v[n++] = x->results[i];
        x->results[i] = x->results[--x->n];
    }
    return n;
}

static void close_faulty(ttx_io *io) {
    free(io);
}

ttx_io *faulty_io_open(int fd, const faults *f) {
    struct faulty *x = calloc(1, sizeof *x);
    if (!x) abort();
    x->io = (ttx_io){"faulty", submit, reap, close_faulty};
    x->f = *f;
    x->fd = fd;
    x->rng = f->seed * 2654435761u + 1;
    return &x->io;
}

uint64_t faulty_io_count(const ttx_io *io) {
    return ((const struct faulty *)io)->n_injected;
}
