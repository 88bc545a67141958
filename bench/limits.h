/* limits.h -- what this machine can do at most: bytes read a second, operations a second.
 *
 * Measured, not looked up: data sheets know neither the virtual machine nor its neighbours. Both
 * are the best of several kernels and passes with every core at work, so a busy machine shows
 * limits that are too low, never too high. Not measured: writing, latency, AMX tiles (their place
 * is taken by "unknown" on machines that have them).
 */
#ifndef TTX_LIMITS_H
#define TTX_LIMITS_H

#include "err.h"

#include <stdint.h>

typedef struct ttx_limits {
    int n_threads;
    uint64_t cache_bytes;    /* last-level cache; 0: unknown */
    uint64_t read_bytes;     /* memory that was read to measure */
    double read_gbps;        /* 1e9 bytes a second; 0: unknown */
    const char *read_kernel; /* the one that read fastest */
    double peak_gops;        /* 1e9 operations a second (a multiply-add is two); 0: unknown */
    const char *peak_unit;   /* the unit that has it */
} ttx_limits;

/* Takes about two seconds and 2 GiB of memory, or half of what is available if that is less.
 * Errors: TTX_E_RUNTIME (no memory). */
int ttx_limits_measure(ttx_limits *out, ttx_err *err);

#endif
