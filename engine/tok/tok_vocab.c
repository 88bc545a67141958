/* tok_vocab.c -- loads a vocabulary: token texts, attributes, scores and BPE merges, each checked
 * before it is used, and the two hash tables over them.
 *
 * Nothing is copied: texts stay where they are in the mapped file. A text that occurs twice belongs
 * to its lowest id. A merge whose parts or result are not tokens can never give one; it is left
 * out.
 */
#include "tok_int.h"
#include "unicode.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKEN_BYTES = UINT16_MAX }; /* the room for it in tok_slot.tag */

static uint64_t mix(uint64_t h) {
    h *= 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

static uint64_t hash_bytes(const char *s, size_t n) {
    uint64_t h = n, v;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&v, s, 8);
        h = mix(h ^ v);
    }
    v = 0;
    memcpy(&v, s, n);
    return mix(mix(h ^ v));
}

static uint64_t hash_pair(int32_t left, int32_t right) {
    return mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right);
}

/* The slot of a text that is nowhere in the table yet, but for its id. */
static tok_slot slot_of(const char *s, size_t n, uint64_t hash) {
    tok_slot slot = {.tag = (uint32_t)n << 16 | (uint32_t)(hash >> 48), .id = -1};
    memcpy(&slot.head, s, n < 8 ? n : 8);
    return slot;
}

/* Where the text s[0..n) is in the table, or the empty slot where it belongs. */
static tok_slot *find_slot(const ttx_tokenizer *t, const char *s, size_t n, uint64_t hash) {
    tok_slot key = slot_of(s, n, hash);
    for (uint64_t i = hash & t->slot_mask;; i = (i + 1) & t->slot_mask) {
        tok_slot *slot = &t->slots[i];
        if (slot->id < 0) return slot;
        if (slot->head != key.head || slot->tag != key.tag) continue;
        if (n <= 8 || memcmp(t->text[slot->id].s + 8, s + 8, n - 8) == 0) return slot;
    }
}

int32_t tok_lookup(const ttx_tokenizer *t, const char *s, size_t n) {
    return n > t->max_len ? -1 : find_slot(t, s, n, hash_bytes(s, n))->id;
}

int32_t tok_lookup_z(const ttx_tokenizer *t, const char *s) {
    return tok_lookup(t, s, strlen(s));
}

/* Adds token `id` to the table, unless an earlier one has its text. */
static void insert_text(ttx_tokenizer *t, int32_t id) {
    const tok_str *text = &t->text[id];
    uint64_t h = hash_bytes(text->s, text->n);
    tok_slot *slot = find_slot(t, text->s, text->n, h);
    if (slot->id >= 0) return;
    *slot = slot_of(text->s, text->n, h);
    slot->id = id;
}

/* A power of two, at least twice n. */
static uint64_t table_size(uint64_t n) {
    uint64_t size = 16;
    while (size < 2 * n) size *= 2;
    return size;
}

uint32_t tok_byte_to_cp(uint8_t b) {
    if ((b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD)) return b;
    /* The others, in order, from U+0100 on: 00..20, 7F..A0, AD. */
    if (b <= 0x20) return 0x100u + b;
    return b == 0xAD ? 0x143u : 0x121u + (b - 0x7Fu);
}

int tok_cp_to_byte(uint32_t cp) {
    if (cp < 0x100) return tok_byte_to_cp((uint8_t)cp) == cp ? (int)cp : -1;
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp < 0x143) return (int)(cp - 0x121 + 0x7F);
    return cp == 0x143 ? 0xAD : -1;
}

/* ---- loading ---- */

static int load_texts(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    const gguf_kv *tokens;
    int code = gguf_get_array(f, "tokenizer.ggml.tokens", GGUF_STRING, true, &tokens, err);
    if (code) return code;
    if (tokens->n == 0 || tokens->n > INT32_MAX / 4)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: tokenizer.ggml.tokens: expected 1..%d tokens, found %llu",
                        gguf_path(f), INT32_MAX / 4, (unsigned long long)tokens->n);
    t->n_vocab = (int32_t)tokens->n;
    uint64_t n_slots = table_size(tokens->n);
    t->slot_mask = n_slots - 1;
    t->text = ttx_arena_array(&t->arena, tokens->n, sizeof *t->text);
    t->attr = ttx_arena_array(&t->arena, tokens->n, sizeof *t->attr);
    t->slots = ttx_arena_array(&t->arena, n_slots, sizeof *t->slots);
    if (!t->text || !t->attr || !t->slots)
        return ttx_fail_nomem(err, "the vocabulary", n_slots * sizeof *t->slots);
    memset(t->slots, 0xFF, n_slots * sizeof *t->slots);
    uint64_t pos = 0;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        gguf_str s = gguf_next_str(tokens, &pos);
        if (s.n > MAX_TOKEN_BYTES)
            return ttx_fail(err, TTX_E_MODEL, "%s: token %d: expected at most %d bytes, found %llu",
                            gguf_path(f), id, MAX_TOKEN_BYTES, (unsigned long long)s.n);
        t->text[id] = (tok_str){.s = s.s, .n = (uint32_t)s.n};
        if (s.n > t->max_len) t->max_len = (uint32_t)s.n;
        if (s.n > 0) insert_text(t, id);
    }
    return TTX_OK;
}

/* An array with one element per token; *kv is NULL if it is absent and may be. */
static int per_token_array(const ttx_tokenizer *t, const gguf_file *f, const char *key,
                           gguf_type elem, bool required, const gguf_kv **kv, ttx_err *err) {
    int code = gguf_get_array(f, key, elem, required, kv, err);
    if (code || !*kv || (*kv)->n == (uint64_t)t->n_vocab) return code;
    return ttx_fail(err, TTX_E_MODEL, "%s: %s: expected %d elements, one per token, found %llu",
                    gguf_path(f), key, t->n_vocab, (unsigned long long)(*kv)->n);
}

static int load_attributes(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    /* By GGUF's token types: undefined, normal, unknown, control, user-defined, unused, byte. */
    static const uint8_t of_type[] = {0,        TOK_NORMAL, TOK_UNKNOWN, TOK_CONTROL,
                                      TOK_USER, TOK_UNUSED, TOK_BYTE};
    const gguf_kv *types;
    int code = per_token_array(t, f, "tokenizer.ggml.token_type", GGUF_INT32, false, &types, err);
    if (code) return code;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        int64_t type = types ? gguf_elem_i64(types, (uint64_t)id) : 1;
        t->attr[id] = type >= 0 && type <= 6 ? of_type[type] : 0;
    }
    return TTX_OK;
}

/* Turns a score into an integer that sorts the other way round: the best score first. */
static uint32_t order_of_score(float score) {
    uint32_t bits;
    score += 0.0f; /* -0 is 0 */
    memcpy(&bits, &score, sizeof bits);
    uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~ascending;
}

static int load_scores(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    const gguf_kv *scores;
    int code = per_token_array(t, f, "tokenizer.ggml.scores", GGUF_FLOAT32, true, &scores, err);
    if (code) return code;
    t->order = ttx_arena_array(&t->arena, (size_t)t->n_vocab, sizeof *t->order);
    if (!t->order) return ttx_fail_nomem(err, "scores", (unsigned)t->n_vocab * sizeof *t->order);
    for (int32_t id = 0; id < t->n_vocab; id++) {
        double score = gguf_elem_f64(scores, (uint64_t)id);
        if (isnan(score))
            return ttx_fail(err, TTX_E_MODEL, "%s: token %d: expected a score, found not a number",
                            gguf_path(f), id);
        t->order[id] = order_of_score((float)score);
    }
    return TTX_OK;
}

/* The token of every single byte: its byte-level spelling, or <0xXX> with the byte itself as the
 * second choice. */
static void find_byte_tokens(ttx_tokenizer *t) {
    static const char hex[] = "0123456789ABCDEF";
    for (int b = 0; b < 256; b++) {
        char s[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        char byte = (char)b;
        if (t->bpe) {
            t->byte_id[b] = tok_lookup(t, s, ttx_utf8_encode(tok_byte_to_cp((uint8_t)b), s));
            continue;
        }
        t->byte_id[b] = tok_lookup(t, s, sizeof s);
        if (t->byte_id[b] < 0) t->byte_id[b] = tok_lookup(t, &byte, 1);
    }
}

int tok_load_vocab(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    int code = load_texts(t, f, err);
    if (!code) code = load_attributes(t, f, err);
    if (!code && !t->bpe) code = load_scores(t, f, err);
    if (!code) find_byte_tokens(t);
    return code;
}

/* ---- merges ---- */

/* A merge being looked up: "left right", and the hashes of left, right and both joined. */
typedef struct merge {
    const char *s;
    size_t n, n_left; /* n_left 0: not a merge */
    uint64_t hash[3];
    tok_pair pair; /* left < 0: not of tokens */
} merge;

/* Merges looked up together: long enough that memory fetched for the first has come when the last
 * has been asked for. Three or four misses a merge are nearly all of the time to load. */
enum { BATCH = 32 };

static size_t join(const merge *m, char joined[2 * MAX_TOKEN_BYTES]) {
    memcpy(joined, m->s, m->n_left);
    memcpy(joined + m->n_left, m->s + m->n_left + 1, m->n - m->n_left - 1);
    return m->n - 1;
}

static void start_merge(const ttx_tokenizer *t, gguf_str s, merge *m) {
    char joined[2 * MAX_TOKEN_BYTES];
    const char *space = s.n < 3 || s.n > t->max_len + 1 ? NULL : memchr(s.s + 1, ' ', s.n - 1);
    m->n_left = 0;
    if (!space) return;
    m->s = s.s;
    m->n = s.n;
    m->n_left = (size_t)(space - s.s);
    m->hash[0] = hash_bytes(s.s, m->n_left);
    m->hash[1] = hash_bytes(space + 1, m->n - m->n_left - 1);
    m->hash[2] = hash_bytes(joined, join(m, joined));
    for (int i = 0; i < 3; i++) __builtin_prefetch(&t->slots[m->hash[i] & t->slot_mask]);
}

static void look_up_merge(const ttx_tokenizer *t, merge *m) {
    char joined[2 * MAX_TOKEN_BYTES];
    m->pair.left = -1;
    if (!m->n_left) return;
    size_t n_joined = join(m, joined);
    int32_t left = find_slot(t, m->s, m->n_left, m->hash[0])->id;
    m->pair.right = find_slot(t, m->s + m->n_left + 1, m->n - m->n_left - 1, m->hash[1])->id;
    m->pair.merged = find_slot(t, joined, n_joined, m->hash[2])->id;
    if (left < 0 || m->pair.right < 0 || m->pair.merged < 0) return;
    m->pair.left = left;
    __builtin_prefetch(&t->pairs[hash_pair(left, m->pair.right) & t->pair_mask]);
}

/* The pair's place, or the empty one where it belongs. */
static tok_pair *find_pair(const ttx_tokenizer *t, int32_t left, int32_t right) {
    uint64_t i = hash_pair(left, right) & t->pair_mask;
    while (t->pairs[i].left >= 0 && (t->pairs[i].left != left || t->pairs[i].right != right))
        i = (i + 1) & t->pair_mask;
    return &t->pairs[i];
}

/* A pair that occurs twice keeps its first rank. */
static void insert_merge(const ttx_tokenizer *t, const merge *m) {
    if (m->pair.left < 0) return;
    tok_pair *place = find_pair(t, m->pair.left, m->pair.right);
    if (place->left < 0) *place = m->pair;
}

int tok_load_merges(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    const gguf_kv *merges;
    int code = gguf_get_array(f, "tokenizer.ggml.merges", GGUF_STRING, true, &merges, err);
    if (code) return code;
    if (merges->n > INT32_MAX)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: tokenizer.ggml.merges: expected at most %d, found "
                        "%llu",
                        gguf_path(f), INT32_MAX, (unsigned long long)merges->n);
    uint64_t size = table_size(merges->n), pos = 0;
    t->pairs = ttx_arena_array(&t->arena, size, sizeof *t->pairs);
    if (!t->pairs) return ttx_fail_nomem(err, "merges", size * sizeof *t->pairs);
    t->pair_mask = size - 1;
    for (uint64_t i = 0; i < size; i++) t->pairs[i].left = -1;
    for (uint32_t rank = 0, n; rank < merges->n; rank += n) {
        merge batch[BATCH];
        n = merges->n - rank < BATCH ? (uint32_t)merges->n - rank : BATCH;
        for (uint32_t i = 0; i < n; i++) {
            batch[i].pair.rank = rank + i;
            start_merge(t, gguf_next_str(merges, &pos), &batch[i]);
        }
        for (uint32_t i = 0; i < n; i++) look_up_merge(t, &batch[i]);
        for (uint32_t i = 0; i < n; i++) insert_merge(t, &batch[i]);
    }
    return TTX_OK;
}

const tok_pair *tok_find_pair(const ttx_tokenizer *t, int32_t left, int32_t right) {
    const tok_pair *pair = find_pair(t, left, right);
    return pair->left < 0 ? NULL : pair;
}
