/* export_perfetto.c -- Perfetto's protobuf, by an encoder of the dozen fields that a trace needs.
 *
 * Tracks: compute launches, tokens, layers, reads in lanes, page faults, the trace's writer;
 * counters: bytes read, faults, tokens a second. Names are interned, so that a launch costs some 60
 * bytes. Source of the field numbers: protos/perfetto/trace/ of the Perfetto project.
 */
#include "export_int.h"

enum {
    /* Trace */
    TRACE_PACKET = 1,
    /* TracePacket */
    PACKET_TIMESTAMP = 8,
    PACKET_SEQUENCE = 10,
    PACKET_EVENT = 11,
    PACKET_INTERNED = 12,
    PACKET_FLAGS = 13,
    PACKET_TRACK = 60,
    /* TrackDescriptor */
    TRACK_UUID = 1,
    TRACK_NAME = 2,
    TRACK_PROCESS = 3,
    TRACK_THREAD = 4,
    TRACK_PARENT = 5,
    TRACK_COUNTER = 8,
    /* ProcessDescriptor, ThreadDescriptor, CounterDescriptor */
    PROCESS_PID = 1,
    PROCESS_NAME = 6,
    THREAD_PID = 1,
    THREAD_TID = 2,
    THREAD_NAME = 5,
    COUNTER_UNIT = 3,
    UNIT_COUNT = 2,
    UNIT_BYTES = 3,
    /* TrackEvent */
    EVENT_CATEGORY = 3,
    EVENT_ARGUMENT = 4,
    EVENT_TYPE = 9,
    EVENT_NAME = 10,
    EVENT_TRACK = 11,
    EVENT_COUNT = 30,
    EVENT_REAL_COUNT = 44,
    TYPE_BEGIN = 1,
    TYPE_END = 2,
    TYPE_INSTANT = 3,
    TYPE_COUNTER = 4,
    /* DebugAnnotation */
    ARG_NAME = 1,
    ARG_UINT = 3,
    ARG_STRING = 6,
    /* InternedData: categories, event names, argument names; each {iid = 1, name = 2} */
    INTERN_CATEGORY = 1,
    INTERN_NAME = 2,
    INTERN_ARG = 3,
    /* sequence_flags */
    FLAG_CLEARED = 1,
    FLAG_NEEDS_STATE = 2,
};

/* Our tracks; lanes of reads come after. */
enum {
    T_PROCESS = 1,
    T_COMPUTE,
    T_TOKENS,
    T_LAYERS,
    T_FAULTS,
    T_WRITER,
    T_BYTES,
    T_NFAULTS,
    T_TPS,
    T_LANE
};

/* Names of events: operations and tensors have theirs by number. */
enum { N_PROMPT = 1, N_GENERATE, N_FAULT, N_BLOCK, N_READ, N_OP, N_TENSOR = N_OP + TTX_OP_COUNT };

enum {
    A_LAYER = 1,
    A_TOKEN,
    A_TOKENS,
    A_BYTES,
    A_OPERANDS,
    A_OFFSET,
    A_TENSOR,
    A_VOCAB,
    A_RECORDS,
    A_CAUSE,
    A_MAJOR
};
static const char *const arg_names[] = {
    [A_LAYER] = "layer",   [A_TOKEN] = "token",       [A_TOKENS] = "n_tokens",
    [A_BYTES] = "bytes",   [A_OPERANDS] = "operands", [A_OFFSET] = "file_offset",
    [A_TENSOR] = "tensor", [A_VOCAB] = "vocab_id",    [A_RECORDS] = "records",
    [A_CAUSE] = "cause",   [A_MAJOR] = "major",
};

/* ---- protobuf ---- */

/* A message being made; one that does not fit is cut, which no message here comes near. */
typedef struct msg {
    size_t n;
    uint8_t b[1200];
} msg;

static void put_varint(msg *m, uint64_t v) {
    do {
        if (m->n == sizeof m->b) return;
        m->b[m->n++] = (uint8_t)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        v >>= 7;
    } while (v);
}

static void put_u64(msg *m, uint32_t field, uint64_t v) {
    put_varint(m, field << 3);
    put_varint(m, v);
}

static void put_bytes(msg *m, uint32_t field, const void *s, size_t n) {
    if (n > sizeof m->b - m->n - 16) return;
    put_varint(m, field << 3 | 2);
    put_varint(m, n);
    memcpy(m->b + m->n, s, n);
    m->n += n;
}

static void put_msg(msg *m, uint32_t field, const msg *in) {
    put_bytes(m, field, in->b, in->n);
}

static void put_str(msg *m, uint32_t field, const char *s) {
    put_bytes(m, field, s, strlen(s));
}

static void put_double(msg *m, uint32_t field, double v) {
    put_varint(m, field << 3 | 1);
    if (m->n + 8 > sizeof m->b) return;
    memcpy(m->b + m->n, &v, 8);
    m->n += 8;
}

/* A packet into the file. */
static void write_packet(exporter *x, msg *packet) {
    msg head = {0};
    put_u64(packet, PACKET_SEQUENCE, 1);
    put_varint(&head, TRACE_PACKET << 3 | 2);
    put_varint(&head, packet->n);
    out_bytes(x->o, head.b, head.n);
    out_bytes(x->o, packet->b, packet->n);
}

/* ---- tracks and names ---- */

static void write_track(exporter *x, uint64_t uuid, const char *name, uint64_t unit) {
    msg packet = {0}, track = {0}, counter = {0};
    put_u64(&track, TRACK_UUID, uuid);
    put_str(&track, TRACK_NAME, name);
    put_u64(&track, TRACK_PARENT, T_PROCESS);
    if (unit) {
        put_u64(&counter, COUNTER_UNIT, unit);
        put_msg(&track, TRACK_COUNTER, &counter);
    }
    put_msg(&packet, PACKET_TRACK, &track);
    write_packet(x, &packet);
}

static void write_process(exporter *x) {
    msg packet = {0}, track = {0}, process = {0};
    put_u64(&process, PROCESS_PID, 1);
    put_str(&process, PROCESS_NAME, "ttx");
    put_u64(&track, TRACK_UUID, T_PROCESS);
    put_msg(&track, TRACK_PROCESS, &process);
    put_msg(&packet, PACKET_TRACK, &track);
    write_packet(x, &packet);

    msg packet2 = {0}, track2 = {0}, thread = {0};
    put_u64(&thread, THREAD_PID, 1);
    put_u64(&thread, THREAD_TID, 1);
    put_str(&thread, THREAD_NAME, "compute");
    put_u64(&track2, TRACK_UUID, T_COMPUTE);
    put_msg(&track2, TRACK_THREAD, &thread);
    put_u64(&track2, TRACK_PARENT, T_PROCESS);
    put_msg(&packet2, PACKET_TRACK, &track2);
    write_packet(x, &packet2);
}

static void intern(exporter *x, uint32_t kind, uint64_t iid, const char *name, bool first) {
    msg packet = {0}, data = {0}, entry = {0};
    put_u64(&entry, 1, iid);
    put_bytes(&entry, 2, name, strnlen(name, 512));
    put_msg(&data, kind, &entry);
    put_msg(&packet, PACKET_INTERNED, &data);
    put_u64(&packet, PACKET_FLAGS, first ? FLAG_CLEARED : FLAG_NEEDS_STATE);
    write_packet(x, &packet);
}

/* Category of a launch: its tensor's component; iid: 1 + the first tensor that has it. */
static uint32_t category_of(const exporter *x, const ttx_trace_tensor *d) {
    uint32_t i = 0;
    while (strcmp(x->m->tensors[i].component, d->component) != 0) i++;
    return i + 1;
}

static bool begin(exporter *x) {
    const ttx_trace_meta *m = x->m;
    intern(x, INTERN_NAME, N_PROMPT, "PROMPT", true);
    intern(x, INTERN_NAME, N_GENERATE, "GENERATE", false);
    intern(x, INTERN_NAME, N_FAULT, "page fault", false);
    intern(x, INTERN_NAME, N_BLOCK, "block written", false);
    intern(x, INTERN_NAME, N_READ, "read", false);
    for (int i = 0; i < TTX_OP_COUNT; i++)
        intern(x, INTERN_NAME, (uint64_t)(N_OP + i), ttx_op_name((ttx_op_kind)i), false);
    for (uint32_t i = 0; i < m->n_tensor; i++) {
        intern(x, INTERN_NAME, N_TENSOR + i, m->tensors[i].name, false);
        if (category_of(x, &m->tensors[i]) == i + 1)
            intern(x, INTERN_CATEGORY, i + 1, m->tensors[i].component, false);
    }
    for (size_t i = 1; i < sizeof arg_names / sizeof *arg_names; i++)
        intern(x, INTERN_ARG, i, arg_names[i], false);
    write_process(x);
    write_track(x, T_TOKENS, "tokens", 0);
    write_track(x, T_LAYERS, "layers", 0);
    write_track(x, T_FAULTS, "page faults", 0);
    write_track(x, T_WRITER, "trace writer", 0);
    write_track(x, T_BYTES, "bytes read from the model", UNIT_BYTES);
    write_track(x, T_NFAULTS, "page faults so far", UNIT_COUNT);
    write_track(x, T_TPS, "tokens/s", UNIT_COUNT);
    return true;
}

/* ---- events ---- */

static void add_arg(msg *event, uint64_t name, uint64_t v) {
    msg arg = {0};
    put_u64(&arg, ARG_NAME, name);
    put_u64(&arg, ARG_UINT, v);
    put_msg(event, EVENT_ARGUMENT, &arg);
}

static void add_text(msg *event, uint64_t name, const char *text) {
    msg arg = {0};
    put_u64(&arg, ARG_NAME, name);
    put_bytes(&arg, ARG_STRING, text, strnlen(text, 256));
    put_msg(event, EVENT_ARGUMENT, &arg);
}

static void write_event(exporter *x, const msg *event, uint64_t ns) {
    msg packet = {0};
    put_u64(&packet, PACKET_TIMESTAMP, ns);
    put_u64(&packet, PACKET_FLAGS, FLAG_NEEDS_STATE);
    put_msg(&packet, PACKET_EVENT, event);
    write_packet(x, &packet);
}

static msg make_event(uint64_t type, uint64_t track, uint64_t name) {
    msg e = {0};
    put_u64(&e, EVENT_TYPE, type);
    put_u64(&e, EVENT_TRACK, track);
    if (name) put_u64(&e, EVENT_NAME, name);
    return e;
}

static void write_end(exporter *x, uint64_t track, uint64_t ns) {
    msg e = make_event(TYPE_END, track, 0);
    write_event(x, &e, ns);
}

static void write_counter(exporter *x, uint64_t track, uint64_t ns, uint64_t v) {
    msg e = make_event(TYPE_COUNTER, track, 0);
    put_u64(&e, EVENT_COUNT, v);
    write_event(x, &e, ns);
}

static void close_layer(exporter *x) {
    if (x->in_layer) write_end(x, T_LAYERS, x->ended_ns);
    x->in_layer = false;
}

static void layer_of(exporter *x, const ttx_record *r) {
    if (x->in_layer && r->layer_id == x->layer) return;
    close_layer(x);
    if (r->layer_id == TTX_REC_NO_LAYER) return;
    char name[24];
    snprintf(name, sizeof name, "layer %u", r->layer_id);
    msg e = make_event(TYPE_BEGIN, T_LAYERS, 0);
    put_str(&e, 23, name); /* TrackEvent.name: not interned */
    add_arg(&e, A_LAYER, r->layer_id);
    write_event(x, &e, r->timestamp_ns);
    x->layer = r->layer_id;
    x->in_layer = true;
}

static void launch(exporter *x) {
    const ttx_record *r = &x->first;
    const ttx_trace_tensor *d = tensor_of(x, r);
    uint64_t op = r->operation_type < TTX_OP_COUNT ? r->operation_type : 0;
    layer_of(x, r);
    msg e = make_event(TYPE_BEGIN, T_COMPUTE, N_OP + op);
    if (d) put_u64(&e, EVENT_CATEGORY, category_of(x, d));
    if (d) add_text(&e, A_TENSOR, d->name);
    if (r->layer_id != TTX_REC_NO_LAYER) add_arg(&e, A_LAYER, r->layer_id);
    if (r->token_id != TTX_REC_NO_TOKEN) add_arg(&e, A_TOKEN, r->token_id);
    add_arg(&e, A_TOKENS, r->n_tokens);
    add_arg(&e, A_OPERANDS, x->launch_records);
    add_arg(&e, A_BYTES, x->launch_bytes);
    write_event(x, &e, r->timestamp_ns);
    x->ended_ns = r->timestamp_ns + launch_ns(x);
    write_end(x, T_COMPUTE, x->ended_ns);
}

static void take_read(exporter *x, const ttx_record *r) {
    const ttx_trace_tensor *d = tensor_of(x, r);
    int known = x->lanes, lane = export_lane(x, r);
    if (x->lanes > known) write_track(x, T_LANE + (uint64_t)lane, "I/O", 0);
    msg e = make_event(TYPE_BEGIN, T_LANE + (uint64_t)lane,
                       d ? N_TENSOR + (uint64_t)r->tensor_idx : N_READ);
    const char *cause = ttx_rec_op_name(TTX_REC_IO, r->operation_type);
    add_text(&e, A_CAUSE, cause ? cause : "?");
    add_arg(&e, A_OFFSET, r->file_offset);
    add_arg(&e, A_BYTES, r->size_bytes);
    write_event(x, &e, r->timestamp_ns);
    write_end(x, T_LANE + (uint64_t)lane, r->timestamp_ns + r->duration_ns);
}

static void take_fault(exporter *x, const ttx_record *r) {
    const ttx_trace_tensor *d = tensor_of(x, r);
    msg e = make_event(TYPE_INSTANT, T_FAULTS, N_FAULT);
    if (d) add_text(&e, A_TENSOR, d->name);
    add_arg(&e, A_OFFSET, r->file_offset);
    add_arg(&e, A_MAJOR, r->operation_type == TTX_FAULT_MAJOR);
    write_event(x, &e, r->timestamp_ns);
    write_counter(x, T_NFAULTS, r->timestamp_ns, x->faults);
}

/* A batch is one slice, with its first token. */
static void take_token(exporter *x, const ttx_record *r) {
    close_layer(x);
    if (x->batch == r->batch && x->in_batch) return;
    x->batch = r->batch;
    x->in_batch = true;
    msg e =
        make_event(TYPE_BEGIN, T_TOKENS, r->phase == TTX_PHASE_GENERATE ? N_GENERATE : N_PROMPT);
    add_arg(&e, A_TOKEN, r->token_id);
    add_arg(&e, A_VOCAB, r->vocab_id);
    add_arg(&e, A_TOKENS, r->n_tokens);
    write_event(x, &e, r->timestamp_ns);
    write_end(x, T_TOKENS, r->end_ns);
    write_counter(x, T_BYTES, r->end_ns, x->bytes);
    msg rate = make_event(TYPE_COUNTER, T_TPS, 0);
    double ns = (double)(r->end_ns - r->timestamp_ns);
    put_double(&rate, EVENT_REAL_COUNT, ns > 0 ? r->n_tokens * 1e9 / ns : 0);
    write_event(x, &rate, r->end_ns);
}

static bool record(exporter *x, const ttx_record *r) {
    if (r->kind == TTX_REC_IO) take_read(x, r);
    if (r->kind == TTX_REC_FAULT) take_fault(x, r);
    if (r->kind == TTX_REC_TOKEN) take_token(x, r);
    return true;
}

static void block(exporter *x) {
    msg e = make_event(TYPE_INSTANT, T_WRITER, N_BLOCK);
    add_arg(&e, A_RECORDS, x->block_records);
    write_event(x, &e, x->block_ns);
}

const export_ops export_perfetto = {
    .begin = begin, .record = record, .launch = launch, .block = block, .end = close_layer};
