/* residency.h -- where weight bytes are, and how the engine gets at them.
 *
 * The engine never holds a pointer to a weight. It asks for a file range and gives it back:
 *     hint(range)             "this will be needed"; never blocks, never fails
 *     acquire(range) -> lease the bytes, valid until release
 *     release(range)
 * so that where the bytes live -- page cache, locked memory, our own copy -- is decided here and
 * changes speed, never results.
 */
#ifndef TTX_RESIDENCY_H
#define TTX_RESIDENCY_H

#include "err.h"
#include "plan.h"
#include "policy.h"
#include "policy_guess.h"
#include "record.h"
#include "successors.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct ttx_residency ttx_residency;
struct ttx_trace;

/* One file of the model, open and mapped. Borrowed; must outlive the residency. */
typedef struct ttx_source {
    const char *path;
    int fd;
    const uint8_t *map;
    uint64_t size;
    uint64_t data_offset; /* weights start here */
} ttx_source;

typedef enum ttx_load_mode {
    TTX_LOAD_MMAP,  /* the page cache holds the file, pages come as they are touched */
    TTX_LOAD_MLOCK, /* the same, read at once and locked */
    TTX_LOAD_NONE,  /* no mapping: the file is read into memory of our own */
    TTX_LOAD_STREAM /* what fits in a budget is kept, the rest is read as it is needed */
} ttx_load_mode;

/* What an acquire hands out. */
typedef struct ttx_lease {
    const uint8_t *p;
    ttx_residency_state state; /* where the bytes were found */
    uint64_t wait_ns;          /* of the acquire, for bytes that were not there yet */
} ttx_lease;

/* What is read before it is asked for: bits. */
enum {
    TTX_PREFETCH_LAYER = 1, /* weights outside the experts, layers ahead, as the plan says */
    TTX_PREFETCH_EXPERT = 2 /* mapped: an expert's three matrices once it is chosen; streamed: those
                               that the routers of the next layers are likely to choose */
};

/* What happens to the pages of a mapped model that have been used. */
typedef enum ttx_evict {
    TTX_EVICT_OFF,
    TTX_EVICT_COLD,    /* they are the first to go when memory is short */
    TTX_EVICT_DONTNEED /* they are freed */
} ttx_evict;

/* When: an expert once a token does without it that the one before used; or all that a layer used,
 * once the layer is done. */
typedef enum ttx_evict_when { TTX_EVICT_DESELECTED, TTX_EVICT_LAYER } ttx_evict_when;

#define TTX_PIN_AUTO UINT64_MAX

typedef struct ttx_expert_id {
    uint16_t layer, expert;
} ttx_expert_id;

typedef struct ttx_residency_settings {
    ttx_load_mode mode;
    unsigned prefetch;       /* TTX_PREFETCH_* */
    uint32_t prefetch_ahead; /* layers; 0: as far as memory allows (streamed), 2 (mapped) */
    ttx_evict evict;
    ttx_evict_when evict_when;
    /* Bytes outside the experts to be kept for good: locked in the page cache (mapped), or in
     * memory of our own (streamed). TTX_PIN_AUTO: none (mapped), all that fit (streamed). */
    uint64_t pin_bytes;
    /* To be pinned first, in this order; what does not fit is passed over. Borrowed for the call.
     * pins_only: nothing else is. */
    const ttx_range *pins;
    uint32_t n_pins;
    bool pins_only;
    /* Of the streaming mode: experts to be read as long as there are free places and nothing more
     * urgent (borrowed for the call), and a table to guess from in the routers' place (borrowed;
     * NULL: none). */
    const ttx_expert_id *warm;
    uint32_t n_warm;
    const ttx_successors *successors;
    /* The accesses of a step: of the streaming mode, and of mapping with any of the above (needed
     * for the call alone). */
    const ttx_plan *plan;
    /* Of the streaming mode: how much memory the whole run may take, and how much of it the caller
     * takes itself; how many rows of a table a launch may read. */
    uint64_t budget, reserved;
    uint32_t rows_at_once;
    ttx_cache_policy policy;
    ttx_future future; /* of TTX_CACHE_OPTIMUM */
    ttx_guess_kind guess;
    bool threads; /* do without io_uring: blocking reads in threads, advice by system calls */
    /* Of tests: the limit of memory, asked for every step; NULL: the memory group's. */
    uint64_t (*limit)(void *ctx);
    void *limit_ctx;
    uint64_t (*clock)(void *ctx); /* of tests, in ns; NULL: the system's */
    void *clock_ctx;
    struct ttx_io *io; /* of tests: read through this; NULL: io_uring. Borrowed */
    /* Called with one line for a fallback that was taken (mlock refused, ...); may be NULL. */
    void (*warn)(void *ctx, const char *line);
    void *warn_ctx;
    /* Progress of a long read, bytes done of all; may be NULL. Returning false interrupts. */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *progress_ctx;
} ttx_residency_settings;

ttx_residency_settings ttx_residency_default_settings(void);

/* Whether a residency of these settings needs their plan: streamed, or mapped with something to
 * prefetch, pin or evict. */
bool ttx_residency_wants_plan(const ttx_residency_settings *set);

/* How the streaming mode divides its memory, in bytes. */
typedef struct ttx_residency_layout {
    uint64_t budget, reserved;
    uint64_t dense, pinned; /* weights outside the experts: all, and what is kept of them */
    uint64_t ring, rows;
    uint64_t experts, cache;     /* all experts; the cache of them */
    uint32_t n_experts, n_slots; /* of all layers together */
    uint64_t expert_cycle;       /* what one token needs of the experts */
    uint64_t smallest;           /* budget that would just do */
} ttx_residency_layout;

/* What the streaming mode would make of these settings. Errors as ttx_residency_open's; of a budget
 * that is too small layout->smallest is filled in. */
int ttx_residency_describe(const ttx_residency_settings *settings, ttx_residency_layout *layout,
                           ttx_err *err);

typedef struct ttx_residency_counters {
    uint64_t reads, bytes_read; /* by the device, padding included */
    uint64_t demand_bytes, order_bytes, guess_bytes, warm_bytes;
    uint64_t expert_uses, expert_hits; /* experts asked for, and found there */
    uint64_t dense_uses, dense_hits;   /* the same of blocks outside the experts */
    uint64_t guesses, guesses_used, guesses_late;
    /* Asked for in advance: blocks of the plan (streamed), ranges that were missing (mapped); those
     * of them that were used, and used before they were there. */
    uint64_t prefetches, prefetch_bytes, prefetches_used, prefetches_late;
    uint64_t locked_bytes;   /* mapped */
    uint64_t unchosen_bytes; /* of experts in layers that were run, and that no token chose */
    uint64_t evictions, evicted_bytes; /* experts from the cache; ranges of a mapped model */
    uint64_t stalls, stall_ns;         /* waits for bytes */
    uint64_t retries;                  /* short or failed reads that were repeated */
} ttx_residency_counters;

/* `sources` is copied. Errors: TTX_E_RUNTIME (no memory, read error), TTX_E_INTERRUPTED. */
int ttx_residency_open(ttx_residency **out, const ttx_source *sources, uint32_t n_sources,
                       const ttx_residency_settings *settings, ttx_err *err);
void ttx_residency_close(ttx_residency *r); /* NULL is fine */

/* The engine is about to run layer l; n_layer: what comes after the last one. */
void ttx_residency_layer(ttx_residency *r, int layer);
/* This will be used soon: a row is asked for at once, experts once all of the layer are known
 * (ttx_residency_routed). */
void ttx_residency_hint(ttx_residency *r, ttx_range range);
/* The range lies inside its source. Errors: TTX_E_RUNTIME. */
int ttx_residency_acquire(ttx_residency *r, ttx_range range, ttx_lease *lease, ttx_err *err);
void ttx_residency_release(ttx_residency *r, ttx_range range);

/* Takes leases of those ranges of `set` that are there, and says in `got` which; waits until there
 * is one. Each is the slice of one tensor of an expert, and stands for all of that expert. Errors:
 * TTX_E_RUNTIME; then none is held. */
int ttx_residency_acquire_any(ttx_residency *r, const ttx_range *set, int n, bool *got,
                              ttx_err *err);
enum { TTX_GUESS_AHEAD = 4 }; /* layers that guesses look ahead, at most */
/* These experts of a coming layer are likely to be used: read what is missing when the device has
 * nothing better to do. Returns whether it would take more at once. */
bool ttx_residency_guess(ttx_residency *r, const ttx_range *set, int n);
/* All experts that a token uses in this layer have been hinted. Returns whether guesses at those of
 * the coming layers, by their routers, would be of use now: there are experts that are not in
 * memory, and the guesses so far were worth their bytes. */
bool ttx_residency_routed(ttx_residency *r);

/* Whether there is anything to count: the mode is TTX_LOAD_STREAM, or a mapped model's page cache
 * is advised. */
bool ttx_residency_counts(const ttx_residency *r);

/* From now on the streaming mode's reads go on record; NULL: not any more, after those that are
 * under way. Borrowed. A residency of NULL is fine. */
void ttx_residency_trace(ttx_residency *r, struct ttx_trace *trace);

/* NULL unless the mode is TTX_LOAD_STREAM. */
const ttx_residency_layout *ttx_residency_get_layout(const ttx_residency *r);
ttx_residency_counters ttx_residency_get_counters(const ttx_residency *r);

/* The mode that is in force, which may be a fallback. */
ttx_load_mode ttx_residency_mode(const ttx_residency *r);

#endif
