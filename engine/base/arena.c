/* arena.c -- see arena.h. */
#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, BLOCK_BYTES = 64 * 1024 };

struct ttx_arena_block {
    struct ttx_arena_block *next;
    size_t used, size; /* of data, which starts ALIGN bytes after the block */
};

static char *block_data(struct ttx_arena_block *b) {
    return (char *)b + ALIGN;
}

void *ttx_arena_alloc(ttx_arena *a, size_t bytes) {
    if (bytes > SIZE_MAX - 2 * BLOCK_BYTES) return NULL;
    bytes = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    struct ttx_arena_block *b = a->head;
    if (!b || b->size - b->used < bytes) {
        size_t size = bytes > BLOCK_BYTES / 4 ? bytes : BLOCK_BYTES - ALIGN;
        b = aligned_alloc(ALIGN, ALIGN + size);
        if (!b) return NULL;
        *b = (struct ttx_arena_block){.size = size};
        if (a->head && size == bytes) { /* a large one: keep filling the current small block */
            b->next = a->head->next;
            a->head->next = b;
        } else {
            b->next = a->head;
            a->head = b;
        }
        a->total += ALIGN + size;
    }
    void *p = block_data(b) + b->used;
    b->used += bytes;
    return memset(p, 0, bytes);
}

void *ttx_arena_array(ttx_arena *a, size_t n, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes)) return NULL;
    return ttx_arena_alloc(a, bytes);
}

char *ttx_arena_strndup(ttx_arena *a, const char *s, size_t n) {
    if (n == SIZE_MAX) return NULL;
    char *p = ttx_arena_alloc(a, n + 1);
    if (p && n) memcpy(p, s, n);
    return p;
}

void ttx_arena_free(ttx_arena *a) {
    for (struct ttx_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (ttx_arena){0};
}
