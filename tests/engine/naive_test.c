/* naive_test.c -- every architecture, and the skeleton, against the naive model in double
 * precision.
 *
 * What this proves: the operations mean what op.h says, and layers are put together as the papers
 * say. Weights and KV cache are F32, so that only the rounding of single precision is between the
 * two: logits agree within 1e-4 of their own magnitude.
 */
#include "check_harness.h"
#include "engine_rig.h"
#include "naive_model.h"

#include <math.h>
#include <stdlib.h>

static int failures;

extern const ttx_arch ttx_arch_skeleton;
static const ttx_arch *const archs[] = {&ttx_arch_skeleton, NULL};

enum { N = 70 };
static const double TOLERANCE = 1e-4;

/* Largest difference, in units of the root mean square of the logits. */
static double distance(const float *found, const double *want, size_t n) {
    double worst = 0, square = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs(found[i] - want[i]);
        if (!(d <= worst)) worst = d; /* NaN too */
        square += want[i] * want[i];
    }
    return worst / sqrt(square / (double)n);
}

static void compare(const char *what, const tiny_model *t, int isa) {
    rig r = rig_open(t, &(rig_settings){.archs = t->no_ffn ? archs : NULL, .isa = isa});
    size_t n_rows = (size_t)N * t->n_vocab;
    int32_t tokens[N];
    float *rows = rig_alloc(n_rows, sizeof *rows);
    double *want = rig_alloc(n_rows, sizeof *want);
    rig_tokens(tokens, N, t->n_vocab, 5);
    naive_logits(t, r.file, tokens, N, want);
    static const char *const classes[] = {[TTX_EXACT] = "exact", [TTX_PROMPT] = "prompt"};
    for (int cls = 0; cls < TTX_CLASS_COUNT; cls++) {
        ttx_session *s =
            rig_session(&r, (ttx_session_settings){
                                .n_ctx = N, .n_outputs = N, .k_type = TTX_F32, .v_type = TTX_F32});
        rig_eval(&r, s, tokens, N, cls == TTX_EXACT ? 1 : N, (ttx_class)cls, rows);
        double d = distance(rows, want, n_rows);
        if (!(d < TOLERANCE)) {
            failures++;
            printf("%s, %s, %s: expected logits within %g, found %g\n", what,
                   ttx_isa_name((ttx_isa)isa), classes[cls], TOLERANCE, d);
        }
        ttx_session_close(s);
    }
    free(rows);
    free(want);
    rig_close(&r);
}

static tiny_model llama_of_many_kinds(int i) {
    tiny_model t = tiny_model_of("llama");
    t.seed = (uint32_t)i;
    switch (i) {
    case 1: t.tied = true, t.n_head_kv = 4; break;
    case 2: t.biases = true, t.n_head_kv = 1; break;
    case 3: t.rope_freqs = true, t.n_rot = 16; break; /* part of each head */
    case 4: t.rope_scaling = "linear", t.rope_factor = 4; break;
    case 5: t.rope_scaling = "yarn", t.rope_factor = 8, t.n_ctx_orig = 256; break;
    case 6: t.d_head = 24, t.n_rot = 24, t.n_head = 6, t.n_head_kv = 3, t.n_embd = 40; break;
    default: break;
    }
    return t;
}

int main(void) {
    for (int isa = 0; isa <= (int)ttx_isa_detect(); isa++) {
        tiny_model t = tiny_model_of("skeleton");
        compare("skeleton", &t, isa);
        for (int i = 0; i <= 6; i++) {
            char what[32];
            t = llama_of_many_kinds(i);
            snprintf(what, sizeof what, "llama %d", i);
            compare(what, &t, isa);
        }
        t = tiny_model_of("qwen2");
        compare("qwen2", &t, isa);
        t = tiny_model_of("qwen3");
        compare("qwen3", &t, isa);
        t = tiny_model_of("gemma3");
        compare("gemma3", &t, isa);
        t.rope_scaling = "linear"; /* of the global layers only */
        t.rope_factor = 8;
        t.softcap = 3;
        t.n_layer = 5;
        t.swa_period = 3;
        compare("gemma3, scaled and capped", &t, isa);
    }
    return failures != 0;
}
