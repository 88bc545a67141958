/* cmd_export.c -- ttx export: a trace in another program's format.
 *
 * Parquet is the Python package's business (trace/python): its writers are libraries there.
 */
#include "export.h"
#include "note.h"
#include "opt.h"
#include "outfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PARQUET = TTX_EXPORT_FORMATS }; /* after the formats that are written here */

typedef struct settings {
    ttx_opt_list dirs;
    const char *output;
    int32_t format;
    bool all_kinds;
} settings;

static void show_progress(void *ctx, uint64_t done, uint64_t total) {
    uint64_t *shown = ctx, percent = total ? 100 * done / total : 100;
    if (percent == *shown) return;
    *shown = percent;
    fprintf(stderr, "\rexporting %3llu %%%s", (unsigned long long)percent,
            percent == 100 ? "\r               \r" : "");
}

static int export_here(const settings *set, const ttx_trace_meta *m, ttx_err *err) {
    uint64_t shown = UINT64_MAX;
    char text[200];
    const char *cut = NULL;
    ttx_export_settings how = {.format = (ttx_export_format)set->format,
                               .all_kinds = set->all_kinds,
                               .progress = isatty(STDERR_FILENO) ? show_progress : NULL,
                               .progress_ctx = &shown};
    ttx_outfile out;
    int rc = ttx_outfile_open(&out, set->output, err);
    if (rc) return rc;
    rc = ttx_export(m, &how, out.f, text, &cut, err);
    rc = ttx_outfile_close(&out, rc, err);
    if (!rc && cut) ttx_note("%s: %s", m->dir, cut);
    return rc;
}

/* Runs a program; its exit code, or -1. */
static int run_program(const char *const argv[], bool silent) {
    pid_t pid = fork();
    if (pid == 0) {
        if (silent && (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout)))
            _exit(126);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    int status;
    while (pid > 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int export_parquet(const settings *set, const ttx_trace_meta *m, ttx_err *err) {
    const char *const probe[] = {"python3", "-c", "import ttx_trace, pyarrow", NULL};
    const char *const write[] = {"python3", "-m", "ttx_trace", "parquet",
                                 m->dir,    "-o", set->output, NULL};
    if (!set->output || strcmp(set->output, "-") == 0)
        return ttx_fail(err, TTX_E_USAGE, "parquet: expected a file (-o FILE), found none");
    if (run_program(probe, true) != 0)
        return ttx_fail(err, TTX_E_RUNTIME,
                        "parquet: expected the Python package ttx_trace with pyarrow, found none; "
                        "install it from ttx's sources: pip install './trace/python[parquet]'");
    int status = run_program(write, false);
    return status ? ttx_fail(err, TTX_E_RUNTIME, "parquet: python3 -m ttx_trace ended with code %d",
                             status)
                  : TTX_OK;
}

static int run(const void *arg, ttx_err *err) {
    const settings *set = arg;
    ttx_trace_meta m;
    if (set->dirs.n != 1)
        return ttx_fail(err, TTX_E_USAGE, "export: expected one trace, found %d", set->dirs.n);
    int rc = ttx_trace_meta_load(&m, set->dirs.v[0], err);
    if (rc) return rc;
    rc = set->format == PARQUET ? export_parquet(set, &m, err) : export_here(set, &m, err);
    ttx_trace_meta_free(&m);
    return rc;
}

static void defaults(void *arg) {
    (void)arg; /* all zeros */
}

static const ttx_opt options[] = {
    {"-f, --format", OPT_ENUM, offsetof(settings, format), "FORMAT", "what to write",
     .choices = "perfetto|chrome|csv|jsonl|speedscope|parquet"},
    {"-o, --output", OPT_STR, offsetof(settings, output), "FILE", "where to",
     .shown_default = "standard output"},
    {"--all", OPT_FLAG, offsetof(settings, all_kinds),
     .help = "csv, jsonl: rows for routes, reads, faults and tokens too, told apart by `kind`"},
    {.kind = OPT_END},
};

static const ttx_opt words = {"DIR", OPT_LIST,  offsetof(settings, dirs),
                              "",    "a trace", .required = true};

const ttx_command ttx_cmd_export = {
    .name = "export",
    .summary = "write a trace in another program's format",
    .usage = "ttx export DIR --format FORMAT [-o FILE]",
    .about =
        "perfetto: protobuf for ui.perfetto.dev, with tracks for launches, tokens, layers, reads,\n"
        "faults and the trace's own writer. chrome: JSON for chrome://tracing. speedscope: for\n"
        "speedscope.app. csv, jsonl: the table of docs/trace-format.md, a row for each access.\n"
        "parquet: the same table, written by the Python package.\n"
        "\n"
        "The trace is read once and not held in memory. A file appears when it is whole.",
    .examples = "  # look at it in a browser\n"
                "  ttx export once --format perfetto -o once.pftrace\n"
                "  # the ten tensors that were read most often\n"
                "  ttx export once -f csv | cut -d, -f8 | sort | uniq -c | sort -rn | head",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
    .args = &words,
};
