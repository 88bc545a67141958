/* split_test.c -- how text is cut into words, and what the cutting knows of Unicode. */
#include "check_harness.h"
#include "tok_int.h"
#include "unicode.h"

#include <stdlib.h>
#include <time.h>

static int failures;

/* The words of a text with '|' between them. */
static const char *words_of(const char *pre, const char *text) {
    static char out[512];
    static uint32_t cp[256], off[256], ends[256], scratch[256];
    static uint8_t cls[256];
    tok_chars c = {.cp = cp, .off = off, .cls = cls};
    const uint32_t *words;
    const tok_split *split = tok_find_split(pre, strlen(pre));
    if (!split) return "no such split";
    tok_decode_chars(&c, text, strlen(text));
    size_t n = tok_split_words(split, &c, ends, scratch, &words), begin = 0, len = 0;
    out[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        size_t end = off[words[i]];
        len += (size_t)snprintf(out + len, sizeof out - len, "%s%.*s", i ? "|" : "",
                                (int)(end - begin), text + begin);
        begin = end;
    }
    CHECK_INT(begin, strlen(text));
    return out;
}

#define SPLIT(pre, text, expected) CHECK_STR(words_of(pre, text), expected)

static void test_gpt2(void) {
    SPLIT("gpt-2", "", "");
    SPLIT("gpt-2", "Hello world's 123 we'LL!", "Hello| world|'s| 123| we|'|LL|!");
    SPLIT("gpt-2", "a  b\n\n c", "a| | b|\n\n| c");
    SPLIT("gpt-2", "a   ", "a|   ");
    SPLIT("gpt-2", " ", " ");
    SPLIT("gpt-2", "caf\u00e9\u0301 \u4e16\u754c\u3000x",
          "caf\u00e9|\u0301| \u4e16\u754c|\u3000|x");
    SPLIT("gpt-2", "'", "'");
    SPLIT("gpt-2", "'rest", "'re|st");
    SPLIT("smollm", " 12a", " |1|2|a");
    SPLIT("default", "a+b ~1234 5", "a|+|b| |~|123|4| |5");
    SPLIT("falcon", "x`12345", "x|`|123|45");
}

static void test_llama3(void) {
    SPLIT("llama-bpe", "I'LL 12345 .foo(bar)\r\n\r\n  x",
          "I|'LL| |123|45| .|foo|(bar|)\r\n\r\n| | x");
    SPLIT("llama-bpe", "a\n  \n b", "a|\n  \n| b");
    SPLIT("llama-bpe", "\tx\u00a0y \n", "\tx|\u00a0y| \n");
    SPLIT("llama-bpe", "'\u017f", "'\u017f"); /* the long s is no s */
    SPLIT("llama-bpe", "a  ", "a|  ");
    SPLIT("qwen2", "123", "1|2|3");
    SPLIT("llama-v3", "1234", "123|4");
}

static void test_gpt4o(void) {
    SPLIT("gpt-4o", "HelloWORLDfoo Bar's", "Hello|WORLDfoo| Bar's");
    SPLIT("gpt-4o", "ABC'LL/\n/x", "ABC'LL|/\n/|x");
    SPLIT("gpt-4o", "\u00e9AB", "\u00e9|AB");
    SPLIT("gpt-4o", "\u00c9AB\u00e9A", "\u00c9AB\u00e9|A");
    SPLIT("gpt-4o", "e\u0301a", "e|\u0301a");
    SPLIT("tekken", "AB's12", "AB|'s|1|2");
}

static void test_deepseek(void) {
    SPLIT("deepseek-llm", "Hi there!\n\n\u4f60\u597d 12a ",
          "Hi| there|!|\n|\n|\u4f60\u597d| |12|a| ");
    SPLIT("deepseek-llm", "a   b  ", "a|  | b|  ");
    SPLIT("deepseek-llm", "\u3000\u3002", "\u3000|\u3002"); /* by the rule for scripts */
    SPLIT("deepseek-llm", "\U0001F600\uFF5F",
          "\U0001F600\uFF5F"); /* past the last range of all sets */
    SPLIT("deepseek-coder", "x = foo_1;\n", "x| =| foo|_|1|;|\n");
    SPLIT("deepseek-v3", "1234\u4e16\u3042!abc ~x\n", "123|4|\u4e16\u3042|!abc| ~|x|\n");
    SPLIT("deepseek-v3", "e\u0301 \u0301\001\002a", "e\u0301| \u0301|\001|\002a");
}

static void test_names(void) {
    CHECK(tok_find_split("llama3", 6) == tok_find_split("lfm2", 4));
    CHECK(!tok_find_split("llama", 5) && !tok_find_split("", 0) && !tok_find_split("gpt", 3));
    CHECK(!tok_find_split("llama3 llama-v3", 15));
}

/* ---- time ---- */

/* Long runs of anything are split in linear time: milliseconds, where looking ahead over the run
 * from each character would take half a minute. Time of this CPU, since machines are busy. */
static void test_linear(void) {
    enum { N = 1 << 18 };
    static const char *const splits[] = {"default",      "llama-bpe",      "qwen2",      "gpt-2",
                                         "smollm",       "gpt-4o",         "tekken",     "falcon",
                                         "deepseek-llm", "deepseek-coder", "deepseek-v3"};
    static const char *const runs[] = {"a",  "A", "1",      " ",      "\n",     "\n ",  "a1",
                                       "'s", "!", "\u4e16", "\u3000", "\u0301", "\x01", "aA"};
    char *text = malloc(N + 4);
    uint32_t *numbers = calloc(N + 4, 4 * sizeof *numbers); /* cp, off, ends, scratch */
    uint8_t *cls = malloc(N + 4);
    if (!text || !numbers || !cls) abort();
    tok_chars c = {.cp = numbers, .off = numbers + N + 4, .cls = cls};
    for (size_t r = 0; r < sizeof runs / sizeof *runs; r++) {
        size_t len = strlen(runs[r]), n = 0;
        for (; n + len < N; n += len) memcpy(text + n, runs[r], len);
        text[n++] = 'x'; /* the run ends before the text does */
        tok_decode_chars(&c, text, n);
        for (size_t i = 0; i < sizeof splits / sizeof *splits; i++) {
            const uint32_t *words;
            clock_t start = clock();
            const tok_split *split = tok_find_split(splits[i], strlen(splits[i]));
            size_t n_words =
                tok_split_words(split, &c, numbers + 2 * (N + 4), numbers + 3 * (N + 4), &words);
            double s = (double)(clock() - start) / CLOCKS_PER_SEC;
            CHECK_INT(words[n_words - 1], c.n);
            if (s < 2) continue;
            failures++;
            printf("%s: '%s' times %zu: %.1f s\n", splits[i], runs[r], n / len, s);
        }
    }
    free(cls);
    free(numbers);
    free(text);
}

/* ---- Unicode ---- */

static void test_classes(void) {
    static const struct {
        uint32_t cp;
        unsigned cls;
    } known[] = {
        {'a', UC_LETTER},     {'Z', UC_LETTER},     {'0', UC_NUMBER},    {'_', UC_PUNCT},
        {'~', UC_SYMBOL},     {'$', UC_SYMBOL},     {0, UC_OTHER},       {0x1F, UC_OTHER},
        {'\v', UC_SPACE},     {0x85, UC_SPACE},     {0xA0, UC_SPACE},    {0x180E, UC_OTHER},
        {0x200B, UC_OTHER},   {0x3000, UC_SPACE},   {0x300, UC_MARK},    {0x4E2D, UC_LETTER},
        {0x2160, UC_NUMBER},  {0x1F600, UC_SYMBOL}, {0xD800, UC_OTHER},  {0xE000, UC_OTHER},
        {0x2EBF0, UC_LETTER}, {0x10FFFF, UC_OTHER}, {0x110000, UC_OTHER}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ttx_unicode_class(known[i].cp) != known[i].cls) {
            failures++;
            printf("U+%04X: expected class %u, found %u\n", known[i].cp, known[i].cls,
                   ttx_unicode_class(known[i].cp));
        }
}

/* Every code point there and back; every start of it is partial, and no end of it is. */
static void test_utf8(void) {
    for (uint32_t cp = 0; cp <= 0x10FFFF; cp++) {
        char s[4];
        uint32_t back;
        size_t n = ttx_utf8_encode(cp, s);
        const uint8_t *b = (const uint8_t *)s;
        bool ok = ttx_utf8_decode(b, n, &back) == n && back == cp && ttx_utf8_partial(b, n) == 0;
        for (size_t i = 1; i < n && ok; i++)
            ok = ttx_utf8_decode(b, i, &back) == 1 && back == UC_REPLACEMENT &&
                 ttx_utf8_partial(b, i) == i;
        if (ok) continue;
        failures++;
        printf("U+%04X does not survive\n", cp);
        break;
    }
    static const char *const bad[] = {"\x80",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x9F\xBF",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xFF",
                                      "\xC3\x28"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint32_t cp;
        CHECK_INT(ttx_utf8_decode((const uint8_t *)bad[i], strlen(bad[i]), &cp), 1);
        CHECK_INT(cp, UC_REPLACEMENT);
    }
}

static void test_byte_spelling(void) {
    for (int b = 0; b < 256; b++) CHECK_INT(tok_cp_to_byte(tok_byte_to_cp((uint8_t)b)), b);
    CHECK_INT(tok_byte_to_cp(' '), 0x120);
    CHECK_INT(tok_byte_to_cp('\n'), 0x10A);
    CHECK_INT(tok_byte_to_cp(0xAD), 0x143);
    CHECK_INT(tok_cp_to_byte(0x144), -1);
    CHECK_INT(tok_cp_to_byte(0xAD), -1);
    CHECK_INT(tok_cp_to_byte(0x4E00), -1);
}

int main(void) {
    test_gpt2();
    test_llama3();
    test_gpt4o();
    test_deepseek();
    test_names();
    test_linear();
    test_classes();
    test_utf8();
    test_byte_spelling();
    printf("%s\n", failures ? "FAILED" : "passed");
    return failures != 0;
}
