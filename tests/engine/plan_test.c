/* plan_test.c -- the dry run writes down what a real step does, and a step does nothing else.
 *
 * Linked with --wrap, so that every acquire and release of the engine passes through here:
 *   - a step's acquires are the plan's accesses: the same ranges in the same order; of an expert
 *     tensor, of which the plan says "k of n", exactly k different slices, where it stands;
 *   - what is handed out is a copy that is spoilt on release, and logits do not change: the engine
 *     reads no weight outside an acquire, keeps no pointer after it, and releases what it holds.
 * And the plan holds, for each architecture, each tensor that a token needs, as often as it does.
 */
#include "check_harness.h"
#include "engine_rig.h"

#include <stdlib.h>
#include <string.h>

static int failures;

/* ---- the wrapped seam ---- */

enum { MAX_SEEN = 4096, MAX_HELD = 256, GUARD = 64 };

typedef struct held {
    ttx_range range;
    uint8_t *copy;
} held;

static struct {
    bool copying;
    ttx_range seen[MAX_SEEN];
    size_t n_seen;
    held held[MAX_HELD];
    int n_held;
} seam;

int __real_ttx_residency_acquire(ttx_residency *r, ttx_range range, ttx_lease *lease, ttx_err *err);
void __real_ttx_residency_release(ttx_residency *r, ttx_range range);
int __wrap_ttx_residency_acquire(ttx_residency *r, ttx_range range, ttx_lease *lease, ttx_err *err);
void __wrap_ttx_residency_release(ttx_residency *r, ttx_range range);
int __real_ttx_residency_acquire_any(ttx_residency *r, const ttx_range *set, int n, bool *got,
                                     ttx_err *err);
int __wrap_ttx_residency_acquire_any(ttx_residency *r, const ttx_range *set, int n, bool *got,
                                     ttx_err *err);

/* Leases without a pointer: counted, so that their release is expected. */
int __wrap_ttx_residency_acquire_any(ttx_residency *r, const ttx_range *set, int n, bool *got,
                                     ttx_err *err) {
    int rc = __real_ttx_residency_acquire_any(r, set, n, got, err);
    for (int i = 0; seam.copying && !rc && i < n; i++) {
        if (!got[i]) continue;
        if (seam.n_held == MAX_HELD) rig_die("seam", "too many ranges are held at once");
        seam.held[seam.n_held++] = (held){set[i], rig_alloc(set[i].size, 1)};
    }
    return rc;
}

int __wrap_ttx_residency_acquire(ttx_residency *r, ttx_range range, ttx_lease *lease,
                                 ttx_err *err) {
    int rc = __real_ttx_residency_acquire(r, range, lease, err);
    if (seam.n_seen < MAX_SEEN) seam.seen[seam.n_seen++] = range;
    if (!seam.copying || rc) return rc;
    if (seam.n_held == MAX_HELD) rig_die("seam", "too many ranges are held at once");
    uint8_t *copy = rig_alloc(range.size + GUARD, 1);
    memcpy(copy, lease->p, range.size);
    memset(copy + range.size, 0xff, GUARD);
    seam.held[seam.n_held++] = (held){range, copy};
    lease->p = copy;
    return TTX_OK;
}

void __wrap_ttx_residency_release(ttx_residency *r, ttx_range range) {
    __real_ttx_residency_release(r, range);
    for (int i = seam.n_held - 1; i >= 0; i--) { /* the newest lease of the range */
        ttx_range h = seam.held[i].range;
        if (h.shard != range.shard || h.offset != range.offset || h.size != range.size) continue;
        memset(seam.held[i].copy, 0xff, range.size); /* NaN, to whoever still reads it */
        free(seam.held[i].copy);
        seam.held[i] = seam.held[--seam.n_held];
        return;
    }
    CHECK(!seam.copying); /* released what was not held */
}

/* ---- plan and step ---- */

static ttx_plan plan_of(const rig *r) {
    ttx_err err = {0};
    ttx_plan plan = {0};
    if (ttx_plan_decode(r->model, &plan, &err)) rig_die(r->tiny.arch, err.msg);
    return plan;
}

/* "blk.0.ffn_up.3.weight" */
static bool is_split(const char *name) {
    int layer, expert, end = 0;
    return sscanf(name, "blk.%d.ffn_%*[a-z].%d.weight%n", &layer, &expert, &end) == 2 && end;
}

/* One row, of a token that the plan's step does not have. */
static bool is_row(const rig *r, const ttx_access *a) {
    return a->op == TTX_OP_GET_ROWS ||
           strstr(gguf_tensors(r->file)[a->tensor].name, "tid2eid") != NULL;
}

static void check_range(ttx_range found, ttx_range want) {
    CHECK_INT(found.shard, want.shard);
    CHECK_INT(found.offset, want.offset);
    CHECK_INT(found.size, want.size);
}

/* Slice number of a range within the plan's accesses [from, to) of experts, which *a is set to; -1
 * if it is none. Merged experts are slices of a tensor, split ones are tensors. */
static int64_t slice_of(const ttx_plan *plan, size_t from, size_t to, ttx_range found, size_t *a) {
    for (*a = from; *a < to; ++*a) {
        ttx_range all = plan->v[*a].range;
        uint64_t size = found.size;
        if (found.shard != all.shard || found.offset < all.offset ||
            found.offset + size > all.offset + all.size)
            continue;
        if (all.size == size) return 0;
        if (all.size != size * plan->v[*a].n_expert) return -1;
        return (found.offset - all.offset) % size ? -1
                                                  : (int64_t)((found.offset - all.offset) / size);
    }
    return -1;
}

/* A run of expert accesses of the plan [from, to), and what a step acquired in its place, from
 * `seen` on: of each merged tensor k different slices; of E split ones k. Returns their number. */
static size_t check_experts(const rig *r, const ttx_plan *plan, size_t from, size_t to,
                            size_t seen) {
    size_t k = r->tiny.n_expert_used, a;
    size_t n_split = 0;
    for (a = from; a < to; a++) n_split += is_split(gguf_tensors(r->file)[plan->v[a].tensor].name);
    size_t kinds = to - from - n_split + n_split / r->tiny.n_expert;
    for (size_t i = seen; i < seen + kinds * k && i < seam.n_seen; i++) {
        CHECK(slice_of(plan, from, to, seam.seen[i], &a) >= 0);
        for (size_t j = seen; j < i; j++)
            CHECK(memcmp(&seam.seen[i], &seam.seen[j], sizeof seam.seen[i]) != 0);
    }
    for (a = from; a < to; a++) {
        size_t n = 0, hit;
        for (size_t i = seen; i < seen + kinds * k && i < seam.n_seen; i++)
            n += slice_of(plan, from, to, seam.seen[i], &hit) >= 0 && hit == a;
        if (!is_split(gguf_tensors(r->file)[plan->v[a].tensor].name)) CHECK_INT(n, k);
        CHECK_INT(plan->v[a].n_expert, r->tiny.n_expert);
        CHECK_INT(plan->v[a].n_expert_used, k);
    }
    return kinds * k;
}

static void check_step(rig *r, const ttx_plan *plan, ttx_class cls) {
    ttx_err err = {0};
    ttx_session *s = rig_session(r, (ttx_session_settings){.n_ctx = 8});
    const int32_t tokens[] = {3, 7, 5};
    for (int i = 0; i < 3; i++) {
        seam.n_seen = 0;
        if (ttx_session_eval(s, &tokens[i], 1, cls, TTX_WANT_LAST, &err))
            rig_die(r->tiny.arch, err.msg);
        size_t at = 0, end;
        for (size_t j = 0; j < plan->n && at < seam.n_seen; j = end) {
            for (end = j; end < plan->n && plan->v[end].n_expert; end++) {
            }
            if (end > j) {
                at += check_experts(r, plan, j, end, at);
                continue;
            }
            ttx_access a = plan->v[j];
            if (is_row(r, &a)) a.range.offset += (uint64_t)tokens[i] * a.range.size;
            check_range(seam.seen[at++], a.range);
            end = j + 1;
        }
        CHECK_INT(seam.n_seen, at);
    }
    ttx_session_close(s);
}

/* The same logits from copies that last no longer than they are held. */
static void check_copies(rig *r) {
    enum { N = 9 };
    size_t n_values = (size_t)N * r->tiny.n_vocab;
    float *rows[2] = {rig_alloc(n_values, 4), rig_alloc(n_values, 4)};
    int32_t tokens[N];
    rig_tokens(tokens, N, r->tiny.n_vocab, 1);
    tokens[4] = tokens[2]; /* the same row twice in one launch */
    for (int cls = 0; cls < TTX_CLASS_COUNT; cls++) {
        for (int copying = 0; copying < 2; copying++) {
            ttx_session *s = rig_session(r, (ttx_session_settings){.n_ctx = N, .n_outputs = N});
            seam.copying = copying;
            rig_eval(r, s, tokens, N, cls == TTX_EXACT ? 1 : N, (ttx_class)cls, rows[copying]);
            seam.copying = false;
            CHECK_INT(seam.n_held, 0);
            ttx_session_close(s);
        }
        CHECK(memcmp(rows[0], rows[1], n_values * sizeof(float)) == 0);
    }
    free(rows[0]);
    free(rows[1]);
}

/* ---- what should be in the plan ---- */

static size_t times_in(const ttx_plan *plan, uint32_t tensor) {
    size_t n = 0;
    for (size_t i = 0; i < plan->n; i++) n += plan->v[i].tensor == tensor;
    return n;
}

/* Every tensor of the file once: whole, or one row of the embedding. A tied embedding twice: a row
 * for the token, and the whole as the output matrix; rope_freqs once for each rotary embedding. */
static void check_coverage(const rig *r, const ttx_plan *plan) {
    const gguf_tensor *t = gguf_tensors(r->file);
    size_t total = 0;
    for (uint32_t i = 0; i < gguf_n_tensors(r->file); i++) {
        bool embd = strcmp(t[i].name, "token_embd.weight") == 0;
        bool ignored = r->tiny.no_ffn && strstr(t[i].name, "ffn_norm"); /* in the table only */
        size_t want = ignored ? 0 : embd && r->tiny.tied ? 2 : 1;
        if (times_in(plan, i) != want) {
            failures++;
            printf("%s: %s: expected %zu times in the plan, found %zu\n", r->tiny.arch, t[i].name,
                   want, times_in(plan, i));
        }
        total += want;
    }
    CHECK_INT(plan->n, total);
    for (size_t i = 0; i < plan->n; i++) {
        const ttx_access *a = &plan->v[i];
        const gguf_tensor *x = &t[a->tensor];
        bool row = is_row(r, a);
        bool expert = strstr(x->name, "_exps.") || is_split(x->name);
        CHECK_INT(a->range.offset, x->offset);
        CHECK_INT(a->range.size, row ? x->size / x->ne[1] : x->size);
        CHECK_INT(a->n_expert, expert ? r->tiny.n_expert : 0);
        CHECK_INT(a->n_expert_used, expert ? r->tiny.n_expert_used : 0);
        int layer = -1;
        if (sscanf(x->name, "blk.%d.", &layer) != 1) layer = TTX_NO_LAYER;
        CHECK_INT(a->layer, layer);
    }
}

typedef struct expected {
    const char *op, *tensor;
} expected;

static void check_order(const rig *r, const ttx_plan *plan, const expected *e, size_t n) {
    CHECK_INT(plan->n, n);
    for (size_t i = 0; i < n && i < plan->n; i++) {
        CHECK_STR(ttx_op_name(plan->v[i].op), e[i].op);
        CHECK_STR(gguf_tensors(r->file)[plan->v[i].tensor].name, e[i].tensor);
    }
}

static const expected llama_order[] = {
    {"ROPE", "rope_freqs.weight"},          {"GET_ROWS", "token_embd.weight"},
    {"RMS_NORM", "blk.0.attn_norm.weight"}, {"MUL_MAT", "blk.0.attn_q.weight"},
    {"MUL_MAT", "blk.0.attn_k.weight"},     {"MUL_MAT", "blk.0.attn_v.weight"},
    {"MUL_MAT", "blk.0.attn_q.bias"},       {"MUL_MAT", "blk.0.attn_k.bias"},
    {"MUL_MAT", "blk.0.attn_v.bias"},       {"MUL_MAT", "blk.0.attn_output.weight"},
    {"MUL_MAT", "blk.0.attn_output.bias"},  {"RMS_NORM", "blk.0.ffn_norm.weight"},
    {"MUL_MAT", "blk.0.ffn_gate.weight"},   {"MUL_MAT", "blk.0.ffn_up.weight"},
    {"MUL_MAT", "blk.0.ffn_gate.bias"},     {"MUL_MAT", "blk.0.ffn_up.bias"},
    {"MUL_MAT", "blk.0.ffn_down.weight"},   {"MUL_MAT", "blk.0.ffn_down.bias"},
    {"RMS_NORM", "output_norm.weight"},     {"MUL_MAT", "output.weight"},
};
static const expected gemma3_order[] = {
    {"GET_ROWS", "token_embd.weight"},
    {"RMS_NORM", "blk.0.attn_norm.weight"},
    {"MUL_MAT", "blk.0.attn_q.weight"},
    {"MUL_MAT", "blk.0.attn_k.weight"},
    {"MUL_MAT", "blk.0.attn_v.weight"},
    {"RMS_NORM", "blk.0.attn_q_norm.weight"},
    {"RMS_NORM", "blk.0.attn_k_norm.weight"},
    {"MUL_MAT", "blk.0.attn_output.weight"},
    {"RMS_NORM", "blk.0.post_attention_norm.weight"},
    {"RMS_NORM", "blk.0.ffn_norm.weight"},
    {"MUL_MAT", "blk.0.ffn_gate.weight"},
    {"MUL_MAT", "blk.0.ffn_up.weight"},
    {"MUL_MAT", "blk.0.ffn_down.weight"},
    {"RMS_NORM", "blk.0.post_ffw_norm.weight"},
    {"RMS_NORM", "output_norm.weight"},
    {"MUL_MAT", "token_embd.weight"},
};

static void check_model(const tiny_model *t, const expected *order, size_t n_order) {
    extern const ttx_arch ttx_arch_skeleton;
    const ttx_arch *const skeleton[] = {&ttx_arch_skeleton, NULL};
    rig r = rig_open(t, &(rig_settings){.archs = t->no_ffn ? skeleton : NULL, .isa = -1});
    ttx_plan plan = plan_of(&r);
    check_coverage(&r, &plan);
    check_step(&r, &plan, TTX_EXACT);
    check_step(&r, &plan, TTX_PROMPT);
    check_copies(&r);
    if (order) check_order(&r, &plan, order, n_order);
    ttx_plan_free(&plan);
    rig_close(&r);
}

int main(void) {
    static const char *const names[] = {"llama", "qwen2", "qwen3", "gemma3", "skeleton"};
    for (int i = 0; i < 5; i++) {
        tiny_model t = tiny_model_of(names[i]);
        check_model(&t, NULL, 0);
        t.type = TTX_Q8_0;
        t.tied = !t.tied;
        check_model(&t, NULL, 0);
    }
    static const char *const moe[] = {"mixtral", "qwen2moe", "qwen3moe", "olmoe", "gpt-oss"};
    for (int i = 0; i < 5; i++) {
        tiny_model t = tiny_model_of(moe[i]);
        check_model(&t, NULL, 0);
        t.type = TTX_Q8_0;
        t.split_experts = t.select_bias = t.hash_routing = true;
        check_model(&t, NULL, 0);
    }
    tiny_model t = tiny_model_of("llama");
    t.n_layer = 1;
    t.biases = t.rope_freqs = true;
    check_model(&t, llama_order, sizeof llama_order / sizeof *llama_order);
    t = tiny_model_of("gemma3");
    t.n_layer = 1;
    check_model(&t, gemma3_order, sizeof gemma3_order / sizeof *gemma3_order);
    return failures != 0;
}
