/* mapped.c -- see mapped.h.
 *
 * A step is cut into stages: its layers, and what comes after the last one. Entering a stage asks
 * for the weights of the stages ahead, over the end of a step into the next. Ranges that the page
 * cache has are left alone; if it has all of them for a whole step, nobody looks for a while, so
 * that a model that fits costs nothing.
 */
#include "mapped.h"

#include "advise.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

enum {
    PAGE = 4096,
    AHEAD = 2,       /* layers, if nothing else was asked for */
    PAUSE = 32,      /* steps without a look after one in which nothing was missing */
    TOGETHER = 4,    /* experts of a prompt that are handed out at once; as many are read ahead */
    SMALL_SHARE = 64 /* a tensor this many times smaller than the largest is small */
};

/* What is known of a range: bits. */
enum { ASKED = 1, USED = 2, USED_BEFORE = 4, PINNED = 8 };

/* A tensor, or an expert's own tensor. Its slices are its experts; otherwise it has one. */
typedef struct item {
    ttx_range range; /* first: ttx_range_upto */
    uint32_t stage, n_slices;
    int32_t expert; /* the tensor is this expert's; -1: it has all of them, or none */
    bool of_experts;
    uint8_t *flags; /* [n_slices] */
} item;

struct mapped {
    ttx_residency_settings set;
    const ttx_source *sources;
    ttx_advisor *advisor;
    item *items;    /* in the order of the file */
    uint32_t *plan; /* the same in the order of the plan, stage by stage */
    uint32_t n_items, n_stages;
    uint32_t *first; /* [n_stages + 1] where a stage begins in plan */
    uint8_t *flags;
    uint64_t step, pause_until, missing; /* missing: ranges in this step */
    uint64_t asked_to;                   /* stages, counted from the start of the run */
    uint32_t stage;
    ttx_residency_counters count;
};

/* ---- the tables ---- */

static ttx_range slice(const item *t, uint32_t i) {
    ttx_range r = t->range;
    r.size /= t->n_slices;
    r.offset += r.size * i;
    return r;
}

/* One item for each tensor of the plan that is read as a whole or by experts. */
static void take_items(mapped *m, const ttx_plan *p, uint32_t n_layer) {
    for (size_t i = 0; i < p->n; i++) {
        const ttx_access *a = &p->v[i];
        if (a->row) continue; /* which one, only the token tells */
        bool whole = !a->n_expert || a->expert >= 0;
        m->items[m->n_items++] = (item){.range = a->range,
                                        .stage = a->layer == TTX_NO_LAYER ? n_layer : a->layer,
                                        .n_slices = whole ? 1 : a->n_expert,
                                        .expert = a->expert,
                                        .of_experts = a->n_expert > 0};
    }
    qsort(m->items, m->n_items, sizeof *m->items, ttx_range_compare);
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_items; i++)
        if (!n || ttx_range_compare(&m->items[n - 1], &m->items[i])) m->items[n++] = m->items[i];
    m->n_items = n;
}

static int make_tables(mapped *m, const ttx_plan *p, ttx_err *err) {
    uint32_t n_layer = ttx_plan_layers(p), n_flags = 0, n = 0;
    m->n_stages = n_layer + 1;
    m->items = calloc(p->n + 1, sizeof *m->items);
    m->plan = calloc(p->n + 1, sizeof *m->plan);
    m->first = calloc(m->n_stages + 1, sizeof *m->first);
    if (!m->items || !m->plan || !m->first)
        return ttx_fail_nomem(err, "table of weights", p->n * sizeof *m->items);
    take_items(m, p, n_layer);
    for (uint32_t i = 0; i < m->n_items; i++) n_flags += m->items[i].n_slices;
    m->flags = calloc(n_flags + 1, 1);
    if (!m->flags) return ttx_fail_nomem(err, "table of weights", n_flags);
    n_flags = 0;
    for (uint32_t i = 0; i < m->n_items; n_flags += m->items[i++].n_slices)
        m->items[i].flags = m->flags + n_flags;
    for (uint32_t s = 0; s < m->n_stages; s++) {
        m->first[s] = n;
        for (uint32_t i = 0; i < m->n_items; i++)
            if (m->items[i].stage == s) m->plan[n++] = i;
    }
    m->first[m->n_stages] = n;
    return TTX_OK;
}

/* The item and slice that hold a range; NULL: none. */
static item *find(const mapped *m, ttx_range r, uint32_t *i_slice) {
    uint32_t upto = ttx_range_upto(m->items, sizeof *m->items, m->n_items, r);
    if (!upto) return NULL;
    item *t = &m->items[upto - 1];
    uint64_t at = r.offset - t->range.offset;
    if (t->range.shard != r.shard || at >= t->range.size || !r.size) return NULL;
    *i_slice = (uint32_t)(at / (t->range.size / t->n_slices));
    return *i_slice < t->n_slices ? t : NULL;
}

/* ---- pinning ---- */

static void warn(const mapped *m, const char *line) {
    if (m->set.warn) m->set.warn(m->set.warn_ctx, line);
}

/* The pages that a slice touches. */
static void *pages_of(const mapped *m, ttx_range r, size_t *n) {
    uint64_t start = r.offset / PAGE * PAGE;
    *n = r.offset + r.size - start;
    return (void *)(m->sources[r.shard].map + start);
}

static bool pin_slice(mapped *m, item *t, uint32_t i) {
    ttx_range r = slice(t, i);
    size_t n;
    void *p = pages_of(m, r, &n);
    if (t->flags[i] & PINNED) return true;
    ttx_advise(m->advisor, TTX_ADVISE_IN, r);
    if (mlock(p, n)) {
        char line[256];
        snprintf(line, sizeof line,
                 "cannot lock more than %.1f MiB of weights in memory: %s; raise the limit with "
                 "'ulimit -l unlimited'",
                 (double)m->count.locked_bytes / (1 << 20), strerror(errno));
        warn(m, line);
        return false;
    }
    t->flags[i] |= PINNED;
    m->count.locked_bytes += r.size;
    return true;
}

/* As many of the largest things as go into `room`, spread evenly over the step. */
static void pin_spread(mapped *m, uint64_t room) {
    uint64_t largest = 1, all = 0;
    for (uint32_t i = 0; i < m->n_items; i++) {
        const item *t = &m->items[i];
        if (!t->of_experts && t->range.size > largest) largest = t->range.size;
    }
    for (int small = 1; small >= 0; small--) {
        double share = all ? (double)room / (double)all : 1, due = 0;
        for (uint32_t i = 0; i < m->n_items; i++) {
            item *t = &m->items[m->plan[i]];
            bool is_small = t->range.size < largest / SMALL_SHARE;
            if (t->of_experts || (t->flags[0] & PINNED)) continue;
            if (is_small != small) {
                all += small ? t->range.size : 0;
                continue;
            }
            due += share * (double)t->range.size;
            if (due < (double)t->range.size / 2 || t->range.size > room) continue;
            due -= (double)t->range.size;
            if (!pin_slice(m, t, 0)) return;
            room -= t->range.size;
        }
    }
}

/* Slices that a range covers, as far as there is room. */
static bool pin_range(mapped *m, ttx_range r, uint64_t *room) {
    uint32_t i;
    item *t = find(m, r, &i);
    for (; t && i < t->n_slices; i++) {
        ttx_range x = slice(t, i);
        if (x.offset + x.size > r.offset + r.size) break;
        if (x.size > *room || (t->flags[i] & PINNED)) continue;
        if (!pin_slice(m, t, i)) return false;
        *room -= x.size;
    }
    return true;
}

static void pin(mapped *m) {
    struct rlimit lim;
    uint64_t room = m->set.pin_bytes;
    if (getrlimit(RLIMIT_MEMLOCK, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
        lim.rlim_cur = lim.rlim_max;
        setrlimit(RLIMIT_MEMLOCK, &lim);
    }
    for (uint32_t i = 0; i < m->set.n_pins; i++)
        if (!pin_range(m, m->set.pins[i], &room)) return;
    if (m->set.pin_bytes != TTX_PIN_AUTO && !m->set.pins_only) pin_spread(m, room);
}

/* ---- reading ahead ---- */

/* Asks for a slice that is not there. */
static void ask(mapped *m, item *t, uint32_t i) {
    ttx_range r = slice(t, i);
    if ((t->flags[i] & (ASKED | PINNED)) || ttx_is_cached(&m->sources[r.shard], r)) return;
    ttx_advise(m->advisor, TTX_ADVISE_IN, r);
    t->flags[i] |= ASKED;
    m->missing++;
    m->count.prefetches++;
    m->count.prefetch_bytes += r.size;
}

static void ask_stage(mapped *m, uint32_t stage) {
    for (uint32_t i = m->first[stage]; i < m->first[stage + 1]; i++)
        if (!m->items[m->plan[i]].of_experts) ask(m, &m->items[m->plan[i]], 0);
}

/* All matrices of the expert whose slice this is. */
static void ask_expert(mapped *m, ttx_range range) {
    uint32_t e;
    const item *x = find(m, range, &e);
    if (!x || !x->of_experts) return;
    if (x->expert >= 0) e = (uint32_t)x->expert;
    for (uint32_t i = m->first[x->stage]; i < m->first[x->stage + 1]; i++) {
        item *t = &m->items[m->plan[i]];
        if (!t->of_experts || (t->expert >= 0 && t->expert != (int32_t)e)) continue;
        ask(m, t, t->expert >= 0 ? 0 : e);
    }
}

static bool looks(const mapped *m) {
    return m->step >= m->pause_until;
}

void mapped_hint(mapped *m, ttx_range range) {
    if ((m->set.prefetch & TTX_PREFETCH_EXPERT) && looks(m)) ask_expert(m, range);
    ttx_advise_pump(m->advisor);
}

/* A prompt has work for most experts of a layer, which may be more than memory holds: a few are
 * handed out while the next ones are read. */
void mapped_use_any(mapped *m, const ttx_range *set, int n, bool *got) {
    bool few = (m->set.prefetch & TTX_PREFETCH_EXPERT) && looks(m) && n > TOGETHER;
    for (int i = 0; i < n; i++) got[i] = !few || i < TOGETHER;
    for (int i = 0; few && i < n && i < 2 * TOGETHER; i++) ask_expert(m, set[i]);
}

ttx_residency_state mapped_use(mapped *m, ttx_range range) {
    uint32_t i;
    ttx_advise_pump(m->advisor);
    item *t = find(m, range, &i);
    if (!t) return TTX_RES_UNKNOWN;
    bool asked = t->flags[i] & ASKED;
    t->flags[i] = (uint8_t)((t->flags[i] | USED) & ~ASKED);
    if (t->flags[i] & PINNED) return TTX_RES_RESIDENT;
    if (!asked) return TTX_RES_UNKNOWN;
    bool there = ttx_is_present(&m->sources[range.shard], range);
    m->count.prefetches_used++;
    m->count.prefetches_late += !there;
    return there ? TTX_RES_PREFETCHED : TTX_RES_LATE;
}

/* ---- giving up ---- */

static void evict(mapped *m, const item *t, uint32_t i) {
    if (t->flags[i] & PINNED) return;
    ttx_range r = slice(t, i);
    ttx_advise(m->advisor, m->set.evict == TTX_EVICT_COLD ? TTX_ADVISE_COLD : TTX_ADVISE_OUT, r);
    m->count.evictions++;
    m->count.evicted_bytes += r.size;
}

static void end_stage(mapped *m, uint32_t stage) {
    bool all = m->set.evict_when == TTX_EVICT_LAYER;
    for (uint32_t k = m->first[stage]; k < m->first[stage + 1]; k++) {
        item *t = &m->items[m->plan[k]];
        for (uint32_t i = 0; i < t->n_slices; i++) {
            uint8_t f = t->flags[i], kept = f & (ASKED | PINNED);
            bool deselected = t->of_experts && (f & USED_BEFORE) && !(f & USED);
            if (m->set.evict && (all ? f & USED : deselected)) evict(m, t, i);
            if (t->of_experts && !(f & USED))
                m->count.unchosen_bytes += t->range.size / t->n_slices;
            t->flags[i] = f & USED ? kept | USED_BEFORE : kept;
        }
    }
}

void mapped_layer(mapped *m, int layer) {
    uint32_t stage = (uint32_t)layer, last = m->n_stages - 1;
    uint32_t ahead = m->set.prefetch_ahead ? m->set.prefetch_ahead : AHEAD;
    if (stage > last) return;
    if (m->stage != stage) end_stage(m, m->stage);
    m->stage = stage;
    if (!stage) {
        m->step++;
        bool looked = m->step > 1 && m->step > m->pause_until; /* in the step before */
        if (looked && !m->missing) m->pause_until = m->step + PAUSE;
        m->missing = 0;
    }
    uint64_t now = m->step * m->n_stages + stage, to = now + (ahead < last ? ahead : last) + 1;
    if (m->asked_to <= now) m->asked_to = now + 1;
    for (; m->asked_to < to && (m->set.prefetch & TTX_PREFETCH_LAYER) && looks(m); m->asked_to++)
        ask_stage(m, (uint32_t)(m->asked_to % m->n_stages));
    ttx_advise_pump(m->advisor);
}

/* ---- opening ---- */

int mapped_open(mapped **out, const ttx_source *sources, uint32_t n_sources,
                const ttx_residency_settings *set, ttx_err *err) {
    *out = NULL;
    if (!set->plan || !ttx_residency_wants_plan(set)) return TTX_OK;
    mapped *m = calloc(1, sizeof *m);
    if (!m) return ttx_fail_nomem(err, "residency", sizeof *m);
    m->set = *set;
    m->sources = sources;
    int rc = make_tables(m, set->plan, err);
    if (!rc)
        rc = ttx_advisor_open(&m->advisor, sources, n_sources, set->threads, set->warn,
                              set->warn_ctx, err);
    if (rc) {
        mapped_close(m);
        return rc;
    }
    pin(m);
    m->set.plan = NULL; /* needed until here */
    m->set.pins = NULL;
    *out = m;
    return TTX_OK;
}

void mapped_close(mapped *m) {
    if (!m) return;
    ttx_advisor_close(m->advisor);
    for (uint32_t i = 0; m->flags && i < m->n_items; i++)
        for (uint32_t k = 0; k < m->items[i].n_slices; k++) {
            size_t n;
            void *p = pages_of(m, slice(&m->items[i], k), &n);
            if (m->items[i].flags[k] & PINNED) munlock(p, n);
        }
    free(m->items);
    free(m->plan);
    free(m->first);
    free(m->flags);
    free(m);
}

const ttx_residency_counters *mapped_counters(const mapped *m) {
    return &m->count;
}
