/* io.h -- reads from files, many at once: the back ends of the streaming mode.
 *
 * A back end takes reads and hands back results, in any order. It decides nothing: how much is read
 * when, what a short read means, and what is done about an error, is the caller's (stream_read.c).
 * One thread uses it. Two back ends exist here, `io_uring` and `threads` (blocking reads, for where
 * io_uring is forbidden); tests bring their own, which fails on purpose.
 */
#ifndef TTX_IO_H
#define TTX_IO_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct ttx_io_read {
    uint32_t file; /* index into the files that the back end was opened with */
    uint32_t tag;  /* comes back with the result */
    uint64_t offset;
    uint8_t *to;
    uint32_t bytes;
} ttx_io_read;

typedef struct ttx_io_done {
    uint32_t tag;
    int32_t result; /* bytes read, 0 at the end of the file; or -errno */
} ttx_io_done;

typedef struct ttx_io ttx_io;
struct ttx_io {
    const char *name;
    /* Starts n reads; never more under way than the depth that it was opened with. Returns 0, or
     * -errno: then none was started. */
    int (*submit)(ttx_io *io, const ttx_io_read *v, int n);
    /* Up to `max` results; with `wait` at least one, if any read is under way. Their number, or
     * -errno. */
    int (*reap)(ttx_io *io, ttx_io_done *v, int max, bool wait);
    void (*close)(ttx_io *io); /* no read is under way */
};

/* Files stay the caller's. Errors: TTX_E_RUNTIME (the system forbids io_uring, no memory). */
int ttx_io_uring_open(ttx_io **out, const int *fds, uint32_t n_fds, uint32_t depth, ttx_err *err);
int ttx_io_threads_open(ttx_io **out, const int *fds, uint32_t n_fds, uint32_t depth, ttx_err *err);

#endif
