/* gguf_read.c -- one GGUF file's header: the format, and every check that makes it safe.
 *
 * All numbers are little-endian, nothing is padded except where drawn. A string is
 * u64 n, then n bytes without a terminator.
 *
 *   0   "GGUF"
 *   4   u32 version          2 or 3 (the same layout; 3 only allows big-endian files besides)
 *   8   u64 n_tensors
 *   16  u64 n_kv
 *   24  n_kv times:          string key
 *                            u32 type            gguf_type
 *                            value               of type ARRAY: u32 element type, u64 n, n values;
 *                                                bool: one byte, 0 or 1
 *       n_tensors times:     string name
 *                            u32 n_dims          1..4
 *                            u64 ne[n_dims]      ne[0] is contiguous in memory
 *                            u32 type            ttx_dtype
 *                            u64 offset          from data_offset, a multiple of the alignment
 *       padding to general.alignment (u32, a power of two; 32 without the key)
 *   data_offset:             tensor data; the gaps between tensors are padding
 *
 * What is checked is what gguf.h promises, and one thing more: tensors of a file may not overlap.
 * Tables grow with what was really read, never by a count that a file claims.
 *
 * Source: the GGUF specification in the repository of ggml.
 */
#include "gguf_int.h"

#include <stdlib.h>
#include <string.h>

typedef unsigned long long ull;

/* Smallest encodings, to refuse absurd counts before reading on. */
enum {
    KV_MIN_BYTES = 8 + 1 + 4 + 1,
    TENSOR_MIN_BYTES = 8 + 1 + 4 + 8 + 4 + 8,
    STRING_MIN_BYTES = 8,
    ARRAY_MIN_BYTES = 4 + 8,
};

int gguf_grow(void **items, uint32_t n, uint32_t *cap, size_t size, const char *what,
              ttx_err *err) {
    if (n < *cap) return 0;
    uint64_t want = (uint64_t)n + n / 2 + 64;
    if (want > UINT32_MAX / 2) return ttx_fail(err, TTX_E_MODEL, "too many %s", what);
    void *p = realloc(*items, want * size);
    if (!p) return ttx_fail_nomem(err, what, want * size);
    *items = p;
    *cap = (uint32_t)want;
    return 0;
}

static uint64_t left(const gguf_cursor *c) {
    return c->size - c->pos;
}

/* ---- metadata ---- */

/* Steps over n values of type t and checks them. */
static int skip_values(gguf_cursor *c, uint32_t t, uint64_t n, int depth) {
    uint32_t size = t == GGUF_STRING      ? STRING_MIN_BYTES
                    : t == GGUF_ARRAY     ? ARRAY_MIN_BYTES
                    : t < GGUF_TYPE_COUNT ? gguf_type_size(t)
                                          : 0;
    if (!size)
        return gguf_cur_fail(c, TTX_E_MODEL, "value type %u, expected 0..%d", t,
                             GGUF_TYPE_COUNT - 1);
    if (n > left(c) / size)
        return gguf_cur_fail(c, TTX_E_MODEL, "%llu values of %s at byte %llu, file has %llu bytes",
                             (ull)n, gguf_type_name(t), (ull)c->pos, (ull)c->size);
    if (t == GGUF_STRING) {
        for (uint64_t i = 0; i < n && !c->code; i++)
            gguf_cur_take(c, gguf_cur_u64(c, "a string's length"), "a string");
    } else if (t == GGUF_ARRAY) {
        if (depth >= GGUF_MAX_DEPTH)
            return gguf_cur_fail(c, TTX_E_MODEL, "arrays nested deeper than %d", GGUF_MAX_DEPTH);
        for (uint64_t i = 0; i < n && !c->code; i++) {
            uint32_t elem = gguf_cur_u32(c, "an array's type");
            uint64_t count = gguf_cur_u64(c, "an array's length");
            if (!c->code) skip_values(c, elem, count, depth + 1);
        }
    } else {
        const uint8_t *p = gguf_cur_take(c, n * size, "the value");
        for (uint64_t i = 0; p && t == GGUF_BOOL && i < n; i++)
            if (p[i] > 1)
                return gguf_cur_fail(c, TTX_E_MODEL, "bool holds %u, expected 0 or 1", p[i]);
    }
    return c->code;
}

/* Until rebase_kvs, addresses in *kv are positions in the buffer, which still moves. */
static int read_kv(gguf_cursor *c, gguf_kv *kv) {
    c->name[0] = 0;
    uint64_t n = gguf_cur_u64(c, "the key's length");
    if (!c->code && (n == 0 || n > GGUF_MAX_KEY))
        return gguf_cur_fail(c, TTX_E_MODEL, "key of %llu bytes, expected 1..%d", (ull)n,
                             GGUF_MAX_KEY);
    kv->key = (gguf_str){(const char *)(uintptr_t)c->pos, n};
    const uint8_t *key = gguf_cur_take(c, n, "the key");
    if (!key) return c->code;
    c->section = "key";
    gguf_show(c->name, sizeof c->name, (const char *)key, n);

    uint32_t type = gguf_cur_u32(c, "its type");
    if (c->code) return c->code;
    kv->n = 1;
    if (type == GGUF_ARRAY) {
        kv->elem = gguf_cur_u32(c, "the array's type");
        kv->n = gguf_cur_u64(c, "the array's length");
        if (c->code) return c->code;
    } else {
        kv->elem = type;
    }
    kv->type = type;
    kv->data = (const uint8_t *)(uintptr_t)c->pos;
    uint64_t start = c->pos;
    if (skip_values(c, kv->elem, kv->n, type == GGUF_ARRAY)) return c->code;
    kv->bytes = c->pos - start;
    return 0;
}

static int read_kvs(gguf_cursor *c, gguf_part *p, uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        c->section = "metadata pair";
        c->index = i;
        c->code = gguf_grow((void **)&p->kvs, p->n_kv, &p->cap_kv, sizeof *p->kvs, "metadata pairs",
                            c->err);
        if (c->code) return c->code;
        if (read_kv(c, &p->kvs[p->n_kv])) return c->code;
        p->n_kv++;
    }
    return 0;
}

/* The buffer has come to rest: positions become addresses. */
static void rebase_kvs(gguf_part *p) {
    for (uint32_t i = 0; i < p->n_kv; i++) {
        gguf_kv *kv = &p->kvs[i];
        kv->key.s = (const char *)p->header + (uintptr_t)kv->key.s;
        kv->data = p->header + (uintptr_t)kv->data;
    }
}

static gguf_str kv_name(const void *items, uint32_t i) {
    return ((const gguf_kv *)items)[i].key;
}

const gguf_kv *gguf_part_find(const gguf_part *p, const char *key) {
    uint32_t i = gguf_index_find(&p->keys, (gguf_str){key, strlen(key)});
    return i == GGUF_NONE ? NULL : &p->kvs[i];
}

/* ---- tensors ---- */

/* Dimensions and type: n_elements and size without overflow. */
static int read_shape(gguf_cursor *c, gguf_tensor *t) {
    t->n_dims = gguf_cur_u32(c, "the number of dimensions");
    if (!c->code && (t->n_dims == 0 || t->n_dims > GGUF_MAX_DIMS))
        return gguf_cur_fail(c, TTX_E_MODEL, "%u dimensions, expected 1..%d", t->n_dims,
                             GGUF_MAX_DIMS);
    t->n_elements = 1;
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++) {
        t->ne[i] = i < t->n_dims ? gguf_cur_u64(c, "a dimension") : 1;
        if (c->code) return c->code;
        if (t->ne[i] == 0) return gguf_cur_fail(c, TTX_E_MODEL, "dimension %u is 0", i);
        if (__builtin_mul_overflow(t->n_elements, t->ne[i], &t->n_elements) ||
            t->n_elements > INT64_MAX)
            return gguf_cur_fail(c, TTX_E_MODEL, "the product of its dimensions overflows");
    }
    uint32_t type = gguf_cur_u32(c, "its type");
    if (c->code) return c->code;
    const ttx_dtype_info *info = ttx_dtype_get(type);
    if (!info->name) return gguf_cur_fail(c, TTX_E_MODEL, "type %u is retired or unknown", type);
    t->type = type;
    if (t->ne[0] % info->block)
        return gguf_cur_fail(c, TTX_E_MODEL, "rows of %llu elements, %s packs blocks of %u",
                             (ull)t->ne[0], info->name, info->block);
    if (__builtin_mul_overflow(t->n_elements / info->block, (uint64_t)info->bytes, &t->size) ||
        t->size > INT64_MAX)
        return gguf_cur_fail(c, TTX_E_MODEL, "its size overflows");
    return 0;
}

static int read_tensor(gguf_cursor *c, ttx_arena *names, gguf_tensor *t) {
    c->name[0] = 0;
    uint64_t n = gguf_cur_u64(c, "the name's length");
    if (!c->code && (n == 0 || n > GGUF_MAX_NAME))
        return gguf_cur_fail(c, TTX_E_MODEL, "name of %llu bytes, expected 1..%d", (ull)n,
                             GGUF_MAX_NAME);
    const char *name = (const char *)gguf_cur_take(c, n, "the name");
    if (!name) return c->code;
    gguf_show(c->name, sizeof c->name, name, n);
    if (memchr(name, 0, n)) return gguf_cur_fail(c, TTX_E_MODEL, "its name holds a zero byte");
    t->name = ttx_arena_strndup(names, name, n);
    if (!t->name) return c->code = ttx_fail_nomem(c->err, "tensor names", n);
    if (read_shape(c, t)) return c->code;
    t->offset = gguf_cur_u64(c, "its offset"); /* from data_offset, until place_tensors */
    return c->code;
}

static int read_tensors(gguf_cursor *c, gguf_file *f, uint32_t shard, uint64_t n) {
    gguf_part *p = &f->parts[shard];
    p->first_tensor = f->n_tensors;
    for (uint64_t i = 0; i < n; i++) {
        c->section = "tensor";
        c->index = i;
        c->code = gguf_grow((void **)&f->tensors, f->n_tensors, &f->cap_tensors, sizeof *f->tensors,
                            "tensors", c->err);
        if (c->code) return c->code;
        gguf_tensor *t = &f->tensors[f->n_tensors];
        *t = (gguf_tensor){.shard = shard, .index = f->n_tensors};
        if (read_tensor(c, &f->arena, t)) return c->code;
        f->n_tensors++;
    }
    p->n_tensors = f->n_tensors - p->first_tensor;
    return 0;
}

/* ---- where the data lies ---- */

static int read_alignment(gguf_cursor *c, gguf_part *p) {
    const gguf_kv *kv = gguf_part_find(p, "general.alignment");
    p->pub.alignment = GGUF_DEFAULT_ALIGN;
    if (!kv) return 0;
    c->section = "key";
    gguf_show(c->name, sizeof c->name, kv->key.s, kv->key.n);
    if (kv->type != GGUF_UINT32)
        return gguf_cur_fail(c, TTX_E_MODEL, "expected uint32, found %s", gguf_type_name(kv->type));
    uint32_t a = gguf_le32(kv->data);
    if (a < GGUF_MIN_ALIGN || a > GGUF_MAX_ALIGN || (a & (a - 1)))
        return gguf_cur_fail(c, TTX_E_MODEL, "expected a power of two in %d..%d, found %u",
                             GGUF_MIN_ALIGN, GGUF_MAX_ALIGN, a);
    p->pub.alignment = a;
    return 0;
}

/* Makes t->offset absolute and checks it against the file. */
static int place_tensor(gguf_cursor *c, const gguf_shard *s, gguf_tensor *t) {
    gguf_show(c->name, sizeof c->name, t->name, strlen(t->name));
    if (t->offset % s->alignment)
        return gguf_cur_fail(c, TTX_E_MODEL, "offset %llu, expected a multiple of %u",
                             (ull)t->offset, s->alignment);
    uint64_t end;
    if (__builtin_add_overflow(t->offset, s->data_offset, &t->offset) ||
        __builtin_add_overflow(t->offset, t->size, &end))
        return gguf_cur_fail(c, TTX_E_MODEL, "its offset overflows");
    if (end > s->size)
        return gguf_cur_fail(c, TTX_E_MODEL, "needs bytes %llu..%llu, file has %llu",
                             (ull)t->offset, (ull)end, (ull)s->size);
    return 0;
}

static int by_offset(const void *a, const void *b, void *tensors) {
    const gguf_tensor *t = tensors;
    uint64_t x = t[*(const uint32_t *)a].offset, y = t[*(const uint32_t *)b].offset;
    return (x > y) - (x < y);
}

/* Fills in t->pad of the part's tensors, of which order[] gives the order in the file (NULL: as
 * they stand), and refuses overlaps. */
static int measure_gaps(gguf_cursor *c, const gguf_shard *s, gguf_tensor *tensors, uint32_t n,
                        const uint32_t *order) {
    for (uint32_t i = 0; i < n; i++) {
        gguf_tensor *t = &tensors[order ? order[i] : i];
        gguf_tensor *next = i + 1 < n ? &tensors[order ? order[i + 1] : i + 1] : NULL;
        uint64_t end = t->offset + t->size, stop = next ? next->offset : s->size;
        if (next && stop < end) {
            gguf_show(c->name, sizeof c->name, next->name, strlen(next->name));
            char other[80];
            return gguf_cur_fail(c, TTX_E_MODEL, "starts at byte %llu, inside tensor '%s'",
                                 (ull)next->offset,
                                 gguf_show(other, sizeof other, t->name, strlen(t->name)));
        }
        t->pad = stop - end;
    }
    return 0;
}

static int place_tensors(gguf_cursor *c, gguf_file *f, gguf_part *p) {
    uint32_t n = p->n_tensors;
    if (n == 0) return 0;
    gguf_tensor *t = f->tensors + p->first_tensor;
    bool sorted = true;
    c->section = "tensor";
    for (uint32_t i = 0; i < n; i++) {
        if (place_tensor(c, &p->pub, &t[i])) return c->code;
        sorted &= i == 0 || t[i - 1].offset <= t[i].offset;
    }
    if (sorted) return measure_gaps(c, &p->pub, t, n, NULL);

    uint32_t *order = malloc((size_t)n * sizeof *order);
    if (!order) return c->code = ttx_fail_nomem(c->err, "the order of tensors", n * sizeof *order);
    for (uint32_t i = 0; i < n; i++) order[i] = i;
    qsort_r(order, n, sizeof *order, by_offset, t);
    measure_gaps(c, &p->pub, t, n, order);
    free(order);
    return c->code;
}

/* ---- the whole ---- */

static int read_version(gguf_cursor *c, gguf_part *p) {
    const uint8_t *magic = gguf_cur_take(c, 4, "the magic");
    if (!magic) return c->code;
    if (memcmp(magic, "GGUF", 4) != 0)
        return gguf_cur_fail(c, TTX_E_MODEL,
                             "not a GGUF file: starts with bytes %02x %02x %02x %02x, expected "
                             "47 47 55 46",
                             magic[0], magic[1], magic[2], magic[3]);
    uint32_t v = gguf_cur_u32(c, "the version");
    if (c->code) return c->code;
    if (v && !(v & 0xffff))
        return gguf_cur_fail(c, TTX_E_MODEL, "a big-endian file; expected little-endian");
    if (v != 2 && v != 3)
        return gguf_cur_fail(c, TTX_E_MODEL, "GGUF version %u, expected 2 or 3", v);
    p->pub.version = v;
    return 0;
}

/* Counts, pairs, tensors: everything up to the padding before the data. */
static int read_tables(gguf_cursor *c, gguf_file *f, uint32_t shard) {
    gguf_part *p = &f->parts[shard];
    if (read_version(c, p)) return c->code;
    uint64_t n_tensors = gguf_cur_u64(c, "the number of tensors");
    uint64_t n_kv = gguf_cur_u64(c, "the number of metadata pairs");
    if (c->code) return c->code;
    if (n_kv > left(c) / KV_MIN_BYTES)
        return gguf_cur_fail(c, TTX_E_MODEL, "%llu metadata pairs cannot fit in %llu bytes",
                             (ull)n_kv, (ull)left(c));
    if (n_tensors > left(c) / TENSOR_MIN_BYTES)
        return gguf_cur_fail(c, TTX_E_MODEL, "%llu tensors cannot fit in %llu bytes",
                             (ull)n_tensors, (ull)left(c));
    if (read_kvs(c, p, n_kv)) return c->code;
    return read_tensors(c, f, shard, n_tensors);
}

int gguf_read_part(gguf_file *f, uint32_t shard, ttx_err *err) {
    gguf_part *p = &f->parts[shard];
    gguf_cursor c = {.path = p->path, .fd = p->pub.fd, .size = p->pub.size, .err = err};
    read_tables(&c, f, shard);
    p->header = c.buf; /* owned by the part from here on, also after an error */
    if (c.code) return c.code;
    uint8_t *exact = realloc(p->header, c.pos); /* gives back what was read too far */
    if (exact) p->header = c.buf = exact;
    rebase_kvs(p);

    uint32_t dup;
    int rc = gguf_index_build(&p->keys, p->kvs, p->n_kv, kv_name, &dup, err);
    if (rc) return rc;
    if (dup != GGUF_NONE) {
        c.section = "key";
        gguf_show(c.name, sizeof c.name, p->kvs[dup].key.s, p->kvs[dup].key.n);
        return gguf_cur_fail(&c, TTX_E_MODEL, "appears twice");
    }
    if (read_alignment(&c, p)) return c.code;
    uint64_t a = p->pub.alignment;
    p->pub.data_offset = (c.pos + a - 1) & ~(a - 1);
    return place_tensors(&c, f, p);
}
