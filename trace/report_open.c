/* report_open.c -- see report.h: the tables of a model, and the reading of its trace into them. */
#include "report_int.h"

#include <cJSON.h>
#include <stdlib.h>
#include <string.h>

ttx_report_settings ttx_report_default_settings(void) {
    return (ttx_report_settings){0};
}

/* ---- places ---- */

bool rp_place(const ttx_report *r, uint8_t shard, uint64_t offset, uint64_t *at) {
    if (shard == TTX_REC_NO_SHARD || offset >= r->shard_size[shard]) return false;
    *at = r->shard_at[shard] + offset;
    return true;
}

uint32_t rp_tensor_at(const ttx_report *r, uint64_t at) {
    uint32_t low = 0, high = r->meta.n_file_tensor;
    while (low < high) { /* the first that begins after `at` */
        uint32_t mid = low + (high - low) / 2;
        const ttx_trace_tensor *t = &r->meta.tensors[r->by_offset[mid]];
        if (r->shard_at[t->shard] + t->offset <= at)
            low = mid + 1;
        else
            high = mid;
    }
    if (!low) return TTX_REC_NO_TENSOR;
    uint32_t i = r->by_offset[low - 1];
    const ttx_trace_tensor *t = &r->meta.tensors[i];
    return at - (r->shard_at[t->shard] + t->offset) < t->size ? i : TTX_REC_NO_TENSOR;
}

uint32_t rp_object_of(const ttx_report *r, uint32_t tensor, uint16_t expert) {
    if (tensor >= r->meta.n_file_tensor) return RP_NO_OBJECT;
    uint32_t first = r->object_of[tensor], n = r->object_of[tensor + 1] - first;
    return first + (n > 1 && expert < n ? expert : 0);
}

static int find_shards(ttx_report *r, ttx_err *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(r->meta.json, "shards"), *o;
    uint32_t n = 0;
    cJSON_ArrayForEach(o, list) {
        const cJSON *size = cJSON_GetObjectItemCaseSensitive(o, "size");
        if (n < TTX_REC_NO_SHARD && cJSON_IsNumber(size) && size->valuedouble > 0 &&
            size->valuedouble < 0x1p52)
            r->shard_size[n] = (uint64_t)size->valuedouble;
        n++;
    }
    for (uint32_t i = 0; i < r->meta.n_file_tensor; i++) {
        const ttx_trace_tensor *t = &r->meta.tensors[i];
        if (t->offset > 1ull << 52 || t->size > 1ull << 52 || t->shard == TTX_REC_NO_SHARD)
            return ttx_fail(err, TTX_E_RUNTIME, "%s: tensor '%s': expected a place in a file",
                            r->meta.dir, t->name);
        uint64_t end = t->offset + t->size, *size = &r->shard_size[t->shard];
        if (end > *size) *size = end;
    }
    for (uint32_t i = 0; i < 256; i++) {
        r->shard_at[i] = r->file_bytes;
        r->file_bytes += r->shard_size[i];
    }
    if (r->file_bytes > 1ull << 53)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: a model of %llu bytes is larger than any",
                        r->meta.dir, (unsigned long long)r->file_bytes);
    return TTX_OK;
}

typedef struct place {
    uint64_t at;
    uint32_t tensor;
} place;

static int by_place(const void *a, const void *b) {
    const place *x = a, *y = b;
    if (x->at != y->at) return x->at < y->at ? -1 : 1;
    return x->tensor < y->tensor ? -1 : x->tensor > y->tensor;
}

static int sort_tensors(ttx_report *r, ttx_err *err) {
    uint32_t n = r->meta.n_file_tensor;
    place *v = malloc((n + 1) * sizeof *v);
    r->by_offset = malloc((n + 1) * sizeof *r->by_offset);
    if (!v || !r->by_offset) {
        free(v);
        return ttx_fail_nomem(err, "tensors by place", n * sizeof *v);
    }
    for (uint32_t i = 0; i < n; i++) {
        const ttx_trace_tensor *t = &r->meta.tensors[i];
        v[i] = (place){r->shard_at[t->shard] + t->offset, i};
    }
    qsort(v, n, sizeof *v, by_place);
    for (uint32_t i = 0; i < n; i++) r->by_offset[i] = v[i].tensor;
    free(v);
    return TTX_OK;
}

static uint32_t experts_of(const ttx_trace_tensor *t) {
    return t->expert_bytes && t->n_expert > 1 && t->n_expert <= RP_MAX_EXPERTS &&
                   t->expert_bytes <= t->size / t->n_expert
               ? t->n_expert
               : 1;
}

static int make_objects(ttx_report *r, ttx_err *err) {
    uint32_t n = r->meta.n_file_tensor;
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++) total += experts_of(&r->meta.tensors[i]);
    if (total > RP_MAX_OBJECTS)
        return ttx_fail(err, TTX_E_RUNTIME,
                        "%s: expected at most %d tensors and experts, found "
                        "%llu",
                        r->meta.dir, RP_MAX_OBJECTS, (unsigned long long)total);
    r->object_of = malloc((n + 1) * sizeof *r->object_of);
    r->objects = calloc(total + 1, sizeof *r->objects);
    if (!r->object_of || !r->objects)
        return ttx_fail_nomem(err, "tensors", (total + 1) * sizeof *r->objects);
    for (uint32_t i = 0; i < n; i++) {
        const ttx_trace_tensor *t = &r->meta.tensors[i];
        uint32_t k = experts_of(t);
        r->object_of[i] = r->n_object;
        for (uint32_t e = 0; e < k; e++)
            r->objects[r->n_object++] = (rp_object){
                .tensor = i,
                .expert = k > 1 ? (uint16_t)e : TTX_REC_NO_EXPERT,
                .size = k > 1 ? t->expert_bytes : t->size,
            };
    }
    r->object_of[n] = r->n_object;
    return TTX_OK;
}

static int make_heads(ttx_report *r, ttx_err *err) {
    rp_heads *h = &r->heads;
    uint32_t most = r->meta.model.n_head > r->meta.model.n_head_kv ? r->meta.model.n_head
                                                                   : r->meta.model.n_head_kv;
    h->n_layer = r->n_layer + 1;
    h->n_head = most < 1 ? 1 : most > RP_MAX_HEADS ? RP_MAX_HEADS : most;
    size_t n = (size_t)h->n_layer * h->n_head;
    h->weights = calloc(n * TTX_QKV_COUNT, sizeof *h->weights);
    h->cache = calloc(n * 2, sizeof *h->cache);
    h->queries = calloc(n, sizeof *h->queries);
    r->layer_gap = calloc(r->n_layer + 1, sizeof *r->layer_gap);
    r->layer_stall = calloc(r->n_layer + 1, sizeof *r->layer_stall);
    r->decode.cap = RP_WINDOW;
    r->prompt.cap = RP_WINDOW / 3;
    r->decode.v = malloc(r->decode.cap * sizeof *r->decode.v);
    r->prompt.v = malloc(r->prompt.cap * sizeof *r->prompt.v);
    if (!h->weights || !h->cache || !h->queries || !r->layer_gap || !r->layer_stall ||
        !r->decode.v || !r->prompt.v)
        return ttx_fail_nomem(err, "tables of heads", n * 100);
    return TTX_OK;
}

static int make_tables(ttx_report *r, ttx_err *err) {
    if (r->meta.n_tensor > RP_MAX_TENSORS)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: expected at most %d tensors, found %u",
                        r->meta.dir, RP_MAX_TENSORS, r->meta.n_tensor);
    r->n_layer = r->meta.model.n_layer < RP_MAX_LAYERS ? r->meta.model.n_layer : RP_MAX_LAYERS;
    r->pending.row = UINT32_MAX;
    r->last_key = UINT64_MAX;
    r->last_batch = UINT64_MAX;
    int rc = find_shards(r, err);
    if (!rc) rc = sort_tensors(r, err);
    if (!rc) rc = make_objects(r, err);
    if (!rc) rc = make_heads(r, err);
    if (!rc) rc = rp_cube_init(&r->cube, r, err);
    if (!rc) rc = rp_map_init(&r->map, r->file_bytes, err);
    if (!rc) rc = rp_reuse_init(r, err);
    if (!rc) rc = rp_routes_init(r, err);
    if (!rc) rc = rp_io_init(r, err);
    return rc;
}

/* ---- the trace ---- */

static int read_records(ttx_report *r, ttx_err *err) {
    char *path = ttx_trace_path(&r->meta, TTX_TRACE_RECORDS);
    ttx_trace_reader *in = NULL;
    int rc = path ? TTX_OK : ttx_fail_nomem(err, "path", 0);
    if (!rc) rc = ttx_trace_reader_open(&in, path, r->set.check ? 0 : TTX_READ_UNCHECKED, err);
    free(path);
    if (rc) return rc;
    const ttx_record *v;
    size_t n;
    for (unsigned block = 0; !(rc = ttx_trace_reader_next(in, &v, &n, err)) && n; block++) {
        rp_scan(r, v, n);
        if (r->set.progress && block % 256 == 255)
            r->set.progress(r->set.ctx, ttx_trace_reader_pos(in), ttx_trace_reader_bytes(in));
    }
    const char *cut = ttx_trace_reader_cut(in);
    if (cut) r->seq.open = false; /* its last token is not whole */
    if (!rc) rp_scan_end(r);
    r->lost = ttx_trace_reader_lost(in);
    if (cut)
        snprintf(r->warning, sizeof r->warning, "%s", cut);
    else if (ttx_trace_reader_end(in) == TTX_TRACE_LIMITED)
        snprintf(r->warning, sizeof r->warning,
                 "the trace reached its --trace-max: the run went "
                 "on without");
    else if (r->lost)
        snprintf(r->warning, sizeof r->warning, "%llu records were lost",
                 (unsigned long long)r->lost);
    ttx_trace_reader_close(in);
    return rc;
}

int ttx_report_open(ttx_report **out, const char *dir, const ttx_report_settings *set,
                    ttx_err *err) {
    *out = NULL;
    ttx_report *r = calloc(1, sizeof *r);
    if (!r) return ttx_fail_nomem(err, "report", sizeof *r);
    r->set = *set;
    int rc = ttx_trace_meta_load(&r->meta, dir, err);
    if (!rc) rc = make_tables(r, err);
    if (!rc) rc = read_records(r, err);
    if (!rc) rc = rp_side_load(r, err);
    if (!rc) rc = rp_texts_load(r, err);
    if (rc) {
        ttx_report_free(r);
        return rc;
    }
    *out = r;
    return TTX_OK;
}

void ttx_report_free(ttx_report *r) {
    if (!r) return;
    free(r->by_offset);
    free(r->object_of);
    free(r->objects);
    free(r->heads.weights);
    free(r->heads.cache);
    free(r->heads.queries);
    free(r->layer_gap);
    free(r->layer_stall);
    free(r->decode.v);
    free(r->prompt.v);
    free(r->cube.find);
    free(r->cube.rows);
    free(r->cube.cells);
    rp_map_free(&r->map);
    free(r->reuse.who);
    free(r->reuse.sum);
    free(r->seq.base);
    rp_routes_free(&r->routes);
    rp_texts_free(&r->texts);
    free(r->io.touched);
    free(r->io.read);
    free(r->io.device);
    ttx_trace_meta_free(&r->meta);
    free(r);
}

const char *ttx_report_dir(const ttx_report *r) {
    return r->meta.dir;
}

const char *ttx_report_warning(const ttx_report *r) {
    return r->warning[0] ? r->warning : NULL;
}
