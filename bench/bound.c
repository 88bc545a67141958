/* bound.c -- how fast a test could run at most on a machine of measured limits.
 *
 * Every piece of a test (a batch of a prompt, a decode step) must read the weights of one token and
 * the keys and values that it attends to at least once, and must do its multiply-adds; it takes at
 * least the longer of the two. Caches may keep a model below twice their size, so nothing is said
 * about the decoding of those. The bound is of an engine that overlaps all and wastes nothing:
 * norms, softmax and what a batch of experts reads beyond one token's are not counted.
 */
#include "bench_int.h"

#include "kv.h"

typedef struct cost {
    double weight_bytes; /* of one token */
    double ops, ops_out; /* of each token; of each whose logits are wanted, besides */
    double kv_bytes;     /* of one position in one layer */
    double attn_ops;     /* of one token, one position, one layer */
} cost;

/* Is it computed for all tokens of a prompt? Past the last layer's attention only those go on whose
 * logits are wanted. */
static bool for_every_token(const ttx_model *m, const ttx_access *a) {
    if (a->layer == TTX_NO_LAYER) return false;
    if (a->layer + 1u < m->hp.n_layer) return true;
    static const ttx_role before[] = {TTX_W_ATTN_Q, TTX_W_ATTN_K, TTX_W_ATTN_V};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        const ttx_weight *w = ttx_model_weight(m, before[i], a->layer);
        if (w->tensor && w->tensor->index == a->tensor) return true;
    }
    return false;
}

static int cost_of(cost *c, const ttx_model *m, ttx_dtype k_type, ttx_dtype v_type, ttx_err *err) {
    const ttx_hparams *hp = &m->hp;
    ttx_plan plan = {0};
    int rc = ttx_plan_decode(m, &plan, err);
    *c = (cost){.kv_bytes = (double)ttx_kv_bytes(hp, 1, k_type, v_type) / hp->n_layer,
                .attn_ops = 2.0 * hp->n_head * (hp->d_k + hp->d_v)};
    for (size_t i = 0; i < plan.n && !rc; i++) {
        const ttx_access *a = &plan.v[i];
        const gguf_tensor *t = &gguf_tensors(m->file)[a->tensor];
        double used = a->n_expert ? (double)a->n_expert_used / a->n_expert : 1;
        c->weight_bytes += used * (double)a->range.size;
        if (a->op != TTX_OP_MUL_MAT && a->op != TTX_OP_MUL_MAT_ID) continue;
        if (t->n_dims < 2) continue; /* a bias */
        double ops = 2 * used * (double)a->range.size / (double)t->size * (double)t->n_elements;
        *(for_every_token(m, a) ? &c->ops : &c->ops_out) += ops;
    }
    ttx_plan_free(&plan);
    return rc;
}

/* Positions that a token at `pos` sees, summed over the layers. */
static double seen(const ttx_model *m, double pos) {
    double sum = 0;
    for (uint32_t il = 0; il < m->hp.n_layer; il++)
        sum += ttx_layer_is_swa(&m->hp, (int)il) && pos + 1 > m->hp.n_swa ? m->hp.n_swa : pos + 1;
    return sum;
}

/* Least seconds of n tokens from `pos` on, evaluated at once, n_out of them for their logits. Adds
 * what it rests on to the result. */
static double piece_s(bench_result *r, const ttx_model *m, const cost *c, const ttx_limits *lim,
                      double pos, double n, double n_out) {
    double bytes = c->weight_bytes + c->kv_bytes * seen(m, pos + n - 1);
    double ops = n * c->ops + n_out * c->ops_out + n * c->attn_ops * seen(m, pos + (n - 1) / 2);
    bool cached = ttx_model_bytes(m) < 2 * lim->cache_bytes;
    double read_s = lim->read_gbps > 0 && !cached ? bytes / lim->read_gbps * 1e-9 : 0;
    double compute_s = lim->peak_gops > 0 ? ops / lim->peak_gops * 1e-9 : 0;
    r->bytes_per_token += bytes;
    r->ops_per_token += ops;
    return read_s > compute_s ? read_s : compute_s;
}

int bench_bound(bench_result *r, const ttx_model *m, const ttx_limits *lim, ttx_err *err) {
    static const ttx_dtype types[] = {TTX_F16, TTX_F32, TTX_Q8_0};
    const bench_test *t = &r->test;
    cost c;
    int rc = cost_of(&c, m, types[t->k_type], types[t->v_type], err);
    if (rc) return rc;
    double s = 0, n = t->n_prompt + t->n_gen;
    r->bytes_per_token = r->ops_per_token = 0;
    int32_t pos = t->n_depth, end = t->n_depth + t->n_prompt;
    while (pos < end) {
        int32_t piece = end - pos < t->n_ubatch ? end - pos : t->n_ubatch;
        s += piece_s(r, m, &c, lim, pos, piece, pos + piece == end);
        pos += piece;
    }
    for (end += t->n_gen; pos < end; pos++) s += piece_s(r, m, &c, lim, pos, 1, 1);
    r->bytes_per_token /= n;
    r->ops_per_token /= n;
    bool cached = ttx_model_bytes(m) < 2 * lim->cache_bytes;
    bool known =
        (!t->n_prompt || lim->peak_gops > 0) && (!t->n_gen || (lim->read_gbps > 0 && !cached));
    r->bound_ts = known && s > 0 ? n / s : 0;
    return TTX_OK;
}
