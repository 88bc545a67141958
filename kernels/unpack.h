/* unpack.h -- one block of any quantised type in one common form.
 *
 * Every type that ttx computes is w[i] = s * q[i] - m with an int8 q and with s, m shared by 16
 * neighbours; and evaluated so in F32 (two roundings, no FMA) it has the bits of the official
 * Python package. So one unpacker a type is all that the scalar level needs: dequantisation and
 * the reference of the integer dot products follow from it.
 */
#ifndef TTX_UNPACK_H
#define TTX_UNPACK_H

#include "dtype.h"

typedef struct ttx_unpacked {
    int8_t q[256];
    float s[16], m[16]; /* of the elements [16 j, 16 j + 16) */
} ttx_unpacked;

/* Fills the first `block` elements of u (32 or 256) from one block at any alignment. */
typedef void (*ttx_unpack_fn)(ttx_unpacked *u, const void *block);

/* NULL if the type is not quantised or not computable. */
ttx_unpack_fn ttx_unpack_get(ttx_dtype type);

/* The 6-bit scales and minima of Q4_K and Q5_K. Drawn, with s[0..7] = ABCDabcd and m = EFGHefgh
 * (capitals: the first four; xx: the two high bits of the lower-case value):
 *   bytes 0-3: aaAAAAAA ..   bytes 4-7: eeEEEEEE ..   bytes 8-11: eeeeaaaa .. */
static inline void ttx_k4_scales(const uint8_t p[12], uint8_t s[8], uint8_t m[8]) {
    for (int j = 0; j < 4; j++) {
        s[j] = p[j] & 63;
        m[j] = p[j + 4] & 63;
        s[j + 4] = (uint8_t)((p[j + 8] & 15) | (p[j] >> 6 << 4));
        m[j + 4] = (uint8_t)((p[j + 8] >> 4) | (p[j + 4] >> 6 << 4));
    }
}

#endif
