/* tok_test.c -- the tokenizer's logic, on vocabularies small enough to see what must come out.
 *
 * That real vocabularies give llama.cpp's ids is the reference tests' business. */
#include "check_harness.h"
#include "tokenizer.h"
#include "vocab_file.h"

#include <stdlib.h>
#include <time.h>

static int failures;

/* A loaded vocabulary; the lists live as long as the test. */
typedef struct rig {
    vocab_list list;
    vocab_file file;
    gguf_file *gguf;
    ttx_tokenizer *tok;
} rig;

static rig *new_rig(void) {
    rig *r = calloc(1, sizeof *r);
    if (!r) abort();
    return r;
}

static void load(rig *r, const char *pre) {
    ttx_err err = {0};
    vl_write(&r->list, &r->file, pre);
    r->gguf = vf_open(&r->file);
    if (ttx_tokenizer_load(&r->tok, r->gguf, &err)) {
        printf("cannot load: %s\n", err.msg);
        exit(1);
    }
}

static void free_rig(rig *r) {
    ttx_tokenizer_free(r->tok);
    gguf_close(r->gguf);
    vf_free(&r->file);
    free(r);
}

/* The tokens of a text as their vocabulary texts with '|' between them. */
static const char *tokens_of(const rig *r, const char *text, size_t n, unsigned flags) {
    static char out[4096];
    int32_t *ids;
    size_t n_ids, len = 0;
    ttx_err err = {0};
    out[0] = '\0';
    if (ttx_tokenize(r->tok, text, n, flags, &ids, &n_ids, &err)) return err.msg[0] ? "error" : "?";
    for (size_t i = 0; i < n_ids; i++) {
        const gguf_str *s = &r->list.text[ids[i]];
        len +=
            (size_t)snprintf(out + len, sizeof out - len, "%s%.*s", i ? "|" : "", (int)s->n, s->s);
    }
    free(ids);
    return out;
}

#define TOKENS(r, text, flags, expected) \
    CHECK_STR(tokens_of(r, text, sizeof(text) - 1, flags), expected)

/* Tokenizes and goes back, with every piece as it comes: the bytes must be the same, and no piece
 * may end inside a character of a text that is UTF-8. */
static bool survives(const ttx_tokenizer *t, const char *text, size_t n, unsigned flags) {
    int32_t *ids;
    size_t n_ids, len = 0;
    ttx_detok *d = NULL;
    char *back = malloc(n + 1);
    if (!back || ttx_tokenize(t, text, n, flags, &ids, &n_ids, NULL) ||
        ttx_detok_new(&d, t, TTX_DETOK_SPECIAL | TTX_DETOK_START, NULL))
        abort();
    bool same = true;
    for (size_t i = 0; i <= n_ids && same; i++) {
        const char *bytes;
        size_t got = i < n_ids ? ttx_detok_feed(d, ids[i], &bytes) : ttx_detok_flush(d, &bytes);
        same = len + got <= n;
        if (same && got) memcpy(back + len, bytes, got);
        len += got;
    }
    same = same && len == n && memcmp(back, text, n) == 0;
    ttx_detok_free(d);
    free(ids);
    free(back);
    return same;
}

/* ---- merging ---- */

static void test_bpe_merges(void) {
    rig *r = new_rig();
    vl_add_bytes(&r->list, true);
    static const char *const merges[] = {"a b", "b c", "ab c", "a a", "aa aa", "Ġ a", "Ã ©"};
    for (size_t i = 0; i < 7; i++) vl_add_merge(&r->list, merges[i]);
    load(r, "gpt-2");
    TOKENS(r, "", 0, "");
    TOKENS(r, "abc", 0, "abc"); /* a b before b c */
    TOKENS(r, "bbc", 0, "b|bc");
    TOKENS(r, "aaaaa", 0, "aaaa|a"); /* among equals the leftmost */
    TOKENS(r, "aab", 0, "a|ab");     /* rank before position */
    TOKENS(r, "b a", 0, "b|Ġa");
    TOKENS(r, "b  a", 0, "b|Ġ|Ġa"); /* the split keeps the spaces apart */
    TOKENS(r, "\xC3\xA9", 0, "Ã©");
    CHECK(survives(r->tok, "a\0b\xFF\xC3", 5, 0));
    free_rig(r);
}

static void test_whole_words(void) {
    rig *r = new_rig();
    vl_add_bytes(&r->list, true);
    vl_add(&r->list, "Ġxyz", VT_NORMAL, 0);
    vl_add_merge(&r->list, "x y");
    vf_u32(&r->file, "tokenizer.ggml.bos_token_id", '&');
    load(r, "llama-bpe");
    TOKENS(r, " xyz", 0, "Ġxyz"); /* although no merges lead there */
    TOKENS(r, "xyz", 0, "xy|z");
    TOKENS(r, "a", TTX_TOK_ADD_SPECIAL, "&|a"); /* this split adds BOS unless told not to */
    free_rig(r);
}

static void test_unusable_merges(void) {
    rig *r = new_rig();
    vl_add_bytes(&r->list, true);
    vl_add_merge(&r->list, "a b");
    r->list.merge[1] = (gguf_str){.s = "b c", .n = 3}; /* gives no token */
    r->list.merge[2] = (gguf_str){.s = "ab", .n = 2};  /* no space */
    r->list.merge[3] = (gguf_str){.s = "", .n = 0};
    r->list.merge[4] = (gguf_str){.s = " a", .n = 2};
    r->list.merge[5] = (gguf_str){.s = "a ", .n = 2};
    r->list.n_merge = 6;
    vl_add_merge(&r->list, "b d");
    r->list.merge[7] = (gguf_str){.s = "a b", .n = 3}; /* again: the first counts */
    r->list.n_merge = 8;
    load(r, "gpt-2");
    TOKENS(r, "bcabd", 0, "b|c|ab|d");
    free_rig(r);
}

static rig *spm_rig(void) {
    rig *r = new_rig();
    vl_add(&r->list, "<unk>", VT_UNKNOWN, 0);
    vl_add(&r->list, "<s>", VT_CONTROL, 0);
    vl_add(&r->list, "</s>", VT_CONTROL, 0);
    vl_add_bytes(&r->list, false);
    static const char *const normal[] = {"▁", "a", "b", "ab", "▁a", "▁ab", "ba", "▁▁", "é"};
    static const float scores[] = {-1, -2, -3, -4, -5, -9, -4, -6, -7};
    for (size_t i = 0; i < 9; i++) vl_add(&r->list, normal[i], VT_NORMAL, scores[i]);
    vl_add(&r->list, "<u>", VT_USER, 0);
    return r;
}

static void test_spm_merges(void) {
    rig *r = spm_rig();
    load(r, NULL);
    TOKENS(r, "a", 0, "▁a");
    TOKENS(r, "ab", 0, "▁ab");    /* a b (-4) first, then ▁ ab (-9) */
    TOKENS(r, "aba", 0, "▁ab|a"); /* ab and ba score the same: the left one */
    TOKENS(r, "a  b", 0, "▁a|▁▁|b");
    TOKENS(r, "é", 0, "▁|é");
    TOKENS(r, "\xE6\x97\xA5", 0, "▁|<0xE6>|<0x97>|<0xA5>");
    TOKENS(r, "\xE6", 0, "▁|<0xE6>");
    TOKENS(r, "", TTX_TOK_ADD_SPECIAL, "<s>");
    TOKENS(r, "a<u>b<s>a", TTX_TOK_PARSE_SPECIAL, "▁a|<u>|▁|b|<s>|▁a");
    TOKENS(r, "<s>", 0, "▁|<0x3C>|<0x73>|<0x3E>");
    CHECK(survives(r->tok, "a<u>  b<s> a", 12, TTX_TOK_PARSE_SPECIAL));
    CHECK(survives(r->tok, "  \xC3(\0\n ", 7, 0));
    free_rig(r);
}

/* The best score goes first, whatever its sign; -0 is as good as 0. */
static void test_spm_scores(void) {
    rig *r = spm_rig();
    static const char *const texts[] = {"c", "bc", "cc", "cca", "ac", "ca", "cb", "bca"};
    static const float scores[] = {-1, -2, 0, -9, -0.0f, 2.5f, 1, -1e30f};
    for (size_t i = 0; i < 8; i++) vl_add(&r->list, texts[i], VT_NORMAL, scores[i]);
    vf_bool(&r->file, "tokenizer.ggml.add_space_prefix", false);
    load(r, NULL);
    TOKENS(r, "abc", 0, "a|bc"); /* -2 before -4 */
    TOKENS(r, "bca", 0, "bca");  /* 2.5 before -2; then b and ca, bad but the only pair */
    TOKENS(r, "bcb", 0, "b|cb"); /* 1 before -2 */
    TOKENS(r, "acc", 0, "ac|c"); /* -0 and 0: the left one */
    TOKENS(r, "ccac", 0, "cca|c");
    free_rig(r);
}

static void test_no_space_prefix(void) {
    rig *r = spm_rig();
    vf_bool(&r->file, "tokenizer.ggml.add_space_prefix", false);
    load(r, NULL);
    TOKENS(r, "ab a", 0, "ab|▁a");
    CHECK(survives(r->tok, " ab a", 5, 0));
    free_rig(r);
}

/* ---- special tokens ---- */

static void test_specials(void) {
    rig *r = new_rig();
    vl_add_bytes(&r->list, true);
    static const char *const user[] = {"<ab>", "ab>>", "<<", "xyxy", "yxyxy"};
    for (size_t i = 0; i < 5; i++) vl_add(&r->list, user[i], VT_USER, 0);
    vl_add(&r->list, "<c>", VT_CONTROL, 0);
    vl_add(&r->list, "<unk>", VT_UNKNOWN, 0);
    vl_add(&r->list, "<c", VT_USER, 0);
    load(r, "gpt-2");
    const unsigned parse = TTX_TOK_PARSE_SPECIAL;
    TOKENS(r, "a<ab>b", 0, "a|<ab>|b");
    TOKENS(r, "<ab>>", 0, "<ab>|>");   /* equally long: the left one */
    TOKENS(r, "xyxyxy", 0, "x|yxyxy"); /* the longest first, wherever it is */
    TOKENS(r, "<<<", 0, "<<|<");
    TOKENS(r, "<c>", 0, "<c|>"); /* control tokens are text unless parsed */
    TOKENS(r, "<c>", parse, "<c>");
    TOKENS(r, "<unk><c", parse, "<unk>|<c");
    TOKENS(r, "<unk>", 0, "<|u|n|k|>");
    TOKENS(r, "<", parse, "<");
    CHECK(ttx_tok_is_control(r->tok, ttx_tok_find(r->tok, "<c>")));
    CHECK(!ttx_tok_is_control(r->tok, ttx_tok_find(r->tok, "<ab>")));
    CHECK_INT(ttx_tok_find(r->tok, "nothing"), -1);
    free_rig(r);
}

/* More than 64 lengths: the matcher works in groups of them. */
static void test_many_lengths(void) {
    enum { N = 150 };
    static char texts[N][N + 3];
    rig *r = new_rig();
    vl_add_bytes(&r->list, true);
    for (int i = 0; i < N; i++) {
        texts[i][0] = texts[i][1] = '#';
        memset(texts[i] + 2, 'x', (size_t)i);
        vl_add(&r->list, texts[i], VT_USER, 0);
    }
    load(r, "gpt-2");
    static const int lengths[] = {149, 0, 100, 64, 63, 1, 148};
    char text[1024] = "";
    for (size_t i = 0; i < 7; i++) strcat(text, texts[lengths[i]]);
    int32_t *ids;
    size_t n;
    CHECK_INT(ttx_tokenize(r->tok, text, strlen(text), 0, &ids, &n, NULL), 0);
    CHECK_INT(n, 7);
    for (size_t i = 0; i < n && i < 7; i++) CHECK_INT(ids[i], 256 + lengths[i]);
    free(ids);
    free_rig(r);
}

static void test_strip_by_name(void) {
    rig *r = spm_rig();
    vl_add(&r->list, "<|end|>", VT_CONTROL, 0);
    vf_str(&r->file, "general.name", "Phi-3 mini");
    vf_bool(&r->file, "tokenizer.ggml.add_space_prefix", false);
    load(r, NULL);
    TOKENS(r, "<|end|> \n a", TTX_TOK_PARSE_SPECIAL, "<|end|>|a");
    TOKENS(r, "<s> a", TTX_TOK_PARSE_SPECIAL, "<s>|▁a");
    TOKENS(r, "<|end|> \n<|end|> ", TTX_TOK_PARSE_SPECIAL, "<|end|>|<|end|>");
    free_rig(r);
}

static void test_ends(void) {
    rig *r = new_rig();
    vl_add_bytes(&r->list, true);
    static const char *const texts[] = {"<|im_end|>", "<|endoftext|>", "<|fim_pad|>", "<|call|>",
                                        "<|return|>", "<|end|>",       "<|channel|>", "<eos>x"};
    for (size_t i = 0; i < 8; i++) vl_add(&r->list, texts[i], VT_CONTROL, 0);
    vf_u32(&r->file, "tokenizer.ggml.bos_token_id", 32);
    vf_u32(&r->file, "tokenizer.ggml.eos_token_id", 33);
    vf_bool(&r->file, "tokenizer.ggml.add_bos_token", true);
    vf_bool(&r->file, "tokenizer.ggml.add_eos_token", true);
    load(r, "qwen2");
    TOKENS(r, "A", TTX_TOK_ADD_SPECIAL, "Ġ|A|!");
    TOKENS(r, "A", 0, "A");
    CHECK_INT(ttx_tok_bos(r->tok), 32);
    CHECK_INT(ttx_tok_eos(r->tok), 33);
    CHECK(ttx_tok_add_bos(r->tok) && ttx_tok_add_eos(r->tok));
    CHECK_INT(ttx_tok_n_vocab(r->tok), 264);
    static const bool ends[8] = {true, true, true, true, true, false, false, false};
    for (size_t i = 0; i < 8; i++)
        CHECK_INT(ttx_tok_is_eog(r->tok, ttx_tok_find(r->tok, texts[i])), ends[i]);
    CHECK(ttx_tok_is_eog(r->tok, 33) && !ttx_tok_is_eog(r->tok, 32));
    CHECK(!ttx_tok_is_eog(r->tok, -1) && !ttx_tok_is_eog(r->tok, 264));
    /* Harmony's frame is text that is always recognised, and shown. */
    TOKENS(r, "<|channel|><|end|>", 0, "<|channel|>|<|end|>");
    CHECK(!ttx_tok_is_control(r->tok, ttx_tok_find(r->tok, "<|channel|>")));
    free_rig(r);
}

/* ---- going back ---- */

static void feed(ttx_detok *d, const ttx_tokenizer *t, const char *token, const char *expected) {
    const char *bytes;
    size_t n = ttx_detok_feed(d, ttx_tok_find(t, token), &bytes);
    char got[64] = "";
    memcpy(got, bytes, n);
    CHECK_STR(got, expected);
}

static void test_detok_characters(void) {
    rig *r = spm_rig();
    load(r, NULL);
    ttx_detok *d;
    const char *bytes;
    CHECK_INT(ttx_detok_new(&d, r->tok, 0, NULL), 0);
    feed(d, r->tok, "▁a", " a");
    feed(d, r->tok, "<0xE6>", "");
    feed(d, r->tok, "<0x97>", "");
    feed(d, r->tok, "<0xA5>", "\xE6\x97\xA5");
    feed(d, r->tok, "<0xF0>", "");
    feed(d, r->tok, "<0x9F>", "");
    feed(d, r->tok, "b",
         "\xF0\x9F"
         "b"); /* it cannot be completed any more */
    feed(d, r->tok, "<0xFF>", "\xFF");
    feed(d, r->tok, "<0xC3>", "");
    feed(d, r->tok, "<0xC3>", "\xC3");
    CHECK_INT(ttx_detok_flush(d, &bytes), 1);
    CHECK_INT((uint8_t)bytes[0], 0xC3);
    CHECK_INT(ttx_detok_flush(d, &bytes), 0);
    CHECK_INT(ttx_detok_feed(d, -1, &bytes), 0);
    CHECK_INT(ttx_detok_feed(d, 100000, &bytes), 0);
    ttx_detok_free(d);
    free_rig(r);
}

static void test_detok_flags(void) {
    rig *r = spm_rig();
    load(r, NULL);
    ttx_detok *d;
    CHECK_INT(ttx_detok_new(&d, r->tok, TTX_DETOK_START, NULL), 0);
    feed(d, r->tok, "<s>", ""); /* hidden */
    feed(d, r->tok, "▁a", "a");
    feed(d, r->tok, "▁a", " a");
    feed(d, r->tok, "<u>", "<u>"); /* user-defined: shown */
    feed(d, r->tok, "▁▁", " ");
    ttx_detok_free(d);
    CHECK_INT(ttx_detok_new(&d, r->tok, TTX_DETOK_SPECIAL, NULL), 0);
    feed(d, r->tok, "</s>", "</s>");
    feed(d, r->tok, "▁a", " a");
    ttx_detok_free(d);
    char buf[2];
    CHECK_INT(ttx_token_bytes(r->tok, ttx_tok_find(r->tok, "▁ab"), buf, 2), 3);
    CHECK(memcmp(buf, " a", 2) == 0);
    CHECK_INT(ttx_token_bytes(r->tok, ttx_tok_find(r->tok, "<0x0A>"), buf, 2), 1);
    CHECK_INT(buf[0], '\n');
    free_rig(r);
}

/* Random bytes, random characters, and bits of special tokens, through both kinds of vocabulary. */
static void test_random_round_trips(void) {
    rig *spm = spm_rig(), *bpe = new_rig();
    load(spm, NULL);
    vl_add_bytes(&bpe->list, true);
    vl_add_merge(&bpe->list, "Ġ a");
    vl_add(&bpe->list, "<u>", VT_USER, 0);
    load(bpe, "gpt-4o");
    uint64_t state = 1;
    static const char *const parts[] = {
        " ",  "a",    "<u>", "<s>", "\n", "\xC3\xA9",        "\xE2\x96\x81",
        "'s", "1234", "é",   "\0",  "<",  "\xF0\x9F\x98\x80"};
    for (int round = 0; round < 20000; round++) {
        char text[256];
        size_t n = 0;
        while (n < 200) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            unsigned x = (unsigned)(state >> 40);
            if (x % 17 == 0) break;
            const char *part = parts[x / 32 % 13];
            if (x % 3 == 0)
                text[n++] = (char)(x >> 8);
            else
                n = (size_t)(stpcpy(text + n, part) - text);
        }
        /* U+2581 is SentencePiece's own space: it does not come back as it went. */
        bool escaped = memmem(text, n, "\xE2\x96\x81", 3) != NULL;
        unsigned flags = round % 2 ? TTX_TOK_PARSE_SPECIAL : 0;
        if (!escaped && !survives(spm->tok, text, n, flags)) failures++;
        if (!survives(bpe->tok, text, n, flags)) failures++;
        if (failures) {
            printf("round %d does not survive:", round);
            for (size_t i = 0; i < n; i++) printf(" %02x", (uint8_t)text[i]);
            puts("");
            break;
        }
    }
    free_rig(spm);
    free_rig(bpe);
}

/* ---- speed: worst cases must not be quadratic; the times are printed, not judged ---- */

static void time_text(const rig *r, const char *what, const char *text, size_t n) {
    struct timespec a, b;
    int32_t *ids;
    size_t n_ids;
    clock_gettime(CLOCK_MONOTONIC, &a);
    CHECK_INT(ttx_tokenize(r->tok, text, n, 0, &ids, &n_ids, NULL), 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    free(ids);
    printf("%-28s %7.1f ms\n", what,
           (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6);
}

static void test_speed(void) {
    enum { N = 1 << 20 };
    rig *spm = spm_rig(), *bpe = new_rig();
    load(spm, NULL);
    vl_add_bytes(&bpe->list, true);
    static const char *const merges[] = {"a a", "aa aa", "aaaa aaaa", "Ġ Ġ"};
    for (size_t i = 0; i < 4; i++) vl_add_merge(&bpe->list, merges[i]);
    vl_add(&bpe->list, "\n\n", VT_USER, 0);
    load(bpe, "deepseek-llm");
    char *text = malloc(N);
    if (!text) abort();
    memset(text, 'a', N);
    time_text(bpe, "1 MiB, one word, BPE", text, N);
    time_text(spm, "1 MiB, one word, SPM", text, N);
    memset(text, ' ', N);
    text[N - 1] = 'a';
    time_text(bpe, "1 MiB of spaces, BPE", text, N);
    memset(text, '\n', N);
    time_text(bpe, "1 MiB of special tokens, BPE", text, N);
    free(text);
    free_rig(spm);
    free_rig(bpe);
}

int main(void) {
    test_bpe_merges();
    test_whole_words();
    test_unusable_merges();
    test_spm_merges();
    test_spm_scores();
    test_no_space_prefix();
    test_specials();
    test_many_lengths();
    test_strip_by_name();
    test_ends();
    test_detok_characters();
    test_detok_flags();
    test_random_round_trips();
    test_speed();
    printf("%s\n", failures ? "FAILED" : "passed");
    return failures != 0;
}
