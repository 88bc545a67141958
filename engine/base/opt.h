/* opt.h -- commands and their options, as tables.
 *
 * A command is a row: its name, what it is for, its option table, its settings struct and what runs
 * it. One table drives parsing, --help, shell completion and man pages, so that they cannot
 * disagree. Parsing fills the settings struct at the offsets that the table gives.
 *
 * Command lines follow llama.cpp's habits: "-m FILE", "--model FILE" and "--model=FILE"; an option
 * given twice takes the last value (OPT_LIST collects); "--" ends the options.
 */
#ifndef TTX_OPT_H
#define TTX_OPT_H

#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum ttx_opt_kind {
    OPT_END = 0, /* ends a table */
    OPT_FLAG,    /* bool: sets true */
    OPT_UNFLAG,  /* bool: sets false ("--no-escape") */
    OPT_INT,     /* int32_t, within [min, max] */
    OPT_U32,     /* uint32_t, within [min, max]; with a min of -1, -1 is UINT32_MAX */
    OPT_FLOAT,   /* float, within [min, max] */
    OPT_STR,     /* const char *: borrowed from argv */
    OPT_SIZE,    /* uint64_t bytes: 512M, 3G (binary), 3GB (decimal), 1048576 */
    OPT_ENUM,    /* int32_t: index into `choices` */
    OPT_LIST,    /* ttx_opt_list: every value given, in order */
    OPT_IGNORED, /* accepted for llama.cpp's sake, without effect, no argument: noted once */
    OPT_IGNORED1 /* the same, with an argument unless another option follows ("-fa", "-fa on") */
} ttx_opt_kind;

typedef struct ttx_opt_list {
    const char *v[64];
    int n;
} ttx_opt_list;

typedef struct ttx_opt {
    const char *names; /* "-c, --ctx-size": short forms first */
    ttx_opt_kind kind;
    size_t offset;       /* of the field in the settings struct */
    const char *arg;     /* name of the argument in the help: "N", "FILE" (completes files) */
    const char *help;    /* one sentence, no full stop; the default goes in by itself, see below */
    const char *choices; /* OPT_ENUM: "f16|f32|q8_0" */
    double min, max;     /* numeric kinds; both 0: no limits */
    const char *shown_default; /* text of the default where the value does not tell ("model's") */
    const char *group;         /* heading in the help; NULL: as the row before */
    bool required;
} ttx_opt;

typedef struct ttx_command {
    const char *name;     /* "run" */
    const char *summary;  /* one line, imperative: "generate text" */
    const char *usage;    /* "ttx run -m FILE -p TEXT [options]" */
    const char *about;    /* paragraphs: what it does, what it prints; indented lines are kept */
    const char *examples; /* lines "ttx ..." each with a "# comment" line above */
    const ttx_opt *options;
    size_t settings_size;
    void (*defaults)(void *settings); /* fills a zeroed settings struct */
    /* Runs with parsed settings. Returns an exit code; prints results itself, errors never. */
    int (*run)(const void *settings, ttx_err *err);
    /* What stands without an option: a row of kind OPT_LIST or OPT_STR, named after one argument
     * ("DIR", .arg = "..." if it repeats); NULL: nothing may. Completed as files. */
    const ttx_opt *args;
} ttx_command;

/* Parses argv[0..argc) (without the command's name) into `settings`, which `defaults` has filled.
 * Positional arguments go to `cmd->args`, or are an error. `note` receives one line for each
 * ignored option that was given (may be NULL). Errors: TTX_E_USAGE, naming the option, what it
 * expects and what it got; an unknown option suggests the nearest known one. */
int ttx_opt_parse(const ttx_command *cmd, int argc, char **argv, void *settings,
                  void (*note)(const char *line), ttx_err *err);

/* Whether "--help" or "-h" stands among the options (and is not the argument of one of them). */
bool ttx_opt_wants_help(const ttx_command *cmd, int argc, char **argv);

/* Index of the n characters at text among the choices "a|b|c"; -1: none of them. */
int32_t ttx_opt_choice(const char *choices, const char *text, size_t n);

/* "512M", "3G" (binary), "3GB" (decimal), "1.5GiB", plain bytes. Errors: TTX_E_USAGE. */
int ttx_parse_size(const char *text, uint64_t *bytes, ttx_err *err);

/* The help of one command: usage, about, options by group with defaults, examples. */
void ttx_opt_help(const ttx_command *cmd, FILE *out);
/* A man page (roff) of one command. */
void ttx_opt_man(const ttx_command *cmd, const char *version, FILE *out);
/* Completion script for all commands; shell is "bash", "zsh" or "fish". */
int ttx_opt_completion(const ttx_command *const *cmds, const char *shell, FILE *out, ttx_err *err);

#endif
