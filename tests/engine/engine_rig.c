/* engine_rig.c -- see engine_rig.h. The model lives in a memory file, which has a path in /proc. */
#include "engine_rig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void rig_die(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(2);
}

void *rig_alloc(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    if (!p) rig_die("test", "no memory");
    return p;
}

static gguf_file *open_tiny(const tiny_model *t) {
    char path[64];
    gguf_file *file = NULL;
    ttx_err err = {0};
    int fd = memfd_create("tiny", 0);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "w+b");
    if (!f || !tiny_model_write(t, f)) rig_die(t->arch, "cannot write the model");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (gguf_open(&file, path, &err)) rig_die(t->arch, err.msg);
    fclose(f);
    return file;
}

rig rig_open(const tiny_model *t, const rig_settings *set) {
    ttx_err err = {0};
    rig r = {.tiny = *t, .file = open_tiny(t)};
    if (ttx_model_load(&r.model, r.file, set->archs ? set->archs : ttx_archs, &err))
        rig_die(t->arch, err.msg);
    ttx_runtime_settings rs = ttx_runtime_default_settings();
    rs.n_threads = set->n_threads ? set->n_threads : 1;
    rs.isa = set->isa;
    rs.residency.mode = set->mode;
    if (set->residency) rs.residency = *set->residency;
    ttx_plan plan = {0};
    if (ttx_plan_decode(r.model, &plan, &err)) rig_die(t->arch, err.msg);
    rs.residency.plan = &plan;
    if (ttx_runtime_open(&r.rt, r.file, &rs, &err)) rig_die(t->arch, err.msg);
    ttx_plan_free(&plan);
    return r;
}

void rig_close(rig *r) {
    ttx_runtime_close(&r->rt);
    ttx_model_free(r->model);
    gguf_close(r->file);
}

ttx_session *rig_session(rig *r, ttx_session_settings set) {
    ttx_err err = {0};
    ttx_session *s;
    ttx_session_settings def = ttx_session_default_settings();
    if (!set.n_ubatch) set.n_ubatch = def.n_ubatch;
    if (!set.n_outputs) set.n_outputs = def.n_outputs;
    if (ttx_session_open(&s, r->model, &r->rt, &set, &err)) rig_die(r->tiny.arch, err.msg);
    return s;
}

void rig_tokens(int32_t *tokens, size_t n, uint32_t n_vocab, uint32_t seed) {
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        tokens[i] = (int32_t)(x % n_vocab);
    }
}

void rig_eval(rig *r, ttx_session *s, const int32_t *tokens, size_t n, size_t call, ttx_class cls,
              float *rows) {
    size_t n_vocab = r->model->hp.n_vocab;
    for (size_t at = 0; at < n; at += call) {
        size_t m = n - at < call ? n - at : call;
        ttx_err err = {0};
        if (ttx_session_eval(s, tokens + at, m, cls, TTX_WANT_ALL, &err))
            rig_die(r->tiny.arch, err.msg);
        memcpy(rows + at * n_vocab, ttx_session_logits(s, 0), m * n_vocab * sizeof *rows);
    }
}
