/* opt_int.h -- what the parser of options and the writers of their documents share. */
#ifndef TTX_OPT_INT_H
#define TTX_OPT_INT_H

#include "opt.h"

/* A borrowed piece of text, not terminated. */
typedef struct opt_word {
    const char *s;
    int n;
} opt_word;

/* Takes the next word off *at, words being separated by any of `seps`. False at the end. */
bool opt_next_word(const char **at, const char *seps, opt_word *word);

#define OPT_NAME_SEPS   ", "
#define OPT_CHOICE_SEPS "|"

/* Whether the option consumes an argument. */
bool opt_takes_arg(const ttx_opt *o);

/* Whether the option is there for llama.cpp's sake only. */
bool opt_is_ignored(const ttx_opt *o);

/* What stands for the argument in a synopsis: the choices, or the argument's name; "" if none. */
const char *opt_arg_text(const ttx_opt *o);

/* The settings of `cmd` after defaults(), from calloc; NULL without memory. */
void *opt_default_settings(const ttx_command *cmd);

/* Text of the default found in `settings` (may be NULL), or "" where there is nothing to tell. */
void opt_default_text(const ttx_opt *o, const void *settings, char *buf, size_t size);

#endif
