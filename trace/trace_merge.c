/* trace_merge.c -- see trace_merge.h. */
#include "trace_merge.h"

#include "outfile.h"
#include "recorder_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What the runs are written to: blocks, framed as the recorder frames them. */
struct sink {
    FILE *f, *tokens;
    ttx_crc crc;
    ttx_record *block; /* [TTX_TRACE_BLOCK_MAX] */
    size_t n;
    uint64_t records, lost, bytes, batch, last_ns;
};

static void put_frame(struct sink *k, uint8_t kind, const ttx_record *v, size_t n) {
    ttx_frame f = ttx_frame_make(kind);
    f.first = k->records;
    f.lost = k->lost;
    f.time_ns = k->last_ns;
    f.n_records = (uint32_t)n;
    f.crc = n ? ttx_crc32(&k->crc, 0, v, n * sizeof *v) : 0;
    ttx_frame_seal(&k->crc, &f);
    fwrite(&f, sizeof f, 1, k->f);
    if (n) fwrite(v, sizeof *v, n, k->f);
    k->records += n;
    k->bytes += sizeof f + n * sizeof *v;
}

static void put_record(struct sink *k, const ttx_record *r) {
    k->block[k->n++] = *r;
    if (r->timestamp_ns > k->last_ns) k->last_ns = r->timestamp_ns;
    if (k->n < TTX_TRACE_BLOCK_MAX) return;
    put_frame(k, TTX_FRAME_BLOCK, k->block, k->n);
    k->n = 0;
}

/* One run of the merge, by its start. */
struct part {
    ttx_trace_meta m;
    double start_ns;
};

static int by_start(const void *a, const void *b) {
    const struct part *x = a, *y = b;
    return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

static int copy_run(struct sink *k, const struct part *p, double first_ns, bool restart,
                    ttx_err *err) {
    ttx_trace_reader *in = NULL;
    char *path = ttx_trace_path(&p->m, TTX_TRACE_RECORDS);
    if (!path) return ttx_fail_nomem(err, "path", 0);
    uint64_t shift = (uint64_t)(p->start_ns - first_ns), batches = k->batch;
    int rc = ttx_trace_reader_open(&in, path, 0, err);
    ttx_record r = ttx_record_none(TTX_REC_RESTART);
    r.timestamp_ns = shift;
    r.token_id = 0;
    if (!rc && restart) put_record(k, &r);
    const ttx_record *v;
    for (size_t n = 1; !rc && n;) {
        rc = ttx_trace_reader_next(in, &v, &n, err);
        for (size_t i = 0; i < n; i++) {
            r = v[i];
            r.timestamp_ns += shift;
            if (r.kind == TTX_REC_TOKEN) {
                r.end_ns += shift;
                r.batch += batches;
                k->batch = r.batch + 1;
            }
            put_record(k, &r);
        }
    }
    if (!rc) k->lost += ttx_trace_reader_lost(in);
    ttx_trace_reader_close(in);
    free(path);
    return rc;
}

/* tokens.csv of a run, batches and times shifted as in its records; the text is kept as it is. */
static int copy_tokens(struct sink *k, const struct part *p, double first_ns, uint64_t batches,
                       ttx_err *err) {
    char *path = ttx_trace_path(&p->m, "tokens.csv"), *line = NULL;
    size_t cap = 0;
    FILE *f = path ? fopen(path, "re") : NULL;
    unsigned long long shift = (unsigned long long)(p->start_ns - first_ns), batch, start, end;
    char phase[16];
    bool first = true;
    for (ssize_t n; f && (n = getline(&line, &cap, f)) > 0; first = false) {
        if (first) continue;
        /* the four last fields have no comma inside; a text may go over several lines */
        int commas = 0;
        char *at = line + n;
        while (at > line && commas < 4)
            if (*--at == ',') commas++;
        if (commas == 4 && sscanf(at, ",%15[A-Z],%llu,%llu,%llu", phase, &batch, &start, &end) == 4)
            fprintf(k->tokens, "%.*s,%s,%llu,%llu,%llu\n", (int)(at - line), line, phase,
                    batch + batches, start + shift, end + shift);
        else
            fwrite(line, 1, (size_t)n, k->tokens);
    }
    bool bad = !f || ferror(f);
    if (bad) ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read: %s", path ? path : "", strerror(errno));
    if (f) fclose(f);
    free(line);
    free(path);
    return bad ? TTX_E_RUNTIME : TTX_OK;
}

static int load_parts(struct part *v, const char *const *dirs, int n, ttx_err *err) {
    for (int i = 0; i < n; i++) {
        int rc = ttx_trace_meta_load(&v[i].m, dirs[i], err);
        if (rc) return rc;
        const cJSON *clock = cJSON_GetObjectItemCaseSensitive(v[i].m.json, "clock");
        const cJSON *start = cJSON_GetObjectItemCaseSensitive(clock, "start_realtime_ns");
        if (!cJSON_IsNumber(start) || !(start->valuedouble >= 0 && start->valuedouble < 1e19))
            return ttx_fail(err, TTX_E_RUNTIME, "%s: clock.start_realtime_ns: expected a number",
                            v[i].m.dir);
        v[i].start_ns = start->valuedouble;
        if (strcmp(v[i].m.model_hash, v[0].m.model_hash) != 0 || v[i].m.n_tensor != v[0].m.n_tensor)
            return ttx_fail(err, TTX_E_USAGE,
                            "merge: expected traces of one model, found %s and %s",
                            v[0].m.model_file, v[i].m.model_file);
    }
    qsort(v, (size_t)n, sizeof *v, by_start);
    return TTX_OK;
}

/* The document of the first run, with the totals of all. */
static int write_document(const char *out, struct part *v, int n, const struct sink *k,
                          ttx_err *err) {
    cJSON *doc = v[0].m.json, *list = cJSON_AddArrayToObject(doc, "merged");
    for (int i = 0; i < n; i++) cJSON_AddItemToArray(list, cJSON_CreateString(v[i].m.dir));
    cJSON_DeleteItemFromObjectCaseSensitive(doc, "trace_stats");
    cJSON_ReplaceItemInObjectCaseSensitive(doc, "complete", cJSON_CreateTrue());
    cJSON *s = cJSON_AddObjectToObject(doc, "trace_stats");
    bool ok = list && s && cJSON_AddNumberToObject(s, "total_entries", (double)k->records) &&
              cJSON_AddNumberToObject(s, "lost", (double)k->lost) &&
              cJSON_AddNumberToObject(s, "duration_seconds", (double)k->last_ns * 1e-9) &&
              cJSON_AddNumberToObject(s, "log_file_size_mb", (double)k->bytes / 1e6);
    char *text = ok ? cJSON_Print(doc) : NULL, *path;
    if (!text) return ttx_fail_nomem(err, "trace metadata", 4096);
    ttx_outfile o;
    int rc = asprintf(&path, "%s/%s", out, TTX_TRACE_META) < 0 ? ttx_fail_nomem(err, "path", 64)
                                                               : TTX_OK;
    if (!rc) {
        rc = ttx_outfile_open(&o, path, err);
        if (!rc) {
            fprintf(o.f, "%s\n", text);
            rc = ttx_outfile_close(&o, rc, err);
        }
        free(path);
    }
    free(text);
    return rc;
}

/* Files that describe the model alone are those of any run. */
static int copy_file(const char *out, const struct part *p, const char *name, ttx_err *err) {
    char *from = ttx_trace_path(&p->m, name), *to, buf[1 << 16];
    ttx_outfile o;
    FILE *f = from ? fopen(from, "re") : NULL;
    free(from);
    if (!f) return TTX_OK; /* an incomplete run may lack it */
    int rc = asprintf(&to, "%s/%s", out, name) < 0 ? ttx_fail_nomem(err, "path", 64) : TTX_OK;
    if (!rc) {
        rc = ttx_outfile_open(&o, to, err);
        for (size_t n; !rc && (n = fread(buf, 1, sizeof buf, f));) fwrite(buf, 1, n, o.f);
        if (!rc) rc = ttx_outfile_close(&o, rc, err);
        free(to);
    }
    fclose(f);
    return rc;
}

static int open_in(FILE **f, const char *dir, const char *name, ttx_err *err) {
    char *path;
    if (asprintf(&path, "%s/%s", dir, name) < 0) return ttx_fail_nomem(err, "path", strlen(dir));
    *f = fopen(path, "wxe");
    int rc =
        *f ? TTX_OK : ttx_fail(err, TTX_E_RUNTIME, "%s: cannot create: %s", path, strerror(errno));
    free(path);
    return rc;
}

static int merge_into(const char *out, struct part *v, int n, struct sink *k, ttx_err *err) {
    int rc = open_in(&k->f, out, TTX_TRACE_RECORDS, err);
    if (!rc) rc = open_in(&k->tokens, out, "tokens.csv", err);
    if (rc) return rc;
    ttx_crc_init(&k->crc);
    put_frame(k, TTX_FRAME_HEADER, NULL, 0);
    fputs("token_id,vocab_id,text,phase,batch,start_ns,end_ns\n", k->tokens);
    for (int i = 0; i < n && !rc; i++) {
        uint64_t batches = k->batch;
        rc = copy_run(k, &v[i], v[0].start_ns, i > 0, err);
        if (!rc) rc = copy_tokens(k, &v[i], v[0].start_ns, batches, err);
    }
    if (rc) return rc;
    if (k->n) put_frame(k, TTX_FRAME_BLOCK, k->block, k->n);
    put_frame(k, TTX_FRAME_END, NULL, 0);
    if (fflush(k->f) || ferror(k->f) || fflush(k->tokens) || ferror(k->tokens))
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot write: %s", out, strerror(errno));
    static const char *const same[] = {"tensor_names.txt", "gguf_structure.csv",
                                       "access_pattern.json"};
    for (size_t i = 0; i < sizeof same / sizeof *same && !rc; i++)
        rc = copy_file(out, &v[0], same[i], err);
    return rc ? rc : write_document(out, v, n, k, err);
}

int ttx_trace_merge(const char *out, const char *const *dirs, int n, ttx_err *err) {
    struct sink k = {0};
    char *dir = NULL;
    struct part *v = calloc((size_t)n, sizeof *v);
    k.block = malloc(TTX_TRACE_BLOCK_MAX * sizeof *k.block);
    int rc = v && k.block ? load_parts(v, dirs, n, err)
                          : ttx_fail_nomem(err, "merge", TTX_TRACE_BLOCK_MAX * sizeof *k.block);
    struct stat st;
    char *meta = NULL;
    if (!rc && asprintf(&meta, "%s/%s", out, TTX_TRACE_META) < 0) meta = NULL;
    if (!rc && meta && stat(meta, &st) == 0)
        rc = ttx_fail(err, TTX_E_USAGE, "%s: expected no trace there, found one", out);
    if (!rc) rc = trace_dir_make(&dir, out, err);
    if (!rc) rc = merge_into(dir, v, n, &k, err);
    if (k.f) fclose(k.f);
    if (k.tokens) fclose(k.tokens);
    for (int i = 0; v && i < n; i++) ttx_trace_meta_free(&v[i].m);
    free(v);
    free(k.block);
    free(meta);
    free(dir);
    return rc;
}
