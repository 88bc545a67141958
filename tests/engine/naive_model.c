/* naive_model.c -- see naive_model.h. Sources: Vaswani et al. (arXiv 1706.03762), Su et al.
 * (RoFormer, 2104.09864), Peng et al. (YaRN, 2309.00071), Ainslie et al. (grouped queries,
 * 2305.13245), Shazeer (GLU variants, 2002.05202), Zhang and Sennrich (RMSNorm, 1910.07467), Gemma
 * Team (2503.19786), Shazeer et al. (mixture of experts, 1701.06538), OpenAI (gpt-oss, 2508.10925),
 * the OCP microscaling specification (MXFP4).
 */
#include "naive_model.h"

#include "engine_rig.h"
#include "half.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct naive {
    const tiny_model *t;
    const gguf_file *f;
    const int32_t *tokens; /* [n] */
    int n;
} naive;

/* ---- pieces ---- */

/* The bytes of a tensor, and what it is; NULL if there is none. */
static const uint8_t *bytes_of(const naive *m, const char *name, int layer,
                               const gguf_tensor **tensor) {
    char full[96];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    *tensor = gguf_find_tensor(m->f, full);
    return *tensor ? gguf_get_shard(m->f, (*tensor)->shard)->map + (*tensor)->offset : NULL;
}

/* The values of an F32 tensor; NULL if there is none. */
static const float *weights(const naive *m, const char *name, int layer) {
    const gguf_tensor *x;
    const uint8_t *p = bytes_of(m, name, layer, &x);
    if (p && x->type != TTX_F32) rig_die(name, "the naive model reads F32 here");
    return (const float *)(const void *)p;
}

/* y [rows] = W x + b */
static void product(const float *w, const float *b, const double *x, int k, double *y, int rows) {
    for (int r = 0; r < rows; r++) {
        y[r] = b ? b[r] : 0;
        for (int i = 0; i < k; i++) y[r] += x[i] * w[r * k + i];
    }
}

/* y [n][rows] = x [n][k] W^T + b */
static void linear(const naive *m, const char *stem, int layer, const double *x, int k, double *y,
                   int rows) {
    char name[64];
    snprintf(name, sizeof name, "%s.weight", stem);
    const float *w = weights(m, name, layer);
    if (!w) w = weights(m, "token_embd.weight", -1); /* tied */
    snprintf(name, sizeof name, "%s.bias", stem);
    const float *b = weights(m, name, layer);
    for (int t = 0; t < m->n; t++) product(w, b, x + t * k, k, y + t * rows, rows);
}

/* Each group of `group` values: y = x / sqrt(mean(x^2) + eps) * w. y may be x. */
static void rms_norm(const naive *m, const char *name, int layer, const double *x, double *y,
                     int total, int group) {
    const float *w = weights(m, name, layer);
    for (int g = 0; g < m->n * total; g += group) {
        double sum = 0;
        for (int i = 0; i < group; i++) sum += x[g + i] * x[g + i];
        double scale = 1 / sqrt(sum / group + (float)m->t->eps);
        for (int i = 0; i < group; i++) y[g + i] = x[g + i] * scale * w[i];
    }
}

double naive_angle(const naive_rope *r, double pos, int i, double *magnitude) {
    double theta = pow(r->base, -2.0 * i / r->n_rot) / (r->divisors ? r->divisors[i] : 1);
    *magnitude = r->attn_factor;
    if (!r->yarn) return pos * theta / r->factor;
    *magnitude *= 1 + 0.1 * log(r->factor);
    /* The pair whose wave turns b times over the original context: 2 pi base^(2i/n) b = L. */
    double fast = r->n_rot * log(r->n_ctx_orig / (2 * M_PI * r->beta_fast)) / (2 * log(r->base));
    double slow = r->n_rot * log(r->n_ctx_orig / (2 * M_PI * r->beta_slow)) / (2 * log(r->base));
    double lo = fmax(0, floor(fast)), hi = fmin(r->n_rot - 1, ceil(slow));
    double gamma = 1 - (i - lo) / fmax(0.001, hi - lo); /* 1: keep, 0: interpolate */
    gamma = fmin(1, fmax(0, gamma));
    return pos * theta * (gamma + (1 - gamma) / r->factor);
}

static void rotate(const naive *m, const naive_rope *r, double *x, int n_head) {
    int d = (int)m->t->d_head;
    for (int t = 0; t < m->n; t++)
        for (int h = 0; h < n_head; h++)
            for (int i = 0; i < r->n_rot / 2; i++) {
                double magnitude, angle = naive_angle(r, t, i, &magnitude);
                double *head = x + (t * n_head + h) * d;
                double *a = head + (m->t->neox ? i : 2 * i);
                double *b = head + (m->t->neox ? i + r->n_rot / 2 : 2 * i + 1);
                double p = *a, q = *b;
                *a = magnitude * (p * cos(angle) - q * sin(angle));
                *b = magnitude * (p * sin(angle) + q * cos(angle));
            }
}

/* y [n][n_head][d] = softmax(q k / sqrt(d)) v, causal, over the last `window` positions if > 0; a
 * sink is one more logit, without a value. */
static void attend(const naive *m, const double *q, const double *k, const double *v, double *y,
                   int window, const float *sinks) {
    int n_head = (int)m->t->n_head, n_kv = (int)m->t->n_head_kv, d = (int)m->t->d_head;
    double *p = rig_alloc((size_t)m->n, sizeof *p);
    for (int t = 0; t < m->n; t++)
        for (int h = 0; h < n_head; h++) {
            int kv = h / (n_head / n_kv), first = window && t + 1 > window ? t + 1 - window : 0;
            double top = sinks ? sinks[h] : -INFINITY, sum = 0;
            for (int j = first; j <= t; j++) {
                p[j] = 0;
                for (int i = 0; i < d; i++)
                    p[j] += q[(t * n_head + h) * d + i] * k[(j * n_kv + kv) * d + i];
                p[j] /= sqrt(d);
                top = fmax(top, p[j]);
            }
            for (int j = first; j <= t; j++) sum += p[j] = exp(p[j] - top);
            if (sinks) sum += exp(sinks[h] - top);
            for (int i = 0; i < d; i++) {
                double out = 0;
                for (int j = first; j <= t; j++) out += p[j] / sum * v[(j * n_kv + kv) * d + i];
                y[(t * n_head + h) * d + i] = out;
            }
        }
    free(p);
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double gated(const tiny_model *t, double gate, double up) {
    if (t->gelu)
        return 0.5 * gate * (1 + tanh(sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate))) *
               up;
    if (!t->clamped_swiglu) return gate * sigmoid(gate) * up;
    gate = fmin(gate, 7);
    return gate * sigmoid(1.702 * gate) * (fmax(-7, fmin(7, up)) + 1);
}

/* ---- a layer ---- */

static naive_rope rope_of(const naive *m, bool local) {
    const tiny_model *t = m->t;
    naive_rope r = {.n_rot = (int)t->n_rot,
                    .base = local ? t->rope_base_swa : t->rope_base,
                    .factor = 1,
                    .beta_fast = 32,
                    .beta_slow = 1,
                    .n_ctx_orig = t->n_ctx_orig ? t->n_ctx_orig : t->n_ctx,
                    .attn_factor = 1,
                    .divisors = weights(m, "rope_freqs.weight", -1)};
    if (local || !t->rope_scaling) return r;
    r.factor = t->rope_factor;
    r.yarn = strcmp(t->rope_scaling, "yarn") == 0;
    return r;
}

static void attention_part(const naive *m, int il, double *x, double *h) {
    const tiny_model *t = m->t;
    int n_embd = (int)t->n_embd, nq = (int)(t->n_head * t->d_head),
        nkv = (int)(t->n_head_kv * t->d_head);
    double *q = rig_alloc((size_t)(m->n * nq), sizeof *q),
           *k = rig_alloc((size_t)(m->n * nkv), sizeof *k),
           *v = rig_alloc((size_t)(m->n * nkv), sizeof *v),
           *y = rig_alloc((size_t)(m->n * nq), sizeof *y);
    bool local = t->n_swa && t->swa_period && (il + 1) % (int)t->swa_period != 0;
    rms_norm(m, "attn_norm.weight", il, x, h, n_embd, n_embd);
    linear(m, "attn_q", il, h, n_embd, q, nq);
    linear(m, "attn_k", il, h, n_embd, k, nkv);
    linear(m, "attn_v", il, h, n_embd, v, nkv);
    if (t->qk_norm) {
        rms_norm(m, "attn_q_norm.weight", il, q, q, nq, t->qk_norm_whole ? nq : (int)t->d_head);
        rms_norm(m, "attn_k_norm.weight", il, k, k, nkv, t->qk_norm_whole ? nkv : (int)t->d_head);
    }
    naive_rope r = rope_of(m, local && t->swa_rope);
    rotate(m, &r, q, (int)t->n_head);
    rotate(m, &r, k, (int)t->n_head_kv);
    attend(m, q, k, v, y, local ? (int)t->n_swa : 0, weights(m, "attn_sinks.weight", il));
    linear(m, "attn_output", il, y, nq, h, n_embd);
    if (t->post_norms) rms_norm(m, "post_attention_norm.weight", il, h, h, n_embd, n_embd);
    for (int i = 0; i < m->n * n_embd; i++) x[i] += h[i];
    free(q);
    free(k);
    free(v);
    free(y);
}

/* ---- experts ---- */

/* Values of a block of 32; source of MXFP4: values 2^(scale - 127) * E2M1. */
static void decode_block(const uint8_t *p, ttx_dtype type, float *y) {
    static const double e2m1[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    for (int i = 0; i < 32; i++) {
        if (type == TTX_Q8_0) {
            uint16_t d;
            memcpy(&d, p, sizeof d);
            y[i] = ttx_f16_to_f32(d) * (float)(int8_t)p[2 + i];
        } else { /* MXFP4: low halves first */
            int q = i < 16 ? p[1 + i] & 15 : p[1 + i - 16] >> 4;
            y[i] = (float)ldexp(q & 8 ? -e2m1[q & 7] : e2m1[q & 7], p[0] - 127);
        }
    }
}

/* Matrix e of ffn_<part>, [rows][k]: to be freed. */
static float *expert_matrix(const naive *m, const char *part, int il, int e, int k, int rows) {
    char name[64];
    const gguf_tensor *x;
    size_t n = (size_t)(k * rows);
    snprintf(name, sizeof name, "ffn_%s_exps.weight", part);
    const uint8_t *p = bytes_of(m, name, il, &x);
    if (p) {
        p += x->size / m->t->n_expert * (size_t)e;
    } else {
        snprintf(name, sizeof name, "ffn_%s.%d.weight", part, e);
        p = bytes_of(m, name, il, &x);
    }
    if (!p) rig_die(name, "missing");
    float *y = rig_alloc(n, sizeof *y);
    if (x->type == TTX_F32) memcpy(y, p, n * sizeof *y);
    size_t block = x->type == TTX_Q8_0 ? 34 : 17;
    for (size_t i = 0; x->type != TTX_F32 && i < n / 32; i++)
        decode_block(p + i * block, x->type, y + i * 32);
    return y;
}

static void expert_product(const naive *m, const char *part, int il, int e, const double *x, int k,
                           double *y, int rows) {
    char name[64];
    snprintf(name, sizeof name, "ffn_%s_exps.bias", part);
    const float *b = weights(m, name, il);
    float *w = expert_matrix(m, part, il, e, k, rows);
    product(w, b ? b + e * rows : NULL, x, k, y, rows);
    free(w);
}

/* Scores of all experts, from the router's logits, in place. */
static void router_scores(const tiny_model *t, double *v) {
    double sum = 0;
    int n = (int)t->n_expert;
    for (int i = 0; i < n; i++) sum += exp(v[i]);
    for (int i = 0; i < n; i++) {
        if (t->router == TINY_SOFTMAX) v[i] = exp(v[i]) / sum;
        if (t->router == TINY_SIGMOID) v[i] = sigmoid(v[i]);
    }
}

/* The experts of token i and their weights. */
static void choose(const naive *m, int il, int i, double *score, int *expert, double *weight) {
    const tiny_model *t = m->t;
    int n = (int)t->n_expert, k = (int)t->n_expert_used;
    const float *bias = weights(m, "exp_probs_b.bias", il);
    const gguf_tensor *x;
    const uint8_t *p = bytes_of(m, "ffn_gate_tid2eid.weight", il, &x);
    const int32_t *table = (const int32_t *)(const void *)p;
    bool *taken = rig_alloc((size_t)n, sizeof *taken);
    double sum = 0;
    router_scores(t, score);
    for (int j = 0; j < k; j++) {
        int best = -1;
        for (int e = 0; e < n; e++)
            if (!taken[e] && (best < 0 || score[e] + (bias ? bias[e] : 0) >
                                              score[best] + (bias ? bias[best] : 0)))
                best = e;
        taken[best] = true;
        expert[j] = table ? table[m->tokens[i] * k + j] : best;
        weight[j] = score[expert[j]];
        if (t->router == TINY_SOFTMAX_TOP_K) weight[j] = exp(weight[j]);
        sum += weight[j];
    }
    bool norm = t->router_norm || t->router == TINY_SOFTMAX_TOP_K;
    for (int j = 0; j < k; j++) weight[j] *= t->router_scale / (norm ? sum : 1);
    free(taken);
}

/* h += sigmoid(w . in) * shared(in) */
static void shared_expert(const naive *m, int il, const double *in, double *h) {
    const tiny_model *t = m->t;
    int n_embd = (int)t->n_embd, n_ff = (int)t->n_ff_shexp, rows = m->n * n_embd;
    if (!n_ff) return;
    double *gate = rig_alloc((size_t)(m->n * n_ff), sizeof *gate),
           *up = rig_alloc((size_t)(m->n * n_ff), sizeof *up),
           *y = rig_alloc((size_t)rows, sizeof *y), *w = rig_alloc((size_t)m->n, sizeof *w);
    linear(m, "ffn_gate_shexp", il, in, n_embd, gate, n_ff);
    linear(m, "ffn_up_shexp", il, in, n_embd, up, n_ff);
    for (int i = 0; i < m->n * n_ff; i++) gate[i] = gated(t, gate[i], up[i]);
    linear(m, "ffn_down_shexp", il, gate, n_ff, y, n_embd);
    linear(m, "ffn_gate_inp_shexp", il, in, n_embd, w, 1);
    for (int i = 0; i < rows; i++) h[i] += sigmoid(w[i / n_embd]) * y[i];
    free(gate);
    free(up);
    free(y);
    free(w);
}

/* h = the mixture of normed h */
static void moe_part(const naive *m, int il, double *h) {
    const tiny_model *t = m->t;
    int n_embd = (int)t->n_embd, n_ff = (int)t->n_ff_exp, n_expert = (int)t->n_expert;
    size_t n_values = (size_t)(m->n * n_embd);
    double *in = rig_alloc(n_values, sizeof *in), *gate = rig_alloc((size_t)n_ff, sizeof *gate),
           *up = rig_alloc((size_t)n_ff, sizeof *up), *y = rig_alloc((size_t)n_embd, sizeof *y),
           *score = rig_alloc((size_t)(m->n * n_expert), sizeof *score);
    int expert[32];
    double weight[32];
    memcpy(in, h, n_values * sizeof *in);
    linear(m, "ffn_gate_inp", il, in, n_embd, score, n_expert);
    for (int i = 0; i < m->n; i++) {
        choose(m, il, i, score + i * n_expert, expert, weight);
        for (int c = 0; c < n_embd; c++) h[i * n_embd + c] = 0;
        for (int j = 0; j < (int)t->n_expert_used; j++) {
            expert_product(m, "gate", il, expert[j], in + i * n_embd, n_embd, gate, n_ff);
            expert_product(m, "up", il, expert[j], in + i * n_embd, n_embd, up, n_ff);
            for (int c = 0; c < n_ff; c++) gate[c] = gated(t, gate[c], up[c]);
            expert_product(m, "down", il, expert[j], gate, n_ff, y, n_embd);
            for (int c = 0; c < n_embd; c++) h[i * n_embd + c] += weight[j] * y[c];
        }
    }
    shared_expert(m, il, in, h);
    free(in);
    free(gate);
    free(up);
    free(y);
    free(score);
}

static void ffn_part(const naive *m, int il, double *x, double *h) {
    const tiny_model *t = m->t;
    int n_embd = (int)t->n_embd, n_ff = (int)t->n_ff;
    if (t->no_ffn) return;
    if (t->n_expert) {
        const char *norm = t->sinks ? "post_attention_norm.weight" : "ffn_norm.weight";
        rms_norm(m, norm, il, x, h, n_embd, n_embd);
        moe_part(m, il, h);
        for (int i = 0; i < m->n * n_embd; i++) x[i] += h[i];
        return;
    }
    double *gate = rig_alloc((size_t)(m->n * n_ff), sizeof *gate),
           *up = rig_alloc((size_t)(m->n * n_ff), sizeof *up);
    rms_norm(m, "ffn_norm.weight", il, x, h, n_embd, n_embd);
    linear(m, "ffn_gate", il, h, n_embd, gate, n_ff);
    linear(m, "ffn_up", il, h, n_embd, up, n_ff);
    for (int i = 0; i < m->n * n_ff; i++) gate[i] = gated(t, gate[i], up[i]);
    linear(m, "ffn_down", il, gate, n_ff, h, n_embd);
    if (t->post_norms) rms_norm(m, "post_ffw_norm.weight", il, h, h, n_embd, n_embd);
    for (int i = 0; i < m->n * n_embd; i++) x[i] += h[i];
    free(gate);
    free(up);
}

void naive_logits(const tiny_model *t, const gguf_file *f, const int32_t *tokens, int n,
                  double *logits) {
    naive m = {t, f, tokens, n};
    int n_embd = (int)t->n_embd, n_vocab = (int)t->n_vocab;
    double *x = rig_alloc((size_t)(n * n_embd), sizeof *x),
           *h = rig_alloc((size_t)(n * n_embd), sizeof *h);
    const float *embd = weights(&m, "token_embd.weight", -1);
    double scale = t->scaled_embd ? sqrt(n_embd) : 1;
    for (int i = 0; i < n * n_embd; i++)
        x[i] = scale * embd[tokens[i / n_embd] * n_embd + i % n_embd];
    for (int il = 0; il < (int)t->n_layer; il++) {
        attention_part(&m, il, x, h);
        ffn_part(&m, il, x, h);
    }
    rms_norm(&m, "output_norm.weight", -1, x, h, n_embd, n_embd);
    linear(&m, "output", -1, h, n_embd, logits, n_vocab);
    for (int i = 0; t->softcap > 0 && i < n * n_vocab; i++)
        logits[i] = t->softcap * tanh(logits[i] / t->softcap);
    free(x);
    free(h);
}
