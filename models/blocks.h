/* blocks.h -- the pieces of a transformer that several architectures share to the letter. */
#ifndef TTX_BLOCKS_H
#define TTX_BLOCKS_H

#include "op.h"

/* x = scale * token_embd[token] */
static inline void block_embed(ttx_step *s) {
    op_embed(s, s->x, ttx_w(s, TTX_W_TOKEN_EMBD), s->hp->embd_scale);
}

/* logits = output(rmsnorm(x)) */
static inline void block_output(ttx_step *s) {
    op_rms_norm(s, s->h, s->x, ttx_w(s, TTX_W_OUTPUT_NORM), s->hp->n_embd);
    op_matmul(s, s->logits, ttx_w(s, TTX_W_OUTPUT), NULL, s->h);
    op_softcap(s, s->logits, s->hp->logit_softcap);
}

/* q, k, v = W h (+ b): [T][n_head * d_k], [T][n_head_kv * d_k], [T][n_head_kv * d_v] */
static inline void block_qkv(ttx_step *s) {
    op_project(s, s->h,
               (ttx_proj[]){{s->q, ttx_w(s, TTX_W_ATTN_Q), ttx_w(s, TTX_W_ATTN_Q_BIAS)},
                            {s->k, ttx_w(s, TTX_W_ATTN_K), ttx_w(s, TTX_W_ATTN_K_BIAS)},
                            {s->v, ttx_w(s, TTX_W_ATTN_V), ttx_w(s, TTX_W_ATTN_V_BIAS)}},
               3);
}

/* Rotates q and k, stores k and v, attends: att [T][n_head * d_v]; then h = W_o att (+ b). */
static inline void block_attend(ttx_step *s, int rope_kind, uint32_t window) {
    op_rope(s, s->q, s->hp->d_k, rope_kind);
    op_rope(s, s->k, s->hp->d_k, rope_kind);
    op_kv_store(s, s->k, s->v);
    op_attention(s, s->att, s->q, window, ttx_w(s, TTX_W_ATTN_SINKS));
    op_keep_outputs(s, s->att, s->x);
    op_matmul(s, s->h, ttx_w(s, TTX_W_ATTN_OUTPUT), ttx_w(s, TTX_W_ATTN_OUTPUT_BIAS), s->att);
}

/* h = W_down (act(W_gate h) * W_up h) */
static inline void block_ffn(ttx_step *s, ttx_glu kind) {
    op_project(s, s->h,
               (ttx_proj[]){{s->gate, ttx_w(s, TTX_W_FFN_GATE), ttx_w(s, TTX_W_FFN_GATE_BIAS)},
                            {s->up, ttx_w(s, TTX_W_FFN_UP), ttx_w(s, TTX_W_FFN_UP_BIAS)}},
               2);
    op_glu(s, s->gate, s->gate, s->up, kind);
    op_matmul(s, s->h, ttx_w(s, TTX_W_FFN_DOWN), ttx_w(s, TTX_W_FFN_DOWN_BIAS), s->gate);
}

/* h = weighted sum of the chosen experts of h */
static inline void block_moe(ttx_step *s, ttx_glu kind) {
    op_router(s, s->h);
    op_moe(s, s->h, s->h, kind);
}

/* The rows of a tensor table that all architectures here have in common. */
#define TTX_TENSORS_COMMON                                                          \
    {TTX_W_TOKEN_EMBD, "token_embd.weight", {TTX_D_EMBD, TTX_D_VOCAB}, 0},          \
        {TTX_W_OUTPUT_NORM, "output_norm.weight", {TTX_D_EMBD}, 0},                 \
        {TTX_W_OUTPUT, "output.weight", {TTX_D_EMBD, TTX_D_VOCAB}, TTX_T_TIED},     \
        {TTX_W_ATTN_NORM, "blk.%d.attn_norm.weight", {TTX_D_EMBD}, 0},              \
        {TTX_W_ATTN_Q, "blk.%d.attn_q.weight", {TTX_D_EMBD, TTX_D_Q}, 0},           \
        {TTX_W_ATTN_K, "blk.%d.attn_k.weight", {TTX_D_EMBD, TTX_D_K}, 0},           \
        {TTX_W_ATTN_V, "blk.%d.attn_v.weight", {TTX_D_EMBD, TTX_D_V}, 0}, {         \
        TTX_W_ATTN_OUTPUT, "blk.%d.attn_output.weight", {TTX_D_ATTN, TTX_D_EMBD}, 0 \
    }

#define TTX_TENSORS_FFN_NORM \
    { TTX_W_FFN_NORM, "blk.%d.ffn_norm.weight", {TTX_D_EMBD}, 0 }

/* The feed-forward part of a model without experts. */
#define TTX_TENSORS_FFN                                                                \
    {TTX_W_FFN_GATE, "blk.%d.ffn_gate.weight", {TTX_D_EMBD, TTX_D_FF}, TTX_T_DENSE},   \
        {TTX_W_FFN_UP, "blk.%d.ffn_up.weight", {TTX_D_EMBD, TTX_D_FF}, TTX_T_DENSE}, { \
        TTX_W_FFN_DOWN, "blk.%d.ffn_down.weight", {TTX_D_FF, TTX_D_EMBD}, TTX_T_DENSE  \
    }

/* ... and of one with: the router, the optional parts of routing, the experts. Old files have a
 * tensor for each expert. */
#define TTX_TENSORS_MOE                                                                            \
    {TTX_W_ROUTER, "blk.%d.ffn_gate_inp.weight", {TTX_D_EMBD, TTX_D_EXPERTS}, TTX_T_MOE},          \
        {TTX_W_ROUTER_SELECT_BIAS,                                                                 \
         "blk.%d.exp_probs_b.bias",                                                                \
         {TTX_D_EXPERTS},                                                                          \
         TTX_T_MOE | TTX_T_OPTIONAL},                                                              \
        {TTX_W_ROUTER_TABLE,                                                                       \
         "blk.%d.ffn_gate_tid2eid.weight",                                                         \
         {TTX_D_USED, TTX_D_VOCAB},                                                                \
         TTX_T_MOE | TTX_T_OPTIONAL | TTX_T_I32},                                                  \
        {TTX_W_GATE_EXPS,                                                                          \
         "blk.%d.ffn_gate_exps.weight",                                                            \
         {TTX_D_EMBD, TTX_D_FF_EXP, TTX_D_EXPERTS},                                                \
         TTX_T_MOE,                                                                                \
         "blk.%d.ffn_gate.%d.weight"},                                                             \
        {TTX_W_UP_EXPS,                                                                            \
         "blk.%d.ffn_up_exps.weight",                                                              \
         {TTX_D_EMBD, TTX_D_FF_EXP, TTX_D_EXPERTS},                                                \
         TTX_T_MOE,                                                                                \
         "blk.%d.ffn_up.%d.weight"},                                                               \
    {                                                                                              \
        TTX_W_DOWN_EXPS, "blk.%d.ffn_down_exps.weight", {TTX_D_FF_EXP, TTX_D_EMBD, TTX_D_EXPERTS}, \
            TTX_T_MOE, "blk.%d.ffn_down.%d.weight"                                                 \
    }

/* q, k, v biases: required in some architectures, optional in others. */
#define TTX_TENSORS_QKV_BIAS(flags)                                    \
    {TTX_W_ATTN_Q_BIAS, "blk.%d.attn_q.bias", {TTX_D_Q}, flags},       \
        {TTX_W_ATTN_K_BIAS, "blk.%d.attn_k.bias", {TTX_D_K}, flags}, { \
        TTX_W_ATTN_V_BIAS, "blk.%d.attn_v.bias", {TTX_D_V}, flags      \
    }

#define TTX_TENSORS_QK_NORM                                                \
    {TTX_W_ATTN_Q_NORM, "blk.%d.attn_q_norm.weight", {TTX_D_HEAD_K}, 0}, { \
        TTX_W_ATTN_K_NORM, "blk.%d.attn_k_norm.weight", {TTX_D_HEAD_K}, 0  \
    }

/* Rows of a hyperparameter table that most architectures have. */
#define TTX_HPARAM_FF \
    { "feed_forward_length", TTX_HP_U32, offsetof(ttx_hparams, n_ff), true, 0, 1, 1 << 22 }

#define TTX_HPARAMS_MOE                                                                           \
    {"expert_count", TTX_HP_U32, offsetof(ttx_hparams, n_expert), true, 0, 1, TTX_MAX_EXPERTS}, { \
        "expert_used_count", TTX_HP_U32, offsetof(ttx_hparams, n_expert_used), true, 0, 1,        \
            TTX_MAX_EXPERTS_USED                                                                  \
    }

#endif
