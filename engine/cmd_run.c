/* cmd_run.c -- ttx run: a prompt in, text out.
 *
 * Generated text alone goes to standard output; what the run has to say goes to standard error, and
 * to --log-file. Flags and defaults are llama.cpp's.
 */
#include "chat.h"
#include "clock.h"
#include "engine_ram.h"
#include "generate.h"
#include "outfile.h"
#include "readfile.h"

#include <cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

typedef struct settings {
    ttx_engine_args engine;
    const char *prompt, *file, *system, *json, *log_file;
    int32_t n_predict;
    uint32_t seed, n_batch;
    ttx_sampler_settings sampler;
    bool ignore_eos, escape, chat, interactive, draft;
} settings;

#define RANDOM_SEED UINT32_MAX /* -1 */
enum { MAX_PROMPT = 1 << 30 };

/* All that one run holds; closed in one place. */
typedef struct run_state {
    const settings *set;
    char *system;     /* owned; NULL: none */
    ttx_outfile json; /* open from the start: better to fail before the text than after it */
    ttx_engine e;
    ttx_tokenizer *tok;
    ttx_session *session;
    ttx_sampler *sampler;
    ttx_detok *detok;
    ttx_draft *draft; /* NULL: none */
    ttx_chat_format chat;
    bool first_turn;
    const volatile sig_atomic_t *interrupted;
    ttx_gen gen;
} run_state;

/* ---- the prompt ---- */

static int hex(char c) {
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

/* Replaces \n \r \t \' \" \\ \xHH in place; anything else stays as it is. Returns the new length.
 */
static size_t unescape(char *s, size_t n) {
    static const char from[] = "nrt'\"\\", to[] = "\n\r\t'\"\\";
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        const char *known = s[i] == '\\' && i + 1 < n ? strchr(from, s[i + 1]) : NULL;
        if (known && *known) {
            s[out++] = to[known - from];
            i++;
        } else if (s[i] == '\\' && i + 3 < n && s[i + 1] == 'x' && hex(s[i + 2]) >= 0 &&
                   hex(s[i + 3]) >= 0) {
            s[out++] = (char)(hex(s[i + 2]) * 16 + hex(s[i + 3]));
            i += 3;
        } else {
            s[out++] = s[i];
        }
    }
    s[out] = 0;
    return out;
}

/* The text of -p or -f (the caller frees), and the system message. */
static int read_prompts(run_state *r, char **text, size_t *n, ttx_err *err) {
    const settings *set = r->set;
    if (set->prompt && set->file)
        return ttx_fail(err, TTX_E_USAGE, "prompt: expected one of -p and -f, found both");
    if (set->file) {
        int rc = ttx_read_file(set->file, MAX_PROMPT, text, n, err);
        if (rc) return rc;
        if (*n && (*text)[*n - 1] == '\n') (*text)[--*n] = 0; /* as llama.cpp does */
    } else {
        *text = strdup(set->prompt ? set->prompt : "");
        if (!*text) return ttx_fail_nomem(err, "prompt", 1);
        *n = strlen(*text);
    }
    if (set->escape) *n = unescape(*text, *n);
    if (!set->system) return TTX_OK;
    if (!(r->system = strdup(set->system))) return ttx_fail_nomem(err, "system message", 1);
    if (set->escape) unescape(r->system, strlen(r->system));
    return TTX_OK;
}

/* ---- turns ---- */

static bool put_text(void *ctx, const char *bytes, size_t n) {
    (void)ctx;
    return fwrite(bytes, 1, n, stdout) == n && fflush(stdout) == 0;
}

/* Renders (with --chat) and tokenizes one user message, and lets the model answer. */
static int take_turn(run_state *r, const char *text, size_t n, ttx_err *err) {
    char *rendered = NULL;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    int rc = TTX_OK;
    unsigned flags = TTX_TOK_PARSE_SPECIAL | (r->first_turn ? TTX_TOK_ADD_SPECIAL : 0);
    if (r->set->chat) {
        rc = ttx_chat_turn(r->chat, r->first_turn ? r->system : NULL, text, n, r->first_turn,
                           &rendered, &n, err);
        if (rc) return rc;
        text = rendered;
    }
    rc = ttx_tokenize(r->tok, text, n, flags, &ids, &n_ids, err);
    if (!rc) rc = ttx_gen_turn(&r->gen, ids, n_ids, err);
    if (!rc && r->set->interactive) put_text(NULL, "\n", 1); /* answers apart from each other */
    if (!rc) r->first_turn = false;
    free(ids);
    free(rendered);
    return rc;
}

/* Lines of standard input. Not stdio's: what its buffer holds cannot be waited for beside Ctrl-C.
 */
typedef struct line_reader {
    char *buf; /* owned */
    size_t at, n, cap;
    bool ended;
} line_reader;

/* Makes room, and reads what is there. */
static int read_more(line_reader *l, ttx_err *err) {
    l->n -= l->at;
    if (l->at) memmove(l->buf, l->buf + l->at, l->n);
    l->at = 0;
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4096;
        char *buf = realloc(l->buf, cap);
        if (!buf) return ttx_fail_nomem(err, "a line", cap);
        l->buf = buf;
        l->cap = cap;
    }
    ssize_t n = read(STDIN_FILENO, l->buf + l->n, l->cap - l->n);
    if (n < 0 && errno != EINTR && errno != EAGAIN)
        return ttx_fail(err, TTX_E_RUNTIME, "standard input: cannot read: %s", strerror(errno));
    l->ended = n == 0;
    if (n > 0) l->n += (size_t)n;
    return TTX_OK;
}

/* The next line, without its end, until the next call. *line NULL: no more, or Ctrl-C. */
static int next_line(line_reader *l, char **line, size_t *n, ttx_err *err) {
    const char *end = NULL;
    *line = NULL;
    while (!(end = l->n > l->at ? memchr(l->buf + l->at, '\n', l->n - l->at) : NULL) && !l->ended) {
        if (!ttx_wait_for_input()) return TTX_OK;
        int rc = read_more(l, err);
        if (rc) return rc;
    }
    if (!end && l->at == l->n) return TTX_OK;
    *line = l->buf + l->at;
    *n = end ? (size_t)(end - *line) : l->n - l->at;
    l->at += *n + (end != NULL);
    while (*n && (*line)[*n - 1] == '\r') --*n;
    return TTX_OK;
}

/* Turns from standard input until it ends, a Ctrl-C, or the end of the context. */
static int converse(run_state *r, ttx_err *err) {
    line_reader lines = {0};
    int rc = TTX_OK;
    while (!rc && !*r->interrupted && r->gen.stats.stop != TTX_STOP_CONTEXT) {
        char *line;
        size_t n;
        if (isatty(STDIN_FILENO)) fputs("\n> ", stderr);
        rc = next_line(&lines, &line, &n, err);
        if (!rc && !line && isatty(STDIN_FILENO)) fputc('\n', stderr); /* the '>' has its line */
        if (rc || !line) break;
        if (n) rc = take_turn(r, line, n, err);
        if (rc == TTX_E_USAGE) { /* too long, or nothing in it: the conversation goes on */
            ttx_note("%s", err->msg);
            *err = (ttx_err){0};
            rc = TTX_OK;
        }
    }
    free(lines.buf);
    return rc;
}

/* ---- opening ---- */

static int open_generator(run_state *r, ttx_err *err) {
    const settings *set = r->set;
    ttx_sampler_settings sampler = set->sampler;
    sampler.seed = set->seed;
    if (set->seed == RANDOM_SEED && getrandom(&sampler.seed, sizeof sampler.seed, 0) < 0)
        sampler.seed = (uint32_t)ttx_now_ns();
    uint32_t n_ctx = ttx_session_n_ctx(r->session);
    int rc = ttx_sampler_open(&r->sampler, &sampler, r->e.model->hp.n_vocab, n_ctx, err);
    if (!rc && set->draft) rc = ttx_draft_open(&r->draft, n_ctx, err);
    if (!rc) rc = ttx_detok_new(&r->detok, r->tok, 0, err);
    if (rc) return rc;
    r->gen = (ttx_gen){
        .tok = r->tok,
        .session = r->session,
        .sampler = r->sampler,
        .detok = r->detok,
        .draft = r->draft,
        .n_vocab = r->e.model->hp.n_vocab,
        .n_ubatch = set->engine.n_ubatch < set->n_batch ? set->engine.n_ubatch : set->n_batch,
        .n_predict = set->n_predict,
        .ignore_eos = set->ignore_eos,
        .interrupted = r->interrupted,
        .text = put_text,
        .residency = r->e.rt.residency,
    };
    return ttx_gen_open(&r->gen, err);
}

static void describe(run_state *r) {
    ttx_session_memory m = ttx_session_memory_used(r->session);
    static const char *const modes[] = {"mmap", "mlock", "none", "stream"};
    const ttx_residency_layout *layout = ttx_residency_get_layout(r->e.rt.residency);
    ttx_note("%s: %s, %.1f MiB of weights; %s kernels, %d threads, context %u",
             gguf_path(r->e.file), r->e.model->arch->name,
             (double)ttx_model_bytes(r->e.model) / (1 << 20), ttx_isa_name(r->e.rt.isa),
             ttx_pool_threads(r->e.rt.pool), ttx_session_n_ctx(r->session));
    if (layout) ttx_ram_print(layout, r->e.needs);
    if (r->set->engine.verbose)
        ttx_note("memory: weights %s; KV cache %.1f MiB, buffers %.1f MiB, scratch %.1f MiB",
                 modes[ttx_residency_mode(r->e.rt.residency)], (double)m.kv / (1 << 20),
                 (double)m.buffers / (1 << 20), (double)m.scratch / (1 << 20));
}

/* What a trace says of this run. The seed is there if it was given. */
static int describe_for_trace(run_state *r, const char *prompt, ttx_err *err) {
    const settings *set = r->set;
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"n_predict", set->n_predict}, {"temperature", set->sampler.temp},
        {"top_k", set->sampler.top_k}, {"top_p", set->sampler.top_p},
        {"min_p", set->sampler.min_p}, {"repeat_penalty", set->sampler.repeat_penalty},
    };
    if (!set->engine.trace) return TTX_OK;
    r->e.tok = r->tok;
    cJSON *o = r->e.trace_config = cJSON_CreateObject();
    bool ok = o && cJSON_AddStringToObject(o, "command", "run") &&
              cJSON_AddStringToObject(o, "prompt", prompt) &&
              cJSON_AddBoolToObject(o, "chat", set->chat);
    for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
        ok = cJSON_AddNumberToObject(o, numbers[i].key, numbers[i].value);
    if (ok && set->seed != RANDOM_SEED) ok = cJSON_AddNumberToObject(o, "seed", (double)set->seed);
    return ok ? TTX_OK : ttx_fail_nomem(err, "trace metadata", strlen(prompt));
}

static int open_all(run_state *r, const char *prompt, ttx_err *err) {
    const settings *set = r->set;
    uint32_t n_outputs = set->draft ? TTX_DRAFT_MAX + 1 : 1;
    ttx_engine_args args = set->engine;
    args.n_outputs = n_outputs;
    int rc = ttx_engine_open(&r->e, &args, err);
    if (!rc) rc = ttx_tokenizer_load(&r->tok, r->e.file, err);
    if (!rc) rc = describe_for_trace(r, prompt, err);
    if (!rc && set->chat) rc = ttx_chat_detect(&r->chat, r->e.file, err);
    if (!rc) rc = ttx_engine_session(&r->e, &args, n_outputs, &r->session, err);
    if (!rc) rc = open_generator(r, err);
    r->e.load_s = (double)(ttx_now_ns() - r->e.start_ns) * 1e-9;
    if (!rc && set->json) rc = ttx_outfile_open(&r->json, set->json, err);
    return rc;
}

/* ---- the summary ---- */

static double per_second(size_t n, double s) {
    return s > 0 ? (double)n / s : 0;
}

static uint64_t peak_rss(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)u.ru_maxrss * 1024;
}

static const char *stop_name(ttx_stop stop) {
    static const char *const names[] = {"end of text", "count", "context", "interrupt"};
    return names[stop];
}

static void summarise(run_state *r) {
    const ttx_gen_stats *g = &r->gen.stats;
    if (g->stop == TTX_STOP_CONTEXT)
        ttx_note("the context of %u tokens is full; choose a larger -c",
                 ttx_session_n_ctx(r->session));
    ttx_note(
        "load %.3f s | prompt %zu tokens, %.2f t/s | decode %zu tokens, %.2f t/s | peak memory "
        "%.1f MiB",
        r->e.load_s, g->prompt_n, per_second(g->prompt_n, g->prompt_s), g->decode_n,
        per_second(g->decode_n, g->decode_s), (double)peak_rss() / (1 << 20));
    ttx_ram_summary(r->e.rt.residency);
    if (r->draft)
        ttx_note("drafts: %zu tokens guessed, %zu of them right", g->drafted_n, g->accepted_n);
}

/* NULL if memory fails: half a summary would be a wrong one. */
static cJSON *summary_object(run_state *r) {
    ttx_gen_stats *g = &r->gen.stats;
    const struct {
        const char *key, *value;
    } strings[] = {
        {"model", gguf_path(r->e.file)},
        {"architecture", r->e.model->arch->name},
        {"isa", ttx_isa_name(r->e.rt.isa)},
        {"stop", stop_name(g->stop)},
    };
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"n_threads", ttx_pool_threads(r->e.rt.pool)},
        {"n_ctx", ttx_session_n_ctx(r->session)},
        {"model_bytes", (double)ttx_model_bytes(r->e.model)},
        {"load_s", r->e.load_s},
        {"ttft_s", g->ttft_s},
        {"prompt_n", (double)g->prompt_n},
        {"prompt_s", g->prompt_s},
        {"prompt_tps", per_second(g->prompt_n, g->prompt_s)},
        {"decode_n", (double)g->decode_n},
        {"decode_s", g->decode_s},
        {"decode_tps", per_second(g->decode_n, g->decode_s)},
        {"decode_ms_p50", ttx_gen_quantile(g, 0.5)},
        {"decode_ms_p95", ttx_gen_quantile(g, 0.95)},
        {"decode_ms_p99", ttx_gen_quantile(g, 0.99)},
        {"generated_n", (double)g->n_tokens},
        {"drafted_n", (double)g->drafted_n},
        {"accepted_n", (double)g->accepted_n},
        {"peak_rss_bytes", (double)peak_rss()},
    };
    cJSON *o = cJSON_CreateObject();
    bool ok = o;
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++)
        ok = ok && cJSON_AddStringToObject(o, strings[i].key, strings[i].value);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        ok = ok && cJSON_AddNumberToObject(o, numbers[i].key, numbers[i].value);
    if (ok && ttx_ram_json(o, r->e.rt.residency)) return o;
    cJSON_Delete(o);
    return NULL;
}

static int write_json(run_state *r, ttx_err *err) {
    cJSON *o = summary_object(r);
    char *text = o ? cJSON_Print(o) : NULL;
    cJSON_Delete(o);
    int rc = TTX_OK;
    if (text)
        fprintf(r->json.f, "%s\n", text);
    else
        rc = ttx_fail_nomem(err, "summary as JSON", 4096);
    free(text);
    return ttx_outfile_close(&r->json, rc, err);
}

/* ---- the command ---- */

static int run_prompt(run_state *r, const char *prompt, size_t n, ttx_err *err) {
    const settings *set = r->set;
    describe(r);
    int rc = n ? take_turn(r, prompt, n, err) : TTX_OK;
    if (!rc && set->interactive) rc = converse(r, err);
    if (r->gen.stats.n_tokens && !set->interactive && isatty(STDOUT_FILENO))
        fputc('\n', stdout);
    else if (*r->interrupted && !set->interactive && isatty(STDERR_FILENO))
        fputc('\n', stderr); /* leaves the line of the "^C" */
    if (!rc) summarise(r);
    ttx_trace_note(r->e.rt.trace, "num_tokens_generated", (double)r->gen.stats.n_tokens);
    if (!rc && set->json) rc = write_json(r, err);
    return rc ? rc : *r->interrupted ? TTX_E_INTERRUPTED : TTX_OK;
}

static int run(const void *arg, ttx_err *err) {
    const settings *set = arg;
    run_state r = {.set = set, .first_turn = true};
    char *prompt = NULL;
    size_t n = 0;
    int rc = set->log_file ? ttx_note_log_to(set->log_file, err) : TTX_OK;
    if (!rc) rc = read_prompts(&r, &prompt, &n, err);
    if (!rc && !n && !set->interactive)
        rc = ttx_fail(err, TTX_E_USAGE,
                      "prompt: expected text, found none (give -p TEXT, -f FILE or -i)");
    if (!rc && set->system && !set->chat)
        rc = ttx_fail(err, TTX_E_USAGE,
                      "-sys: expected --chat with it, since only a chat format "
                      "has a place for a system message");
    if (!rc && set->draft && (set->engine.routes || set->engine.save_routes))
        rc = ttx_fail(err, TTX_E_USAGE,
                      "--draft-ngram: expected without --routes and --save-routes (a wrong guess "
                      "has routes too), found %s",
                      set->engine.routes ? "--routes" : "--save-routes");
    r.interrupted = ttx_catch_interrupt();
    if (!rc) rc = open_all(&r, prompt, err);
    if (!rc) rc = run_prompt(&r, prompt, n, err);
    ttx_gen_close(&r.gen);
    ttx_draft_close(r.draft);
    ttx_detok_free(r.detok);
    ttx_sampler_close(r.sampler);
    ttx_session_close(r.session);
    rc = ttx_engine_finish(&r.e, rc, err);
    ttx_tokenizer_free(r.tok);
    ttx_engine_close(&r.e);
    if (r.json.f) ttx_outfile_close(&r.json, rc, err);
    free(r.system);
    free(prompt);
    return rc;
}

static void defaults(void *arg) {
    settings *s = arg;
    ttx_engine_args_defaults(&s->engine);
    s->sampler = ttx_sampler_default_settings();
    s->n_predict = -1;
    s->seed = RANDOM_SEED;
    s->n_batch = 2048;
    s->escape = true;
}

#define RUN(field) offsetof(settings, field)
static const ttx_opt options[] = {
    TTX_OPT_MODEL,
    {"-p, --prompt", OPT_STR, RUN(prompt), "TEXT", "what to continue", .group = "Prompt"},
    {"-f, --file", OPT_STR, RUN(file), "FILE", "read the prompt from a file"},
    {"-e, --escape", OPT_FLAG, RUN(escape),
     .help = "process \\n, \\t, \\xHH ... in -p, -f and -sys; never in typed turns"},
    {"--no-escape", OPT_UNFLAG, RUN(escape), .help = "take the prompt as it is"},
    {"--chat", OPT_FLAG, RUN(chat), .help = "put the prompt into the model's chat format"},
    {"-sys, --system-prompt", OPT_STR, RUN(system), "TEXT", "system message, with --chat"},
    {"-i, --interactive", OPT_FLAG, RUN(interactive),
     .help = "go on with turns typed on the terminal"},
    {"-n, --predict, --n-predict", OPT_INT, RUN(n_predict), "N", "tokens to generate", .min = -1,
     .max = INT32_MAX, .shown_default = "until the model or the context ends",
     .group = "Generation"},
    {"-s, --seed", OPT_U32, RUN(seed), "N",
     "seed of the random draws, up to 4294967294; -1 (or 4294967295): another one each time",
     .min = -1, .max = UINT32_MAX, .shown_default = "-1"},
    {"--temp", OPT_FLOAT, RUN(sampler.temp), "T", "temperature; 0 takes the most probable token",
     .min = -1e6, .max = 1e6},
    {"--top-k", OPT_INT, RUN(sampler.top_k), "K", "draw from the K best; 0: from all", .min = -1,
     .max = INT32_MAX},
    {"--top-p", OPT_FLOAT, RUN(sampler.top_p), "P",
     "draw from the fewest whose probabilities reach P; 1: off", .min = 0, .max = 1},
    {"--min-p", OPT_FLOAT, RUN(sampler.min_p), "P",
     "draw from those at least P times as probable as the best; 0: off", .min = 0, .max = 1},
    {"--repeat-penalty", OPT_FLOAT, RUN(sampler.repeat_penalty), "X",
     "make recent tokens less likely; 1: off", .min = 1e-6, .max = 1e6},
    {"--repeat-last-n", OPT_INT, RUN(sampler.repeat_last_n), "N",
     "how many tokens are recent; -1: the whole context", .min = -1, .max = INT32_MAX},
    {"--draft-ngram", OPT_FLAG, RUN(draft),
     .help = "guess tokens from the text so far and check several at once: the same text, sooner "
             "where reading the weights is what takes time"},
    {"--ignore-eos", OPT_FLAG, RUN(ignore_eos), .help = "never end the text"},
    {"-b, --batch-size", OPT_U32, RUN(n_batch), "N", "most tokens of a prompt taken at once",
     .min = 1, .max = 1 << 16, .group = "Engine"},
    TTX_OPTS_ENGINE("the model's, at most 4096 and what memory allows"),
    {"--json", OPT_STR, RUN(json), "FILE", "write the summary as JSON", .group = "Output"},
    {"--log-file", OPT_STR, RUN(log_file), "FILE",
     "append everything that the run says on stderr to a file"},
    TTX_OPTS_LLAMA_CPP,
    {"-cnv, --conversation", OPT_IGNORED, .help = "see --chat and -i"},
    {"-no-cnv, --no-conversation", OPT_IGNORED, .help = "that is how ttx runs without --chat"},
    {"-st, --single-turn", OPT_IGNORED, .help = "that is how ttx runs without -i"},
    {"--jinja", OPT_IGNORED, .help = "see --chat"},
    {.kind = OPT_END},
};

const ttx_command ttx_cmd_run = {
    .name = "run",
    .summary = "generate text",
    .usage = "ttx run -m FILE -p TEXT [options]",
    .about =
        "Continues a prompt. The generated text alone goes to standard output; everything else,\n"
        "with a summary of times and memory at the end, to standard error. Ctrl-C stops the\n"
        "text and still prints the summary (exit code 130).",
    .examples =
        "  # continue a text\n  ttx run -m model.gguf -p \"The capital of France is\" -n 32\n"
        "  # ask a chat model\n  ttx run -m model.gguf --chat -p \"Why is the sky blue?\"\n"
        "  # talk with it\n  ttx run -m model.gguf --chat -i -sys \"Answer briefly.\"\n"
        "  # the same words every time, figures to a file\n"
        "  ttx run -m model.gguf -p \"Once\" -n 64 --temp 0 --json run.json",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
};
