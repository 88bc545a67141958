/* sim_routes.c -- routes for the simulator: from a route file or another source, or from a trace.
 */
#include "sim.h"

#include "trace_file.h"
#include "trace_meta.h"

#include <stdlib.h>
#include <string.h>

void ttx_sim_routes_free(ttx_sim_routes *r) {
    free(r->expert);
    *r = (ttx_sim_routes){0};
}

/* Room for at least n_step steps, the new ones empty. */
static int reserve(ttx_sim_routes *r, uint32_t n_step, uint32_t *cap, ttx_err *err) {
    size_t row = (size_t)r->n_layer * r->k;
    if (n_step <= *cap) return TTX_OK;
    uint32_t more = *cap ? 2 * *cap : n_step < 64 ? 64 : n_step;
    uint16_t *v = realloc(r->expert, more * row * sizeof *v);
    if (!v) return ttx_fail_nomem(err, "routes", more * row * sizeof *v);
    memset(v + *cap * row, 0xff, (more - *cap) * row * sizeof *v); /* TTX_SIM_NONE */
    r->expert = v;
    *cap = more;
    return TTX_OK;
}

static uint16_t *row_of(const ttx_sim_routes *r, uint32_t step, uint32_t layer) {
    return r->expert + ((size_t)step * r->n_layer + layer) * r->k;
}

int ttx_sim_routes_from(ttx_sim_routes *out, const ttx_route_source *source, uint32_t n_step,
                        uint32_t n_layer, uint32_t n_expert, uint32_t k, ttx_err *err) {
    uint32_t cap = 0, found = 0;
    *out = (ttx_sim_routes){.n_step = n_step, .n_layer = n_layer, .n_expert = n_expert, .k = k};
    int rc = reserve(out, n_step, &cap, err);
    for (uint32_t s = 0; s < n_step && !rc; s++)
        for (uint32_t l = 0; l < n_layer; l++) {
            ttx_route r = {.layer = l, .step = s, .decode = true};
            if (!source->choose(source->ctx, &r)) continue;
            for (int i = 0; i < r.k && i < (int)k; i++)
                row_of(out, s, l)[i] = (uint16_t)r.expert[i];
            found++;
        }
    if (!rc && !found)
        rc = ttx_fail(err, TTX_E_RUNTIME, "routes: expected some of %u steps, found none", n_step);
    return rc;
}

typedef struct scan {
    ttx_sim_routes *r;
    uint32_t cap, position;
    double ns, tokens;
} scan;

static int add_route(scan *x, const ttx_record *v, ttx_err *err) {
    ttx_sim_routes *r = x->r;
    if (v->layer_id >= r->n_layer || v->expert_id >= r->n_expert)
        return ttx_fail(err, TTX_E_USAGE,
                        "trace: expected %u layers of %u experts, found layer %u, expert %u",
                        r->n_layer, r->n_expert, v->layer_id, v->expert_id);
    if (v->token_id != x->position) { /* a new position begins a new step */
        x->position = v->token_id;
        int rc = reserve(r, r->n_step + 1, &x->cap, err);
        if (rc) return rc;
        r->n_step++;
    }
    if (v->expert_rank < r->k) row_of(r, r->n_step - 1, v->layer_id)[v->expert_rank] = v->expert_id;
    return TTX_OK;
}

static int add_record(scan *x, const ttx_record *v, ttx_err *err) {
    bool decode = v->phase == TTX_PHASE_GENERATE;
    if (v->kind == TTX_REC_RESTART) x->position = TTX_REC_NO_TOKEN;
    bool guess = v->flags & TTX_RECF_GUESS; /* the simulated run may make none */
    if (v->kind == TTX_REC_ACCESS && decode && !guess) x->ns += v->duration_ns;
    if (v->kind == TTX_REC_TOKEN && decode) x->tokens++;
    return v->kind == TTX_REC_ROUTE && decode ? add_route(x, v, err) : TTX_OK;
}

int ttx_sim_read_trace(ttx_sim_routes *routes, double *compute_s, const char *dir, uint32_t n_layer,
                       uint32_t n_expert, ttx_err *err) {
    *routes = (ttx_sim_routes){.n_layer = n_layer, .n_expert = n_expert, .k = TTX_MAX_EXPERTS_USED};
    scan x = {.r = routes, .position = TTX_REC_NO_TOKEN};
    ttx_trace_meta meta = {0};
    ttx_trace_reader *reader = NULL;
    const ttx_record *v;
    size_t n = 0;
    int rc = ttx_trace_meta_load(&meta, dir, err);
    char *path = rc ? NULL : ttx_trace_path(&meta, TTX_TRACE_RECORDS);
    if (!rc && !path) rc = ttx_fail_nomem(err, "a path", strlen(dir));
    if (!rc) rc = ttx_trace_reader_open(&reader, path, TTX_READ_UNCHECKED, err);
    while (!rc && !(rc = ttx_trace_reader_next(reader, &v, &n, err)) && n)
        for (size_t i = 0; i < n && !rc; i++) rc = add_record(&x, &v[i], err);
    *compute_s = x.tokens > 0 ? x.ns * 1e-9 / x.tokens : 0;
    ttx_trace_reader_close(reader);
    free(path);
    ttx_trace_meta_free(&meta);
    return rc;
}
