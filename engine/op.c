/* op.c -- see op.h.
 *
 * The door to the kernels: every operation below describes its weights as operands and goes through
 * launch(). How work is cut over the pool is decided here; the rule of kernels.h makes every cut
 * give the same bits.
 */
#include "op.h"

#include "kernels.h"
#include "rope.h"

#include <stdlib.h>
#include <string.h>

enum {
    MAX_PROJ = 4,
    SERIAL_VALUES = 16384, /* element-wise work below this is done before another thread wakes */
    PROMPT_ROWS = 64,      /* weight rows a chunk of a GEMM */
    QUERY_TILE = 64,       /* queries a chunk of prompt attention */
};

/* A weight, or a part of one, that a launch reads. */
typedef struct operand {
    uint32_t tensor;
    ttx_range range;
    uint32_t n_expert, n_expert_used;
    const uint8_t *p; /* filled by launch() */
} operand;

struct ttx_op_state {
    ttx_arena arena;
    ttx_act act;         /* planes for n_tokens columns of the longest input */
    const float *act_of; /* the buffer that the planes were made from; NULL: none */
    int act_forms;       /* which of them are filled */
    operand *rows;       /* [n_tokens] for embedding rows */
    uint8_t *scratch;    /* scratch_bytes for each thread */
    size_t scratch_bytes;
    float *parts;         /* attention of one token over position chunks, KV head by KV head */
    int32_t *start, *end; /* [max(n_tokens, n_head)] */
};

typedef void (*launch_fn)(ttx_step *s, const operand *v, void *ctx);

/* ---- the launch ---- */

static void plan_operands(ttx_step *s, ttx_op_kind op, const operand *v, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        ttx_access a = {
            .op = op,
            .layer = s->layer < 0 ? TTX_NO_LAYER : (uint16_t)s->layer,
            .tensor = v[i].tensor,
            .range = v[i].range,
            .n_expert = v[i].n_expert,
            .n_expert_used = v[i].n_expert_used,
        };
        if (ttx_plan_add(s->plan, &a, s->err)) return;
    }
}

/* Acquires the operands, runs, releases. In a dry run only writes them down. */
static void launch(ttx_step *s, ttx_op_kind op, operand *v, int64_t n, launch_fn run, void *ctx) {
    if (s->err->code || s->n == 0) return;
    if (s->plan) {
        plan_operands(s, op, v, n);
        return;
    }
    ttx_residency *r = s->rt->residency;
    int64_t held = 0;
    while (held < n && !ttx_residency_acquire(r, v[held].range, &v[held].p, s->err)) held++;
    if (held == n) run(s, v, ctx);
    while (held > 0) ttx_residency_release(r, v[--held].range);
}

static operand whole(const ttx_weight *w) {
    return (operand){.tensor = w->tensor->index, .range = ttx_weight_range(w, 0)};
}

static void pool_run(ttx_step *s, int64_t n, int64_t chunk, ttx_task task, void *ctx) {
    ttx_pool_run(s->rt->pool, n, chunk, s->n_threads, task, ctx);
}

/* Rows of element-wise work in parallel, unless there is too little of it. */
static void run_rows(ttx_step *s, int64_t n, int64_t dim, ttx_task task, void *ctx) {
    int64_t chunk = n * dim <= SERIAL_VALUES ? n : 1 + SERIAL_VALUES / 4 / dim;
    pool_run(s, n, chunk, task, ctx);
}

/* Must be called by whatever writes a buffer: quantised copies of it are stale. */
static void wrote(ttx_step *s, ttx_buf y) {
    if (s->op->act_of == y.p) s->op->act_of = NULL;
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
    wrote(s, e->y);
}

void op_embed(ttx_step *s, ttx_buf y, const ttx_weight *w, float scale) {
    struct embed_ctx ctx = {y, w->tensor->type, scale};
    operand dry, *rows = s->plan ? &dry : s->op->rows; /* a dry run has one token, of no identity */
    for (int64_t t = 0; t < s->n; t++) {
        rows[t] = whole(w);
        rows[t].range.size = w->row_bytes;
        if (!s->plan) rows[t].range.offset += (uint64_t)s->tokens[t] * w->row_bytes;
    }
    launch(s, TTX_OP_GET_ROWS, rows, s->n, run_embed, &ctx);
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
    run_rows(s, s->n, c->x.dim, norm_rows, c);
    wrote(s, c->y);
}

void op_rms_norm(ttx_step *s, ttx_buf y, ttx_buf x, const ttx_weight *w, int64_t group) {
    struct norm_ctx ctx = {.y = y, .x = x, .group = group, .eps = s->hp->rms_eps};
    if (!s->plan) ctx.k = s->rt->kernels;
    operand v = whole(w);
    launch(s, TTX_OP_RMS_NORM, &v, 1, run_norm, &ctx);
}

/* ---- matrix products ---- */

struct project_ctx {
    const ttx_kernels *k;
    const ttx_op_state *op;
    ttx_class cls;
    int n;
    int64_t n_cols;
    int64_t
        first[MAX_PROJ + 1]; /* projection i has the rows [first[i], first[i+1]) of the launch */
    ttx_mm mm[MAX_PROJ];
    ttx_dtype type[MAX_PROJ];
    const ttx_weight *bias[MAX_PROJ];
    const float *bias_p[MAX_PROJ];
};

static void project_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    const struct project_ctx *c = ctx;
    void *scratch = c->op->scratch + (size_t)worker * c->op->scratch_bytes;
    for (int i = 0; i < c->n; i++) {
        int64_t r0 = begin > c->first[i] ? begin : c->first[i];
        int64_t r1 = end < c->first[i + 1] ? end : c->first[i + 1];
        if (r0 >= r1) continue;
        r0 -= c->first[i];
        r1 -= c->first[i];
        const ttx_mm *m = &c->mm[i];
        c->k->matmul[c->cls][c->type[i]](m, r0, r1, scratch);
        for (int64_t t = 0; c->bias_p[i] && t < c->n_cols; t++)
            c->k->add(m->y + t * m->ldy + r0, c->bias_p[i] + r0, r1 - r0);
    }
}

struct quant_ctx {
    const ttx_kernels *k;
    const ttx_act *act;
};

static void quant_columns(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct quant_ctx *c = ctx;
    c->k->act_q8(c->act, begin, end);
}

/* Makes the forms of x that the launch's kernels read, unless an earlier launch has. */
static void prepare_act(ttx_step *s, ttx_buf x, int forms) {
    ttx_op_state *op = s->op;
    if (op->act_of != x.p) {
        op->act_of = x.p;
        op->act_forms = TTX_ACT_F32; /* the buffer itself */
        op->act.f32 = x.p;
        op->act.ld = op->act.k = x.dim;
        op->act.n_cols = s->n;
    }
    if ((forms & TTX_ACT_Q8) && !(op->act_forms & TTX_ACT_Q8)) {
        struct quant_ctx ctx = {s->rt->kernels, &op->act};
        run_rows(s, s->n, x.dim, quant_columns, &ctx);
        op->act_forms |= TTX_ACT_Q8;
    }
}

static void run_project(ttx_step *s, const operand *v, void *ctx) {
    struct project_ctx *c = ctx;
    int n_bias = 0;
    for (int i = 0; i < c->n; i++) {
        c->mm[i].w = v[i].p;
        c->mm[i].x = &s->op->act;
        if (c->bias[i]) c->bias_p[i] = (const float *)v[c->n + n_bias++].p;
    }
    int64_t rows = c->first[c->n], chunk = PROMPT_ROWS;
    if (c->cls == TTX_EXACT) { /* a few chunks a thread: contiguous, yet no thread waits long */
        chunk = rows / (4 * ttx_pool_threads(s->rt->pool)) / 16 * 16;
        if (chunk < 16) chunk = 16;
    }
    pool_run(s, rows, chunk, project_rows, c);
}

void op_project(ttx_step *s, ttx_buf x, const ttx_proj *p, int n) {
    struct project_ctx c = {.cls = s->cls, .n = n, .n_cols = s->n};
    operand v[2 * MAX_PROJ];
    int n_operands = n, forms = 0;
    if (!s->plan) {
        c.k = s->rt->kernels;
        c.op = s->op;
    }
    for (int i = 0; i < n; i++) {
        const ttx_weight *w = p[i].w;
        v[i] = whole(w);
        c.type[i] = w->tensor->type;
        c.first[i + 1] = c.first[i] + w->rows;
        c.mm[i] = (ttx_mm){.row_bytes = w->row_bytes,
                           .k = w->k,
                           .n_rows = w->rows,
                           .y = p[i].y.p,
                           .ldy = p[i].y.dim};
        if (p[i].bias && p[i].bias->tensor) {
            c.bias[i] = p[i].bias;
            v[n_operands++] = whole(p[i].bias);
        }
        if (!s->plan) forms |= c.k->act_form[s->cls][c.type[i]];
    }
    if (!s->plan && !s->err->code && s->n) prepare_act(s, x, forms);
    launch(s, TTX_OP_MUL_MAT, v, n_operands, run_project, &c);
    for (int i = 0; i < n && !s->plan; i++) wrote(s, p[i].y);
}

/* ---- attention ---- */

static void run_rope_table(ttx_step *s, const operand *v, void *ctx) {
    int kind = *(int *)ctx;
    const ttx_rope *r = &s->hp->rope[kind];
    for (int64_t t = 0; t < s->n; t++)
        ttx_rope_row(r, v ? (const float *)v[0].p : NULL, s->pos[t],
                     s->rope_cs[kind] + t * r->n_rot);
}

void op_rope_table(ttx_step *s, int rope_kind) {
    const ttx_weight *freqs = &s->model->w[TTX_W_ROPE_FREQS];
    bool used = freqs->tensor && s->hp->rope[rope_kind].use_freqs;
    operand v;
    if (used) v = whole(freqs);
    launch(s, TTX_OP_ROPE, used ? &v : NULL, used, run_rope_table, &rope_kind);
}

struct rope_ctx {
    const ttx_kernels *k;
    ttx_buf x;
    int64_t d_head;
    const float *cs;
    const ttx_rope *rope;
};

static void rope_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct rope_ctx *c = ctx;
    for (int64_t t = begin; t < end; t++)
        for (int64_t i = 0; i < c->x.dim; i += c->d_head)
            c->k->rope(c->x.p + t * c->x.dim + i, c->cs + t * c->rope->n_rot, c->rope->n_rot,
                       c->rope->layout);
}

static void run_rope(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    struct rope_ctx *c = ctx;
    run_rows(s, s->n, c->x.dim, rope_rows, c);
    wrote(s, c->x);
}

void op_rope(ttx_step *s, ttx_buf x, int64_t d_head, int rope_kind) {
    struct rope_ctx ctx = {NULL, x, d_head, s->rope_cs[rope_kind], &s->hp->rope[rope_kind]};
    if (!s->plan) ctx.k = s->rt->kernels;
    launch(s, TTX_OP_ROPE, NULL, 0, run_rope, &ctx);
}

struct store_ctx {
    ttx_step *s;
    ttx_buf k, v;
};

static void store_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct store_ctx *c = ctx;
    const ttx_step *s = c->s;
    const ttx_kernels *kn = s->rt->kernels;
    const ttx_hparams *hp = s->hp;
    for (int64_t t = begin; t < end; t++)
        for (uint32_t h = 0; h < hp->n_head_kv; h++) {
            kn->kv_store(ttx_kv_k(s->kv, s->layer, (int)h) + (size_t)s->pos[t] * s->kv->k_row,
                         c->k.p + t * c->k.dim + h * hp->d_k, hp->d_k, s->kv->k_type);
            kn->kv_store(ttx_kv_v(s->kv, s->layer, (int)h) + (size_t)s->pos[t] * s->kv->v_row,
                         c->v.p + t * c->v.dim + h * hp->d_v, hp->d_v, s->kv->v_type);
        }
}

static void run_store(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    const struct store_ctx *c = ctx;
    run_rows(s, s->n, c->k.dim + c->v.dim, store_rows, ctx);
}

void op_kv_store(ttx_step *s, ttx_buf k, ttx_buf v) {
    struct store_ctx ctx = {s, k, v};
    launch(s, TTX_OP_SET_ROWS, NULL, 0, run_store, &ctx);
}

struct attn_ctx {
    ttx_step *s;
    ttx_buf y, q;
    uint32_t window;
    int64_t tiles;           /* query tiles a head (many tokens) */
    int64_t chunk0, n_chunk; /* position chunks (one token) */
};

/* What every call for this KV head has in common. */
static ttx_attn attn_of(const struct attn_ctx *c, int64_t kv_head) {
    const ttx_step *s = c->s;
    return (ttx_attn){
        .start = s->op->start,
        .end = s->op->end,
        .k = ttx_kv_k(s->kv, s->layer, (int)kv_head),
        .v = ttx_kv_v(s->kv, s->layer, (int)kv_head),
        .k_bytes = s->kv->k_row,
        .v_bytes = s->kv->v_row,
        .k_type = s->kv->k_type,
        .v_type = s->kv->v_type,
        .d_k = s->hp->d_k,
        .d_v = s->hp->d_v,
        .scale = s->hp->attn_scale,
        .softcap = s->hp->attn_softcap,
    };
}

/* Many tokens: item = (head, tile of tokens). */
static void attn_tiles(void *ctx, int64_t begin, int64_t end, int worker) {
    const struct attn_ctx *c = ctx;
    const ttx_step *s = c->s;
    void *scratch = s->op->scratch + (size_t)worker * s->op->scratch_bytes;
    int64_t group = s->hp->n_head / s->hp->n_head_kv;
    for (int64_t i = begin; i < end; i++) {
        int64_t head = i / c->tiles, t0 = i % c->tiles * QUERY_TILE;
        ttx_attn a = attn_of(c, head / group);
        a.q = c->q.p + t0 * c->q.dim + head * a.d_k;
        a.ldq = c->q.dim;
        a.start += t0;
        a.end += t0;
        a.n_q = s->n - t0 < QUERY_TILE ? s->n - t0 : QUERY_TILE;
        a.out = c->y.p + t0 * c->y.dim + head * a.d_v;
        a.ldo = c->y.dim;
        s->rt->kernels->attention(&a, scratch);
    }
}

/* One token: the queries of a KV head are its group of heads. */
static ttx_attn attn_group(const struct attn_ctx *c, int64_t kv_head) {
    int64_t group = c->s->hp->n_head / c->s->hp->n_head_kv;
    ttx_attn a = attn_of(c, kv_head);
    a.n_q = group;
    a.ldq = a.d_k;
    a.ldo = a.d_v;
    a.q = c->q.p + kv_head * group * a.d_k;
    a.out = c->y.p + kv_head * group * a.d_v;
    return a;
}

/* Item = (KV head, position chunk). */
static void attn_chunks(void *ctx, int64_t begin, int64_t end, int worker) {
    const struct attn_ctx *c = ctx;
    const ttx_step *s = c->s;
    void *scratch = s->op->scratch + (size_t)worker * s->op->scratch_bytes;
    for (int64_t i = begin; i < end; i++) {
        ttx_attn a = attn_group(c, i / c->n_chunk);
        if (c->n_chunk == 1) {
            s->rt->kernels->attention(&a, scratch);
            continue;
        }
        float *part = s->op->parts + i * a.n_q * ttx_attn_part_len(a.d_v);
        s->rt->kernels->attention_chunk(&a, c->chunk0 + i % c->n_chunk, part, scratch);
    }
}

static void attn_one_token(ttx_step *s, struct attn_ctx *c) {
    c->chunk0 = s->op->start[0] / TTX_ATTN_CHUNK;
    c->n_chunk = (s->op->end[0] + TTX_ATTN_CHUNK - 1) / TTX_ATTN_CHUNK - c->chunk0;
    int64_t n_kv = s->hp->n_head_kv;
    int64_t work = (s->op->end[0] - s->op->start[0]) * n_kv * s->hp->d_k;
    pool_run(s, n_kv * c->n_chunk, work <= SERIAL_VALUES ? n_kv : 1, attn_chunks, c);
    for (int64_t h = 0; c->n_chunk > 1 && h < n_kv; h++) {
        ttx_attn a = attn_group(c, h);
        const float *part = s->op->parts + h * c->n_chunk * a.n_q * ttx_attn_part_len(a.d_v);
        s->rt->kernels->attention_merge(&a, part, c->n_chunk);
    }
}

static void run_attention(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    struct attn_ctx *c = ctx;
    int64_t n = s->n == 1 ? s->hp->n_head : s->n; /* one token: a range for each query of a group */
    for (int64_t i = 0; i < n; i++) {
        int32_t end = s->pos[s->n == 1 ? 0 : i] + 1;
        s->op->end[i] = end;
        s->op->start[i] = c->window && end > (int32_t)c->window ? end - (int32_t)c->window : 0;
    }
    if (s->n == 1) {
        attn_one_token(s, c);
    } else {
        c->tiles = (s->n + QUERY_TILE - 1) / QUERY_TILE;
        pool_run(s, c->tiles * s->hp->n_head, 1, attn_tiles, c);
    }
    wrote(s, c->y);
}

void op_attention(ttx_step *s, ttx_buf y, ttx_buf q, uint32_t window) {
    struct attn_ctx ctx = {.s = s, .y = y, .q = q, .window = window};
    launch(s, TTX_OP_FLASH_ATTN_EXT, NULL, 0, run_attention, &ctx);
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
    run_rows(s, s->n, c->y.dim, glu_rows, c);
    wrote(s, c->y);
}

void op_glu(ttx_step *s, ttx_buf y, ttx_buf gate, ttx_buf up, ttx_glu kind) {
    struct elt_ctx ctx = {.y = y, .a = gate, .b = up, .kind = kind};
    launch(s, TTX_OP_GLU, NULL, 0, run_glu, &ctx);
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
    run_rows(s, s->n, c->y.dim, add_rows, c);
    wrote(s, c->y);
}

void op_add(ttx_step *s, ttx_buf y, ttx_buf x) {
    struct elt_ctx ctx = {.y = y, .a = x};
    launch(s, TTX_OP_ADD, NULL, 0, run_add, &ctx);
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
    run_rows(s, s->n, c->y.dim, softcap_rows, c);
    wrote(s, c->y);
}

void op_softcap(ttx_step *s, ttx_buf y, float cap) {
    struct elt_ctx ctx = {.y = y, .cap = cap};
    if (cap > 0) launch(s, TTX_OP_SOFTCAP, NULL, 0, run_softcap, &ctx);
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
    s->op->act_of = NULL; /* made for another number of columns */
}

/* ---- state ---- */

/* The longest input, and the scratch of the hungriest kernel. */
static int64_t longest_k(const ttx_model *m) {
    int64_t k = m->hp.n_embd;
    for (uint32_t il = 0; il < m->hp.n_layer; il++)
        for (int r = TTX_W_PER_LAYER; r < TTX_W_COUNT; r++) {
            const ttx_weight *w = ttx_model_weight(m, (ttx_role)r, (int)il);
            if (w->tensor && w->rows > 1 && w->k > k) k = w->k;
        }
    return k;
}

static size_t thread_scratch(const ttx_model *m) {
    size_t mm = ttx_matmul_scratch(longest_k(m)), attn = ttx_attn_scratch(m->hp.d_k, m->hp.d_v);
    return ((mm > attn ? mm : attn) + 63) / 64 * 64;
}

/* Sizes of the pieces, in the order of allocation. */
enum { P_Q8, P_D, P_SUM, P_ROWS, P_SCRATCH, P_PARTS, P_START, P_END, P_COUNT };

static void piece_sizes(const ttx_model *m, const ttx_op_limits *lim, size_t size[P_COUNT]) {
    const ttx_hparams *hp = &m->hp;
    size_t n = (size_t)lim->n_tokens, k = (size_t)longest_k(m);
    size_t n_chunk = (lim->n_ctx + TTX_ATTN_CHUNK - 1) / TTX_ATTN_CHUNK;
    size_t ranges = n > hp->n_head ? n : hp->n_head;
    size[P_Q8] = n * k;
    size[P_D] = n * ((k + 31) / 32) * sizeof(float);
    size[P_SUM] = n * ((k + 15) / 16) * sizeof(int16_t);
    size[P_ROWS] = n * sizeof(operand);
    size[P_SCRATCH] = (size_t)lim->n_threads * thread_scratch(m);
    size[P_PARTS] = n_chunk * hp->n_head * (size_t)ttx_attn_part_len(hp->d_v) * sizeof(float);
    size[P_START] = size[P_END] = ranges * sizeof(int32_t);
}

uint64_t ttx_op_bytes(const ttx_model *m, const ttx_op_limits *lim) {
    size_t size[P_COUNT];
    uint64_t sum = 0;
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
    for (int i = 0; i < P_COUNT; i++) {
        p[i] = ttx_arena_alloc(&op->arena, size[i]);
        if (p[i]) continue;
        ttx_op_close(op);
        return ttx_fail_nomem(err, "session scratch", size[i]);
    }
    op->act.q8 = p[P_Q8];
    op->act.d = p[P_D];
    op->act.sum = p[P_SUM];
    op->rows = p[P_ROWS];
    op->scratch = p[P_SCRATCH];
    op->scratch_bytes = thread_scratch(m);
    op->parts = p[P_PARTS];
    op->start = p[P_START];
    op->end = p[P_END];
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
