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
#include "record.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct ttx_residency ttx_residency;

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
    TTX_LOAD_NONE   /* no mapping: the file is read into memory of our own */
} ttx_load_mode;

/* What an acquire hands out. */
typedef struct ttx_lease {
    const uint8_t *p;
    ttx_residency_state state; /* where the bytes were found */
    uint64_t wait_ns;          /* of the acquire, for bytes that were not there yet */
} ttx_lease;

typedef struct ttx_residency_settings {
    ttx_load_mode mode;
    /* Called with one line for a fallback that was taken (mlock refused, ...); may be NULL. */
    void (*warn)(void *ctx, const char *line);
    void *warn_ctx;
    /* Progress of a long read, bytes done of all; may be NULL. Returning false interrupts. */
    bool (*progress)(void *ctx, uint64_t done, uint64_t total);
    void *progress_ctx;
} ttx_residency_settings;

ttx_residency_settings ttx_residency_default_settings(void);

/* `sources` is copied. Errors: TTX_E_RUNTIME (no memory, read error), TTX_E_INTERRUPTED. */
int ttx_residency_open(ttx_residency **out, const ttx_source *sources, uint32_t n_sources,
                       const ttx_residency_settings *settings, ttx_err *err);
void ttx_residency_close(ttx_residency *r); /* NULL is fine */

/* The engine is about to run layer l. */
void ttx_residency_layer(ttx_residency *r, int layer);
void ttx_residency_hint(ttx_residency *r, ttx_range range);
/* The range lies inside its source. Errors: TTX_E_RUNTIME. */
int ttx_residency_acquire(ttx_residency *r, ttx_range range, ttx_lease *lease, ttx_err *err);
void ttx_residency_release(ttx_residency *r, ttx_range range);

/* The mode that is in force, which may be a fallback. */
ttx_load_mode ttx_residency_mode(const ttx_residency *r);

#endif
