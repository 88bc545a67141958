/* naive_model.c -- see naive_model.h. Sources: Vaswani et al. (arXiv 1706.03762), Su et al.
 * (RoFormer, 2104.09864), Peng et al. (YaRN, 2309.00071), Ainslie et al. (grouped queries,
 * 2305.13245), Shazeer (GLU variants, 2002.05202), Zhang and Sennrich (RMSNorm, 1910.07467), Gemma
 * Team (2503.19786).
 */
#include "naive_model.h"

#include "engine_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct naive {
    const tiny_model *t;
    const gguf_file *f;
    int n; /* tokens */
} naive;

/* ---- pieces ---- */

/* The values of an F32 tensor; NULL if there is none. */
static const float *weights(const naive *m, const char *name, int layer) {
    char full[96];
    if (layer < 0)
        snprintf(full, sizeof full, "%s", name);
    else
        snprintf(full, sizeof full, "blk.%d.%s", layer, name);
    const gguf_tensor *x = gguf_find_tensor(m->f, full);
    if (!x) return NULL;
    if (x->type != TTX_F32) rig_die(full, "the naive model reads F32 only");
    return (const float *)(const void *)(gguf_get_shard(m->f, x->shard)->map + x->offset);
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
    for (int t = 0; t < m->n; t++)
        for (int r = 0; r < rows; r++) {
            double sum = b ? b[r] : 0;
            for (int i = 0; i < k; i++) sum += x[t * k + i] * w[r * k + i];
            y[t * rows + r] = sum;
        }
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

/* y [n][n_head][d] = softmax(q k / sqrt(d)) v, causal, over the last `window` positions if > 0. */
static void attend(const naive *m, const double *q, const double *k, const double *v, double *y,
                   int window) {
    int n_head = (int)m->t->n_head, n_kv = (int)m->t->n_head_kv, d = (int)m->t->d_head;
    double *p = rig_alloc((size_t)m->n, sizeof *p);
    for (int t = 0; t < m->n; t++)
        for (int h = 0; h < n_head; h++) {
            int kv = h / (n_head / n_kv), first = window && t + 1 > window ? t + 1 - window : 0;
            double top = -INFINITY, sum = 0;
            for (int j = first; j <= t; j++) {
                p[j] = 0;
                for (int i = 0; i < d; i++)
                    p[j] += q[(t * n_head + h) * d + i] * k[(j * n_kv + kv) * d + i];
                p[j] /= sqrt(d);
                top = fmax(top, p[j]);
            }
            for (int j = first; j <= t; j++) sum += p[j] = exp(p[j] - top);
            for (int i = 0; i < d; i++) {
                double out = 0;
                for (int j = first; j <= t; j++) out += p[j] / sum * v[(j * n_kv + kv) * d + i];
                y[(t * n_head + h) * d + i] = out;
            }
        }
    free(p);
}

static double activation(const tiny_model *t, double x) {
    if (!t->gelu) return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
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
        rms_norm(m, "attn_q_norm.weight", il, q, q, nq, (int)t->d_head);
        rms_norm(m, "attn_k_norm.weight", il, k, k, nkv, (int)t->d_head);
    }
    naive_rope r = rope_of(m, local);
    rotate(m, &r, q, (int)t->n_head);
    rotate(m, &r, k, (int)t->n_head_kv);
    attend(m, q, k, v, y, local ? (int)t->n_swa : 0);
    linear(m, "attn_output", il, y, nq, h, n_embd);
    if (t->post_norms) rms_norm(m, "post_attention_norm.weight", il, h, h, n_embd, n_embd);
    for (int i = 0; i < m->n * n_embd; i++) x[i] += h[i];
    free(q);
    free(k);
    free(v);
    free(y);
}

static void ffn_part(const naive *m, int il, double *x, double *h) {
    const tiny_model *t = m->t;
    int n_embd = (int)t->n_embd, n_ff = (int)t->n_ff;
    if (t->no_ffn) return;
    double *gate = rig_alloc((size_t)(m->n * n_ff), sizeof *gate),
           *up = rig_alloc((size_t)(m->n * n_ff), sizeof *up);
    rms_norm(m, "ffn_norm.weight", il, x, h, n_embd, n_embd);
    linear(m, "ffn_gate", il, h, n_embd, gate, n_ff);
    linear(m, "ffn_up", il, h, n_embd, up, n_ff);
    for (int i = 0; i < m->n * n_ff; i++) gate[i] = activation(t, gate[i]) * up[i];
    linear(m, "ffn_down", il, gate, n_ff, h, n_embd);
    if (t->post_norms) rms_norm(m, "post_ffw_norm.weight", il, h, h, n_embd, n_embd);
    for (int i = 0; i < m->n * n_embd; i++) x[i] += h[i];
    free(gate);
    free(up);
}

void naive_logits(const tiny_model *t, const gguf_file *f, const int32_t *tokens, int n,
                  double *logits) {
    naive m = {t, f, n};
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
