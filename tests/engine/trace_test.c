/* trace_test.c -- a trace is complete, true, and changes nothing.
 *
 *   - With a kernel table that counts, every call of a kernel falls into exactly one launch on
 *     record, of the operation that this kernel is for, and every launch has such a call.
 *   - Records do not depend on the number of threads, and logits not on being traced.
 *   - What a decode step reads of the file is its plan, byte for byte (trace_check does the
 *     comparison; here it is held against the bytes that the plan adds up to).
 *   - With a ring that is too small: nothing is lost by waiting, and what is dropped is counted.
 */
#include "check_harness.h"
#include "engine_rig.h"
#include "kernels.h"
#include "trace_check.h"
#include "trace_file.h"
#include "trace_tensors.h"

#include <cJSON.h>
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

static int failures;

/* ---- a kernel table that counts ---- */

typedef enum kernel {
    K_MATMUL,
    K_DEQUANT,
    K_ACT,
    K_NORM,
    K_ADD,
    K_SCALE,
    K_GLU,
    K_SOFTCAP,
    K_ROPE,
    K_STORE,
    K_ATTENTION
} kernel;

enum { MAX_CALLS = 1 << 20 };

static struct {
    ttx_kernels real;
    ttx_trace *trace;
    struct call {
        kernel kernel;
        uint64_t ns;
    } * calls;
    size_t n;
} seen;

static void saw(kernel k) {
    if (seen.n == MAX_CALLS) rig_die("kernel calls", "too many");
    seen.calls[seen.n++] = (struct call){k, ttx_trace_clock(seen.trace)};
}

static void matmul_exact(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) {
    saw(K_MATMUL);
    seen.real.matmul[TTX_EXACT][TTX_F32](m, r0, r1, scratch);
}
static void matmul_prompt(const ttx_mm *m, int64_t r0, int64_t r1, void *scratch) {
    saw(K_MATMUL);
    seen.real.matmul[TTX_PROMPT][TTX_F32](m, r0, r1, scratch);
}
static void dequant(float *dst, const void *src, int64_t n) {
    saw(K_DEQUANT);
    seen.real.dequant[TTX_F32](dst, src, n);
}
static void act_q8(const ttx_act *x, int64_t c0, int64_t c1) {
    saw(K_ACT);
    seen.real.act_q8(x, c0, c1);
}
static void rms_norm(float *y, const float *x, const float *w, int64_t n, float eps) {
    saw(K_NORM);
    seen.real.rms_norm(y, x, w, n, eps);
}
static void add(float *y, const float *x, int64_t n) {
    saw(K_ADD);
    seen.real.add(y, x, n);
}
static void scale(float *y, float s, int64_t n) {
    saw(K_SCALE);
    seen.real.scale(y, s, n);
}
static void glu(float *y, const float *gate, const float *up, int64_t n, ttx_glu kind) {
    saw(K_GLU);
    seen.real.glu(y, gate, up, n, kind);
}
static void softcap(float *y, float cap, int64_t n) {
    saw(K_SOFTCAP);
    seen.real.softcap(y, cap, n);
}
static void rope(float *x, const float *cs, int64_t n_rot, ttx_rope_layout layout) {
    saw(K_ROPE);
    seen.real.rope(x, cs, n_rot, layout);
}
static void kv_store(void *dst, const float *src, int64_t n, ttx_dtype type) {
    saw(K_STORE);
    seen.real.kv_store(dst, src, n, type);
}
static void attention(const ttx_attn *a, void *scratch) {
    saw(K_ATTENTION);
    seen.real.attention(a, scratch);
}
static void attention_chunk(const ttx_attn *a, int64_t chunk, float *part, void *scratch) {
    saw(K_ATTENTION);
    seen.real.attention_chunk(a, chunk, part, scratch);
}
static void attention_merge(const ttx_attn *a, const float *part, int64_t n_chunk) {
    saw(K_ATTENTION);
    seen.real.attention_merge(a, part, n_chunk);
}

/* Every kernel that models of F32 can call; others crash. */
static void count_kernels(rig *r) {
    ttx_kernels *k = r->rt.kernels;
    seen.real = *k;
    seen.trace = r->rt.trace;
    seen.n = 0;
    if (!seen.calls) seen.calls = rig_alloc(MAX_CALLS, sizeof *seen.calls);
    memset(k->matmul, 0, sizeof k->matmul);
    memset(k->dequant, 0, sizeof k->dequant);
    k->matmul[TTX_EXACT][TTX_F32] = matmul_exact;
    k->matmul[TTX_PROMPT][TTX_F32] = matmul_prompt;
    k->dequant[TTX_F32] = dequant;
    k->act_q8 = act_q8;
    k->rms_norm = rms_norm;
    k->add = add;
    k->scale = scale;
    k->glu = glu;
    k->softcap = softcap;
    k->rope = rope;
    k->kv_store = kv_store;
    k->attention = attention;
    k->attention_chunk = attention_chunk;
    k->attention_merge = attention_merge;
}

/* ---- traces ---- */

static char folder[] = "/tmp/ttx_trace_test.XXXXXX";

static char *trace_dir(const char *name) {
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0) rig_die(name, "no memory");
    return path;
}

static void remove_dir(const char *dir) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(dir);
}

typedef struct how {
    ttx_trace_settings set;
    int n_threads;
    bool counting;
} how;

static how usual(ttx_trace_level level) {
    how h = {.set = ttx_trace_default_settings(), .n_threads = 1};
    h.set.level = level;
    h.set.ring_records = 1 << 12;
    return h;
}

enum { PROMPT = 9, DECODE = 5, REPEAT = 3 };

/* Prompt, decode, back to position 4, decode: traced in `dir` unless it is NULL. The last logits go
 * to `logits` if that is not NULL. */
static ttx_trace_result run_traced(const tiny_model *t, how h, const char *dir, float *logits) {
    ttx_err err = {0};
    rig r = rig_open(t, &(rig_settings){.n_threads = h.n_threads});
    ttx_session *s = rig_session(&r, (ttx_session_settings){.n_ctx = 32});
    ttx_trace_tensors tensors = {0};
    ttx_trace_result res = {0};
    int32_t tokens[PROMPT + DECODE];
    rig_tokens(tokens, PROMPT + DECODE, t->n_vocab, 5);
    if (dir) {
        if (ttx_trace_tensors_make(&tensors, r.model, 32, TTX_F16, TTX_F16, &err))
            rig_die(t->arch, err.msg);
        struct cJSON *doc = ttx_trace_model_document(r.model);
        ttx_trace_info info = {tensors.v, tensors.n, tensors.n_file, doc, NULL, NULL, NULL, 0};
        h.set.dir = dir;
        if (ttx_trace_open(&r.rt.trace, &h.set, &info, &err)) rig_die(t->arch, err.msg);
        cJSON_Delete(doc);
        if (h.counting) count_kernels(&r);
    }
    ttx_session_eval(s, tokens, PROMPT, TTX_PROMPT, TTX_WANT_LAST, &err);
    for (int i = 0; i < DECODE; i++)
        ttx_session_eval(s, &tokens[PROMPT + i], 1, TTX_EXACT, TTX_WANT_LAST, &err);
    ttx_session_rewind(s, 4);
    for (int i = 0; i < REPEAT; i++)
        ttx_session_eval(s, &tokens[4 + i], 1, TTX_EXACT, TTX_WANT_LAST, &err);
    if (err.code) rig_die(t->arch, err.msg);
    if (logits) memcpy(logits, ttx_session_logits(s, 0), t->n_vocab * sizeof *logits);
    ttx_trace_close(r.rt.trace, 0, &res, &err);
    if (err.code) rig_die(t->arch, err.msg);
    r.rt.trace = NULL;
    ttx_session_close(s);
    ttx_trace_tensors_free(&tensors);
    rig_close(&r);
    return res;
}

/* All records of a trace. */
static ttx_record *records(const char *dir, size_t *n) {
    ttx_err err = {0};
    char path[300];
    ttx_trace_reader *r;
    const ttx_record *v;
    ttx_record *all = NULL;
    snprintf(path, sizeof path, "%s/%s", dir, TTX_TRACE_RECORDS);
    if (ttx_trace_reader_open(&r, path, 0, &err)) rig_die(path, err.msg);
    *n = 0;
    for (size_t k = 1; k;) {
        if (ttx_trace_reader_next(r, &v, &k, &err)) rig_die(path, err.msg);
        all = realloc(all, (*n + k + 1) * sizeof *all);
        if (!all) rig_die(path, "no memory");
        memcpy(all + *n, v, k * sizeof *v);
        *n += k;
    }
    CHECK(!ttx_trace_reader_cut(r));
    ttx_trace_reader_close(r);
    return all;
}

/* ---- completeness ---- */

static bool serves(kernel k, ttx_op_kind op) {
    switch (op) {
    case TTX_OP_GET_ROWS: return k == K_DEQUANT || k == K_SCALE;
    case TTX_OP_RMS_NORM: return k == K_NORM;
    case TTX_OP_MUL_MAT:
    case TTX_OP_MUL_MAT_ID: return k == K_MATMUL || k == K_ACT || k == K_ADD;
    case TTX_OP_ADD: return k == K_ADD || k == K_SCALE;
    case TTX_OP_SCALE: return k == K_SCALE;
    case TTX_OP_ROPE: return k == K_ROPE;
    case TTX_OP_SET_ROWS: return k == K_STORE;
    case TTX_OP_FLASH_ATTN_EXT: return k == K_ATTENTION;
    case TTX_OP_GLU: return k == K_GLU;
    case TTX_OP_SOFTCAP: return k == K_SOFTCAP;
    default: return false;
    }
}

/* Tables of angles and the choice of experts are computed without a kernel. */
static bool needs_kernel(const ttx_record *r) {
    bool angles = r->operation_type == TTX_OP_ROPE && r->layer_id == TTX_REC_NO_LAYER;
    return r->operation_type != TTX_OP_TOP_K && !angles;
}

static void test_complete(const tiny_model *t) {
    how h = usual(TTX_LEVEL_HEAD);
    char *dir = trace_dir("complete");
    h.counting = true;
    ttx_trace_result res = run_traced(t, h, dir, NULL);
    size_t n, at = 0;
    uint64_t launches = 0, outside = 0, wrong = 0;
    ttx_record *v = records(dir, &n);
    for (size_t i = 0; i < n; i++) {
        if (v[i].kind != TTX_REC_ACCESS || !(v[i].flags & TTX_RECF_FIRST)) continue;
        size_t calls = 0;
        launches++;
        for (; at < seen.n && seen.calls[at].ns < v[i].timestamp_ns; at++) outside++;
        for (; at < seen.n && seen.calls[at].ns <= v[i].timestamp_ns + v[i].duration_ns; at++) {
            calls++;
            wrong += !serves(seen.calls[at].kernel, v[i].operation_type);
        }
        if (needs_kernel(&v[i])) CHECK(calls > 0);
    }
    CHECK(seen.n > 100);
    CHECK_INT(outside + seen.n - at, 0);
    CHECK_INT(wrong, 0);
    CHECK_INT(launches, res.launches);
    CHECK_INT(n, res.records);
    CHECK_INT(res.lost, 0);
    free(v);
    remove_dir(dir);
    free(dir);
}

/* ---- truth ---- */

/* What a decode step of this model reads, by its plan; an expert's share of each matrix. */
static uint64_t plan_bytes(const tiny_model *t) {
    ttx_err err = {0};
    rig r = rig_open(t, &(rig_settings){.n_threads = 1});
    ttx_plan p = {0};
    uint64_t sum = 0;
    if (ttx_plan_decode(r.model, &p, &err)) rig_die(t->arch, err.msg);
    for (size_t i = 0; i < p.n; i++)
        sum += p.v[i].n_expert ? p.v[i].range.size * p.v[i].n_expert_used / p.v[i].n_expert
                               : p.v[i].range.size;
    ttx_plan_free(&p);
    rig_close(&r);
    return sum;
}

/* Experts of old files are tensors of their own, and each plan entry stands for k of E of them. */
static void test_bytes(const tiny_model *t) {
    for (ttx_trace_level level = TTX_LEVEL_TENSOR; level <= TTX_LEVEL_HEAD; level++) {
        char *dir = trace_dir("bytes");
        size_t n;
        run_traced(t, usual(level), dir, NULL);
        ttx_record *v = records(dir, &n);
        uint64_t bytes = 0, steps = 0, experts = 0;
        for (size_t i = 0; i < n; i++) {
            bool decode = v[i].phase == TTX_PHASE_GENERATE;
            if (v[i].kind == TTX_REC_ACCESS && decode && v[i].shard != TTX_REC_NO_SHARD)
                bytes += v[i].size_bytes;
            steps += v[i].kind == TTX_REC_TOKEN && decode;
            experts += v[i].kind == TTX_REC_ROUTE && decode;
        }
        CHECK_INT(steps, DECODE + REPEAT);
        CHECK_INT(bytes, steps * plan_bytes(t));
        CHECK_INT(experts, steps * t->n_layer * t->n_expert_used);
        free(v);
        remove_dir(dir);
        free(dir);
    }
}

/* The same records whatever the number of threads, times aside; the same logits without a trace. */
static void test_invariant(const tiny_model *t) {
    char *one = trace_dir("one"), *two = trace_dir("two");
    float *logits[3];
    size_t n[2];
    how h = usual(TTX_LEVEL_HEAD);
    for (int i = 0; i < 3; i++) logits[i] = rig_alloc(t->n_vocab, sizeof(float));
    run_traced(t, h, one, logits[0]);
    h.n_threads = 3;
    run_traced(t, h, two, logits[1]);
    run_traced(t, h, NULL, logits[2]);
    ttx_record *v[2] = {records(one, &n[0]), records(two, &n[1])};
    CHECK_INT(n[0], n[1]);
    for (size_t i = 0; i < n[0] && i < n[1]; i++)
        for (int k = 0; k < 2; k++) {
            ttx_record *r = &v[k][i];
            r->timestamp_ns = r->duration_ns = 0;
            if (r->kind != TTX_REC_ROUTE) r->tensor_ptr = 0; /* an address, or a time */
        }
    CHECK(n[0] == n[1] && memcmp(v[0], v[1], n[0] * sizeof **v) == 0);
    for (int i = 0; i < 3; i++) {
        CHECK(memcmp(logits[i], logits[0], t->n_vocab * sizeof(float)) == 0);
        if (i) free(logits[i]);
    }
    free(logits[0]);
    free(v[0]);
    free(v[1]);
    remove_dir(one);
    remove_dir(two);
    free(one);
    free(two);
}

/* ---- a ring that is too small, and a file that may not grow ---- */

static void test_overflow(const tiny_model *t) {
    char *dir = trace_dir("small");
    size_t n;
    how h = usual(TTX_LEVEL_HEAD);
    uint64_t all = run_traced(t, h, dir, NULL).records;
    remove_dir(dir);

    h.set.ring_records = 16;
    ttx_trace_result r = run_traced(t, h, dir, NULL);
    CHECK_INT(r.records, all);
    CHECK_INT(r.lost, 0);
    CHECK(r.stalls > 0);
    remove_dir(dir);

    h.set.drop = true;
    r = run_traced(t, h, dir, NULL);
    CHECK_INT(r.records + r.lost, all);
    CHECK(r.lost > 0);
    free(records(dir, &n));
    CHECK_INT(n, r.records);
    remove_dir(dir);

    h = usual(TTX_LEVEL_HEAD);
    h.set.ring_records = 256; /* so that there are several blocks */
    h.set.max_bytes = 20000;
    r = run_traced(t, h, dir, NULL);
    CHECK(r.limited && r.bytes <= 20000 && r.records < all);
    free(records(dir, &n));
    CHECK_INT(n, r.records);
    remove_dir(dir);
    free(dir);
}

int main(void) {
    static const char *const archs[] = {"llama", "gemma3", "mixtral", "qwen2moe", "gpt-oss"};
    if (!mkdtemp(folder)) rig_die(folder, "cannot be made");
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        tiny_model t = tiny_model_of(archs[i]);
        int before = failures;
        t.type = t.expert_type = TTX_F32;
        t.softcap = 20;
        test_complete(&t);
        test_bytes(&t);
        test_invariant(&t);
        if (failures > before) printf("... of %s\n", archs[i]);
    }
    tiny_model t = tiny_model_of("llama");
    test_overflow(&t);
    t = tiny_model_of("mixtral");
    t.split_experts = true;
    test_invariant(&t);
    rmdir(folder);
    free(seen.calls);
    return failures != 0;
}
