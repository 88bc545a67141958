/* stream_layout.c -- which blocks there are, and who gets how much memory.
 *
 * Order of claims on the budget: what the caller uses; the row cache; a cache for the experts of
 * one token of one layer; the ring, large enough for the blocks of one launch. What is left goes to
 * pinned blocks, since a byte pinned is a byte less to read for every token; then to the expert
 * cache. Pinned blocks are spread evenly over the plan, so that the ring's reads never pause.
 */
#include "stream_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    HUGE_PAGE = 2 << 20,
    MAX_GIANTS = 8,   /* blocks that may be pinned to make the ring smaller */
    SMALL_SHARE = 64, /* a block this many times smaller than the largest is small */
    RING_AHEAD = 32 << 20
};

/* A block outside the experts while it is decided about. */
typedef struct dense {
    ttx_range range;
    uint64_t bytes;
    uint32_t launch;
    uint16_t layer;
    bool pin, rows; /* rows: read by rows, if not pinned */
} dense;

typedef struct draft {
    stream *s;
    dense *v;
    uint32_t n;
    uint64_t largest_slice;
    uint64_t dense_bytes, row_bytes, cache_min;
    uint32_t giants[MAX_GIANTS]; /* largest first */
    int n_giants;
} draft;

static uint64_t span(ttx_range r) {
    return align_up(r.offset + r.size) - align_down(r.offset);
}

/* ---- what the plan holds ---- */

/* Experts' vectors (biases) are too small to be read one by one. */
static bool is_expert(const draft *d, const ttx_access *a) {
    return a->n_expert && ttx_access_slice(a, 0).size * SMALL_SHARE >= d->largest_slice;
}

static int add_dense(draft *d, const ttx_access *a, bool rows) {
    for (uint32_t i = 0; i < d->n; i++)
        if (d->v[i].range.shard == a->range.shard && d->v[i].range.offset == a->range.offset) {
            d->v[i].rows = d->v[i].rows && rows;
            return 0;
        }
    d->v[d->n++] = (dense){.range = a->range,
                           .bytes = span(a->range),
                           .launch = a->launch,
                           .layer = a->layer,
                           .rows = rows};
    return 0;
}

static void scan_plan(draft *d) {
    const ttx_plan *p = d->s->set.plan;
    stream *s = d->s;
    uint64_t row = 1;
    s->n_layer = ttx_plan_layers(p);
    for (size_t i = 0; i < p->n; i++) {
        const ttx_access *a = &p->v[i];
        if (!a->n_expert) continue;
        if (a->n_expert > s->n_expert) s->n_expert = a->n_expert;
        uint64_t size = ttx_access_slice(a, 0).size;
        if (size > d->largest_slice) d->largest_slice = size;
    }
    for (size_t i = 0; i < p->n; i++) {
        const ttx_access *a = &p->v[i];
        if (is_expert(d, a)) continue;
        uint64_t size = a->n_expert ? ttx_access_slice(a, 0).size : a->range.size;
        if ((a->row || a->n_expert) && size > row) row = size;
        if (!a->row) add_dense(d, a, a->n_expert > 0);
    }
    for (uint32_t i = 0; i < d->n; i++) d->dense_bytes += d->v[i].bytes;
    s->row_bytes = align_up(row) + STREAM_ALIGN;
}

/* ---- experts ---- */

static int new_expert(stream *s, uint32_t layer, uint32_t e) {
    uint32_t *id = &s->expert_block[layer * s->n_expert + e];
    if (*id == NO_BLOCK) {
        *id = s->n_blocks++;
        s->blocks[*id] = (block){.kind = BLOCK_EXPERT,
                                 .layer = (uint16_t)layer,
                                 .expert = (uint16_t)e,
                                 .slot = NO_BLOCK};
    }
    return (int)*id;
}

/* Parts of a block must stand together: two passes over the plan, counting and placing. */
static void add_experts(draft *d) {
    stream *s = d->s;
    const ttx_plan *p = s->set.plan;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < p->n; i++) {
            const ttx_access *a = &p->v[i];
            if (!is_expert(d, a) || a->layer == TTX_NO_LAYER) continue;
            uint32_t first = a->expert >= 0 ? (uint32_t)a->expert : 0;
            uint32_t last = a->expert >= 0 ? first + 1 : a->n_expert;
            for (uint32_t e = first; e < last; e++) {
                block *b = &s->blocks[new_expert(s, a->layer, e)];
                ttx_range r = ttx_access_slice(a, e);
                if (pass) {
                    part *q = &s->parts[b->first_part + b->n_parts];
                    *q = (part){r, (uint32_t)(b - s->blocks),
                                b->bytes + r.offset - align_down(r.offset), span(r)};
                    b->bytes += span(r);
                }
                b->n_parts++;
            }
        }
        if (pass) return;
        for (uint32_t i = s->first_expert; i < s->n_blocks; i++) {
            s->blocks[i].first_part = s->n_parts;
            s->n_parts += s->blocks[i].n_parts;
            s->blocks[i].n_parts = 0;
        }
    }
}

/* Slot sizes. More than MAX_CLASSES different ones share the largest slots. */
static slot_class *class_of(stream *s, uint64_t bytes) {
    slot_class *best = NULL;
    for (uint32_t i = 0; i < s->n_classes; i++) {
        slot_class *c = &s->classes[i];
        if (c->bytes >= bytes && (!best || c->bytes < best->bytes)) best = c;
    }
    return best;
}

static void make_classes(draft *d) {
    stream *s = d->s;
    for (uint32_t i = s->first_expert; i < s->n_blocks; i++) {
        uint64_t bytes = s->blocks[i].bytes;
        slot_class *c = class_of(s, bytes);
        if (c && c->bytes == bytes) continue;
        if (s->n_classes < MAX_CLASSES)
            s->classes[s->n_classes++] = (slot_class){.bytes = bytes};
        else if (!c)
            s->classes[0].bytes = bytes;
    }
    for (uint32_t i = s->first_expert; i < s->n_blocks; i++) {
        slot_class *c = class_of(s, s->blocks[i].bytes);
        s->blocks[i].cls = (uint8_t)(c - s->classes);
        c->n_experts++;
    }
    uint32_t used = 1;
    for (size_t i = 0; i < s->set.plan->n; i++)
        if (s->set.plan->v[i].n_expert_used > used) used = s->set.plan->v[i].n_expert_used;
    for (uint32_t i = 0; i < s->n_classes; i++) {
        slot_class *c = &s->classes[i];
        c->n_slots = c->min_slots = c->n_experts < used ? c->n_experts : used;
        d->cache_min += c->n_slots * c->bytes;
    }
    for (uint32_t i = s->first_expert; i < s->n_blocks; i++) {
        s->layout.experts += s->blocks[i].bytes;
        s->layer_bytes[s->blocks[i].layer] += s->blocks[i].bytes;
        s->layout.n_experts++;
    }
    uint64_t of_layer = s->layout.n_experts ? s->layout.experts / s->layout.n_experts : 0;
    uint32_t layers = s->n_expert ? s->layout.n_experts / s->n_expert : 0;
    s->layout.expert_cycle = of_layer * used * layers;
}

/* ---- the ring ---- */

/* Bytes that the ring must have: the blocks of a launch are held together, each may leave a gap at
 * the end of the ring. */
static uint64_t ring_need(const draft *d, uint64_t *launch_max) {
    uint64_t launch = 0, largest = 0;
    *launch_max = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        const dense *b = &d->v[i];
        if (i && b->launch != d->v[i - 1].launch) launch = 0;
        if (b->pin || b->rows) continue;
        launch += b->bytes;
        if (launch > *launch_max) *launch_max = launch;
        if (b->bytes > largest) largest = b->bytes;
    }
    return *launch_max + largest;
}

static void find_giants(draft *d) {
    for (d->n_giants = 0; d->n_giants < MAX_GIANTS; d->n_giants++) {
        uint32_t best = NO_BLOCK;
        for (uint32_t i = 0; i < d->n; i++)
            if (!d->v[i].pin && !d->v[i].rows &&
                (best == NO_BLOCK || d->v[i].bytes > d->v[best].bytes))
                best = i;
        if (best == NO_BLOCK) break;
        d->v[best].pin = true;
        d->giants[d->n_giants] = best;
    }
    for (int i = 0; i < d->n_giants; i++) d->v[d->giants[i]].pin = false;
}

/* How many giants to pin: as makes the ring smallest among what fits in `room`. Returns whether
 * anything fits; *smallest: the least room with which something does. */
static bool choose_giants(draft *d, uint64_t room, uint64_t *smallest) {
    uint64_t pinned = 0, best_need = UINT64_MAX, launch;
    int best = -1;
    *smallest = UINT64_MAX;
    for (int j = 0; j <= d->n_giants; j++) {
        if (j) pinned += d->v[d->giants[j - 1]].bytes;
        if (j) d->v[d->giants[j - 1]].pin = true;
        uint64_t need = ring_need(d, &launch);
        if (pinned + need < *smallest) *smallest = pinned + need;
        if (pinned + need > room || need >= best_need) continue;
        best_need = need;
        best = j;
    }
    for (int i = 0; i < d->n_giants; i++) d->v[d->giants[i]].pin = i < best;
    return best >= 0;
}

/* ---- pinning ---- */

static void pin(dense *b, uint64_t *room) {
    if (b->pin || b->bytes > *room) return;
    b->pin = true;
    *room -= b->bytes;
}

/* What was asked for by name. */
static void pin_asked(draft *d, uint64_t *room) {
    const ttx_residency_settings *set = &d->s->set;
    if (!set->pin_bytes) return;
    for (uint32_t k = 0; k < set->n_pins; k++)
        for (uint32_t i = 0; i < d->n; i++)
            if (d->v[i].range.shard == set->pins[k].shard &&
                d->v[i].range.offset == set->pins[k].offset)
                pin(&d->v[i], room);
}

/* Small ones, then a fixed share everywhere along the plan, then whatever still fits. */
static void pin_rest(draft *d, uint64_t room) {
    uint64_t largest = 1, left = 0;
    for (uint32_t i = 0; i < d->n; i++)
        if (d->v[i].bytes > largest) largest = d->v[i].bytes;
    for (uint32_t i = 0; i < d->n; i++)
        if (d->v[i].rows || d->v[i].bytes < largest / SMALL_SHARE) pin(&d->v[i], &room);
    for (uint32_t i = 0; i < d->n; i++)
        if (!d->v[i].pin && !d->v[i].rows) left += d->v[i].bytes;
    double share = left ? (double)room / (double)left : 0, due = 0;
    for (uint32_t i = 0; i < d->n; i++) {
        dense *b = &d->v[i];
        if (b->pin || b->rows) continue;
        due += share * (double)b->bytes;
        if (due < (double)b->bytes / 2) continue;
        due -= (double)b->bytes;
        pin(b, &room);
    }
    for (uint32_t i = 0; i < d->n; i++)
        if (!d->v[i].rows) pin(&d->v[i], &room);
}

static uint64_t pinned_bytes(const draft *d) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < d->n; i++) sum += d->v[i].pin ? d->v[i].bytes : 0;
    return sum;
}

/* What is left goes to experts, class by class as much as their layers weigh. */
static void grow_cache(stream *s, uint64_t room) {
    uint64_t all = s->layout.experts;
    for (int pass = 0; pass < 2; pass++) { /* shares, then what they left */
        uint64_t left = room;
        for (uint32_t i = 0; i < s->n_classes; i++) {
            slot_class *c = &s->classes[i];
            double share = pass ? 1 : (double)(c->bytes * c->n_experts) / (double)all;
            uint64_t mine = (uint64_t)((double)room * share);
            uint64_t more = (mine < left ? mine : left) / c->bytes;
            if (more > c->n_experts - c->n_slots) more = c->n_experts - c->n_slots;
            c->n_slots += (uint32_t)more;
            left -= more * c->bytes;
        }
        room = left;
    }
}

/* Divides the budget. Errors: TTX_E_RUNTIME, with the smallest budget that works. */
static int divide(draft *d, ttx_err *err) {
    stream *s = d->s;
    ttx_residency_layout *l = &s->layout;
    uint64_t fixed = s->set.reserved + s->n_rows * s->row_bytes + d->cache_min + HUGE_PAGE;
    uint64_t room = s->set.budget > fixed ? s->set.budget - fixed : 0, smallest, launch;
    find_giants(d);
    bool fits = choose_giants(d, room, &smallest);
    if (d->dense_bytes < smallest) smallest = d->dense_bytes;
    l->smallest = fixed + smallest;
    if (d->dense_bytes <= room && d->dense_bytes <= s->set.pin_bytes && !s->set.pins_only) {
        for (uint32_t i = 0; i < d->n; i++) d->v[i].pin = true;
    } else if (!fits) {
        return ttx_fail(err, TTX_E_RUNTIME,
                        "memory budget: expected at least %llu MiB for this model and context, "
                        "found %llu MiB",
                        (unsigned long long)((l->smallest + (1 << 20) - 1) >> 20),
                        (unsigned long long)(s->set.budget >> 20));
    } else {
        uint64_t need = ring_need(d, &launch), want = 2 * launch + need + RING_AHEAD;
        room -= pinned_bytes(d) + need;
        pin_asked(d, &room);
        s->ring_bytes = need;
        if (want > need + room / 8) want = need + room / 8 / STREAM_ALIGN * STREAM_ALIGN;
        s->ring_bytes = want;
        room -= want - need;
        if (!s->set.pins_only) pin_rest(d, room < s->set.pin_bytes ? room : s->set.pin_bytes);
        if (!ring_need(d, &launch)) s->ring_bytes = 0; /* everything large happened to be pinned */
    }
    l->pinned = pinned_bytes(d);
    l->dense = d->dense_bytes;
    l->ring = s->ring_bytes;
    l->rows = s->n_rows * s->row_bytes;
    uint64_t taken = fixed + l->pinned + l->ring;
    if (s->n_classes && s->set.budget > taken) grow_cache(s, s->set.budget - taken);
    for (uint32_t i = 0; i < s->n_classes; i++) {
        l->cache += s->classes[i].n_slots * s->classes[i].bytes;
        l->n_slots += s->classes[i].n_slots;
    }
    l->budget = s->set.budget;
    l->reserved = s->set.reserved;
    return TTX_OK;
}

/* ---- making it ---- */

static void make_dense_blocks(draft *d) {
    stream *s = d->s;
    for (uint32_t i = 0; i < d->n; i++) {
        const dense *v = &d->v[i];
        if (v->rows && !v->pin) continue; /* its rows come through the row cache */
        uint32_t id = s->n_blocks++, p = s->n_parts++;
        s->blocks[id] = (block){.first_part = p,
                                .n_parts = 1,
                                .bytes = v->bytes,
                                .kind = v->pin ? BLOCK_PINNED : BLOCK_RING,
                                .launch = v->launch,
                                .layer = v->layer,
                                .slot = NO_BLOCK};
        s->parts[p] = (part){v->range, id, v->range.offset - align_down(v->range.offset), v->bytes};
        s->order_of[id] = s->n_order;
        s->order[s->n_order++] = id;
        if (!v->pin) s->has_ring = true;
    }
}

/* Parts of a block are found through the block, and by range: the second is an index. */
static int sort_parts(stream *s, ttx_err *err) {
    s->sorted = malloc((s->n_parts + 1) * sizeof *s->sorted);
    if (!s->sorted) return ttx_fail_nomem(err, "part table", s->n_parts * sizeof *s->sorted);
    memcpy(s->sorted, s->parts, s->n_parts * sizeof *s->parts);
    qsort(s->sorted, s->n_parts, sizeof *s->sorted, ttx_range_compare);
    s->n_sorted = s->n_parts;
    return TTX_OK;
}

int stream_place(stream *s, ttx_err *err) {
    ttx_residency_layout *l = &s->layout;
    uint64_t all = l->pinned + l->ring + l->cache + l->rows;
    uint64_t bytes = (all + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    /* One huge page more, to begin on a boundary; what is never touched takes no memory. */
    s->map_bytes = bytes + HUGE_PAGE;
    uint8_t *p = mmap(NULL, s->map_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return ttx_fail_nomem(err, "weights", s->map_bytes);
    s->map = p;
    p += HUGE_PAGE - (uintptr_t)p % HUGE_PAGE;
    madvise(p, bytes, MADV_HUGEPAGE); /* a refusal costs TLB misses, nothing else */
    const ttx_touch_limits limits = {s->set.budget, s->set.reserved};
    if (!s->set.io) /* a simulation's memory is never written to */
        s->touch = ttx_touch_start(p, bytes, &limits); /* in the order in which it fills */
    for (uint32_t i = 0; i < s->n_order; i++) {
        block *b = &s->blocks[s->order[i]];
        if (b->kind != BLOCK_PINNED) continue;
        b->mem = p;
        p += b->bytes;
    }
    s->ring = p;
    p += s->ring_bytes;
    for (uint32_t i = 0; i < s->n_classes; i++) {
        slot_class *c = &s->classes[i];
        c->mem = p;
        p += c->n_slots * c->bytes;
        c->owner = malloc((c->n_slots + 1) * sizeof *c->owner);
        if (!c->owner) return ttx_fail_nomem(err, "expert cache", c->n_slots * sizeof *c->owner);
        for (uint32_t j = 0; j < c->n_slots; j++) c->owner[j] = NO_BLOCK;
    }
    s->first_row = s->n_blocks;
    for (uint32_t i = 0; i < s->n_rows; i++, p += s->row_bytes) {
        uint32_t id = s->n_blocks++, q = s->n_parts++;
        s->blocks[id] = (block){.first_part = q, .n_parts = 1, .kind = BLOCK_ROW, .mem = p};
        s->parts[q].block = id;
    }
    return TTX_OK;
}

/* Upper bounds, from the plan. */
static int allocate(draft *d, ttx_err *err) {
    stream *s = d->s;
    size_t n = s->set.plan->n, parts = n, blocks = n;
    for (size_t i = 0; i < n; i++) {
        const ttx_access *a = &s->set.plan->v[i];
        parts += a->n_expert && a->expert < 0 ? a->n_expert : 0;
    }
    blocks += (size_t)s->n_layer * s->n_expert + s->n_rows;
    parts += s->n_rows;
    s->parts = calloc(parts + 1, sizeof *s->parts);
    s->blocks = calloc(blocks + 1, sizeof *s->blocks);
    s->order = calloc(n + 1, sizeof *s->order);
    s->order_of = calloc(blocks + 1, sizeof *s->order_of);
    s->layer_bytes = calloc(s->n_layer + 1, sizeof *s->layer_bytes);
    size_t experts = (size_t)s->n_layer * s->n_expert;
    s->expert_block = malloc((experts + 1) * sizeof *s->expert_block);
    bool ok = s->parts && s->blocks && s->layer_bytes && s->order && s->order_of && s->expert_block;
    for (int i = 0; i < READ_CLASSES + 1 && ok; i++) {
        queue *q = i < READ_CLASSES ? &s->queues[i] : &s->fifo;
        q->cap = (uint32_t)blocks + 1;
        q->v = malloc(q->cap * sizeof *q->v);
        ok = q->v;
    }
    if (!ok) return ttx_fail_nomem(err, "block table", blocks * sizeof *s->blocks);
    memset(s->expert_block, 0xff, (experts + 1) * sizeof *s->expert_block);
    return TTX_OK;
}

int stream_layout(stream *s, ttx_err *err) {
    draft d = {.s = s, .v = calloc(s->set.plan->n + 1, sizeof *d.v)};
    if (!d.v) return ttx_fail_nomem(err, "access plan", s->set.plan->n * sizeof *d.v);
    scan_plan(&d);
    uint32_t used = 0;
    for (size_t i = 0; i < s->set.plan->n; i++)
        if (s->set.plan->v[i].n_expert_used > used) used = s->set.plan->v[i].n_expert_used;
    s->n_rows = (s->set.rows_at_once > 2 * used ? s->set.rows_at_once : 2 * used) + 8;
    int rc = allocate(&d, err);
    if (!rc) {
        add_experts(&d);
        make_classes(&d);
        rc = divide(&d, err);
    }
    if (!rc) {
        make_dense_blocks(&d);
        rc = sort_parts(s, err);
    }
    free(d.v);
    return rc;
}
