/* dtype.h -- the element types of GGUF tensors.
 *
 * The numbers are those of the GGUF format (ggml's type ids). A row of a tensor is a whole number
 * of blocks: `block` elements packed in `bytes` bytes. Every type of the format is in the table, so
 * that any file can be described; `computable` says which ones ttx has kernels for.
 */
#ifndef TTX_DTYPE_H
#define TTX_DTYPE_H

#include <stdbool.h>
#include <stdint.h>

typedef enum ttx_dtype {
    TTX_F32 = 0,
    TTX_F16 = 1,
    TTX_Q4_0 = 2,
    TTX_Q4_1 = 3,
    TTX_Q5_0 = 6,
    TTX_Q5_1 = 7,
    TTX_Q8_0 = 8,
    TTX_Q8_1 = 9,
    TTX_Q2_K = 10,
    TTX_Q3_K = 11,
    TTX_Q4_K = 12,
    TTX_Q5_K = 13,
    TTX_Q6_K = 14,
    TTX_Q8_K = 15,
    TTX_IQ4_NL = 20,
    TTX_IQ4_XS = 23,
    TTX_I32 = 26,
    TTX_BF16 = 30,
    TTX_MXFP4 = 39,
    TTX_DTYPE_COUNT = 42 /* one past the highest id of the format */
} ttx_dtype;

typedef struct ttx_dtype_info {
    const char *name; /* official upper-case name; NULL: a retired or unknown id */
    uint16_t block;   /* elements a block */
    uint16_t bytes;   /* bytes a block */
    bool computable;
} ttx_dtype_info;

/* Never NULL; for an id outside the table, an entry whose name is NULL. */
const ttx_dtype_info *ttx_dtype_get(uint32_t type);

/* Bytes of n elements. n must be a multiple of the type's block. */
uint64_t ttx_dtype_bytes(ttx_dtype type, uint64_t n);

/* The id of an official name, case-insensitive; -1 if there is none. */
int ttx_dtype_by_name(const char *name);

#endif
