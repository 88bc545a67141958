/* dot_q16_avx512.c -- class EXACT for quantised weights with AVX-512 without VNNI. */
#include "dot_q16_int.h"

/* vpmaddubsw saturates pairs of products at 16 bits, which 127 * 127 * 2 does not reach. */
TTX_INLINE __m512i ttx_dot_bytes(__m512i acc, __m512i u, __m512i s, bool wide) {
    if (!wide) {
        __m512i pairs = _mm512_maddubs_epi16(u, s);
        return _mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }
    __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8), odd = _mm512_srai_epi16(s, 8);
    even = _mm512_madd_epi16(_mm512_and_si512(u, _mm512_set1_epi16(255)), even);
    odd = _mm512_madd_epi16(_mm512_srli_epi16(u, 8), odd);
    return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
}

TTX_INLINE __m512i ttx_dot_words(__m512i acc, __m512i a, __m512i b) {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
}

#include "dot_q16_table_int.h"

void ttx_dot_avx512_init(ttx_kernels *k) {
    fill_q16(k);
}
