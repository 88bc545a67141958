/* opt.c -- parses command lines by option tables, and prints their help.
 *
 * Numbers are read strictly: the whole argument must be a number, finite and within the row's
 * range. Man pages and completion scripts are in opt_docs.c.
 */
#include "opt_int.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of the longest table that the parser takes. */
#define OPT_MAX_ROWS 256

static const ttx_opt no_options[] = {{.kind = OPT_END}};

static const ttx_opt *options_of(const ttx_command *cmd) {
    return cmd->options ? cmd->options : no_options;
}

/* --- the table ------------------------------------------------------------------------------- */

bool opt_next_word(const char **at, const char *seps, opt_word *word) {
    if (!*at) return false;
    *at += strspn(*at, seps);
    word->s = *at;
    word->n = (int)strcspn(*at, seps);
    *at += word->n;
    return word->n > 0;
}

bool opt_is_ignored(const ttx_opt *o) {
    return o->kind == OPT_IGNORED || o->kind == OPT_IGNORED1;
}

bool opt_takes_arg(const ttx_opt *o) {
    return o->kind != OPT_FLAG && o->kind != OPT_UNFLAG && o->kind != OPT_IGNORED;
}

const char *opt_arg_text(const ttx_opt *o) {
    if (!opt_takes_arg(o)) return "";
    if (o->kind == OPT_ENUM && o->choices) return o->choices;
    return o->arg ? o->arg : "N";
}

void *opt_default_settings(const ttx_command *cmd) {
    void *settings = calloc(1, cmd->settings_size ? cmd->settings_size : 1);
    if (settings && cmd->defaults) cmd->defaults(settings);
    return settings;
}

static opt_word choice_at(const char *choices, int32_t index) {
    opt_word w = {"", 0};
    for (int32_t i = 0; i <= index; i++)
        if (!opt_next_word(&choices, OPT_CHOICE_SEPS, &w)) return (opt_word){"", 0};
    return w;
}

static void size_text(uint64_t bytes, char *buf, size_t size) {
    static const char *const units[] = {"", "K", "M", "G", "T"};
    int u = 0;
    while (u < 4 && bytes && bytes % 1024 == 0) {
        bytes /= 1024;
        u++;
    }
    snprintf(buf, size, "%llu%s", (unsigned long long)bytes, units[u]);
}

void opt_default_text(const ttx_opt *o, const void *settings, char *buf, size_t size) {
    buf[0] = 0;
    if (o->shown_default) {
        snprintf(buf, size, "%s", o->shown_default);
        return;
    }
    if (!settings || o->required) return;
    const void *field = (const char *)settings + o->offset;
    switch (o->kind) {
    case OPT_INT: snprintf(buf, size, "%d", *(const int32_t *)field); break;
    case OPT_U32: snprintf(buf, size, "%u", *(const uint32_t *)field); break;
    case OPT_FLOAT: snprintf(buf, size, "%g", (double)*(const float *)field); break;
    case OPT_STR: {
        const char *s = *(const char *const *)field;
        if (s) snprintf(buf, size, "%s", s);
        break;
    }
    case OPT_SIZE:
        if (*(const uint64_t *)field) size_text(*(const uint64_t *)field, buf, size);
        break;
    case OPT_ENUM: {
        opt_word w = choice_at(o->choices, *(const int32_t *)field);
        snprintf(buf, size, "%.*s", w.n, w.s);
        break;
    }
    default: break;
    }
}

/* llama.cpp takes "--ctx_size" for "--ctx-size"; so do we. */
static bool same_name(opt_word name, opt_word given) {
    if (name.n != given.n) return false;
    bool is_long = given.n > 2 && given.s[1] == '-';
    for (int i = 0; i < name.n; i++) {
        char c = is_long && given.s[i] == '_' ? '-' : given.s[i];
        if (name.s[i] != c) return false;
    }
    return true;
}

static const ttx_opt *find_option(const ttx_command *cmd, opt_word given) {
    for (const ttx_opt *o = options_of(cmd); o->kind != OPT_END; o++) {
        const char *at = o->names;
        for (opt_word w; opt_next_word(&at, OPT_NAME_SEPS, &w);)
            if (same_name(w, given)) return o;
    }
    return NULL;
}

/* The name part of an argument: only long options are written "--name=value". */
static opt_word name_part(const char *arg) {
    bool is_long = arg[0] == '-' && arg[1] == '-';
    return (opt_word){arg, is_long ? (int)strcspn(arg, "=") : (int)strlen(arg)};
}

/* --- suggestions ----------------------------------------------------------------------------- */

enum { SUGGEST_MAX = 40 }; /* longer names are not compared */

static int min3(int a, int b, int c) {
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Levenshtein distance. A beginning of the name counts as near: "--ctx" for "--ctx-size". */
static int distance(opt_word name, opt_word given) {
    if (name.n > SUGGEST_MAX || given.n > SUGGEST_MAX) return SUGGEST_MAX;
    if (given.n > 3 && given.n < name.n && memcmp(name.s, given.s, (size_t)given.n) == 0) return 1;
    int row[SUGGEST_MAX + 1];
    for (int j = 0; j <= given.n; j++) row[j] = j;
    for (int i = 1; i <= name.n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= given.n; j++) {
            int differs = name.s[i - 1] != given.s[j - 1];
            int d = min3(row[j] + 1, row[j - 1] + 1, diagonal + differs);
            diagonal = row[j];
            row[j] = d;
        }
    }
    return row[given.n];
}

static int fail_unknown(const ttx_command *cmd, opt_word given, ttx_err *err) {
    int body = given.n - 1 - (given.n > 1 && given.s[1] == '-');
    int limit = body / 2 < 3 ? body / 2 : 3;
    int best = limit + 1;
    opt_word nearest = {0};
    for (const ttx_opt *o = options_of(cmd); o->kind != OPT_END; o++) {
        const char *at = o->names;
        for (opt_word w; opt_next_word(&at, OPT_NAME_SEPS, &w);) {
            int d = distance(w, given);
            if (d < best) {
                best = d;
                nearest = w;
            }
        }
    }
    if (nearest.n)
        return ttx_fail(err, TTX_E_USAGE, "%s: unknown option '%.*s'; did you mean '%.*s'?",
                        cmd->name, given.n, given.s, nearest.n, nearest.s);
    return ttx_fail(err, TTX_E_USAGE, "%s: unknown option '%.*s'; see 'ttx %s --help'", cmd->name,
                    given.n, given.s, cmd->name);
}

/* --- values ---------------------------------------------------------------------------------- */

int ttx_parse_size(const char *text, uint64_t *bytes, ttx_err *err) {
    uint64_t whole = 0, frac = 0, scale = 1;
    const char *p = text;
    bool overflow = false, digits = false;
    for (; isdigit((unsigned char)*p); p++, digits = true)
        overflow |= __builtin_mul_overflow(whole, 10, &whole) ||
                    __builtin_add_overflow(whole, (uint64_t)(*p - '0'), &whole);
    if (digits && *p == '.') {
        const char *first = ++p;
        for (; isdigit((unsigned char)*p); p++) {
            if (scale > UINT64_MAX / 100) continue; /* far below one byte */
            scale *= 10;
            frac = frac * 10 + (uint64_t)(*p - '0');
        }
        digits = p > first;
    }
    static const char units[] = "kmgt";
    const char *unit = *p ? strchr(units, tolower((unsigned char)*p)) : NULL;
    int power = unit ? (int)(unit - units) + 1 : 0;
    p += power > 0;
    /* "3GB" is decimal, "3G" and "3GiB" are binary. */
    uint64_t base = power && tolower((unsigned char)*p) == 'b' ? 1000 : 1024;
    p += power && tolower((unsigned char)p[0]) == 'i' && tolower((unsigned char)p[1]) == 'b';
    p += tolower((unsigned char)*p) == 'b';
    if (!digits || *p || (scale > 1 && !power))
        return ttx_fail(err, TTX_E_USAGE, "expects a size (512M, 3G, 3GB, 1.5GiB), got '%s'", text);
    uint64_t mult = 1;
    for (int i = 0; i < power; i++) mult *= base;
    uint64_t part = (uint64_t)((__uint128_t)frac * mult / scale);
    overflow |=
        __builtin_mul_overflow(whole, mult, &whole) || __builtin_add_overflow(whole, part, &whole);
    if (overflow) return ttx_fail(err, TTX_E_USAGE, "expects a size below 16 EiB, got '%s'", text);
    *bytes = whole;
    return TTX_OK;
}

static bool has_range(const ttx_opt *o) {
    return o->min != 0 || o->max != 0;
}

/* "a whole number from 0 to 4", "a number of at least 0". */
static int fail_number(const ttx_opt *o, const char *what, const char *text, ttx_err *err) {
    char range[80] = "";
    if (has_range(o)) {
        if (isinf(o->max))
            snprintf(range, sizeof range, " of at least %.10g", o->min);
        else if (isinf(o->min))
            snprintf(range, sizeof range, " of at most %.10g", o->max);
        else
            snprintf(range, sizeof range, " from %.10g to %.10g", o->min, o->max);
    }
    return ttx_fail(err, TTX_E_USAGE, "expects %s%s, got '%s'", what, range, text);
}

static int parse_whole(const ttx_opt *o, const char *text, int64_t lo, int64_t hi, int64_t *out,
                       ttx_err *err) {
    char *end;
    long long v = strtoll(text, &end, 10); /* saturates, far outside of lo..hi */
    bool number = end != text && !*end && !isspace((unsigned char)text[0]);
    bool ranged = !has_range(o) || ((double)v >= o->min && (double)v <= o->max);
    if (!number || v < lo || v > hi || !ranged) return fail_number(o, "a whole number", text, err);
    *out = v;
    return TTX_OK;
}

static int parse_float(const ttx_opt *o, const char *text, float *out, ttx_err *err) {
    char *end;
    double v = strtod(text, &end);
    /* No "inf", "nan" or hexadecimal: letters other than the exponent's are junk. */
    bool number = end != text && !*end && strspn(text, "0123456789+-.eE") == strlen(text);
    bool ranged = !has_range(o) || (v >= o->min && v <= o->max);
    if (!number || !(fabs(v) <= FLT_MAX) || !ranged) return fail_number(o, "a number", text, err);
    *out = (float)v;
    return TTX_OK;
}

int32_t ttx_opt_choice(const char *choices, const char *text, size_t n) {
    opt_word w;
    for (int32_t i = 0; opt_next_word(&choices, OPT_CHOICE_SEPS, &w); i++)
        if ((size_t)w.n == n && memcmp(w.s, text, n) == 0) return i;
    return -1;
}

static int parse_choice(const ttx_opt *o, const char *text, int32_t *out, ttx_err *err) {
    int32_t choice = ttx_opt_choice(o->choices, text, strlen(text));
    if (choice < 0)
        return ttx_fail(err, TTX_E_USAGE, "expects one of %s, got '%s'", o->choices, text);
    *out = choice;
    return TTX_OK;
}

static int parse_list(ttx_opt_list *list, const char *text, ttx_err *err) {
    const int room = (int)(sizeof list->v / sizeof list->v[0]);
    if (list->n >= room) return ttx_fail(err, TTX_E_USAGE, "given more than %d times", room);
    list->v[list->n++] = text;
    return TTX_OK;
}

/* Stores one option. `text` is empty for a kind without argument. */
static int store(const ttx_opt *o, const char *text, void *settings, ttx_err *err) {
    void *field = (char *)settings + o->offset;
    int64_t whole = 0;
    int code = TTX_OK;
    switch (o->kind) {
    case OPT_FLAG: *(bool *)field = true; break;
    case OPT_UNFLAG: *(bool *)field = false; break;
    case OPT_INT:
        code = parse_whole(o, text, INT32_MIN, INT32_MAX, &whole, err);
        if (!code) *(int32_t *)field = (int32_t)whole;
        break;
    case OPT_U32:
        code = parse_whole(o, text, o->min < 0 ? -1 : 0, UINT32_MAX, &whole, err);
        if (!code) *(uint32_t *)field = (uint32_t)whole;
        break;
    case OPT_FLOAT: code = parse_float(o, text, field, err); break;
    case OPT_STR: *(const char **)field = text; break;
    case OPT_SIZE: {
        uint64_t bytes = 0;
        code = ttx_parse_size(text, &bytes, err);
        if (!code && has_range(o) && ((double)bytes < o->min || (double)bytes > o->max))
            code = fail_number(o, "a size in bytes", text, err);
        if (!code) *(uint64_t *)field = bytes;
        break;
    }
    case OPT_ENUM: code = parse_choice(o, text, field, err); break;
    case OPT_LIST: code = parse_list(field, text, err); break;
    case OPT_IGNORED:
    case OPT_IGNORED1:
    case OPT_END: break;
    }
    return code;
}

/* --- the command line ------------------------------------------------------------------------ */

static bool is_option(const ttx_command *cmd, const char *arg) {
    return find_option(cmd, name_part(arg)) != NULL;
}

/* Finds the argument of option `o`, whose name is `name`, at argv[*i], and moves *i onto it. */
static int take_arg(const ttx_command *cmd, const ttx_opt *o, opt_word name, int argc, char **argv,
                    int *i, const char **text, ttx_err *err) {
    const char *arg = argv[*i];
    bool attached = arg[name.n] == '=';
    *text = attached ? arg + name.n + 1 : "";
    if (!opt_takes_arg(o)) {
        if (!attached) return TTX_OK;
        return ttx_fail(err, TTX_E_USAGE, "%s: option '%.*s': takes no argument, got '%s'",
                        cmd->name, name.n, name.s, *text);
    }
    if (attached) return TTX_OK;
    if (o->kind == OPT_IGNORED1 && (*i + 1 >= argc || is_option(cmd, argv[*i + 1]))) return TTX_OK;
    if (*i + 1 >= argc)
        return ttx_fail(err, TTX_E_USAGE, "%s: option '%.*s': expects an argument (%s), got none",
                        cmd->name, name.n, name.s, opt_arg_text(o));
    *text = argv[++*i];
    return TTX_OK;
}

static int check_required(const ttx_command *cmd, const bool *given, ttx_err *err) {
    const ttx_opt *options = options_of(cmd);
    for (int k = 0; options[k].kind != OPT_END; k++) {
        if (!options[k].required || given[k]) continue;
        const char *at = options[k].names;
        opt_word w = {"", 0};
        opt_next_word(&at, OPT_NAME_SEPS, &w);
        return ttx_fail(err, TTX_E_USAGE, "%s: option '%.*s %s' is required; see 'ttx %s --help'",
                        cmd->name, w.n, w.s, opt_arg_text(&options[k]), cmd->name);
    }
    return TTX_OK;
}

/* A word that is no option, after n others. */
static int take_word(const ttx_command *cmd, const char *word, int n, void *settings,
                     ttx_err *err) {
    if (!cmd->args || (cmd->args->kind == OPT_STR && n))
        return ttx_fail(err, TTX_E_USAGE, "%s: unexpected argument '%s'; see 'ttx %s --help'",
                        cmd->name, word, cmd->name);
    ttx_err why = {0};
    int code = store(cmd->args, word, settings, &why);
    if (!code) return TTX_OK;
    return ttx_fail(err, (ttx_code)code, "%s: %s: %s", cmd->name, cmd->args->names, why.msg);
}

static void note_ignored(const ttx_opt *o, opt_word name, bool *given,
                         void (*note)(const char *line)) {
    if (!note || !opt_is_ignored(o) || *given) return;
    char line[128];
    snprintf(line, sizeof line, "option '%.*s' has no effect here", name.n, name.s);
    note(line);
}

int ttx_opt_parse(const ttx_command *cmd, int argc, char **argv, void *settings,
                  void (*note)(const char *line), ttx_err *err) {
    bool given[OPT_MAX_ROWS] = {false};
    const ttx_opt *options = options_of(cmd);
    int words = 0;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        bool ends = strcmp(arg, "--") == 0;
        if (ends && i + 1 == argc) break;
        if (ends || arg[0] != '-' || !arg[1]) {
            int code = TTX_OK;
            if (ends) i++;
            do {
                code = take_word(cmd, argv[i], words++, settings, err);
                if (code) return code;
            } while (ends && ++i < argc);
            continue;
        }
        opt_word name = name_part(arg);
        const ttx_opt *o = find_option(cmd, name);
        if (!o) return fail_unknown(cmd, name, err);
        ptrdiff_t row = o - options;
        if (row >= OPT_MAX_ROWS)
            return ttx_fail(err, TTX_E_RUNTIME, "%s: more than %d options", cmd->name,
                            OPT_MAX_ROWS);
        const char *text;
        int code = take_arg(cmd, o, name, argc, argv, &i, &text, err);
        if (code) return code;
        note_ignored(o, name, &given[row], note);
        given[row] = true;
        ttx_err why = {0};
        code = store(o, text, settings, &why);
        if (code)
            return ttx_fail(err, (ttx_code)code, "%s: option '%.*s': %s", cmd->name, name.n, name.s,
                            why.msg);
    }
    if (cmd->args && cmd->args->required && !words)
        return ttx_fail(err, TTX_E_USAGE, "%s: expects %s; see 'ttx %s --help'", cmd->name,
                        cmd->args->names, cmd->name);
    return check_required(cmd, given, err);
}

bool ttx_opt_wants_help(const ttx_command *cmd, int argc, char **argv) {
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        opt_word name = name_part(argv[i]);
        const ttx_opt *o = find_option(cmd, name);
        if (o)
            i += opt_takes_arg(o) && argv[i][name.n] != '=';
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    }
    return false;
}

/* --- help ------------------------------------------------------------------------------------ */

enum { HELP_WIDTH = 80, HELP_COLUMN = 27 };

/* Length of the paragraph that `text` starts with: up to an empty line or an indented one. A line
 * that begins with a space is laid out by its author, and a paragraph of its own. */
static int paragraph(const char *text) {
    const char *p = text;
    for (; *p; p++)
        if (*p == '\n' && (p == text || *text == ' ' || !p[1] || p[1] == '\n' || p[1] == ' '))
            break;
    return (int)(p - text);
}

/* Fills the lines of one paragraph of n bytes; `col` columns of the first are taken already, the
 * others start at `indent`. */
static void print_paragraph(const char *text, int n, int col, int indent, FILE *out) {
    if (n && *text == ' ') {
        fprintf(out, "%.*s", n, text);
        return;
    }
    const char *end = text + n;
    for (const char *p = text; p < end; p += strspn(p, " \n")) {
        int word = (int)strcspn(p, " \n");
        if (p > text && col + 1 + word > HELP_WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            col = indent;
        } else if (p > text) {
            fputc(' ', out);
            col++;
        }
        fprintf(out, "%.*s", word, p);
        col += word;
        p += word;
    }
}

/* Prints text whose first line starts at column `col` and the others at `indent`. */
static void print_filled(const char *text, int col, int indent, FILE *out) {
    for (;;) {
        int n = paragraph(text);
        print_paragraph(text, n, col, indent, out);
        fputc('\n', out);
        text += n + (text[n] == '\n');
        if (!*text) break;
        fprintf(out, "%*s", *text == '\n' ? 0 : indent, "");
        col = indent;
    }
}

static void print_option(const ttx_opt *o, const void *settings, FILE *out) {
    int col = fprintf(out, "  %s%s%s", o->names, opt_takes_arg(o) ? " " : "", opt_arg_text(o));
    if (col + 2 > HELP_COLUMN) {
        fputc('\n', out);
        col = 0;
    }
    fprintf(out, "%*s", HELP_COLUMN - col, "");
    char value[128], text[1024];
    opt_default_text(o, settings, value, sizeof value);
    const char *help = o->help ? o->help : "";
    if (o->required)
        snprintf(text, sizeof text, "%s (required)", help);
    else if (value[0])
        snprintf(text, sizeof text, "%s (default: %s)", help, value);
    else
        snprintf(text, sizeof text, "%s", help);
    print_filled(text, HELP_COLUMN, HELP_COLUMN, out);
}

/* One line for all options that have no effect. */
static void print_ignored(const ttx_command *cmd, FILE *out) {
    char text[1024];
    size_t n = 0;
    for (const ttx_opt *o = options_of(cmd); o->kind != OPT_END; o++) {
        if (!opt_is_ignored(o)) continue;
        int k = snprintf(text + n, sizeof text - n, "%s%s", n ? ", " : "", o->names);
        if (k < 0 || (size_t)k >= sizeof text - n) break;
        n += (size_t)k;
    }
    if (!n) return;
    fprintf(out, "\nAccepted from llama.cpp's command lines, without effect:\n  ");
    print_filled(text, 2, 2, out);
}

void ttx_opt_help(const ttx_command *cmd, FILE *out) {
    fprintf(out, "%s - %s\n\nusage: %s\n", cmd->name, cmd->summary, cmd->usage);
    if (cmd->about) {
        fputc('\n', out);
        print_filled(cmd->about, 0, 0, out);
    }
    void *settings = opt_default_settings(cmd);
    const char *group = NULL;
    if (cmd->args) fputs("\nArguments:\n", out);
    if (cmd->args) print_option(cmd->args, settings, out);
    for (const ttx_opt *o = options_of(cmd); o->kind != OPT_END; o++) {
        if (opt_is_ignored(o)) continue;
        if (!group || (o->group && strcmp(o->group, group) != 0)) {
            group = o->group ? o->group : "Options";
            fprintf(out, "\n%s:\n", group);
        }
        print_option(o, settings, out);
    }
    free(settings);
    print_ignored(cmd, out);
    if (cmd->examples) {
        size_t n = strlen(cmd->examples);
        fprintf(out, "\nExamples:\n%s%s", cmd->examples,
                n && cmd->examples[n - 1] == '\n' ? "" : "\n");
    }
}
