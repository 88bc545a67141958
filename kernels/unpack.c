/* unpack.c -- see unpack.h; the layouts are drawn in quant_blocks.h. */
#include "unpack.h"
#include "quant_blocks.h"
#include "half.h"

#include <stddef.h>
#include <string.h>

static const int8_t iq4_codes[16] = {TTX_IQ4_CODES};
static const int8_t mxfp4_codes[16] = {TTX_MXFP4_CODES};

static void set_scale(ttx_unpacked *u, int j, float s, float m) {
    u->s[j] = s;
    u->m[j] = m;
}

static void set_scale32(ttx_unpacked *u, int j, float s, float m) {
    set_scale(u, 2 * j, s, m);
    set_scale(u, 2 * j + 1, s, m);
}

/* 32 values from 16 bytes: q - offset, low nibbles first. */
static void nibbles(int8_t q[32], const uint8_t qs[16], int offset) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((qs[i] & 15) - offset);
        q[i + 16] = (int8_t)((qs[i] >> 4) - offset);
    }
}

static void codes(int8_t q[32], const uint8_t qs[16], const int8_t book[16]) {
    for (int i = 0; i < 16; i++) {
        q[i] = book[qs[i] & 15];
        q[i + 16] = book[qs[i] >> 4];
    }
}

static void add_fifth_bits(int8_t q[32], const uint8_t qh[4]) {
    for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] + ((qh[i / 8] >> i % 8 & 1) << 4));
}

static void unpack_q4_0(ttx_unpacked *u, const void *block) {
    const ttx_q4_0 *b = block;
    nibbles(u->q, b->qs, 8);
    set_scale32(u, 0, ttx_f16_to_f32(b->d), 0.0f);
}

static void unpack_q4_1(ttx_unpacked *u, const void *block) {
    const ttx_q4_1 *b = block;
    nibbles(u->q, b->qs, 0);
    set_scale32(u, 0, ttx_f16_to_f32(b->d), -ttx_f16_to_f32(b->m));
}

static void unpack_q5_0(ttx_unpacked *u, const void *block) {
    const ttx_q5_0 *b = block;
    nibbles(u->q, b->qs, 16);
    add_fifth_bits(u->q, b->qh);
    set_scale32(u, 0, ttx_f16_to_f32(b->d), 0.0f);
}

static void unpack_q5_1(ttx_unpacked *u, const void *block) {
    const ttx_q5_1 *b = block;
    nibbles(u->q, b->qs, 0);
    add_fifth_bits(u->q, b->qh);
    set_scale32(u, 0, ttx_f16_to_f32(b->d), -ttx_f16_to_f32(b->m));
}

static void unpack_q8_0(ttx_unpacked *u, const void *block) {
    const ttx_q8_0 *b = block;
    memcpy(u->q, b->qs, 32);
    set_scale32(u, 0, ttx_f16_to_f32(b->d), 0.0f);
}

static void unpack_iq4_nl(ttx_unpacked *u, const void *block) {
    const ttx_iq4_nl *b = block;
    codes(u->q, b->qs, iq4_codes);
    set_scale32(u, 0, ttx_f16_to_f32(b->d), 0.0f);
}

static void unpack_mxfp4(ttx_unpacked *u, const void *block) {
    const ttx_mxfp4 *b = block;
    codes(u->q, b->qs, mxfp4_codes);
    set_scale32(u, 0, ttx_e8m0_half(b->e), 0.0f);
}

static void unpack_q2_k(ttx_unpacked *u, const void *block) {
    const ttx_q2_k *b = block;
    float d = ttx_f16_to_f32(b->d), dmin = ttx_f16_to_f32(b->dmin);
    for (int j = 0; j < 16; j++)
        set_scale(u, j, d * (float)(b->scales[j] & 15), dmin * (float)(b->scales[j] >> 4));
    for (int i = 0; i < 256; i++)
        u->q[i] = (int8_t)(b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3);
}

static void unpack_q3_k(ttx_unpacked *u, const void *block) {
    const ttx_q3_k *b = block;
    float d = ttx_f16_to_f32(b->d);
    for (int j = 0; j < 16; j++) {
        int lo = b->scales[j % 8] >> j / 8 * 4 & 15, hi = b->scales[8 + j % 4] >> j / 4 * 2 & 3;
        set_scale(u, j, d * (float)((lo | hi << 4) - 32), 0.0f);
    }
    for (int i = 0; i < 256; i++) {
        int lo = b->qs[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        u->q[i] = (int8_t)(lo - (b->hmask[i % 32] >> i / 32 & 1 ? 0 : 4));
    }
}

static void k4_scales(ttx_unpacked *u, uint16_t d16, uint16_t dmin16, const uint8_t packed[12]) {
    float d = ttx_f16_to_f32(d16), dmin = ttx_f16_to_f32(dmin16);
    uint8_t s[8], m[8];
    ttx_k4_scales(packed, s, m);
    for (int j = 0; j < 8; j++) set_scale32(u, j, d * (float)s[j], dmin * (float)m[j]);
}

static void unpack_q4_k(ttx_unpacked *u, const void *block) {
    const ttx_q4_k *b = block;
    k4_scales(u, b->d, b->dmin, b->scales);
    for (int i = 0; i < 256; i++)
        u->q[i] = (int8_t)(b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15);
}

static void unpack_q5_k(ttx_unpacked *u, const void *block) {
    const ttx_q5_k *b = block;
    k4_scales(u, b->d, b->dmin, b->scales);
    for (int i = 0; i < 256; i++) {
        int lo = b->qs[i / 64 * 32 + i % 32] >> i / 32 % 2 * 4 & 15;
        u->q[i] = (int8_t)(lo | (b->qh[i % 32] >> i / 32 & 1) << 4);
    }
}

static void unpack_q6_k(ttx_unpacked *u, const void *block) {
    const ttx_q6_k *b = block;
    float d = ttx_f16_to_f32(b->d);
    for (int j = 0; j < 16; j++) set_scale(u, j, d * (float)b->scales[j], 0.0f);
    for (int i = 0; i < 256; i++) {
        int lo = b->ql[i / 128 * 64 + i % 64] >> i / 64 % 2 * 4 & 15;
        int hi = b->qh[i / 128 * 32 + i % 32] >> i / 32 % 4 * 2 & 3;
        u->q[i] = (int8_t)((lo | hi << 4) - 32);
    }
}

static void unpack_iq4_xs(ttx_unpacked *u, const void *block) {
    const ttx_iq4_xs *b = block;
    float d = ttx_f16_to_f32(b->d);
    for (int j = 0; j < 8; j++) {
        int lo = b->scales_l[j / 2] >> j % 2 * 4 & 15, hi = b->scales_h >> 2 * j & 3;
        set_scale32(u, j, d * (float)((lo | hi << 4) - 32), 0.0f);
        codes(u->q + 32 * j, b->qs + 16 * j, iq4_codes);
    }
}

ttx_unpack_fn ttx_unpack_get(ttx_dtype type) {
    switch (type) {
    case TTX_Q4_0: return unpack_q4_0;
    case TTX_Q4_1: return unpack_q4_1;
    case TTX_Q5_0: return unpack_q5_0;
    case TTX_Q5_1: return unpack_q5_1;
    case TTX_Q8_0: return unpack_q8_0;
    case TTX_Q2_K: return unpack_q2_k;
    case TTX_Q3_K: return unpack_q3_k;
    case TTX_Q4_K: return unpack_q4_k;
    case TTX_Q5_K: return unpack_q5_k;
    case TTX_Q6_K: return unpack_q6_k;
    case TTX_IQ4_NL: return unpack_iq4_nl;
    case TTX_IQ4_XS: return unpack_iq4_xs;
    case TTX_MXFP4: return unpack_mxfp4;
    default: return NULL;
    }
}
