/* engine_ram.c -- see engine_ram.h. */
#include "engine_ram.h"

#include "budget.h"
#include "note.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    AUTO_SPARE = 256 << 20, /* of `auto`: left to others, and this share of all: */
    AUTO_SHARE = 16,
    PROGRAM_BYTES = 12 << 20, /* code, stacks, tables: measured, tests/prefetch holds it */
    HEADER_COPIES = 3         /* the file's header as it is mapped, and the vocabulary made of it */
};

static double mib(uint64_t bytes) {
    return (double)bytes / (1 << 20);
}

int ttx_parse_ram(const char *text, uint64_t *bytes, ttx_err *err) {
    uint64_t available = ttx_memory_available();
    char *end;
    double percent = strtod(text, &end);
    if (strcmp(text, "auto") == 0) {
        uint64_t spare = available / AUTO_SHARE > AUTO_SPARE ? available / AUTO_SHARE : AUTO_SPARE;
        *bytes = available > 2 * spare ? available - spare : available / 2;
        return TTX_OK;
    }
    if (end != text && strcmp(end, "%") == 0) {
        if (!(percent > 0 && percent <= 100))
            return ttx_fail(err, TTX_E_USAGE,
                            "--ram: expected more than 0%% and up to 100%%, "
                            "found %s",
                            text);
        *bytes = (uint64_t)((double)available * percent / 100);
        return TTX_OK;
    }
    int rc = ttx_parse_size(text, bytes, NULL);
    if (!rc && *bytes) return TTX_OK;
    return ttx_fail(err, TTX_E_USAGE, "--ram: expected a size, a percentage or 'auto', found '%s'",
                    text);
}

static uint64_t program_bytes(const ttx_model *m) {
    uint64_t header = 0;
    for (uint32_t i = 0; i < gguf_n_shards(m->file); i++)
        header += gguf_get_shard(m->file, i)->data_offset;
    return PROGRAM_BYTES + HEADER_COPIES * header;
}

static ttx_load_mode asked_mode(const ttx_engine_args *a, bool *automatic) {
    static const ttx_load_mode modes[] = {TTX_LOAD_MMAP, TTX_LOAD_MMAP, TTX_LOAD_MLOCK,
                                          TTX_LOAD_STREAM, TTX_LOAD_NONE};
    *automatic = a->load_mode == 0 && !a->no_mmap && !a->mlock;
    return a->no_mmap ? TTX_LOAD_NONE : a->mlock ? TTX_LOAD_MLOCK : modes[a->load_mode];
}

static int stream_settings(const ttx_model *model, const ttx_engine_args *a,
                           const ttx_session_settings *session, ttx_residency_settings *set,
                           ttx_plan *plan, ttx_err *err) {
    set->mode = TTX_LOAD_STREAM;
    set->plan = plan;
    set->rows_at_once = session->n_ubatch;
    set->policy = (ttx_cache_policy)a->cache_policy;
    set->guess = (ttx_guess_kind)a->guess;
    set->no_guesses = a->no_guesses;
    set->threads = a->io_threads;
    return ttx_plan_decode(model, plan, err);
}

static uint64_t reserve(const ttx_model *model, ttx_runtime *rt, ttx_session_settings *session,
                        ttx_ram_needs *needs) {
    session->memory = needs->budget / TTX_CONTEXT_SHARE;
    needs->session = ttx_session_estimate(model, rt, session);
    return needs->session.kv + needs->session.buffers + needs->session.scratch + needs->program;
}

int ttx_ram_choose(const ttx_model *model, ttx_runtime *rt, const ttx_engine_args *a,
                   ttx_residency_settings *set, ttx_plan *plan, ttx_ram_needs *needs,
                   ttx_err *err) {
    bool automatic;
    int rc;
    uint64_t available = ttx_memory_available(), weights = ttx_model_bytes(model);
    ttx_session_settings session = ttx_engine_session_settings(model, a, a->n_outputs);
    set->mode = asked_mode(a, &automatic);
    *needs = (ttx_ram_needs){.program = program_bytes(model)};
    if (a->ram && (rc = ttx_parse_ram(a->ram, &needs->budget, err))) return rc;
    uint64_t reserved = reserve(model, rt, &session, needs);
    if (automatic) {
        uint64_t limit = needs->budget ? needs->budget : available ? available : UINT64_MAX;
        if (weights + reserved <= limit) return TTX_OK; /* the page cache holds it */
    } else if (set->mode != TTX_LOAD_STREAM) {
        return TTX_OK;
    }
    if (!needs->budget) {
        if ((rc = ttx_parse_ram("auto", &needs->budget, err))) return rc;
        session = ttx_engine_session_settings(model, a, a->n_outputs);
        reserved = reserve(model, rt, &session, needs);
    }
    set->budget = needs->budget;
    set->reserved = reserved;
    return stream_settings(model, a, &session, set, plan, err);
}

void ttx_ram_print(const ttx_residency_layout *l, const ttx_ram_needs *needs) {
    const ttx_session_memory *m = &needs->session;
    ttx_note("memory %.1f MiB: pinned %.1f of %.1f MiB outside the experts", mib(l->budget),
             mib(l->pinned), mib(l->dense));
    if (l->n_experts)
        ttx_note("  experts %.1f of %.1f MiB: %u of %u = %.1f token cycles%s", mib(l->cache),
                 mib(l->experts), l->n_slots, l->n_experts,
                 l->expert_cycle ? (double)l->cache / (double)l->expert_cycle : 0,
                 l->cache < l->expert_cycle ? " (less than one: most are read for each token)"
                                            : "");
    ttx_note("  ring %.1f, rows %.1f, KV cache %.1f, buffers %.1f, scratch %.1f, program and "
             "vocabulary %.1f MiB",
             mib(l->ring), mib(l->rows), mib(m->kv), mib(m->buffers), mib(m->scratch),
             mib(needs->program));
}

static double share(uint64_t part, uint64_t all) {
    return all ? 100.0 * (double)part / (double)all : 0;
}

void ttx_ram_summary(const ttx_residency *r) {
    if (!ttx_residency_get_layout(r)) return;
    ttx_residency_counters c = ttx_residency_get_counters(r);
    ttx_note("read %.1f MiB (%.1f for routers, %.1f in order, %.1f on guesses); waited %.3f s",
             mib(c.bytes_read), mib(c.demand_bytes), mib(c.order_bytes), mib(c.guess_bytes),
             (double)c.stall_ns * 1e-9);
    if (c.expert_uses)
        ttx_note(
            "experts: %.1f %% of %llu in the cache; %llu evicted; of %llu guessed %.1f %% right, "
            "%llu of them late",
            share(c.expert_hits, c.expert_uses), (unsigned long long)c.expert_uses,
            (unsigned long long)c.evictions, (unsigned long long)c.guesses,
            share(c.guesses_used, c.guesses), (unsigned long long)c.guesses_late);
}

bool ttx_ram_json(cJSON *o, const ttx_residency *r) {
    const ttx_residency_layout *l = ttx_residency_get_layout(r);
    if (!l) return true;
    ttx_residency_counters c = ttx_residency_get_counters(r);
    const struct {
        const char *key;
        uint64_t value;
    } v[] = {
        {"budget_bytes", l->budget},
        {"reserved_bytes", l->reserved},
        {"dense_bytes", l->dense},
        {"pinned_bytes", l->pinned},
        {"ring_bytes", l->ring},
        {"row_cache_bytes", l->rows},
        {"expert_bytes", l->experts},
        {"expert_cache_bytes", l->cache},
        {"n_experts", l->n_experts},
        {"n_expert_slots", l->n_slots},
        {"expert_cycle_bytes", l->expert_cycle},
        {"smallest_budget_bytes", l->smallest},
        {"reads", c.reads},
        {"read_bytes", c.bytes_read},
        {"demand_bytes", c.demand_bytes},
        {"order_bytes", c.order_bytes},
        {"guess_bytes", c.guess_bytes},
        {"expert_uses", c.expert_uses},
        {"expert_hits", c.expert_hits},
        {"dense_uses", c.dense_uses},
        {"dense_hits", c.dense_hits},
        {"guesses", c.guesses},
        {"guesses_used", c.guesses_used},
        {"guesses_late", c.guesses_late},
        {"evictions", c.evictions},
        {"evicted_bytes", c.evicted_bytes},
        {"stalls", c.stalls},
        {"stall_ns", c.stall_ns},
        {"retries", c.retries},
    };
    cJSON *x = cJSON_AddObjectToObject(o, "residency");
    bool ok = x;
    for (size_t i = 0; i < sizeof v / sizeof *v; i++)
        ok = ok && cJSON_AddNumberToObject(x, v[i].key, (double)v[i].value);
    return ok;
}
