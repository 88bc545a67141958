/* stream_int.h -- the streaming mode: what its files share.
 *
 * Weights are read, kept and dropped in *blocks*. A block is a tensor outside the experts, or all
 * of one expert of one layer (gate, up and down: they are always used together), or a single row
 * of a table. It has one or more *parts*, each a range of the file. Where a block may live:
 *     pinned   a place of its own, for good
 *     ring     a window over the blocks that do not fit, in the order of the plan, read ahead
 *     expert   a slot of the expert cache
 *     row      a slot of the row cache (embedding rows)
 *
 * All but backing fresh memory (touch.h) happens on the engine's thread: whenever it asks for
 * something, results are collected and reads are started (stream_read.c). The queue of reads is
 * deep enough to keep the device busy while a kernel computes. So there are no locks, and a run
 * with the same results in the same order takes the same decisions.
 */
#ifndef TTX_STREAM_INT_H
#define TTX_STREAM_INT_H

#include "clock.h"
#include "io.h"
#include "policy.h"
#include "policy_guess.h"
#include "recorder.h"
#include "residency.h"
#include "touch.h"

enum {
    STREAM_ALIGN = 4096,    /* of O_DIRECT reads; every device in use allows it */
    STREAM_CHUNK = 1 << 20, /* bytes a read */
    STREAM_DEPTH = 32,      /* reads under way */
    STREAM_AHEAD = 8        /* of them at most speculative, so that a demand read waits little */
};

typedef enum block_kind { BLOCK_PINNED, BLOCK_RING, BLOCK_EXPERT, BLOCK_ROW } block_kind;
typedef enum block_state { BLOCK_ABSENT, BLOCK_LOADING, BLOCK_RESIDENT, BLOCK_FAILED } block_state;

/* Why a block is read; the order is the priority. */
typedef enum read_class {
    READ_DEMAND,
    READ_ORDER,
    READ_GUESS,
    READ_WARM, /* an expert that is likely to be used some time: into a free place only */
    READ_CLASSES
} read_class;

enum { NO_BLOCK = 0xffffffff };

typedef struct part {
    ttx_range range; /* first: ttx_range_upto */
    uint32_t block;
    uint64_t at;   /* where its first byte lies in the block's memory */
    uint64_t read; /* bytes from the aligned start to the aligned end: what a read of it moves */
} part;

typedef struct block {
    uint32_t first_part, n_parts; /* of stream.parts */
    uint64_t bytes;               /* of memory */
    block_kind kind;
    block_state state;
    uint8_t *mem;
    uint32_t held;    /* leases */
    uint32_t pending; /* reads under way */
    /* Reads not yet started begin at byte `next_at` of part `next_part`. */
    uint32_t next_part;
    uint64_t next_at;
    unsigned queued; /* bit per read_class */
    int error;       /* errno of a failed read; EPIPE: the file ended */
    int tries;
    bool demanded;   /* somebody waits for it, or will in this layer: not to be evicted */
    bool guessed;    /* read because of a prediction, and not used yet */
    uint64_t named;  /* of an expert: the last step for which a prediction named it */
    bool passed;     /* of the ring: used, or skipped */
    uint8_t cls;     /* of an expert: index of its slot_class */
    uint32_t launch; /* of the plan */
    uint16_t layer;
    uint16_t expert;
    ttx_residency_state found; /* of the next lease */
    uint64_t waited_ns;
    uint64_t used_tick; /* of a row: of the last use */
    uint32_t slot;      /* of an expert: its place in the cache */
    uint64_t in_ring;   /* ring: bytes taken, with the gap before it */
} block;

typedef struct queue {
    uint32_t *v;
    uint32_t cap, first, n;
} queue;

/* Slots of one size. Layers whose experts have the same size share them. */
typedef struct slot_class {
    uint64_t bytes;
    uint32_t n_slots, n_used, n_experts;
    uint32_t min_slots; /* for the experts of one token of one layer */
    uint32_t *owner;    /* [n_slots] block, or NO_BLOCK */
    uint8_t *mem;
} slot_class;

enum { MAX_CLASSES = 8, UNSETTLED_MOST = 128 };

/* A read under way. */
typedef struct flight {
    uint32_t block;
    uint32_t file;
    uint64_t offset;
    uint64_t first; /* file offset of the first byte of the part: what is before is padding */
    uint64_t need;  /* file offset up to which bytes are needed: the rest is padding */
    uint8_t *to;
    uint32_t bytes;
    uint64_t sent_ns;
    int tries;  /* without any progress */
    int failed; /* times */
    read_class cls;
    bool busy;
} flight;

typedef struct stream {
    ttx_residency_settings set;
    uint32_t n_sources;
    ttx_source *sources;
    /* Reading. */
    ttx_io *io;
    bool own_io;
    int *fds;
    bool *direct;
    flight flights[STREAM_DEPTH];
    uint32_t in_flight;
    queue queues[READ_CLASSES];
    ttx_trace *trace; /* NULL: none */
    /* The layout. */
    uint64_t map_bytes;
    uint8_t *map;     /* all weights in memory, from a huge page's boundary on */
    ttx_touch *touch; /* of it; NULL: none */
    part *parts;      /* [n_parts], those of a block together */
    part *sorted;     /* [n_sorted] the same without those of rows, by range */
    uint32_t n_parts, n_sorted;
    block *blocks; /* order blocks, experts, rows */
    uint32_t n_blocks;
    uint32_t *order; /* [n_order] pinned and ring blocks as a step uses them */
    uint32_t n_order;
    uint32_t *order_of; /* [n_blocks] inverse of order */
    uint32_t pin_next;  /* index into order: pinned blocks before it have been asked for */
    /* The ring: a FIFO of blocks in the order of the plan. */
    uint8_t *ring;
    uint64_t ring_bytes, ring_head, ring_used; /* next place; bytes taken */
    queue fifo;
    uint32_t ring_next; /* index into order of the next block to read */
    bool has_ring;
    /* Experts. */
    slot_class classes[MAX_CLASSES];
    uint32_t n_classes;
    uint32_t first_expert, n_layer, n_expert; /* blocks of experts; those that exist */
    uint32_t *expert_block;                   /* [n_layer][n_expert], or NO_BLOCK */
    uint64_t *layer_bytes;                    /* [n_layer + 1] of all experts of a layer */
    uint64_t used_bytes;                      /* of them, by this step in this layer */
    /* Rows. */
    uint32_t first_row, n_rows;
    uint64_t row_bytes;
    /* What is known of uses. */
    uint32_t stage; /* the layer that is run; n_layer: what comes after the last one */
    bool routed;    /* its router has chosen; stays false where many tokens are run at once */
    uint64_t tick;
    ttx_policy policy;
    ttx_guesser guesser;
    uint32_t unsettled[UNSETTLED_MOST]; /* experts that were read on a guess for a layer to come */
    uint32_t n_unsettled;
    /* The limit of memory: when it is looked at again, and what it was. */
    uint64_t limit_again, growth_again, limit_seen;
    ttx_residency_layout layout;
    ttx_residency_counters count;
    ttx_err err; /* what ends everything */
} stream;

static inline uint64_t stream_now(const stream *s) {
    return s->set.clock ? s->set.clock(s->set.clock_ctx) : ttx_now_ns();
}

static inline uint64_t align_down(uint64_t x) {
    return x / STREAM_ALIGN * STREAM_ALIGN;
}
static inline uint64_t align_up(uint64_t x) {
    return align_down(x + STREAM_ALIGN - 1);
}

/* stream_layout.c: blocks and parts from the plan, and who gets which memory. */
int stream_layout(stream *s, ttx_err *err);
/* Obtains the memory and gives every block its place. */
int stream_place(stream *s, ttx_err *err);

/* stream_read.c */
int stream_open_io(stream *s, ttx_err *err);
void stream_close_io(stream *s);
/* Asks for a block that is ABSENT or FAILED and has memory (an expert gets its own here, when it is
 * its turn), or raises the priority of one that is being read. */
void stream_want(stream *s, uint32_t block, read_class cls);
/* Collects results and starts reads; with `wait` returns only after a result, if any read is under
 * way. */
void stream_pump(stream *s, bool wait);
/* Reads go on record there; NULL: no more, once those under way have ended. */
void stream_trace(stream *s, ttx_trace *trace);
/* Until the block is RESIDENT. Errors: TTX_E_RUNTIME (it cannot be read). */
int stream_await(stream *s, uint32_t block, ttx_err *err);
/* Nothing of the block is read, and reading may begin. */
void stream_restart(block *b, read_class cls);

static inline uint32_t queue_at(const queue *q, uint32_t i) {
    return q->v[(q->first + i) % q->cap];
}
static inline void queue_push(queue *q, uint32_t v) {
    q->v[(q->first + q->n++) % q->cap] = v;
}
static inline void queue_pop(queue *q) {
    q->first = (q->first + 1) % q->cap;
    q->n--;
}

/* stream_ring.c */
/* Asks for the blocks that the plan wants next, as far as there is room. */
void ring_feed(stream *s);
/* The plan's order was left: makes this block the next one. Errors: TTX_E_RUNTIME. */
int ring_seek(stream *s, uint32_t block, ttx_err *err);
/* The block is being used: those before it are not needed any more. */
void ring_use(stream *s, uint32_t block);
/* Frees what is at the ring's end and not needed. */
void ring_reclaim(stream *s);

/* stream_experts.c */
/* Gives the block a slot, evicting another if need be; false: none can be had now. */
bool experts_place(stream *s, uint32_t block, read_class cls);
/* The step in which the expert's router will run next. */
uint64_t experts_step(const stream *s, const block *b);
/* Whether a prediction has named the expert, and its router has yet to run. */
bool experts_named(const stream *s, const block *b);
void experts_use(stream *s, uint32_t block);
/* Empties a place that is taken; false: it is in use. */
bool experts_evict(stream *s, slot_class *c, uint32_t slot);

/* stream_limit.c */
/* Between layers: shrinks the cache if the limit of memory has fallen below the budget. What cannot
 * be helped ends up in s->err. */
void limit_follow(stream *s);
/* Whether a place that was never used may be. */
bool limit_allows_growth(stream *s);

/* stream.c: the calls of residency.h. */
int stream_open(stream **out, const ttx_source *sources, uint32_t n_sources,
                const ttx_residency_settings *set, ttx_err *err);
void stream_close(stream *s);
int stream_describe(const ttx_residency_settings *set, ttx_residency_layout *layout, ttx_err *err);
void stream_layer(stream *s, int layer);
void stream_hint(stream *s, ttx_range range);
bool stream_guess(stream *s, const ttx_range *set, int n);
bool stream_routed(stream *s);
int stream_acquire(stream *s, ttx_range range, ttx_lease *lease, ttx_err *err);
int stream_acquire_any(stream *s, const ttx_range *set, int n, bool *got, ttx_err *err);
void stream_release(stream *s, ttx_range range);

#endif
