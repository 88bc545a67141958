/* op.c -- see op.h: the launch, and the operations that work row by row.
 *
 * How work is cut over the pool is decided in the op files; the rule of kernels.h makes every cut
 * give the same bits.
 */
#include "op_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SERIAL_VALUES = 16384 }; /* element-wise work below this is done before a thread wakes */

/* ---- the launch ---- */

static void plan_operands(ttx_step *s, ttx_op_kind op, const operand *v, int64_t n) {
    uint32_t launch = s->plan->n ? s->plan->v[s->plan->n - 1].launch + 1 : 0;
    for (int64_t i = 0; i < n; i++) {
        ttx_access a = {
            .op = op,
            .layer = s->layer < 0 ? TTX_NO_LAYER : (uint16_t)s->layer,
            .tensor = v[i].tensor,
            .range = v[i].range,
            .n_expert = v[i].n_expert,
            .n_expert_used = v[i].n_expert_used,
            .launch = launch,
            .row = v[i].row,
            .expert = v[i].n_expert ? v[i].expert : -1,
        };
        if (ttx_plan_add(s->plan, &a, s->err)) return;
    }
}

/* Acquires the operands, runs, releases. In a dry run only writes them down. */
void op_launch(ttx_step *s, ttx_op_kind op, operand *v, int64_t n, launch_fn run, void *ctx) {
    if (s->err->code || s->n == 0) return;
    if (s->plan) {
        plan_operands(s, op, v, n);
        return;
    }
    ttx_residency *r = s->rt->residency;
    bool traced = ttx_trace_on(s->rt->trace);
    if (traced && s->rt->trace->level == TTX_LEVEL_IO) op_trace_probe(s, v, n);
    int64_t held = 0;
    ttx_lease lease;
    for (int64_t i = 0; i < n; i++) /* rows that are not in memory are read side by side */
        if (v[i].row) ttx_residency_hint(r, v[i].range);
    while (held < n && !ttx_residency_acquire(r, v[held].range, &lease, s->err)) {
        if (lease.state) v[held].residency = (uint8_t)lease.state;
        v[held++].p = lease.p;
    }
    /* Waiting for bytes is no part of the launch: in a trace it is the time before it. */
    uint64_t start = traced ? ttx_trace_now(s->rt->trace) : 0;
    if (held == n) run(s, v, ctx);
    if (held == n && traced) op_trace(s, op, v, n, start);
    while (held > 0) ttx_residency_release(r, v[--held].range);
}

operand op_matrix(const ttx_weight *w, int64_t i) {
    return (operand){.tensor = ttx_weight_tensor(w, i)->index, .range = ttx_weight_range(w, i)};
}

operand op_whole(const ttx_weight *w) {
    operand v = op_matrix(w, 0);
    v.range.size = w->tensor->size;
    return v;
}

operand op_row(const ttx_weight *w, int64_t i) {
    operand v = op_whole(w);
    v.range.offset += (uint64_t)i * w->row_bytes;
    v.range.size = w->row_bytes;
    v.row = true;
    return v;
}

void op_pool(ttx_step *s, int64_t n, int64_t chunk, ttx_task task, void *ctx) {
    ttx_pool_run(s->rt->pool, n, chunk, s->n_threads, task, ctx);
}

/* Rows of element-wise work in parallel, unless there is too little of it. */
void op_rows(ttx_step *s, int64_t n, int64_t dim, ttx_task task, void *ctx) {
    int64_t chunk = n * dim <= SERIAL_VALUES ? n : 1 + SERIAL_VALUES / 4 / dim;
    op_pool(s, n, chunk, task, ctx);
}

/* ---- embedding ---- */

struct embed_ctx {
    ttx_buf y;
    ttx_dtype type;
    float scale;
};

static void run_embed(ttx_step *s, const operand *v, void *ctx) {
    const struct embed_ctx *e = ctx;
    const ttx_kernels *k = s->rt->kernels;
    for (int64_t t = 0; t < s->n; t++) {
        float *row = e->y.p + t * e->y.dim;
        k->dequant[e->type](row, v[t].p, e->y.dim);
        if (e->scale != 1) k->scale(row, e->scale, e->y.dim);
    }
    op_wrote(s, e->y);
}

void op_embed(ttx_step *s, ttx_buf y, const ttx_weight *w, float scale) {
    struct embed_ctx ctx = {y, w->tensor->type, scale};
    operand dry,
        *rows = s->plan ? &dry : s->op->operands; /* a dry run has one token, of no identity */
    for (int64_t t = 0; t < s->n; t++) rows[t] = op_row(w, s->plan ? 0 : s->tokens[t]);
    op_launch(s, TTX_OP_GET_ROWS, rows, s->n, run_embed, &ctx);
}

/* ---- norm ---- */

struct norm_ctx {
    const ttx_kernels *k;
    ttx_buf y, x;
    const float *w;
    int64_t group;
    float eps;
};

static void norm_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct norm_ctx *c = ctx;
    for (int64_t t = begin; t < end; t++)
        for (int64_t i = 0; i < c->x.dim; i += c->group)
            c->k->rms_norm(c->y.p + t * c->y.dim + i, c->x.p + t * c->x.dim + i, c->w, c->group,
                           c->eps);
}

static void run_norm(ttx_step *s, const operand *v, void *ctx) {
    struct norm_ctx *c = ctx;
    c->w = (const float *)v[0].p;
    op_rows(s, s->n, c->x.dim, norm_rows, c);
    op_wrote(s, c->y);
}

void op_rms_norm(ttx_step *s, ttx_buf y, ttx_buf x, const ttx_weight *w, int64_t group) {
    struct norm_ctx ctx = {.y = y, .x = x, .group = group, .eps = s->hp->rms_eps};
    if (!s->plan) ctx.k = s->rt->kernels;
    operand v = op_whole(w);
    op_launch(s, TTX_OP_RMS_NORM, &v, 1, run_norm, &ctx);
}

/* ---- element by element ---- */

struct elt_ctx {
    const ttx_kernels *k;
    ttx_buf y, a, b;
    ttx_glu kind;
    float cap;
};

static void glu_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct elt_ctx *c = ctx;
    int64_t at = begin * c->y.dim;
    c->k->glu(c->y.p + at, c->a.p + at, c->b.p + at, (end - begin) * c->y.dim, c->kind);
}

static void run_glu(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    struct elt_ctx *c = ctx;
    c->k = s->rt->kernels;
    op_rows(s, s->n, c->y.dim, glu_rows, c);
    op_wrote(s, c->y);
}

void op_glu(ttx_step *s, ttx_buf y, ttx_buf gate, ttx_buf up, ttx_glu kind) {
    struct elt_ctx ctx = {.y = y, .a = gate, .b = up, .kind = kind};
    op_touch(s, s->n * 3 * y.dim);
    op_launch(s, TTX_OP_GLU, NULL, 0, run_glu, &ctx);
}

static void add_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct elt_ctx *c = ctx;
    int64_t at = begin * c->y.dim;
    c->k->add(c->y.p + at, c->a.p + at, (end - begin) * c->y.dim);
}

static void run_add(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    struct elt_ctx *c = ctx;
    c->k = s->rt->kernels;
    op_rows(s, s->n, c->y.dim, add_rows, c);
    op_wrote(s, c->y);
}

void op_add(ttx_step *s, ttx_buf y, ttx_buf x) {
    struct elt_ctx ctx = {.y = y, .a = x};
    op_touch(s, s->n * 3 * y.dim);
    op_launch(s, TTX_OP_ADD, NULL, 0, run_add, &ctx);
}

static void softcap_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct elt_ctx *c = ctx;
    c->k->softcap(c->y.p + begin * c->y.dim, c->cap, (end - begin) * c->y.dim);
}

static void run_softcap(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    struct elt_ctx *c = ctx;
    c->k = s->rt->kernels;
    op_rows(s, s->n, c->y.dim, softcap_rows, c);
    op_wrote(s, c->y);
}

void op_softcap(ttx_step *s, ttx_buf y, float cap) {
    struct elt_ctx ctx = {.y = y, .cap = cap};
    op_touch(s, s->n * 2 * y.dim);
    if (cap > 0) op_launch(s, TTX_OP_SOFTCAP, NULL, 0, run_softcap, &ctx);
}

void op_keep_outputs(ttx_step *s, ttx_buf a, ttx_buf b) {
    if (s->layer != (int)s->hp->n_layer - 1 || s->plan || s->err->code) return;
    for (int64_t i = 0; i < s->n_out; i++) {
        int64_t from = s->out_rows[i];
        if (from == i) continue;
        memcpy(a.p + i * a.dim, a.p + from * a.dim, (size_t)a.dim * sizeof *a.p);
        memcpy(b.p + i * b.dim, b.p + from * b.dim, (size_t)b.dim * sizeof *b.p);
    }
    s->n = s->n_out;
    s->kept = true;
    s->op->act_of = NULL; /* made for another number of columns */
}

struct gate_ctx {
    const ttx_kernels *k;
    ttx_buf y, g;
};

static void gate_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct gate_ctx *c = ctx;
    for (int64_t t = begin; t < end; t++) {
        double sigmoid = 1 / (1 + exp(-(double)c->g.p[t * c->g.dim]));
        c->k->scale(c->y.p + t * c->y.dim, (float)sigmoid, c->y.dim);
    }
}

static void run_gate(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    struct gate_ctx *c = ctx;
    c->k = s->rt->kernels;
    op_rows(s, s->n, c->y.dim, gate_rows, c);
    op_wrote(s, c->y);
}

void op_gate_rows(ttx_step *s, ttx_buf y, ttx_buf g) {
    struct gate_ctx ctx = {.y = y, .g = g};
    op_touch(s, s->n * (2 * y.dim + g.dim));
    op_launch(s, TTX_OP_SCALE, NULL, 0, run_gate, &ctx);
}

/* ---- state ---- */

/* The longest input of any product. */
static int64_t longest_k(const ttx_model *m) {
    int64_t k = m->hp.n_embd;
    for (uint32_t il = 0; il < m->hp.n_layer; il++)
        for (int r = TTX_W_PER_LAYER; r < TTX_W_COUNT; r++) {
            const ttx_weight *w = ttx_model_weight(m, (ttx_role)r, (int)il);
            if (w->tensor && w->rows > 1 && w->k > k) k = w->k;
        }
    return k;
}

/* Scratch of the hungriest kernel. */
static size_t thread_scratch(const ttx_model *m) {
    size_t mm = ttx_matmul_scratch(longest_k(m)), attn = ttx_attn_scratch(m->hp.d_k, m->hp.d_v);
    return ((mm > attn ? mm : attn) + 63) / 64 * 64;
}

/* Sizes of the pieces, in the order of allocation. */
enum {
    P_Q8,
    P_D,
    P_SUM,
    P_Q16,
    P_D16,
    P_SUM16,
    P_PANEL,
    P_OPERANDS,
    P_JOBS,
    P_SCRATCH,
    P_PARTS,
    P_START,
    P_END,
    P_SINKS,
    P_COUNT
};

static void piece_sizes(const ttx_model *m, const ttx_op_limits *lim, size_t size[P_COUNT]) {
    const ttx_hparams *hp = &m->hp;
    size_t n = (size_t)lim->n_tokens, k = (size_t)longest_k(m);
    size_t n_chunk = (lim->n_ctx + TTX_ATTN_CHUNK - 1) / TTX_ATTN_CHUNK;
    size_t ranges = n > hp->n_head ? n : hp->n_head;
    size_t columns = n > (size_t)lim->k_experts ? n : (size_t)lim->k_experts;
    size_t operands = n >= 2 * OP_MAX_JOBS ? n + 1 : 2 * OP_MAX_JOBS; /* + 1: a bias */
    int forms = ttx_kernels_forms(lim->kernels);
    size_t q8 = forms & TTX_ACT_Q8 ? columns : 0, q16 = forms & TTX_ACT_Q16 ? columns : 0;
    size_t panel = forms & TTX_ACT_PANEL ? columns : 0;
    size[P_Q8] = q8 * k;
    size[P_D] = q8 * ((k + 31) / 32) * sizeof(float);
    size[P_SUM] = q8 * ((k + 15) / 16) * sizeof(int16_t);
    size[P_Q16] = q16 * k * sizeof(int16_t);
    size[P_D16] = q16 * (size_t)ttx_q16_blocks((int64_t)k) * sizeof(float);
    size[P_SUM16] = q16 * ((k + 15) / 16) * sizeof(int32_t);
    size[P_PANEL] = ttx_panel_bytes((int64_t)((k + 31) / 32 * 32), (int64_t)panel);
    size[P_OPERANDS] = operands * sizeof(operand);
    size[P_JOBS] = OP_MAX_JOBS * sizeof(mm_job);
    size[P_SCRATCH] = (size_t)lim->n_threads * thread_scratch(m);
    size[P_PARTS] = n_chunk * hp->n_head * (size_t)ttx_attn_part_len(hp->d_v) * sizeof(float);
    size[P_START] = size[P_END] = ranges * sizeof(int32_t);
    size[P_SINKS] = hp->n_head * OP_QUERY_TILE * sizeof(float);
}

uint64_t ttx_op_bytes(const ttx_model *m, const ttx_op_limits *lim) {
    size_t size[P_COUNT];
    uint64_t sum = op_moe_bytes(m, lim);
    piece_sizes(m, lim, size);
    for (int i = 0; i < P_COUNT; i++) sum += size[i];
    return sum;
}

int ttx_op_open(ttx_op_state **out, const ttx_model *m, const ttx_op_limits *lim, ttx_err *err) {
    *out = NULL;
    size_t size[P_COUNT];
    void *p[P_COUNT];
    ttx_op_state *op = calloc(1, sizeof *op);
    if (!op) return ttx_fail_nomem(err, "session scratch", sizeof *op);
    piece_sizes(m, lim, size);
    int rc = TTX_OK;
    for (int i = 0; i < P_COUNT && !rc; i++)
        if (!size[i])
            p[i] = NULL;
        else if (!(p[i] = ttx_arena_alloc(&op->arena, size[i])))
            rc = ttx_fail_nomem(err, "session scratch", size[i]);
    if (!rc) rc = op_moe_open(op, m, lim, err);
    if (rc) {
        ttx_op_close(op);
        return rc;
    }
    op->act.q8 = p[P_Q8];
    op->act.d = p[P_D];
    op->act.sum = p[P_SUM];
    op->act.q16 = p[P_Q16];
    op->act.d16 = p[P_D16];
    op->act.sum16 = p[P_SUM16];
    op->act.panel = p[P_PANEL];
    op->operands = p[P_OPERANDS];
    op->jobs = p[P_JOBS];
    op->scratch = p[P_SCRATCH];
    op->scratch_bytes = thread_scratch(m);
    op->parts = p[P_PARTS];
    op->start = p[P_START];
    op->end = p[P_END];
    op->sinks = p[P_SINKS];
    *out = op;
    return TTX_OK;
}

void ttx_op_reset(ttx_op_state *op) {
    op->act_of = NULL;
}

void ttx_op_close(ttx_op_state *op) {
    if (!op) return;
    ttx_arena_free(&op->arena);
    free(op);
}
