/* gguf_cursor.c -- bounded reading of a file's header.
 *
 * The header is read with pread into memory of our own, not parsed in the mapping: a mapped page
 * of a file that somebody truncates is a SIGBUS, and one that somebody rewrites would change under
 * strings and lengths that were already checked. It is small (the vocabulary; some MB), it is read
 * in chunks, and what lies behind it is not touched but for the rest of the last chunk.
 *
 * Every size is compared by subtraction from what is left, so that no sum can overflow.
 */
#include "gguf_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_CHUNK = 128 * 1024 };

int gguf_cur_fail(gguf_cursor *c, ttx_code code, const char *fmt, ...) {
    if (c->code) return c->code;
    c->code = code;
    char path[GGUF_SHOW_PATH], where[sizeof c->name + 24] = "header", what[160];
    if (c->name[0])
        snprintf(where, sizeof where, "%s '%s'", c->section, c->name);
    else if (c->section)
        snprintf(where, sizeof where, "%s %llu", c->section, (unsigned long long)c->index);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return ttx_fail(c->err, code, "%s: %s: %s", gguf_show_path(path, sizeof path, c->path), where,
                    what);
}

/* Reads on until the buffer holds `want` bytes, which the file has. */
static int fill(gguf_cursor *c, uint64_t want) {
    if (want > GGUF_MAX_HEADER)
        return gguf_cur_fail(c, TTX_E_MODEL, "reaches to byte %llu; headers end below %d",
                             (unsigned long long)want, GGUF_MAX_HEADER);
    uint64_t target = c->have ? 2 * c->have : FIRST_CHUNK;
    if (target < want) target = want;
    if (target > c->size) target = c->size;
    uint8_t *buf = realloc(c->buf, target);
    if (!buf) {
        c->code = ttx_fail_nomem(c->err, "the model's header", target);
        return c->code;
    }
    c->buf = buf;
    while (c->have < target) {
        ssize_t n = pread(c->fd, buf + c->have, target - c->have, (off_t)c->have);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0)
            return gguf_cur_fail(c, TTX_E_RUNTIME, "reading at byte %llu: %s",
                                 (unsigned long long)c->have, strerror(errno));
        if (n == 0)
            return gguf_cur_fail(c, TTX_E_MODEL, "the file shrank to %llu bytes while it was read",
                                 (unsigned long long)c->have);
        c->have += (uint64_t)n;
    }
    return 0;
}

const uint8_t *gguf_cur_take(gguf_cursor *c, uint64_t n, const char *what) {
    if (c->code) return NULL;
    if (n > c->size - c->pos) {
        gguf_cur_fail(c, TTX_E_MODEL, "%s needs %llu bytes at byte %llu, file has %llu", what,
                      (unsigned long long)n, (unsigned long long)c->pos,
                      (unsigned long long)c->size);
        return NULL;
    }
    if (n > c->have - c->pos && fill(c, c->pos + n)) return NULL;
    const uint8_t *p = c->buf + c->pos;
    c->pos += n;
    return p;
}

uint32_t gguf_cur_u32(gguf_cursor *c, const char *what) {
    const uint8_t *p = gguf_cur_take(c, 4, what);
    return p ? gguf_le32(p) : 0;
}

uint64_t gguf_cur_u64(gguf_cursor *c, const char *what) {
    const uint8_t *p = gguf_cur_take(c, 8, what);
    return p ? gguf_le64(p) : 0;
}
