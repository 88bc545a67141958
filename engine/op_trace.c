/* op_trace.c -- what a launch was, for the trace: its operands, its tokens, the KV cache.
 *
 * Called by op_launch when a launch is done and only if a trace is taken. Nothing here computes or
 * changes what is computed.
 */
#include "op_int.h"

void op_trace_probe(ttx_step *s, operand *v, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        v[i].residency = (uint8_t)ttx_trace_probe(s->rt->trace, v[i].range.shard, v[i].range.offset,
                                                  v[i].range.size);
}

/* Which tokens the launch served: all of the step, or those that moe has grouped. */
static void set_tokens(const ttx_step *s, ttx_record *r) {
    int64_t row = s->served_n ? s->served_row : 0;
    int64_t n = s->served_n ? s->served_n : s->n;
    if (s->kept) row = s->out_rows[row];
    r->token_id = (uint32_t)s->pos[row];
    r->n_tokens = (uint16_t)n;
}

static void set_expert(ttx_record *r, const operand *v) {
    r->expert_rank = v->rank1 ? (uint8_t)(v->rank1 - 1) : TTX_REC_NO_RANK;
    r->routing_score = v->rank1 ? v->score : __builtin_nanf("");
}

/* Operands in the file. */
static void record_operands(ttx_step *s, ttx_record *r, const operand *v, int64_t n) {
    ttx_trace *t = s->rt->trace;
    bool rows = r->operation_type == TTX_OP_GET_ROWS; /* one for each token */
    for (int64_t i = 0; i < n; i++) {
        r->tensor_idx = v[i].tensor;
        r->residency = v[i].residency;
        set_expert(r, &v[i]);
        if (rows) {
            r->token_id = (uint32_t)s->pos[i];
            r->n_tokens = 1;
        }
        ttx_trace_access(t, r, v[i].range.offset, v[i].range.size, v[i].p);
    }
}

/* One record of the cache: part of r's launch. */
static void put(ttx_trace *t, ttx_record *r, const uint8_t *p, uint64_t size) {
    r->tensor_ptr = (uintptr_t)p;
    r->size_bytes = size;
    *ttx_trace_slot(t) = *r;
    r->flags &= (uint8_t)~TTX_RECF_FIRST;
    r->duration_ns = 0;
}

/* Positions [from, to) of this layer's keys and values, of each KV head or of all together. */
static void record_cache(ttx_step *s, ttx_record r, int64_t from, int64_t to) {
    ttx_trace *t = s->rt->trace;
    const ttx_kv *kv = s->kv;
    bool heads = t->level >= TTX_LEVEL_HEAD;
    uint64_t n = (uint64_t)(to - from);
    uint32_t k_tensor = t->n_file_tensor + 2 * (uint32_t)s->layer;
    r.residency = TTX_RES_RESIDENT;
    if (!heads || from / kv->n_rows != (to - 1) / kv->n_rows) r.flags |= TTX_RECF_STRIDED;
    if (t->counts) {
        for (int i = 0; i < 2; i++) {
            t->counts[k_tensor + (uint32_t)i].accesses++;
            t->counts[k_tensor + (uint32_t)i].bytes += n * kv->n_head * (i ? kv->v_row : kv->k_row);
        }
        return;
    }
    for (int i = 0; i < 2; i++)
        for (uint32_t h = 0; h < (heads ? kv->n_head : 1); h++) {
            size_t row = i ? kv->v_row : kv->k_row;
            const uint8_t *p = i ? ttx_kv_v(kv, s->layer, (int)h, (uint32_t)from)
                                 : ttx_kv_k(kv, s->layer, (int)h, (uint32_t)from);
            r.tensor_idx = k_tensor + (uint32_t)i;
            r.qkv_type = i ? TTX_QKV_V : TTX_QKV_K;
            if (heads) r.attention_head = (uint16_t)h;
            put(t, &r, p, n * row * (heads ? 1 : kv->n_head));
        }
}

/* The query heads of attention: no bytes of their own, but they say whose keys they meet. */
static void record_queries(ttx_step *s, ttx_record r, int64_t from) {
    ttx_trace *t = s->rt->trace;
    if (t->level < TTX_LEVEL_HEAD) return;
    uint32_t group = s->hp->n_head / s->hp->n_head_kv;
    r.tensor_idx = t->n_file_tensor + 2 * (uint32_t)s->layer;
    r.qkv_type = TTX_QKV_Q;
    r.residency = TTX_RES_RESIDENT;
    r.flags &= (uint8_t)~TTX_RECF_FIRST;
    r.duration_ns = 0;
    for (uint32_t h = 0; h < s->hp->n_head; h++) {
        r.attention_head = (uint16_t)h;
        r.expert_rank = (uint8_t)(h / group);
        put(t, &r, ttx_kv_k(s->kv, s->layer, (int)(h / group), (uint32_t)from), 0);
    }
}

static void record_attention(ttx_step *s, ttx_record *r) {
    int64_t from = s->op->start[0], to = s->op->end[0];
    for (int64_t i = 1; i < s->n; i++) {
        if (s->op->start[i] < from) from = s->op->start[i];
        if (s->op->end[i] > to) to = s->op->end[i];
    }
    record_cache(s, *r, from, to);
    record_queries(s, *r, from);
}

/* A launch without a tensor: the bytes of its activations. */
static void record_activations(ttx_step *s, ttx_record *r) {
    ttx_trace *t = s->rt->trace;
    if (t->counts) {
        t->counts[t->n_tensor].accesses++;
        t->counts[t->n_tensor].bytes += s->act_bytes;
        return;
    }
    r->residency = TTX_RES_RESIDENT;
    r->size_bytes = s->act_bytes;
    *ttx_trace_slot(t) = *r;
}

void op_trace(ttx_step *s, ttx_op_kind op, const operand *v, int64_t n, uint64_t start) {
    ttx_trace *t = s->rt->trace;
    ttx_record r = ttx_record_none(TTX_REC_ACCESS);
    r.operation_type = (uint8_t)op;
    r.layer_id = s->layer < 0 ? TTX_REC_NO_LAYER : (uint16_t)s->layer;
    r.phase = s->cls == TTX_EXACT ? TTX_PHASE_GENERATE : TTX_PHASE_PROMPT;
    if (s->guess) r.flags |= TTX_RECF_GUESS;
    set_tokens(s, &r);
    r = ttx_trace_launch(t, start, ttx_trace_now(t), r);
    if (n) record_operands(s, &r, v, n);
    if (op == TTX_OP_FLASH_ATTN_EXT) {
        record_attention(s, &r);
    } else if (op == TTX_OP_SET_ROWS) {
        r.flags |= TTX_RECF_WRITE;
        record_cache(s, r, s->pos[0], s->pos[s->n - 1] + 1);
    } else if (!n) {
        record_activations(s, &r);
    }
    ttx_trace_publish(t);
}
