/* naive_model.h -- the forward pass as the papers write it, in double precision, one value at a
 * time. Shares nothing with the engine but the bytes of the model file (F32; experts also Q8_0 and
 * MXFP4): what the two agree on, both understand.
 */
#ifndef NAIVE_MODEL_H
#define NAIVE_MODEL_H

#include "gguf.h"
#include "tiny_model.h"

/* logits: [n][n_vocab], of every position of `tokens`. */
void naive_logits(const tiny_model *t, const gguf_file *f, const int32_t *tokens, int n,
                  double *logits);

/* One rotary embedding, as its papers define it. */
typedef struct naive_rope {
    int n_rot;
    double base, factor;            /* factor: of the context; 1: no scaling */
    bool yarn;                      /* false: linear scaling */
    double beta_fast, beta_slow;    /* YaRN: turns over the original context */
    double n_ctx_orig, attn_factor; /* YaRN; attn_factor multiplies the paper's magnitude */
    const float *divisors;          /* [n_rot/2] or NULL */
} naive_rope;

/* Angle of pair i at a position; *magnitude multiplies cos and sin. */
double naive_angle(const naive_rope *r, double pos, int i, double *magnitude);

#endif
