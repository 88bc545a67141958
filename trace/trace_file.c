/* trace_file.c -- see trace_file.h: frames, the reader. Writing is the recorder's. */
#include "trace_file.h"

#include "trace_pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 4096 };

static const char magic[8] = {'T', 'T', 'X', 'T', 'R', 'A', 'C', 'E'};

/* ---- frames ---- */

ttx_frame ttx_frame_make(uint8_t kind) {
    ttx_frame f = {.version = TTX_TRACE_VERSION, .kind = kind};
    memcpy(f.magic, magic, sizeof magic);
    return f;
}

void ttx_frame_seal(const ttx_crc *c, ttx_frame *f) {
    f->frame_crc = ttx_crc32(c, 0, f, offsetof(ttx_frame, frame_crc));
}

/* ---- reading ---- */

struct ttx_trace_reader {
    char *path;
    int fd;
    bool checked, done;
    uint64_t bytes, pos, count, lost, time_ns;
    ttx_trace_end end;
    char cut[160];
    ttx_crc crc;
    ttx_record *block;      /* [TTX_TRACE_BLOCK_MAX + 1]: and the frame that follows it */
    ttx_frame next;         /* the frame at `pos` */
    ttx_unpacker *unpacker; /* NULL: the file is as it is */
};

/* Up to n bytes: fewer only at the end of the file. */
static int read_some(ttx_trace_reader *r, void *to, size_t n, size_t *got, ttx_err *err) {
    *got = 0;
    if (r->unpacker) return ttx_unpack(r->unpacker, to, n, got, err);
    while (*got < n) {
        ssize_t k = read(r->fd, (char *)to + *got, n - *got);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0)
            return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read: %s", r->path, strerror(errno));
        if (k == 0) break;
        *got += (size_t)k;
    }
    return TTX_OK;
}

static int damaged(const ttx_trace_reader *r, const char *expected, ttx_err *err) {
    return ttx_fail(err, TTX_E_RUNTIME, "%s: damaged at byte %llu: expected %s", r->path,
                    (unsigned long long)r->pos, expected);
}

/* The file ends here, though no END frame was seen. */
static void cut_short(ttx_trace_reader *r, bool inside) {
    r->done = true;
    snprintf(r->cut, sizeof r->cut,
             "incomplete: ends after %llu records without an end mark%s (the run was killed, or "
             "the disk was full)",
             (unsigned long long)r->count, inside ? ", inside a block" : "");
}

static int check_header(const ttx_trace_reader *r, const ttx_frame *f, size_t got, ttx_err *err) {
    if (got < sizeof *f || memcmp(f->magic, magic, sizeof magic) != 0)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: expected a trace, found %s", r->path,
                        got ? "something else" : "an empty file");
    if (f->version != TTX_TRACE_VERSION)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: expected trace version %d, found %u", r->path,
                        TTX_TRACE_VERSION, f->version);
    if (f->frame_crc != ttx_crc32(&r->crc, 0, f, offsetof(ttx_frame, frame_crc)) ||
        f->kind != TTX_FRAME_HEADER)
        return damaged(r, "a header", err);
    return TTX_OK;
}

static bool is_frame(const ttx_trace_reader *r, const ttx_frame *f) {
    return memcmp(f->magic, magic, sizeof magic) == 0 &&
           f->frame_crc == ttx_crc32(&r->crc, 0, f, offsetof(ttx_frame, frame_crc));
}

/* Whether the file ends here, though there are bytes left: nothing but the rest of the page that
 * its writer was at. */
static bool at_end(const ttx_trace_reader *r, uint64_t pos, const void *p, size_t n) {
    const uint8_t *v = p;
    for (size_t i = 0; i < n; i++)
        if (v[i]) return false;
    return !r->unpacker && r->bytes - pos < PAGE;
}

/* Takes the frame that was read at `pos`: `got` bytes of it. */
static int take_frame(ttx_trace_reader *r, size_t got, ttx_err *err) {
    ttx_frame *f = &r->next;
    bool end = at_end(r, r->pos, f, got);
    if (end || got < sizeof *f) {
        cut_short(r, !end);
        return TTX_OK;
    }
    if (!is_frame(r, f)) return damaged(r, "a block", err);
    if (f->first != r->count) return damaged(r, "the block that comes next", err);
    r->lost = f->lost;
    if (f->kind == TTX_FRAME_END && f->end < TTX_TRACE_ENDS) {
        r->end = (ttx_trace_end)f->end;
        r->done = true;
        uint8_t more;
        size_t n;
        int rc = read_some(r, &more, 1, &n, err);
        if (rc) return rc;
        if (n) return damaged(r, "the end of the file", err);
        return TTX_OK;
    }
    if (f->kind != TTX_FRAME_BLOCK || !f->n_records || f->n_records > TTX_TRACE_BLOCK_MAX)
        return damaged(r, "a block", err);
    return TTX_OK;
}

/* The file, or the packed one in its place. */
static int open_file(ttx_trace_reader *r, const char *path, ttx_err *err) {
    struct stat st;
    size_t n = strlen(path);
    r->path = malloc(n + sizeof TTX_TRACE_PACKED);
    if (!r->path) return ttx_fail_nomem(err, "path", n);
    memcpy(r->path, path, n + 1);
    r->fd = open(path, O_RDONLY | O_CLOEXEC);
    bool packed = r->fd < 0 && errno == ENOENT;
    if (packed) {
        memcpy(r->path + n, TTX_TRACE_PACKED, sizeof TTX_TRACE_PACKED);
        r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
        if (r->fd < 0) r->path[n] = 0;
    }
    if (r->fd < 0 || fstat(r->fd, &st))
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", r->path, strerror(errno));
    r->bytes = (uint64_t)st.st_size;
    return packed ? ttx_unpacker_open(&r->unpacker, r->fd, r->path, err) : TTX_OK;
}

int ttx_trace_reader_open(ttx_trace_reader **out, const char *path, unsigned flags, ttx_err *err) {
    *out = NULL;
    size_t got;
    int rc;
    ttx_trace_reader *r = calloc(1, sizeof *r);
    if (!r) return ttx_fail_nomem(err, "trace reader", sizeof *r);
    r->checked = !(flags & TTX_READ_UNCHECKED);
    r->block = malloc((TTX_TRACE_BLOCK_MAX + 1) * sizeof *r->block);
    r->fd = -1;
    if (!r->block) {
        rc = ttx_fail_nomem(err, "trace reader", TTX_TRACE_BLOCK_MAX * sizeof *r->block);
        goto error;
    }
    if ((rc = open_file(r, path, err))) goto error;
    ttx_crc_init(&r->crc);
    if ((rc = read_some(r, &r->next, sizeof r->next, &got, err))) goto error;
    if ((rc = check_header(r, &r->next, got, err))) goto error;
    r->pos = sizeof r->next;
    if ((rc = read_some(r, &r->next, sizeof r->next, &got, err))) goto error;
    if ((rc = take_frame(r, got, err))) goto error;
    *out = r;
    return TTX_OK;
error:
    ttx_trace_reader_close(r);
    return rc;
}

void ttx_trace_reader_close(ttx_trace_reader *r) {
    if (!r) return;
    if (r->fd >= 0) close(r->fd);
    ttx_unpacker_close(r->unpacker);
    free(r->path);
    free(r->block);
    free(r);
}

int ttx_trace_reader_next(ttx_trace_reader *r, const ttx_record **v, size_t *n, ttx_err *err) {
    *v = r->block;
    *n = 0;
    if (r->done) return TTX_OK;
    size_t records = r->next.n_records, size = records * sizeof *r->block, got;
    uint32_t crc = r->next.crc;
    r->time_ns = r->next.time_ns;
    int rc = read_some(r, r->block, size + sizeof r->next, &got, err);
    if (rc) return rc;
    if (got < size) {
        cut_short(r, true);
        return TTX_OK;
    }
    memcpy(&r->next, r->block + records, sizeof r->next);
    uint64_t end = r->pos + sizeof r->next + size;
    bool bad = r->checked && ttx_crc32(&r->crc, 0, r->block, size) != crc;
    /* Of a machine that stopped, the last block may be there in part only. */
    if (bad && at_end(r, end, &r->next, got - size)) {
        cut_short(r, true);
        return TTX_OK;
    }
    if (bad) return damaged(r, "records that fit their checksum", err);
    for (size_t i = 0; i < records; i++)
        if (r->block[i].kind == 0 || r->block[i].kind >= TTX_REC_FRAME)
            return damaged(r, "a record", err);
    r->pos = end;
    r->count += records;
    if ((rc = take_frame(r, got - size, err))) return rc;
    *n = records;
    return TTX_OK;
}

const char *ttx_trace_reader_cut(const ttx_trace_reader *r) {
    return r->cut[0] ? r->cut : NULL;
}

ttx_trace_end ttx_trace_reader_end(const ttx_trace_reader *r) {
    return r->end;
}

uint64_t ttx_trace_reader_lost(const ttx_trace_reader *r) {
    return r->lost;
}

uint64_t ttx_trace_reader_time(const ttx_trace_reader *r) {
    return r->time_ns;
}

uint64_t ttx_trace_reader_count(const ttx_trace_reader *r) {
    return r->count;
}

uint64_t ttx_trace_reader_pos(const ttx_trace_reader *r) {
    return r->unpacker ? ttx_unpacker_pos(r->unpacker) : r->pos;
}

uint64_t ttx_trace_reader_bytes(const ttx_trace_reader *r) {
    return r->bytes;
}
