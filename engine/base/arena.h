/* arena.h -- memory that is released all at once.
 *
 * A bump allocator for things that live as long as their owner: names, tables, a session's
 * scratch. No single allocation is ever freed. Not thread-safe: one owner, one thread.
 */
#ifndef TTX_ARENA_H
#define TTX_ARENA_H

#include <stddef.h>

typedef struct ttx_arena {
    struct ttx_arena_block *head; /* newest block first */
    size_t total;                 /* bytes obtained from the system */
} ttx_arena;

/* Zeroed memory, aligned to 64 bytes (a cache line, and the widest vector). NULL if the system has
 * none. An arena that is all zeros is a valid empty one. */
void *ttx_arena_alloc(ttx_arena *a, size_t bytes);

/* As above for n objects of `size` bytes; NULL also if the product overflows. */
void *ttx_arena_array(ttx_arena *a, size_t n, size_t size);

/* A NUL-terminated copy of n bytes. */
char *ttx_arena_strndup(ttx_arena *a, const char *s, size_t n);

/* Releases everything; the arena is empty and usable again. */
void ttx_arena_free(ttx_arena *a);

#endif
