/* fuzz_tokenizer.c -- a fuzzer's bytes as text for fixed vocabularies, or as a vocabulary.
 *
 * The first byte chooses. Text must come back byte for byte, in pieces that never split a
 * character. A vocabulary, whose texts, merges and types are cut from the bytes, may be refused;
 * if it loads, it must give ids in range for the rest of the bytes. Built by clang with libFuzzer
 * (TTX_FUZZ), or with replay_main.c.
 */
#include "tokenizer.h"
#include "vocab_file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct input {
    const uint8_t *p;
    size_t n;
} input;

static uint8_t next(input *in) {
    if (!in->n) return 0;
    in->n--;
    return *in->p++;
}

static const char *const pres[] = {"default",      "llama-bpe",      "gpt-2",       "qwen2",
                                   "smollm",       "gpt-4o",         "tekken",      "falcon",
                                   "deepseek-llm", "deepseek-coder", "deepseek-v3", NULL};

/* ---- text ---- */

/* Byte tokens, a few merges, special tokens that overlap each other. */
static void add_fixed(vocab_list *l, bool bpe) {
    static const char *const merges[] = {"a b", "b c", "ab c", "Ġ a", "a a", "1 2", "Ã ©", "Ċ Ċ"};
    static const char *const words[] = {"▁", "a", "b", "ab", "▁a", "▁▁", "é", "ba", "aba"};
    vl_add_bytes(l, bpe);
    for (size_t i = 0; i < 8 && bpe; i++) vl_add_merge(l, merges[i]);
    for (size_t i = 0; i < 9 && !bpe; i++) vl_add(l, words[i], VT_NORMAL, (float)(i * 7 % 5) - 8);
    vl_add(l, "<x>", VT_CONTROL, 0);
    vl_add(l, "<x>y<", VT_USER, 0);
    vl_add(l, "y<x", VT_USER, 0);
}

/* SentencePiece writes spaces as U+2581, so that one in the text comes back as a space. */
static bool is_ambiguous(const ttx_tokenizer *t, input in) {
    return ttx_tok_find(t, "<0x00>") >= 0 && memmem(in.p, in.n, "\xE2\x96\x81", 3);
}

static void check_text(const ttx_tokenizer *t, input in, unsigned flags) {
    int32_t *ids;
    size_t n_ids, len = 0;
    ttx_detok *d = NULL;
    if (ttx_tokenize(t, (const char *)in.p, in.n, flags, &ids, &n_ids, NULL)) abort();
    if (ttx_detok_new(&d, t, TTX_DETOK_SPECIAL | TTX_DETOK_START, NULL)) abort();
    bool exact = !is_ambiguous(t, in);
    for (size_t i = 0; i <= n_ids; i++) {
        const char *bytes;
        size_t n = i < n_ids ? ttx_detok_feed(d, ids[i], &bytes) : ttx_detok_flush(d, &bytes);
        if (exact && (n > in.n - len || (n && memcmp(bytes, in.p + len, n) != 0))) abort();
        len += n;
    }
    if (exact && len != in.n) abort();
    ttx_detok_free(d);
    free(ids);
}

/* ---- vocabularies ---- */

static void check_vocab(input in) {
    static vocab_list l; /* large; emptied before use */
    static char texts[8192];
    size_t used = 0;
    memset(&l, 0, offsetof(vocab_list, pool));
    l.n_pool = 0;
    uint8_t head = next(&in), count = next(&in), n_merge = next(&in) % 64;
    const char *pre = pres[head % 12];
    if (head & 0x80) vl_add_bytes(&l, pre);
    for (int i = 0; i < count; i++) {
        uint8_t b = next(&in);
        char *text = texts + used;
        size_t n = b % 8;
        for (size_t j = 0; j < n; j++) text[j] = (char)next(&in);
        text[n] = '\0';
        used += n + 1;
        l.type[l.n] = b >> 5;
        l.score[l.n] = (float)(int8_t)next(&in);
        l.text[l.n++] = (gguf_str){.s = text, .n = n};
    }
    for (int i = 0; i < n_merge; i++) {
        size_t n = next(&in) % 8;
        if (n > in.n) n = in.n;
        l.merge[l.n_merge++] = (gguf_str){.s = (const char *)in.p, .n = n};
        in.p += n;
        in.n -= n;
    }
    vocab_file v = {0};
    ttx_tokenizer *t = NULL;
    vf_u32(&v, "tokenizer.ggml.bos_token_id", next(&in));
    vl_write(&l, &v, pre);
    gguf_file *f = vf_open(&v);
    if (!f) abort();
    int32_t *ids;
    size_t n_ids;
    if (!ttx_tokenizer_load(&t, f, NULL)) {
        if (ttx_tokenize(t, (const char *)in.p, in.n, head >> 5 & 3, &ids, &n_ids, NULL)) abort();
        for (size_t i = 0; i < n_ids; i++)
            if (ids[i] < 0 || ids[i] >= ttx_tok_n_vocab(t)) abort();
        free(ids);
    }
    ttx_tokenizer_free(t);
    gguf_close(f);
    vf_free(&v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ttx_tokenizer *fixed[12]; /* made when first asked for, kept for the process */
    static gguf_file *files[12];
    input in = {data, size};
    uint8_t head = next(&in);
    if (head & 0x80) {
        check_vocab(in);
        return 0;
    }
    int which = head % 16 % 12;
    if (!fixed[which]) {
        static vocab_file v[12];
        vocab_list *l = calloc(1, sizeof *l);
        if (!l) abort();
        add_fixed(l, pres[which] != NULL);
        vl_write(l, &v[which], pres[which]);
        vf_bool(&v[which], "tokenizer.ggml.add_bos_token", false);
        files[which] = vf_open(&v[which]);
        if (!files[which] || ttx_tokenizer_load(&fixed[which], files[which], NULL)) abort();
        vf_free(&v[which]);
        free(l);
    }
    check_text(fixed[which], in, head >> 4 & TTX_TOK_PARSE_SPECIAL);
    return 0;
}
