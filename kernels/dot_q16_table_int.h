/* dot_q16_table_int.h -- the functions of dot_q16_*.c and their place in the table; included last.
 */
#include "dot_q16_int.h"

/* How products are summed up, defined by the includer. acc + the sums of four products, bytes of u
 * (unsigned) by bytes of s; `wide`: u may exceed 127. acc + the sums of two products of words. */
TTX_INLINE __m512i ttx_dot_bytes(__m512i acc, __m512i u, __m512i s, bool wide);
TTX_INLINE __m512i ttx_dot_words(__m512i acc, __m512i a, __m512i b);

#include "dot_q16_blocks_int.h"
#include "dot_q16_super_int.h"

#define BLOCK_MATMUL(t, T, bytes, offset, has_min)                                      \
    Q16_MATMUL(t, block_type, group_act, pack_blocks, dot_rows, bytes, offset, has_min, \
               t##_quants, t##_scales)
TTX_BLOCK_TYPES(BLOCK_MATMUL)

#define SUPER_MATMUL(t, T, bytes, order, head) \
    Q16_MATMUL(t, super_type, super_act, pack_supers, super_rows, bytes, order, t##_quants, head)
TTX_SUPER_TYPES(SUPER_MATMUL)

_Static_assert(sizeof(group_act) * 2 <= TTX_Q16_SCRATCH, "scratch for 256 values");
_Static_assert(sizeof(super_act) <= TTX_Q16_SCRATCH, "scratch for 256 values");

static void fill_q16(ttx_kernels *k) {
#define ENTRY(t, T, ...)                       \
    k->matmul[TTX_EXACT][TTX_##T] = exact_##t; \
    k->act_form[TTX_EXACT][TTX_##T] = TTX_ACT_Q16;
    TTX_BLOCK_TYPES(ENTRY)
    TTX_SUPER_TYPES(ENTRY)
}
