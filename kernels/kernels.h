/* kernels.h -- the arithmetic of ttx, as a table of function pointers.
 *
 * A kernel reads raw GGUF blocks: weights are never repacked. A level (scalar < avx2 < avx512 <
 * vnni < amx) is a table; the scalar table is complete and is the reference, each level overrides
 * what it improves. A kernel is a pure function of its arguments: no allocation, no threads, no
 * state. The op layer cuts the work into row or head ranges and runs them over the pool.
 *
 * The rule that makes results reproducible: every output element (row r, column c) is computed by
 * a sequence of operations that depends on row r, column c and the length K alone -- never on the
 * row range, the number of columns, or their neighbours.
 */
#ifndef TTX_KERNELS_H
#define TTX_KERNELS_H

#include "dtype.h"
#include "err.h"
#include "kinds.h"

#include <stddef.h>
#include <stdint.h>

/* The forms in which a matmul kernel wants its activations; a set of flags. */
enum {
    TTX_ACT_F32 = 1, /* x as it is: F32 [n_cols][ld] */
    TTX_ACT_Q8 = 2,  /* int8 in blocks of 32 with an F32 scale each, and block sums */
    TTX_ACT_Q16 = 4, /* 15 bits in blocks of 256 with an F32 scale each, and block sums */
    /* the same values, columns side by side: what a GEMM of integers reads */
    TTX_ACT_PANEL = 8,
};
enum { TTX_Q16_BLOCK = 256, TTX_Q16_MAX = 16383 };

/* Blocks that a column of k values has in Q16; the last may be shorter. */
static inline int64_t ttx_q16_blocks(int64_t k) {
    return (k + TTX_Q16_BLOCK - 1) / TTX_Q16_BLOCK;
}

/* The activations of a matmul: n_cols columns of length k. Column c starts at
 * f32 + c*ld, q8 + c*k, d + c*(k/32), sum + c*(k/16), q16 + c*k, d16 + c*ttx_q16_blocks(k),
 * sum16 + c*(k/16). Views into the session's scratch.
 * Q8 (k a multiple of 32): d = max|x| / 127 over the block of 32, q8 = round-half-even(x / d),
 * never -128; sum[j] = sum of q8 over 16 values (types with minima or 16-blocks need it). A block
 * whose d is below FLT_MIN is zero (d = 0, q8 = 0); one with an Inf or NaN has d = NaN, q8 = 0, so
 * that damage spreads instead of hiding. The same bits at every level.
 * Q16 (k a multiple of 32): the same with d = max|x| / 16383 over blocks of 256 and
 * q16 = round-half-even(x * (1 / d)); the sums are of 16 values again. One sign and 14 bits: as
 * many as leave room for exact sums in 32 bits.
 *
 * PANEL (k a multiple of 32) holds d, q8 and sum as Q8 would, in panels of up to TTX_PANEL_COLS
 * columns, see ttx_panel. A panel of w columns is k/32 blocks one after the other, each:
 *     uint8_t q[8][w][4]   q8 + 128 of values 4i .. 4i + 3
 *     float   d[w]
 *     float   t[w]         d * (sum of the 32 values)
 *     float   t1[w]        d * (sum of the last 16)
 */
typedef struct ttx_act {
    const float *f32;
    int64_t ld; /* floats between columns of f32 */
    int8_t *q8;
    float *d;
    int16_t *sum;
    int16_t *q16;
    float *d16;
    int32_t *sum16;
    uint8_t *panel; /* of all n_cols columns together: no part of them can be picked out */
    int64_t k;
    int64_t n_cols;
} ttx_act;

/* The columns [c, c + n) alone, without panels. */
ttx_act ttx_act_columns(const ttx_act *x, int64_t c, int64_t n);

/* Bytes of a column in a block of a panel, and of the columns of length k. */
enum { TTX_PANEL_COLS = 7, TTX_PANEL_BLOCK = 44 };
static inline size_t ttx_panel_bytes(int64_t k, int64_t n_cols) {
    return (size_t)n_cols * (size_t)(k / 32) * TTX_PANEL_BLOCK;
}

/* Panel p of n_cols columns has the columns [first, first + width): the columns are dealt out as
 * evenly as possible, wider panels first. It starts ttx_panel_bytes(k, first) bytes in. */
typedef struct ttx_panel {
    int64_t first;
    int width;
} ttx_panel;
static inline int64_t ttx_panel_count(int64_t n_cols) {
    return (n_cols + TTX_PANEL_COLS - 1) / TTX_PANEL_COLS;
}
static inline ttx_panel ttx_panel_get(int64_t n_cols, int64_t p) {
    int64_t n = ttx_panel_count(n_cols), narrow = n_cols / n, wider = n_cols % n;
    return (ttx_panel){p * narrow + (p < wider ? p : wider), (int)(narrow + (p < wider))};
}

/* y[c*ldy + r] = sum_k W[r][k] x[c][k], for r in [0, n_rows), c in [0, x->n_cols).
 * W is n_rows rows of row_bytes bytes in the file's layout, at any alignment; k is a multiple of
 * the type's block. */
typedef struct ttx_mm {
    const uint8_t *w;
    size_t row_bytes;
    int64_t k, n_rows;
    const ttx_act *x;
    float *y;
    int64_t ldy;
} ttx_mm;

/* Computes the rows [r0, r1) for all columns. `scratch`: per thread, at least
 * matmul_scratch(k) bytes, 64-byte aligned. */
typedef void (*ttx_matmul_fn)(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch);

/* Fused attention of some queries over one KV head. Query i is q + i*ldq, F32 [d_k]; it sees the
 * positions [start[i], end[i]). K is [n][d_k], V is [n][d_v] from position 0, rows of k_bytes and
 * v_bytes bytes, of type F32, F16 or Q8_0. The rows of a chunk of positions (see below) lie one
 * after the other; chunks are k_chunk and v_chunk bytes apart. out + i*ldo receives F32 [d_v].
 * Scores are q.k * scale, then softcap * tanh(s / softcap) if softcap > 0. If `sink` is not NULL,
 * sink[i] is one more logit that takes part in the softmax without a value.
 * start[i] <= end[i]; an empty range gives zeros.
 *
 * Positions are worked on in chunks [c * TTX_ATTN_CHUNK, (c + 1) * TTX_ATTN_CHUNK), each with its
 * own maximum and sum, that are then merged in ascending order; so the bits of a query depend on
 * itself and its range alone: not on the other queries, nor on who computed which chunk. */
typedef struct ttx_attn {
    const float *q;
    int64_t ldq;
    const int32_t *start, *end;
    int64_t n_q;
    const uint8_t *k, *v;
    size_t k_bytes, v_bytes, k_chunk, v_chunk;
    ttx_dtype k_type, v_type;
    int64_t d_k, d_v;
    float scale, softcap;
    const float *sink;
    float *out;
    int64_t ldo;
} ttx_attn;

/* Positions a chunk of attention; and the floats that hold one query's partial result over one
 * chunk: the unnormalised values [d_v], the maximum m (-inf: nothing seen), the sum l. */
enum { TTX_ATTN_CHUNK = 512 };
static inline int64_t ttx_attn_part_len(int64_t d_v) {
    return d_v + 2;
}

struct ttx_kernels {
    ttx_isa isa; /* the level this table was made for */

    /* Weights. Tables are indexed by dtype; NULL: the type is not computable. */
    ttx_matmul_fn matmul[TTX_CLASS_COUNT][TTX_DTYPE_COUNT];
    uint8_t act_form[TTX_CLASS_COUNT][TTX_DTYPE_COUNT]; /* which TTX_ACT_ form it reads */
    /* dst[0..n) = the n elements of a row; bit-exact with the official Python package. */
    void (*dequant[TTX_DTYPE_COUNT])(float *dst, const void *src, int64_t n);

    /* Fills the Q8 or Q16 planes of the columns [c0, c1) from x->f32. */
    void (*act_q8)(const ttx_act *x, int64_t c0, int64_t c1);
    void (*act_q16)(const ttx_act *x, int64_t c0, int64_t c1);
    /* Fills the panels [p0, p1) from x->f32. */
    void (*act_panel)(const ttx_act *x, int64_t p0, int64_t p1);

    /* y = x / sqrt(mean(x^2) + eps) * w, for one row of n; w may be NULL (no weight). y may be x.
     */
    void (*rms_norm)(float *y, const float *x, const float *w, int64_t n, float eps);
    /* y[i] += x[i];  y[i] *= s */
    void (*add)(float *y, const float *x, int64_t n);
    void (*scale)(float *y, float s, int64_t n);
    /* y[i] = act(gate[i]) * up[i]; y may be gate. GEGLU uses the tanh form of GELU;
     * SWIGLU_OAI: g = min(gate, 7), u = clamp(up, +-7), y = g * sigmoid(1.702 g) * (u + 1). */
    void (*glu)(float *y, const float *gate, const float *up, int64_t n, ttx_glu kind);
    /* y[i] = cap * tanh(y[i] / cap) */
    void (*softcap)(float *y, float cap, int64_t n);
    /* In place on one head of one token; cs = n_rot/2 pairs (cos, sin). */
    void (*rope)(float *x, const float *cs, int64_t n_rot, ttx_rope_layout layout);
    /* dst = one row of n values in `type` (F32, F16 or Q8_0): what the KV cache stores. */
    void (*kv_store)(void *dst, const float *src, int64_t n, ttx_dtype type);
    /* Every query of `a`, all chunks: out is complete. For many queries; threads share them by
     * heads and by query ranges. scratch: ttx_attn_scratch(d_k, d_v) bytes, 64-byte aligned. */
    void (*attention)(const ttx_attn *a, void *scratch);
    /* The same bits in two steps, so that threads can also share the positions (decode, few KV
     * heads). First each chunk c in [min(start) / TTX_ATTN_CHUNK, ceil(max(end) /
     * TTX_ATTN_CHUNK)), in any order: writes n_q * ttx_attn_part_len(d_v) floats to `part`, of
     * which the chunk is the sole owner; a query that sees nothing of the chunk gets an empty
     * part. Then one merge: `part` holds the parts of n_chunk consecutive chunks one after the
     * other, in ascending order; writes out. a->sink is used by the merge, a->out only by it. */
    void (*attention_chunk)(const ttx_attn *a, int64_t chunk, float *part, void *scratch);
    void (*attention_merge)(const ttx_attn *a, const float *part, int64_t n_chunk);
};

/* Fills the table for a level. Errors: TTX_E_USAGE if the CPU cannot run it. */
int ttx_kernels_init(ttx_kernels *k, ttx_isa isa, ttx_err *err);

/* The forms that a table's kernels read, together. */
int ttx_kernels_forms(const ttx_kernels *k);

/* Bytes of scratch that one thread needs for any matmul with this k / any attention. */
size_t ttx_matmul_scratch(int64_t k);
size_t ttx_attn_scratch(int64_t d_k, int64_t d_v);

#endif
