/* op_moe.c -- mixture of experts: choosing, and computing the chosen.
 *
 * A decoded token: its k experts share the input, and those that are in memory are computed in one
 * round of the pool. A prompt's tokens: they are grouped by expert, so that each expert's weights
 * are read once a step; an expert sees its tokens as the columns of a product. Experts that are not
 * in memory are all asked for at once, and computed as they come. Either way each (token, rank) has
 * a slot for its result, and the slots of a token are summed in the router's order: grouping cannot
 * change a bit.
 *
 * Source: Shazeer et al. 2017 (arXiv 1701.06538); what each model does with scores, in models/.
 */
#include "drift.h"
#include "op_int.h"

#include <math.h>
#include <string.h>

struct moe_state {
    int k_max;
    ttx_buf logits;    /* [T][n_expert] */
    ttx_route *routes; /* [T] */
    float *slots;      /* [T][k_max][n_embd] */
    ttx_buf x, y;      /* [T][n_embd]: one expert's inputs, its outputs */
    ttx_buf gate, up;  /* [max(T, k_max)][n_ff_exp] */
    int32_t *first;    /* [n_expert + 1]: pairs of expert e are [first[e], first[e + 1]) */
    int32_t *pair;     /* [T * k_max]: token * k_max + rank, by expert, then token */
    /* The experts that are still to be computed: their number or rank, what to wait for, whether it
     * is there. [max(n_expert, k_max)] */
    int32_t *left, *expert, *now;
    ttx_range *range;
    bool *got;
    ttx_buf guess_x, guess_logits; /* [1][n_embd], [1][n_expert] */
    ttx_drift *drift;
    ttx_buf ahead; /* [1][n_embd] what the stream will probably be in a coming layer */
    int asked;     /* the last layer whose router has been asked for the present token */
};

/* ---- state ---- */

enum {
    M_LOGITS,
    M_ROUTES,
    M_SLOTS,
    M_X,
    M_Y,
    M_GATE,
    M_UP,
    M_FIRST,
    M_PAIR,
    M_LEFT,
    M_EXPERT,
    M_NOW,
    M_RANGE,
    M_GOT,
    M_GUESS_X,
    M_GUESS,
    M_AHEAD,
    M_COUNT
};

static void piece_sizes(const ttx_model *m, const ttx_op_limits *lim, size_t size[M_COUNT]) {
    const ttx_hparams *hp = &m->hp;
    size_t n = (size_t)lim->n_tokens, k = (size_t)lim->k_experts, wide = n > k ? n : k;
    size[M_LOGITS] = n * hp->n_expert * sizeof(float);
    size[M_ROUTES] = n * sizeof(ttx_route);
    size[M_SLOTS] = n * k * hp->n_embd * sizeof(float);
    size[M_X] = size[M_Y] = n * hp->n_embd * sizeof(float);
    size[M_GATE] = size[M_UP] = wide * hp->n_ff_exp * sizeof(float);
    size[M_FIRST] = (hp->n_expert + 1) * sizeof(int32_t);
    size[M_PAIR] = n * k * sizeof(int32_t);
    size_t experts = hp->n_expert > k ? hp->n_expert : k;
    size[M_LEFT] = size[M_EXPERT] = size[M_NOW] = experts * sizeof(int32_t);
    size[M_RANGE] = experts * sizeof(ttx_range);
    size[M_GOT] = experts * sizeof(bool);
    size[M_GUESS_X] = hp->n_embd * sizeof(float);
    size[M_GUESS] = hp->n_expert * sizeof(float);
    size[M_AHEAD] = hp->n_embd * sizeof(float);
}

uint64_t op_moe_bytes(const ttx_model *m, const ttx_op_limits *lim) {
    size_t size[M_COUNT];
    uint64_t sum = 0;
    if (!m->hp.n_expert) return 0;
    piece_sizes(m, lim, size);
    for (int i = 0; i < M_COUNT; i++) sum += size[i];
    return sum + ttx_drift_bytes(m->hp.n_layer, m->hp.n_embd);
}

int op_moe_open(ttx_op_state *op, const ttx_model *m, const ttx_op_limits *lim, ttx_err *err) {
    const ttx_hparams *hp = &m->hp;
    size_t size[M_COUNT];
    void *p[M_COUNT];
    if (!hp->n_expert) return TTX_OK;
    piece_sizes(m, lim, size);
    for (int i = 0; i < M_COUNT; i++)
        if (!(p[i] = ttx_arena_alloc(&op->arena, size[i])))
            return ttx_fail_nomem(err, "expert scratch", size[i]);
    struct moe_state *e = op->moe = ttx_arena_alloc(&op->arena, sizeof *e);
    if (!e) return ttx_fail_nomem(err, "expert scratch", sizeof *e);
    *e = (struct moe_state){
        .k_max = lim->k_experts,
        .logits = {p[M_LOGITS], hp->n_expert},
        .routes = p[M_ROUTES],
        .slots = p[M_SLOTS],
        .x = {p[M_X], hp->n_embd},
        .y = {p[M_Y], hp->n_embd},
        .gate = {p[M_GATE], hp->n_ff_exp},
        .up = {p[M_UP], hp->n_ff_exp},
        .first = p[M_FIRST],
        .pair = p[M_PAIR],
        .left = p[M_LEFT],
        .expert = p[M_EXPERT],
        .now = p[M_NOW],
        .range = p[M_RANGE],
        .got = p[M_GOT],
        .guess_x = {p[M_GUESS_X], hp->n_embd},
        .guess_logits = {p[M_GUESS], hp->n_expert},
        .ahead = {p[M_AHEAD], hp->n_embd},
    };
    e->drift = ttx_drift_open(&op->arena, hp->n_layer, hp->n_embd);
    if (!e->drift)
        return ttx_fail_nomem(err, "expert scratch", ttx_drift_bytes(hp->n_layer, hp->n_embd));
    return TTX_OK;
}

/* ---- the router ---- */

/* From logits to scores, in place. */
static void score(float *v, int64_t n, ttx_router_kind kind) {
    if (kind == TTX_ROUTER_SIGMOID)
        for (int64_t i = 0; i < n; i++) v[i] = (float)(1 / (1 + exp(-(double)v[i])));
    if (kind != TTX_ROUTER_SOFTMAX) return;
    float max = v[0];
    for (int64_t i = 1; i < n; i++) max = v[i] > max ? v[i] : max;
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += v[i] = expf(v[i] - max);
    for (int64_t i = 0; i < n; i++) v[i] = (float)(v[i] / sum);
}

/* The k best by score (+ bias): best first, ties to the lower index. */
static void select_best(ttx_route *r, const float *v, const float *bias, int64_t n, int k) {
    for (r->k = 0; r->k < k; r->k++) {
        int64_t best = -1;
        float best_score = 0;
        for (int64_t i = 0; i < n; i++) {
            float here = bias ? v[i] + bias[i] : v[i];
            bool taken = false;
            if (best >= 0 && here <= best_score) continue;
            for (int32_t j = 0; j < r->k && !taken; j++) taken = r->expert[j] == i;
            if (taken) continue;
            best = i;
            best_score = here;
        }
        r->expert[r->k] = (int32_t)best;
        r->score[r->k] = best_score;
    }
}

/* The weights of the chosen, from their scores without bias. */
static void weigh(ttx_route *r, const float *v, const ttx_hparams *hp) {
    float max = -INFINITY;
    double sum = 0;
    for (int32_t i = 0; i < r->k; i++) {
        r->weight[i] = v[r->expert[i]];
        max = r->weight[i] > max ? r->weight[i] : max;
    }
    for (int32_t i = 0; i < r->k; i++) {
        if (hp->router == TTX_ROUTER_SOFTMAX_TOP_K) r->weight[i] = expf(r->weight[i] - max);
        sum += r->weight[i];
    }
    bool norm = hp->router_norm || hp->router == TTX_ROUTER_SOFTMAX_TOP_K;
    for (int32_t i = 0; i < r->k; i++) {
        if (norm && sum > 0) r->weight[i] = (float)(r->weight[i] / sum);
        if (hp->router_scale != 1) r->weight[i] *= hp->router_scale;
    }
}

struct route_ctx {
    ttx_step *s;
    const float *bias;    /* for the selection alone; NULL: none */
    const operand *table; /* hash routing: the row of each token, I32 [table_k]; NULL: none */
    int64_t table_k;
};

/* The row of the step's arrays that row t of the buffers stands for. */
static int64_t step_row(const ttx_step *s, int64_t t) {
    return s->kept ? s->out_rows[t] : t;
}

static void route_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct route_ctx *c = ctx;
    ttx_step *s = c->s;
    const ttx_hparams *hp = s->hp;
    for (int64_t t = begin; t < end; t++) {
        ttx_route *r = &s->op->moe->routes[t];
        float *v = s->op->moe->logits.p + t * hp->n_expert;
        int64_t row = step_row(s, t);
        r->layer = (uint32_t)s->layer;
        r->step = (uint32_t)s->pos[row];
        r->token = s->tokens[row];
        r->decode = s->cls == TTX_EXACT;
        r->hashed = c->table != NULL;
        bool numbers = true; /* +inf - +inf is none either; -inf: never chosen while others are */
        for (uint32_t i = 0; i < hp->n_expert; i++)
            numbers = numbers && v[i] < INFINITY && !(c->bias && isnan(c->bias[i]));
        r->k = -1;
        if (!numbers) continue; /* reported by finish_route */
        score(v, hp->n_expert, hp->router);
        select_best(r, v, c->bias, hp->n_expert, (int)hp->n_expert_used);
        if (c->table && r->k > c->table_k) r->k = (int32_t)c->table_k;
        if (c->table)
            for (int32_t i = 0; i < r->k; i++) {
                r->expert[i] = ((const int32_t *)(const void *)c->table[t].p)[i];
                r->score[i] =
                    v[r->expert[i] >= 0 && r->expert[i] < (int32_t)hp->n_expert ? r->expert[i] : 0];
            }
    }
}

/* What the pool cannot do: errors, replay, listeners. */
static void finish_route(ttx_step *s, ttx_route *r) {
    const ttx_hparams *hp = s->hp;
    if (r->k < 0) {
        ttx_fail(s->err, TTX_E_RUNTIME,
                 "layer %u: router: expected finite scores, found others for the token at "
                 "position %u",
                 r->layer, r->step);
        return;
    }
    for (int32_t i = 0; i < r->k; i++)
        if (r->expert[i] < 0 || r->expert[i] >= (int32_t)hp->n_expert) {
            ttx_fail(s->err, TTX_E_RUNTIME,
                     "layer %u: expert table: expected 0..%u, found %d for token %d", r->layer,
                     hp->n_expert - 1, r->expert[i], r->token);
            return;
        }
    if (!s->source || !s->source->choose(s->source->ctx, r))
        weigh(r, s->op->moe->logits.p + (r - s->op->moe->routes) * hp->n_expert, hp);
    for (int i = 0; i < s->n_sinks; i++) s->sinks[i].chosen(s->sinks[i].ctx, r);
    if (ttx_trace_on(s->rt->trace)) ttx_trace_route(s->rt->trace, r);
}

static void run_route(ttx_step *s, const operand *v, void *ctx) {
    struct route_ctx *c = ctx;
    const ttx_weight *bias = ttx_w(s, TTX_W_ROUTER_SELECT_BIAS);
    const ttx_weight *table = ttx_w(s, TTX_W_ROUTER_TABLE);
    if (bias->tensor) c->bias = (const float *)(const void *)(v++)->p;
    if (table->tensor) {
        c->table = v;
        c->table_k = table->k;
    }
    op_rows(s, s->n, s->hp->n_expert * 16, route_rows, c);
    for (int64_t t = 0; t < s->n && !s->err->code; t++) finish_route(s, &s->op->moe->routes[t]);
}

void op_router(ttx_step *s, ttx_buf x) {
    struct route_ctx ctx = {.s = s};
    const ttx_weight *bias = ttx_w(s, TTX_W_ROUTER_SELECT_BIAS);
    const ttx_weight *table = ttx_w(s, TTX_W_ROUTER_TABLE);
    ttx_buf logits = s->plan ? (ttx_buf){NULL, s->hp->n_expert} : s->op->moe->logits;
    operand dry[2], *v = s->plan ? dry : s->op->operands;
    int64_t n = 0;
    op_matmul(s, logits, ttx_w(s, TTX_W_ROUTER), ttx_w(s, TTX_W_ROUTER_BIAS), x);
    if (bias->tensor) v[n++] = op_whole(bias);
    for (int64_t t = 0; table->tensor && t < s->n; t++)
        v[n++] = op_row(table, s->plan ? 0 : s->tokens[step_row(s, t)]);
    op_touch(s, s->n * s->hp->n_expert);
    op_launch(s, TTX_OP_TOP_K, v, n, run_route, &ctx);
}

/* ---- the experts ---- */

/* The tensors of a layer's experts: matrix and bias of gate, up and down. */
struct expert_weights {
    const ttx_weight *w[3], *bias[3];
};
enum { GATE, UP, DOWN };

static struct expert_weights layer_experts(const ttx_step *s) {
    return (struct expert_weights){
        {ttx_w(s, TTX_W_GATE_EXPS), ttx_w(s, TTX_W_UP_EXPS), ttx_w(s, TTX_W_DOWN_EXPS)},
        {ttx_w(s, TTX_W_GATE_EXPS_BIAS), ttx_w(s, TTX_W_UP_EXPS_BIAS),
         ttx_w(s, TTX_W_DOWN_EXPS_BIAS)},
    };
}

/* One launch over some experts: the products with gate and up, or with down. */
struct expert_launch {
    struct expert_weights e;
    const int32_t *expert;  /* [n] */
    int n, from, to;        /* parts [from, to) of GATE, UP, DOWN */
    int64_t n_cols;         /* of each expert */
    const ttx_route *route; /* n_cols 1: of the token, who has chosen */
    int rank;               /* ... expert[0] */
    ttx_buf x;              /* [n_cols][k] shared by all, or [n][k] one column each */
    bool shared;
    ttx_buf y[3];
    const int32_t *place; /* [n] which row (of n_cols) of y is an expert's; NULL: in order */
    const int32_t *ranks; /* [n] the experts' ranks beyond `rank`; NULL: in order */
};

static void run_experts(ttx_step *s, const operand *v, void *ctx) {
    const struct expert_launch *l = ctx;
    int forms = 0, n_jobs = 0;
    for (int part = l->from; part < l->to; part++) forms |= op_act_form(s, l->e.w[part]);
    const ttx_act *act = op_prepare_act(s, l->x, l->shared ? l->n_cols : l->n, forms);
    for (int i = 0; i < l->n; i++)
        for (int part = l->from; part < l->to; part++) {
            const ttx_weight *w = l->e.w[part];
            int64_t place = l->place ? l->place[i] : i;
            mm_job *j = &s->op->jobs[n_jobs++];
            *j = (mm_job){
                .mm = {.w = (v++)->p,
                       .row_bytes = w->row_bytes,
                       .k = w->k,
                       .n_rows = w->rows,
                       .y = l->y[part].p + place * l->n_cols * l->y[part].dim,
                       .ldy = l->y[part].dim},
                .act = *act,
                .type = w->type,
            };
            if (l->e.bias[part]->tensor) j->bias = (const float *)(const void *)(v++)->p;
            if (!l->shared) j->act = ttx_act_columns(act, i, 1);
        }
    op_run_jobs(s, s->op->jobs, n_jobs);
    for (int part = l->from; part < l->to; part++) op_wrote(s, l->y[part]);
}

static void launch_experts(ttx_step *s, struct expert_launch *l) {
    operand *v = s->op->operands;
    int n = 0;
    for (int i = 0; i < l->n; i++)
        for (int part = l->from; part < l->to; part++) {
            int first = n;
            v[n++] = op_matrix(l->e.w[part], l->expert[i]);
            if (l->e.bias[part]->tensor) v[n++] = op_row(l->e.bias[part], l->expert[i]);
            int rank = l->rank + (l->ranks ? l->ranks[i] : i);
            for (int k = first; l->route && k < n; k++) {
                v[k].rank1 = (uint8_t)(rank + 1);
                v[k].score = l->route->score[rank];
            }
        }
    op_launch(s, TTX_OP_MUL_MAT_ID, v, n, run_experts, l);
}

/* y = down(act(gate x) * up x): for n experts of one token, or for one expert of n_cols tokens;
 * `place` as in expert_launch. `pair`: the first (token, rank) that they serve. */
static void compute_experts(ttx_step *s, const int32_t *expert, int n, const int32_t *place,
                            int32_t pair, ttx_buf x, int64_t n_cols, ttx_buf y, ttx_glu kind) {
    struct moe_state *m = s->op->moe;
    struct expert_launch l = {.e = layer_experts(s),
                              .expert = expert,
                              .n = n,
                              .from = GATE,
                              .to = DOWN,
                              .n_cols = n_cols,
                              .route = n_cols == 1 ? &m->routes[pair / m->k_max] : NULL,
                              .rank = pair % m->k_max,
                              .ranks = place,
                              .x = x,
                              .shared = true,
                              .y = {m->gate, m->up, y}};
    s->served_row = pair / m->k_max;
    s->served_n = n_cols;
    launch_experts(s, &l);
    int64_t tokens = s->n;
    s->n = n * n_cols; /* rows of gate and up */
    op_glu(s, m->gate, m->gate, m->up, kind);
    s->n = tokens;
    l.from = DOWN;
    l.to = DOWN + 1;
    l.place = place;
    l.x = m->gate;
    l.shared = n == 1;
    launch_experts(s, &l);
    s->served_n = 0;
}

/* Sorts (token, rank) pairs by expert, then by token. */
static void group(ttx_step *s) {
    struct moe_state *m = s->op->moe;
    int64_t n_expert = s->hp->n_expert;
    memset(m->first, 0, (size_t)(n_expert + 1) * sizeof *m->first);
    for (int64_t t = 0; t < s->n; t++)
        for (int32_t i = 0; i < m->routes[t].k; i++) m->first[m->routes[t].expert[i] + 1]++;
    for (int64_t e = 0; e < n_expert; e++) m->first[e + 1] += m->first[e];
    for (int64_t t = 0; t < s->n; t++)
        for (int32_t i = 0; i < m->routes[t].k; i++)
            m->pair[m->first[m->routes[t].expert[i]]++] = (int32_t)(t * m->k_max + i);
    for (int64_t e = n_expert; e > 0; e--) m->first[e] = m->first[e - 1]; /* back to the start */
    m->first[0] = 0;
}

/* The rows of one expert's tokens: to[i] = from[pair[i] / div], or back: to[pair[i]] = from[i]. */
struct copy_ctx {
    float *to;
    const float *from;
    const int32_t *pair;
    int64_t dim, div;
    bool back;
};

static void copy_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct copy_ctx *c = ctx;
    for (int64_t i = begin; i < end; i++) {
        int64_t there = c->pair[i] / c->div;
        memcpy(c->to + (c->back ? there : i) * c->dim, c->from + (c->back ? i : there) * c->dim,
               (size_t)c->dim * sizeof *c->to);
    }
}

/* Asks for the first *n experts of `left` (m->expert says which they are), waits until some are
 * there, and moves those to the end; returns their number and takes it off *n. */
static int take_ready(ttx_step *s, int *n) {
    struct moe_state *m = s->op->moe;
    const ttx_weight *w = ttx_w(s, TTX_W_GATE_EXPS);
    int32_t *ready = m->now;
    int n_ready = 0, rest = 0;
    for (int i = 0; i < *n; i++) m->range[i] = op_matrix(w, m->expert[m->left[i]]).range;
    if (ttx_residency_acquire_any(s->rt->residency, m->range, *n, m->got, s->err)) return 0;
    for (int i = 0; i < *n; i++) {
        if (m->got[i])
            ready[n_ready++] = m->left[i];
        else
            m->left[rest++] = m->left[i];
    }
    for (int i = 0; i < n_ready; i++) m->left[rest + i] = ready[i];
    *n = rest;
    return n_ready;
}

static void give_back(ttx_step *s, int32_t expert) {
    const ttx_weight *w = ttx_w(s, TTX_W_GATE_EXPS);
    ttx_residency_release(s->rt->residency, op_matrix(w, expert).range);
}

/* Guesses the experts of s->layer, so many layers ahead, by its router. Returns whether the device
 * would take those of another one. */
static bool guess_layer(ttx_step *s, int distance) {
    struct moe_state *m = s->op->moe;
    const ttx_weight *norm = ttx_w(s, TTX_W_FFN_NORM), *router = ttx_w(s, TTX_W_ROUTER);
    const ttx_weight *gate = ttx_w(s, TTX_W_GATE_EXPS);
    ttx_route r;
    if (s->layer > m->asked) m->asked = s->layer;
    if (!norm->tensor || !router->tensor || !gate->tensor || ttx_w(s, TTX_W_ROUTER_TABLE)->tensor)
        return true;
    op_rms_norm(s, m->guess_x, m->ahead, norm, s->hp->n_embd);
    op_matmul(s, m->guess_logits, router, ttx_w(s, TTX_W_ROUTER_BIAS), m->guess_x);
    select_best(&r, m->guess_logits.p, NULL, s->hp->n_expert, (int)s->hp->n_expert_used);
    if (distance > 1) r.k -= r.k / 4; /* the last ones are guesswork so far away */
    for (int32_t i = 0; i < r.k; i++) m->range[i] = op_matrix(gate, r.expert[i]).range;
    return !s->err->code && ttx_residency_guess(s->rt->residency, m->range, r.k);
}

/* The routers of the next layers, asked with the state that they will probably see. The next
 * layer's is always asked; those behind it once for a token, while the device takes more. */
static void guess_next(ttx_step *s) {
    struct moe_state *m = s->op->moe;
    int here = s->layer, last = (int)s->hp->n_layer - 1;
    int end = last - here < TTX_GUESS_AHEAD ? last : here + TTX_GUESS_AHEAD;
    if (!ttx_drift_arrive(m->drift, here, s->x.p)) m->asked = 0;
    if (!ttx_residency_routed(s->rt->residency) || here == last) return;
    ttx_drift_leave(m->drift, here, s->x.p);
    memcpy(m->ahead.p, s->x.p, (size_t)s->x.dim * sizeof(float));
    s->guess = true;
    for (bool more = true; more && s->layer < end;) {
        ttx_drift_expect(m->drift, ++s->layer, m->ahead.p);
        if (s->layer == here + 1 || s->layer > m->asked) more = guess_layer(s, s->layer - here);
    }
    s->guess = false;
    s->layer = here;
}

static void one_token(ttx_step *s, ttx_buf x, ttx_glu kind) {
    struct moe_state *m = s->op->moe;
    const ttx_route *r = &m->routes[0];
    int left = r->k, n;
    for (int i = 0; i < left; i++) {
        m->left[i] = i; /* ranks */
        m->expert[i] = r->expert[i];
        ttx_residency_hint(s->rt->residency,
                           op_matrix(ttx_w(s, TTX_W_GATE_EXPS), r->expert[i]).range);
    }
    guess_next(s); /* while those that are missing are being read */
    while (left && (n = take_ready(s, &left))) {
        const int32_t *place = m->left + left;
        for (int i = 0; i < n; i++) m->now[i] = r->expert[place[i]];
        compute_experts(s, m->now, n, place, 0, x, 1, (ttx_buf){m->slots, x.dim}, kind);
        for (int i = 0; i < n; i++) give_back(s, m->now[i]);
    }
}

/* One expert for all of its tokens. */
static void batch_expert(ttx_step *s, int32_t e, ttx_buf x, ttx_glu kind) {
    struct moe_state *m = s->op->moe;
    const int32_t *pair = m->pair + m->first[e];
    int64_t n = m->first[e + 1] - m->first[e];
    struct copy_ctx in = {m->x.p, x.p, pair, x.dim, m->k_max, false};
    struct copy_ctx out = {m->slots, m->y.p, pair, x.dim, 1, true};
    op_rows(s, n, x.dim, copy_rows, &in);
    op_wrote(s, m->x);
    compute_experts(s, &e, 1, NULL, pair[0], m->x, n, m->y, kind);
    op_rows(s, n, x.dim, copy_rows, &out);
}

static void many_tokens(ttx_step *s, ttx_buf x, ttx_glu kind) {
    struct moe_state *m = s->op->moe;
    int left = 0, n;
    group(s);
    for (int32_t e = 0; e < (int32_t)s->hp->n_expert; e++) {
        m->expert[e] = e;
        if (m->first[e + 1] > m->first[e]) m->left[left++] = e;
    }
    while (left && (n = take_ready(s, &left)))
        for (int i = 0; i < n; i++) {
            batch_expert(s, m->left[left + i], x, kind);
            give_back(s, m->left[left + i]);
        }
}

struct sum_ctx {
    ttx_step *s;
    ttx_buf y;
};

static void sum_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const struct sum_ctx *c = ctx;
    const struct moe_state *m = c->s->op->moe;
    const ttx_kernels *k = c->s->rt->kernels;
    for (int64_t t = begin; t < end; t++) {
        float *y = c->y.p + t * c->y.dim, *slot = m->slots + t * m->k_max * c->y.dim;
        for (int32_t i = 0; i < m->routes[t].k; i++, slot += c->y.dim) {
            k->scale(slot, m->routes[t].weight[i], c->y.dim);
            if (i == 0)
                memcpy(y, slot, (size_t)c->y.dim * sizeof *y);
            else
                k->add(y, slot, c->y.dim);
        }
    }
}

static void run_sum(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    const struct sum_ctx *c = ctx;
    op_rows(s, s->n, c->y.dim * s->op->moe->k_max, sum_rows, ctx);
    op_wrote(s, c->y);
}

/* A dry run: every expert tensor, with how many of its experts a token uses. */
static void plan_experts(ttx_step *s) {
    struct expert_weights e = layer_experts(s);
    for (int part = GATE; part <= DOWN; part++)
        for (int bias = 0; bias < 2; bias++) {
            const ttx_weight *w = bias ? e.bias[part] : e.w[part];
            for (int64_t i = 0; w->tensor && i < (w->split ? w->n_mat : 1); i++) {
                operand v = w->split ? op_matrix(w, i) : op_whole(w);
                v.n_expert = s->hp->n_expert;
                v.n_expert_used = s->hp->n_expert_used;
                v.expert = w->split ? (int32_t)i : -1;
                op_launch(s, TTX_OP_MUL_MAT_ID, &v, 1, NULL, NULL);
            }
        }
}

void op_moe(ttx_step *s, ttx_buf y, ttx_buf x, ttx_glu kind) {
    if (s->err->code || !s->n) return;
    if (s->plan) {
        plan_experts(s);
        return;
    }
    if (s->n == 1 && s->cls == TTX_EXACT)
        one_token(s, x, kind);
    else
        many_tokens(s, x, kind);
    struct sum_ctx ctx = {s, y};
    op_touch(s, s->n * (s->op->moe->k_max + 1) * y.dim);
    op_launch(s, TTX_OP_ADD, NULL, 0, run_sum, &ctx);
}
