/* clock.h -- time since an arbitrary start, in nanoseconds, never going back. */
#ifndef TTX_CLOCK_H
#define TTX_CLOCK_H

#include <stdint.h>

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t ttx_now_ns(void);

#endif
