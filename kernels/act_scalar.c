/* act_scalar.c -- the reference of the quantisation of activations; see the contract at ttx_act. */
#include "act_int.h"
#include "half.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* The largest |x|, as bits, so that NaN counts as the largest. */
static uint32_t largest(const float *x, int64_t n) {
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = ttx_f32_bits(x[i]) & 0x7fffffffu;
        if (u > top) top = u;
    }
    return top;
}

/* The scale of a block whose largest |x| is `top`, for integers up to `limit`. */
static float scale_of(uint32_t top, float limit) {
    float d = top < 0x7f800000u ? ttx_bits_f32(top) / limit : NAN;
    return d < FLT_MIN ? 0.0f : d;
}

static void block_q8(const float *x, int8_t *q, float *d, int16_t sum[2]) {
    *d = scale_of(largest(x, 32), 127.0f);
    sum[0] = sum[1] = 0;
    for (int i = 0; i < 32; i++) {
        q[i] = *d > 0.0f ? (int8_t)lrintf(x[i] / *d) : 0;
        sum[i / 16] = (int16_t)(sum[i / 16] + q[i]);
    }
}

static void act_q8(const ttx_act *x, int64_t c0, int64_t c1) {
    ttx_walk_q8(x, c0, c1, block_q8);
}

/* One column of a panel of `width`; p points to its first four values. */
static void panel_column(const float *x, int64_t k, uint8_t *p, size_t width) {
    for (int64_t i = 0; i < k; i += 32, x += 32, p += TTX_PANEL_BLOCK * width) {
        int8_t q[32];
        int16_t sum[2];
        float f[3];
        block_q8(x, q, f, sum);
        f[1] = f[0] * (float)(sum[0] + sum[1]);
        f[2] = f[0] * (float)sum[1];
        for (size_t j = 0; j < 32; j++) p[j / 4 * 4 * width + j % 4] = (uint8_t)(q[j] + 128);
        for (size_t j = 0; j < 3; j++) memcpy(p + (8 + j) * 4 * width, &f[j], 4);
    }
}

static void act_panel(const ttx_act *x, int64_t p0, int64_t p1) {
    ttx_walk_panels(x, p0, p1, panel_column);
}

static void block_q16(const float *x, int64_t n, int16_t *q, float *d, int32_t *sum) {
    *d = scale_of(largest(x, n), TTX_Q16_MAX);
    float inverse = *d > 0.0f ? 1.0f / *d : 0.0f;
    for (int64_t j = 0; j < n / 16; j++) {
        sum[j] = 0;
        for (int64_t i = 16 * j; i < 16 * j + 16; i++) {
            q[i] = *d > 0.0f ? (int16_t)lrintf(x[i] * inverse) : 0;
            sum[j] += q[i];
        }
    }
}

static void act_q16(const ttx_act *x, int64_t c0, int64_t c1) {
    ttx_walk_q16(x, c0, c1, block_q16);
}

void ttx_act_scalar_init(ttx_kernels *k) {
    k->act_q8 = act_q8;
    k->act_q16 = act_q16;
    k->act_panel = act_panel;
}
