/* budget.c -- see budget.h. Sources: proc(5), the kernel's cgroup-v1/memory.rst and cgroup-v2.rst.
 */
#include "budget.h"

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

/* The third field of /proc/self/cgroup. */
bool ttx_memory_group(bool v2, char *path, size_t size) {
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
        snprintf(path, size, "%s", strcmp(group, "/") == 0 ? "" : group);
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

/* What a version of cgroups calls things. */
typedef struct group_names {
    bool v2;
    const char *root, *limit, *usage, *cache;
} group_names;

static const group_names versions[] = {
    {false, "/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
     "total_cache"},
    {true, "/sys/fs/cgroup", "memory.max", "memory.current", "file"},
};

/* Every ancestor's limit counts. */
static void apply_hierarchy(const group_names *v, bool limit_alone, uint64_t *left) {
    char dir[768], path[1024], group[512];
    if (!ttx_memory_group(v->v2, group, sizeof group)) return;
    for (;;) {
        uint64_t max;
        snprintf(dir, sizeof dir, "%s%s", v->root, group);
        snprintf(path, sizeof path, "%s/%s", dir, v->limit);
        if (!limit_alone)
            apply_group(dir, v->limit, v->usage, v->cache, left);
        else if (read_number(path, &max) && max < *left)
            *left = max;
        char *slash = strrchr(group, '/');
        if (!slash) return;
        *slash = 0;
    }
}

uint64_t ttx_memory_available(void) {
    uint64_t kib = 0, available = UINT64_MAX;
    if (read_key("/proc/meminfo", "MemAvailable", &kib)) available = kib * 1024;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        apply_hierarchy(&versions[i], false, &available);
    return available == UINT64_MAX ? 0 : available;
}

uint64_t ttx_memory_limit(void) {
    uint64_t limit = UINT64_MAX;
    for (size_t i = 0; i < sizeof versions / sizeof *versions; i++)
        apply_hierarchy(&versions[i], true, &limit);
    return limit;
}
