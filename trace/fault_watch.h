/* fault_watch.h -- page faults of this process, with address and time, from perf_event_open.
 *
 * One pair of events (minor, major) for each thread, into one ring of samples a thread, which the
 * trace's writer empties. No privilege is needed where perf_event_paranoid is 2 or less; what is
 * refused is said, not guessed.
 */
#ifndef TTX_FAULT_WATCH_H
#define TTX_FAULT_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fault_watch fault_watch;

enum { FAULT_WATCH_BYTES = 65 * 4096 }; /* of memory for each thread, at most */

typedef struct fault_sample {
    uint64_t monotonic_ns, address;
    bool major;
} fault_sample;

/* Watches the threads that this process has now. NULL if nothing can be watched: `why` says why. */
fault_watch *fault_watch_open(char why[160]);
void fault_watch_close(fault_watch *w); /* NULL is fine */

/* Moves the samples that are there to the end of *v [*n], which grows by realloc; by thread, each
 * in order of time. False without memory: those samples count as lost. */
bool fault_watch_take(fault_watch *w, fault_sample **v, size_t *n, size_t *cap);

/* Faults that were not sampled: rings that were full. */
uint64_t fault_watch_lost(const fault_watch *w);
/* Threads of the process that could not be watched. */
int fault_watch_unwatched(const fault_watch *w);

#endif
