/* gguf_value.c -- typed access to metadata: conversions that cannot lose anything, and messages
 * that name file, key, what was expected and what was found. */
#include "gguf_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    uint8_t size;
} types[GGUF_TYPE_COUNT] = {
    [GGUF_UINT8] = {"uint8", 1},     [GGUF_INT8] = {"int8", 1},     [GGUF_UINT16] = {"uint16", 2},
    [GGUF_INT16] = {"int16", 2},     [GGUF_UINT32] = {"uint32", 4}, [GGUF_INT32] = {"int32", 4},
    [GGUF_FLOAT32] = {"float32", 4}, [GGUF_BOOL] = {"bool", 1},     [GGUF_STRING] = {"string", 0},
    [GGUF_ARRAY] = {"array", 0},     [GGUF_UINT64] = {"uint64", 8}, [GGUF_INT64] = {"int64", 8},
    [GGUF_FLOAT64] = {"float64", 8},
};

const char *gguf_type_name(gguf_type t) {
    return (uint32_t)t < GGUF_TYPE_COUNT ? types[t].name : "unknown";
}

uint32_t gguf_type_size(gguf_type t) {
    return types[t].size;
}

const char *gguf_show(char *buf, size_t cap, const char *s, uint64_t n) {
    bool cut = n > cap - 1;
    if (cut) n = cap - 4;
    for (uint64_t i = 0; i < n; i++) buf[i] = s[i] >= ' ' && s[i] <= '~' ? s[i] : '?';
    strcpy(buf + n, cut ? "..." : "");
    return buf;
}

const char *gguf_show_path(char *buf, size_t cap, const char *path) {
    size_t n = strlen(path);
    bool cut = n > cap - 1;
    snprintf(buf, cap, "%s%s", cut ? "..." : "", cut ? path + n - (cap - 4) : path);
    return buf;
}

/* ---- elements ---- */

static bool is_integer(gguf_type t) {
    return t != GGUF_BOOL && t != GGUF_STRING && t != GGUF_ARRAY && t != GGUF_FLOAT32 &&
           t != GGUF_FLOAT64;
}

/* Raw bits of a fixed-size element, zero-extended. */
static uint64_t raw(const gguf_kv *kv, uint64_t i) {
    uint32_t size = types[kv->elem].size;
    uint64_t v = 0;
    memcpy(&v, kv->data + i * size, size); /* x86-64 is little-endian, as the file is */
    return v;
}

/* Without the undefined behaviour of a plain cast. */
static int64_t saturate(double x) {
    if (x >= 0x1p63) return INT64_MAX;
    return x >= -0x1p63 ? (int64_t)x : isnan(x) ? 0 : INT64_MIN;
}

int64_t gguf_elem_i64(const gguf_kv *kv, uint64_t i) {
    uint64_t v = raw(kv, i);
    switch (kv->elem) {
    case GGUF_INT8: return (int8_t)v;
    case GGUF_INT16: return (int16_t)v;
    case GGUF_INT32: return (int32_t)v;
    case GGUF_FLOAT32:
    case GGUF_FLOAT64: return saturate(gguf_elem_f64(kv, i));
    default: return (int64_t)v;
    }
}

double gguf_elem_f64(const gguf_kv *kv, uint64_t i) {
    uint64_t v = raw(kv, i);
    if (kv->elem == GGUF_FLOAT32) {
        uint32_t bits = (uint32_t)v;
        float x;
        memcpy(&x, &bits, sizeof x);
        return (double)x;
    }
    if (kv->elem == GGUF_FLOAT64) {
        double x;
        memcpy(&x, &v, sizeof x);
        return x;
    }
    return kv->elem == GGUF_UINT64 ? (double)v : (double)gguf_elem_i64(kv, i);
}

gguf_str gguf_next_str(const gguf_kv *kv, uint64_t *pos) {
    const uint8_t *p = kv->data + *pos;
    uint64_t n = gguf_le64(p);
    *pos += 8 + n;
    return (gguf_str){(const char *)p + 8, n};
}

/* Encoded size of the value of type t at p. */
static uint64_t encoded_bytes(gguf_type t, const uint8_t *p) {
    if (t == GGUF_STRING) return 8 + gguf_le64(p);
    if (t != GGUF_ARRAY) return types[t].size;
    gguf_type elem = gguf_le32(p);
    uint64_t n = gguf_le64(p + 4), bytes = 12;
    if (types[elem].size) return bytes + n * types[elem].size;
    for (uint64_t i = 0; i < n; i++) bytes += encoded_bytes(elem, p + bytes);
    return bytes;
}

gguf_kv gguf_next_elem(const gguf_kv *kv, uint64_t *pos) {
    const uint8_t *p = kv->data + *pos;
    gguf_kv e = {.type = kv->elem, .elem = kv->elem, .n = 1, .data = p};
    e.bytes = encoded_bytes(e.type, p);
    *pos += e.bytes;
    if (e.type == GGUF_ARRAY) {
        e.elem = gguf_le32(p);
        e.n = gguf_le64(p + 4);
        e.data += 12;
        e.bytes -= 12;
    }
    return e;
}

/* ---- by key ---- */

/* Finds the key. *kv is NULL with 0 returned if it is absent and need not be there. */
static int find(const gguf_file *f, const char *key, bool required, const char *expected,
                const gguf_kv **kv, ttx_err *err) {
    *kv = gguf_find(f, key);
    if (*kv || !required) return 0;
    char path[GGUF_SHOW_PATH];
    return ttx_fail(err, TTX_E_MODEL, "%s: key '%s': expected %s, found none",
                    gguf_show_path(path, sizeof path, f->path), key, expected);
}

static int wrong(const gguf_file *f, const gguf_kv *kv, const char *key, const char *expected,
                 ttx_err *err) {
    char path[GGUF_SHOW_PATH], found[64];
    if (kv->type == GGUF_ARRAY)
        snprintf(found, sizeof found, "array of %s", gguf_type_name(kv->elem));
    else if (is_integer(kv->type) && kv->type == GGUF_UINT64)
        snprintf(found, sizeof found, "%llu", (unsigned long long)gguf_elem_i64(kv, 0));
    else if (is_integer(kv->type))
        snprintf(found, sizeof found, "%lld", (long long)gguf_elem_i64(kv, 0));
    else
        snprintf(found, sizeof found, "%s", gguf_type_name(kv->type));
    return ttx_fail(err, TTX_E_MODEL, "%s: key '%s': expected %s, found %s",
                    gguf_show_path(path, sizeof path, f->path), key, expected, found);
}

int gguf_get_i64(const gguf_file *f, const char *key, bool required, int64_t *v, ttx_err *err) {
    static const char expected[] = "a 64-bit integer";
    const gguf_kv *kv;
    int rc = find(f, key, required, expected, &kv, err);
    if (rc || !kv) return rc;
    if (!is_integer(kv->type) || (kv->type == GGUF_UINT64 && raw(kv, 0) > INT64_MAX))
        return wrong(f, kv, key, expected, err);
    *v = gguf_elem_i64(kv, 0);
    return 0;
}

int gguf_get_u32(const gguf_file *f, const char *key, bool required, uint32_t *v, ttx_err *err) {
    static const char expected[] = "an integer of 0..4294967295";
    const gguf_kv *kv;
    int rc = find(f, key, required, expected, &kv, err);
    if (rc || !kv) return rc;
    int64_t x = is_integer(kv->type) ? gguf_elem_i64(kv, 0) : -1;
    if (x < 0 || x > UINT32_MAX) return wrong(f, kv, key, expected, err);
    *v = (uint32_t)x;
    return 0;
}

int gguf_get_f64(const gguf_file *f, const char *key, bool required, double *v, ttx_err *err) {
    static const char expected[] = "a number";
    const gguf_kv *kv;
    int rc = find(f, key, required, expected, &kv, err);
    if (rc || !kv) return rc;
    if (!is_integer(kv->type) && kv->type != GGUF_FLOAT32 && kv->type != GGUF_FLOAT64)
        return wrong(f, kv, key, expected, err);
    *v = gguf_elem_f64(kv, 0);
    return 0;
}

int gguf_get_bool(const gguf_file *f, const char *key, bool required, bool *v, ttx_err *err) {
    static const char expected[] = "a bool";
    const gguf_kv *kv;
    int rc = find(f, key, required, expected, &kv, err);
    if (rc || !kv) return rc;
    if (kv->type != GGUF_BOOL) return wrong(f, kv, key, expected, err);
    *v = kv->data[0] != 0;
    return 0;
}

int gguf_get_str(const gguf_file *f, const char *key, bool required, gguf_str *v, ttx_err *err) {
    static const char expected[] = "a string";
    const gguf_kv *kv;
    int rc = find(f, key, required, expected, &kv, err);
    if (rc || !kv) return rc;
    if (kv->type != GGUF_STRING) return wrong(f, kv, key, expected, err);
    uint64_t pos = 0;
    *v = gguf_next_str(kv, &pos);
    return 0;
}

int gguf_get_array(const gguf_file *f, const char *key, gguf_type elem, bool required,
                   const gguf_kv **kv, ttx_err *err) {
    char expected[40];
    snprintf(expected, sizeof expected, "an array of %s", gguf_type_name(elem));
    int rc = find(f, key, required, expected, kv, err);
    if (rc || !*kv) return rc;
    const gguf_kv *found = *kv;
    if (found->type == GGUF_ARRAY && found->elem == elem) return 0;
    *kv = NULL;
    return wrong(f, found, key, expected, err);
}
