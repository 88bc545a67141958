/* bench_peak.c -- what the prompt GEMM is measured against: the peak of F32 FMA with AVX2, and
 * OpenBLAS (if it was found when this was built) on the same product, one thread.
 */
#include "check_int.h"

#ifdef HAVE_OPENBLAS
#include <cblas.h>
#endif

enum { ROUNDS = 4000000 };

/* 12 independent chains hide the latency of the FMA. */
__attribute__((target("avx2,fma"))) static void run_fma(void *ctx, int thread, int n_threads) {
    (void)ctx, (void)thread, (void)n_threads;
#define STEP(r) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" #r "\n\t"
    for (int n = 0; n < ROUNDS; n++)
        __asm__ volatile(STEP(0) STEP(1) STEP(2) STEP(3) STEP(4) STEP(5) STEP(6) STEP(7) STEP(8)
                             STEP(9) STEP(10) STEP(11)::
                                 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7",
                                   "xmm8", "xmm9", "xmm10", "xmm11");
}

static void bench_fma(check *c) {
    if (!begin(c, "bench/fma peak")) return;
    bench_line(c, bench_time(c, run_fma, NULL), 0, 2.0 * 8 * 12 * ROUNDS * c->n_threads);
}

#ifdef HAVE_OPENBLAS
typedef struct sgemm {
    const float *w, *x;
    float *y;
    int rows, cols, k;
} sgemm;

static void run_sgemm(void *ctx, int thread, int n_threads) {
    const sgemm *s = ctx;
    (void)n_threads;
    if (thread) return;
    cblas_sgemm(CblasColMajor, CblasTrans, CblasNoTrans, s->rows, s->cols, s->k, 1.0f, s->w, s->k,
                s->x, s->k, 0.0f, s->y, s->rows);
}

static void bench_blas(check *c, int rows, int cols) {
    if (!begin(c, "bench/openblas/F32 x%d cache", cols)) return;
    sgemm s = {.rows = rows, .cols = cols, .k = 4096};
    float *w = fenced_f32(c, (int64_t)rows * s.k), *x = fenced_f32(c, (int64_t)cols * s.k);
    fill_normal(c, w, (int64_t)rows * s.k);
    fill_normal(c, x, (int64_t)cols * s.k);
    s.w = w;
    s.x = x;
    s.y = fenced_f32(c, (int64_t)rows * cols);
    openblas_set_num_threads(1);
    bench_line(c, bench_time(c, run_sgemm, &s), 0, 2.0 * rows * cols * s.k);
    release(c);
}
#endif

void bench_peaks(check *c) {
    if (c->k->isa != TTX_ISA_AVX2) return;
    bench_fma(c);
#ifdef HAVE_OPENBLAS
    for (int rows = 64; rows <= 2048; rows *= 32) /* a thread's range; much more than one */
        for (int cols = 8; cols <= 512; cols *= 8) bench_blas(c, rows, cols);
#endif
}
