/* readfile.h -- a file that is read whole: settings, hints, documents, lists. */
#ifndef TTX_READFILE_H
#define TTX_READFILE_H

#include "err.h"

#include <stddef.h>
#include <stdint.h>

/* The whole of a file (or of /dev/stdin), NUL-terminated; the caller frees. `limit`: the most bytes
 * that make sense. Errors: TTX_E_RUNTIME, TTX_E_USAGE (larger). */
int ttx_read_file(const char *path, uint64_t limit, char **data, size_t *n, ttx_err *err);

#endif
