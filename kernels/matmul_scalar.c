/* matmul_scalar.c -- the reference of everything that touches weights, for any CPU: dequantisation
 * and matmul of both classes for every type.
 *
 * Written to be read, not to be fast. Quantised weights in class EXACT: integer dot products over
 * 16 values, scaled and added up in F32. Everything else: 256 weights at a time as F32, times F32
 * activations, in eight interleaved partial sums (which also is what a compiler can vectorise
 * without changing the bits).
 */
#include "kernels_int.h"
#include "half.h"
#include "unpack.h"

#include <string.h>

enum { CHUNK = 256 }; /* a multiple of every block */

static void dequant_blocks(float *dst, const uint8_t *src, int64_t n, ttx_dtype type) {
    const ttx_dtype_info *info = ttx_dtype_get(type);
    ttx_unpack_fn unpack = ttx_unpack_get(type);
    ttx_unpacked u;
    for (int64_t i = 0; i < n; i += info->block, src += info->bytes, dst += info->block) {
        unpack(&u, src);
        for (int j = 0; j < info->block; j++) dst[j] = u.s[j / 16] * (float)u.q[j] - u.m[j / 16];
    }
}

static void dequant_f32(float *dst, const void *src, int64_t n) {
    memcpy(dst, src, (size_t)n * sizeof *dst);
}

static void dequant_f16(float *dst, const void *src, int64_t n) {
    const uint8_t *p = src; /* at any alignment */
    for (int64_t i = 0; i < n; i++)
        dst[i] = ttx_f16_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
}

static void dequant_bf16(float *dst, const void *src, int64_t n) {
    const uint8_t *p = src;
    for (int64_t i = 0; i < n; i++)
        dst[i] = ttx_bf16_to_f32((uint16_t)(p[2 * i] | p[2 * i + 1] << 8));
}

static float dot_f32(const float *w, const float *x, int64_t n) {
    float s[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) s[j] += w[i + j] * x[i + j];
    for (int j = 0; i + j < n; j++) s[j] += w[i + j] * x[i + j];
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]));
}

/* Weights as F32 against F32 activations. */
static void matmul_f32(const ttx_mm *m, int64_t r0, int64_t r1,
                       void (*dequant)(float *, const void *, int64_t), ttx_dtype type) {
    const ttx_act *x = m->x;
    float w[CHUNK];
    for (int64_t r = r0; r < r1; r++) {
        for (int64_t c = 0; c < x->n_cols; c++) m->y[c * m->ldy + r] = 0.0f;
        for (int64_t k = 0; k < m->k; k += CHUNK) {
            int64_t n = m->k - k < CHUNK ? m->k - k : CHUNK;
            dequant(w, m->w + (size_t)r * m->row_bytes + ttx_dtype_bytes(type, (uint64_t)k), n);
            for (int64_t c = 0; c < x->n_cols; c++)
                m->y[c * m->ldy + r] += dot_f32(w, x->f32 + c * x->ld + k, n);
        }
    }
}

/* The product of `n` unpacked weights with the values [k, k + n) of column c. */
static float dot_q8(const ttx_unpacked *u, int n, const ttx_act *x, int64_t c, int64_t k) {
    const int8_t *q = x->q8 + c * x->k + k;
    const float *d = x->d + (c * x->k + k) / 32;
    const int16_t *sum = x->sum + (c * x->k + k) / 16;
    float total = 0.0f;
    for (int j = 0; j < n / 16; j++) {
        int dot = 0;
        for (int i = 0; i < 16; i++) dot += u->q[16 * j + i] * q[16 * j + i];
        total += d[j / 2] * (u->s[j] * (float)dot - u->m[j] * (float)sum[j]);
    }
    return total;
}

static void matmul_q8(const ttx_mm *m, int64_t r0, int64_t r1, ttx_dtype type) {
    const ttx_dtype_info *info = ttx_dtype_get(type);
    ttx_unpack_fn unpack = ttx_unpack_get(type);
    ttx_unpacked u;
    for (int64_t r = r0; r < r1; r++) {
        const uint8_t *w = m->w + (size_t)r * m->row_bytes;
        for (int64_t c = 0; c < m->x->n_cols; c++) m->y[c * m->ldy + r] = 0.0f;
        for (int64_t k = 0; k < m->k; k += info->block, w += info->bytes) {
            unpack(&u, w);
            for (int64_t c = 0; c < m->x->n_cols; c++)
                m->y[c * m->ldy + r] += dot_q8(&u, info->block, m->x, c, k);
        }
    }
}

/* One function a type and job, for tables whose entries do not know their type. */
#define FUNCTIONS(T)                                                                 \
    static void dequant_##T(float *dst, const void *src, int64_t n) {                \
        dequant_blocks(dst, src, n, TTX_##T);                                        \
    }                                                                                \
    static void exact_##T(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) {  \
        (void)scratch;                                                               \
        matmul_q8(m, r0, r1, TTX_##T);                                               \
    }                                                                                \
    static void prompt_##T(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        (void)scratch;                                                               \
        matmul_f32(m, r0, r1, dequant_##T, TTX_##T);                                 \
    }
TTX_QUANTISED(FUNCTIONS)

#define FLOAT_FUNCTION(t, T)                                                               \
    static void matmul_##t##_any(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        (void)scratch;                                                                     \
        matmul_f32(m, r0, r1, dequant_##t, TTX_##T);                                       \
    }
FLOAT_FUNCTION(f32, F32)
FLOAT_FUNCTION(f16, F16)
FLOAT_FUNCTION(bf16, BF16)

void ttx_mm_scalar_init(ttx_kernels *k) {
#define ENTRIES(T)                                \
    k->dequant[TTX_##T] = dequant_##T;            \
    k->matmul[TTX_EXACT][TTX_##T] = exact_##T;    \
    k->act_form[TTX_EXACT][TTX_##T] = TTX_ACT_Q8; \
    k->matmul[TTX_PROMPT][TTX_##T] = prompt_##T;  \
    k->act_form[TTX_PROMPT][TTX_##T] = TTX_ACT_F32;
    TTX_QUANTISED(ENTRIES)
#define FLOAT_ENTRIES(t, T)                                  \
    k->dequant[TTX_##T] = dequant_##t;                       \
    for (int class = 0; class < TTX_CLASS_COUNT; class ++) { \
        k->matmul[class][TTX_##T] = matmul_##t##_any;        \
        k->act_form[class][TTX_##T] = TTX_ACT_F32;           \
    }
    FLOAT_ENTRIES(f32, F32)
    FLOAT_ENTRIES(f16, F16)
    FLOAT_ENTRIES(bf16, BF16)
    ttx_act_scalar_init(k);
}
