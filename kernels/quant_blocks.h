/* quant_blocks.h -- the quantised blocks of GGUF, drawn as they lie in the file (little-endian,
 * packed, no alignment). Source: the GGUF/ggml format. `d`, `dmin`, `m` are F16 bit patterns.
 *
 * A block of 32 stores element i (i < 16) in the low nibble of qs[i] and element i + 16 in the
 * high nibble. A K block has 256 elements in sub-blocks of 16 or 32 with scales of few bits:
 *
 *   Q2_K  16 x 16  w = d * (s & 15) * q - dmin * (s >> 4)    q: 2 bits
 *   Q3_K  16 x 16  w = d * (s - 32) * (q - 4)                q: 2 bits + 1 in hmask; s: 6 bits
 *   Q4_K   8 x 32  w = d * s * q - dmin * m                  q: 4 bits; s, m: 6 bits
 *   Q5_K   8 x 32  the same                                  q: 4 bits + 1 in qh
 *   Q6_K  16 x 16  w = d * s * (q - 32)                      q: 4 bits + 2 in qh; s: int8
 *   IQ4_XS 8 x 32  w = d * (s - 32) * codebook[q]            q: 4 bits; s: 6 bits
 *
 * Q2_K and Q3_K: each 128 elements take 32 bytes of qs, 4 groups of 32 at bits 0-1, 2-3, 4-5, 6-7.
 * Q4_K and Q5_K: each 64 elements take 32 bytes of qs, low nibbles first, then the high ones.
 * Q5_K qh and Q3_K hmask: bit g of byte i belongs to element 32 * g + i.
 * Q6_K: each 128 elements take 64 bytes of ql (low nibbles: elements 0..63, high: 64..127) and 32
 * bytes of qh (as Q2_K's qs).
 */
#ifndef TTX_QUANT_BLOCKS_H
#define TTX_QUANT_BLOCKS_H

#include <stdint.h>

#define TTX_PACKED __attribute__((packed))

typedef struct TTX_PACKED ttx_q4_0 {
    uint16_t d;
    uint8_t qs[16]; /* w = d * (q - 8) */
} ttx_q4_0;

typedef struct TTX_PACKED ttx_q4_1 {
    uint16_t d, m;
    uint8_t qs[16]; /* w = d * q + m */
} ttx_q4_1;

typedef struct TTX_PACKED ttx_q5_0 {
    uint16_t d;
    uint8_t qh[4];  /* bit i: the fifth bit of element i */
    uint8_t qs[16]; /* w = d * (q - 16) */
} ttx_q5_0;

typedef struct TTX_PACKED ttx_q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[16]; /* w = d * q + m */
} ttx_q5_1;

typedef struct TTX_PACKED ttx_q8_0 {
    uint16_t d;
    int8_t qs[32]; /* w = d * q */
} ttx_q8_0;

typedef struct TTX_PACKED ttx_iq4_nl {
    uint16_t d;
    uint8_t qs[16]; /* w = d * codebook[q] */
} ttx_iq4_nl;

typedef struct TTX_PACKED ttx_mxfp4 {
    uint8_t e;      /* E8M0: 2^(e - 127) */
    uint8_t qs[16]; /* E2M1; w = 2^(e - 128) * (twice its value) */
} ttx_mxfp4;

typedef struct TTX_PACKED ttx_q2_k {
    uint8_t scales[16];
    uint8_t qs[64];
    uint16_t d, dmin;
} ttx_q2_k;

typedef struct TTX_PACKED ttx_q3_k {
    uint8_t hmask[32];
    uint8_t qs[64];
    uint8_t scales[12]; /* low 4 bits of s[j], s[j + 8]: byte j; high 2 of s[j + 4i]: byte 8 + j */
    uint16_t d;
} ttx_q3_k;

typedef struct TTX_PACKED ttx_q4_k {
    uint16_t d, dmin;
    uint8_t scales[12]; /* see ttx_k4_scales */
    uint8_t qs[128];
} ttx_q4_k;

typedef struct TTX_PACKED ttx_q5_k {
    uint16_t d, dmin;
    uint8_t scales[12];
    uint8_t qh[32];
    uint8_t qs[128];
} ttx_q5_k;

typedef struct TTX_PACKED ttx_q6_k {
    uint8_t ql[128];
    uint8_t qh[64];
    int8_t scales[16];
    uint16_t d;
} ttx_q6_k;

typedef struct TTX_PACKED ttx_iq4_xs {
    uint16_t d;
    uint16_t scales_h;   /* bits 2j, 2j + 1: the high bits of s[j] */
    uint8_t scales_l[4]; /* nibble j: the low bits of s[j] */
    uint8_t qs[128];     /* 8 blocks of 32, each as in IQ4_NL */
} ttx_iq4_xs;

_Static_assert(sizeof(ttx_q4_0) == 18 && sizeof(ttx_q4_1) == 20, "32-blocks of 4 bits");
_Static_assert(sizeof(ttx_q5_0) == 22 && sizeof(ttx_q5_1) == 24, "32-blocks of 5 bits");
_Static_assert(sizeof(ttx_q8_0) == 34, "32-blocks of 8 bits");
_Static_assert(sizeof(ttx_iq4_nl) == 18 && sizeof(ttx_mxfp4) == 17, "32-blocks with codebooks");
_Static_assert(sizeof(ttx_q2_k) == 84 && sizeof(ttx_q3_k) == 110, "K blocks of 2 and 3 bits");
_Static_assert(sizeof(ttx_q4_k) == 144 && sizeof(ttx_q5_k) == 176, "K blocks of 4 and 5 bits");
_Static_assert(sizeof(ttx_q6_k) == 210 && sizeof(ttx_iq4_xs) == 136, "K blocks of 6 bits, IQ4");

/* The codebooks of IQ4_NL/IQ4_XS and of MXFP4 (twice the E2M1 values). */
#define TTX_IQ4_CODES   -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
#define TTX_MXFP4_CODES 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12

#endif
