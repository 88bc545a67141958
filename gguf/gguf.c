/* gguf.c -- models as files: opening one file or a set of shards, closing, looking up.
 *
 * A set of shards is files NAME-00001-of-0000N.gguf in one folder. Each says in its metadata which
 * it is: split.no (from 0), split.count, and split.tensors.count, the sum over the set. The first
 * carries the model's metadata; the others carry the split.* keys and may repeat the rest, in which
 * case it must be the same: that is how shards of different models are told apart.
 */
#include "gguf_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- one file ---- */

/* `in_set`: a file that is not there is a damaged model, not a wrong argument. */
static int open_part(gguf_part *p, bool in_set, ttx_err *err) {
    char shown[GGUF_SHOW_PATH];
    gguf_show_path(shown, sizeof shown, p->path);
    /* O_NONBLOCK: do not wait for the other end of a pipe, only to refuse it. */
    p->pub.fd = open(p->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (p->pub.fd < 0 && errno == ENOENT && in_set)
        return ttx_fail(err, TTX_E_MODEL, "%s: this shard of the model is missing", shown);
    if (p->pub.fd < 0 || fstat(p->pub.fd, &st) != 0)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: %s", shown, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return ttx_fail(err, TTX_E_RUNTIME, "%s: expected a regular file, found a %s", shown,
                        S_ISDIR(st.st_mode) ? "directory" : "pipe or device");
    fcntl(p->pub.fd, F_SETFL, 0); /* io_uring takes O_NONBLOCK at its word, on files too */
    p->pub.size = (uint64_t)st.st_size;
    if (p->pub.size == 0) return ttx_fail(err, TTX_E_MODEL, "%s: header: the file is empty", shown);
    return 0;
}

static int map_part(gguf_part *p, ttx_err *err) {
    void *map = mmap(NULL, p->pub.size, PROT_READ, MAP_SHARED, p->pub.fd, 0);
    if (map == MAP_FAILED) {
        char shown[GGUF_SHOW_PATH];
        return ttx_fail(err, TTX_E_RUNTIME, "%s: mapping %llu bytes: %s",
                        gguf_show_path(shown, sizeof shown, p->path),
                        (unsigned long long)p->pub.size, strerror(errno));
    }
    p->pub.map = map;
    return 0;
}

static int add_part(gguf_file *f, const char *path, bool in_set, ttx_err *err) {
    int rc =
        gguf_grow((void **)&f->parts, f->n_parts, &f->cap_parts, sizeof *f->parts, "shards", err);
    if (rc) return rc;
    gguf_part *p = &f->parts[f->n_parts];
    *p = (gguf_part){.pub.fd = -1};
    f->n_parts++; /* from here on gguf_close takes care of it */
    p->path = strdup(path);
    if (!p->path) return ttx_fail_nomem(err, "a path", strlen(path) + 1);
    p->pub.path = p->path;
    if ((rc = open_part(p, in_set, err))) return rc;
    if ((rc = map_part(p, err))) return rc;
    return gguf_read_part(f, f->n_parts - 1, err);
}

static void drop_parts(gguf_file *f) {
    for (uint32_t i = 0; i < f->n_parts; i++) {
        gguf_part *p = &f->parts[i];
        if (p->pub.map) munmap((void *)p->pub.map, p->pub.size);
        if (p->pub.fd >= 0) close(p->pub.fd);
        gguf_index_free(&p->keys);
        free(p->kvs);
        free(p->header);
        free(p->path);
    }
    f->n_parts = 0;
    f->n_tensors = 0;
    ttx_arena_free(&f->arena);
}

/* ---- sets of shards ---- */

/* "NAME-00002-of-00003.gguf" in parts. */
typedef struct shard_name {
    int stem; /* length of "NAME", folders included */
    unsigned no, count;
} shard_name;

static bool parse_shard_name(const char *path, shard_name *name) {
    static const char shape[] = "-00000-of-00000.gguf";
    size_t n = strlen(path), tail = sizeof shape - 1;
    if (n < tail || n > INT32_MAX) return false;
    const char *s = path + n - tail;
    for (size_t i = 0; i < tail; i++)
        if (shape[i] == '0' ? s[i] < '0' || s[i] > '9' : s[i] != shape[i]) return false;
    name->stem = (int)(n - tail);
    name->no = (unsigned)strtoul(s + 1, NULL, 10);
    name->count = (unsigned)strtoul(s + 10, NULL, 10);
    return true;
}

/* What a shard says of itself; count 0: it is no shard, other values -1: not said. */
typedef struct split_keys {
    int64_t no, count, tensors;
} split_keys;

static int64_t split_value(const gguf_part *p, const char *key) {
    const gguf_kv *kv = gguf_part_find(p, key);
    bool fits = kv && kv->type != GGUF_ARRAY && kv->type != GGUF_STRING;
    return fits ? gguf_elem_i64(kv, 0) : -1;
}

/* The key must say 0..max. */
static int bad_split(const gguf_part *p, const char *key, int64_t max, int64_t found,
                     ttx_err *err) {
    char path[GGUF_SHOW_PATH], text[24] = "none";
    if (found >= 0) snprintf(text, sizeof text, "%lld", (long long)found);
    return ttx_fail(err, TTX_E_MODEL, "%s: key '%s': expected an integer of 0..%lld, found %s",
                    gguf_show_path(path, sizeof path, p->path), key, (long long)max, text);
}

static int read_split(const gguf_part *p, split_keys *k, ttx_err *err) {
    *k = (split_keys){.count = 0};
    if (!gguf_part_find(p, "split.count")) return 0;
    k->count = split_value(p, "split.count");
    k->no = split_value(p, "split.no");
    k->tensors = split_value(p, "split.tensors.count");
    if (k->count < 0 || k->count > UINT16_MAX)
        return bad_split(p, "split.count", UINT16_MAX, k->count, err);
    if (k->count > 1 && (k->no < 0 || k->no >= k->count))
        return bad_split(p, "split.no", k->count - 1, k->no, err);
    return 0;
}

/* A pair that shard `p` repeats must be as it is in the first shard; only split.no differs. */
static int check_same_model(const gguf_part *first, const gguf_part *p, ttx_err *err) {
    for (uint32_t i = 0; i < p->n_kv; i++) {
        const gguf_kv *b = &p->kvs[i];
        uint32_t at = gguf_index_find(&first->keys, b->key);
        if (at == GGUF_NONE || (b->key.n == 8 && memcmp(b->key.s, "split.no", 8) == 0)) continue;
        const gguf_kv *a = &first->kvs[at];
        if (a->type == b->type && a->elem == b->elem && a->n == b->n && a->bytes == b->bytes &&
            memcmp(a->data, b->data, a->bytes) == 0)
            continue;
        char path[GGUF_SHOW_PATH], key[80];
        return ttx_fail(err, TTX_E_MODEL, "%s: key '%s': differs from shard 1: not of one model",
                        gguf_show_path(path, sizeof path, p->path),
                        gguf_show(key, sizeof key, b->key.s, b->key.n));
    }
    return 0;
}

/* Opens shard i of the set and checks that it belongs there. */
static int add_shard(gguf_file *f, const shard_name *name, uint32_t i, const split_keys *set,
                     ttx_err *err) {
    char *path = NULL;
    if (asprintf(&path, "%.*s-%05u-of-%05u.gguf", name->stem, f->path, i + 1, name->count) < 0)
        return ttx_fail_nomem(err, "a path", strlen(f->path));
    int rc = add_part(f, path, true, err);
    free(path);
    if (rc) return rc;
    const gguf_part *p = &f->parts[i];
    char shown[GGUF_SHOW_PATH];
    split_keys k;
    if ((rc = read_split(p, &k, err))) return rc;
    if (k.count == 0)
        return ttx_fail(err, TTX_E_MODEL, "%s: expected shard %u of %lld, found a whole model",
                        gguf_show_path(shown, sizeof shown, p->path), i + 1, (long long)set->count);
    if (k.count != set->count || k.no != i)
        return ttx_fail(err, TTX_E_MODEL, "%s: expected shard %u of %lld, found %lld of %lld",
                        gguf_show_path(shown, sizeof shown, p->path), i + 1, (long long)set->count,
                        (long long)k.no + 1, (long long)k.count);
    return check_same_model(&f->parts[0], p, err);
}

/* Part 0 is open and is one of several: opens the others, in order. */
static int open_set(gguf_file *f, const split_keys *set, ttx_err *err) {
    char shown[GGUF_SHOW_PATH];
    gguf_show_path(shown, sizeof shown, f->path);
    shard_name name;
    if (!parse_shard_name(f->path, &name) || name.count != set->count || name.no != set->no + 1)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: shard %lld of %lld: expected a name that ends in "
                        "-%05lld-of-%05lld.gguf",
                        shown, (long long)set->no + 1, (long long)set->count,
                        (long long)set->no + 1, (long long)set->count);
    uint32_t have = 1;
    if (set->no != 0) { /* read again later, in its place: a further shard's header is small */
        drop_parts(f);
        have = 0;
    }
    for (uint32_t i = have; i < set->count; i++) {
        int rc = add_shard(f, &name, i, set, err);
        if (rc) return rc;
    }
    if (set->tensors != f->n_tensors)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: key 'split.tensors.count': says %lld, the %lld shards hold %u", shown,
                        (long long)set->tensors, (long long)set->count, f->n_tensors);
    return 0;
}

/* ---- the model ---- */

static gguf_str tensor_name(const void *items, uint32_t i) {
    const char *name = ((const gguf_tensor *)items)[i].name;
    return (gguf_str){name, strlen(name)};
}

static int index_tensors(gguf_file *f, ttx_err *err) {
    uint32_t dup;
    int rc = gguf_index_build(&f->by_name, f->tensors, f->n_tensors, tensor_name, &dup, err);
    if (rc || dup == GGUF_NONE) return rc;
    const gguf_tensor *t = &f->tensors[dup];
    char path[GGUF_SHOW_PATH], name[80];
    return ttx_fail(err, TTX_E_MODEL, "%s: tensor '%s': appears twice",
                    gguf_show_path(path, sizeof path, f->parts[t->shard].path),
                    gguf_show(name, sizeof name, t->name, strlen(t->name)));
}

int gguf_open(gguf_file **out, const char *path, ttx_err *err) {
    ttx_err unseen = {0};
    if (!err) err = &unseen;
    int rc;
    gguf_file *f = calloc(1, sizeof *f);
    if (!f || !(f->path = strdup(path))) {
        rc = ttx_fail_nomem(err, "a model file", sizeof *f);
        goto error;
    }
    if ((rc = add_part(f, path, false, err))) goto error;
    split_keys set;
    if ((rc = read_split(&f->parts[0], &set, err))) goto error;
    if (set.count > 1 && (rc = open_set(f, &set, err))) goto error;
    if ((rc = index_tensors(f, err))) goto error;
    *out = f;
    return 0;
error:
    gguf_close(f);
    return rc;
}

void gguf_close(gguf_file *f) {
    if (!f) return;
    drop_parts(f);
    gguf_index_free(&f->by_name);
    free(f->parts);
    free(f->tensors);
    free(f->path);
    free(f);
}

uint32_t gguf_n_shards(const gguf_file *f) {
    return f->n_parts;
}

const gguf_shard *gguf_get_shard(const gguf_file *f, uint32_t i) {
    return &f->parts[i].pub;
}

uint32_t gguf_n_tensors(const gguf_file *f) {
    return f->n_tensors;
}

const gguf_tensor *gguf_tensors(const gguf_file *f) {
    return f->tensors;
}

const gguf_tensor *gguf_find_tensor(const gguf_file *f, const char *name) {
    uint32_t i = gguf_index_find(&f->by_name, (gguf_str){name, strlen(name)});
    return i == GGUF_NONE ? NULL : &f->tensors[i];
}

uint32_t gguf_n_kv(const gguf_file *f) {
    return f->parts[0].n_kv;
}

const gguf_kv *gguf_kvs(const gguf_file *f) {
    return f->parts[0].kvs;
}

const gguf_kv *gguf_find(const gguf_file *f, const char *key) {
    return gguf_part_find(&f->parts[0], key);
}

const char *gguf_path(const gguf_file *f) {
    return f->path;
}
