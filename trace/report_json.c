/* report_json.c -- JSON, written as it is made; every text from outside is made valid UTF-8. */
#include "report_int.h"

#include <inttypes.h>
#include <math.h>

static void put_name(rp_json *j, const char *name) {
    if (j->comma) fputc(',', j->f);
    if (name) fprintf(j->f, "\"%s\":", name);
    j->comma = true;
}

void rp_begin(rp_json *j, const char *name, char bracket) {
    put_name(j, name);
    fputc(bracket, j->f);
    j->comma = false;
}

void rp_end(rp_json *j, char bracket) {
    fputc(bracket, j->f);
    j->comma = true;
}

/* Bytes of the UTF-8 character at `s`; 0: it is none. */
static int utf8(const unsigned char *s) {
    int n = *s < 0x80                 ? 1
            : *s >= 0xc2 && *s < 0xe0 ? 2
            : *s >= 0xe0 && *s < 0xf0 ? 3
            : *s >= 0xf0 && *s < 0xf5 ? 4
                                      : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (n == 3 && ((*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] > 0x9f))) return 0;
    if (n == 4 && ((*s == 0xf0 && s[1] < 0x90) || (*s == 0xf4 && s[1] > 0x8f))) return 0;
    return n;
}

void rp_text(rp_json *j, const char *name, const char *text) {
    put_name(j, name);
    if (!text) {
        fputs("null", j->f);
        return;
    }
    fputc('"', j->f);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = utf8(s);
        /* '<' must not end a script of the page that this may stand in. */
        if (n == 0 || *s < ' ' || *s == '<' || *s == 127)
            fprintf(j->f, "\\u%04x", n ? *s : 0xfffd);
        else if (*s == '"' || *s == '\\')
            fprintf(j->f, "\\%c", *s);
        else
            fwrite(s, 1, (size_t)n, j->f);
        s += n ? n : 1;
    }
    fputc('"', j->f);
}

void rp_u64(rp_json *j, const char *name, uint64_t v) {
    put_name(j, name);
    fprintf(j->f, "%" PRIu64, v);
}

void rp_num(rp_json *j, const char *name, double v) {
    put_name(j, name);
    if (isfinite(v))
        fprintf(j->f, "%.9g", v);
    else
        fputs("null", j->f);
}

void rp_bool(rp_json *j, const char *name, bool v) {
    put_name(j, name);
    fputs(v ? "true" : "false", j->f);
}

void rp_id(rp_json *j, const char *name, uint64_t v, uint64_t none) {
    if (v != none) {
        rp_u64(j, name, v);
        return;
    }
    put_name(j, name);
    fputs("null", j->f);
}
