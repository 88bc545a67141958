/* cmd_report.c -- ttx report: what a trace says, as numbers, as a page, as advice, beside others.
 */
#include "opt.h"
#include "outfile.h"
#include "report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_RUNS = 64 };

typedef struct settings {
    ttx_opt_list dirs;
    bool hints, check;
    int32_t hot_by;
    uint64_t ram;
    const char *output;
} settings;

/* A line that is written over, where somebody watches. */
static void show_progress(void *ctx, uint64_t done, uint64_t bytes) {
    (void)ctx;
    fprintf(stderr, "\r%3.0f%% of %.1f GB ", bytes ? 100.0 * (double)done / (double)bytes : 0,
            (double)bytes / 1e9);
    if (done >= bytes) fputs("\r                    \r", stderr);
}

/* What goes into one file of the run's analysis/. */
typedef struct product {
    const char *name;
    void (*write)(ttx_report *const *v, int n, FILE *out);
} product;

static void write_statistics(ttx_report *const *v, int n, FILE *out) {
    (void)n;
    ttx_report_statistics(v[0], out);
}

static void write_page(ttx_report *const *v, int n, FILE *out) {
    (void)n;
    ttx_report_html(v[0], out);
}

static void write_hints(ttx_report *const *v, int n, FILE *out) {
    (void)n;
    ttx_report_hints_json(v[0], out);
}

static void write_comparison_page(ttx_report *const *v, int n, FILE *out) {
    ttx_report_compare_html(v, n, out);
}

static void write_comparison(ttx_report *const *v, int n, FILE *out) {
    ttx_report_compare_json(v, n, out);
}

static int write_product(const product *p, const char *folder, ttx_report *const *v, int n,
                         ttx_err *err) {
    char *path;
    if (asprintf(&path, "%s/%s", folder, p->name) < 0) return ttx_fail_nomem(err, "path", 0);
    ttx_outfile out;
    int rc = ttx_outfile_open(&out, path, err);
    if (!rc) {
        p->write(v, n, out.f);
        rc = ttx_outfile_close(&out, TTX_OK, err);
    }
    if (!rc) printf("%s\n", path);
    free(path);
    return rc;
}

static int write_all(const settings *set, ttx_report *const *v, int n, ttx_err *err) {
    static const product about_one[] = {{"statistics.json", write_statistics},
                                        {"report.html", write_page}};
    static const product about_several[] = {{"comparison.json", write_comparison},
                                            {"comparison.html", write_comparison_page}};
    static const product hints = {"hints.json", write_hints};
    char *folder;
    if (asprintf(&folder, "%s/analysis", ttx_report_dir(v[0])) < 0)
        return ttx_fail_nomem(err, "path", 0);
    int rc = TTX_OK;
    if (set->output) {
        free(folder);
        if (!(folder = strdup(set->output))) return ttx_fail_nomem(err, "path", 0);
    }
    if (mkdir(folder, 0777) && errno != EEXIST)
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s: cannot create: %s", folder, strerror(errno));
    if (!rc && set->hints) {
        ttx_report_hints_print(v[0], stdout);
        rc = write_product(&hints, folder, v, n, err);
    } else if (!rc) {
        const product *p = n > 1 ? about_several : about_one;
        if (n > 1) ttx_report_compare_print(v, n, stdout);
        for (int i = 0; i < 2 && !rc; i++) rc = write_product(&p[i], folder, v, n, err);
    }
    free(folder);
    return rc;
}

static int run(const void *arg, ttx_err *err) {
    const settings *set = arg;
    ttx_report *v[MAX_RUNS] = {NULL};
    ttx_report_settings how = ttx_report_default_settings();
    how.hot_by = (ttx_hot_by)set->hot_by;
    how.ram = set->ram;
    how.check = set->check;
    if (isatty(STDERR_FILENO)) how.progress = show_progress;
    int rc = TTX_OK, n = set->dirs.n;
    if (set->hints && n > 1)
        rc = ttx_fail(err, TTX_E_USAGE, "report: --hints expects one DIR, got %d", n);
    for (int i = 0; i < n && !rc; i++) {
        rc = ttx_report_open(&v[i], set->dirs.v[i], &how, err);
        if (!rc && ttx_report_warning(v[i]))
            fprintf(stderr, "ttx: %s: %s\n", ttx_report_dir(v[i]), ttx_report_warning(v[i]));
    }
    if (!rc) rc = write_all(set, v, n, err);
    for (int i = 0; i < n; i++) ttx_report_free(v[i]);
    return rc;
}

static void defaults(void *arg) {
    (void)arg; /* all zeros */
}

static const ttx_opt args = {"DIR",
                             OPT_LIST,
                             offsetof(settings, dirs),
                             "...",
                             "directory of a trace; of several runs the newest",
                             .required = true};

static const ttx_opt options[] = {
    {"--hints", OPT_FLAG, offsetof(settings, hints),
     .help = "print what to pin and to prefetch, and how predictable the run is"},
    {"--hot-by", OPT_ENUM, offsetof(settings, hot_by), .choices = "access|bytes",
     .help = "rank tensors by number of accesses, or by bytes"},
    {"--ram", OPT_SIZE, offsetof(settings, ram), "SIZE", "memory for what --hints would pin",
     .shown_default = "half of what the run touched"},
    {"--check", OPT_FLAG, offsetof(settings, check),
     .help = "verify the checksums of the records, which takes several times as long"},
    {"-o, --output", OPT_STR, offsetof(settings, output), "FOLDER", "where to write",
     .shown_default = "DIR/analysis"},
    {.kind = OPT_END},
};

const ttx_command ttx_cmd_report = {
    .name = "report",
    .summary = "analyse traces: numbers, a page of charts, what to pin and prefetch",
    .usage = "ttx report DIR [DIR ...] [options]",
    .about =
        "Reads the trace that `ttx run --trace DIR` recorded and writes DIR/analysis/report.html,\n"
        "one page that needs no network, and DIR/analysis/statistics.json with the same numbers.\n"
        "With --hints it prints hot and cold tensors, what to pin for a given memory, the order\n"
        "to prefetch in, and writes hints.json. With several traces it sets them side by side and\n"
        "writes comparison.html and comparison.json beside the first. docs/report.md defines\n"
        "every number.",
    .examples = "  # one page about one run\n"
                "  ttx run -m model.gguf -p \"The sky is\" -n 64 --trace trace\n"
                "  ttx report trace\n"
                "  # what would 2 GiB of pinned memory save?\n"
                "  ttx report --hints --ram 2G trace\n"
                "  # do patterns hold across prompts?\n"
                "  ttx report trace-a trace-b",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
    .args = &args,
};
