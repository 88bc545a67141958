/* mem_group.h -- a memory limit around a run: a memory cgroup of its own, v1 or v2. */
#ifndef MEM_GROUP_H
#define MEM_GROUP_H

#include "err.h"

#include <stdint.h>

/* Makes a group below this process's own (or beside it, or at the top, wherever it may), continues
 * in a child process inside it, and removes it when the child is gone. Returns in both: in the
 * child with *exit_code -1; in the parent, when the child has ended, with its exit code. Call
 * before any thread is started. Errors: TTX_E_RUNTIME (no right to make a group, no memory
 * controller). */
int mem_group_enter(uint64_t limit, int *exit_code, ttx_err *err);

/* The most that the group of this process has used, in bytes; 0: unknown, or no limit was entered.
 */
uint64_t mem_group_peak(void);

#endif
