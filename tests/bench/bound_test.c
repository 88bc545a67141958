/* bound_test.c -- the limits of tests on machines of made-up speed, against sums written out here
 * from the model's sizes.
 */
#include "bench_int.h"

#include "check_harness.h"
#include "engine_rig.h"

#include <math.h>

static int failures;

#define CHECK_NEAR(found, expected)                                                             \
    do {                                                                                        \
        double f_ = (found), e_ = (expected);                                                   \
        if (fabs(f_ - e_) <= 1e-9 * fabs(e_)) break;                                            \
        failures++;                                                                             \
        printf("%s:%d: %s: expected %.12g, found %.12g\n", __FILE__, __LINE__, #found, e_, f_); \
    } while (0)

/* What the model's sizes say. */
typedef struct sums {
    double qkv, rest, output; /* elements: of a layer's q, k, v; of its other matrices; of output */
    double norms;             /* bytes of all norms */
    double kv_row;            /* bytes of a position in one layer, F16 */
    double attn;              /* operations of a token and a position in one layer */
} sums;

static sums sums_of(const tiny_model *t) {
    double n = t->n_embd, q = t->n_head * t->d_head, kv = t->n_head_kv * t->d_head;
    double norms = 2 * n * t->n_layer + n;
    if (t->post_norms) norms += 2 * n * t->n_layer;
    if (t->qk_norm) norms += 2.0 * t->d_head * t->n_layer;
    return (sums){.qkv = n * (q + 2 * kv),
                  .rest = n * q + 3 * n * t->n_ff,
                  .output = n * t->n_vocab,
                  .norms = 4 * norms,
                  .kv_row = 2 * 2 * kv,
                  .attn = 4 * q};
}

static bench_result bound_of(rig *r, bench_test t, ttx_limits lim) {
    ttx_err err = {0};
    bench_result b = {.test = t};
    if (bench_bound(&b, r->model, &lim, &err)) rig_die("bound", err.msg);
    return b;
}

static const ttx_limits slow_memory = {.read_gbps = 1e-3, .peak_gops = 1e6};
static const ttx_limits slow_cores = {.read_gbps = 1e6, .peak_gops = 1e-3};

static void check_decoding(rig *r) {
    const tiny_model *t = &r->tiny;
    sums s = sums_of(t);
    double matrices = t->n_layer * (s.qkv + s.rest) + s.output;
    double bytes = 4 * matrices + 4.0 * t->n_embd + s.norms;
    /* Two steps at positions 10 and 11 see 11 and 12 positions. */
    bench_test test = {.n_gen = 2, .n_depth = 10, .n_ubatch = 512};
    bench_result b = bound_of(r, test, slow_memory);
    double with_kv = bytes + s.kv_row * t->n_layer * 11.5;
    CHECK_NEAR(b.bytes_per_token, with_kv);
    CHECK_NEAR(b.bound_ts, 1e6 / with_kv);
    double ops = 2 * matrices + s.attn * t->n_layer * 11.5;
    b = bound_of(r, test, slow_cores);
    CHECK_NEAR(b.ops_per_token, ops);
    CHECK_NEAR(b.bound_ts, 1e6 / ops);
}

static void check_prompt(rig *r) {
    const tiny_model *t = &r->tiny;
    sums s = sums_of(t);
    /* 20 tokens, which see 210 positions, in pieces of 8, 8 and 4; past the last layer's attention
     * only the last goes on. */
    double every = t->n_layer * s.qkv + (t->n_layer - 1) * s.rest, once = s.rest + s.output;
    double ops = 20 * 2 * every + 2 * once + s.attn * t->n_layer * 210;
    bench_test test = {.n_prompt = 20, .n_ubatch = 8};
    bench_result b = bound_of(r, test, slow_cores);
    CHECK_NEAR(b.ops_per_token, ops / 20);
    CHECK_NEAR(b.bound_ts, 20 / (ops * 1e-6));
    /* Where reading takes longer, each piece reads everything once. */
    double bytes = 4 * (t->n_layer * (s.qkv + s.rest) + s.output + t->n_embd) + s.norms;
    double total = 3 * bytes + s.kv_row * t->n_layer * (8 + 16 + 20);
    CHECK_NEAR(bound_of(r, test, slow_memory).bound_ts, 20 / (total * 1e-6));
}

/* A prompt and decoding after it: the times add up. */
static void check_both(rig *r) {
    bench_test p = {.n_prompt = 16, .n_ubatch = 16},
               g = {.n_gen = 4, .n_depth = 16, .n_ubatch = 16};
    bench_test both = {.n_prompt = 16, .n_gen = 4, .n_ubatch = 16};
    const ttx_limits lim = {.read_gbps = 0.01, .peak_gops = 0.1};
    double s = 16 / bound_of(r, p, lim).bound_ts + 4 / bound_of(r, g, lim).bound_ts;
    CHECK_NEAR(bound_of(r, both, lim).bound_ts, 20 / s);
}

/* Local layers see no more than their window. */
static void check_window(rig *r) {
    const tiny_model *t = &r->tiny;
    sums s = sums_of(t);
    int local = 0;
    for (uint32_t il = 0; il < t->n_layer; il++) local += (il + 1) % t->swa_period != 0;
    double seen = local * (double)t->n_swa + (t->n_layer - local) * 101.0;
    double bytes = 4 * (t->n_layer * (s.qkv + s.rest) + s.output + t->n_embd) + s.norms;
    bench_test test = {.n_gen = 1, .n_depth = 100, .n_ubatch = 512};
    CHECK_NEAR(bound_of(r, test, slow_memory).bytes_per_token, bytes + s.kv_row * seen);
}

/* What was not measured limits nothing. */
static void check_unknown(rig *r) {
    bench_test p = {.n_prompt = 8, .n_ubatch = 8}, g = {.n_gen = 8, .n_ubatch = 8};
    double size = (double)ttx_model_bytes(r->model);
    ttx_limits no_reads = {.peak_gops = 1}, no_peak = {.read_gbps = 1};
    ttx_limits cached = {.read_gbps = 1, .peak_gops = 1, .cache_bytes = (uint64_t)(size / 2) + 1};
    ttx_limits not_quite = {.read_gbps = 1, .peak_gops = 1, .cache_bytes = (uint64_t)(size / 2)};
    CHECK(bound_of(r, g, no_reads).bound_ts == 0);
    CHECK(bound_of(r, p, no_reads).bound_ts > 0);
    CHECK(bound_of(r, p, no_peak).bound_ts == 0);
    CHECK(bound_of(r, g, cached).bound_ts == 0);
    CHECK(bound_of(r, p, cached).bound_ts > 0);
    CHECK(bound_of(r, g, not_quite).bound_ts > 0);
}

int main(void) {
    tiny_model t = tiny_model_of("llama");
    rig r = rig_open(&t, &(rig_settings){.isa = -1});
    check_decoding(&r);
    check_prompt(&r);
    check_both(&r);
    check_unknown(&r);
    rig_close(&r);
    t = tiny_model_of("gemma3");
    r = rig_open(&t, &(rig_settings){.isa = -1});
    check_window(&r);
    rig_close(&r);
    return failures != 0;
}
