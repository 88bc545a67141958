/* naive_test.c -- every architecture, and the skeleton, against the naive model in double
 * precision.
 *
 * What this proves: the operations mean what op.h says, and layers are put together as the papers
 * say. Weights and KV cache are F32, so that only the rounding of single precision is between the
 * two: logits agree within 1e-4 of their own magnitude. Quantised experts (one layer: the router
 * sees no rounding of theirs) see activations of 8 bits: within 6e-2 then.
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
static const double TOLERANCE = 1e-4, QUANTISED = 6e-2;

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

/* A router of sigmoids, as later models have it: OLMoE's layer with another last step. */
extern const ttx_arch ttx_arch_olmoe;
static ttx_arch sigmoid_arch;
static const ttx_arch *const sigmoid_archs[] = {&sigmoid_arch, NULL};
static int configure_sigmoid(ttx_hparams *hp, ttx_err *err) {
    int rc = ttx_arch_olmoe.configure(hp, err);
    hp->router = TTX_ROUTER_SIGMOID;
    hp->router_norm = true;
    hp->router_scale = 2.5f;
    return rc;
}

static void compare(const char *what, const tiny_model *t, int isa) {
    bool sigmoid = t->router == TINY_SIGMOID;
    double tolerance = t->expert_type == TTX_F32 ? TOLERANCE : QUANTISED;
    rig r = rig_open(t, &(rig_settings){.archs = t->no_ffn ? archs
                                                 : sigmoid ? sigmoid_archs
                                                           : NULL,
                                        .isa = isa});
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
        if (!(d < tolerance)) {
            failures++;
            printf("%s, %s, %s: expected logits within %g, found %g\n", what,
                   ttx_isa_name((ttx_isa)isa), classes[cls], tolerance, d);
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

static void compare_experts(int isa) {
    static const char *const names[] = {"mixtral", "qwen2moe", "qwen3moe", "olmoe", "gpt-oss"};
    static const uint32_t types[] = {TTX_Q8_0, TTX_MXFP4};
    char what[48];
    for (int i = 0; i < 5; i++)
        for (int variant = 0; variant < 4; variant++) {
            tiny_model t = tiny_model_of(names[i]);
            t.select_bias = variant == 1;
            t.hash_routing = variant == 2;
            t.split_experts = variant == 3;
            snprintf(what, sizeof what, "%s %d", names[i], variant);
            compare(what, &t, isa);
        }
    for (int i = 0; i < 2; i++) {
        tiny_model t = tiny_model_of("gpt-oss");
        t.n_layer = 1;
        t.expert_type = types[i];
        compare(i ? "gpt-oss MXFP4" : "gpt-oss Q8_0", &t, isa);
    }
    tiny_model t = tiny_model_of("olmoe");
    t.router = TINY_SIGMOID;
    t.router_norm = true;
    t.router_scale = 2.5;
    compare("sigmoid", &t, isa);
    t.select_bias = true;
    compare("sigmoid, selection bias", &t, isa);
    t = tiny_model_of("mixtral"); /* as many as there are */
    t.n_expert_used = t.n_expert = 3;
    compare("3 of 3 experts", &t, isa);
    t.n_expert_used = 1;
    compare("1 of 3 experts", &t, isa);
}

int main(void) {
    sigmoid_arch = ttx_arch_olmoe;
    sigmoid_arch.configure = configure_sigmoid;
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
        compare_experts(isa);
    }
    return failures != 0;
}
