/* roofline.h -- where the time of a run goes: by operation and type, beside the machine's limits.
 *
 * Fed with the records of a trace, in their order. A launch that reads tensors of several types is
 * cut between them in proportion to their bytes. Everything up to the first RESTART is a warm-up
 * and is left out.
 */
#ifndef ROOFLINE_H
#define ROOFLINE_H

#include "bench_int.h"
#include "record.h"

enum { ROOFLINE_ROWS = 64 };

/* Launches of one operation on one type, in one phase. */
typedef struct roofline_row {
    ttx_op_kind op;
    const char *type; /* of the tensors; of attention: of the cache; "": reads activations alone */
    double launches, ns, bytes, ops;
    /* ns that its bytes and its operations would take at the machine's limits. */
    double read_ns, compute_ns;
} roofline_row;

typedef struct roofline_phase {
    roofline_row row[ROOFLINE_ROWS];
    int n;
    double tokens, ns; /* of whole batches; what no launch accounts for lies between them */
} roofline_phase;

typedef struct roofline {
    const ttx_model *model;
    ttx_limits limits;
    char cache_type[32];
    roofline_phase phase[TTX_PHASE_COUNT];
    bool started;
    uint64_t batch; /* of the last token; UINT64_MAX: none yet */
    /* The launch whose records are being read. */
    double launch_ns;
    int launch_rows[8];
    double launch_bytes[8];
    int n_launch;
    ttx_phase launch_phase;
} roofline;

/* `k_type`, `v_type`: names, of the cache. The model is borrowed. */
void roofline_begin(roofline *r, const ttx_model *m, const ttx_limits *lim, const char *k_type,
                    const char *v_type);
void roofline_add(roofline *r, const ttx_record *v, size_t n);
void roofline_end(roofline *r);
/* All of a trace directory. Errors: TTX_E_RUNTIME. */
int roofline_read(roofline *r, const char *trace_dir, ttx_err *err);

/* As Markdown. */
void roofline_print(const roofline *r, FILE *to);
/* As one JSON object. Errors: TTX_E_RUNTIME (no memory). */
int roofline_json(const roofline *r, FILE *to, ttx_err *err);

#endif
