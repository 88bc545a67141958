/* rope.c -- see rope.h.
 *
 * The angle of pair i is pos * base^(-2i/n_rot). It is stepped from pair to pair by multiplication
 * in F32, as llama.cpp does: at positions in the thousands that differs visibly from one powf a
 * pair, and the models' users compare with it.
 */
#include "rope.h"

#include <math.h>

/* The pair at which a wave turns `rotations` times over the original context (YaRN, eq. 17). */
static float yarn_pair(const ttx_rope *r, float rotations) {
    return (float)r->n_rot * logf((float)r->n_ctx_orig / (rotations * 2 * (float)M_PI)) /
           (2 * logf(r->freq_base));
}

void ttx_rope_row(const ttx_rope *r, const float *freqs, int32_t pos, float *cs) {
    float step = powf(r->freq_base, -2.0f / (float)r->n_rot), theta = (float)pos;
    float low = fmaxf(0, floorf(yarn_pair(r, r->beta_fast)));
    float high = fminf((float)r->n_rot - 1, ceilf(yarn_pair(r, r->beta_slow)));
    float magnitude = r->attn_factor;
    if (r->ext_factor != 0) magnitude *= 1 + 0.1f * logf(1 / r->freq_scale);
    for (uint32_t i = 0; i < r->n_rot / 2; i++, theta *= step) {
        float extrapolated = freqs ? theta / freqs[i] : theta;
        float angle = r->freq_scale * extrapolated;
        if (r->ext_factor != 0) { /* fast waves are kept, slow ones interpolated, a ramp between */
            float ramp = ((float)i - low) / fmaxf(0.001f, high - low);
            float mix = (1 - fminf(1, fmaxf(0, ramp))) * r->ext_factor;
            angle = angle * (1 - mix) + extrapolated * mix;
        }
        cs[2 * i] = cosf(angle) * magnitude;
        cs[2 * i + 1] = sinf(angle) * magnitude;
    }
}
