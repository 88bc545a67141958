/* ops_scalar.c -- the row-wise operations between the matrix products: reference versions.
 *
 * Each is the formula of its docstring in kernels.h, with sums and transcendental functions in
 * double and one rounding at the end. Nothing here is tuned. add, scale, rope and kv_store give
 * the same bits at every level; the others agree within a few ulp.
 */
#include "kernels_int.h"

#include "quant_blocks.h"
#include "half.h"
#include "scalar_math.h"

#include <math.h>

static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    float s = (float)(1.0 / sqrt(sum / (double)n + (double)eps));
    for (int64_t i = 0; i < n; i++) y[i] = x[i] * s * (w ? w[i] : 1.0f);
}

static void add(float *y, const float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}

static void scale(float *y, float s, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] *= s;
}

/* silu(x) = x * sigmoid(x). */
static float silu(float x) {
    return ttx_sigmoid_mul(x, x);
}

/* The tanh form of GELU, 0.5 x (1 + tanh(u)), u = sqrt(2/pi) (x + 0.044715 x^3), which is
 * x * sigmoid(2u); Hendrycks and Gimpel, arXiv:1606.08415. */
static float gelu(float x) {
    double d = x;
    return ttx_sigmoid_mul(d, 1.5957691216057308 * d * (1.0 + 0.044715 * d * d));
}

static float swiglu_oai(float gate, float up) {
    float g = gate > TTX_OAI_LIMIT ? TTX_OAI_LIMIT : gate;
    float u = up > TTX_OAI_LIMIT ? TTX_OAI_LIMIT : up < -TTX_OAI_LIMIT ? -TTX_OAI_LIMIT : up;
    return ttx_sigmoid_mul(g, (double)TTX_OAI_ALPHA * g) * (u + 1);
}

static void glu(float *y, const float *gate, const float *up, int64_t n, ttx_glu kind) {
    if (kind == TTX_SWIGLU_OAI) {
        for (int64_t i = 0; i < n; i++) y[i] = swiglu_oai(gate[i], up[i]);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        y[i] = (kind == TTX_GEGLU ? gelu(gate[i]) : silu(gate[i])) * up[i];
}

static void softcap(float *y, float cap, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = (float)(cap * ttx_tanh((double)y[i] / cap));
}

/* Su et al., RoFormer, arXiv:2104.09864. */
static void rope(float *x, const float *cs, int64_t n_rot, ttx_rope_layout layout) {
    int64_t half = n_rot / 2, apart = layout == TTX_ROPE_NEOX ? half : 1;
    for (int64_t i = 0; i < half; i++) {
        float *p = x + (layout == TTX_ROPE_NEOX ? i : 2 * i);
        float a = p[0], b = p[apart], c = cs[2 * i], s = cs[2 * i + 1];
        p[0] = a * c - b * s;
        p[apart] = a * s + b * c;
    }
}

/* One block as the format's reference quantiser makes it: halves round away from zero. What is
 * not finite becomes 0 (its scale is then inf, or the block 0). */
static void quantize_q8_0(ttx_q8_0 *b, const float *x) {
    float amax = 0;
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > amax) amax = fabsf(x[i]);
    float d = amax / 127.0f, id = d != 0 ? 1.0f / d : 0;
    b->d = ttx_f32_to_f16(d);
    for (int i = 0; i < 32; i++) {
        float v = x[i] * id, r = fabsf(v) <= 127.5f ? roundf(v) : 0;
        b->qs[i] = (int8_t)(fabsf(r) <= 127.0f ? r : 0);
    }
}

static void kv_store(void *dst, const float *src, int64_t n, ttx_dtype type) {
    if (type == TTX_F32) memcpy(dst, src, (size_t)n * sizeof *src);
    if (type == TTX_F16)
        for (int64_t i = 0; i < n; i++) {
            uint16_t h = ttx_f32_to_f16(src[i]);
            memcpy((uint8_t *)dst + 2 * i, &h, sizeof h);
        }
    if (type == TTX_Q8_0)
        for (int64_t i = 0; i < n / 32; i++) quantize_q8_0((ttx_q8_0 *)dst + i, src + 32 * i);
}

void ttx_ops_scalar_init(ttx_kernels *k) {
    k->rms_norm = rms_norm;
    k->add = add;
    k->scale = scale;
    k->glu = glu;
    k->softcap = softcap;
    k->rope = rope;
    k->kv_store = kv_store;
}
