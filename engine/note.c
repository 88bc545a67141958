/* note.c -- see note.h. The log is the program's, as stderr is; nobody else holds state like this.
 */
#include "note.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

static FILE *log_file;
static char early[8192]; /* what was said before there was a log */
static size_t early_n;

void ttx_note(const char *format, ...) {
    char line[4096];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    if (n < 0) return;
    fprintf(stderr, "ttx: %s\n", line);
    if (log_file) {
        fprintf(log_file, "ttx: %s\n", line);
        fflush(log_file);
        return;
    }
    int kept = snprintf(early + early_n, sizeof early - early_n, "ttx: %s\n", line);
    if (kept > 0 && (size_t)kept < sizeof early - early_n) early_n += (size_t)kept;
    early[early_n] = 0; /* without a line that had no room */
}

int ttx_note_log_to(const char *path, ttx_err *err) {
    if (!(log_file = fopen(path, "ae")))
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", path, strerror(errno));
    fputs(early, log_file);
    fflush(log_file);
    return TTX_OK;
}

FILE *ttx_note_log(void) {
    return log_file;
}
