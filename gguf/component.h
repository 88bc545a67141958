/* component.h -- what a tensor is for, by its name.
 *
 * The one place that knows the tensor names of GGUF files: a table from name patterns to component
 * and projection. It serves whatever describes a file (dump, trace, report); the engine finds its
 * weights through the tables of its architectures instead.
 */
#ifndef TTX_COMPONENT_H
#define TTX_COMPONENT_H

#include "gguf.h"

typedef enum ttx_component {
    TTX_COMP_EMBEDDING, /* looked up by row: tokens, positions */
    TTX_COMP_ATTENTION,
    TTX_COMP_FFN,    /* dense ones and shared experts */
    TTX_COMP_EXPERT, /* of which a token uses k of E */
    TTX_COMP_ROUTER,
    TTX_COMP_NORM,
    TTX_COMP_OUTPUT,
    TTX_COMP_OTHER,
    TTX_COMP_COUNT
} ttx_component;

/* "embedding", "attention" ... */
const char *ttx_component_name(ttx_component c);

typedef struct ttx_tensor_role {
    ttx_component component;
    const char *proj; /* "q", "k", "v", "qkv", "o", "gate", "up", "down" ...; "" if it is none */
    int32_t layer;    /* -1: of no layer */
    int32_t expert;   /* of a tensor that is one expert ("ffn_up.3"); otherwise -1 */
} ttx_tensor_role;

/* Never fails: an unknown name is TTX_COMP_OTHER. */
ttx_tensor_role ttx_role_of(const char *name);

/* Experts in a tensor, and in *stride the bytes of each, one after the other from its offset: the
 * last dimension of merged tensors, 1 for a tensor that is one expert; 0 if it holds no experts. */
uint64_t ttx_expert_slices(const gguf_tensor *t, const ttx_tensor_role *role, uint64_t *stride);

#endif
