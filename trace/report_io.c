/* report_io.c -- reads and page faults: whose bytes, how long, and how often the same again. */
#include "report_int.h"

#include <math.h>
#include <stdlib.h>

enum { PAGE_LOG = 12, MAX_WORDS = 1 << 22 };

int rp_io_init(ttx_report *r, ttx_err *err) {
    rp_io *io = &r->io;
    io->granule = PAGE_LOG;
    while ((r->file_bytes >> io->granule) / 64 >= MAX_WORDS) io->granule++;
    io->n_word = (size_t)((r->file_bytes >> io->granule) / 64 + 2);
    io->touched = calloc(io->n_word, sizeof *io->touched);
    io->read = calloc(io->n_word, sizeof *io->read);
    if (!io->touched || !io->read) return ttx_fail_nomem(err, "pages of the file", io->n_word * 16);
    return TTX_OK;
}

/* Sets the bits of a range. */
static void mark(const rp_io *io, uint64_t *bits, uint64_t at, uint64_t size) {
    if (!size) return;
    uint64_t first = at >> io->granule, last = (at + size - 1) >> io->granule;
    if (last >= io->n_word * 64) last = io->n_word * 64 - 1;
    for (uint64_t w = first / 64; w <= last / 64; w++) {
        uint64_t mask = ~0ull;
        if (w == first / 64) mask &= ~0ull << first % 64;
        if (w == last / 64) mask &= ~0ull >> (63 - last % 64);
        bits[w] |= mask;
    }
}

uint64_t rp_io_distinct(const rp_io *io, const uint64_t *bits, uint64_t at, uint64_t size) {
    if (!size) return 0;
    uint64_t first = at >> io->granule, last = (at + size - 1) >> io->granule, n = 0;
    if (last >= io->n_word * 64) last = io->n_word * 64 - 1;
    for (uint64_t w = first / 64; w <= last / 64; w++) {
        uint64_t mask = ~0ull;
        if (w == first / 64) mask &= ~0ull << first % 64;
        if (w == last / 64) mask &= ~0ull >> (63 - last % 64);
        n += (uint64_t)__builtin_popcountll(bits[w] & mask);
    }
    return n << io->granule;
}

void rp_io_touch(ttx_report *r, const rp_access *a) {
    rp_object *o = &r->objects[a->object];
    if (o->touched) return;
    mark(&r->io, r->io.touched, a->at, a->size);
    o->touched = a->whole;
}

static uint32_t latency_bucket(uint64_t ns) {
    if (ns < 4) return (uint32_t)ns;
    uint32_t log = 63 - (uint32_t)__builtin_clzll(ns);
    return (log - 1) * 4 + (uint32_t)(ns >> (log - 2) & 3);
}

double rp_io_latency(const rp_io *io, double share) {
    uint64_t all = 0, sum = 0;
    for (int i = 0; i < RP_LATENCIES; i++) all += io->latency[i];
    for (uint32_t i = 0; i < RP_LATENCIES && all; i++) {
        sum += io->latency[i];
        if ((double)sum >= share * (double)all)
            return i < 4 ? i : ldexp(4 + i % 4 + 1, (int)(i / 4) - 1) - 1;
    }
    return 0;
}

/* The object that a read or fault is about, by what the record says or by its place. */
static rp_object *object_at(ttx_report *r, uint32_t tensor, uint16_t expert, bool placed,
                            uint64_t at) {
    if (tensor >= r->meta.n_file_tensor && placed) tensor = rp_tensor_at(r, at);
    if (tensor >= r->meta.n_file_tensor) return NULL;
    const ttx_trace_tensor *t = &r->meta.tensors[tensor];
    uint64_t begin;
    if (expert == TTX_REC_NO_EXPERT && t->expert_bytes && placed &&
        rp_place(r, t->shard, t->offset, &begin) && at >= begin &&
        (at - begin) / t->expert_bytes < t->n_expert)
        expert = (uint16_t)((at - begin) / t->expert_bytes);
    return &r->objects[rp_object_of(r, tensor, expert)];
}

void rp_io_read(ttx_report *r, const ttx_record *rec) {
    rp_io *io = &r->io;
    uint64_t at = 0, size = rec->size_bytes;
    bool placed = rp_place(r, rec->shard, rec->file_offset, &at);
    if (placed && size > r->file_bytes - at) size = r->file_bytes - at; /* the last page's rest */
    if (rec->operation_type < TTX_IO_CAUSE_COUNT) {
        rp_count *c = &io->cause[rec->operation_type];
        c->n++;
        c->bytes += rec->size_bytes;
        c->ns += rec->duration_ns;
    } else {
        r->out_of_range++;
    }
    io->latency[latency_bucket(rec->duration_ns)]++;
    rp_object *o = object_at(r, rec->tensor_idx, rec->expert_id, placed, at);
    if (o) {
        o->reads++;
        o->read_bytes += rec->size_bytes;
        o->read_ns += rec->duration_ns;
    } else {
        io->unplaced++;
        io->unplaced_bytes += rec->size_bytes;
    }
    if (!placed) return;
    mark(io, io->read, at, size);
    rp_map_read(&r->map, rec->timestamp_ns, at, size);
}

void rp_io_fault(ttx_report *r, const ttx_record *rec) {
    uint64_t at = 0;
    bool placed = rp_place(r, rec->shard, rec->file_offset, &at);
    bool major = rec->operation_type == TTX_FAULT_MAJOR;
    r->io.minor += !major;
    r->io.major += major;
    rp_object *o = object_at(r, rec->tensor_idx, rec->expert_id, placed, at);
    if (o) {
        o->minor += !major;
        o->major += major;
    } else {
        r->io.faults_unplaced++;
    }
    if (placed) rp_map_fault(&r->map, rec->timestamp_ns, at, major);
}

/* Where ttx asked for nothing itself, what devices read is what the map shows. */
void rp_io_device(ttx_report *r, uint64_t ns, uint64_t at, uint64_t size) {
    rp_io *io = &r->io;
    if (!io->device) io->device = calloc(io->n_word, sizeof *io->device);
    io->devices.n++;
    io->devices.bytes += size;
    rp_object *o = object_at(r, TTX_REC_NO_TENSOR, TTX_REC_NO_EXPERT, true, at);
    if (o) {
        o->device_reads++;
        o->device_bytes += size;
    } else {
        io->device_unplaced += size;
    }
    if (io->device) mark(io, io->device, at, size);
    if (ns <= r->map.last_ns && !r->kinds[TTX_REC_IO]) rp_map_read(&r->map, ns, at, size);
}
