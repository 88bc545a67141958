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

enum { MOST = 1 << (TTX_DISK_DEPTHS - 1), HUGE_PAGE = 2 << 20 };

typedef struct probe {
    const char *path;
    int fd;
    uint64_t size;
    uint64_t at; /* goes on where the last depth ended: no byte is read twice if the file allows */
    uint8_t *mem;
} probe;

static int start(probe *p, ttx_io *io, uint32_t tag, ttx_err *err) {
    if (p->at + TTX_DISK_READ > p->size) p->at = 0;
    ttx_io_read r = {0, tag, p->at, p->mem + (size_t)tag * TTX_DISK_READ, TTX_DISK_READ};
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

static int measure(probe *p, ttx_disk *d, uint64_t n_reads, ttx_err *err) {
    int rc = TTX_OK;
    uint64_t available = ttx_memory_available();
    for (int i = 0; i < TTX_DISK_DEPTHS && !rc; i++) {
        if (i && available && (4ull * TTX_DISK_READ << i) > available) break;
        ttx_io *io = NULL;
        ttx_err why = {0};
        int depth = 1 << i;
        for (size_t k = 0; k < (size_t)depth * TTX_DISK_READ; k += 4096) p->mem[k] = 0;
        if (ttx_io_uring_open(&io, &p->fd, 1, (uint32_t)depth, &why))
            rc = ttx_io_threads_open(&io, &p->fd, 1, (uint32_t)depth, err);
        if (rc) return rc;
        rc = run(p, io, depth, n_reads, &d->by_depth[i], err);
        io->close(io);
        if (d->by_depth[i] <= d->bytes_s) continue;
        d->bytes_s = d->by_depth[i];
        d->depth = depth;
    }
    double more = TTX_DISK_READ / d->by_depth[0] - TTX_DISK_READ / d->bytes_s;
    d->latency_s = more > 0 ? more : 0;
    return rc;
}

int ttx_disk_measure(ttx_disk *d, const char *path, uint64_t bytes, ttx_err *err) {
    *d = (ttx_disk){0};
    probe p = {.path = path, .fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC)};
    if (p.fd < 0)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot read past the page cache: %s", path,
                        strerror(errno));
    int rc = TTX_OK;
    off_t size = lseek(p.fd, 0, SEEK_END);
    p.size = size > 0 ? (uint64_t)size : 0;
    /* Into huge pages, as the engine reads: a device takes few pieces of memory at once. */
    size_t bytes_mem = (size_t)MOST * TTX_DISK_READ, map_bytes = bytes_mem + HUGE_PAGE;
    void *mem = mmap(NULL, map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem != MAP_FAILED) {
        p.mem = (uint8_t *)mem + (HUGE_PAGE - (uintptr_t)mem % HUGE_PAGE);
        madvise(p.mem, bytes_mem, MADV_HUGEPAGE);
    }
    if (mem == MAP_FAILED)
        rc = ttx_fail_nomem(err, "reads", map_bytes);
    else if (p.size < TTX_DISK_READ)
        rc = ttx_fail(err, TTX_E_RUNTIME,
                      "%s: expected at least %d bytes to measure the disk, found %llu", path,
                      TTX_DISK_READ, (unsigned long long)p.size);
    else
        rc = measure(&p, d, bytes / TTX_DISK_READ + 1, err);
    if (mem != MAP_FAILED) munmap(mem, map_bytes);
    close(p.fd);
    return rc;
}
