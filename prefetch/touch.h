/* touch.h -- memory that will be read into is backed by pages beforehand, by a thread of its own.
 *
 * The first touch of a page takes the system time: it is cleared, and under a hypervisor it may
 * first have to be found (measured: 0.15 to 2 s a GiB). A read into it pays that in the thread that
 * asks for the read, which here is the engine's: neither the disk nor the cores have anything to do
 * meanwhile (docs/beyond-ram.md).
 */
#ifndef TTX_TOUCH_H
#define TTX_TOUCH_H

#include <stddef.h>
#include <stdint.h>

typedef struct ttx_touch ttx_touch;

/* What there must be to go on: otherwise the rest is left as it is, for good. */
typedef struct ttx_touch_limits {
    uint64_t budget;   /* a memory group's limit must not be below it */
    uint64_t reserved; /* bytes that somebody else is going to take */
} ttx_touch_limits;

/* Begins at the start of the memory, and leaves all contents as they are, so that it may be used
 * meanwhile. NULL: not possible here, which costs time alone. The caller stops it before the memory
 * goes, or is given back. */
ttx_touch *ttx_touch_start(uint8_t *mem, size_t bytes, const ttx_touch_limits *limits);
/* Waits until the piece of 2 MiB at hand is done. NULL is fine. */
void ttx_touch_stop(ttx_touch *t);

#endif
