/* engine_ram.c -- see engine_ram.h. */
#include "engine_ram.h"

#include "budget.h"
#include "engine_trace.h"
#include "note.h"
#include "readfile.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    AUTO_SPARE = 256 << 20, /* of `auto`: left to others, and this share of all: */
    AUTO_SHARE = 16,
    MAX_LIST = 16 << 20 /* bytes of a list of tensors */
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

/* ---- hints ---- */

int ttx_ram_take_hints(ttx_engine_args *a, const ttx_hints *hints, ttx_err *err) {
    const ttx_hints_run *run = &hints->run;
    bool mode_is_open = a->load_mode == 0 && !a->no_mmap && !a->mlock;
    const struct {
        const char *option, *text, *choices;
        int32_t *to;
        bool open;
    } v[] = {
        {"--load-mode", run->load_mode, TTX_LOAD_MODE_CHOICES, &a->load_mode, mode_is_open},
        {"--expert-cache", run->expert_cache, TTX_CACHE_POLICY_NAMES, &a->cache_policy,
         a->cache_policy < 0},
        {"--prefetch", run->prefetch, TTX_PREFETCH_CHOICES, &a->prefetch, a->prefetch == 0},
        {"--guess", run->guess, TTX_GUESS_NAMES, &a->guess, a->guess < 0},
    };
    char taken[192] = "";
    size_t n = 0;
    uint64_t bytes;
    if (*run->ram && ttx_parse_ram(run->ram, &bytes, NULL))
        return ttx_fail(err, TTX_E_USAGE,
                        "%s: run: expected 'ram' to be a size, a percentage or 'auto', found '%s'",
                        a->hints, run->ram);
    if (*run->ram && !a->ram) {
        a->ram = run->ram;
        n += (size_t)snprintf(taken, sizeof taken, " --ram %s", run->ram);
    }
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        if (!*v[i].text) continue;
        int32_t choice = ttx_opt_choice(v[i].choices, v[i].text, strlen(v[i].text));
        if (choice < 0)
            return ttx_fail(err, TTX_E_USAGE, "%s: run: expected %s out of %s, found '%s'",
                            a->hints, v[i].option + 2, v[i].choices, v[i].text);
        if (!v[i].open) continue;
        *v[i].to = choice;
        n += (size_t)snprintf(taken + n, sizeof taken - n, " %s %s", v[i].option, v[i].text);
    }
    if (n) ttx_note("%s: taking%s", a->hints, taken);
    return TTX_OK;
}

static ttx_load_mode asked_mode(const ttx_engine_args *a, bool *automatic) {
    static const ttx_load_mode modes[] = {TTX_LOAD_MMAP, TTX_LOAD_MMAP, TTX_LOAD_MLOCK,
                                          TTX_LOAD_STREAM, TTX_LOAD_NONE};
    *automatic = a->load_mode == 0 && !a->no_mmap && !a->mlock;
    return a->no_mmap ? TTX_LOAD_NONE : a->mlock ? TTX_LOAD_MLOCK : modes[a->load_mode];
}

/* ---- switches ---- */

/* The range of the tensor of this name; false: there is none. */
static bool find_tensor(const ttx_model *m, const char *name, ttx_range *r) {
    const gguf_tensor *t = gguf_find_tensor(m->file, name);
    if (t) *r = (ttx_range){t->shard, t->offset, t->size};
    return t;
}

/* One name a line; empty lines and lines that begin with '#' are skipped. */
static int read_pins(const ttx_model *model, const char *path, ttx_residency_settings *set,
                     ttx_ram_plan *plan, ttx_err *err) {
    char *text = NULL, *at, *line;
    size_t n, cap = 1, n_line = 0;
    int rc = ttx_read_file(path, MAX_LIST, &text, &n, err);
    if (rc) return rc;
    for (size_t i = 0; i < n; i++) cap += text[i] == '\n';
    plan->pins = calloc(cap, sizeof *plan->pins);
    if (!plan->pins) rc = ttx_fail_nomem(err, path, cap * sizeof *plan->pins);
    for (at = text; !rc && (line = strsep(&at, "\n"));) {
        n_line++;
        line[strcspn(line, "\r \t")] = 0;
        if (!*line || *line == '#') continue;
        if (!find_tensor(model, line, &plan->pins[set->n_pins++]))
            rc = ttx_fail(err, TTX_E_USAGE,
                          "%s: line %zu: expected the name of a tensor of the model, found '%.64s'",
                          path, n_line, line);
    }
    free(text);
    set->pins = plan->pins;
    set->pins_only = true;
    return rc;
}

static int parse_pin(const ttx_model *model, const ttx_engine_args *a, ttx_residency_settings *set,
                     ttx_ram_plan *plan, ttx_err *err) {
    const char *text = a->pin ? a->pin : "auto";
    if (*text == '@') return read_pins(model, text + 1, set, plan, err);
    if (strcmp(text, "auto") == 0) return TTX_OK;
    set->pin_bytes = 0;
    if (strcmp(text, "off") == 0 || !ttx_parse_size(text, &set->pin_bytes, NULL)) return TTX_OK;
    return ttx_fail(err, TTX_E_USAGE,
                    "--pin: expected auto, off, a size or @FILE with names of tensors, found '%s'",
                    text);
}

/* `large`: the model is larger than the memory that there is for it. */
static int switches(const ttx_model *model, const ttx_engine_args *a, const ttx_hints *hints,
                    bool large, uint64_t memory, ttx_residency_settings *set, ttx_ram_plan *plan,
                    ttx_err *err) {
    enum { BOTH = TTX_PREFETCH_LAYER | TTX_PREFETCH_EXPERT };
    static const unsigned prefetch[] = {BOTH, 0,   TTX_PREFETCH_LAYER, TTX_PREFETCH_EXPERT,
                                        BOTH, BOTH};
    bool stream = set->mode == TTX_LOAD_STREAM;
    if (stream || large || a->prefetch) set->prefetch = prefetch[a->prefetch];
    set->prefetch_ahead = a->prefetch_ahead;
    set->evict = (ttx_evict)a->evict;
    set->evict_when = (ttx_evict_when)a->evict_when;
    set->threads = a->io_threads;
    int rc = parse_pin(model, a, set, plan, err);
    if (!set->n_pins) {
        set->pins = hints->pins;
        set->n_pins = hints->n_pins;
        set->pins_only = hints->n_pins && !stream;
    }
    if (!stream && set->pin_bytes == TTX_PIN_AUTO && (large || (hints->n_pins && !plan->pins))) {
        set->pin_bytes = memory / 4 * 3;
        if (!plan->pins && hints->pin_bytes && hints->pin_bytes < set->pin_bytes)
            set->pin_bytes = hints->pin_bytes;
    }
    set->warm = hints->warm;
    set->n_warm = hints->n_warm;
    set->successors = hints->successors.v ? &hints->successors : NULL;
    if (!rc && ttx_residency_wants_plan(set)) rc = ttx_plan_decode(model, &plan->plan, err);
    set->plan = &plan->plan;
    return rc;
}

void ttx_ram_plan_free(ttx_ram_plan *p) {
    ttx_plan_free(&p->plan);
    free(p->pins);
    *p = (ttx_ram_plan){0};
}

/* ---- modes ---- */

static uint64_t reserve(const ttx_model *model, ttx_runtime *rt, ttx_session_settings *session,
                        ttx_ram_needs *needs) {
    session->memory = needs->budget / TTX_CONTEXT_SHARE;
    needs->session = ttx_session_estimate(model, rt, session);
    return needs->session.kv + needs->session.buffers + needs->session.scratch + needs->program +
           needs->trace;
}

int ttx_ram_choose(const ttx_model *model, ttx_runtime *rt, const ttx_engine_args *a,
                   const ttx_hints *hints, ttx_residency_settings *set, ttx_ram_plan *plan,
                   ttx_ram_needs *needs, ttx_err *err) {
    bool automatic;
    int rc;
    uint64_t available = ttx_memory_available(), weights = ttx_model_bytes(model);
    ttx_session_settings session = ttx_engine_session_settings(model, a, 0);
    set->mode = asked_mode(a, &automatic);
    *needs = (ttx_ram_needs){.program = ttx_program_bytes(model->file) + a->ram_else,
                             .trace = ttx_engine_trace_bytes(model, a)};
    if (a->ram && (rc = ttx_parse_ram(a->ram, &needs->budget, err))) return rc;
    uint64_t reserved = reserve(model, rt, &session, needs);
    uint64_t limit = needs->budget ? needs->budget : available ? available : UINT64_MAX;
    bool large = weights + reserved > limit;
    if (automatic && large) set->mode = TTX_LOAD_STREAM;
    if (set->mode == TTX_LOAD_STREAM) {
        if (!needs->budget) {
            if ((rc = ttx_parse_ram("auto", &needs->budget, err))) return rc;
            session = ttx_engine_session_settings(model, a, 0);
            reserved = reserve(model, rt, &session, needs);
        }
        set->budget = needs->budget;
        set->reserved = reserved;
        set->rows_at_once = session.n_ubatch;
        if (a->cache_policy >= 0) set->policy = (ttx_cache_policy)a->cache_policy;
        if (a->guess >= 0) set->guess = (ttx_guess_kind)a->guess;
    }
    uint64_t memory = limit > reserved ? limit - reserved : 0;
    return switches(model, a, hints, large, memory, set, plan, err);
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
    char trace[32] = "";
    if (needs->trace) snprintf(trace, sizeof trace, "trace %.1f, ", mib(needs->trace));
    ttx_note("  ring %.1f, rows %.1f, KV cache %.1f, buffers %.1f, scratch %.1f, %sprogram and "
             "vocabulary %.1f MiB",
             mib(l->ring), mib(l->rows), mib(m->kv), mib(m->buffers), mib(m->scratch), trace,
             mib(needs->program));
}

static double share(uint64_t part, uint64_t all) {
    return all ? 100.0 * (double)part / (double)all : 0;
}

static void mapped_summary(const ttx_residency_counters *c) {
    ttx_note(
        "page cache: locked %.1f MiB; %llu ranges of %.1f MiB read ahead, %.1f %% used, %.1f %% "
        "late; %llu of %.1f MiB given up",
        mib(c->locked_bytes), (unsigned long long)c->prefetches, mib(c->prefetch_bytes),
        share(c->prefetches_used, c->prefetches), share(c->prefetches_late, c->prefetches),
        (unsigned long long)c->evictions, mib(c->evicted_bytes));
}

void ttx_ram_summary(const ttx_residency *r) {
    ttx_residency_counters c = ttx_residency_get_counters(r);
    if (!ttx_residency_get_layout(r)) {
        if (ttx_residency_counts(r)) mapped_summary(&c);
        return;
    }
    ttx_note("read %.1f MiB (%.1f on demand, %.1f in order, %.1f on guesses, %.1f by hints); "
             "waited %.3f s",
             mib(c.bytes_read), mib(c.demand_bytes), mib(c.order_bytes), mib(c.guess_bytes),
             mib(c.warm_bytes), (double)c.stall_ns * 1e-9);
    if (c.expert_uses)
        ttx_note(
            "experts: %.1f %% of %llu in the cache; %llu evicted; of %llu guessed %.1f %% right, "
            "%llu of them late",
            share(c.expert_hits, c.expert_uses), (unsigned long long)c.expert_uses,
            (unsigned long long)c.evictions, (unsigned long long)c.guesses,
            share(c.guesses_used, c.guesses), (unsigned long long)c.guesses_late);
}

typedef struct json_number {
    const char *key;
    uint64_t value;
} json_number;

static bool add_numbers(cJSON *o, const json_number *v, size_t n) {
    bool ok = o;
    for (size_t i = 0; i < n; i++)
        ok = ok && cJSON_AddNumberToObject(o, v[i].key, (double)v[i].value);
    return ok;
}

static bool add_layout(cJSON *o, const ttx_residency_layout *l) {
    const json_number v[] = {
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
    };
    return add_numbers(o, v, sizeof v / sizeof *v);
}

bool ttx_ram_json(cJSON *o, const ttx_residency *r) {
    const ttx_residency_layout *l = ttx_residency_get_layout(r);
    ttx_residency_counters c = ttx_residency_get_counters(r);
    if (!ttx_residency_counts(r)) return true;
    const json_number v[] = {
        {"reads", c.reads},
        {"read_bytes", c.bytes_read},
        {"demand_bytes", c.demand_bytes},
        {"order_bytes", c.order_bytes},
        {"guess_bytes", c.guess_bytes},
        {"warm_bytes", c.warm_bytes},
        {"expert_uses", c.expert_uses},
        {"expert_hits", c.expert_hits},
        {"dense_uses", c.dense_uses},
        {"dense_hits", c.dense_hits},
        {"guesses", c.guesses},
        {"guesses_used", c.guesses_used},
        {"guesses_late", c.guesses_late},
        {"prefetches", c.prefetches},
        {"prefetch_bytes", c.prefetch_bytes},
        {"prefetches_used", c.prefetches_used},
        {"prefetches_late", c.prefetches_late},
        {"locked_bytes", c.locked_bytes},
        {"unchosen_bytes", c.unchosen_bytes},
        {"evictions", c.evictions},
        {"evicted_bytes", c.evicted_bytes},
        {"stalls", c.stalls},
        {"stall_ns", c.stall_ns},
        {"retries", c.retries},
    };
    cJSON *x = cJSON_AddObjectToObject(o, "residency");
    return (!l || add_layout(x, l)) && add_numbers(x, v, sizeof v / sizeof *v);
}
