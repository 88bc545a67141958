/* session.c -- see session.h: owns the memory of a timeline and runs steps of it. */
#include "session.h"

#include "budget.h"
#include "op.h"

#include <stdlib.h>
#include <string.h>

struct ttx_session {
    const ttx_model *model;
    ttx_runtime *rt;
    ttx_session_settings set;
    ttx_session_memory memory;
    ttx_kv kv;
    ttx_arena arena;
    ttx_op_state *op;
    uint32_t n_past;
    ttx_buf x, h, q, k, v, att, gate, up, shared, logits;
    float *rope_cs[TTX_ROPE_KINDS];
    int32_t *pos, *out_rows;
};

ttx_session_settings ttx_session_default_settings(void) {
    return (ttx_session_settings){
        .n_ubatch = 512, .n_outputs = 1, .k_type = TTX_F16, .v_type = TTX_F16};
}

/* ---- one step ---- */

/* The whole forward pass. The same code with step->plan set is the dry run. */
static void forward(ttx_step *s) {
    const ttx_arch *arch = s->model->arch;
    s->layer = -1;
    op_rope_table(s, TTX_ROPE_GLOBAL);
    if (arch->local_rope) op_rope_table(s, TTX_ROPE_LOCAL);
    arch->embed(s);
    for (int il = 0; il < (int)s->hp->n_layer; il++) {
        s->layer = il;
        if (s->rt) ttx_residency_layer(s->rt->residency, il);
        arch->layer(s, il);
    }
    s->layer = -1;
    if (s->rt) ttx_residency_layer(s->rt->residency, (int)s->hp->n_layer);
    arch->output(s);
}

int ttx_plan_decode(const ttx_model *model, ttx_plan *plan, ttx_err *err) {
    ttx_step s = {.model = model, .hp = &model->hp, .plan = plan, .n = 1, .n_out = 1, .err = err};
    forward(&s);
    return err->code;
}

static int run_step(ttx_session *s, const int32_t *tokens, int64_t n, ttx_class cls, ttx_want want,
                    ttx_err *err) {
    for (int64_t i = 0; i < n; i++) s->pos[i] = (int32_t)(s->n_past + i);
    int64_t n_out = want == TTX_WANT_ALL ? n : want == TTX_WANT_LAST;
    for (int64_t i = 0; i < n_out; i++)
        s->out_rows[i] = (int32_t)(want == TTX_WANT_ALL ? i : n - 1);
    ttx_step step = {
        .model = s->model,
        .hp = &s->model->hp,
        .rt = s->rt,
        .cls = cls,
        .n_threads = n > 1 ? s->set.n_threads_batch : s->set.n_threads,
        .n = n,
        .tokens = tokens,
        .pos = s->pos,
        .out_rows = s->out_rows,
        .n_out = n_out,
        .kv = &s->kv,
        .x = s->x,
        .h = s->h,
        .q = s->q,
        .k = s->k,
        .v = s->v,
        .att = s->att,
        .gate = s->gate,
        .up = s->up,
        .shared = s->shared,
        .sinks = s->set.sinks,
        .n_sinks = s->set.n_sinks,
        .source = s->set.source,
        .logits = s->logits,
        .op = s->op,
        .err = err,
    };
    memcpy(step.rope_cs, s->rope_cs, sizeof step.rope_cs);
    ttx_op_reset(s->op);
    ttx_trace *trace = s->rt->trace;
    uint64_t start = ttx_trace_on(trace) ? ttx_trace_now(trace) : 0;
    forward(&step);
    if (!err->code) s->n_past += (uint32_t)n;
    if (!err->code && ttx_trace_on(trace))
        ttx_trace_tokens(trace, tokens, s->pos, n,
                         cls == TTX_EXACT ? TTX_PHASE_GENERATE : TTX_PHASE_PROMPT, start);
    return err->code;
}

static int check_tokens(const ttx_session *s, const int32_t *tokens, size_t n, ttx_want want,
                        ttx_err *err) {
    if (n > s->set.n_ctx - s->n_past)
        return ttx_fail(err, TTX_E_USAGE,
                        "context: %zu more tokens do not fit: %u of %u positions are taken "
                        "(choose a larger -c)",
                        n, s->n_past, s->set.n_ctx);
    if (want == TTX_WANT_ALL && n > s->set.n_outputs)
        return ttx_fail(err, TTX_E_USAGE, "logits: expected at most %u tokens, found %zu",
                        s->set.n_outputs, n);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= s->model->hp.n_vocab)
            return ttx_fail(err, TTX_E_USAGE, "token %zu: expected an id in 0..%u, found %d", i,
                            s->model->hp.n_vocab - 1, tokens[i]);
    return TTX_OK;
}

int ttx_session_eval(ttx_session *s, const int32_t *tokens, size_t n, ttx_class cls, ttx_want want,
                     ttx_err *err) {
    ttx_err own = {0};
    if (!err) err = &own;
    int rc = check_tokens(s, tokens, n, want, err);
    uint32_t before = s->n_past;
    for (size_t at = 0; at < n && !rc;) {
        size_t part = n - at < s->set.n_ubatch ? n - at : s->set.n_ubatch;
        bool last = at + part == n;
        rc = run_step(s, tokens + at, (int64_t)part, cls,
                      want == TTX_WANT_LAST && !last ? TTX_WANT_NONE : want, err);
        at += part;
    }
    if (rc) s->n_past = before;
    return rc;
}

/* ---- opening ---- */

enum { N_BUFS = 10, DEFAULT_CTX = 4096, SMALLEST_CTX = 64 };

/* Every buffer, with its rows: what is counted is what is allocated. */
static void describe_bufs(ttx_session *s, ttx_buf *buf[N_BUFS], int64_t rows[N_BUFS]) {
    const ttx_hparams *hp = &s->model->hp;
    int64_t n = s->set.n_ubatch, n_ff = hp->n_ff > hp->n_ff_shexp ? hp->n_ff : hp->n_ff_shexp;
    struct {
        ttx_buf *b;
        int64_t dim, rows;
    } all[N_BUFS] = {
        {&s->x, hp->n_embd, n},
        {&s->h, hp->n_embd, n},
        {&s->q, (int64_t)hp->n_head * hp->d_k, n},
        {&s->k, (int64_t)hp->n_head_kv * hp->d_k, n},
        {&s->v, (int64_t)hp->n_head_kv * hp->d_v, n},
        {&s->att, (int64_t)hp->n_head * hp->d_v, n},
        {&s->gate, n_ff, n},
        {&s->up, n_ff, n},
        {&s->shared, hp->n_ff_shexp ? hp->n_embd : 0, n},
        {&s->logits, hp->n_vocab, s->set.n_outputs},
    };
    for (int i = 0; i < N_BUFS; i++) {
        buf[i] = all[i].b;
        buf[i]->dim = all[i].dim;
        rows[i] = all[i].rows;
    }
}

static ttx_op_limits op_limits(const ttx_session *s) {
    uint32_t k = s->model->hp.n_expert_used;
    if (s->set.k_experts > k) k = s->set.k_experts;
    return (ttx_op_limits){.n_tokens = s->set.n_ubatch,
                           .n_ctx = s->set.n_ctx,
                           .n_threads = ttx_pool_threads(s->rt->pool),
                           .k_experts = (int)k,
                           .kernels = s->rt->kernels};
}

static void count_memory(ttx_session *s) {
    ttx_buf *buf[N_BUFS];
    int64_t rows[N_BUFS];
    ttx_op_limits lim = op_limits(s);
    describe_bufs(s, buf, rows);
    s->memory = (ttx_session_memory){
        .kv = ttx_kv_bytes(&s->model->hp, s->set.n_ctx, s->set.k_type, s->set.v_type),
        .scratch = ttx_op_bytes(s->model, &lim),
    };
    for (int i = 0; i < N_BUFS; i++) s->memory.buffers += (uint64_t)(rows[i] * buf[i]->dim) * 4;
}

static void choose_n_ctx(ttx_session *s) {
    uint32_t trained = s->model->hp.n_ctx_train;
    s->set.n_ctx = trained < DEFAULT_CTX ? trained : DEFAULT_CTX;
    uint64_t available = s->set.memory ? s->set.memory : ttx_memory_available() / 2;
    for (;; s->set.n_ctx /= 2) {
        count_memory(s);
        uint64_t need = s->memory.kv + s->memory.buffers + s->memory.scratch;
        if (!available || need <= available || s->set.n_ctx <= SMALLEST_CTX) return;
    }
}

/* The KV cache is not touched when it is mapped: what cannot be there later is refused now. */
static int check_memory(const ttx_session *s, ttx_err *err) {
    uint64_t need = s->memory.kv + s->memory.buffers + s->memory.scratch;
    uint64_t available = ttx_memory_available();
    if (!available || need <= available) return TTX_OK;
    return ttx_fail(err, TTX_E_RUNTIME,
                    "context of %u tokens: needs %.1f GiB, %.1f GiB of memory is available; choose "
                    "a smaller -c",
                    s->set.n_ctx, (double)need / (1 << 30), (double)available / (1 << 30));
}

static int allocate(ttx_session *s, ttx_err *err) {
    const ttx_hparams *hp = &s->model->hp;
    ttx_buf *buf[N_BUFS];
    int64_t rows[N_BUFS];
    size_t n = s->set.n_ubatch;
    describe_bufs(s, buf, rows);
    bool ok = true;
    for (int i = 0; i < N_BUFS; i++) {
        buf[i]->p = ttx_arena_array(&s->arena, (size_t)(rows[i] * buf[i]->dim), sizeof(float));
        ok = ok && buf[i]->p;
    }
    for (int i = 0; i < TTX_ROPE_KINDS; i++) {
        s->rope_cs[i] = ttx_arena_array(&s->arena, n * hp->rope[i].n_rot, sizeof(float));
        ok = ok && s->rope_cs[i];
    }
    s->pos = ttx_arena_array(&s->arena, n, sizeof *s->pos);
    s->out_rows = ttx_arena_array(&s->arena, n, sizeof *s->out_rows);
    if (!ok || !s->pos || !s->out_rows)
        return ttx_fail_nomem(err, "session buffers", s->memory.buffers);
    ttx_op_limits lim = op_limits(s);
    int rc = ttx_op_open(&s->op, s->model, &lim, err);
    if (rc) return rc;
    return ttx_kv_open(&s->kv, hp, s->set.n_ctx, s->set.k_type, s->set.v_type, err);
}

/* Settles what the settings leave open, and counts. */
static void settle(ttx_session *s) {
    if (s->set.n_outputs > s->set.n_ubatch) s->set.n_ubatch = s->set.n_outputs;
    if (!s->set.n_ctx) choose_n_ctx(s);
    if (s->set.n_ubatch > s->set.n_ctx) s->set.n_ubatch = s->set.n_ctx;
    if (s->set.n_outputs > s->set.n_ubatch) s->set.n_outputs = s->set.n_ubatch;
    count_memory(s);
}

uint64_t ttx_program_bytes(const gguf_file *file) {
    enum {
        PROGRAM = 12 << 20, /* code, stacks, tables: measured, tests/prefetch holds it */
        HEADER_COPIES = 3   /* the file's header as it is mapped, and the vocabulary made of it */
    };
    uint64_t sum = PROGRAM;
    for (uint32_t i = 0; i < gguf_n_shards(file); i++)
        sum += HEADER_COPIES * gguf_get_shard(file, i)->data_offset;
    return sum;
}

ttx_session_memory ttx_session_estimate(const ttx_model *model, ttx_runtime *rt,
                                        ttx_session_settings *settings) {
    ttx_session s = {.model = model, .rt = rt, .set = *settings};
    settle(&s);
    *settings = s.set;
    return s.memory;
}

int ttx_session_check(const ttx_session_settings *settings, ttx_err *err) {
    if (settings->n_ctx > INT32_MAX || settings->n_ubatch < 1 || settings->n_outputs < 1)
        return ttx_fail(err, TTX_E_USAGE,
                        "session: expected a batch and outputs of at least 1 and a context below "
                        "2^31, found %u, %u and %u",
                        settings->n_ubatch, settings->n_outputs, settings->n_ctx);
    return TTX_OK;
}

int ttx_session_open(ttx_session **out, const ttx_model *model, ttx_runtime *rt,
                     const ttx_session_settings *settings, ttx_err *err) {
    *out = NULL;
    int rc = ttx_session_check(settings, err);
    if (rc) return rc;
    ttx_session *s = calloc(1, sizeof *s);
    if (!s) return ttx_fail_nomem(err, "session", sizeof *s);
    s->model = model;
    s->rt = rt;
    s->set = *settings;
    settle(s);
    rc = check_memory(s, err);
    if (!rc) rc = allocate(s, err);
    if (rc) {
        ttx_session_close(s);
        return rc;
    }
    *out = s;
    return TTX_OK;
}

void ttx_session_close(ttx_session *s) {
    if (!s) return;
    ttx_kv_close(&s->kv);
    ttx_op_close(s->op);
    ttx_arena_free(&s->arena);
    free(s);
}

uint32_t ttx_session_n_ctx(const ttx_session *s) {
    return s->set.n_ctx;
}

ttx_session_memory ttx_session_memory_used(const ttx_session *s) {
    return s->memory;
}

const float *ttx_session_logits(const ttx_session *s, size_t row) {
    return s->logits.p + row * (size_t)s->logits.dim;
}

uint32_t ttx_session_pos(const ttx_session *s) {
    return s->n_past;
}

void ttx_session_rewind(ttx_session *s, uint32_t pos) {
    if (pos >= s->n_past) return;
    s->n_past = pos;
    if (ttx_trace_on(s->rt->trace)) ttx_trace_restart(s->rt->trace, pos);
    for (int i = 0; i < s->set.n_sinks; i++)
        if (s->set.sinks[i].restart) s->set.sinks[i].restart(s->set.sinks[i].ctx);
}
