/* half.h -- the small floats of GGUF (F16, BF16, E8M0) to and from F32, in plain C, exact for every
 * bit pattern (IEEE 754 round-half-even; NaN stays NaN and becomes quiet). For baseline code: files
 * built with f16c use its instructions, which give the same bits.
 */
#ifndef TTX_HALF_H
#define TTX_HALF_H

#include <stdint.h>
#include <string.h>

static inline float ttx_bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t ttx_f32_bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float ttx_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 0x1f, man = h & 0x3ffu;
    if (exp == 0) /* zero or subnormal: man * 2^-24 is exact */
        return ttx_bits_f32(sign | ttx_f32_bits((float)man * 0x1p-24f));
    if (exp == 31) return ttx_bits_f32(sign | 0x7f800000u | man << 13 | (man ? 0x400000u : 0));
    return ttx_bits_f32(sign | (exp + 112) << 23 | man << 13);
}

static inline uint16_t ttx_f32_to_f16(float f) {
    uint32_t u = ttx_f32_bits(f), sign = u >> 16 & 0x8000u;
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (u >> 13 & 0x3ffu));
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to 65536 or more */
    if (u < 0x38800000u) /* below 2^-14: adding 0.5 makes the FPU round to units of 2^-24 */
        return (uint16_t)(sign | (ttx_f32_bits(ttx_bits_f32(u) + 0.5f) - 0x3f000000u));
    u += 0xfffu + (u >> 13 & 1u);
    return (uint16_t)(sign | (u - 0x38000000u) >> 13);
}

static inline float ttx_bf16_to_f32(uint16_t b) {
    return ttx_bits_f32((uint32_t)b << 16);
}

/* Half of the E8M0 scale 2^(e - 127); e = 0 and 1 give subnormals. */
static inline float ttx_e8m0_half(uint8_t e) {
    return ttx_bits_f32(e < 2 ? 0x200000u << e : (uint32_t)(e - 1) << 23);
}

#endif
