/* io_probe.c -- was it in memory? Asked of the page cache before an access, at level io.
 *
 * cachestat(2) counts pages of a range without touching them; where the kernel lacks it
 * (before 6.5) mincore(2) does, more slowly.
 */
#include "recorder_int.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, SYS_CACHESTAT = 451, PROBE_PAGES = 4096 };

struct cache_range {
    uint64_t offset, length;
};
struct cache_counts {
    uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

static int cached_pages(const ttx_trace_source *s, uint64_t offset, uint64_t n, uint64_t *cached) {
    struct cache_range range = {offset, n};
    struct cache_counts counts = {0};
    int rc = (int)syscall(SYS_CACHESTAT, s->fd, &range, &counts, 0);
    *cached = counts.cached;
    return rc;
}

static int resident_pages(const ttx_trace_source *s, uint64_t offset, uint64_t n,
                          uint64_t *resident) {
    unsigned char page[PROBE_PAGES];
    *resident = 0;
    for (uint64_t at = 0; at < n;) {
        uint64_t part = n - at < PROBE_PAGES * PAGE ? n - at : PROBE_PAGES * PAGE;
        if (mincore((void *)(s->map + offset + at), part, page)) return -1;
        for (uint64_t i = 0; i < (part + PAGE - 1) / PAGE; i++) *resident += page[i] & 1;
        at += part;
    }
    return 0;
}

ttx_residency_state ttx_trace_probe(ttx_trace *t, uint32_t shard, uint64_t offset, uint64_t size) {
    struct trace_writer *w = t->w;
    if (shard >= w->n_source || w->probe == PROBE_NONE || !size) return TTX_RES_UNKNOWN;
    const ttx_trace_source *s = &w->sources[shard];
    uint64_t begin = offset / PAGE * PAGE, n = offset + size - begin, found = 0;
    uint64_t pages = (n + PAGE - 1) / PAGE;
    if (w->probe == PROBE_CACHESTAT && cached_pages(s, begin, n, &found)) {
        w->probe = PROBE_MINCORE;
        found = 0;
    }
    if (w->probe == PROBE_MINCORE && resident_pages(s, begin, n, &found)) {
        w->probe = PROBE_NONE;
        w->probe_errno = errno;
        return TTX_RES_UNKNOWN;
    }
    if (found < pages) w->cold_bytes += (pages - found) * PAGE;
    return found < pages ? TTX_RES_MISSED : TTX_RES_RESIDENT;
}

uint64_t trace_block_input(void) {
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) ? 0 : (uint64_t)u.ru_inblock * 512;
}
