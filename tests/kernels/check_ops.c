/* check_ops.c -- rms_norm, add, scale, glu, softcap, rope and kv_store.
 *
 * The oracles are the formulas in long double through libm. Errors are counted
 * in units of the last place of the F32 result; a bound is what the roundings
 * of the kernel's formula add up to, rounded up. add, scale, rope and kv_store
 * must have exact bits.
 */
#include "check_int.h"
#include "half.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The distance of got from want, in ulps of want, or of `least` where that is larger; huge if only
 * one of them is NaN or inf. */
static double ulps_least(float got, long double want, float least) {
    float w = (float)want;
    if (isnan(w) || isinf(w) || isnan(got) || isinf(got)) {
        /* at the edge of overflow, one ulp may separate the largest float from inf
         */
        bool edge = fabsl(want) >= 0x1.fffffcp127L && fabsf(got) >= 0x1.fffffcp127f;
        return (isnan(w) ? isnan(got) : got == w || edge) ? 0 : 1e9;
    }
    int e = 0;
    frexpf(fmaxf(fabsf(w), least), &e);
    return fabs((double)(got - want)) / ldexp(1, (e < -125 ? -125 : e) - 24);
}

static double ulps(float got, long double want) {
    return ulps_least(got, want, 0);
}

static void check_rms_norm(check *c, int64_t n, bool weighted, float magnitude, float eps) {
    if (!begin(c, "rms_norm/%d%s", (int)n, weighted ? "" : " no weight")) return;
    float *x = fenced_f32(c, n), *w = fenced_f32(c, n), *y = fenced_f32(c, n);
    fill_normal(c, x, n);
    fill_normal(c, w, n);
    long double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        x[i] *= magnitude;
        sum += (long double)x[i] * x[i];
    }
    c->k->rms_norm(y, x, weighted ? w : NULL, n, eps);
    for (int64_t i = 0; i < n; i++) {
        long double want = x[i] / sqrtl(sum / n + eps) * (weighted ? w[i] : 1);
        /* roundings: the scale, times x, times w */
        if (!(ulps(y[i], want) <= 2.5)) fail(c, "[%d]: %g ulp", (int)i, ulps(y[i], want));
    }
    c->k->rms_norm(x, x, weighted ? w : NULL, n, eps);
    expect_same(c, "in place", x, y, n);
    release(c);
}

static void check_add_scale(check *c, int64_t n) {
    if (!begin(c, "add, scale/%d", (int)n)) return;
    float *x = fenced_f32(c, n), *y = fenced_f32(c, n), *want = fenced_f32(c, n);
    fill_normal(c, x, n);
    fill_normal(c, y, n);
    for (int64_t i = 0; i < n; i++) want[i] = y[i] + x[i];
    c->k->add(y, x, n);
    expect_same(c, "add", y, want, n);
    for (int64_t i = 0; i < n; i++) want[i] = y[i] * 0.7f;
    c->k->scale(y, 0.7f, n);
    expect_same(c, "scale", y, want, n);
    release(c);
}

static long double silu(long double x) {
    return isinf(x) && x < 0 ? -0.0L : x / (1 + expl(-x));
}

static long double gelu(long double x) {
    if (isinf(x)) return x < 0 ? -0.0L : x;
    return x / (1 + expl(-2 * 0.797884560802865355879892L * (x + 0.044715L * x * x * x)));
}

static long double softcap30(long double x) {
    return 30 * tanhl(x / 30);
}

typedef struct function {
    const char *name;
    long double (*oracle)(long double);
    double bound; /* ulps */
    float least;  /* softcap divides by 30 first, where subnormals lose bits */
} function;

/* The bounds: an exponential of a little more than one ulp, a sum, a quotient and a product with
 * half an ulp each, where a result that falls to the next power of two doubles what came before. */
static const function functions[] = {
    {"swiglu", silu, 3.5, 0}, {"geglu", gelu, 3.5, 0}, {"softcap", softcap30, 3, 0x1p-120f}};

static void run_function(check *c, int which, float *y, const float *up, int64_t n) {
    if (which == 2)
        c->k->softcap(y, 30, n);
    else
        c->k->glu(y, y, up, n, which == 1 ? TTX_GEGLU : TTX_SWIGLU);
}

/* All exponents and both signs: every step-th bit pattern, in rows of many
 * lengths, so that each value also meets a tail; then the special values. */
static void check_function(check *c, int which) {
    static const float special[] = {INFINITY, -INFINITY, NAN,  0.0f,    -0.0f,    88.8f,
                                    -88.8f,   -103.9f,   -150, FLT_MAX, -FLT_MAX, 1e-45f};
    enum { N_SPECIAL = sizeof special / sizeof *special };
    const function *f = &functions[which];
    if (!begin(c, "%s", f->name)) return;
    uint32_t step = 7919u + (uint32_t)rnd_below(c, 1000);
    double worst = 0;
    float at = 0;
    uint64_t u = 0;
    for (int64_t rows = 0; u <= UINT32_MAX; rows++) {
        int64_t n = rows ? 1 + rows % 67 : N_SPECIAL;
        float x[128], *y = fenced_f32(c, n), *up = fenced_f32(c, n);
        for (int64_t i = 0; i < n; i++, u += rows ? step : 0) {
            x[i] = rows ? ttx_bits_f32((uint32_t)u) : special[i];
            up[i] = 1;
        }
        memcpy(y, x, sizeof(float) * (size_t)n);
        run_function(c, which, y, up, n);
        for (int64_t i = 0; i < n; i++) {
            double d = ulps_least(y[i], f->oracle(x[i]), f->least);
            if (!(d <= f->bound)) fail(c, "%a (%g): %g ulp", x[i], x[i], d);
            if (d > worst) worst = d, at = x[i];
        }
        release(c);
    }
    printf("%s: at most %.2f ulp, at %a\n", c->name, worst, (double)at);
}

static void check_rope(check *c, int64_t n_rot, ttx_rope_layout layout) {
    int64_t n = n_rot + rnd_below(c, 9), half = n_rot / 2;
    if (!begin(c, "rope/%s %d", layout == TTX_ROPE_NORM ? "norm" : "neox", (int)n_rot)) return;
    float *x = fenced_f32(c, n), *cs = fenced_f32(c, n_rot), *want = fenced_f32(c, n);
    fill_normal(c, x, n);
    memcpy(want, x, sizeof(float) * (size_t)n);
    for (int64_t i = 0; i < half; i++) {
        double angle = 3 * rnd_normal(c);
        float co = cs[2 * i] = (float)cos(angle), si = cs[2 * i + 1] = (float)sin(angle);
        int64_t a = layout == TTX_ROPE_NORM ? 2 * i : i;
        int64_t b = layout == TTX_ROPE_NORM ? 2 * i + 1 : i + half;
        want[a] = x[a] * co - x[b] * si;
        want[b] = x[a] * si + x[b] * co;
    }
    c->k->rope(x, cs, n_rot, layout);
    expect_same(c, "rotated", x, want, n);
    release(c);
}

/* The F16 nearest to x, ties to even, as a double. */
static double nearest_f16(float x) {
    if (isnan(x) || isinf(x) || x == 0) return x;
    int e = ilogbf(x) < -14 ? -14 : ilogbf(x);
    double q = ldexp(nearbyint(ldexp(x, 10 - e)), e - 10);
    return fabs(q) > 65504 ? copysign(INFINITY, q) : q;
}

static double f16_value(uint16_t h) {
    int e = h >> 10 & 31, m = h & 1023, sign = h & 0x8000 ? -1 : 1;
    if (e == 31) return m ? NAN : sign * INFINITY;
    return sign * (e ? ldexp(1024 + m, e - 25) : ldexp(m, -24));
}

static void check_kv_f16(check *c) {
    if (!begin(c, "kv_store/F16")) return;
    uint32_t step = 4093u + (uint32_t)rnd_below(c, 1000);
    uint64_t u = 0;
    for (int64_t rows = 0; u <= UINT32_MAX; rows++) {
        int64_t n = 1 + rows % 41;
        float *x = fenced_f32(c, n);
        uint16_t *got = fenced(c, 2 * (size_t)n), *ref = fenced(c, 2 * (size_t)n);
        for (int64_t i = 0; i < n; i++, u += step) /* every fifth: exact values and ties */
            x[i] = ttx_bits_f32((uint32_t)u & (i % 5 == 4 ? ~0xfffu : ~0u));
        c->k->kv_store(got, x, n, TTX_F16);
        c->ref->kv_store(ref, x, n, TTX_F16);
        if (memcmp(got, ref, 2 * (size_t)n)) fail(c, "row %d: not the bits of scalar", (int)rows);
        for (int64_t i = 0; i < n; i++) {
            double want = nearest_f16(x[i]), is = f16_value(got[i]);
            if (isnan(want) ? !isnan(is) : is != want || signbit(is) != signbit(want))
                fail(c, "%a: got %a, expected %a", x[i], is, want);
        }
        release(c);
    }
}

typedef enum q8_kind { NORMAL, TINY, HUGE_, TIES, BELOW_TIES, NOT_FINITE, ZERO, N_KINDS } q8_kind;

static float q8_value(check *c, q8_kind kind, int64_t i) {
    float x = rnd_normal(c);
    switch (kind) {
    case TINY: return x * 1e-38f;
    case HUGE_: return x * 1e30f;
    case TIES: return i % 32 ? (float)(rnd_below(c, 509) - 254) / 2 : 127;
    case BELOW_TIES: return i % 32 ? 0.49999997f : 127;
    case NOT_FINITE: return i % 37 == 3 ? INFINITY : i % 11 == 5 ? NAN : x;
    case ZERO: return 0;
    default: return x;
    }
}

static void check_kv_q8_0(check *c, int64_t n, q8_kind kind) {
    if (!begin(c, "kv_store/Q8_0 %d kind %d", (int)n, (int)kind)) return;
    size_t bytes = 34 * (size_t)n / 32;
    float *x = fenced_f32(c, n), *y = fenced_f32(c, n);
    uint8_t *got = fenced(c, bytes), *want = fenced(c, bytes);
    for (int64_t i = 0; i < n; i++) x[i] = q8_value(c, kind, i);
    for (int64_t b = 0; b < n / 32; b++) {
        float amax = 0;
        for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[32 * b + i]));
        float d = amax / 127, id = d != 0 ? 1 / d : 0;
        uint16_t h = ttx_f32_to_f16(d);
        memcpy(want + 34 * b, &h, 2);
        for (int i = 0; i < 32; i++) {
            float r = roundf(x[32 * b + i] * id);
            want[34 * b + 2 + i] = (uint8_t)(int8_t)(fabsf(r) <= 127 ? r : 0);
        }
    }
    c->k->kv_store(got, x, n, TTX_Q8_0);
    if (memcmp(got, want, bytes)) fail(c, "not the bits of the format's reference");
    c->k->kv_store(y, x, n, TTX_F32);
    expect_same(c, "F32", y, x, n);
    release(c);
}

typedef struct row_bench {
    check *c;
    float *y, *x, *w;
    int64_t n;
    int which;
} row_bench;

static void run_row_bench(void *ctx, int thread, int n_threads) {
    row_bench *b = ctx;
    const ttx_kernels *k = b->c->k;
    if (thread || n_threads > 1) return; /* a row is the work of one thread */
    for (int i = 0; i < 100; i++) {
        if (b->which == 0) k->rms_norm(b->y, b->x, b->w, b->n, 1e-5f);
        if (b->which == 1) k->add(b->y, b->x, b->n);
        if (b->which == 2) k->glu(b->y, b->x, b->w, b->n, TTX_SWIGLU);
        if (b->which == 3) k->glu(b->y, b->x, b->w, b->n, TTX_GEGLU);
        if (b->which == 4) k->softcap(b->x, 30, b->n);
        if (b->which == 5) k->rope(b->x, b->w, b->n, TTX_ROPE_NORM);
        if (b->which == 6) k->rope(b->x, b->w, b->n, TTX_ROPE_NEOX);
        if (b->which == 7) k->kv_store(b->y, b->x, b->n, TTX_F16);
        if (b->which == 8) k->kv_store(b->y, b->x, b->n, TTX_Q8_0);
    }
}

static void bench_rows(check *c) {
    static const char *const names[] = {"rms_norm",  "add",       "swiglu",
                                        "geglu",     "softcap",   "rope norm",
                                        "rope neox", "store F16", "store Q8_0"};
    for (int i = 0; i < 9; i++) {
        const int64_t n = 4096;
        if (!begin(c, "bench/100 rows of %d: %s", (int)n, names[i])) continue;
        row_bench b = {c, fenced_f32(c, n), fenced_f32(c, n), fenced_f32(c, n), n, i};
        fill_normal(c, b.x, n);
        fill_normal(c, b.y, n);
        for (int64_t j = 0; j < n; j++) b.w[j] = j % 2 ? 0.8f : 0.6f;
        bench_line(c, bench_time(c, run_row_bench, &b), 0, 100.0 * (double)n);
        release(c);
    }
}

void check_ops(check *c) {
    if (c->bench) {
        bench_rows(c);
        return;
    }
    for (int64_t n = 1; n <= 1024; n += n < 70 ? 1 : 97) {
        check_rms_norm(c, n, true, 1, 1e-5f);
        check_rms_norm(c, n, false, n % 2 ? 1e-3f : 1e15f, 1e-6f);
        check_add_scale(c, n);
    }
    for (int i = 0; i < 3; i++) check_function(c, i);
    for (int64_t n_rot = 2; n_rot <= 256; n_rot += 2) {
        check_rope(c, n_rot, TTX_ROPE_NORM);
        check_rope(c, n_rot, TTX_ROPE_NEOX);
    }
    check_kv_f16(c);
    for (int64_t n = 32; n <= 1024; n += n < 128 ? 32 : 224)
        for (int kind = 0; kind < N_KINDS; kind++) check_kv_q8_0(c, n, (q8_kind)kind);
}
