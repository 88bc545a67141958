/* stream_limit.c -- the budget follows a memory group whose limit shrinks while the run goes on.
 *
 * Memory of our own cannot be taken back by the system: it would end the process. So the limit is
 * looked at a few times a second, more often while the cache still grows, and when it falls below
 * the budget, places of the expert cache are given back. What is pinned cannot be: if that alone is
 * too much, the run ends with an error.
 */
#include "stream_int.h"

#include "budget.h"
#include "clock.h"

#include <stdio.h>
#include <sys/mman.h>

enum {
    EVERY_MS = 200,
    GROWTH_MS = 2,
    SPARE_SHARE = 64 /* of a limit: pages of others, of the kernel for us */
};

static double mib(uint64_t bytes) {
    return (double)bytes / (1 << 20);
}

static uint64_t held_bytes(const stream *s) {
    uint64_t sum = s->layout.pinned + s->layout.ring + s->layout.rows;
    for (uint32_t i = 0; i < s->n_classes; i++) sum += s->classes[i].n_slots * s->classes[i].bytes;
    return sum;
}

/* Gives the last place of the class back; false: it is in use. */
static bool drop_slot(stream *s, slot_class *c) {
    uint32_t slot = c->n_slots - 1, id = c->owner[slot];
    if (id != NO_BLOCK && !experts_evict(s, c, slot)) return false;
    madvise(c->mem + slot * c->bytes, c->bytes, MADV_DONTNEED);
    c->n_slots--;
    s->layout.n_slots--;
    s->layout.cache -= c->bytes;
    return true;
}

/* The class that takes most and can take less; NULL: none. */
static slot_class *largest(stream *s) {
    slot_class *best = NULL;
    for (uint32_t i = 0; i < s->n_classes; i++) {
        slot_class *c = &s->classes[i];
        if (c->n_slots <= c->min_slots) continue;
        if (!best || c->n_slots * c->bytes > best->n_slots * best->bytes) best = c;
    }
    return best;
}

static void say(stream *s, uint64_t limit) {
    char line[256];
    snprintf(line, sizeof line,
             "the limit of memory fell to %.1f MiB, below the budget of %.1f MiB: the expert cache "
             "shrinks to it",
             mib(limit), mib(s->layout.budget));
    if (s->set.warn) s->set.warn(s->set.warn_ctx, line);
}

bool limit_allows_growth(stream *s) {
    uint64_t now = ttx_now_ns();
    if (s->set.limit || now < s->growth_again) return true;
    s->growth_again = now + GROWTH_MS * 1000000ull;
    if (ttx_memory_limit() >= s->layout.budget) return true;
    s->growth_again = s->limit_again = now; /* none until limit_follow has settled it */
    return false;
}

void limit_follow(stream *s) {
    uint64_t now = ttx_now_ns();
    if (now < s->limit_again) return;
    s->limit_again = now + (s->set.limit ? 0 : EVERY_MS * 1000000ull);
    uint64_t limit = s->set.limit ? s->set.limit(s->set.limit_ctx) : ttx_memory_limit();
    uint64_t target = limit - limit / SPARE_SHARE;
    if (limit >= s->layout.budget) return;
    if (limit != s->limit_seen) say(s, limit);
    s->limit_seen = limit;
    ttx_touch_stop(s->touch); /* it would take back what is given up now */
    s->touch = NULL;
    for (slot_class *c; s->layout.reserved + held_bytes(s) > target && (c = largest(s));)
        if (!drop_slot(s, c)) {
            s->limit_again = now; /* what is in use now may be free next time */
            return;
        }
    s->layout.budget = limit;
    if (held_bytes(s) > limit)
        ttx_fail(
            &s->err, TTX_E_RUNTIME,
            "the limit of memory fell to %.1f MiB while running: expected at least %.1f MiB for "
            "the weights that are kept (choose a smaller --ram)",
            mib(limit), mib(held_bytes(s)));
}
