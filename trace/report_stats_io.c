/* report_stats_io.c -- statistics.json: where the bytes were, reads, faults, experts. */
#include "report_int.h"

#include <stdlib.h>

void rp_put_layer_io(const ttx_report *r, rp_json *j, uint32_t layer) {
    uint64_t reads = 0, bytes = 0, ns = 0, minor = 0, major = 0, distinct = 0, device_reads = 0,
             device_bytes = 0, device_distinct = 0;
    for (uint32_t i = 0; i < r->n_object; i++) {
        const rp_object *o = &r->objects[i];
        uint32_t at = r->meta.tensors[o->tensor].layer;
        if ((at < r->n_layer ? at : r->n_layer) != layer) continue;
        reads += o->reads;
        bytes += o->read_bytes;
        ns += o->read_ns;
        device_reads += o->device_reads;
        device_bytes += o->device_bytes;
        minor += o->minor;
        major += o->major;
    }
    for (uint32_t i = 0; bytes + device_bytes && i < r->meta.n_file_tensor; i++) {
        const ttx_trace_tensor *t = &r->meta.tensors[i];
        if ((t->layer < r->n_layer ? t->layer : r->n_layer) != layer) continue;
        uint64_t at = r->shard_at[t->shard] + t->offset;
        distinct += rp_io_distinct(&r->io, r->io.read, at, t->size);
        if (r->io.device) device_distinct += rp_io_distinct(&r->io, r->io.device, at, t->size);
    }
    rp_u64(j, "reads", reads);
    rp_u64(j, "read_bytes", bytes);
    rp_u64(j, "read_ns", ns);
    rp_num(j, "reread_factor", rp_ratio((double)bytes, (double)distinct));
    rp_u64(j, "device_reads", device_reads);
    rp_u64(j, "device_bytes", device_bytes);
    rp_num(j, "device_reread_factor", rp_ratio((double)device_bytes, (double)device_distinct));
    rp_u64(j, "minor_faults", minor);
    rp_u64(j, "major_faults", major);
}

/* ---- experts ---- */

enum {
    EXP_ACCESSES,
    EXP_BYTES,
    EXP_READS,
    EXP_READ_BYTES,
    EXP_READ_DISTINCT,
    EXP_DEVICE_BYTES,
    EXP_DEVICE_DISTINCT,
    EXP_FAULTS,
    EXP_MISSED,
    EXP_WHAT
};

static uint64_t object_value(const ttx_report *r, const rp_object *o, int what) {
    const ttx_trace_tensor *t = &r->meta.tensors[o->tensor];
    uint64_t at = r->shard_at[t->shard] + t->offset;
    if (o->expert != TTX_REC_NO_EXPERT) at += o->expert * t->expert_bytes;
    switch (what) {
    case EXP_ACCESSES: return o->accesses;
    case EXP_BYTES: return o->bytes;
    case EXP_READS: return o->reads;
    case EXP_READ_BYTES: return o->read_bytes;
    case EXP_READ_DISTINCT: return o->reads ? rp_io_distinct(&r->io, r->io.read, at, o->size) : 0;
    case EXP_DEVICE_BYTES: return o->device_bytes;
    case EXP_DEVICE_DISTINCT:
        return r->io.device ? rp_io_distinct(&r->io, r->io.device, at, o->size) : 0;
    case EXP_FAULTS: return o->minor + o->major;
    default: return o->residency[TTX_RES_LATE] + o->residency[TTX_RES_MISSED];
    }
}

uint16_t rp_expert_of(const ttx_report *r, const rp_object *o) {
    return o->expert != TTX_REC_NO_EXPERT ? o->expert : r->meta.tensors[o->tensor].expert;
}

void rp_put_experts(const ttx_report *r, rp_json *j) {
    static const char *const names[EXP_WHAT] = {"accesses",
                                                "bytes",
                                                "reads",
                                                "read_bytes",
                                                "read_distinct_bytes",
                                                "device_bytes",
                                                "device_distinct_bytes",
                                                "faults",
                                                "late_or_missed"};
    uint32_t n_expert = r->routes.n_expert;
    if (!n_expert) return;
    size_t n = (size_t)(r->n_layer + 1) * n_expert;
    uint64_t *sums = calloc(n * EXP_WHAT, sizeof *sums);
    for (uint32_t i = 0; sums && i < r->n_object; i++) {
        const rp_object *o = &r->objects[i];
        uint32_t layer = r->meta.tensors[o->tensor].layer, e = rp_expert_of(r, o);
        if (e >= n_expert || layer >= r->n_layer) continue;
        for (int k = 0; k < EXP_WHAT; k++)
            sums[n * (size_t)k + (size_t)layer * n_expert + e] += object_value(r, o, k);
    }
    rp_begin(j, "experts", '[');
    for (uint32_t l = 0; sums && l < r->n_layer; l++) {
        if (!r->routes.routed[2 * l] && !r->routes.routed[2 * l + 1]) continue;
        rp_begin(j, NULL, '{');
        rp_u64(j, "layer_id", l);
        for (int k = 0; k < EXP_WHAT; k++) {
            const uint64_t *v = sums + n * (size_t)k + (size_t)l * n_expert;
            rp_begin(j, names[k], '[');
            for (uint32_t e = 0; e < n_expert; e++) rp_u64(j, NULL, v[e]);
            rp_end(j, ']');
        }
        rp_end(j, '}');
    }
    rp_end(j, ']');
    free(sums);
}

/* ---- reads, faults ---- */

static void put_residency(const ttx_report *r, rp_json *j) {
    rp_count sum[TTX_RES_COUNT] = {0};
    for (uint32_t i = 0; i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        for (uint32_t k = 0; w->tensor < r->meta.n_file_tensor && k < TTX_RES_COUNT; k++) {
            sum[k].n += w->residency[k].n;
            sum[k].bytes += w->residency[k].bytes;
        }
    }
    rp_begin(j, "residency", '{');
    for (uint32_t k = 0; k < TTX_RES_COUNT; k++) {
        rp_begin(j, k ? ttx_residency_name(k) : "unknown", '{');
        rp_u64(j, "accesses", sum[k].n);
        rp_u64(j, "bytes", sum[k].bytes);
        rp_end(j, '}');
    }
    rp_end(j, '}');
}

static void put_reads(const ttx_report *r, rp_json *j) {
    const rp_io *io = &r->io;
    uint64_t n = 0, bytes = 0;
    rp_begin(j, "io", '{');
    rp_begin(j, "causes", '[');
    for (uint32_t k = 0; k < TTX_IO_CAUSE_COUNT; k++) {
        n += io->cause[k].n;
        bytes += io->cause[k].bytes;
        rp_begin(j, NULL, '{');
        rp_text(j, "cause", ttx_rec_op_name(TTX_REC_IO, k));
        rp_u64(j, "reads", io->cause[k].n);
        rp_u64(j, "bytes", io->cause[k].bytes);
        rp_u64(j, "ns", io->cause[k].ns);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    uint64_t distinct = rp_io_distinct(io, io->read, 0, r->file_bytes);
    rp_u64(j, "reads", n);
    rp_u64(j, "bytes", bytes);
    rp_u64(j, "distinct_bytes", distinct);
    rp_num(j, "reread_factor", rp_ratio((double)bytes, (double)distinct));
    rp_u64(j, "granule", 1ull << io->granule);
    rp_u64(j, "outside_tensors", io->unplaced);
    rp_u64(j, "outside_tensors_bytes", io->unplaced_bytes);
    rp_num(j, "latency_p50_ns", rp_io_latency(io, 0.5));
    rp_num(j, "latency_p90_ns", rp_io_latency(io, 0.9));
    rp_num(j, "latency_p99_ns", rp_io_latency(io, 0.99));
    uint64_t device_distinct = io->device ? rp_io_distinct(io, io->device, 0, r->file_bytes) : 0;
    rp_begin(j, "device", '{');
    rp_u64(j, "reads", io->devices.n);
    rp_u64(j, "bytes", io->devices.bytes);
    rp_u64(j, "distinct_bytes", device_distinct);
    rp_num(j, "reread_factor", rp_ratio((double)io->devices.bytes, (double)device_distinct));
    rp_u64(j, "outside_tensors_bytes", io->device_unplaced);
    rp_end(j, '}');
    rp_begin(j, "latency", '[');
    for (int i = 0; i < RP_LATENCIES; i++) rp_u64(j, NULL, io->latency[i]);
    rp_end(j, ']');
    rp_end(j, '}');
    rp_begin(j, "faults", '{');
    rp_u64(j, "minor", io->minor);
    rp_u64(j, "major", io->major);
    rp_u64(j, "outside_tensors", io->faults_unplaced);
    rp_end(j, '}');
}

void rp_put_io(const ttx_report *r, rp_json *j) {
    put_residency(r, j);
    put_reads(r, j);
}
