/* recorder.h -- taking a trace while a model runs.
 *
 * The thread that launches operations fills 64-byte slots of a ring that was touched when it was
 * opened; a writer thread frames them into tensor_access.bin. At a call site there is no
 * allocation, no lock and no system call: only when the ring is full does the launching thread wait
 * (or, with `drop`, count what it cannot keep). Reads, which end on other threads, go through a
 * second ring.
 *
 * A NULL recorder is one that is off. Built with TTX_NO_TRACE, it always is.
 */
#ifndef TTX_RECORDER_H
#define TTX_RECORDER_H

#include "route.h"
#include "trace_meta.h"

#include <stdatomic.h>
#include <stddef.h>
#include <x86intrin.h>

/* A ring of records: one side fills, the other empties. Counters only grow. */
typedef struct ttx_ring {
    ttx_record *v;
    uint64_t mask;                      /* records - 1 */
    uint64_t next;                      /* the filler's: next slot */
    uint64_t room;                      /* the filler's: where it looks at `tail` again */
    _Alignas(64) _Atomic uint64_t head; /* filled */
    _Alignas(64) _Atomic uint64_t tail; /* emptied */
} ttx_ring;

/* From ticks to nanoseconds: ns = base + (ticks - start) * mult / 2^32. */
typedef struct ttx_ticks {
    bool tsc; /* false: ticks are CLOCK_MONOTONIC's nanoseconds */
    uint64_t start, mult;
    uint64_t start_monotonic_ns, start_realtime_ns;
} ttx_ticks;

/* Level stats: what is counted in the place of records. */
typedef struct ttx_tensor_count {
    uint64_t accesses, bytes;
} ttx_tensor_count;

typedef struct ttx_trace {
    ttx_trace_level level;
    const ttx_trace_tensor *tensors; /* [n_tensor], borrowed */
    uint32_t n_tensor, n_file_tensor;
    ttx_ticks ticks;
    uint64_t last_ns;     /* of the launching thread: time does not go back */
    uint64_t launches;    /* all, recorded or not */
    uint64_t batch;       /* the number of the step that is being run */
    uint64_t block_input; /* level io: bytes from block devices up to the last step */
    bool drop;
    ttx_record spare;         /* is filled when nothing can be kept */
    _Atomic bool off;         /* the writer has stopped: its limit, or a full disk */
    _Atomic uint64_t lost;    /* dropped for want of room */
    ttx_tensor_count *counts; /* [n_tensor + 1] at level stats, otherwise NULL; last: no tensor */
    ttx_ring ring;
    struct trace_writer *w;
} ttx_trace;

typedef struct ttx_trace_settings {
    const char *dir;
    ttx_trace_level level;
    bool drop;           /* lose records rather than wait when the ring is full */
    bool compress;       /* with zstd */
    bool no_tsc;         /* take times from the system */
    uint64_t max_bytes;  /* of the file of records; 0: no limit */
    size_t ring_records; /* a power of two */
    size_t io_records;   /* the same, of the ring for reads */
} ttx_trace_settings;

ttx_trace_settings ttx_trace_default_settings(void);

/* Bytes of memory that a trace takes while it is open, for a model with so many tensors (caches
 * included) that runs on so many threads: the rings, what the writer has under way, the document.
 */
uint64_t ttx_trace_memory(const ttx_trace_settings *set, uint32_t n_tensor, int n_threads);

/* A shard of the model: what addresses and residency are about at level io. */
typedef struct ttx_trace_source {
    int fd;
    const uint8_t *map;
    uint64_t size;
} ttx_trace_source;

/* What the recorder is told about the run. Everything is borrowed until the trace is closed. */
typedef struct ttx_trace_info {
    const ttx_trace_tensor *tensors; /* [n_tensor]: n_file_tensor of the file, then caches */
    uint32_t n_tensor, n_file_tensor;
    /* The document's keys that the recorder cannot know: model_file, model_hash, shards,
     * model_metadata, inference_config. Copied. */
    const struct cJSON *document;
    /* The text of a token, for tokens.csv; called by the writer thread. Returns how many bytes
     * there are, of which at most `cap` are written. NULL: no texts. */
    size_t (*token_text)(void *ctx, int32_t id, char *buf, size_t cap);
    void *token_ctx;
    /* [n_source], by shard. NULL: the weights are read from copies, and whoever copies says whether
     * they were there. */
    const ttx_trace_source *sources;
    uint32_t n_source;
} ttx_trace_info;

/* Makes the directory (or a run directory in one that holds a trace), writes its metadata and
 * starts the writer. Errors: TTX_E_USAGE (a directory of something else), TTX_E_RUNTIME. */
int ttx_trace_open(ttx_trace **out, const ttx_trace_settings *set, const ttx_trace_info *info,
                   ttx_err *err);

/* A key of inference_config that is known only later (num_tokens_generated). */
void ttx_trace_note(ttx_trace *t, const char *key, double value);

/* What was recorded, once it is closed; for a summary. */
typedef struct ttx_trace_result {
    uint64_t records, lost, bytes, launches;
    uint64_t stalls, stall_ns; /* the launching thread waited for room */
    double duration_s, writer_cpu_s;
    double rest_cpu_s; /* of writer_cpu_s, for what was in the rings when the run had ended */
    bool limited;      /* --trace-max was reached */
    char dir[200];
} ttx_trace_result;

/* Ends the trace: everything recorded is on its way to disk and the metadata says so. `rc` is the
 * outcome of the run; returns rc, or TTX_E_RUNTIME if the trace could not be written. `result` may
 * be NULL. NULL is fine. */
int ttx_trace_close(ttx_trace *t, int rc, ttx_trace_result *result, ttx_err *err);

/* The directory of the run. */
const char *ttx_trace_dir(const ttx_trace *t);

/* ---- the launching thread ---- */

uint64_t ttx_monotonic_ns(void);

/* Is this recorder to be told of launches? */
static inline bool ttx_trace_on(const ttx_trace *t) {
#ifdef TTX_NO_TRACE
    (void)t;
    return false;
#else
    return __builtin_expect(t != NULL, 0) && !atomic_load_explicit(&t->off, memory_order_relaxed);
#endif
}

/* Nanoseconds since the start of the run; any thread. */
static inline uint64_t ttx_trace_clock(const ttx_trace *t) {
    uint64_t now = t->ticks.tsc ? __rdtsc() : ttx_monotonic_ns();
    return (uint64_t)(((unsigned __int128)(now - t->ticks.start) * t->ticks.mult) >> 32);
}

/* The same for the launching thread alone, whose times never go back. */
static inline uint64_t ttx_trace_now(ttx_trace *t) {
    uint64_t ns = ttx_trace_clock(t);
    if (ns > t->last_ns) t->last_ns = ns;
    return t->last_ns;
}

/* Waits for room, or does without: the slot to be filled. */
ttx_record *ttx_trace_full(ttx_trace *t);

/* The next slot, to be filled at once; ttx_trace_publish when those of a launch are. */
static inline ttx_record *ttx_trace_slot(ttx_trace *t) {
    if (__builtin_expect(t->ring.next == t->ring.room, 0)) return ttx_trace_full(t);
    return &t->ring.v[t->ring.next++ & t->ring.mask];
}

static inline void ttx_trace_publish(ttx_trace *t) {
    atomic_store_explicit(&t->ring.head, t->ring.next, memory_order_release);
}

/* A record of which nothing is known but the kind. */
static inline ttx_record ttx_record_none(ttx_rec_kind kind) {
    return (ttx_record){
        .file_offset = TTX_REC_NO_OFFSET,
        .token_id = TTX_REC_NO_TOKEN,
        .tensor_idx = TTX_REC_NO_TENSOR,
        .routing_score = __builtin_nanf(""),
        .layer_id = TTX_REC_NO_LAYER,
        .attention_head = TTX_REC_NO_HEAD,
        .expert_id = TTX_REC_NO_EXPERT,
        .kind = (uint8_t)kind,
        .expert_rank = TTX_REC_NO_RANK,
        .shard = TTX_REC_NO_SHARD,
    };
}

/* What all records of a launch have in common: kind, times, tokens, layer, operation, phase. The
 * launch ran from `start` to `end`; a LONG record is written where that does not fit. Counts the
 * launch. */
ttx_record ttx_trace_launch(ttx_trace *t, uint64_t start, uint64_t end, ttx_record r);

/* Records an access of r's launch to `size` bytes from file offset `offset` on, which lie in the
 * tensor r->tensor_idx: with its shard and expert, and split by heads if
 * the level asks for it. The first record of the launch takes r's duration with it. */
void ttx_trace_access(ttx_trace *t, ttx_record *r, uint64_t offset, uint64_t size,
                      const uint8_t *p);

/* At level io, before an access: is all of the range in memory? Costs a system call. */
ttx_residency_state ttx_trace_probe(ttx_trace *t, uint32_t shard, uint64_t offset, uint64_t size);

/* Tokens [0, n) of a step, from `start` to now, at these positions; the number of their batch goes
 * up. */
void ttx_trace_tokens(ttx_trace *t, const int32_t *ids, const int32_t *pos, int64_t n,
                      ttx_phase phase, uint64_t start);
void ttx_trace_restart(ttx_trace *t, uint32_t pos);

/* The experts that were chosen for one token. */
void ttx_trace_route(ttx_trace *t, const ttx_route *route);

/* ---- any thread ---- */

/* A read: r is a record of kind IO with shard, range, cause and duration, begun at `start`
 * (ttx_monotonic_ns). Its tensor, layer and expert are those of the byte at `at`. */
void ttx_trace_io(ttx_trace *t, ttx_record r, uint64_t start, uint64_t at);

/* The tensor of the file that a byte lies in; -1: none (headers, padding). */
int64_t ttx_trace_find_tensor(const ttx_trace *t, uint8_t shard, uint64_t offset);

#endif
