/* err.c -- see err.h. */
#include "err.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

int ttx_fail(ttx_err *e, ttx_code code, const char *fmt, ...) {
    if (!e || e->code != TTX_OK) return code;
    e->code = code;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof e->msg) memcpy(e->msg + sizeof e->msg - 4, "...", 4);
    for (char *c = e->msg; *c; c++)
        if (iscntrl((unsigned char)*c)) *c = '?';
    return code;
}

int ttx_fail_nomem(ttx_err *e, const char *what, unsigned long long bytes) {
    return ttx_fail(e, TTX_E_RUNTIME, "out of memory: %s needs %llu bytes", what, bytes);
}
