/* vocab_file.h -- small model files that hold only a vocabulary, made in memory for tests. */
#ifndef VOCAB_FILE_H
#define VOCAB_FILE_H

#include "gguf.h"

/* A file being written: its metadata so far. Zeros are an empty one. Memory that runs out aborts.
 */
typedef struct vocab_file {
    uint8_t *bytes;
    size_t n, cap;
    uint64_t n_kv;
} vocab_file;

void vf_str(vocab_file *v, const char *key, const char *value);
void vf_u32(vocab_file *v, const char *key, uint32_t value);
void vf_bool(vocab_file *v, const char *key, bool value);
void vf_i32s(vocab_file *v, const char *key, const int32_t *a, size_t n);
void vf_f32s(vocab_file *v, const char *key, const float *a, size_t n);
void vf_strs(vocab_file *v, const char *key, const gguf_str *a, size_t n);

/* Writes the file to `path`; vf_open keeps it in memory only and opens it. NULL: gguf_open failed.
 */
void vf_write(const vocab_file *v, const char *path);
gguf_file *vf_open(const vocab_file *v);
void vf_free(vocab_file *v);

/* A vocabulary as a test writes it down. */
typedef struct vocab_list {
    gguf_str text[1024];
    int32_t type[1024];
    float score[1024];
    size_t n;
    gguf_str merge[64];
    size_t n_merge;
    char pool[8192]; /* of the texts that are made here */
    size_t n_pool;
} vocab_list;

enum { VT_NORMAL = 1, VT_UNKNOWN, VT_CONTROL, VT_USER, VT_UNUSED, VT_BYTE };

/* Adds a token; returns its id. `text` must live on. */
int32_t vl_add(vocab_list *l, const char *text, int32_t type, float score);
/* The 256 tokens of single bytes: in byte-level spelling, or as <0x00> .. <0xFF>. */
void vl_add_bytes(vocab_list *l, bool bpe);
/* "a b": the merge, and the token "ab". */
void vl_add_merge(vocab_list *l, const char *merge);
/* Everything of `l` into `v`: model "gpt2" with `pre`, or "llama" if pre is NULL. */
void vl_write(const vocab_list *l, vocab_file *v, const char *pre);

#endif
