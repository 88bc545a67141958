/* report_scan.c -- the pass: what each record adds to the tables.
 *
 * Records are data, not promises: a tensor, layer, head or range that the model does not have is
 * counted in `out_of_range` and otherwise treated as none.
 */
#include "report_int.h"

#include <string.h>

enum { MAX_LOG = 46 }; /* bytes and ns of one record; more is taken as that */

const char *rp_op_name(uint8_t op) {
    return op < TTX_OP_COUNT ? ttx_op_name((ttx_op_kind)op) : "OTHER";
}

static uint64_t bounded(uint64_t v) {
    return v >> MAX_LOG ? 1ull << MAX_LOG : v;
}

/* ---- launches: operands share the time by their bytes ---- */

static void end_launch(ttx_report *r) {
    rp_launch *l = &r->launch;
    uint64_t left = l->ns, stall = l->stall_ns, bytes = l->bytes;
    if (!l->waited) stall = 0;
    for (uint32_t i = 0; i < l->n; i++) {
        bool last = i + 1 == l->n;
        double share = bytes ? (double)l->v[i].bytes / (double)bytes : 0;
        uint64_t ns = last ? left : (uint64_t)((double)l->ns * share);
        if (ns > left) ns = left;
        left -= ns;
        r->cube.rows[l->v[i].row].ns += ns;
        if (last || share > 0)
            r->cube.rows[l->v[i].row].stall_ns += (uint64_t)((double)stall * (bytes ? share : 1));
        uint32_t n = l->v[i].token == l->batch_token ? l->batch_n : l->v[i].n;
        rp_cube_add(&r->cube, l->v[i].row, l->v[i].token, n, 0, 0, ns);
    }
    if (l->waited && l->layer <= r->n_layer) r->layer_stall[l->layer] += stall;
    l->n = 0;
    l->bytes = l->ns = 0;
    l->waited = false;
}

static void begin_launch(ttx_report *r, const ttx_record *a) {
    rp_launch *l = &r->launch;
    end_launch(r);
    uint64_t ns = bounded(l->long_ns ? l->long_ns : a->duration_ns);
    uint64_t gap = 0;
    if (a->timestamp_ns > l->end_ns && r->launches) gap = bounded(a->timestamp_ns - l->end_ns);
    l->layer = a->layer_id < r->n_layer ? a->layer_id : (uint16_t)r->n_layer;
    l->ns = ns;
    l->stall_ns = gap;
    l->long_ns = 0;
    l->end_ns = a->timestamp_ns + ns;
    if (a->token_id != l->batch_token || a->n_tokens > l->batch_n) {
        l->batch_token = a->token_id;
        l->batch_n = a->n_tokens ? a->n_tokens : 1;
    }
    r->layer_gap[l->layer] += gap;
    r->launches++;
    rp_time *t = rp_map_time(&r->map, a->timestamp_ns);
    t->launches++;
    t->busy_ns += ns;
}

static void add_operand(rp_launch *l, uint32_t row, const ttx_record *a, uint64_t bytes) {
    uint32_t n = l->n;
    l->bytes += bytes;
    if (n && (l->v[n - 1].row == row || n == sizeof l->v / sizeof *l->v)) {
        l->v[n - 1].bytes += bytes;
        return;
    }
    l->v[n].row = row;
    l->v[n].token = a->token_id;
    l->v[n].n = a->n_tokens;
    l->v[n].bytes = bytes;
    l->n++;
}

/* ---- accesses: heads put together ---- */

static void keep(rp_window *w, const rp_access *a) {
    if (w->n < w->cap) w->v[w->n++] = *a;
}

static void end_access(ttx_report *r) {
    rp_access *a = &r->pending;
    if (a->row == UINT32_MAX) return;
    rp_row *row = &r->cube.rows[a->row];
    row->accesses++;
    row->residency[a->residency].n++;
    row->residency[a->residency].bytes += a->size;
    r->accesses++;
    if (a->object != RP_NO_OBJECT) {
        rp_object *o = &r->objects[a->object];
        o->accesses++;
        o->in_prompt += a->phase == TTX_PHASE_PROMPT;
        o->bytes += a->size;
        o->residency[a->residency]++;
        r->file_bytes_read += a->size;
        if (!a->guess) rp_sequence_access(r, a);
        rp_reuse_access(r, a);
        rp_map_access(&r->map, a);
        rp_io_touch(r, a);
        keep(a->phase == TTX_PHASE_GENERATE ? &r->decode : &r->prompt, a);
    }
    a->row = UINT32_MAX;
}

/* Clips a record's range to its tensor; false: it lies outside. */
static bool clip(ttx_report *r, const ttx_record *a, const ttx_trace_tensor *t, uint64_t *size) {
    uint64_t begin = a->file_offset, end = t->offset + t->size;
    if (a->shard != t->shard || begin < t->offset || begin >= end) return false;
    if (*size > end - begin) {
        if (!(a->flags & TTX_RECF_STRIDED)) r->out_of_range++;
        *size = end - begin;
    }
    return true;
}

static void add_access(ttx_report *r, const ttx_record *a, uint32_t row, uint32_t tensor,
                       uint64_t bytes) {
    rp_access *p = &r->pending;
    bool head = a->attention_head != TTX_REC_NO_HEAD;
    uint8_t res = a->residency < TTX_RES_COUNT ? a->residency : TTX_RES_UNKNOWN;
    if (p->row == row && head && !(a->flags & TTX_RECF_FIRST) && p->expert == a->expert_id) {
        p->size += bytes;
        if (res > p->residency) p->residency = res;
        rp_object *o = p->object == RP_NO_OBJECT ? NULL : &r->objects[p->object];
        if (o && p->size > o->size) p->size = o->size;
        p->whole = o && p->size == o->size;
        return;
    }
    end_access(r);
    uint64_t at = 0;
    uint32_t object = RP_NO_OBJECT;
    const ttx_trace_tensor *t = tensor < r->meta.n_file_tensor ? &r->meta.tensors[tensor] : NULL;
    if (t) {
        if (clip(r, a, t, &bytes)) {
            at = r->shard_at[t->shard] + a->file_offset;
            if (a->flags & TTX_RECF_STRIDED) at = r->shard_at[t->shard] + t->offset;
            object = rp_object_of(r, tensor, a->expert_id);
        } else {
            r->out_of_range++;
        }
    }
    *p = (rp_access){
        .time_ns = a->timestamp_ns,
        .at = at,
        .size = bytes,
        .object = object,
        .row = row,
        .tensor = tensor,
        .token = a->token_id,
        .n_tokens = a->n_tokens,
        .layer = a->layer_id,
        .expert = a->expert_id,
        .op = r->cube.rows[row].op,
        .phase = r->cube.rows[row].phase,
        .residency = res,
        .whole = object != RP_NO_OBJECT && bytes == r->objects[object].size &&
                 a->operation_type != TTX_OP_GET_ROWS,
        .guess = a->flags & TTX_RECF_GUESS,
    };
}

/* ---- heads ---- */

static void add_head(ttx_report *r, const ttx_record *a, uint32_t tensor, uint64_t bytes) {
    rp_heads *h = &r->heads;
    uint32_t layer = a->layer_id < r->n_layer ? a->layer_id : r->n_layer;
    if (a->attention_head >= h->n_head || a->qkv_type >= TTX_QKV_COUNT) {
        r->out_of_range++;
        return;
    }
    size_t at = (size_t)layer * h->n_head + a->attention_head;
    if (tensor < r->meta.n_file_tensor) {
        rp_head *w = &h->weights[((size_t)layer * TTX_QKV_COUNT + a->qkv_type) * h->n_head +
                                 a->attention_head];
        w->n++;
        w->bytes += bytes;
        return;
    }
    if (tensor >= r->meta.n_tensor) return;
    if (!bytes && !(a->flags & TTX_RECF_WRITE)) { /* a query head, on the keys of its KV head */
        h->queries[at]++;
        return;
    }
    const ttx_trace_tensor *t = &r->meta.tensors[tensor];
    bool value = t->qkv == TTX_QKV_V || strncmp(t->name, "cache_v", 7) == 0;
    rp_head *c = &h->cache[((size_t)layer * 2 + value) * h->n_head + a->attention_head];
    c->n++;
    if (a->flags & TTX_RECF_WRITE)
        c->written += bytes;
    else
        c->bytes += bytes;
}

/* ---- records ---- */

static void scan_access(ttx_report *r, const ttx_record *a) {
    uint32_t tensor = a->tensor_idx;
    if (tensor >= r->meta.n_tensor) {
        r->out_of_range += tensor != TTX_REC_NO_TENSOR;
        tensor = TTX_REC_NO_TENSOR;
    }
    uint8_t op = a->operation_type < TTX_OP_COUNT ? a->operation_type : RP_OP_OTHER;
    uint8_t phase = a->phase < TTX_PHASE_COUNT ? a->phase : TTX_PHASE_GENERATE;
    uint64_t key = (uint64_t)tensor << 32 | (uint64_t)a->layer_id << 8 | (uint64_t)op << 1 | phase;
    if (key != r->last_key) {
        r->last_key_row = rp_cube_row(r, tensor, a->layer_id, op, phase);
        r->last_key = key;
    }
    uint32_t row = r->last_key_row;
    uint64_t bytes = bounded(a->size_bytes);
    if (a->flags & TTX_RECF_FIRST) begin_launch(r, a);
    add_operand(&r->launch, row, a, bytes);
    if (a->residency == TTX_RES_LATE || a->residency == TTX_RES_MISSED) r->launch.waited = true;
    rp_row *p = &r->cube.rows[row];
    p->records++;
    p->bytes += bytes;
    p->written += a->flags & TTX_RECF_WRITE ? bytes : 0;
    r->bytes += bytes;
    if (a->n_tokens <= 1 || a->expert_id == TTX_REC_NO_EXPERT || !rp_routes_spread(r, row, a))
        rp_cube_add(&r->cube, row, a->token_id, a->n_tokens, 1, bytes, 0);
    if (a->attention_head != TTX_REC_NO_HEAD) add_head(r, a, tensor, bytes);
    add_access(r, a, row, tensor, bytes);
}

static void scan_token(ttx_report *r, const ttx_record *rec) {
    uint64_t ns = rec->end_ns > rec->timestamp_ns ? rec->end_ns - rec->timestamp_ns : 0;
    uint32_t n = rec->n_tokens ? rec->n_tokens : 1;
    rp_count *p = &r->phases[rec->phase == TTX_PHASE_GENERATE];
    p->n++;
    if (rec->batch != r->last_batch) p->ns += ns;
    r->last_batch = rec->batch;
    p->bytes += bounded(rec->size_bytes);
    rp_cube_token(&r->cube, rec->token_id, ns / n, bounded(rec->size_bytes));
    rp_map_time(&r->map, rec->end_ns)->tokens++;
    rp_routes_token(r, rec);
}

void rp_scan(ttx_report *r, const ttx_record *v, size_t n) {
    for (const ttx_record *end = v + n; v < end; v++) {
        r->kinds[v->kind]++;
        switch (v->kind) {
        case TTX_REC_ACCESS: scan_access(r, v); break;
        case TTX_REC_ROUTE: rp_routes_route(r, v); break;
        case TTX_REC_IO: rp_io_read(r, v); break;
        case TTX_REC_FAULT: rp_io_fault(r, v); break;
        case TTX_REC_TOKEN: scan_token(r, v); break;
        case TTX_REC_RESTART:
            end_access(r);
            rp_sequence_end(r);
            rp_routes_flush(r);
            rp_routes_restart(&r->routes);
            break;
        case TTX_REC_LONG: r->launch.long_ns = v->size_bytes; break;
        default: r->out_of_range++; break;
        }
    }
    r->records += n;
}

void rp_scan_end(ttx_report *r) {
    end_launch(r);
    end_access(r);
    rp_sequence_end(r);
    rp_routes_flush(r);
    rp_routes_restart(&r->routes);
}
