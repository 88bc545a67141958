/* stream_ring.c -- what the plan wants next: pinned blocks that are not there yet, and the ring.
 *
 * The blocks outside the experts are used in the same order in every step, so reading ahead is
 * following the plan, over its end into the next step. The ring is memory in which the blocks that
 * are not pinned follow each other; a block leaves it when it has been used. It is a FIFO; a block
 * that a step leaves out (a prompt's output projection, when no logits are wanted) is dropped when
 * a later one is used.
 */
#include "stream_int.h"

enum { FEED = 4 }; /* blocks asked for in advance: more would be in the way of more urgent ones */

static block *fifo_block(const stream *s, uint32_t i) {
    return &s->blocks[queue_at(&s->fifo, i)];
}

static bool droppable(const block *b) {
    return b->passed && !b->held && !b->pending;
}

static void drop(stream *s, block *b) {
    s->ring_used -= b->in_ring;
    b->state = BLOCK_ABSENT;
    b->mem = NULL;
    b->passed = b->demanded = false;
}

void ring_reclaim(stream *s) {
    while (s->fifo.n && droppable(fifo_block(s, 0))) {
        drop(s, fifo_block(s, 0));
        queue_pop(&s->fifo);
    }
    if (!s->fifo.n) s->ring_head = 0;
}

/* Gives the block a place behind the last one. */
static bool place(stream *s, uint32_t id) {
    block *b = &s->blocks[id];
    uint64_t gap = 0, at = s->ring_head;
    if (at + b->bytes > s->ring_bytes) { /* the rest up to the end stays unused for this turn */
        gap = s->ring_bytes - at;
        at = 0;
    }
    if (s->ring_used + gap + b->bytes > s->ring_bytes) return false;
    b->mem = s->ring + at;
    b->in_ring = gap + b->bytes;
    b->passed = false;
    s->ring_used += b->in_ring;
    s->ring_head = at + b->bytes;
    queue_push(&s->fifo, id);
    return true;
}

static uint32_t next_ring_block(stream *s) {
    while (s->blocks[s->order[s->ring_next]].kind != BLOCK_RING)
        s->ring_next = (s->ring_next + 1) % s->n_order;
    return s->order[s->ring_next];
}

/* Whether reading ahead goes as far as the next block. */
static bool within_reach(stream *s) {
    const block *b = &s->blocks[next_ring_block(s)];
    uint32_t stages = s->n_layer + 1, stage = b->layer < s->n_layer ? b->layer : s->n_layer;
    if (!(s->set.prefetch & TTX_PREFETCH_LAYER)) return false;
    if (!s->set.prefetch_ahead) return true;
    return (stage + stages - s->stage) % stages <= s->set.prefetch_ahead;
}

static void ask_ahead(stream *s, uint32_t id) {
    s->count.prefetches++;
    s->count.prefetch_bytes += s->blocks[id].bytes;
    stream_want(s, id, READ_ORDER);
}

static bool feed_ring(stream *s) {
    uint32_t id = next_ring_block(s);
    if (s->blocks[id].state != BLOCK_ABSENT || !place(s, id)) return false;
    s->ring_next = (s->ring_next + 1) % s->n_order;
    ask_ahead(s, id);
    return true;
}

static void feed_pinned(stream *s) {
    uint32_t id = s->order[s->pin_next++];
    block *b = &s->blocks[id];
    if (b->kind == BLOCK_PINNED && b->state == BLOCK_ABSENT) ask_ahead(s, id);
}

void ring_feed(stream *s) {
    ring_reclaim(s);
    while (s->queues[READ_ORDER].n < FEED) {
        bool pins = s->pin_next < s->n_order;
        if (s->has_ring && within_reach(s) &&
            (!pins || next_ring_block(s) == s->order[s->pin_next] || s->ring_next < s->pin_next) &&
            feed_ring(s))
            continue;
        if (!pins) return;
        feed_pinned(s);
    }
}

int ring_seek(stream *s, uint32_t id, ttx_err *err) {
    block *b = &s->blocks[id];
    for (uint32_t i = 0; i < s->fifo.n; i++)
        if (!fifo_block(s, i)->held) fifo_block(s, i)->passed = true;
    s->ring_next = s->order_of[id];
    while (b->state == BLOCK_ABSENT) {
        ring_reclaim(s);
        while (s->fifo.n && droppable(fifo_block(s, s->fifo.n - 1))) { /* from the other end */
            block *last = fifo_block(s, --s->fifo.n);
            s->ring_head = (uint64_t)(last->mem - s->ring);
            if (!s->ring_head && last->in_ring > last->bytes)
                s->ring_head = s->ring_bytes - (last->in_ring - last->bytes);
            drop(s, last);
        }
        if (feed_ring(s)) break;
        if (!s->in_flight || s->err.code)
            return ttx_fail(err, TTX_E_RUNTIME,
                            "memory budget: no place left for the weights of "
                            "one operation");
        stream_pump(s, true);
    }
    return TTX_OK;
}

void ring_use(stream *s, uint32_t id) {
    for (uint32_t i = 0; i < s->fifo.n && queue_at(&s->fifo, i) != id; i++)
        if (!fifo_block(s, i)->held) fifo_block(s, i)->passed = true;
    ring_reclaim(s);
}
