/* limits.h -- what this machine can do at most: bytes read a second, operations a second.
 *
 * Measured, not looked up: data sheets know neither the virtual machine nor its neighbours. Both
 * are the best of several kernels and passes with every core at work, so a busy machine shows
 * limits that are too low, never too high. What neighbours leave changes within seconds: measure
 * again beside what is judged. Not measured: writing, latency, AMX tiles (their place is taken by
 * "unknown" on machines that have them).
 */
#ifndef TTX_LIMITS_H
#define TTX_LIMITS_H

#include "err.h"

#include <stdint.h>

/* What one arithmetic unit can do. */
typedef struct ttx_unit_peak {
    const char *name; /* "avx2 fma" */
    const char *isa;  /* the level whose kernels may use it */
    double gops;      /* 1e9 operations a second (a multiply-add is two) */
} ttx_unit_peak;

enum { TTX_LIMIT_UNITS = 8 };

typedef struct ttx_limits {
    int n_threads;
    uint64_t cache_bytes;    /* last-level cache; 0: unknown */
    uint64_t read_bytes;     /* memory that was read to measure */
    double read_gbps;        /* 1e9 bytes a second; 0: unknown */
    const char *read_kernel; /* the one that read fastest */
    double peak_gops;        /* of the best unit; 0: unknown */
    const char *peak_unit;   /* the unit that has it */
    ttx_unit_peak units[TTX_LIMIT_UNITS];
    int n_units;
} ttx_limits;

/* Takes about two seconds and 2 GiB of memory, or half of what is available if that is less.
 * Errors: TTX_E_RUNTIME (no memory). */
int ttx_limits_measure(ttx_limits *out, ttx_err *err);

/* Measures read_gbps and peak_gops of `l` once more, in a third of a second and in less memory:
 * what this moment allows, more or less than before. What is unknown stays so. Errors: as above. */
int ttx_limits_again(ttx_limits *l, ttx_err *err);

/* The better of both: for a test that ran between them. */
ttx_limits ttx_limits_best(const ttx_limits *a, const ttx_limits *b);

#endif
