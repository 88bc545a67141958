/* err.h -- the one way in which ttx functions fail.
 *
 * Every fallible function returns int: 0 for success, otherwise a ttx_code, and writes one line
 * into the ttx_err it was given. The first error wins: a later one never overwrites the cause.
 * The form is: subject, what was expected, what was found. Only a command's main prints it, and
 * the code is the exit code of the process.
 */
#ifndef TTX_ERR_H
#define TTX_ERR_H

#include <stdarg.h>

typedef enum ttx_code {
    TTX_OK = 0,
    TTX_E_RUNTIME = 1,      /* out of memory, I/O, a resource that the machine refused */
    TTX_E_USAGE = 2,        /* a command line, or a call, that makes no sense */
    TTX_E_MODEL = 3,        /* a model file that is damaged, inconsistent or not supported */
    TTX_E_INTERRUPTED = 130 /* the user pressed Ctrl-C */
} ttx_code;

typedef struct ttx_err {
    int code;
    char msg[256];
} ttx_err;

/* Records the message if `e` holds none yet; returns `code` in any case, so that a caller can
 * write `return ttx_fail(...)`. `e` may be NULL when the caller does not want the text. A message
 * that does not fit ends in "..."; control characters (of a damaged file, say) become '?'. */
int ttx_fail(ttx_err *e, ttx_code code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* ttx_fail for "out of memory": `what` names what the bytes were for. */
int ttx_fail_nomem(ttx_err *e, const char *what, unsigned long long bytes);

#endif
