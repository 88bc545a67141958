/* stream_test.c -- a streamed model gives the bits of a mapped one, whatever the budget, the cache
 * policy and the back end, and whatever the reads do; what cannot be read is an error, never a
 * wrong logit.
 */
#include "check_harness.h"
#include "engine_rig.h"
#include "faulty_io.h"
#include "refusals.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures;

enum { N = 96, CALL = 40, STEPS = 24, MOST = 1 << 30 };

/* A model, its plan, and what it gives when it is mapped: rows [0, N) as a prompt in calls of CALL,
 * rows [N, N + STEPS) step by step after that. */
typedef struct subject {
    const char *name;
    tiny_model t;
    int32_t tokens[N + STEPS];
    float *want, *rows;
    ttx_plan plan;
    ttx_residency_layout all; /* with a budget for everything */
} subject;

static ttx_session *session(rig *r) {
    return rig_session(
        r, (ttx_session_settings){
               .n_ctx = N + STEPS, .n_outputs = CALL, .k_type = TTX_F16, .v_type = TTX_F16});
}

static void eval(rig *r, const subject *x, float *rows) {
    ttx_session *s = session(r);
    rig_eval(r, s, x->tokens, N / 2, CALL, TTX_PROMPT, rows);
    /* A part of which no logits are wanted: the output projection is left out. */
    ttx_err err = {0};
    if (ttx_session_eval(s, x->tokens + N / 2, N / 2, TTX_PROMPT, TTX_WANT_NONE, &err))
        rig_die(x->name, err.msg);
    rig_eval(r, s, x->tokens + N, STEPS, 1, TTX_EXACT, rows + (size_t)N * x->t.n_vocab);
    ttx_session_close(s);
}

static ttx_residency_settings stream_settings(const subject *x, uint64_t budget) {
    ttx_residency_settings set = ttx_residency_default_settings();
    set.mode = TTX_LOAD_STREAM;
    set.plan = &x->plan;
    set.budget = budget;
    set.rows_at_once = CALL;
    set.prefetch = TTX_PREFETCH_LAYER | TTX_PREFETCH_EXPERT;
    return set;
}

static void prepare(subject *x) {
    ttx_err err = {0};
    size_t n = (size_t)(N + STEPS) * x->t.n_vocab;
    x->want = rig_alloc(n, sizeof(float));
    x->rows = rig_alloc(n, sizeof(float));
    rig_tokens(x->tokens, N + STEPS, x->t.n_vocab, 7);
    rig r = rig_open(&x->t, &(rig_settings){.n_threads = 2, .isa = -1});
    eval(&r, x, x->want);
    if (ttx_plan_decode(r.model, &x->plan, &err)) rig_die(x->name, err.msg);
    rig_close(&r);
    ttx_residency_settings set = stream_settings(x, MOST);
    if (ttx_residency_describe(&set, &x->all, &err)) rig_die(x->name, err.msg);
}

static void finish(subject *x) {
    free(x->want);
    free(x->rows);
    ttx_plan_free(&x->plan);
}

static void expect_same(const subject *x, const char *what, uint64_t budget) {
    size_t n_vocab = x->t.n_vocab;
    for (size_t i = 0; i < N + STEPS; i++) {
        if (memcmp(x->rows + i * n_vocab, x->want + i * n_vocab, n_vocab * sizeof(float)) == 0)
            continue;
        failures++;
        printf("%s, %s, budget %llu: row %zu differs from the mapped model's\n", x->name, what,
               (unsigned long long)budget, i);
        return;
    }
}

static ttx_residency_counters check_same(subject *x, const ttx_residency_settings *set,
                                         const char *what) {
    rig r = rig_open(&x->t, &(rig_settings){.n_threads = 2, .isa = -1, .residency = set});
    memset(x->rows, 0xff, (size_t)(N + STEPS) * x->t.n_vocab * sizeof(float));
    memcpy(x->rows + (size_t)N / 2 * x->t.n_vocab, x->want + (size_t)N / 2 * x->t.n_vocab,
           (size_t)N / 2 * x->t.n_vocab * sizeof(float));
    eval(&r, x, x->rows);
    expect_same(x, what, set->budget);
    ttx_residency_counters c = ttx_residency_get_counters(r.rt.residency);
    const ttx_residency_layout *l = ttx_residency_get_layout(r.rt.residency);
    CHECK(l->reserved + l->pinned + l->ring + l->cache + l->rows <= l->budget);
    rig_close(&r);
    return c;
}

/* ---- budgets ---- */

static void check_budgets(subject *x) {
    ttx_residency_layout l;
    ttx_err err = {0};
    uint64_t least = x->all.smallest, most = least + x->all.dense + x->all.experts;
    ttx_residency_settings set = stream_settings(x, least - 1);
    CHECK_INT(ttx_residency_describe(&set, &l, &err), TTX_E_RUNTIME);
    CHECK_INT(l.smallest, least);
    CHECK(strncmp(err.msg, "memory budget: expected at least ", 33) == 0);
    for (int i = 0; i <= 8; i++) {
        set = stream_settings(x, least + (most - least) * (uint64_t)(i * i) / 64);
        check_same(x, &set, "lru");
        set.policy = (ttx_cache_policy)(1 + i % (TTX_CACHE_POLICIES - 1));
        set.guess = (ttx_guess_kind)(1 + i % (TTX_GUESS_KINDS - 1));
        check_same(x, &set, "another policy");
        set.threads = true;
        check_same(x, &set, "threads");
    }
}

/* With room for all, nothing is read twice; with less, exactly what is not kept is read again. */
static void check_bytes(subject *x) {
    ttx_residency_settings set = stream_settings(x, MOST);
    ttx_residency_counters c = check_same(x, &set, "all");
    uint64_t rows = c.bytes_read - c.order_bytes;
    CHECK(c.order_bytes <= x->all.dense);
    CHECK(rows <= x->all.experts + (N + STEPS) * 16384u);
    CHECK_INT(c.evictions, 0);
}

/* ---- faults ---- */

static uint64_t check_faulty(subject *x, uint64_t budget, faults f, const char *what) {
    rig probe = rig_open(&x->t, &(rig_settings){.n_threads = 1, .isa = -1});
    ttx_io *io = faulty_io_open(gguf_get_shard(probe.file, 0)->fd, &f);
    ttx_residency_settings set = stream_settings(x, budget);
    set.io = io;
    check_same(x, &set, what);
    uint64_t n = faulty_io_count(io);
    io->close(io);
    rig_close(&probe);
    return n;
}

/* Faults that are overcome. */
static void check_recovery(subject *x) {
    uint64_t middle = x->all.smallest + (x->all.dense + x->all.experts) / 3;
    const struct {
        const char *what;
        faults f;
    } cases[] = {
        {"late", {.late = 2}},
        {"short reads", {.short_read = 2}},
        {"interrupted", {.eintr = 2}},
        {"errors that pass", {.eio_once = 4}},
        {"all but errors", {.late = 3, .short_read = 3, .eintr = 3}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (uint32_t seed = 1; seed <= 3; seed++) {
            faults f = cases[i].f;
            f.seed = seed;
            CHECK(check_faulty(x, x->all.smallest, f, cases[i].what) > 0);
            CHECK(check_faulty(x, middle, f, cases[i].what) > 0);
        }
}

/* Faults that end the run: an error that names the file, and logits up to then that are right. */
static void check_error(subject *x, faults f, const char *expected) {
    rig probe = rig_open(&x->t, &(rig_settings){.n_threads = 1, .isa = -1});
    if (f.truncate_at) f.truncate_at = gguf_get_shard(probe.file, 0)->size * f.truncate_at / 100;
    ttx_io *io = faulty_io_open(gguf_get_shard(probe.file, 0)->fd, &f);
    ttx_residency_settings set = stream_settings(x, x->all.smallest);
    set.io = io;
    rig r = rig_open(&x->t, &(rig_settings){.n_threads = 2, .isa = -1, .residency = &set});
    ttx_session *s = session(&r);
    ttx_err err = {0};
    int rc = TTX_OK;
    for (int i = 0; i < N && !rc; i++) {
        rc = ttx_session_eval(s, x->tokens + i, 1, TTX_PROMPT, TTX_WANT_LAST, &err);
        if (!rc && i < N / 2)
            CHECK(memcmp(ttx_session_logits(s, 0), x->want + (size_t)i * x->t.n_vocab,
                         x->t.n_vocab * sizeof(float)) == 0);
    }
    CHECK_INT(rc, TTX_E_RUNTIME);
    if (!strstr(err.msg, expected)) {
        failures++;
        printf("%s: expected an error with '%s', found '%s'\n", x->name, expected, err.msg);
    }
    ttx_session_close(s);
    rig_close(&r);
    io->close(io);
    rig_close(&probe);
}

static void check_errors(subject *x) {
    check_error(x, (faults){.eio = 1}, "reading failed: Input/output error");
    check_error(x, (faults){.eio = 3, .seed = 5}, "reading failed: Input/output error");
    check_error(x, (faults){.truncate_at = 50}, "found the end of the file");
    check_error(x, (faults){.submit_fails_after = 60}, "cannot start reading");
}

/* ---- a system that refuses ---- */

typedef struct lines {
    char last[256];
    int n;
} lines;

static void note(void *ctx, const char *line) {
    lines *x = ctx;
    snprintf(x->last, sizeof x->last, "%s", line);
    x->n++;
}

/* Each in a process of its own: one line, and the same logits. */
static void check_refusal(subject *x, void (*refuse)(void), const char *expected) {
    if (refusals_fork()) {
        lines said = {0};
        ttx_residency_settings set =
            stream_settings(x, x->all.smallest + (x->all.dense + x->all.experts) / 3);
        set.warn = note;
        set.warn_ctx = &said;
        refuse();
        check_same(x, &set, expected ? expected : "huge pages refused");
        CHECK_INT(said.n, expected != NULL);
        CHECK(!expected || strstr(said.last, expected));
        refusals_end(failures);
    }
    failures += refusals_wait();
}

static void check_direct(subject *x) {
    rig probe = rig_open(&x->t, &(rig_settings){.n_threads = 1, .isa = -1});
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", gguf_get_shard(probe.file, 0)->fd);
    int fd = open(path, O_RDONLY | O_DIRECT);
    rig_close(&probe);
    if (fd < 0) return; /* refused already */
    close(fd);
    /* It can be opened so, but not be read. */
    CHECK_INT((int)check_faulty(x, x->all.smallest, (faults){.einval_first = 1}, "EINVAL"), 1);
}

static void check_refusals(subject *x) {
    check_refusal(x, refuse_io_uring, "reading with threads instead");
    check_refusal(x, refuse_direct,
                  "the file system refuses O_DIRECT; reading through the page cache");
    check_refusal(x, refuse_huge_pages, NULL);
    check_direct(x);
}

/* ---- a limit of memory that falls ---- */

typedef struct falling {
    uint64_t now, then;
    int steps; /* until it falls */
} falling;

static uint64_t falling_limit(void *ctx) {
    falling *f = ctx;
    return f->steps-- > 0 ? f->now : f->then;
}

/* The cache gives back what the limit wants; the logits stay. */
static void check_limit(subject *x) {
    const ttx_residency_layout *a = &x->all;
    if (!x->all.experts) return;
    for (int steps = 0; steps < 20; steps += 6) {
        falling f = {MOST, 0, steps};
        lines said = {0};
        ttx_residency_settings set = stream_settings(x, MOST);
        set.limit = falling_limit;
        set.limit_ctx = &f;
        set.warn = note;
        set.warn_ctx = &said;
        rig r = rig_open(&x->t, &(rig_settings){.n_threads = 2, .isa = -1, .residency = &set});
        const ttx_residency_layout *l = ttx_residency_get_layout(r.rt.residency);
        uint32_t slots = l->n_slots;
        f.then = a->pinned + a->ring + a->rows + a->cache * 2 / 3;
        eval(&r, x, x->rows);
        memcpy(x->rows + (size_t)N / 2 * x->t.n_vocab, x->want + (size_t)N / 2 * x->t.n_vocab,
               (size_t)N / 2 * x->t.n_vocab * sizeof(float));
        expect_same(x, "a falling limit", steps);
        CHECK(l->n_slots < slots);
        CHECK(l->pinned + l->ring + l->cache + l->rows <= f.then);
        CHECK_INT(said.n, 1);
        CHECK(strstr(said.last, "the expert cache shrinks"));
        rig_close(&r);
    }
}

/* Below what is pinned: an error. */
static void check_no_room(subject *x) {
    falling f = {MOST, x->all.dense / 2, 3};
    ttx_residency_settings set = stream_settings(x, MOST);
    ttx_err err = {0};
    set.limit = falling_limit;
    set.limit_ctx = &f;
    rig r = rig_open(&x->t, &(rig_settings){.n_threads = 2, .isa = -1, .residency = &set});
    ttx_session *s = session(&r);
    int rc = TTX_OK, done = 0;
    for (; done < N && !rc; done++)
        rc = ttx_session_eval(s, x->tokens + done, 1, TTX_PROMPT, TTX_WANT_LAST, &err);
    CHECK_INT(rc, TTX_E_RUNTIME);
    CHECK_INT(done, 4);
    CHECK(strncmp(err.msg, "the limit of memory fell to ", 28) == 0);
    ttx_session_close(s);
    rig_close(&r);
}

/* ---- a long run ---- */

static size_t resident_kib(void) {
    FILE *f = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    if (!f || fscanf(f, "%*u %lu", &pages) != 1) rig_die("statm", "cannot be read");
    fclose(f);
    return pages * 4;
}

/* Ten thousand tokens take no more memory than five thousand, by when the thread that backs memory
 * ahead is done, too, on a busy machine. */
static void check_leak(subject *x) {
    enum { FIRST = 5000, LAST = 10000, LEAK_KIB = 256 };
    ttx_residency_settings set =
        stream_settings(x, x->all.smallest + (x->all.dense + x->all.experts) / 2);
    rig r = rig_open(&x->t, &(rig_settings){.n_threads = 1, .isa = -1, .residency = &set});
    ttx_session *s = session(&r);
    ttx_err err = {0};
    size_t before = 0;
    for (int i = 0; i < LAST; i++) {
        if (i % N == 0) ttx_session_rewind(s, 0);
        if (i == FIRST) before = resident_kib();
        if (ttx_session_eval(s, x->tokens + i % N, 1, TTX_EXACT, TTX_WANT_LAST, &err))
            rig_die(x->name, err.msg);
    }
    size_t after = resident_kib();
    if (after > before + LEAK_KIB) {
        failures++;
        printf("%s: %zu KiB after %d tokens, %zu after %d\n", x->name, before, FIRST, after, LAST);
    }
    ttx_session_close(s);
    rig_close(&r);
}

int main(void) {
    static const char *const names[] = {"llama",   "gemma3",   "qwen2",    "gpt-oss",
                                        "mixtral", "qwen3moe", "qwen2moe", "split"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool split = strcmp(names[i], "split") == 0;
        subject x = {.name = names[i], .t = tiny_model_of(split ? "mixtral" : names[i])};
        x.t.split_experts = split;
        prepare(&x);
        check_budgets(&x);
        check_bytes(&x);
        check_recovery(&x);
        check_errors(&x);
        check_refusals(&x);
        check_limit(&x);
        check_no_room(&x);
        if (i == 0 || i == 4) check_leak(&x);
        finish(&x);
    }
    printf("%d failures\n", failures);
    return failures != 0;
}
