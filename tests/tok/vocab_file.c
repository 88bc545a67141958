/* vocab_file.c -- see vocab_file.h. GGUF version 3: magic, version, counts, then the pairs. */
#include "vocab_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void put(vocab_file *v, const void *p, size_t n) {
    if (v->n + n > v->cap) {
        v->cap = 2 * (v->n + n);
        v->bytes = realloc(v->bytes, v->cap);
        if (!v->bytes) abort();
    }
    if (n) memcpy(v->bytes + v->n, p, n);
    v->n += n;
}

static void put_u32(vocab_file *v, uint32_t x) {
    put(v, &x, sizeof x);
}

static void put_u64(vocab_file *v, uint64_t x) {
    put(v, &x, sizeof x);
}

static void put_text(vocab_file *v, const char *s, size_t n) {
    put_u64(v, n);
    put(v, s, n);
}

static void start(vocab_file *v, const char *key, gguf_type type) {
    put_text(v, key, strlen(key));
    put_u32(v, type);
    v->n_kv++;
}

static void start_array(vocab_file *v, const char *key, gguf_type elem, size_t n) {
    start(v, key, GGUF_ARRAY);
    put_u32(v, elem);
    put_u64(v, n);
}

void vf_str(vocab_file *v, const char *key, const char *value) {
    start(v, key, GGUF_STRING);
    put_text(v, value, strlen(value));
}

void vf_u32(vocab_file *v, const char *key, uint32_t value) {
    start(v, key, GGUF_UINT32);
    put_u32(v, value);
}

void vf_bool(vocab_file *v, const char *key, bool value) {
    uint8_t b = value;
    start(v, key, GGUF_BOOL);
    put(v, &b, 1);
}

void vf_i32s(vocab_file *v, const char *key, const int32_t *a, size_t n) {
    start_array(v, key, GGUF_INT32, n);
    put(v, a, n * sizeof *a);
}

void vf_f32s(vocab_file *v, const char *key, const float *a, size_t n) {
    start_array(v, key, GGUF_FLOAT32, n);
    put(v, a, n * sizeof *a);
}

void vf_strs(vocab_file *v, const char *key, const gguf_str *a, size_t n) {
    start_array(v, key, GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) put_text(v, a[i].s, a[i].n);
}

static void write_to(const vocab_file *v, int fd) {
    uint64_t counts[2] = {0, v->n_kv};
    if (fd < 0 || write(fd, "GGUF\3\0\0\0", 8) != 8 ||
        write(fd, counts, sizeof counts) != sizeof counts ||
        write(fd, v->bytes, v->n) != (ssize_t)v->n)
        abort();
}

void vf_write(const vocab_file *v, const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    write_to(v, fd);
    close(fd);
}

gguf_file *vf_open(const vocab_file *v) {
    char path[40];
    gguf_file *f = NULL;
    int fd = memfd_create("vocab", MFD_CLOEXEC);
    write_to(v, fd);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ttx_err err = {0};
    if (gguf_open(&f, path, &err)) puts(err.msg);
    close(fd);
    return f;
}

void vf_free(vocab_file *v) {
    free(v->bytes);
    *v = (vocab_file){0};
}

/* ---- lists ---- */

static const char *keep(vocab_list *l, const char *s, size_t n) {
    char *at = l->pool + l->n_pool;
    if (l->n_pool + n + 1 > sizeof l->pool) abort();
    memcpy(at, s, n);
    at[n] = '\0';
    l->n_pool += n + 1;
    return at;
}

int32_t vl_add(vocab_list *l, const char *text, int32_t type, float score) {
    if (l->n == 1024) abort();
    l->text[l->n] = (gguf_str){.s = text, .n = strlen(text)};
    l->type[l->n] = type;
    l->score[l->n] = score;
    return (int32_t)l->n++;
}

void vl_add_bytes(vocab_list *l, bool bpe) {
    char s[8];
    for (uint32_t b = 0, others = 0; b < 256; b++) {
        bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
        uint32_t cp = itself ? b : 256 + others++;
        int n = !bpe        ? snprintf(s, sizeof s, "<0x%02X>", b)
                : cp < 0x80 ? snprintf(s, sizeof s, "%c", (int)cp)
                            : snprintf(s, sizeof s, "%c%c", (int)(0xC0 | cp >> 6),
                                       (int)(0x80 | (cp & 0x3F)));
        vl_add(l, keep(l, s, (size_t)n), bpe ? VT_NORMAL : VT_BYTE, 0);
    }
}

void vl_add_merge(vocab_list *l, const char *merge) {
    char s[64];
    size_t left = strcspn(merge, " ");
    if (l->n_merge == 64) abort();
    l->merge[l->n_merge++] = (gguf_str){.s = merge, .n = strlen(merge)};
    int n = snprintf(s, sizeof s, "%.*s%s", (int)left, merge, merge + left + 1);
    vl_add(l, keep(l, s, (size_t)n), VT_NORMAL, 0);
}

void vl_write(const vocab_list *l, vocab_file *v, const char *pre) {
    vf_str(v, "tokenizer.ggml.model", pre ? "gpt2" : "llama");
    if (pre) vf_str(v, "tokenizer.ggml.pre", pre);
    vf_strs(v, "tokenizer.ggml.tokens", l->text, l->n);
    vf_i32s(v, "tokenizer.ggml.token_type", l->type, l->n);
    if (pre)
        vf_strs(v, "tokenizer.ggml.merges", l->merge, l->n_merge);
    else
        vf_f32s(v, "tokenizer.ggml.scores", l->score, l->n);
}
