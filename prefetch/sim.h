/* sim.h -- a streamed run on a made-up machine: what a budget, a cache policy and a predictor would
 * give.
 *
 * The streaming mode itself runs here, layout, ring, cache, guesses and queues, with a disk that
 * reads nothing and a clock that is moved by hand: by computing, and by waiting for that disk. So
 * the simulator cannot differ from the engine in what is kept, read and evicted. What it assumes is
 * the machine: a disk of constant speed that serves reads in order, and operations that take time
 * in proportion to their bytes.
 *
 * Decode steps only, the first one with an empty cache.
 */
#ifndef TTX_SIM_H
#define TTX_SIM_H

#include "residency.h"
#include "route.h"

/* Which experts the steps use. */
typedef struct ttx_sim_routes {
    uint32_t n_step, n_layer, n_expert, k;
    uint16_t *expert; /* [n_step][n_layer][k], best first, TTX_SIM_NONE after the last */
} ttx_sim_routes;

enum { TTX_SIM_NONE = 0xffff };

typedef struct ttx_sim_machine {
    double disk_bytes_s, disk_latency_s; /* ttx_disk */
    double compute_s;                    /* of a decode step that waits for nothing */
} ttx_sim_machine;

typedef struct ttx_sim_settings {
    const ttx_source *sources; /* of the model; nothing is read */
    uint32_t n_sources;
    ttx_residency_settings residency; /* as of a run: mode, plan, budget, policy, guesses */
    const ttx_sim_routes *routes;     /* NULL: a model without experts */
    ttx_sim_machine machine;
    uint32_t n_step, warm_up; /* steps; of them not counted */
    float router_right;       /* of TTX_GUESS_ROUTER: share of experts that it names rightly */
} ttx_sim_settings;

/* Sums over the counted steps. */
typedef struct ttx_sim_result {
    ttx_residency_layout layout;
    uint32_t n_step;
    double seconds, stall_s;
    double bytes; /* read */
    uint64_t expert_uses, expert_hits, guesses, guesses_used;
    /* The least seconds for the reads that this run did, with a disk that never pauses and no cost
     * of its own: experts known after their router; experts known one router before; and reads and
     * computation independent of each other. */
    double bound_s, bound_guess_s, bound_free_s;
} ttx_sim_result;

/* Errors: TTX_E_RUNTIME (budget too small, memory). */
int ttx_simulate(ttx_sim_result *out, const ttx_sim_settings *set, ttx_err *err);

/* Routes of the steps that a source has experts for, at most n_step of them. `k`: most experts of a
 * step. The caller frees with ttx_sim_routes_free. Errors: TTX_E_RUNTIME (memory, no routes). */
int ttx_sim_routes_from(ttx_sim_routes *out, const ttx_route_source *source, uint32_t n_step,
                        uint32_t n_layer, uint32_t n_expert, uint32_t k, ttx_err *err);
/* What the run of a trace says of the tokens that it generated: their routes (none: n_step is 0),
 * and how long their operations took, in seconds a token (0: not recorded). Errors: TTX_E_RUNTIME
 * (memory, a damaged trace), TTX_E_USAGE (another model's: other layers or experts). */
int ttx_sim_read_trace(ttx_sim_routes *routes, double *compute_s, const char *dir, uint32_t n_layer,
                       uint32_t n_expert, ttx_err *err);
void ttx_sim_routes_free(ttx_sim_routes *r); /* all zeros is fine */

#endif
