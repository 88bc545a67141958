/* qwen3.c -- Qwen3 (dense).
 *
 * Qwen2 without biases, and with an RMS norm over each head of q and k before they are rotated.
 * The head size is a key of its own, not n_embd / n_head.
 * GGUF keys: qwen3.*. Paper: Yang et al. 2025 (arXiv 2505.09388).
 */
#include "blocks.h"

static const ttx_hparam_def hparams[] = {
    TTX_HPARAM_FF,
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON, TTX_TENSORS_FFN_NORM, TTX_TENSORS_FFN, TTX_TENSORS_QK_NORM, {0},
};

static void layer(ttx_step *s, int il) {
    (void)il;
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    op_rms_norm(s, s->q, s->q, ttx_w(s, TTX_W_ATTN_Q_NORM), s->hp->d_k);
    op_rms_norm(s, s->k, s->k, ttx_w(s, TTX_W_ATTN_K_NORM), s->hp->d_k);
    block_attend(s, TTX_ROPE_GLOBAL, 0);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    block_ffn(s, TTX_SWIGLU);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_qwen3 = {
    .name = "qwen3",
    .about = "Qwen3 (dense)",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NEOX,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
