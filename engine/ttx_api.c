/* ttx_api.c -- see ttx.h: the library's face over gguf, models, engine and tokenizer. */
#include "ttx.h"

#include "budget.h"
#include "gguf.h"
#include "models.h"
#include "runtime.h"
#include "sampler.h"
#include "session.h"
#include "tokenizer.h"

#include <stdlib.h>
#include <string.h>

struct ttx_lm {
    ttx_err err;
    gguf_file *file;
    ttx_model *model;
    ttx_runtime rt;
    ttx_tokenizer *tok;
    ttx_session *session;
    ttx_sampler *sampler;
};

ttx_lm_settings ttx_lm_defaults(void) {
    ttx_sampler_settings s = ttx_sampler_default_settings();
    return (ttx_lm_settings){.temp = s.temp, .top_k = s.top_k, .top_p = s.top_p, .min_p = s.min_p};
}

/* What a session with these settings and all that is not weights takes; settles the context. */
static uint64_t other_bytes(ttx_lm *lm, ttx_session_settings *ss) {
    ttx_session_memory m = ttx_session_estimate(lm->model, &lm->rt, ss);
    return m.kv + m.buffers + m.scratch + ttx_program_bytes(lm->file);
}

/* Mapped if the model fits, else streamed. */
static int open_weights(ttx_lm *lm, uint64_t ram, ttx_session_settings *ss) {
    enum { SPARE_SHARE = 16 };
    ttx_residency_settings rs = ttx_residency_default_settings();
    ttx_plan plan = {0};
    uint64_t available = ttx_memory_available(), limit = ram ? ram : available;
    ss->memory = ram / TTX_CONTEXT_SHARE;
    uint64_t others = other_bytes(lm, ss);
    int rc = TTX_OK;
    if (limit && ttx_model_bytes(lm->model) + others > limit) {
        rs.mode = TTX_LOAD_STREAM;
        rs.prefetch = TTX_PREFETCH_LAYER | TTX_PREFETCH_EXPERT;
        rs.budget = ram ? ram : available - available / SPARE_SHARE;
        rs.reserved = others;
        rs.rows_at_once = ss->n_ubatch;
        rs.plan = &plan;
        rc = ttx_plan_decode(lm->model, &plan, &lm->err);
    }
    if (!rc) rc = ttx_runtime_open_residency(&lm->rt, lm->file, &rs, &lm->err);
    ttx_plan_free(&plan);
    return rc;
}

static int open_parts(ttx_lm *lm, const char *path, const ttx_lm_settings *set) {
    ttx_err *err = &lm->err;
    int rc;
    if ((rc = gguf_open(&lm->file, path, err))) return rc;
    if ((rc = ttx_model_load(&lm->model, lm->file, ttx_archs, err))) return rc;
    if ((rc = ttx_tokenizer_load(&lm->tok, lm->file, err))) return rc;
    ttx_runtime_settings rs = ttx_runtime_default_settings();
    rs.n_threads = set->n_threads;
    rs.no_residency = true;
    if ((rc = ttx_runtime_open(&lm->rt, lm->file, &rs, err))) return rc;
    ttx_session_settings ss = ttx_session_default_settings();
    ss.n_ctx = set->n_ctx;
    if ((rc = ttx_session_check(&ss, err))) return rc;
    if ((rc = open_weights(lm, set->ram, &ss))) return rc;
    if ((rc = ttx_session_open(&lm->session, lm->model, &lm->rt, &ss, err))) return rc;
    ttx_sampler_settings ps = ttx_sampler_default_settings();
    ps.seed = set->seed;
    ps.temp = set->temp;
    ps.top_k = set->top_k;
    ps.top_p = set->top_p;
    ps.min_p = set->min_p;
    return ttx_sampler_open(&lm->sampler, &ps, lm->model->hp.n_vocab,
                            ttx_session_n_ctx(lm->session), err);
}

int ttx_lm_open(ttx_lm **out, const char *path, const ttx_lm_settings *settings) {
    ttx_lm_settings set = settings ? *settings : ttx_lm_defaults();
    ttx_lm *lm = *out = calloc(1, sizeof *lm);
    return lm ? open_parts(lm, path, &set) : TTX_LM_RUNTIME;
}

void ttx_lm_close(ttx_lm *lm) {
    if (!lm) return;
    ttx_sampler_close(lm->sampler);
    ttx_session_close(lm->session);
    ttx_runtime_close(&lm->rt);
    ttx_tokenizer_free(lm->tok);
    ttx_model_free(lm->model);
    gguf_close(lm->file);
    free(lm);
}

const char *ttx_lm_error(const ttx_lm *lm) {
    return lm ? lm->err.msg : "out of memory";
}

int ttx_lm_tokenize(ttx_lm *lm, const char *text, size_t n_bytes, int32_t *ids, size_t cap,
                    size_t *n) {
    int32_t *all;
    lm->err = (ttx_err){0};
    int rc = ttx_tokenize(lm->tok, text, n_bytes, TTX_TOK_ADD_SPECIAL | TTX_TOK_PARSE_SPECIAL, &all,
                          n, &lm->err);
    if (rc) return rc;
    memcpy(ids, all, (*n < cap ? *n : cap) * sizeof *ids);
    free(all);
    return TTX_LM_OK;
}

int ttx_lm_piece(ttx_lm *lm, int32_t id, char *bytes, size_t cap, size_t *n) {
    lm->err = (ttx_err){0};
    if (id < 0 || id >= ttx_tok_n_vocab(lm->tok))
        return ttx_fail(&lm->err, TTX_E_USAGE, "token: expected an id in 0..%d, found %d",
                        ttx_tok_n_vocab(lm->tok) - 1, id);
    *n = ttx_token_bytes(lm->tok, id, bytes, cap);
    return TTX_LM_OK;
}

int ttx_lm_is_end(const ttx_lm *lm, int32_t id) {
    return ttx_tok_is_eog(lm->tok, id);
}

int ttx_lm_eval(ttx_lm *lm, const int32_t *ids, size_t n) {
    lm->err = (ttx_err){0};
    int rc = ttx_session_eval(lm->session, ids, n, n == 1 ? TTX_EXACT : TTX_PROMPT, TTX_WANT_LAST,
                              &lm->err);
    for (size_t i = 0; i < n && !rc; i++) ttx_sampler_accept(lm->sampler, ids[i]);
    return rc;
}

const float *ttx_lm_logits(const ttx_lm *lm) {
    return ttx_session_logits(lm->session, 0);
}

int ttx_lm_sample(ttx_lm *lm, int32_t *id) {
    lm->err = (ttx_err){0};
    if (!ttx_session_pos(lm->session))
        return ttx_fail(&lm->err, TTX_E_USAGE,
                        "sample: expected evaluated tokens, but nothing was evaluated");
    return ttx_sampler_draw(lm->sampler, ttx_session_logits(lm->session, 0), NULL, 0, id, &lm->err);
}

uint32_t ttx_lm_n_vocab(const ttx_lm *lm) {
    return lm->model->hp.n_vocab;
}

uint32_t ttx_lm_n_ctx(const ttx_lm *lm) {
    return ttx_session_n_ctx(lm->session);
}

uint32_t ttx_lm_pos(const ttx_lm *lm) {
    return ttx_session_pos(lm->session);
}

void ttx_lm_rewind(ttx_lm *lm, uint32_t pos) {
    ttx_session_rewind(lm->session, pos);
}
