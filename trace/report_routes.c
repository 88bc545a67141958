/* report_routes.c -- which experts tokens took, and which tokens an expert favours.
 *
 * A route names its token by position; which word that is, is said when the batch is done. Until
 * then routes wait. Counts by (layer, expert, word) are exact up to RP_MAX_FAVOURS different ones;
 * what comes after is counted as dropped.
 */
#include "report_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_USED = 32 };

int rp_routes_init(ttx_report *r, ttx_err *err) {
    rp_routes *s = &r->routes;
    s->n_layer = r->n_layer + 1;
    s->n_expert = r->meta.model.n_expert;
    if (s->n_expert > RP_MAX_EXPERTS) s->n_expert = RP_MAX_EXPERTS;
    if (!s->n_expert) return TTX_OK;
    size_t n = (size_t)s->n_layer * s->n_expert;
    s->n = calloc(n, sizeof *s->n);
    s->decode = calloc(n, sizeof *s->decode);
    s->first = calloc(n, sizeof *s->first);
    s->weight = calloc(n, sizeof *s->weight);
    s->score = calloc(n, sizeof *s->score);
    s->routed = calloc((size_t)s->n_layer * 2, sizeof *s->routed);
    s->again = calloc((size_t)s->n_layer * 2, sizeof *s->again);
    s->last = calloc((size_t)s->n_layer * MAX_USED * 2, sizeof *s->last);
    s->last_n = calloc((size_t)s->n_layer * 5, sizeof *s->last_n);
    s->head = calloc(s->n_expert, sizeof *s->head);
    s->cap_favour = 1 << 12;
    s->favours = calloc(s->cap_favour, sizeof *s->favours);
    if (!s->n || !s->decode || !s->first || !s->weight || !s->score || !s->routed || !s->again ||
        !s->last || !s->last_n || !s->head || !s->favours)
        return ttx_fail_nomem(err, "tables of experts", n * 40);
    s->again_of = s->again + s->n_layer;
    s->now = s->last + (size_t)s->n_layer * MAX_USED;
    s->now_n = s->last_n + s->n_layer;
    s->last_token = s->now_n + s->n_layer;
    s->now_token = s->last_token + s->n_layer;
    s->now_decode = s->now_token + s->n_layer;
    for (uint32_t i = 0; i < s->n_layer; i++) s->last_token[i] = s->now_token[i] = TTX_REC_NO_TOKEN;
    return TTX_OK;
}

void rp_routes_free(rp_routes *s) {
    free(s->n);
    free(s->decode);
    free(s->first);
    free(s->weight);
    free(s->score);
    free(s->routed);
    free(s->again);
    free(s->last);
    free(s->last_n);
    free(s->head);
    free(s->pending);
    free(s->vocab);
    free(s->favours);
}

/* ---- counts by word ---- */

static rp_favour *favour_slot(rp_favour *v, size_t cap, uint16_t layer, uint16_t expert,
                              uint32_t vocab) {
    uint64_t h = ((uint64_t)layer << 48 | (uint64_t)expert << 32 | vocab) * 0x9e3779b97f4a7c15u;
    size_t i = (h ^ h >> 32) & (cap - 1);
    while (v[i].n && (v[i].layer != layer || v[i].expert != expert || v[i].vocab != vocab))
        i = (i + 1) & (cap - 1);
    return &v[i];
}

static bool grow_favours(rp_routes *s) {
    size_t cap = s->cap_favour * 2;
    if (cap > RP_MAX_FAVOURS) return false;
    rp_favour *v = calloc(cap, sizeof *v);
    if (!v) return false;
    for (size_t i = 0; i < s->cap_favour; i++) {
        const rp_favour *f = &s->favours[i];
        if (f->n) *favour_slot(v, cap, f->layer, f->expert, f->vocab) = *f;
    }
    free(s->favours);
    s->favours = v;
    s->cap_favour = cap;
    return true;
}

static void count_favour(rp_routes *s, const rp_pending *p, uint32_t vocab) {
    rp_favour *f = favour_slot(s->favours, s->cap_favour, p->layer, p->expert, vocab);
    if (!f->n) {
        if (s->n_favour * 4 >= s->cap_favour * 3) {
            if (!grow_favours(s)) {
                s->dropped++;
                return;
            }
            f = favour_slot(s->favours, s->cap_favour, p->layer, p->expert, vocab);
        }
        *f = (rp_favour){p->layer, p->expert, vocab, 0};
        s->n_favour++;
    }
    f->n++;
}

void rp_routes_flush(ttx_report *r) {
    rp_routes *s = &r->routes;
    for (size_t i = 0; i < s->n_pending; i++) {
        const rp_pending *p = &s->pending[i];
        uint32_t vocab = p->token < s->cap_vocab ? s->vocab[p->token] : 0;
        if (vocab)
            count_favour(s, p, vocab - 1);
        else
            s->dropped++;
    }
    s->n_pending = 0;
    s->tokens_came = false;
    s->head_layer = UINT32_MAX;
}

/* ---- the token before ---- */

static void compare_with_last(rp_routes *s, uint32_t layer) {
    const uint16_t *last = s->last + (size_t)layer * MAX_USED;
    const uint16_t *now = s->now + (size_t)layer * MAX_USED;
    if (!s->now_decode[layer] || s->now_token[layer] != s->last_token[layer] + 1) return;
    for (uint32_t i = 0; i < s->now_n[layer]; i++)
        for (uint32_t k = 0; k < s->last_n[layer]; k++)
            if (now[i] == last[k]) {
                s->again[layer]++;
                break;
            }
    s->again_of[layer] += s->now_n[layer];
}

static void begin_route(rp_routes *s, uint32_t layer, uint32_t token, bool decode) {
    if (s->now_token[layer] != TTX_REC_NO_TOKEN) {
        compare_with_last(s, layer);
        memcpy(s->last + (size_t)layer * MAX_USED, s->now + (size_t)layer * MAX_USED,
               MAX_USED * sizeof *s->now);
        s->last_n[layer] = s->now_n[layer];
        s->last_token[layer] = s->now_token[layer];
    }
    s->now_token[layer] = token;
    s->now_decode[layer] = decode;
    s->now_n[layer] = 0;
    s->routed[2 * layer + decode]++;
}

void rp_routes_restart(rp_routes *s) {
    for (uint32_t i = 0; s->n_expert && i < s->n_layer; i++) {
        if (s->now_token[i] != TTX_REC_NO_TOKEN) compare_with_last(s, i);
        s->last_token[i] = s->now_token[i] = TTX_REC_NO_TOKEN;
        s->last_n[i] = s->now_n[i] = 0;
    }
}

/* ---- records ---- */

static void push_pending(rp_routes *s, const ttx_record *rec, uint32_t layer) {
    if (s->n_pending == s->cap_pending) {
        size_t cap = s->cap_pending ? s->cap_pending * 2 : 4096;
        rp_pending *v = cap > RP_MAX_PENDING ? NULL : realloc(s->pending, cap * sizeof *v);
        if (!v) {
            s->dropped++;
            return;
        }
        s->pending = v;
        s->cap_pending = cap;
    }
    if (s->head_layer != layer) memset(s->head, 0, s->n_expert * sizeof *s->head);
    s->head_layer = layer;
    s->pending[s->n_pending] =
        (rp_pending){(uint16_t)layer, rec->expert_id, rec->token_id, s->head[rec->expert_id]};
    s->head[rec->expert_id] = (uint32_t)++s->n_pending;
}

void rp_routes_route(ttx_report *r, const ttx_record *rec) {
    rp_routes *s = &r->routes;
    uint32_t layer = rec->layer_id;
    if (layer >= r->n_layer || rec->expert_id >= s->n_expert) {
        r->out_of_range++;
        return;
    }
    if (s->tokens_came) rp_routes_flush(r);
    bool decode = rec->phase == TTX_PHASE_GENERATE;
    if (rec->expert_rank == 0 || s->now_token[layer] != rec->token_id)
        begin_route(s, layer, rec->token_id, decode);
    size_t i = (size_t)layer * s->n_expert + rec->expert_id;
    s->n[i]++;
    s->decode[i] += decode;
    s->first[i] += rec->expert_rank == 0;
    if (isfinite(rec->expert_weight)) s->weight[i] += (double)rec->expert_weight;
    if (isfinite(rec->routing_score)) s->score[i] += (double)rec->routing_score;
    uint32_t *n = &s->now_n[layer];
    if (*n < MAX_USED) s->now[(size_t)layer * MAX_USED + (*n)++] = rec->expert_id;
    push_pending(s, rec, layer);
    r->out_of_range += rec->expert_rank >= MAX_USED;
}

void rp_routes_token(ttx_report *r, const ttx_record *rec) {
    rp_routes *s = &r->routes;
    size_t at = rec->token_id;
    if (!s->n_expert || at >= RP_MAX_VOCAB) return;
    if (at >= s->cap_vocab) {
        size_t cap = s->cap_vocab ? s->cap_vocab : 1024;
        while (cap <= at) cap *= 2;
        uint32_t *v = realloc(s->vocab, cap * sizeof *v);
        if (!v) return;
        memset(v + s->cap_vocab, 0, (cap - s->cap_vocab) * sizeof *v);
        s->vocab = v;
        s->cap_vocab = cap;
    }
    s->vocab[at] = rec->vocab_id == UINT32_MAX ? 0 : rec->vocab_id + 1;
    s->tokens_came = true;
}

bool rp_routes_spread(ttx_report *r, uint32_t row, const ttx_record *rec) {
    rp_routes *s = &r->routes;
    if (!s->n_expert || rec->expert_id >= s->n_expert || s->head_layer != rec->layer_id)
        return false;
    uint32_t n = 0;
    for (uint32_t i = s->head[rec->expert_id]; i && n <= rec->n_tokens; i = s->pending[i - 1].next)
        n++;
    if (n != rec->n_tokens) return false;
    uint32_t done = 0;
    for (uint32_t i = s->head[rec->expert_id]; i; i = s->pending[i - 1].next, done++)
        rp_cube_add(&r->cube, row, s->pending[i - 1].token, 1, 1,
                    rec->size_bytes * (done + 1) / n - rec->size_bytes * done / n, 0);
    return true;
}
