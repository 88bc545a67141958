/* gpt_oss.c -- gpt-oss (20b, 120b).
 *
 *      x ──┬─ rmsnorm ─ q,k,v (+b) ─ rope ─ attention with sinks ─ W_o (+b) ─ + ──┐
 *          └──────────────────────────────────────────────────────────────────────┘
 *        ──┬─ rmsnorm ─ router (+b) ─ 4 of 32 or 128 experts (+b), clamped swiglu ─ + ── x
 *          └────────────────────────────────────────────────────────────────────────┘
 *
 * Every second layer, from the first, sees only a sliding window of 128 tokens. A learned logit per
 * head (the sink) takes part in each softmax without a value. YaRN stretches the rotary embedding
 * in all layers. The router's weights are a softmax over the logits of the chosen alone. Experts
 * are MXFP4 in the published files; each has biases. GGUF keys: gpt-oss.*. Source: OpenAI, gpt-oss
 * model card, 2025 (arXiv 2508.10925).
 */
#include "blocks.h"

#define HP(field) offsetof(ttx_hparams, field)

static const ttx_hparam_def hparams[] = {
    TTX_HPARAMS_MOE,
    {"expert_feed_forward_length", TTX_HP_U32, HP(n_ff_exp), true, 0, 1, 1 << 22},
    {"attention.sliding_window", TTX_HP_U32, HP(n_swa), true, 0, 0, 1 << 27},
    {"attention.sliding_window_pattern", TTX_HP_U32, HP(swa_period), false, 2, 0, 1024},
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON,
    TTX_TENSORS_QKV_BIAS(0),
    TTX_TENSORS_MOE,
    {TTX_W_ATTN_OUTPUT_BIAS, "blk.%d.attn_output.bias", {TTX_D_EMBD}, 0},
    {TTX_W_ATTN_SINKS, "blk.%d.attn_sinks.weight", {TTX_D_HEADS}, 0},
    {TTX_W_FFN_NORM, "blk.%d.post_attention_norm.weight", {TTX_D_EMBD}, 0},
    {TTX_W_ROUTER_BIAS, "blk.%d.ffn_gate_inp.bias", {TTX_D_EXPERTS}, 0},
    {TTX_W_GATE_EXPS_BIAS, "blk.%d.ffn_gate_exps.bias", {TTX_D_FF_EXP, TTX_D_EXPERTS}, TTX_T_F32},
    {TTX_W_UP_EXPS_BIAS, "blk.%d.ffn_up_exps.bias", {TTX_D_FF_EXP, TTX_D_EXPERTS}, TTX_T_F32},
    {TTX_W_DOWN_EXPS_BIAS, "blk.%d.ffn_down_exps.bias", {TTX_D_EMBD, TTX_D_EXPERTS}, TTX_T_F32},
    {0},
};

static int configure(ttx_hparams *hp, ttx_err *err) {
    (void)err;
    hp->router = TTX_ROUTER_SOFTMAX_TOP_K;
    return TTX_OK;
}

static void layer(ttx_step *s, int il) {
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    block_attend(s, TTX_ROPE_GLOBAL, ttx_layer_is_swa(s->hp, il) ? s->hp->n_swa : 0);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    block_moe(s, TTX_SWIGLU_OAI);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_gpt_oss = {
    .name = "gpt-oss",
    .about = "gpt-oss 20b, 120b",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NEOX,
    .configure = configure,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
