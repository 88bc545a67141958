/* route_file.h -- recorded routes: which experts a model chose, token by token, layer by layer.
 *
 * The format, route_trace v1, is text:
 *     # route_trace v1
 *     # model=NAME arch=NAME n_layer=L n_expert=E n_expert_used=K
 *     # layer=0 expert_bytes=B dense_bytes=D           (one for each layer)
 *     turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
 *     0,0,0,0,0,49,0.221297,0,3059712
 * phase: 0 prompt, 1 decode. step counts the tokens of a turn from 0, prompt and decode alike. slot
 * is the rank. Rows of one (turn, step, layer) stand together, slots ascending from 0; rows may be
 * missing for a layer that was evaluated for some tokens only.
 */
#ifndef TTX_ROUTE_FILE_H
#define TTX_ROUTE_FILE_H

#include "err.h"
#include "route.h"

#include <stdint.h>

typedef struct ttx_route_file ttx_route_file;

/* Errors: TTX_E_RUNTIME (cannot be opened, memory), TTX_E_MODEL with the line's number. */
int ttx_route_file_load(ttx_route_file **out, const char *path, ttx_err *err);
void ttx_route_file_free(ttx_route_file *f); /* NULL is fine */

/* The most experts that a row set of the file uses. */
int ttx_route_file_k(const ttx_route_file *f);

/* Does a model have the layers and experts that the file speaks of? Errors: TTX_E_MODEL. */
int ttx_route_file_check(const ttx_route_file *f, uint32_t n_layer, uint32_t n_expert,
                         ttx_err *err);

/* The route of a token: r->layer and r->step are set; fills k, expert, score and weight (the file
 * has no score: the weight stands for it). The first turn of the file is followed, at the file's
 * own steps; after its last step its decode steps repeat. False where the file has no row: the
 * router chooses. A ttx_route_source's `choose`, with the file as ctx. */
bool ttx_route_file_choose(void *file, ttx_route *r);

/* What a writer says of the model. */
typedef struct ttx_route_info {
    const char *model, *arch;
    uint32_t n_layer, n_expert, n_expert_used;
    const uint64_t *expert_bytes, *dense_bytes; /* [n_layer] */
} ttx_route_info;

typedef struct ttx_route_writer ttx_route_writer;

/* Errors: TTX_E_RUNTIME. `path` takes its content when the writer is closed without an error. */
int ttx_route_writer_open(ttx_route_writer **out, const char *path, const ttx_route_info *info,
                          ttx_err *err);
ttx_route_sink ttx_route_writer_sink(ttx_route_writer *w);
/* `rc`: the outcome of the run so far; 0 commits. Returns rc or TTX_E_RUNTIME. NULL: returns rc. */
int ttx_route_writer_close(ttx_route_writer *w, int rc, ttx_err *err);

#endif
