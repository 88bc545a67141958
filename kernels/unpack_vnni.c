/* unpack_vnni.c -- weights of every quantised type as ttx_wblock.
 *
 * Rows and values change places before anything else is done: 16 bytes each of 16 rows become four
 * vectors of one dword a row (ttx_rows16). Then nibbles, bits and scales are taken apart for 16
 * rows at once, whatever they are; so a type costs what its shifts and masks cost. Layouts:
 * quant_blocks.h.
 *
 * All functions work on half h of the rows.
 */
#include "unpack_vnni.h"
#include "mm_avx2_int.h"
#include "quant_blocks.h"

#include <stddef.h>

/* One of the dwords of ttx_rows16. */
TTX_INLINE __m512i rows_dword(ttx_rows r, size_t at, int i) {
    __m512i v[4];
    ttx_rows16(v, r, at);
    return v[i];
}

/* F16 at the low, or high, end of each dword. */
TTX_INLINE __m512 low_half(__m512i v) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v));
}
TTX_INLINE __m512 high_half(__m512i v) {
    return low_half(_mm512_srli_epi32(v, 16));
}

#define AND(v, byte) _mm512_and_si512(v, _mm512_set1_epi8(byte))
#define OR(a, b)     _mm512_or_si512(a, b)
#define SUB(v, byte) _mm512_sub_epi8(v, _mm512_set1_epi8(byte))
/* Within 16-bit lanes; what comes in from the neighbour byte is to be masked away. */
#define RIGHT(v, n)  _mm512_srli_epi16(v, n)
#define LEFT(v, n)   _mm512_slli_epi16(v, n)
#define BYTE(v, i)   _mm512_and_si512(_mm512_srli_epi32(v, 8 * (i)), _mm512_set1_epi32(255))
#define TIMES(v, d)  _mm512_mul_ps(_mm512_cvtepi32_ps(v), d)

/* v shifted so that bit `from` comes to bit `to`. */
TTX_INLINE __m512i moved(__m512i v, int from, int to) {
    return from >= to ? RIGHT(v, from - to) : LEFT(v, to - from);
}

TTX_INLINE __m512i codes(const int8_t book[16], __m512i i) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128((const void *)book)), i);
}

/* Integers 4i .. 4i + 3 of a block; `low` collects 128 times their sum. */
TTX_INLINE void put(ttx_wblock *out, int h, int i, __m512i q, __m512i *low) {
    _mm512_store_si512(out->q[i][h], q);
    *low = _mm512_dpbusd_epi32(*low, _mm512_set1_epi8((char)128), q);
}

TTX_INLINE void put_low(ttx_wblock *out, int h, int part, __m512i low) {
    _mm512_store_si512(out->low[part][h], _mm512_sub_epi32(_mm512_setzero_si512(), low));
}

/* ---- blocks of 32 ---- */

typedef enum coding { PLAIN, IQ4_CODES, MXFP4_CODES } coding;

static const int8_t iq4_codes[16] = {TTX_IQ4_CODES};
static const int8_t mxfp4_codes[16] = {TTX_MXFP4_CODES};

/* The fifth bits of values 4i .. 4i + 3 from the dwords qh, as 16 or 0 in each byte. */
TTX_INLINE __m512i fifth_bits(__m512i qh, int i) {
    __m512i byte = _mm512_shuffle_epi8(
        qh, _mm512_add_epi32(
                _mm512_set1_epi8((char)(i / 2)),
                _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c))));
    __m512i bits = _mm512_set1_epi32(i % 2 ? (int)0x80402010 : 0x08040201);
    return _mm512_maskz_set1_epi8(_mm512_test_epi8_mask(byte, bits), 16);
}

/* Nibbles as in Q4_0: 16 bytes at w. qh: the fifth bits, if there are any. */
TTX_INLINE void nibbles32(ttx_wblock *out, int h, ttx_rows r, size_t at, coding coding,
                          const __m512i *qh, int offset) {
    __m512i v[4], low[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    ttx_rows16(v, r, at);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        __m512i q = i < 4 ? AND(v[i], 15) : AND(RIGHT(v[i - 4], 4), 15);
        if (coding != PLAIN) q = codes(coding == IQ4_CODES ? iq4_codes : mxfp4_codes, q);
        if (qh) q = OR(q, fifth_bits(*qh, i));
        if (offset) q = SUB(q, (char)offset);
        put(out, h, i, q, &low[i % 2]);
    }
    put_low(out, h, 0, _mm512_add_epi32(low[0], low[1]));
}

/* The block's scale, and its m if it has one: w = s * q - m, where the file has + m. */
TTX_INLINE void scales32(ttx_wblock *out, int h, __m512i d, bool has_min) {
    _mm512_store_ps(out->s[0][h], low_half(d));
    if (has_min) _mm512_store_ps(out->m[0][h], _mm512_xor_ps(high_half(d), _mm512_set1_ps(-0.0f)));
}

#define BLOCKS_OF_32(t, has_min, QH, coding, offset)                             \
    static void unpack_##t(ttx_wblock *out, int h, ttx_rows r, int n) {          \
        for (int b = 0; b < n; b++, r.w += sizeof(ttx_##t)) {                    \
            QH(t)                                                                \
            scales32(&out[b], h, rows_dword(r, 0, 0), has_min);                  \
            nibbles32(&out[b], h, r, offsetof(ttx_##t, qs), coding, qh, offset); \
        }                                                                        \
    }
#define NO_QH(t)  const __m512i *qh = NULL;
#define HAS_QH(t) const __m512i bits = rows_dword(r, offsetof(ttx_##t, qh), 0), *qh = &bits;
BLOCKS_OF_32(q4_0, false, NO_QH, PLAIN, 8)
BLOCKS_OF_32(q4_1, true, NO_QH, PLAIN, 0)
BLOCKS_OF_32(q5_0, false, HAS_QH, PLAIN, 16)
BLOCKS_OF_32(q5_1, true, HAS_QH, PLAIN, 0)
BLOCKS_OF_32(iq4_nl, false, NO_QH, IQ4_CODES, 0)

static void unpack_mxfp4(ttx_wblock *out, int h, ttx_rows r, int n) {
    for (int b = 0; b < n; b++, r.w += sizeof(ttx_mxfp4)) {
        _mm512_store_ps(out[b].s[0][h], ttx_e8m0_halves16(BYTE(rows_dword(r, 0, 0), 0)));
        nibbles32(&out[b], h, r, offsetof(ttx_mxfp4, qs), MXFP4_CODES, NULL, 0);
    }
}

static void unpack_q8_0(ttx_wblock *out, int h, ttx_rows r, int n) {
    for (int b = 0; b < n; b++, r.w += sizeof(ttx_q8_0)) {
        __m512i q[4], low[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        scales32(&out[b], h, rows_dword(r, 0, 0), false);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            ttx_rows16(q, r, offsetof(ttx_q8_0, qs) + 16 * (size_t)half);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) put(&out[b], h, 4 * half + i, q[i], &low[i % 2]);
        }
        put_low(&out[b], h, 0, _mm512_add_epi32(low[0], low[1]));
    }
}

/* ---- K blocks ---- */

/* The scales and minima of Q4_K and Q5_K: see ttx_k4_scales; `head` are the dwords d and dmin, and
 * bytes 0-3, 4-7, 8-11. */
TTX_INLINE void k4_scales(ttx_wblock *out, int h, const __m512i head[4]) {
    const __m512 d = low_half(head[0]), dmin = high_half(head[0]);
    const __m512i s[2] = {AND(head[1], 63), OR(AND(head[3], 15), AND(RIGHT(head[1], 2), 48))};
    const __m512i m[2] = {AND(head[2], 63),
                          OR(AND(RIGHT(head[3], 4), 15), AND(RIGHT(head[2], 2), 48))};
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) {
        _mm512_store_ps(out[b].s[0][h], TIMES(BYTE(s[b / 4], b % 4), d));
        _mm512_store_ps(out[b].m[0][h], TIMES(BYTE(m[b / 4], b % 4), dmin));
    }
}

/* The integers of Q4_K and Q5_K (high: its fifth bits, bit b of value i for block b). */
TTX_INLINE void k4_quants(ttx_wblock *out, int h, ttx_rows r, size_t at, const __m512i *high) {
    for (int b = 0; b < 8; b += 2, out += 2) {
        TTX_FORGET(out);
        __m512i low[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int half = 0; half < 2; half++) {
            __m512i v[4];
            ttx_rows16(v, r, at + 16 * (size_t)(b + half));
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m512i q0 = AND(v[i], 15), q1 = AND(RIGHT(v[i], 4), 15);
                if (high) {
                    __m512i bits = _mm512_srl_epi16(high[4 * half + i], _mm_cvtsi32_si128(b));
                    q0 = OR(q0, AND(LEFT(bits, 4), 16));
                    q1 = OR(q1, AND(LEFT(bits, 3), 16));
                }
                put(&out[0], h, 4 * half + i, q0, &low[0]);
                put(&out[1], h, 4 * half + i, q1, &low[1]);
            }
        }
        put_low(&out[0], h, 0, low[0]);
        put_low(&out[1], h, 0, low[1]);
    }
}

static void unpack_q4_k(ttx_wblock *out, int h, ttx_rows r, int n) {
    (void)n;
    __m512i head[4];
    ttx_rows16(head, r, 0);
    k4_scales(out, h, head);
    k4_quants(out, h, r, offsetof(ttx_q4_k, qs), NULL);
}

static void unpack_q5_k(ttx_wblock *out, int h, ttx_rows r, int n) {
    (void)n;
    __m512i v[8];
    ttx_rows16(v, r, 0);
    k4_scales(out, h, v);
    ttx_rows16(v, r, offsetof(ttx_q5_k, qh));
    ttx_rows16(v + 4, r, offsetof(ttx_q5_k, qh) + 16);
    k4_quants(out, h, r, offsetof(ttx_q5_k, qs), v);
}

/* Scales by 16, as signed 32-bit integers: s[16]. */
TTX_INLINE void scales_by_16(ttx_wblock *out, int h, int j, __m512i s, __m512 d) {
    _mm512_store_ps(out[j / 2].s[j % 2][h], TIMES(s, d));
}

/* Of a byte of each dword, signed. */
TTX_INLINE __m512i signed_byte(__m512i v, int i) {
    return _mm512_srai_epi32(_mm512_slli_epi32(v, 24 - 8 * i), 24);
}

static void unpack_q6_k(ttx_wblock *out, int h, ttx_rows r, int n) {
    (void)n;
    __m512i v[4], hi[4];
    const __m512 d = high_half(rows_dword(r, sizeof(ttx_q6_k) - 16, 3)); /* d is at the end */
    ttx_rows16(v, r, offsetof(ttx_q6_k, scales));
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) scales_by_16(out, h, j, signed_byte(v[j / 4], j % 4), d);
    for (int part = 0; part < 4; part++) { /* 16 values of four blocks */
        const int b = part / 2 * 4, half = part % 2;
        ttx_rows16(hi, r, offsetof(ttx_q6_k, qh) + 16 * part);
#pragma GCC unroll 2
        for (int odd = 0; odd < 2; odd++) {
            ttx_rows16(v, r, offsetof(ttx_q6_k, ql) + 64 * (part / 2) + 32 * odd + 16 * half);
            __m512i low[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m512i q0 = OR(AND(v[i], 15), AND(moved(hi[i], 2 * odd, 4), 48));
                __m512i q1 = OR(AND(RIGHT(v[i], 4), 15), AND(moved(hi[i], 4 + 2 * odd, 4), 48));
                put(&out[b + odd], h, 4 * half + i, SUB(q0, 32), &low[0]);
                put(&out[b + 2 + odd], h, 4 * half + i, SUB(q1, 32), &low[1]);
            }
            put_low(&out[b + odd], h, half, low[0]);
            put_low(&out[b + 2 + odd], h, half, low[1]);
        }
    }
}

/* 2 bits as in Q2_K, and for Q3_K (high: of all 32 values) a third, less 4. */
TTX_INLINE void k2_quants(ttx_wblock *out, int h, ttx_rows r, size_t at, const __m512i *high) {
#pragma GCC unroll 4
    for (int part = 0; part < 4; part++) { /* 16 values of four blocks */
        const int half = part % 2;
        __m512i v[4];
        ttx_rows16(v, r, at + 16 * (size_t)part);
#pragma GCC unroll 4
        for (int b = 0; b < 4; b++) {
            ttx_wblock *to = &out[part / 2 * 4 + b];
            __m512i low = _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                __m512i q = AND(RIGHT(v[i], 2 * b), 3);
                if (high) {
                    __m512i third = AND(moved(high[4 * half + i], part / 2 * 4 + b, 2), 4);
                    q = SUB(OR(q, third), 4);
                }
                put(to, h, 4 * half + i, q, &low);
            }
            put_low(to, h, half, low);
        }
    }
}

static void unpack_q2_k(ttx_wblock *out, int h, ttx_rows r, int n) {
    (void)n;
    __m512i v[4], both = rows_dword(r, sizeof(ttx_q2_k) - 16, 3); /* at the end */
    const __m512 d = low_half(both), dmin = high_half(both);
    ttx_rows16(v, r, 0);
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) {
        __m512 m[2];
#pragma GCC unroll 2
        for (int part = 0; part < 2; part++) {
            __m512i both4 = BYTE(v[b / 2], b % 2 * 2 + part);
            scales_by_16(out, h, 2 * b + part, AND(both4, 15), d);
            m[part] = TIMES(_mm512_srli_epi32(both4, 4), dmin);
        }
        _mm512_store_ps(out[b].m[0][h], m[0]);
        _mm512_store_ps(out[b].m[1][h], _mm512_sub_ps(m[1], m[0]));
    }
    k2_quants(out, h, r, offsetof(ttx_q2_k, qs), NULL);
}

static void unpack_q3_k(ttx_wblock *out, int h, ttx_rows r, int n) {
    (void)n;
    __m512i v[4], s[4], high[8];
    /* two bytes early, so as not to read beyond the last block */
    ttx_rows16(v, r, offsetof(ttx_q3_k, scales) - 2);
    const __m512 d = high_half(v[3]);
    for (int i = 0; i < 3; i++)
        v[i] = OR(_mm512_srli_epi32(v[i], 16), _mm512_slli_epi32(v[i + 1], 16));
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        s[i] = OR(AND(moved(v[i % 2], i / 2 * 4, 0), 15), AND(moved(v[2], 2 * i, 4), 48));
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) scales_by_16(out, h, j, signed_byte(SUB(s[j / 4], 32), j % 4), d);
    ttx_rows16(high, r, 0);
    ttx_rows16(high + 4, r, 16);
    k2_quants(out, h, r, offsetof(ttx_q3_k, qs), high);
}

static void unpack_iq4_xs(ttx_wblock *out, int h, ttx_rows r, int n) {
    (void)n;
    __m512i head[4];
    ttx_rows16(head, r, 0);
    const __m512 d = low_half(head[0]);
    for (int b = 0; b < 8; b++) {
        __m512i lo = _mm512_srl_epi32(head[1], _mm_cvtsi32_si128(4 * b));
        __m512i hi = _mm512_srl_epi32(head[0], _mm_cvtsi32_si128(16 + 2 * b));
        lo = _mm512_and_si512(lo, _mm512_set1_epi32(15));
        hi = _mm512_slli_epi32(_mm512_and_si512(hi, _mm512_set1_epi32(3)), 4);
        __m512i s = _mm512_sub_epi32(OR(lo, hi), _mm512_set1_epi32(32));
        _mm512_store_ps(out[b].s[0][h], TIMES(s, d));
        nibbles32(&out[b], h, r, offsetof(ttx_iq4_xs, qs) + 16 * (size_t)b, IQ4_CODES, NULL, 0);
    }
}

#define BY_32(T, t, has_min, group) \
    [TTX_##T] = {false, has_min, (group) * sizeof(ttx_##t), unpack_##t}
#define BY_16(T, t, has_min) [TTX_##T] = {true, has_min, sizeof(ttx_##t), unpack_##t}
const ttx_wtype ttx_wtypes[TTX_DTYPE_COUNT] = {
    BY_32(Q4_0, q4_0, false, 8),     BY_32(Q4_1, q4_1, true, 8),  BY_32(Q5_0, q5_0, false, 8),
    BY_32(Q5_1, q5_1, true, 8),      BY_32(Q8_0, q8_0, false, 8), BY_32(IQ4_NL, iq4_nl, false, 8),
    BY_32(MXFP4, mxfp4, false, 8),   BY_32(Q4_K, q4_k, true, 1),  BY_32(Q5_K, q5_k, true, 1),
    BY_32(IQ4_XS, iq4_xs, false, 1), BY_16(Q2_K, q2_k, true),     BY_16(Q3_K, q3_k, false),
    BY_16(Q6_K, q6_k, false),
};
