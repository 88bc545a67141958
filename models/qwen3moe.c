/* qwen3moe.c -- Qwen3 with experts (30B-A3B, 235B-A22B).
 *
 * Qwen3's attention (norm over each head of q and k, rotary pairs half a head apart); the
 * feed-forward part is 128 small experts of which a token uses 8: softmax over all, the weights of
 * the chosen sum to 1. No shared expert.
 * GGUF keys: qwen3moe.*. Paper: Yang et al. 2025 (arXiv 2505.09388).
 */
#include "blocks.h"

static const ttx_hparam_def hparams[] = {
    TTX_HPARAMS_MOE,
    {"expert_feed_forward_length", TTX_HP_U32, offsetof(ttx_hparams, n_ff_exp), true, 0, 1,
     1 << 22},
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON, TTX_TENSORS_FFN_NORM, TTX_TENSORS_QK_NORM, TTX_TENSORS_MOE, {0},
};

static int configure(ttx_hparams *hp, ttx_err *err) {
    (void)err;
    hp->router = TTX_ROUTER_SOFTMAX;
    hp->router_norm = true;
    return TTX_OK;
}

static void layer(ttx_step *s, int il) {
    (void)il;
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    op_rms_norm(s, s->q, s->q, ttx_w(s, TTX_W_ATTN_Q_NORM), s->hp->d_k);
    op_rms_norm(s, s->k, s->k, ttx_w(s, TTX_W_ATTN_K_NORM), s->hp->d_k);
    block_attend(s, TTX_ROPE_GLOBAL, 0);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    block_moe(s, TTX_SWIGLU);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_qwen3moe = {
    .name = "qwen3moe",
    .about = "Qwen3 with experts",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NEOX,
    .configure = configure,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
