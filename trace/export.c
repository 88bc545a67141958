/* export.c -- see export.h: reads the trace, gathers launches, hands them to one exporter. */
#include "export_int.h"

#include <math.h>
#include <stdlib.h>

/* ---- text ---- */

void out_flush(out_buf *o) {
    fwrite(o->b, 1, o->n, o->f);
    o->n = 0;
}

void out_bytes(out_buf *o, const void *s, size_t n) {
    if (n > OUT_SPARE) {
        out_flush(o);
        fwrite(s, 1, n, o->f);
        return;
    }
    memcpy(o->b + o->n, s, n);
    o->n += n;
    if (o->n > OUT_BYTES - OUT_SPARE) out_flush(o);
}

void out_u64(out_buf *o, uint64_t v) {
    char t[24];
    size_t i = sizeof t;
    do t[--i] = (char)('0' + v % 10);
    while (v /= 10);
    out_bytes(o, t + i, sizeof t - i);
}

void out_f32(out_buf *o, float v) {
    char t[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(t, sizeof t, "%.*g", digits, (double)v);
        if (strtof(t, NULL) == v) break;
    }
    out_str(o, t);
}

void out_us(out_buf *o, uint64_t ns) {
    char t[4] = {'.', (char)('0' + ns / 100 % 10), (char)('0' + ns / 10 % 10),
                 (char)('0' + ns % 10)};
    out_u64(o, ns / 1000);
    out_bytes(o, t, sizeof t);
}

void out_json(out_buf *o, const char *s) {
    if (!s) s = "?"; /* a number that has no name */
    out_char(o, '"');
    for (; *s; s++) {
        char t[8];
        if (*s == '"' || *s == '\\') out_char(o, '\\');
        if ((unsigned char)*s >= ' ') {
            out_char(o, *s);
            continue;
        }
        snprintf(t, sizeof t, "\\u%04x", (unsigned char)*s);
        out_str(o, t);
    }
    out_char(o, '"');
}

/* ---- routes ---- */

bool routes_take(route_memory *m, const ttx_record *r) {
    if (r->layer_id != m->layer) m->n = 0;
    m->layer = r->layer_id;
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        ttx_record *v = realloc(m->v, cap * sizeof *v);
        if (!v) return false;
        m->v = v;
        m->cap = cap;
    }
    m->v[m->n++] = *r;
    return true;
}

float routes_weight(const route_memory *m, const ttx_record *r) {
    if (r->expert_id == TTX_REC_NO_EXPERT || r->n_tokens != 1 || r->layer_id != m->layer)
        return NAN;
    for (size_t i = m->n; i-- > 0;)
        if (m->v[i].token_id == r->token_id && m->v[i].expert_id == r->expert_id)
            return m->v[i].expert_weight;
    return NAN;
}

/* ---- launches ---- */

void launch_name(const exporter *x, char *name, size_t size) {
    const ttx_trace_tensor *d = tensor_of(x, &x->first);
    const char *op = ttx_rec_op_name(TTX_REC_ACCESS, x->first.operation_type);
    snprintf(name, size, "%s%s%s", op ? op : "?", d ? " " : "", d ? d->name : "");
}

int export_lane(exporter *x, const ttx_record *r) {
    const int most = (int)(sizeof x->lane_end / sizeof *x->lane_end);
    int i = 0;
    while (i < x->lanes && x->lane_end[i] > r->timestamp_ns) i++;
    if (i == most) i = 0;
    if (i == x->lanes) x->lanes++;
    x->lane_end[i] = r->timestamp_ns + r->duration_ns;
    return i;
}

static void close_launch(exporter *x, const export_ops *ops) {
    if (x->open && ops->launch) ops->launch(x);
    x->open = false;
    x->long_ns = 0;
}

static bool take(exporter *x, const export_ops *ops, const ttx_record *r) {
    if (r->kind == TTX_REC_ROUTE && !routes_take(&x->routes, r)) return false;
    bool first = r->kind == TTX_REC_ACCESS && r->flags & TTX_RECF_FIRST;
    if (first || r->kind == TTX_REC_TOKEN || r->kind == TTX_REC_RESTART || r->kind == TTX_REC_LONG)
        close_launch(x, ops);
    if (r->kind == TTX_REC_LONG) x->long_ns = r->size_bytes;
    if (first) {
        uint64_t ns = x->long_ns;
        x->first = *r;
        x->open = true;
        x->launch_bytes = x->launch_records = 0;
        x->long_ns = r->duration_ns == UINT32_MAX ? ns : 0;
    }
    if (r->kind == TTX_REC_ACCESS) {
        x->launch_bytes += r->size_bytes;
        x->launch_records++;
        if (r->shard != TTX_REC_NO_SHARD) x->bytes += r->size_bytes;
    }
    x->faults += r->kind == TTX_REC_FAULT;
    x->reads += r->kind == TTX_REC_IO ? r->size_bytes : 0;
    x->tokens += r->kind == TTX_REC_TOKEN;
    return !ops->record || ops->record(x, r);
}

static int read_all(exporter *x, const export_ops *ops, ttx_trace_reader *in,
                    const ttx_export_settings *set, ttx_err *err) {
    const ttx_record *v;
    int rc = TTX_OK;
    for (size_t n = 1; !rc && n && !ferror(x->o->f);) {
        rc = ttx_trace_reader_next(in, &v, &n, err);
        x->block_ns = ttx_trace_reader_time(in);
        x->block_records = n;
        if (!rc && n && ops->block) ops->block(x);
        for (size_t i = 0; !rc && i < n; i++)
            if (!take(x, ops, &v[i])) rc = ttx_fail_nomem(err, "export", 1 << 20);
        if (set->progress)
            set->progress(set->progress_ctx, ttx_trace_reader_pos(in), ttx_trace_reader_bytes(in));
    }
    return rc;
}

int ttx_export(const ttx_trace_meta *m, const ttx_export_settings *set, FILE *out, char text[200],
               const char **cut, ttx_err *err) {
    static const export_ops *const all[TTX_EXPORT_FORMATS] = {
        [TTX_EXPORT_PERFETTO] = &export_perfetto,
        [TTX_EXPORT_CHROME] = &export_chrome,
        [TTX_EXPORT_CSV] = &export_table,
        [TTX_EXPORT_JSONL] = &export_table,
        [TTX_EXPORT_SPEEDSCOPE] = &export_speedscope,
    };
    const export_ops *ops = all[set->format];
    ttx_trace_reader *in = NULL;
    char *path = ttx_trace_path(m, TTX_TRACE_RECORDS);
    exporter x = {.m = m,
                  .o = malloc(sizeof *x.o),
                  .all_kinds = set->all_kinds,
                  .jsonl = set->format == TTX_EXPORT_JSONL,
                  .layer = TTX_REC_NO_LAYER};
    int rc = path && x.o ? ttx_trace_reader_open(&in, path, 0, err)
                         : ttx_fail_nomem(err, "export", sizeof *x.o);
    *cut = NULL;
    if (!rc) {
        x.o->f = out;
        x.o->n = 0;
        if (ops->begin && !ops->begin(&x)) rc = ttx_fail_nomem(err, "export", 1 << 20);
        if (!rc) rc = read_all(&x, ops, in, set, err);
        close_launch(&x, ops);
        if (!rc && ops->end) ops->end(&x);
        out_flush(x.o);
    }
    const char *missing = rc ? NULL : ttx_trace_reader_cut(in);
    if (missing) {
        snprintf(text, 200, "%s", missing);
        *cut = text;
    }
    ttx_trace_reader_close(in);
    free(x.routes.v);
    free(x.o);
    free(path);
    return rc;
}
