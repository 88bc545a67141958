/* cmd_dump.c -- ttx gguf-dump: what is in a model file, for people, spreadsheets and scripts.
 *
 * Four views: the tensors (default), the metadata (--metadata), the I/O picture (--io), each as
 * text or as JSON (--json). It describes any GGUF file, also of an architecture that ttx cannot
 * run. Everything is written row by row: the memory it needs does not grow with the file.
 */
#include "io_picture.h"
#include "opt.h"
#include "outfile.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct dump_settings {
    const char *model, *output;
    bool json, metadata, io;
} dump_settings;

/* ---- JSON through cJSON, one piece at a time ---- */

/* A copy that is valid UTF-8 and ends at its NUL, as cJSON wants it: bytes that are not UTF-8, and
 * zeros, become U+FFFD. NULL without memory. */
static char *clean_utf8(const char *s, uint64_t n) {
    char *out = malloc(3 * (size_t)n + 1), *p = out;
    for (uint64_t i = 0; out && i < n;) {
        unsigned char c = (unsigned char)s[i];
        unsigned len = c < 0x80                ? 1
                       : c >= 0xc2 && c < 0xe0 ? 2
                       : c >= 0xe0 && c < 0xf0 ? 3
                       : c >= 0xf0 && c < 0xf5 ? 4
                                               : 0;
        bool ok = c != 0 && len && len <= n - i;
        for (unsigned k = 1; ok && k < len; k++) ok = ((unsigned char)s[i + k] & 0xc0) == 0x80;
        unsigned char d = ok && len > 1 ? (unsigned char)s[i + 1] : 0;
        if (ok && len > 2) /* overlong forms, surrogates, beyond U+10FFFF */
            ok = !(c == 0xe0 && d < 0xa0) && !(c == 0xed && d > 0x9f) && !(c == 0xf0 && d < 0x90) &&
                 !(c == 0xf4 && d > 0x8f);
        memcpy(p, ok ? s + i : "\xef\xbf\xbd", ok ? len : 3);
        p += ok ? len : 3;
        i += ok ? len : 1;
    }
    if (out) *p = 0;
    return out;
}

/* For a terminal: the same, with control characters as '?'. */
static char *printable(const char *s, uint64_t n) {
    char *text = clean_utf8(s, n);
    for (char *p = text; p && *p; p++)
        if ((unsigned char)*p < ' ' || *p == 127) *p = '?';
    return text;
}

static cJSON *json_string(const char *s, uint64_t n) {
    char *clean = clean_utf8(s, n);
    cJSON *item = clean ? cJSON_CreateString(clean) : NULL;
    free(clean);
    return item;
}

/* cJSON keeps numbers as doubles; 64-bit integers go in as text. */
static cJSON *json_u64(uint64_t v) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, v);
    return cJSON_CreateRaw(text);
}

static cJSON *json_f64(double v, int digits) {
    char text[40];
    snprintf(text, sizeof text, "%.*g", digits, v);
    return isfinite(v) ? cJSON_CreateRaw(text) : cJSON_CreateNull();
}

/* Prints and deletes `item`; NULL is "out of memory". */
static int put_json(FILE *out, cJSON *item, ttx_err *err) {
    char *text = item ? cJSON_PrintUnformatted(item) : NULL;
    if (text) fputs(text, out);
    cJSON_free(text);
    cJSON_Delete(item);
    return text ? 0 : ttx_fail_nomem(err, "JSON", 4096);
}

/* ---- tensors ---- */

typedef struct cell {
    enum { CELL_EMPTY, CELL_U64, CELL_F64, CELL_STR } kind;
    uint64_t u;
    double f;
    const char *s;
} cell;

enum { N_COLUMNS = 22 };
static const char *const columns[N_COLUMNS] = {"shard",
                                               "index",
                                               "tensor_name",
                                               "layer_id",
                                               "component_type",
                                               "proj",
                                               "type",
                                               "n_dims",
                                               "ne0",
                                               "ne1",
                                               "ne2",
                                               "ne3",
                                               "n_elements",
                                               "bits_per_weight",
                                               "file_offset",
                                               "size_bytes",
                                               "end",
                                               "pad_after",
                                               "n_expert",
                                               "expert_stride",
                                               "first_page",
                                               "last_page"};

static cell u64_cell(uint64_t v) {
    return (cell){.kind = CELL_U64, .u = v};
}

static cell str_cell(const char *s) {
    return (cell){.kind = s[0] ? CELL_STR : CELL_EMPTY, .s = s};
}

static cell some_cell(bool present, uint64_t v) {
    return present ? u64_cell(v) : (cell){0};
}

/* The row of a tensor, in the order of `columns`. */
static void fill_row(cell row[N_COLUMNS], const gguf_tensor *t) {
    ttx_tensor_role role = ttx_role_of(t->name);
    const ttx_dtype_info *type = ttx_dtype_get(t->type);
    uint64_t stride, n_expert = ttx_expert_slices(t, &role, &stride), end = t->offset + t->size;
    const cell cells[N_COLUMNS] = {
        u64_cell(t->shard),
        u64_cell(t->index),
        {.kind = CELL_STR, .s = t->name},
        some_cell(role.layer >= 0, (uint64_t)role.layer),
        str_cell(ttx_component_name(role.component)),
        str_cell(role.proj),
        str_cell(type->name),
        u64_cell(t->n_dims),
        u64_cell(t->ne[0]),
        u64_cell(t->ne[1]),
        u64_cell(t->ne[2]),
        u64_cell(t->ne[3]),
        u64_cell(t->n_elements),
        {.kind = CELL_F64, .f = 8.0 * type->bytes / type->block},
        u64_cell(t->offset),
        u64_cell(t->size),
        u64_cell(end),
        u64_cell(t->pad),
        some_cell(n_expert > 0, n_expert),
        some_cell(n_expert > 0, stride),
        u64_cell(t->offset / TTX_PAGE),
        u64_cell((end - 1) / TTX_PAGE),
    };
    memcpy(row, cells, sizeof cells);
}

/* RFC 4180: quoted where it must be. */
static void put_csv_string(FILE *out, const char *s) {
    if (!s[strcspn(s, "\",\r\n")]) {
        fputs(s, out);
        return;
    }
    putc('"', out);
    for (; *s; s++) {
        if (*s == '"') putc('"', out);
        putc(*s, out);
    }
    putc('"', out);
}

static void put_csv_row(FILE *out, const cell row[N_COLUMNS]) {
    for (int i = 0; i < N_COLUMNS; i++) {
        if (i) putc(',', out);
        if (row[i].kind == CELL_U64) fprintf(out, "%" PRIu64, row[i].u);
        if (row[i].kind == CELL_F64) fprintf(out, "%.9g", row[i].f);
        if (row[i].kind == CELL_STR) put_csv_string(out, row[i].s);
    }
    putc('\n', out);
}

static int put_json_row(FILE *out, const cell row[N_COLUMNS], ttx_err *err) {
    cJSON *object = cJSON_CreateObject();
    bool ok = object != NULL;
    for (int i = 0; ok && i < N_COLUMNS; i++) {
        cJSON *item = row[i].kind == CELL_U64   ? json_u64(row[i].u)
                      : row[i].kind == CELL_F64 ? json_f64(row[i].f, 9)
                      : row[i].kind == CELL_STR ? json_string(row[i].s, strlen(row[i].s))
                                                : cJSON_CreateNull();
        ok = cJSON_AddItemToObjectCS(object, columns[i], item);
    }
    if (!ok) {
        cJSON_Delete(object);
        object = NULL;
    }
    return put_json(out, object, err);
}

static int dump_tensors(const gguf_file *f, bool json, FILE *out, ttx_err *err) {
    for (int i = 0; !json && i < N_COLUMNS; i++)
        fprintf(out, "%s%c", columns[i], i + 1 < N_COLUMNS ? ',' : '\n');
    if (json) fputs("[", out);
    int rc = 0;
    for (uint32_t i = 0; i < gguf_n_tensors(f) && !rc && !ferror(out); i++) {
        cell row[N_COLUMNS];
        fill_row(row, &gguf_tensors(f)[i]);
        if (json) {
            fputs(i ? ",\n" : "\n", out);
            rc = put_json_row(out, row, err);
        } else {
            put_csv_row(out, row);
        }
    }
    if (json) fputs("\n]\n", out);
    return rc;
}

int ttx_dump_csv(const gguf_file *f, FILE *out, ttx_err *err) {
    return dump_tensors(f, false, out, err);
}

/* ---- metadata ---- */

enum { TEXT_ELEMENTS = 8, TEXT_BYTES = 240 };

static cJSON *json_scalar(const gguf_kv *kv, uint64_t max_bytes) {
    uint64_t pos = 0;
    if (kv->type == GGUF_STRING) {
        gguf_str s = gguf_next_str(kv, &pos);
        uint64_t n = s.n < max_bytes ? s.n : max_bytes;
        while (n && n < s.n && ((unsigned char)s.s[n] & 0xc0) == 0x80) n--; /* no half character */
        return json_string(s.s, n);
    }
    if (kv->type == GGUF_BOOL) return cJSON_CreateBool(kv->data[0]);
    if (kv->type == GGUF_FLOAT32) return json_f64(gguf_elem_f64(kv, 0), 9);
    if (kv->type == GGUF_FLOAT64) return json_f64(gguf_elem_f64(kv, 0), 17);
    int64_t v = gguf_elem_i64(kv, 0);
    if (kv->type == GGUF_UINT64 || v >= 0) return json_u64((uint64_t)v);
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, v);
    return cJSON_CreateRaw(text);
}

/* A value as JSON; `brief`: of long arrays and strings only the beginning, and then "...". */
static int put_value(FILE *out, const gguf_kv *kv, bool brief, ttx_err *err) {
    uint64_t pos = 0;
    if (kv->type != GGUF_ARRAY) {
        int rc = put_json(out, json_scalar(kv, brief ? TEXT_BYTES : UINT64_MAX), err);
        if (brief && kv->type == GGUF_STRING && kv->bytes - 8 > TEXT_BYTES)
            fprintf(out, "... (%" PRIu64 " bytes)", kv->bytes - 8);
        return rc;
    }
    putc('[', out);
    int rc = 0;
    for (uint64_t i = 0; i < kv->n && !rc && !ferror(out); i++) {
        if (i) fputs(", ", out);
        if (brief && i == TEXT_ELEMENTS) {
            fputs("...", out);
            break;
        }
        gguf_kv elem = gguf_next_elem(kv, &pos);
        rc = put_value(out, &elem, brief, err);
    }
    putc(']', out);
    return rc;
}

static int put_text_pair(FILE *out, const gguf_kv *kv, ttx_err *err) {
    char *key = printable(kv->key.s, kv->key.n);
    if (!key) return ttx_fail_nomem(err, "a key", kv->key.n);
    fprintf(out, "%-44s ", key);
    free(key);
    if (kv->type == GGUF_ARRAY)
        fprintf(out, "%s[%" PRIu64 "] ", gguf_type_name(kv->elem), kv->n);
    else
        fprintf(out, "%s ", gguf_type_name(kv->type));
    int rc = put_value(out, kv, true, err);
    putc('\n', out);
    return rc;
}

static int dump_metadata(const gguf_file *f, bool json, FILE *out, ttx_err *err) {
    int rc = 0;
    if (json) fputs("{", out);
    for (uint32_t i = 0; i < gguf_n_kv(f) && !rc && !ferror(out); i++) {
        const gguf_kv *kv = &gguf_kvs(f)[i];
        if (!json) {
            rc = put_text_pair(out, kv, err);
            continue;
        }
        fputs(i ? ",\n" : "\n", out);
        rc = put_json(out, json_string(kv->key.s, kv->key.n), err);
        fputs(": ", out);
        if (!rc) rc = put_value(out, kv, false, err);
    }
    if (json) fputs("\n}\n", out);
    return rc;
}

/* ---- the I/O picture ---- */

static const char *human(char buf[32], uint64_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)bytes;
    int u = 0;
    for (; v >= 1024 && u < 5; u++) v /= 1024;
    snprintf(buf, 32, u ? "%.2f %s" : "%.0f %s", v, units[u]);
    return buf;
}

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

/* What one token needs over what O_DIRECT reads for it, page by page. */
static double amplification(const io_slices *s) {
    return ratio((double)s->pages * TTX_PAGE, (double)s->total);
}

static void put_slices_text(FILE *out, const io_picture *pic) {
    char a[32];
    if (!pic->n_slices) return;
    fprintf(out, "\nEXPERT SLICES ON PAGES OF 4 KiB, each read alone with O_DIRECT\n");
    fprintf(out, "%-10s %-8s %10s %12s %9s %12s %12s\n", "proj", "type", "slices", "bytes",
            "aligned", "pages", "read/needed");
    for (uint32_t i = 0; i < pic->n_slices; i++) {
        const io_slices *s = &pic->slices[i];
        char pages[48];
        snprintf(pages, sizeof pages, "%" PRIu64 "..%" PRIu64, s->min_pages, s->max_pages);
        fprintf(out, "%-10s %-8s %10" PRIu64 " %12" PRIu64 " %8.1f%% %12s %12.4f\n", s->proj,
                s->type, s->n, s->bytes, 100 * ratio((double)s->aligned, (double)s->n), pages,
                amplification(s));
    }
    fprintf(out, "one expert of one layer: %s", human(a, pic->expert_min));
    if (pic->expert_max != pic->expert_min) fprintf(out, " to %s", human(a, pic->expert_max));
    putc('\n', out);
}

static int put_io_title(FILE *out, const gguf_file *f, const io_picture *pic, ttx_err *err) {
    char a[32], *arch = printable(pic->arch.s, pic->arch.n < 64 ? pic->arch.n : 64);
    if (!arch) return ttx_fail_nomem(err, "the architecture's name", pic->arch.n);
    fprintf(out, "%s: %s, %u tensors, %s in %u file%s\n\n", gguf_path(f),
            *arch ? arch : "architecture not said", gguf_n_tensors(f), human(a, pic->file_bytes),
            gguf_n_shards(f), gguf_n_shards(f) > 1 ? "s" : "");
    free(arch);
    return 0;
}

static void put_components_text(FILE *out, const gguf_file *f, const io_picture *pic) {
    fprintf(out, "%-10s %8s %16s %7s %16s\n", "component", "tensors", "bytes", "share",
            "bytes/token");
    for (int c = 0; c < TTX_COMP_COUNT; c++) {
        const io_component *x = &pic->comp[c];
        if (!x->n_tensors && !x->token_bytes) continue;
        fprintf(out, "%-10s %8" PRIu64 " %16" PRIu64 " %6.2f%% %16" PRIu64 "%s\n",
                ttx_component_name(c), x->n_tensors, x->bytes,
                100 * ratio((double)x->bytes, (double)pic->tensor_bytes), x->token_bytes,
                c == TTX_COMP_OUTPUT && pic->tied ? "  (the embedding, tied)" : "");
    }
    fprintf(out, "%-10s %8u %16" PRIu64 " %6.2f%% %16" PRIu64 "\n", "total", gguf_n_tensors(f),
            pic->tensor_bytes, pic->tensor_bytes ? 100.0 : 0.0, pic->token_bytes);
}

static void put_token_text(FILE *out, const io_picture *pic) {
    char a[32];
    bool experts = pic->comp[TTX_COMP_EXPERT].n_tensors > 0;
    fprintf(out, "\nONE TOKEN\n%-20s %s\n", "dense weights", human(a, pic->dense_token_bytes));
    if (experts && pic->n_expert_used)
        fprintf(out, "%-20s %s (%u of %u a layer)\n", "experts", human(a, pic->expert_token_bytes),
                pic->n_expert_used, pic->n_expert);
    else if (experts)
        fprintf(out, "%-20s %s (all: the file does not say how many a token uses)\n", "experts",
                human(a, pic->expert_token_bytes));
    fprintf(out, "%-20s %s\n", "token cycle", human(a, pic->token_bytes));
    if (pic->idle_bytes)
        fprintf(out, "%-20s %s (layers of multi-token prediction)\n", "not read",
                human(a, pic->idle_bytes));
}

static void put_ram_text(FILE *out, const io_picture *pic) {
    char a[32], b[32];
    fprintf(out, "\nTO RUN WITHOUT STREAMING\n%-20s %s\n", "weights",
            human(a, pic->tensor_bytes - pic->idle_bytes));
    if (pic->kv_token_bytes)
        fprintf(out, "%-20s %s (%u tokens, %s each)\n", "KV cache, F16",
                human(a, pic->kv_token_bytes * pic->kv_context), pic->kv_context,
                human(b, pic->kv_token_bytes));
    fprintf(out, "%-20s %s\n", "RAM", human(a, pic->ram_bytes));
}

static bool add_u64(cJSON *object, const char *name, uint64_t v) {
    return cJSON_AddItemToObjectCS(object, name, json_u64(v));
}

static bool add_components(cJSON *root, const io_picture *pic) {
    cJSON *all = cJSON_AddObjectToObject(root, "components");
    bool ok = all != NULL;
    for (int c = 0; ok && c < TTX_COMP_COUNT; c++) {
        cJSON *o = cJSON_AddObjectToObject(all, ttx_component_name(c));
        ok = o && add_u64(o, "tensors", pic->comp[c].n_tensors) &&
             add_u64(o, "bytes", pic->comp[c].bytes) &&
             add_u64(o, "token_bytes", pic->comp[c].token_bytes);
    }
    return ok;
}

static bool add_slices(cJSON *root, const io_picture *pic) {
    cJSON *all = cJSON_AddArrayToObject(root, "expert_slices");
    bool ok = all != NULL;
    for (uint32_t i = 0; ok && i < pic->n_slices; i++) {
        const io_slices *s = &pic->slices[i];
        cJSON *o = cJSON_CreateObject();
        ok = o && cJSON_AddItemToArray(all, o) && cJSON_AddStringToObject(o, "proj", s->proj) &&
             cJSON_AddStringToObject(o, "type", s->type) && add_u64(o, "slices", s->n) &&
             add_u64(o, "slice_bytes", s->bytes) && add_u64(o, "total_bytes", s->total) &&
             add_u64(o, "page_aligned", s->aligned) && add_u64(o, "pages", s->pages) &&
             add_u64(o, "min_pages", s->min_pages) && add_u64(o, "max_pages", s->max_pages) &&
             cJSON_AddNumberToObject(o, "read_amplification", amplification(s));
    }
    return ok;
}

static int put_io_json(FILE *out, const gguf_file *f, const io_picture *pic, ttx_err *err) {
    cJSON *root = cJSON_CreateObject();
    const char *path = gguf_path(f);
    bool ok =
        root && cJSON_AddItemToObjectCS(root, "model_file", json_string(path, strlen(path))) &&
        cJSON_AddItemToObjectCS(root, "architecture", json_string(pic->arch.s, pic->arch.n)) &&
        add_u64(root, "files", gguf_n_shards(f)) && add_u64(root, "file_bytes", pic->file_bytes) &&
        add_u64(root, "tensors", gguf_n_tensors(f)) &&
        add_u64(root, "tensor_bytes", pic->tensor_bytes) && add_components(root, pic) &&
        cJSON_AddBoolToObject(root, "tied_output", pic->tied) &&
        add_u64(root, "n_expert", pic->n_expert) &&
        add_u64(root, "n_expert_used", pic->n_expert_used) &&
        add_u64(root, "dense_token_bytes", pic->dense_token_bytes) &&
        add_u64(root, "expert_token_bytes", pic->expert_token_bytes) &&
        add_u64(root, "token_bytes", pic->token_bytes) &&
        add_u64(root, "idle_bytes", pic->idle_bytes) &&
        add_u64(root, "expert_min_bytes", pic->expert_min) &&
        add_u64(root, "expert_max_bytes", pic->expert_max) && add_slices(root, pic) &&
        add_u64(root, "kv_token_bytes", pic->kv_token_bytes) &&
        add_u64(root, "kv_context", pic->kv_context) && add_u64(root, "ram_bytes", pic->ram_bytes);
    if (!ok) {
        cJSON_Delete(root);
        root = NULL;
    }
    int rc = put_json(out, root, err);
    putc('\n', out);
    return rc;
}

static int dump_io(const gguf_file *f, bool json, FILE *out, ttx_err *err) {
    io_picture pic;
    int rc = io_picture_of(f, &pic, err);
    if (rc) return rc;
    if (json) return put_io_json(out, f, &pic, err);
    if ((rc = put_io_title(out, f, &pic, err))) return rc;
    put_components_text(out, f, &pic);
    put_token_text(out, &pic);
    put_slices_text(out, &pic);
    put_ram_text(out, &pic);
    return 0;
}

/* ---- the command ---- */

/* Is `path` one of the files that the model is made of? */
static bool is_model(const gguf_file *f, const char *path) {
    struct stat out, in;
    if (!path || stat(path, &out) != 0) return false;
    for (uint32_t i = 0; i < gguf_n_shards(f); i++)
        if (fstat(gguf_get_shard(f, i)->fd, &in) == 0 && in.st_dev == out.st_dev &&
            in.st_ino == out.st_ino)
            return true;
    return false;
}

static int run(const void *settings, ttx_err *err) {
    const dump_settings *s = settings;
    if (s->metadata && s->io)
        return ttx_fail(err, TTX_E_USAGE, "--metadata and --io: expected one of them, found both");
    gguf_file *f = NULL;
    int rc = gguf_open(&f, s->model, err);
    if (rc) return rc;
    ttx_outfile o = {0};
    if (is_model(f, s->output))
        rc = ttx_fail(err, TTX_E_USAGE, "%s: is the model; expected another file", s->output);
    else
        rc = ttx_outfile_open(&o, s->output, err);
    if (!rc) {
        rc = s->metadata ? dump_metadata(f, s->json, o.f, err)
             : s->io     ? dump_io(f, s->json, o.f, err)
                         : dump_tensors(f, s->json, o.f, err);
        rc = ttx_outfile_close(&o, rc, err);
    }
    gguf_close(f);
    return rc;
}

static void defaults(void *settings) {
    (void)settings; /* all zeros */
}

static const ttx_opt options[] = {
    {"-m, --model", OPT_STR, offsetof(dump_settings, model), "FILE",
     "GGUF model file, or any shard of a set", .group = "Model", .required = true},
    {"--metadata", OPT_FLAG, offsetof(dump_settings, metadata),
     .help = "print the metadata instead of the tensors", .group = "What to print"},
    {"--io", OPT_FLAG, offsetof(dump_settings, io),
     .help = "print what a token reads, how experts lie on pages, and the RAM it takes"},
    {"--json", OPT_FLAG, offsetof(dump_settings, json),
     .help = "print JSON: tensors as an array of objects, the others as one object",
     .group = "How"},
    {"-o, --output", OPT_STR, offsetof(dump_settings, output), "FILE",
     "write to FILE, which is replaced only when all is written",
     .shown_default = "standard output"},
    {.kind = OPT_END}};

const ttx_command ttx_cmd_gguf_dump = {
    .name = "gguf-dump",
    .summary = "show what is in a model file",
    .usage = "ttx gguf-dump -m FILE [--metadata | --io] [--json] [-o FILE]",
    .about =
        "Describes a GGUF model, also one of an architecture that ttx cannot run, from its header "
        "alone. By default every tensor as a row of CSV: shard (from 0), index, tensor_name, "
        "layer_id, component_type (embedding, attention, ffn, expert, router, norm, output, "
        "other), proj, type, n_dims, ne0..ne3, n_elements, bits_per_weight, file_offset (in its "
        "shard's file), size_bytes, end (exclusive), pad_after, n_expert and expert_stride (for "
        "experts), first_page and last_page (of 4 KiB, inclusive).",
    .examples = "  # every tensor, as CSV\n"
                "  ttx gguf-dump -m model.gguf -o structure.csv\n"
                "  # what does a token read, and how much RAM does the model take?\n"
                "  ttx gguf-dump -m model.gguf --io\n"
                "  # the metadata for a script\n"
                "  ttx gguf-dump -m model.gguf --metadata --json",
    .options = options,
    .settings_size = sizeof(dump_settings),
    .defaults = defaults,
    .run = run};
