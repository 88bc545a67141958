/* budget.h -- how much memory there is for us.
 *
 * The smaller of what the system says is available and what the memory cgroup (v1 or v2) still
 * allows. Page cache that could be dropped counts as available in both.
 */
#ifndef TTX_BUDGET_H
#define TTX_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that this process may still use without pushing anything out; 0 if nothing can be read. */
uint64_t ttx_memory_available(void);

/* The smallest limit of the memory groups that this process is in; UINT64_MAX: none. */
uint64_t ttx_memory_limit(void);

/* The path of our memory group of cgroups v1 or v2, below where its controller is mounted; empty:
 * the top. False: there is none. */
bool ttx_memory_group(bool v2, char *path, size_t size);

#endif
