/* hints.h -- what an earlier run has taught: hints.json (`ttx report --hints`, docs/report.md; `ttx
 * tune`, docs/simulator.md) and access_pattern.json (docs/trace-format.md), read back.
 *
 * Both are about one model, told by its hash; another model's are refused. Nothing in them is
 * trusted: names, layers, experts and ranges are checked against the model.
 */
#ifndef TTX_HINTS_H
#define TTX_HINTS_H

#include "model.h"
#include "residency.h"

/* Options that were found to be the best, in the words of the command line; "": not said. */
typedef struct ttx_hints_run {
    char ram[24], load_mode[16], expert_cache[16], prefetch[16], guess[16];
} ttx_hints_run;

/* All zeros is empty. */
typedef struct ttx_hints {
    ttx_range *pins; /* tensors, or slices of experts, in the order in which keeping them pays */
    uint32_t n_pins;
    uint64_t pin_bytes;  /* memory that the hints were made for; 0: not said */
    ttx_expert_id *warm; /* experts that most tokens took first */
    uint32_t n_warm;
    ttx_successors successors; /* v NULL: no pattern was read */
    ttx_hints_run run;
} ttx_hints;

/* Add what a file says, whose text is given; `path` is for messages. Errors: TTX_E_USAGE (not such
 * a file, of another model, or not consistent with it), TTX_E_RUNTIME. */
int ttx_hints_read(ttx_hints *h, const ttx_model *m, const char *text, size_t n, const char *path,
                   ttx_err *err);
int ttx_pattern_read(ttx_hints *h, const ttx_model *m, const char *text, size_t n, const char *path,
                     ttx_err *err);
void ttx_hints_free(ttx_hints *h);

#endif
