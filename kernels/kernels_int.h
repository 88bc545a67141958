/* kernels_int.h -- what the files of kernels/ share: the functions that fill the table.
 *
 * A level's table starts as a copy of the level below; each `..._<level>_init` overwrites the
 * entries that its family improves. A file whose name ends in _avx2.c is compiled with that
 * level's instructions, so no function of it may run, nor any static initialiser, before
 * ttx_isa_detect() (of _vbmi.c: fill_vnni()) has said that the CPU has them; nothing else in this
 * folder may include <immintrin.h> for more than baseline x86-64 (SSE2).
 *
 * ttx_attn_scratch() lives with the attention kernels (attn_scalar.c), ttx_matmul_scratch() in
 * kernels.c.
 */
#ifndef TTX_KERNELS_INT_H
#define TTX_KERNELS_INT_H

#include "kernels.h"

/* Bytes a thread: the unpacked tile of a GEMM, and the sums of its rows. */
enum { TTX_MM_SCRATCH = 120 * 1024 };
/* ... and for the Q16 planes of a column, each 256 values. */
enum { TTX_Q16_SCRATCH = 640 };

/* The quantised types that every level can multiply; for tables with an entry for each. */
/* clang-format off */
#define TTX_QUANTISED(X) \
    X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K) X(IQ4_NL) \
    X(IQ4_XS) X(MXFP4)
/* clang-format on */

/* Weights: matmul of both classes, dequant, the forms of activations. */
void ttx_act_scalar_init(ttx_kernels *k);
void ttx_mm_scalar_init(ttx_kernels *k);
void ttx_mm_avx2_init(ttx_kernels *k);
void ttx_mm_avx512_init(ttx_kernels *k);
void ttx_mm_vnni_init(ttx_kernels *k);
void ttx_dot_nibbles_vbmi_init(ttx_kernels *k);
void ttx_gemm_avx512_init(ttx_kernels *k);
void ttx_gemm_vnni_init(ttx_kernels *k);

/* rms_norm, add, scale, glu, softcap, rope, kv_store. */
void ttx_ops_scalar_init(ttx_kernels *k);
void ttx_ops_avx2_init(ttx_kernels *k);
void ttx_ops_avx512_init(ttx_kernels *k);

/* attention. */
void ttx_attn_scalar_init(ttx_kernels *k);
void ttx_attn_avx2_init(ttx_kernels *k);
void ttx_attn_avx512_init(ttx_kernels *k);

#endif
