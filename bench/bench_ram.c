/* bench_ram.c -- see bench_ram.h. */
#include "bench_ram.h"

#include "clock.h"
#include "engine_ram.h"
#include "sim_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* ---- listening ---- */

static void restart(void *ctx) {
    ((ram_watch *)ctx)->position = -1;
}

/* Without memory for more, the rest has no routes, and the result no bound. */
static void chosen(void *ctx, const ttx_route *r) {
    ram_watch *w = ctx;
    ttx_sim_routes *v = &w->routes;
    if (!r->decode || w->stop) return;
    size_t row = (size_t)v->n_layer * v->k;
    if (r->step != w->position && v->n_step == w->routes_cap) {
        uint32_t more = w->routes_cap ? 2 * w->routes_cap : 512;
        uint16_t *p = realloc(v->expert, more * row * sizeof *p);
        if (!p) return;
        memset(p + v->n_step * row, 0xff, (more - v->n_step) * row * sizeof *p);
        v->expert = p;
        w->routes_cap = more;
    }
    if (r->step != w->position) v->n_step++;
    w->position = r->step;
    uint16_t *to = v->expert + (v->n_step - 1) * row + (size_t)r->layer * v->k;
    for (int i = 0; i < r->k && i < (int)v->k; i++) to[i] = (uint16_t)r->expert[i];
}

uint64_t ram_device_bytes(void) {
    FILE *f = fopen("/proc/self/io", "re");
    char line[128];
    unsigned long long v = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "read_bytes: %llu", &v) == 1) break;
    if (f) fclose(f);
    return v;
}

/* Without what the meter has read. */
static uint64_t bytes_of_run(const ram_watch *w) {
    uint64_t all = ram_device_bytes(), metered = ttx_disk_meter_bytes(w->meter);
    return all > metered ? all - metered : 0; /* not every system counts reads */
}

int ram_meter_open(ttx_disk_meter **out, ttx_engine_args *a, ttx_err *err) {
    int rc = ttx_disk_meter_open(out, a->model, err);
    a->ram_else = ttx_disk_meter_memory(*out);
    return rc;
}

double ram_watch_meter(void *watch) {
    return 1e-9 * ttx_disk_meter_read(((ram_watch *)watch)->meter);
}

void ram_watch_open(ram_watch *w, ttx_engine *e, ttx_disk_meter *meter) {
    const ttx_hparams *hp = &e->model->hp;
    *w = (ram_watch){
        .engine = e,
        .meter = meter,
        .routes = {.n_layer = hp->n_layer, .n_expert = hp->n_expert, .k = TTX_MAX_EXPERTS_USED},
        .position = -1};
    if (hp->n_expert && e->n_sinks < (int)(sizeof e->sinks / sizeof *e->sinks))
        e->sinks[e->n_sinks++] = (ttx_route_sink){chosen, restart, w};
}

void ram_watch_close(ram_watch *w) {
    ttx_sim_routes_free(&w->routes);
}

static uint64_t major_faults(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)u.ru_majflt;
}

void ram_watch_mark(void *watch, bool begin) {
    ram_watch *w = watch;
    ttx_residency_counters now = ttx_residency_get_counters(w->engine->rt.residency);
    uint64_t read = bytes_of_run(w), faults = major_faults();
    if (begin) {
        if (!w->stop) w->begin = w->routes.n_step;
        w->from = now;
        w->read = read;
        w->faults = faults;
        return;
    }
    if (!w->stop) w->end = w->routes.n_step;
    w->stop = true;
    w->sum.bytes_read += now.bytes_read - w->from.bytes_read;
    w->sum.stall_ns += now.stall_ns - w->from.stall_ns;
    w->sum.expert_uses += now.expert_uses - w->from.expert_uses;
    w->sum.expert_hits += now.expert_hits - w->from.expert_hits;
    w->sum.guesses += now.guesses - w->from.guesses;
    w->sum.guesses_used += now.guesses_used - w->from.guesses_used;
    w->sum_read += read - w->read;
    w->sum_faults += faults - w->faults;
}

/* ---- results ---- */

/* Bytes of everything that the tokens so far touched, each once. */
static double distinct_bytes(const ram_watch *w, const ttx_plan *plan) {
    const ttx_sim_routes *v = &w->routes;
    size_t n = (size_t)v->n_layer * v->n_expert;
    uint8_t *seen = calloc(n + 1, 1);
    double sum = 0;
    if (!seen) return NAN;
    for (uint32_t s = 0; s < v->n_step; s++)
        for (uint32_t l = 0; l < v->n_layer; l++)
            for (uint32_t i = 0; i < v->k; i++) {
                uint16_t e = v->expert[((size_t)s * v->n_layer + l) * v->k + i];
                if (e < v->n_expert) seen[l * v->n_expert + e] = 1;
            }
    for (size_t i = 0; i < plan->n; i++) {
        const ttx_access *a = &plan->v[i];
        double experts = 0;
        for (uint32_t e = 0; e < v->n_expert && a->n_expert && a->layer < v->n_layer; e++)
            experts +=
                a->expert < 0 || (uint32_t)a->expert == e ? seen[a->layer * v->n_expert + e] : 0;
        sum +=
            (double)a->range.size * (a->n_expert ? experts / (a->expert < 0 ? a->n_expert : 1) : 1);
    }
    free(seen);
    return sum;
}

/* How fast the same tokens could have been streamed at most. */
static int find_bound(ram_watch *w, ram_result *r, const ttx_disk *disk, double n, ttx_err *err) {
    ttx_sim_result sim;
    ttx_engine_args args = w->engine->args;
    bool experts = w->engine->model->hp.n_expert > 0;
    sim_model m = {.file = w->engine->file,
                   .model = w->engine->model,
                   .rt = w->engine->rt,
                   .routes = w->routes,
                   .budget = w->engine->needs->budget,
                   .has_experts = experts};
    ttx_sim_settings how = {
        .machine = {disk->bytes_s, 0, r->compute_ms * 1e-3},
        .n_step = experts ? w->end : (uint32_t)n + 8,
        .warm_up = experts ? w->begin : 8,
    };
    args.prefetch = 2; /* layers alone: the bound is of reads that are known to be needed */
    if (how.n_step <= how.warm_up || (experts && !w->routes.n_step)) return TTX_OK;
    int rc = sim_model_sources(&m, err);
    if (!rc) rc = sim_model_run(&m, &args, &how, &sim, err);
    free(m.sources);
    if (rc) return rc;
    r->bound_ts = sim.n_step / sim.bound_s;
    r->bound_guess_ts = sim.n_step / sim.bound_guess_s;
    r->bound_free_ts = sim.n_step / sim.bound_free_s;
    return TTX_OK;
}

static int find_result(ram_watch *w, ram_result *r, const ttx_disk *disk, double n, double seconds,
                       ttx_err *err) {
    const ttx_residency_counters *c = &w->sum;
    ttx_residency *res = w->engine->rt.residency;
    bool stream = ttx_residency_mode(res) == TTX_LOAD_STREAM;
    double bytes = (double)(stream ? c->bytes_read : w->sum_read),
           stall = (double)c->stall_ns * 1e-9;
    double reads_s = bytes / disk->bytes_s;
    uint64_t all =
        stream ? ttx_residency_get_counters(res).bytes_read : bytes_of_run(w) - w->read_at_open;
    ttx_plan plan = {0};
    bool disk_known = disk->bytes_s > 0;
    r->disk_mbps = disk_known ? disk->bytes_s * 1e-6 : NAN;
    r->mb_token = bytes * 1e-6 / n;
    r->major_faults = (double)w->sum_faults / n;
    r->hit_rate = c->expert_uses ? (double)c->expert_hits / (double)c->expert_uses : NAN;
    r->guess_rate = c->guesses ? (double)c->guesses_used / (double)c->guesses : NAN;
    r->total_mb = (double)all * 1e-6;
    r->layout = ttx_residency_get_layout(res);
    r->stall_ms = r->overlap = r->io_share = r->compute_ms = NAN;
    r->bound_ts = r->bound_guess_ts = r->bound_free_ts = NAN;
    r->cold_s = (double)(ttx_now_ns() - w->engine->start_ns - ttx_disk_meter_ns(w->meter)) * 1e-9;
    int rc = ttx_plan_decode(w->engine->model, &plan, err);
    if (!rc) r->reread = (double)all / distinct_bytes(w, &plan);
    ttx_plan_free(&plan);
    if (rc || !stream) return rc; /* of the page cache it is not known who waited */
    r->stall_ms = stall * 1e3 / n;
    r->io_share = stall / seconds;
    r->compute_ms = (seconds - stall) * 1e3 / n;
    if (!disk_known) return TTX_OK;
    if (reads_s > 0) r->overlap = stall < reads_s ? 1 - stall / reads_s : 0;
    return find_bound(w, r, disk, n, err);
}

int ram_watch_result(ram_watch *w, ram_result *r, const ttx_disk *disk, double n, double seconds,
                     ttx_err *err) {
    int rc = find_result(w, r, disk, n, seconds, err);
    w->sum = (ttx_residency_counters){0}; /* the next test begins anew */
    w->sum_read = w->sum_faults = 0;
    return rc;
}

/* ---- output ---- */

void ram_put(result_row *row, const ram_result *r) {
    result_text(row, "ram", r->setup->ram ? r->setup->ram : "");
    result_text(row, "step", r->setup->step);
    result_text(row, "pin", r->setup->pin ? r->setup->pin : "auto");
    const ttx_residency_layout *l = r->layout;
    const struct {
        const char *name;
        double v;
    } v[] = {
        {"disk_mbps", r->disk_mbps},
        {"mb_per_token", r->mb_token},
        {"total_mb", r->total_mb},
        {"hit_rate", r->hit_rate},
        {"guess_rate", r->guess_rate},
        {"stall_ms", r->stall_ms},
        {"compute_ms", r->compute_ms},
        {"major_faults", r->major_faults},
        {"overlap", r->overlap},
        {"io_time_share", r->io_share},
        {"reread_factor", r->reread},
        {"disk_bound_ts", r->bound_ts},
        {"disk_bound_guess_ts", r->bound_guess_ts},
        {"disk_bound_free_ts", r->bound_free_ts},
        {"cold_s", r->cold_s},
        {"cached_share", r->cached},
        {"group_peak_bytes", r->group_peak},
        {"budget_bytes", l ? (double)l->budget : NAN},
        {"pinned_bytes", l ? (double)l->pinned : NAN},
        {"dense_bytes", l ? (double)l->dense : NAN},
        {"expert_cache_bytes", l ? (double)l->cache : NAN},
        {"n_expert_slots", l ? l->n_slots : NAN},
        {"n_experts", l ? l->n_experts : NAN},
        {"change_mb_per_token", r->change_mb},
        {"change_ms_per_token", r->change_ms},
        {"change_ts", r->change_ts},
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) result_real(row, v[i].name, v[i].v);
}

/* "12.3", or nothing if it is not known. */
static const char *show(double v, const char *format, char buf[24]) {
    buf[0] = 0;
    if (!isnan(v)) snprintf(buf, 24, format, v);
    return buf;
}

void ram_print_md(FILE *to, const char *model, const char *setup, const char *test, double ts,
                  const double step_ms[3], const ram_result *r, bool head) {
    char b[10][24], step[48] = "", change[64] = "";
    if (head)
        fputs("| model                    | setup                        | test     |    t/s | "
              "bound | "
              "share % | step p50/95/99 ms  | MB/token | hit % | stall ms | faults | hidden % | "
              "re-read | cold s | disk MB/s | change: t/s, ms, MB |\n"
              "|:-------------------------|:-----------------------------|:---------|-------:|-----"
              "-:|"
              "--------:|-------------------:|---------:|------:|---------:|-------:|---------:|"
              "--------:|-------:|----------:|:--------------------|\n",
              to);
    if (!isnan(step_ms[0]))
        snprintf(step, sizeof step, "%.1f / %.1f / %.1f", step_ms[0], step_ms[1], step_ms[2]);
    if (!isnan(r->change_ts))
        snprintf(change, sizeof change, "%+.1f %%, %+.1f, %+.1f%s", 100 * r->change_ts,
                 r->change_ms, r->change_mb, r->change_ts < 0.01 ? ": does not pay" : "");
    fprintf(
        to,
        "| %-24s | %-28s | %-8s | %6.2f | %5s | %7s | %18s | %8s | %5s | %8s | %6s | %8s | %7s | "
        "%6s | %9s | %-19s |\n",
        model, setup, test, ts, show(r->bound_ts, "%.2f", b[0]),
        show(100 * ts / r->bound_ts, "%.1f", b[1]), step, show(r->mb_token, "%.1f", b[2]),
        show(100 * r->hit_rate, "%.1f", b[3]), show(r->stall_ms, "%.1f", b[4]),
        show(r->major_faults, "%.1f", b[5]), show(100 * r->overlap, "%.0f", b[6]),
        show(r->reread, "%.2f", b[7]), show(r->cold_s, "%.1f", b[8]),
        show(r->disk_mbps, "%.0f", b[9]), change);
}
