/* session_test.c -- a session's limits and errors, and that evaluating allocates nothing.
 *
 * Linked with --wrap: every allocation of the engine's own objects is counted.
 */
#include "check_harness.h"
#include "engine_rig.h"
#include "kv.h"
#include "sampler.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static int failures;

/* ---- counted allocations ---- */

static atomic_long allocations;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
int __real_posix_memalign(void **p, size_t align, size_t n);
void *__real_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t offset);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);
int __wrap_posix_memalign(void **p, size_t align, size_t n);
void *__wrap_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t offset);
char *__wrap_strdup(const char *s);

void *__wrap_malloc(size_t n) {
    allocations++;
    return __real_malloc(n);
}
void *__wrap_calloc(size_t n, size_t size) {
    allocations++;
    return __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t n) {
    allocations++;
    return __real_realloc(p, n);
}
void *__wrap_aligned_alloc(size_t align, size_t n) {
    allocations++;
    return __real_aligned_alloc(align, n);
}
int __wrap_posix_memalign(void **p, size_t align, size_t n) {
    allocations++;
    return __real_posix_memalign(p, align, n);
}
void *__wrap_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t offset) {
    allocations++;
    return __real_mmap(addr, n, prot, flags, fd, offset);
}
char *__wrap_strdup(const char *s) {
    allocations++;
    return __real_strdup(s);
}

/* A prompt, then decode steps with a draw each: what `ttx run` does between its prompt and its
 * summary. The first step is counted too: nothing is put off until it is needed. */
static void allocates_nothing(const char *arch, uint32_t type) {
    enum { PROMPT = 20, STEPS = 50 };
    tiny_model t = tiny_model_of(arch);
    t.type = type;
    rig r = rig_open(&t, &(rig_settings){.n_threads = 2, .isa = -1});
    ttx_session *s =
        rig_session(&r, (ttx_session_settings){.n_ctx = 128, .k_type = TTX_F16, .v_type = TTX_F16});
    ttx_sampler *sampler;
    ttx_sampler_settings set = ttx_sampler_default_settings();
    ttx_err err = {0};
    int32_t tokens[PROMPT], token;
    set.repeat_penalty = 1.1f;
    CHECK_INT(ttx_sampler_open(&sampler, &set, t.n_vocab, 128, &err), 0);
    rig_tokens(tokens, PROMPT, t.n_vocab, 1);
    CHECK(allocations > 0); /* the count works */
    long before = allocations;
    CHECK_INT(ttx_session_eval(s, tokens, PROMPT, TTX_PROMPT, TTX_WANT_LAST, &err), 0);
    for (int i = 0; i < STEPS; i++) {
        CHECK_INT(ttx_sampler_draw(sampler, ttx_session_logits(s, 0), NULL, 0, &token, &err), 0);
        ttx_sampler_accept(sampler, token);
        CHECK_INT(ttx_session_eval(s, &token, 1, TTX_EXACT, TTX_WANT_LAST, &err), 0);
    }
    CHECK_INT(allocations - before, 0);
    CHECK_INT(ttx_session_pos(s), PROMPT + STEPS);
    ttx_sampler_close(sampler);
    ttx_session_close(s);
    rig_close(&r);
}

/* ---- limits ---- */

static void refuses(ttx_session *s, const int32_t *tokens, size_t n, ttx_want want,
                    const char *message) {
    ttx_err err = {0};
    uint32_t before = ttx_session_pos(s);
    CHECK_INT(ttx_session_eval(s, tokens, n, TTX_PROMPT, want, &err), TTX_E_USAGE);
    CHECK_STR(err.msg, message);
    CHECK_INT(ttx_session_pos(s), before);
}

static void limits(void) {
    enum { CTX = 10 };
    tiny_model t = tiny_model_of("llama");
    rig r = rig_open(&t, &(rig_settings){.isa = -1});
    ttx_session *s = rig_session(&r, (ttx_session_settings){.n_ctx = CTX, .n_outputs = 4});
    int32_t tokens[CTX + 2] = {0};
    ttx_err err = {0};
    refuses(s, tokens, CTX + 1, TTX_WANT_LAST,
            "context: 11 more tokens do not fit: 0 of 10 positions are taken (choose a larger -c)");
    refuses(s, tokens, 5, TTX_WANT_ALL, "logits: expected at most 4 tokens, found 5");
    tokens[2] = 96;
    refuses(s, tokens, 4, TTX_WANT_LAST, "token 2: expected an id in 0..95, found 96");
    tokens[2] = -1;
    refuses(s, tokens, 4, TTX_WANT_LAST, "token 2: expected an id in 0..95, found -1");
    tokens[2] = 95;
    CHECK_INT(ttx_session_eval(s, tokens, 0, TTX_PROMPT, TTX_WANT_LAST, &err), 0);
    CHECK_INT(ttx_session_pos(s), 0);
    CHECK_INT(ttx_session_eval(s, tokens, CTX, TTX_PROMPT, TTX_WANT_LAST, &err), 0);
    CHECK_INT(ttx_session_pos(s), CTX); /* full, to the last position */
    refuses(s, tokens, 1, TTX_WANT_NONE,
            "context: 1 more tokens do not fit: 10 of 10 positions are taken (choose a larger -c)");
    CHECK_INT(ttx_session_eval(s, tokens, 1, TTX_PROMPT, TTX_WANT_NONE, NULL), TTX_E_USAGE);
    ttx_session_rewind(s, 99); /* not ahead */
    CHECK_INT(ttx_session_pos(s), CTX);
    ttx_session_rewind(s, 9);
    CHECK_INT(ttx_session_eval(s, tokens, 1, TTX_EXACT, TTX_WANT_LAST, &err), 0);
    CHECK_INT(ttx_session_n_ctx(s), CTX);
    ttx_session_close(s);
    rig_close(&r);
}

static void settings_refused(void) {
    tiny_model t = tiny_model_of("llama");
    t.d_head = t.n_rot = 24;
    rig r = rig_open(&t, &(rig_settings){.isa = -1});
    ttx_session_settings set = ttx_session_default_settings();
    ttx_session *s = NULL;
    static const struct {
        uint32_t n_ctx, n_ubatch, n_outputs;
        ttx_dtype k_type, v_type;
        int code;
        const char *message;
    } cases[] = {
        {16, 8, 1, TTX_Q8_0, TTX_F16, TTX_E_USAGE,
         "KV cache type: expected one whose blocks divide the head sizes 24 and 24, found Q8_0 "
         "and F16"},
        {16, 8, 1, TTX_F16, TTX_Q8_0, TTX_E_USAGE,
         "KV cache type: expected one whose blocks divide the head sizes 24 and 24, found F16 and "
         "Q8_0"},
        {16, 0, 1, TTX_F16, TTX_F16, TTX_E_USAGE,
         "session: expected a batch and outputs of at least 1 and a context below 2^31, found 0, 1 "
         "and 16"},
        {16, 8, 0, TTX_F16, TTX_F16, TTX_E_USAGE,
         "session: expected a batch and outputs of at least 1 and a context below 2^31, found 8, 0 "
         "and 16"},
        {1u << 31, 8, 1, TTX_F16, TTX_F16, TTX_E_USAGE,
         "session: expected a batch and outputs of at least 1 and a context below 2^31, found 8, 1 "
         "and 2147483648"},
        {16, 8, 1, TTX_F32, TTX_F16, TTX_OK, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttx_err err = {0};
        set.n_ctx = cases[i].n_ctx;
        set.n_ubatch = cases[i].n_ubatch;
        set.n_outputs = cases[i].n_outputs;
        set.k_type = cases[i].k_type;
        set.v_type = cases[i].v_type;
        CHECK_INT(ttx_session_open(&s, r.model, &r.rt, &set, &err), cases[i].code);
        CHECK_STR(err.msg, cases[i].message);
        CHECK((s != NULL) == (cases[i].code == 0));
        ttx_session_close(s);
    }
    rig_close(&r);
}

/* What is said of memory is what the pieces need; and the context by itself. */
static void memory(void) {
    tiny_model t = tiny_model_of("llama");
    t.n_ctx = 300;
    rig r = rig_open(&t, &(rig_settings){.isa = -1});
    ttx_session *s = rig_session(&r, (ttx_session_settings){.k_type = TTX_F32, .v_type = TTX_F16});
    CHECK_INT(ttx_session_n_ctx(s), 300); /* the trained one */
    ttx_session_memory m = ttx_session_memory_used(s);
    CHECK_INT(m.kv, 2 * 300 * 2 * 32 * (4 + 2)); /* layers, positions, heads, values, bytes */
    CHECK(m.buffers > 300 * 4 * (64 + 64 + 128 + 64 + 64 + 128 + 96 + 96));
    CHECK(m.scratch > 0);
    ttx_session_close(s);
    rig_close(&r);
    t.n_ctx = 100000;
    r = rig_open(&t, &(rig_settings){.isa = -1});
    s = rig_session(&r, (ttx_session_settings){.k_type = TTX_F16, .v_type = TTX_F16});
    CHECK_INT(ttx_session_n_ctx(s), 4096); /* no more by itself */
    ttx_session_close(s);
    s = rig_session(&r, (ttx_session_settings){.n_ctx = 5000});
    CHECK_INT(ttx_session_n_ctx(s), 5000);
    ttx_session_close(s);
    rig_close(&r);
}

/* Rows of different layers, heads and positions do not overlap, and lie in the cache; a head's rows
 * of a chunk lie one after the other. */
static void kv_layout(uint32_t n_ctx, uint32_t capacity) {
    ttx_hparams hp = {.n_layer = 3, .n_head_kv = 2, .d_k = 64, .d_v = 32};
    ttx_kv kv;
    ttx_err err = {0};
    CHECK_INT(ttx_kv_open(&kv, &hp, n_ctx, TTX_Q8_0, TTX_F16, &err), 0);
    CHECK_INT(kv.bytes, ttx_kv_bytes(&hp, n_ctx, TTX_Q8_0, TTX_F16));
    CHECK_INT(kv.bytes, 3 * 2 * capacity * (2 * 34 + 32 * 2));
    for (uint64_t i = 0; i < kv.bytes; i++) CHECK_INT(kv.mem[i], 0);
    for (uint32_t pos = 0; pos < n_ctx; pos++)
        for (int l = 0; l < 3; l++)
            for (int h = 0; h < 2; h++) {
                uint8_t *k = ttx_kv_k(&kv, l, h, pos), *v = ttx_kv_v(&kv, l, h, pos);
                CHECK(k >= kv.mem && k + kv.k_row <= kv.mem + kv.bytes);
                CHECK(v >= kv.mem && v + kv.v_row <= kv.mem + kv.bytes);
                for (size_t i = 0; i < kv.k_row; i++) k[i]++;
                for (size_t i = 0; i < kv.v_row; i++) v[i]++;
                if (pos % TTX_KV_CHUNK == 0) continue;
                CHECK(k == ttx_kv_k(&kv, l, h, pos - 1) + kv.k_row);
                CHECK(v == ttx_kv_v(&kv, l, h, pos - 1) + kv.v_row);
            }
    uint64_t written = 0;
    for (uint64_t i = 0; i < kv.bytes; i++) {
        CHECK(kv.mem[i] <= 1);
        written += kv.mem[i];
    }
    CHECK_INT(written, 3 * 2 * n_ctx * (2 * 34 + 32 * 2));
    ttx_kv_close(&kv);
    ttx_kv_close(&kv);
}

int main(void) {
    allocates_nothing("llama", TTX_F32);
    allocates_nothing("gemma3", TTX_Q8_0);
    allocates_nothing("qwen2moe", TTX_Q8_0);
    allocates_nothing("gpt-oss", TTX_F16);
    limits();
    settings_refused();
    memory();
    kv_layout(7, 7);
    kv_layout(2 * TTX_KV_CHUNK + 1, 3 * TTX_KV_CHUNK);
    return failures != 0;
}
