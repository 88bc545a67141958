/* dot_nibbles_vbmi.c -- class EXACT for blocks of 32 nibbles that are looked up, or taken less an
 * offset (MXFP4, Q4_0, IQ4_NL), with VNNI and VBMI: a permutation of bytes over two registers puts
 * the pieces of eight blocks, which lie 17 or 18 bytes apart, where they are needed, and another
 * one looks nibbles up without the rest of their bytes being masked.
 *
 * Eight blocks are a vector: block b has the qword b. Vector 2u + h has the elements 16h + 8u ..
 * 16h + 8u + 7 of each, so that four vectors of products go to one sum of each lane, and 256
 * weights need one conversion and one scale. With weights w = s * (q - offset), q unsigned, and
 * x = 256 * hi + lo, both signed:
 *
 *     t = 256 * (q . hi) + (q . lo) - offset * sum(x)     exact, in 16 lanes
 *     y += (t * s) * dx
 *
 * What a row has beyond a multiple of 256 is taken two blocks at a time, of all four rows in one
 * vector, a row in each 128 bits. A row's part always goes to the first lane, so that its bits do
 * not depend on the place of the row among the four.
 */
#include "dot_q16_int.h"

enum { BLOCKS = 8 }; /* of 32, in 256 */

typedef struct nibble_type {
    size_t bytes, head; /* of a block; before its 16 bytes of nibbles */
    __m128i book;       /* q of each nibble */
    int offset;
    float twice; /* what the scales are too large by */
    /* Where the first byte of a lane's block is among 128 bytes; to the scales of the lanes. */
    __m512 (*scales)(__m512i a, __m512i b, __m512i at);
} nibble_type;

/* Activations: of eight blocks, as above; of two, each vector (and sum) in 128 bits. */
typedef struct full_act {
    __m512i hi[4], lo[4], sum;
} full_act;
typedef struct pair_act {
    __m128i hi[4], lo[4], sum;
} pair_act;
_Static_assert(sizeof(full_act) <= TTX_Q16_SCRATCH, "scratch for 256 values");
_Static_assert(sizeof(pair_act) * BLOCKS / 2 <= TTX_Q16_SCRATCH, "scratch for a rest");

/* ---- activations ---- */

/* Two planes of 32 values. */
TTX_INLINE void split32(__m256i *hi, __m256i *lo, __m512i x) {
    __m512i top = _mm512_add_epi16(x, _mm512_set1_epi16(128));
    *hi = _mm512_cvtepi16_epi8(_mm512_srai_epi16(top, 8));
    *lo = _mm512_cvtepi16_epi8(x);
}

/* Two planes of two blocks (n 1: one): vector v in 128-bit lane v. */
TTX_INLINE void split_pair(__m512i *hi, __m512i *lo, const int16_t *x, int n) {
    const __m512i order = _mm512_setr_epi64(0, 4, 2, 6, 1, 5, 3, 7);
    __m256i ha, hb, la, lb;
    split32(&ha, &la, ttx_load512(x));
    split32(&hb, &lb, n > 1 ? ttx_load512(x + 32) : zero512());
    *hi = _mm512_permutexvar_epi64(order, _mm512_inserti64x4(_mm512_castsi256_si512(ha), hb, 1));
    *lo = _mm512_permutexvar_epi64(order, _mm512_inserti64x4(_mm512_castsi256_si512(la), lb, 1));
}

/* Lane p of out[v]: lane v of in[p]. */
TTX_INLINE void turn_lanes(__m512i out[4], const __m512i in[4]) {
    __m512i a = _mm512_shuffle_i32x4(in[0], in[1], 0x44);
    __m512i b = _mm512_shuffle_i32x4(in[0], in[1], 0xee);
    __m512i c = _mm512_shuffle_i32x4(in[2], in[3], 0x44);
    __m512i d = _mm512_shuffle_i32x4(in[2], in[3], 0xee);
    out[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    out[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    out[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    out[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

/* -offset * the sums of x in the lanes of n vectors. */
TTX_INLINE __m512i minus_sums(const nibble_type *t, const __m512i *hi, const __m512i *lo, int n) {
    const __m512i one = _mm512_set1_epi8(1);
    __m512i h = zero512(), l = zero512();
    for (int v = 0; v < n; v++) {
        h = _mm512_dpbusd_epi32(h, one, hi[v]);
        l = _mm512_dpbusd_epi32(l, one, lo[v]);
    }
    h = _mm512_add_epi32(_mm512_slli_epi32(h, 8), l);
    return _mm512_mullo_epi32(h, _mm512_set1_epi32(-t->offset));
}

TTX_INLINE void pack_full(const nibble_type *t, full_act *a, const int16_t *x) {
    __m512i hi[4], lo[4];
    for (int p = 0; p < 4; p++) split_pair(&hi[p], &lo[p], x + 64 * p, 2);
    turn_lanes(a->hi, hi);
    turn_lanes(a->lo, lo);
    a->sum = minus_sums(t, a->hi, a->lo, 4);
}

TTX_INLINE void pack_pair(const nibble_type *t, pair_act *a, const int16_t *x, int n) {
    __m512i hi, lo;
    split_pair(&hi, &lo, x, n);
    _mm512_storeu_si512(a->hi, hi);
    _mm512_storeu_si512(a->lo, lo);
    __m512i s = minus_sums(t, &hi, &lo, 1);
    s = _mm512_add_epi32(s, _mm512_shuffle_i32x4(s, s, 0x4e));
    a->sum = _mm512_castsi512_si128(_mm512_add_epi32(s, _mm512_shuffle_i32x4(s, s, 0xb1)));
}

TTX_INLINE void pack_nibbles(const nibble_type *t, full_act *a, column x, int64_t k) {
    int64_t i = 0;
    for (; k - i >= 256; i += 256) pack_full(t, a++, x.q16 + i);
    for (pair_act *p = (void *)a; i < k; i += 64) pack_pair(t, p++, x.q16 + i, (int)(k - i) / 32);
}

/* ---- products ---- */

/* Adds the products of n vectors, each of a row, or one with a piece of each row: of the first and
 * the second halves of their blocks. */
TTX_INLINE void dot_nibbles(const nibble_type *t, int n, __m512 acc[], const __m512i first[],
                            const __m512i second[], const __m512 scale[], const full_act *a,
                            __m512 dx) {
/* NOLINTNEXTLINE(bugprone-macro-parentheses): i is the name of the variable */
#define EACH(i) _Pragma("GCC unroll 4") for (int i = 0; i < n; i++)
    const __m512i book = _mm512_broadcast_i32x4(t->book); /* bits 4 and 5 of an index: no matter */
    __m512i q[ROWS], h[ROWS], l[ROWS];
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        const __m512i hi = a->hi[v], lo = a->lo[v], *from = v < 2 ? first : second;
        EACH(i) q[i] = v % 2 ? _mm512_srli_epi16(from[i], 4) : from[i];
        EACH(i) q[i] = _mm512_permutexvar_epi8(q[i], book);
        EACH(i) h[i] = _mm512_dpbusd_epi32(v ? h[i] : zero512(), q[i], hi);
        EACH(i) l[i] = _mm512_dpbusd_epi32(v ? l[i] : a->sum, q[i], lo);
    }
    EACH(i) l[i] = _mm512_add_epi32(_mm512_slli_epi32(h[i], 8), l[i]);
    EACH(i) acc[i] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(l[i]), scale[i]), dx, acc[i]);
#undef EACH
}

#define ONES    0x0101010101010101ll
#define RAMP    0x0706050403020100ll
#define FROM(b) _mm512_set1_epi64(RAMP + (b)*ONES)

/* Where block b begins in two registers: the first 64 bytes of eight blocks, and the 64 that end 8
 * bytes before their end. The first half of a block lies in one of them; and, 8 bytes on, the
 * second half. */
TTX_INLINE int64_t full_at(size_t bytes, int b) {
    return (int64_t)bytes * b - (b < 4 ? 0 : BLOCKS * (int64_t)bytes - 72 - 64);
}

/* ... of a row's two blocks, in 32 bytes of each of four rows. */
TTX_INLINE int64_t pair_at(size_t bytes, int b) {
    return 32 * (b / 2) + (int64_t)bytes * (b % 2);
}

/* at(b) in all bytes of qword b. */
TTX_INLINE __m512i places(size_t bytes, int64_t (*at)(size_t, int)) {
    return _mm512_setr_epi64(at(bytes, 0) * ONES, at(bytes, 1) * ONES, at(bytes, 2) * ONES,
                             at(bytes, 3) * ONES, at(bytes, 4) * ONES, at(bytes, 5) * ONES,
                             at(bytes, 6) * ONES, at(bytes, 7) * ONES);
}

/* The bytes [from, from + 32) of four rows, zero from `end` on, where nothing is read. */
TTX_INLINE void load_pairs(__m512i out[2], const uint8_t *const w[ROWS], size_t from, size_t end) {
    __mmask32 mask = end - from >= 32 ? UINT32_MAX : (1u << (end - from)) - 1;
    __m256i v[ROWS];
    EACH_ROW(i) v[i] = _mm256_maskz_loadu_epi8(mask, w[i] + from);
    out[0] = _mm512_inserti64x4(_mm512_castsi256_si512(v[0]), v[1], 1);
    out[1] = _mm512_inserti64x4(_mm512_castsi256_si512(v[2]), v[3], 1);
}

/* Adds two blocks (n 1: one) of each row. */
TTX_INLINE void dot_pair(const nibble_type *t, __m512 acc[ROWS], const uint8_t *const w[ROWS],
                         int n, const pair_act *a, __m512 dx) {
    const size_t on = 2 * t->bytes - 32; /* the second window's place */
    const __m512i at = places(t->bytes, pair_at);
    __m512i low[2], high[2], first, second;
    full_act wide;
    load_pairs(low, w, 0, (size_t)n * t->bytes);
    load_pairs(high, w, on, (size_t)n * t->bytes);
    first = _mm512_add_epi8(at, FROM((int64_t)t->head));
    second = _mm512_add_epi8(at, FROM((int64_t)t->head + 8 - (int64_t)on));
    first = _mm512_permutex2var_epi8(low[0], first, low[1]);
    second = _mm512_permutex2var_epi8(high[0], second, high[1]);
#pragma GCC unroll 4
    for (int v = 0; v < 4; v++) {
        wide.hi[v] = _mm512_broadcast_i32x4(a->hi[v]);
        wide.lo[v] = _mm512_broadcast_i32x4(a->lo[v]);
    }
    wide.sum = _mm512_broadcast_i32x4(a->sum);
    __m512 y = _mm512_setzero_ps(), s = t->scales(low[0], low[1], at);
    dot_nibbles(t, 1, &y, &first, &second, &s, &wide, dx);
    add_lanes(acc, y);
}

TTX_INLINE void nibble_rows(const nibble_type *t, __m512 acc[ROWS], const uint8_t *const row[ROWS],
                            int64_t k, const full_act *a, const float *d, const uint8_t *ahead) {
    const size_t bytes = BLOCKS * t->bytes;
    const __m512i at = places(t->bytes, full_at);
    const __m512i piece = _mm512_add_epi8(at, FROM((int64_t)t->head));
    const uint8_t *w[ROWS] = {row[0], row[1], row[2], row[3]};
    __m512i first[ROWS], second[ROWS];
    __m512 s[ROWS];
    EACH_ROW(i) acc[i] = _mm512_setzero_ps();
    for (; k >= 256; k -= 256, a++, d++, ahead += ROWS * bytes) {
        prefetch_bytes(ahead, ROWS * bytes, PREFETCH_STEP);
        EACH_ROW(i) {
            __m512i v = ttx_load512(w[i]), v2 = ttx_load512(w[i] + bytes - 72);
            s[i] = t->scales(v, v2, at);
            first[i] = _mm512_permutex2var_epi8(v, piece, v2);
        }
        EACH_ROW(i) {
            __m512i v = ttx_load512(w[i] + 8), v2 = ttx_load512(w[i] + bytes - 64);
            second[i] = _mm512_permutex2var_epi8(v, piece, v2);
        }
        dot_nibbles(t, ROWS, acc, first, second, s, a, _mm512_set1_ps(*d / t->twice));
        EACH_ROW(i) w[i] += bytes;
    }
    prefetch_bytes(ahead, ROWS * t->bytes * (size_t)(k / 32), PREFETCH_STEP);
    const pair_act *p = (const void *)a;
    for (; k > 0; k -= 64, p++) {
        dot_pair(t, acc, w, k > 32 ? 2 : 1, p, _mm512_set1_ps(*d / t->twice));
        EACH_ROW(i) w[i] += 2 * t->bytes;
    }
}

/* ---- the types ---- */

/* 2^(e - 127): twice what the codes, which are doubled, need. 255, which the standard keeps for
 * NaN, gives Inf or NaN. */
TTX_INLINE __m512 mxfp4_scales(__m512i a, __m512i b, __m512i at) {
    __m512i e = _mm512_maskz_permutex2var_epi8(0x1111111111111111u, a, at, b);
    e = _mm512_max_epi32(_mm512_slli_epi32(e, 23), _mm512_set1_epi32(0x400000)); /* e 0: 2^-127 */
    return _mm512_castsi512_ps(e);
}

/* F16. */
TTX_INLINE __m512 half_scales(__m512i a, __m512i b, __m512i at) {
    __m512i words = _mm512_zextsi256_si512(_mm512_cvtepi32_epi16(at)); /* one a lane */
    words = _mm512_add_epi8(words, _mm512_set1_epi16(0x100));          /* two bytes */
    words = _mm512_permutex2var_epi8(a, words, b);
    return _mm512_cvtph_ps(_mm512_castsi512_si256(words));
}

#define Q4_BOOK _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

#define NIBBLE_MATMUL(t, ...) \
    Q16_MATMUL(t, nibble_type, full_act, pack_nibbles, nibble_rows, __VA_ARGS__)
NIBBLE_MATMUL(q4_0, sizeof(ttx_q4_0), 2, Q4_BOOK, 8, 1, half_scales)
NIBBLE_MATMUL(iq4_nl, sizeof(ttx_iq4_nl), 2, ttx_iq4_book(), 127, 1, half_scales)
NIBBLE_MATMUL(mxfp4, sizeof(ttx_mxfp4), 1, ttx_mxfp4_book(), 12, 2, mxfp4_scales)

void ttx_dot_nibbles_vbmi_init(ttx_kernels *k) {
    k->matmul[TTX_EXACT][TTX_Q4_0] = exact_q4_0;
    k->matmul[TTX_EXACT][TTX_IQ4_NL] = exact_iq4_nl;
    k->matmul[TTX_EXACT][TTX_MXFP4] = exact_mxfp4;
}
