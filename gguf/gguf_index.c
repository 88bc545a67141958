/* gguf_index.c -- from names to positions: a hash table that is built once and then only read. */
#include "gguf_int.h"

#include <stdlib.h>
#include <string.h>

struct gguf_slot {
    uint32_t hash;
    uint32_t item; /* position + 1; 0 = empty */
};

/* Bytes folded eight at a time through a multiplication whose high half is mixed back in. */
static uint32_t hash_of(gguf_str name) {
    const uint64_t k = 0x9e3779b97f4a7c15u;
    uint64_t h = k ^ name.n;
    for (uint64_t i = 0; i < name.n; i += 8) {
        uint64_t w = 0, left = name.n - i;
        memcpy(&w, name.s + i, left < 8 ? left : 8);
        h = (h ^ w) * k;
        h ^= h >> 29;
    }
    return (uint32_t)(h ^ h >> 32);
}

/* The slot that holds `name`, or the empty one where it belongs. */
static struct gguf_slot *probe(const gguf_index *x, gguf_str name, uint32_t hash) {
    uint64_t mask = (UINT64_C(1) << x->bits) - 1;
    for (uint64_t i = hash;; i++) {
        struct gguf_slot *s = &x->slots[i & mask];
        if (!s->item) return s;
        if (s->hash != hash) continue;
        gguf_str other = x->name_of(x->items, s->item - 1);
        if (other.n == name.n && memcmp(other.s, name.s, name.n) == 0) return s;
    }
}

int gguf_index_build(gguf_index *x, const void *items, uint32_t n,
                     gguf_str (*name_of)(const void *items, uint32_t i), uint32_t *dup,
                     ttx_err *err) {
    *x = (gguf_index){.bits = 4, .items = items, .name_of = name_of};
    *dup = GGUF_NONE;
    while (UINT64_C(1) << x->bits < UINT64_C(2) * n) x->bits++; /* at most half full */
    size_t count = (size_t)1 << x->bits;
    x->slots = calloc(count, sizeof *x->slots);
    if (!x->slots) return ttx_fail_nomem(err, "an index of names", count * sizeof *x->slots);
    for (uint32_t i = 0; i < n; i++) {
        gguf_str name = name_of(items, i);
        uint32_t hash = hash_of(name);
        struct gguf_slot *s = probe(x, name, hash);
        if (s->item) {
            *dup = i;
            return 0;
        }
        *s = (struct gguf_slot){hash, i + 1};
    }
    return 0;
}

uint32_t gguf_index_find(const gguf_index *x, gguf_str name) {
    if (!x->slots) return GGUF_NONE;
    const struct gguf_slot *s = probe(x, name, hash_of(name));
    return s->item ? s->item - 1 : GGUF_NONE;
}

void gguf_index_free(gguf_index *x) {
    free(x->slots);
    *x = (gguf_index){0};
}
