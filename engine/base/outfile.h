/* outfile.h -- the output of a command: standard output, or a file that appears only when whole.
 *
 * Where the file system allows it the draft has no name, so that a run that is killed leaves none.
 */
#ifndef TTX_OUTFILE_H
#define TTX_OUTFILE_H

#include "err.h"

#include <stdbool.h>
#include <stdio.h>

typedef struct ttx_outfile {
    FILE *f;       /* write here */
    char *path;    /* where it will be; NULL: standard output */
    char *draft;   /* the name of what is being written, at the latest for a moment before it is
                    * renamed; NULL: it is written in place */
    bool nameless; /* the draft has none so far */
} ttx_outfile;

/* `path` NULL or "-": standard output. An ordinary file is written as a draft beside it, which
 * takes its place at commit; devices and pipes are written directly. Errors: TTX_E_RUNTIME. */
int ttx_outfile_open(ttx_outfile *o, const char *path, ttx_err *err);
/* Ends the output; `rc` is the outcome of writing it so far. If that is 0 and every byte was taken,
 * the draft becomes the file; otherwise it is removed. Returns rc, or TTX_E_RUNTIME; a reader of
 * standard output that went away is told by the code alone, without a message. */
int ttx_outfile_close(ttx_outfile *o, int rc, ttx_err *err);

#endif
