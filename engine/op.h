/* op.h -- the operations that forward passes are written in.
 *
 * An architecture's layer() is a straight line of these calls. Each call is one *launch*: it
 * acquires its weights by file range, runs a kernel over the pool, and releases them. Nothing else
 * in the engine touches a weight, so that a plan (a step with `plan` set computes nothing and
 * writes down its accesses) is complete by construction.
 *
 * Errors are sticky: the first one is kept in step->err and every later launch does nothing, so
 * that layer() needs no checks; whoever started the step looks at the end.
 *
 * Shapes: T = tokens of the step; a buffer is F32 [T][dim].
 */
#ifndef TTX_OP_H
#define TTX_OP_H

#include "arena.h"
#include "kv.h"
#include "model.h"
#include "route.h"
#include "runtime.h"

typedef struct ttx_buf {
    float *p; /* [T][dim]; NULL in a dry run */
    int64_t dim;
} ttx_buf;

/* Scratch of the op layer: quantised activations, per-thread memory, partial attention results. */
typedef struct ttx_op_state ttx_op_state;

struct ttx_step {
    const ttx_model *model;
    const ttx_hparams *hp;
    ttx_runtime *rt; /* NULL in a dry run */
    ttx_plan *plan;  /* not NULL: a dry run */
    ttx_class cls;
    int layer; /* being run; -1 outside the layers */
    int n_threads;
    int64_t n;               /* T; shrinks to n_out when op_keep_outputs has run */
    const int32_t *tokens;   /* [T] */
    const int32_t *pos;      /* [T] ascending */
    const int32_t *out_rows; /* [n_out] rows whose logits are wanted, ascending */
    int64_t n_out;
    /* For the trace: bytes of activations that a launch without a weight reads and writes; and the
     * tokens that a launch serves, if it is not all rows of the buffers. */
    uint64_t act_bytes;
    int64_t served_row, served_n; /* from which row, how many; 0: all */
    bool guess;                   /* it computes what is only a guess */
    bool kept; /* op_keep_outputs has run: row t of the buffers is row out_rows[t] of the step */
    ttx_kv *kv;
    /* Buffers of the session: residual stream, normed input, projections, logits. */
    ttx_buf x, h, q, k, v, att, gate, up, logits;
    ttx_buf shared; /* [T][n_embd]: the shared expert's result, in models that have one */
    float *rope_cs[TTX_ROPE_KINDS]; /* [T][n_rot/2] pairs (cos, sin) */
    ttx_op_state *op;
    const ttx_route_sink *sinks; /* who wants to know of routes */
    int n_sinks;
    const ttx_route_source *source; /* NULL: the routers choose */
    ttx_err *err;
};

/* The model's weight of this role, in the layer that is being run. */
static inline const ttx_weight *ttx_w(const ttx_step *s, ttx_role role) {
    return ttx_model_weight(s->model, role, s->layer);
}

/* y = rows of the table w, one for each token, times `scale`. */
void op_embed(ttx_step *s, ttx_buf y, const ttx_weight *w, float scale);

/* y = rmsnorm(x) * w, over each group of `group` values (a whole row, or each head). y may be x. */
void op_rms_norm(ttx_step *s, ttx_buf y, ttx_buf x, const ttx_weight *w, int64_t group);

/* One projection of a launch: y = w x + bias (bias->tensor NULL: none; bias NULL: none). */
typedef struct ttx_proj {
    ttx_buf y;
    const ttx_weight *w, *bias;
} ttx_proj;

/* Up to four projections of the same input in one launch. */
void op_project(ttx_step *s, ttx_buf x, const ttx_proj *p, int n);
static inline void op_matmul(ttx_step *s, ttx_buf y, const ttx_weight *w, const ttx_weight *bias,
                             ttx_buf x) {
    op_project(s, x, &(ttx_proj){y, w, bias}, 1);
}

/* Computes the table of a rotary embedding for the step's positions: s->rope_cs[kind]. Once a step,
 * before the layers. Source: Su et al., RoFormer (arXiv 2104.09864); Peng et al., YaRN
 * (2309.00071). */
void op_rope_table(ttx_step *s, int rope_kind);

/* Rotates each head of x by its token's position. */
void op_rope(ttx_step *s, ttx_buf x, int64_t d_head, int rope_kind);

/* Writes k and v of the step's tokens into the cache of this layer. */
void op_kv_store(ttx_step *s, ttx_buf k, ttx_buf v);

/* y [T][n_head * d_v] = attention of q [T][n_head * d_k] over the cache of this layer; limited to
 * the last `window` positions if window > 0. */
void op_attention(ttx_step *s, ttx_buf y, ttx_buf q, uint32_t window, const ttx_weight *sinks);

/* y = act(gate) * up; y may be gate. */
void op_glu(ttx_step *s, ttx_buf y, ttx_buf gate, ttx_buf up, ttx_glu kind);

/* Chooses experts for every token from the layer's router (TTX_W_ROUTER ...), as ttx_hparams says:
 * for op_moe, and for those who listen. Ties go to the lower index. Errors: TTX_E_RUNTIME if a
 * score is not a number. */
void op_router(ttx_step *s, ttx_buf x);

/* y = sum over the chosen experts, in the router's order, of weight * down(act(gate x) * up x).
 * Each expert is read once a step, whatever the number of tokens. y may be x. */
void op_moe(ttx_step *s, ttx_buf y, ttx_buf x, ttx_glu kind);

/* y[t] *= sigmoid(g[t][0]) for each token t */
void op_gate_rows(ttx_step *s, ttx_buf y, ttx_buf g);

/* y += x */
void op_add(ttx_step *s, ttx_buf y, ttx_buf x);

/* y = cap * tanh(y / cap); nothing if cap is 0. */
void op_softcap(ttx_step *s, ttx_buf y, float cap);

/* In the last layer, once attention is done: only the rows whose logits are wanted go on. Compacts
 * the rows of both buffers and sets T to n_out; in any other layer nothing. */
void op_keep_outputs(ttx_step *s, ttx_buf a, ttx_buf b);

/* What the op layer needs for steps of up to n_tokens tokens over up to n_ctx positions. */
typedef struct ttx_op_limits {
    int64_t n_tokens;
    uint32_t n_ctx;
    int n_threads;
    int k_experts; /* experts a token can have: the model's, or more with a route source */
    const ttx_kernels *kernels; /* the forms of activations that they read need space */
} ttx_op_limits;

/* Bytes that ttx_op_open takes. */
uint64_t ttx_op_bytes(const ttx_model *m, const ttx_op_limits *lim);
/* Errors: TTX_E_RUNTIME (no memory). */
int ttx_op_open(ttx_op_state **out, const ttx_model *m, const ttx_op_limits *lim, ttx_err *err);
/* To be called before each step: nothing prepared for an earlier one is valid. */
void ttx_op_reset(ttx_op_state *op);
void ttx_op_close(ttx_op_state *op); /* NULL is fine */

#endif
