/* export_int.h -- what the exporters share: a buffer of text, and a trace cut into launches.
 */
#ifndef TTX_EXPORT_INT_H
#define TTX_EXPORT_INT_H

#include "export.h"
#include "route.h"
#include "trace_file.h"

#include <string.h>

enum { OUT_BYTES = 1 << 16, OUT_SPARE = 1024 };

/* Text on its way to a file. */
typedef struct out_buf {
    FILE *f;
    size_t n;
    char b[OUT_BYTES];
} out_buf;

void out_flush(out_buf *o);
static inline void out_char(out_buf *o, char c) {
    o->b[o->n++] = c;
    if (o->n > OUT_BYTES - OUT_SPARE) out_flush(o);
}
void out_bytes(out_buf *o, const void *s, size_t n);
static inline void out_str(out_buf *o, const char *s) {
    out_bytes(o, s, strlen(s));
}
void out_u64(out_buf *o, uint64_t v);
void out_f32(out_buf *o, float v);    /* the shortest that reads back the same */
void out_us(out_buf *o, uint64_t ns); /* nanoseconds as microseconds: "12.345" */
/* A JSON string, quotes included; "?" for NULL. */
void out_json(out_buf *o, const char *s);

/* The weights of the layer that is being read, for rows that name an expert of one token. */
typedef struct route_memory {
    uint16_t layer;
    size_t n, cap;
    ttx_record *v;
} route_memory;

/* False without memory. */
bool routes_take(route_memory *m, const ttx_record *r);
/* NaN if it is not known. */
float routes_weight(const route_memory *m, const ttx_record *r);

/* One exporter: called for every record in order; launches are its own affair. */
typedef struct exporter {
    const ttx_trace_meta *m;
    out_buf *o;
    bool all_kinds, jsonl;
    route_memory routes;
    uint64_t rows;
    /* The launch that is being gathered. */
    ttx_record first;
    bool open;
    uint64_t long_ns, launch_bytes, launch_records;
    uint64_t block_ns, block_records;      /* of the block that is being read */
    uint64_t bytes, faults, reads, tokens; /* so far */
    uint64_t lane_end[64];                 /* reads overlap: when each lane is free */
    int lanes;
    /* What is open, in formats that nest. */
    uint16_t layer;
    uint64_t batch, frame;
    bool in_layer, in_batch;
    uint64_t ended_ns; /* the launch before */
} exporter;

typedef struct export_ops {
    bool (*begin)(exporter *x);
    /* False: no memory. */
    bool (*record)(exporter *x, const ttx_record *r);
    /* A launch with all its records seen: x->first, launch_bytes, launch_records, launch_ns(). */
    void (*launch)(exporter *x);
    void (*block)(exporter *x);
    void (*end)(exporter *x);
} export_ops;

static inline uint64_t launch_ns(const exporter *x) {
    return x->long_ns ? x->long_ns : x->first.duration_ns;
}

/* The tensor of a record; NULL: none. */
static inline const ttx_trace_tensor *tensor_of(const exporter *x, const ttx_record *r) {
    bool has = r->kind != TTX_REC_TOKEN && r->tensor_idx < x->m->n_tensor;
    return has ? &x->m->tensors[r->tensor_idx] : NULL;
}

/* The lane of a read: one that is free when it begins. */
int export_lane(exporter *x, const ttx_record *r);

/* "MUL_MAT blk.0.attn_q.weight" */
void launch_name(const exporter *x, char *name, size_t size);

extern const export_ops export_table, export_chrome, export_speedscope, export_perfetto;

#endif
