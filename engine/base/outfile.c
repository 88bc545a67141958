/* outfile.c -- see outfile.h. */
#include "outfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int cannot(const char *what, const char *path, ttx_err *err) {
    return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot %s: %s", path, what, strerror(errno));
}

/* A file without a name in the folder of `draft`. -1: not on this file system, or nobody could give
 * it that name later. */
static int open_nameless(const char *draft, mode_t mode) {
    const char *slash = strrchr(draft, '/');
    if (access("/proc/self/fd", X_OK) || strlen(slash ? slash + 1 : draft) > NAME_MAX) return -1;
    char *dir = slash ? strndup(draft, (size_t)(slash - draft) + 1) : strdup(".");
    int fd = dir ? open(dir, O_WRONLY | O_TMPFILE | O_CLOEXEC, mode) : -1;
    free(dir);
    return fd;
}

/* Gives the draft its name; it is open. */
static bool name_draft(ttx_outfile *o) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fileno(o->f));
    unlink(o->draft); /* of a process that had the same number */
    bool ok = linkat(AT_FDCWD, link, AT_FDCWD, o->draft, AT_SYMLINK_FOLLOW) == 0;
    o->nameless = !ok;
    return ok;
}

int ttx_outfile_open(ttx_outfile *o, const char *path, ttx_err *err) {
    *o = (ttx_outfile){0};
    if (!path || strcmp(path, "-") == 0) {
        o->f = stdout;
        return 0;
    }
    if (!*path)
        return ttx_fail(err, TTX_E_USAGE, "output: expected a file name, found an empty one");
    struct stat st = {.st_mode = S_IFREG | 0666};
    bool exists = stat(path, &st) == 0;
    bool direct = !S_ISREG(st.st_mode); /* a device, a pipe */
    /* through a link: keep the link */
    o->path = exists && !direct ? realpath(path, NULL) : strdup(path);
    if (!o->path) return ttx_outfile_close(o, ttx_fail_nomem(err, "a path", PATH_MAX), err);
    if (direct) {
        o->f = fopen(path, "we");
        return o->f ? 0 : ttx_outfile_close(o, cannot("open", path, err), err);
    }
    if (asprintf(&o->draft, "%s.%d.tmp", o->path, (int)getpid()) < 0) {
        o->draft = NULL;
        return ttx_outfile_close(o, ttx_fail_nomem(err, "a path", PATH_MAX), err);
    }
    int fd = open_nameless(o->draft, st.st_mode & 0777);
    o->nameless = fd >= 0;
    if (fd < 0) fd = open(o->draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, st.st_mode & 0777);
    o->f = fd < 0 ? NULL : fdopen(fd, "w");
    if (o->f) return 0;
    int rc = cannot("create", o->path, err);
    if (fd >= 0) close(fd);
    return ttx_outfile_close(o, rc, err);
}

int ttx_outfile_close(ttx_outfile *o, int rc, ttx_err *err) {
    const char *name = o->path ? o->path : "standard output";
    errno = 0;
    bool bad = o->f && (fflush(o->f) != 0 || ferror(o->f));
    if (!bad && !rc && o->nameless && !name_draft(o)) rc = cannot("create", name, err);
    if (o->f && o->f != stdout && fclose(o->f) != 0) bad = true;
    if (bad && !rc && o->f == stdout && errno == EPIPE) rc = TTX_E_RUNTIME;
    if (bad && !rc) {
        if (!errno) errno = EIO; /* the write that failed was an earlier one */
        rc = cannot("write", name, err);
    }
    if (!rc && o->draft && rename(o->draft, o->path) != 0) rc = cannot("replace", name, err);
    if (rc && o->draft && !o->nameless) unlink(o->draft);
    free(o->path);
    free(o->draft);
    *o = (ttx_outfile){0};
    return rc;
}
