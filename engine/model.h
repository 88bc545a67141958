/* model.h -- a loaded model: hyperparameters and a table of weights. Immutable and shareable.
 *
 * A ttx_weight says where a tensor lies in the file and how to read it; it is never a pointer to
 * bytes. Where the bytes are at a given moment is the residency's affair.
 */
#ifndef TTX_MODEL_H
#define TTX_MODEL_H

#include "arch.h"
#include "arena.h"
#include "gguf.h"
#include "plan.h"

typedef struct ttx_weight {
    const gguf_tensor *tensor; /* NULL: the model does not have it */
    /* Old files keep each expert's matrix in a tensor of its own: [n_mat]. NULL: one tensor. */
    const gguf_tensor **split;
    ttx_dtype type;
    int64_t k, rows, n_mat; /* ne0, ne1, ne2 */
    size_t row_bytes;
} ttx_weight;

typedef struct ttx_layer_weights {
    ttx_weight w[TTX_W_COUNT - TTX_W_PER_LAYER];
} ttx_layer_weights;

struct ttx_model {
    const ttx_arch *arch;
    const gguf_file *file; /* borrowed */
    ttx_hparams hp;
    ttx_weight w[TTX_W_PER_LAYER];
    ttx_layer_weights *layers;
    bool tied_output;
    ttx_arena arena; /* split tables */
};

/* Reads and checks hyperparameters and tensors of `file`, which must outlive the model. `archs`
 * ends with NULL. Errors: TTX_E_MODEL; an unknown architecture's message lists the known ones. */
int ttx_model_load(ttx_model **out, const gguf_file *file, const ttx_arch *const *archs,
                   ttx_err *err);
void ttx_model_free(ttx_model *m); /* NULL is fine */

static inline const ttx_weight *ttx_model_weight(const ttx_model *m, ttx_role role, int layer) {
    return role < TTX_W_PER_LAYER ? &m->w[role] : &m->layers[layer].w[role - TTX_W_PER_LAYER];
}

/* Is attention of this layer limited to the last n_swa positions? */
static inline bool ttx_layer_is_swa(const ttx_hparams *hp, int layer) {
    return hp->n_swa && hp->swa_period && ((uint32_t)layer + 1) % hp->swa_period != 0;
}

/* The file range of a weight, or of matrix `i` of one that has several. */
ttx_range ttx_weight_range(const ttx_weight *w, int64_t i);

/* The tensor that matrix i lies in. */
static inline const gguf_tensor *ttx_weight_tensor(const ttx_weight *w, int64_t i) {
    return w->split ? w->split[i] : w->tensor;
}

/* Replaces the number of experts that a token uses (lossy). Before any session is opened. Errors:
 * TTX_E_USAGE (a dense model, 0, or more than there are). */
int ttx_model_set_experts_used(ttx_model *m, uint32_t k, ttx_err *err);

/* Bytes of all weights that this model uses. */
uint64_t ttx_model_bytes(const ttx_model *m);

/* Rows every architecture shares: n_ctx_train, n_embd, n_layer, n_head ... (hparams.c). */
extern const ttx_hparam_def ttx_common_hparams[];
int ttx_hparams_load(ttx_hparams *hp, const gguf_file *f, const ttx_arch *arch, ttx_err *err);

#endif
