/* dot_q16_vnni.c -- class EXACT for quantised weights with AVX-512 VNNI. */
#include "dot_q16_int.h"

TTX_INLINE __m512i ttx_dot_bytes(__m512i acc, __m512i u, __m512i s, bool wide) {
    (void)wide;
    return _mm512_dpbusd_epi32(acc, u, s);
}

TTX_INLINE __m512i ttx_dot_words(__m512i acc, __m512i a, __m512i b) {
    return _mm512_dpwssd_epi32(acc, a, b);
}

#include "dot_q16_table_int.h"

void ttx_dot_vnni_init(ttx_kernels *k) {
    fill_q16(k);
}
