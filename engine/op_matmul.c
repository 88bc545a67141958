/* op_matmul.c -- matrix products: projections, and the jobs that they and the experts are made of.
 *
 * The products of a launch are cut as one: their rows are numbered through, and a piece of the pool
 * may cross from one product to the next. So q, k and v, or the experts of a token, share one round
 * of the pool.
 */
#include "op_int.h"

enum {
    MAX_PROJ = 4,
    PROMPT_ROWS = 64, /* the fewest weight rows that a thread takes of a GEMM */
    DECODE_ROWS = 16, /* ... of a decode step, if that leaves some for each thread */
};

/* ---- activations ---- */

struct quant_ctx {
    const ttx_act *act;
    void (*fill)(const ttx_act *x, int64_t begin, int64_t end);
};

static void quantise(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct quant_ctx *c = ctx;
    c->fill(c->act, begin, end);
}

/* Fills one form, unless an earlier launch has: n items of `width` columns. */
static void prepare_form(ttx_step *s, int form, int64_t n, int64_t width,
                         void (*fill)(const ttx_act *, int64_t, int64_t)) {
    ttx_op_state *op = s->op;
    struct quant_ctx ctx = {&op->act, fill};
    if (op->act_forms & form) return;
    op_rows(s, n, op->act.k * width, quantise, &ctx);
    op->act_forms |= form;
}

int op_act_form(const ttx_step *s, const ttx_weight *w) {
    return s->plan ? 0 : s->rt->kernels->act_form[s->cls][w->type];
}

const ttx_act *op_prepare_act(ttx_step *s, ttx_buf x, int64_t n_cols, int forms) {
    ttx_op_state *op = s->op;
    if (op->act_of != x.p || op->act.n_cols != n_cols || op->act.k != x.dim) {
        op->act_of = x.p;
        op->act_forms = TTX_ACT_F32; /* the buffer itself */
        op->act.f32 = x.p;
        op->act.ld = op->act.k = x.dim;
        op->act.n_cols = n_cols;
    }
    const ttx_kernels *k = s->rt->kernels;
    if (forms & TTX_ACT_Q8) prepare_form(s, TTX_ACT_Q8, n_cols, 1, k->act_q8);
    if (forms & TTX_ACT_Q16) prepare_form(s, TTX_ACT_Q16, n_cols, 1, k->act_q16);
    if (forms & TTX_ACT_PANEL)
        prepare_form(s, TTX_ACT_PANEL, ttx_panel_count(n_cols), TTX_PANEL_COLS, k->act_panel);
    return &op->act;
}

/* ---- jobs ---- */

struct jobs_ctx {
    const ttx_step *s;
    const mm_job *jobs;
    int n;
};

/* Rows [r0, r1) of one product, bias and all. */
static void job_rows(const ttx_step *s, const mm_job *j, int64_t r0, int64_t r1, void *scratch) {
    const ttx_kernels *k = s->rt->kernels;
    k->matmul[s->cls][j->type](&j->mm, r0, r1, scratch);
    for (int64_t c = 0; j->bias && c < j->act.n_cols; c++)
        k->add(j->mm.y + c * j->mm.ldy + r0, j->bias + r0, r1 - r0);
}

static void run_rows_of_jobs(void *ctx, int64_t begin, int64_t end, int worker) {
    const struct jobs_ctx *c = ctx;
    void *scratch = c->s->op->scratch + (size_t)worker * c->s->op->scratch_bytes;
    int64_t first = 0; /* the number of job i's first row */
    for (int i = 0; i < c->n && first < end; i++) {
        const mm_job *j = &c->jobs[i];
        int64_t r0 = begin > first ? begin - first : 0;
        int64_t r1 = end - first < j->mm.n_rows ? end - first : j->mm.n_rows;
        if (r0 < r1) job_rows(c->s, j, r0, r1, scratch);
        first += j->mm.n_rows;
    }
}

void op_run_jobs(ttx_step *s, mm_job *jobs, int n) {
    int64_t rows = 0, chunk = PROMPT_ROWS;
    for (int i = 0; i < n; i++) {
        jobs[i].mm.x = &jobs[i].act;
        rows += jobs[i].mm.n_rows;
    }
    if (s->cls == TTX_EXACT) { /* small enough that no thread waits long for the last one */
        int64_t share = rows / ttx_pool_threads(s->rt->pool) + 1;
        chunk = share < DECODE_ROWS ? share : DECODE_ROWS;
        chunk = (chunk + 3) / 4 * 4; /* kernels take four rows at a time */
    }
    struct jobs_ctx ctx = {s, jobs, n};
    op_pool(s, rows, chunk, run_rows_of_jobs, &ctx);
}

/* ---- projections ---- */

struct project_ctx {
    const ttx_proj *p;
    int n, forms;
    ttx_buf x;
};

static void run_project(ttx_step *s, const operand *v, void *ctx) {
    const struct project_ctx *c = ctx;
    const ttx_act *act = op_prepare_act(s, c->x, s->n, c->forms);
    mm_job jobs[MAX_PROJ];
    int n_bias = 0;
    for (int i = 0; i < c->n; i++) {
        const ttx_proj *p = &c->p[i];
        bool bias = p->bias && p->bias->tensor;
        jobs[i] = (mm_job){
            .mm = {.w = v[i].p,
                   .row_bytes = p->w->row_bytes,
                   .k = p->w->k,
                   .n_rows = p->w->rows,
                   .y = p->y.p,
                   .ldy = p->y.dim},
            .act = *act,
            .type = p->w->type,
            .bias = bias ? (const float *)(const void *)v[c->n + n_bias++].p : NULL,
        };
    }
    op_run_jobs(s, jobs, c->n);
    for (int i = 0; i < c->n; i++) op_wrote(s, c->p[i].y);
}

void op_project(ttx_step *s, ttx_buf x, const ttx_proj *p, int n) {
    struct project_ctx c = {p, n, 0, x};
    operand v[2 * MAX_PROJ];
    int n_operands = n;
    for (int i = 0; i < n; i++) {
        v[i] = op_whole(p[i].w);
        if (p[i].bias && p[i].bias->tensor) v[n_operands++] = op_whole(p[i].bias);
        c.forms |= op_act_form(s, p[i].w);
    }
    op_launch(s, TTX_OP_MUL_MAT, v, n_operands, run_project, &c);
}
