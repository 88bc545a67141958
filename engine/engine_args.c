/* engine_args.c -- see engine_args.h. */
#include "engine_args.h"

#include "clock.h"
#include "engine_ram.h"
#include "engine_trace.h"
#include "models.h"
#include "outfile.h"
#include "readfile.h"

#include <cJSON.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MAX_HINTS = 1 << 28 }; /* bytes of a file of hints */

void ttx_engine_args_defaults(ttx_engine_args *a) {
    *a = (ttx_engine_args){.n_ctx = TTX_CTX_DEFAULT,
                           .cache_policy = -1,
                           .guess = -1,
                           .trace_level = TTX_LEVEL_HEAD,
                           .n_ubatch = ttx_session_default_settings().n_ubatch};
}

static void warn(void *ctx, const char *line) {
    (void)ctx;
    ttx_note("%s", line);
}

/* Set by Ctrl-C, and an eventfd that it makes readable, for those who wait: all that the signal
 * handler touches. */
static volatile sig_atomic_t interrupted;
static int wake_fd = -1;

static void on_interrupt(int sig) {
    (void)sig;
    int saved = errno;
    uint64_t one = 1;
    interrupted = 1;
    if (wake_fd >= 0 && write(wake_fd, &one, sizeof one) < 0) errno = saved;
}

const volatile sig_atomic_t *ttx_catch_interrupt(void) {
    struct sigaction a = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART | (int)SA_RESETHAND};
    if (wake_fd < 0) wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigaction(SIGINT, &a, NULL);
    return &interrupted;
}

bool ttx_wait_for_input(void) {
    struct pollfd on[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                          {.fd = wake_fd, .events = POLLIN}};
    while (!interrupted && poll(on, 2, -1) < 0 && errno == EINTR) continue;
    return !interrupted;
}

static bool load_progress(void *ctx, uint64_t done, uint64_t total) {
    (void)ctx;
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\rloading %3d %%%s", (int)(100 * done / total),
                done == total || interrupted ? "\r               \r" : "");
    return !interrupted;
}

/* Bytes of one expert and of everything else in each layer, for the head of a route file. */
static void layer_bytes(const ttx_model *m, uint64_t *expert, uint64_t *dense) {
    for (uint32_t il = 0; il < m->hp.n_layer; il++) {
        expert[il] = dense[il] = 0;
        for (int r = TTX_W_PER_LAYER; r < TTX_W_COUNT; r++) {
            const ttx_weight *w = ttx_model_weight(m, (ttx_role)r, (int)il);
            bool is_expert = r >= TTX_W_GATE_EXPS && r <= TTX_W_DOWN_EXPS;
            if (w->tensor) *(is_expert ? &expert[il] : &dense[il]) += ttx_weight_range(w, 0).size;
        }
    }
}

/* TTX_EXPERT_TRACE_* switches: for runs whose command line is somebody else's. */
static bool env_is_set(const char *name) {
    const char *v = getenv(name);
    return v && *v && strcmp(v, "0") != 0;
}

static void log_expert_names(const ttx_model *m) {
    for (uint32_t il = 0; il < m->hp.n_layer; il++)
        for (int r = TTX_W_ROUTER; r <= TTX_W_DOWN_EXPS_BIAS; r++) {
            const ttx_weight *w = ttx_model_weight(m, (ttx_role)r, (int)il);
            uint32_t n = w->split ? m->hp.n_expert : w->tensor != NULL;
            for (uint32_t i = 0; i < n; i++)
                ttx_note("layer %u: %s", il, ttx_weight_tensor(w, i)->name);
        }
}

static int open_stats(ttx_engine *e, const ttx_engine_args *a, ttx_err *err) {
    const ttx_hparams *hp = &e->model->hp;
    if (hp->n_expert && env_is_set("TTX_EXPERT_TRACE_NAMES")) log_expert_names(e->model);
    e->stats_to = a->expert_stats;
    if (!e->stats_to && hp->n_expert && env_is_set("TTX_EXPERT_TRACE_STATS")) {
        const char *output = getenv("TTX_EXPERT_TRACE_OUTPUT");
        e->stats_to = output && *output ? output : "-";
    }
    if (!e->stats_to && !(a->trace && hp->n_expert)) return TTX_OK;
    if (!hp->n_expert)
        return ttx_fail(err, TTX_E_USAGE,
                        "expert statistics: expected a model with experts, found %s without",
                        a->model);
    int rc = TTX_OK;
    if (e->stats_to && strcmp(e->stats_to, "-") != 0)
        rc = ttx_outfile_open(&e->stats_file, e->stats_to, err);
    if (!rc) rc = ttx_expert_stats_new(&e->stats, hp->n_layer, hp->n_expert, err);
    if (!rc) e->sinks[e->n_sinks++] = ttx_expert_stats_sink(e->stats);
    return rc;
}

static int write_stats(ttx_engine *e, int rc, ttx_err *err) {
    if (!e->stats_to || rc) return rc;
    if (e->stats_file.f) {
        rc = ttx_expert_stats_json(e->stats, e->stats_file.f, err);
        return ttx_outfile_close(&e->stats_file, rc, err);
    }
    FILE *to[] = {stderr, ttx_note_log()};
    for (int i = 0; i < 2 && to[i]; i++) {
        ttx_expert_stats_print(e->stats, to[i]);
        if (env_is_set("TTX_EXPERT_TRACE_PER_LAYER"))
            ttx_expert_stats_print_layers(e->stats, to[i]);
    }
    return rc;
}

static int open_routes(ttx_engine *e, const ttx_engine_args *a, ttx_err *err) {
    const ttx_hparams *hp = &e->model->hp;
    if (!a->routes && !a->save_routes) return TTX_OK;
    if (!hp->n_expert)
        return ttx_fail(err, TTX_E_USAGE, "routes: expected a model with experts, found %s without",
                        a->model);
    int rc = TTX_OK;
    if (a->routes) {
        if ((rc = ttx_route_file_load(&e->routes, a->routes, err))) return rc;
        if ((rc = ttx_route_file_check(e->routes, hp->n_layer, hp->n_expert, err))) return rc;
        e->source = (ttx_route_source){ttx_route_file_choose, e->routes};
    }
    if (!a->save_routes) return TTX_OK;
    uint64_t *bytes = calloc(2 * hp->n_layer, sizeof *bytes);
    if (!bytes) return ttx_fail_nomem(err, "layer sizes", 2 * hp->n_layer * sizeof *bytes);
    layer_bytes(e->model, bytes, bytes + hp->n_layer);
    const char *slash = strrchr(a->model, '/');
    ttx_route_info info = {slash ? slash + 1 : a->model,
                           e->model->arch->name,
                           hp->n_layer,
                           hp->n_expert,
                           hp->n_expert_used,
                           bytes,
                           bytes + hp->n_layer};
    rc = ttx_route_writer_open(&e->route_writer, a->save_routes, &info, err);
    free(bytes);
    if (!rc) e->sinks[e->n_sinks++] = ttx_route_writer_sink(e->route_writer);
    return rc;
}

int ttx_engine_threads(const ttx_engine_args *a) {
    int t = a->n_threads > 0 ? a->n_threads : ttx_cpu_count();
    return a->n_threads_batch > t ? a->n_threads_batch : t;
}

static int threads(const ttx_engine_args *a) {
    int cores = ttx_cpu_count(), most = ttx_engine_threads(a);
    if (most > cores) ttx_note("%d threads on %d cores will be slower than %d", most, cores, cores);
    return most;
}

static int read_hints(ttx_engine *e, const ttx_engine_args *a, ttx_err *err) {
    const char *const paths[] = {a->hints, a->pattern};
    int rc = TTX_OK;
    for (int i = 0; i < 2 && !rc; i++) {
        char *text = NULL;
        size_t n = 0;
        if (!paths[i]) continue;
        if ((rc = ttx_read_file(paths[i], MAX_HINTS, &text, &n, err))) return rc;
        rc = (i ? ttx_pattern_read : ttx_hints_read)(&e->hints, e->model, text, n, paths[i], err);
        free(text);
    }
    e->args = *a;
    return rc ? rc : ttx_ram_take_hints(&e->args, &e->hints, err);
}

/* Decides who gets how much memory, and opens the file's weights accordingly. */
static int open_residency(ttx_engine *e, const ttx_engine_args *a, ttx_err *err) {
    ttx_residency_settings set = ttx_residency_default_settings();
    ttx_ram_plan plan = {0};
    set.warn = warn;
    set.progress = load_progress;
    e->needs = calloc(1, sizeof *e->needs);
    if (!e->needs) return ttx_fail_nomem(err, "memory plan", sizeof *e->needs);
    int rc = read_hints(e, a, err);
    if (!rc) rc = ttx_ram_choose(e->model, &e->rt, &e->args, &e->hints, &set, &plan, e->needs, err);
    if (!rc) rc = ttx_runtime_open_residency(&e->rt, e->file, &set, err);
    ttx_ram_plan_free(&plan);
    return rc;
}

int ttx_engine_open(ttx_engine *e, const ttx_engine_args *a, ttx_err *err) {
    *e = (ttx_engine){0};
    e->start_ns = ttx_now_ns();
    int rc = gguf_open(&e->file, a->model, err);
    if (rc) return rc;
    if ((rc = ttx_model_load(&e->model, e->file, ttx_archs, err))) return rc;
    if (a->n_expert_used) {
        uint32_t own = e->model->hp.n_expert_used;
        if ((rc = ttx_model_set_experts_used(e->model, a->n_expert_used, err))) return rc;
        if (a->n_expert_used != own)
            ttx_note(
                "%u experts a token instead of the model's %u: results are not the model's own",
                a->n_expert_used, own);
    }
    ttx_runtime_settings set = ttx_runtime_default_settings();
    set.n_threads = threads(a);
    set.isa = a->isa - 1;
    set.no_residency = true;
    if ((rc = ttx_runtime_open(&e->rt, e->file, &set, err))) return rc;
    if ((rc = open_residency(e, a, err))) return rc;
    if ((rc = open_routes(e, a, err))) return rc;
    if ((rc = open_stats(e, a, err))) return rc;
    e->load_s = (double)(ttx_now_ns() - e->start_ns) * 1e-9;
    return TTX_OK;
}

ttx_session_settings ttx_engine_session_settings(const ttx_model *m, const ttx_engine_args *a,
                                                 uint32_t n_outputs) {
    static const ttx_dtype types[] = {TTX_F16, TTX_F32, TTX_Q8_0};
    ttx_session_settings set = ttx_session_default_settings();
    set.n_ctx = a->n_ctx == TTX_CTX_DEFAULT ? 0 : a->n_ctx ? a->n_ctx : m->hp.n_ctx_train;
    set.n_ubatch = a->n_ubatch;
    uint64_t rows = a->n_outputs;
    if (a->output_bytes) {
        rows = a->output_bytes / (m->hp.n_vocab * sizeof(float));
        if (rows > a->n_ubatch) rows = a->n_ubatch;
    }
    set.n_outputs = n_outputs ? n_outputs : rows ? (uint32_t)rows : 1;
    set.k_type = types[a->k_type];
    set.v_type = types[a->v_type];
    set.n_threads = a->n_threads > 0 ? a->n_threads : ttx_cpu_count();
    set.n_threads_batch = a->n_threads_batch > 0 ? a->n_threads_batch : set.n_threads;
    return set;
}

int ttx_engine_session(ttx_engine *e, const ttx_engine_args *a, uint32_t n_outputs,
                       ttx_session **out, ttx_err *err) {
    ttx_session_settings set = ttx_engine_session_settings(e->model, a, n_outputs);
    uint32_t trained = e->model->hp.n_ctx_train;
    set.memory = e->needs->budget / TTX_CONTEXT_SHARE;
    set.sinks = e->sinks;
    set.n_sinks = e->n_sinks;
    if (e->routes) {
        set.source = &e->source;
        set.k_experts = (uint32_t)ttx_route_file_k(e->routes);
    }
    if (set.n_ctx > trained)
        ttx_note(
            "context: %u is more than the %u that the model was trained for; expect worse text",
            a->n_ctx, e->model->hp.n_ctx_train);
    int rc = ttx_session_open(out, e->model, &e->rt, &set, err);
    return rc ? rc : ttx_engine_trace_open(e, a, *out, err);
}

int ttx_engine_finish(ttx_engine *e, int rc, ttx_err *err) {
    bool stopped = rc == TTX_E_INTERRUPTED; /* what was recorded up to then is kept */
    if (stopped) rc = TTX_OK;
    rc = ttx_engine_trace_close(e, rc, err);
    rc = write_stats(e, rc, err);
    rc = ttx_route_writer_close(e->route_writer, rc, err);
    e->route_writer = NULL;
    return rc || !stopped ? rc : TTX_E_INTERRUPTED;
}

void ttx_engine_close(ttx_engine *e) {
    ttx_route_writer_close(e->route_writer, TTX_E_RUNTIME, NULL); /* not finished: discarded */
    if (e->stats_file.f) ttx_outfile_close(&e->stats_file, TTX_E_RUNTIME, NULL);
    ttx_residency_trace(e->rt.residency, NULL);
    ttx_trace_close(e->rt.trace, TTX_E_RUNTIME, NULL, NULL);
    ttx_trace_tensors_free(&e->trace_tensors);
    cJSON_Delete(e->trace_config);
    ttx_route_file_free(e->routes);
    ttx_expert_stats_free(e->stats);
    ttx_runtime_close(&e->rt);
    ttx_hints_free(&e->hints);
    free(e->needs);
    ttx_model_free(e->model);
    gguf_close(e->file);
    *e = (ttx_engine){0};
}
