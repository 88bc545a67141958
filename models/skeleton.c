/* skeleton.c -- how to add an architecture: copy this file, and make it true.
 *
 *      x ──┬─ rmsnorm ─ q,k,v ─ rope ─ attention ─ W_o ─ + ── x        (no feed-forward part)
 *          └───────────────────────────────────────────┘
 *
 * The smallest transformer that the engine can run. A test builds and runs it, so what it shows
 * works. To make a real architecture of a copy:
 *   1. Replace this comment: what the model is, a diagram, its GGUF keys, its paper.
 *   2. `hparams`: keys beyond the common ones (hparams.c reads those: sizes, heads, rope, eps).
 *      A new field goes into ttx_hparams in arch.h.
 *   3. `tensors`: role, name as in the GGUF file, shape from ttx_dim, flags. A new role goes into
 *      ttx_role in arch.h. Missing or misshapen tensors are reported by the loader.
 *   4. `layer`: straight-line calls of op.h, with what blocks.h has ready. No checks: errors are
 *      sticky. No pointers to weights: the operations ask for them.
 *   5. Register it in registry.c and CMakeLists.txt; give tests/fixtures a row, so that it is
 *      compared with llama.cpp.
 */
#include "blocks.h"

static const ttx_hparam_def hparams[] = {
    {"feed_forward_length", TTX_HP_U32, offsetof(ttx_hparams, n_ff), false, 1, 1, 1 << 22},
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON,
    {0},
};

static void layer(ttx_step *s, int il) {
    (void)il; /* layers may differ: see gemma3.c */
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    block_attend(s, TTX_ROPE_GLOBAL, 0);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_skeleton = {
    .name = "skeleton",
    .about = "an example",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NORM,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
