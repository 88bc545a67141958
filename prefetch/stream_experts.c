/* stream_experts.c -- the cache of experts: slots, and who has to leave them.
 *
 * A policy is a number for each expert in the cache: the smallest goes. Experts that are in use,
 * being read, or chosen by the router of this layer never go. An expert read on a guess may only
 * replace one that the last step did not use.
 */
#include "stream_int.h"

#include <math.h>

enum { HALF_LIFE = 32 }; /* steps in which a use loses half of its weight */

static float decayed(const stream *s, const block *b) {
    return b->score * exp2f(-(float)(s->step - b->used_step) / HALF_LIFE);
}

static double rank(const stream *s, const block *b) {
    if (s->set.policy == TTX_CACHE_LFU) return decayed(s, b);
    return (double)b->used_tick;
}

static uint32_t victim(const stream *s, const slot_class *c, read_class cls) {
    uint32_t best = NO_BLOCK;
    double best_rank = 0;
    for (uint32_t i = 0; i < c->n_slots; i++) {
        const block *b = &s->blocks[c->owner[i]];
        if (b->held || b->pending || b->demanded || b->state == BLOCK_LOADING) continue;
        if (cls == READ_GUESS && b->used_step + 1 >= s->step) continue;
        double r = rank(s, b);
        if (best != NO_BLOCK && r >= best_rank) continue;
        best = i;
        best_rank = r;
    }
    return best;
}

static uint32_t free_slot(const slot_class *c) {
    for (uint32_t i = 0; i < c->n_slots; i++)
        if (c->owner[i] == NO_BLOCK) return i;
    return NO_BLOCK;
}

bool experts_place(stream *s, uint32_t id, read_class cls) {
    block *b = &s->blocks[id];
    slot_class *c = &s->classes[b->cls];
    uint32_t slot = c->n_used < c->n_slots ? free_slot(c) : victim(s, c, cls);
    if (slot == NO_BLOCK) return false;
    if (c->owner[slot] == NO_BLOCK) {
        c->n_used++;
    } else {
        block *old = &s->blocks[c->owner[slot]];
        s->count.evictions++;
        s->count.evicted_bytes += old->bytes;
        old->state = BLOCK_ABSENT;
        old->mem = NULL;
        old->slot = NO_BLOCK;
    }
    c->owner[slot] = id;
    b->slot = slot;
    b->mem = c->mem + slot * c->bytes;
    b->used_tick = ++s->tick; /* not the first to go */
    return true;
}

void experts_use(stream *s, uint32_t id) {
    block *b = &s->blocks[id];
    b->score = decayed(s, b) + 1;
    b->used_step = s->step;
    b->used_tick = ++s->tick;
}
