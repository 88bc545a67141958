/* trace_check.c -- see trace_check.h.
 *
 * A decode token is compared with the pattern as it comes: heads collapsed to their tensor, and a
 * run of experts to what the pattern says of them, "k of E": k different experts of each matrix.
 */
#include "trace_check.h"

#include "readfile.h"
#include "route.h"
#include "trace_file.h"

#include <cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PATTERN = 1 << 30 };

/* A row of the pattern. */
struct step {
    uint32_t tensor;
    uint32_t n_used; /* 0: no experts */
};

struct pattern {
    struct step *v;
    size_t n;
};

/* The decode token that is being read. */
struct token {
    bool open, bad, grouped;
    uint32_t id;
    size_t at;     /* in the pattern */
    uint32_t last; /* tensor of the record before, of its launch; NO_TENSOR: none */
    uint64_t bytes;
    uint64_t layers; /* different ones, counted as they come */
    uint16_t layer;
    uint64_t *experts; /* [n_file_tensor] bits of a run: of each tensor, how many different */
};

struct check {
    const ttx_trace_meta *m;
    ttx_trace_summary *s;
    struct pattern pattern;
    struct token tok;
    uint8_t *seen;       /* [n_tensor] */
    uint16_t *used;      /* [n_tensor]: experts of the run that is being read */
    uint64_t *used_bits; /* [n_tensor][MAX / 64] of those */
    uint64_t last_ns, last_batch, end_ns;
    int64_t last_pos;
    bool lossy; /* records were dropped: what is missing proves nothing */
};

static void __attribute__((format(printf, 2, 3)))
problem(struct check *c, const char *format, ...) {
    uint64_t n = c->s->n_problems++;
    if (n >= TTX_CHECK_PROBLEMS) return;
    va_list ap;
    va_start(ap, format);
    vsnprintf(c->s->problems[n], sizeof c->s->problems[n], format, ap);
    va_end(ap);
}

/* ---- the pattern ---- */

static int read_pattern(struct check *c, ttx_err *err) {
    char *path = ttx_trace_path(c->m, "access_pattern.json"), *text = NULL;
    size_t size = 0;
    int rc = TTX_OK;
    if (path) ttx_read_file(path, MAX_PATTERN, &text, &size, NULL); /* unreadable is none */
    cJSON *doc = text ? cJSON_ParseWithLength(text, size) : NULL;
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(doc, "per_token_pattern"), *o;
    int n = cJSON_IsArray(list) ? cJSON_GetArraySize(list) : 0;
    if (!n) problem(c, "access_pattern.json: expected the pattern of a token, found none");
    if (n && !(c->pattern.v = calloc((size_t)n, sizeof *c->pattern.v)))
        rc = ttx_fail_nomem(err, "access pattern", (size_t)n * sizeof *c->pattern.v);
    if (!rc && n) cJSON_ArrayForEach(o, list) {
            const cJSON *i = cJSON_GetObjectItemCaseSensitive(o, "tensor_idx");
            const cJSON *k = cJSON_GetObjectItemCaseSensitive(o, "n_expert_used");
            if (!cJSON_IsNumber(i) ||
                !(i->valuedouble >= 0 && i->valuedouble < c->m->n_file_tensor)) {
                problem(c, "access_pattern.json: row %zu: expected a tensor of the file",
                        c->pattern.n);
                c->pattern.n = 0;
                break;
            }
            struct step *p = &c->pattern.v[c->pattern.n++];
            p->tensor = (uint32_t)i->valuedouble;
            p->n_used = cJSON_IsNumber(k) && k->valuedouble > 0 && k->valuedouble < 65536
                            ? (uint32_t)k->valuedouble
                            : 0;
        }
    cJSON_Delete(doc);
    free(text);
    free(path);
    return rc;
}

/* ---- a decode token against the pattern ---- */

static void differs(struct check *c, const char *found) {
    if (c->lossy) return;
    const char *want = c->tok.at < c->pattern.n ? c->m->tensors[c->pattern.v[c->tok.at].tensor].name
                                                : "the end of the token";
    if (!c->tok.bad)
        problem(c, "token %u: access %zu: expected %s, found %s", c->tok.id, c->tok.at, want,
                found);
    c->tok.bad = true;
}

/* The pattern's run of expert rows from `at` on: has each its k, or (old files) all of a matrix
 * together? Moves on behind it. */
static void close_experts(struct check *c) {
    uint64_t found = 0, want = 0;
    size_t first = c->tok.at;
    if (!c->tok.grouped) return;
    c->tok.grouped = false;
    for (; c->tok.at < c->pattern.n && c->pattern.v[c->tok.at].n_used; c->tok.at++) {
        const struct step *p = &c->pattern.v[c->tok.at];
        const ttx_trace_tensor *d = &c->m->tensors[p->tensor];
        bool split = d->expert != TTX_REC_NO_EXPERT;
        found += c->used[p->tensor];
        if (!split) want += p->n_used;
        if (!split && c->used[p->tensor] != p->n_used && !c->tok.bad) {
            problem(c, "token %u: %s: expected %u experts, found %u", c->tok.id, d->name, p->n_used,
                    c->used[p->tensor]);
            c->tok.bad = true;
        }
        if (split && c->m->model.n_expert) /* each stands for k of E of its matrix */
            want += (d->expert == 0) * (uint64_t)p->n_used;
        c->used[p->tensor] = 0;
        memset(c->used_bits + (size_t)p->tensor * (TTX_MAX_EXPERTS / 64), 0, TTX_MAX_EXPERTS / 8);
    }
    if (found != want && !c->tok.bad) {
        problem(c, "token %u: access %zu: expected %llu experts, found %llu", c->tok.id, first,
                (unsigned long long)want, (unsigned long long)found);
        c->tok.bad = true;
    }
}

static void take_expert(struct check *c, const ttx_record *r) {
    uint64_t *bits = c->used_bits + (size_t)r->tensor_idx * (TTX_MAX_EXPERTS / 64);
    c->tok.grouped = true;
    if (c->tok.at >= c->pattern.n || !c->pattern.v[c->tok.at].n_used) {
        differs(c, c->m->tensors[r->tensor_idx].name);
        return;
    }
    uint64_t bit = 1ull << r->expert_id % 64;
    c->used[r->tensor_idx] += !(bits[r->expert_id / 64] & bit);
    bits[r->expert_id / 64] |= bit;
}

static void take_decode(struct check *c, const ttx_record *r) {
    struct token *t = &c->tok;
    if (!t->open) *t = (struct token){.open = true, .id = r->token_id, .layer = TTX_REC_NO_LAYER};
    if (r->layer_id != TTX_REC_NO_LAYER && r->layer_id != t->layer) {
        t->layers++;
        t->layer = r->layer_id;
    }
    if (r->flags & TTX_RECF_FIRST) t->last = TTX_REC_NO_TENSOR;
    if (r->tensor_idx >= c->m->n_file_tensor) return; /* the cache, activations */
    t->bytes += r->size_bytes;
    if (!c->pattern.n) return;
    bool expert = r->expert_id != TTX_REC_NO_EXPERT && r->expert_id < TTX_MAX_EXPERTS;
    if (expert) {
        take_expert(c, r);
        return;
    }
    if (t->grouped) close_experts(c);
    bool head = r->attention_head != TTX_REC_NO_HEAD && r->tensor_idx == t->last;
    t->last = r->tensor_idx;
    if (head || t->bad) return;
    if (t->at >= c->pattern.n || c->pattern.v[t->at].tensor != r->tensor_idx)
        differs(c, c->m->tensors[r->tensor_idx].name);
    else
        t->at++;
}

/* The TOKEN record of a step of one token: all its accesses are there. */
static void close_decode(struct check *c, const ttx_record *r) {
    struct token *t = &c->tok;
    c->s->decode_tokens++;
    c->s->decode_s += (double)(r->end_ns - r->timestamp_ns) * 1e-9;
    if (c->m->level == TTX_LEVEL_STATS || c->lossy) return;
    close_experts(c);
    if (!t->open)
        problem(c, "token %u: expected accesses, found none", r->token_id);
    else if (t->layers != c->m->model.n_layer)
        problem(c, "token %u: expected %u layers, found %llu", r->token_id, c->m->model.n_layer,
                (unsigned long long)t->layers);
    else if (c->pattern.n && !t->bad && t->at != c->pattern.n)
        differs(c, "the end of the token");
    else if (!t->bad)
        c->s->whole_tokens++;
    c->s->decode_bytes += t->bytes;
    t->open = false;
}

/* ---- records ---- */

static void check_fields(struct check *c, const ttx_record *r) {
    const ttx_trace_model *m = &c->m->model;
    const char *what =
        !ttx_rec_kind_name(r->kind)                                              ? "kind"
        : !ttx_rec_op_name(r->kind, r->operation_type)                           ? "operation_type"
        : r->phase >= TTX_PHASE_COUNT                                            ? "phase"
        : r->qkv_type >= TTX_QKV_COUNT                                           ? "qkv_type"
        : r->residency >= TTX_RES_COUNT                                          ? "residency"
        : r->layer_id != TTX_REC_NO_LAYER && r->layer_id >= m->n_layer           ? "layer_id"
        : r->attention_head != TTX_REC_NO_HEAD && r->attention_head >= m->n_head ? "attention_head"
        : r->expert_id != TTX_REC_NO_EXPERT && r->expert_id >= m->n_expert       ? "expert_id"
                                                                                 : NULL;
    if (what)
        problem(c, "record %llu: %s is none of this model's", (unsigned long long)c->s->records,
                what);
}

static void check_access(struct check *c, const ttx_record *r) {
    if (r->flags & TTX_RECF_FIRST) {
        c->s->launches++;
        if (r->timestamp_ns < c->last_ns)
            problem(c, "record %llu: expected a time of at least %llu ns, found %llu",
                    (unsigned long long)c->s->records, (unsigned long long)c->last_ns,
                    (unsigned long long)r->timestamp_ns);
        c->last_ns = r->timestamp_ns;
    }
    if (r->tensor_idx == TTX_REC_NO_TENSOR) return;
    if (r->tensor_idx >= c->m->n_tensor) {
        problem(c, "record %llu: tensor %u of %u", (unsigned long long)c->s->records, r->tensor_idx,
                c->m->n_tensor);
        return;
    }
    const ttx_trace_tensor *d = &c->m->tensors[r->tensor_idx];
    c->s->tensors += !c->seen[r->tensor_idx];
    c->seen[r->tensor_idx] = 1;
    if (r->tensor_idx >= c->m->n_file_tensor) return;
    uint64_t at = r->file_offset - d->offset;
    bool inside = r->file_offset >= d->offset && at < d->size && r->size_bytes <= d->size &&
                  (r->flags & TTX_RECF_STRIDED || r->size_bytes <= d->size - at);
    if (!inside || r->shard != d->shard || !r->size_bytes)
        problem(c, "record %llu: %s: bytes %llu+%llu of shard %u lie outside of it",
                (unsigned long long)c->s->records, d->name, (unsigned long long)r->file_offset,
                (unsigned long long)r->size_bytes, r->shard);
    c->s->bytes += r->size_bytes;
    bool planned = r->phase == TTX_PHASE_GENERATE && !(r->flags & TTX_RECF_GUESS);
    if (inside && planned) take_decode(c, r);
}

static void check_token(struct check *c, const ttx_record *r) {
    c->s->tokens++;
    if (c->last_pos >= 0 && (int64_t)r->token_id != c->last_pos + 1 && !c->lossy)
        problem(c, "token %u: expected position %lld", r->token_id, (long long)c->last_pos + 1);
    bool first = r->batch != c->last_batch;
    if ((first && r->batch != c->last_batch + 1 && !c->lossy) || r->end_ns < r->timestamp_ns ||
        (first && r->timestamp_ns < c->end_ns))
        problem(c, "token %u: expected batches and times in order", r->token_id);
    c->last_pos = r->token_id;
    c->last_batch = r->batch;
    c->end_ns = r->end_ns;
    if (r->phase == TTX_PHASE_GENERATE && r->n_tokens == 1) close_decode(c, r);
    if (r->n_tokens != 1) c->tok.open = false;
}

static void check_record(struct check *c, const ttx_record *r) {
    check_fields(c, r);
    if (r->kind < TTX_REC_COUNT) c->s->by_kind[r->kind]++;
    if (r->kind == TTX_REC_ACCESS) check_access(c, r);
    if (r->kind == TTX_REC_TOKEN) check_token(c, r);
    if (r->kind == TTX_REC_RESTART) {
        c->last_pos = (int64_t)r->token_id - 1;
        c->last_ns = c->end_ns = 0; /* of a trace that was merged: another run begins */
        c->tok.open = false;
    }
    if (r->timestamp_ns * 1e-9 > c->s->duration_s)
        c->s->duration_s = (double)r->timestamp_ns * 1e-9;
    c->s->records++;
}

static int read_all(struct check *c, ttx_err *err) {
    ttx_trace_reader *r = NULL;
    char *path = ttx_trace_path(c->m, TTX_TRACE_RECORDS);
    if (!path) return ttx_fail_nomem(err, "path", 0);
    int rc = ttx_trace_reader_open(&r, path, 0, err);
    const ttx_record *v;
    for (size_t n = 1; !rc && n;) {
        rc = ttx_trace_reader_next(r, &v, &n, err);
        c->lossy = c->lossy || ttx_trace_reader_lost(r);
        for (size_t i = 0; !rc && i < n; i++) check_record(c, &v[i]);
    }
    if (!rc) {
        c->s->lost = ttx_trace_reader_lost(r);
        const char *cut = ttx_trace_reader_cut(r);
        if (!cut && !c->m->complete) cut = "incomplete: the run did not end in order";
        if (cut) snprintf(c->s->cut_text, sizeof c->s->cut_text, "%s", cut);
        c->s->cut = cut ? c->s->cut_text : NULL;
        if (c->m->complete && !cut && c->m->total_entries != c->s->records)
            problem(c, "expected %llu records as the metadata says, found %llu",
                    (unsigned long long)c->m->total_entries, (unsigned long long)c->s->records);
    }
    ttx_trace_reader_close(r);
    free(path);
    return rc;
}

int ttx_trace_check(const ttx_trace_meta *m, ttx_trace_summary *s, ttx_err *err) {
    *s = (ttx_trace_summary){0};
    size_t n = m->n_tensor + 1;
    struct check c = {.m = m,
                      .s = s,
                      .last_pos = -1,
                      .last_batch = UINT64_MAX,
                      .lossy = m->lost > 0,
                      .seen = calloc(n, 1),
                      .used = calloc(n, sizeof *c.used),
                      .used_bits = calloc(n, TTX_MAX_EXPERTS / 8)};
    int rc = !c.seen || !c.used || !c.used_bits
                 ? ttx_fail_nomem(err, "trace check", n * (TTX_MAX_EXPERTS / 8))
                 : TTX_OK;
    if (!rc) rc = read_pattern(&c, err);
    if (!rc) rc = read_all(&c, err);
    free(c.pattern.v);
    free(c.seen);
    free(c.used);
    free(c.used_bits);
    return rc;
}
