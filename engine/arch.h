/* arch.h -- what an architecture is: tables for what differs in data, code for what differs in
 * control flow.
 *
 * One file under models/ fills one ttx_arch: which hyperparameters its files carry, which tensors
 * with which shapes, and the forward pass in three parts (embed, layer, output) written with the
 * operations of op.h. The engine never tests an architecture's name.
 */
#ifndef TTX_ARCH_H
#define TTX_ARCH_H

#include "err.h"
#include "kinds.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ttx_model ttx_model;
typedef struct ttx_step ttx_step;

/* What a weight is for. One weight of each role per model (below TTX_W_PER_LAYER) or per layer. */
typedef enum ttx_role {
    TTX_W_TOKEN_EMBD,
    TTX_W_OUTPUT_NORM,
    TTX_W_OUTPUT,
    TTX_W_ROPE_FREQS, /* divisors of the rotary frequencies */
    TTX_W_PER_LAYER,
    TTX_W_ATTN_NORM = TTX_W_PER_LAYER,
    TTX_W_ATTN_Q,
    TTX_W_ATTN_K,
    TTX_W_ATTN_V,
    TTX_W_ATTN_OUTPUT,
    TTX_W_ATTN_Q_BIAS,
    TTX_W_ATTN_K_BIAS,
    TTX_W_ATTN_V_BIAS,
    TTX_W_ATTN_OUTPUT_BIAS,
    TTX_W_ATTN_Q_NORM,
    TTX_W_ATTN_K_NORM,
    TTX_W_ATTN_POST_NORM,
    TTX_W_FFN_NORM,
    TTX_W_FFN_GATE,
    TTX_W_FFN_UP,
    TTX_W_FFN_DOWN,
    TTX_W_FFN_GATE_BIAS,
    TTX_W_FFN_UP_BIAS,
    TTX_W_FFN_DOWN_BIAS,
    TTX_W_FFN_POST_NORM,
    TTX_W_ATTN_SINKS,         /* a logit per head that takes part in the softmax without a value */
    TTX_W_ROUTER,             /* expert scores of a token */
    TTX_W_ROUTER_BIAS,        /* added to the scores */
    TTX_W_ROUTER_SELECT_BIAS, /* added for the selection alone */
    TTX_W_ROUTER_TABLE,       /* experts by token id: hash routing */
    TTX_W_GATE_EXPS,
    TTX_W_UP_EXPS,
    TTX_W_DOWN_EXPS,
    TTX_W_GATE_EXPS_BIAS,
    TTX_W_UP_EXPS_BIAS,
    TTX_W_DOWN_EXPS_BIAS,
    TTX_W_GATE_SHEXP, /* the shared expert, and its own gate */
    TTX_W_UP_SHEXP,
    TTX_W_DOWN_SHEXP,
    TTX_W_SHEXP_GATE,
    TTX_W_COUNT
} ttx_role;

/* Sizes that tensor shapes are made of; see ttx_dim_size. */
typedef enum ttx_dim {
    TTX_D_NONE,
    TTX_D_EMBD,     /* n_embd */
    TTX_D_VOCAB,    /* n_vocab */
    TTX_D_Q,        /* n_head * d_k */
    TTX_D_K,        /* n_head_kv * d_k */
    TTX_D_V,        /* n_head_kv * d_v */
    TTX_D_ATTN,     /* n_head * d_v */
    TTX_D_FF,       /* n_ff */
    TTX_D_HEAD_K,   /* d_k */
    TTX_D_ROT_HALF, /* n_rot / 2 */
    TTX_D_HEADS,    /* n_head */
    TTX_D_EXPERTS,  /* n_expert */
    TTX_D_USED,     /* n_expert_used */
    TTX_D_FF_EXP,   /* n_ff_exp */
    TTX_D_FF_SHEXP, /* n_ff_shexp */
} ttx_dim;

enum {
    TTX_T_OPTIONAL = 1, /* the model works without it */
    TTX_T_TIED = 2,     /* if absent, the token embedding serves */
    TTX_T_DENSE = 4,    /* belongs to models without experts */
    TTX_T_MOE = 8,      /* belongs to models with experts */
    TTX_T_F32 = 16,     /* read as F32, though it has two dimensions */
    TTX_T_I32 = 32,     /* a table of I32 */
};

/* A row of the tensor table. */
typedef struct ttx_tensor_def {
    ttx_role role;
    const char *name; /* "blk.%d.attn_q.weight"; %d: the layer */
    ttx_dim shape[3]; /* ne0, ne1, ne2; TTX_D_NONE ends */
    unsigned flags;
    const char *split; /* old files: one tensor an expert, "blk.%d.ffn_gate.%d.weight"; or NULL */
} ttx_tensor_def;

/* From a router's scores to experts and weights. The score, plus a bias for the selection alone
 * where the model has one, selects; the weight is the score without it, perhaps normalised. */
typedef enum ttx_router_kind {
    TTX_ROUTER_SOFTMAX,       /* score: softmax over all experts */
    TTX_ROUTER_SIGMOID,       /* score: sigmoid of each */
    TTX_ROUTER_SOFTMAX_TOP_K, /* score: the logit; weights: softmax over the chosen */
} ttx_router_kind;

typedef enum ttx_rope_scaling {
    TTX_ROPE_SCALING_NONE,
    TTX_ROPE_SCALING_LINEAR,
    TTX_ROPE_SCALING_YARN
} ttx_rope_scaling;

/* One rotary embedding. Most models have one; some have a second for sliding-window layers. */
typedef struct ttx_rope {
    ttx_rope_layout layout;
    uint32_t n_rot;
    float freq_base, freq_scale;
    float ext_factor, attn_factor; /* YaRN; ext_factor 0: none */
    float beta_fast, beta_slow;
    uint32_t n_ctx_orig;
    bool use_freqs; /* the model's TTX_W_ROPE_FREQS apply */
} ttx_rope;

enum { TTX_ROPE_GLOBAL, TTX_ROPE_LOCAL, TTX_ROPE_KINDS };

/* The hyperparameters of all architectures together; an architecture's table says which ones its
 * files carry, and what holds where they are silent. */
typedef struct ttx_hparams {
    uint32_t n_vocab, n_ctx_train, n_embd, n_layer, n_ff;
    uint32_t n_head, n_head_kv, d_k, d_v;
    float rms_eps;
    uint32_t n_swa;                    /* sliding window in tokens; 0: none */
    uint32_t swa_period;               /* every swa_period-th layer is global; 0: none is local */
    float attn_scale;                  /* of q.k */
    float attn_softcap, logit_softcap; /* 0: none */
    float embd_scale;                  /* of the embedding row; 1: none */
    uint32_t n_expert, n_expert_used, n_ff_exp, n_ff_shexp; /* n_expert 0: a dense model */
    ttx_router_kind router;
    bool router_norm;   /* weights of a token sum to 1 */
    float router_scale; /* of the weights, last; 1: none */
    ttx_rope rope[TTX_ROPE_KINDS];
} ttx_hparams;

typedef enum ttx_hparam_type { TTX_HP_END, TTX_HP_U32, TTX_HP_F32 } ttx_hparam_type;

/* A row of the hyperparameter table: `key` is looked up as "<arch>.<key>". */
typedef struct ttx_hparam_def {
    const char *key;
    ttx_hparam_type type;
    size_t offset; /* in ttx_hparams */
    bool required;
    double def;      /* if absent */
    double min, max; /* inclusive */
} ttx_hparam_def;

typedef struct ttx_arch {
    const char *name; /* general.architecture */
    const char *about;
    const ttx_hparam_def *hparams; /* on top of ttx_common_hparams; ends with TTX_HP_END */
    const ttx_tensor_def *tensors; /* ends with a NULL name */
    ttx_rope_layout rope_layout;
    bool local_rope; /* sliding-window layers rotate with a table of their own */
    /* Derives what is not in the file; hyperparameters are read and checked. May be NULL. */
    int (*configure)(ttx_hparams *hp, ttx_err *err);
    void (*embed)(ttx_step *s);
    void (*layer)(ttx_step *s, int il);
    void (*output)(ttx_step *s);
} ttx_arch;

#endif
