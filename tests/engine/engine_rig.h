/* engine_rig.h -- a tiny model, opened and ready to compute. Whatever fails ends the test. */
#ifndef ENGINE_RIG_H
#define ENGINE_RIG_H

#include "model.h"
#include "models.h"
#include "runtime.h"
#include "session.h"
#include "tiny_model.h"

#include <stddef.h>

typedef struct rig {
    tiny_model tiny;
    gguf_file *file;
    ttx_model *model;
    ttx_runtime rt;
} rig;

typedef struct rig_settings {
    const ttx_arch *const *archs; /* NULL: ttx_archs */
    int n_threads, isa;           /* 0: 1 thread; isa as in ttx_runtime_settings */
    ttx_load_mode mode;
    const ttx_residency_settings
        *residency; /* NULL: the defaults, and `mode`; the plan is filled in */
} rig_settings;

rig rig_open(const tiny_model *t, const rig_settings *set);
void rig_close(rig *r);

/* A session of this rig. n_ubatch and n_outputs 0: the defaults; KV types as given. */
ttx_session *rig_session(rig *r, ttx_session_settings set);

/* Random but reproducible tokens of a vocabulary. */
void rig_tokens(int32_t *tokens, size_t n, uint32_t n_vocab, uint32_t seed);

/* Evaluates n tokens in calls of `call`, and keeps the logits of all: rows is [n][n_vocab]. */
void rig_eval(rig *r, ttx_session *s, const int32_t *tokens, size_t n, size_t call, ttx_class cls,
              float *rows);

/* malloc that cannot fail. */
void *rig_alloc(size_t n, size_t size);

/* Ends the test with a line about what could not be done. */
_Noreturn void rig_die(const char *what, const char *why);

#endif
