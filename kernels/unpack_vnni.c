/* unpack_vnni.c -- weights of every quantised type as ttx_wblock: the integers of a row's block as
 * types_avx2.h reads them, less their offset; then rows and values change places.
 *
 * What changes places is always the same: 16 rows of 8 dwords (32 integers, or the F32 scales of 8
 * blocks) become 8 vectors of 16 rows.
 */
#include "types_avx2.h"
#include "unpack_vnni.h"

/* 8 dwords each of 16 rows, in: row[i] has rows i + 4 * (i / 4) in its low half and the row four
 * further in its high half. Out: dword i of rows 0..15. */
TTX_INLINE void transpose(__m512i out[8], const __m512i row[8]) {
    __m512i quad[2][4]; /* [rows 0-7, 8-15][dword mod 4]; lanes: dwords 0-3, 4-7, of 4 rows each */
#pragma GCC unroll 2
    for (int g = 0; g < 2; g++) {
        const __m512i *v = row + 4 * g;
        __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
        __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
        quad[g][0] = _mm512_unpacklo_epi64(a, c);
        quad[g][1] = _mm512_unpackhi_epi64(a, c);
        quad[g][2] = _mm512_unpacklo_epi64(b, d);
        quad[g][3] = _mm512_unpackhi_epi64(b, d);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        out[i] = _mm512_shuffle_i64x2(quad[0][i], quad[1][i], 0x88);
        out[i + 4] = _mm512_shuffle_i64x2(quad[0][i], quad[1][i], 0xdd);
    }
}

/* The rows that share a vector in transpose(). */
#define LOW_ROW(i) ((i) + (i) / 4 * 4)

TTX_INLINE __m512i join(__m256i low, __m256i high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* 8 floats of 16 rows to one vector of rows each, out[b]. */
TTX_INLINE void transpose_floats(__m512 out[8], float v[16][8]) {
    __m512i row[8], t[8];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        row[i] = join(ttx_load256(v[LOW_ROW(i)]), ttx_load256(v[LOW_ROW(i) + 4]));
    transpose(t, row);
#pragma GCC unroll 8
    for (int b = 0; b < 8; b++) out[b] = _mm512_castsi512_ps(t[b]);
}

/* 16-bit integers times s, to F32. */
TTX_INLINE __m256 times(__m128i v, __m256 s) {
    return _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(v)), s);
}

/* The scales and minima of one row. */
TTX_INLINE void row_scales(const ttx_type_avx2 *t, float s[2][16][8], float m[2][16][8], int i,
                           const uint8_t *w, int n) {
    ttx_group g;
    t->scales(&g, w, n);
    if (!t->by_16) {
        _mm256_storeu_ps(s[0][i], g.s);
        if (t->has_min) _mm256_storeu_ps(m[0][i], g.m);
        return;
    }
    _mm256_storeu_ps(s[0][i], times(_mm256_castsi256_si128(g.s16), g.s));
    _mm256_storeu_ps(s[1][i], times(_mm256_extracti128_si256(g.s16, 1), g.s));
    if (!t->has_min) return;
    __m256i even_odd =
        _mm256_shuffle_epi8(g.c16, _mm256_broadcastsi128_si256(_mm_setr_epi8(
                                       0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15)));
    even_odd = _mm256_permute4x64_epi64(even_odd, 0xd8);
    __m256 m0 = times(_mm256_castsi256_si128(even_odd), g.m);
    _mm256_storeu_ps(m[0][i], m0);
    _mm256_storeu_ps(m[1][i], _mm256_sub_ps(times(_mm256_extracti128_si256(even_odd, 1), g.m), m0));
}

TTX_INLINE void unpack_scales(const ttx_type_avx2 *t, ttx_wblock *out, int h, const uint8_t *w,
                              const size_t row[16], int n) {
    float s[2][16][8], m[2][16][8];
    __m512 v[8];
    for (int i = 0; i < 16; i++) row_scales(t, s, m, i, w + row[i], n);
    for (int part = 0; part < 1 + t->by_16; part++) {
        transpose_floats(v, s[part]);
        for (int b = 0; b < n; b++) _mm512_store_ps(out[b].s[part][h], v[b]);
        if (!t->has_min) continue;
        transpose_floats(v, m[part]);
        for (int b = 0; b < n; b++) _mm512_store_ps(out[b].m[part][h], v[b]);
    }
}

/* Integers of block b of 16 rows. */
TTX_INLINE void unpack_quants(const ttx_type_avx2 *t, ttx_wblock *out, int h, const uint8_t *w,
                              const size_t row[16], int b) {
    __m512i v[8], q[8], sum[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        v[i] = join(t->quants(w + row[LOW_ROW(i)], b), t->quants(w + row[LOW_ROW(i) + 4], b));
        if (t->offset) v[i] = _mm512_sub_epi8(v[i], _mm512_set1_epi8((char)t->offset));
    }
    transpose(q, v);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        _mm512_store_si512(out->q[i][h], q[i]);
        int part = t->by_16 ? i / 4 : i % 2;
        sum[part] = _mm512_dpbusd_epi32(sum[part], _mm512_set1_epi8((char)128), q[i]);
    }
    const __m512i zero = _mm512_setzero_si512();
    if (!t->by_16) sum[0] = _mm512_add_epi32(sum[0], sum[1]);
    _mm512_store_si512(out->low[0][h], _mm512_sub_epi32(zero, sum[0]));
    if (t->by_16) _mm512_store_si512(out->low[1][h], _mm512_sub_epi32(zero, sum[1]));
}

TTX_INLINE void unpack(const ttx_type_avx2 *t, ttx_wblock *out, const uint8_t *w, const size_t *row,
                       int n) {
    for (int h = 0; h < 2; h++) {
        unpack_scales(t, out, h, w, row + 16 * h, n);
#pragma GCC unroll 8
        for (int b = 0; b < 8; b++) { /* a constant bound: b is a constant once unrolled */
            if (b >= n) break;
            unpack_quants(t, &out[b], h, w, row + 16 * h, b);
        }
    }
}

#define UNPACK(t, T, ...)                                                                    \
    static void unpack_##t(ttx_wblock *out, const uint8_t *w, const size_t row[TTX_WB_ROWS], \
                           int n) {                                                          \
        const ttx_type_avx2 type = TTX_TYPE_AVX2(t, __VA_ARGS__);                            \
        unpack(&type, out, w, row, n);                                                       \
    }
TTX_TYPES_AVX2(UNPACK)

#define WTYPE(t, T, bytes, is_signed, offset, has_min, by_16) \
    [TTX_##T] = {by_16, has_min, bytes, unpack_##t},
const ttx_wtype ttx_wtypes[TTX_DTYPE_COUNT] = {TTX_TYPES_AVX2(WTYPE)};
