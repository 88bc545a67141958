/* io_uring.c -- the io_uring back end: see io.h and io_uring(7).
 *
 * Files are registered. Completions are delivered when this thread asks for them (DEFER_TASKRUN,
 * where the kernel has it), so that they never interrupt a kernel that computes. Buffers are not
 * registered: with huge pages the kernel pins a megabyte in one step.
 */
#include "io.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

struct uring {
    ttx_io io;
    struct io_uring ring;
    bool deferred;
    uint32_t in_flight;
};

static int submit(ttx_io *io, const ttx_io_read *v, int n) {
    struct uring *u = (struct uring *)io;
    for (int i = 0; i < n; i++) {
        struct io_uring_sqe *e = io_uring_get_sqe(&u->ring);
        if (!e) return -EBUSY; /* more than the depth: the caller's mistake */
        io_uring_prep_read(e, (int)v[i].file, v[i].to, v[i].bytes, v[i].offset);
        e->flags |= IOSQE_FIXED_FILE;
        e->user_data = v[i].tag;
    }
    for (int sent = 0; sent < n;) {
        int rc = io_uring_submit(&u->ring);
        if (rc == -EINTR || rc == -EAGAIN || rc == -EBUSY) continue;
        if (rc < 0) return rc;
        sent += rc;
        u->in_flight += (uint32_t)rc;
    }
    return 0;
}

static int reap(ttx_io *io, ttx_io_done *v, int max, bool wait) {
    struct uring *u = (struct uring *)io;
    struct io_uring_cqe *cqe;
    if (!u->in_flight) return 0;
    for (;;) {
        int rc = wait ? io_uring_wait_cqe(&u->ring, &cqe)
                      : (u->deferred ? io_uring_get_events(&u->ring) : 0);
        if (rc == -EINTR || (rc == -EAGAIN && wait)) continue;
        if (rc < 0 && rc != -EAGAIN) return rc;
        break;
    }
    int n = 0;
    while (n < max && io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        v[n++] = (ttx_io_done){(uint32_t)cqe->user_data, cqe->res};
        io_uring_cqe_seen(&u->ring, cqe);
    }
    u->in_flight -= (uint32_t)n;
    return n;
}

static void close_ring(ttx_io *io) {
    struct uring *u = (struct uring *)io;
    io_uring_queue_exit(&u->ring);
    free(u);
}

int ttx_io_uring_open(ttx_io **out, const int *fds, uint32_t n_fds, uint32_t depth, ttx_err *err) {
    *out = NULL;
    struct uring *u = calloc(1, sizeof *u);
    if (!u) return ttx_fail_nomem(err, "io_uring", sizeof *u);
    u->io = (ttx_io){"io_uring", submit, reap, close_ring};
    struct io_uring_params deferred = {.flags =
                                           IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    int rc = io_uring_queue_init_params(depth, &u->ring, &deferred);
    u->deferred = rc == 0;
    if (rc == -EINVAL) rc = io_uring_queue_init(depth, &u->ring, 0); /* before Linux 6.1 */
    if (rc < 0) {
        free(u);
        return ttx_fail(err, TTX_E_RUNTIME, "io_uring: %s", strerror(-rc));
    }
    rc = io_uring_register_files(&u->ring, fds, n_fds);
    if (rc < 0) {
        close_ring(&u->io);
        return ttx_fail(err, TTX_E_RUNTIME, "io_uring: cannot register files: %s", strerror(-rc));
    }
    *out = &u->io;
    return TTX_OK;
}
