/* limit_readers.h -- six ways to read memory, with vectors of VEC_BYTES bytes.
 *
 * Included once by each limits_<isa>.c, which defines VEC_BYTES. Which way is the fastest differs
 * between CPUs: by how far the hardware prefetches and how many streams it follows.
 */
#include "limits_int.h"

typedef uint64_t vec __attribute__((vector_size(VEC_BYTES)));
enum { N_ACC = 8, STEP = N_ACC * VEC_BYTES, LINE = 64 };

static inline uint64_t total(const vec *acc) {
    vec v = acc[0];
    uint64_t sum = 0;
    for (int i = 1; i < N_ACC; i++) v += acc[i];
    for (size_t i = 0; i < VEC_BYTES / sizeof(uint64_t); i++) sum += v[i];
    return sum;
}

/* One stream; `ahead` bytes are prefetched, 0: left to the hardware. `hint`: as
 * __builtin_prefetch's locality; 0 passes by the outer caches, 2 by the first one. */
static inline __attribute__((always_inline)) uint64_t read_stream(const uint8_t *p, size_t n,
                                                                  size_t ahead, const int hint) {
    vec acc[N_ACC] = {{0}};
    for (size_t at = 0; at < n; at += STEP) {
        for (size_t i = 0; ahead && i < STEP; i += LINE) {
            const uint8_t *line = p + at + i + ahead;
            hint == 3   ? __builtin_prefetch(line, 0, 3)
            : hint == 2 ? __builtin_prefetch(line, 0, 2)
                        : __builtin_prefetch(line, 0, 0);
        }
        const vec *v = (const vec *)(const void *)(p + at);
        for (int i = 0; i < N_ACC; i++) acc[i] += v[i];
    }
    return total(acc);
}

static uint64_t read_plain(const uint8_t *p, size_t n) {
    return read_stream(p, n, 0, 3);
}

static uint64_t read_near(const uint8_t *p, size_t n) {
    return read_stream(p, n, 1024, 3);
}

static uint64_t read_far(const uint8_t *p, size_t n) {
    return read_stream(p, n, 4096, 2);
}

static uint64_t read_once(const uint8_t *p, size_t n) {
    return read_stream(p, n, 512, 0);
}

/* Several streams side by side, an equal part of the bytes each. */
static inline __attribute__((always_inline)) uint64_t read_parts(const uint8_t *p, size_t n,
                                                                 const int parts) {
    vec acc[N_ACC] = {{0}};
    const int each = N_ACC / parts;
    for (size_t at = 0; at < n / (size_t)parts; at += (size_t)each * VEC_BYTES)
        for (int i = 0; i < N_ACC; i++)
            acc[i] += *(const vec *)(const void *)(p + (size_t)(i / each) * (n / (size_t)parts) +
                                                   at + (size_t)(i % each) * VEC_BYTES);
    return total(acc);
}

static uint64_t read_4_streams(const uint8_t *p, size_t n) {
    return read_parts(p, n, 4);
}

static uint64_t read_8_streams(const uint8_t *p, size_t n) {
    return read_parts(p, n, 8);
}

#define READERS(isa)                                                                       \
    {isa, read_plain}, {isa ", prefetching 1 KiB ahead", read_near},                       \
        {isa ", prefetching 4 KiB ahead into L2", read_far},                               \
        {isa ", prefetching 512 B ahead past the outer caches", read_once},                \
        {isa ", four streams", read_4_streams}, {isa ", eight streams", read_8_streams}, { \
        0                                                                                  \
    }
