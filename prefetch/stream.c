/* stream.c -- the streaming mode's side of residency.h: leases of blocks.
 *
 * A range that the engine asks for is a block, a part of one, or a row of a table that is not kept.
 * Rows have a cache of their own, read when they are asked for.
 */
#include "stream_int.h"

#include "route.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- finding ---- */

/* The part that holds the range; NULL: none. */
static const part *find(const stream *s, ttx_range r) {
    uint32_t upto = ttx_range_upto(s->sorted, sizeof *s->sorted, s->n_sorted, r);
    if (!upto) return NULL;
    const part *p = &s->sorted[upto - 1];
    bool inside = p->range.shard == r.shard && r.offset - p->range.offset + r.size <= p->range.size;
    return inside ? p : NULL;
}

static bool same_range(ttx_range a, ttx_range b) {
    return a.shard == b.shard && a.offset == b.offset && a.size == b.size;
}

static uint32_t find_row(const stream *s, ttx_range r) {
    for (uint32_t i = 0; i < s->n_rows; i++) {
        const block *b = &s->blocks[s->first_row + i];
        if (b->state != BLOCK_ABSENT && same_range(s->parts[b->first_part].range, r))
            return s->first_row + i;
    }
    return NO_BLOCK;
}

/* The row slot that was not used for longest, now for this range. */
static uint32_t take_row(stream *s, ttx_range r) {
    uint32_t best = NO_BLOCK;
    for (uint32_t i = s->first_row; i < s->first_row + s->n_rows; i++) {
        const block *b = &s->blocks[i];
        if (b->held || b->pending || b->demanded) continue;
        if (best == NO_BLOCK || b->used_tick < s->blocks[best].used_tick) best = i;
    }
    if (best == NO_BLOCK) return best;
    block *b = &s->blocks[best];
    part *p = &s->parts[b->first_part];
    uint64_t bytes = align_up(r.offset + r.size) - align_down(r.offset);
    *p = (part){r, best, r.offset - align_down(r.offset), bytes};
    b->bytes = bytes;
    b->state = BLOCK_ABSENT;
    b->used_tick = ++s->tick;
    return best;
}

/* Whether the block that holds the range serves it: of a block in the ring, and of a pinned one
 * that is not there yet, a row is better read by itself. */
static bool serves(const stream *s, const part *p, ttx_range r) {
    const block *b = p ? &s->blocks[p->block] : NULL;
    if (!b || same_range(p->range, r) || b->kind == BLOCK_EXPERT) return b;
    return b->kind == BLOCK_PINNED && (b->state == BLOCK_RESIDENT || r.size > s->row_bytes / 2);
}

/* The block of a range, a new row if there is none; NO_BLOCK: every row slot is in use. */
static uint32_t block_of(stream *s, ttx_range r, const part **p) {
    *p = find(s, r);
    if (serves(s, *p, r)) return (*p)->block;
    uint32_t id = find_row(s, r);
    if (id == NO_BLOCK && r.size + STREAM_ALIGN <= s->row_bytes) id = take_row(s, r);
    if (id != NO_BLOCK) *p = &s->parts[s->blocks[id].first_part];
    return id;
}

/* ---- leases ---- */

static int no_block(const stream *s, ttx_range r, ttx_err *err) {
    return ttx_fail(err, TTX_E_RUNTIME, "%s: %llu bytes at %llu are not in the access plan",
                    s->sources[r.shard].path, (unsigned long long)r.size,
                    (unsigned long long)r.offset);
}

/* It is wanted now: what was read ahead and is not there yet comes late. */
static void note_late(block *b) {
    if (b->state == BLOCK_LOADING && b->found == TTX_RES_PREFETCHED) b->found = TTX_RES_LATE;
}

/* Makes a block resident and takes a lease. */
static int lease_block(stream *s, uint32_t id, ttx_err *err) {
    block *b = &s->blocks[id];
    int rc = TTX_OK;
    b->passed = false; /* of the ring: wanted after all */
    if (b->state != BLOCK_RESIDENT) {
        uint64_t start = stream_now(s);
        note_late(b);
        rc = stream_await(s, id, err);
        b->waited_ns = stream_now(s) - start;
        s->count.stalls++;
        s->count.stall_ns += b->waited_ns;
    }
    if (rc) return rc;
    b->held++;
    if (b->kind == BLOCK_RING) ring_use(s, id);
    return TTX_OK;
}

static void count_use(stream *s, block *b) {
    bool hit = b->found == TTX_RES_RESIDENT || b->found == TTX_RES_PREFETCHED;
    if (b->kind == BLOCK_EXPERT) {
        s->count.expert_uses++;
        s->used_bytes += b->bytes;
        s->count.expert_hits += hit && !b->guessed;
        s->count.guesses_used += b->guessed;
        s->count.guesses_late += b->guessed && b->found == TTX_RES_LATE;
        b->guessed = false;
    } else if (b->kind != BLOCK_ROW) {
        bool late = b->found == TTX_RES_LATE;
        s->count.dense_uses++;
        s->count.dense_hits += hit;
        s->count.prefetches_used += late || b->found == TTX_RES_PREFETCHED;
        s->count.prefetches_late += late;
    }
}

int stream_acquire(stream *s, ttx_range r, ttx_lease *lease, ttx_err *err) {
    const part *p;
    stream_pump(s, false);
    if (s->err.code) return ttx_fail(err, TTX_E_RUNTIME, "%s", s->err.msg);
    uint32_t id = block_of(s, r, &p);
    if (id == NO_BLOCK) return no_block(s, r, err);
    block *b = &s->blocks[id];
    bool first = !b->held;
    int rc = lease_block(s, id, err);
    if (rc) return rc;
    if (first) {
        count_use(s, b);
        if (b->kind == BLOCK_EXPERT) experts_use(s, id);
        if (b->kind == BLOCK_ROW) b->used_tick = ++s->tick;
    }
    *lease = (ttx_lease){b->mem + p->at + (r.offset - p->range.offset), b->found, b->waited_ns};
    b->waited_ns = 0;
    return TTX_OK;
}

void stream_release(stream *s, ttx_range r) {
    const part *p = find(s, r);
    uint32_t id = p && same_range(p->range, r) ? p->block : find_row(s, r);
    if ((id == NO_BLOCK || !s->blocks[id].held) && p) id = p->block;
    if (id == NO_BLOCK) return;
    block *b = &s->blocks[id];
    if (!b->held || --b->held) return;
    b->found = TTX_RES_RESIDENT;
    b->demanded = false;
    b->passed = b->kind == BLOCK_RING;
    if (b->passed) ring_reclaim(s);
    stream_pump(s, false);
}

/* ---- sets ---- */

int stream_acquire_any(stream *s, const ttx_range *set, int n, bool *got, ttx_err *err) {
    uint64_t start = 0;
    for (int i = 0; i < n; i++) {
        const part *p = find(s, set[i]);
        if (!p) return no_block(s, set[i], err);
        stream_want(s, p->block, READ_DEMAND);
        note_late(&s->blocks[p->block]);
    }
    for (;;) {
        int n_got = 0;
        stream_pump(s, start != 0);
        for (int i = 0; i < n; i++) got[i] = false;
        for (int i = 0; i < n; i++) {
            uint32_t id = find(s, set[i])->block;
            block *b = &s->blocks[id];
            if (b->state == BLOCK_FAILED) { /* once more, or the error */
                int rc = stream_await(s, id, err);
                if (rc) goto error;
            }
            if (b->state != BLOCK_RESIDENT) continue;
            bool first = !b->held++;
            if (first) {
                count_use(s, b);
                experts_use(s, id);
            }
            got[i] = true;
            n_got++;
        }
        if (n_got) break;
        if (!start) start = stream_now(s);
        bool stuck = !s->in_flight || s->err.code;
        for (int i = 0; stuck && i < n; i++) /* one at least finds a slot, or an error */
            if (stream_await(s, find(s, set[i])->block, err)) goto error;
    }
    if (start) {
        s->count.stalls++;
        s->count.stall_ns += stream_now(s) - start;
    }
    return TTX_OK;
error:
    for (int i = 0; i < n; i++)
        if (got[i]) stream_release(s, set[i]);
    return err->code;
}

void stream_hint(stream *s, ttx_range r) {
    const part *p;
    uint32_t id = block_of(s, r, &p);
    if (id == NO_BLOCK) return;
    block_kind kind = s->blocks[id].kind;
    if (kind != BLOCK_EXPERT && kind != BLOCK_ROW) return; /* the plan brings them */
    if (kind == BLOCK_EXPERT)
        ttx_guesser_chose(&s->guesser, s->blocks[id].layer, s->blocks[id].expert);
    stream_want(s, id, READ_DEMAND);
    if (kind != BLOCK_EXPERT)
        stream_pump(s, false); /* they are, once all are known: stream_routed */
}

static void want_guessed(stream *s, uint32_t id) {
    s->blocks[id].named = experts_step(s, &s->blocks[id]);
    if (s->blocks[id].state == BLOCK_ABSENT) stream_want(s, id, READ_GUESS);
}

bool stream_guess(stream *s, const ttx_range *set, int n) {
    for (int i = 0; i < n; i++) {
        const part *p = find(s, set[i]);
        if (p) want_guessed(s, p->block);
    }
    stream_pump(s, false);
    for (int i = 0; i < n; i++) { /* one that finds no time or no place */
        const part *p = find(s, set[i]);
        if (p && s->blocks[p->block].state == BLOCK_ABSENT) return false;
    }
    return s->in_flight < STREAM_AHEAD;
}

static void guess_by_history(stream *s) {
    uint16_t expert[TTX_GUESS_MOST];
    uint32_t layer = 0;
    int n = ttx_guesser_guess(&s->guesser, &layer, expert);
    for (int i = 0; i < n; i++) {
        uint32_t id = s->expert_block[layer * s->n_expert + expert[i]];
        if (id != NO_BLOCK) want_guessed(s, id);
    }
}

/* From the table of an earlier run: what followed the experts that the token before used in the
 * next layer. */
static void guess_by_table(stream *s) {
    const ttx_successors *t = s->set.successors;
    float score[TTX_MAX_EXPERTS] = {0};
    uint32_t layer = (s->stage + 1) % s->n_layer, n = s->n_expert;
    if (t->n_layer != s->n_layer || t->n_expert != n || n > TTX_MAX_EXPERTS) return;
    const struct ttx_guess_layer *last = &s->guesser.last[layer];
    for (int i = 0; i < last->n; i++)
        for (int k = 0; k < TTX_SUCCESSORS_MOST; k++) {
            const ttx_successor *x = &ttx_successors_of(t, layer, last->expert[i])[k];
            score[x->expert] += x->probability;
        }
    for (int i = 0; i < last->n; i++) {
        uint32_t best = 0;
        for (uint32_t e = 1; e < n; e++)
            if (score[e] > score[best]) best = e;
        if (score[best] <= 0) return;
        score[best] = 0;
        uint32_t id = s->expert_block[layer * n + best];
        if (id != NO_BLOCK) want_guessed(s, id);
    }
}

static bool all_experts_there(const stream *s) {
    for (uint32_t i = 0; i < s->n_classes; i++)
        if (s->classes[i].n_used < s->classes[i].n_experts) return false;
    return true;
}

/* Guesses for the layer whose router has just run. */
static void settle(stream *s) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->n_unsettled; i++) {
        block *b = &s->blocks[s->unsettled[i]];
        if (b->layer != s->stage) {
            s->unsettled[kept++] = s->unsettled[i];
            continue;
        }
        b->guessed = b->guessed && b->demanded;
        ttx_guesser_settle(&s->guesser, b->guessed);
    }
    s->n_unsettled = kept;
}

/* While there is a ring, or pinned weights are still being read, the device has better things to
 * do. A guess costs a read and a slot. */
bool stream_routed(stream *s) {
    bool wanted = s->set.prefetch & TTX_PREFETCH_EXPERT;
    s->routed = true;
    settle(s);
    stream_pump(s, false);
    if (!wanted || s->has_ring || all_experts_there(s)) return false;
    if (s->pin_next < s->n_order || s->queues[READ_ORDER].n) return false;
    if (!ttx_guesser_pays(&s->guesser, stream_now(s), s->count.stall_ns)) return false;
    if (s->set.guess == TTX_GUESS_ROUTER && !s->set.successors) return true;
    if (s->set.successors)
        guess_by_table(s);
    else
        guess_by_history(s);
    stream_pump(s, false);
    return false;
}

void stream_layer(stream *s, int layer) {
    if (s->used_bytes) { /* the layer before this one had experts */
        uint64_t all = s->layer_bytes[s->stage];
        s->count.unchosen_bytes += all > s->used_bytes ? all - s->used_bytes : 0;
        s->used_bytes = 0;
    }
    s->stage = (uint32_t)layer;
    s->routed = false;
    if (layer == 0) limit_follow(s);
    if (layer == 0) ttx_guesser_step(&s->guesser);
    if (s->stage < s->n_layer) ttx_policy_layer(&s->policy, s->stage);
    stream_pump(s, false);
}

/* ---- opening ---- */

/* The likely experts of an earlier run, in the order in which they are likely. */
static void warm_up(stream *s) {
    for (uint32_t i = 0; i < s->set.n_warm; i++) {
        ttx_expert_id x = s->set.warm[i];
        uint32_t id = NO_BLOCK;
        if (x.layer < s->n_layer && x.expert < s->n_expert)
            id = s->expert_block[x.layer * s->n_expert + x.expert];
        if (id != NO_BLOCK) stream_want(s, id, READ_WARM);
    }
}

int stream_open(stream **out, const ttx_source *sources, uint32_t n_sources,
                const ttx_residency_settings *set, ttx_err *err) {
    *out = NULL;
    int rc = TTX_OK;
    stream *s = calloc(1, sizeof *s);
    if (!s) return ttx_fail_nomem(err, "residency", sizeof *s);
    s->set = *set;
    s->n_sources = n_sources;
    s->sources = calloc(n_sources, sizeof *s->sources);
    if (!s->sources) {
        rc = ttx_fail_nomem(err, "residency", n_sources * sizeof *s->sources);
        goto error;
    }
    memcpy(s->sources, sources, n_sources * sizeof *sources);
    if ((rc = stream_layout(s, err))) goto error;
    if ((rc = stream_place(s, err))) goto error;
    rc = ttx_policy_open(&s->policy, set->policy, s->n_layer, s->n_expert, &set->future, err);
    if (rc) goto error;
    rc = ttx_guesser_open(&s->guesser, set->guess, s->n_layer, s->n_expert, err);
    if (rc) goto error;
    if ((rc = stream_open_io(s, err))) goto error;
    warm_up(s);
    s->set.plan = NULL; /* needed until here */
    s->set.pins = NULL;
    s->set.warm = NULL;
    stream_pump(s, false);
    *out = s;
    return TTX_OK;
error:
    stream_close(s);
    return rc;
}

int stream_describe(const ttx_residency_settings *set, ttx_residency_layout *layout, ttx_err *err) {
    stream *s = calloc(1, sizeof *s);
    if (!s) return ttx_fail_nomem(err, "residency", sizeof *s);
    s->set = *set;
    int rc = stream_layout(s, err);
    *layout = s->layout;
    stream_close(s);
    return rc;
}

void stream_close(stream *s) {
    if (!s) return;
    stream_close_io(s);
    ttx_touch_stop(s->touch);
    if (s->map) munmap(s->map, s->map_bytes);
    ttx_policy_close(&s->policy);
    ttx_guesser_close(&s->guesser);
    for (uint32_t i = 0; i < s->n_classes; i++) free(s->classes[i].owner);
    for (int i = 0; i < READ_CLASSES; i++) free(s->queues[i].v);
    free(s->fifo.v);
    free(s->parts);
    free(s->sorted);
    free(s->blocks);
    free(s->order);
    free(s->order_of);
    free(s->expert_block);
    free(s->layer_bytes);
    free(s->sources);
    free(s);
}
