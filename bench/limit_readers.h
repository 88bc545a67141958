/* limit_readers.h -- four ways to read memory, with vectors of VEC_BYTES bytes.
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

/* One stream; `ahead` bytes are prefetched, 0: left to the hardware. */
static inline uint64_t read_stream(const uint8_t *p, size_t n, size_t ahead) {
    vec acc[N_ACC] = {{0}};
    for (size_t at = 0; at < n; at += STEP) {
        for (size_t i = 0; ahead && i < STEP; i += LINE) __builtin_prefetch(p + at + i + ahead);
        const vec *v = (const vec *)(const void *)(p + at);
        for (int i = 0; i < N_ACC; i++) acc[i] += v[i];
    }
    return total(acc);
}

static uint64_t read_plain(const uint8_t *p, size_t n) {
    return read_stream(p, n, 0);
}

static uint64_t read_near(const uint8_t *p, size_t n) {
    return read_stream(p, n, 1024);
}

static uint64_t read_far(const uint8_t *p, size_t n) {
    return read_stream(p, n, 8192);
}

/* Four streams, a quarter of the bytes each. */
static uint64_t read_streams(const uint8_t *p, size_t n) {
    vec acc[N_ACC] = {{0}};
    for (size_t at = 0; at < n / 4; at += 2 * VEC_BYTES)
        for (int i = 0; i < N_ACC; i++)
            acc[i] += *(const vec *)(const void *)(p + (size_t)(i / 2) * (n / 4) + at +
                                                   (size_t)(i % 2) * VEC_BYTES);
    return total(acc);
}
