/* recorder_int.h -- what the recorder's files share: the writer thread and its state.
 *
 * recorder.c has what runs on the launching thread, trace_writer.c the thread that empties the
 * rings, trace_dir.c the other files of the directory.
 */
#ifndef TTX_RECORDER_INT_H
#define TTX_RECORDER_INT_H

#include "fault_watch.h"
#include "recorder.h"
#include "trace_file.h"
#include "trace_pack.h"

#include <cJSON.h>
#include <pthread.h>
#include <stdio.h>

/* Many fill, one empties: a slot is full when its kind is set. */
typedef struct io_ring {
    ttx_record *v;
    uint64_t mask;
    _Alignas(64) _Atomic uint64_t head; /* given out */
    _Alignas(64) _Atomic uint64_t tail; /* emptied */
} io_ring;

/* How residency is asked for. */
enum trace_probe { PROBE_CACHESTAT, PROBE_MINCORE, PROBE_NONE };

/* Level io: what the system counts, at the start and at the end. */
typedef struct io_counts {
    uint64_t minor, major, block_input;
    uint64_t io_stall_us, memory_stall_us; /* PSI, "some"; UINT64_MAX: unavailable */
} io_counts;

struct trace_writer {
    ttx_trace *t;
    char *dir;
    int fd;       /* of tensor_access.bin; -1: none */
    FILE *tokens; /* tokens.csv */
    pthread_t thread;
    bool started;
    _Atomic bool stop;
    io_ring io;
    ttx_crc crc;
    pthread_mutex_t lock; /* of `woken` */
    pthread_cond_t wake;
    bool woken;
    uint8_t *out;               /* bytes on their way to the file, from a page's beginning on */
    size_t out_n;               /* so many, behind which the block is filled that comes next */
    uint64_t out_at;            /* where they go */
    ttx_packer *packer;         /* NULL: nothing is compressed */
    ttx_record *plain;          /* ... otherwise the block before it is */
    size_t n_block;             /* records of that block */
    uint64_t n_records, n_safe; /* in blocks; in the file */
    uint64_t bytes, max_bytes;
    double rest_cpu_s; /* of cpu_s, for what was left when the run had ended */
    bool limited, failed;
    ttx_err err; /* of the writer thread */
    double cpu_s;
    uint64_t stalls, stall_ns; /* of the launching thread */
    cJSON *document;
    uint32_t *by_offset; /* the file's tensors, by shard and offset */
    /* Level io. */
    const ttx_trace_source *sources;
    uint32_t n_source;
    enum trace_probe probe;
    int probe_errno;
    uint64_t cold_bytes; /* not in memory when they were asked for */
    _Atomic bool ready;  /* the thread has begun to watch */
    fault_watch *faults;
    char why_no_faults[160];
    fault_sample *pending; /* of launches that are not on record yet, by time */
    size_t n_pending, pending_cap;
    uint64_t sampled[TTX_FAULT_COUNT], unsampled; /* unsampled: rings were full */
    io_counts from, to;
    size_t (*token_text)(void *ctx, int32_t id, char *buf, size_t cap);
    void *token_ctx;
};

/* ---- trace_writer.c ---- */

/* Bytes of memory that it takes. */
uint64_t trace_writer_memory(bool compress);
/* Creates the file, writes its header, starts the thread. Errors: TTX_E_RUNTIME. */
int trace_writer_start(struct trace_writer *w, ttx_err *err);
/* There is much in a ring: do not wait for the next turn. Any thread. */
void trace_writer_wake(struct trace_writer *w);
/* Empties the rings and ends the file; `whole` false: without an END frame. */
int trace_writer_stop(struct trace_writer *w, bool whole, ttx_err *err);

/* ---- io_probe.c ---- */
uint64_t trace_block_input(void); /* bytes that block devices gave this process */

/* ---- io_account.c ---- */

/* The writer thread's part of level io: begin and end watching; take what there is; put the faults
 * up to a launch's end into the stream, as that launch's. */
void io_account_begin(struct trace_writer *w);
void io_account_take(struct trace_writer *w);
void io_account_launch(struct trace_writer *w, const ttx_record *launch);
void io_account_end(struct trace_writer *w);
/* One record into the block (trace_writer.c). */
void trace_writer_put(struct trace_writer *w, const ttx_record *r);
/* Adds `io_attribution` to the document's statistics. False without memory. */
bool io_account_describe(const struct trace_writer *w, cJSON *stats);

/* ---- trace_dir.c ---- */

/* Where the run goes: *out is the caller's. Errors: TTX_E_USAGE, TTX_E_RUNTIME. */
int trace_dir_make(char **out, const char *dir, ttx_err *err);
/* Adds system, layout, tensors to the document. */
int trace_document_make(struct trace_writer *w, const ttx_trace_settings *set,
                        const ttx_trace_info *info, ttx_err *err);
/* Writes the document; `stats` NULL: the run goes on. */
int trace_document_write(struct trace_writer *w, const ttx_trace_result *stats, ttx_err *err);
int trace_names_write(const struct trace_writer *w, ttx_err *err);  /* tensor_names.txt */
int trace_counts_write(const struct trace_writer *w, ttx_err *err); /* tensor_stats.csv */
/* A row of tokens.csv; the heading for NULL. */
void trace_token_row(struct trace_writer *w, const ttx_record *r);

/* A quoted field of a CSV file: bytes that are no UTF-8 become <0xNN>. */
void trace_csv_text(FILE *f, const char *s, size_t n);

#endif
