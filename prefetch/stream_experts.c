/* stream_experts.c -- the cache of experts: slots, and who has to leave them.
 *
 * The policy (policy.h) says which expert is worth least. Experts that are in use, being read, or
 * chosen by the router of this layer never go; those that a guess named for a coming layer only
 * when there is nobody else. An expert read on a guess may only replace one that the last step did
 * not use.
 */
#include "stream_int.h"

uint64_t experts_step(const stream *s, const block *b) {
    bool passed = b->layer < s->stage || (b->layer == s->stage && s->routed);
    return s->guesser.step + passed;
}

bool experts_named(const stream *s, const block *b) {
    return b->named == experts_step(s, b);
}

static uint32_t victim(const stream *s, const slot_class *c, read_class cls) {
    uint32_t best = NO_BLOCK;
    bool best_named = false;
    double least = 0;
    for (uint32_t i = 0; i < c->n_slots; i++) {
        const block *b = c->owner[i] == NO_BLOCK ? NULL : &s->blocks[c->owner[i]];
        if (!b || b->held || b->pending || b->demanded || b->state == BLOCK_LOADING) continue;
        bool named = experts_named(s, b);
        if (cls == READ_GUESS && (named || ttx_policy_is_recent(&s->policy, b->layer, b->expert)))
            continue;
        double worth = ttx_policy_worth(&s->policy, b->layer, b->expert);
        if (best != NO_BLOCK && (named != best_named ? named : worth >= least)) continue;
        best = i;
        best_named = named;
        least = worth;
    }
    return best;
}

static uint32_t free_slot(const slot_class *c) {
    for (uint32_t i = 0; i < c->n_slots; i++)
        if (c->owner[i] == NO_BLOCK) return i;
    return NO_BLOCK;
}

bool experts_evict(stream *s, slot_class *c, uint32_t slot) {
    block *b = &s->blocks[c->owner[slot]];
    if (b->held || b->pending || b->demanded || b->state == BLOCK_LOADING) return false;
    s->count.evictions++;
    s->count.evicted_bytes += b->bytes;
    b->state = BLOCK_ABSENT;
    b->guessed = false;
    b->mem = NULL;
    b->slot = NO_BLOCK;
    c->owner[slot] = NO_BLOCK;
    c->n_used--;
    return true;
}

bool experts_place(stream *s, uint32_t id, read_class cls) {
    block *b = &s->blocks[id];
    slot_class *c = &s->classes[b->cls];
    uint32_t slot = NO_BLOCK;
    bool free = c->n_used < c->n_slots && (c->n_used < c->min_slots || limit_allows_growth(s));
    if (free)
        slot = free_slot(c);
    else if (cls != READ_WARM)
        slot = victim(s, c, cls);
    if (slot == NO_BLOCK) return false;
    if (c->owner[slot] != NO_BLOCK) experts_evict(s, c, slot);
    c->n_used++;
    c->owner[slot] = id;
    b->slot = slot;
    b->mem = c->mem + slot * c->bytes;
    ttx_policy_load(&s->policy, b->layer, b->expert);
    return true;
}

void experts_use(stream *s, uint32_t id) {
    const block *b = &s->blocks[id];
    ttx_policy_use(&s->policy, b->layer, b->expert);
}
