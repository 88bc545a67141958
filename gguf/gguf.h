/* gguf.h -- reading GGUF model files.
 *
 * A gguf_file is one model: a single file, or a set of shards opened through any one of them. It
 * is the header made safe: once gguf_open has succeeded, every string, array and tensor range that
 * it hands out lies inside its file, every tensor has a known type (ttx_dtype_get(..)->name is not
 * NULL), whole blocks, no zero dimension, and a size that does not overflow.
 *
 * Only the header is touched at open, whatever the size of the file. Everything handed out is a
 * borrowed view that lives until gguf_close. Names and metadata are copies and stay what they were;
 * tensor data is the file: reading it through `map` after somebody truncated the file is a SIGBUS,
 * which reading it through `fd` is not.
 */
#ifndef TTX_GGUF_H
#define TTX_GGUF_H

#include "dtype.h"
#include "err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct gguf_file gguf_file;

typedef enum gguf_type {
    GGUF_UINT8,
    GGUF_INT8,
    GGUF_UINT16,
    GGUF_INT16,
    GGUF_UINT32,
    GGUF_INT32,
    GGUF_FLOAT32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_UINT64,
    GGUF_INT64,
    GGUF_FLOAT64,
    GGUF_TYPE_COUNT
} gguf_type;

/* Bytes with a length: not NUL-terminated, may hold anything. */
typedef struct gguf_str {
    const char *s;
    uint64_t n;
} gguf_str;

/* One metadata pair. `data` points at the encoded value (unaligned, little-endian), in a private
 * copy of the header: what happens to the file afterwards cannot change what was checked. */
typedef struct gguf_kv {
    gguf_str key;
    gguf_type type;
    gguf_type elem;      /* of an array; otherwise equal to type */
    uint64_t n;          /* elements of an array; otherwise 1 */
    const uint8_t *data; /* the value; of an array: its first element */
    uint64_t bytes;      /* encoded size of the value, without type and count */
} gguf_kv;

typedef struct gguf_tensor {
    const char *name; /* NUL-terminated, no NUL inside */
    ttx_dtype type;
    uint32_t n_dims; /* 1..4 */
    uint64_t ne[4];  /* ne[0] is contiguous; absent dimensions are 1 */
    uint64_t n_elements;
    uint64_t offset; /* absolute, in its shard's file */
    uint64_t size;   /* bytes, without padding */
    uint64_t pad;    /* bytes from its end to the next tensor of its shard, or to the end of file */
    uint32_t shard;  /* from 0 */
    uint32_t index;  /* position in gguf_tensors */
} gguf_tensor;

/* One file of the set. */
typedef struct gguf_shard {
    const char *path;
    int fd;             /* open read-only; owned by the gguf_file */
    const uint8_t *map; /* the whole file, PROT_READ, MAP_SHARED; NULL never */
    uint64_t size;
    uint64_t data_offset; /* where tensor data starts */
    uint32_t version, alignment;
} gguf_shard;

/* Opens `path` and, if it is one shard of a set, its siblings beside it. On success the caller owns
 * *out. Errors: TTX_E_MODEL (damaged or not GGUF), TTX_E_RUNTIME (cannot be opened, no memory). */
int gguf_open(gguf_file **out, const char *path, ttx_err *err);
void gguf_close(gguf_file *f); /* NULL is fine */

uint32_t gguf_n_shards(const gguf_file *f);
const gguf_shard *gguf_get_shard(const gguf_file *f, uint32_t i);

/* Tensors in file order, shard by shard. */
uint32_t gguf_n_tensors(const gguf_file *f);
const gguf_tensor *gguf_tensors(const gguf_file *f);
/* NULL if there is none. Constant time. */
const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name);

/* Metadata in file order (of the first shard; the others only repeat or add split.*). */
uint32_t gguf_n_kv(const gguf_file *f);
const gguf_kv *gguf_kvs(const gguf_file *f);
const gguf_kv *gguf_find(const gguf_file *f, const char *key); /* NULL if there is none */

/* Typed access by key. Return 0 and set *v when the key is there with a fitting type and value
 * (integers of any width convert if the value fits; F32 and F64 convert to double; gguf_get_f64
 * takes integers too). Without the key: `required` ? TTX_E_MODEL : 0 with *v untouched. With a
 * wrong type or an unfitting value: TTX_E_MODEL. The message names file, key, expected and found.
 */
int gguf_get_u32(const gguf_file *f, const char *key, bool required, uint32_t *v, ttx_err *err);
int gguf_get_i64(const gguf_file *f, const char *key, bool required, int64_t *v, ttx_err *err);
int gguf_get_f64(const gguf_file *f, const char *key, bool required, double *v, ttx_err *err);
int gguf_get_bool(const gguf_file *f, const char *key, bool required, bool *v, ttx_err *err);
int gguf_get_str(const gguf_file *f, const char *key, bool required, gguf_str *v, ttx_err *err);
/* The array itself, checked to hold elements of `elem`. *kv is NULL if absent and not required. */
int gguf_get_array(const gguf_file *f, const char *key, gguf_type elem, bool required,
                   const gguf_kv **kv, ttx_err *err);

/* "uint32", "string" ... */
const char *gguf_type_name(gguf_type t);

/* Element i of a scalar (i = 0) or of an array, converted; the caller knows that it is numeric. */
int64_t gguf_elem_i64(const gguf_kv *kv, uint64_t i);
double gguf_elem_f64(const gguf_kv *kv, uint64_t i);
/* Walks an array of strings in order: *pos starts at 0 and is advanced. */
gguf_str gguf_next_str(const gguf_kv *kv, uint64_t *pos);
/* The same for an array of anything, arrays included: the next element as a pair without a key. */
gguf_kv gguf_next_elem(const gguf_kv *kv, uint64_t *pos);

/* Path of the file that was opened, for messages. */
const char *gguf_path(const gguf_file *f);

#endif
