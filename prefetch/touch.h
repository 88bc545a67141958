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

/* Begins at the start of the memory, and leaves all contents as they are, so that it may be used
 * meanwhile. Ends by itself when all is done, or when hardly any memory is left. NULL: not possible
 * here, which costs time alone. The caller stops it before the memory goes. */
ttx_touch *ttx_touch_start(uint8_t *mem, size_t bytes);
/* Waits until a piece of a few milliseconds is done. NULL is fine. */
void ttx_touch_stop(ttx_touch *t);

#endif
