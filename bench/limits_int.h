/* limits_int.h -- the kernels that limits.c times, one file per instruction set.
 *
 * Tables end with a NULL name. A table may be used only on a CPU that has its instructions.
 */
#ifndef TTX_LIMITS_INT_H
#define TTX_LIMITS_INT_H

#include <stddef.h>
#include <stdint.h>

/* Reads n bytes (a multiple of 16 KiB, 64-byte aligned), each once; returns their sum, so that no
 * compiler leaves the reading out. */
typedef struct limit_reader {
    const char *name;
    uint64_t (*read)(const uint8_t *p, size_t n);
} limit_reader;

/* Independent multiply-adds in registers: ops_per_round operations, `rounds` times. */
typedef struct limit_unit {
    const char *name;
    double ops_per_round;
    void (*run)(int64_t rounds);
} limit_unit;

extern const limit_reader limit_readers_sse2[], limit_readers_avx2[], limit_readers_avx512[];
extern const limit_unit limit_units_sse2[], limit_units_avx2[], limit_units_avx512[],
    limit_units_vnni[];

#endif
