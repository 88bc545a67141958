/* trace_file.h -- the file that holds a trace's records: tensor_access.bin.
 *
 * A row of 64-byte slots. Blocks of records are framed by slots that have the size and the `kind`
 * byte of a record, so that the whole file can be mapped as an array of records and frames be
 * filtered out by kind >= TTX_REC_FRAME:
 *
 *      HEADER | BLOCK rec rec rec ... | BLOCK rec rec ... | ... | END
 *
 * Each frame has a checksum of itself, and a BLOCK one of its records. A file that a crash or a
 * full disk has cut short is readable up to its last whole block; what lacks its END is incomplete.
 */
#ifndef TTX_TRACE_FILE_H
#define TTX_TRACE_FILE_H

#include "err.h"
#include "record.h"
#include "trace_crc.h"

#include <stddef.h>

enum {
    TTX_TRACE_VERSION = 1,
    TTX_TRACE_BLOCK_MAX = 16384, /* records */
    TTX_FRAME_HEADER = TTX_REC_FRAME,
    TTX_FRAME_BLOCK,
    TTX_FRAME_END,
};

/* How a trace ended. */
typedef enum ttx_trace_end {
    TTX_TRACE_WHOLE,   /* as the run did */
    TTX_TRACE_LIMITED, /* --trace-max was reached: the run went on without */
    TTX_TRACE_ENDS
} ttx_trace_end;

typedef struct ttx_frame {
    char magic[8];      /* "TTXTRACE" */
    uint64_t first;     /* BLOCK: number of its first record; END: records of the file */
    uint64_t lost;      /* records that were dropped before this frame */
    uint64_t time_ns;   /* when it was written, since the start of the run */
    uint32_t version;   /* TTX_TRACE_VERSION */
    uint32_t n_records; /* BLOCK */
    uint32_t crc;       /* BLOCK: CRC-32 (as in zlib) of its records */
    uint32_t end;       /* END: ttx_trace_end */
    uint32_t reserved[2];
    uint8_t kind; /* TTX_FRAME_, where a record has its kind */
    uint8_t reserved2[3];
    uint32_t frame_crc; /* CRC-32 of the 60 bytes before */
} ttx_frame;

_Static_assert(sizeof(ttx_frame) == 64, "a frame fills a slot");

/* A frame of this kind, its own checksum still to be made by ttx_frame_seal. */
ttx_frame ttx_frame_make(uint8_t kind);
void ttx_frame_seal(const ttx_crc *c, ttx_frame *f);

/* ---- reading ---- */

typedef struct ttx_trace_reader ttx_trace_reader;

enum { TTX_READ_UNCHECKED = 1 /* skip the checksums of records: several times faster */ };

/* Opens the file at `path`, or if there is none the one that was compressed (trace_pack.h). Errors:
 * TTX_E_RUNTIME (cannot be opened, no trace, of a later version).
 */
int ttx_trace_reader_open(ttx_trace_reader **out, const char *path, unsigned flags, ttx_err *err);
void ttx_trace_reader_close(ttx_trace_reader *r); /* NULL is fine */

/* The next block: *v is valid until the next call; *n is 0 at the end. The order of records is that
 * of their launches; records of other kinds may stand a little before or after what they are about.
 * A file that ends too early ends the stream without an error: see ttx_trace_reader_cut. Errors:
 * TTX_E_RUNTIME: cannot be read, or damaged. */
int ttx_trace_reader_next(ttx_trace_reader *r, const ttx_record **v, size_t *n, ttx_err *err);

/* At the end: NULL if the trace is whole, otherwise one line about what is missing. */
const char *ttx_trace_reader_cut(const ttx_trace_reader *r);
ttx_trace_end ttx_trace_reader_end(const ttx_trace_reader *r);
uint64_t ttx_trace_reader_lost(const ttx_trace_reader *r);
/* When the block that was read last was written, since the start of the run. */
uint64_t ttx_trace_reader_time(const ttx_trace_reader *r);
/* Records read so far; bytes read, and of the file. */
uint64_t ttx_trace_reader_count(const ttx_trace_reader *r);
uint64_t ttx_trace_reader_pos(const ttx_trace_reader *r);
uint64_t ttx_trace_reader_bytes(const ttx_trace_reader *r);

#endif
