/* check.c -- verifies and times every kernel at every ISA level that this CPU has.
 *
 *   kernels_check [--isa LEVEL] [--filter TEXT] [--seed N] [--bench] [-t N]
 *   kernels_check --dequant TYPE [--isa LEVEL] <blocks >floats
 *
 * Scalar is checked against double precision, every other level against the same tolerance or,
 * where the contract says so, against the bits of scalar. Tolerances are multiples of the rounding
 * error of F32 times the sum of the magnitudes of the operands; there are no others. Random data
 * comes from a printed seed.
 */
#include "check_int.h"
#include "kernels_int.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, CANARY = 64, PATTERN = 0xa5 };

typedef struct fence {
    struct fence *next;
    uint8_t *map, *data;
    size_t map_bytes;
} fence;

static char current[96]; /* for the crash handler alone */

static void on_crash(int sig) {
    ssize_t n = write(2, "crashed in ", 11);
    n += write(2, current, strlen(current));
    n += write(2, "\n", 1);
    signal(sig, SIG_DFL);
    raise(n > 0 ? sig : SIGABRT);
}

bool begin(check *c, const char *fmt, ...) {
    va_list ap;
    int n = snprintf(c->name, sizeof c->name, "%s%s/", ttx_isa_name(c->k->isa), c->variant);
    va_start(ap, fmt);
    vsnprintf(c->name + n, sizeof c->name - (size_t)n, fmt, ap);
    va_end(ap);
    if (c->filter && !strstr(c->name, c->filter)) return false;
    memcpy(current, c->name, sizeof current);
    c->n_case++;
    c->n_shown = 0;
    return true;
}

void fail(check *c, const char *fmt, ...) {
    va_list ap;
    c->n_fail++;
    if (++c->n_shown > 5) return;
    printf("FAIL %s: ", c->name);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

bool present(check *c, bool there) {
    if (!there) fail(c, "missing from the table");
    return there;
}

uint32_t rnd(check *c) { /* splitmix64 */
    uint64_t z = c->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

int rnd_below(check *c, int n) {
    return (int)(rnd(c) % (uint32_t)n);
}

float rnd_normal(check *c) {
    float s = 0;
    for (int i = 0; i < 6; i++) s += (float)(rnd(c) >> 8) * 0x1p-24f - 0.5f;
    return s * 1.41421356f;
}

void fill_normal(check *c, float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = rnd_normal(c);
}

void *fenced(check *c, size_t bytes) {
    size_t body = (bytes + CANARY + PAGE - 1) / PAGE * PAGE;
    fence *f = malloc(sizeof *f);
    uint8_t *p =
        mmap(NULL, body + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!f || p == MAP_FAILED || mprotect(p + body, PAGE, PROT_NONE)) {
        perror("fenced");
        exit(1);
    }
    *f = (fence){c->fences, p, p + body - bytes, body + PAGE};
    c->fences = f;
    memset(f->data - CANARY, PATTERN, bytes + CANARY);
    return f->data;
}

float *fenced_f32(check *c, int64_t n) {
    return fenced(c, (size_t)n * sizeof(float));
}

void release(check *c) {
    for (fence *f = c->fences, *next; f; f = next) {
        next = f->next;
        for (int i = 1; i <= CANARY; i++)
            if (f->data[-i] != PATTERN) {
                fail(c, "wrote %d bytes before a buffer", i);
                break;
            }
        munmap(f->map, f->map_bytes);
        free(f);
    }
    c->fences = NULL;
}

void expect_same(check *c, const char *what, const float *got, const float *want, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (memcmp(got + i, want + i, sizeof *got) != 0 && !(isnan(got[i]) && isnan(want[i])))
            fail(c, "%s [%lld]: got %a, expected the bits of %a", what, (long long)i, got[i],
                 want[i]);
}

void expect_near(check *c, const char *what, const float *got, const double *want,
                 const double *tol, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) <= tol[i]) && !(isnan(got[i]) && isnan(want[i])))
            fail(c, "%s [%lld]: got %.9g, expected %.9g +- %.2g", what, (long long)i, got[i],
                 want[i], tol[i]);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct worker {
    pthread_t id;
    pthread_barrier_t *barrier;
    void (*fn)(void *, int, int);
    void *ctx;
    int thread, n_threads, n_runs;
} worker;

static void *work(void *arg) {
    worker *w = arg;
    for (int i = 0; i < w->n_runs; i++) {
        pthread_barrier_wait(w->barrier);
        w->fn(w->ctx, w->thread, w->n_threads);
        pthread_barrier_wait(w->barrier);
    }
    return NULL;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_time(check *c, void (*fn)(void *, int, int), void *ctx) {
    enum { RUNS = 8, MAX_THREADS = 64 };
    worker w[MAX_THREADS];
    double t[RUNS];
    pthread_barrier_t barrier;
    int n = c->n_threads;
    pthread_barrier_init(&barrier, NULL, (unsigned)n);
    for (int i = 0; i < n; i++) w[i] = (worker){0, &barrier, fn, ctx, i, n, RUNS};
    for (int i = 1; i < n; i++) pthread_create(&w[i].id, NULL, work, &w[i]);
    for (int i = 0; i < RUNS; i++) {
        pthread_barrier_wait(&barrier);
        double t0 = now();
        fn(ctx, 0, n);
        pthread_barrier_wait(&barrier);
        t[i] = now() - t0;
    }
    for (int i = 1; i < n; i++) pthread_join(w[i].id, NULL);
    pthread_barrier_destroy(&barrier);
    qsort(t + 1, RUNS - 1, sizeof *t, by_value); /* the first warms up */
    return t[1 + (RUNS - 1) / 2];
}

void bench_line(check *c, double seconds, double bytes, double flops) {
    printf("%-40s %10.1f us", c->name, 1e6 * seconds);
    if (bytes > 0) printf(" %8.2f GB/s", bytes / seconds * 1e-9);
    if (flops > 0) printf(" %8.2f GFLOPS", flops / seconds * 1e-9);
    printf("\n");
    fflush(stdout);
}

static int usage(void) {
    fprintf(stderr, "usage: kernels_check [--isa LEVEL] [--filter TEXT] [--seed N] [--bench] "
                    "[-t N] [--dequant TYPE]\n");
    return 2;
}

static void run_level(check *c, const ttx_kernels *k) {
    c->k = k;
    check_weights(c);
    check_ops(c);
    check_attention(c);
}

/* What a CPU with VNNI, but not VBMI, would use. */
static void check_without_vbmi(check *c, ttx_kernels k) {
    ttx_matmul_fn with = k.matmul[TTX_EXACT][TTX_MXFP4];
    ttx_mm_vnni_init(&k);
    bool vbmi = k.matmul[TTX_EXACT][TTX_MXFP4] != with;
    printf("vnni with%s vbmi\n", vbmi ? "" : "out");
    if (!vbmi) return;
    c->variant = "-without-vbmi";
    c->k = &k;
    check_weights(c);
    c->variant = "";
}

int main(int argc, char **argv) {
    check c = {.variant = "", .n_threads = 1, .rng = (uint64_t)time(NULL)};
    const char *dequant = NULL;
    int lo = TTX_ISA_SCALAR, hi = (int)ttx_isa_detect();
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--bench") == 0)
            c.bench = true;
        else if (!value)
            return usage();
        else if (i++, strcmp(argv[i - 1], "--filter") == 0)
            c.filter = value;
        else if (strcmp(argv[i - 1], "--seed") == 0)
            c.rng = strtoull(value, NULL, 0);
        else if (strcmp(argv[i - 1], "-t") == 0)
            c.n_threads = atoi(value);
        else if (strcmp(argv[i - 1], "--dequant") == 0)
            dequant = value;
        else if (strcmp(argv[i - 1], "--isa") == 0)
            lo = hi = ttx_isa_by_name(value);
        else
            return usage();
    }
    if (lo < 0 || c.n_threads < 1 || c.n_threads > 64) return usage();

    ttx_kernels ref, k;
    ttx_err err = {0};
    if (ttx_kernels_init(&ref, TTX_ISA_SCALAR, &err)) goto error;
    if (dequant) {
        if (ttx_kernels_init(&k, (ttx_isa)hi, &err)) goto error;
        return dequant_filter(&k, dequant);
    }
    signal(SIGSEGV, on_crash);
    signal(SIGBUS, on_crash);
    printf("seed %llu\n", (unsigned long long)c.rng);
    c.ref = &ref;
    for (int isa = lo; isa <= hi; isa++) {
        if (ttx_kernels_init(&k, (ttx_isa)isa, &err)) goto error;
        run_level(&c, &k);
        if (isa == TTX_ISA_VNNI && !c.bench) check_without_vbmi(&c, k);
    }
    printf("%d kernels and shapes, %d failures\n", c.n_case, c.n_fail);
    return c.n_fail || !c.n_case;
error:
    fprintf(stderr, "kernels_check: %s\n", err.msg);
    return err.code;
}
