/* note.h -- what the program says on standard error, line by line, and its copy in a log file.
 *
 * For commands and main alone: libraries report through ttx_err and callbacks. Whoever follows a
 * run afterwards (--log-file) finds every line there, also those said before the file was opened.
 * No levels, no time stamps.
 */
#ifndef TTX_NOTE_H
#define TTX_NOTE_H

#include "err.h"

#include <stdio.h>

/* "ttx: " and a line on stderr: for what should be known, and for the error that ends a program. */
void ttx_note(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* From now on every line is appended to the file `path` too, beginning with those said so far.
 * Errors: TTX_E_RUNTIME. */
int ttx_note_log_to(const char *path, ttx_err *err);

/* The log, for what is not a line (tables): NULL without one. */
FILE *ttx_note_log(void);

#endif
