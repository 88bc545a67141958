/* tiny_model.h -- writes small GGUF models with random weights, for tests that need no model file.
 *
 * A tiny_model is a description: take tiny_model_of(), change what the test is about, write it. The
 * same description gives the same bytes. The last rows say what the architecture's forward pass
 * does, so that the naive reference needs nothing from the code that it checks.
 */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include "dtype.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct tiny_model {
    const char *arch;
    uint32_t seed;
    uint32_t type; /* of every matrix: TTX_F32, F16, Q8_0 or Q4_K */
    uint32_t n_vocab, n_ctx, n_embd, n_layer, n_ff, n_head, n_head_kv, d_head, n_rot;
    uint32_t n_swa, swa_period; /* 0: no window */
    double eps, rope_base, rope_base_swa;
    const char *rope_scaling; /* NULL: none; "linear", "yarn" */
    double rope_factor;
    uint32_t n_ctx_orig; /* yarn; 0: not written */
    double softcap;      /* of logits; 0: not written */
    bool tied;           /* no output matrix */
    bool rope_freqs;     /* divisors of the rotary frequencies */
    bool biases;         /* of every projection that may have one */
    bool vocab;          /* SentencePiece pieces (n_vocab >= 300); false: no vocabulary at all */
    const char *chat_template; /* NULL: none */
    /* Experts; n_expert 0: none. */
    uint32_t n_expert, n_expert_used, n_ff_exp, n_ff_shexp;
    uint32_t expert_type; /* of their matrices: also MXFP4; F32: the same as `type` */
    bool split_experts;   /* a tensor for each matrix, as in old files; the same values */
    bool select_bias;     /* exp_probs_b: added to the scores for the selection alone */
    bool hash_routing;    /* ffn_gate_tid2eid: experts by token id */
    bool flat_router;     /* all zeros: every score is the same */
    /* What the architecture does. */
    bool neox, qkv_bias, qk_norm, post_norms, gelu, no_ffn, scaled_embd;
    bool qk_norm_whole, sinks, clamped_swiglu, moe_biases, router_norm;
    bool swa_rope; /* windowed layers have a rotary embedding of their own */
    enum { TINY_SOFTMAX, TINY_SIGMOID, TINY_SOFTMAX_TOP_K } router;
    double router_scale;
} tiny_model;

/* arch: llama, qwen2, qwen3, gemma3, skeleton, mixtral (llama with experts), qwen2moe, qwen3moe,
 * olmoe or gpt-oss. One of an unknown name is written as llama's. */
tiny_model tiny_model_of(const char *arch);

/* False if writing failed. */
bool tiny_model_write(const tiny_model *t, FILE *f);

#endif
