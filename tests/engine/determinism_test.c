/* determinism_test.c -- the bits of logits depend on the model, the ISA level, the KV types and the
 * class of a call, on nothing else.
 *
 * Two reference runs, one a class: `prompt` in calls of 512 tokens, `exact` token by token, both
 * with one thread over the mapping. Every other way to evaluate the same tokens must give the same
 * bits: other calls and micro-batches, two threads, other load modes, after a rewind, with only the
 * last logits wanted, with experts merged or in tensors of their own. The text is longer than an
 * attention chunk (512 positions), the heads are grouped, some layers have windows.
 */
#include "check_harness.h"
#include "engine_rig.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int failures;

enum { LONG = 1100, SHORT = 540, CALL = 512, MAX_ROWS = LONG };

/* One combination under test, and its reference rows. */
typedef struct combo {
    const char *name;
    const tiny_model *t;
    int isa;
    ttx_dtype kv;
    size_t n;
    int32_t tokens[MAX_ROWS];
    float *ref[TTX_CLASS_COUNT], *rows; /* [n][n_vocab] */
} combo;

static const char *const class_names[] = {[TTX_EXACT] = "exact", [TTX_PROMPT] = "prompt"};

/* Compares n rows from `first` on with the reference; says where the first difference is. */
static void expect_rows(const combo *c, ttx_class cls, size_t first, size_t n, const float *rows,
                        const char *what) {
    size_t n_vocab = c->t->n_vocab;
    for (size_t i = 0; i < n; i++) {
        const float *want = c->ref[cls] + (first + i) * n_vocab, *found = rows + i * n_vocab;
        if (memcmp(found, want, n_vocab * sizeof *rows) == 0) continue;
        failures++;
        size_t j = 0;
        while (memcmp(found + j, want + j, sizeof *rows) == 0) j++;
        printf("%s, %s, KV %s, %s, %s: row %zu, logit %zu: expected %.9g, found %.9g\n", c->name,
               ttx_isa_name((ttx_isa)c->isa), ttx_dtype_get(c->kv)->name, class_names[cls], what,
               first + i, j, want[j], found[j]);
        return;
    }
}

static ttx_session *session(rig *r, const combo *c, uint32_t n_ubatch, uint32_t n_outputs) {
    return rig_session(r, (ttx_session_settings){.n_ctx = (uint32_t)c->n,
                                                 .n_ubatch = n_ubatch,
                                                 .n_outputs = n_outputs,
                                                 .k_type = c->kv,
                                                 .v_type = c->kv});
}

static rig open_rig(const combo *c, int n_threads, ttx_load_mode mode) {
    return rig_open(c->t, &(rig_settings){.n_threads = n_threads, .isa = c->isa, .mode = mode});
}

/* All rows in calls of `call`. */
static void check_calls(combo *c, int n_threads, ttx_load_mode mode, ttx_class cls, size_t call) {
    static const char *const modes[] = {"mmap", "mlock", "none"};
    char what[80];
    snprintf(what, sizeof what, "calls of %zu, %d threads, load mode %s", call, n_threads,
             modes[mode]);
    rig r = open_rig(c, n_threads, mode);
    ttx_session *s = session(&r, c, 0, (uint32_t)call);
    rig_eval(&r, s, c->tokens, c->n, call, cls, c->rows);
    expect_rows(c, cls, 0, c->n, c->rows, what);
    ttx_session_close(s);
    rig_close(&r);
}

static const float *last_logits(const combo *c, ttx_session *s, size_t from, size_t to,
                                ttx_class cls) {
    ttx_err err = {0};
    if (ttx_session_eval(s, c->tokens + from, to - from, cls, TTX_WANT_LAST, &err))
        rig_die(c->name, err.msg);
    return ttx_session_logits(s, 0);
}

/* Prefixes in one call, cut into micro-batches inside, of which the last logits are wanted. */
static void check_last(combo *c, ttx_class cls, uint32_t n_ubatch) {
    const size_t prefixes[] = {1, 2, 7, 65, 513, c->n};
    char what[80];
    rig r = open_rig(c, 2, TTX_LOAD_MMAP);
    ttx_session *s = session(&r, c, n_ubatch, 1);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        ttx_session_rewind(s, 0);
        snprintf(what, sizeof what, "last of %zu, micro-batches of %u", prefixes[i], n_ubatch);
        expect_rows(c, cls, prefixes[i] - 1, 1, last_logits(c, s, 0, prefixes[i], cls), what);
    }
    ttx_session_close(s);
    rig_close(&r);
}

/* Other tokens first, then back to a position inside, and the right ones. */
static void check_rewind(combo *c, ttx_class cls) {
    size_t n_vocab = c->t->n_vocab, keep = c->n - 43;
    rig r = open_rig(c, 2, TTX_LOAD_MMAP);
    ttx_session *s = session(&r, c, 0, 64);
    int32_t other[40];
    rig_tokens(other, 40, (uint32_t)n_vocab, 99);
    rig_eval(&r, s, c->tokens, keep, 64, cls, c->rows);
    rig_eval(&r, s, other, 40, 13, cls, c->rows + keep * n_vocab);
    CHECK(memcmp(c->rows + keep * n_vocab, c->ref[cls] + keep * n_vocab, n_vocab * 4) != 0);
    ttx_session_rewind(s, (uint32_t)keep);
    CHECK_INT(ttx_session_pos(s), keep);
    rig_eval(&r, s, c->tokens + keep, c->n - keep, 5, cls, c->rows + keep * n_vocab);
    expect_rows(c, cls, 0, c->n, c->rows, "after a rewind");
    ttx_session_close(s);
    rig_close(&r);
}

/* Old files have a tensor for each expert: the same values, the same bits. */
static void check_split(combo *c) {
    tiny_model t = *c->t;
    combo split = *c;
    t.split_experts = true;
    split.t = &t;
    for (int cls = 0; cls < TTX_CLASS_COUNT; cls++) {
        rig r = open_rig(&split, 2, TTX_LOAD_MMAP);
        ttx_session *s = session(&r, &split, 0, 64);
        rig_eval(&r, s, c->tokens, c->n, 64, (ttx_class)cls, c->rows);
        expect_rows(c, (ttx_class)cls, 0, c->n, c->rows, "split experts");
        ttx_session_close(s);
        rig_close(&r);
    }
}

/* As in use: a prompt, then decoding; drafts of a few tokens give the bits of single steps. */
static void check_drafts(combo *c) {
    size_t n_vocab = c->t->n_vocab, prompt = c->n - 60;
    float *steps = rig_alloc(60 * n_vocab, sizeof *steps);
    rig r = open_rig(c, 2, TTX_LOAD_MMAP);
    ttx_session *s = session(&r, c, 0, 64);
    last_logits(c, s, 0, prompt, TTX_PROMPT);
    rig_eval(&r, s, c->tokens + prompt, 60, 1, TTX_EXACT, steps);
    const size_t drafts[] = {2, 3, 5, 16, 60};
    for (size_t i = 0; i < sizeof drafts / sizeof *drafts; i++) {
        ttx_session_rewind(s, (uint32_t)prompt);
        rig_eval(&r, s, c->tokens + prompt, 60, drafts[i], TTX_EXACT, c->rows);
        if (memcmp(c->rows, steps, 60 * n_vocab * sizeof *steps) == 0) continue;
        failures++;
        printf("%s, %s: drafts of %zu differ from single steps\n", c->name,
               ttx_isa_name((ttx_isa)c->isa), drafts[i]);
    }
    free(steps);
    ttx_session_close(s);
    rig_close(&r);
}

/* The references; and that they are worth comparing with: finite, and no two rows alike. */
static void make_references(combo *c) {
    size_t n_vocab = c->t->n_vocab;
    rig r = open_rig(c, 1, TTX_LOAD_MMAP);
    for (int cls = 0; cls < TTX_CLASS_COUNT; cls++) {
        size_t call = cls == TTX_EXACT ? 1 : CALL;
        ttx_session *s = session(&r, c, 0, (uint32_t)call);
        rig_eval(&r, s, c->tokens, c->n, call, (ttx_class)cls, c->ref[cls]);
        ttx_session_close(s);
        for (size_t i = 0; i < c->n * n_vocab; i++)
            if (!isfinite(c->ref[cls][i])) rig_die(c->name, "a logit is not finite");
        for (size_t i = 1; i < c->n; i++)
            CHECK(memcmp(c->ref[cls] + i * n_vocab, c->ref[cls] + (i - 1) * n_vocab, n_vocab * 4));
    }
    rig_close(&r);
}

static void check_combo(combo *c, bool thorough) {
    size_t n_values = c->n * c->t->n_vocab;
    c->rows = rig_alloc(n_values, sizeof *c->rows);
    for (int i = 0; i < TTX_CLASS_COUNT; i++) c->ref[i] = rig_alloc(n_values, sizeof *c->rows);
    rig_tokens(c->tokens, c->n, c->t->n_vocab, 3);
    make_references(c);
    check_calls(c, 2, TTX_LOAD_MMAP, TTX_PROMPT, 7);
    check_calls(c, 2, TTX_LOAD_MMAP, TTX_EXACT, 64);
    check_drafts(c);
    if (c->t->n_expert) check_split(c);
    if (thorough) {
        check_calls(c, 2, TTX_LOAD_MMAP, TTX_PROMPT, 1);
        check_calls(c, 2, TTX_LOAD_MMAP, TTX_PROMPT, 3);
        check_calls(c, 2, TTX_LOAD_MMAP, TTX_PROMPT, CALL);
        check_calls(c, 1, TTX_LOAD_MLOCK, TTX_PROMPT, CALL);
        check_calls(c, 1, TTX_LOAD_NONE, TTX_PROMPT, CALL);
        check_calls(c, 2, TTX_LOAD_NONE, TTX_EXACT, 1);
        check_calls(c, 1, TTX_LOAD_MMAP, TTX_EXACT, CALL);
        check_last(c, TTX_PROMPT, 1);
        check_last(c, TTX_PROMPT, 3);
        check_last(c, TTX_PROMPT, 7);
        check_last(c, TTX_PROMPT, CALL);
        check_last(c, TTX_EXACT, 7);
        check_rewind(c, TTX_PROMPT);
        check_rewind(c, TTX_EXACT);
    }
    free(c->rows);
    for (int i = 0; i < TTX_CLASS_COUNT; i++) free(c->ref[i]);
}

static const struct {
    const char *name, *arch;
    uint32_t type, expert_type;
} models[] = {
    {"llama F32", "llama", TTX_F32, 0},
    {"llama Q4_K", "llama", TTX_Q4_K, 0},
    {"qwen3 Q8_0", "qwen3", TTX_Q8_0, 0},
    {"gemma3 F16, window 40", "gemma3", TTX_F16, 0},
    {"gemma3 Q8_0, window 530", "gemma3", TTX_Q8_0, 0},
    {"mixtral Q4_K", "mixtral", TTX_Q4_K, 0},
    {"qwen2moe Q8_0", "qwen2moe", TTX_Q8_0, 0},
    {"qwen3moe F16", "qwen3moe", TTX_F16, 0},
    {"olmoe F32", "olmoe", TTX_F32, 0},
    {"gpt-oss MXFP4, window 40", "gpt-oss", TTX_Q8_0, TTX_MXFP4},
};
enum { N_MODELS = sizeof models / sizeof *models };

static tiny_model model_of(int i) {
    tiny_model t = tiny_model_of(models[i].arch);
    t.type = models[i].type;
    t.expert_type = models[i].expert_type;
    if (t.type == TTX_Q4_K) { /* 8 queries a KV head */
        t.n_embd = t.n_ff = t.n_ff_exp = 256;
        t.n_head = 8;
        t.n_head_kv = t.n_layer = 1;
    }
    if (strcmp(models[i].name, "gemma3 Q8_0, window 530") == 0) t.n_swa = 530;
    return t;
}

/* --quick, for builds with a sanitizer: only the thorough combinations, and of a short text. */
int main(int argc, char **argv) {
    static const ttx_dtype kv_types[] = {TTX_F16, TTX_F32, TTX_Q8_0};
    bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    int best = (int)ttx_isa_detect(), n = 0;
    for (int i = 0; i < N_MODELS; i++)
        for (int isa = 0; isa <= best; isa++)
            for (int kv = 0; kv < 3; kv++) {
                combo c = {.isa = isa, .kv = kv_types[kv]};
                tiny_model t = model_of(i);
                c.name = models[i].name;
                c.t = &t;
                bool thorough = isa == best && kv == 0;
                if (!thorough && quick) continue;
                if (!thorough && t.n_expert && (kv || isa))
                    continue; /* attention is that of others */
                if (isa < best && !t.n_expert && kv != 2 * (i % 2))
                    continue; /* where the arithmetic is slow */
                c.n = thorough && !quick && !t.n_expert ? LONG : SHORT;
                check_combo(&c, thorough);
                n++;
            }
    printf("%d combinations, %d failures\n", n, failures);
    return failures != 0;
}
