/* trace_meta.c -- see trace_meta.h. Everything read is checked: a directory may hold anything. */
#include "trace_meta.h"

#include "readfile.h"
#include "trace_file.h"

#include <cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_META = 1 << 30, MAX_TENSORS = 1 << 24 };

const char *ttx_trace_level_name(ttx_trace_level level) {
    static const char *const names[TTX_LEVELS] = {"stats", "tensor", "head", "io"};
    return names[level];
}

/* ---- where ---- */

static char *join(const char *dir, const char *name) {
    char *path;
    return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

static bool holds_trace(const char *dir) {
    struct stat st;
    char *path = join(dir, TTX_TRACE_META);
    bool found = path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
    free(path);
    return found;
}

int ttx_trace_find(char **out, const char *dir, ttx_err *err) {
    *out = NULL;
    DIR *d = opendir(dir);
    if (!d)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open the trace: %s", dir, strerror(errno));
    char newest[256] = "";
    for (struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, "run_", 4) != 0 || strcmp(e->d_name, newest) < 0) continue;
        char *path = join(dir, e->d_name);
        if (path && holds_trace(path)) snprintf(newest, sizeof newest, "%s", e->d_name);
        free(path);
    }
    closedir(d);
    if (!newest[0] && !holds_trace(dir))
        return ttx_fail(err, TTX_E_RUNTIME, "%s: expected a trace directory, found no %s", dir,
                        TTX_TRACE_META);
    *out = newest[0] ? join(dir, newest) : strdup(dir);
    return *out ? TTX_OK : ttx_fail_nomem(err, "path", strlen(dir));
}

char *ttx_trace_path(const ttx_trace_meta *m, const char *name) {
    return join(m->dir, name);
}

/* ---- reading ---- */

static int bad(const ttx_trace_meta *m, const char *what, const char *expected, ttx_err *err) {
    return ttx_fail(err, TTX_E_RUNTIME, "%s/%s: %s: expected %s", m->dir, TTX_TRACE_META, what,
                    expected);
}

static int read_json(ttx_trace_meta *m, ttx_err *err) {
    char *path = join(m->dir, TTX_TRACE_META), *text = NULL;
    size_t n = 0;
    int rc = path ? ttx_read_file(path, MAX_META, &text, &n, err) : ttx_fail_nomem(err, "path", 0);
    if (!rc) m->json = cJSON_ParseWithLength(text, n);
    if (!rc && !cJSON_IsObject(m->json)) rc = bad(m, "text", "a JSON object", err);
    free(text);
    free(path);
    return rc;
}

/* A whole number in [0, max]; `none` if the key is absent or null. */
static bool number(const cJSON *o, const char *key, double max, uint64_t none, uint64_t *v) {
    const cJSON *i = cJSON_GetObjectItemCaseSensitive(o, key);
    *v = none;
    if (!i || cJSON_IsNull(i)) return true;
    if (!cJSON_IsNumber(i) || !(i->valuedouble >= 0 && i->valuedouble <= max)) return false;
    *v = (uint64_t)i->valuedouble;
    return true;
}

static const char *string(const cJSON *o, const char *key) {
    const cJSON *i = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(i) ? i->valuestring : "";
}

static bool read_tensor(const cJSON *o, ttx_trace_tensor *t) {
    uint64_t layer, n_head, expert, shard, qkv, n_expert, row, block;
    const double far = 1ull << 53; /* what a JSON number holds exactly */
    bool ok = cJSON_IsObject(o) && number(o, "layer", UINT16_MAX - 1, TTX_REC_NO_LAYER, &layer) &&
              number(o, "n_head", UINT16_MAX - 1, 0, &n_head) &&
              number(o, "expert", UINT16_MAX - 1, TTX_REC_NO_EXPERT, &expert) &&
              number(o, "shard", UINT8_MAX - 1, TTX_REC_NO_SHARD, &shard) &&
              number(o, "qkv", TTX_QKV_COUNT - 1, 0, &qkv) &&
              number(o, "n_expert", UINT16_MAX - 1, 0, &n_expert) &&
              number(o, "row_bytes", UINT32_MAX, 0, &row) &&
              number(o, "block_bytes", UINT32_MAX, 0, &block) &&
              number(o, "expert_bytes", far, 0, &t->expert_bytes) &&
              number(o, "offset", far, TTX_REC_NO_OFFSET, &t->offset) &&
              number(o, "size", far, 0, &t->size);
    if (!ok) return false;
    t->name = string(o, "name");
    t->component = string(o, "component");
    t->layer = (uint16_t)layer;
    t->n_head = (uint16_t)n_head;
    t->expert = (uint16_t)expert;
    t->shard = (uint8_t)shard;
    t->qkv = (uint8_t)qkv;
    t->n_expert = (uint32_t)n_expert;
    t->row_bytes = (uint32_t)row;
    t->block_bytes = (uint32_t)block;
    t->strided = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(o, "strided"));
    return *t->name;
}

static int read_tensors(ttx_trace_meta *m, ttx_err *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(m->json, "tensors"), *o;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : -1;
    if (n < 0 || n > MAX_TENSORS) return bad(m, "tensors", "a list", err);
    m->tensors = ttx_arena_array(&m->arena, (size_t)n + 1, sizeof *m->tensors);
    if (!m->tensors) return ttx_fail_nomem(err, "tensor table", (size_t)n * sizeof *m->tensors);
    cJSON_ArrayForEach(o, list) {
        char what[32];
        snprintf(what, sizeof what, "tensor %u", m->n_tensor);
        if (!read_tensor(o, &m->tensors[m->n_tensor]))
            return bad(m, what, "name, component, layer, shard, offset, size", err);
        bool in_file = m->tensors[m->n_tensor].shard != TTX_REC_NO_SHARD;
        if (in_file && m->n_file_tensor != m->n_tensor)
            return bad(m, what, "those of the file before the caches", err);
        m->n_file_tensor += in_file;
        m->n_tensor++;
    }
    return TTX_OK;
}

static int read_model(ttx_trace_meta *m, ttx_err *err) {
    const cJSON *o = cJSON_GetObjectItemCaseSensitive(m->json, "model_metadata");
    const struct {
        const char *key;
        uint32_t *v;
        double max;
    } rows[] = {
        {"num_layers", &m->model.n_layer, UINT16_MAX - 1},
        {"num_heads", &m->model.n_head, UINT16_MAX - 1},
        {"num_kv_heads", &m->model.n_head_kv, UINT16_MAX - 1},
        {"hidden_dim", &m->model.n_embd, INT32_MAX},
        {"vocab_size", &m->model.n_vocab, INT32_MAX},
        {"num_experts", &m->model.n_expert, UINT16_MAX - 1},
        {"num_experts_used", &m->model.n_expert_used, UINT16_MAX - 1},
    };
    if (!cJSON_IsObject(o)) return bad(m, "model_metadata", "an object", err);
    m->model.architecture = string(o, "architecture");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t v;
        if (!number(o, rows[i].key, rows[i].max, 0, &v))
            return bad(m, rows[i].key, "a whole number that a model can have", err);
        *rows[i].v = (uint32_t)v;
    }
    return TTX_OK;
}

static int read_config(ttx_trace_meta *m, ttx_err *err) {
    const cJSON *config = cJSON_GetObjectItemCaseSensitive(m->json, "trace_config");
    const char *level = string(config, "level");
    for (m->level = 0; m->level < TTX_LEVELS; m->level++)
        if (strcmp(level, ttx_trace_level_name(m->level)) == 0) break;
    if (m->level == TTX_LEVELS)
        return bad(m, "trace_config.level", "stats, tensor, head or io", err);
    m->model_file = string(m->json, "model_file");
    m->model_hash = string(m->json, "model_hash");
    m->start_time_utc = string(m->json, "start_time_utc");
    m->complete = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(m->json, "complete"));
    const cJSON *s = cJSON_GetObjectItemCaseSensitive(m->json, "trace_stats");
    if (!m->complete) return TTX_OK;
    const cJSON *d = cJSON_GetObjectItemCaseSensitive(s, "duration_seconds");
    if (!cJSON_IsObject(s) || !number(s, "total_entries", 1ull << 53, 0, &m->total_entries) ||
        !number(s, "lost", 1ull << 53, 0, &m->lost) || !cJSON_IsNumber(d) || !(d->valuedouble >= 0))
        return bad(m, "trace_stats", "total_entries, lost, duration_seconds", err);
    m->duration_s = d->valuedouble;
    return TTX_OK;
}

int ttx_trace_meta_load(ttx_trace_meta *m, const char *dir, ttx_err *err) {
    *m = (ttx_trace_meta){0};
    uint64_t version;
    int rc = ttx_trace_find(&m->dir, dir, err);
    if (!rc) rc = read_json(m, err);
    if (!rc && (!number(m->json, "trace_version", 1e9, 0, &version) || !version))
        rc = bad(m, "trace_version", "a number", err);
    if (!rc && version != TTX_TRACE_VERSION)
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s: expected trace version %d, found %llu", m->dir,
                      TTX_TRACE_VERSION, (unsigned long long)version);
    if (!rc) rc = read_model(m, err);
    if (!rc) rc = read_config(m, err);
    if (!rc) rc = read_tensors(m, err);
    if (rc) ttx_trace_meta_free(m);
    return rc;
}

void ttx_trace_meta_free(ttx_trace_meta *m) {
    cJSON_Delete(m->json);
    ttx_arena_free(&m->arena);
    free(m->dir);
    *m = (ttx_trace_meta){0};
}
