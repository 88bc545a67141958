/* trace_pack.h -- traces compressed with zstd (--trace-compress zstd).
 *
 * Every block is a zstd frame of its own: what a killed run has written can be unpacked, by ttx or
 * by `zstd -d`, to a file that is as it would have been without.
 */
#ifndef TTX_TRACE_PACK_H
#define TTX_TRACE_PACK_H

#include "err.h"

#include <stddef.h>

#define TTX_TRACE_PACKED ".zst" /* behind the name of the file of records */

typedef struct ttx_packer ttx_packer;

enum { TTX_PACKER_BYTES = 2 << 20 }; /* of memory that a packer takes, at most */

/* Errors: TTX_E_USAGE (built without zstd), TTX_E_RUNTIME (no memory). */
int ttx_packer_open(ttx_packer **out, ttx_err *err);
void ttx_packer_close(ttx_packer *p); /* NULL is fine */
/* Packs n bytes into `to`, which has room for twice as many and 1000 more; returns the size, or 0:
 * no memory. */
size_t ttx_pack(ttx_packer *p, void *to, const void *from, size_t n);

typedef struct ttx_unpacker ttx_unpacker;

/* Reads the open file fd, which stays the caller's; `path` is borrowed. Errors as above. */
int ttx_unpacker_open(ttx_unpacker **out, int fd, const char *path, ttx_err *err);
void ttx_unpacker_close(ttx_unpacker *u); /* NULL is fine */
/* The next n bytes; fewer only at the end of the file, which may be inside of a frame. Errors:
 * TTX_E_RUNTIME: cannot be read, or damaged. */
int ttx_unpack(ttx_unpacker *u, void *to, size_t n, size_t *got, ttx_err *err);
/* Bytes of the file that were read. */
unsigned long long ttx_unpacker_pos(const ttx_unpacker *u);

#endif
