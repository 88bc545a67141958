/* roofline.c -- see roofline.h. */
#include "roofline.h"

#include "trace_file.h"
#include "trace_meta.h"

#include <cJSON.h>
#include <stdlib.h>
#include <string.h>

void roofline_begin(roofline *r, const ttx_model *m, const ttx_limits *lim, const char *k_type,
                    const char *v_type) {
    *r = (roofline){.model = m, .limits = *lim, .batch = UINT64_MAX};
    if (strcmp(k_type, v_type) == 0)
        snprintf(r->cache_type, sizeof r->cache_type, "%s cache", k_type);
    else
        snprintf(r->cache_type, sizeof r->cache_type, "%s/%s cache", k_type, v_type);
}

/* ---- records ---- */

static int find_row(roofline_phase *p, ttx_op_kind op, const char *type) {
    int i = 0;
    while (i < p->n && (p->row[i].op != op || strcmp(p->row[i].type, type) != 0)) i++;
    if (i == ROOFLINE_ROWS) return i - 1; /* more kinds than there are: the last takes them */
    if (i == p->n) p->row[p->n++] = (roofline_row){.op = op, .type = type};
    return i;
}

static bool in_file(const roofline *r, const ttx_record *v) {
    return v->tensor_idx < gguf_n_tensors(r->model->file);
}

static const char *type_of(const roofline *r, const ttx_record *v) {
    if (in_file(r, v)) return ttx_dtype_get(gguf_tensors(r->model->file)[v->tensor_idx].type)->name;
    return v->tensor_idx == TTX_REC_NO_TENSOR ? "" : r->cache_type;
}

/* Multiply-adds of attention, two operations each: tokens at v's positions, each with what it sees.
 */
static double attention_ops(const roofline *r, const ttx_record *v) {
    const ttx_hparams *hp = &r->model->hp;
    bool local = ttx_layer_is_swa(hp, v->layer_id);
    double seen = 0;
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        double pos = (double)v->token_id + i + 1;
        seen += local && pos > hp->n_swa ? hp->n_swa : pos;
    }
    return 2.0 * hp->n_head * (hp->d_k + hp->d_v) * seen;
}

static double ops_of(const roofline *r, const ttx_record *v) {
    if (v->operation_type == TTX_OP_FLASH_ATTN_EXT)
        return v->flags & TTX_RECF_FIRST ? attention_ops(r, v) : 0;
    if (v->operation_type != TTX_OP_MUL_MAT && v->operation_type != TTX_OP_MUL_MAT_ID) return 0;
    if (!in_file(r, v)) return 0;
    const gguf_tensor *t = &gguf_tensors(r->model->file)[v->tensor_idx];
    if (t->n_dims < 2) return 0; /* a bias */
    return 2.0 * v->n_tokens * (double)v->size_bytes / (double)t->size * (double)t->n_elements;
}

/* Hands the time of the last launch to its rows, by their bytes. */
static void end_launch(roofline *r) {
    double bytes = 0;
    for (int i = 0; i < r->n_launch; i++) bytes += r->launch_bytes[i];
    for (int i = 0; i < r->n_launch; i++) {
        double share = bytes > 0 ? r->launch_bytes[i] / bytes : 1.0 / r->n_launch;
        r->phase[r->launch_phase].row[r->launch_rows[i]].ns += share * r->launch_ns;
    }
    r->n_launch = 0;
    r->launch_ns = 0;
}

static void add_access(roofline *r, const ttx_record *v) {
    enum { MOST = sizeof r->launch_rows / sizeof *r->launch_rows };
    roofline_phase *p = &r->phase[v->phase];
    if (v->flags & TTX_RECF_FIRST) {
        end_launch(r);
        r->launch_phase = (ttx_phase)v->phase;
        r->launch_ns = v->duration_ns;
    }
    int row = find_row(p, (ttx_op_kind)v->operation_type, type_of(r, v)), i = 0;
    while (i < r->n_launch && r->launch_rows[i] != row) i++;
    if (i == MOST) i = MOST - 1; /* more types than there are */
    if (i == r->n_launch) {
        r->launch_rows[i] = row;
        r->launch_bytes[i] = 0;
        r->n_launch++;
        p->row[row].launches++;
    }
    r->launch_bytes[i] += (double)v->size_bytes;
    p->row[row].bytes += (double)v->size_bytes;
    p->row[row].ops += ops_of(r, v);
}

static void add_token(roofline *r, const ttx_record *v) {
    roofline_phase *p = &r->phase[v->phase];
    p->tokens++;
    if (v->batch == r->batch) return;
    r->batch = v->batch;
    p->ns += (double)(v->end_ns - v->timestamp_ns);
}

void roofline_add(roofline *r, const ttx_record *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (v[i].kind == TTX_REC_RESTART) r->started = true;
        if (!r->started || v[i].phase >= TTX_PHASE_COUNT) continue;
        if (v[i].kind == TTX_REC_ACCESS && v[i].operation_type < TTX_OP_COUNT) add_access(r, &v[i]);
        if (v[i].kind == TTX_REC_TOKEN) add_token(r, &v[i]);
    }
}

static int by_time(const void *a, const void *b) {
    double x = ((const roofline_row *)a)->ns, y = ((const roofline_row *)b)->ns;
    return (x < y) - (x > y);
}

void roofline_end(roofline *r) {
    end_launch(r);
    const ttx_limits *lim = &r->limits;
    for (int k = 0; k < TTX_PHASE_COUNT; k++) {
        roofline_phase *p = &r->phase[k];
        for (int i = 0; i < p->n; i++) {
            roofline_row *row = &p->row[i];
            bool weights = row->type[0] && row->op != TTX_OP_RMS_NORM && row->op != TTX_OP_SET_ROWS;
            if (weights && lim->read_gbps > 0) row->read_ns = row->bytes / lim->read_gbps;
            if (lim->peak_gops > 0) row->compute_ns = row->ops / lim->peak_gops;
        }
        qsort(p->row, (size_t)p->n, sizeof *p->row, by_time);
    }
}

int roofline_read(roofline *r, const char *trace_dir, ttx_err *err) {
    char path[4096];
    ttx_trace_reader *reader = NULL;
    const ttx_record *v;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s", trace_dir, TTX_TRACE_RECORDS);
    int rc = ttx_trace_reader_open(&reader, path, TTX_READ_UNCHECKED, err);
    while (!rc && !(rc = ttx_trace_reader_next(reader, &v, &n, err)) && n) roofline_add(r, v, n);
    ttx_trace_reader_close(reader);
    roofline_end(r);
    return rc;
}

/* ---- output ---- */

static const char *const phase_names[] = {"prompt", "decode"};

static double limit_ns(const roofline_row *row) {
    return row->read_ns > row->compute_ns ? row->read_ns : row->compute_ns;
}

static void sum_up(const roofline_phase *p, roofline_row *sum) {
    *sum = (roofline_row){.type = ""};
    for (int i = 0; i < p->n; i++) {
        sum->launches += p->row[i].launches;
        sum->ns += p->row[i].ns;
        sum->bytes += p->row[i].bytes;
        sum->ops += p->row[i].ops;
        sum->read_ns += limit_ns(&p->row[i]); /* the sum of the limits */
    }
}

static void print_row(FILE *to, const char *name, const roofline_row *row, const roofline_phase *p,
                      bool bound) {
    char gbps[16] = "", gops[16] = "", by[16] = "", share[16] = "";
    if (row->bytes > 0 && row->ns > 0) snprintf(gbps, sizeof gbps, "%.1f", row->bytes / row->ns);
    if (row->ops > 0 && row->ns > 0) snprintf(gops, sizeof gops, "%.0f", row->ops / row->ns);
    if (bound && limit_ns(row) > 0 && row->ns > 0) {
        snprintf(by, sizeof by, "%s", row->read_ns > row->compute_ns ? "reading" : "computing");
        snprintf(share, sizeof share, "%.1f %%", 100 * limit_ns(row) / row->ns);
    }
    fprintf(to, "| %-14s | %-12s | %9.0f | %8.2f | %6.1f %% | %6s | %6s | %9s | %8s |\n", name,
            row->type, row->launches, row->ns / (p->tokens + 1e-9) * 1e-3, 100 * row->ns / p->ns,
            gbps, gops, by, share);
}

static void print_phase(const roofline *r, int k, FILE *to) {
    const roofline_phase *p = &r->phase[k];
    roofline_row sum;
    if (p->tokens <= 0 || p->ns <= 0) return;
    sum_up(p, &sum);
    fprintf(to, "\n%s: %.0f tokens, %.2f t/s, %.3f ms a token\n\n", phase_names[k], p->tokens,
            p->tokens / p->ns * 1e9, p->ns / p->tokens * 1e-6);
    fprintf(to, "| %-14s | %-12s | %9s | %8s | %8s | %6s | %6s | %9s | %8s |\n", "operation",
            "type", "launches", "us/token", "time", "GB/s", "GOPS", "limit", "share");
    fputs("|:---------------|:-------------|----------:|---------:|---------:|-------:|-------:|"
          ":---------:|---------:|\n",
          to);
    for (int i = 0; i < p->n; i++) print_row(to, ttx_op_name(p->row[i].op), &p->row[i], p, true);
    roofline_row between = {.type = "", .ns = p->ns > sum.ns ? p->ns - sum.ns : 0};
    print_row(to, "between them", &between, p, false);
    sum.ns = p->ns;
    print_row(to, "all", &sum, p, false);
    if (sum.read_ns > 0)
        fprintf(
            to,
            "\nAt their limits the operations would take %.3f ms a token: %.1f %% of the time.\n",
            sum.read_ns / p->tokens * 1e-6, 100 * sum.read_ns / p->ns);
}

void roofline_print(const roofline *r, FILE *to) {
    const ttx_limits *lim = &r->limits;
    if (lim->read_gbps > 0)
        fprintf(to, "\nReads %.1f GB/s (%s).", lim->read_gbps, lim->read_kernel);
    if (lim->n_units) fputs(" Peaks in GOPS:", to);
    for (int i = 0; i < lim->n_units; i++)
        fprintf(to, "%s %s %.0f (--isa %s)", i ? "," : "", lim->units[i].name, lim->units[i].gops,
                lim->units[i].isa);
    fputs(".\n", to);
    for (int k = 0; k < TTX_PHASE_COUNT; k++) print_phase(r, k, to);
}

static void put_rows(cJSON *to, const roofline_phase *p) {
    cJSON *rows = cJSON_AddArrayToObject(to, "rows");
    for (int i = 0; i < p->n && rows; i++) {
        const roofline_row *row = &p->row[i];
        cJSON *o = cJSON_CreateObject();
        cJSON_AddItemToArray(rows, o);
        cJSON_AddStringToObject(o, "op", ttx_op_name(row->op));
        cJSON_AddStringToObject(o, "type", row->type);
        cJSON_AddNumberToObject(o, "launches", row->launches);
        cJSON_AddNumberToObject(o, "ns", row->ns);
        cJSON_AddNumberToObject(o, "bytes", row->bytes);
        cJSON_AddNumberToObject(o, "ops", row->ops);
        cJSON_AddNumberToObject(o, "time_share", p->ns > 0 ? row->ns / p->ns : 0);
        if (limit_ns(row) > 0 && row->ns > 0)
            cJSON_AddNumberToObject(o, "bound_share", limit_ns(row) / row->ns);
        else
            cJSON_AddNullToObject(o, "bound_share");
    }
}

int roofline_json(const roofline *r, FILE *to, ttx_err *err) {
    const ttx_limits *lim = &r->limits;
    cJSON *o = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "mem_gbps", lim->read_gbps);
    cJSON_AddNumberToObject(o, "peak_gops", lim->peak_gops);
    cJSON *units = cJSON_AddObjectToObject(o, "unit_gops");
    for (int i = 0; i < lim->n_units; i++)
        cJSON_AddNumberToObject(units, lim->units[i].name, lim->units[i].gops);
    for (int k = 0; k < TTX_PHASE_COUNT; k++) {
        const roofline_phase *p = &r->phase[k];
        if (p->tokens <= 0) continue;
        cJSON *phase = cJSON_AddObjectToObject(o, phase_names[k]);
        cJSON_AddNumberToObject(phase, "tokens", p->tokens);
        cJSON_AddNumberToObject(phase, "ns", p->ns);
        put_rows(phase, p);
    }
    char *text = cJSON_Print(o);
    cJSON_Delete(o);
    if (!text) return ttx_fail_nomem(err, "the roofline as JSON", 4096);
    fprintf(to, "%s\n", text);
    free(text);
    return TTX_OK;
}
