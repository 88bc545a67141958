/* tok_split.c -- how BPE vocabularies split text into words before merging.
 *
 * Each vocabulary was trained with a list of regular expressions; `tokenizer.ggml.pre` names it.
 * Here each expression is a function that matches at one position; the expression stands above it.
 * What they mean is what llama.cpp makes of them, to the letter of its ids, which departs from the
 * published expressions in places (each marked "llama.cpp:" below).
 *
 * Not here: splits of vocabularies that no architecture of ttx uses.
 */
#include "tok_int.h"
#include "unicode.h"

#include <string.h>

void tok_decode_chars(tok_chars *c, const char *text, size_t n) {
    c->n = 0;
    for (size_t off = 0; off < n; c->n++) {
        c->off[c->n] = (uint32_t)off;
        off += ttx_utf8_decode((const uint8_t *)text + off, n - off, &c->cp[c->n]);
        c->cls[c->n] = (uint8_t)ttx_unicode_class(c->cp[c->n]);
    }
    c->off[c->n] = (uint32_t)n;
}

/* ---- what the expressions are made of ---- */

static size_t run_of(const tok_chars *c, size_t p, size_t end, unsigned cls) {
    while (p < end && c->cls[p] == cls) p++;
    return p;
}

static size_t at_most(size_t p, size_t end, size_t n) {
    return end - p > n ? p + n : end;
}

static bool is_newline(uint32_t cp) {
    return cp == '\r' || cp == '\n';
}

static size_t newlines(const tok_chars *c, size_t p, size_t end) {
    while (p < end && is_newline(c->cp[p])) p++;
    return p;
}

static uint32_t ascii_lower(uint32_t cp) {
    return cp - 'A' < 26 ? cp | 0x20 : cp;
}

/* 's|'t|'re|'ve|'m|'ll|'d, in any case if `fold`: where it ends, or p. */
static size_t contraction(const tok_chars *c, size_t p, size_t end, bool fold) {
    if (end - p < 2 || c->cp[p] != '\'') return p;
    uint32_t a = fold ? ascii_lower(c->cp[p + 1]) : c->cp[p + 1];
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return p + 2;
    if (end - p < 3) return p;
    uint32_t b = fold ? ascii_lower(c->cp[p + 2]) : c->cp[p + 2];
    bool two = (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l');
    return two ? p + 3 : p;
}

/* [^\s\p{L}\p{N}] */
static bool is_sign(const tok_chars *c, size_t p) {
    return c->cls[p] != UC_SPACE && c->cls[p] != UC_LETTER && c->cls[p] != UC_NUMBER;
}

/*  ?[^\s\p{L}\p{N}]+: where it ends, or p. */
static size_t signs(const tok_chars *c, size_t p, size_t end) {
    size_t i = p + (c->cp[p] == ' ');
    if (i >= end || !is_sign(c, i)) return p;
    while (i < end && is_sign(c, i)) i++;
    return i;
}

/* \s+(?!\S)|\s+: all the white space but its last character, unless the text ends there. */
static size_t spaces(const tok_chars *c, size_t p, size_t end) {
    size_t i = run_of(c, p, end, UC_SPACE);
    return i < end && i - p > 1 ? i - 1 : i;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t newlines_or_spaces(const tok_chars *c, size_t p, size_t end) {
    size_t last = p;
    for (size_t i = p; i < end && c->cls[i] == UC_SPACE; i++)
        if (is_newline(c->cp[i])) last = i + 1;
    return last > p ? last : spaces(c, p, end);
}

/* ---- GPT-2 ---- */

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t rule_gpt2(const tok_chars *c, size_t p, size_t end) {
    size_t i = contraction(c, p, end, false);
    if (i > p) return i;
    i = p + (c->cp[p] == ' ');
    if (i < end && c->cls[i] == UC_LETTER) return run_of(c, i, end, UC_LETTER);
    if (i < end && c->cls[i] == UC_NUMBER) return run_of(c, i, end, UC_NUMBER);
    i = signs(c, p, end);
    return i > p ? i : spaces(c, p, end);
}

static size_t rule_digit(const tok_chars *c, size_t p, size_t end) { /* \p{N} */
    (void)end;
    return p + (c->cls[p] == UC_NUMBER);
}

static size_t rule_digits3(const tok_chars *c, size_t p, size_t end) { /* \p{N}{1,3} */
    return run_of(c, p, at_most(p, end, 3), UC_NUMBER);
}

static size_t rule_digits(const tok_chars *c, size_t p, size_t end) { /* \p{N}+ */
    return run_of(c, p, end, UC_NUMBER);
}

static size_t rule_ascii_digits3(const tok_chars *c, size_t p, size_t end) { /* [0-9][0-9][0-9] */
    if (end - p < 3) return p;
    for (size_t i = p; i < p + 3; i++)
        if (c->cp[i] - '0' > 9) return p;
    return p + 3;
}

/* One of `set` or punctuation, as long as it goes. */
static size_t punct_or(const tok_chars *c, size_t p, size_t end, const char *set) {
    while (p < end &&
           (c->cls[p] == UC_PUNCT || (c->cp[p] - 1 < 0x7F && strchr(set, (int)c->cp[p]))))
        p++;
    return p;
}

static size_t rule_default_signs(const tok_chars *c, size_t p, size_t end) {
    return punct_or(c, p, end, "$+<=>^~|"); /* [\p{P}\$\+<=>\^~\|]+ */
}

static size_t rule_falcon_signs(const tok_chars *c, size_t p, size_t end) {
    return punct_or(c, p, end, "$+<=>^~|`"); /* [\p{P}\$\+<=>\^~\|`]+ */
}

/* ---- Llama 3, Qwen 2 ---- */

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}
 * | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t words(const tok_chars *c, size_t p, size_t end, size_t max_digits) {
    size_t i = contraction(c, p, end, true);
    if (i > p) return i;
    i = p + (c->cls[p] != UC_LETTER && c->cls[p] != UC_NUMBER && !is_newline(c->cp[p]));
    if (i < end && c->cls[i] == UC_LETTER) return run_of(c, i, end, UC_LETTER);
    if (c->cls[p] == UC_NUMBER) return run_of(c, p, at_most(p, end, max_digits), UC_NUMBER);
    i = signs(c, p, end);
    return i > p ? newlines(c, i, end) : newlines_or_spaces(c, p, end);
}

static size_t rule_llama3(const tok_chars *c, size_t p, size_t end) {
    return words(c, p, end, 3);
}

static size_t rule_qwen2(const tok_chars *c, size_t p, size_t end) {
    return words(c, p, end, 1);
}

/* ---- GPT-4o, Tekken ---- */

/* llama.cpp: "upper" and "lower" are told apart in ASCII only; any other letter is both, and
 * combining marks are neither. */
static bool may_be_upper(const tok_chars *c, size_t p) {
    return c->cls[p] == UC_LETTER && !(c->cp[p] - 'a' < 26);
}

static bool may_be_lower(const tok_chars *c, size_t p) {
    return c->cls[p] == UC_LETTER && !(c->cp[p] - 'A' < 26);
}

/* upper*lower+|upper+lower* at a letter: where it ends. */
static size_t cased_word(const tok_chars *c, size_t p, size_t end) {
    size_t upper = p;
    while (upper < end && may_be_upper(c, upper)) upper++;
    size_t i = upper;
    while (i < end && may_be_lower(c, i)) i++;
    if (i > upper) return i;
    /* lower+ must then take from the end of upper*: its last letter that is both, or, with none,
     * the second form takes all. */
    for (i = upper; i > p; i--)
        if (may_be_lower(c, i - 1)) return i;
    return upper;
}

/* [^\r\n\p{L}\p{N}]?(upper*lower+|upper+lower*)(contraction)?|\p{N}{1,max_digits}
 * | ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t cased_words(const tok_chars *c, size_t p, size_t end, size_t max_digits,
                          bool contractions) {
    size_t i = p + (c->cls[p] != UC_LETTER && c->cls[p] != UC_NUMBER && !is_newline(c->cp[p]));
    if (i < end && c->cls[i] == UC_LETTER) {
        i = cased_word(c, i, end);
        return contractions ? contraction(c, i, end, true) : i;
    }
    if (c->cls[p] == UC_NUMBER) return run_of(c, p, at_most(p, end, max_digits), UC_NUMBER);
    i = signs(c, p, end);
    if (i == p) return newlines_or_spaces(c, p, end);
    while (i < end && (is_newline(c->cp[i]) || c->cp[i] == '/')) i++;
    return i;
}

static size_t rule_gpt4o(const tok_chars *c, size_t p, size_t end) {
    return cased_words(c, p, end, 3, true);
}

static size_t rule_tekken(const tok_chars *c, size_t p, size_t end) {
    return cased_words(c, p, end, 1, false);
}

/* ---- DeepSeek ---- */

typedef struct cp_range {
    uint32_t first, last;
} cp_range;

/* Cased letters as DeepSeek LLM's expression lists them. */
/* clang-format off */
static const cp_range cased_letters[] = {
    {0x41, 0x5a}, {0x61, 0x7a}, {0xb5, 0xb5}, {0xc0, 0xd6}, {0xd8, 0xf6}, {0xf8, 0x1ba},
    {0x1bc, 0x1bf}, {0x1c4, 0x293}, {0x295, 0x2af}, {0x370, 0x373}, {0x376, 0x376}, {0x377, 0x377},
    {0x37b, 0x37d}, {0x37f, 0x37f}, {0x386, 0x386}, {0x388, 0x38a}, {0x38c, 0x38c}, {0x38e, 0x3a1},
    {0x3a3, 0x3f5}, {0x3f7, 0x481}, {0x48a, 0x52f}, {0x531, 0x556}, {0x10a0, 0x10c5},
    {0x13a0, 0x13f5}, {0x13f8, 0x13fd}, {0x1c90, 0x1cba}, {0x1cbd, 0x1cbf}, {0x1d00, 0x1d2b},
    {0x1d6b, 0x1d77}, {0x1d79, 0x1d9a}, {0x1e00, 0x1f15}, {0x1f18, 0x1f1d}, {0x1f20, 0x1f45},
    {0x1f48, 0x1f4d}, {0x1f50, 0x1f57}, {0x1f59, 0x1f59}, {0x1f5b, 0x1f5b}, {0x1f5d, 0x1f5d},
    {0x1f5f, 0x1f7d}, {0x1f80, 0x1fb4}, {0x1fb6, 0x1fbc}, {0x1fbe, 0x1fbe}, {0x1fc2, 0x1fc4},
    {0x1fc6, 0x1fcc}, {0x1fd0, 0x1fd3}, {0x1fd6, 0x1fdb}, {0x1fe0, 0x1fec}, {0x1ff2, 0x1ff4},
    {0x1ff6, 0x1ffc}, {0x2102, 0x2102}, {0x2107, 0x2107}, {0x210a, 0x2113}, {0x2115, 0x2115},
    {0x2119, 0x211d}, {0x2124, 0x2124}, {0x2126, 0x2126}, {0x2128, 0x2128}, {0x212a, 0x212d},
    {0x212f, 0x2134}, {0x2139, 0x2139}, {0x213c, 0x213f}, {0x2145, 0x2149}, {0x214e, 0x214e},
    {0x2183, 0x2183}, {0x2184, 0x2184}, {0x2c00, 0x2c7b}, {0x2c7e, 0x2ce4}, {0x2ceb, 0x2cee},
    {0x2cf2, 0x2cf2}, {0x2cf3, 0x2cf3}, {0xa640, 0xa66d}, {0xa680, 0xa69b}, {0xa722, 0xa76f},
    {0xa771, 0xa787}, {0xa78b, 0xa78e}, {0xab70, 0xabbf}, {0xfb00, 0xfb06}, {0xfb13, 0xfb17},
    {0xff21, 0xff3a}, {0xff41, 0xff5a}, {0x10400, 0x1044f}, {0x104b0, 0x104d3}, {0x104d8, 0x104fb},
    {0x10c80, 0x10cb2}, {0x10cc0, 0x10cf2}, {0x118a0, 0x118df}, {0x1e900, 0x1e943},
};
/* clang-format on */
/* [!-/:-~！-／：-～‘-‟　-。] */
static const cp_range deepseek_signs[] = {{0x21, 0x2F},     {0x3A, 0x7E},     {0x2018, 0x201F},
                                          {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};
/* [一-龥ࠀ-一가-퟿] */
static const cp_range deepseek_blocks[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};
/* [一-龥぀-ゟ゠-ヿ] */
static const cp_range han_and_kana[] = {{0x3040, 0x30FF}, {0x4E00, 0x9FA5}};

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* llama.cpp: white space beyond ASCII is seen as a vertical tab, so it is in no set. */
static bool in_set(const tok_chars *c, size_t p, const cp_range *set, size_t n) {
    size_t lo = 0, hi = n;
    while (lo < hi) { /* the first range that does not end before cp */
        size_t mid = lo + (hi - lo) / 2;
        if (set[mid].last < c->cp[p])
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n && set[lo].first <= c->cp[p] && c->cls[p] != UC_SPACE;
}

static size_t run_in_set(const tok_chars *c, size_t p, size_t end, const cp_range *set, size_t n) {
    while (p < end && in_set(c, p, set, n)) p++;
    return p;
}

/* \s?[set]+ */
static size_t space_and_set(const tok_chars *c, size_t p, size_t end, const cp_range *set,
                            size_t n) {
    size_t i = p + (c->cls[p] == UC_SPACE);
    size_t stop = run_in_set(c, i, end, set, n);
    return stop > i ? stop : p;
}

/* \s?\p{cls}+ */
static size_t space_and_class(const tok_chars *c, size_t p, size_t end, unsigned cls) {
    size_t i = p + (c->cls[p] == UC_SPACE);
    size_t stop = run_of(c, i, end, cls);
    return stop > i ? stop : p;
}

static size_t rule_newline(const tok_chars *c, size_t p, size_t end) { /* [\r\n] */
    (void)end;
    return p + is_newline(c->cp[p]);
}

static size_t rule_cased_letters(const tok_chars *c, size_t p, size_t end) {
    return space_and_set(c, p, end, cased_letters, COUNT(cased_letters));
}

static size_t rule_deepseek_signs(const tok_chars *c, size_t p, size_t end) {
    return space_and_set(c, p, end, deepseek_signs, COUNT(deepseek_signs));
}

/* \s+$. Inside a run of white space it has failed at the start of the run already. */
static size_t rule_last_spaces(const tok_chars *c, size_t p, size_t end) {
    if (p > c->begin && c->cls[p - 1] == UC_SPACE) return p;
    return run_of(c, p, end, UC_SPACE) == end ? end : p;
}

static size_t rule_deepseek_blocks(const tok_chars *c, size_t p, size_t end) {
    return run_in_set(c, p, end, deepseek_blocks, COUNT(deepseek_blocks));
}

static size_t rule_han_and_kana(const tok_chars *c, size_t p, size_t end) {
    return run_in_set(c, p, end, han_and_kana, COUNT(han_and_kana));
}

static size_t rule_space_letters(const tok_chars *c, size_t p, size_t end) {
    return space_and_class(c, p, end, UC_LETTER);
}

static size_t rule_space_puncts(const tok_chars *c, size_t p, size_t end) {
    return space_and_class(c, p, end, UC_PUNCT);
}

static bool is_punct_or_symbol(const tok_chars *c, size_t p) { /* [\p{P}\p{S}] */
    return c->cls[p] == UC_PUNCT || c->cls[p] == UC_SYMBOL;
}

static bool is_letter_or_mark(const tok_chars *c, size_t p) {
    return c->cls[p] == UC_LETTER || c->cls[p] == UC_MARK;
}

static bool is_ascii_letter(uint32_t cp) {
    return (cp | 0x20) - 'a' < 26;
}

/* [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*
 * |\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t rule_deepseek3(const tok_chars *c, size_t p, size_t end) {
    uint32_t cp = c->cp[p];
    size_t i = p + 1;
    if (cp > ' ' && cp < 0x7F && !is_ascii_letter(cp) && cp - '0' > 9) {
        while (i < end && is_ascii_letter(c->cp[i])) i++;
        if (i > p + 1) return i;
    }
    bool lead = c->cls[p] != UC_LETTER && !is_punct_or_symbol(c, p) && !is_newline(cp);
    i = p + (lead && p + 1 < end && is_letter_or_mark(c, p + 1));
    if (is_letter_or_mark(c, i)) {
        while (i < end && is_letter_or_mark(c, i)) i++;
        return i;
    }
    i = p + (cp == ' ');
    if (i < end && is_punct_or_symbol(c, i)) {
        while (i < end && is_punct_or_symbol(c, i)) i++;
        return newlines(c, i, end);
    }
    return newlines_or_spaces(c, p, end);
}

/* ---- the table ---- */

/* Names as llama.cpp knows them. */
static const tok_split splits[] = {
    {.names = "default", .rule = {rule_default_signs, rule_gpt2, rule_digits, rule_ascii_digits3}},
    {.names = "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     .rule = {rule_llama3},
     .ignore_merges = true,
     .add_bos = true},
    {.names = "dbrx smaug-bpe", .rule = {rule_llama3}},
    {.names = "glm4 chatglm-bpe", .rule = {rule_llama3}, .no_bos = true},
    {.names = "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2",
     .rule = {rule_qwen2}},
    {.names = "gpt-2 phi-2 gigachat a.x-4.0 mellum mpt olmo jais trillion granite-docling exaone4",
     .rule = {rule_gpt2}},
    {.names = "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2",
     .rule = {rule_digit, rule_gpt2}},
    {.names = "gpt-4o llama4 kanana2 talkie minimax-m2", .rule = {rule_gpt4o}},
    {.names = "tekken", .rule = {rule_tekken}, .ignore_merges = true, .add_bos = true},
    {.names = "falcon", .rule = {rule_falcon_signs, rule_gpt2, rule_ascii_digits3}},
    {.names = "deepseek-llm",
     .rule = {rule_newline, rule_cased_letters, rule_deepseek_signs, rule_last_spaces,
              rule_deepseek_blocks, rule_digits}},
    {.names = "deepseek-coder",
     .rule = {rule_newline, rule_space_letters, rule_space_puncts, rule_deepseek_blocks,
              rule_digit}},
    {.names = "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
     .rule = {rule_digits3, rule_han_and_kana, rule_deepseek3}},
};

const tok_split *tok_find_split(const char *name, size_t n) {
    for (size_t i = 0; i < COUNT(splits); i++)
        for (const char *s = splits[i].names, *space; *s; s = *space ? space + 1 : space) {
            space = strchrnul(s, ' ');
            if ((size_t)(space - s) == n && memcmp(s, name, n) == 0) return &splits[i];
        }
    return NULL;
}

/* Splits the piece [begin, end) by one rule: writes the ends of the pieces, returns how many. */
static size_t split_piece(tok_rule rule, tok_chars *c, size_t begin, size_t end, uint32_t *out) {
    size_t n = 0, gap = begin; /* where the text that nothing has matched starts */
    c->begin = begin;
    for (size_t p = begin; p < end;) {
        size_t stop = rule(c, p, end);
        if (stop == p) {
            p++;
            continue;
        }
        if (gap < p) out[n++] = (uint32_t)p;
        out[n++] = (uint32_t)stop;
        gap = p = stop;
    }
    if (gap < end) out[n++] = (uint32_t)end;
    return n;
}

size_t tok_split_words(const tok_split *s, tok_chars *c, uint32_t *ends, uint32_t *scratch,
                       const uint32_t **words_out) {
    size_t n = c->n > 0;
    ends[0] = (uint32_t)c->n;
    for (int r = 0; r < TOK_MAX_RULES && s->rule[r]; r++) {
        size_t n_new = 0, begin = 0;
        for (size_t i = 0; i < n; i++) {
            n_new += split_piece(s->rule[r], c, begin, ends[i], scratch + n_new);
            begin = ends[i];
        }
        uint32_t *swap = ends;
        ends = scratch;
        scratch = swap;
        n = n_new;
    }
    *words_out = ends;
    return n;
}
