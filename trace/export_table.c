/* export_table.c -- CSV and JSON lines: a row for each access, in the columns of
 * docs/trace-format.md; `kind` is the last.
 */
#include "export_int.h"

#include <math.h>

static const char *const columns[] = {
    "timestamp_ns",  "duration_ns",    "token_id",       "n_tokens",       "phase",
    "layer_id",      "operation_type", "tensor_name",    "component_type", "file_offset",
    "size_bytes",    "qkv_type",       "attention_head", "expert_id",      "expert_rank",
    "routing_score", "expert_weight",  "residency",      "shard",          "tensor_ptr",
    "kind",
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static bool begin(exporter *x) {
    for (int i = 0; !x->jsonl && i < N_COLUMNS; i++) {
        out_str(x->o, columns[i]);
        out_char(x->o, i + 1 < N_COLUMNS ? ',' : '\n');
    }
    return true;
}

/* What stands before the value of column `*i`, which is counted up. */
static void key(exporter *x, int *i) {
    if (x->jsonl) {
        out_str(x->o, *i ? ",\"" : "{\"");
        out_str(x->o, columns[*i]);
        out_str(x->o, "\":");
    } else if (*i) {
        out_char(x->o, ',');
    }
    ++*i;
}

static void number(exporter *x, int *i, bool present, uint64_t v) {
    key(x, i);
    if (present)
        out_u64(x->o, v);
    else if (x->jsonl)
        out_str(x->o, "null");
}

static void real(exporter *x, int *i, float v) {
    key(x, i);
    if (isfinite(v))
        out_f32(x->o, v);
    else if (x->jsonl)
        out_str(x->o, "null");
}

static void text(exporter *x, int *i, const char *s) {
    key(x, i);
    if (x->jsonl && (!s || !*s))
        out_str(x->o, "null");
    else if (x->jsonl)
        out_json(x->o, s);
    else if (s && s[strcspn(s, "\",\r\n")]) { /* RFC 4180 */
        out_char(x->o, '"');
        for (; *s; s++) {
            if (*s == '"') out_char(x->o, '"');
            out_char(x->o, *s);
        }
        out_char(x->o, '"');
    } else if (s)
        out_str(x->o, s);
}

static bool record(exporter *x, const ttx_record *r) {
    if (r->kind != TTX_REC_ACCESS && !x->all_kinds) return true;
    bool route = r->kind == TTX_REC_ROUTE, token = r->kind == TTX_REC_TOKEN;
    const ttx_trace_tensor *d = tensor_of(x, r);
    int i = 0;
    number(x, &i, true, r->timestamp_ns);
    number(x, &i, true, r->duration_ns == UINT32_MAX && x->long_ns ? x->long_ns : r->duration_ns);
    number(x, &i, r->token_id != TTX_REC_NO_TOKEN, r->token_id);
    number(x, &i, true, r->n_tokens);
    text(x, &i, ttx_phase_name(r->phase));
    number(x, &i, r->layer_id != TTX_REC_NO_LAYER, r->layer_id);
    text(x, &i, ttx_rec_op_name(r->kind, r->operation_type));
    text(x, &i, d ? d->name : NULL);
    text(x, &i, d ? d->component : NULL);
    number(x, &i, r->file_offset != TTX_REC_NO_OFFSET && !token, r->file_offset);
    number(x, &i, true, r->size_bytes);
    text(x, &i, ttx_qkv_name(r->qkv_type));
    number(x, &i, r->attention_head != TTX_REC_NO_HEAD, r->attention_head);
    number(x, &i, r->expert_id != TTX_REC_NO_EXPERT, r->expert_id);
    number(x, &i, r->expert_rank != TTX_REC_NO_RANK, r->expert_rank);
    real(x, &i, r->routing_score);
    real(x, &i, route ? r->expert_weight : routes_weight(&x->routes, r));
    text(x, &i, ttx_residency_name(r->residency));
    number(x, &i, r->shard != TTX_REC_NO_SHARD, r->shard);
    number(x, &i, r->tensor_ptr && !route && !token, r->tensor_ptr);
    text(x, &i, ttx_rec_kind_name(r->kind));
    out_str(x->o, x->jsonl ? "}\n" : "\n");
    x->rows++;
    return true;
}

const export_ops export_table = {.begin = begin, .record = record};
