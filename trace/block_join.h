/* block_join.h -- which tensor caused which sectors: a block-level trace beside one of ours.
 */
#ifndef TTX_BLOCK_JOIN_H
#define TTX_BLOCK_JOIN_H

#include "trace_meta.h"

#include <stdio.h>

typedef struct ttx_block_summary {
    uint64_t reads, bytes;   /* of devices, within the run */
    uint64_t model_bytes;    /* of those: parts of the model's files */
    uint64_t tensor_bytes;   /* of those: inside tensors */
    uint64_t lines, skipped; /* of the file; that are no read requests */
    char device[32];
} ttx_block_summary;

/* Reads `path`: what blkparse prints, or ftrace's block_rq_complete events (trace_clock "mono").
 * Each read is placed in the model's files by their extents (FIEMAP), in a tensor by its offset,
 * and in the run by its time: blkparse's times count from `start_s` seconds after the start of the
 * run. Writes a row for each piece of a read that lies in the model to `out` (CSV), and to
 * by_tensor [m->n_file_tensor] the bytes of each tensor. Errors: TTX_E_RUNTIME (a file, FIEMAP). */
int ttx_block_join(const ttx_trace_meta *m, const char *path, double start_s, FILE *out,
                   uint64_t *by_tensor, ttx_block_summary *s, ttx_err *err);

#endif
