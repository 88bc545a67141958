/* qwen2moe.c -- Qwen1.5-MoE and Qwen2 with experts (57B-A14B).
 *
 * Qwen2's attention (biases on q, k, v); the feed-forward part is a mixture (softmax over all
 * experts, weights as they are) plus a shared expert that every token uses, scaled by a gate of its
 * own:   h = moe(h) + sigmoid(w . h) * ffn_shared(h)
 * GGUF keys: qwen2moe.*. Paper: Yang et al. 2024 (arXiv 2407.10671).
 */
#include "blocks.h"

#define HP(field) offsetof(ttx_hparams, field)

static const ttx_hparam_def hparams[] = {
    TTX_HPARAMS_MOE,
    {"feed_forward_length", TTX_HP_U32, HP(n_ff), false, 0, 0, 1 << 22},
    {"expert_feed_forward_length", TTX_HP_U32, HP(n_ff_exp), false, 0, 0, 1 << 22},
    {"expert_shared_feed_forward_length", TTX_HP_U32, HP(n_ff_shexp), false, 0, 0, 1 << 22},
    {0},
};

static const ttx_tensor_def tensors[] = {
    TTX_TENSORS_COMMON,
    TTX_TENSORS_FFN_NORM,
    TTX_TENSORS_QKV_BIAS(0),
    TTX_TENSORS_MOE,
    {TTX_W_GATE_SHEXP, "blk.%d.ffn_gate_shexp.weight", {TTX_D_EMBD, TTX_D_FF_SHEXP}, 0},
    {TTX_W_UP_SHEXP, "blk.%d.ffn_up_shexp.weight", {TTX_D_EMBD, TTX_D_FF_SHEXP}, 0},
    {TTX_W_DOWN_SHEXP, "blk.%d.ffn_down_shexp.weight", {TTX_D_FF_SHEXP, TTX_D_EMBD}, 0},
    {TTX_W_SHEXP_GATE, "blk.%d.ffn_gate_inp_shexp.weight", {TTX_D_EMBD}, 0},
    {0},
};

/* Older files give only the width of all experts of a token together. */
static int configure(ttx_hparams *hp, ttx_err *err) {
    hp->router = TTX_ROUTER_SOFTMAX;
    if (!hp->n_ff_exp) hp->n_ff_exp = hp->n_ff / hp->n_expert_used;
    if (!hp->n_ff_shexp) hp->n_ff_shexp = hp->n_ff;
    if (!hp->n_ff_exp || !hp->n_ff_shexp)
        return ttx_fail(err, TTX_E_MODEL,
                        "qwen2moe: expected expert_feed_forward_length and "
                        "expert_shared_feed_forward_length, or feed_forward_length; found none");
    return TTX_OK;
}

/* shared = sigmoid(w . h) * W_down (silu(W_gate h) * W_up h) */
static void shared_expert(ttx_step *s) {
    ttx_buf gate = {s->gate.p, s->hp->n_ff_shexp}, up = {s->up.p, s->hp->n_ff_shexp};
    ttx_buf weight = {s->up.p, 1};
    op_project(s, s->h,
               (ttx_proj[]){{gate, ttx_w(s, TTX_W_GATE_SHEXP), NULL},
                            {up, ttx_w(s, TTX_W_UP_SHEXP), NULL}},
               2);
    op_glu(s, gate, gate, up, TTX_SWIGLU);
    op_matmul(s, s->shared, ttx_w(s, TTX_W_DOWN_SHEXP), NULL, gate);
    op_matmul(s, weight, ttx_w(s, TTX_W_SHEXP_GATE), NULL, s->h);
    op_gate_rows(s, s->shared, weight);
}

static void layer(ttx_step *s, int il) {
    (void)il;
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_ATTN_NORM), s->hp->n_embd);
    block_qkv(s);
    block_attend(s, TTX_ROPE_GLOBAL, 0);
    op_add(s, s->x, s->h);
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_FFN_NORM), s->hp->n_embd);
    shared_expert(s);
    block_moe(s, TTX_SWIGLU);
    op_add(s, s->h, s->shared);
    op_add(s, s->x, s->h);
}

const ttx_arch ttx_arch_qwen2moe = {
    .name = "qwen2moe",
    .about = "Qwen1.5-MoE, Qwen2 with experts",
    .hparams = hparams,
    .tensors = tensors,
    .rope_layout = TTX_ROPE_NEOX,
    .configure = configure,
    .embed = block_embed,
    .layer = layer,
    .output = block_output,
};
