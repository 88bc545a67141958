/* limits.h -- what this machine can do at most: bytes read a second, operations a second.
 *
 * Measured, not looked up: data sheets know neither the virtual machine nor its neighbours. Both
 * are the best of several kernels and passes with every core at work. What neighbours leave changes
 * within seconds: a meter measures again beside what is judged. Not measured: writing, latency, AMX
 * tiles (their place is taken by "unknown" on machines that have them).
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

/* Measures peak_gops of `l` once more: what this moment allows, more or less than before. Unknown
 * stays so. Errors: as above. */
int ttx_limits_peak_again(ttx_limits *l, ttx_err *err);

/* Reads memory as the fastest reader of the limits did, between the pieces of what is judged: the
 * best that was ever seen judges the machine's neighbours too. Takes 512 MiB, or eight times the
 * last-level cache. */
typedef struct ttx_meter ttx_meter;
/* NULL in *out: the limits know no bandwidth. Errors: as above. */
int ttx_meter_open(ttx_meter **out, const ttx_limits *l, ttx_err *err);
void ttx_meter_close(ttx_meter *m); /* NULL is fine */
/* 1e9 bytes a second, of about 30 ms. */
double ttx_meter_read(ttx_meter *m);

#endif
