/* npy.c -- see npy.h.
 *
 *   0  "\x93NUMPY" 1 0      magic, version
 *   8  u16                  length of the text that follows, so that values start at a multiple of
 * 64 10  "{'descr': '<f4', 'fortran_order': False, 'shape': (rows, cols), }" blanks "\n"
 */
#include "npy.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PREFIX = 10, HEADER = 128 };

int ttx_npy_header(FILE *f, uint64_t rows, uint64_t cols, ttx_err *err) {
    char h[HEADER + 1];
    memcpy(h, "\x93NUMPY\x01\x00\x76\x00", PREFIX); /* 0x76 = HEADER - PREFIX */
    int n = snprintf(h + PREFIX, sizeof h - PREFIX,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (%llu, %llu), }",
                     (unsigned long long)rows, (unsigned long long)cols);
    memset(h + PREFIX + n, ' ', (size_t)(HEADER - PREFIX - n));
    h[HEADER - 1] = '\n';
    if (fwrite(h, 1, HEADER, f) != HEADER)
        return ttx_fail(err, TTX_E_RUNTIME, "cannot write: %s", strerror(errno));
    return TTX_OK;
}

/* The value after 'key': in the header's dictionary; NULL if there is none. */
static const char *after_key(const char *dict, const char *key) {
    const char *p = strstr(dict, key);
    if (!p) return NULL;
    p += strlen(key);
    return p + strspn(p, " :");
}

static int parse(ttx_npy *m, const char *path, ttx_err *err) {
    const uint8_t *b = m->map;
    char dict[1024];
    size_t n = m->map_bytes < PREFIX ? 0 : (size_t)(b[8] | b[9] << 8);
    bool ok = m->map_bytes >= PREFIX && memcmp(b, "\x93NUMPY\x01", 7) == 0 && n < sizeof dict &&
              m->map_bytes - PREFIX >= n && (PREFIX + n) % sizeof(float) == 0;
    if (!ok)
        return ttx_fail(err, TTX_E_USAGE, "%s: expected a .npy file (version 1), found another",
                        path);
    memcpy(dict, b + PREFIX, n);
    dict[n] = 0;
    const char *descr = after_key(dict, "'descr'"), *shape = after_key(dict, "'shape'");
    const char *order = after_key(dict, "'fortran_order'");
    unsigned long long rows = 0, cols = 0;
    if (!descr || strncmp(descr, "'<f4'", 5) != 0 || !order || strncmp(order, "False", 5) != 0 ||
        !shape || sscanf(shape, "(%llu, %llu)", &rows, &cols) != 2) {
        while (n && isspace((unsigned char)dict[n - 1])) dict[--n] = 0;
        return ttx_fail(err, TTX_E_USAGE, "%s: expected a float32 matrix in C order, found '%.80s'",
                        path, dict);
    }
    uint64_t values = (m->map_bytes - PREFIX - n) / sizeof(float);
    if (!rows || !cols || rows > values / cols)
        return ttx_fail(err, TTX_E_USAGE, "%s: expected %llu x %llu values, found %llu", path, rows,
                        cols, (unsigned long long)values);
    m->values = (const float *)(const void *)(b + PREFIX + n);
    m->rows = rows;
    m->cols = cols;
    return TTX_OK;
}

int ttx_npy_open(ttx_npy *m, const char *path, ttx_err *err) {
    *m = (ttx_npy){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0) {
        if (fd >= 0) close(fd);
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", path, strerror(errno));
    }
    m->map_bytes = (size_t)st.st_size;
    void *p = st.st_size > 0 ? mmap(NULL, m->map_bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    close(fd);
    if (p == MAP_FAILED)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot map: %s", path, strerror(errno));
    m->map = p;
    if (!p) m->map_bytes = 0;
    int rc = parse(m, path, err);
    if (rc) ttx_npy_close(m);
    return rc;
}

void ttx_npy_close(ttx_npy *m) {
    if (m->map) munmap(m->map, m->map_bytes);
    *m = (ttx_npy){0};
}
