/* report_hints.c -- hints.json: what to pin, what to have ready, what comes next. docs/report.md
 * documents it; `ttx run --hints` reads it.
 */
#include "report_advice.h"

static void put_object(const ttx_report *r, rp_json *j, const rp_object *o) {
    const ttx_trace_tensor *t = &r->meta.tensors[o->tensor];
    uint64_t offset = t->offset;
    if (o->expert != TTX_REC_NO_EXPERT) offset += o->expert * t->expert_bytes;
    rp_text(j, "tensor_name", t->name);
    rp_id(j, "layer_id", t->layer, TTX_REC_NO_LAYER);
    uint16_t expert = rp_expert_of(r, o);
    if (expert != TTX_REC_NO_EXPERT) rp_u64(j, "expert_id", expert);
    rp_u64(j, "shard", t->shard);
    rp_u64(j, "file_offset", offset);
    rp_u64(j, "size_bytes", o->size);
}

static void put_tensors(const ttx_report *r, rp_json *j, const rp_advice *a, int heat) {
    rp_begin(j, heat > 0 ? "hot" : "cold", '[');
    for (uint32_t i = 0; i < a->n_tensor; i++) {
        const rp_tensor_sum *s = &a->sums[a->order[i]];
        if (s->heat != heat) continue;
        const ttx_trace_tensor *t = &r->meta.tensors[s->tensor];
        rp_begin(j, NULL, '{');
        rp_text(j, "tensor_name", t->name);
        rp_u64(j, "accesses", s->accesses);
        rp_u64(j, "bytes", s->bytes);
        rp_u64(j, "size_bytes", t->size);
        rp_num(j, "saved_per_pinned_mib", rp_ratio((double)s->bytes * 1048576, (double)t->size));
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_pins(const ttx_report *r, rp_json *j, const rp_advice *a) {
    rp_begin(j, "pin", '{');
    rp_u64(j, "ram", a->ram);
    rp_u64(j, "bytes", a->pinned);
    rp_u64(j, "saved_bytes", a->saved);
    rp_num(j, "saved_share", rp_ratio((double)a->saved, (double)r->file_bytes_read));
    rp_begin(j, "ranges", '[');
    for (uint32_t i = 0; i < a->n_pin; i++) {
        const rp_object *o = &r->objects[a->pins[i]];
        rp_begin(j, NULL, '{');
        put_object(r, j, o);
        rp_u64(j, "accesses", o->accesses);
        rp_u64(j, "bytes", o->bytes);
        rp_bool(j, "fits", a->fits[i]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    rp_end(j, '}');
}

static void put_warm(const ttx_report *r, rp_json *j, const rp_advice *a) {
    if (!r->routes.n_expert) return;
    rp_begin(j, "warm_experts", '[');
    for (uint32_t i = 0; i < a->n_warm; i++) {
        const rp_warm *w = &a->warm[i];
        rp_begin(j, NULL, '{');
        rp_u64(j, "layer_id", w->layer);
        rp_u64(j, "expert_id", w->expert);
        rp_u64(j, "tokens", w->tokens);
        rp_u64(j, "accesses", w->accesses);
        rp_u64(j, "size_bytes", w->size);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_prefetch(const ttx_report *r, rp_json *j) {
    rp_begin(j, "prefetch", '[');
    for (uint32_t i = 0; i < r->seq.n_base; i++) {
        if (r->seq.base[i] & RP_PART) continue; /* which row depends on the token */
        rp_begin(j, NULL, '{');
        put_object(r, j, &r->objects[r->seq.base[i]]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_curve(rp_json *j, const rp_advice *a) {
    rp_begin(j, "cache", '{');
    rp_begin(j, "curve", '[');
    for (int i = 0; i < RP_CACHE_POINTS; i++) {
        rp_begin(j, NULL, '{');
        rp_num(j, "size", a->curve[i].bytes);
        rp_num(j, "lru_accesses", a->curve[i].lru);
        rp_num(j, "lru_bytes", a->curve[i].lru_bytes);
        rp_num(j, "pinned_bytes", a->curve[i].pinned);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    rp_num(j, "lru_knee", a->curve[rp_cache_knee(a->curve, false)].bytes);
    rp_num(j, "pinned_knee", a->curve[rp_cache_knee(a->curve, true)].bytes);
    rp_end(j, '}');
}

static void put_sums(rp_json *j, const char *name, const rp_row *w) {
    rp_begin(j, name, '{');
    rp_u64(j, "records", w->records);
    rp_u64(j, "accesses", w->accesses);
    rp_u64(j, "bytes", w->bytes);
    rp_u64(j, "ns", w->ns);
    rp_end(j, '}');
}

static void put_traffic(rp_json *j, const rp_advice *a) {
    const rp_row *g = a->group;
    rp_begin(j, "traffic", '{');
    for (int i = 0; i < RP_GROUPS; i++) put_sums(j, rp_group_names[i], &g[i]);
    rp_num(j, "kv_share",
           rp_ratio((double)g[RP_CACHE].bytes,
                    (double)g[RP_CACHE].bytes + (double)g[RP_WEIGHTS].bytes));
    rp_end(j, '}');
}

static void put_slowest(rp_json *j, const ttx_report *r, const rp_advice *a) {
    rp_begin(j, "slowest_layers", '[');
    for (uint32_t i = 0; i < a->n_slowest; i++) {
        uint32_t l = a->slowest[i];
        rp_begin(j, NULL, '{');
        rp_u64(j, "layer_id", l);
        rp_u64(j, "ns", a->layer_ns[l]);
        rp_u64(j, "bytes", a->layer_bytes[l]);
        rp_num(j, "bytes_per_ns", rp_ratio((double)a->layer_bytes[l], (double)a->layer_ns[l]));
        rp_u64(j, "waited_ns", r->layer_stall[l]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_attention(rp_json *j, const ttx_report *r, const rp_advice *a) {
    rp_begin(j, "attention", '{');
    rp_begin(j, "order", '[');
    for (uint32_t i = 0; i < a->n_qkv; i++) rp_text(j, NULL, ttx_qkv_name(a->qkv_order[i]));
    rp_end(j, ']');
    rp_u64(j, "query_heads", r->meta.model.n_head);
    rp_u64(j, "kv_heads", r->meta.model.n_head_kv);
    for (uint32_t k = TTX_QKV_Q; k < TTX_QKV_COUNT; k++) put_sums(j, ttx_qkv_name(k), &a->qkv[k]);
    rp_end(j, '}');
}

static void put_order(rp_json *j, const ttx_report *r, const rp_advice *a) {
    const rp_reuse *u = &r->reuse;
    rp_begin(j, "order", '{');
    rp_num(j, "sequential_share", rp_ratio((double)u->sequential, (double)u->compared));
    rp_num(j, "reread_factor", a->reread);
    rp_num(j, "disk_reread_factor", a->disk_reread);
    rp_u64(j, "accesses_a_token", r->seq.n_base);
    rp_u64(j, "jumps_a_token", r->seq.base_jumps);
    rp_u64(j, "jumps_a_token_reordered", r->seq.n_base ? 1 : 0);
    rp_end(j, '}');
    rp_begin(j, "reuse", '{');
    rp_num(j, "mean_distance", a->distance_mean);
    rp_num(j, "p50_distance", a->distance_p50);
    rp_num(j, "p90_distance", a->distance_p90);
    rp_end(j, '}');
}

static void put_predictability(rp_json *j, const ttx_report *r, const rp_advice *a) {
    const rp_reuse *u = &r->reuse;
    rp_begin(j, "predictability", '{');
    rp_u64(j, "decode_tokens", r->seq.n_token);
    rp_num(j, "same_tensor_sequence", rp_ratio((double)r->seq.same_tensors, a->others));
    rp_num(j, "same_object_sequence", rp_ratio((double)r->seq.same_objects, a->others));
    rp_num(j, "next_by_last_successor", rp_ratio((double)u->hits_next, (double)u->with_next));
    if (r->routes.n_expert) {
        rp_num(j, "experts_by_previous_token", a->routes.by_previous);
        rp_num(j, "experts_by_frequency", a->routes.by_frequency);
        rp_num(j, "experts_by_chance", a->routes.by_chance);
    }
    rp_end(j, '}');
}

void ttx_report_hints_json(const ttx_report *r, FILE *out) {
    rp_advice a;
    rp_json j = {.f = out};
    rp_begin(&j, NULL, '{');
    rp_u64(&j, "format", 1);
    rp_text(&j, "trace", r->meta.dir);
    rp_text(&j, "warning", ttx_report_warning(r));
    rp_text(&j, "model_file", r->meta.model_file);
    rp_text(&j, "model_hash", r->meta.model_hash);
    rp_text(&j, "hot_by", r->set.hot_by == TTX_HOT_BY_BYTES ? "bytes" : "access");
    if (rp_advise(r, &a)) {
        put_tensors(r, &j, &a, 1);
        put_tensors(r, &j, &a, -1);
        put_pins(r, &j, &a);
        put_warm(r, &j, &a);
        put_prefetch(r, &j);
        put_curve(&j, &a);
        put_traffic(&j, &a);
        put_slowest(&j, r, &a);
        put_attention(&j, r, &a);
        put_order(&j, r, &a);
        put_predictability(&j, r, &a);
        rp_routes_json(r, &j, false);
    }
    rp_advice_free(&a);
    rp_end(&j, '}');
    fputc('\n', out);
}
