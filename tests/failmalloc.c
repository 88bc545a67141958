/* failmalloc.c -- a library to preload: the Nth allocation of the process fails.
 *
 * FAILMALLOC_AT=N      which one, from 1 (malloc, calloc, realloc, aligned_alloc, posix_memalign
 * and anonymous mmap count together); absent: none FAILMALLOC_LOG=FILE  written when it happened,
 * so that a caller knows when N is past the last
 *
 * It allocates nothing itself. Linux with glibc; not together with a sanitizer.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);
void *__libc_memalign(size_t align, size_t size);

static atomic_long count;

static bool fails(void) {
    const char *at = getenv("FAILMALLOC_AT"), *log = getenv("FAILMALLOC_LOG");
    if (!at || atomic_fetch_add(&count, 1) + 1 != strtol(at, NULL, 10)) return false;
    int fd = log ? open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666) : -1;
    if (fd >= 0) close(fd);
    errno = ENOMEM;
    return true;
}

PUBLIC void *malloc(size_t size) {
    return fails() ? NULL : __libc_malloc(size);
}

PUBLIC void *calloc(size_t n, size_t size) {
    return fails() ? NULL : __libc_calloc(n, size);
}

PUBLIC void *realloc(void *p, size_t size) {
    return fails() ? NULL : __libc_realloc(p, size);
}

PUBLIC void *aligned_alloc(size_t align, size_t size) {
    return fails() ? NULL : __libc_memalign(align, size);
}

PUBLIC int posix_memalign(void **out, size_t align, size_t size) {
    void *p = fails() ? NULL : __libc_memalign(align, size);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}

PUBLIC void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset) {
    if ((flags & MAP_ANONYMOUS) && fails()) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, addr, size, prot, flags, fd, offset);
}
