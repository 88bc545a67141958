/* tok_merge.c -- the merging that both kinds of vocabulary share.
 *
 * A text starts as a list of symbols (bytes for BPE, characters for SentencePiece). The best
 * mergeable neighbours are joined until none are left: best is the lowest rank (BPE: of the merge;
 * SentencePiece: of the token they give), and among equals the leftmost. A heap holds the
 * candidates; one whose symbols have changed since is dropped when it comes up. O(n log n).
 */
#include "tok_int.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

int tok_emit(tok_work *w, int32_t id) {
    if (w->n_ids == w->cap_ids) {
        size_t cap = w->cap_ids ? 2 * w->cap_ids : 64;
        int32_t *grown = realloc(w->ids, cap * sizeof *grown);
        if (!grown) return ttx_fail_nomem(w->err, "tokens", cap * sizeof *grown);
        w->ids = grown;
        w->cap_ids = cap;
    }
    w->ids[w->n_ids++] = id;
    return TTX_OK;
}

void tok_work_free(tok_work *w) {
    free(w->sym);
    free(w->heap);
    free(w->ids);
}

/* Makes room for n symbols. Each merge takes one candidate and adds at most two, so that 2n are
 * enough. */
static int reserve(tok_work *w, size_t n) {
    if (n <= w->cap) return TTX_OK;
    size_t cap = n < 64 ? 64 : n + n / 2;
    free(w->sym);
    free(w->heap);
    w->sym = malloc(cap * sizeof *w->sym);
    w->heap = malloc(2 * cap * sizeof *w->heap);
    w->cap = w->sym && w->heap ? cap : 0;
    if (w->cap) return TTX_OK;
    return ttx_fail_nomem(w->err, "merging a text", cap * (sizeof *w->sym + 2 * sizeof *w->heap));
}

/* ---- the heap ---- */

static void sift_down(tok_cand *h, size_t n, size_t i) {
    tok_cand c = h[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && h[child + 1].order < h[child].order) child++;
        if (c.order <= h[child].order) break;
        h[i] = h[child];
    }
    h[i] = c;
}

static void push(tok_work *w, tok_cand c) {
    size_t i = w->n_heap++;
    for (; i > 0 && c.order < w->heap[(i - 1) / 2].order; i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
}

static tok_cand pop(tok_work *w) {
    tok_cand top = w->heap[0];
    w->heap[0] = w->heap[--w->n_heap];
    if (w->n_heap) sift_down(w->heap, w->n_heap, 0);
    return top;
}

/* ---- merging ---- */

/* Whether two neighbours can be merged: into which token, at which rank. */
static bool mergeable(const ttx_tokenizer *t, const char *text, const tok_sym *a, const tok_sym *b,
                      uint32_t *rank, int32_t *merged) {
    if (t->bpe) {
        const tok_pair *p = a->id < 0 || b->id < 0 ? NULL : tok_find_pair(t, a->id, b->id);
        if (!p) return false;
        *rank = p->rank;
        *merged = p->merged;
        return true;
    }
    if (a->n + b->n > t->max_len) return false;
    *merged = tok_lookup(t, text + a->off, a->n + b->n);
    if (*merged < 0) return false;
    *rank = t->order[*merged];
    return true;
}

/* The candidate of symbols left and right, if there is one. */
static bool candidate_of(const tok_work *w, const char *text, int32_t left, int32_t right,
                         tok_cand *c) {
    uint32_t rank;
    int32_t merged;
    if (left < 0 || right < 0) return false;
    const tok_sym *a = &w->sym[left], *b = &w->sym[right];
    if (!mergeable(w->t, text, a, b, &rank, &merged)) return false;
    *c = (tok_cand){.order = (uint64_t)rank << 32 | (uint32_t)left,
                    .right = (uint32_t)right,
                    .size = a->n + b->n};
    return true;
}

static void merge_all(tok_work *w, const char *text) {
    tok_cand c;
    w->n_heap = 0;
    for (size_t i = 1; i < w->n_sym; i++)
        if (candidate_of(w, text, (int32_t)i - 1, (int32_t)i, &c)) w->heap[w->n_heap++] = c;
    for (size_t i = w->n_heap / 2; i-- > 0;) sift_down(w->heap, w->n_heap, i);
    while (w->n_heap) {
        c = pop(w);
        int32_t left = (int32_t)(uint32_t)c.order;
        tok_sym *a = &w->sym[left], *b = &w->sym[c.right];
        if (a->n == 0 || b->n == 0 || a->n + b->n != c.size) continue;
        uint32_t rank;
        mergeable(w->t, text, a, b, &rank, &a->id);
        a->n += b->n;
        b->n = 0;
        a->next = b->next;
        if (b->next >= 0) w->sym[b->next].prev = left;
        if (candidate_of(w, text, a->prev, left, &c)) push(w, c);
        if (candidate_of(w, text, left, a->next, &c)) push(w, c);
    }
}

/* A symbol that is no token goes byte by byte. BPE drops bytes that the vocabulary does not have,
 * as llama.cpp does. */
static int emit_symbol(tok_work *w, const char *text, const tok_sym *s) {
    if (s->id >= 0) return tok_emit(w, s->id);
    int code = TTX_OK;
    for (uint32_t i = 0; i < s->n && !code; i++) {
        int32_t id = w->t->byte_id[(uint8_t)text[s->off + i]];
        if (id < 0 && !w->t->bpe) id = w->t->unk;
        if (id >= 0) code = tok_emit(w, id);
    }
    return code;
}

/* Length of the first symbol of text[0..n). */
static size_t first_symbol(const ttx_tokenizer *t, const char *text, size_t n) {
    uint32_t cp;
    return t->bpe ? 1 : ttx_utf8_decode((const uint8_t *)text, n, &cp);
}

int tok_merge_text(tok_work *w, const char *text, size_t n) {
    const ttx_tokenizer *t = w->t;
    int code = reserve(w, n);
    if (code) return code;
    w->n_sym = 0;
    for (size_t off = 0, len; off < n; off += len) {
        len = first_symbol(t, text + off, n - off);
        int32_t i = (int32_t)w->n_sym++;
        w->sym[i] = (tok_sym){.prev = i - 1,
                              .next = off + len < n ? i + 1 : -1,
                              .off = (uint32_t)off,
                              .n = (uint32_t)len,
                              .id = t->bpe ? t->byte_id[(uint8_t)text[off]]
                                           : tok_lookup(t, text + off, len)};
    }
    merge_all(w, text);
    for (int32_t i = n ? 0 : -1; i >= 0 && !code; i = w->sym[i].next)
        code = emit_symbol(w, text, &w->sym[i]);
    return code;
}
