/* recorder.c -- see recorder.h: opening and closing, and all that the launching thread does. */
#include "recorder_int.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { RING_RECORDS = 1 << 17, IO_RECORDS = 1 << 14, STALL_NS = 50000, CALIBRATE_NS = 20000000 };

ttx_trace_settings ttx_trace_default_settings(void) {
    return (ttx_trace_settings){
        .level = TTX_LEVEL_HEAD, .ring_records = RING_RECORDS, .io_records = IO_RECORDS};
}

uint64_t ttx_trace_memory(const ttx_trace_settings *set, uint32_t n_tensor, int n_threads) {
    enum {
        TENSOR = 3072,    /* objects in two documents, and one of those as text: 1280 + 300 bytes */
        REST = 512 << 10, /* the rest of the document, the writer's stack, buffers of files */
        WATCHED = FAULT_WATCH_BYTES + (1 << 17), /* a thread, and its faults that are pending */
        OTHERS = 10                              /* threads that read */
    };
    uint64_t sum = (set->ring_records + set->io_records) * sizeof(ttx_record) + REST +
                   trace_writer_memory(set->compress) + n_tensor * (uint64_t)TENSOR;
    if (set->level == TTX_LEVEL_STATS) sum += n_tensor * sizeof(ttx_tensor_count);
    if (set->level == TTX_LEVEL_IO) sum += (uint64_t)(n_threads + OTHERS) * WATCHED;
    return sum;
}

/* ---- time ---- */

static uint64_t system_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t ttx_monotonic_ns(void) {
    return system_ns(CLOCK_MONOTONIC);
}

struct moment {
    uint64_t tsc, ns;
};

/* Both clocks at one moment: of several tries the one that took the least time. */
static struct moment both_clocks(void) {
    struct moment best = {0};
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 32; i++) {
        uint64_t before = __rdtsc(), ns = ttx_monotonic_ns(), after = __rdtsc();
        if (after - before >= least) continue;
        least = after - before;
        best = (struct moment){before + least / 2, ns};
    }
    return best;
}

static bool tsc_is_invariant(void) {
    unsigned a, b, c, d;
    return __get_cpuid(0x80000007, &a, &b, &c, &d) && (d & 1 << 8);
}

/* Ticks of the TSC against CLOCK_MONOTONIC, twice: a clock that disagrees with itself is not used.
 */
static bool calibrate_tsc(ttx_ticks *k) {
    if (!tsc_is_invariant()) return false;
    double rate[2];
    struct moment from = both_clocks(), last = from;
    for (int i = 0; i < 2; i++) {
        struct timespec nap = {.tv_nsec = CALIBRATE_NS / 2};
        nanosleep(&nap, NULL);
        struct moment now = both_clocks();
        if (now.tsc <= last.tsc || now.ns <= last.ns) return false;
        rate[i] = (double)(now.ns - last.ns) / (double)(now.tsc - last.tsc);
        last = now;
    }
    double both = (double)(last.ns - from.ns) / (double)(last.tsc - from.tsc);
    if (rate[0] / rate[1] > 1.0005 || rate[1] / rate[0] > 1.0005 || both > 100) return false;
    k->tsc = true;
    k->mult = (uint64_t)(both * 4294967296.0 + 0.5);
    k->start = last.tsc;
    k->start_monotonic_ns = last.ns;
    return true;
}

static void start_clock(ttx_ticks *k, bool no_tsc) {
    if (no_tsc || !calibrate_tsc(k)) {
        k->start = k->start_monotonic_ns = ttx_monotonic_ns();
        k->mult = 1ull << 32;
    }
    k->start_realtime_ns = system_ns(CLOCK_REALTIME) - (ttx_monotonic_ns() - k->start_monotonic_ns);
}

/* ---- opening and closing ---- */

/* Memory that is there: the launching thread meets no page fault. */
static int ring_memory(ttx_record **v, uint64_t *mask, size_t n, ttx_err *err) {
    if (n < 2 || (n & (n - 1)))
        return ttx_fail(err, TTX_E_USAGE, "trace ring: expected a power of two, found %zu", n);
    void *p = mmap(NULL, n * sizeof **v, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (p == MAP_FAILED) return ttx_fail_nomem(err, "trace ring", n * sizeof **v);
    *v = p;
    *mask = n - 1;
    return TTX_OK;
}

static void free_trace(ttx_trace *t) {
    struct trace_writer *w = t->w;
    if (t->ring.v) munmap(t->ring.v, (t->ring.mask + 1) * sizeof *t->ring.v);
    if (w && w->io.v) munmap(w->io.v, (w->io.mask + 1) * sizeof *w->io.v);
    if (w) {
        cJSON_Delete(w->document);
        free(w->by_offset);
        free(w->pending);
        ttx_packer_close(w->packer);
        free(w->plain);
        free(w->out);
        free(w->dir);
        free(w);
    }
    free(t->counts);
    free(t);
}

/* Insertion would do for files in order; a shell sort is as short and good for any. */
static void sort_by_offset(uint32_t *v, size_t n, const ttx_trace_tensor *t) {
    for (size_t gap = n / 2; gap; gap /= 2)
        for (size_t i = gap; i < n; i++)
            for (size_t k = i; k >= gap; k -= gap) {
                const ttx_trace_tensor *a = &t[v[k - gap]], *b = &t[v[k]];
                if (a->shard < b->shard || (a->shard == b->shard && a->offset <= b->offset)) break;
                uint32_t swap = v[k];
                v[k] = v[k - gap];
                v[k - gap] = swap;
            }
}

static int allocate(ttx_trace *t, const ttx_trace_settings *set, ttx_err *err) {
    struct trace_writer *w = t->w = calloc(1, sizeof *w);
    if (!w) return ttx_fail_nomem(err, "trace writer", sizeof *w);
    w->t = t;
    w->fd = -1;
    w->by_offset = calloc(t->n_file_tensor + 1, sizeof *w->by_offset);
    bool stats = set->level == TTX_LEVEL_STATS;
    if (stats) t->counts = calloc(t->n_tensor + 1, sizeof *t->counts);
    if (!w->by_offset || (stats && !t->counts))
        return ttx_fail_nomem(err, "trace writer", t->n_tensor * sizeof *t->counts);
    for (uint32_t i = 0; i < t->n_file_tensor; i++) w->by_offset[i] = i;
    sort_by_offset(w->by_offset, t->n_file_tensor, t->tensors);
    int rc = ring_memory(&t->ring.v, &t->ring.mask, set->ring_records, err);
    if (!rc) rc = ring_memory(&w->io.v, &w->io.mask, set->io_records, err);
    return rc;
}

int ttx_trace_open(ttx_trace **out, const ttx_trace_settings *set, const ttx_trace_info *info,
                   ttx_err *err) {
    *out = NULL;
#ifdef TTX_NO_TRACE
    return ttx_fail(err, TTX_E_USAGE, "--trace: this ttx was built without tracing");
#endif
    ttx_trace *t = aligned_alloc(64, sizeof *t);
    if (!t) return ttx_fail_nomem(err, "trace", sizeof *t);
    *t = (ttx_trace){.level = set->level,
                     .tensors = info->tensors,
                     .n_tensor = info->n_tensor,
                     .n_file_tensor = info->n_file_tensor,
                     .drop = set->drop};
    int rc = allocate(t, set, err);
    if (!rc && set->compress) rc = ttx_packer_open(&t->w->packer, err);
    if (!rc) {
        t->w->max_bytes = set->max_bytes;
        t->w->token_text = info->token_text;
        t->w->token_ctx = info->token_ctx;
        t->w->sources = info->sources;
        t->w->n_source = info->sources ? info->n_source : 0;
        start_clock(&t->ticks, set->no_tsc);
        rc = trace_dir_make(&t->w->dir, set->dir, err);
    }
    if (!rc) rc = trace_document_make(t->w, set, info, err);
    if (!rc) rc = trace_document_write(t->w, NULL, err);
    if (!rc) rc = trace_names_write(t->w, err);
    if (!rc) rc = trace_writer_start(t->w, err);
    if (rc) {
        free_trace(t);
        return rc;
    }
    t->block_input = trace_block_input();
    *out = t;
    return TTX_OK;
}

void ttx_trace_note(ttx_trace *t, const char *key, double value) {
    if (!t) return;
    cJSON *config = cJSON_GetObjectItemCaseSensitive(t->w->document, "inference_config");
    if (!config) return;
    cJSON_DeleteItemFromObjectCaseSensitive(config, key);
    cJSON_AddNumberToObject(config, key, value); /* without memory: the key is missing */
}

int ttx_trace_close(ttx_trace *t, int rc, ttx_trace_result *result, ttx_err *err) {
    if (!t) return rc;
    struct trace_writer *w = t->w;
    ttx_err own = {0};
    int bad = trace_writer_stop(w, true, &own);
    ttx_trace_result res = {
        .records = w->n_safe,
        .lost = atomic_load(&t->lost),
        .bytes = w->bytes,
        .launches = t->launches,
        .stalls = w->stalls,
        .stall_ns = w->stall_ns,
        .duration_s = (double)ttx_trace_clock(t) * 1e-9,
        .writer_cpu_s = w->cpu_s,
        .rest_cpu_s = w->rest_cpu_s,
        .limited = w->limited,
    };
    snprintf(res.dir, sizeof res.dir, "%s", w->dir);
    if (!bad && t->counts) bad = trace_counts_write(w, &own);
    if (!bad) bad = trace_document_write(w, &res, &own);
    free_trace(t);
    if (result) *result = res;
    if (rc || !bad) return rc;
    return ttx_fail(err, (ttx_code)bad, "%s", own.msg);
}

const char *ttx_trace_dir(const ttx_trace *t) {
    return t->w->dir;
}

/* ---- records ---- */

static void nap(void) {
    struct timespec t = {.tv_nsec = STALL_NS};
    nanosleep(&t, NULL);
}

/* Comes by at every quarter of the ring, to see how far the writer is. */
ttx_record *ttx_trace_full(ttx_trace *t) {
    ttx_ring *r = &t->ring;
    uint64_t since = 0, size = r->mask + 1, quarter = size >= 4 ? size / 4 : 1;
    ttx_trace_publish(t);
    for (;;) {
        uint64_t left = atomic_load_explicit(&r->tail, memory_order_acquire) + size - r->next;
        if (left <= size / 2 && !since) trace_writer_wake(t->w);
        r->room = r->next + (left < quarter ? left : quarter);
        if (left) break;
        if (t->drop) {
            atomic_fetch_add_explicit(&t->lost, 1, memory_order_relaxed);
            return &t->spare;
        }
        if (!since) since = ttx_monotonic_ns();
        nap();
    }
    if (since) {
        t->w->stalls++;
        t->w->stall_ns += ttx_monotonic_ns() - since;
    }
    return &r->v[r->next++ & r->mask];
}

ttx_record ttx_trace_launch(ttx_trace *t, uint64_t start, uint64_t end, ttx_record r) {
    uint64_t ns = end > start ? end - start : 0;
    t->launches++;
    r.timestamp_ns = start;
    r.flags |= TTX_RECF_FIRST;
    r.duration_ns = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
    if (ns >= UINT32_MAX && !t->counts) {
        ttx_record l = r;
        l.kind = TTX_REC_LONG;
        l.flags = 0;
        l.size_bytes = ns;
        *ttx_trace_slot(t) = l;
    }
    return r;
}

/* A record for each head of a tensor, like the one that is given: its rows, or its columns of every
 * row, from the block on that holds the first of them. */
static void put_heads(ttx_trace *t, const ttx_record *r, const ttx_trace_tensor *d) {
    uint64_t each = d->size / d->n_head, rest = d->size % d->n_head, from = 0;
    uint32_t row_each = d->row_bytes / d->n_head, row_rest = d->row_bytes % d->n_head;
    for (uint32_t h = 0; h < d->n_head; h++) {
        ttx_record *slot = ttx_trace_slot(t);
        uint64_t to = each * (h + 1) + (rest ? rest * (h + 1) / d->n_head : 0), at = from;
        *slot = *r;
        slot->attention_head = (uint16_t)h;
        slot->size_bytes = to - from;
        if (d->strided) {
            uint32_t column =
                row_each * h + (row_rest ? (uint32_t)((uint64_t)row_rest * h / d->n_head) : 0);
            at = column / d->block_bytes * d->block_bytes;
            slot->flags |= TTX_RECF_STRIDED;
        }
        slot->file_offset += at;
        slot->tensor_ptr += at;
        if (h) {
            slot->flags &= (uint8_t)~TTX_RECF_FIRST;
            slot->duration_ns = 0;
        }
        from = to;
    }
}

void ttx_trace_access(ttx_trace *t, ttx_record *r, uint64_t offset, uint64_t size,
                      const uint8_t *p) {
    const ttx_trace_tensor *d = &t->tensors[r->tensor_idx];
    if (t->counts) {
        t->counts[r->tensor_idx].accesses++;
        t->counts[r->tensor_idx].bytes += size;
        return;
    }
    ttx_record v = *r;
    v.shard = d->shard;
    v.qkv_type = d->qkv;
    v.file_offset = offset;
    v.size_bytes = size;
    v.tensor_ptr = (uintptr_t)p;
    v.expert_id = d->expert;
    if (d->expert == TTX_REC_NO_EXPERT && d->expert_bytes)
        v.expert_id = (uint16_t)((offset - d->offset) / d->expert_bytes);
    if (t->level >= TTX_LEVEL_HEAD && d->n_head && size == d->size)
        put_heads(t, &v, d);
    else
        *ttx_trace_slot(t) = v;
    r->flags &= (uint8_t)~TTX_RECF_FIRST;
    r->duration_ns = 0;
}

void ttx_trace_tokens(ttx_trace *t, const int32_t *ids, const int32_t *pos, int64_t n,
                      ttx_phase phase, uint64_t start) {
    uint64_t end = ttx_trace_now(t);
    ttx_record r = ttx_record_none(TTX_REC_TOKEN);
    r.timestamp_ns = start;
    r.end_ns = end;
    r.batch = t->batch++;
    r.duration_ns = end - start < UINT32_MAX ? (uint32_t)(end - start) : UINT32_MAX;
    r.n_tokens = (uint16_t)n;
    r.phase = (uint8_t)phase;
    if (t->level == TTX_LEVEL_IO) { /* of the batch, with its first token */
        uint64_t now = trace_block_input();
        r.size_bytes = now - t->block_input;
        t->block_input = now;
    }
    for (int64_t i = 0; i < n; i++) {
        r.token_id = (uint32_t)pos[i];
        r.vocab_id = (uint32_t)ids[i];
        *ttx_trace_slot(t) = r;
        r.size_bytes = 0;
    }
    ttx_trace_publish(t);
}

void ttx_trace_restart(ttx_trace *t, uint32_t pos) {
    ttx_record r = ttx_record_none(TTX_REC_RESTART);
    r.timestamp_ns = ttx_trace_now(t);
    r.token_id = pos;
    *ttx_trace_slot(t) = r;
    ttx_trace_publish(t);
}

void ttx_trace_route(ttx_trace *t, const ttx_route *route) {
    if (t->counts) return;
    ttx_record r = ttx_record_none(TTX_REC_ROUTE);
    r.timestamp_ns = t->last_ns;
    r.token_id = route->step;
    r.n_tokens = 1;
    r.layer_id = (uint16_t)route->layer;
    r.phase = route->decode ? TTX_PHASE_GENERATE : TTX_PHASE_PROMPT;
    for (int32_t i = 0; i < route->k; i++) {
        r.expert_id = (uint16_t)route->expert[i];
        r.expert_rank = (uint8_t)i;
        r.routing_score = route->score[i];
        r.tensor_ptr = 0;
        r.expert_weight = route->weight[i];
        *ttx_trace_slot(t) = r;
    }
    ttx_trace_publish(t);
}

/* ---- any thread ---- */

int64_t ttx_trace_find_tensor(const ttx_trace *t, uint8_t shard, uint64_t offset) {
    const uint32_t *v = t->w->by_offset;
    size_t lo = 0, hi = t->n_file_tensor; /* the first that begins after the byte */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const ttx_trace_tensor *d = &t->tensors[v[mid]];
        if (d->shard < shard || (d->shard == shard && d->offset <= offset))
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo) return -1;
    const ttx_trace_tensor *d = &t->tensors[v[lo - 1]];
    return d->shard == shard && offset - d->offset < d->size ? (int64_t)v[lo - 1] : -1;
}

static void locate(const ttx_trace *t, ttx_record *r, uint64_t at) {
    int64_t i = ttx_trace_find_tensor(t, r->shard, at);
    if (i < 0) return;
    const ttx_trace_tensor *d = &t->tensors[i];
    r->tensor_idx = (uint32_t)i;
    r->layer_id = d->layer;
    r->qkv_type = d->qkv;
    r->expert_id = d->expert;
    if (d->expert == TTX_REC_NO_EXPERT && d->expert_bytes)
        r->expert_id = (uint16_t)((at - d->offset) / d->expert_bytes);
}

void ttx_trace_io(ttx_trace *t, ttx_record v, uint64_t start, uint64_t offset) {
    io_ring *q = &t->w->io;
    if (t->counts || !ttx_trace_on(t)) return;
    uint64_t zero = t->ticks.start_monotonic_ns; /* what was asked for earlier counts from there */
    v.timestamp_ns = start > zero ? start - zero : 0;
    locate(t, &v, offset);
    uint64_t at = atomic_load_explicit(&q->head, memory_order_relaxed);
    do {
        while (at - atomic_load_explicit(&q->tail, memory_order_acquire) > q->mask) {
            if (t->drop) {
                atomic_fetch_add_explicit(&t->lost, 1, memory_order_relaxed);
                return;
            }
            trace_writer_wake(t->w);
            nap();
            at = atomic_load_explicit(&q->head, memory_order_relaxed);
        }
    } while (!atomic_compare_exchange_weak_explicit(&q->head, &at, at + 1, memory_order_relaxed,
                                                    memory_order_relaxed));
    ttx_record *slot = &q->v[at & q->mask];
    uint8_t kind = v.kind;
    v.kind = 0; /* the slot is not full before the rest of it is there */
    *slot = v;
    __atomic_store_n(&slot->kind, kind, __ATOMIC_RELEASE);
}
