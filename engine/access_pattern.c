/* access_pattern.c -- see access_pattern.h. */
#include "access_pattern.h"

#include "session.h"
#include "trace_file.h"

#include <cJSON.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SUCCESSORS = 8 };

/* ---- the plan ---- */

static bool add_access(cJSON *list, const ttx_access *a, const ttx_trace_tensor *d) {
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddItemToArray(list, o) &&
              cJSON_AddStringToObject(o, "tensor_name", d->name) &&
              cJSON_AddNumberToObject(o, "tensor_idx", a->tensor) &&
              cJSON_AddNumberToObject(o, "file_offset", (double)a->range.offset) &&
              cJSON_AddNumberToObject(o, "size_bytes", (double)a->range.size) &&
              (a->layer == TTX_NO_LAYER ? cJSON_AddNullToObject(o, "layer_id")
                                        : cJSON_AddNumberToObject(o, "layer_id", a->layer)) &&
              cJSON_AddStringToObject(o, "component", d->component) &&
              cJSON_AddStringToObject(o, "operation_type", ttx_op_name(a->op)) &&
              cJSON_AddNumberToObject(o, "shard", a->range.shard);
    if (ok && a->n_expert)
        ok = cJSON_AddNumberToObject(o, "n_expert", a->n_expert) &&
             cJSON_AddNumberToObject(o, "n_expert_used", a->n_expert_used);
    if (ok && a->row) ok = cJSON_AddTrueToObject(o, "row_of_token");
    return ok;
}

static bool add_expert_ranges(cJSON *doc, const ttx_trace_tensors *t) {
    cJSON *list = cJSON_AddArrayToObject(doc, "expert_ranges");
    bool ok = list;
    for (uint32_t i = 0; ok && i < t->n_file; i++) {
        const ttx_trace_tensor *d = &t->v[i];
        if (!d->n_expert) continue;
        cJSON *o = cJSON_CreateObject();
        ok = o && cJSON_AddItemToArray(list, o) &&
             cJSON_AddStringToObject(o, "tensor_name", d->name) &&
             cJSON_AddNumberToObject(o, "layer_id", d->layer) &&
             cJSON_AddNumberToObject(o, "first_expert",
                                     d->expert == TTX_REC_NO_EXPERT ? 0 : d->expert) &&
             cJSON_AddNumberToObject(o, "n_expert", d->n_expert) &&
             cJSON_AddNumberToObject(o, "file_offset", (double)d->offset) &&
             cJSON_AddNumberToObject(o, "expert_bytes", (double)d->expert_bytes);
    }
    return ok;
}

/* ---- who follows whom ---- */

/* For each layer [from][to]: how often expert `to` served the token after one that `from` served.
 */
struct successors {
    uint32_t n_layer, n_expert;
    uint32_t *count; /* [n_layer][n_expert][n_expert] */
    struct served {
        uint32_t token;
        int n;
        uint16_t expert[TTX_MAX_EXPERTS_USED];
    } * last, *now; /* [n_layer]: of the token before, of this one */
};

static void take_route(struct successors *s, const ttx_record *r) {
    if (r->layer_id >= s->n_layer || r->expert_id >= s->n_expert) return;
    struct served *now = &s->now[r->layer_id], *last = &s->last[r->layer_id];
    if (r->token_id != now->token || r->expert_rank == 0) {
        *last = *now;
        *now = (struct served){.token = r->token_id};
    }
    if (now->n < TTX_MAX_EXPERTS_USED) now->expert[now->n++] = r->expert_id;
    if (last->token + 1 != now->token) return;
    uint32_t *count = s->count + (size_t)r->layer_id * s->n_expert * s->n_expert;
    for (int i = 0; i < last->n; i++) count[last->expert[i] * s->n_expert + r->expert_id]++;
}

static int count_routes(struct successors *s, const char *dir, ttx_err *err) {
    char *path;
    ttx_trace_reader *r = NULL;
    if (asprintf(&path, "%s/%s", dir, TTX_TRACE_RECORDS) < 0)
        return ttx_fail_nomem(err, "path", strlen(dir));
    int rc = ttx_trace_reader_open(&r, path, TTX_READ_UNCHECKED, err);
    const ttx_record *v;
    for (size_t n = 1; !rc && n;) {
        rc = ttx_trace_reader_next(r, &v, &n, err);
        for (size_t i = 0; i < n; i++)
            if (v[i].kind == TTX_REC_ROUTE) take_route(s, &v[i]);
    }
    ttx_trace_reader_close(r);
    free(path);
    return rc;
}

/* The most frequent successors of one expert, with their share of what followed it. */
static bool add_row(cJSON *list, const uint32_t *count, uint32_t n, uint32_t layer, uint32_t from) {
    uint64_t all = 0;
    for (uint32_t i = 0; i < n; i++) all += count[i];
    if (!all) return true;
    cJSON *o = cJSON_CreateObject();
    cJSON *to = cJSON_AddArrayToObject(o, "to"), *p = cJSON_AddArrayToObject(o, "probability");
    bool ok = o && cJSON_AddItemToArray(list, o) && to && p &&
              cJSON_AddNumberToObject(o, "layer_id", layer) &&
              cJSON_AddNumberToObject(o, "expert_id", from);
    uint32_t below = UINT32_MAX, after = 0; /* count of the last taken, and where it stood */
    for (int k = 0; ok && k < MAX_SUCCESSORS; k++) {
        uint32_t best = n;
        for (uint32_t i = 0; i < n; i++)
            if (count[i] && (count[i] < below || (count[i] == below && i >= after)) &&
                (best == n || count[i] > count[best]))
                best = i;
        if (best == n) break;
        below = count[best];
        after = best + 1;
        ok = cJSON_AddItemToArray(to, cJSON_CreateNumber(best)) &&
             cJSON_AddItemToArray(p, cJSON_CreateNumber((double)count[best] / (double)all));
    }
    return ok;
}

static int add_successors(cJSON *doc, const ttx_model *m, const char *dir, ttx_err *err) {
    struct successors s = {.n_layer = m->hp.n_layer, .n_expert = m->hp.n_expert};
    size_t cells = (size_t)s.n_layer * s.n_expert * s.n_expert;
    if (!cells || !dir) return TTX_OK;
    s.count = calloc(cells, sizeof *s.count);
    s.last = calloc(2 * (size_t)s.n_layer, sizeof *s.last);
    int rc = TTX_OK;
    if (!s.count || !s.last) rc = ttx_fail_nomem(err, "successors", cells * sizeof *s.count);
    s.now = s.last ? s.last + s.n_layer : NULL;
    for (uint32_t il = 0; !rc && il < 2 * s.n_layer; il++) s.last[il].token = UINT32_MAX - 1;
    if (!rc) rc = count_routes(&s, dir, err);
    cJSON *list = rc ? NULL : cJSON_AddArrayToObject(doc, "expert_successors");
    bool ok = list;
    for (uint32_t il = 0; ok && il < s.n_layer; il++)
        for (uint32_t e = 0; ok && e < s.n_expert; e++)
            ok = add_row(list, s.count + ((size_t)il * s.n_expert + e) * s.n_expert, s.n_expert, il,
                         e);
    if (!rc && !ok) rc = ttx_fail_nomem(err, "successors", cells);
    free(s.count);
    free(s.last);
    return rc;
}

int ttx_access_pattern_write(const ttx_model *m, const ttx_trace_tensors *t, const char *hash,
                             const char *dir, FILE *out, ttx_err *err) {
    ttx_plan plan = {0};
    int rc = ttx_plan_decode(m, &plan, err);
    cJSON *doc = cJSON_CreateObject();
    cJSON *list = cJSON_AddStringToObject(doc, "model_hash", hash)
                      ? cJSON_AddArrayToObject(doc, "per_token_pattern")
                      : NULL;
    bool ok = list;
    for (size_t i = 0; ok && i < plan.n; i++)
        ok = add_access(list, &plan.v[i], &t->v[plan.v[i].tensor]);
    ok = ok && add_expert_ranges(doc, t);
    if (!rc && ok) rc = add_successors(doc, m, dir, err);
    char *text = !rc && ok ? cJSON_PrintUnformatted(doc) : NULL;
    if (!rc && !text) rc = ttx_fail_nomem(err, "access pattern", plan.n * 200);
    if (text) fprintf(out, "%s\n", text);
    free(text);
    cJSON_Delete(doc);
    ttx_plan_free(&plan);
    return rc;
}
