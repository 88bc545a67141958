/* op_attn.c -- operations of attention: rotary embedding, the KV cache, attention itself.
 *
 * How attention is cut over the pool: many tokens by head and by tiles of queries; one token by KV
 * head and by chunks of positions, whose partial results are then merged in order.
 */
#include "op_int.h"

#include "rope.h"

_Static_assert((int)TTX_KV_CHUNK == (int)TTX_ATTN_CHUNK, "the cache is cut as attention is");

enum { SERIAL_VALUES = 16384 }; /* values of K below which one thread is enough */

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
    if (used) v = op_whole(freqs);
    op_touch(s, s->n * s->hp->rope[rope_kind].n_rot);
    op_launch(s, TTX_OP_ROPE, used ? &v : NULL, used, run_rope_table, &rope_kind);
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
    op_rows(s, s->n, c->x.dim, rope_rows, c);
    op_wrote(s, c->x);
}

void op_rope(ttx_step *s, ttx_buf x, int64_t d_head, int rope_kind) {
    struct rope_ctx ctx = {NULL, x, d_head, s->rope_cs[rope_kind], &s->hp->rope[rope_kind]};
    if (!s->plan) ctx.k = s->rt->kernels;
    op_touch(s, s->n * 2 * x.dim);
    op_launch(s, TTX_OP_ROPE, NULL, 0, run_rope, &ctx);
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
            kn->kv_store(ttx_kv_k(s->kv, s->layer, (int)h, (uint32_t)s->pos[t]),
                         c->k.p + t * c->k.dim + h * hp->d_k, hp->d_k, s->kv->k_type);
            kn->kv_store(ttx_kv_v(s->kv, s->layer, (int)h, (uint32_t)s->pos[t]),
                         c->v.p + t * c->v.dim + h * hp->d_v, hp->d_v, s->kv->v_type);
        }
}

static void run_store(ttx_step *s, const operand *v, void *ctx) {
    (void)v;
    const struct store_ctx *c = ctx;
    op_rows(s, s->n, c->k.dim + c->v.dim, store_rows, ctx);
}

void op_kv_store(ttx_step *s, ttx_buf k, ttx_buf v) {
    struct store_ctx ctx = {s, k, v};
    op_launch(s, TTX_OP_SET_ROWS, NULL, 0, run_store, &ctx);
}

struct attn_ctx {
    ttx_step *s;
    ttx_buf y, q;
    uint32_t window;
    bool sinks;              /* op->sinks holds a row of OP_QUERY_TILE equal values for each head */
    int64_t tiles;           /* query tiles a head (many tokens) */
    int64_t chunk0, n_chunk; /* position chunks (one token) */
};

/* What every call for this KV head has in common. */
static ttx_attn attn_of(const struct attn_ctx *c, int64_t kv_head) {
    const ttx_step *s = c->s;
    return (ttx_attn){
        .start = s->op->start,
        .end = s->op->end,
        .k = ttx_kv_k(s->kv, s->layer, (int)kv_head, 0),
        .v = ttx_kv_v(s->kv, s->layer, (int)kv_head, 0),
        .k_bytes = s->kv->k_row,
        .v_bytes = s->kv->v_row,
        .k_chunk = s->kv->chunk_bytes,
        .v_chunk = s->kv->chunk_bytes,
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
        int64_t head = i / c->tiles, t0 = i % c->tiles * OP_QUERY_TILE;
        ttx_attn a = attn_of(c, head / group);
        a.q = c->q.p + t0 * c->q.dim + head * a.d_k;
        a.ldq = c->q.dim;
        a.start += t0;
        a.end += t0;
        a.n_q = s->n - t0 < OP_QUERY_TILE ? s->n - t0 : OP_QUERY_TILE;
        a.out = c->y.p + t0 * c->y.dim + head * a.d_v;
        a.ldo = c->y.dim;
        if (c->sinks) a.sink = s->op->sinks + head * OP_QUERY_TILE;
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
    if (c->sinks) a.sink = c->s->op->sinks + kv_head * group;
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
    op_pool(s, n_kv * c->n_chunk, work <= SERIAL_VALUES ? n_kv : 1, attn_chunks, c);
    for (int64_t h = 0; c->n_chunk > 1 && h < n_kv; h++) {
        ttx_attn a = attn_group(c, h);
        const float *part = s->op->parts + h * c->n_chunk * a.n_q * ttx_attn_part_len(a.d_v);
        s->rt->kernels->attention_merge(&a, part, c->n_chunk);
    }
}

/* One token: a value for each head. Many: a row of them, since a tile's queries are of one head. */
static void spread_sinks(ttx_step *s, const float *sinks) {
    int64_t each = s->n == 1 ? 1 : OP_QUERY_TILE;
    for (int64_t h = 0; h < s->hp->n_head; h++)
        for (int64_t i = 0; i < each; i++) s->op->sinks[h * each + i] = sinks[h];
}

static void run_attention(ttx_step *s, const operand *v, void *ctx) {
    struct attn_ctx *c = ctx;
    if (c->sinks) spread_sinks(s, (const float *)(const void *)v[0].p);
    int64_t n = s->n == 1 ? s->hp->n_head : s->n; /* one token: a range for each query of a group */
    for (int64_t i = 0; i < n; i++) {
        int32_t end = s->pos[s->n == 1 ? 0 : i] + 1;
        s->op->end[i] = end;
        s->op->start[i] = c->window && end > (int32_t)c->window ? end - (int32_t)c->window : 0;
    }
    if (s->n == 1) {
        attn_one_token(s, c);
    } else {
        c->tiles = (s->n + OP_QUERY_TILE - 1) / OP_QUERY_TILE;
        op_pool(s, c->tiles * s->hp->n_head, 1, attn_tiles, c);
    }
    op_wrote(s, c->y);
}

void op_attention(ttx_step *s, ttx_buf y, ttx_buf q, uint32_t window, const ttx_weight *sinks) {
    struct attn_ctx ctx = {.s = s, .y = y, .q = q, .window = window, .sinks = sinks->tensor};
    operand v;
    if (ctx.sinks) v = op_whole(sinks);
    op_launch(s, TTX_OP_FLASH_ATTN_EXT, ctx.sinks ? &v : NULL, ctx.sinks, run_attention, &ctx);
}
