/* engine_trace.c -- see engine_trace.h. */
#include "engine_trace.h"

#include "access_pattern.h"
#include "dump.h"
#include "outfile.h"
#include "tokenizer.h"

#include <cJSON.h>
#include <stdlib.h>
#include <string.h>

/* ---- files of the run ---- */

/* A file of the run, through a function that writes it. */
static int write_in(const char *dir, const char *name,
                    int (*write)(const ttx_engine *, FILE *, ttx_err *), const ttx_engine *e,
                    ttx_err *err) {
    char *path;
    ttx_outfile out;
    if (asprintf(&path, "%s/%s", dir, name) < 0) return ttx_fail_nomem(err, "path", strlen(dir));
    int rc = ttx_outfile_open(&out, path, err);
    free(path);
    return rc ? rc : ttx_outfile_close(&out, write(e, out.f, err), err);
}

static int write_expert_stats(const ttx_engine *e, FILE *f, ttx_err *err) {
    return ttx_expert_stats_json(e->stats, f, err);
}

static int write_structure(const ttx_engine *e, FILE *f, ttx_err *err) {
    return ttx_dump_csv(e->file, f, err);
}

static int write_pattern(const ttx_engine *e, FILE *f, ttx_err *err) {
    char hash[TTX_MODEL_HASH];
    ttx_trace_model_hash(e->model, hash);
    return ttx_access_pattern_write(e->model, &e->trace_tensors, hash, e->trace_done, f, err);
}

/* ---- opening ---- */

static size_t token_text(void *ctx, int32_t id, char *buf, size_t cap) {
    return ttx_token_bytes(ctx, id, buf, cap);
}

/* Options that change what is computed, or how; on top of what the command has put there. */
static bool add_options(cJSON *o, const ttx_engine *e, const ttx_engine_args *a,
                        const ttx_session *s) {
    static const char *const modes[] = {"mmap", "mlock", "none", "stream"};
    static const char *const types[] = {"f16", "f32", "q8_0"};
    ttx_load_mode mode = ttx_residency_mode(e->rt.residency);
    return cJSON_AddNumberToObject(o, "n_threads", ttx_pool_threads(e->rt.pool)) &&
           cJSON_AddNumberToObject(o, "n_ctx", ttx_session_n_ctx(s)) &&
           cJSON_AddNumberToObject(o, "n_ubatch", a->n_ubatch) &&
           cJSON_AddStringToObject(o, "cache_type_k", types[a->k_type]) &&
           cJSON_AddStringToObject(o, "cache_type_v", types[a->v_type]) &&
           cJSON_AddStringToObject(o, "load_mode",
                                   (size_t)mode < sizeof modes / sizeof *modes ? modes[mode]
                                                                               : "other") &&
           cJSON_AddStringToObject(o, "isa", ttx_isa_name(e->rt.isa)) &&
           cJSON_AddNumberToObject(o, "n_expert_used", e->model->hp.n_expert_used) &&
           (!a->routes || cJSON_AddStringToObject(o, "routes", a->routes));
}

static cJSON *make_document(const ttx_engine *e, const ttx_engine_args *a, const ttx_session *s) {
    cJSON *doc = ttx_trace_model_document(e->model);
    cJSON *config = e->trace_config ? cJSON_Duplicate(e->trace_config, true) : cJSON_CreateObject();
    if (doc && config && add_options(config, e, a, s) &&
        cJSON_AddItemToObject(doc, "inference_config", config))
        return doc;
    cJSON_Delete(doc);
    cJSON_Delete(config);
    return NULL;
}

static ttx_trace_settings trace_settings(const ttx_engine_args *a) {
    ttx_trace_settings set = ttx_trace_default_settings();
    set.dir = a->trace;
    set.level = (ttx_trace_level)a->trace_level;
    set.drop = a->trace_overflow;
    set.compress = a->trace_compress;
    set.max_bytes = a->trace_max;
    return set;
}

uint64_t ttx_engine_trace_bytes(const ttx_model *m, const ttx_engine_args *a) {
    if (!a->trace) return 0;
    const ttx_hparams *hp = &m->hp;
    ttx_trace_settings set = trace_settings(a);
    uint32_t n_tensor = gguf_n_tensors(m->file) + 2 * hp->n_layer; /* and the caches */
    int n_threads = ttx_engine_threads(a);
    return ttx_trace_memory(&set, n_tensor, n_threads) +
           (hp->n_expert ? ttx_expert_stats_bytes(hp->n_layer, hp->n_expert) : 0);
}

int ttx_engine_trace_open(ttx_engine *e, const ttx_engine_args *a, const ttx_session *s,
                          ttx_err *err) {
    static const ttx_dtype types[] = {TTX_F16, TTX_F32, TTX_Q8_0};
    if (!a->trace || e->rt.trace) return TTX_OK;
    if (a->n_ubatch > UINT16_MAX)
        return ttx_fail(err, TTX_E_USAGE, "--trace: expected a batch (-ub) of at most %d, found %u",
                        UINT16_MAX, a->n_ubatch);
    int rc = ttx_trace_tensors_make(&e->trace_tensors, e->model, ttx_session_n_ctx(s),
                                    types[a->k_type], types[a->v_type], err);
    if (rc) return rc;
    cJSON *doc = make_document(e, a, s);
    if (!doc) return ttx_fail_nomem(err, "trace metadata", 4096);
    ttx_trace_settings set = trace_settings(a);
    ttx_load_mode mode = ttx_residency_mode(e->rt.residency);
    bool copies = mode == TTX_LOAD_STREAM || mode == TTX_LOAD_NONE;
    ttx_trace_info info = {.tensors = e->trace_tensors.v,
                           .n_tensor = e->trace_tensors.n,
                           .n_file_tensor = e->trace_tensors.n_file,
                           .document = doc,
                           .token_text = e->tok ? token_text : NULL,
                           .token_ctx = (void *)e->tok,
                           .sources = copies ? NULL : e->trace_tensors.sources,
                           .n_source = gguf_n_shards(e->file)};
    rc = ttx_trace_open(&e->rt.trace, &set, &info, err);
    cJSON_Delete(doc);
    if (!rc) ttx_residency_trace(e->rt.residency, e->rt.trace);
    const char *dir = rc ? NULL : ttx_trace_dir(e->rt.trace);
    if (!rc) rc = write_in(dir, "access_pattern.json", write_pattern, e, err);
    if (!rc) rc = write_in(dir, "gguf_structure.csv", write_structure, e, err);
    return rc;
}

/* ---- ending ---- */

int ttx_engine_trace_close(ttx_engine *e, int rc, ttx_err *err) {
    if (!e->rt.trace) return rc;
    ttx_trace_result r;
    ttx_residency_trace(e->rt.residency, NULL);
    ttx_trace_level level = e->rt.trace->level;
    if (!rc && e->stats)
        rc = write_in(ttx_trace_dir(e->rt.trace), "expert_stats.json", write_expert_stats, e, err);
    rc = ttx_trace_close(e->rt.trace, rc, &r, err);
    e->rt.trace = NULL;
    e->trace_done = r.dir;
    if (!rc && e->model->hp.n_expert && level > TTX_LEVEL_STATS)
        rc = write_in(r.dir, "access_pattern.json", write_pattern, e, err);
    e->trace_done = NULL;
    ttx_note("trace: %llu records of %llu launches, %.1f MiB, in %s%s",
             (unsigned long long)r.records, (unsigned long long)r.launches,
             (double)r.bytes / (1 << 20), r.dir,
             r.limited ? "; recording stopped at --trace-max" : "");
    if (r.lost) ttx_note("trace: %llu records were lost", (unsigned long long)r.lost);
    return rc;
}
