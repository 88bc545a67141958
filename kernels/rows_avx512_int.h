/* rows_avx512_int.h -- how decoding walks through memory with AVX-512: rows four at a time, weights
 * prefetched in memory's order.
 *
 * To be included by *_avx512.c, *_vnni.c and *_vbmi.c only.
 */
#ifndef TTX_ROWS_AVX512_INT_H
#define TTX_ROWS_AVX512_INT_H

#include "mm_avx2_int.h"

enum {
    ROWS = 4,
    BAND = 64,                       /* rows that stay in cache while the columns pass */
    PREFETCH_STEP = 6144,            /* bytes */
    PREFETCH_AT = 2 * PREFETCH_STEP, /* ... beyond the next four rows */
};

/* A step of the rows' work. One step after the other for all rows, not one row after the other: the
 * CPU's schedulers hold about 64 instructions, which the chain of one row would fill. */
/* NOLINTNEXTLINE(bugprone-macro-parentheses): i is the name of the variable */
#define EACH_ROW(i) _Pragma("GCC unroll 4") for (int i = 0; i < ROWS; i++)

/* The place to prefetch from while four rows from w on are worked on: what comes after them, so
 * that memory sees one stream; into L2, as it is more than L1 holds. */
TTX_INLINE const uint8_t *next_rows(const uint8_t *w, size_t row_bytes) {
    return w + ROWS * row_bytes + PREFETCH_AT;
}

/* At p, and one and two steps before it: a CPU whose queue to memory is full drops what it is asked
 * (Zen 4 does; alone, such prefetches run through memory at ten times its speed), and while memory
 * is the limit the queue is mostly full. What was dropped gets another chance one and two steps
 * later; what was not costs instructions, which show in cache alone (docs/performance.md). */
TTX_INLINE void prefetch_bytes(const uint8_t *p, size_t bytes, size_t step) {
    for (size_t i = 0; i < bytes; i += 64) {
        _mm_prefetch((const char *)p + i, _MM_HINT_T1);
        _mm_prefetch((const char *)p + i - step, _MM_HINT_T1);
        _mm_prefetch((const char *)p + i - 2 * step, _MM_HINT_T1);
    }
}

/* Four row pointers from r on; beyond r1 the last row again. */
TTX_INLINE void four_rows(const uint8_t *w[ROWS], const ttx_mm *m, int64_t r, int64_t r1) {
    for (int i = 0; i < ROWS; i++)
        w[i] = m->w + (size_t)(r + i < r1 ? r + i : r1 - 1) * m->row_bytes;
}

#endif
