/* report_texts.c -- the words of a run, from its tokens.csv: for people to read, never for numbers.
 */
#include "report_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT = 64, FIELDS = 3 };

/* The place of a word, or where it would go; NULL: full. */
static uint32_t *find(const rp_texts *t, uint32_t vocab) {
    uint32_t i = vocab * 2654435761u >> 16;
    while (t->ids[i] && t->ids[i] != vocab + 1) i = (i + 1) % RP_WORDS;
    return t->ids[i] || t->n_word < RP_WORDS / 4 * 3 ? &t->ids[i] : NULL;
}

const char *rp_text_of(const rp_texts *t, uint32_t vocab) {
    uint32_t *id = t->ids && vocab < UINT32_MAX ? find(t, vocab) : NULL;
    return id && *id ? t->texts[id - t->ids] : NULL;
}

/* Reads one row of CSV, keeping the beginnings of its first fields. False at the end. */
static bool read_row(FILE *f, char field[FIELDS][TEXT + 1]) {
    size_t n[FIELDS] = {0};
    int at = 0, c;
    bool quoted = false, any = false;
    for (; (c = getc(f)) != EOF; any = true) {
        if (c == '"') {
            int next = quoted ? getc(f) : 0;
            if (quoted && next != '"') {
                quoted = false;
                if (next != EOF) ungetc(next, f);
                continue;
            }
            if (!quoted) {
                quoted = true;
                continue;
            }
        } else if (!quoted && c == ',') {
            at++;
            continue;
        } else if (!quoted && c == '\n') {
            any = true;
            break;
        }
        if (at < FIELDS && n[at] < TEXT) field[at][n[at]++] = (char)c;
    }
    for (int i = 0; i < FIELDS; i++) {
        /* No half character at the end. */
        if (n[i] == TEXT)
            while (n[i] && ((unsigned char)field[i][n[i] - 1] & 0xc0) == 0x80) n[i]--;
        if (n[i] && (unsigned char)field[i][n[i] - 1] >= 0xc0) n[i]--;
        field[i][n[i]] = 0;
    }
    return any;
}

static bool number(const char *s, uint64_t below, uint32_t *v) {
    char *end;
    errno = 0;
    unsigned long long x = strtoull(s, &end, 10);
    *v = (uint32_t)x;
    return *s && !*end && !errno && x < below;
}

int rp_texts_load(ttx_report *r, ttx_err *err) {
    rp_texts *t = &r->texts;
    char *path = ttx_trace_path(&r->meta, "tokens.csv");
    FILE *f = path ? fopen(path, "re") : NULL;
    free(path);
    if (!f) return TTX_OK;
    t->ids = calloc(RP_WORDS, sizeof *t->ids);
    t->texts = calloc(RP_WORDS, sizeof *t->texts);
    t->positions = calloc(RP_TEXTS, sizeof *t->positions);
    int rc = TTX_OK;
    if (!t->ids || !t->texts || !t->positions) rc = ttx_fail_nomem(err, "texts", RP_WORDS * 12);
    char field[FIELDS][TEXT + 1];
    while (!rc && read_row(f, field)) {
        uint32_t token, vocab, *id;
        if (!number(field[0], UINT32_MAX, &token) || !number(field[1], UINT32_MAX, &vocab))
            continue;
        if (token < RP_TEXTS) t->positions[token] = vocab + 1;
        if (!(id = find(t, vocab)) || *id) continue;
        char *text = ttx_arena_strndup(&t->arena, field[2], strlen(field[2]));
        if (!text) rc = ttx_fail_nomem(err, "texts", TEXT);
        *id = vocab + 1;
        t->texts[id - t->ids] = text;
        t->n_word++;
    }
    fclose(f);
    return rc;
}

void rp_texts_free(rp_texts *t) {
    free(t->ids);
    free(t->texts);
    free(t->positions);
    ttx_arena_free(&t->arena);
}
