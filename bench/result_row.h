/* result_row.h -- rows of results for machines: JSON, JSON lines, CSV and SQL print one list of
 * fields. What is unknown (NaN) is null, or empty.
 */
#ifndef RESULT_ROW_H
#define RESULT_ROW_H

#include "err.h"

#include <stdbool.h>
#include <stdio.h>

typedef enum result_format {
    RESULT_MD, /* for people: not printed here */
    RESULT_JSON,
    RESULT_JSONL,
    RESULT_CSV,
    RESULT_SQL
} result_format;

#define RESULT_FORMATS "md|json|jsonl|csv|sql"

enum { RESULT_FIELDS = 96 };

typedef enum result_kind { RESULT_TEXT, RESULT_INTEGER, RESULT_REAL, RESULT_LIST } result_kind;

typedef struct result_field {
    const char *name;
    result_kind kind;
    const char *text;
    double number;
    const double *list; /* [n]; only JSON has lists */
    int n;
} result_field;

/* All zeros is an empty row. Names, texts and lists are borrowed until it is printed. */
typedef struct result_row {
    result_field f[RESULT_FIELDS];
    int n;
} result_row;

void result_text(result_row *r, const char *name, const char *text);
void result_int(result_row *r, const char *name, double v);
void result_real(result_row *r, const char *name, double v);
void result_list(result_row *r, const char *name, const double *v, int n);

/* `n_before`: rows printed before this one; `table`: its name in SQL. Errors: TTX_E_RUNTIME (no
 * memory). */
void result_begin(FILE *to, result_format format);
int result_print(FILE *to, result_format format, const char *table, const result_row *r,
                 int n_before, ttx_err *err);
void result_end(FILE *to, result_format format);

#endif
