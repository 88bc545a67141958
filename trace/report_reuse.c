/* report_reuse.c -- how far apart in bytes an object's uses are, what follows what, and whether
 * tokens go the same way.
 *
 * Reuse distance: the bytes of the distinct objects used since the last use of this one, itself
 * included: the size that an LRU cache needs to hit. Every use takes the next slot of a row; a
 * Fenwick tree holds the size of each object at the slot of its last use, so a distance is a sum
 * over a suffix (Olken, "Efficient methods for calculating the success function of fixed-space
 * replacement policies", 1981). A full row is squeezed to the slots that still count.
 */
#include "report_int.h"

#include <stdlib.h>
#include <string.h>

int rp_reuse_init(ttx_report *r, ttx_err *err) {
    rp_reuse *u = &r->reuse;
    u->n_slot = 4096;
    while (u->n_slot < 4 * r->n_object) u->n_slot *= 2;
    u->who = calloc(u->n_slot, sizeof *u->who);
    u->sum = calloc(u->n_slot + 1, sizeof *u->sum);
    r->seq.base = malloc(RP_BASE * sizeof *r->seq.base);
    if (!u->who || !u->sum || !r->seq.base) return ttx_fail_nomem(err, "reuse distances", 0);
    return TTX_OK;
}

/* ---- the tree: slots 0..n_slot-1 ---- */

static void tree_add(rp_reuse *u, uint32_t slot, uint64_t v) {
    for (uint32_t i = slot + 1; i <= u->n_slot; i += i & -i) u->sum[i] += v;
}

static uint64_t tree_upto(const rp_reuse *u, uint32_t slot) { /* slots 0..slot */
    uint64_t s = 0;
    for (uint32_t i = slot + 1; i; i &= i - 1) s += u->sum[i];
    return s;
}

static void squeeze(ttx_report *r) {
    rp_reuse *u = &r->reuse;
    uint32_t n = 0;
    memset(u->sum, 0, (u->n_slot + 1) * sizeof *u->sum);
    for (uint32_t s = 0; s < u->n_slot; s++) {
        uint32_t who = u->who[s];
        if (!who || r->objects[who - 1].slot != s + 1) continue;
        u->who[n] = who;
        r->objects[who - 1].slot = n + 1;
        u->sum[n + 1] = r->objects[who - 1].size;
        n++;
    }
    memset(u->who + n, 0, (u->n_slot - n) * sizeof *u->who);
    for (uint32_t i = 1; i <= u->n_slot; i++) { /* sums of single slots become a tree */
        uint32_t parent = i + (i & -i);
        if (parent <= u->n_slot) u->sum[parent] += u->sum[i];
    }
    u->next = n;
}

/* ---- distances ---- */

static uint32_t bucket_of(uint64_t d) {
    if (d < 8) return (uint32_t)d;
    uint32_t log = 63 - (uint32_t)__builtin_clzll(d);
    return (log - 2) * 8 + (uint32_t)(d >> (log - 3) & 7);
}

uint64_t rp_distance_of(uint32_t bucket) {
    if (bucket < 8) return bucket;
    uint32_t log = bucket / 8 + 2;
    return ((uint64_t)(8 + bucket % 8 + 1) << (log - 3)) - 1;
}

static void distance(ttx_report *r, rp_object *o, uint64_t bytes) {
    rp_reuse *u = &r->reuse;
    if (u->next == u->n_slot) squeeze(r);
    if (o->slot) {
        uint64_t d = u->live - tree_upto(u, o->slot - 1) + o->size;
        uint32_t b = bucket_of(d);
        u->n[b]++;
        u->bytes[b] += bytes;
        u->distance_sum += (double)d;
        tree_add(u, o->slot - 1, -o->size);
        u->who[o->slot - 1] = 0;
    } else {
        u->cold++;
        u->cold_bytes += bytes;
        u->live += o->size;
    }
    tree_add(u, u->next, o->size);
    u->who[u->next] = (uint32_t)(o - r->objects) + 1;
    o->slot = ++u->next;
}

static void follow(rp_reuse *u, const rp_access *a) {
    if (u->has_prev) {
        u->compared++;
        if (a->at >= u->prev_end && a->at - u->prev_end <= RP_NEAR) {
            u->sequential++;
            u->sequential_bytes += a->size;
            u->gap_bytes += a->at - u->prev_end;
        } else {
            u->jumps++;
        }
    }
    u->prev_end = a->at + a->size;
    u->has_prev = true;
}

void rp_reuse_access(ttx_report *r, const rp_access *a) {
    rp_reuse *u = &r->reuse;
    follow(u, a);
    if (!a->whole) {
        u->partial++;
        u->partial_bytes += a->size;
        return;
    }
    rp_object *o = &r->objects[a->object];
    distance(r, o, a->size);
    if (u->prev_object) {
        rp_object *before = &r->objects[u->prev_object - 1];
        u->with_next += before->next != 0;
        u->hits_next += before->next == a->object + 1;
        before->next = a->object + 1;
    }
    u->prev_object = a->object + 1;
}

/* ---- sequences of tokens ---- */

static uint64_t mix(uint64_t h, uint64_t v) {
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

/* Experts of a token have no order of their own: streamed, they are computed as they come. */
static void end_group(rp_sequence *s) {
    if (!s->group_tensors) return;
    s->tensors = mix(s->tensors, s->group_tensors);
    s->objects = mix(s->objects, s->group_objects);
    s->group_tensors = s->group_objects = 0;
}

void rp_sequence_end(ttx_report *r) {
    rp_sequence *s = &r->seq;
    end_group(s);
    if (s->open && s->phase == TTX_PHASE_GENERATE && s->length) {
        if (!s->n_token) {
            s->base_tensors = s->tensors;
            s->base_objects = s->objects;
            s->n_base = s->length < RP_BASE ? s->length : RP_BASE;
            s->base_jumps = s->jumps;
        } else {
            s->same_tensors += s->tensors == s->base_tensors;
            s->same_objects += s->objects == s->base_objects;
        }
        s->n_token++;
    }
    s->open = false;
}

void rp_sequence_access(ttx_report *r, const rp_access *a) {
    rp_sequence *s = &r->seq;
    if (!s->open || a->token != s->token || a->phase != s->phase) {
        rp_sequence_end(r);
        s->open = a->n_tokens <= 1 && a->token != TTX_REC_NO_TOKEN;
        s->token = a->token;
        s->phase = a->phase;
        s->tensors = s->objects = s->group_tensors = s->group_objects = 0;
        s->length = 0;
        s->jumps = 0;
        if (!s->open) return;
    } else {
        rp_reuse *u = &r->reuse; /* follow() has not seen this access yet */
        if (u->has_prev && (a->at < u->prev_end || a->at - u->prev_end > RP_NEAR)) s->jumps++;
    }
    if (!s->n_token && s->phase == TTX_PHASE_GENERATE && s->length < RP_BASE)
        s->base[s->length] = a->object | (a->whole ? 0 : RP_PART);
    uint64_t tensor = (uint64_t)a->tensor << 8 | a->op, object = (uint64_t)a->object << 8 | a->op;
    s->length++;
    if (a->expert != TTX_REC_NO_EXPERT) {
        s->group_tensors += mix(1, tensor);
        s->group_objects += mix(1, object);
        return;
    }
    end_group(s);
    s->tensors = mix(s->tensors, tensor);
    s->objects = mix(s->objects, object);
}
