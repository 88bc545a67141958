/* report_advice.h -- what `ttx report --hints` has to say, before it is put into JSON
 * (report_hints.c) or words (report_hints_text.c).
 */
#ifndef TTX_REPORT_ADVICE_H
#define TTX_REPORT_ADVICE_H

#include "report_int.h"

/* Sums of accesses to tensors. Early: the first third of the layers; late: the last third. */
typedef enum rp_group {
    RP_EMBEDDING,
    RP_LAYERS,
    RP_EARLY,
    RP_LATE,
    RP_CACHE,
    RP_WEIGHTS,
    RP_OUTSIDE,
    RP_GROUPS
} rp_group;
extern const char *const rp_group_names[RP_GROUPS];

/* One expert of a layer, all of its matrices. */
typedef struct rp_warm {
    uint16_t layer, expert;
    uint64_t tokens, accesses, bytes, size;
} rp_warm;

enum { RP_SLOWEST = 10 };

typedef struct rp_advice {
    rp_tensor_sum *sums;
    uint32_t *order, n_tensor; /* tensors from hot to cold */
    uint32_t *pins, n_pin;     /* objects, those that pay most first */
    bool *fits;                /* [n_pin] what of them `ram` holds */
    uint32_t n_fit;
    uint64_t ram, pinned, saved;
    rp_warm *warm; /* experts, those that most tokens took first */
    uint32_t n_warm;
    rp_row group[RP_GROUPS];
    rp_row qkv[TTX_QKV_COUNT];   /* of the projections */
    uint8_t qkv_order[8], n_qkv; /* ttx_qkv, as the first layer that has them used them */
    uint32_t slowest[RP_SLOWEST + 1], n_slowest; /* layers */
    uint64_t *layer_ns, *layer_bytes;
    rp_cache_point curve[RP_CACHE_POINTS];
    double distance_mean, distance_p50, distance_p90; /* of reuse */
    double reread, disk_reread;                       /* bytes by distinct bytes */
    double others; /* decode tokens that are compared with the first one */
    rp_route_sum routes;
} rp_advice;

/* Free it with rp_advice_free in any case. False without memory. */
bool rp_advise(const ttx_report *r, rp_advice *a);
void rp_advice_free(rp_advice *a);

#endif
