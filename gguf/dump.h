/* dump.h -- the tensors of a model file as CSV, as `ttx gguf-dump` prints them. */
#ifndef TTX_DUMP_H
#define TTX_DUMP_H

#include "gguf.h"

#include <stdio.h>

int ttx_dump_csv(const gguf_file *f, FILE *out, ttx_err *err);

#endif
