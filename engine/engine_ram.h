/* engine_ram.h -- how the memory of a run is divided, before anything is loaded. */
#ifndef TTX_ENGINE_RAM_H
#define TTX_ENGINE_RAM_H

#include "engine_args.h"

#include <cJSON.h>

/* What the run takes besides the weights, in bytes. */
typedef struct ttx_ram_needs {
    ttx_session_memory session;
    uint64_t program; /* the program itself, the file's header, the vocabulary, and ram_else */
    uint64_t trace;   /* what taking one needs; 0: none is taken */
    uint64_t budget;  /* of all; 0: no limit was asked for */
} ttx_ram_needs;

/* "3G", "50%" (of what is available), "auto". Errors: TTX_E_USAGE. */
int ttx_parse_ram(const char *text, uint64_t *bytes, ttx_err *err);

/* Fills in what the options leave open and the hints say, with one note. The texts stay the hints'.
 * Errors: TTX_E_USAGE (not an option's value). */
int ttx_ram_take_hints(ttx_engine_args *a, const ttx_hints *hints, ttx_err *err);

/* What a residency's settings borrow. All zeros is empty. */
typedef struct ttx_ram_plan {
    ttx_plan plan;
    ttx_range *pins;
} ttx_ram_plan;

/* Fills in the settings as the options say: the load mode, what is prefetched, pinned and evicted,
 * and for the streaming mode the budget. `plan` is freed once the runtime is open, also after an
 * error; `hints` outlives the runtime. Errors: TTX_E_USAGE, TTX_E_RUNTIME. */
int ttx_ram_choose(const ttx_model *model, ttx_runtime *rt, const ttx_engine_args *a,
                   const ttx_hints *hints, ttx_residency_settings *set, ttx_ram_plan *plan,
                   ttx_ram_needs *needs, ttx_err *err);
void ttx_ram_plan_free(ttx_ram_plan *p);

/* The table of a streaming run before it, and what it read after it, as notes. */
void ttx_ram_print(const ttx_residency_layout *l, const ttx_ram_needs *needs);
void ttx_ram_summary(const ttx_residency *r);

/* Adds an object "residency" with the layout and all counters; of a mapped model the counters
 * alone, and nothing if nothing was asked of the page cache. False if memory fails. */
bool ttx_ram_json(cJSON *o, const ttx_residency *r);

#endif
