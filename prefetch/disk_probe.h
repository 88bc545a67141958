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

/* The same disk again, now and then, while something else is measured: virtual disks change their
 * speed within seconds. */
typedef struct ttx_disk_meter ttx_disk_meter;
/* Reads as deep as the streaming mode does, each read into a place of its own. Of a file below 2
 * GiB they share places, so that their memory is a 64th of the file's size; that makes them faster
 * than reads of anything that is wanted, by a quarter with one place, where a host copies what it
 * reads and its caches hold the place. The caller closes. Errors: as above. */
int ttx_disk_meter_open(ttx_disk_meter **out, const char *path, ttx_err *err);
void ttx_disk_meter_close(ttx_disk_meter *m); /* NULL is fine */
/* Reads 96 MiB, of which the first third, beside what others have under way, is not counted.
 * Returns bytes a second; 0: it cannot be read, now and ever after. */
double ttx_disk_meter_read(ttx_disk_meter *m);
/* Bytes of memory that it takes. NULL: 0. */
uint64_t ttx_disk_meter_memory(const ttx_disk_meter *m);
/* Bytes that it has read so far, and the nanoseconds that this took. NULL: 0. */
uint64_t ttx_disk_meter_bytes(const ttx_disk_meter *m);
uint64_t ttx_disk_meter_ns(const ttx_disk_meter *m);

#endif
