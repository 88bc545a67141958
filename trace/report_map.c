/* report_map.c -- the model file over time: where accesses, reads and faults fell, and how much of
 * everything there was in each bin of time.
 *
 * An access that covers many bins costs as much as one that covers two: bins that it covers wholly
 * are counted by where the cover begins and ends.
 */
#include "report_int.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = RP_OFFSETS + 1, FIRST_SHIFT = 10 };

int rp_map_init(rp_map *m, uint64_t bytes, ttx_err *err) {
    size_t n = (size_t)RP_TIMES * LINE;
    m->shift = FIRST_SHIFT;
    m->bytes = bytes ? bytes : 1;
    m->per_byte = (double)RP_OFFSETS / (double)m->bytes;
    m->times = calloc(RP_TIMES, sizeof *m->times);
    m->inner = calloc(n, sizeof *m->inner);
    m->edge = calloc(n, sizeof *m->edge);
    m->faults = calloc(n, sizeof *m->faults);
    m->reads = calloc(n, sizeof *m->reads);
    if (!m->times || !m->inner || !m->edge || !m->faults || !m->reads)
        return ttx_fail_nomem(err, "map of the file", n * 16);
    for (int i = 0; i < RP_TIMES; i++) m->times[i].first = UINT32_MAX;
    return TTX_OK;
}

void rp_map_free(rp_map *m) {
    free(m->times);
    free(m->inner);
    free(m->edge);
    free(m->faults);
    free(m->reads);
}

static void merge_times(rp_time *to, const rp_time *from) {
    to->launches += from->launches;
    to->busy_ns += from->busy_ns;
    to->stall_ns += from->stall_ns;
    to->bytes += from->bytes;
    to->reads += from->reads;
    to->read_bytes += from->read_bytes;
    to->minor += from->minor;
    to->major += from->major;
    to->tokens += from->tokens;
    if (from->first < to->first) to->first = from->first;
    if (from->last > to->last) to->last = from->last;
}

static void merge_lines(rp_map *m, size_t to, size_t from) {
    for (int i = 0; i < LINE; i++) {
        m->inner[to + i] += m->inner[from + i];
        m->edge[to + i] += m->edge[from + i];
        m->faults[to + i] += m->faults[from + i];
        m->reads[to + i] += m->reads[from + i];
    }
    memset(m->inner + from, 0, LINE * sizeof *m->inner);
    memset(m->edge + from, 0, LINE * sizeof *m->edge);
    memset(m->faults + from, 0, LINE * sizeof *m->faults);
    memset(m->reads + from, 0, LINE * sizeof *m->reads);
}

static void widen(rp_map *m) {
    for (size_t t = 1; t < RP_TIMES; t++) {
        merge_lines(m, t / 2 * LINE, t * LINE);
        merge_times(&m->times[t / 2], &m->times[t]);
        m->times[t] = (rp_time){.first = UINT32_MAX};
    }
    m->shift++;
}

rp_time *rp_map_time(rp_map *m, uint64_t ns) {
    if (ns > m->last_ns) {
        m->last_ns = ns;
        while (ns >> m->shift >= RP_TIMES) widen(m);
    }
    return &m->times[ns >> m->shift];
}

static uint32_t bin_of(const rp_map *m, uint64_t at) {
    double b = (double)at * m->per_byte;
    return b < RP_OFFSETS - 1 ? (uint32_t)b : RP_OFFSETS - 1;
}

static double bin_begin(const rp_map *m, uint32_t bin) {
    return bin / m->per_byte;
}

void rp_map_access(rp_map *m, const rp_access *a) {
    rp_time *t = rp_map_time(m, a->time_ns);
    t->bytes += a->size;
    if (a->token != TTX_REC_NO_TOKEN) {
        if (a->token < t->first) t->first = a->token;
        if (a->token >= t->last) t->last = a->token;
    }
    if (!a->size) return;
    size_t line = (a->time_ns >> m->shift) * LINE;
    uint32_t from = bin_of(m, a->at), last = bin_of(m, a->at + a->size - 1);
    if (from == last) {
        m->edge[line + from] += (float)a->size;
        return;
    }
    m->edge[line + from] += (float)(bin_begin(m, from + 1) - (double)a->at);
    m->edge[line + last] += (float)((double)(a->at + a->size) - bin_begin(m, last));
    m->inner[line + from + 1]++;
    m->inner[line + last]--;
}

void rp_map_read(rp_map *m, uint64_t ns, uint64_t at, uint64_t size) {
    rp_time *t = rp_map_time(m, ns);
    t->reads++;
    t->read_bytes += size;
    if (!size) return;
    size_t line = (ns >> m->shift) * LINE;
    uint32_t from = bin_of(m, at), last = bin_of(m, at + size - 1);
    for (uint32_t b = from; b <= last; b++)
        m->reads[line + b] += (float)((double)size / (last - from + 1));
}

void rp_map_fault(rp_map *m, uint64_t ns, uint64_t at, bool major) {
    rp_time *t = rp_map_time(m, ns);
    if (major)
        t->major++;
    else
        t->minor++;
    m->faults[(ns >> m->shift) * LINE + bin_of(m, at)]++;
}

void rp_map_line(const rp_map *m, uint32_t t, double *out) {
    size_t line = (size_t)t * LINE;
    int64_t cover = 0;
    for (uint32_t b = 0; b < RP_OFFSETS; b++) {
        cover += m->inner[line + b];
        out[b] = (double)cover / m->per_byte + (double)m->edge[line + b];
    }
}
