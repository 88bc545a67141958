/* limits.c -- see limits.h. */
#include "limits.h"

#include "budget.h"
#include "clock.h"
#include "limits_int.h"
#include "pool.h"

#include <cpuid.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define READ_BYTES  (2ull << 30)
#define METER_BYTES (512ull << 20)
#define CHUNK_BYTES (4ull << 20)
#define HUGE_PAGE   (2ull << 20)
enum { PASSES = 4, ITEMS_PER_THREAD = 8 };
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

/* Returns 1e9 bytes a second. */
static double time_reader(ttx_pool *pool, read_job *j, const limit_reader *r, uint64_t bytes) {
    j->read = r->read;
    uint64_t start = ttx_now_ns();
    ttx_pool_run(pool, (int64_t)(bytes / CHUNK_BYTES), 1, 0, read_chunks, j);
    return (double)bytes / (double)(ttx_now_ns() - start + 1);
}

static void list_readers(const limit_reader *tables[4]) {
    int n = 0;
    tables[n++] = limit_readers_sse2;
    if (__builtin_cpu_supports("avx2")) tables[n++] = limit_readers_avx2;
    if (__builtin_cpu_supports("avx512f")) tables[n++] = limit_readers_avx512;
    tables[n] = NULL;
}

static void time_readers(ttx_limits *out, ttx_pool *pool, read_job *j) {
    const limit_reader *tables[4];
    list_readers(tables);
    for (int t = 0; tables[t]; t++)
        for (const limit_reader *r = tables[t]; r->name; r++) {
            double gbps = time_reader(pool, j, r, out->read_bytes);
            if (gbps <= out->read_gbps) continue;
            out->read_gbps = gbps;
            out->read_kernel = r->name;
        }
}

/* Memory of our own in huge pages, touched. */
static int map_memory(read_job *j, uint8_t **map, uint64_t bytes, ttx_pool *pool, ttx_err *err) {
    *map =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (*map == MAP_FAILED) {
        *map = NULL;
        return ttx_fail_nomem(err, "measuring the bandwidth", bytes + HUGE_PAGE);
    }
    j->mem = *map + (HUGE_PAGE - (uintptr_t)*map % HUGE_PAGE) % HUGE_PAGE;
    madvise(j->mem, bytes, MADV_HUGEPAGE);
    ttx_pool_run(pool, (int64_t)(bytes / CHUNK_BYTES), 1, 0, fill_chunks, j);
    return TTX_OK;
}

static int measure_reading(ttx_limits *out, ttx_pool *pool, ttx_err *err) {
    uint64_t available = ttx_memory_available() / 2;
    uint8_t *map;
    read_job j = {0};
    out->read_bytes = available && available < READ_BYTES ? available : READ_BYTES;
    out->read_bytes -= out->read_bytes % CHUNK_BYTES;
    if (out->read_bytes < 8 * out->cache_bytes) return TTX_OK; /* it would be the cache's speed */
    int rc = map_memory(&j, &map, out->read_bytes, pool, err);
    if (rc) return rc;
    /* Pass by pass, not kernel by kernel: a disturbance then hits all of them. */
    uint64_t start = ttx_now_ns();
    for (int pass = 0; pass < PASSES && ttx_now_ns() - start < PATIENCE_NS; pass++)
        time_readers(out, pool, &j);
    munmap(map, out->read_bytes + HUGE_PAGE);
    return TTX_OK;
}

/* ---- the meter ---- */

struct ttx_meter {
    ttx_pool *pool;
    const limit_reader *reader;
    read_job job;
    uint8_t *map;
    uint64_t bytes;
};

int ttx_meter_open(ttx_meter **out, const ttx_limits *l, ttx_err *err) {
    const limit_reader *tables[4];
    *out = NULL;
    if (l->read_gbps <= 0) return TTX_OK;
    ttx_meter *m = calloc(1, sizeof *m);
    if (!m) return ttx_fail_nomem(err, "measuring the bandwidth", sizeof *m);
    list_readers(tables);
    for (int t = 0; tables[t]; t++)
        for (const limit_reader *r = tables[t]; r->name; r++)
            if (strcmp(r->name, l->read_kernel) == 0) m->reader = r;
    m->bytes = 8 * l->cache_bytes > METER_BYTES ? 8 * l->cache_bytes : METER_BYTES;
    if (m->bytes > l->read_bytes) m->bytes = l->read_bytes; /* there is little memory */
    m->bytes -= m->bytes % CHUNK_BYTES;
    int rc = ttx_pool_create(&m->pool, l->n_threads, err);
    if (!rc) rc = map_memory(&m->job, &m->map, m->bytes, m->pool, err);
    if (rc)
        ttx_meter_close(m);
    else
        *out = m;
    return rc;
}

void ttx_meter_close(ttx_meter *m) {
    if (!m) return;
    ttx_pool_destroy(m->pool);
    if (m->map) munmap(m->map, m->bytes + HUGE_PAGE);
    free(m);
}

/* Two passes, of which the first wakes the threads. Their mean, not the better one: what is judged
 * is a mean over time too. */
double ttx_meter_read(ttx_meter *m) {
    double first = time_reader(m->pool, &m->job, m->reader, m->bytes);
    double second = time_reader(m->pool, &m->job, m->reader, m->bytes);
    return 2 / (1 / first + 1 / second);
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
    int rc = ttx_pool_create(&pool, l->n_threads, err);
    if (rc) return rc;
    measure_computing(l, pool, all);
    if (all) rc = measure_reading(l, pool, err);
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

int ttx_limits_peak_again(ttx_limits *l, ttx_err *err) {
    return l->peak_gops > 0 ? measure(l, false, err) : TTX_OK;
}
