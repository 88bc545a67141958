/* bad_vocab_test.c -- vocabularies that must be refused, each with its exact line, and odd ones
 * that must not. */
#include "check_harness.h"
#include "tokenizer.h"
#include "vocab_file.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static int failures;

static const char PATH[] = "bad_vocab.gguf"; /* in the messages, so not a temporary name */

static vocab_list list;
static vocab_file file;

/* Loads what the case has made and compares the message; "" means that it loads. */
static void expect(int line, const char *expected) {
    gguf_file *f = NULL;
    ttx_tokenizer *t = NULL;
    ttx_err err = {0};
    vf_write(&file, PATH);
    int code = gguf_open(&f, PATH, &err);
    if (!code) code = ttx_tokenizer_load(&t, f, &err);
    if (strcmp(err.msg, expected) != 0 || code != (*expected ? TTX_E_MODEL : TTX_OK) ||
        !t != !!code) {
        failures++;
        printf("%s:%d: code %d\n  expected %s\n  found    %s\n", __FILE__, line, code, expected,
               err.msg);
    }
    ttx_tokenizer_free(t);
    gguf_close(f);
    vf_free(&file);
    list.n = list.n_merge = list.n_pool = 0;
}

#define EXPECT(message) expect(__LINE__, message)

/* A good vocabulary of 259 tokens, to be spoilt. */
static void bpe(void) {
    vl_add_bytes(&list, true);
    vl_add_merge(&list, "a b");
    vl_add(&list, "<x>", VT_CONTROL, 0);
    vl_add(&list, "<y>", VT_USER, 0);
}

static void spm(void) {
    vl_add(&list, "<unk>", VT_UNKNOWN, 0);
    vl_add_bytes(&list, false);
}

static void test_kinds(void) {
    EXPECT("bad_vocab.gguf: key 'tokenizer.ggml.model': expected a string, found none");
    vf_str(&file, "tokenizer.ggml.model", "bert");
    EXPECT("bad_vocab.gguf: tokenizer.ggml.model: expected llama or gpt2, found 'bert'");
    vf_str(&file, "tokenizer.ggml.model", "gpt2");
    vf_str(&file, "tokenizer.ggml.pre", "nobody's\n");
    EXPECT("bad_vocab.gguf: tokenizer.ggml.pre: expected a known split (llama-bpe, gpt-2, gpt-4o, "
           "qwen2, smollm, deepseek-llm, ...), found 'nobody's?'");
    vf_str(&file, "tokenizer.ggml.model", "gpt2");
    vf_u32(&file, "tokenizer.ggml.pre", 1);
    EXPECT("bad_vocab.gguf: key 'tokenizer.ggml.pre': expected a string, found 1");
    vf_str(&file, "tokenizer.ggml.model", "gpt2");
    EXPECT("bad_vocab.gguf: key 'tokenizer.ggml.tokens': expected an array of string, found none");
}

static void test_arrays(void) {
    static const int32_t three[3] = {1, 1, 1};
    vf_str(&file, "tokenizer.ggml.model", "gpt2");
    vf_strs(&file, "tokenizer.ggml.tokens", NULL, 0);
    EXPECT("bad_vocab.gguf: tokenizer.ggml.tokens: expected 1..536870911 tokens, found 0");
    vf_str(&file, "tokenizer.ggml.model", "gpt2");
    vf_i32s(&file, "tokenizer.ggml.tokens", three, 3);
    EXPECT(
        "bad_vocab.gguf: key 'tokenizer.ggml.tokens': expected an array of string, found array of "
        "int32");
    bpe();
    vf_str(&file, "tokenizer.ggml.model", "gpt2");
    vf_strs(&file, "tokenizer.ggml.tokens", list.text, list.n);
    vf_i32s(&file, "tokenizer.ggml.token_type", three, 3);
    EXPECT("bad_vocab.gguf: tokenizer.ggml.token_type: expected 259 elements, one per token, "
           "found 3");
    bpe();
    vf_str(&file, "tokenizer.ggml.model", "gpt2");
    vf_strs(&file, "tokenizer.ggml.tokens", list.text, list.n);
    EXPECT("bad_vocab.gguf: key 'tokenizer.ggml.merges': expected an array of string, found none");
}

static void test_scores(void) {
    spm();
    vf_str(&file, "tokenizer.ggml.model", "llama");
    vf_strs(&file, "tokenizer.ggml.tokens", list.text, list.n);
    EXPECT("bad_vocab.gguf: key 'tokenizer.ggml.scores': expected an array of float32, found none");
    spm();
    list.score[7] = NAN;
    vl_write(&list, &file, NULL);
    EXPECT("bad_vocab.gguf: token 7: expected a score, found not a number");
    spm();
    list.n--; /* <0xFF>; but there is <unk> */
    vl_write(&list, &file, NULL);
    EXPECT("");
    spm();
    list.n--;
    vl_write(&list, &file, NULL);
    vf_u32(&file, "tokenizer.ggml.unknown_token_id", UINT32_MAX);
    EXPECT("bad_vocab.gguf: vocabulary: expected token <0xFF> or an unknown token, found neither");
}

static void test_ids(void) {
    bpe();
    vl_write(&list, &file, "gpt-2");
    vf_u32(&file, "tokenizer.ggml.bos_token_id", 259);
    EXPECT("bad_vocab.gguf: tokenizer.ggml.bos_token_id: expected a token id below 259, found 259");
    bpe();
    vl_write(&list, &file, "gpt-2");
    vf_u32(&file, "tokenizer.ggml.eot_token_id", 4000000000u);
    EXPECT("bad_vocab.gguf: tokenizer.ggml.eot_token_id: expected a token id below 259, found "
           "4000000000");
    bpe();
    vl_write(&list, &file, "gpt-2");
    vf_str(&file, "tokenizer.ggml.eos_token_id", "x");
    EXPECT("bad_vocab.gguf: key 'tokenizer.ggml.eos_token_id': expected a 64-bit integer, found "
           "string");
    bpe();
    vl_write(&list, &file, "gpt-2");
    vf_u32(&file, "tokenizer.ggml.bos_token_id", UINT32_MAX);
    vf_bool(&file, "tokenizer.ggml.add_bos_token", true);
    EXPECT("bad_vocab.gguf: tokenizer.ggml.add_bos_token is true: expected a bos_token_id, found "
           "none");
    bpe();
    vl_write(&list, &file, "gpt-2");
    vf_u32(&file, "tokenizer.ggml.eos_token_id", UINT32_MAX);
    vf_bool(&file, "tokenizer.ggml.add_eos_token", true);
    EXPECT("bad_vocab.gguf: tokenizer.ggml.add_eos_token is true: expected an eos_token_id, found "
           "none");
    bpe();
    vl_write(&list, &file, "gpt-2");
    vf_u32(&file, "tokenizer.ggml.add_bos_token", 1);
    EXPECT("bad_vocab.gguf: key 'tokenizer.ggml.add_bos_token': expected a bool, found 1");
}

static void test_texts(void) {
    static char big[70000];
    memset(big, 'a', sizeof big - 1);
    bpe();
    vl_add(&list, big, VT_NORMAL, 0);
    vl_write(&list, &file, "gpt-2");
    EXPECT("bad_vocab.gguf: token 259: expected at most 65535 bytes, found 69999");
    bpe(); /* empty and double texts, unknown types: odd, not wrong */
    vl_add(&list, "", VT_CONTROL, 0);
    vl_add(&list, "a", VT_USER, 0);
    vl_add(&list, "zz", -5, 0);
    vl_write(&list, &file, "gpt-2");
    EXPECT("");
}

int main(void) {
    test_kinds();
    test_arrays();
    test_scores();
    test_ids();
    test_texts();
    unlink(PATH);
    printf("%s\n", failures ? "FAILED" : "passed");
    return failures != 0;
}
