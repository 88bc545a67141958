/* block_join.c -- see block_join.h. Sources: blkparse(1), Documentation/trace/events of the kernel,
 * Documentation/filesystems/fiemap of the kernel.
 */
#include "block_join.h"

#include <cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { SECTOR = 512, MAX_EXTENTS = 1 << 16, MAX_SHARDS = 255 };

/* A run of a file's bytes on its device. */
struct extent {
    uint64_t physical, logical, n;
    uint32_t device; /* major << 20 | minor, of the whole disk if it is known */
    uint8_t shard;
};

struct map {
    struct extent *v; /* by device and place */
    size_t n, cap;
};

/* ---- where the model lies ---- */

/* The disk that a partition is part of, and the bytes before it. */
static uint32_t disk_of(dev_t dev, uint64_t *start) {
    char path[64];
    unsigned ma = major(dev), mi = minor(dev);
    unsigned long long sectors = 0;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/start", ma, mi);
    FILE *f = fopen(path, "re");
    bool part = f && fscanf(f, "%llu", &sectors) == 1;
    if (f) fclose(f);
    *start = sectors * SECTOR;
    if (!part) return ma << 20 | mi;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/../dev", ma, mi);
    f = fopen(path, "re");
    if (f && fscanf(f, "%u:%u", &ma, &mi) != 2) ma = major(dev), mi = minor(dev);
    if (f) fclose(f);
    return ma << 20 | mi;
}

static bool add_extent(struct map *m, struct extent e) {
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        struct extent *v = cap > MAX_EXTENTS ? NULL : realloc(m->v, cap * sizeof *v);
        if (!v) return false;
        m->v = v;
        m->cap = cap;
    }
    m->v[m->n++] = e;
    return true;
}

static int map_file(struct map *m, const char *path, uint8_t shard, ttx_err *err) {
    enum { EACH = 128 };
    struct stat st = {0};
    uint64_t at = 0, start = 0;
    bool last = false;
    struct fiemap *f = calloc(1, sizeof *f + EACH * sizeof(struct fiemap_extent));
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = TTX_OK;
    if (!f) rc = ttx_fail_nomem(err, "extents", EACH * sizeof(struct fiemap_extent));
    if (!rc && (fd < 0 || fstat(fd, &st)))
        rc = ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", path, strerror(errno));
    uint32_t device = rc ? 0 : disk_of(st.st_dev, &start);
    while (!rc && !last) {
        *f = (struct fiemap){.fm_start = at, .fm_length = UINT64_MAX - at, .fm_extent_count = EACH};
        if (ioctl(fd, FS_IOC_FIEMAP, f)) {
            rc = ttx_fail(err, TTX_E_RUNTIME, "%s: its places on the disk are unknown: %s", path,
                          strerror(errno));
            break;
        }
        last = f->fm_mapped_extents == 0;
        for (uint32_t i = 0; i < f->fm_mapped_extents && !rc; i++) {
            const struct fiemap_extent *e = &f->fm_extents[i];
            at = e->fe_logical + e->fe_length;
            last = last || e->fe_flags & FIEMAP_EXTENT_LAST;
            uint64_t size = (uint64_t)st.st_size, n = e->fe_length;
            if (e->fe_flags & (FIEMAP_EXTENT_UNKNOWN | FIEMAP_EXTENT_ENCODED)) continue;
            if (e->fe_logical >= size) continue; /* blocks behind the end */
            if (n > size - e->fe_logical) n = size - e->fe_logical;
            struct extent x = {e->fe_physical + start, e->fe_logical, n, device, shard};
            if (!add_extent(m, x)) rc = ttx_fail_nomem(err, "extents", m->n * sizeof x);
        }
    }
    if (fd >= 0) close(fd);
    free(f);
    return rc;
}

static int by_place(const void *a, const void *b) {
    const struct extent *x = a, *y = b;
    if (x->device != y->device) return x->device < y->device ? -1 : 1;
    return (x->physical > y->physical) - (x->physical < y->physical);
}

static int map_model(struct map *map, const ttx_trace_meta *m, ttx_err *err) {
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(m->json, "shards"), *o;
    int shard = 0, rc = TTX_OK;
    cJSON_ArrayForEach(o, list) {
        const cJSON *path = cJSON_GetObjectItemCaseSensitive(o, "path");
        if (!cJSON_IsString(path) || shard == MAX_SHARDS)
            rc = ttx_fail(err, TTX_E_RUNTIME, "%s: shard %d: expected a path", m->dir, shard);
        if (!rc) rc = map_file(map, path->valuestring, (uint8_t)shard++, err);
        if (rc) return rc;
    }
    if (!map->n)
        return ttx_fail(err, TTX_E_RUNTIME, "%s: expected files of the model, found none", m->dir);
    qsort(map->v, map->n, sizeof *map->v, by_place);
    return TTX_OK;
}

/* ---- lines ---- */

struct read {
    uint32_t device;
    uint64_t sector, n_sectors;
    double s; /* seconds, of the file's clock */
    bool monotonic;
};

/* "8,0  3  11  0.009507758  697  C  R 223490 + 56 [0]": requests as they end. (A request may be
 * issued more than once, when the device is busy.) */
static bool parse_blkparse(const char *line, struct read *r) {
    unsigned ma, mi;
    char action[8], rwbs[16];
    unsigned long long sector, n;
    if (sscanf(line, " %u,%u %*u %*u %lf %*u %7s %15s %llu + %llu", &ma, &mi, &r->s, action, rwbs,
               &sector, &n) != 7)
        return false;
    *r = (struct read){ma << 20 | mi, sector, n, r->s, false};
    return strcmp(action, "C") == 0 && rwbs[0] == 'R';
}

/* "cat-697 [003] d..1. 1234.567890: block_rq_complete: 8,0 R () 223490 + 56 [0]", with or without
 * what newer kernels put before the last field. */
static bool parse_ftrace(const char *line, struct read *r) {
    const char *event = strstr(line, ": block_rq_complete: ");
    unsigned ma, mi;
    char rwbs[16];
    unsigned long long sector, n;
    int used = 0;
    if (!event) return false;
    const char *at = event;
    while (at > line && at[-1] != ' ') at--;
    const char *paren = strchr(event, ')');
    if (sscanf(at, "%lf", &r->s) != 1 || !paren ||
        sscanf(event, ": block_rq_complete: %u,%u %15s%n", &ma, &mi, rwbs, &used) != 3 ||
        sscanf(paren, ") %llu + %llu", &sector, &n) != 2)
        return false;
    *r = (struct read){ma << 20 | mi, sector, n, r->s, true};
    return rwbs[0] == 'R';
}

/* ---- joining ---- */

struct join {
    const ttx_trace_meta *m;
    struct map map;
    double start_s, monotonic_s; /* blkparse's start after ours; ours on CLOCK_MONOTONIC */
    FILE *out;
    uint64_t *by_tensor;
    ttx_block_summary *s;
};

static const ttx_trace_tensor *tensor_at(const ttx_trace_meta *m, uint8_t shard, uint64_t at,
                                         uint32_t *index) {
    for (*index = 0; *index < m->n_file_tensor; ++*index) {
        const ttx_trace_tensor *d = &m->tensors[*index];
        if (d->shard == shard && at >= d->offset && at - d->offset < d->size) return d;
    }
    return NULL;
}

/* Where the next tensor of the shard begins after `at`. */
static uint64_t next_tensor(const ttx_trace_meta *m, uint8_t shard, uint64_t at) {
    uint64_t next = UINT64_MAX;
    for (uint32_t i = 0; i < m->n_file_tensor; i++)
        if (m->tensors[i].shard == shard && m->tensors[i].offset > at &&
            m->tensors[i].offset < next)
            next = m->tensors[i].offset;
    return next;
}

/* The expert that holds a byte of a tensor of experts; *end: where it ends. */
static unsigned expert_at(const ttx_trace_tensor *d, uint64_t at, uint64_t *end) {
    uint64_t i = (at - d->offset) / d->expert_bytes, next = d->offset + (i + 1) * d->expert_bytes;
    if (next < *end) *end = next;
    return d->expert != TTX_REC_NO_EXPERT ? d->expert : (unsigned)i;
}

/* A piece of a read that lies in one extent: cut at the borders of tensors and experts. */
static void join_piece(struct join *j, const struct extent *e, uint64_t at, uint64_t n, double s) {
    while (n) {
        uint32_t i;
        const ttx_trace_tensor *d = tensor_at(j->m, e->shard, at, &i);
        uint64_t end = d ? d->offset + d->size : next_tensor(j->m, e->shard, at);
        bool experts = d && d->expert_bytes;
        unsigned expert = experts ? expert_at(d, at, &end) : 0;
        uint64_t part = n < end - at ? n : end - at;
        j->s->model_bytes += part;
        if (d) j->s->tensor_bytes += part;
        if (d) j->by_tensor[i] += part;
        fprintf(j->out, "%.0f,%u,%llu,%llu,%s,", s * 1e9, e->shard, (unsigned long long)at,
                (unsigned long long)part, d ? d->name : "");
        if (d && d->layer != TTX_REC_NO_LAYER) fprintf(j->out, "%u", d->layer);
        fputc(',', j->out);
        if (experts) fprintf(j->out, "%u", expert);
        fputc('\n', j->out);
        at += part;
        n -= part;
    }
}

static void join_read(struct join *j, const struct read *r) {
    uint64_t from = r->sector * SECTOR, to = from + r->n_sectors * SECTOR;
    double s = r->monotonic ? r->s - j->monotonic_s : r->s + j->start_s;
    double end = j->m->complete ? j->m->duration_s : 1e18;
    if (s < 0 || s > end || to < from) return; /* not of this run */
    j->s->reads++;
    j->s->bytes += to - from;
    for (size_t i = 0; i < j->map.n; i++) {
        const struct extent *e = &j->map.v[i];
        uint64_t a = from > e->physical ? from : e->physical;
        uint64_t b = to < e->physical + e->n ? to : e->physical + e->n;
        if (e->device == r->device && a < b)
            join_piece(j, e, e->logical + (a - e->physical), b - a, s);
    }
}

int ttx_block_join(const ttx_trace_meta *m, const char *path, double start_s, FILE *out,
                   uint64_t *by_tensor, ttx_block_summary *s, ttx_err *err) {
    struct join j = {.m = m, .start_s = start_s, .out = out, .by_tensor = by_tensor, .s = s};
    const cJSON *clock = cJSON_GetObjectItemCaseSensitive(m->json, "clock");
    const cJSON *start = cJSON_GetObjectItemCaseSensitive(clock, "start_monotonic_ns");
    char *line = NULL;
    size_t cap = 0;
    *s = (ttx_block_summary){0};
    j.monotonic_s = cJSON_IsNumber(start) ? start->valuedouble * 1e-9 : 0;
    FILE *f = fopen(path, "re");
    int rc = f ? map_model(&j.map, m, err)
               : ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", path, strerror(errno));
    fputs("time_ns,shard,file_offset,size_bytes,tensor_name,layer_id,expert_id\n", out);
    while (!rc && getline(&line, &cap, f) > 0) {
        struct read r = {0};
        s->lines++;
        if (parse_blkparse(line, &r) || parse_ftrace(line, &r))
            join_read(&j, &r);
        else
            s->skipped++;
    }
    if (!rc && s->lines == s->skipped)
        rc = ttx_fail(
            err, TTX_E_RUNTIME,
            "%s: expected blkparse's lines or block_rq_complete events of reads, found none", path);
    if (f) fclose(f);
    free(line);
    free(j.map.v);
    return rc;
}
