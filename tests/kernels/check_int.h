/* check_int.h -- what the parts of the kernel checker share.
 *
 * A part registers nothing: check.c calls it once per ISA level with the table under test (`k`)
 * and the scalar table (`ref`). Buffers come from `fenced`: they end at an unmapped page, so that a
 * read beyond the end is a crash with the kernel's name, and have a canary in front. Nothing is
 * freed before the end of a case (`release`).
 */
#ifndef CHECK_INT_H
#define CHECK_INT_H

#include "kernels.h"

#include <stdbool.h>

typedef struct check {
    const ttx_kernels *k, *ref;
    const char *variant; /* of the level, for names */
    uint64_t rng;
    const char *filter; /* substring of the name of what is run; NULL: everything */
    bool bench;
    int n_threads;      /* of a benchmark */
    char name[96];      /* of what is being run */
    int n_case, n_fail; /* totals */
    int n_shown;        /* failures of this name that were printed */
    struct fence *fences;
} check;

/* Starts something called `level/fmt`; false if the filter leaves it out. */
bool begin(check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Counts a failure and prints it (the first few of a name). */
void fail(check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* True if the kernel is there; otherwise a failure. */
bool present(check *c, bool there);

uint32_t rnd(check *c);
int rnd_below(check *c, int n);
/* Roughly normal, standard deviation 1. */
float rnd_normal(check *c);
void fill_normal(check *c, float *x, int64_t n);

/* Writable bytes that end at a fence. Outputs are filled with a pattern. */
void *fenced(check *c, size_t bytes);
float *fenced_f32(check *c, int64_t n);
/* Checks the canaries and frees every buffer of the case. */
void release(check *c);

/* Bits, where two NaNs are equal. */
void expect_same(check *c, const char *what, const float *got, const float *want, int64_t n);
/* |got[i] - want[i]| <= tol[i]; never true of a NaN, unless both are. */
void expect_near(check *c, const char *what, const float *got, const double *want,
                 const double *tol, int64_t n);

/* Seconds of one call of fn(ctx, thread, n_threads), which all threads make at once: the median of
 * several, after a warm-up. */
double bench_time(check *c, void (*fn)(void *ctx, int thread, int n_threads), void *ctx);
/* One line of the report; flops or bytes may be 0. */
void bench_line(check *c, double seconds, double bytes, double flops);

void bench_peaks(check *c);
void check_weights(check *c);
void check_ops(check *c);
void check_attention(check *c);
/* Raw blocks on stdin, F32 on stdout; for the comparison with other implementations. */
int dequant_filter(const ttx_kernels *k, const char *type);

#endif
