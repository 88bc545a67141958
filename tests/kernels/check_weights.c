/* check_weights.c -- dequantisation, activation quantisation and matmul of both classes.
 *
 * Dequantisation and the quantised activations must have the bits of scalar. A product must be near
 * the one in double precision of the dequantised operands; and its bits must not change with the
 * row range or the columns that are computed beside it.
 */
#include "check_int.h"
#include "half.h"
#include "unpack.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of each type: where its F16 fields lie in a block (-1: none), and the largest |q| or |q + offset|
 * that a kernel may meet on its way, for the tolerance. */
typedef struct type_facts {
    ttx_dtype type;
    int half[2];
    float max_q;
} type_facts;

static const type_facts types[] = {
    {TTX_F32, {-1, -1}, 1},    {TTX_F16, {-1, -1}, 1},     {TTX_BF16, {-1, -1}, 1},
    {TTX_Q4_0, {0, -1}, 16},   {TTX_Q4_1, {0, 2}, 16},     {TTX_Q5_0, {0, -1}, 32},
    {TTX_Q5_1, {0, 2}, 32},    {TTX_Q8_0, {0, -1}, 128},   {TTX_Q2_K, {80, 82}, 4},
    {TTX_Q3_K, {108, -1}, 8},  {TTX_Q4_K, {0, 2}, 16},     {TTX_Q5_K, {0, 2}, 32},
    {TTX_Q6_K, {208, -1}, 64}, {TTX_IQ4_NL, {0, -1}, 128}, {TTX_IQ4_XS, {0, -1}, 128},
    {TTX_MXFP4, {-1, -1}, 24},
};
enum { N_TYPES = sizeof types / sizeof *types };

typedef enum kind { TYPICAL, EXTREME, N_KINDS } kind;

static uint16_t random_half(check *c, kind kind) {
    static const uint16_t edges[] = {0,      0x8000, 1,      0x8001, 0x03ff, 0x83ff,
                                     0x0400, 0x8400, 0x7bff, 0xfbff, 0x3c00, 0xbc00};
    if (kind == EXTREME) return edges[rnd_below(c, sizeof edges / sizeof *edges)];
    return ttx_f32_to_f16(0.02f * rnd_normal(c));
}

/* Finite weights at any alignment; extreme: limits of the scales and runs of equal bits. */
static void random_weights(check *c, const type_facts *t, uint8_t *w, int64_t n, kind kind) {
    const ttx_dtype_info *info = ttx_dtype_get(t->type);
    /* The exponent of all MXFP4 blocks, near where scales are subnormal; -1: each has its own. */
    int tiny = kind == EXTREME && rnd_below(c, 3) == 0 ? rnd_below(c, 4) : -1;
    for (int64_t i = 0; i < n; i += info->block, w += info->bytes) {
        float f = rnd_normal(c) * (kind == EXTREME ? 1e4f : 1.0f);
        uint16_t h = kind == EXTREME ? random_half(c, kind) : ttx_f32_to_f16(f);
        uint16_t bf = (uint16_t)(ttx_f32_bits(f) >> 16);
        if (t->type == TTX_F32)
            memcpy(w, &f, 4);
        else if (t->type == TTX_F16)
            memcpy(w, &h, 2);
        else if (t->type == TTX_BF16)
            memcpy(w, &bf, 2);
        else {
            static const int runs[] = {0x00, 0xff, 0x80, 0x7f, 0x08, 0xf0, 0x0f};
            int run = kind == EXTREME ? rnd_below(c, 2 * 7) : 7;
            for (int j = 0; j < info->bytes; j++)
                w[j] = (uint8_t)(run < 7 ? runs[run] : (int)(rnd(c) & 255));
            for (int j = 0; j < 2; j++)
                if (t->half[j] >= 0) {
                    h = random_half(c, kind);
                    memcpy(w + t->half[j], &h, 2);
                }
            if (t->type == TTX_MXFP4)
                w[0] = (uint8_t)(tiny >= 0         ? tiny
                                 : kind == EXTREME ? rnd_below(c, 190)
                                                   : 120 + rnd_below(c, 10));
        }
    }
}

/* The weights and, per element, the magnitude that a kernel may handle on its way. */
static void double_weights(const type_facts *t, double *w, double *mag, const uint8_t *src,
                           int64_t n) {
    const ttx_dtype_info *info = ttx_dtype_get(t->type);
    ttx_unpack_fn unpack = ttx_unpack_get(t->type);
    ttx_unpacked u;
    for (int64_t i = 0; i < n; i += info->block, src += info->bytes) {
        if (!unpack) {
            uint16_t h;
            float f;
            memcpy(&h, src, 2);
            if (t->type == TTX_F32)
                memcpy(&f, src, 4);
            else
                f = t->type == TTX_F16 ? ttx_f16_to_f32(h) : ttx_bf16_to_f32(h);
            w[i] = (double)f;
            mag[i] = fabs(w[i]);
            continue;
        }
        unpack(&u, src);
        for (int j = 0; j < info->block; j++) {
            double s = (double)u.s[j / 16], m = (double)u.m[j / 16];
            w[i + j] = s * u.q[j] - m;
            mag[i + j] = fabs(s) * (double)t->max_q + fabs(m);
        }
    }
}

static void check_dequant(check *c, const type_facts *t) {
    const ttx_dtype_info *info = ttx_dtype_get(t->type);
    if (!begin(c, "dequant/%s", info->name)) return;
    if (!present(c, c->k->dequant[t->type] != NULL)) return;
    for (int round = 0; round < 40; round++) {
        int64_t n = info->block * (1 + rnd_below(c, info->block == 1 ? 300 : 9));
        size_t bytes = ttx_dtype_bytes(t->type, (uint64_t)n);
        uint8_t *src = fenced(c, bytes);
        if (round < 20) /* any bytes, NaN and Inf too */
            for (size_t i = 0; i < bytes; i++) src[i] = (uint8_t)rnd(c);
        else
            random_weights(c, t, src, n, EXTREME);
        float *got = fenced_f32(c, n), *want = fenced_f32(c, n);
        c->ref->dequant[t->type](want, src, n);
        c->k->dequant[t->type](got, src, n);
        expect_same(c, "element", got, want, n);
        release(c);
    }
}

/* The quantised forms of x, of the scalar level. */
static void fill_forms(check *c, ttx_act *x) {
    c->ref->act_q8(x, 0, x->n_cols);
    c->ref->act_q16(x, 0, x->n_cols);
    c->ref->act_panel(x, 0, ttx_panel_count(x->n_cols));
}

static void fence_planes(check *c, ttx_act *x) {
    int64_t n = x->k * x->n_cols;
    x->q8 = fenced(c, (size_t)n);
    x->d = fenced_f32(c, n / 32);
    x->sum = fenced(c, (size_t)(n / 16) * sizeof *x->sum);
    x->q16 = fenced(c, (size_t)n * sizeof *x->q16);
    x->d16 = fenced_f32(c, ttx_q16_blocks(x->k) * x->n_cols);
    x->sum16 = fenced(c, (size_t)(n / 16) * sizeof *x->sum16);
    x->panel = fenced(c, ttx_panel_bytes(x->k, x->n_cols));
}

/* Columns of activations with their quantised forms (of the scalar level) if k allows it. */
static void random_act(check *c, ttx_act *x, int64_t k, int64_t n_cols, kind kind) {
    int64_t ld = k + rnd_below(c, 3);
    float *f32 = fenced_f32(c, ld * (n_cols - 1) + k);
    for (int64_t i = 0; i < ld * (n_cols - 1) + k; i++)
        f32[i] = kind == EXTREME ? (rnd_below(c, 8) ? 1.0f : -1.0f) * (rnd_below(c, 9) ? 1 : 0.01f)
                                 : rnd_normal(c);
    *x = (ttx_act){.f32 = f32, .ld = ld, .k = k, .n_cols = n_cols};
    if (k % 32) return;
    fence_planes(c, x);
    fill_forms(c, x);
}

static void same_planes(check *c, const ttx_act *a, const ttx_act *b) {
    int64_t n = a->k * a->n_cols;
    if (memcmp(a->q8, b->q8, (size_t)n)) fail(c, "q8 differs from scalar");
    expect_same(c, "d", a->d, b->d, n / 32);
    if (memcmp(a->sum, b->sum, (size_t)(n / 16) * sizeof *a->sum)) fail(c, "sum differs");
    if (memcmp(a->q16, b->q16, (size_t)n * sizeof *a->q16)) fail(c, "q16 differs from scalar");
    expect_same(c, "d16", a->d16, b->d16, ttx_q16_blocks(a->k) * a->n_cols);
    if (memcmp(a->sum16, b->sum16, (size_t)(n / 16) * sizeof *a->sum16)) fail(c, "sum16 differs");
}

/* The contract itself, once more and otherwise: one block of n values, in either form. */
static void obeys_contract(check *c, const float *f, int64_t n, float d, const int16_t *q,
                           const int32_t *sums, bool q16) {
    float top = 0, limit = q16 ? 16383 : 127;
    bool bad = false;
    for (int64_t i = 0; i < n; i++) {
        bad |= !isfinite(f[i]);
        top = fmaxf(top, fabsf(f[i]));
    }
    if (bad ? !isnan(d) : d != (top / limit < 0x1p-126f ? 0 : top / limit)) fail(c, "d is %a", d);
    for (int64_t i = 0; i < n; i++) {
        float quotient = q16 ? f[i] * (1.0f / d) : f[i] / d;
        if (q[i] != (d > 0 ? (int)nearbyintf(quotient) : 0)) fail(c, "q %d of %a", q[i], f[i]);
    }
    for (int64_t j = 0; j < n / 16; j++) {
        int32_t sum = 0;
        for (int64_t i = 0; i < 16; i++) sum += q[16 * j + i];
        if (sums[j] != sum) fail(c, "sum %d", sums[j]);
    }
}

static void column_obeys(check *c, const ttx_act *x, int64_t col) {
    const float *f = x->f32 + col * x->ld;
    for (int64_t k = 0; k < x->k; k += 32) {
        int64_t at = col * x->k + k;
        int32_t sums[2] = {x->sum[at / 16], x->sum[at / 16 + 1]};
        int16_t q[32];
        for (int i = 0; i < 32; i++) q[i] = (int16_t)(int)x->q8[at + i];
        obeys_contract(c, f + k, 32, x->d[at / 32], q, sums, false);
    }
    for (int64_t k = 0, b = 0; k < x->k; k += 256, b++) {
        int64_t at = col * x->k + k, n = x->k - k < 256 ? x->k - k : 256;
        obeys_contract(c, f + k, n, x->d16[col * ttx_q16_blocks(x->k) + b], x->q16 + at,
                       x->sum16 + at / 16, true);
    }
}

/* Values where the rounding to integers up to `limit` is decided by the last bit of the quotient.
 */
static void near_halves(check *c, float *f, int n, int limit) {
    f[0] = rnd_normal(c);
    float d = fabsf(f[0]) / (float)limit;
    for (int i = 1; i < n; i++) {
        f[i] = ((float)rnd_below(c, 2 * limit - 1) - ((float)limit - 0.5f)) * d;
        if (rnd_below(c, 2)) f[i] = nextafterf(f[i], rnd_below(c, 2) ? INFINITY : -INFINITY);
    }
}

/* Column j of a panel, as its contract says. */
static void panel_holds(check *c, const ttx_act *x, ttx_panel panel, int j) {
    int64_t col = panel.first + j;
    const uint8_t *p = x->panel + ttx_panel_bytes(x->k, panel.first);
    for (int64_t b = 0; b < x->k / 32; b++, p += TTX_PANEL_BLOCK * panel.width) {
        const int8_t *q = x->q8 + col * x->k + 32 * b;
        const int16_t *sum = x->sum + (col * x->k + 32 * b) / 16;
        float d = x->d[col * x->k / 32 + b], got[3];
        float want[3] = {d, d * (float)(sum[0] + sum[1]), d * (float)sum[1]};
        for (int i = 0; i < 3; i++) memcpy(&got[i], p + (8 + i) * 4 * panel.width + 4 * j, 4);
        expect_same(c, "d, t, t1", got, want, 3);
        for (int i = 0; i < 32; i++)
            if (p[i / 4 * 4 * panel.width + 4 * j + i % 4] - 128 != q[i])
                fail(c, "column %d, value %d", (int)col, (int)(32 * b + i));
    }
}

/* Panels against the planes of Q8, at every width. */
static void check_act_panel(check *c) {
    if (!begin(c, "act_panel") || !present(c, c->k->act_panel != NULL)) return;
    for (int round = 0; round < 40; round++) {
        int64_t k = 32 * (1 + rnd_below(c, 9)), n = 1 + rnd_below(c, 3 * TTX_PANEL_COLS);
        ttx_act x;
        random_act(c, &x, k, n, TYPICAL);
        ((float *)x.f32)[rnd_below(c, (int)k)] = rnd_below(c, 2) ? NAN : 0x1p-149f;
        c->ref->act_q8(&x, 0, n);
        int64_t n_panel = ttx_panel_count(n), cut = rnd_below(c, (int)n_panel + 1), seen = 0;
        c->k->act_panel(&x, cut, n_panel);
        c->k->act_panel(&x, 0, cut);
        for (int64_t p = 0; p < n_panel; p++) {
            ttx_panel panel = ttx_panel_get(n, p);
            if (panel.first != seen || panel.width < 1 || panel.width > TTX_PANEL_COLS)
                fail(c, "panel %d of %d columns", (int)p, (int)n);
            seen += panel.width;
            for (int j = 0; j < panel.width; j++) panel_holds(c, &x, panel, j);
        }
        if (seen != n) fail(c, "panels hold %d of %d columns", (int)seen, (int)n);
        release(c);
    }
}

/* The first column: blocks of every size, rare NaN. The last: values near halves. */
static void odd_values(check *c, const ttx_act *x) {
    static const float odd[] = {0x1p-149f, 0x1.fcp-120f, 0x1.fap-120f, 0x1.fffcp-113f, 3e38f, -0.0f,
                                0.5f,      INFINITY,     NAN,          127.0f};
    float *f = (float *)x->f32, *last = f + (x->n_cols - 1) * x->ld;
    bool rough = rnd_below(c, 2);
    for (int64_t i = 0; i < x->k; i++) {
        if (i % 32 == 0 && rnd_below(c, 4) == 0) memset(f + i, 0, 32 * sizeof *f);
        if (rnd_below(c, rough ? 32 : 300) == 0)
            f[i] = odd[rnd_below(c, 10)];
        else
            f[i] *= ldexpf(1, (int)(i / 32) * 31 % 60 - 30);
    }
    if (rnd_below(c, 2))
        near_halves(c, last, (int)(x->k < 256 ? x->k : 256), 16383);
    else
        for (int64_t i = 0; i < x->k; i += 64) near_halves(c, last + i, 32, 127);
}

static void check_act(check *c) {
    if (!begin(c, "act") || !present(c, c->k->act_q8 && c->k->act_q16)) return;
    for (int round = 0; round < 80; round++) {
        int64_t k = 32 * (1 + rnd_below(c, round % 2 ? 9 : 20)), n = 1 + rnd_below(c, 4);
        ttx_act x, y;
        random_act(c, &x, k, n, TYPICAL);
        odd_values(c, &x);
        y = x;
        fence_planes(c, &y);
        c->ref->act_q8(&x, 0, n);
        c->ref->act_q16(&x, 0, n);
        int64_t cut = rnd_below(c, (int)n + 1);
        c->k->act_q8(&y, cut, n);
        c->k->act_q16(&y, cut, n);
        c->k->act_q8(&y, 0, cut);
        c->k->act_q16(&y, 0, cut);
        same_planes(c, &y, &x);
        for (int64_t col = 0; col < n; col++) column_obeys(c, &y, col);
        release(c);
    }
}

/* The value that a kernel works with for element i of a column. */
static double act_value(const ttx_act *x, int form, int64_t col, int64_t i) {
    int64_t at = col * x->k + i;
    if (form == TTX_ACT_Q8 || form == TTX_ACT_PANEL) return (double)x->d[at / 32] * x->q8[at];
    if (form == TTX_ACT_Q16)
        return (double)x->d16[col * ttx_q16_blocks(x->k) + i / 256] * x->q16[at];
    return (double)x->f32[col * x->ld + i];
}

/* Expected products and tolerances, [n_cols][n_rows]. */
static void expected(check *c, const type_facts *t, const ttx_mm *m, ttx_class class, double *want,
                     double *tol) {
    const ttx_act *x = m->x;
    int form = c->k->act_form[class][t->type];
    double *w = calloc((size_t)m->k * 2, sizeof *w), *mag = w + m->k;
    for (int64_t r = 0; r < m->n_rows; r++) {
        double_weights(t, w, mag, m->w + (size_t)r * m->row_bytes, m->k);
        for (int64_t col = 0; col < x->n_cols; col++) {
            double sum = 0, size = 0;
            for (int64_t i = 0; i < m->k; i++) {
                double v = act_value(x, form, col, i);
                sum += w[i] * v;
                size += mag[i] * fabs(v);
            }
            want[col * m->n_rows + r] = sum;
            tol[col * m->n_rows + r] = (8.0 + (double)m->k / 64) * 0x1p-24 * size;
        }
    }
    free(w);
}

/* Some rows of some columns on their own must have the bits that they have among all. */
static void check_parts(check *c, const ttx_mm *m, ttx_matmul_fn fn, void *scratch) {
    for (int round = 0; round < 6; round++) {
        int64_t r0 = rnd_below(c, (int)m->n_rows),
                r1 = r0 + 1 + rnd_below(c, (int)(m->n_rows - r0));
        int64_t c0 = rnd_below(c, (int)m->x->n_cols);
        ttx_act x = ttx_act_columns(m->x, c0, 1 + rnd_below(c, (int)(m->x->n_cols - c0)));
        if (x.q8) {
            x.panel = fenced(c, ttx_panel_bytes(x.k, x.n_cols));
            c->ref->act_panel(&x, 0, ttx_panel_count(x.n_cols));
        }
        ttx_mm part = *m;
        part.x = &x;
        part.y = fenced_f32(c, m->n_rows * x.n_cols);
        part.ldy = m->n_rows;
        float pattern = part.y[0];
        fn(&part, r0, r1, scratch);
        for (int64_t col = 0; col < x.n_cols; col++)
            for (int64_t r = 0; r < m->n_rows; r++) {
                bool mine = r >= r0 && r < r1;
                const float *want = mine ? &m->y[(c0 + col) * m->ldy + r] : &pattern;
                expect_same(c, mine ? "part of the rows and columns" : "a row beside the range",
                            &part.y[col * part.ldy + r], want, 1);
            }
    }
}

static void check_product(check *c, const type_facts *t, ttx_class class, int64_t k, int64_t n_rows,
                          int64_t n_cols, kind kind) {
    ttx_matmul_fn fn = c->k->matmul[class][t->type];
    ttx_act x;
    random_act(c, &x, k, n_cols, kind);
    ttx_mm m = {.k = k, .n_rows = n_rows, .x = &x, .ldy = n_rows};
    m.row_bytes = ttx_dtype_bytes(t->type, (uint64_t)k);
    uint8_t *w = fenced(c, m.row_bytes * (size_t)n_rows);
    random_weights(c, t, w, k * n_rows, kind);
    m.w = w;
    m.y = fenced_f32(c, n_rows * n_cols);
    void *scratch = aligned_alloc(64, (ttx_matmul_scratch(k) + 63) / 64 * 64);
    double *want = calloc((size_t)(n_rows * n_cols) * 2, sizeof *want);
    expected(c, t, &m, class, want, want + n_rows * n_cols);
    fn(&m, 0, n_rows, scratch);
    expect_near(c, "product", m.y, want, want + n_rows * n_cols, n_rows * n_cols);
    check_parts(c, &m, fn, scratch);
    free(want);
    free(scratch);
    release(c);
}

/* A NaN among the activations of a column reaches all its products, and no others. */
static void check_damage(check *c, const type_facts *t, ttx_class class, int64_t k) {
    enum { ROWS = 5, COLS = 6 };
    ttx_act x;
    random_act(c, &x, k, COLS, TYPICAL);
    int bad = rnd_below(c, COLS);
    ((float *)x.f32)[bad * x.ld + rnd_below(c, (int)k)] = NAN;
    fill_forms(c, &x);
    ttx_mm m = {.k = k, .n_rows = ROWS, .x = &x, .ldy = ROWS};
    m.row_bytes = ttx_dtype_bytes(t->type, (uint64_t)k);
    uint8_t *w = fenced(c, m.row_bytes * ROWS);
    random_weights(c, t, w, k * ROWS, TYPICAL);
    m.w = w;
    m.y = fenced_f32(c, (int64_t)ROWS * COLS);
    void *scratch = aligned_alloc(64, (ttx_matmul_scratch(k) + 63) / 64 * 64);
    c->k->matmul[class][t->type](&m, 0, ROWS, scratch);
    for (int i = 0; i < ROWS * COLS; i++)
        if (isnan(m.y[i]) != (i / ROWS == bad)) fail(c, "NaN in column %d: [%d]", bad, i);
    free(scratch);
    release(c);
}

static void check_matmul(check *c, const type_facts *t, ttx_class class) {
    static const int64_t odd_k[] = {1, 7, 8, 9, 31, 33, 100, 511, 512, 513, 1031, 4100};
    static const int64_t blocks[] = {1, 2, 3, 5, 7, 8, 9, 12, 14, 16, 17, 18, 23, 33, 130};
    const ttx_dtype_info *info = ttx_dtype_get(t->type);
    if (!begin(c, "matmul/%s/%s", class == TTX_EXACT ? "exact" : "prompt", info->name)) return;
    if (!present(c, c->k->matmul[class][t->type] != NULL)) return;
    for (int i = 0; i < 4; i++) check_damage(c, t, class, info->block <= 32 && i % 2 ? 352 : 512);
    int n = info->block == 1 ? (int)(sizeof odd_k / sizeof *odd_k)
                             : (int)(sizeof blocks / sizeof *blocks);
    for (int i = 0; i < n; i++)
        for (int kind = 0; kind < N_KINDS; kind++) {
            int64_t k = info->block == 1 ? odd_k[i] : info->block * blocks[i];
            if (k > 10000) k = 5120;
            bool big = k < 1000; /* more than the largest tile */
            check_product(c, t, class, k, 1 + rnd_below(c, big ? 80 : 19),
                          1 + rnd_below(c, big ? 20 : 8), kind);
        }
}

typedef struct mm_bench {
    ttx_mm m;
    ttx_matmul_fn fn;
    void *scratch[64];
} mm_bench;

/* Threads take ranges of 64 rows in turn, as a pool would. */
static void run_mm_bench(void *ctx, int thread, int n_threads) {
    mm_bench *b = ctx;
    for (int64_t r = 64 * thread; r < b->m.n_rows; r += 64 * n_threads)
        b->fn(&b->m, r, r + 64 < b->m.n_rows ? r + 64 : b->m.n_rows, b->scratch[thread]);
}

static void bench_matmul(check *c, const type_facts *t, ttx_class class, int64_t n_cols,
                         size_t w_bytes, const char *where) {
    const int64_t k = 4096;
    size_t row_bytes = ttx_dtype_bytes(t->type, (uint64_t)k);
    int64_t n_rows = (int64_t)(w_bytes / row_bytes);
    if (!begin(c, "bench/%s/%s x%d %s", class == TTX_EXACT ? "exact" : "prompt",
               ttx_dtype_get(t->type)->name, (int)n_cols, where))
        return;
    ttx_act x;
    random_act(c, &x, k, n_cols, TYPICAL);
    uint8_t *w = fenced(c, row_bytes * (size_t)n_rows);
    random_weights(c, t, w, k * 64, TYPICAL);
    for (int64_t r = 64; r < n_rows; r++) /* the same 64 rows again: values do not matter */
        memcpy(w + (size_t)r * row_bytes, w + (size_t)(r % 64) * row_bytes, row_bytes);
    mm_bench b = {.fn = c->k->matmul[class][t->type]};
    b.m = (ttx_mm){w, row_bytes, k, n_rows, &x, fenced_f32(c, n_rows * n_cols), n_rows};
    for (int i = 0; i < c->n_threads; i++)
        b.scratch[i] = aligned_alloc(64, (ttx_matmul_scratch(k) + 63) / 64 * 64);
    double s = bench_time(c, run_mm_bench, &b);
    bench_line(c, s, n_cols < 16 ? (double)row_bytes * (double)n_rows : 0,
               2.0 * (double)k * (double)n_rows * (double)n_cols);
    for (int i = 0; i < c->n_threads; i++) free(b.scratch[i]);
    release(c);
}

static void bench_weights(check *c) {
    for (int i = 0; i < N_TYPES; i++) {
        bench_matmul(c, &types[i], TTX_EXACT, 1, 4 << 20, "cache");
        if (c->k->isa == TTX_ISA_SCALAR) continue; /* a reference; not worth the wait */
        bench_matmul(c, &types[i], TTX_EXACT, 1, 256 << 20, "memory");
        bench_matmul(c, &types[i], TTX_EXACT, 4, 4 << 20, "cache");
        bench_matmul(c, &types[i], TTX_PROMPT, 8, 4 << 20, "cache");
        bench_matmul(c, &types[i], TTX_PROMPT, 64, 1 << 20, "cache");
        bench_matmul(c, &types[i], TTX_PROMPT, 256, 1 << 20, "cache");
    }
}

void check_weights(check *c) {
    if (c->bench) {
        bench_peaks(c);
        bench_weights(c);
        return;
    }
    check_act(c);
    check_act_panel(c);
    for (int i = 0; i < N_TYPES; i++) {
        check_dequant(c, &types[i]);
        for (int class = 0; class < TTX_CLASS_COUNT; class ++)
            check_matmul(c, &types[i], (ttx_class) class);
    }
}

int dequant_filter(const ttx_kernels *k, const char *name) {
    int type = ttx_dtype_by_name(name);
    if (type < 0 || !k->dequant[type]) {
        fprintf(stderr, "kernels_check: no kernel dequantises '%s'\n", name);
        return 2;
    }
    const ttx_dtype_info *info = ttx_dtype_get((uint32_t)type);
    uint8_t block[512];
    float out[256];
    while (fread(block, info->bytes, 1, stdin) == 1) {
        k->dequant[type](out, block, info->block);
        if (fwrite(out, sizeof *out, info->block, stdout) != info->block) return 1;
    }
    return fflush(stdout) != 0;
}
