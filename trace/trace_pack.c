/* trace_pack.c -- see trace_pack.h. Built without libzstd, it refuses. */
#include "trace_pack.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef TTX_ZSTD
#include <zstd.h>

enum { FAST = 1, IN_BYTES = 1 << 17 };

struct ttx_packer {
    ZSTD_CCtx *z;
};

struct ttx_unpacker {
    ZSTD_DStream *z;
    int fd;
    const char *path;
    unsigned long long pos;
    ZSTD_inBuffer in;
    bool inside; /* of a frame */
    bool at_end;
    char bytes[IN_BYTES];
};

int ttx_packer_open(ttx_packer **out, ttx_err *err) {
    *out = calloc(1, sizeof **out);
    if (*out && ((*out)->z = ZSTD_createCCtx())) return TTX_OK;
    ttx_packer_close(*out);
    *out = NULL;
    return ttx_fail_nomem(err, "zstd", sizeof **out);
}

void ttx_packer_close(ttx_packer *p) {
    if (p) ZSTD_freeCCtx(p->z);
    free(p);
}

size_t ttx_pack(ttx_packer *p, void *to, const void *from, size_t n) {
    size_t size = ZSTD_compressCCtx(p->z, to, 2 * n + 1000, from, n, FAST);
    return ZSTD_isError(size) ? 0 : size;
}

int ttx_unpacker_open(ttx_unpacker **out, int fd, const char *path, ttx_err *err) {
    ttx_unpacker *u = *out = calloc(1, sizeof *u);
    if (!u || !(u->z = ZSTD_createDStream())) {
        ttx_unpacker_close(u);
        *out = NULL;
        return ttx_fail_nomem(err, "zstd", sizeof *u);
    }
    u->fd = fd;
    u->path = path;
    u->in.src = u->bytes;
    return TTX_OK;
}

void ttx_unpacker_close(ttx_unpacker *u) {
    if (u) ZSTD_freeDStream(u->z);
    free(u);
}

/* More of the file behind what is left. */
static int fill(ttx_unpacker *u, ttx_err *err) {
    size_t left = u->in.size - u->in.pos;
    memmove(u->bytes, u->bytes + u->in.pos, left);
    u->in.pos = 0;
    u->in.size = left;
    ssize_t k;
    do k = read(u->fd, u->bytes + left, sizeof u->bytes - left);
    while (k < 0 && errno == EINTR);
    if (k < 0) return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read: %s", u->path, strerror(errno));
    u->at_end = k == 0;
    u->in.size += (size_t)k;
    u->pos += (unsigned long long)k;
    return TTX_OK;
}

/* Between frames: nothing but zeros, up to the end of the page that a killed run was writing. */
static bool is_tail(const ttx_unpacker *u) {
    size_t left = u->in.size - u->in.pos;
    for (size_t i = 0; i < left; i++)
        if (u->bytes[u->in.pos + i]) return false;
    return left < 4096;
}

int ttx_unpack(ttx_unpacker *u, void *to, size_t n, size_t *got, ttx_err *err) {
    ZSTD_outBuffer out = {to, n, 0};
    int rc = TTX_OK;
    *got = 0;
    while (out.pos < n) {
        size_t before = out.pos, left = u->in.size - u->in.pos;
        /* a page at least, so that the tail is seen as a whole */
        if (left <= 4096 && !u->at_end && (rc = fill(u, err))) return rc;
        if (!u->inside && u->at_end && is_tail(u)) break;
        size_t at = u->in.pos, hint = ZSTD_decompressStream(u->z, &out, &u->in);
        if (ZSTD_isError(hint))
            return ttx_fail(err, TTX_E_RUNTIME, "%s: damaged before byte %llu: %s", u->path, u->pos,
                            ZSTD_getErrorName(hint));
        u->inside = hint != 0;
        if (u->at_end && u->in.pos == at && out.pos == before) break; /* ends inside of a frame */
    }
    *got = out.pos;
    return TTX_OK;
}

unsigned long long ttx_unpacker_pos(const ttx_unpacker *u) {
    return u->pos - (u->in.size - u->in.pos);
}

#else

int ttx_packer_open(ttx_packer **out, ttx_err *err) {
    *out = NULL;
    return ttx_fail(err, TTX_E_USAGE, "--trace-compress: this ttx was built without libzstd");
}

void ttx_packer_close(ttx_packer *p) {
    (void)p;
}

size_t ttx_pack(ttx_packer *p, void *to, const void *from, size_t n) {
    (void)p, (void)to, (void)from, (void)n;
    return 0;
}

int ttx_unpacker_open(ttx_unpacker **out, int fd, const char *path, ttx_err *err) {
    (void)fd;
    *out = NULL;
    return ttx_fail(err, TTX_E_RUNTIME,
                    "%s: this ttx was built without libzstd; 'zstd -d' unpacks the file", path);
}

void ttx_unpacker_close(ttx_unpacker *u) {
    (void)u;
}

int ttx_unpack(ttx_unpacker *u, void *to, size_t n, size_t *got, ttx_err *err) {
    (void)u, (void)to, (void)n;
    *got = 0;
    return ttx_fail(err, TTX_E_RUNTIME, "this ttx was built without libzstd");
}

unsigned long long ttx_unpacker_pos(const ttx_unpacker *u) {
    (void)u;
    return 0;
}
#endif
