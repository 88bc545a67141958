/* gemma3.c -- Gemma 3 (text).
 *
 * Differs from Llama in: embeddings scaled by sqrt(n_embd); RMS norm over each head of q and k; a
 * norm after attention and after the feed-forward part, before they join the residual stream; GELU;
 * five layers of six see only a sliding window and rotate with a base of their own, without
 * scaling. GGUF keys: gemma3.*. Paper: Gemma Team 2025 (arXiv 2503.19786).
 */
#include "blocks.h"

#include <math.h>

#define HP(field) offsetof(ttx_hparams, field)

static const ttx_hparam_def hparams[] = {
    TTX_HPARAM_FF,
    {"attention.sliding_window", TTX_HP_U32, HP(n_swa), false, 0, 0, 1 << 27},
    {"attention.sliding_window_pattern", TTX_HP_U32, HP(swa_period), false, 6, 0, 1024},
    {"rope.freq_base_swa", TTX_HP_F32, HP(rope[TTX_ROPE_LOCAL].freq_base), false, 10000, 1, 1e12},
    {"final_logit_softcapping", TTX_HP_F32, HP(logit_softcap), false, 0, 0, 1e6},
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON,
    TTX_TENSORS_FFN_NORM,
    TTX_TENSORS_FFN,
    TTX_TENSORS_QK_NORM,
    {TTX_W_ATTN_POST_NORM, "blk.%d.post_attention_norm.weight", {TTX_D_EMBD}, 0},
    {TTX_W_FFN_POST_NORM, "blk.%d.post_ffw_norm.weight", {TTX_D_EMBD}, 0},
    {0},
};

static int configure(ttx_hparams *hp, ttx_err *err) {
    (void)err;
    enum { LAYERS_27B = 62 }; /* the one size that scales q by its embedding, not by its head */
    uint32_t width = hp->n_embd / hp->n_head;
    if (hp->n_layer == LAYERS_27B) hp->attn_scale = 1 / sqrtf((float)width);
    hp->embd_scale = sqrtf((float)hp->n_embd);
    ttx_rope *local = &hp->rope[TTX_ROPE_LOCAL];
    local->freq_scale = 1;
    local->ext_factor = 0;
    return TTX_OK;
}

static void layer(ttx_step *s, int il) {
    bool local = ttx_layer_is_swa(s->hp, il);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    op_rms_norm(s, s->q, s->q, ttx_w(s, TTX_W_ATTN_Q_NORM), s->hp->d_k);
    op_rms_norm(s, s->k, s->k, ttx_w(s, TTX_W_ATTN_K_NORM), s->hp->d_k);
    block_attend(s, local ? TTX_ROPE_LOCAL : TTX_ROPE_GLOBAL, local ? s->hp->n_swa : 0);
    op_rms_norm(s, s->h, s->h, ttx_w(s, TTX_W_ATTN_POST_NORM), s->hp->n_embd);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    block_ffn(s, TTX_GEGLU);
    op_rms_norm(s, s->h, s->h, ttx_w(s, TTX_W_FFN_POST_NORM), s->hp->n_embd);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_gemma3 = {
    .name = "gemma3",
    .about = "Gemma 3 (text)",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NEOX,
    .local_rope = true,
    .configure = configure,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
