/* fuzz_gguf.c -- a fuzzer's bytes as a model: opened, and everything that is handed out walked.
 *
 * The bytes are a file; if they start with "SET" and a byte n, they are a set of two shards, split
 * after n * 16 bytes. They live in memory files; a set is reached through links with shard names in
 * a folder that lasts as long as the process. Built by clang with libFuzzer (TTX_FUZZ), or with
 * replay_main.c, which runs files given on the command line.
 */
#include "component.h"
#include "gguf.h"
#include "io_picture.h"
#include "opt.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern const ttx_command ttx_cmd_gguf_dump;

/* Reads every byte of n, so that a sanitizer sees what does not belong to us. */
static uint64_t touch(const void *p, uint64_t n) {
    const uint8_t *b = p;
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++) sum += b[i];
    return sum;
}

static uint64_t walk_kv(const gguf_kv *kv, int depth) {
    uint64_t sum = touch(kv->data, kv->bytes), pos = 0;
    if (kv->elem == GGUF_STRING) {
        for (uint64_t i = 0; i < kv->n; i++) {
            gguf_str s = gguf_next_str(kv, &pos);
            sum += touch(s.s, s.n);
        }
    } else if (kv->elem == GGUF_ARRAY) {
        for (uint64_t i = 0; i < kv->n; i++) {
            gguf_kv e = gguf_next_elem(kv, &pos);
            sum += walk_kv(&e, depth + 1);
        }
    } else {
        for (uint64_t i = 0; i < kv->n; i++)
            sum += (uint64_t)gguf_elem_i64(kv, i) + (gguf_elem_f64(kv, i) > 0);
        pos = kv->bytes;
    }
    if (pos != kv->bytes || depth > 8) abort();
    return sum;
}

static void walk_metadata(const gguf_file *f) {
    char key[256];
    for (uint32_t i = 0; i < gguf_n_kv(f); i++) {
        const gguf_kv *kv = &gguf_kvs(f)[i];
        touch(kv->key.s, kv->key.n);
        walk_kv(kv, 0);
        if (kv->key.n >= sizeof key || memchr(kv->key.s, 0, kv->key.n)) continue;
        memcpy(key, kv->key.s, kv->key.n);
        key[kv->key.n] = 0;
        ttx_err err = {0};
        uint32_t u;
        int64_t n;
        double d;
        bool b;
        gguf_str s;
        if (gguf_find(f, key) != kv) abort();
        gguf_get_u32(f, key, true, &u, &err);
        gguf_get_i64(f, key, true, &n, NULL);
        gguf_get_f64(f, key, true, &d, NULL);
        gguf_get_bool(f, key, true, &b, NULL);
        gguf_get_str(f, key, true, &s, NULL);
    }
}

/* The promises of gguf.h. */
static void walk_tensors(const gguf_file *f) {
    for (uint32_t i = 0; i < gguf_n_tensors(f); i++) {
        const gguf_tensor *t = &gguf_tensors(f)[i];
        const gguf_shard *s = gguf_get_shard(f, t->shard);
        bool ok = t->index == i && gguf_find_tensor(f, t->name) == t && t->n_dims >= 1 &&
                  t->n_dims <= 4 && ttx_dtype_get(t->type)->name &&
                  t->ne[0] % ttx_dtype_get(t->type)->block == 0 && t->offset >= s->data_offset &&
                  t->offset <= s->size && t->size <= s->size - t->offset &&
                  t->n_elements == t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3] &&
                  t->size == ttx_dtype_bytes(t->type, t->n_elements);
        if (!ok) abort();
        touch(s->map + t->offset, t->size);
    }
}

/* One of the dump's views, chosen by the input. */
static void dump(const char *path, size_t size) {
    static char *const views[][2] = {
        {NULL}, {"--json"}, {"--io"}, {"--io", "--json"}, {"--metadata"}, {"--metadata", "--json"}};
    char *args[6] = {"-m", (char *)path, "-o", "/dev/null"};
    int n = 4;
    for (int i = 0; i < 2 && views[size % 6][i]; i++) args[n++] = views[size % 6][i];
    uint64_t settings[16] = {0};
    ttx_err err = {0};
    if (sizeof settings < ttx_cmd_gguf_dump.settings_size) abort();
    if (ttx_opt_parse(&ttx_cmd_gguf_dump, n, args, settings, NULL, &err)) abort();
    if (ttx_cmd_gguf_dump.run(settings, &err)) abort();
}

static void open_and_walk(const char *path, size_t size) {
    gguf_file *f = NULL;
    ttx_err err = {0};
    int rc = gguf_open(&f, path, &err);
    if (rc) {
        bool one_line = err.code == rc && err.msg[0] && !strchr(err.msg, '\n');
        if (!one_line || f) abort();
        return;
    }
    walk_metadata(f);
    walk_tensors(f);
    gguf_close(f);
    dump(path, size);
}

static int memory_file(const uint8_t *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    return fd;
}

static char folder[] = "/tmp/fuzz_gguf.XXXXXX";

static void remove_folder(void) {
    rmdir(folder);
}

static void run_set(const uint8_t *a, size_t n_a, const uint8_t *b, size_t n_b) {
    static char links[2][64];
    if (!links[0][0]) {
        if (!mkdtemp(folder) || atexit(remove_folder)) abort();
        for (int i = 0; i < 2; i++)
            snprintf(links[i], sizeof links[i], "%s/m-0000%d-of-00002.gguf", folder, i + 1);
    }
    int fds[2] = {memory_file(a, n_a), memory_file(b, n_b)};
    for (int i = 0; i < 2; i++) {
        char target[64];
        snprintf(target, sizeof target, "/proc/self/fd/%d", fds[i]);
        if (symlink(target, links[i])) abort();
    }
    open_and_walk(links[n_a % 2], n_a + n_b);
    for (int i = 0; i < 2; i++) {
        unlink(links[i]);
        close(fds[i]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t cut = size > 4 ? 16 * (size_t)data[3] : 0;
    if (size > 4 && memcmp(data, "SET", 3) == 0 && cut <= size - 4) {
        run_set(data + 4, cut, data + 4 + cut, size - 4 - cut);
        return 0;
    }
    char path[64];
    int fd = memory_file(data, size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    open_and_walk(path, size);
    close(fd);
    return 0;
}
