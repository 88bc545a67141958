/* trace_check.h -- does a trace make sense, and what is in it?
 *
 * Reads the whole trace once, checksums and all, in memory that does not grow with it.
 */
#ifndef TTX_TRACE_CHECK_H
#define TTX_TRACE_CHECK_H

#include "trace_meta.h"

enum { TTX_CHECK_PROBLEMS = 20 };

typedef struct ttx_trace_summary {
    uint64_t records, by_kind[TTX_REC_COUNT], launches, lost;
    uint64_t bytes;                               /* of all accesses to the file */
    uint64_t decode_bytes;                        /* of those by decode steps of one token */
    uint64_t tokens, decode_tokens, whole_tokens; /* whole: as the pattern says */
    uint32_t tensors;                             /* different ones */
    double decode_s, duration_s;
    const char *cut; /* NULL, or why it is incomplete; as long as the summary */
    char cut_text[200];
    uint64_t n_problems;
    char problems[TTX_CHECK_PROBLEMS][200]; /* the first of them */
} ttx_trace_summary;

/* Checks the run that `m` describes: ranges inside their tensors, layers, heads and experts that
 * the model has, times and tokens in order, every layer of every decode token, and the tensors of
 * decode tokens against access_pattern.json. Problems are counted, not errors. Errors:
 * TTX_E_RUNTIME: cannot be read, or damaged. */
int ttx_trace_check(const ttx_trace_meta *m, ttx_trace_summary *s, ttx_err *err);

#endif
