/* dot_q16_blocks_int.h -- types with blocks of 32, each with its own scale, against Q16
 * activations.
 *
 * A group is four blocks: block i of a row fills the 128-bit lane i of two vectors, its elements
 * 0..15 of the first and 16..31 of the second, so that one scale serves a lane of both. With
 * weights as unsigned bytes, w = s * (q - offset), and x = 256 * hi + lo:
 *
 *     t = 256 * (q . hi) + (q . lo) - offset * sum(x)     exact, in 16 lanes
 *     part += s * t  [+ m * sum(x)];   acc += dx * part   once per 256
 *
 * IQ4_XS has blocks of 256, but eight scales and the same order of nibbles: two groups.
 * To be included by dot_q16_*.c only.
 */
#ifndef TTX_DOT_Q16_BLOCKS_INT_H
#define TTX_DOT_Q16_BLOCKS_INT_H

#include "dot_q16_int.h"
#include "lanes_avx512_int.h"

/* The activations of a group. `sum`: -offset * sum(x) of each lane of both vectors as int32, or
 * sum(x) as F32 for types with minima. */
typedef struct group_act {
    __m512i hi[2], lo[2], sum;
} group_act;

typedef struct block_type {
    size_t bytes; /* of two groups */
    int offset;
    bool has_min;
    /* Of the n (1..4) blocks of group g (0, 1) of the 256 weights at w. Reads nothing beyond. */
    void (*quants)(__m512i q[2], const uint8_t *w, int g, int n);
    /* ... of four rows, `at` bytes in. */
    void (*scales)(__m512 s[ROWS], __m512 m[ROWS], const uint8_t *const w[ROWS], size_t at, int g,
                   int n);
} block_type;

#define AT(T, w, i) ((const T *)(const void *)(w) + (i))

/* Splits 16 values, x = 256 * hi + lo with both signed. */
TTX_INLINE void split16(__m128i *hi, __m128i *lo, const int16_t *x) {
    __m256i v = ttx_load256(x), top = _mm256_add_epi16(v, _mm256_set1_epi16(128));
    *hi = _mm256_cvtepi16_epi8(_mm256_srai_epi16(top, 8));
    *lo = _mm256_cvtepi16_epi8(v);
}

/* The values [0, 32 n) of x. */
TTX_INLINE void pack_group(const block_type *t, group_act *a, const int16_t *x, int n) {
    const __m512i one = _mm512_set1_epi8(1);
    __m128i hi[2][4], lo[2][4];
    for (int i = 0; i < 4; i++)
        for (int h = 0; h < 2; h++) {
            hi[h][i] = lo[h][i] = _mm_setzero_si128();
            if (i < n) split16(&hi[h][i], &lo[h][i], x + 32 * i + 16 * h);
        }
    __m512i sum_hi = zero512(), sum_lo = zero512();
    for (int h = 0; h < 2; h++) {
        a->hi[h] = load4(&hi[h][0], &hi[h][1], &hi[h][2], &hi[h][3]);
        a->lo[h] = load4(&lo[h][0], &lo[h][1], &lo[h][2], &lo[h][3]);
        sum_hi = ttx_dot_bytes(sum_hi, one, a->hi[h], false);
        sum_lo = ttx_dot_bytes(sum_lo, one, a->lo[h], false);
    }
    __m512i sum = _mm512_add_epi32(_mm512_slli_epi32(sum_hi, 8), sum_lo);
    a->sum = t->has_min ? _mm512_castps_si512(_mm512_cvtepi32_ps(sum))
                        : _mm512_mullo_epi32(sum, _mm512_set1_epi32(-t->offset));
}

TTX_INLINE void dot_group(const block_type *t, __m512 part[ROWS], const uint8_t *const w[ROWS],
                          size_t at, int g, int n, const group_act *a) {
    const bool wide = t->offset > 100; /* bytes above 127 */
    const __m512i hi0 = a->hi[0], hi1 = a->hi[1], lo0 = a->lo[0], lo1 = a->lo[1], sum = a->sum;
    __m512i q[ROWS][2], h[ROWS], l[ROWS];
    EACH_ROW(i) t->quants(q[i], w[i] + at, g, n);
    EACH_ROW(i) h[i] = ttx_dot_bytes(zero512(), q[i][0], hi0, wide);
    EACH_ROW(i) l[i] = ttx_dot_bytes(t->has_min ? zero512() : sum, q[i][0], lo0, wide);
    EACH_ROW(i) h[i] = ttx_dot_bytes(h[i], q[i][1], hi1, wide);
    EACH_ROW(i) l[i] = ttx_dot_bytes(l[i], q[i][1], lo1, wide);
    EACH_ROW(i) l[i] = _mm512_add_epi32(_mm512_slli_epi32(h[i], 8), l[i]);
    __m512 s[ROWS], min[ROWS];
    t->scales(s, min, w, at, g, n);
    EACH_ROW(i) part[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(l[i]), s[i], part[i]);
    if (!t->has_min) return;
    EACH_ROW(i) part[i] = _mm512_fmadd_ps(min[i], _mm512_castsi512_ps(sum), part[i]);
}

TTX_INLINE void pack_blocks(const block_type *t, group_act *a, column x, int64_t k) {
    for (int64_t i = 0; i < k; i += 128)
        pack_group(t, a + i / 128, x.q16 + i, k - i < 128 ? (int)(k - i) / 32 : 4);
}

TTX_INLINE void dot_rows(const block_type *t, __m512 acc[ROWS], const uint8_t *const w[ROWS],
                         int64_t n_k, const group_act *a, const float *d, const uint8_t *ahead) {
    for (int i = 0; i < ROWS; i++) acc[i] = _mm512_setzero_ps();
    size_t at = 0;
    for (int64_t k = 0; k < n_k; k += 256, a += 2, d++, at += t->bytes) {
        __m512 part[ROWS], dx = _mm512_set1_ps(*d);
        for (int i = 0; i < ROWS; i++) part[i] = _mm512_setzero_ps();
        if (n_k - k >= 256) {
            prefetch_bytes(ahead + ROWS * at, ROWS * t->bytes, PREFETCH_STEP);
            dot_group(t, part, w, at, 0, 4, a);
            dot_group(t, part, w, at, 1, 4, a + 1);
        } else {
            int n = (int)(n_k - k) / 32;
            prefetch_bytes(ahead + ROWS * at, ROWS * (t->bytes / 8 * (size_t)n), PREFETCH_STEP);
            dot_group(t, part, w, at, 0, n < 4 ? n : 4, a);
            if (n > 4) dot_group(t, part, w, at, 1, n - 4, a + 1);
        }
        for (int i = 0; i < ROWS; i++) acc[i] = _mm512_fmadd_ps(part[i], dx, acc[i]);
    }
}

/* ---- the types ---- */

/* Four places a block apart, as vectors; those beyond n blocks are zero. */
TTX_INLINE __m512i lanes(const uint8_t *p, size_t stride, int n) {
    if (n == 4) return load4(p, p + stride, p + 2 * stride, p + 3 * stride);
    __m512i v = _mm512_zextsi128_si512(load128(p));
    if (n > 1) v = _mm512_inserti32x4(v, load128(p + stride), 1);
    if (n > 2) v = _mm512_inserti32x4(v, load128(p + 2 * stride), 2);
    return v;
}

TTX_INLINE void nibble_lanes(__m512i q[2], const uint8_t *p, size_t stride, int n) {
    __m512i v = lanes(p, stride, n);
    q[0] = bits(v, 0, 15);
    q[1] = bits(v, 4, 15);
}

/* The words at four places, as a number of 64 bits. */
TTX_INLINE uint64_t words(const uint8_t *p, size_t stride, int n) {
    uint64_t v = ttx_load16(p);
    if (n > 1) v |= (uint64_t)ttx_load16(p + stride) << 16;
    if (n > 2) v |= (uint64_t)ttx_load16(p + 2 * stride) << 32;
    if (n > 3) v |= (uint64_t)ttx_load16(p + 3 * stride) << 48;
    return v;
}

/* Value i of four in lane i. */
TTX_INLINE __m512 spread(__m128 v) {
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    return _mm512_permutexvar_ps(lane, _mm512_castps128_ps512(v));
}

TTX_INLINE __m512 half_lanes(const uint8_t *p, size_t stride, int n) {
    return spread(_mm_cvtph_ps(_mm_cvtsi64_si128((long long)words(p, stride, n))));
}

/* Adds 16 where the n blocks' fifth bits, at p, are set. */
TTX_INLINE void fifth_bits(__m512i q[2], const uint8_t *p, size_t stride, int n) {
    const __m512i bit = _mm512_set1_epi8(16);
    for (int h = 0; h < 2; h++)
        q[h] = _mm512_mask_add_epi8(q[h], words(p + 2 * h, stride, n), q[h], bit);
}

TTX_INLINE void book_lanes(__m512i q[2], __m128i book) {
    __m512i b = _mm512_broadcast_i32x4(book);
    q[0] = _mm512_shuffle_epi8(b, q[0]);
    q[1] = _mm512_shuffle_epi8(b, q[1]);
}

#define SCALES_ARGS \
    __m512 s[ROWS], __m512 m[ROWS], const uint8_t *const w[ROWS], size_t at, int g, int n
#define D_SCALES(t, T)                                          \
    TTX_INLINE void t##_scales(SCALES_ARGS) {                   \
        (void)m;                                                \
        at += (size_t)g * 4 * sizeof(T);                        \
        EACH_ROW(i) s[i] = half_lanes(w[i] + at, sizeof(T), n); \
    }
#define MIN_SCALES(t, T)                                            \
    TTX_INLINE void t##_scales(SCALES_ARGS) {                       \
        at += (size_t)g * 4 * sizeof(T);                            \
        EACH_ROW(i) s[i] = half_lanes(w[i] + at, sizeof(T), n);     \
        EACH_ROW(i) m[i] = half_lanes(w[i] + at + 2, sizeof(T), n); \
    }
D_SCALES(q4_0, ttx_q4_0)
MIN_SCALES(q4_1, ttx_q4_1)
D_SCALES(q5_0, ttx_q5_0)
MIN_SCALES(q5_1, ttx_q5_1)
D_SCALES(q8_0, ttx_q8_0)
D_SCALES(iq4_nl, ttx_iq4_nl)

TTX_INLINE void q4_0_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    nibble_lanes(q, AT(ttx_q4_0, w, 4 * g)->qs, sizeof(ttx_q4_0), n);
}

TTX_INLINE void q4_1_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    nibble_lanes(q, AT(ttx_q4_1, w, 4 * g)->qs, sizeof(ttx_q4_1), n);
}

TTX_INLINE void q5_0_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    nibble_lanes(q, AT(ttx_q5_0, w, 4 * g)->qs, sizeof(ttx_q5_0), n);
    fifth_bits(q, AT(ttx_q5_0, w, 4 * g)->qh, sizeof(ttx_q5_0), n);
}

TTX_INLINE void q5_1_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    nibble_lanes(q, AT(ttx_q5_1, w, 4 * g)->qs, sizeof(ttx_q5_1), n);
    fifth_bits(q, AT(ttx_q5_1, w, 4 * g)->qh, sizeof(ttx_q5_1), n);
}

TTX_INLINE void q8_0_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    const __m512i flip = _mm512_set1_epi8((char)128); /* adds 128 */
    const uint8_t *p = (const uint8_t *)AT(ttx_q8_0, w, 4 * g)->qs;
    q[0] = _mm512_xor_si512(lanes(p, sizeof(ttx_q8_0), n), flip);
    q[1] = _mm512_xor_si512(lanes(p + 16, sizeof(ttx_q8_0), n), flip);
}

TTX_INLINE void iq4_nl_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    nibble_lanes(q, AT(ttx_iq4_nl, w, 4 * g)->qs, sizeof(ttx_iq4_nl), n);
    book_lanes(q, ttx_iq4_book());
}

TTX_INLINE void mxfp4_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    nibble_lanes(q, AT(ttx_mxfp4, w, 4 * g)->qs, sizeof(ttx_mxfp4), n);
    book_lanes(q, ttx_mxfp4_book());
}
/* Block i begins 17 i bytes after the first: its exponent is byte i of the lane i of 64 bytes. Here
 * dword r of each lane is of row r. */
TTX_INLINE __m512i mxfp4_exponents(const uint8_t *const w[ROWS], size_t at) {
    const int i0 = (int)0x80808000, i1 = i0 + 1, i2 = i0 + 2, i3 = i0 + 3; /* 80: a zero byte */
    const __m512i to =
        _mm512_setr_epi32(i0, i0, i0, i0, i1, i1, i1, i1, i2, i2, i2, i2, i3, i3, i3, i3);
    const uint64_t dword0 = 0x000f000f000f000f; /* of each lane */
    __m512i e = zero512();
    EACH_ROW(r) e = _mm512_mask_shuffle_epi8(e, dword0 << 4 * r, ttx_load512(w[r] + at), to);
    return e;
}
TTX_INLINE void mxfp4_scales(SCALES_ARGS) {
    __m512i e;
    (void)m;
    at += (size_t)g * 4 * sizeof(ttx_mxfp4);
    if (n == 4) {
        e = mxfp4_exponents(w, at);
    } else {
        uint8_t v[64] = {0}; /* as above */
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < n; i++) v[16 * i + 4 * r] = AT(ttx_mxfp4, w[r] + at, i)->e;
        e = ttx_load512(v);
    }
    __m512 half = ttx_e8m0_halves16(e);
    s[0] = _mm512_permute_ps(half, 0x00);
    s[1] = _mm512_permute_ps(half, 0x55);
    s[2] = _mm512_permute_ps(half, 0xaa);
    s[3] = _mm512_permute_ps(half, 0xff);
}

TTX_INLINE void iq4_xs_quants(__m512i q[2], const uint8_t *w, int g, int n) {
    const ttx_iq4_xs *p = (const void *)w;
    (void)n;
    __m512i v = ttx_load512(p->qs + 64 * g);
    q[0] = bits(v, 0, 15);
    q[1] = bits(v, 4, 15);
    book_lanes(q, ttx_iq4_book());
}
TTX_INLINE __m512 iq4_xs_row(const uint8_t *w, int g) {
    const ttx_iq4_xs *p = (const void *)w;
    __m128i lo = _mm_set1_epi32(ttx_load16(p->scales_l + 2 * g));
    __m128i hi = _mm_set1_epi32(p->scales_h >> 8 * g << 4);
    lo = _mm_and_si128(_mm_srlv_epi32(lo, _mm_setr_epi32(0, 4, 8, 12)), _mm_set1_epi32(15));
    hi = _mm_and_si128(_mm_srlv_epi32(hi, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi32(48));
    __m128i v = _mm_sub_epi32(_mm_or_si128(lo, hi), _mm_set1_epi32(32));
    return spread(_mm_mul_ps(_mm_cvtepi32_ps(v), _mm_set1_ps(ttx_half(p->d))));
}
TTX_INLINE void iq4_xs_scales(SCALES_ARGS) {
    (void)n, (void)m;
    EACH_ROW(i) s[i] = iq4_xs_row(w[i] + at, g);
}

/* X(name, NAME, bytes of 256 weights, offset, has_min) */
#define TTX_BLOCK_TYPES(X)                \
    X(q4_0, Q4_0, 8 * 18, 8, false)       \
    X(q4_1, Q4_1, 8 * 20, 0, true)        \
    X(q5_0, Q5_0, 8 * 22, 16, false)      \
    X(q5_1, Q5_1, 8 * 24, 0, true)        \
    X(q8_0, Q8_0, 8 * 34, 128, false)     \
    X(iq4_nl, IQ4_NL, 8 * 18, 127, false) \
    X(mxfp4, MXFP4, 8 * 17, 12, false)    \
    X(iq4_xs, IQ4_XS, 136, 127, false)

#endif
