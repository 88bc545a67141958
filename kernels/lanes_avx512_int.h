/* lanes_avx512_int.h -- rows of weights into the lanes of vectors, for the GEMMs of AVX-512 and
 * VNNI; scales in lanes, for decoding too. To be included by *_avx512.c and *_vnni.c only.
 */
#ifndef TTX_LANES_AVX512_INT_H
#define TTX_LANES_AVX512_INT_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* ttx_e8m0_half of each dword. */
static inline __attribute__((always_inline)) __m512 ttx_e8m0_halves16(__m512i e) {
    __m512i tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x200000), e); /* e < 2: subnormal */
    __m512i plain = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    __mmask16 is_tiny = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_tiny, plain, tiny));
}

/* Rows that start `stride` bytes apart. */
typedef struct ttx_rows {
    const uint8_t *w;
    size_t stride;
} ttx_rows;

/* The compiler knows where p comes from no more. Otherwise gcc computes the addresses of all rows
 * before a loop, has not enough registers for them, and what it does then costs a third. */
#define TTX_FORGET(p) __asm__("" : "+r"(p))

/* Dword i of the 16 bytes that begin `at` bytes into each of 16 rows: out[i]. Lane l of v[j] is row
 * 4l + j; what is left is to transpose 4 x 4 dwords within lanes. */
static inline __attribute__((always_inline)) void ttx_rows16(__m512i out[4], ttx_rows r,
                                                             size_t at) {
    __m512i v[4];
    const uint8_t *p = r.w + at;
    TTX_FORGET(p);
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++, p += r.stride) {
#define TTX_LANE(l) _mm_loadu_si128((const void *)(p + 4 * (l)*r.stride))
        v[j] = _mm512_castsi128_si512(TTX_LANE(0));
        v[j] = _mm512_mask_broadcast_i32x4(v[j], 0x00f0, TTX_LANE(1));
        v[j] = _mm512_mask_broadcast_i32x4(v[j], 0x0f00, TTX_LANE(2));
        v[j] = _mm512_mask_broadcast_i32x4(v[j], 0xf000, TTX_LANE(3));
    }
    __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    out[0] = _mm512_unpacklo_epi64(a, c);
    out[1] = _mm512_unpackhi_epi64(a, c);
    out[2] = _mm512_unpacklo_epi64(b, d);
    out[3] = _mm512_unpackhi_epi64(b, d);
}

/* The sums of 32 rows by `cols` columns to y; `n_rows` of them exist. */
static inline void ttx_store_rows(float *y, int64_t ldy, const float (*sum)[32], int64_t cols,
                                  int64_t n_rows) {
    for (int h = 0; h < 2; h++) {
        int64_t n = n_rows - 16 * h;
        __mmask16 mask = (__mmask16)(n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1);
        for (int64_t c = 0; c < cols; c++)
            _mm512_mask_storeu_ps(y + c * ldy + 16 * h, mask, _mm512_load_ps(sum[c] + 16 * h));
    }
}

#endif
