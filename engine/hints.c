/* hints.c -- see hints.h. */
#include "hints.h"

#include "session.h"
#include "trace_tensors.h"

#include <cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A document while it is read; messages name where it goes wrong. */
typedef struct reader {
    const ttx_model *m;
    const char *path;
    const cJSON *root;
    const char *list; /* the member that is read, and which of its items */
    uint32_t at;
    ttx_err *err;
} reader;

/* ---- values ---- */

static int bad(const reader *r, const char *expected, const char *found) {
    return ttx_fail(r->err, TTX_E_USAGE, "%s: %s %u: expected %s, found %.64s", r->path, r->list,
                    r->at, expected, found);
}

/* A whole number from 0 to `max`. */
static int get_number(const reader *r, const cJSON *o, const char *key, uint64_t max, uint64_t *v) {
    char expected[96], found[64] = "something else";
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, key);
    if (cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble <= (double)max &&
        x->valuedouble == floor(x->valuedouble)) {
        *v = (uint64_t)x->valuedouble;
        return TTX_OK;
    }
    snprintf(expected, sizeof expected, "'%s' from 0 to %llu", key, (unsigned long long)max);
    if (cJSON_IsNumber(x)) snprintf(found, sizeof found, "%g", x->valuedouble);
    return bad(r, expected, x ? found : "none");
}

static const char *get_text(const cJSON *o, const char *key) {
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(o, key));
    return s ? s : "";
}

/* A member that must be a list; its length. */
static int get_list(reader *r, const cJSON *o, const char *key, const cJSON **list, uint32_t *n) {
    *list = cJSON_GetObjectItemCaseSensitive(o, key);
    *n = cJSON_IsArray(*list) ? (uint32_t)cJSON_GetArraySize(*list) : 0;
    r->list = key;
    r->at = 0;
    if (cJSON_IsArray(*list)) return TTX_OK;
    return ttx_fail(r->err, TTX_E_USAGE, "%s: expected a list '%s', found %s", r->path, key,
                    *list ? "something else" : "none");
}

static int parse(reader *r, cJSON **root, const char *text, size_t n) {
    const char *end = text;
    char hash[TTX_MODEL_HASH];
    *root = cJSON_ParseWithLengthOpts(text, n, &end, false);
    if (!*root)
        return ttx_fail(r->err, TTX_E_USAGE, "%s: expected JSON, found something else at byte %zu",
                        r->path, (size_t)(end - text));
    ttx_trace_model_hash(r->m, hash);
    const char *found = get_text(*root, "model_hash");
    if (strcmp(hash, found) == 0) return TTX_OK;
    return ttx_fail(r->err, TTX_E_USAGE,
                    "%s: expected 'model_hash' to be that of the model, %s, found %.64s", r->path,
                    hash, *found ? found : "none");
}

/* The range that an entry names, inside the tensor that it names. */
static int get_range(const reader *r, const cJSON *o, ttx_range *range) {
    const char *name = get_text(o, "tensor_name");
    const gguf_tensor *t = gguf_find_tensor(r->m->file, name);
    uint64_t offset = 0, size = 0;
    if (!t) return bad(r, "'tensor_name' to name a tensor of the model", *name ? name : "none");
    int rc = get_number(r, o, "file_offset", UINT64_C(1) << 52, &offset);
    if (!rc) rc = get_number(r, o, "size_bytes", UINT64_C(1) << 52, &size);
    if (rc) return rc;
    if (size < 1 || offset < t->offset || offset - t->offset > t->size ||
        size > t->size - (offset - t->offset))
        return bad(r, "a range inside its tensor", "another");
    *range = (ttx_range){t->shard, offset, size};
    return TTX_OK;
}

static int get_expert(const reader *r, const cJSON *o, ttx_expert_id *id) {
    uint64_t layer = 0, expert = 0;
    const ttx_hparams *hp = &r->m->hp;
    if (!hp->n_expert) return bad(r, "no experts, since the model has none", "some");
    int rc = get_number(r, o, "layer_id", hp->n_layer - 1, &layer);
    if (!rc) rc = get_number(r, o, "expert_id", hp->n_expert - 1, &expert);
    if (!rc) *id = (ttx_expert_id){(uint16_t)layer, (uint16_t)expert};
    return rc;
}

/* ---- hints.json ---- */

static int read_pins(reader *r, ttx_hints *h) {
    const cJSON *pin = cJSON_GetObjectItemCaseSensitive(r->root, "pin"), *list, *o;
    const cJSON *ram = cJSON_GetObjectItemCaseSensitive(pin, "ram");
    uint32_t n;
    if (!pin) return TTX_OK;
    int rc = get_list(r, pin, "ranges", &list, &n);
    if (rc) return rc;
    if (cJSON_IsNumber(ram) && ram->valuedouble > 0 && ram->valuedouble < 0x1p52)
        h->pin_bytes = (uint64_t)ram->valuedouble;
    h->pins = calloc(n + 1, sizeof *h->pins);
    if (!h->pins) return ttx_fail_nomem(r->err, r->path, n * sizeof *h->pins);
    cJSON_ArrayForEach(o, list) {
        if ((rc = get_range(r, o, &h->pins[h->n_pins]))) return rc;
        h->n_pins++;
        r->at++;
    }
    return TTX_OK;
}

static int read_warm(reader *r, ttx_hints *h) {
    const cJSON *list, *o;
    uint32_t n;
    if (!cJSON_GetObjectItemCaseSensitive(r->root, "warm_experts")) return TTX_OK;
    int rc = get_list(r, r->root, "warm_experts", &list, &n);
    if (rc) return rc;
    h->warm = calloc(n + 1, sizeof *h->warm);
    if (!h->warm) return ttx_fail_nomem(r->err, r->path, n * sizeof *h->warm);
    cJSON_ArrayForEach(o, list) {
        if ((rc = get_expert(r, o, &h->warm[h->n_warm]))) return rc;
        h->n_warm++;
        r->at++;
    }
    return TTX_OK;
}

/* What an option means, the command line's reader knows. */
static int read_run(const reader *r, ttx_hints_run *run) {
    const struct {
        const char *key;
        char *to;
        size_t size;
    } texts[] = {
        {"ram", run->ram, sizeof run->ram},
        {"load_mode", run->load_mode, sizeof run->load_mode},
        {"expert_cache", run->expert_cache, sizeof run->expert_cache},
        {"prefetch", run->prefetch, sizeof run->prefetch},
        {"guess", run->guess, sizeof run->guess},
    };
    const cJSON *o = cJSON_GetObjectItemCaseSensitive(r->root, "run");
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        const cJSON *x = cJSON_GetObjectItemCaseSensitive(o, texts[i].key);
        const char *text = get_text(o, texts[i].key);
        if (x && (!*text || strlen(text) >= texts[i].size))
            return ttx_fail(r->err, TTX_E_USAGE, "%s: run: expected '%s' to be a short text",
                            r->path, texts[i].key);
        strcpy(texts[i].to, text);
    }
    return TTX_OK;
}

int ttx_hints_read(ttx_hints *h, const ttx_model *m, const char *text, size_t n, const char *path,
                   ttx_err *err) {
    reader r = {.m = m, .path = path, .err = err};
    cJSON *root;
    int rc = parse(&r, &root, text, n);
    r.root = root;
    if (!rc && !cJSON_HasObjectItem(root, "pin") && !cJSON_HasObjectItem(root, "warm_experts"))
        rc =
            ttx_fail(err, TTX_E_USAGE, "%s: expected 'pin' or 'warm_experts', found neither", path);
    if (!rc) rc = read_pins(&r, h);
    if (!rc) rc = read_warm(&r, h);
    if (!rc) rc = read_run(&r, &h->run);
    cJSON_Delete(root);
    return rc;
}

/* ---- access_pattern.json ---- */

/* The base sequence must be the model's own access plan. */
static int check_plan(reader *r, const ttx_plan *plan) {
    const cJSON *list, *o;
    uint32_t n;
    int rc = get_list(r, r->root, "per_token_pattern", &list, &n);
    if (rc) return rc;
    if (n != plan->n)
        return ttx_fail(r->err, TTX_E_USAGE,
                        "%s: per_token_pattern: expected the %zu accesses of a token, found %u",
                        r->path, plan->n, n);
    cJSON_ArrayForEach(o, list) {
        const ttx_access *a = &plan->v[r->at];
        ttx_range range = {0};
        if ((rc = get_range(r, o, &range))) return rc;
        if (range.shard != a->range.shard || range.offset != a->range.offset ||
            range.size != a->range.size)
            return bad(r, "the access that a token does there", get_text(o, "tensor_name"));
        r->at++;
    }
    return TTX_OK;
}

static int get_successors(const reader *r, const cJSON *o, ttx_successor *v) {
    const cJSON *to = cJSON_GetObjectItemCaseSensitive(o, "to");
    const cJSON *p = cJSON_GetObjectItemCaseSensitive(o, "probability");
    int n = cJSON_GetArraySize(to);
    if (!cJSON_IsArray(to) || !cJSON_IsArray(p) || n != cJSON_GetArraySize(p))
        return bad(r, "'to' and 'probability' of the same length", "others");
    to = to->child;
    p = p->child;
    for (int i = 0; i < n && i < TTX_SUCCESSORS_MOST; i++, to = to->next, p = p->next) {
        if (!cJSON_IsNumber(to) || !(to->valuedouble >= 0) ||
            !(to->valuedouble < r->m->hp.n_expert))
            return bad(r, "an expert of the model in 'to'", "another");
        if (!cJSON_IsNumber(p) || !(p->valuedouble >= 0 && p->valuedouble <= 1))
            return bad(r, "a number from 0 to 1 in 'probability'", "another");
        v[i] = (ttx_successor){(uint16_t)to->valuedouble, (float)p->valuedouble};
    }
    return TTX_OK;
}

static int read_successors(reader *r, ttx_hints *h) {
    const ttx_hparams *hp = &r->m->hp;
    const cJSON *list, *o;
    uint32_t n;
    size_t cells = (size_t)hp->n_layer * hp->n_expert * TTX_SUCCESSORS_MOST;
    if (!cJSON_GetObjectItemCaseSensitive(r->root, "expert_successors")) return TTX_OK;
    int rc = get_list(r, r->root, "expert_successors", &list, &n);
    if (rc || !n) return rc;
    if (!hp->n_expert) return bad(r, "no experts, since the model has none", "some");
    ttx_successor *v = calloc(cells, sizeof *v);
    if (!v) return ttx_fail_nomem(r->err, r->path, cells * sizeof *v);
    h->successors = (ttx_successors){hp->n_layer, hp->n_expert, v};
    cJSON_ArrayForEach(o, list) {
        ttx_expert_id id = {0};
        if ((rc = get_expert(r, o, &id))) return rc;
        rc = get_successors(r, o, ttx_successors_of(&h->successors, id.layer, id.expert));
        if (rc) return rc;
        r->at++;
    }
    return TTX_OK;
}

int ttx_pattern_read(ttx_hints *h, const ttx_model *m, const char *text, size_t n, const char *path,
                     ttx_err *err) {
    reader r = {.m = m, .path = path, .err = err};
    ttx_plan plan = {0};
    cJSON *root;
    int rc = parse(&r, &root, text, n);
    r.root = root;
    if (!rc) rc = ttx_plan_decode(m, &plan, err);
    if (!rc) rc = check_plan(&r, &plan);
    if (!rc) rc = read_successors(&r, h);
    ttx_plan_free(&plan);
    cJSON_Delete(root);
    return rc;
}

void ttx_hints_free(ttx_hints *h) {
    free(h->pins);
    free(h->warm);
    free(h->successors.v);
    *h = (ttx_hints){0};
}
