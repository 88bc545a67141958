/* report_side.c -- what stands in files beside the records: the sums of a trace of level stats, and
 * the reads of block devices that `ttx trace import-blktrace` joined.
 */
#include "report_int.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 1 << 12, FIELDS = 4 };

/* Calls row() for each line behind the first. A file that is not there has none: *found is false.
 */
static int read_rows(ttx_report *r, const char *name, bool *found,
                     bool (*row)(ttx_report *r, char *line), ttx_err *err) {
    char *path = ttx_trace_path(&r->meta, name), line[LINE];
    FILE *f = path ? fopen(path, "re") : NULL;
    int rc = path ? TTX_OK : ttx_fail_nomem(err, "path", 0);
    *found = f != NULL;
    for (unsigned long n = 1; !rc && f && fgets(line, sizeof line, f); n++) {
        if (n == 1) continue; /* names of columns */
        if (!strchr(line, '\n') || !row(r, line))
            rc = ttx_fail(err, TTX_E_RUNTIME, "%s: line %lu: expected the columns of %s", path, n,
                          name);
    }
    if (f) fclose(f);
    free(path);
    return rc;
}

/* A number up to a comma, or to the end of the line; moves behind it. */
static bool number(char **s, uint64_t *v) {
    char *end;
    errno = 0;
    if (**s < '0' || **s > '9') return false;
    *v = strtoull(*s, &end, 10);
    if (errno || *v >> 62 || (*end != ',' && *end != '\n')) return false;
    *s = end + 1;
    return true;
}

/* ---- level stats ---- */

/* idx,name,accesses,bytes; a line without idx and name: operations without a tensor. */
static bool stats_row(ttx_report *r, char *line) {
    uint64_t tensor = TTX_REC_NO_TENSOR, v[2];
    char *s = line;
    if (*s != ',' && !number(&s, &tensor)) return false;
    for (int back = 0; back < 2; back++) { /* a name may hold commas: the last two fields count */
        char *comma = strrchr(line, ',');
        if (!comma) return false;
        s = comma + 1;
        if (!number(&s, &v[back])) return false;
        strcpy(comma, "\n");
    }
    if (tensor >= r->meta.n_tensor && tensor != TTX_REC_NO_TENSOR) return false;
    if (!v[1]) return true;
    uint32_t at = rp_cube_row(r, (uint32_t)tensor, TTX_REC_NO_LAYER, RP_OP_OTHER, 1);
    rp_row *row = &r->cube.rows[at];
    row->records += v[1];
    row->accesses += v[1];
    row->bytes += v[0];
    r->accesses += v[1];
    r->bytes += v[0];
    /* Nobody knows which token took what. */
    uint32_t n = r->cube.n_token ? (uint32_t)r->cube.n_token : 1;
    rp_cube_add(&r->cube, at, 0, n, 0, v[0], 0);
    if (tensor >= r->meta.n_file_tensor) return true;
    r->file_bytes_read += v[0];
    rp_object *o = &r->objects[rp_object_of(r, (uint32_t)tensor, TTX_REC_NO_EXPERT)];
    if (o->expert != TTX_REC_NO_EXPERT) return true; /* which of its experts is not on record */
    o->accesses += v[1];
    o->bytes += v[0];
    return true;
}

/* ---- block devices ---- */

/* time_ns,shard,file_offset,size_bytes, and more that the place says too. */
static bool block_row(ttx_report *r, char *line) {
    uint64_t v[FIELDS], at;
    char *s = line;
    bool before = *s == '-'; /* the run */
    s += before;
    for (int i = 0; i < FIELDS; i++)
        if (!number(&s, &v[i])) return false;
    if (v[1] >= TTX_REC_NO_SHARD || !rp_place(r, (uint8_t)v[1], v[2], &at)) return false;
    uint64_t size = v[3] < r->file_bytes - at ? v[3] : r->file_bytes - at;
    rp_io_device(r, before ? UINT64_MAX : v[0], at, size);
    return true;
}

int rp_side_load(ttx_report *r, ttx_err *err) {
    bool found;
    int rc = TTX_OK;
    if (r->meta.level == TTX_LEVEL_STATS) {
        rc = read_rows(r, "tensor_stats.csv", &found, stats_row, err);
        if (!rc && !r->warning[0])
            snprintf(r->warning, sizeof r->warning, "%s",
                     found ? "recorded at level stats: sums of the whole run, nothing about order, "
                             "phases, heads or experts"
                           : "tensor_stats.csv is missing: nothing is known about tensors");
    }
    if (!rc) rc = read_rows(r, "block_reads.csv", &found, block_row, err);
    return rc;
}
