/* plan.h -- the access plan: which bytes one step touches, in which order.
 *
 * A plan is written by a dry run of the forward pass: the same code, with nothing computed. Of an
 * expert tensor the plan cannot know which slices will be chosen: such an access covers the whole
 * tensor and says "n_expert_used of n_expert".
 */
#ifndef TTX_PLAN_H
#define TTX_PLAN_H

#include "err.h"
#include "op_kind.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A byte range of one file of the model: what residency and traces speak about. */
typedef struct ttx_range {
    uint32_t shard;
    uint64_t offset, size;
} ttx_range;

/* By file and place: <0, 0, >0. Two pointers to ranges, or to structs that begin with one: qsort's.
 */
int ttx_range_compare(const void *a, const void *b);

/* Of n structs of `stride` bytes, which begin with ranges in that order: how many begin at or
 * before r. */
uint32_t ttx_range_upto(const void *v, size_t stride, uint32_t n, ttx_range r);

enum { TTX_NO_LAYER = 0xffff };

typedef struct ttx_access {
    ttx_op_kind op;
    uint16_t layer;  /* TTX_NO_LAYER: outside the layers */
    uint32_t tensor; /* index in the model file's tensor list */
    ttx_range range;
    uint32_t n_expert, n_expert_used; /* 0: not an expert tensor */
    uint32_t launch; /* accesses of one launch share this number: they are held at the same time */
    bool row;        /* one row of the tensor; which one depends on the token */
    int32_t expert;  /* the range is this expert's matrix alone; -1: it is the whole tensor */
} ttx_access;

/* The range of an expert's matrix, of an access to an expert tensor. */
ttx_range ttx_access_slice(const ttx_access *a, uint32_t expert);

/* All zeros is an empty plan. */
typedef struct ttx_plan {
    ttx_access *v;
    size_t n, cap;
} ttx_plan;

/* Appends one access. Errors: TTX_E_RUNTIME (no memory). */
int ttx_plan_add(ttx_plan *p, const ttx_access *a, ttx_err *err);
void ttx_plan_free(ttx_plan *p);

/* How many layers it has: the highest, and one. */
uint32_t ttx_plan_layers(const ttx_plan *p);

#endif
