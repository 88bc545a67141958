/* report.h -- what a trace says: one pass over its records, then numbers, a page, answers.
 *
 * The pass keeps counters and bins, never records (but for a short window that the page shows
 * event by event), so its memory depends on the model's tables and not on the length of the trace.
 * docs/report.md defines every number.
 */
#ifndef TTX_REPORT_H
#define TTX_REPORT_H

#include "err.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct ttx_report ttx_report;

/* By what hot and cold tensors are told apart. */
typedef enum ttx_hot_by { TTX_HOT_BY_ACCESS, TTX_HOT_BY_BYTES } ttx_hot_by;

typedef struct ttx_report_settings {
    ttx_hot_by hot_by;
    uint64_t ram; /* for what to pin; 0: half of the bytes that the run touched */
    bool check;   /* verify the checksums of records: several times slower */
    /* Told now and then how far the pass is; may be NULL. */
    void (*progress)(void *ctx, uint64_t done, uint64_t bytes);
    void *ctx;
} ttx_report_settings;

ttx_report_settings ttx_report_default_settings(void);

/* Reads the trace in `dir` (the newest run, where it has several). The caller frees *out. Errors:
 * TTX_E_RUNTIME (no trace, damaged, more tensors than a report can hold, memory). */
int ttx_report_open(ttx_report **out, const char *dir, const ttx_report_settings *set,
                    ttx_err *err);
void ttx_report_free(ttx_report *r); /* NULL is fine */

/* The directory of the run; what is incomplete about the trace, or NULL. Borrowed. */
const char *ttx_report_dir(const ttx_report *r);
const char *ttx_report_warning(const ttx_report *r);

/* The numbers, as one JSON object. */
void ttx_report_statistics(const ttx_report *r, FILE *out);
/* The same and everything binned, as one HTML page that needs nothing else. */
void ttx_report_html(const ttx_report *r, FILE *out);
/* What to pin, what to prefetch, how predictable it is: as JSON; for people. */
void ttx_report_hints_json(const ttx_report *r, FILE *out);
void ttx_report_hints_print(const ttx_report *r, FILE *out);
/* n runs side by side: as JSON; as a page; for people. */
void ttx_report_compare_json(ttx_report *const *v, int n, FILE *out);
void ttx_report_compare_html(ttx_report *const *v, int n, FILE *out);
void ttx_report_compare_print(ttx_report *const *v, int n, FILE *out);

#endif
