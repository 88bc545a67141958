/* olmoe.c -- OLMoE (1B-7B).
 *
 * Llama's layer with rotary pairs half a head apart, an RMS norm over the whole of q and the whole
 * of k (not head by head), and 64 experts of which a token uses 8: softmax over all, weights as
 * they are. Each expert is as wide as feed_forward_length says. GGUF keys: olmoe.*. Paper:
 * Muennighoff et al. 2024 (arXiv 2409.02060).
 */
#include "blocks.h"

static const ttx_hparam_def hparams[] = {
    TTX_HPARAM_FF,
    TTX_HPARAMS_MOE,
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON,
    TTX_TENSORS_FFN_NORM,
    TTX_TENSORS_MOE,
    {TTX_W_ATTN_Q_NORM, "blk.%d.attn_q_norm.weight", {TTX_D_Q}, 0},
    {TTX_W_ATTN_K_NORM, "blk.%d.attn_k_norm.weight", {TTX_D_K}, 0},
    {0},
};

static int configure(ttx_hparams *hp, ttx_err *err) {
    (void)err;
    hp->n_ff_exp = hp->n_ff; /* there is no dense part */
    hp->n_ff = 0;
    hp->router = TTX_ROUTER_SOFTMAX;
    return TTX_OK;
}

static void layer(ttx_step *s, int il) {
    (void)il;
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    op_rms_norm(s, s->q, s->q, ttx_w(s, TTX_W_ATTN_Q_NORM), s->q.dim);
    op_rms_norm(s, s->k, s->k, ttx_w(s, TTX_W_ATTN_K_NORM), s->k.dim);
    block_attend(s, TTX_ROPE_GLOBAL, 0);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    block_moe(s, TTX_SWIGLU);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_olmoe = {
    .name = "olmoe",
    .about = "OLMoE",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NEOX,
    .configure = configure,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
