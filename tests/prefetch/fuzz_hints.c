/* fuzz_hints.c -- no file of hints or patterns, however broken, breaks the reader; what it refuses
 * it refuses in one line.
 *
 * A libFuzzer target; with FUZZ_OWN_MAIN a program that edits valid files at random and reads them.
 * The first byte of an input chooses the reader; "@" in a document stands for the model's hash,
 * which no fuzzer would guess.
 */
#include "engine_rig.h"
#include "hints.h"
#include "trace_tensors.h"

#include "access_pattern.h"

#include <stdlib.h>
#include <string.h>

/* Opened once: the target has no other place to keep it. */
static rig model;
static char hash[TTX_MODEL_HASH];

static void open_model(void) {
    if (model.model) return;
    tiny_model t = tiny_model_of("mixtral");
    model = rig_open(&t, &(rig_settings){.n_threads = 1});
    ttx_trace_model_hash(model.model, hash);
}

/* The document with the hash in its place; the caller frees. */
static char *expand(const uint8_t *data, size_t size, size_t *n) {
    char *text = rig_alloc(size * strlen(hash) + 1, 1);
    *n = 0;
    for (size_t i = 0; i < size; i++) {
        if (data[i] != '@') {
            text[(*n)++] = (char)data[i];
            continue;
        }
        for (const char *c = hash; *c; c++) text[(*n)++] = *c;
    }
    char *exact = rig_alloc(*n, 1); /* so that a sanitizer sees its end */
    memcpy(exact, text, *n);
    free(text);
    return exact;
}

static void check(bool condition, const char *what) {
    if (condition) return;
    fprintf(stderr, "fuzz_hints: %s\n", what);
    abort();
}

static int read_one(const uint8_t *data, size_t size) {
    ttx_hints h = {0};
    ttx_err err = {0};
    size_t n;
    if (!size) return TTX_OK;
    char *text = expand(data + 1, size - 1, &n);
    int rc = data[0] & 1 ? ttx_pattern_read(&h, model.model, text, n, "pattern", &err)
                         : ttx_hints_read(&h, model.model, text, n, "hints", &err);
    const ttx_hparams *hp = &model.model->hp;
    check(rc == err.code, "code and message do not agree");
    check(!rc || (*err.msg && !strchr(err.msg, '\n')), "no message of one line");
    check(rc == TTX_OK || rc == TTX_E_USAGE, "another error than a bad file");
    for (uint32_t i = 0; i < h.n_pins; i++)
        check(h.pins[i].offset + h.pins[i].size <= gguf_get_shard(model.file, 0)->size,
              "a range outside the file");
    for (uint32_t i = 0; i < h.n_warm; i++)
        check(h.warm[i].layer < hp->n_layer && h.warm[i].expert < hp->n_expert,
              "an expert that does not exist");
    ttx_hints_free(&h);
    free(text);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    open_model();
    read_one(data, size);
    return 0;
}

#ifdef FUZZ_OWN_MAIN

enum { EDITS = 20000, MOST = 1 << 20 };

static const char hints_head[] =
    "0{\"format\":1,\"model_hash\":\"@\",\"pin\":{\"ram\":100,\"bytes\":5,\"ranges\":[";

/* A valid file of hints: two tensors, one of them by an expert. */
static size_t make_hints(char *text) {
    const gguf_tensor *t = gguf_tensors(model.file);
    const gguf_tensor *e = gguf_find_tensor(model.file, "blk.1.ffn_up_exps.weight");
    if (!e) rig_die("tiny model", "has no experts");
    return (size_t)snprintf(
        text, MOST,
        "%s{\"tensor_name\":\"%s\",\"file_offset\":%llu,\"size_bytes\":%llu},"
        "{\"tensor_name\":\"%s\",\"layer_id\":1,\"expert_id\":1,\"file_offset\":%llu,"
        "\"size_bytes\":64}]},\"warm_experts\":[{\"layer_id\":1,\"expert_id\":1,\"tokens\":9},"
        "{\"layer_id\":0,\"expert_id\":0,\"tokens\":4}],\"run\":{\"ram\":\"3G\","
        "\"load_mode\":\"stream\",\"expert_cache\":\"lru\",\"guess\":\"router\"}}",
        hints_head, t->name, (unsigned long long)t->offset, (unsigned long long)t->size, e->name,
        (unsigned long long)e->offset + 64);
}

/* A valid pattern: the one that the engine writes, with a table. */
static size_t make_pattern(char *text) {
    static const char table[] =
        ",\"expert_successors\":[{\"layer_id\":0,\"expert_id\":1,\"to\":[2,0],"
        "\"probability\":[0.75,0.25]}]}";
    ttx_trace_tensors t;
    ttx_err err = {0};
    char *out;
    size_t n;
    FILE *f = open_memstream(&out, &n);
    if (ttx_trace_tensors_make(&t, model.model, 64, TTX_F16, TTX_F16, &err) ||
        ttx_access_pattern_write(model.model, &t, "@", NULL, f, &err))
        rig_die("pattern", err.msg);
    fclose(f);
    ttx_trace_tensors_free(&t);
    while (n && out[n - 1] != '}') n--;
    int len = snprintf(text, MOST, "1%.*s%s", (int)n - 1, out, table);
    free(out);
    return (size_t)len;
}

static uint32_t next(uint32_t *x) {
    *x ^= *x << 13;
    *x ^= *x >> 17;
    return *x ^= *x << 5;
}

static void edit(char *text, size_t *n, uint32_t *x) {
    static const char *const values[] = {"-1", "1e99", "null", "99999999999", "\"\"", "[]",
                                         "{}", "0.5",  "true", "65536",       "@",    "nan"};
    size_t at = 1 + next(x) % (*n - 1), len = 1 + next(x) % 8;
    switch (next(x) % 4) {
    case 0: text[at] = (char)next(x); break;
    case 1: /* a part is lost */
        if (at + len > *n) len = *n - at;
        memmove(text + at, text + at + len, *n - at - len);
        *n -= len;
        break;
    case 2: { /* a value becomes another */
        const char *v = values[next(x) % (sizeof values / sizeof *values)];
        while (at < *n && text[at] != ':') at++;
        size_t end = at + 1;
        while (end < *n && !strchr(",]}", text[end])) end++;
        if (end >= *n) break;
        memmove(text + at + 1 + strlen(v), text + end, *n - end);
        *n = *n - end + at + 1 + strlen(v);
        for (; *v; v++) text[++at] = *v;
        break;
    }
    default: *n = at; /* the file ends early */
    }
}

int main(void) {
    static char text[MOST + 1024], edited[MOST + 1024];
    uint32_t x = 2463534242u, refused = 0;
    open_model();
    for (int kind = 0; kind < 2; kind++) {
        size_t n = kind ? make_pattern(text) : make_hints(text);
        if (read_one((uint8_t *)text, n)) rig_die("fuzz_hints", "a valid file was refused");
        for (int i = 0; i < EDITS; i++) {
            size_t m = n;
            memcpy(edited, text, n);
            for (uint32_t k = 0; k <= next(&x) % 3 && m > 2; k++) edit(edited, &m, &x);
            refused += read_one((uint8_t *)edited, m) != TTX_OK;
        }
    }
    rig_close(&model);
    printf("%d edited files, %u refused\n", 2 * EDITS, refused);
    return refused < EDITS; /* most edits do harm */
}

#endif
