/* readfile.c -- see readfile.h. */
#include "readfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ttx_read_file(const char *path, uint64_t limit, char **data, size_t *n, ttx_err *err) {
    FILE *f = fopen(path, "re");
    if (!f) return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", path, strerror(errno));
    size_t cap = 1 << 16, used = 0;
    char *p = malloc(cap + 1);
    int rc = p ? TTX_OK : ttx_fail_nomem(err, path, cap);
    while (!rc) {
        used += fread(p + used, 1, cap - used, f);
        if (used < cap) break;
        if (cap >= limit) {
            rc = ttx_fail(err, TTX_E_USAGE, "%s: expected at most %llu bytes, found more", path,
                          (unsigned long long)limit);
            break;
        }
        char *q = realloc(p, 2 * cap + 1);
        if (!q) rc = ttx_fail_nomem(err, path, 2 * cap);
        if (q) p = q, cap *= 2;
    }
    if (!rc && ferror(f))
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read: %s", path, strerror(errno));
    fclose(f);
    if (rc) {
        free(p);
        return rc;
    }
    p[used] = 0;
    *data = p;
    *n = used;
    return TTX_OK;
}
