/* trace_crc.c -- see trace_crc.h: eight bytes at a time from tables (Sarwate's, sliced), or 64 with
 * carry-less multiplication.
 *
 * The latter folds: a message is a polynomial over GF(2), of which the CRC is the remainder; 128
 * bits of it may be replaced by their product with x^n mod P, n bits further on. Four such lanes
 * fold over 64 bytes each; what is left at the end is 16 bytes with the same remainder, for the
 * tables. Source: V. Gopal and others, Fast CRC Computation for Generic Polynomials Using PCLMULQDQ
 * Instruction, Intel 2009.
 */
#include "trace_crc.h"

#include <immintrin.h>
#include <string.h>

enum { POLYNOMIAL = (int)0xedb88320, FOLD = 64 };

void ttx_crc_init(ttx_crc *c) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t v = i;
        for (int bit = 0; bit < 8; bit++) v = v >> 1 ^ (v & 1 ? (uint32_t)POLYNOMIAL : 0);
        c->table[0][i] = v;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            c->table[k][i] = c->table[k - 1][i] >> 8 ^ c->table[0][c->table[k - 1][i] & 0xff];
    c->clmul = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

/* The remainder alone, without the inversions at both ends. */
static uint32_t by_table(const ttx_crc *c, uint32_t crc, const uint8_t *p, size_t n) {
    for (; n >= 8; n -= 8, p += 8) {
        uint64_t v;
        memcpy(&v, p, 8);
        v ^= crc;
        crc = 0;
        for (int k = 0; k < 8; k++) crc ^= c->table[7 - k][v >> 8 * k & 0xff];
    }
    for (; n; n--) crc = crc >> 8 ^ c->table[0][(crc ^ *p++) & 0xff];
    return crc;
}

__attribute__((target("pclmul,sse4.1"))) static inline __m128i fold(__m128i x, __m128i by,
                                                                    __m128i next) {
    __m128i lo = _mm_clmulepi64_si128(x, by, 0x00), hi = _mm_clmulepi64_si128(x, by, 0x11);
    return _mm_xor_si128(_mm_xor_si128(lo, hi), next);
}

/* n is a multiple of FOLD, and not 0. */
__attribute__((target("pclmul,sse4.1"))) static uint32_t by_folding(const ttx_crc *c, uint32_t crc,
                                                                    const uint8_t *p, size_t n) {
    /* x^(4*128+32), x^(4*128-32) mod P, and the same over 128 bits; bits reversed */
    const __m128i by4 = _mm_set_epi64x(0x01c6e41596, 0x0154442bd4);
    const __m128i by1 = _mm_set_epi64x(0x00ccaa009e, 0x01751997d0);
    const __m128i *v = (const __m128i *)p, *end = (const __m128i *)(p + n);
    __m128i x[4], rest;
    uint8_t last[16];
    for (int i = 0; i < 4; i++) x[i] = _mm_loadu_si128(v + i);
    x[0] = _mm_xor_si128(x[0], _mm_cvtsi32_si128((int)crc));
    for (v += 4; v < end; v += 4)
        for (int i = 0; i < 4; i++) x[i] = fold(x[i], by4, _mm_loadu_si128(v + i));
    rest = x[0];
    for (int i = 1; i < 4; i++) rest = fold(rest, by1, x[i]);
    _mm_storeu_si128((__m128i *)last, rest);
    return by_table(c, 0, last, sizeof last);
}

uint32_t ttx_crc32(const ttx_crc *c, uint32_t crc, const void *data, size_t n) {
    const uint8_t *p = data;
    size_t folded = c->clmul ? n / FOLD * FOLD : 0;
    crc = ~crc;
    if (folded) crc = by_folding(c, crc, p, folded);
    return ~by_table(c, crc, p + folded, n - folded);
}
