/* mem_group.c -- see mem_group.h. Source: the kernel's cgroup-v1/memory.rst and cgroup-v2.rst. */
#include "mem_group.h"

#include "budget.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char v1_root[] = "/sys/fs/cgroup/memory", v2_root[] = "/sys/fs/cgroup";

static bool write_file(const char *dir, const char *name, const char *text) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "we");
    if (!f) return false;
    bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok;
}

static bool make_group(const char *parent, bool v2, uint64_t limit, char *dir, size_t size) {
    char text[32];
    int n = snprintf(dir, size, "%s/ttx-bench-%d", parent, (int)getpid());
    if (n < 0 || (size_t)n >= size || mkdir(dir, 0755)) return false;
    snprintf(text, sizeof text, "%llu", (unsigned long long)limit);
    if (write_file(dir, v2 ? "memory.max" : "memory.limit_in_bytes", text)) {
        /* Without swap a limit of memory is one; with it, it would not be. */
        write_file(dir, v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes", v2 ? "0" : text);
        return true;
    }
    rmdir(dir);
    return false;
}

/* Below our own group, or below each of its ancestors. */
static bool find_place(bool v2, uint64_t limit, char *dir, size_t size) {
    char group[512], parent[768];
    if (!ttx_memory_group(v2, group, sizeof group)) return false;
    for (;;) {
        snprintf(parent, sizeof parent, "%s%s", v2 ? v2_root : v1_root, group);
        if (make_group(parent, v2, limit, dir, size)) return true;
        char *slash = strrchr(group, '/');
        if (!slash) return false;
        *slash = 0;
    }
}

int mem_group_enter(uint64_t limit, int *exit_code, ttx_err *err) {
    char dir[900], pid[16];
    int status = 0;
    *exit_code = -1;
    if (!find_place(false, limit, dir, sizeof dir) && !find_place(true, limit, dir, sizeof dir))
        return ttx_fail(err, TTX_E_RUNTIME,
                        "--mem-limit: expected the right to make a memory cgroup, found none (as "
                        "root it works; or: systemd-run --user --scope -p MemoryMax=SIZE ttx ...)");
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        if (write_file(dir, "cgroup.procs", pid)) return TTX_OK;
        return ttx_fail(err, TTX_E_RUNTIME, "--mem-limit: %s: cannot enter: %s", dir,
                        strerror(errno));
    }
    if (child > 0) {
        struct sigaction old, ignore = {.sa_handler = SIG_IGN}; /* Ctrl-C is the child's */
        sigaction(SIGINT, &ignore, &old);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
        }
        sigaction(SIGINT, &old, NULL);
        *exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : TTX_E_RUNTIME;
    }
    write_file(dir, "memory.force_empty", "0"); /* v1: else its page cache keeps it alive */
    rmdir(dir);
    if (child < 0)
        return ttx_fail(err, TTX_E_RUNTIME, "--mem-limit: cannot start a process: %s",
                        strerror(errno));
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        return ttx_fail(err, TTX_E_RUNTIME,
                        "--mem-limit: killed, which the kernel does when memory is short");
    return TTX_OK;
}

uint64_t mem_group_peak(void) {
    char group[512], path[800];
    unsigned long long peak = 0;
    for (int v2 = 0; v2 < 2; v2++) {
        if (!ttx_memory_group(v2, group, sizeof group) || !strstr(group, "/ttx-bench-")) continue;
        snprintf(path, sizeof path, "%s%s/%s", v2 ? v2_root : v1_root, group,
                 v2 ? "memory.peak" : "memory.max_usage_in_bytes");
        FILE *f = fopen(path, "re");
        if (!f) continue;
        if (fscanf(f, "%llu", &peak) != 1) peak = 0;
        fclose(f);
        if (peak) return peak;
    }
    return 0;
}
