/* npy.h -- matrices of float32 in numpy's .npy format (version 1.0, C order, little-endian).
 *
 * Source: numpy's format description (NEP 1).
 */
#ifndef TTX_NPY_H
#define TTX_NPY_H

#include "err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Writes the header of a [rows][cols] matrix; the values follow with fwrite. */
int ttx_npy_header(FILE *f, uint64_t rows, uint64_t cols, ttx_err *err);

/* A matrix in a file, mapped. */
typedef struct ttx_npy {
    void *map;
    size_t map_bytes;
    const float *values; /* [rows][cols] */
    uint64_t rows, cols;
} ttx_npy;

/* Errors: TTX_E_RUNTIME (cannot be read), TTX_E_USAGE (not a float32 matrix, or shorter than it
 * says). */
int ttx_npy_open(ttx_npy *m, const char *path, ttx_err *err);
void ttx_npy_close(ttx_npy *m); /* one that is all zeros is fine */

#endif
