/* sim_model.c -- see sim_model.h. */
#include "sim_model.h"

#include "models.h"

#include <stdlib.h>

static int read_routes(sim_model *m, const char *path, uint32_t n_step, ttx_err *err) {
    const ttx_hparams *hp = &m->model->hp;
    ttx_route_file *file = NULL;
    int rc = ttx_route_file_load(&file, path, err);
    if (!rc) rc = ttx_route_file_check(file, hp->n_layer, hp->n_expert, err);
    ttx_route_source source = {ttx_route_file_choose, file};
    if (!rc)
        rc = ttx_sim_routes_from(&m->routes, &source, n_step, hp->n_layer, hp->n_expert,
                                 (uint32_t)ttx_route_file_k(file), err);
    ttx_route_file_free(file);
    return rc;
}

static int read_history(sim_model *m, const char *trace, const char *routes, uint32_t n_step,
                        ttx_err *err) {
    const ttx_hparams *hp = &m->model->hp;
    m->has_experts = hp->n_expert > 0;
    if (trace && routes)
        return ttx_fail(err, TTX_E_USAGE, "sim: expected one of --trace and --routes, found both");
    if (routes && !m->has_experts)
        return ttx_fail(err, TTX_E_USAGE,
                        "--routes: expected a model with experts, found one without");
    if (!trace && !routes && m->has_experts)
        return ttx_fail(
            err, TTX_E_USAGE,
            "sim: expected --trace or --routes for a model with experts, found neither");
    if (routes) return read_routes(m, routes, n_step, err);
    if (!trace) return TTX_OK;
    int rc = ttx_sim_read_trace(&m->routes, &m->compute_s, trace, hp->n_layer, hp->n_expert, err);
    if (!rc && m->has_experts && !m->routes.n_step)
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s: expected routes of generated tokens, found none",
                      trace);
    return rc;
}

int sim_model_sources(sim_model *m, ttx_err *err) {
    uint32_t n = gguf_n_shards(m->file);
    m->sources = calloc(n, sizeof *m->sources);
    if (!m->sources) return ttx_fail_nomem(err, "shard table", n * sizeof *m->sources);
    for (uint32_t i = 0; i < n; i++) {
        const gguf_shard *s = gguf_get_shard(m->file, i);
        m->sources[i] = (ttx_source){s->path, s->fd, s->map, s->size, s->data_offset};
    }
    return TTX_OK;
}

int sim_model_open(sim_model *m, const ttx_engine_args *a, const char *trace, const char *routes,
                   uint32_t n_step, ttx_err *err) {
    *m = (sim_model){0};
    int rc = gguf_open(&m->file, a->model, err);
    if (!rc) rc = ttx_model_load(&m->model, m->file, ttx_archs, err);
    if (!rc && a->n_expert_used) rc = ttx_model_set_experts_used(m->model, a->n_expert_used, err);
    if (rc) return rc;
    if ((rc = sim_model_sources(m, err))) return rc;
    ttx_runtime_settings set = ttx_runtime_default_settings();
    set.n_threads = a->n_threads;
    set.no_residency = true;
    if ((rc = ttx_runtime_open(&m->rt, m->file, &set, err))) return rc;
    return read_history(m, trace, routes, n_step, err);
}

void sim_model_close(sim_model *m) {
    ttx_sim_routes_free(&m->routes);
    ttx_runtime_close(&m->rt);
    free(m->sources);
    ttx_model_free(m->model);
    gguf_close(m->file);
    *m = (sim_model){0};
}

static int simulate(sim_model *m, const ttx_engine_args *a, const ttx_sim_settings *how,
                    bool optimum, ttx_sim_result *out, ttx_err *err) {
    ttx_ram_plan plan = {0};
    ttx_hints hints = {0};
    ttx_ram_needs needs;
    ttx_engine_args args = *a;
    ttx_sim_settings set = *how;
    set.residency = ttx_residency_default_settings();
    char budget[24];
    args.load_mode = 3; /* stream, whatever would fit */
    if (m->budget) {
        snprintf(budget, sizeof budget, "%llu", (unsigned long long)m->budget);
        args.ram = budget;
    }
    int rc = ttx_ram_choose(m->model, &m->rt, &args, &hints, &set.residency, &plan, &needs, err);
    set.sources = m->sources;
    set.n_sources = gguf_n_shards(m->file);
    set.routes = m->has_experts ? &m->routes : NULL;
    if (optimum) {
        set.residency.policy = TTX_CACHE_OPTIMUM;
        set.residency.prefetch &= ~(unsigned)TTX_PREFETCH_EXPERT;
    }
    if (!rc) rc = ttx_simulate(out, &set, err);
    ttx_ram_plan_free(&plan);
    return rc;
}

int sim_model_run(sim_model *m, const ttx_engine_args *a, const ttx_sim_settings *how,
                  ttx_sim_result *out, ttx_err *err) {
    return simulate(m, a, how, false, out, err);
}

int sim_model_optimum(sim_model *m, const ttx_engine_args *a, const ttx_sim_settings *how,
                      ttx_sim_result *out, ttx_err *err) {
    return simulate(m, a, how, true, out, err);
}
