/* cmd_trace.c -- ttx trace: what there is to do with traces besides reports and exports. */
#include "block_join.h"
#include "opt.h"
#include "outfile.h"
#include "trace_check.h"
#include "trace_merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    ttx_opt_list args; /* what to do, with what */
    float start;       /* import-blktrace: seconds */
} settings;

/* ---- check ---- */

static void print_summary(const ttx_trace_meta *m, const ttx_trace_summary *s) {
    printf("trace            %s\n", m->dir);
    printf("model            %s (%s)\n", m->model_file, m->model.architecture);
    printf("level            %s\n", ttx_trace_level_name(m->level));
    printf("records          %llu", (unsigned long long)s->records);
    for (uint32_t k = 1; k < TTX_REC_COUNT; k++)
        if (s->by_kind[k])
            printf(", %s %llu", ttx_rec_kind_name(k), (unsigned long long)s->by_kind[k]);
    printf("\nlost             %llu\n", (unsigned long long)s->lost);
    printf("launches         %llu\n", (unsigned long long)s->launches);
    printf("unique tensors   %u of %u\n", s->tensors, m->n_tensor);
    printf("bytes            %llu read from the model file\n", (unsigned long long)s->bytes);
    printf("tokens           %llu, %llu of them decoded one by one, %llu as the plan says\n",
           (unsigned long long)s->tokens, (unsigned long long)s->decode_tokens,
           (unsigned long long)s->whole_tokens);
    if (s->decode_s > 0)
        printf("decode           %.2f t/s, %llu bytes a token\n",
               (double)s->decode_tokens / s->decode_s,
               (unsigned long long)(s->decode_bytes / s->decode_tokens));
    printf("duration         %.3f s\n", m->complete ? m->duration_s : s->duration_s);
}

static int check(const char *dir, ttx_err *err) {
    ttx_trace_meta m;
    ttx_trace_summary s;
    int rc = ttx_trace_meta_load(&m, dir, err);
    if (rc) return rc;
    rc = ttx_trace_check(&m, &s, err);
    if (!rc) print_summary(&m, &s);
    for (uint64_t i = 0; !rc && i < s.n_problems && i < TTX_CHECK_PROBLEMS; i++)
        printf("problem          %s\n", s.problems[i]);
    if (!rc && s.n_problems)
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s: %llu problems", m.dir,
                      (unsigned long long)s.n_problems);
    if (!rc && s.cut) rc = ttx_fail(err, TTX_E_RUNTIME, "%s: %s", m.dir, s.cut);
    if (!rc) puts("ok");
    ttx_trace_meta_free(&m);
    return rc;
}

static int check_all(const ttx_opt_list *args, ttx_err *err) {
    int rc = TTX_OK;
    for (int i = 1; i < args->n && !rc; i++) rc = check(args->v[i], err);
    return rc;
}

/* ---- merge ---- */

static int merge(const ttx_opt_list *args, ttx_err *err) {
    return ttx_trace_merge(args->v[1], args->v + 2, args->n - 2, err);
}

/* ---- import-blktrace ---- */

static void print_blocks(const ttx_trace_meta *m, const ttx_block_summary *s,
                         const uint64_t *by_tensor) {
    printf("reads            %llu of block devices during the run, %llu bytes\n",
           (unsigned long long)s->reads, (unsigned long long)s->bytes);
    printf("of the model     %llu bytes, %llu of them in tensors\n",
           (unsigned long long)s->model_bytes, (unsigned long long)s->tensor_bytes);
    for (uint32_t i = 0; i < m->n_file_tensor; i++)
        if (by_tensor[i])
            printf("%-40s %14llu bytes read, %.2f of its size\n", m->tensors[i].name,
                   (unsigned long long)by_tensor[i],
                   (double)by_tensor[i] / (double)m->tensors[i].size);
}

static int import(const settings *set, ttx_err *err) {
    ttx_trace_meta m;
    ttx_block_summary s;
    ttx_outfile out = {0};
    if (set->args.n != 3)
        return ttx_fail(err, TTX_E_USAGE, "trace: expects import-blktrace DIR FILE");
    int rc = ttx_trace_meta_load(&m, set->args.v[1], err);
    if (rc) return rc;
    uint64_t *by_tensor = calloc((size_t)m.n_file_tensor + 1, sizeof *by_tensor);
    char *path = ttx_trace_path(&m, "block_reads.csv");
    rc = by_tensor && path ? ttx_outfile_open(&out, path, err) : ttx_fail_nomem(err, "tensors", 0);
    if (!rc) {
        rc = ttx_block_join(&m, set->args.v[2], (double)set->start, out.f, by_tensor, &s, err);
        rc = ttx_outfile_close(&out, rc, err);
    }
    if (!rc) print_blocks(&m, &s, by_tensor);
    free(path);
    free(by_tensor);
    ttx_trace_meta_free(&m);
    return rc;
}

/* ---- the command ---- */

static const struct action {
    const char *name, *expects;
    int min_args; /* after the name */
    int (*run)(const ttx_opt_list *args, ttx_err *err);
} actions[] = {
    {"check", "check DIR...", 1, check_all},
    {"merge", "merge OUT DIR...", 2, merge},
};

static int run(const void *arg, ttx_err *err) {
    const settings *set = arg;
    if (strcmp(set->args.v[0], "import-blktrace") == 0) return import(set, err);
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(set->args.v[0], actions[i].name) != 0) continue;
        if (set->args.n - 1 < actions[i].min_args)
            return ttx_fail(err, TTX_E_USAGE, "trace: expects %s; see 'ttx trace --help'",
                            actions[i].expects);
        return actions[i].run(&set->args, err);
    }
    return ttx_fail(err, TTX_E_USAGE,
                    "trace: expected check, merge or import-blktrace, found '%s'; see "
                    "'ttx trace --help'",
                    set->args.v[0]);
}

static void defaults(void *arg) {
    (void)arg; /* all zeros */
}

static const ttx_opt options[] = {
    {"--start", OPT_FLOAT, offsetof(settings, start), "SECONDS",
     "import-blktrace: when blktrace was started, after the start of the run (before: negative)",
     .min = -1e6, .max = 1e6},
    {.kind = OPT_END},
};

static const ttx_opt words = {
    "ACTION DIR",    OPT_LIST, offsetof(settings, args), "...", "what to do, with which traces",
    .required = true};

const ttx_command ttx_cmd_trace = {
    .name = "trace",
    .summary = "verify traces, join them, add a disk's",
    .usage = "ttx trace check DIR...\n       ttx trace merge OUT DIR...\n"
             "       ttx trace import-blktrace DIR FILE [--start SECONDS]",
    .about =
        "check reads a whole trace, prints what is in it, and verifies it: checksums, ranges\n"
        "inside their tensors, times and tokens in order, every layer of every token, and that\n"
        "each decoded token touched what the plan says, in its order. Exit code 1 if it does not\n"
        "hold, or if the trace is incomplete.\n"
        "\n"
        "merge joins the runs of several processes with the same model into one trace, on a\n"
        "common clock, one run after the other.\n"
        "\n"
        "import-blktrace reads what blkparse prints, or ftrace's block_rq_complete events (with\n"
        "trace_clock mono), finds the model's parts of the disk, and writes which tensors were\n"
        "read when to DIR/block_reads.csv.",
    .examples = "  # record a run, and verify it\n"
                "  ttx run -m model.gguf -p \"Once\" -n 64 --trace once\n"
                "  ttx trace check once\n"
                "  # two processes, one trace\n"
                "  ttx trace merge both first second",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
    .args = &words,
};
