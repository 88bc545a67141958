/* cmd_eval.c -- ttx eval: how well a model predicts a text, and how far two runs are apart.
 *
 * Tokens are evaluated chunk by chunk; every row of log-probabilities goes to three sinks: the
 * perplexity, the file that --logits writes, the comparison with the file that --compare names.
 */
#include "engine_args.h"

#include "npy.h"
#include "outfile.h"
#include "readfile.h"
#include "tokenizer.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct settings {
    ttx_engine_args engine;
    const char *file, *tokens, *logits, *compare;
    bool step;
} settings;

enum { MAX_TEXT = 1 << 30, LOGITS_BYTES = 64 << 20 };

/* The tokens to evaluate, and how: chunks of `chunk` tokens, of which those from `first` on are
 * scored by how well they predict their successor. */
typedef struct job {
    int32_t *ids;
    size_t n, chunk, first;
    int32_t bos; /* takes the place of each chunk's first token; -1: not */
} job;

typedef struct sinks {
    const volatile sig_atomic_t *interrupted;
    size_t n_vocab;
    float *row; /* [n_vocab] log-probabilities */
    double nll, nll2;
    size_t scored;
    FILE *logits; /* NULL: not wanted */
    ttx_npy ref;  /* values NULL: not wanted */
    const char *logits_path, *ref_path;
    double *kl; /* [ref.rows] */
    size_t n_rows, same_top;
} sinks;

/* ---- rows ---- */

/* False if there is no finite sum: a logit is NaN or infinite. */
static bool log_softmax(float *out, const float *logits, size_t n) {
    float max = logits[0];
    for (size_t i = 1; i < n; i++) max = logits[i] > max ? logits[i] : max;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)(logits[i] - max));
    double log_sum = log(sum) + max;
    for (size_t i = 0; i < n; i++) out[i] = (float)(logits[i] - log_sum);
    return isfinite(log_sum);
}

/* KL(p || q) of two rows of log-probabilities. Written as a sum of p log(p/q) - p + q, whose terms
 * are all positive: the rounding of single probabilities then cancels to second order. *total: the
 * sum of p, 1 if p is what it should be; NaN if a part of it is. */
static double divergence(const float *p, const float *q, size_t n, double *total) {
    double sum = 0;
    *total = 0;
    for (size_t i = 0; i < n; i++) {
        double a = exp((double)p[i]), d = (double)q[i] - p[i];
        *total += a;
        if (a > 0)
            sum += a * (expm1(d) - d);
        else
            sum += exp((double)q[i]);
    }
    return sum;
}

static size_t top(const float *v, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (v[i] > v[best]) best = i;
    return best;
}

static int take_row(sinks *k, const float *logits, int32_t next, bool scored, ttx_err *err) {
    if (!log_softmax(k->row, logits, k->n_vocab))
        return ttx_fail(err, TTX_E_RUNTIME, "position %zu: expected finite logits, found others",
                        k->n_rows);
    if (scored) {
        double nll = -(double)k->row[next];
        k->nll += nll;
        k->nll2 += nll * nll;
        k->scored++;
    }
    if (k->logits && fwrite(k->row, sizeof(float), k->n_vocab, k->logits) != k->n_vocab)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot write: %s", k->logits_path,
                        strerror(errno));
    if (k->ref.values) {
        const float *p = k->ref.values + k->n_rows * k->n_vocab;
        double total;
        k->kl[k->n_rows] = divergence(p, k->row, k->n_vocab, &total);
        if (!(fabs(total - 1) < 0.01))
            return ttx_fail(err, TTX_E_USAGE,
                            "%s: row %zu: expected logarithms of probabilities that sum to 1, "
                            "found a sum of %.4g",
                            k->ref_path, k->n_rows, total);
        k->same_top += top(p, k->n_vocab) == top(k->row, k->n_vocab);
    }
    k->n_rows++;
    return TTX_OK;
}

/* ---- evaluation ---- */

static void show_progress(const sinks *k, size_t n) {
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "\r%zu of %zu tokens, perplexity %.4f ", k->n_rows, n,
                exp(k->nll / (double)(k->scored ? k->scored : 1)));
}

static int eval_chunk(ttx_session *s, const job *j, size_t begin, size_t piece, ttx_class cls,
                      sinks *k, ttx_err *err) {
    size_t n = j->n - begin < j->chunk ? j->n - begin : j->chunk;
    int32_t *ids = j->ids + begin, kept = ids[0];
    int rc = TTX_OK;
    ttx_session_rewind(s, 0);
    if (j->bos >= 0) ids[0] = j->bos;
    for (size_t at = 0; at < n && !rc; at += piece) {
        size_t m = n - at < piece ? n - at : piece;
        if (*k->interrupted) return ttx_fail(err, TTX_E_INTERRUPTED, "interrupted");
        rc = ttx_session_eval(s, ids + at, m, cls, TTX_WANT_ALL, err);
        for (size_t i = 0; i < m && !rc; i++) {
            size_t pos = at + i;
            bool scored = pos >= j->first && pos + 1 < n;
            rc = take_row(k, ttx_session_logits(s, i), scored ? ids[pos + 1] : 0, scored, err);
        }
        if (!rc) show_progress(k, j->n);
    }
    ids[0] = kept;
    return rc;
}

static int eval_all(ttx_session *s, const job *j, size_t piece, ttx_class cls, sinks *k,
                    ttx_err *err) {
    size_t n_chunks = (j->n + j->chunk - 1) / j->chunk;
    int rc = TTX_OK;
    for (size_t i = 0; i < n_chunks && !rc; i++)
        rc = eval_chunk(s, j, i * j->chunk, piece, cls, k, err);
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%60s\r", "");
    return rc;
}

/* ---- what to evaluate ---- */

/* The ids of "[1, 2, 3]" into j->ids, which is large enough. Read by hand: a parser of JSON cannot
 * tell a text that is wrong from memory that is short. */
static int parse_ids(const char *text, size_t n, const char *path, int64_t n_vocab, job *j,
                     ttx_err *err) {
    static const char blanks[] = " \t\r\n";
    const char *s = text + strspn(text, blanks);
    bool ok = *s == '[';
    while (ok) {
        s++; /* over the bracket, or a comma */
        s += strspn(s, blanks);
        if (!j->n && *s == ']') break;
        char *end;
        errno = 0;
        long id = strtol(s, &end, 10);
        if (!isdigit((unsigned char)*s) || errno || id >= n_vocab || !strchr(" \t\r\n,]", *end))
            return ttx_fail(err, TTX_E_USAGE, "%s: item %zu: expected a token id in 0..%lld", path,
                            j->n, (long long)n_vocab - 1);
        j->ids[j->n++] = (int32_t)id;
        s = end + strspn(end, blanks);
        ok = *s == ',';
    }
    bool closed = *s == ']' && s + 1 + strspn(s + 1, blanks) == text + n;
    if (closed && j->n) return TTX_OK;
    return ttx_fail(err, TTX_E_USAGE, "%s: expected a JSON array of token ids", path);
}

static int read_ids(const char *path, int64_t n_vocab, job *j, ttx_err *err) {
    char *text;
    size_t n;
    int rc = ttx_read_file(path, MAX_TEXT, &text, &n, err);
    if (rc) return rc;
    j->ids = calloc(n / 2 + 1, sizeof *j->ids); /* an id has a digit and a separator */
    rc = j->ids ? parse_ids(text, n, path, n_vocab, j, err)
                : ttx_fail_nomem(err, "token ids", 2 * n);
    free(text);
    j->chunk = j->n;
    j->bos = -1;
    return rc;
}

/* Whole chunks only, the second half of each scored: as llama.cpp's perplexity tool counts. */
static int read_text(const ttx_engine *e, const char *path, uint32_t n_ctx, job *j, ttx_err *err) {
    char *text = NULL;
    size_t n_bytes;
    ttx_tokenizer *tok = NULL;
    int rc = ttx_read_file(path, MAX_TEXT, &text, &n_bytes, err);
    if (!rc) rc = ttx_tokenizer_load(&tok, e->file, err);
    if (!rc) rc = ttx_tokenize(tok, text, n_bytes, TTX_TOK_ADD_SPECIAL, &j->ids, &j->n, err);
    j->chunk = n_ctx;
    j->first = n_ctx / 2;
    j->bos = tok && ttx_tok_add_bos(tok) ? ttx_tok_bos(tok) : -1;
    if (!rc && n_ctx < 3)
        rc = ttx_fail(err, TTX_E_USAGE, "-c: expected at least 3 tokens a chunk, found %u", n_ctx);
    if (!rc && j->n < 2 * j->chunk)
        rc = ttx_fail(err, TTX_E_USAGE,
                      "%s: expected at least two chunks of %u tokens, found %zu tokens (choose a "
                      "smaller -c)",
                      path, n_ctx, j->n);
    j->n -= rc ? 0 : j->n % j->chunk;
    ttx_tokenizer_free(tok);
    free(text);
    return rc;
}

/* ---- results ---- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_comparison(sinks *k) {
    size_t n = k->n_rows, cut = n / 10;
    qsort(k->kl, n, sizeof *k->kl, ascending);
    double mean = 0, trimmed = 0;
    for (size_t i = 0; i < n; i++) mean += k->kl[i] / (double)n;
    for (size_t i = cut; i < n - cut; i++) trimmed += k->kl[i] / (double)(n - 2 * cut);
    double median = (k->kl[(n - 1) / 2] + k->kl[n / 2]) / 2;
    printf("KL divergence over %zu positions: mean %.6g, 10%%-trimmed mean %.6g, median %.6g, "
           "99%% %.6g, max %.6g\n",
           n, mean, trimmed, median, k->kl[(size_t)ceil((double)(n - 1) * 0.99)], k->kl[n - 1]);
    printf("same top token: %.3f %%\n", 100.0 * (double)k->same_top / (double)n);
}

static void print_perplexity(const sinks *k) {
    if (!k->scored) return;
    double n = (double)k->scored, mean = k->nll / n;
    double variance = k->nll2 / n - mean * mean;
    double spread = n > 1 && variance > 0 ? sqrt(variance / (n - 1)) * exp(mean) : 0;
    printf("perplexity: %.4f +/- %.5f over %zu tokens\n", exp(mean), spread, k->scored);
}

/* ---- the command ---- */

static int open_sinks(sinks *k, const settings *set, const job *j, ttx_outfile *out, ttx_err *err) {
    k->row = malloc(k->n_vocab * sizeof *k->row);
    if (!k->row) return ttx_fail_nomem(err, "log-probabilities", k->n_vocab * sizeof *k->row);
    if (set->compare) {
        int rc = ttx_npy_open(&k->ref, set->compare, err);
        if (rc) return rc;
        if (k->ref.rows != j->n || k->ref.cols != k->n_vocab)
            return ttx_fail(err, TTX_E_USAGE, "%s: expected %zu x %zu values, found %llu x %llu",
                            set->compare, j->n, k->n_vocab, (unsigned long long)k->ref.rows,
                            (unsigned long long)k->ref.cols);
        k->kl = calloc(j->n, sizeof *k->kl);
        if (!k->kl) return ttx_fail_nomem(err, "divergences", j->n * sizeof *k->kl);
    }
    if (!set->logits) return TTX_OK;
    int rc = ttx_outfile_open(out, set->logits, err);
    if (rc) return rc;
    k->logits = out->f;
    return ttx_npy_header(k->logits, j->n, k->n_vocab, err);
}

static int run(const void *arg, ttx_err *err) {
    const settings *set = arg;
    ttx_engine_args args = set->engine;
    ttx_engine e = {0};
    ttx_session *s = NULL;
    job j = {0};
    sinks k = {
        .interrupted = ttx_catch_interrupt(), .logits_path = set->logits, .ref_path = set->compare};
    ttx_outfile out = {0};
    if (!set->file == !set->tokens)
        return ttx_fail(err, TTX_E_USAGE, "eval: expected one of -f and --tokens");
    if (args.n_ctx == TTX_CTX_DEFAULT) args.n_ctx = 512;
    if (!set->step) args.output_bytes = LOGITS_BYTES;
    int rc = ttx_engine_open(&e, &args, err);
    if (rc) goto done;
    k.n_vocab = e.model->hp.n_vocab;
    if (args.n_ctx == 0) args.n_ctx = e.model->hp.n_ctx_train;
    rc = set->file ? read_text(&e, set->file, args.n_ctx, &j, err)
                   : read_ids(set->tokens, e.model->hp.n_vocab, &j, err);
    if (rc || (rc = open_sinks(&k, set, &j, &out, err))) goto done;
    args.n_ctx = (uint32_t)j.chunk;
    uint32_t piece = ttx_engine_session_settings(e.model, &args, 0).n_outputs;
    if ((rc = ttx_engine_session(&e, &args, piece, &s, err))) goto done;
    if ((rc = eval_all(s, &j, piece, set->step ? TTX_EXACT : TTX_PROMPT, &k, err))) goto done;
    print_perplexity(&k);
    if (k.ref.values) print_comparison(&k);
done:
    if (out.f) rc = ttx_outfile_close(&out, rc, err);
    ttx_npy_close(&k.ref);
    free(k.kl);
    free(k.row);
    free(j.ids);
    ttx_session_close(s);
    rc = ttx_engine_finish(&e, rc, err);
    ttx_engine_close(&e);
    return rc;
}

static void defaults(void *arg) {
    ttx_engine_args_defaults(&((settings *)arg)->engine);
}

#define EVAL(field) offsetof(settings, field)
static const ttx_opt options[] = {
    TTX_OPT_MODEL,
    {"-f, --file", OPT_STR, EVAL(file), "FILE", "text to evaluate", .group = "What"},
    {"--tokens", OPT_STR, EVAL(tokens), "FILE",
     "JSON array of token ids to evaluate as they are, in one chunk"},
    {"--step", OPT_FLAG, EVAL(step), .help = "token by token, with the bits of decoding"},
    {"--logits", OPT_STR, EVAL(logits), "FILE",
     "write natural-log probabilities, float32 [n_tokens, n_vocab], as .npy", .group = "Results"},
    {"--compare", OPT_STR, EVAL(compare), "FILE",
     "print the divergence KL(FILE || this run) from an earlier --logits"},
    TTX_OPTS_ENGINE("512; with --tokens: their number"),
    TTX_OPTS_LLAMA_CPP,
    {"-b, --batch-size", OPT_IGNORED1, .arg = "N", .help = "see -ub"},
    {.kind = OPT_END},
};

const ttx_command ttx_cmd_eval = {
    .name = "eval",
    .summary = "measure perplexity, or the distance between two runs",
    .usage = "ttx eval -m FILE (-f TEXT | --tokens FILE) [options]",
    .about =
        "Perplexity is counted as llama.cpp's tool counts it: whole chunks of -c tokens\n"
        "(default 512), at least two, the second half of each scored, the first token of each\n"
        "replaced by BOS where the model wants one. With --tokens every position is scored.\n"
        "Row i of --logits is the distribution of the token that follows position i.",
    .examples = "  # how good is it?\n  ttx eval -m model.gguf -f text.txt\n"
                "  # what does a Q8_0 KV cache cost?\n"
                "  ttx eval -m model.gguf -f text.txt --logits base.npy\n"
                "  ttx eval -m model.gguf -f text.txt -ctk q8_0 -ctv q8_0 --compare base.npy",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
};
