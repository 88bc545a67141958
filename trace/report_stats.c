/* report_stats.c -- statistics.json. docs/report.md defines every number. */
#include "report_int.h"

#include <stdlib.h>
#include <string.h>

/* ---- sums over rows ---- */

static void add_row(rp_row *to, const rp_row *from) {
    to->records += from->records;
    to->accesses += from->accesses;
    to->bytes += from->bytes;
    to->written += from->written;
    to->ns += from->ns;
    to->stall_ns += from->stall_ns;
    for (int i = 0; i < TTX_RES_COUNT; i++) {
        to->residency[i].n += from->residency[i].n;
        to->residency[i].bytes += from->residency[i].bytes;
    }
}

static void put_sums(rp_json *j, const rp_row *s) {
    rp_u64(j, "records", s->records);
    rp_u64(j, "accesses", s->accesses);
    rp_u64(j, "bytes", s->bytes);
    rp_u64(j, "written", s->written);
    rp_u64(j, "ns", s->ns);
    rp_u64(j, "stall_ns", s->stall_ns);
}

static const char *component_of(const ttx_report *r, const rp_row *w) {
    return w->tensor == TTX_REC_NO_TENSOR ? "activation" : r->meta.tensors[w->tensor].component;
}

static void put_by_component(const ttx_report *r, rp_json *j) {
    enum { MOST = 64 };
    const char *names[MOST];
    rp_row sums[MOST] = {0};
    int n = 0;
    for (uint32_t i = 0; i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        if (!w->records) continue;
        const char *name = component_of(r, w);
        int k = 0;
        while (k < n && strcmp(names[k], name) != 0) k++;
        if (k == MOST) k = MOST - 1; /* no model has so many */
        if (k == n) names[n++] = name;
        add_row(&sums[k], w);
    }
    rp_begin(j, "components", '[');
    for (int k = 0; k < n; k++) {
        rp_begin(j, NULL, '{');
        rp_text(j, "component", names[k]);
        put_sums(j, &sums[k]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_by_op(const ttx_report *r, rp_json *j) {
    rp_row sums[RP_OPS][2] = {0};
    for (uint32_t i = 0; i < r->cube.n_row; i++)
        add_row(&sums[r->cube.rows[i].op][r->cube.rows[i].phase], &r->cube.rows[i]);
    rp_begin(j, "operations", '[');
    bool known = r->meta.level != TTX_LEVEL_STATS;
    for (int op = 0; op < RP_OPS && known; op++)
        for (uint32_t phase = 0; phase < 2; phase++) {
            if (!sums[op][phase].records) continue;
            rp_begin(j, NULL, '{');
            rp_text(j, "operation_type", rp_op_name((uint8_t)op));
            rp_text(j, "phase", ttx_phase_name(phase));
            put_sums(j, &sums[op][phase]);
            rp_end(j, '}');
        }
    rp_end(j, ']');
}

static void put_by_layer(const ttx_report *r, rp_json *j) {
    rp_row *sums = calloc(r->n_layer + 1, sizeof *sums);
    rp_row *weights = calloc(r->n_layer + 1, sizeof *weights);
    for (uint32_t i = 0; sums && weights && i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        uint32_t layer = w->layer < r->n_layer ? w->layer : r->n_layer;
        add_row(&sums[layer], w);
        if (w->tensor < r->meta.n_file_tensor) add_row(&weights[layer], w);
    }
    rp_begin(j, "layers", '[');
    for (uint32_t l = 0; sums && weights && l <= r->n_layer; l++) {
        rp_begin(j, NULL, '{');
        rp_id(j, "layer_id", l, r->n_layer);
        put_sums(j, &sums[l]);
        rp_u64(j, "weight_bytes", weights[l].bytes);
        rp_u64(j, "gap_ns", r->layer_gap[l]);
        rp_u64(j, "waited_ns", r->layer_stall[l]);
        rp_put_layer_io(r, j, l);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    free(sums);
    free(weights);
}

/* ---- heads ---- */

static void put_by_qkv(const ttx_report *r, rp_json *j) {
    rp_row sums[TTX_QKV_COUNT] = {0};
    for (uint32_t i = 0; i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        if (w->tensor < r->meta.n_file_tensor) add_row(&sums[r->meta.tensors[w->tensor].qkv], w);
    }
    rp_begin(j, "qkv", '[');
    for (uint32_t k = TTX_QKV_Q; k < TTX_QKV_COUNT; k++) {
        rp_begin(j, NULL, '{');
        rp_text(j, "qkv_type", ttx_qkv_name(k));
        put_sums(j, &sums[k]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

enum { HEAD_N, HEAD_BYTES, HEAD_WRITTEN };

static void put_head_line(rp_json *j, const char *name, const rp_head *v, uint32_t n, int what) {
    rp_begin(j, name, '[');
    for (uint32_t h = 0; h < n; h++)
        rp_u64(j, NULL, what == HEAD_N ? v[h].n : what == HEAD_BYTES ? v[h].bytes : v[h].written);
    rp_end(j, ']');
}

static bool any_heads(const rp_head *v, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (v[i].n) return true;
    return false;
}

static void put_heads(const ttx_report *r, rp_json *j) {
    static const char *const names[] = {"", "q", "k", "v", "o"};
    static const char *const name_bytes[] = {"", "q_bytes", "k_bytes", "v_bytes", "o_bytes"};
    const rp_heads *h = &r->heads;
    rp_begin(j, "heads", '[');
    for (uint32_t l = 0; l < r->n_layer; l++) {
        const rp_head *w = h->weights + (size_t)l * TTX_QKV_COUNT * h->n_head;
        const rp_head *c = h->cache + (size_t)l * 2 * h->n_head;
        if (!any_heads(w, (size_t)TTX_QKV_COUNT * h->n_head) &&
            !any_heads(c, (size_t)2 * h->n_head))
            continue;
        rp_begin(j, NULL, '{');
        rp_u64(j, "layer_id", l);
        for (uint32_t k = TTX_QKV_Q; k < TTX_QKV_COUNT; k++) {
            uint32_t n =
                k == TTX_QKV_K || k == TTX_QKV_V ? r->meta.model.n_head_kv : r->meta.model.n_head;
            if (n > h->n_head || !n) n = h->n_head;
            put_head_line(j, names[k], w + (size_t)k * h->n_head, n, HEAD_N);
            put_head_line(j, name_bytes[k], w + (size_t)k * h->n_head, n, HEAD_BYTES);
        }
        uint32_t n_kv = r->meta.model.n_head_kv;
        if (n_kv > h->n_head || !n_kv) n_kv = h->n_head;
        put_head_line(j, "cache_k_read", c, n_kv, HEAD_BYTES);
        put_head_line(j, "cache_v_read", c + h->n_head, n_kv, HEAD_BYTES);
        put_head_line(j, "cache_k_written", c, n_kv, HEAD_WRITTEN);
        put_head_line(j, "cache_v_written", c + h->n_head, n_kv, HEAD_WRITTEN);
        rp_begin(j, "query_heads", '[');
        for (uint32_t i = 0; i < h->n_head; i++)
            rp_u64(j, NULL, h->queries[(size_t)l * h->n_head + i]);
        rp_end(j, ']');
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

/* ---- tensors ---- */

enum { BRIEF_TENSORS = 8192 };

static void put_tensor(const ttx_report *r, rp_json *j, const rp_tensor_sum *s) {
    const ttx_trace_tensor *t = &r->meta.tensors[s->tensor];
    bool file = s->tensor < r->meta.n_file_tensor;
    rp_begin(j, NULL, '{');
    rp_u64(j, "tensor_idx", s->tensor);
    rp_text(j, "tensor_name", t->name);
    rp_text(j, "component_type", t->component);
    rp_id(j, "layer_id", t->layer, TTX_REC_NO_LAYER);
    rp_text(j, "qkv_type", ttx_qkv_name(t->qkv));
    rp_id(j, "shard", t->shard, TTX_REC_NO_SHARD);
    rp_id(j, "file_offset", t->offset, TTX_REC_NO_OFFSET);
    rp_u64(j, "size_bytes", t->size);
    rp_u64(j, "records", s->records);
    rp_u64(j, "accesses", s->accesses);
    rp_u64(j, "bytes", s->bytes);
    rp_u64(j, "written", s->written);
    rp_u64(j, "ns", s->ns);
    if (file) {
        rp_text(j, "category", s->heat > 0 ? "hot" : s->heat < 0 ? "cold" : "");
        rp_u64(j, "rank", s->rank);
        rp_u64(j, "distinct_bytes", s->distinct);
        rp_num(j, "saved_per_pinned_mib", rp_ratio((double)s->bytes * 1048576, (double)t->size));
    }
    for (int k = 1; k < TTX_RES_COUNT; k++)
        if (s->residency[k]) rp_u64(j, ttx_residency_name((uint32_t)k), s->residency[k]);
    if (s->stall_ns) rp_u64(j, "stall_ns", s->stall_ns);
    if (s->reads || s->device_reads) {
        rp_u64(j, "reads", s->reads);
        rp_u64(j, "read_bytes", s->read_bytes);
        rp_num(j, "reread_factor", rp_ratio((double)s->read_bytes, (double)s->read_distinct));
        rp_u64(j, "device_reads", s->device_reads);
        rp_u64(j, "device_bytes", s->device_bytes);
        rp_num(j, "device_reread_factor",
               rp_ratio((double)s->device_bytes, (double)s->device_distinct));
    }
    if (s->minor) rp_u64(j, "minor_faults", s->minor);
    if (s->major) rp_u64(j, "major_faults", s->major);
    rp_end(j, '}');
}

static void put_tensors(const ttx_report *r, rp_json *j, bool brief) {
    uint32_t n, *order;
    rp_tensor_sum *v = rp_tensor_sums(r, r->set.hot_by, &order, &n);
    rp_begin(j, "tensors", '[');
    for (uint32_t i = 0; v && i < r->meta.n_tensor && (!brief || i < BRIEF_TENSORS); i++)
        put_tensor(r, j, &v[i]);
    rp_end(j, ']');
    rp_text(j, "hot_by", r->set.hot_by == TTX_HOT_BY_BYTES ? "bytes" : "access");
    /* Where the cut falls among equals, which of them is hot is only their order in the file. */
    uint32_t hot = (n + 9) / 10;
    rp_bool(
        j, "hot_cut_among_equals",
        v && hot && hot < n && v[order[hot - 1]].accesses == v[order[hot]].accesses &&
            (r->set.hot_by == TTX_HOT_BY_ACCESS || v[order[hot - 1]].bytes == v[order[hot]].bytes));
    free(v);
    free(order);
}

/* ---- order ---- */

static void put_order(const ttx_report *r, rp_json *j) {
    const rp_reuse *u = &r->reuse;
    const rp_sequence *s = &r->seq;
    rp_begin(j, "sequential", '{');
    rp_u64(j, "gap_bytes_at_most", RP_NEAR);
    rp_u64(j, "transitions", u->compared);
    rp_u64(j, "sequential", u->sequential);
    rp_num(j, "share", rp_ratio((double)u->sequential, (double)u->compared));
    rp_u64(j, "sequential_bytes", u->sequential_bytes);
    rp_num(j, "share_of_bytes", rp_ratio((double)u->sequential_bytes, (double)r->file_bytes_read));
    rp_u64(j, "jumps", u->jumps);
    rp_u64(j, "skipped_bytes", u->gap_bytes);
    rp_end(j, '}');
    rp_begin(j, "predictability", '{');
    rp_u64(j, "decode_tokens", s->n_token);
    rp_u64(j, "accesses_of_base_token", s->n_base);
    rp_u64(j, "jumps_of_base_token", s->base_jumps);
    double others = s->n_token > 1 ? (double)(s->n_token - 1) : 0;
    rp_num(j, "same_tensor_sequence", rp_ratio((double)s->same_tensors, others));
    rp_num(j, "same_object_sequence", rp_ratio((double)s->same_objects, others));
    rp_num(j, "next_by_last_successor", rp_ratio((double)u->hits_next, (double)u->with_next));
    rp_end(j, '}');
}

static void put_reuse(const ttx_report *r, rp_json *j) {
    const rp_reuse *u = &r->reuse;
    uint64_t n = 0;
    for (int i = 0; i < RP_DISTANCES; i++) n += u->n[i];
    rp_begin(j, "reuse", '{');
    rp_u64(j, "first_uses", u->cold);
    rp_u64(j, "first_uses_bytes", u->cold_bytes);
    rp_u64(j, "reuses", n);
    rp_num(j, "mean_distance", rp_ratio(u->distance_sum, (double)n));
    rp_u64(j, "rows_left_out", u->partial);
    rp_u64(j, "rows_left_out_bytes", u->partial_bytes);
    rp_begin(j, "histogram", '[');
    for (uint32_t i = 0; i < RP_DISTANCES; i++) {
        if (!u->n[i]) continue;
        rp_begin(j, NULL, '{');
        rp_u64(j, "upto", rp_distance_of(i));
        rp_u64(j, "accesses", u->n[i]);
        rp_u64(j, "bytes", u->bytes[i]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    rp_cache_point v[RP_CACHE_POINTS];
    if (rp_cache_curve(r, v)) {
        rp_begin(j, "cache", '[');
        for (int i = 0; i < RP_CACHE_POINTS; i++) {
            rp_begin(j, NULL, '{');
            rp_num(j, "size", v[i].bytes);
            rp_num(j, "lru", v[i].lru);
            rp_num(j, "lru_bytes", v[i].lru_bytes);
            rp_num(j, "pinned_bytes", v[i].pinned);
            rp_end(j, '}');
        }
        rp_end(j, ']');
        rp_num(j, "lru_knee", v[rp_cache_knee(v, false)].bytes);
        rp_num(j, "pinned_knee", v[rp_cache_knee(v, true)].bytes);
    }
    rp_end(j, '}');
}

/* ---- all ---- */

static void put_run(const ttx_report *r, rp_json *j) {
    const ttx_trace_meta *m = &r->meta;
    rp_text(j, "trace", m->dir);
    rp_text(j, "warning", ttx_report_warning(r));
    rp_text(j, "level", ttx_trace_level_name(m->level));
    rp_text(j, "start_time_utc", m->start_time_utc);
    rp_begin(j, "model", '{');
    rp_text(j, "file", m->model_file);
    rp_text(j, "hash", m->model_hash);
    rp_text(j, "architecture", m->model.architecture);
    rp_u64(j, "num_layers", m->model.n_layer);
    rp_u64(j, "num_heads", m->model.n_head);
    rp_u64(j, "num_kv_heads", m->model.n_head_kv);
    rp_u64(j, "hidden_dim", m->model.n_embd);
    rp_u64(j, "vocab_size", m->model.n_vocab);
    rp_u64(j, "num_experts", m->model.n_expert);
    rp_u64(j, "num_experts_used", m->model.n_expert_used);
    rp_u64(j, "file_bytes", r->file_bytes);
    rp_end(j, '}');
}

static void put_totals(const ttx_report *r, rp_json *j) {
    rp_row all = {0}, file = {0}, cache = {0};
    for (uint32_t i = 0; i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        add_row(&all, w);
        if (w->tensor == TTX_REC_NO_TENSOR) continue;
        add_row(w->tensor < r->meta.n_file_tensor ? &file : &cache, w);
    }
    rp_begin(j, "totals", '{');
    rp_u64(j, "records", r->records);
    for (uint32_t k = TTX_REC_ACCESS; k < TTX_REC_COUNT; k++)
        rp_u64(j, ttx_rec_kind_name(k), r->kinds[k]);
    rp_u64(j, "lost", r->lost);
    rp_u64(j, "out_of_range", r->out_of_range);
    rp_u64(j, "launches", r->launches);
    rp_u64(j, "accesses", all.accesses);
    rp_u64(j, "bytes", all.bytes);
    rp_u64(j, "weight_bytes", file.bytes);
    rp_u64(j, "cache_bytes", cache.bytes);
    rp_u64(j, "activation_bytes", all.bytes - file.bytes - cache.bytes);
    rp_u64(j, "busy_ns", all.ns);
    rp_u64(j, "last_ns", r->map.last_ns);
    uint64_t distinct = rp_io_distinct(&r->io, r->io.touched, 0, r->file_bytes);
    rp_u64(j, "distinct_bytes", distinct);
    rp_num(j, "reuse_factor", rp_ratio((double)r->file_bytes_read, (double)distinct));
    for (int p = 0; p < 2; p++) {
        rp_begin(j, p ? "decode" : "prompt", '{');
        rp_u64(j, "tokens", r->phases[p].n);
        rp_u64(j, "ns", r->phases[p].ns);
        rp_u64(j, "device_bytes", r->phases[p].bytes);
        rp_num(j, "tokens_per_second",
               rp_ratio((double)r->phases[p].n * 1e9, (double)r->phases[p].ns));
        rp_end(j, '}');
    }
    rp_end(j, '}');
}

void rp_statistics(const ttx_report *r, FILE *out, bool brief) {
    rp_json j = {.f = out};
    rp_begin(&j, NULL, '{');
    rp_u64(&j, "format", 1);
    put_run(r, &j);
    put_totals(r, &j);
    put_by_component(r, &j);
    put_by_op(r, &j);
    put_by_layer(r, &j);
    put_by_qkv(r, &j);
    put_heads(r, &j);
    rp_put_io(r, &j);
    put_order(r, &j);
    put_reuse(r, &j);
    rp_put_experts(r, &j);
    rp_routes_json(r, &j, brief);
    put_tensors(r, &j, brief);
    rp_end(&j, '}');
    fputc('\n', out);
}

void rp_put_compared(const ttx_report *r, rp_json *j) {
    rp_text(j, "level", ttx_trace_level_name(r->meta.level));
    put_by_component(r, j);
    put_by_op(r, j);
    put_by_layer(r, j);
    put_reuse(r, j);
}

void ttx_report_statistics(const ttx_report *r, FILE *out) {
    rp_statistics(r, out, false);
}
