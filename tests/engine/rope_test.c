/* rope_test.c -- the table of a rotary embedding against its papers' formulas in double precision.
 *
 * The engine steps the angle from pair to pair in single precision (rope.c says why): pair i has
 * been rounded about i + 3 times, so its angle may be off by that many units of 2^-24 of itself.
 */
#include "check_harness.h"
#include "naive_model.h"
#include "rope.h"

#include <math.h>

static int failures;

enum { MAX_ROT = 256 };

static void check_row(const char *what, const ttx_rope *r, const naive_rope *want,
                      const float *divisors, int32_t pos) {
    float cs[MAX_ROT + 2];
    cs[r->n_rot] = 12345;
    ttx_rope_row(r, divisors, pos, cs);
    CHECK(cs[r->n_rot] == 12345); /* wrote no more than n_rot/2 pairs */
    for (int i = 0; i < (int)r->n_rot / 2; i++) {
        double magnitude, angle = naive_angle(want, pos, i, &magnitude);
        double turn = fabs(pos * pow(want->base, -2.0 * i / want->n_rot));
        double tolerance = (0x1p-23 * (i + 4) * turn + 0x1p-22) * magnitude;
        double c = fabs(cs[2 * i] - magnitude * cos(angle));
        double s = fabs(cs[2 * i + 1] - magnitude * sin(angle));
        if (c <= tolerance && s <= tolerance) continue;
        failures++;
        printf("%s: position %d, pair %d: expected (%.8f, %.8f) within %g, found (%.8f, %.8f)\n",
               what, pos, i, magnitude * cos(angle), magnitude * sin(angle), tolerance, cs[2 * i],
               cs[2 * i + 1]);
        return;
    }
}

static void check(const char *what, ttx_rope r, const float *divisors) {
    naive_rope want = {.n_rot = (int)r.n_rot,
                       .base = r.freq_base,
                       .factor = 1 / (double)r.freq_scale,
                       .yarn = r.ext_factor != 0,
                       .beta_fast = r.beta_fast,
                       .beta_slow = r.beta_slow,
                       .n_ctx_orig = r.n_ctx_orig,
                       .attn_factor = r.attn_factor,
                       .divisors = divisors};
    static const int32_t positions[] = {0, 1, 2, 17, 511, 512, 4095, 40000, 131071};
    for (size_t i = 0; i < sizeof positions / sizeof *positions; i++)
        check_row(what, &r, &want, divisors, positions[i]);
}

int main(void) {
    float divisors[MAX_ROT / 2];
    for (int i = 0; i < MAX_ROT / 2; i++)
        divisors[i] = i < 20 ? 1 : i < 40 ? 1 + 0.35f * (float)(i - 20) : 8;
    ttx_rope plain = {.n_rot = 64,
                      .freq_base = 10000,
                      .freq_scale = 1,
                      .attn_factor = 1,
                      .beta_fast = 32,
                      .beta_slow = 1,
                      .n_ctx_orig = 4096};
    check("plain", plain, NULL);
    ttx_rope r = plain;
    r.n_rot = 128;
    r.freq_base = 1e6f;
    check("128, base 1e6", r, NULL);
    r.freq_base = 500000;
    check("divisors", r, divisors);
    r = plain;
    r.n_rot = 2;
    check("one pair", r, NULL);
    r = plain;
    r.freq_scale = 0.125f;
    check("linear by 8", r, NULL);
    r.ext_factor = 1;
    check("YaRN by 8", r, NULL);
    r.freq_scale = 1.0f / 32;
    r.n_rot = 128;
    r.freq_base = 150000;
    r.attn_factor = 0.75f;
    r.beta_fast = 64;
    r.beta_slow = 2;
    check("YaRN by 32, attention factor", r, NULL);
    check("YaRN with divisors", r, divisors);
    return failures != 0;
}
