/* limits.c -- see limits.h. */
#include "limits.h"

#include "budget.h"
#include "clock.h"
#include "limits_int.h"
#include "pool.h"

#include <cpuid.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define READ_BYTES  (2ull << 30)
#define AGAIN_BYTES (512ull << 20)
#define CHUNK_BYTES (4ull << 20)
#define HUGE_PAGE   (2ull << 20)
enum { PASSES = 4, AGAIN_PASSES = 2, ITEMS_PER_THREAD = 8 };
#define PATIENCE_NS  4000000000ull /* after which no further pass over the readers begins */
#define UNIT_SECONDS 0.02          /* of one pass over one unit */

/* ---- reading ---- */

typedef struct read_job {
    uint8_t *mem;
    uint64_t (*read)(const uint8_t *p, size_t n);
    uint64_t sum; /* of all threads; nobody looks at it */
} read_job;

static void fill_chunks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const read_job *j = ctx;
    memset(j->mem + (uint64_t)begin * CHUNK_BYTES, 1, (uint64_t)(end - begin) * CHUNK_BYTES);
}

static void read_chunks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    read_job *j = ctx;
    uint64_t sum = 0;
    for (int64_t i = begin; i < end; i++)
        sum += j->read(j->mem + (uint64_t)i * CHUNK_BYTES, CHUNK_BYTES);
    __atomic_fetch_add(&j->sum, sum, __ATOMIC_RELAXED);
}

static void time_readers(ttx_limits *out, ttx_pool *pool, read_job *j,
                         const limit_reader *const *tables) {
    for (int t = 0; tables[t]; t++)
        for (const limit_reader *r = tables[t]; r->name; r++) {
            j->read = r->read;
            uint64_t start = ttx_now_ns();
            ttx_pool_run(pool, (int64_t)(out->read_bytes / CHUNK_BYTES), 1, 0, read_chunks, j);
            double gbps = (double)out->read_bytes / (double)(ttx_now_ns() - start);
            if (gbps <= out->read_gbps) continue;
            out->read_gbps = gbps;
            out->read_kernel = r->name;
        }
}

/* Every reader over `bytes` of memory, `passes` times. The fields of `out` are set anew. */
static int measure_reading(ttx_limits *out, ttx_pool *pool, uint64_t bytes, int passes,
                           ttx_err *err) {
    const limit_reader *tables[4] = {limit_readers_sse2};
    int n = 1;
    if (__builtin_cpu_supports("avx2")) tables[n++] = limit_readers_avx2;
    if (__builtin_cpu_supports("avx512f")) tables[n++] = limit_readers_avx512;

    uint64_t available = ttx_memory_available() / 2;
    out->read_gbps = 0;
    out->read_kernel = "";
    out->read_bytes = available && available < bytes ? available : bytes;
    out->read_bytes -= out->read_bytes % CHUNK_BYTES;
    if (out->read_bytes < 8 * out->cache_bytes) return TTX_OK; /* it would be the cache's speed */
    uint64_t mapped = out->read_bytes + HUGE_PAGE;
    uint8_t *map = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return ttx_fail_nomem(err, "measuring the bandwidth", mapped);
    read_job j = {.mem = map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE) % HUGE_PAGE};
    madvise(j.mem, out->read_bytes, MADV_HUGEPAGE);
    ttx_pool_run(pool, (int64_t)(out->read_bytes / CHUNK_BYTES), 1, 0, fill_chunks, &j);
    /* Pass by pass, not kernel by kernel: a disturbance then hits all of them. */
    uint64_t start = ttx_now_ns();
    for (int pass = 0; pass < passes && ttx_now_ns() - start < PATIENCE_NS; pass++)
        time_readers(out, pool, &j, tables);
    munmap(map, mapped);
    return TTX_OK;
}

/* ---- computing ---- */

typedef struct unit_job {
    const limit_unit *unit;
    int64_t rounds;
} unit_job;

static void run_items(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const unit_job *j = ctx;
    for (int64_t i = begin; i < end; i++) j->unit->run(j->rounds);
}

/* Returns 1e9 operations a second. */
static double time_unit(const ttx_limits *l, ttx_pool *pool, const limit_unit *unit) {
    unit_job j = {unit, 1000};
    int64_t items = (int64_t)l->n_threads * ITEMS_PER_THREAD;
    double best = 0;
    for (int pass = -1; pass < PASSES; pass++) {
        uint64_t start = ttx_now_ns();
        ttx_pool_run(pool, items, 1, 0, run_items, &j);
        uint64_t ns = ttx_now_ns() - start;
        double gops = unit->ops_per_round * (double)(j.rounds * items) / (double)(ns + 1);
        if (gops > best) best = gops;
        if (pass < 0) j.rounds = 1 + (int64_t)(UNIT_SECONDS * 1e9 / (double)(ns + 1) * 1000);
    }
    return best;
}

static bool cpu_has_amx(void) {
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 24 & 1);
}

/* Every unit, or the best one alone, anew. */
static void measure_computing(ttx_limits *out, ttx_pool *pool, bool all) {
    const struct {
        const limit_unit *units;
        const char *isa;
        bool has;
    } tables[] = {
        {limit_units_sse2, "scalar", true},
        {limit_units_avx2, "avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")},
        {limit_units_avx512, "avx512", __builtin_cpu_supports("avx512bw")},
        {limit_units_vnni, "vnni", __builtin_cpu_supports("avx512vnni")},
    };
    const char *best = out->peak_unit;
    bool amx = cpu_has_amx(); /* whose tiles are the best unit, by far */
    if (all) out->n_units = 0;
    out->peak_gops = 0;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (const limit_unit *u = tables[i].units; tables[i].has && u->name; u++) {
            if (!all && strcmp(u->name, best) != 0) continue;
            double gops = time_unit(out, pool, u);
            if (all && out->n_units < TTX_LIMIT_UNITS)
                out->units[out->n_units++] = (ttx_unit_peak){u->name, tables[i].isa, gops};
            if (amx || gops <= out->peak_gops) continue;
            out->peak_gops = gops;
            out->peak_unit = u->name;
        }
}

/* ---- both ---- */

/* The largest cache that the system lists for the first CPU; without /sys (in a chroot), what the C
 * library reads from the CPU. */
static uint64_t last_level_cache(void) {
    uint64_t largest = 0;
    for (int i = 0; i < 8; i++) {
        char path[64];
        unsigned long kib = 0;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        FILE *f = fopen(path, "re");
        if (!f) break;
        if (fscanf(f, "%luK", &kib) == 1 && (uint64_t)kib << 10 > largest)
            largest = (uint64_t)kib << 10;
        fclose(f);
    }
    if (largest) return largest;
    long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE), l3 = sysconf(_SC_LEVEL3_CACHE_SIZE);
    return l3 > 0 ? (uint64_t)l3 : l2 > 0 ? (uint64_t)l2 : 0;
}

static int measure(ttx_limits *l, bool all, ttx_err *err) {
    ttx_pool *pool;
    uint64_t few = 8 * l->cache_bytes > AGAIN_BYTES ? 8 * l->cache_bytes : AGAIN_BYTES;
    int rc = ttx_pool_create(&pool, l->n_threads, err);
    if (rc) return rc;
    if (all || l->peak_gops > 0) measure_computing(l, pool, all);
    if (all)
        rc = measure_reading(l, pool, READ_BYTES, PASSES, err);
    else if (l->read_gbps > 0)
        rc = measure_reading(l, pool, few < READ_BYTES ? few : READ_BYTES, AGAIN_PASSES, err);
    ttx_pool_destroy(pool);
    return rc;
}

int ttx_limits_measure(ttx_limits *out, ttx_err *err) {
    *out = (ttx_limits){.n_threads = ttx_cpu_count(),
                        .read_kernel = "",
                        .peak_unit = "",
                        .cache_bytes = last_level_cache()};
    return measure(out, true, err);
}

int ttx_limits_again(ttx_limits *l, ttx_err *err) {
    return measure(l, false, err);
}

ttx_limits ttx_limits_best(const ttx_limits *a, const ttx_limits *b) {
    ttx_limits best = *a;
    if (b->read_gbps > a->read_gbps) {
        best.read_gbps = b->read_gbps;
        best.read_kernel = b->read_kernel;
    }
    if (b->peak_gops > a->peak_gops) {
        best.peak_gops = b->peak_gops;
        best.peak_unit = b->peak_unit;
    }
    return best;
}
