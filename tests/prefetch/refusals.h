/* refusals.h -- a system that refuses: for tests, in a process that ends afterwards. */
#ifndef REFUSALS_H
#define REFUSALS_H

#include <stdbool.h>

/* True in a child, which must end with refusals_end; its parent calls refusals_wait, which returns
 * the number of failures that the child found. */
bool refusals_fork(void);
_Noreturn void refusals_end(int failures);
int refusals_wait(void);

/* From now on io_uring_setup is forbidden, as container runtimes do it (EPERM). */
void refuse_io_uring(void);
/* From now on files cannot be opened with O_DIRECT (EINVAL), as on file systems without it. */
void refuse_direct(void);
/* No memory can be locked. False: the right could not be given up (it is not ours to give). */
bool refuse_locking(void);
/* Huge pages are refused to this process. */
void refuse_huge_pages(void);

#endif
