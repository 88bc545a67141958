/* bench_args.c -- lists of values, as llama-bench writes them. */
#include "bench_int.h"

#include <stdlib.h>
#include <string.h>

const char bench_kv_types[] = "f16|f32|q8_0";
const char bench_prefetches[] = TTX_PREFETCH_CHOICES;
const char bench_load_modes[] = TTX_LOAD_MODE_CHOICES;
const char bench_isas[] = "auto|scalar|avx2|avx512|vnni|amx";

static int add(bench_values *out, int64_t value, const char *option, ttx_err *err) {
    if (out->n == BENCH_MAX_VALUES)
        return ttx_fail(err, TTX_E_USAGE, "%s: expected at most %d values", option,
                        BENCH_MAX_VALUES);
    out->v[out->n++] = (int32_t)value;
    return TTX_OK;
}

/* A number of at most nine digits; -1 if there is none. */
static int64_t number(const char **p) {
    int64_t v = 0;
    int digits = 0;
    for (; **p >= '0' && **p <= '9' && digits < 10; (*p)++, digits++) v = 10 * v + (**p - '0');
    return digits > 0 && digits < 10 ? v : -1;
}

/* first[-last[+step|*step]] */
static int parse_range(bench_values *out, const char **p, int32_t min, const char *option,
                       const char *text, ttx_err *err) {
    int64_t first = number(p), last = first, step = 1;
    char op = '+';
    if (first >= 0 && **p == '-') {
        (*p)++;
        last = number(p);
        if (last >= 0 && (**p == '+' || **p == '*')) {
            op = *(*p)++;
            step = number(p);
        }
    }
    bool grows = op == '+' ? step > 0 : step > 1 && first > 0;
    if (first < min || last < first || (last > first && !grows) || (**p && **p != ','))
        return ttx_fail(err, TTX_E_USAGE,
                        "%s: expected numbers from %d and ranges such as 512,1024 or 1-8*2, found "
                        "'%s'",
                        option, min, text);
    int rc = TTX_OK;
    for (int64_t v = first; v <= last && !rc; v = op == '+' ? v + step : v * step)
        rc = add(out, v, option, err);
    return rc;
}

int bench_parse_ints(bench_values *out, const ttx_opt_list *given, const char *option, int32_t min,
                     int32_t def, ttx_err *err) {
    out->n = 0;
    if (!given->n) return add(out, def, option, err);
    for (int i = 0; i < given->n; i++)
        for (const char *p = given->v[i];; p++) {
            int rc = parse_range(out, &p, min, option, given->v[i], err);
            if (rc) return rc;
            if (!*p) break;
        }
    return TTX_OK;
}

int bench_parse_pairs(bench_values *out, const ttx_opt_list *given, const char *option,
                      ttx_err *err) {
    out->n = 0;
    for (int i = 0; i < given->n; i++) {
        const char *p = given->v[i];
        int64_t a = number(&p), b = -1;
        if (*p == ',') {
            p++;
            b = number(&p);
        }
        if (a < 1 || b < 1 || *p)
            return ttx_fail(err, TTX_E_USAGE, "%s: expected PROMPT,GEN such as 512,128, found '%s'",
                            option, given->v[i]);
        int rc = add(out, a, option, err);
        if (!rc) rc = add(out, b, option, err);
        if (rc) return rc;
    }
    return TTX_OK;
}

int bench_parse_names(bench_values *out, const ttx_opt_list *given, const char *option,
                      const char *choices, ttx_err *err) {
    out->n = 0;
    if (!given->n) return add(out, 0, option, err);
    for (int i = 0; i < given->n; i++)
        for (const char *p = given->v[i];; p++) {
            size_t n = strcspn(p, ",");
            int32_t choice = ttx_opt_choice(choices, p, n);
            if (choice < 0)
                return ttx_fail(err, TTX_E_USAGE, "%s: expected a list out of %s, found '%s'",
                                option, choices, given->v[i]);
            int rc = add(out, choice, option, err);
            if (rc) return rc;
            p += n;
            if (!*p) break;
        }
    return TTX_OK;
}

const char *bench_choice(const char *choices, int32_t i, char buf[16]) {
    while (i-- > 0) choices += strcspn(choices, "|") + 1;
    snprintf(buf, 16, "%.*s", (int)strcspn(choices, "|"), choices);
    return buf;
}
