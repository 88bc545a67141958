/* opt_docs.c -- man pages and shell completion, written from the option tables.
 *
 * The completion scripts need nothing but the shell itself. They complete commands, options, the
 * choices of enumerations, and files where the argument's name contains FILE. "help", "completion"
 * and "man" are commands of main() that have no row; they are known here by name.
 */
#include "opt_int.h"

#include <stdlib.h>
#include <string.h>

static const char *const builtins[][2] = {
    {"help", "explain a command"},
    {"completion", "print a completion script for a shell"},
    {"man", "print a man page"},
};
enum { N_BUILTINS = sizeof builtins / sizeof builtins[0] };

static const char shells[] = "bash zsh fish";

/* Prints text with a backslash before each of the characters in `special`, and with single quotes
 * as `quote`. Line ends become spaces. */
static void print_escaped(const char *text, const char *special, const char *quote, FILE *out) {
    for (; *text; text++) {
        if (*text == '\'') {
            fputs(quote, out);
            continue;
        }
        if (strchr(special, *text)) fputc('\\', out);
        fputc(*text == '\n' ? ' ' : *text, out);
    }
}

static bool wants_file(const ttx_opt *o) {
    return opt_takes_arg(o) && o->kind != OPT_ENUM && o->arg && strstr(o->arg, "FILE");
}

static const char *help_of(const ttx_opt *o) {
    if (opt_is_ignored(o)) return "no effect (accepted for llama.cpp's sake)";
    return o->help ? o->help : "";
}

/* The row after `o`, or the first row of `cmd` for NULL; NULL at the end. */
static const ttx_opt *next_row(const ttx_command *cmd, const ttx_opt *o) {
    o = o ? o + 1 : cmd->options;
    return o && o->kind != OPT_END ? o : NULL;
}

static void print_words(const char *list, const char *seps, const char *between, FILE *out) {
    opt_word w;
    for (bool first = true; opt_next_word(&list, seps, &w); first = false)
        fprintf(out, "%s%.*s", first ? "" : between, w.n, w.s);
}

/* --- man pages ------------------------------------------------------------------------------- */

/* Running text: backslashes and hyphens escaped, no line read as a request, empty lines as
 * paragraphs, indented lines kept as they are. */
static void roff_text(const char *text, FILE *out) {
    bool verbatim = false;
    while (*text) {
        size_t n = strcspn(text, "\n");
        bool indented = *text == ' ';
        if (indented != verbatim && n) fputs(indented ? ".nf\n" : ".fi\n", out);
        if (n) verbatim = indented;
        if (!n) fputs(".PP\n", out);
        if (n && (*text == '.' || *text == '\'')) fputs("\\&", out);
        for (size_t i = 0; i < n; i++) {
            if (text[i] == '\\')
                fputs("\\e", out);
            else if (text[i] == '-')
                fputs("\\-", out);
            else
                fputc(text[i], out);
        }
        if (n) fputc('\n', out);
        text += n + (text[n] == '\n');
    }
    if (verbatim) fputs(".fi\n", out);
}

static void roff_option(const ttx_opt *o, const void *settings, FILE *out) {
    fputs(".TP\n.BI \"", out);
    print_escaped(o->names, "-", "'", out);
    if (opt_takes_arg(o)) fprintf(out, " \" \"%s", opt_arg_text(o));
    fputs("\"\n", out);
    roff_text(help_of(o), out);
    char value[128];
    opt_default_text(o, settings, value, sizeof value);
    if (o->required)
        fputs("(required)\n", out);
    else if (value[0]) {
        fputs("(default: ", out);
        print_escaped(value, "", "\\(aq", out);
        fputs(")\n", out);
    }
}

void ttx_opt_man(const ttx_command *cmd, const char *version, FILE *out) {
    /* The page of the program itself is a command called "ttx". */
    const char *prefix = strcmp(cmd->name, "ttx") == 0 ? "" : "ttx-";
    fprintf(out, ".TH %s%s 1 \"\" \"ttx %s\" \"ttx manual\"\n", prefix, cmd->name, version);
    fprintf(out, ".SH NAME\n%s%s \\- %s\n", prefix, cmd->name, cmd->summary);
    fputs(".SH SYNOPSIS\n.nf\n", out);
    roff_text(cmd->usage, out);
    fputs(".fi\n.SH DESCRIPTION\n", out);
    if (cmd->about) roff_text(cmd->about, out);
    fputs(".SH OPTIONS\n", out);
    void *settings = opt_default_settings(cmd);
    if (cmd->args) roff_option(cmd->args, settings, out);
    for (const ttx_opt *o = NULL; (o = next_row(cmd, o));) {
        if (o->group && !opt_is_ignored(o)) fprintf(out, ".SS %s\n", o->group);
        roff_option(o, settings, out);
    }
    free(settings);
    if (cmd->examples) {
        fputs(".SH EXAMPLES\n.nf\n", out);
        roff_text(cmd->examples, out);
        fputs(".fi\n", out);
    }
    fputs(".SH EXIT STATUS\n0 done, 1 runtime error, 2 usage, 3 bad model file, "
          "130 interrupted.\n",
          out);
}

/* --- bash ------------------------------------------------------------------------------------ */

static void bash_command(const ttx_command *cmd, FILE *out) {
    fprintf(out, "    %s)\n        case $prev in\n", cmd->name);
    for (const ttx_opt *o = NULL; (o = next_row(cmd, o));) {
        if (!opt_takes_arg(o)) continue;
        fputs("        ", out);
        print_words(o->names, OPT_NAME_SEPS, "|", out);
        if (wants_file(o)) {
            fputs(") files=1 ;;\n", out);
        } else {
            fputs(") words=\"", out);
            if (o->kind == OPT_ENUM) print_words(o->choices, OPT_CHOICE_SEPS, " ", out);
            fputs("\" ;;\n", out);
        }
    }
    fputs("        *) words=\"--help", out);
    for (const ttx_opt *o = NULL; (o = next_row(cmd, o));) {
        fputc(' ', out);
        print_words(o->names, OPT_NAME_SEPS, " ", out);
    }
    fputs("\"", out);
    if (cmd->args) fputs("; [[ $cur == -* ]] || files=1", out);
    fputs(" ;;\n        esac ;;\n", out);
}

static void bash_script(const ttx_command *const *cmds, FILE *out) {
    fputs("# bash completion for ttx: source <(ttx completion bash)\n"
          "_ttx() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
          "    local words=\"\" files=\"\" command=${COMP_WORDS[1]}\n"
          "    # \"--name=value\" arrives as three words\n"
          "    if [[ $cur == = ]]; then cur=\"\"\n"
          "    elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
          "    ((COMP_CWORD == 1)) && command=\"\"\n"
          "    case $command in\n"
          "    \"\") words=\"--help --version",
          out);
    for (int i = 0; cmds[i]; i++) fprintf(out, " %s", cmds[i]->name);
    for (int i = 0; i < N_BUILTINS; i++) fprintf(out, " %s", builtins[i][0]);
    fputs("\" ;;\n    help | man) words=\"", out);
    for (int i = 0; cmds[i]; i++) fprintf(out, "%s%s", i ? " " : "", cmds[i]->name);
    fprintf(out, "\" ;;\n    completion) words=\"%s\" ;;\n", shells);
    for (int i = 0; cmds[i]; i++) bash_command(cmds[i], out);
    fputs("    esac\n"
          "    if [[ $files ]]; then\n"
          "        compopt -o filenames\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
          "    else\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
          "    fi\n"
          "}\n"
          "complete -F _ttx ttx\n",
          out);
}

/* --- zsh ------------------------------------------------------------------------------------- */

static const char zsh_special[] = "\\[]:";

static void zsh_option(const ttx_opt *o, FILE *out) {
    const char *names = o->names;
    opt_word w;
    while (opt_next_word(&names, OPT_NAME_SEPS, &w)) {
        bool equals = w.n > 2 && w.s[1] == '-' && opt_takes_arg(o);
        fprintf(out, " \\\n            '*%.*s%s[", w.n, w.s, equals ? "=" : "");
        print_escaped(help_of(o), zsh_special, "'\\''", out);
        fputc(']', out);
        if (opt_takes_arg(o)) {
            fputc(':', out);
            print_escaped(o->kind == OPT_ENUM || !o->arg ? "value" : o->arg, zsh_special, "'\\''",
                          out);
            fputc(':', out);
        }
        if (wants_file(o)) fputs("_files", out);
        if (o->kind == OPT_ENUM) {
            fputc('(', out);
            print_words(o->choices, OPT_CHOICE_SEPS, " ", out);
            fputc(')', out);
        }
        fputc('\'', out);
    }
}

static void zsh_script(const ttx_command *const *cmds, FILE *out) {
    fputs("#compdef ttx\n"
          "# zsh completion for ttx: source <(ttx completion zsh), or save as _ttx in $fpath\n"
          "_ttx() {\n"
          "    local -a commands topics\n"
          "    topics=(\n",
          out);
    for (int i = 0; cmds[i]; i++) {
        fprintf(out, "        '%s:", cmds[i]->name);
        print_escaped(cmds[i]->summary, zsh_special, "'\\''", out);
        fputs("'\n", out);
    }
    fputs("    )\n    commands=($topics", out);
    for (int i = 0; i < N_BUILTINS; i++)
        fprintf(out, "\n        '%s:%s'", builtins[i][0], builtins[i][1]);
    fputs(")\n"
          "    if ((CURRENT == 2)); then\n"
          "        _describe command commands\n"
          "        return\n"
          "    fi\n"
          "    local command=$words[2]\n"
          "    shift words\n"
          "    ((CURRENT--))\n"
          "    case $command in\n"
          "    help | man) _describe command topics ;;\n",
          out);
    fprintf(out, "    completion) _values shell %s ;;\n", shells);
    for (int i = 0; cmds[i]; i++) {
        fprintf(out, "    %s)\n        _arguments '--help[show the help]'", cmds[i]->name);
        for (const ttx_opt *o = NULL; (o = next_row(cmds[i], o));) zsh_option(o, out);
        if (cmds[i]->args) fputs(" \\\n            '*: :_files'", out);
        fputs(" ;;\n", out);
    }
    fputs("    esac\n"
          "}\n"
          "if [[ $funcstack[1] == _ttx ]]; then _ttx \"$@\"; else compdef _ttx ttx; fi\n",
          out);
}

/* --- fish ------------------------------------------------------------------------------------ */

static void fish_option(const ttx_command *cmd, const ttx_opt *o, FILE *out) {
    fprintf(out, "complete -c ttx -n '__fish_seen_subcommand_from %s'", cmd->name);
    const char *names = o->names;
    opt_word w;
    while (opt_next_word(&names, OPT_NAME_SEPS, &w)) {
        bool is_long = w.n > 2 && w.s[1] == '-';
        /* -s: one letter; -o: one dash and more letters; -l: two dashes */
        const char *kind = is_long ? "-l" : w.n == 2 ? "-s" : "-o";
        int dashes = is_long ? 2 : 1;
        fprintf(out, " %s %.*s", kind, w.n - dashes, w.s + dashes);
    }
    if (wants_file(o)) {
        fputs(" -r -F", out);
    } else if (opt_takes_arg(o)) {
        fputs(" -x", out);
        if (o->kind == OPT_ENUM) {
            fputs(" -a '", out);
            print_words(o->choices, OPT_CHOICE_SEPS, " ", out);
            fputc('\'', out);
        }
    }
    fputs(" -d '", out);
    print_escaped(help_of(o), "\\", "\\'", out);
    fputs("'\n", out);
}

static void fish_script(const ttx_command *const *cmds, FILE *out) {
    fputs("# fish completion for ttx: ttx completion fish | source\n"
          "complete -c ttx -f\n",
          out);
    for (int i = 0; cmds[i]; i++) {
        fprintf(out, "complete -c ttx -n __fish_use_subcommand -a %s -d '", cmds[i]->name);
        print_escaped(cmds[i]->summary, "\\", "\\'", out);
        fputs("'\n", out);
        fprintf(out, "complete -c ttx -n '__fish_seen_subcommand_from help man' -a %s\n",
                cmds[i]->name);
        for (const ttx_opt *o = NULL; (o = next_row(cmds[i], o));) fish_option(cmds[i], o, out);
        if (cmds[i]->args)
            fprintf(out, "complete -c ttx -n '__fish_seen_subcommand_from %s' -F\n", cmds[i]->name);
    }
    for (int i = 0; i < N_BUILTINS; i++)
        fprintf(out, "complete -c ttx -n __fish_use_subcommand -a %s -d '%s'\n", builtins[i][0],
                builtins[i][1]);
    fprintf(out, "complete -c ttx -n '__fish_seen_subcommand_from completion' -a '%s'\n", shells);
}

int ttx_opt_completion(const ttx_command *const *cmds, const char *shell, FILE *out, ttx_err *err) {
    if (strcmp(shell, "bash") == 0)
        bash_script(cmds, out);
    else if (strcmp(shell, "zsh") == 0)
        zsh_script(cmds, out);
    else if (strcmp(shell, "fish") == 0)
        fish_script(cmds, out);
    else
        return ttx_fail(err, TTX_E_USAGE, "completion: expects one of bash, zsh, fish, got '%s'",
                        shell);
    return TTX_OK;
}
