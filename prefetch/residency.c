/* residency.c -- see residency.h.
 *
 * The streaming mode is in stream.c, what the page cache is told of a mapped model in mapped.c;
 * here are the modes of a model that fits in memory. A range's address is a base address plus its
 * offset: the base is the file's mapping, or our own copy, whose first page stands for the page of
 * the file in which the weights begin (so that alignment is kept and the header is not read twice).
 */
#include "residency.h"

#include "budget.h"
#include "mapped.h"
#include "stream_int.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { PAGE = 4096, READ_BYTES = 8 << 20 };

struct copy {
    uint8_t *mem;   /* NULL: the mapping is used */
    uint64_t first; /* file offset of mem[0] */
    uint64_t bytes;
};

struct ttx_residency {
    ttx_load_mode mode;
    uint32_t n_sources;
    ttx_source *sources;
    struct copy *copies;
    stream *stream; /* NULL: one of the other modes */
    mapped *mapped; /* NULL: not mapped, or the page cache is left alone */
};

ttx_residency_settings ttx_residency_default_settings(void) {
    return (ttx_residency_settings){
        .mode = TTX_LOAD_MMAP, .pin_bytes = TTX_PIN_AUTO, .policy = TTX_CACHE_DEFAULT};
}

bool ttx_residency_wants_plan(const ttx_residency_settings *set) {
    bool pins = set->n_pins || (set->pin_bytes && set->pin_bytes != TTX_PIN_AUTO);
    return set->mode == TTX_LOAD_STREAM ||
           (set->mode == TTX_LOAD_MMAP && (set->prefetch || set->evict || pins));
}

static int read_all(const ttx_source *s, struct copy *c, const ttx_residency_settings *set,
                    uint64_t *done, uint64_t total, ttx_err *err) {
    for (uint64_t at = 0; at < c->bytes;) {
        uint64_t want = c->bytes - at < READ_BYTES ? c->bytes - at : READ_BYTES;
        ssize_t got = pread(s->fd, c->mem + at, want, (off_t)(c->first + at));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return ttx_fail(err, TTX_E_RUNTIME, "%s: expected %llu bytes at %llu, %s", s->path,
                            (unsigned long long)want, (unsigned long long)(c->first + at),
                            got < 0 ? strerror(errno) : "found the end of the file");
        at += (uint64_t)got;
        *done += (uint64_t)got;
        if (set->progress && !set->progress(set->progress_ctx, *done, total))
            return ttx_fail(err, TTX_E_INTERRUPTED, "interrupted while loading %s", s->path);
    }
    return TTX_OK;
}

static int load_copies(ttx_residency *r, const ttx_residency_settings *set, ttx_err *err) {
    uint64_t total = 0, done = 0;
    for (uint32_t i = 0; i < r->n_sources; i++) {
        struct copy *c = &r->copies[i];
        c->first = r->sources[i].data_offset / PAGE * PAGE;
        c->bytes = r->sources[i].size > c->first ? r->sources[i].size - c->first : 0;
        total += c->bytes;
    }
    for (uint32_t i = 0; i < r->n_sources; i++) {
        struct copy *c = &r->copies[i];
        if (!c->bytes) continue;
        void *p = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return ttx_fail_nomem(err, r->sources[i].path, c->bytes);
        madvise(p, c->bytes, MADV_HUGEPAGE); /* fewer TLB misses; a refusal costs nothing else */
        c->mem = p;
        int rc = read_all(&r->sources[i], c, set, &done, total, err);
        if (rc) return rc;
    }
    return TTX_OK;
}

/* Locks the mappings; on refusal warns and stays with plain mmap. */
static void lock_sources(ttx_residency *r, const ttx_residency_settings *set) {
    struct rlimit lim;
    if (getrlimit(RLIMIT_MEMLOCK, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &lim);
    }
    for (uint32_t i = 0; i < r->n_sources; i++) {
        const ttx_source *s = &r->sources[i];
        if (mlock(s->map, s->size) == 0) continue;
        char line[256];
        snprintf(line, sizeof line,
                 "cannot lock %s in memory: %s; going on without (raise the limit with "
                 "'ulimit -l unlimited')",
                 s->path, strerror(errno));
        if (set->warn) set->warn(set->warn_ctx, line);
        r->mode = TTX_LOAD_MMAP;
        return;
    }
}

/* What is not in the page cache yet comes in pieces of 2 MiB, and stays so for later runs: a page
 * table's entry for each 4 KiB costs decoding up to a tenth. Not for what does not fit, or is to be
 * evicted: the system would have to take back 2 MiB at a time. Kernels and file systems that
 * cannot, do not. */
static void ask_huge_pages(ttx_residency *r) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < r->n_sources; i++) bytes += r->sources[i].size;
    for (uint32_t i = 0; i < r->n_sources && bytes < ttx_memory_available(); i++)
        madvise((void *)r->sources[i].map, r->sources[i].size, MADV_HUGEPAGE);
}

int ttx_residency_open(ttx_residency **out, const ttx_source *sources, uint32_t n_sources,
                       const ttx_residency_settings *set, ttx_err *err) {
    *out = NULL;
    int rc = TTX_OK;
    ttx_residency *r = calloc(1, sizeof *r);
    if (!r) return ttx_fail_nomem(err, "residency", sizeof *r);
    r->mode = set->mode;
    r->n_sources = n_sources;
    r->sources = calloc(n_sources, sizeof *r->sources);
    r->copies = calloc(n_sources, sizeof *r->copies);
    if (!r->sources || !r->copies) {
        rc = ttx_fail_nomem(err, "residency", n_sources * sizeof *r->sources);
        goto error;
    }
    memcpy(r->sources, sources, n_sources * sizeof *sources);
    if (r->mode == TTX_LOAD_STREAM && (rc = stream_open(&r->stream, sources, n_sources, set, err)))
        goto error;
    if (r->mode == TTX_LOAD_NONE && (rc = load_copies(r, set, err))) goto error;
    if (r->mode == TTX_LOAD_MLOCK || (r->mode == TTX_LOAD_MMAP && !ttx_residency_wants_plan(set)))
        ask_huge_pages(r);
    if (r->mode == TTX_LOAD_MLOCK) lock_sources(r, set);
    for (uint32_t i = 0; i < n_sources && r->mode == TTX_LOAD_MMAP; i++)
        madvise((void *)sources[i].map, sources[i].size, MADV_WILLNEED);
    if (r->mode == TTX_LOAD_MMAP && (rc = mapped_open(&r->mapped, r->sources, n_sources, set, err)))
        goto error;
    *out = r;
    return TTX_OK;
error:
    ttx_residency_close(r);
    return rc;
}

int ttx_residency_describe(const ttx_residency_settings *settings, ttx_residency_layout *layout,
                           ttx_err *err) {
    return stream_describe(settings, layout, err);
}

void ttx_residency_close(ttx_residency *r) {
    if (!r) return;
    stream_close(r->stream);
    mapped_close(r->mapped);
    for (uint32_t i = 0; r->copies && i < r->n_sources; i++)
        if (r->copies[i].mem) munmap(r->copies[i].mem, r->copies[i].bytes);
    for (uint32_t i = 0; r->sources && r->mode == TTX_LOAD_MLOCK && i < r->n_sources; i++)
        munlock(r->sources[i].map, r->sources[i].size);
    free(r->sources);
    free(r->copies);
    free(r);
}

void ttx_residency_layer(ttx_residency *r, int layer) {
    if (r->stream) stream_layer(r->stream, layer);
    if (r->mapped) mapped_layer(r->mapped, layer);
}

void ttx_residency_hint(ttx_residency *r, ttx_range range) {
    if (r->stream) stream_hint(r->stream, range);
    if (r->mapped) mapped_hint(r->mapped, range);
}

void ttx_residency_trace(ttx_residency *r, struct ttx_trace *trace) {
    if (r && r->stream) stream_trace(r->stream, trace);
}

bool ttx_residency_guess(ttx_residency *r, const ttx_range *set, int n) {
    return r->stream && stream_guess(r->stream, set, n);
}

bool ttx_residency_routed(ttx_residency *r) {
    return r->stream && stream_routed(r->stream);
}

int ttx_residency_acquire(ttx_residency *r, ttx_range range, ttx_lease *lease, ttx_err *err) {
    if (r->stream) return stream_acquire(r->stream, range, lease, err);
    const struct copy *c = &r->copies[range.shard];
    if (c->mem)
        *lease = (ttx_lease){c->mem + (range.offset - c->first), TTX_RES_RESIDENT, 0};
    else
        *lease = (ttx_lease){r->sources[range.shard].map + range.offset, TTX_RES_UNKNOWN, 0};
    if (r->mapped) lease->state = mapped_use(r->mapped, range);
    return TTX_OK;
}

int ttx_residency_acquire_any(ttx_residency *r, const ttx_range *set, int n, bool *got,
                              ttx_err *err) {
    if (r->stream) return stream_acquire_any(r->stream, set, n, got, err);
    for (int i = 0; i < n; i++) got[i] = true;
    if (r->mapped) mapped_use_any(r->mapped, set, n, got);
    return TTX_OK;
}

void ttx_residency_release(ttx_residency *r, ttx_range range) {
    if (r->stream) stream_release(r->stream, range);
}

const ttx_residency_layout *ttx_residency_get_layout(const ttx_residency *r) {
    return r->stream ? &r->stream->layout : NULL;
}

bool ttx_residency_counts(const ttx_residency *r) {
    return r->stream || r->mapped;
}

ttx_residency_counters ttx_residency_get_counters(const ttx_residency *r) {
    return r->stream   ? r->stream->count
           : r->mapped ? *mapped_counters(r->mapped)
                       : (ttx_residency_counters){0};
}

ttx_load_mode ttx_residency_mode(const ttx_residency *r) {
    return r->mode;
}
