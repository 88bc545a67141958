/* op_int.h -- what the files of the op layer share: operands, the launch, the cut over the pool.
 *
 * op*.c are the only code outside tests and benchmarks that includes kernels.h, and launch() is the
 * only way from them to a weight: that is why no access escapes a plan or a trace.
 */
#ifndef TTX_OP_INT_H
#define TTX_OP_INT_H

#include "op.h"

#include "kernels.h"

/* A weight, or a part of one, that a launch reads. */
typedef struct operand {
    uint32_t tensor;
    ttx_range range;
    uint32_t n_expert, n_expert_used; /* of a plan: "used of n", the range is the whole tensor */
    bool row;                         /* one row, which depends on the token */
    uint8_t rank1;                    /* of an expert, chosen for one token: its rank + 1 */
    float score;                      /* ... and by what it was selected */
    int32_t expert;                   /* of a plan: the range is one expert's tensor; -1: no */
    const uint8_t *p;                 /* filled by launch() */
    uint8_t residency;                /* likewise: a ttx_residency_state */
} operand;

/* One product of a launch: y = W x + bias, for the columns of `act`. */
typedef struct mm_job {
    ttx_mm mm; /* mm.x is set to &act by op_run_jobs */
    ttx_act act;
    ttx_dtype type;
    const float *bias; /* NULL: none */
} mm_job;

enum { OP_MAX_JOBS = 2 * TTX_MAX_EXPERTS_USED };

struct ttx_op_state {
    ttx_arena arena;
    ttx_act act;         /* planes for as many columns as a step can have, of the longest input */
    const float *act_of; /* the buffer that the planes were made from; NULL: none */
    int act_forms;       /* which of them are filled */
    operand *operands;   /* [max(n_tokens + 1, 2 * OP_MAX_JOBS)] */
    mm_job *jobs;        /* [OP_MAX_JOBS] */
    uint8_t *scratch;    /* scratch_bytes for each thread */
    size_t scratch_bytes;
    float *parts;          /* attention of one token over position chunks, KV head by KV head */
    int32_t *start, *end;  /* [max(n_tokens, n_head)] */
    float *sinks;          /* [n_head][OP_QUERY_TILE] */
    struct moe_state *moe; /* NULL: the model has no experts */
};

enum { OP_QUERY_TILE = 48 }; /* queries a chunk of prompt attention: a tile of the AVX2 kernel */

typedef void (*launch_fn)(ttx_step *s, const operand *v, void *ctx);

/* Acquires the operands, runs, releases. In a dry run only writes them down. */
void op_launch(ttx_step *s, ttx_op_kind op, operand *v, int64_t n, launch_fn run, void *ctx);

/* Writes a launch that has just ended into the trace, which there is (op_trace.c). */
void op_trace(ttx_step *s, ttx_op_kind op, const operand *v, int64_t n, uint64_t start);

/* At level io, before anything is touched: which operands are in memory? */
void op_trace_probe(ttx_step *s, operand *v, int64_t n);

/* For the trace: the launch that comes next reads and writes so many values of activations. */
static inline void op_touch(ttx_step *s, int64_t values) {
    s->act_bytes = (uint64_t)values * sizeof(float);
}

/* The whole of a weight; matrix i of one that has several. */
operand op_whole(const ttx_weight *w);
operand op_matrix(const ttx_weight *w, int64_t i);
operand op_row(const ttx_weight *w, int64_t i);

/* Items [0, n) over the pool; rows of `dim` values, unless there is too little of it. */
void op_pool(ttx_step *s, int64_t n, int64_t chunk, ttx_task task, void *ctx);
void op_rows(ttx_step *s, int64_t n, int64_t dim, ttx_task task, void *ctx);

/* Must be called by whatever writes a buffer: quantised copies of it are stale. */
static inline void op_wrote(ttx_step *s, ttx_buf y) {
    if (s->op->act_of == y.p) s->op->act_of = NULL;
}

/* Makes the forms of x [n_cols][x.dim] that kernels read, unless an earlier launch has; returns the
 * planes. */
const ttx_act *op_prepare_act(ttx_step *s, ttx_buf x, int64_t n_cols, int forms);
int op_act_form(const ttx_step *s, const ttx_weight *w);

/* Computes all rows of all jobs. */
void op_run_jobs(ttx_step *s, mm_job *jobs, int n);

/* The experts' part of the state (op_moe.c); nothing for a model without. */
uint64_t op_moe_bytes(const ttx_model *m, const ttx_op_limits *lim);
int op_moe_open(ttx_op_state *op, const ttx_model *m, const ttx_op_limits *lim, ttx_err *err);

#endif
