/* dot_q16_table_int.h -- the functions of dot_q16_*.c and their place in the table; included last.
 */
#include "dot_q16_blocks_int.h"
#include "dot_q16_super_int.h"

#define BLOCK_MATMUL(t, T, bytes, offset, has_min)                                  \
    static void exact_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        const block_type type = {bytes, offset, has_min, t##_quants, t##_scales};   \
        block_matmul(&type, m, r0, r1, scratch);                                    \
    }
TTX_BLOCK_TYPES(BLOCK_MATMUL)

#define SUPER_MATMUL(t, T, bytes, order, head)                                      \
    static void exact_##t(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) { \
        const super_type type = {bytes, order, t##_quants, head};                   \
        super_matmul(&type, m, r0, r1, scratch);                                    \
    }
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
