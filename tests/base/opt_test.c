/* opt_test.c -- option tables: values and their limits, errors word for word, help, man pages.
 *
 * With an argument ("bash", "zsh", "fish", "man", "help") it prints what the table gives, for
 * completion.sh.
 */
#include "opt.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct settings {
    bool flag, escape;
    int32_t n_predict, kv_type;
    uint32_t seed;
    float temp, top_p;
    const char *model, *prompt;
    uint64_t ram;
    ttx_opt_list tensors;
} settings;

static void defaults(void *p) {
    *(settings *)p = (settings){.escape = true, .n_predict = -1, .temp = 0.8f, .ram = 512 << 20};
}

#define AT(f) offsetof(settings, f)
static const ttx_opt options[] = {
    {"-m, --model", OPT_STR, AT(model), "FILE", "GGUF file", .group = "Model", .required = true},
    {"-p, --prompt", OPT_STR, AT(prompt), "TEXT", "text to continue: [it's \"a\\b\"]"},
    {"--flag", OPT_FLAG, AT(flag), .help = "a flag", .group = "Others"},
    {"--no-escape", OPT_UNFLAG, AT(escape), .help = "keep backslashes"},
    {"-n, --predict, --n-predict", OPT_INT, AT(n_predict), "N", "tokens", .min = -2, .max = 100000,
     .shown_default = "until the end"},
    {"-s, --seed", OPT_U32, AT(seed), "N", "seed"},
    {"--temp", OPT_FLOAT, AT(temp), "T", "temperature", .min = 0, .max = INFINITY},
    {"--top-p", OPT_FLOAT, AT(top_p), "P", "nucleus", .min = 0, .max = 1},
    {"--free", OPT_FLOAT, AT(top_p), "X", "any number"},
    {"-ctk, --cache-type-k", OPT_ENUM, AT(kv_type), .help = "KV type", .choices = "f16|f32|q8_0"},
    {"--ram", OPT_SIZE, AT(ram), "SIZE", "budget"},
    {"-ot, --override-tensor", OPT_LIST, AT(tensors), "PATTERN", "places"},
    {"-ngl, --n-gpu-layers", OPT_IGNORED1, 0, "N"},
    {"--no-warmup", OPT_IGNORED},
    {.kind = OPT_END}};

static int run_nothing(const void *s, ttx_err *err) {
    (void)s;
    (void)err;
    return 0;
}

static const ttx_command cmd = {"run",
                                "generate text",
                                "ttx run -m FILE [options]",
                                "Generates\ntext.\n\n.It has a dotted line\n  and an indented one.",
                                "  # greet\n  ttx run -m a.gguf -p hi",
                                options,
                                sizeof(settings),
                                defaults,
                                run_nothing};
static const ttx_opt places = {"DIR", OPT_LIST, AT(tensors), "...", "traces", .required = true};
static const ttx_opt place = {"DIR", OPT_STR, AT(model), "", "a trace"};
static const ttx_command bare = {
    .name = "bare", .summary = "do nothing", .usage = "ttx bare", .run = run_nothing};

static int failures, notes;

static void report(int line, const char *what, const char *got) {
    fprintf(stderr, "opt_test.c:%d: %s: %s\n", line, what, got);
    failures++;
}
#define CHECK(x)                                 \
    do {                                         \
        if (!(x)) report(__LINE__, "false", #x); \
    } while (0)

static void count_note(const char *line) {
    notes++;
    if (notes == 1 && strcmp(line, "option '-ngl' has no effect here") != 0)
        report(__LINE__, "note", line);
}

/* Parses words separated by spaces after "-m x"; words with a leading '!' replace "-m x" by
 * nothing. */
static int parse(const char *line, settings *s, ttx_err *err) {
    static char text[4096]; /* values are borrowed from it */
    char *argv[200];
    int argc = 0;
    snprintf(text, sizeof text, "%s%s", line[0] == '!' ? "" : "-m x ", line + (line[0] == '!'));
    for (char *w = strtok(text, " "); w; w = strtok(NULL, " ")) argv[argc++] = w;
    memset(s, 0, sizeof *s);
    defaults(s);
    *err = (ttx_err){0};
    notes = 0;
    return ttx_opt_parse(&cmd, argc, argv, s, count_note, err);
}

static settings good(int line, const char *args) {
    settings s;
    ttx_err err;
    if (parse(args, &s, &err)) report(line, args, err.msg);
    return s;
}
#define GOOD(args) good(__LINE__, args)

static void bad(int line, const char *args, const char *expected) {
    settings s;
    ttx_err err;
    if (parse(args, &s, &err) != TTX_E_USAGE)
        report(line, args, "not refused");
    else if (strcmp(err.msg, expected) != 0)
        report(line, err.msg, expected);
}
#define BAD(args, message) bad(__LINE__, args, message)

static void test_values(void) {
    CHECK(GOOD("").temp == 0.8f);
    CHECK(strcmp(GOOD("-m y").model, "y") == 0); /* the last value wins */
    CHECK(strcmp(GOOD("!--model=a=b").model, "a=b") == 0);
    CHECK(strcmp(GOOD("-p -m").prompt, "-m") == 0);
    CHECK(GOOD("--flag").flag && !GOOD("").flag);
    CHECK(!GOOD("--no-escape").escape && GOOD("").escape);
    CHECK(GOOD("-n -2").n_predict == -2 && GOOD("--n_predict=7").n_predict == 7);
    CHECK(GOOD("-s 4294967295").seed == UINT32_MAX);
    CHECK(GOOD("--temp 1e3").temp == 1000 && GOOD("--free -.5").top_p == -0.5f);
    CHECK(GOOD("-ctk q8_0").kv_type == 2 && GOOD("-ctk f16").kv_type == 0);
    CHECK(GOOD("--").kv_type == 0);
}

static void test_lists(void) {
    settings s = GOOD("-ot a --override-tensor=b -ot c");
    CHECK(s.tensors.n == 3 && strcmp(s.tensors.v[0], "a") == 0 && strcmp(s.tensors.v[2], "c") == 0);
    char line[1024] = "";
    for (int i = 0; i < 64; i++) strcat(line, " -ot x");
    CHECK(GOOD(line).tensors.n == 64);
    BAD(strcat(line, " -ot x"), "run: option '-ot': given more than 64 times");
}

static void test_ignored(void) {
    GOOD("-ngl 99 --no-warmup -ngl 1");
    CHECK(notes == 2);
    /* llama.cpp's -fa came to take an argument: without one, what follows is an option of its own.
     */
    settings s = GOOD("-ngl -n 5");
    CHECK(s.n_predict == 5);
    GOOD("-ngl");
}

static void test_errors(void) {
    BAD("!", "run: option '-m FILE' is required; see 'ttx run --help'");
    BAD("-m", "run: option '-m': expects an argument (FILE), got none");
    BAD("-ctk", "run: option '-ctk': expects an argument (f16|f32|q8_0), got none");
    BAD("-ctk f1", "run: option '-ctk': expects one of f16|f32|q8_0, got 'f1'");
    BAD("--flag=1", "run: option '--flag': takes no argument, got '1'");
    BAD("hello", "run: unexpected argument 'hello'; see 'ttx run --help'");
    BAD("-", "run: unexpected argument '-'; see 'ttx run --help'");
    BAD("-- -p", "run: unexpected argument '-p'; see 'ttx run --help'");
    BAD("--modle x", "run: unknown option '--modle'; did you mean '--model'?");
    BAD("-model x", "run: unknown option '-model'; did you mean '--model'?");
    BAD("--cache", "run: unknown option '--cache'; did you mean '--cache-type-k'?");
    BAD("-q", "run: unknown option '-q'; see 'ttx run --help'");
    BAD("--bananarama=4", "run: unknown option '--bananarama'; see 'ttx run --help'");
}

static void test_words(void) {
    static const struct {
        const ttx_opt *args;
        const char *words[4];
        int n;
        const char *expected; /* NULL: taken */
    } rows[] = {
        {&places, {"a", "--flag", "b"}, 3, NULL},
        {&places, {"--", "-x", "--flag"}, 3, NULL},
        {&places, {"--flag"}, 1, "run: expects DIR; see 'ttx run --help'"},
        {&place, {"a", "--flag"}, 2, NULL},
        {&place, {"--flag"}, 1, NULL},
        {&place, {"a", "b"}, 2, "run: unexpected argument 'b'; see 'ttx run --help'"},
    };
    static const ttx_opt flag[] = {{"--flag", OPT_FLAG, AT(flag)}, {.kind = OPT_END}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ttx_command c = {.name = "run", .options = flag, .args = rows[i].args};
        settings s = {0};
        ttx_err err = {0};
        char *argv[4];
        for (int k = 0; k < rows[i].n; k++) argv[k] = (char *)rows[i].words[k];
        int code = ttx_opt_parse(&c, rows[i].n, argv, &s, NULL, &err);
        if ((code != 0) != (rows[i].expected != NULL) ||
            (code && strcmp(err.msg, rows[i].expected) != 0))
            report(__LINE__, rows[i].words[0], err.msg);
        if (i < 2) CHECK(s.tensors.n == 2 && strcmp(s.tensors.v[1], i ? "--flag" : "b") == 0);
        if (i == 3) CHECK(strcmp(s.model, "a") == 0 && s.flag);
    }
}

static void test_numbers(void) {
    const char *whole = "run: option '-n': expects a whole number from -2 to 100000, got '%s'";
    const char *bads[] = {"1x",  "",  "-3", "100001", "1.0", "0x10", "99999999999999999999",
                          "nan", " 1"};
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        char *argv[] = {"-m", "x", "-n", (char *)bads[i]}, expected[128];
        snprintf(expected, sizeof expected, whole, bads[i]);
        settings s = {0};
        ttx_err err = {0};
        CHECK(ttx_opt_parse(&cmd, 4, argv, &s, NULL, &err) == TTX_E_USAGE);
        if (strcmp(err.msg, expected) != 0) report(__LINE__, err.msg, expected);
    }
    BAD("-s -1", "run: option '-s': expects a whole number, got '-1'");
    BAD("-s 4294967296", "run: option '-s': expects a whole number, got '4294967296'");
    BAD("--temp nan", "run: option '--temp': expects a number of at least 0, got 'nan'");
    BAD("--temp inf", "run: option '--temp': expects a number of at least 0, got 'inf'");
    BAD("--temp -0.1", "run: option '--temp': expects a number of at least 0, got '-0.1'");
    BAD("--temp 1e39", "run: option '--temp': expects a number of at least 0, got '1e39'");
    BAD("--top-p 1.5", "run: option '--top-p': expects a number from 0 to 1, got '1.5'");
    BAD("--free 1e999", "run: option '--free': expects a number, got '1e999'");
    BAD("--free 0x10", "run: option '--free': expects a number, got '0x10'");
    BAD("--free 1,5", "run: option '--free': expects a number, got '1,5'");
}

static void test_sizes(void) {
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"0", 0},
                 {"1048576", 1048576},
                 {"512M", 512ull << 20},
                 {"3G", 3ull << 30},
                 {"3g", 3ull << 30},
                 {"3GiB", 3ull << 30},
                 {"3GB", 3000000000},
                 {"1.5GiB", 3ull << 29},
                 {"0.5k", 512},
                 {"2T", 2ull << 40},
                 {"10B", 10},
                 {"0.3GB", 300000000},
                 {"1.00000000000000000000000001K", 1024},
                 {"18446744073709551615", UINT64_MAX}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint64_t bytes = 77;
        ttx_err err = {0};
        if (ttx_parse_size(sizes[i].text, &bytes, &err) || bytes != sizes[i].bytes)
            report(__LINE__, sizes[i].text, err.msg);
    }
    static const char *const bads[] = {"",    "G",   "-1",  "1.5", "1.G",  ".5G",  "3GX", "3 G",
                                       "3Gi", "3iB", "nan", "1e9", "0x10", "3GBB", "3P",  " 3"};
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        uint64_t bytes;
        ttx_err err = {0};
        if (ttx_parse_size(bads[i], &bytes, &err) != TTX_E_USAGE)
            report(__LINE__, bads[i], "not refused");
    }
    CHECK(GOOD("--ram 1G").ram == 1ull << 30);
    BAD("--ram x", "run: option '--ram': expects a size (512M, 3G, 3GB, 1.5GiB), got 'x'");
    BAD("--ram 18446744073709551616",
        "run: option '--ram': expects a size below 16 EiB, got '18446744073709551616'");
    BAD("--ram 99999999T", "run: option '--ram': expects a size below 16 EiB, got '99999999T'");
}

static void test_wants_help(void) {
    char *yes[] = {"-p", "x", "-h"}, *no[] = {"-p", "--help", "--", "-h"},
         *odd[] = {"--x", "--help"};
    CHECK(ttx_opt_wants_help(&cmd, 3, yes));
    CHECK(!ttx_opt_wants_help(&cmd, 4, no));
    CHECK(ttx_opt_wants_help(&cmd, 2, odd));
    CHECK(!ttx_opt_wants_help(&bare, 0, NULL));
}

static void test_documents(void) {
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) exit(1);
    ttx_opt_help(&cmd, out);
    ttx_opt_man(&cmd, "1.2.3", out);
    ttx_opt_help(&bare, out);
    ttx_opt_man(&bare, "1.2.3", out);
    fclose(out);
    static const char *const wanted[] = {
        "usage: ttx run -m FILE [options]\n\nGenerates text.\n\n.It",
        "It has a dotted line\n  and an indented one.\n\nModel",
        "\nModel:\n  -m, --model FILE         GGUF file (required)\n",
        "\nOthers:\n  --flag                   a flag\n",
        "  -n, --predict, --n-predict N\n                           tokens (default: until",
        "  --temp T                 temperature (default: 0.8)\n",
        "KV type (default: f16)\n",
        "budget (default: 512M)\n",
        "without effect:\n  -ngl, --n-gpu-layers, --no-warmup\n",
        "\nExamples:\n  # greet\n  ttx run -m a.gguf -p hi\n",
        ".TH ttx-run 1 \"\" \"ttx 1.2.3\"",
        ".BI \"\\-m, \\-\\-model \" \"FILE\"\nGGUF file\n(required)\n",
        "\n\\&.It has a dotted line\n.nf\n  and an indented one.\n.fi\n",
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!strstr(text, wanted[i])) report(__LINE__, "not in the documents", wanted[i]);
    free(text);
    ttx_err err = {0};
    const ttx_command *cmds[] = {NULL};
    CHECK(ttx_opt_completion(cmds, "tcsh", stdout, &err) == TTX_E_USAGE);
}

static int print_document(const char *what) {
    const ttx_command *cmds[] = {&cmd, &bare, NULL};
    ttx_err err = {0};
    if (strcmp(what, "man") == 0)
        ttx_opt_man(&cmd, "1.2.3", stdout);
    else if (strcmp(what, "help") == 0)
        ttx_opt_help(&cmd, stdout);
    else
        return ttx_opt_completion(cmds, what, stdout, &err);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1) return print_document(argv[1]);
    test_values();
    test_lists();
    test_ignored();
    test_errors();
    test_words();
    test_numbers();
    test_sizes();
    test_wants_help();
    test_documents();
    if (failures) fprintf(stderr, "%d failed\n", failures);
    return failures != 0;
}
