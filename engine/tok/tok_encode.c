/* tok_encode.c -- the life of a tokenizer, and ttx_tokenize: special tokens cut out, the text
 * between them split and merged. */
#include "tok_int.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1 << 30 };

static bool is(gguf_str s, const char *z) {
    return s.n == strlen(z) && memcmp(s.s, z, s.n) == 0;
}

/* A text of the file as part of a message: printable, and not long. */
static const char *shown(char buf[40], gguf_str s) {
    size_t n = s.n < 39 ? (size_t)s.n : 39;
    for (size_t i = 0; i < n; i++) buf[i] = s.s[i] >= ' ' && s.s[i] <= '~' ? s.s[i] : '?';
    buf[n] = '\0';
    return buf;
}

/* Which kind of vocabulary, how it splits, and what it does unless the file says otherwise. */
static int load_kind(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    gguf_str model = {0}, pre = {.s = "default", .n = 7};
    char buf[40];
    int code = gguf_get_str(f, "tokenizer.ggml.model", true, &model, err);
    if (!code) code = gguf_get_str(f, "tokenizer.ggml.pre", false, &pre, err);
    if (code) return code;
    t->bpe = is(model, "gpt2");
    if (!t->bpe && !is(model, "llama"))
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: tokenizer.ggml.model: expected llama or gpt2, found '%s'",
                        gguf_path(f), shown(buf, model));
    if (!t->bpe) {
        t->add_bos = t->add_space_prefix = true;
    } else {
        t->split = tok_find_split(pre.s, pre.n);
        if (!t->split)
            return ttx_fail(err, TTX_E_MODEL,
                            "%s: tokenizer.ggml.pre: expected a known split (llama-bpe, gpt-2, "
                            "gpt-4o, qwen2, smollm, deepseek-llm, ...), found '%s'",
                            gguf_path(f), shown(buf, pre));
        t->ignore_merges = t->split->ignore_merges;
        t->add_bos = t->split->add_bos;
    }
    return gguf_get_bool(f, "tokenizer.ggml.add_space_prefix", false, &t->add_space_prefix, err);
}

int ttx_tokenizer_load(ttx_tokenizer **out, const gguf_file *f, ttx_err *err) {
    *out = NULL;
    ttx_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return ttx_fail_nomem(err, "a tokenizer", sizeof *t);
    int code = load_kind(t, f, err);
    if (!code) code = tok_load_vocab(t, f, err);
    if (!code && t->bpe) code = tok_load_merges(t, f, err);
    if (!code) code = tok_load_special(t, f, err);
    if (code) {
        ttx_tokenizer_free(t);
        return code;
    }
    *out = t;
    return TTX_OK;
}

void ttx_tokenizer_free(ttx_tokenizer *t) {
    if (!t) return;
    ttx_arena_free(&t->arena);
    free(t);
}

/* ---- text ---- */

/* Where text is made ready for merging. BPE's arrays are sized for the whole text once. */
typedef struct splitter {
    tok_chars chars;
    uint32_t *ends[2];
    char *word; /* BPE: a word in byte-level spelling; else a text with its spaces escaped */
    size_t cap_word;
} splitter;

static void splitter_free(splitter *s) {
    free(s->chars.cp);
    free(s->chars.off);
    free(s->chars.cls);
    free(s->ends[0]);
    free(s->ends[1]);
    free(s->word);
}

static int splitter_init(splitter *s, size_t n, ttx_err *err) {
    s->chars.cp = malloc((n + 1) * sizeof *s->chars.cp);
    s->chars.off = malloc((n + 1) * sizeof *s->chars.off);
    s->chars.cls = malloc((n + 1) * sizeof *s->chars.cls);
    s->ends[0] = malloc((n + 1) * sizeof *s->ends[0]);
    s->ends[1] = malloc((n + 1) * sizeof *s->ends[1]);
    if (s->chars.cp && s->chars.off && s->chars.cls && s->ends[0] && s->ends[1]) return TTX_OK;
    return ttx_fail_nomem(err, "splitting a text", 17 * (n + 1ull));
}

/* Gives s->word room for n bytes. */
static int reserve_word(splitter *s, size_t n, ttx_err *err) {
    if (n <= s->cap_word) return TTX_OK;
    char *grown = realloc(s->word, n + n / 2);
    if (!grown) return ttx_fail_nomem(err, "a word", n + n / 2);
    s->word = grown;
    s->cap_word = n + n / 2;
    return TTX_OK;
}

/* The token that a whole word is; -1: none. Looked up in the vocabulary's byte-level spelling, for
 * which s->word has room for twice the longest token. */
static int32_t whole_word(const ttx_tokenizer *t, splitter *s, const char *text, size_t n) {
    if (n > t->max_len) return -1;
    size_t len = 0;
    for (size_t i = 0; i < n; i++)
        len += ttx_utf8_encode(tok_byte_to_cp((uint8_t)text[i]), s->word + len);
    return tok_lookup(t, s->word, len);
}

static int encode_bpe(tok_work *w, splitter *s, const char *text, size_t n) {
    const uint32_t *words;
    int code = w->t->ignore_merges ? reserve_word(s, 2 * (size_t)w->t->max_len, w->err) : TTX_OK;
    if (code) return code;
    tok_decode_chars(&s->chars, text, n);
    size_t n_words = tok_split_words(w->t->split, &s->chars, s->ends[0], s->ends[1], &words);
    uint32_t begin = 0;
    for (size_t i = 0; i < n_words && !code; i++) {
        uint32_t end = s->chars.off[words[i]];
        int32_t id = w->t->ignore_merges ? whole_word(w->t, s, text + begin, end - begin) : -1;
        code = id >= 0 ? tok_emit(w, id) : tok_merge_text(w, text + begin, end - begin);
        begin = end;
    }
    return code;
}

/* Copies text[0..n) with every space written as U+2581, and one before it if `prefix`. `out` has
 * room for three bytes a byte, and three. */
static size_t escape_spaces(char *out, const char *text, size_t n, bool prefix) {
    size_t len = prefix ? ttx_utf8_encode(0x2581, out) : 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ' ')
            len += ttx_utf8_encode(0x2581, out + len);
        else
            out[len++] = text[i];
    }
    return len;
}

static int encode_spm(tok_work *w, splitter *s, const char *text, size_t n, bool prefix) {
    int code = reserve_word(s, 3 * n + 3, w->err);
    if (code) return code;
    size_t len = escape_spaces(s->word, text, n, prefix);
    return tok_merge_text(w, s->word, len);
}

/* Ordinary text and special tokens in turn, as `marks` (NULL: all ordinary) has them. */
static int encode_fragments(tok_work *w, splitter *s, const char *text, size_t n,
                            const uint8_t *marks) {
    bool after_special = true; /* the start counts as such */
    int code = TTX_OK;
    for (size_t pos = 0, end; pos < n && !code; pos = end) {
        uint8_t kind = marks ? marks[pos] : TOK_RAW;
        uint8_t rest = kind == TOK_HEAD ? TOK_INSIDE : kind;
        end = pos + 1;
        while (end < n && (marks ? marks[end] : TOK_RAW) == rest) end++;
        if (kind == TOK_HEAD) {
            code = tok_emit(w, tok_lookup(w->t, text + pos, end - pos));
            after_special = true;
        } else if (kind == TOK_RAW) {
            code = w->t->bpe ? encode_bpe(w, s, text + pos, end - pos)
                             : encode_spm(w, s, text + pos, end - pos,
                                          w->t->add_space_prefix && after_special);
            after_special = false;
        }
    }
    return code;
}

int ttx_tokenize(const ttx_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids,
                 size_t *n_ids, ttx_err *err) {
    tok_work w = {.t = t, .err = err};
    splitter s = {0};
    uint8_t *marks = NULL;
    *ids = NULL;
    *n_ids = 0;
    if (n >= MAX_TEXT)
        return ttx_fail(err, TTX_E_USAGE, "text: expected less than 1 GiB, found %zu bytes", n);
    int code = tok_mark_specials(t, flags & TTX_TOK_PARSE_SPECIAL ? &t->all : &t->user, text, n,
                                 &marks, err);
    if (!code && t->bpe) code = splitter_init(&s, n, err);
    if (!code && (flags & TTX_TOK_ADD_SPECIAL) && t->add_bos) code = tok_emit(&w, t->bos);
    if (!code) code = encode_fragments(&w, &s, text, n, marks);
    if (!code && (flags & TTX_TOK_ADD_SPECIAL) && t->add_eos) code = tok_emit(&w, t->eos);
    if (!code && !w.ids) { /* an empty result is an allocation too */
        w.ids = malloc(sizeof *w.ids);
        if (!w.ids) code = ttx_fail_nomem(err, "tokens", sizeof *w.ids);
    }
    if (!code) {
        *ids = w.ids;
        *n_ids = w.n_ids;
        w.ids = NULL;
    }
    free(marks);
    splitter_free(&s);
    tok_work_free(&w);
    return code;
}

/* ---- what users ask ---- */

int32_t ttx_tok_n_vocab(const ttx_tokenizer *t) {
    return t->n_vocab;
}
int32_t ttx_tok_bos(const ttx_tokenizer *t) {
    return t->bos;
}
int32_t ttx_tok_eos(const ttx_tokenizer *t) {
    return t->eos;
}
bool ttx_tok_add_bos(const ttx_tokenizer *t) {
    return t->add_bos;
}

bool ttx_tok_add_eos(const ttx_tokenizer *t) {
    return t->add_eos;
}

bool ttx_tok_is_eog(const ttx_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n_vocab && (t->attr[id] & TOK_EOG);
}

bool ttx_tok_is_control(const ttx_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->n_vocab && (t->attr[id] & (TOK_CONTROL | TOK_UNKNOWN));
}

int32_t ttx_tok_find(const ttx_tokenizer *t, const char *text) {
    return tok_lookup_z(t, text);
}
