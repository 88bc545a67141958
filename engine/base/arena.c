/* arena.c -- see arena.h. */
#include "arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64, BLOCK_BYTES = 64 * 1024, HUGE_PAGE = 2 << 20 };

struct ttx_arena_block {
    struct ttx_arena_block *next;
    size_t used, size; /* of data, which starts ALIGN bytes after the block */
    void *map;         /* of map_bytes, in which the block lies; NULL: it is from the heap */
    size_t map_bytes;
};

static char *block_data(struct ttx_arena_block *b) {
    return (char *)b + ALIGN;
}

/* A block with room for `size` bytes of zeros. A large one is a mapping of its own, in huge pages:
 * they appear as they are first touched, so that what is never used costs nothing, and tables that
 * are accessed at random need few entries of the TLB. */
static struct ttx_arena_block *new_block(size_t size) {
    struct ttx_arena_block *b;
    if (size < 2 * HUGE_PAGE) {
        b = aligned_alloc(ALIGN, ALIGN + size);
        if (!b) return NULL;
        memset(b, 0, ALIGN + size);
    } else {
        size_t bytes = ALIGN + size + HUGE_PAGE;
        void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (map == MAP_FAILED) return NULL;
        b = (void *)(((uintptr_t)map + HUGE_PAGE - 1) & ~(uintptr_t)(HUGE_PAGE - 1));
        madvise(b, ALIGN + size, MADV_HUGEPAGE); /* a refusal costs speed alone */
        b->map = map;
        b->map_bytes = bytes;
    }
    b->size = size;
    return b;
}

static void free_block(struct ttx_arena_block *b) {
    if (b->map)
        munmap(b->map, b->map_bytes);
    else
        free(b);
}

void *ttx_arena_alloc(ttx_arena *a, size_t bytes) {
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    struct ttx_arena_block *b = a->head;
    if (!b || b->size - b->used < bytes) {
        size_t size = bytes > BLOCK_BYTES / 4 ? bytes : BLOCK_BYTES - ALIGN;
        b = new_block(size);
        if (!b) return NULL;
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
    return p;
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
        free_block(b);
    }
    *a = (ttx_arena){0};
}
