/* tok_detok.c -- from ids back to bytes: one token at a time, and a stream of whole characters. */
#include "tok_int.h"
#include "unicode.h"

#include <stdlib.h>
#include <string.h>

/* Output that counts what it cannot hold. */
typedef struct sink {
    char *buf;
    size_t cap, n;
} sink;

static void put(sink *out, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++, out->n++)
        if (out->n < out->cap) out->buf[out->n] = s[i];
}

/* Byte-level spelling to bytes; characters outside it stay what they are. */
static void put_bpe(sink *out, const tok_str *text) {
    uint32_t cp;
    for (size_t i = 0, len; i < text->n; i += len) {
        len = ttx_utf8_decode((const uint8_t *)text->s + i, text->n - i, &cp);
        int byte = tok_cp_to_byte(cp);
        char b = (char)byte;
        if (byte < 0)
            put(out, text->s + i, len);
        else
            put(out, &b, 1);
    }
}

/* SentencePiece: U+2581 is a space. */
static void put_spm(sink *out, const tok_str *text) {
    static const char escaped[3] = {'\xE2', '\x96', '\x81'};
    for (size_t i = 0; i < text->n;) {
        if (text->n - i >= 3 && memcmp(text->s + i, escaped, 3) == 0) {
            put(out, " ", 1);
            i += 3;
        } else {
            put(out, text->s + i++, 1);
        }
    }
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "<0xXX>" is one byte; -1: spelled otherwise. */
static int byte_of(const tok_str *text) {
    if (text->n != 6 || memcmp(text->s, "<0x", 3) != 0 || text->s[5] != '>') return -1;
    int hi = hex_digit(text->s[3]), lo = hex_digit(text->s[4]);
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

size_t ttx_token_bytes(const ttx_tokenizer *t, int32_t id, char *buf, size_t cap) {
    sink out = {.buf = buf, .cap = cap};
    if (id < 0 || id >= t->n_vocab) return 0;
    const tok_str *text = &t->text[id];
    int byte = t->attr[id] & TOK_BYTE ? byte_of(text) : -1;
    char b = (char)byte;
    if (t->attr[id] & (TOK_CONTROL | TOK_UNKNOWN | TOK_USER))
        put(&out, text->s, text->n);
    else if (byte >= 0)
        put(&out, &b, 1);
    else if (t->attr[id] & TOK_NORMAL)
        t->bpe ? put_bpe(&out, text) : put_spm(&out, text);
    return out.n;
}

struct ttx_detok {
    const ttx_tokenizer *t;
    unsigned flags;
    bool strip;       /* the next text token may start with a space that is not part of the text */
    uint32_t n_held;  /* bytes of an unfinished character */
    uint32_t n_ready; /* bytes handed out by the last call, before the held ones in buf */
    char buf[];       /* 3 held bytes and the longest token */
};

int ttx_detok_new(ttx_detok **out, const ttx_tokenizer *t, unsigned flags, ttx_err *err) {
    ttx_detok *d = calloc(1, sizeof *d + 3 + t->max_len);
    *out = d;
    if (!d) return ttx_fail_nomem(err, "a detokenizer", sizeof *d + t->max_len);
    d->t = t;
    d->flags = flags;
    d->strip = t->add_space_prefix && (flags & TTX_DETOK_START);
    return TTX_OK;
}

void ttx_detok_free(ttx_detok *d) {
    free(d);
}

/* Bytes handed out before make way for those held. */
static void drop_ready(ttx_detok *d) {
    memmove(d->buf, d->buf + d->n_ready, d->n_held);
    d->n_ready = 0;
}

size_t ttx_detok_feed(ttx_detok *d, int32_t id, const char **bytes) {
    drop_ready(d);
    *bytes = d->buf;
    const ttx_tokenizer *t = d->t;
    if (id < 0 || id >= t->n_vocab) return 0;
    bool special = t->attr[id] & (TOK_CONTROL | TOK_UNKNOWN | TOK_USER);
    size_t n = 0;
    if (!ttx_tok_is_control(t, id) || (d->flags & TTX_DETOK_SPECIAL))
        n = ttx_token_bytes(t, id, d->buf + d->n_held, t->max_len);
    if (d->strip && !special && n > 0 && d->buf[d->n_held] == ' ')
        memmove(d->buf + d->n_held, d->buf + d->n_held + 1, --n);
    if (special)
        d->strip = t->add_space_prefix && (d->flags & TTX_DETOK_START);
    else
        d->strip = false;
    n += d->n_held;
    d->n_held = (uint32_t)ttx_utf8_partial((const uint8_t *)d->buf, n);
    d->n_ready = (uint32_t)n - d->n_held;
    return d->n_ready;
}

size_t ttx_detok_flush(ttx_detok *d, const char **bytes) {
    drop_ready(d);
    size_t n = d->n_held;
    *bytes = d->buf;
    d->n_held = 0;
    d->strip = d->t->add_space_prefix && (d->flags & TTX_DETOK_START);
    return n;
}
