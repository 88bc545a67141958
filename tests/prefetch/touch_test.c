/* touch_test.c -- memory is backed from the beginning on, what is in it stays, who stops it early
 * does not wait for the rest, and nothing is taken that others need. */
#include "touch.h"

#include "clock.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, BYTES = (24 << 20) + 3 * PAGE, BEYOND = 8 << 20, SKIP = 77 };

static const ttx_touch_limits none = {0, 0};

static bool backed(uint8_t *page) {
    unsigned char here = 0;
    return mincore(page, PAGE, &here) == 0 && (here & 1);
}

static size_t count_backed(uint8_t *mem, size_t bytes) {
    size_t n = 0;
    for (size_t i = 0; i < bytes; i += PAGE) n += backed(mem + i);
    return n;
}

static uint8_t *map(size_t bytes) {
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) return NULL;
    madvise(p, bytes, MADV_NOHUGEPAGE); /* so that what lies beyond shows */
    return p;
}

/* All of it, while its contents change. */
static int whole(void) {
    uint8_t *mem = map(BYTES + BEYOND);
    if (!mem) return 1;
    int wrong = 0;
    for (size_t i = 0; i < BYTES; i += 5 * PAGE) mem[i] = (uint8_t)(i / PAGE + 1);
    ttx_touch *t = ttx_touch_start(mem, BYTES, &none);
    for (size_t i = PAGE; i < BYTES; i += 5 * PAGE) mem[i] = (uint8_t)(i / PAGE + 1);
    uint64_t until = ttx_now_ns() + 20000000000ull;
    while (count_backed(mem, BYTES) < BYTES / PAGE && ttx_now_ns() < until) usleep(1000);
    size_t n = count_backed(mem, BYTES), more = count_backed(mem + BYTES, BEYOND);
    ttx_touch_stop(t);
    for (size_t i = 0; i < BYTES; i += 5 * PAGE) {
        wrong += mem[i] != (uint8_t)(i / PAGE + 1);
        if (i + PAGE < BYTES) wrong += mem[i + PAGE] != (uint8_t)(i / PAGE + 2);
    }
    printf("%zu of %d pages backed, %zu beyond, %d changed\n", n, BYTES / PAGE, more, wrong);
    munmap(mem, BYTES + BEYOND);
    return n != BYTES / PAGE || more || wrong;
}

/* More memory than there is: stopped at once, most of it is untouched. */
static int stopped(void) {
    const size_t bytes = 1ull << 40;
    uint8_t *mem = map(bytes);
    if (!mem) return 0; /* address space is limited: nothing to see */
    ttx_touch *t = ttx_touch_start(mem, bytes, &none);
    usleep(2000);
    uint64_t begin = ttx_now_ns();
    ttx_touch_stop(t);
    double s = (double)(ttx_now_ns() - begin) * 1e-9;
    size_t n = count_backed(mem, 1u << 30);
    usleep(20000);
    bool goes_on = count_backed(mem, 1u << 30) != n;
    printf("stopped in %.3f s, %zu pages backed%s\n", s, n, goes_on ? ", goes on" : "");
    munmap(mem, bytes);
    return s > 10 || goes_on;
}

/* Memory that others are going to take is left. */
static int left_alone(void) {
    const ttx_touch_limits all = {0, UINT64_MAX / 2};
    uint8_t *mem = map(BYTES);
    if (!mem) return 1;
    ttx_touch *t = ttx_touch_start(mem, BYTES, &all);
    usleep(50000);
    ttx_touch_stop(t);
    size_t n = count_backed(mem, BYTES);
    printf("%zu pages backed where none are left\n", n);
    munmap(mem, BYTES);
    return n != 0;
}

int main(void) {
    uint8_t *page = map(PAGE);
    /* 23: MADV_POPULATE_WRITE, of Linux 5.14 */
    if (!page || madvise(page, PAGE, 23)) {
        printf("skipped: this system does not back memory when asked\n");
        return SKIP;
    }
    ttx_touch_stop(NULL);
    return whole() | stopped() | left_alone();
}
