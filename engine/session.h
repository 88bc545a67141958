/* session.h -- one mutable timeline: KV cache, buffers, position.
 *
 * Everything is sized when the session is opened; evaluating tokens allocates nothing. A session is
 * used by one thread at a time; several sessions may share a model and a runtime in turn.
 */
#ifndef TTX_SESSION_H
#define TTX_SESSION_H

#include "model.h"
#include "route.h"
#include "runtime.h"

typedef struct ttx_session ttx_session;

typedef struct ttx_session_settings {
    uint32_t n_ctx;           /* positions; 0: min(trained, 4096, what `memory` allows) */
    uint32_t n_ubatch;        /* tokens that are computed at once */
    uint32_t n_outputs;       /* rows of logits that are kept at once, at least 1 */
    uint64_t memory;          /* bytes that n_ctx 0 may lead to; 0: half of what is available */
    ttx_dtype k_type, v_type; /* of the KV cache: F32, F16, Q8_0 */
    int n_threads_batch;      /* for more than one token; 0: all of the pool */
    int n_threads;            /* for one token; 0: all of the pool */
    uint32_t k_experts; /* experts a token may have, if a route source brings more than the model */
    /* Listeners of routing decisions, and who makes them in the routers' place; NULL: the routers
     * do. Borrowed for the life of the session. */
    const ttx_route_sink *sinks;
    int n_sinks;
    const ttx_route_source *source;
} ttx_session_settings;

ttx_session_settings ttx_session_default_settings(void);

/* What a session with these settings takes, by purpose. */
typedef struct ttx_session_memory {
    uint64_t kv, buffers, scratch;
} ttx_session_memory;

/* Settings that no model allows: TTX_E_USAGE. Opening a session checks them too. */
int ttx_session_check(const ttx_session_settings *settings, ttx_err *err);

enum { TTX_CONTEXT_SHARE = 8 }; /* of a budget, for a context that was not asked for */

/* What a run takes that is neither weights nor session: the program, the file's header, the
 * vocabulary, in bytes. */
uint64_t ttx_program_bytes(const gguf_file *file);

/* What a session with these settings would take; fills in what the settings leave open. The runtime
 * needs no residency yet. */
ttx_session_memory ttx_session_estimate(const ttx_model *model, ttx_runtime *rt,
                                        ttx_session_settings *settings);

/* Model and runtime must outlive the session. Errors: TTX_E_RUNTIME (no memory), TTX_E_USAGE. */
int ttx_session_open(ttx_session **out, const ttx_model *model, ttx_runtime *rt,
                     const ttx_session_settings *settings, ttx_err *err);
void ttx_session_close(ttx_session *s); /* NULL is fine */

uint32_t ttx_session_n_ctx(const ttx_session *s);
ttx_session_memory ttx_session_memory_used(const ttx_session *s);

/* Which logits are wanted of the tokens of a call. */
typedef enum ttx_want { TTX_WANT_NONE, TTX_WANT_LAST, TTX_WANT_ALL } ttx_want;

/* Evaluates n tokens after those already there. With TTX_WANT_ALL, n is at most n_outputs. On error
 * the position stands where it stood. Errors: TTX_E_USAGE (no room in the context, a token outside
 * the vocabulary), TTX_E_RUNTIME. */
int ttx_session_eval(ttx_session *s, const int32_t *tokens, size_t n, ttx_class cls, ttx_want want,
                     ttx_err *err);

/* F32 [n_vocab]: row i of the last call's logits (row 0 for TTX_WANT_LAST). Valid until the next.
 */
const float *ttx_session_logits(const ttx_session *s, size_t row);

/* Tokens evaluated so far; forgetting all from `pos` on. */
uint32_t ttx_session_pos(const ttx_session *s);
void ttx_session_rewind(ttx_session *s, uint32_t pos);

/* The access plan of one decode step of this model, appended to `plan`. */
int ttx_plan_decode(const ttx_model *model, ttx_plan *plan, ttx_err *err);

#endif
