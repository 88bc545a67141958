/* mapped_test.c -- what the page cache is told of a mapped model: that it happens, as seen by
 * cachestat and mincore on a real file; that refusals take one line; and that no switch changes a
 * bit of the logits.
 */
#include "advise.h"
#include "check_harness.h"
#include "engine_rig.h"
#include "refusals.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int failures;

enum {
    MIB = 1 << 20,
    SYS_CACHESTAT = 451,
    TMPFS_MAGIC = 0x01021994,
    N_LAYER = 3,
    N_EXPERT = 4,
    PATIENCE_MS = 5000
};

/* ---- a file of zeros with the plan of a model: in each layer one dense tensor of 3 MiB and four
 * experts of 1 MiB ---- */

typedef struct ground {
    ttx_source source;
    ttx_plan plan;
    char warning[256];
    int n_warnings;
} ground;

enum { DENSE = 3 * MIB, EXPERT = MIB, LAYER = DENSE + N_EXPERT * EXPERT };

static ttx_range dense_of(int layer) {
    return (ttx_range){0, (uint64_t)layer * LAYER, DENSE};
}

static ttx_range expert_of(int layer, int e) {
    return (ttx_range){0, (uint64_t)layer * LAYER + DENSE + (uint64_t)e * EXPERT, EXPERT};
}

static void note(void *ctx, const char *line) {
    ground *g = ctx;
    snprintf(g->warning, sizeof g->warning, "%s", line);
    g->n_warnings++;
}

static ground make_ground(void) {
    static const char block[MIB];
    static char path[] = "mapped_test.XXXXXX";
    ground g = {0};
    int fd = mkstemp(path);
    if (fd < 0) rig_die("file", "cannot be made");
    unlink(path);
    for (int i = 0; i < N_LAYER * LAYER / MIB; i++)
        if (write(fd, block, MIB) != MIB) rig_die("file", "cannot be written");
    fsync(fd);
    g.source = (ttx_source){.path = "test", .fd = fd, .size = (uint64_t)N_LAYER * LAYER};
    g.source.map = mmap(NULL, g.source.size, PROT_READ, MAP_SHARED, fd, 0);
    if (g.source.map == MAP_FAILED) rig_die("file", "cannot be mapped");
    for (int i = 0; i < N_LAYER; i++) {
        uint16_t l = (uint16_t)i;
        ttx_access dense = {.layer = l, .range = dense_of(l), .expert = -1};
        ttx_access experts = {.layer = l,
                              .range = {0, expert_of(l, 0).offset, (uint64_t)N_EXPERT * EXPERT},
                              .n_expert = N_EXPERT,
                              .n_expert_used = 1,
                              .expert = -1};
        if (ttx_plan_add(&g.plan, &dense, NULL) || ttx_plan_add(&g.plan, &experts, NULL))
            rig_die("plan", "no memory");
    }
    return g;
}

/* Pages that are being read cannot be dropped, and mincore does not see them: until the page cache
 * has none. */
static void forget_all(const ground *g) {
    struct {
        uint64_t offset, length;
    } all = {0, 0};
    uint64_t counts[5] = {0};
    for (int ms = 0; ms < PATIENCE_MS; ms++) {
        madvise((void *)g->source.map, g->source.size, MADV_DONTNEED);
        posix_fadvise(g->source.fd, 0, 0, POSIX_FADV_DONTNEED);
        if (syscall(SYS_CACHESTAT, g->source.fd, &all, counts, 0) || !counts[0]) return;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void free_ground(ground *g) {
    munmap((void *)g->source.map, g->source.size);
    close(g->source.fd);
    ttx_plan_free(&g->plan);
}

static ttx_residency *open_ground(ground *g, ttx_residency_settings set) {
    ttx_residency *r = NULL;
    ttx_err err = {0};
    set.mode = TTX_LOAD_MMAP;
    set.plan = &g->plan;
    set.warn = note;
    set.warn_ctx = g;
    if (ttx_residency_open(&r, &g->source, 1, &set, &err)) rig_die("residency", err.msg);
    if (!set.pin_bytes) forget_all(g); /* opening asks for the beginning of the file */
    return r;
}

/* Pages of the range in memory. */
static uint64_t pages_of(const ground *g, ttx_range r) {
    unsigned char v[DENSE / 4096];
    uint64_t n = 0;
    mincore((void *)(g->source.map + r.offset), r.size, v);
    for (uint64_t i = 0; i < r.size / 4096; i++) n += v[i] & 1;
    return n;
}

/* Until that many pages of the range are in memory, or for five seconds; the advice is carried out
 * by others. `pump`: a call that lets the residency go on. */
static bool pages_become(const ground *g, ttx_residency *r, ttx_range range, uint64_t n) {
    for (int ms = 0; ms < PATIENCE_MS && pages_of(g, range) != n; ms++) {
        ttx_residency_hint(r, (ttx_range){0, 0, 0});
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return pages_of(g, range) == n;
}

static ttx_residency_state use(const ground *g, ttx_residency *r, ttx_range range) {
    ttx_lease lease;
    ttx_err err = {0};
    volatile uint8_t sum = 0;
    if (ttx_residency_acquire(r, range, &lease, &err)) rig_die("acquire", err.msg);
    CHECK(lease.p == g->source.map + range.offset);
    for (uint64_t i = 0; i < range.size; i += 4096) sum = (uint8_t)(sum + lease.p[i]);
    CHECK_INT(sum, 0);
    ttx_residency_release(r, range);
    return lease.state;
}

static void check_layers_ahead(ground *g, bool calls) {
    ttx_residency *r =
        open_ground(g, (ttx_residency_settings){
                           .prefetch = TTX_PREFETCH_LAYER, .prefetch_ahead = 1, .threads = calls});
    ttx_residency_layer(r, 0);
    CHECK(pages_become(g, r, dense_of(1), DENSE / 4096));
    CHECK_INT((int)pages_of(g, dense_of(2)), 0);
    CHECK_INT((int)pages_of(g, expert_of(1, 0)), 0);
    CHECK_INT(use(g, r, dense_of(1)), TTX_RES_PREFETCHED);
    CHECK_INT(use(g, r, dense_of(1)), TTX_RES_UNKNOWN); /* asked for once, used once */
    ttx_residency_layer(r, 1);
    CHECK(pages_become(g, r, dense_of(2), DENSE / 4096));
    ttx_residency_counters c = ttx_residency_get_counters(r);
    CHECK_INT((int)c.prefetches, 2);
    CHECK_INT((int)c.prefetches_used, 1);
    CHECK_INT((int)c.prefetches_late, 0);
    CHECK_INT((int)(c.prefetch_bytes / MIB), 2 * DENSE / MIB);
    ttx_residency_close(r);
}

static void check_experts(ground *g) {
    ttx_residency *r = open_ground(g, (ttx_residency_settings){.prefetch = TTX_PREFETCH_EXPERT});
    ttx_residency_layer(r, 0);
    ttx_residency_hint(r, expert_of(0, 2));
    CHECK(pages_become(g, r, expert_of(0, 2), EXPERT / 4096));
    CHECK_INT((int)pages_of(g, expert_of(0, 1)), 0);
    CHECK_INT((int)pages_of(g, dense_of(1)), 0);
    CHECK_INT(use(g, r, expert_of(0, 2)), TTX_RES_PREFETCHED);
    ttx_residency_close(r);
}

static void check_evict_layer(ground *g, ttx_evict how) {
    ttx_residency *r =
        open_ground(g, (ttx_residency_settings){.evict = how, .evict_when = TTX_EVICT_LAYER});
    ttx_residency_layer(r, 0);
    use(g, r, dense_of(0));
    use(g, r, expert_of(0, 3));
    CHECK_INT((int)pages_of(g, dense_of(0)), DENSE / 4096);
    ttx_residency_layer(r, 1);
    bool free = how == TTX_EVICT_DONTNEED;
    CHECK(pages_become(g, r, dense_of(0), free ? 0 : DENSE / 4096));
    CHECK(pages_become(g, r, expert_of(0, 3), free ? 0 : EXPERT / 4096));
    ttx_residency_counters c = ttx_residency_get_counters(r);
    CHECK_INT((int)c.evictions, 2);
    CHECK_INT((int)c.evicted_bytes, DENSE + EXPERT);
    CHECK_INT(g->n_warnings, 0);
    ttx_residency_close(r);
}

static void check_evict_deselected(ground *g) {
    ttx_residency *r = open_ground(g, (ttx_residency_settings){.evict = TTX_EVICT_DONTNEED});
    for (int step = 0; step < 2; step++) {
        ttx_residency_layer(r, 0);
        use(g, r, dense_of(0));
        use(g, r, expert_of(0, 0));
        use(g, r, expert_of(0, 1 + step));
        ttx_residency_layer(r, 1);
    }
    CHECK(pages_become(g, r, expert_of(0, 1), 0));
    CHECK_INT((int)pages_of(g, expert_of(0, 0)), EXPERT / 4096);
    CHECK_INT((int)pages_of(g, expert_of(0, 2)), EXPERT / 4096);
    CHECK_INT((int)pages_of(g, dense_of(0)), DENSE / 4096);
    CHECK_INT((int)ttx_residency_get_counters(r).evictions, 1);
    ttx_residency_close(r);
}

static void check_pins(ground *g) {
    ttx_range first = dense_of(2);
    ttx_residency *r = open_ground(g, (ttx_residency_settings){.pin_bytes = 2 * DENSE,
                                                               .pins = &first,
                                                               .n_pins = 1,
                                                               .evict = TTX_EVICT_DONTNEED,
                                                               .evict_when = TTX_EVICT_LAYER});
    ttx_residency_counters c = ttx_residency_get_counters(r);
    if (g->n_warnings) { /* may not lock so much here */
        CHECK(strncmp(g->warning, "cannot lock more than ", 22) == 0);
        g->n_warnings = 0;
    } else {
        CHECK_INT((int)c.locked_bytes, 2 * DENSE);
        CHECK_INT((int)pages_of(g, first), DENSE / 4096);
        CHECK_INT(use(g, r, first), TTX_RES_RESIDENT);
        ttx_residency_layer(r, 2);
        ttx_residency_layer(r, 0);
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
        CHECK_INT((int)pages_of(g, first), DENSE / 4096); /* not given up */
    }
    ttx_residency_close(r);
}

/* When all is in memory for a step, nothing is looked at for a while. */
static void check_pause(ground *g) {
    ttx_residency *r = open_ground(g, (ttx_residency_settings){.prefetch = TTX_PREFETCH_LAYER});
    for (int step = 0; step < 3; step++)
        for (int l = 0; l < N_LAYER; l++) {
            ttx_residency_layer(r, l);
            use(g, r, dense_of(l));
        }
    uint64_t before = ttx_residency_get_counters(r).prefetches;
    forget_all(g);
    ttx_residency_layer(r, 0);
    CHECK_INT((int)(ttx_residency_get_counters(r).prefetches - before), 0);
    for (int step = 0; step < 40; step++)
        for (int l = 0; l < N_LAYER; l++) ttx_residency_layer(r, l);
    CHECK(ttx_residency_get_counters(r).prefetches > before);
    ttx_residency_close(r);
}

/* A sanitizer may take mlock for itself. */
static bool locks_are_real(const ground *g) {
    if (mlock(g->source.map, MIB)) return true; /* refused by the kernel */
    char line[128];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmLck: %lu", &kib);
    if (f) fclose(f);
    munlock(g->source.map, MIB);
    return kib > 0;
}

/* Each in a process of its own, which loses a right for good. */
static void check_refusals(ground *g) {
    if (refusals_fork()) {
        refuse_io_uring();
        check_layers_ahead(g, false);
        CHECK_INT(g->n_warnings, 1);
        CHECK(strncmp(g->warning, "io_uring refused", 16) == 0);
        refusals_end(failures);
    }
    failures += refusals_wait();
    if (!locks_are_real(g)) return;
    if (refusals_fork()) {
        if (!refuse_locking()) refusals_end(failures);
        ttx_residency *r =
            open_ground(g, (ttx_residency_settings){.pin_bytes = 2 * DENSE, .threads = true});
        CHECK_INT(g->n_warnings, 1);
        CHECK(strstr(g->warning, "cannot lock more than 0.0 MiB of weights in memory: ") ==
              g->warning);
        CHECK(strstr(g->warning, "ulimit -l unlimited"));
        CHECK_INT((int)ttx_residency_get_counters(r).locked_bytes, 0);
        CHECK_INT(use(g, r, dense_of(0)), TTX_RES_UNKNOWN);
        ttx_residency_close(r);
        refusals_end(failures);
    }
    failures += refusals_wait();
}

static void check_page_cache(void) {
    ground g = make_ground();
    struct statfs fs;
    check_refusals(&g);
    if (fstatfs(g.source.fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC) {
        printf("the page cache is not seen: this is a tmpfs\n");
    } else {
        check_layers_ahead(&g, false);
        check_layers_ahead(&g, true);
        check_experts(&g);
        check_evict_layer(&g, TTX_EVICT_DONTNEED);
        check_evict_layer(&g, TTX_EVICT_COLD);
        check_evict_deselected(&g);
        check_pause(&g);
    }
    if (locks_are_real(&g)) check_pins(&g);
    free_ground(&g);
}

/* ---- the same bits ---- */

enum { N = 48, CALL = 24, STEPS = 12 };

static void eval(const tiny_model *t, const ttx_residency_settings *set, float *rows) {
    rig r = rig_open(t, &(rig_settings){.n_threads = 2, .isa = -1, .residency = set});
    int32_t tokens[N + STEPS];
    rig_tokens(tokens, N + STEPS, t->n_vocab, 7);
    ttx_session *s = rig_session(&r, (ttx_session_settings){.n_ctx = N + STEPS, .n_outputs = CALL});
    rig_eval(&r, s, tokens, N, CALL, TTX_PROMPT, rows);
    rig_eval(&r, s, tokens + N, STEPS, 1, TTX_EXACT, rows + (size_t)N * t->n_vocab);
    ttx_session_close(s);
    rig_close(&r);
}

static void check_same_bits(const char *name) {
    bool split = strcmp(name, "split") == 0;
    tiny_model t = tiny_model_of(split ? "mixtral" : name);
    t.split_experts = split;
    size_t n = (size_t)(N + STEPS) * t.n_vocab;
    float *want = rig_alloc(n, sizeof *want), *found = rig_alloc(n, sizeof *found);
    ttx_residency_settings plain = ttx_residency_default_settings();
    eval(&t, &plain, want);
    for (unsigned i = 1; i < 48; i++) {
        ttx_residency_settings set = plain;
        set.prefetch = i % 4;
        set.evict = (ttx_evict)(i / 4 % 3);
        set.evict_when = (ttx_evict_when)(i / 12 % 2);
        set.threads = i / 24;
        set.prefetch_ahead = i % 5;
        set.pin_bytes = i % 7 ? 0 : 64 << 10;
        memset(found, 0xff, n * sizeof *found);
        eval(&t, &set, found);
        if (memcmp(want, found, n * sizeof *want) == 0) continue;
        failures++;
        printf("%s: switches %u: the logits differ\n", name, i);
    }
    free(want);
    free(found);
}

int main(void) {
    static const char *const names[] = {"llama", "gemma3", "gpt-oss", "qwen2moe", "split"};
    check_page_cache();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) check_same_bits(names[i]);
    printf("%d failures\n", failures);
    return failures != 0;
}
