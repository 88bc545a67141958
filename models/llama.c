/* llama.c -- Llama 1, 2, 3; Mistral, SmolLM2, TinyLlama and other models of the same shape.
 *
 *      x ──┬─ rmsnorm ─ q,k,v ─ rope(q,k) ─ attention ─ W_o ─ + ──┬─ rmsnorm ─ swiglu ─ + ── x
 *          └──────────────────────────────────────────────────────┘└────────────────────┘
 *
 * Grouped-query attention; rotary pairs are neighbours (2i, 2i+1); Llama 3.1 and later divide the
 * rotary frequencies by the tensor rope_freqs. Biases exist in a few descendants. With experts
 * (Mixtral) the feed-forward part is a mixture: softmax over all experts, the weights of the chosen
 * sum to 1; each expert is as wide as feed_forward_length says.
 * GGUF keys: llama.*. Papers: Touvron et al. 2023 (arXiv 2302.13971), Grattafiori et al. 2024
 * (arXiv 2407.21783), Jiang et al. 2024 (Mixtral, arXiv 2401.04088).
 */
#include "blocks.h"

static const ttx_hparam_def hparams[] = {
    TTX_HPARAM_FF,
    {"expert_count", TTX_HP_U32, offsetof(ttx_hparams, n_expert), false, 0, 0, TTX_MAX_EXPERTS},
    {"expert_used_count", TTX_HP_U32, offsetof(ttx_hparams, n_expert_used), false, 0, 0,
     TTX_MAX_EXPERTS_USED},
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON,
    TTX_TENSORS_FFN_NORM,
    TTX_TENSORS_FFN,
    TTX_TENSORS_MOE,
    TTX_TENSORS_QKV_BIAS(TTX_T_OPTIONAL),
    {TTX_W_ROPE_FREQS, "rope_freqs.weight", {TTX_D_ROT_HALF}, TTX_T_OPTIONAL},
    {TTX_W_ATTN_OUTPUT_BIAS, "blk.%d.attn_output.bias", {TTX_D_EMBD}, TTX_T_OPTIONAL},
    {TTX_W_FFN_GATE_BIAS, "blk.%d.ffn_gate.bias", {TTX_D_FF}, TTX_T_OPTIONAL},
    {TTX_W_FFN_UP_BIAS, "blk.%d.ffn_up.bias", {TTX_D_FF}, TTX_T_OPTIONAL},
    {TTX_W_FFN_DOWN_BIAS, "blk.%d.ffn_down.bias", {TTX_D_EMBD}, TTX_T_OPTIONAL},
    {0},
};

static int configure(ttx_hparams *hp, ttx_err *err) {
    (void)err;
    if (hp->n_expert) { /* the width is that of an expert, and there is no dense part */
        hp->n_ff_exp = hp->n_ff;
        hp->n_ff = 0;
    }
    hp->router = TTX_ROUTER_SOFTMAX;
    hp->router_norm = true;
    return TTX_OK;
}

static void layer(ttx_step *s, int il) {
    (void)il;
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    block_attend(s, TTX_ROPE_GLOBAL, 0);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    if (s->hp->n_expert)
        block_moe(s, TTX_SWIGLU);
    else
        block_ffn(s, TTX_SWIGLU);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_llama = {
    .name = "llama",
    .about = "Llama 1/2/3, Mistral, Mixtral, SmolLM2, TinyLlama",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NORM,
    .configure = configure,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
