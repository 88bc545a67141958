/* gguf_int.h -- what the files of the GGUF reader share.
 *
 * gguf_cursor.c  bounded reading of a header into memory of our own
 * gguf_read.c    the format: one file's header, parsed and checked
 * gguf_index.c   names to positions, in constant time
 * gguf_value.c   typed access to metadata
 * gguf.c         files and sets of shards: open, close, look up
 */
#ifndef TTX_GGUF_INT_H
#define TTX_GGUF_INT_H

#include "arena.h"
#include "gguf.h"

/* Limits of the reader. The format has few; these are far above every real file and keep what a
 * damaged one can cost small. */
enum {
    GGUF_MAX_NAME = 255,       /* bytes of a tensor name (ggml: 63) */
    GGUF_MAX_KEY = 65535,      /* bytes of a key (the specification's limit) */
    GGUF_MAX_DEPTH = 4,        /* arrays in arrays */
    GGUF_MAX_DIMS = 4,         /* dimensions of a tensor */
    GGUF_MIN_ALIGN = 8,        /* general.alignment: at least this (the specification's limit) */
    GGUF_MAX_ALIGN = 1 << 30,  /* and at most this */
    GGUF_DEFAULT_ALIGN = 32,   /* without the key */
    GGUF_MAX_HEADER = 1 << 30, /* bytes: vocabularies of today need 10 MB */
};

/* ---- gguf_index.c ---- */

/* Open addressing over the items of an array that the index does not own. */
typedef struct gguf_index {
    struct gguf_slot *slots; /* 1 << bits of them */
    uint32_t bits;
    const void *items;
    gguf_str (*name_of)(const void *items, uint32_t i);
} gguf_index;

#define GGUF_NONE UINT32_MAX /* no such item */

/* Fills *x with n items. If two of them share a name, *dup is the position of the second, otherwise
 * GGUF_NONE. Errors: no memory. */
int gguf_index_build(gguf_index *x, const void *items, uint32_t n,
                     gguf_str (*name_of)(const void *items, uint32_t i), uint32_t *dup,
                     ttx_err *err);
uint32_t gguf_index_find(const gguf_index *x, gguf_str name);
void gguf_index_free(gguf_index *x);

/* ---- gguf_cursor.c ---- */

/* Reads a file's header from the front into one buffer that grows with what is really consumed.
 * Positions are offsets in file and buffer alike; the buffer moves while it grows. The first error
 * wins: after it, every call fails at once. */
typedef struct gguf_cursor {
    const char *path;
    int fd;
    uint64_t size; /* of the file */
    uint8_t *buf;
    uint64_t have, pos; /* bytes in buf, and how many of them are consumed */
    int code;           /* of the first error */
    ttx_err *err;

    /* Where in the header we are, for messages: "tensor 'blk.0.attn_q.weight'", or "tensor 7" while
     * the name is not known. */
    const char *section; /* NULL: none yet */
    uint64_t index;
    char name[80]; /* as gguf_show gives it */
} gguf_cursor;

int gguf_cur_fail(gguf_cursor *c, ttx_code code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* n bytes at the returned address, valid until the next call; NULL after an error. `what` is named
 * in the message if the file ends before. */
const uint8_t *gguf_cur_take(gguf_cursor *c, uint64_t n, const char *what);
/* 0 after an error. */
uint32_t gguf_cur_u32(gguf_cursor *c, const char *what);
uint64_t gguf_cur_u64(gguf_cursor *c, const char *what);

/* Unaligned little-endian loads. */
static inline uint32_t gguf_le32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint64_t gguf_le64(const uint8_t *p) {
    return gguf_le32(p) | (uint64_t)gguf_le32(p + 4) << 32;
}

/* ---- gguf_value.c ---- */

/* Bytes of one value of a fixed-size type; 0 for strings and arrays. */
uint32_t gguf_type_size(gguf_type t);

/* A name from a file, fit for a one-line message: at most `cap` - 1 bytes, control characters and
 * bytes above 126 as '?', a long one cut and ended by "...". Returns buf. */
const char *gguf_show(char *buf, size_t cap, const char *s, uint64_t n);
/* The same for a path, which keeps its end and is shown as it is. */
const char *gguf_show_path(char *buf, size_t cap, const char *path);

enum { GGUF_SHOW_PATH = 100 };

/* ---- gguf_read.c ---- */

typedef struct gguf_part {
    gguf_shard pub;
    char *path;
    uint8_t *header; /* our copy of the file's header: what keys and values point into */
    gguf_kv *kvs;
    uint32_t n_kv, cap_kv;
    gguf_index keys;
    uint32_t first_tensor, n_tensors; /* in gguf_file.tensors */
} gguf_part;

struct gguf_file {
    char *path;
    ttx_arena arena; /* tensor names */
    gguf_part *parts;
    uint32_t n_parts, cap_parts;
    gguf_tensor *tensors;
    uint32_t n_tensors, cap_tensors;
    gguf_index by_name;
};

/* Parses and checks the header of part `shard`, whose fd, path and size are set; its tensors are
 * appended to f->tensors. */
int gguf_read_part(gguf_file *f, uint32_t shard, ttx_err *err);

const gguf_kv *gguf_part_find(const gguf_part *p, const char *key);

/* Room for one more item of `size` bytes in *items: grows by half. */
int gguf_grow(void **items, uint32_t n, uint32_t *cap, size_t size, const char *what, ttx_err *err);

#endif
