/* stream_read.c -- reads: what is asked for next, and what becomes of the results.
 *
 * A block is read in chunks; it is there when all of them are. Short reads, interruptions and
 * refusals of O_DIRECT are dealt with here. A block that cannot be read is FAILED; whoever needs it
 * tries once more and then reports: data read ahead may fail without harm.
 */
#include "stream_int.h"

#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_TRIES = 32 }; /* of a read that makes no progress */

static void __attribute__((format(printf, 2, 3))) warn(stream *s, const char *format, ...) {
    char line[256];
    va_list ap;
    if (!s->set.warn) return;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    s->set.warn(s->set.warn_ctx, line);
}

/* ---- opening ---- */

/* The same file again, past the page cache where the file system allows it. By descriptor: the path
 * may have got another file. */
static int open_file(stream *s, uint32_t i, bool *refused, ttx_err *err) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", s->sources[i].fd);
    s->fds[i] = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    s->direct[i] = s->fds[i] >= 0;
    if (s->direct[i]) return TTX_OK;
    *refused = true;
    s->fds[i] = dup(s->sources[i].fd);
    if (s->fds[i] >= 0) return TTX_OK;
    return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open again: %s", s->sources[i].path,
                    strerror(errno));
}

int stream_open_io(stream *s, ttx_err *err) {
    bool refused = false;
    s->fds = malloc(s->n_sources * sizeof *s->fds);
    s->direct = calloc(s->n_sources, sizeof *s->direct);
    if (!s->fds || !s->direct) return ttx_fail_nomem(err, "files", s->n_sources * sizeof *s->fds);
    for (uint32_t i = 0; i < s->n_sources; i++) s->fds[i] = -1;
    for (uint32_t i = 0; i < s->n_sources; i++) {
        int rc = open_file(s, i, &refused, err);
        if (rc) return rc;
    }
    if (refused)
        warn(s, "%s: the file system refuses O_DIRECT; reading through the page cache",
             s->sources[0].path);
    s->io = s->set.io;
    if (s->io) return TTX_OK;
    s->own_io = true;
    ttx_err why = {0};
    if (!s->set.threads) {
        if (!ttx_io_uring_open(&s->io, s->fds, s->n_sources, STREAM_DEPTH, &why)) return TTX_OK;
        warn(s, "%s; reading with threads instead", why.msg);
    }
    return ttx_io_threads_open(&s->io, s->fds, s->n_sources, STREAM_DEPTH, err);
}

void stream_close_io(stream *s) {
    while (s->io && s->in_flight) { /* they write into memory that is about to go */
        ttx_io_done done[STREAM_DEPTH];
        int n = s->io->reap(s->io, done, STREAM_DEPTH, true);
        if (n <= 0) break;
        s->in_flight -= (uint32_t)n;
    }
    if (s->io && s->own_io) s->io->close(s->io);
    for (uint32_t i = 0; s->fds && i < s->n_sources; i++)
        if (s->fds[i] >= 0) close(s->fds[i]);
    free(s->fds);
    free(s->direct);
}

/* ---- asking ---- */

void stream_restart(block *b, read_class cls) {
    b->state = BLOCK_LOADING;
    b->next_part = 0;
    b->next_at = 0;
    b->error = 0;
    b->waited_ns = 0;
    b->found = cls == READ_DEMAND ? TTX_RES_MISSED : TTX_RES_PREFETCHED;
    b->guessed = cls == READ_GUESS;
}

void stream_want(stream *s, uint32_t id, read_class cls) {
    block *b = &s->blocks[id];
    if (cls == READ_DEMAND) b->demanded = true;
    if (b->state == BLOCK_RESIDENT) return;
    if (b->state == BLOCK_FAILED || (b->state == BLOCK_ABSENT && b->kind != BLOCK_EXPERT))
        stream_restart(b, cls);
    if (b->queued & 1u << cls) return;
    b->queued |= 1u << cls;
    queue_push(&s->queues[cls], id);
}

/* ---- starting reads ---- */

static bool all_sent(const block *b) {
    return b->next_part == b->n_parts || b->error;
}

/* The next chunk of a block. */
static void cut_chunk(stream *s, uint32_t id, flight *f, read_class cls) {
    block *b = &s->blocks[id];
    const part *p = &s->parts[b->first_part + b->next_part];
    uint64_t start = align_down(p->range.offset), end = p->range.offset + p->range.size;
    uint64_t left = p->read - b->next_at, bytes = left < STREAM_CHUNK ? left : STREAM_CHUNK;
    *f = (flight){
        .block = id,
        .file = p->range.shard,
        .offset = start + b->next_at,
        .first = p->range.offset,
        .need = start + b->next_at + bytes < end ? start + b->next_at + bytes : end,
        .to = b->mem + align_down(p->at) + b->next_at,
        .bytes = (uint32_t)bytes,
        .cls = cls,
        .busy = true,
    };
    b->next_at += bytes;
    if (b->next_at == p->read) {
        b->next_at = 0;
        b->next_part++;
    }
    b->pending++;
}

/* An expert gets its memory when its turn comes. */
static bool start_expert(stream *s, uint32_t id, read_class cls) {
    if (!experts_place(s, id, cls)) return false;
    s->count.guesses += cls == READ_GUESS;
    ttx_guesser_read(&s->guesser);
    if (cls == READ_GUESS && s->n_unsettled < UNSETTLED_MOST) s->unsettled[s->n_unsettled++] = id;
    stream_restart(&s->blocks[id], cls);
    return true;
}

/* Whether an expert that was asked for is: what it was asked for may be over. */
static bool still_wanted(const stream *s, const block *b, read_class cls) {
    if (cls == READ_GUESS) return experts_named(s, b);
    return cls == READ_WARM || b->demanded;
}

/* The first block of a queue that has something to read; NO_BLOCK: none. Blocks that are done leave
 * the queue; an expert that is needed and finds no slot stays, until the engine is done with
 * another, and lets others pass. */
static uint32_t head_of(stream *s, read_class cls) {
    queue *q = &s->queues[cls];
    bool full = false;
    for (uint32_t i = 0; i < q->n; i++) {
        uint32_t id = queue_at(q, i);
        block *b = &s->blocks[id];
        if (b->state == BLOCK_ABSENT && b->kind == BLOCK_EXPERT && still_wanted(s, b, cls)) {
            full = full || !start_expert(s, id, cls);
            if (full && cls == READ_DEMAND) continue;
        }
        if (b->state == BLOCK_LOADING && !all_sent(b) && !b->passed) return id;
        if (i) continue;
        b->queued &= ~(1u << cls);
        queue_pop(q);
        i--;
    }
    return NO_BLOCK;
}

static bool next_flight(stream *s, flight *f) {
    for (read_class cls = 0; cls < READ_CLASSES; cls++) {
        if (cls >= READ_GUESS && s->in_flight >= STREAM_AHEAD) return false;
        uint32_t id = head_of(s, cls);
        if (id == NO_BLOCK) continue;
        cut_chunk(s, id, f, cls);
        return true;
    }
    return false;
}

static void count_read(stream *s, const flight *f) {
    s->count.reads++;
    s->count.bytes_read += f->bytes;
    if (f->cls == READ_DEMAND) s->count.demand_bytes += f->bytes;
    if (f->cls == READ_ORDER) s->count.order_bytes += f->bytes;
    if (f->cls == READ_GUESS) s->count.guess_bytes += f->bytes;
    if (f->cls == READ_WARM) s->count.warm_bytes += f->bytes;
}

static void send(stream *s, const uint32_t *tags, int n) {
    ttx_io_read v[STREAM_DEPTH];
    for (int i = 0; i < n; i++) {
        flight *f = &s->flights[tags[i]];
        f->sent_ns = ttx_now_ns();
        v[i] = (ttx_io_read){f->file, tags[i], f->offset, f->to, f->bytes};
    }
    int rc = n ? s->io->submit(s->io, v, n) : 0;
    if (!rc) return;
    ttx_fail(&s->err, TTX_E_RUNTIME, "%s: cannot start reading: %s", s->io->name, strerror(-rc));
    for (int i = 0; i < n; i++) { /* none was started */
        flight *f = &s->flights[tags[i]];
        s->blocks[f->block].pending--;
        s->blocks[f->block].error = -rc;
        f->busy = false;
        s->in_flight--;
    }
}

static void start_reads(stream *s) {
    uint32_t tags[STREAM_DEPTH];
    int n = 0;
    if (s->err.code) return;
    ring_feed(s);
    for (uint32_t i = 0; i < STREAM_DEPTH && s->in_flight < STREAM_DEPTH; i++) {
        if (s->flights[i].busy) continue;
        if (!next_flight(s, &s->flights[i])) {
            ring_feed(s); /* an empty queue may be refilled */
            if (!s->queues[READ_ORDER].n || !next_flight(s, &s->flights[i])) break;
        }
        count_read(s, &s->flights[i]);
        tags[n++] = i;
        s->in_flight++;
    }
    send(s, tags, n);
}

/* ---- results ---- */

static void finish_block(block *b) {
    if (b->pending || b->state != BLOCK_LOADING) return;
    if (b->error)
        b->state = BLOCK_FAILED;
    else if (all_sent(b))
        b->state = BLOCK_RESIDENT;
}

/* The file system opened for O_DIRECT, but cannot do it. */
static bool drop_direct(stream *s, uint32_t file) {
    int flags = fcntl(s->fds[file], F_GETFL);
    if (!s->direct[file]) return false;
    s->direct[file] = false;
    if (flags < 0 || fcntl(s->fds[file], F_SETFL, flags & ~O_DIRECT) < 0) return false;
    warn(s, "%s: the file system refuses O_DIRECT; reading through the page cache",
         s->sources[file].path);
    return true;
}

/* Whether the read has to go on, with what is left of it in `f`. */
static bool read_again(stream *s, flight *f, int32_t result) {
    if (result == -EINTR || result == -EAGAIN) return ++f->tries < 1000 * MAX_TRIES;
    if (result == -EINVAL && drop_direct(s, f->file)) return true;
    if (result < 0) return !f->failed++; /* an error may pass */
    if (f->offset + (uint32_t)result >= f->need) return false;
    uint32_t got = (uint32_t)align_down((uint32_t)result);
    if (!got && ++f->tries >= MAX_TRIES) return false;
    f->offset += got;
    f->to += got;
    f->bytes -= got;
    return true;
}

static uint8_t cause_of(const stream *s, const flight *f) {
    if (f->cls == READ_DEMAND) return TTX_IO_DEMAND;
    if (f->cls == READ_GUESS) return TTX_IO_SPECULATE;
    return s->blocks[f->block].kind == BLOCK_PINNED ? TTX_IO_LOAD : TTX_IO_PREFETCH;
}

/* What a read has brought goes on record: from the page on in which the wanted bytes begin. */
static void record(const stream *s, const flight *f, uint32_t bytes) {
    uint64_t ns = ttx_now_ns() - f->sent_ns;
    ttx_record r = ttx_record_none(TTX_REC_IO);
    r.operation_type = cause_of(s, f);
    r.duration_ns = ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
    r.shard = (uint8_t)f->file;
    r.file_offset = f->offset;
    r.size_bytes = bytes;
    r.tensor_ptr = (uintptr_t)f->to;
    ttx_trace_io(s->trace, r, f->sent_ns, f->offset > f->first ? f->offset : f->first);
}

static void collect(stream *s, const ttx_io_done *d) {
    flight *f = &s->flights[d->tag];
    block *b = &s->blocks[f->block];
    if (ttx_trace_on(s->trace) && d->result > 0) record(s, f, (uint32_t)d->result);
    if (read_again(s, f, d->result)) {
        uint32_t tag = d->tag;
        s->count.retries++;
        send(s, &tag, 1);
        return;
    }
    f->busy = false;
    s->in_flight--;
    b->pending--;
    if (d->result < 0)
        b->error = -d->result;
    else if (f->offset + (uint32_t)d->result < f->need)
        b->error = EPIPE;
    finish_block(b);
}

void stream_pump(stream *s, bool wait) {
    ttx_io_done done[STREAM_DEPTH];
    for (bool again = wait;; again = false) {
        int n = s->in_flight ? s->io->reap(s->io, done, STREAM_DEPTH, false) : 0;
        for (int i = 0; i < n; i++) collect(s, &done[i]);
        start_reads(s);
        if (n || !again || !s->in_flight) return;
        n = s->io->reap(s->io, done, STREAM_DEPTH, true);
        if (n < 0)
            ttx_fail(&s->err, TTX_E_RUNTIME, "%s: cannot wait: %s", s->io->name, strerror(-n));
        for (int i = 0; i < n; i++) collect(s, &done[i]);
        start_reads(s);
        return;
    }
}

void stream_trace(stream *s, ttx_trace *trace) {
    ttx_io_done done[STREAM_DEPTH];
    while (s->trace && !trace && s->in_flight) {
        int n = s->io->reap(s->io, done, STREAM_DEPTH, true);
        if (n <= 0) break;
        for (int i = 0; i < n; i++) collect(s, &done[i]);
    }
    s->trace = trace;
}

static int fail_block(const stream *s, const block *b, ttx_err *err) {
    const part *p = &s->parts[b->first_part];
    return ttx_fail(err, TTX_E_RUNTIME, "%s: expected %llu bytes at %llu, %s%s",
                    s->sources[p->range.shard].path, (unsigned long long)p->range.size,
                    (unsigned long long)p->range.offset,
                    b->error == EPIPE ? "" : "reading failed: ",
                    b->error == EPIPE ? "found the end of the file" : strerror(b->error));
}

int stream_await(stream *s, uint32_t id, ttx_err *err) {
    block *b = &s->blocks[id];
    for (;;) {
        if (b->state == BLOCK_RESIDENT) {
            b->tries = 0;
            return TTX_OK;
        }
        if (s->err.code) return ttx_fail(err, TTX_E_RUNTIME, "%s", s->err.msg);
        if (b->state == BLOCK_FAILED && b->tries++) return fail_block(s, b, err);
        if (b->kind == BLOCK_RING && b->state == BLOCK_ABSENT) {
            int rc = ring_seek(s, id, err);
            if (rc) return rc;
            b->found = TTX_RES_MISSED;
        }
        stream_want(s, id, READ_DEMAND);
        stream_pump(s, true);
        if (!s->in_flight && b->state == BLOCK_ABSENT)
            return ttx_fail(err, TTX_E_RUNTIME,
                            "memory budget: no place left for the weights of "
                            "one operation");
    }
}
