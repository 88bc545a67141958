/* gguf_test.c -- the reader's interface: what golden files and the dump cannot see from outside.
 *
 * Writes its models itself, into a memory file that is opened by its path under /proc.
 */
#include "check_harness.h"
#include "component.h"
#include "gguf.h"
#include "io_picture.h"

#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int failures;

/* ---- a writer of bytes ---- */

static uint8_t file[1 << 17];
static size_t used;

static void put(const void *p, size_t n) {
    memcpy(file + used, p, n);
    used += n;
}
static void put_u32(uint32_t v) {
    put(&v, 4);
}
static void put_u64(uint64_t v) {
    put(&v, 8);
}
static void put_str(const char *s) {
    put_u64(strlen(s));
    put(s, strlen(s));
}
static void put_head(uint64_t n_tensors, uint64_t n_kv) {
    used = 0;
    put("GGUF", 4);
    put_u32(3);
    put_u64(n_tensors);
    put_u64(n_kv);
}
static void put_key(const char *key, gguf_type type) {
    put_str(key);
    put_u32(type);
}

static int open_bytes(gguf_file **f, ttx_err *err) {
    char path[64];
    int fd = memfd_create("model", 0);
    CHECK(write(fd, file, used) == (ssize_t)used);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = gguf_open(f, path, err);
    close(fd);
    return rc;
}

/* ---- metadata ---- */

static void write_metadata(void) {
    put_head(0, 10);
    put_key("u8", GGUF_UINT8), put("\xc8", 1);
    put_key("i16", GGUF_INT16), put("\xfe\xff", 2);
    put_key("u64", GGUF_UINT64), put_u64(UINT64_MAX);
    put_key("i64", GGUF_INT64), put_u64((uint64_t)INT64_MIN);
    put_key("f32", GGUF_FLOAT32), put("\0\0\x20\xc0", 4); /* -2.5 */
    double big = 1e300;
    put_key("f64", GGUF_FLOAT64), put(&big, 8);
    put_key("yes", GGUF_BOOL), put("\1", 1);
    put_key("s", GGUF_STRING), put_str("text");
    put_key("words", GGUF_ARRAY), put_u32(GGUF_STRING), put_u64(3);
    put_str("a"), put_str(""), put_str("ccc");
    put_key("nest", GGUF_ARRAY), put_u32(GGUF_ARRAY), put_u64(2);
    put_u32(GGUF_STRING), put_u64(1), put_str("in");
    put_u32(GGUF_INT8), put_u64(2), put("\xff\x02", 2);
}

/* Every getter against every kind of value, by what it returns. */
static void check_conversions(const gguf_file *f) {
    int64_t i = 0;
    uint32_t u = 0;
    double d = 0;
    bool b = false;
    gguf_str s = {0};
    CHECK(gguf_get_i64(f, "u8", true, &i, NULL) == 0 && i == 200);
    CHECK(gguf_get_i64(f, "i16", true, &i, NULL) == 0 && i == -2);
    CHECK(gguf_get_i64(f, "i64", true, &i, NULL) == 0 && i == INT64_MIN);
    CHECK_INT(gguf_get_i64(f, "u64", true, &i, NULL), TTX_E_MODEL);
    CHECK_INT(gguf_get_i64(f, "f32", true, &i, NULL), TTX_E_MODEL);
    CHECK_INT(gguf_get_i64(f, "yes", true, &i, NULL), TTX_E_MODEL);
    CHECK(gguf_get_u32(f, "u8", true, &u, NULL) == 0 && u == 200);
    CHECK_INT(gguf_get_u32(f, "i16", true, &u, NULL), TTX_E_MODEL);
    CHECK_INT(gguf_get_u32(f, "u64", true, &u, NULL), TTX_E_MODEL);
    CHECK_INT(gguf_get_u32(f, "words", true, &u, NULL), TTX_E_MODEL);
    CHECK(gguf_get_f64(f, "f32", true, &d, NULL) == 0 && d == -2.5);
    CHECK(gguf_get_f64(f, "i16", true, &d, NULL) == 0 && d == -2);
    CHECK(gguf_get_f64(f, "u64", true, &d, NULL) == 0 && d == 0x1p64);
    CHECK_INT(gguf_get_f64(f, "s", true, &d, NULL), TTX_E_MODEL);
    CHECK(gguf_get_bool(f, "yes", true, &b, NULL) == 0 && b);
    CHECK_INT(gguf_get_bool(f, "u8", true, &b, NULL), TTX_E_MODEL);
    CHECK(gguf_get_str(f, "s", true, &s, NULL) == 0 && s.n == 4 && memcmp(s.s, "text", 4) == 0);
    CHECK_INT(gguf_get_str(f, "words", true, &s, NULL), TTX_E_MODEL);
    CHECK_INT(gguf_elem_i64(gguf_find(f, "f64"), 0), INT64_MAX); /* saturates */
    /* absent: untouched, or an error */
    u = 7;
    CHECK(gguf_get_u32(f, "none", false, &u, NULL) == 0 && u == 7);
    CHECK_INT(gguf_get_u32(f, "none", true, &u, NULL), TTX_E_MODEL);
}

static void check_messages(const gguf_file *f) {
    uint32_t u;
    const gguf_kv *kv;
    const struct {
        const char *key, *says;
    } rows[] = {
        {"none", "key 'none': expected an integer of 0..4294967295, found none"},
        {"i16", "key 'i16': expected an integer of 0..4294967295, found -2"},
        {"words", "key 'words': expected an integer of 0..4294967295, found array of string"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ttx_err err = {0};
        CHECK_INT(gguf_get_u32(f, rows[i].key, true, &u, &err), TTX_E_MODEL);
        const char *colon = strstr(err.msg, ": ");
        CHECK(colon && strncmp(err.msg, gguf_path(f), strlen(gguf_path(f))) == 0);
        CHECK_STR(colon ? colon + 2 : "", rows[i].says);
    }
    ttx_err err = {0};
    CHECK_INT(gguf_get_array(f, "words", GGUF_INT32, true, &kv, &err), TTX_E_MODEL);
    CHECK(kv == NULL && strstr(err.msg, "expected an array of int32, found array of string"));
    CHECK(gguf_get_array(f, "none", GGUF_INT32, false, &kv, NULL) == 0 && kv == NULL);
}

static void check_arrays(const gguf_file *f) {
    const gguf_kv *kv = NULL;
    CHECK_INT(gguf_get_array(f, "words", GGUF_STRING, true, &kv, NULL), 0);
    static const char *const words[] = {"a", "", "ccc"};
    uint64_t pos = 0;
    for (int i = 0; i < 3; i++) {
        gguf_str s = gguf_next_str(kv, &pos);
        CHECK(s.n == strlen(words[i]) && memcmp(s.s, words[i], s.n) == 0);
    }
    CHECK_INT(pos, kv->bytes);

    const gguf_kv *nest = gguf_find(f, "nest");
    pos = 0;
    gguf_kv a = gguf_next_elem(nest, &pos), b = gguf_next_elem(nest, &pos);
    CHECK_INT(pos, nest->bytes);
    CHECK(a.type == GGUF_ARRAY && a.elem == GGUF_STRING && a.n == 1 && a.bytes == 10);
    CHECK(b.type == GGUF_ARRAY && b.elem == GGUF_INT8 && b.n == 2 && b.bytes == 2);
    CHECK(gguf_elem_i64(&b, 0) == -1 && gguf_elem_f64(&b, 1) == 2);
}

static void test_metadata(void) {
    ttx_err err = {0};
    gguf_file *f = NULL;
    write_metadata();
    CHECK_INT(open_bytes(&f, &err), 0);
    CHECK_STR(err.msg, "");
    if (!f) return;
    CHECK_INT(gguf_n_kv(f), 10);
    CHECK_INT(gguf_n_tensors(f), 0);
    CHECK(gguf_find(f, "") == NULL && gguf_find_tensor(f, "u8") == NULL);
    check_conversions(f);
    check_messages(f);
    check_arrays(f);
    gguf_close(f);
    gguf_close(NULL);
}

/* ---- tensors ---- */

static void test_tensors(void) {
    enum { N = 1000 };
    char name[64];
    put_head(N, 0);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blk.%u.ffn_up.weight", i);
        put_str(name), put_u32(1), put_u64(2), put_u32(TTX_F32), put_u64(32 * i);
    }
    used = (used + 31) / 32 * 32;
    size_t data = used;
    memset(file + used, 0x5a, 32 * N);
    used += 32 * N;
    gguf_file *f = NULL;
    ttx_err err = {0};
    CHECK_INT(open_bytes(&f, &err), 0);
    CHECK_STR(err.msg, "");
    if (!f) return;
    const gguf_shard *shard = gguf_get_shard(f, 0);
    CHECK(shard->data_offset == data && shard->size == used && shard->alignment == 32);
    CHECK(memcmp(shard->map + data, "\x5a\x5a\x5a\x5a", 4) == 0);
    for (uint32_t i = 0; i < N; i++) {
        snprintf(name, sizeof name, "blk.%u.ffn_up.weight", i);
        const gguf_tensor *t = gguf_find_tensor(f, name);
        CHECK(t == gguf_tensors(f) + i && t->index == i && t->offset == data + 32 * i);
        CHECK(t && t->size == 8 && t->pad == 24 && t->ne[0] == 2 && t->ne[3] == 1);
    }
    CHECK(gguf_find_tensor(f, "blk.1000.ffn_up.weight") == NULL);
    gguf_close(f);
}

/* The header is ours: what happens to the file later changes nothing that was handed out. */
static void test_file_changes(void) {
    write_metadata();
    char path[64];
    int fd = memfd_create("model", 0);
    CHECK(write(fd, file, used) == (ssize_t)used);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    gguf_file *f = NULL;
    CHECK_INT(gguf_open(&f, path, NULL), 0);
    CHECK_INT(ftruncate(fd, 0), 0);
    if (f) check_conversions(f);
    if (f) check_arrays(f);
    gguf_close(f);
    close(fd);
}

/* ---- names ---- */

static void test_roles(void) {
    static const struct {
        const char *name;
        ttx_component component;
        const char *proj;
        int32_t layer, expert;
    } rows[] = {
        {"token_embd.weight", TTX_COMP_EMBEDDING, "", -1, -1},
        {"output.weight", TTX_COMP_OUTPUT, "", -1, -1},
        {"output_norm.weight", TTX_COMP_NORM, "", -1, -1},
        {"blk.12.attn_qkv.bias", TTX_COMP_ATTENTION, "qkv", 12, -1},
        {"blk.0.attn_k_norm.weight", TTX_COMP_NORM, "", 0, -1},
        {"blk.3.ffn_gate.7.weight", TTX_COMP_EXPERT, "gate", 3, 7},
        {"blk.3.ffn_gate_exps.weight", TTX_COMP_EXPERT, "gate", 3, -1},
        {"blk.3.ffn_gate_shexp.weight", TTX_COMP_FFN, "gate", 3, -1},
        {"blk.3.ffn_gate_inp.bias", TTX_COMP_ROUTER, "", 3, -1},
        {"blk.3.exp_probs_b.bias", TTX_COMP_ROUTER, "", 3, -1},
        {"blk.3.post_ffw_norm.weight", TTX_COMP_NORM, "", 3, -1},
        {"enc.blk.1.attn_o.weight", TTX_COMP_ATTENTION, "o", 1, -1},
        {"v.blk.1.ffn_down.weight", TTX_COMP_FFN, "down", 1, -1},
        {"blk.9.ssm_a", TTX_COMP_OTHER, "", 9, -1},
        {"rope_freqs.weight", TTX_COMP_OTHER, "", -1, -1},
        {"blk.x.attn_q.weight", TTX_COMP_OTHER, "", -1, -1},
        {"blk.99999999999.attn_q.weight", TTX_COMP_OTHER, "", -1, -1},
        {"ffn_gate.", TTX_COMP_FFN, "", -1, -1},
        {"blk.", TTX_COMP_OTHER, "", -1, -1},
        {".", TTX_COMP_OTHER, "", -1, -1},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ttx_tensor_role r = ttx_role_of(rows[i].name);
        bool same = r.component == rows[i].component && strcmp(r.proj, rows[i].proj) == 0 &&
                    r.layer == rows[i].layer && r.expert == rows[i].expert;
        if (!same)
            printf("%s: %s '%s' layer %d expert %d\n", rows[i].name,
                   ttx_component_name(r.component), r.proj, r.layer, r.expert);
        CHECK(same);
    }
}

int main(void) {
    test_metadata();
    test_tensors();
    test_file_changes();
    test_roles();
    printf("%d failures\n", failures);
    return failures != 0;
}
