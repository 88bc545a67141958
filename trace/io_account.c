/* io_account.c -- level io in the writer thread: page faults as records, and what the system
 * counts.
 *
 * A fault is sampled with its time and address, and becomes a record when the launch in whose time
 * it lies is taken from the ring: that launch's token, phase and layer are then its own. Whatever
 * could not be had is written down with its reason.
 */
#include "recorder_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { PAGE = 4096 };

/* "some ... total=N" of a pressure file; UINT64_MAX: unavailable. */
static uint64_t pressure(const char *path) {
    unsigned long long total;
    FILE *f = fopen(path, "re");
    bool ok = f && fscanf(f, "some avg10=%*f avg60=%*f avg300=%*f total=%llu", &total) == 1;
    if (f) fclose(f);
    return ok ? total : UINT64_MAX;
}

static io_counts count(void) {
    struct rusage u = {0};
    getrusage(RUSAGE_SELF, &u);
    return (io_counts){.minor = (uint64_t)u.ru_minflt,
                       .major = (uint64_t)u.ru_majflt,
                       .block_input = trace_block_input(),
                       .io_stall_us = pressure("/proc/pressure/io"),
                       .memory_stall_us = pressure("/proc/pressure/memory")};
}

void io_account_begin(struct trace_writer *w) {
    if (w->t->level != TTX_LEVEL_IO) return;
    w->faults = fault_watch_open(w->why_no_faults);
    w->from = count();
}

static int by_time(const void *a, const void *b) {
    const fault_sample *x = a, *y = b;
    return (x->monotonic_ns > y->monotonic_ns) - (x->monotonic_ns < y->monotonic_ns);
}

void io_account_take(struct trace_writer *w) {
    size_t before = w->n_pending;
    if (!w->faults) return;
    fault_watch_take(w->faults, &w->pending, &w->n_pending, &w->pending_cap);
    if (w->n_pending > before) qsort(w->pending, w->n_pending, sizeof *w->pending, by_time);
}

/* Where an address lies in the model; the rest is memory of our own. */
static void place(const struct trace_writer *w, ttx_record *r) {
    const ttx_trace *t = w->t;
    for (uint32_t i = 0; i < w->n_source; i++) {
        uint64_t at = r->tensor_ptr - (uintptr_t)w->sources[i].map;
        if (r->tensor_ptr < (uintptr_t)w->sources[i].map || at >= w->sources[i].size) continue;
        r->shard = (uint8_t)i;
        r->file_offset = at;
        r->size_bytes = PAGE;
        int64_t k = ttx_trace_find_tensor(t, (uint8_t)i, at);
        if (k < 0) return;
        const ttx_trace_tensor *d = &t->tensors[k];
        r->tensor_idx = (uint32_t)k;
        r->layer_id = d->layer;
        r->qkv_type = d->qkv;
        r->expert_id = d->expert;
        if (d->expert == TTX_REC_NO_EXPERT && d->expert_bytes)
            r->expert_id = (uint16_t)((at - d->offset) / d->expert_bytes);
        return;
    }
}

static void put_fault(struct trace_writer *w, const fault_sample *f, const ttx_record *launch) {
    uint64_t start = w->t->ticks.start_monotonic_ns;
    ttx_record r = ttx_record_none(TTX_REC_FAULT);
    r.timestamp_ns = f->monotonic_ns > start ? f->monotonic_ns - start : 0;
    r.operation_type = f->major ? TTX_FAULT_MAJOR : TTX_FAULT_MINOR;
    r.tensor_ptr = f->address;
    if (launch) {
        r.token_id = launch->token_id;
        r.n_tokens = launch->n_tokens;
        r.phase = launch->phase;
        r.layer_id = launch->layer_id;
    }
    place(w, &r);
    w->sampled[r.operation_type]++;
    trace_writer_put(w, &r);
}

static void put_until(struct trace_writer *w, uint64_t monotonic_ns, const ttx_record *launch) {
    size_t n = 0;
    while (n < w->n_pending && w->pending[n].monotonic_ns <= monotonic_ns)
        put_fault(w, &w->pending[n++], launch);
    w->n_pending -= n;
    memmove(w->pending, w->pending + n, w->n_pending * sizeof *w->pending);
}

void io_account_launch(struct trace_writer *w, const ttx_record *launch) {
    put_until(w, w->t->ticks.start_monotonic_ns + launch->timestamp_ns + launch->duration_ns,
              launch);
}

void io_account_end(struct trace_writer *w) {
    if (w->t->level != TTX_LEVEL_IO) return;
    w->to = count();
    io_account_take(w);
    put_until(w, UINT64_MAX, NULL);
    if (w->faults) w->unsampled = fault_watch_lost(w->faults);
    if (w->faults && fault_watch_unwatched(w->faults))
        snprintf(w->why_no_faults, sizeof w->why_no_faults, "%d threads could not be watched",
                 fault_watch_unwatched(w->faults));
    fault_watch_close(w->faults);
    w->faults = NULL;
}

static bool add_missing(cJSON *list, const char *what, const char *why) {
    char line[256];
    snprintf(line, sizeof line, "%s: %s", what, why);
    return cJSON_AddItemToArray(list, cJSON_CreateString(line));
}

static bool add_delta(cJSON *o, const char *key, uint64_t from, uint64_t to) {
    return from == UINT64_MAX || to == UINT64_MAX
               ? cJSON_AddNullToObject(o, key) != NULL
               : cJSON_AddNumberToObject(o, key, (double)(to - from)) != NULL;
}

bool io_account_describe(const struct trace_writer *w, cJSON *stats) {
    static const char *const probes[] = {"cachestat", "mincore", "none"};
    cJSON *o = cJSON_AddObjectToObject(stats, "io_attribution");
    bool ok = o &&
              cJSON_AddNumberToObject(o, "faults_minor", (double)w->sampled[TTX_FAULT_MINOR]) &&
              cJSON_AddNumberToObject(o, "faults_major", (double)w->sampled[TTX_FAULT_MAJOR]) &&
              cJSON_AddNumberToObject(o, "faults_lost", (double)w->unsampled) &&
              add_delta(o, "ru_minflt", w->from.minor, w->to.minor) &&
              add_delta(o, "ru_majflt", w->from.major, w->to.major) &&
              add_delta(o, "block_input_bytes", w->from.block_input, w->to.block_input) &&
              add_delta(o, "psi_io_some_us", w->from.io_stall_us, w->to.io_stall_us) &&
              add_delta(o, "psi_memory_some_us", w->from.memory_stall_us, w->to.memory_stall_us) &&
              cJSON_AddStringToObject(o, "residency_by", w->n_source ? probes[w->probe] : "ttx") &&
              cJSON_AddNumberToObject(o, "cold_bytes", (double)w->cold_bytes);
    cJSON *missing = ok ? cJSON_AddArrayToObject(o, "unavailable") : NULL;
    ok = missing;
    if (ok && w->why_no_faults[0]) ok = add_missing(missing, "page faults", w->why_no_faults);
    if (ok && w->probe == PROBE_NONE)
        ok = add_missing(missing, "residency", strerror(w->probe_errno));
    if (ok && w->from.io_stall_us == UINT64_MAX)
        ok = add_missing(missing, "pressure stall information", "/proc/pressure/io cannot be read");
    return ok;
}
