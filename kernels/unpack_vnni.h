/* unpack_vnni.h -- a block of weight rows as the VNNI GEMM wants it: 32 rows by 32 values, with the
 * rows in the lanes of a vector, so that one activation serves 16 rows at once.
 */
#ifndef TTX_UNPACK_VNNI_H
#define TTX_UNPACK_VNNI_H

#include "dtype.h"
#include "lanes_avx512_int.h"

#include <stddef.h>
#include <stdint.h>

enum {
    TTX_WB_ROWS = 32,
    TTX_WB_GROUP = 8, /* blocks that are unpacked together: 256 weights of a row */
};

/* Half h holds rows 16h .. 16h + 15. In a type with one scale a block, the members of the second 16
 * values ([1]) are not used. `low` is what an integer dot product starts from: it takes away what
 * adding 128 to each activation has added. */
typedef struct ttx_wblock {
    int8_t q[8][2][64];    /* [4 values][half][row][value] */
    int32_t low[2][2][16]; /* [16 values][half][row]; by 32: the sum of both is in [0] */
    float s[2][2][16];
    float m[2][2][16]; /* by 16: [1] holds m1 - m0 */
} ttx_wblock;

typedef struct ttx_wtype {
    bool by_16, has_min;
    size_t bytes; /* of 8 blocks of a row */
    /* The first n (1..8) blocks of 16 rows, as half h of out[0 .. n - 1]. */
    void (*unpack)(ttx_wblock *out, int h, ttx_rows r, int n);
} ttx_wtype;

extern const ttx_wtype ttx_wtypes[TTX_DTYPE_COUNT];

#endif
