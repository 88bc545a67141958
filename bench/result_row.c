/* result_row.c -- see result_row.h. */
#include "result_row.h"

#include <cJSON.h>
#include <math.h>
#include <stdlib.h>

static void put(result_row *r, result_field f) {
    if (r->n < RESULT_FIELDS) r->f[r->n++] = f;
}

void result_text(result_row *r, const char *name, const char *text) {
    put(r, (result_field){name, RESULT_TEXT, .text = text});
}

void result_int(result_row *r, const char *name, double v) {
    put(r, (result_field){name, RESULT_INTEGER, .number = v});
}

void result_real(result_row *r, const char *name, double v) {
    put(r, (result_field){name, RESULT_REAL, .number = v});
}

void result_list(result_row *r, const char *name, const double *v, int n) {
    put(r, (result_field){name, RESULT_LIST, .list = v, .n = n});
}

static int print_json(FILE *to, bool lines, const result_row *r, int n_before, ttx_err *err) {
    cJSON *obj = cJSON_CreateObject();
    for (int i = 0; i < r->n; i++) {
        const result_field *f = &r->f[i];
        cJSON *v = f->kind == RESULT_TEXT   ? cJSON_CreateString(f->text)
                   : f->kind == RESULT_LIST ? cJSON_CreateDoubleArray(f->list, f->n)
                   : isnan(f->number)       ? cJSON_CreateNull()
                                            : cJSON_CreateNumber(f->number);
        cJSON_AddItemToObject(obj, f->name, v);
    }
    char *text = lines ? cJSON_PrintUnformatted(obj) : cJSON_Print(obj);
    cJSON_Delete(obj);
    if (!text) return ttx_fail_nomem(err, "a row as JSON", 4096);
    fprintf(to, "%s%s", !lines && n_before ? ",\n" : "", text);
    if (lines) fputc('\n', to);
    free(text);
    return TTX_OK;
}

/* Text between quotes, which are doubled inside. */
static void print_quoted(FILE *to, const char *s, char quote) {
    fputc(quote, to);
    for (; *s; s++) {
        if (*s == quote) fputc(quote, to);
        fputc(*s, to);
    }
    fputc(quote, to);
}

/* The fields of a row, lists left out; unknown numbers as `unknown`. */
static void print_fields(FILE *to, const result_row *r, char quote, const char *unknown) {
    const char *comma = "";
    for (int i = 0; i < r->n; i++) {
        const result_field *f = &r->f[i];
        if (f->kind == RESULT_LIST) continue;
        fputs(comma, to);
        comma = quote == '\'' ? ", " : ",";
        if (f->kind == RESULT_TEXT)
            print_quoted(to, f->text, quote);
        else if (isnan(f->number))
            fputs(unknown, to);
        else
            fprintf(to, f->kind == RESULT_INTEGER ? "%.0f" : "%.6f", f->number);
    }
}

static void print_names(FILE *to, const result_row *r, const char *separator, bool types) {
    static const char *const sql[] = {"TEXT", "INTEGER", "REAL"};
    bool first = true;
    for (int i = 0; i < r->n; i++) {
        if (r->f[i].kind == RESULT_LIST) continue;
        fprintf(to, "%s%s", first ? "" : separator, r->f[i].name);
        if (types) fprintf(to, " %s", sql[r->f[i].kind]);
        first = false;
    }
}

static void print_csv(FILE *to, const result_row *r, int n_before) {
    if (!n_before) {
        print_names(to, r, ",", false);
        fputc('\n', to);
    }
    print_fields(to, r, '"', "");
    fputc('\n', to);
}

static void print_sql(FILE *to, const char *table, const result_row *r, int n_before) {
    if (!n_before) {
        fprintf(to, "CREATE TABLE IF NOT EXISTS %s (\n  ", table);
        print_names(to, r, ",\n  ", true);
        fputs("\n);\n\n", to);
    }
    fprintf(to, "INSERT INTO %s (", table);
    print_names(to, r, ", ", false);
    fputs(") VALUES (", to);
    print_fields(to, r, '\'', "NULL");
    fputs(");\n", to);
}

/* ---- all rows ---- */

void result_begin(FILE *to, result_format format) {
    if (format == RESULT_JSON) fputs("[\n", to);
}

int result_print(FILE *to, result_format format, const char *table, const result_row *r,
                 int n_before, ttx_err *err) {
    switch (format) {
    case RESULT_JSON:
    case RESULT_JSONL: return print_json(to, format == RESULT_JSONL, r, n_before, err);
    case RESULT_CSV: print_csv(to, r, n_before); break;
    case RESULT_SQL: print_sql(to, table, r, n_before); break;
    case RESULT_MD: break; /* the caller's */
    }
    return TTX_OK;
}

void result_end(FILE *to, result_format format) {
    if (format == RESULT_JSON) fputs("\n]\n", to);
}
