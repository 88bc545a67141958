/* qwen2.c -- Qwen2 and Qwen2.5 (dense).
 *
 * Llama's layer with biases on q, k and v, and rotary pairs half a head apart (i, i + n_rot/2).
 * GGUF keys: qwen2.*. Paper: Yang et al. 2024 (arXiv 2407.10671).
 */
#include "blocks.h"

static const ttx_hparam_def hparams[] = {
    TTX_HPARAM_FF,
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON, TTX_TENSORS_FFN_NORM, TTX_TENSORS_FFN, TTX_TENSORS_QKV_BIAS(0), {0},
};

static void layer(ttx_step *s, int il) {
    (void)il;
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    block_attend(s, TTX_ROPE_GLOBAL, 0);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    block_ffn(s, TTX_SWIGLU);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_qwen2 = {
    .name = "qwen2",
    .about = "Qwen2, Qwen2.5",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NEOX,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
