/* budget.c -- see budget.h. Sources: proc(5), the kernel's cgroup-v1/memory.rst and cgroup-v2.rst.
 */
#include "budget.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The number after `key` in a file of "key value" lines. */
static bool read_key(const char *path, const char *key, uint64_t *v) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    char line[256];
    bool found = false;
    size_t n = strlen(key);
    while (!found && fgets(line, sizeof line, f)) {
        unsigned long long x;
        if (strncmp(line, key, n) == 0 && sscanf(line + n, "%*[: \t]%llu", &x) == 1) {
            *v = x;
            found = true;
        }
    }
    fclose(f);
    return found;
}

static bool read_number(const char *path, uint64_t *v) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    unsigned long long x;
    bool ok = fscanf(f, "%llu", &x) == 1; /* "max" is no number: no limit */
    fclose(f);
    if (ok) *v = x;
    return ok;
}

/* The path of our group below its controller's mount: the third field of /proc/self/cgroup. */
static bool own_group(bool v2, char *path, size_t size) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return false;
    char line[512];
    bool found = false;
    while (!found && fgets(line, sizeof line, f)) {
        char *controllers = strchr(line, ':');
        char *group = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        bool match = v2 ? controllers[1] == 0 : strcmp(controllers + 1, "memory") == 0;
        if (!match) continue;
        group[strcspn(group, "\n")] = 0;
        snprintf(path, size, "%s", group);
        found = true;
    }
    fclose(f);
    return found;
}

/* What a group may still use: limit - (usage - reclaimable page cache). */
static void apply_group(const char *dir, const char *limit, const char *usage, const char *cache,
                        uint64_t *available) {
    char path[1024];
    uint64_t max, used, file = 0;
    snprintf(path, sizeof path, "%s/%s", dir, limit);
    if (!read_number(path, &max)) return;
    snprintf(path, sizeof path, "%s/%s", dir, usage);
    if (!read_number(path, &used)) return;
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    read_key(path, cache, &file);
    used -= file < used ? file : used;
    uint64_t left = max > used ? max - used : 0;
    if (left < *available) *available = left;
}

/* Every ancestor's limit counts. */
static void apply_hierarchy(const char *root, char *group, const char *limit, const char *usage,
                            const char *cache, uint64_t *available) {
    char dir[768];
    for (;;) {
        snprintf(dir, sizeof dir, "%s%s", root, strcmp(group, "/") == 0 ? "" : group);
        apply_group(dir, limit, usage, cache, available);
        char *slash = strrchr(group, '/');
        if (!slash || !*group) return;
        *slash = 0;
    }
}

uint64_t ttx_memory_available(void) {
    uint64_t kib = 0, available = UINT64_MAX;
    if (read_key("/proc/meminfo", "MemAvailable", &kib)) available = kib * 1024;
    char group[512];
    if (own_group(false, group, sizeof group))
        apply_hierarchy("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes",
                        "memory.usage_in_bytes", "total_cache", &available);
    if (own_group(true, group, sizeof group))
        apply_hierarchy("/sys/fs/cgroup", group, "memory.max", "memory.current", "file",
                        &available);
    return available == UINT64_MAX ? 0 : available;
}
