/* disk_probe.h -- how fast a file can be read past the page cache. */
#ifndef TTX_DISK_PROBE_H
#define TTX_DISK_PROBE_H

#include "err.h"

#include <stdint.h>

enum {
    TTX_DISK_DEPTHS = 7,
    TTX_DISK_READ = 1 << 20,
    TTX_DISK_BYTES = 192 << 20 /* at each depth: enough for a steady figure */
};

typedef struct ttx_disk {
    double bytes_s; /* the best of all depths */
    int depth;      /* that it was reached with */
    /* What a read takes besides the time of its bytes at that speed: what one read at a time is
     * slower by. */
    double latency_s;
    double by_depth[TTX_DISK_DEPTHS]; /* bytes a second with 1, 2, 4 ... 64 reads under way */
} ttx_disk;

/* Reads about `bytes` of the file at each depth, in reads of TTX_DISK_READ, O_DIRECT. Takes 64 MiB
 * of memory for the time of the call; where there is less than four times that, the greater depths
 * are left out. Errors: TTX_E_RUNTIME (cannot be opened or read so; smaller
 * than one read). */
int ttx_disk_measure(ttx_disk *d, const char *path, uint64_t bytes, ttx_err *err);

#endif
