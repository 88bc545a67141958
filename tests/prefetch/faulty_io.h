/* faulty_io.h -- a back end of io.h that fails on purpose: for tests.
 *
 * It reads with pread at once and hands results back in a random order, some of them late, and
 * makes some of them fail. The same seed gives the same faults.
 */
#ifndef FAULTY_IO_H
#define FAULTY_IO_H

#include "io.h"

typedef struct faults {
    uint32_t seed;
    /* One read in so many, at random; 0: none. */
    uint32_t eio, short_read, eintr, late;
    uint32_t eio_once;           /* one read in so many fails, the same range read again does not */
    uint64_t truncate_at;        /* the file ends here; 0: where it does */
    uint32_t submit_fails_after; /* reads; 0: never */
    uint32_t einval_first;       /* so many reads fail as where O_DIRECT is refused */
} faults;

/* `fd` stays the caller's. Ends the program if there is no memory. */
ttx_io *faulty_io_open(int fd, const faults *f);

/* Injected so far. */
uint64_t faulty_io_count(const ttx_io *io);

#endif
