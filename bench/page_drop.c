/* page_drop.c -- see page_drop.h. */
#include "page_drop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES_AT_ONCE = 1 << 16 };

/* Pages of the mapping that are in memory. mincore answers for files that we own or may write. */
static size_t count_resident(uint8_t *map, size_t pages) {
    static const size_t most = PAGES_AT_ONCE;
    unsigned char *v = malloc(most);
    size_t n = 0;
    for (size_t i = 0; v && i < pages; i += most) {
        size_t some = pages - i < most ? pages - i : most;
        if (mincore(map + i * PAGE, some * PAGE, v)) break;
        for (size_t k = 0; k < some; k++) n += v[k] & 1;
    }
    free(v);
    return n;
}

int page_drop(const char *path, double *left, ttx_err *err) {
    *left = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    void *map = size > 0 ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    int rc = TTX_OK;
    if (map == MAP_FAILED) {
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s: cannot drop from the page cache: %s", path,
                      strerror(errno));
    } else {
        size_t pages = ((size_t)size + PAGE - 1) / PAGE;
        fsync(fd); /* dirty pages stay */
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        *left = (double)count_resident(map, pages) / (double)pages;
        munmap(map, (size_t)size);
    }
    if (fd >= 0) close(fd);
    return rc;
}
