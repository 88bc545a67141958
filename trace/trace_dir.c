/* trace_dir.c -- the recorder's directory: where a run goes, and its files beside the records. */
#include "recorder_int.h"

#include "outfile.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* ---- where ---- */

enum dir_state { DIR_NONE, DIR_EMPTY, DIR_TRACE, DIR_OTHER };

static int look_at(const char *dir, enum dir_state *state, ttx_err *err) {
    DIR *d = opendir(dir);
    *state = DIR_NONE;
    if (!d && errno == ENOENT) return TTX_OK;
    if (!d) return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", dir, strerror(errno));
    *state = DIR_EMPTY;
    for (struct dirent *e; (e = readdir(d)) && *state != DIR_TRACE;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        *state = strcmp(e->d_name, TTX_TRACE_META) == 0 ? DIR_TRACE : DIR_OTHER;
    }
    closedir(d);
    return TTX_OK;
}

/* mkdir, with the folders above. */
static int make_dirs(char *path, ttx_err *err) {
    for (char *p = path + 1;; p++) {
        if (*p && *p != '/') continue;
        char c = *p;
        *p = 0;
        bool bad = mkdir(path, 0777) && errno != EEXIST;
        int e = errno;
        if (bad) ttx_fail(err, TTX_E_RUNTIME, "%s: cannot create: %s", path, strerror(e));
        *p = c;
        if (bad) return TTX_E_RUNTIME;
        if (!c) return TTX_OK;
    }
}

/* DIR/run_<UTC>, and _2, _3 ... in the same second. */
static int make_run(char **out, const char *dir, ttx_err *err) {
    char stamp[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", gmtime_r(&now, &tm));
    for (int i = 1; i < 1000; i++) {
        char more[8] = "";
        if (i > 1) snprintf(more, sizeof more, "_%03d", i);
        if (asprintf(out, "%s/run_%s%s", dir, stamp, more) < 0) {
            *out = NULL;
            return ttx_fail_nomem(err, "path", strlen(dir));
        }
        if (mkdir(*out, 0777) == 0) return TTX_OK;
        if (errno != EEXIST) break;
        free(*out);
        *out = NULL;
    }
    return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot create a run in it: %s", dir, strerror(errno));
}

int trace_dir_make(char **out, const char *dir, ttx_err *err) {
    enum dir_state state;
    *out = NULL;
    if (!*dir)
        return ttx_fail(err, TTX_E_USAGE, "trace: expected a directory, found an empty name");
    int rc = look_at(dir, &state, err);
    if (rc) return rc;
    if (state == DIR_TRACE) return make_run(out, dir, err);
    if (state == DIR_OTHER)
        return ttx_fail(err, TTX_E_USAGE,
                        "%s: expected a directory that is empty or holds a trace, found other "
                        "files",
                        dir);
    if (!(*out = strdup(dir))) return ttx_fail_nomem(err, "path", strlen(dir));
    return make_dirs(*out, err);
}

/* ---- the document ---- */

struct named {
    const char *key;
    const char *(*name)(uint32_t);
    uint32_t n;
};

static const char *op_name(uint32_t i) {
    return ttx_rec_op_name(TTX_REC_ACCESS, i);
}
static const char *cause_name(uint32_t i) {
    return ttx_rec_op_name(TTX_REC_IO, i);
}
static const char *fault_name(uint32_t i) {
    return ttx_rec_op_name(TTX_REC_FAULT, i);
}

static bool add_names(cJSON *doc) {
    const struct named rows[] = {
        {"kind", ttx_rec_kind_name, TTX_REC_COUNT},
        {"operation_type", op_name, TTX_OP_COUNT},
        {"phase", ttx_phase_name, TTX_PHASE_COUNT},
        {"qkv_type", ttx_qkv_name, TTX_QKV_COUNT},
        {"residency", ttx_residency_name, TTX_RES_COUNT},
        {"io_cause", cause_name, TTX_IO_CAUSE_COUNT},
        {"fault", fault_name, TTX_FAULT_COUNT},
    };
    cJSON *all = cJSON_AddObjectToObject(doc, "enums");
    bool ok = all;
    for (size_t i = 0; ok && i < sizeof rows / sizeof *rows; i++) {
        cJSON *list = cJSON_AddArrayToObject(all, rows[i].key);
        ok = list;
        for (uint32_t k = 0; ok && k < rows[i].n; k++) {
            const char *name = rows[i].name(k);
            ok = cJSON_AddItemToArray(list, cJSON_CreateString(name ? name : ""));
        }
    }
    return ok;
}

static bool add_dtype(cJSON *doc) {
#define FIELD(name, format) \
    { #name, format, offsetof(ttx_record, name) }
    static const struct {
        const char *name, *format;
        size_t offset;
    } rows[] = {
        FIELD(timestamp_ns, "<u8"), FIELD(tensor_ptr, "<u8"),     FIELD(file_offset, "<u8"),
        FIELD(size_bytes, "<u8"),   FIELD(duration_ns, "<u4"),    FIELD(token_id, "<u4"),
        FIELD(tensor_idx, "<u4"),   FIELD(routing_score, "<f4"),  FIELD(n_tokens, "<u2"),
        FIELD(layer_id, "<u2"),     FIELD(attention_head, "<u2"), FIELD(expert_id, "<u2"),
        FIELD(kind, "u1"),          FIELD(operation_type, "u1"),  FIELD(phase, "u1"),
        FIELD(qkv_type, "u1"),      FIELD(expert_rank, "u1"),     FIELD(residency, "u1"),
        FIELD(shard, "u1"),         FIELD(flags, "u1"),           FIELD(expert_weight, "<f4"),
    };
#undef FIELD
    cJSON *o = cJSON_AddObjectToObject(doc, "record_dtype");
    cJSON *names = cJSON_AddArrayToObject(o, "names");
    cJSON *formats = cJSON_AddArrayToObject(o, "formats");
    cJSON *offsets = cJSON_AddArrayToObject(o, "offsets");
    bool ok = names && formats && offsets;
    for (size_t i = 0; ok && i < sizeof rows / sizeof *rows; i++)
        ok = cJSON_AddItemToArray(names, cJSON_CreateString(rows[i].name)) &&
             cJSON_AddItemToArray(formats, cJSON_CreateString(rows[i].format)) &&
             cJSON_AddItemToArray(offsets, cJSON_CreateNumber((double)rows[i].offset));
    return ok && cJSON_AddNumberToObject(o, "itemsize", sizeof(ttx_record));
}

/* The rest of the line that begins with `key` in a file of "key : value" lines. */
static void line_value(const char *path, const char *key, char *value, size_t size) {
    char line[512];
    FILE *f = fopen(path, "re");
    *value = 0;
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, key, strlen(key)) != 0) continue;
        const char *p = line + strlen(key);
        p += strspn(p, "\t :");
        snprintf(value, size, "%.*s", (int)strcspn(p, "\n"), p);
        break;
    }
    if (f) fclose(f);
}

/* "vda", "nvme0n1p1": the device that a file is on; "" if nobody knows. */
static void disk_of(const char *path, char *name, size_t size) {
    struct stat st;
    char link[64], to[256];
    *name = 0;
    if (stat(path, &st)) return;
    snprintf(link, sizeof link, "/sys/dev/block/%u:%u", major(st.st_dev), minor(st.st_dev));
    ssize_t n = readlink(link, to, sizeof to - 1);
    if (n <= 0) return;
    to[n] = 0;
    const char *slash = strrchr(to, '/');
    snprintf(name, size, "%.*s", (int)size - 1, slash ? slash + 1 : to);
}

static bool add_system(cJSON *doc) {
    struct utsname u = {0};
    char cpu[128], disk[64];
    uname(&u);
    line_value("/proc/cpuinfo", "model name", cpu, sizeof cpu);
    const cJSON *file = cJSON_GetObjectItemCaseSensitive(doc, "model_file");
    disk_of(cJSON_IsString(file) ? file->valuestring : "", disk, sizeof disk);
    double ram = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE) / 1e9;
    cJSON *o = cJSON_AddObjectToObject(doc, "system_info");
    return o && cJSON_AddStringToObject(o, "hostname", u.nodename) &&
           cJSON_AddStringToObject(o, "cpu", cpu) && cJSON_AddNumberToObject(o, "ram_gb", ram) &&
           cJSON_AddStringToObject(o, "disk", disk) &&
           cJSON_AddStringToObject(o, "kernel", u.release) &&
           cJSON_AddNumberToObject(o, "n_cpu", (double)sysconf(_SC_NPROCESSORS_ONLN));
}

static bool add_tensor(cJSON *list, const ttx_trace_tensor *t) {
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddItemToArray(list, o) && cJSON_AddStringToObject(o, "name", t->name) &&
              cJSON_AddStringToObject(o, "component", t->component);
    const struct {
        const char *key;
        uint64_t v, none;
    } rows[] = {
        {"layer", t->layer, TTX_REC_NO_LAYER},
        {"shard", t->shard, TTX_REC_NO_SHARD},
        {"offset", t->offset, TTX_REC_NO_OFFSET},
        {"size", t->size, UINT64_MAX},
        {"row_bytes", t->row_bytes, 0},
        {"block_bytes", t->block_bytes, 0},
        {"qkv", t->qkv, TTX_QKV_NONE},
        {"n_head", t->n_head, 0},
        {"n_expert", t->n_expert, 0},
        {"expert_bytes", t->expert_bytes, 0},
        {"expert", t->expert, TTX_REC_NO_EXPERT},
    };
    for (size_t i = 0; ok && i < sizeof rows / sizeof *rows; i++)
        if (rows[i].v != rows[i].none)
            ok = cJSON_AddNumberToObject(o, rows[i].key, (double)rows[i].v);
    return ok && (!t->strided || cJSON_AddTrueToObject(o, "strided"));
}

static bool add_tensors(cJSON *doc, const ttx_trace_info *info) {
    cJSON *list = cJSON_AddArrayToObject(doc, "tensors");
    bool ok = list;
    for (uint32_t i = 0; ok && i < info->n_tensor; i++) ok = add_tensor(list, &info->tensors[i]);
    return ok;
}

static bool add_config(cJSON *doc, const struct trace_writer *w, const ttx_trace_settings *set) {
    const ttx_ticks *k = &w->t->ticks;
    cJSON *c = cJSON_AddObjectToObject(doc, "trace_config");
    cJSON *clock = cJSON_AddObjectToObject(doc, "clock");
    return c && clock && cJSON_AddStringToObject(c, "level", ttx_trace_level_name(set->level)) &&
           cJSON_AddStringToObject(c, "overflow", set->drop ? "drop" : "block") &&
           cJSON_AddNumberToObject(c, "max_bytes", (double)set->max_bytes) &&
           cJSON_AddStringToObject(c, "compress", set->compress ? "zstd" : "none") &&
           cJSON_AddStringToObject(clock, "source", k->tsc ? "tsc" : "clock_gettime") &&
           cJSON_AddNumberToObject(clock, "tsc_hz",
                                   k->tsc ? 1e9 * 4294967296.0 / (double)k->mult : 0) &&
           cJSON_AddNumberToObject(clock, "start_monotonic_ns", (double)k->start_monotonic_ns) &&
           cJSON_AddNumberToObject(clock, "start_realtime_ns", (double)k->start_realtime_ns);
}

int trace_document_make(struct trace_writer *w, const ttx_trace_settings *set,
                        const ttx_trace_info *info, ttx_err *err) {
    char start[40];
    time_t sec = (time_t)(w->t->ticks.start_realtime_ns / 1000000000u);
    struct tm tm;
    size_t n = strftime(start, sizeof start, "%Y-%m-%dT%H:%M:%S", gmtime_r(&sec, &tm));
    snprintf(start + n, sizeof start - n, ".%06uZ",
             (unsigned)(w->t->ticks.start_realtime_ns / 1000 % 1000000));
    cJSON *doc = w->document = cJSON_CreateObject();
    bool ok = doc && cJSON_AddNumberToObject(doc, "trace_version", TTX_TRACE_VERSION) &&
              cJSON_AddFalseToObject(doc, "complete") &&
              cJSON_AddStringToObject(doc, "start_time_utc", start);
    for (const cJSON *i = info->document ? info->document->child : NULL; ok && i; i = i->next) {
        cJSON *copy = cJSON_Duplicate(i, true);
        ok = copy && cJSON_AddItemToObject(doc, i->string, copy);
    }
    ok = ok && add_system(doc) && add_config(doc, w, set) && add_dtype(doc) && add_names(doc) &&
         add_tensors(doc, info);
    return ok ? TTX_OK : ttx_fail_nomem(err, "trace metadata", info->n_tensor * 400ull);
}

static bool add_result(const struct trace_writer *w, const ttx_trace_result *r) {
    cJSON *doc = w->document;
    cJSON_ReplaceItemInObjectCaseSensitive(doc, "complete", cJSON_CreateTrue());
    cJSON *s = cJSON_AddObjectToObject(doc, "trace_stats");
    cJSON *o = cJSON_AddObjectToObject(s, "overhead");
    return s && o && cJSON_AddNumberToObject(s, "total_entries", (double)r->records) &&
           cJSON_AddNumberToObject(s, "lost", (double)r->lost) &&
           cJSON_AddNumberToObject(s, "launches", (double)r->launches) &&
           cJSON_AddNumberToObject(s, "duration_seconds", r->duration_s) &&
           cJSON_AddNumberToObject(s, "log_file_size_mb", (double)r->bytes / 1e6) &&
           cJSON_AddStringToObject(s, "ended", r->limited ? "trace-max" : "with the run") &&
           cJSON_AddNumberToObject(o, "writer_cpu_seconds", r->writer_cpu_s) &&
           cJSON_AddNumberToObject(o, "stalls", (double)r->stalls) &&
           cJSON_AddNumberToObject(o, "stall_seconds", (double)r->stall_ns * 1e-9) &&
           (w->t->level != TTX_LEVEL_IO || io_account_describe(w, s));
}

static int open_file(const struct trace_writer *w, const char *name, ttx_outfile *out,
                     ttx_err *err) {
    char *path;
    if (asprintf(&path, "%s/%s", w->dir, name) < 0) return ttx_fail_nomem(err, "path", 256);
    int rc = ttx_outfile_open(out, path, err);
    free(path);
    return rc;
}

int trace_document_write(struct trace_writer *w, const ttx_trace_result *stats, ttx_err *err) {
    ttx_outfile out = {0};
    if (stats && !add_result(w, stats)) return ttx_fail_nomem(err, "trace metadata", 4096);
    char *text = cJSON_Print(w->document);
    if (!text) return ttx_fail_nomem(err, "trace metadata", w->t->n_tensor * 400ull);
    int rc = open_file(w, TTX_TRACE_META, &out, err);
    if (!rc) {
        fputs(text, out.f);
        fputc('\n', out.f);
        rc = ttx_outfile_close(&out, rc, err);
    }
    free(text);
    return rc;
}

/* ---- tables ---- */

/* Length of the UTF-8 character at s, of at most n bytes; 0: it is none. */
static size_t utf8_length(const unsigned char *s, size_t n) {
    size_t k = s[0] < 0x80             ? 1
               : (s[0] & 0xe0) == 0xc0 ? 2
               : (s[0] & 0xf0) == 0xe0 ? 3
               : (s[0] & 0xf8) == 0xf0 ? 4
                                       : 0;
    if (!k || k > n || s[0] == 0xc0 || s[0] == 0xc1 || s[0] > 0xf4) return 0;
    for (size_t i = 1; i < k; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return k;
}

void trace_csv_text(FILE *f, const char *s, size_t n) {
    putc('"', f);
    for (size_t i = 0; i < n;) {
        size_t k = s[i] ? utf8_length((const unsigned char *)s + i, n - i) : 0;
        if (k == 1 && s[i] == '"') putc('"', f);
        if (k)
            fwrite(s + i, 1, k, f);
        else
            fprintf(f, "<0x%02X>", (unsigned char)s[i]);
        i += k ? k : 1;
    }
    putc('"', f);
}

int trace_names_write(const struct trace_writer *w, ttx_err *err) {
    ttx_outfile out = {0};
    int rc = open_file(w, "tensor_names.txt", &out, err);
    if (rc) return rc;
    fputs("idx,name\n", out.f);
    for (uint32_t i = 0; i < w->t->n_tensor; i++)
        fprintf(out.f, "%u,%s\n", i, w->t->tensors[i].name);
    return ttx_outfile_close(&out, rc, err);
}

int trace_counts_write(const struct trace_writer *w, ttx_err *err) {
    ttx_outfile out = {0};
    int rc = open_file(w, "tensor_stats.csv", &out, err);
    if (rc) return rc;
    fputs("idx,name,accesses,bytes\n", out.f);
    for (uint32_t i = 0; i <= w->t->n_tensor; i++) {
        const ttx_tensor_count *c = &w->t->counts[i];
        if (i == w->t->n_tensor)
            fputs(",", out.f);
        else
            fprintf(out.f, "%u,%s", i, w->t->tensors[i].name);
        fprintf(out.f, ",%llu,%llu\n", (unsigned long long)c->accesses,
                (unsigned long long)c->bytes);
    }
    return ttx_outfile_close(&out, rc, err);
}

void trace_token_row(struct trace_writer *w, const ttx_record *r) {
    char text[256];
    if (!r) {
        fputs("token_id,vocab_id,text,phase,batch,start_ns,end_ns\n", w->tokens);
        return;
    }
    size_t n =
        w->token_text ? w->token_text(w->token_ctx, (int32_t)r->vocab_id, text, sizeof text) : 0;
    fprintf(w->tokens, "%u,%u,", r->token_id, r->vocab_id);
    if (n) trace_csv_text(w->tokens, text, n < sizeof text ? n : sizeof text);
    fprintf(w->tokens, ",%s,%llu,%llu,%llu\n", ttx_phase_name(r->phase),
            (unsigned long long)r->batch, (unsigned long long)r->timestamp_ns,
            (unsigned long long)r->end_ns);
}
