/* export_json.c -- Chrome's trace events, and speedscope's evented profile.
 *
 * Sources: "Trace Event Format" (the Chromium project); speedscope's file-format-schema.json.
 */
#include "export_int.h"

/* ---- Chrome ---- */

enum { PID = 1, TID_COMPUTE = 1, TID_TOKENS = 2, TID_WRITER = 3, TID_FAULTS = 4, TID_IO = 100 };

static void event(exporter *x, const char *name, const char *ph, int tid, uint64_t ns) {
    out_str(x->o, x->rows++ ? ",\n{\"name\":" : "\n{\"name\":");
    out_json(x->o, name);
    out_str(x->o, ",\"ph\":\"");
    out_str(x->o, ph);
    out_str(x->o, "\",\"pid\":1,\"tid\":");
    out_u64(x->o, (uint64_t)tid);
    out_str(x->o, ",\"ts\":");
    out_us(x->o, ns);
}

static void lasting(exporter *x, uint64_t ns) {
    out_str(x->o, ",\"dur\":");
    out_us(x->o, ns);
    out_str(x->o, ",\"args\":{");
}

static void argument(exporter *x, const char *name, uint64_t v, bool last) {
    out_json(x->o, name);
    out_char(x->o, ':');
    out_u64(x->o, v);
    out_str(x->o, last ? "}}" : ",");
}

static void thread_name(exporter *x, int tid, const char *name) {
    event(x, "thread_name", "M", tid, 0);
    out_str(x->o, ",\"args\":{\"name\":");
    out_json(x->o, name);
    out_str(x->o, "}}");
}

static bool chrome_begin(exporter *x) {
    out_str(x->o, "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[");
    thread_name(x, TID_COMPUTE, "compute");
    thread_name(x, TID_TOKENS, "tokens");
    thread_name(x, TID_WRITER, "trace writer");
    thread_name(x, TID_FAULTS, "page faults");
    return true;
}

static void chrome_launch(exporter *x) {
    char name[300];
    launch_name(x, name, sizeof name);
    event(x, name, "X", TID_COMPUTE, x->first.timestamp_ns);
    lasting(x, launch_ns(x));
    if (x->first.layer_id != TTX_REC_NO_LAYER) argument(x, "layer", x->first.layer_id, false);
    if (x->first.token_id != TTX_REC_NO_TOKEN) argument(x, "token", x->first.token_id, false);
    argument(x, "n_tokens", x->first.n_tokens, false);
    argument(x, "operands", x->launch_records, false);
    argument(x, "bytes", x->launch_bytes, true);
}

static bool chrome_record(exporter *x, const ttx_record *r) {
    const ttx_trace_tensor *d = tensor_of(x, r);
    const char *op = ttx_rec_op_name(r->kind, r->operation_type);
    if (r->kind == TTX_REC_IO) {
        event(x, d ? d->name : "read", "X", TID_IO + export_lane(x, r), r->timestamp_ns);
        out_str(x->o, ",\"cat\":");
        out_json(x->o, op ? op : "?");
        lasting(x, r->duration_ns);
        argument(x, "offset", r->file_offset, false);
        argument(x, "bytes", r->size_bytes, true);
    } else if (r->kind == TTX_REC_FAULT) {
        event(x, d ? d->name : "fault", "i", TID_FAULTS, r->timestamp_ns);
        out_str(x->o, ",\"s\":\"t\",\"args\":{");
        argument(x, "offset", r->file_offset, false);
        argument(x, "major", r->operation_type == TTX_FAULT_MAJOR, true);
    } else if (r->kind == TTX_REC_TOKEN && r->n_tokens == 1) {
        event(x, ttx_phase_name(r->phase), "X", TID_TOKENS, r->timestamp_ns);
        lasting(x, r->end_ns - r->timestamp_ns);
        argument(x, "position", r->token_id, false);
        argument(x, "vocab_id", r->vocab_id, true);
        event(x, "bytes read", "C", 0, r->end_ns);
        out_str(x->o, ",\"args\":{");
        argument(x, "bytes", x->bytes, true);
    }
    return true;
}

static void chrome_block(exporter *x) {
    event(x, "block written", "i", TID_WRITER, x->block_ns);
    out_str(x->o, ",\"s\":\"t\",\"args\":{");
    argument(x, "records", x->block_records, true);
}

static void chrome_end(exporter *x) {
    for (int i = 0; i < x->lanes; i++) thread_name(x, TID_IO + i, "I/O");
    out_str(x->o, "\n]}\n");
}

const export_ops export_chrome = {.begin = chrome_begin,
                                  .record = chrome_record,
                                  .launch = chrome_launch,
                                  .block = chrome_block,
                                  .end = chrome_end};

/* ---- speedscope ----
 * Frames: operations, then layers, then phases. A token holds layers, a layer operations. */

static uint64_t layer_frame(const exporter *x, uint16_t layer) {
    return TTX_OP_COUNT + (layer == TTX_REC_NO_LAYER ? x->m->model.n_layer : layer);
}

static void scope_event(exporter *x, const char *type, uint64_t frame, uint64_t ns) {
    out_str(x->o, x->rows++ ? ",\n{\"type\":\"" : "\n{\"type\":\"");
    out_str(x->o, type);
    out_str(x->o, "\",\"frame\":");
    out_u64(x->o, frame);
    out_str(x->o, ",\"at\":");
    out_u64(x->o, ns);
    out_char(x->o, '}');
}

static bool scope_begin(exporter *x) {
    out_str(x->o, "{\"$schema\":\"https://www.speedscope.app/file-format-schema.json\","
                  "\"exporter\":\"ttx\",\"shared\":{\"frames\":[");
    for (int op = 0; op < TTX_OP_COUNT; op++) {
        out_str(x->o, op ? ",{\"name\":" : "{\"name\":");
        out_json(x->o, ttx_op_name((ttx_op_kind)op));
        out_char(x->o, '}');
    }
    for (uint32_t il = 0; il <= x->m->model.n_layer; il++) {
        char name[32];
        snprintf(name, sizeof name, "layer %u", il);
        out_str(x->o, ",{\"name\":");
        out_json(x->o, il < x->m->model.n_layer ? name : "outside the layers");
        out_char(x->o, '}');
    }
    for (uint32_t p = 0; p < TTX_PHASE_COUNT; p++) {
        out_str(x->o, ",{\"name\":");
        out_json(x->o, ttx_phase_name(p));
        out_char(x->o, '}');
    }
    out_str(x->o, "]},\"profiles\":[{\"type\":\"evented\",\"name\":\"compute\",\"unit\":"
                  "\"nanoseconds\",\"startValue\":0,\"events\":[");
    return true;
}

static uint64_t phase_frame(const exporter *x, uint32_t phase) {
    return TTX_OP_COUNT + x->m->model.n_layer + 1 + phase;
}

static void scope_close(exporter *x, bool batch, uint64_t ns) {
    if (x->in_layer) scope_event(x, "C", layer_frame(x, x->layer), ns);
    x->in_layer = false;
    if (batch && x->in_batch) scope_event(x, "C", x->frame, ns);
    if (batch) x->in_batch = false;
}

static void scope_launch(exporter *x) {
    /* Events must not go back: a launch begins where the one before has ended, or later. */
    uint64_t from = x->first.timestamp_ns > x->ended_ns ? x->first.timestamp_ns : x->ended_ns;
    uint64_t to = x->first.timestamp_ns + launch_ns(x);
    uint16_t layer = x->first.layer_id < x->m->model.n_layer ? x->first.layer_id : TTX_REC_NO_LAYER;
    uint8_t op = x->first.operation_type < TTX_OP_COUNT ? x->first.operation_type : 0;
    if (to < from) to = from;
    if (x->in_layer && layer != x->layer) scope_close(x, false, from);
    if (!x->in_batch) {
        x->frame = phase_frame(x, x->first.phase == TTX_PHASE_GENERATE);
        scope_event(x, "O", x->frame, from);
    }
    if (!x->in_layer) scope_event(x, "O", layer_frame(x, layer), from);
    x->in_batch = x->in_layer = true;
    x->layer = layer;
    scope_event(x, "O", op, from);
    scope_event(x, "C", op, to);
    x->ended_ns = to;
}

static bool scope_record(exporter *x, const ttx_record *r) {
    if (r->kind == TTX_REC_TOKEN || r->kind == TTX_REC_RESTART) scope_close(x, true, x->ended_ns);
    return true;
}

static void scope_end(exporter *x) {
    scope_close(x, true, x->ended_ns);
    out_str(x->o, "\n],\"endValue\":");
    out_u64(x->o, x->ended_ns);
    out_str(x->o, "}]}\n");
}

const export_ops export_speedscope = {
    .begin = scope_begin, .record = scope_record, .launch = scope_launch, .end = scope_end};
