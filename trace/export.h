/* export.h -- traces in other programs' formats, written as they are read.
 */
#ifndef TTX_EXPORT_H
#define TTX_EXPORT_H

#include "trace_meta.h"

#include <stdio.h>

typedef enum ttx_export_format {
    TTX_EXPORT_PERFETTO,   /* protobuf, for ui.perfetto.dev */
    TTX_EXPORT_CHROME,     /* JSON trace events, for chrome://tracing and Perfetto */
    TTX_EXPORT_CSV,        /* the table that docs/trace-format.md defines */
    TTX_EXPORT_JSONL,      /* the same, an object a line */
    TTX_EXPORT_SPEEDSCOPE, /* for speedscope.app */
    TTX_EXPORT_FORMATS
} ttx_export_format;

typedef struct ttx_export_settings {
    ttx_export_format format;
    bool all_kinds; /* tables: not only accesses */
    /* Bytes of the trace done, of all; may be NULL. */
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *progress_ctx;
} ttx_export_settings;

/* Writes the run that `m` describes. *cut: NULL, or a line about what is missing of an incomplete
 * trace, in `text`. Errors: TTX_E_RUNTIME (a damaged trace). What `out` does not take shows in its
 * error flag. */
int ttx_export(const ttx_trace_meta *m, const ttx_export_settings *set, FILE *out, char text[200],
               const char **cut, ttx_err *err);

#endif
