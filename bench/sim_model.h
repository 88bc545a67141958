/* sim_model.h -- a model as the simulator wants it: what `ttx sim` and `ttx tune` share.
 *
 * Nothing is loaded: the file's header gives the plan, the options what a run would set aside.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "engine_args.h"
#include "engine_ram.h"
#include "sim.h"

#define SIM_GUESSES "off|" TTX_GUESS_NAMES /* as rows name them */

/* Routers asked early: how often they are right, and the option that says so. */
#define SIM_ROUTER_RIGHT 0.8f
#define SIM_ROUTER_RIGHT_OPT(field)                                                            \
    {                                                                                          \
        "--router-right", OPT_FLOAT, (field), "P",                                             \
            "share of experts that a router names rightly when it is asked some layers early", \
            .max = 1                                                                           \
    }

enum { SIM_LAYERS_ONLY = 2, SIM_ALL = 4 }; /* of TTX_PREFETCH_CHOICES */

typedef struct sim_model {
    gguf_file *file;
    ttx_model *model;
    ttx_runtime rt; /* without residency */
    ttx_source *sources;
    ttx_sim_routes routes; /* n_step 0: a model without experts */
    double compute_s;      /* that a trace tells; 0: unknown */
    uint64_t budget; /* 0: what the options say. A share of what is available means less by now */
    bool has_experts;
} sim_model;

/* Opens a->model and reads its routes from a trace or a route file (one of them, or neither for a
 * model without experts); n_step of them, repeated if there are fewer. The caller closes also after
 * an error. Errors: those of loading, and TTX_E_USAGE. */
int sim_model_open(sim_model *m, const ttx_engine_args *a, const char *trace, const char *routes,
                   uint32_t n_step, ttx_err *err);
void sim_model_close(sim_model *m);

/* Fills in sources, of a model that was opened elsewhere; the caller frees them. */
int sim_model_sources(sim_model *m, ttx_err *err);

/* Simulates a streamed run with these options (budget, policy, guesses). */
int sim_model_run(sim_model *m, const ttx_engine_args *a, const ttx_sim_settings *how,
                  ttx_sim_result *out, ttx_err *err);
/* The same with Belady's optimum in place of the option's policy, and no guesses. */
int sim_model_optimum(sim_model *m, const ttx_engine_args *a, const ttx_sim_settings *how,
                      ttx_sim_result *out, ttx_err *err);

#endif
