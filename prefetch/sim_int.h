/* sim_int.h -- the parts of the simulator: the made-up disk, the future, the bounds. */
#ifndef SIM_INT_H
#define SIM_INT_H

#include "io.h"
#include "sim.h"

enum { SIM_DEPTH = 64 };

/* A disk that serves reads one after the other, each in the time of its bytes, and tells of them a
 * latency later. It has the clock. */
typedef struct sim_disk {
    ttx_io io; /* first */
    double now, free_at;
    double bytes_s, latency_s;
    double waited_s;
    struct {
        uint32_t tag, bytes;
        double there;
    } v[SIM_DEPTH]; /* in the order of completion: a FIFO */
    int first, n;
} sim_disk;

void sim_disk_open(sim_disk *d, const ttx_sim_machine *m);

/* When experts are used next, for TTX_CACHE_OPTIMUM. */
typedef struct sim_future {
    const ttx_sim_routes *routes;
    uint32_t *next; /* [n_step + 1][n_layer][n_expert]: the first step from this one that uses it */
    uint32_t step, layer;
} sim_future;

int sim_future_open(sim_future *f, const ttx_sim_routes *routes, ttx_err *err);
void sim_future_close(sim_future *f);
double sim_future_next(void *ctx, uint32_t layer, uint32_t expert);

/* The least time for the same reads, layer by layer. */
typedef struct sim_bound {
    double bytes_s;
    double t, disk_free;   /* experts known after their router */
    double tg, disk_freeg; /* experts known one router before */
    double router_beforeg;
    double compute_s, bytes; /* of all */
} sim_bound;

void sim_bound_compute(sim_bound *b, double seconds);
/* A layer's experts: `hits` are there, `misses` are read; seconds and bytes of each. */
void sim_bound_experts(sim_bound *b, uint32_t hits, uint32_t misses, double seconds, double bytes);

#endif
