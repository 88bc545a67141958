/* main.c -- the program: finds the command, parses its options, runs it, prints its error.
 *
 * Commands are rows of a table; what they do is in their own cmd_*.c. Only this file prints errors
 * ("ttx: ...", one line on stderr), and the exit code is the error's code: 0 done, 1 runtime error,
 * 2 usage, 3 bad model file, 130 interrupted.
 */
#include "note.h"
#include "opt.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern const ttx_command ttx_cmd_run, ttx_cmd_eval, ttx_cmd_tokenize, ttx_cmd_gguf_dump,
    ttx_cmd_plan, ttx_cmd_bench, ttx_cmd_sim, ttx_cmd_tune, ttx_cmd_report, ttx_cmd_trace,
    ttx_cmd_export;

static const ttx_command *const commands[] = {
    &ttx_cmd_run,    &ttx_cmd_eval,  &ttx_cmd_tokenize, &ttx_cmd_gguf_dump,
    &ttx_cmd_plan,   &ttx_cmd_bench, &ttx_cmd_sim,      &ttx_cmd_tune,
    &ttx_cmd_report, &ttx_cmd_trace, &ttx_cmd_export,   NULL,
};

/* Commands about commands: they take a name, not options, and main runs them itself. */
static const ttx_command builtins[] = {
    {.name = "help", .summary = "explain a command", .usage = "ttx help [COMMAND]"},
    {.name = "completion",
     .summary = "print a completion script for a shell",
     .usage = "ttx completion bash|zsh|fish",
     .examples = "  # in ~/.bashrc\n  source <(ttx completion bash)\n"
                 "  # in ~/.zshrc, after compinit\n  source <(ttx completion zsh)\n"
                 "  # in ~/.config/fish/config.fish\n  ttx completion fish | source"},
    {.name = "man",
     .summary = "print a man page",
     .usage = "ttx man [COMMAND]",
     .examples = "  # read it\n  ttx man run | man -l -"},
};
enum { N_BUILTINS = sizeof builtins / sizeof builtins[0] };

static const ttx_opt program_options[] = {
    {"-h, --help", OPT_FLAG, .help = "explain ttx; after a command: explain the command"},
    {"--version", OPT_FLAG, .help = "print the version"},
    {.kind = OPT_END}};

/* The program itself, documented as if it were a command; `about` lists the commands. */
static const ttx_command program = {.name = "ttx",
                                    .summary = "run language models from GGUF files on the CPU",
                                    .usage = "ttx COMMAND [options]",
                                    .options = program_options,
                                    .settings_size = sizeof(bool),
                                    .examples = "  # what is in a model file?\n"
                                                "  ttx gguf-dump -m model.gguf | head\n"
                                                "  # let it write\n"
                                                "  ttx run -m model.gguf -p \"The sky is\" -n 32\n"
                                                "  # talk to it\n"
                                                "  ttx run -m model.gguf --chat -i\n"
                                                "  # everything that a command can do\n"
                                                "  ttx help run"};

static void print_about(FILE *out) {
    fputs("ttx computes transformer models, dense or mixtures of experts, straight from the bytes "
          "of GGUF files: nothing is converted first, and every access to the file is known "
          "before it happens. Options follow llama.cpp's.\n\nCommands:\n",
          out);
    for (int i = 0; commands[i]; i++)
        fprintf(out, "  %-12s %s\n", commands[i]->name, commands[i]->summary);
    for (int i = 0; i < N_BUILTINS; i++)
        fprintf(out, "  %-12s %s\n", builtins[i].name, builtins[i].summary);
}

/* Help or man page of the program. */
static int document_program(bool man, ttx_err *err) {
    char *about = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&about, &size);
    if (!out) return ttx_fail_nomem(err, "the help", 4096);
    print_about(out);
    fclose(out);
    ttx_command row = program;
    row.about = about;
    if (man)
        ttx_opt_man(&row, TTX_VERSION, stdout);
    else
        ttx_opt_help(&row, stdout);
    free(about);
    return TTX_OK;
}

/* NULL, and an error, if there is none of that name. */
static const ttx_command *find_command(const char *name, ttx_err *err) {
    for (int i = 0; commands[i]; i++)
        if (strcmp(commands[i]->name, name) == 0) return commands[i];
    for (int i = 0; i < N_BUILTINS; i++)
        if (strcmp(builtins[i].name, name) == 0) return &builtins[i];
    ttx_fail(err, TTX_E_USAGE, "unknown %s '%s'; see 'ttx --help'",
             name[0] == '-' ? "option" : "command", name);
    return NULL;
}

/* "help", "man" and "completion", with the name that follows them (NULL: none). */
static int run_builtin(const ttx_command *builtin, const char *topic, ttx_err *err) {
    if (strcmp(builtin->name, "completion") == 0) {
        if (!topic) return ttx_fail(err, TTX_E_USAGE, "completion: expects one of bash, zsh, fish");
        return ttx_opt_completion(commands, topic, stdout, err);
    }
    bool man = strcmp(builtin->name, "man") == 0;
    if (!topic) return document_program(man, err);
    const ttx_command *cmd = find_command(topic, err);
    if (!cmd) return TTX_E_USAGE;
    if (man)
        ttx_opt_man(cmd, TTX_VERSION, stdout);
    else
        ttx_opt_help(cmd, stdout);
    return TTX_OK;
}

static void print_note(const char *line) {
    ttx_note("%s", line);
}

static int run_command(const ttx_command *cmd, int argc, char **argv, ttx_err *err) {
    void *settings = calloc(1, cmd->settings_size);
    if (!settings) return ttx_fail_nomem(err, "settings", cmd->settings_size);
    cmd->defaults(settings);
    int code = ttx_opt_parse(cmd, argc, argv, settings, print_note, err);
    if (!code) code = cmd->run(settings, err);
    free(settings);
    return code;
}

static int dispatch(int argc, char **argv, ttx_err *err) {
    if (argc < 2) return ttx_fail(err, TTX_E_USAGE, "expects a command; see 'ttx --help'");
    if (strcmp(argv[1], "--version") == 0) return printf("ttx %s\n", TTX_VERSION) < 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return document_program(false, err);
    const ttx_command *cmd = find_command(argv[1], err);
    if (!cmd) return TTX_E_USAGE;
    argc -= 2;
    argv += 2;
    if (ttx_opt_wants_help(cmd, argc, argv)) {
        ttx_opt_help(cmd, stdout);
        return TTX_OK;
    }
    if (cmd->run) return run_command(cmd, argc, argv, err);
    if (argc > 1)
        return ttx_fail(err, TTX_E_USAGE, "%s: unexpected argument '%s'; see 'ttx %s --help'",
                        cmd->name, argv[1], cmd->name);
    return run_builtin(cmd, argc ? argv[0] : NULL, err);
}

/* A page of the mapped model that cannot be read: nothing can go on. */
static void on_lost_page(int sig) {
    static const char line[] =
        "ttx: the model: a page cannot be read (the file was cut short, or the "
        "device failed)\n";
    (void)sig;
    if (write(STDERR_FILENO, line, sizeof line - 1) < 0) _exit(TTX_E_RUNTIME);
    _exit(TTX_E_RUNTIME);
}

int main(int argc, char **argv) {
    ttx_err err = {0};
    signal(SIGBUS, on_lost_page);
    /* A closed standard stream must not become the model file. */
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) < 0) return TTX_E_RUNTIME;
    int code = dispatch(argc, argv, &err);
    /* A full disk shows at the last write. */
    if ((fflush(stdout) || ferror(stdout)) && !code)
        code = ttx_fail(&err, TTX_E_RUNTIME, "standard output: cannot write: %s", strerror(errno));
    if (err.msg[0]) ttx_note("%s", err.msg);
    return code;
}
