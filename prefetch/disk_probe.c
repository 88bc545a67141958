/* disk_probe.c -- see disk_probe.h. */
#include "disk_probe.h"

#include "budget.h"
#include "clock.h"
#include "io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    MOST = 1 << (TTX_DISK_DEPTHS - 1),
    HUGE_PAGE = 2 << 20,
    METER_DEPTH = 32, /* as the streaming mode reads */
    METER_SHARE = 64, /* of a file: its most memory, as a small model has a small budget */
    METER_READS = 64
};

typedef struct probe {
    const char *path;
    int fd;
    uint64_t size;
    uint64_t at; /* goes on where the last depth ended: no byte is read twice if the file allows */
    uint8_t *mem, *map; /* mem: aligned, in the map */
    size_t map_bytes;
    uint32_t places; /* of a read each, in mem */
} probe;

static int start(probe *p, ttx_io *io, uint32_t tag, ttx_err *err) {
    if (p->at + TTX_DISK_READ > p->size) p->at = 0;
    ttx_io_read r = {0, tag, p->at, p->mem + (size_t)(tag % p->places) * TTX_DISK_READ,
                     TTX_DISK_READ};
    p->at += TTX_DISK_READ;
    int rc = io->submit(io, &r, 1);
    return rc ? ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read: %s", p->path, strerror(-rc))
              : TTX_OK;
}

static int run(probe *p, ttx_io *io, int depth, uint64_t n_reads, double *bytes_s, ttx_err *err) {
    ttx_io_done done[MOST];
    uint64_t begin = ttx_now_ns(), started = 0, ended = 0;
    int rc = TTX_OK;
    for (; !rc && started < (uint64_t)depth && started < n_reads; started++)
        rc = start(p, io, (uint32_t)started, err);
    while (ended < started) { /* after an error too: they write into memory that is about to go */
        int n = io->reap(io, done, MOST, true);
        if (n <= 0) return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot wait for reads", p->path);
        for (int i = 0; i < n; i++, ended++) {
            if (done[i].result != TTX_DISK_READ && !rc)
                rc =
                    ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read past the page cache: %s", p->path,
                             done[i].result < 0 ? strerror(-done[i].result) : "a short read");
            if (rc || started == n_reads) continue;
            rc = start(p, io, done[i].tag, err);
            started += !rc;
        }
    }
    *bytes_s = (double)ended * TTX_DISK_READ / ((double)(ttx_now_ns() - begin + 1) * 1e-9);
    return rc;
}

/* What submits `depth` reads. Its memory is touched, so that none of it is zeroed in between. */
static int open_io(probe *p, ttx_io **io, int depth, ttx_err *err) {
    ttx_err why = {0};
    size_t places = (uint32_t)depth < p->places ? (size_t)depth : p->places;
    size_t bytes = places * TTX_DISK_READ;
    for (size_t k = 0; k < bytes; k += 4096) p->mem[k] = 0;
    if (!ttx_io_uring_open(io, &p->fd, 1, (uint32_t)depth, &why)) return TTX_OK;
    return ttx_io_threads_open(io, &p->fd, 1, (uint32_t)depth, err);
}

static int measure(probe *p, ttx_disk *d, uint64_t n_reads, ttx_err *err) {
    int rc = TTX_OK;
    uint64_t available = ttx_memory_available();
    for (int i = 0; i < TTX_DISK_DEPTHS && !rc; i++) {
        if (i && available && (4ull * TTX_DISK_READ << i) > available) break;
        ttx_io *io = NULL;
        int depth = 1 << i;
        rc = open_io(p, &io, depth, err);
        if (rc) return rc;
        rc = run(p, io, depth, n_reads, &d->by_depth[i], err);
        io->close(io);
        if (d->by_depth[i] > d->bytes_s) d->bytes_s = d->by_depth[i];
    }
    double more = TTX_DISK_READ / d->by_depth[0] - TTX_DISK_READ / d->bytes_s;
    d->latency_s = more > 0 ? more : 0;
    return rc;
}

static int open_file(probe *p, const char *path, ttx_err *err) {
    *p = (probe){.path = path, .fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC)};
    if (p->fd < 0)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read past the page cache: %s", path,
                        strerror(errno));
    off_t size = lseek(p->fd, 0, SEEK_END);
    p->size = size > 0 ? (uint64_t)size : 0;
    if (p->size < TTX_DISK_READ)
        return ttx_fail(err, TTX_E_RUNTIME,
                        "%s: expected at least %d bytes to measure the disk, found %llu", path,
                        TTX_DISK_READ, (unsigned long long)p->size);
    return TTX_OK;
}

/* For so many reads; into huge pages, as the engine reads: a device takes few pieces of memory at
 * once. */
static int take_memory(probe *p, uint32_t places, ttx_err *err) {
    p->places = places;
    size_t bytes = ((size_t)places * TTX_DISK_READ + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    p->map_bytes = bytes + HUGE_PAGE;
    void *map =
        mmap(NULL, p->map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return ttx_fail_nomem(err, "reads", p->map_bytes);
    p->map = map;
    p->mem = p->map + (HUGE_PAGE - (uintptr_t)map % HUGE_PAGE);
    madvise(p->mem, bytes, MADV_HUGEPAGE);
    return TTX_OK;
}

static void close_probe(probe *p) {
    if (p->map) munmap(p->map, p->map_bytes);
    if (p->fd >= 0) close(p->fd);
}

int ttx_disk_measure(ttx_disk *d, const char *path, uint64_t bytes, ttx_err *err) {
    probe p;
    *d = (ttx_disk){0};
    int rc = open_file(&p, path, err);
    if (!rc) rc = take_memory(&p, MOST, err);
    if (!rc) rc = measure(&p, d, bytes / TTX_DISK_READ + 1, err);
    close_probe(&p);
    return rc;
}

/* ---- the meter ---- */

struct ttx_disk_meter {
    probe p;
    ttx_io *io;
    bool dead;
    uint64_t bytes, ns;
};

static uint32_t meter_places(uint64_t file_bytes) {
    uint64_t n = file_bytes / METER_SHARE / TTX_DISK_READ;
    if (n > METER_DEPTH) return METER_DEPTH;
    return n ? (uint32_t)n : 1;
}

int ttx_disk_meter_open(ttx_disk_meter **out, const char *path, ttx_err *err) {
    *out = NULL;
    ttx_disk_meter *m = calloc(1, sizeof *m);
    if (!m) return ttx_fail_nomem(err, "measuring the disk", sizeof *m);
    int rc = open_file(&m->p, path, err);
    if (!rc) rc = take_memory(&m->p, meter_places(m->p.size), err);
    if (!rc) rc = open_io(&m->p, &m->io, METER_DEPTH, err);
    /* The probe has read the beginning: somebody may keep that in memory. */
    m->p.at = m->p.size / 2 / TTX_DISK_READ * TTX_DISK_READ;
    if (rc)
        ttx_disk_meter_close(m);
    else
        *out = m;
    return rc;
}

void ttx_disk_meter_close(ttx_disk_meter *m) {
    if (!m) return;
    if (m->io) m->io->close(m->io);
    close_probe(&m->p);
    free(m);
}

double ttx_disk_meter_read(ttx_disk_meter *m) {
    ttx_err why = {0};
    double bytes_s = 0; /* of the second run in the end */
    uint64_t begin = ttx_now_ns();
    if (m->dead) return 0;
    m->dead = run(&m->p, m->io, METER_DEPTH, METER_READS / 2, &bytes_s, &why) ||
              run(&m->p, m->io, METER_DEPTH, METER_READS, &bytes_s, &why);
    if (m->dead) return 0;
    m->bytes += (METER_READS / 2 + METER_READS) * (uint64_t)TTX_DISK_READ;
    m->ns += ttx_now_ns() - begin;
    return bytes_s;
}

uint64_t ttx_disk_meter_memory(const ttx_disk_meter *m) {
    return m ? m->p.map_bytes - HUGE_PAGE : 0; /* nothing touches what aligns it */
}

uint64_t ttx_disk_meter_bytes(const ttx_disk_meter *m) {
    return m ? m->bytes : 0;
}

uint64_t ttx_disk_meter_ns(const ttx_disk_meter *m) {
    return m ? m->ns : 0;
}
