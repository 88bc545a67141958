/* cmd_tokenize.c -- `ttx tokenize`: text to token ids, and back.
 *
 * Text is taken as it is, whatever its bytes: no escapes, no line ends added or removed. Needs only
 * the header of a model file, so that vocabulary-only files will do.
 */
#include "engine_args.h"
#include "readfile.h"
#include "tokenizer.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    const char *model, *prompt, *file, *lines;
    bool ids, add_special, parse_special, detokenize;
} settings;

#define MAX_TEXT (1ull << 30)

static void defaults(void *p) {
    settings *s = p;
    s->add_special = s->parse_special = true;
}

#define AT(field) offsetof(settings, field)

static const ttx_opt options[] = {
    {"-m, --model", OPT_STR, AT(model), "FILE", "the model file, or one of its shards",
     .required = true, .group = "Input"},
    {"-p, --prompt", OPT_STR, AT(prompt), "TEXT", "the text"},
    {"-f, --file", OPT_STR, AT(file), "FILE", "take the text from FILE, byte for byte"},
    {"--lines-json", OPT_STR, AT(lines), "FILE",
     "take texts from FILE, a JSON array of strings, and print a JSON array of arrays of ids"},
    {"--detokenize", OPT_FLAG, AT(detokenize), NULL,
     "go back: the input is ids, as a JSON array or with spaces between them, and bytes come out"},
    {"--ids", OPT_FLAG, AT(ids), NULL, "print a JSON array of ids", .group = "Output"},
    {"--no-bos", OPT_UNFLAG, AT(add_special), NULL,
     "neither add the tokens that the model puts around a text nor, going back, take them away",
     .group = "Tokens"},
    {"--no-parse-special", OPT_UNFLAG, AT(parse_special), NULL,
     "read the names of control tokens as plain text"},
    {.kind = OPT_END}};

/* ---- input ---- */

/* Ids out of "[1, 2, 3]" or "1 2 3"; the caller frees *ids, also after an error. */
static int parse_ids(const ttx_tokenizer *t, const char *text, size_t n_bytes, int32_t **ids,
                     size_t *n, ttx_err *err) {
    *ids = malloc((n_bytes / 2 + 1) * sizeof **ids);
    if (!*ids) return ttx_fail_nomem(err, "ids", n_bytes);
    for (const char *s = text;;) {
        s += strspn(s, "[], \t\r\n");
        if (s == text + n_bytes) return TTX_OK;
        char *end;
        errno = 0;
        long id = strtol(s, &end, 10);
        if (end == s || errno || !strchr("[], \t\r\n", *end))
            return ttx_fail(err, TTX_E_USAGE, "--detokenize: expected token ids, found '%.20s'", s);
        if (id < 0 || id >= ttx_tok_n_vocab(t))
            return ttx_fail(err, TTX_E_USAGE, "--detokenize: expected ids below %d, found %ld",
                            ttx_tok_n_vocab(t), id);
        (*ids)[(*n)++] = (int32_t)id;
        s = end;
    }
}

/* ---- output ---- */

static void put_ids(const int32_t *ids, size_t n) {
    putchar('[');
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? ", " : "", ids[i]);
    putchar(']');
}

/* A line for each token, as llama-tokenize prints them. */
static int put_pieces(const ttx_tokenizer *t, const int32_t *ids, size_t n, ttx_err *err) {
    char *piece = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < n; i++) {
        size_t len = ttx_token_bytes(t, ids[i], piece, cap);
        if (len > cap) {
            free(piece);
            piece = malloc(cap = len + 64);
            if (!piece) return ttx_fail_nomem(err, "a token", cap);
            len = ttx_token_bytes(t, ids[i], piece, cap);
        }
        printf("%6d -> '", ids[i]);
        fwrite(piece, 1, len, stdout);
        puts("'");
    }
    free(piece);
    return TTX_OK;
}

/* ---- what it does ---- */

static unsigned flags_of(const settings *s) {
    return (s->add_special ? TTX_TOK_ADD_SPECIAL : 0u) |
           (s->parse_special ? TTX_TOK_PARSE_SPECIAL : 0u);
}

static int tokenize_one(const settings *s, const ttx_tokenizer *t, const char *text, size_t n,
                        ttx_err *err) {
    int32_t *ids;
    size_t n_ids;
    int code = ttx_tokenize(t, text, n, flags_of(s), &ids, &n_ids, err);
    if (code) return code;
    if (s->ids || s->lines)
        put_ids(ids, n_ids);
    else
        code = put_pieces(t, ids, n_ids, err);
    if (s->ids) putchar('\n');
    free(ids);
    return code;
}

/* Is this an array of strings? Asked before anything is printed. */
static int check_lines(const settings *s, const cJSON *root, const char *json, ttx_err *err) {
    if (!cJSON_IsArray(root))
        return ttx_fail(err, TTX_E_USAGE, "%s: expected a JSON array of strings", s->lines);
    if (strstr(json, "\\u0000"))
        return ttx_fail(err, TTX_E_USAGE, "%s: NUL characters in strings are not supported",
                        s->lines);
    for (const cJSON *item = root->child; item; item = item->next)
        if (!cJSON_IsString(item))
            return ttx_fail(err, TTX_E_USAGE, "%s: expected strings only", s->lines);
    return TTX_OK;
}

static int tokenize_lines(const settings *s, const ttx_tokenizer *t, const char *json, size_t n,
                          ttx_err *err) {
    cJSON *root = cJSON_ParseWithLength(json, n);
    int code = check_lines(s, root, json, err);
    settings one = *s;
    one.ids = false;
    if (!code) putchar('[');
    for (const cJSON *item = code ? NULL : root->child; item && !code; item = item->next) {
        code = tokenize_one(&one, t, item->valuestring, strlen(item->valuestring), err);
        fputs(item->next ? ",\n" : "", stdout);
    }
    if (!code) puts("]");
    cJSON_Delete(root);
    return code;
}

static int detokenize(const settings *s, const ttx_tokenizer *t, const char *text, size_t n_bytes,
                      ttx_err *err) {
    int32_t *ids = NULL;
    size_t n = 0, first = 0;
    ttx_detok *d = NULL;
    const char *bytes;
    int code = parse_ids(t, text, n_bytes, &ids, &n, err);
    if (!code) code = ttx_detok_new(&d, t, TTX_DETOK_SPECIAL | TTX_DETOK_START, err);
    if (code) goto done;
    if (s->add_special && ttx_tok_add_bos(t) && n > 0 && ids[0] == ttx_tok_bos(t)) first = 1;
    if (s->add_special && ttx_tok_add_eos(t) && n > first && ids[n - 1] == ttx_tok_eos(t)) n--;
    for (size_t i = first; i < n; i++) {
        size_t len = ttx_detok_feed(d, ids[i], &bytes);
        fwrite(bytes, 1, len, stdout);
    }
    size_t len = ttx_detok_flush(d, &bytes);
    fwrite(bytes, 1, len, stdout);
done:
    ttx_detok_free(d);
    free(ids);
    return code;
}

static int run(const void *p, ttx_err *err) {
    const settings *s = p;
    gguf_file *f = NULL;
    ttx_tokenizer *t = NULL;
    char *data = NULL;
    size_t n = 0;
    if (!!s->prompt + !!s->file + !!s->lines != 1)
        return ttx_fail(err, TTX_E_USAGE, "tokenize: expects one of -p, -f and --lines-json");
    if (s->lines && s->detokenize)
        return ttx_fail(err, TTX_E_USAGE, "--detokenize takes its ids from -p or -f");
    int code = gguf_open(&f, s->model, err);
    if (!code) code = ttx_tokenizer_load(&t, f, err);
    if (!code && !s->prompt)
        code = ttx_read_file(s->file ? s->file : s->lines, MAX_TEXT, &data, &n, err);
    if (code) goto done;
    const char *text = s->prompt ? s->prompt : data;
    if (s->prompt) n = strlen(s->prompt);
    if (s->detokenize)
        code = detokenize(s, t, text, n, err);
    else if (s->lines)
        code = tokenize_lines(s, t, text, n, err);
    else
        code = tokenize_one(s, t, text, n, err);
done:
    free(data);
    ttx_tokenizer_free(t);
    gguf_close(f);
    return code;
}

const ttx_command ttx_cmd_tokenize = {
    .name = "tokenize",
    .summary = "turn text into tokens, and back",
    .usage = "ttx tokenize -m FILE (-p TEXT | -f FILE) [options]",
    .about =
        "Prints the tokens of a text, one a line: id and what it stands for. The tokens are "
        "those that llama.cpp gives. Bytes that are not UTF-8 survive the way there and back where "
        "the vocabulary has a token for each byte; one that lacks some (SmolLM2's has none for "
        "0xff) drops them, as llama.cpp does. Texts are limited to 1 GiB.",
    .examples = "  # see how a model reads a text\n"
                "  ttx tokenize -m model.gguf -p \"Hello, world\"\n"
                "  # count the tokens of a file\n"
                "  ttx tokenize -m model.gguf -f README.md | wc -l\n"
                "  # there and back\n"
                "  ttx tokenize -m model.gguf --ids -f README.md |\n"
                "    ttx tokenize -m model.gguf --detokenize -f /dev/stdin",
    .options = options,
    .settings_size = sizeof(settings),
    .defaults = defaults,
    .run = run,
};
