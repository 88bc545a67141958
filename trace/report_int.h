/* report_int.h -- what the files of the report share: the tables that one pass fills.
 *
 * Three views of the same accesses:
 *   records    as they stand in the trace, a projection split into its heads;
 *   accesses   the heads of a launch on one tensor put together again;
 *   objects    what accesses are about: a tensor of the file, or one expert of it.
 * Bins of tokens and of time have widths of powers of two and double when the run outgrows them.
 */
#ifndef TTX_REPORT_INT_H
#define TTX_REPORT_INT_H

#include "report.h"
#include "trace_file.h"
#include "trace_meta.h"

enum {
    RP_OPS = 16, /* of operations; the last: unknown */
    RP_OP_OTHER = RP_OPS - 1,
    RP_TIMES = 1024,   /* bins of time */
    RP_OFFSETS = 1024, /* bins of the file */
    RP_MAX_BINS = 256, /* of tokens; fewer where rows are many */
    RP_MAX_CELLS = 1 << 19,
    RP_MAX_ROWS = 1 << 16,
    RP_MAX_TENSORS = 1 << 18,
    RP_MAX_OBJECTS = 1 << 20,
    RP_MAX_LAYERS = 1024,
    RP_MAX_HEADS = 512,
    RP_MAX_EXPERTS = 4096,
    RP_WINDOW = 24576,  /* accesses that are kept event by event, of decode; of prompts a third */
    RP_BASE = 65536,    /* accesses of one token that are compared with others */
    RP_DISTANCES = 512, /* of reuse: 8 for each power of two */
    RP_LATENCIES = 256, /* of reads: 4 for each power of two of ns */
    RP_MAX_PENDING = 1 << 22,
    RP_MAX_FAVOURS = 1 << 23,
    RP_NEAR = 128 << 10, /* bytes: a gap up to which two accesses are sequential */
    RP_MAX_VOCAB = 1 << 22,
    RP_WORDS = 1 << 16,
    RP_TEXTS = 4096, /* tokens whose text the page shows */
    RP_NONE = -1,
};
#define RP_NO_OBJECT UINT32_MAX
#define RP_PART      (1u << 31)

typedef struct rp_count {
    uint64_t n, bytes, ns;
} rp_count;

/* What one operation does with one tensor (or, without a tensor, in one layer) in one phase. */
typedef struct rp_row {
    uint32_t tensor; /* TTX_REC_NO_TENSOR */
    uint16_t layer;
    uint8_t op, phase;
    uint64_t records, accesses, bytes, written, ns, stall_ns;
    rp_count residency[TTX_RES_COUNT]; /* of accesses */
} rp_row;

/* Rows over bins of tokens: record times tokens, bytes divided among the tokens, time likewise. */
typedef struct rp_cube {
    uint32_t *find; /* [n_tensor + layers + 1][RP_OPS][2]: row + 1 */
    size_t n_find;
    rp_row *rows;
    uint32_t n_row, cap;
    rp_count *cells; /* [n_bin][cap] */
    uint32_t n_bin, shift;
    uint64_t n_token; /* highest position + 1 */
    /* n: evaluated tokens; ns: their share of their batch; bytes: what devices read for it */
    rp_count tokens[RP_MAX_BINS];
} rp_cube;

/* A tensor of the file, or one expert of it. */
typedef struct rp_object {
    uint32_t tensor;
    uint16_t expert; /* TTX_REC_NO_EXPERT */
    bool touched;    /* all of its pages are marked */
    uint64_t size;
    uint64_t accesses, bytes, in_prompt; /* in_prompt: of the accesses */
    uint64_t residency[TTX_RES_COUNT];
    uint64_t reads, read_bytes, read_ns, minor, major;
    uint64_t device_reads, device_bytes; /* of block devices */
    uint32_t slot;                       /* of its last use + 1, see report_reuse.c */
    uint32_t next;                       /* what followed it last, + 1 */
} rp_object;

/* The heads of a launch on one tensor put together: a range of the model file. */
typedef struct rp_access {
    uint64_t time_ns, at, size; /* `at`: in the shards one after the other */
    uint32_t object, row, tensor, token, n_tokens;
    uint16_t layer, expert;
    uint8_t op, phase, residency;
    bool whole; /* of its object */
    bool guess; /* no part of the forward pass */
} rp_access;

/* One bin of time. */
typedef struct rp_time {
    uint64_t launches, busy_ns, stall_ns, bytes, reads, read_bytes, minor, major;
    uint64_t tokens;      /* that ended here */
    uint32_t first, last; /* positions of tokens; first > last: none */
} rp_time;

/* The file over time. */
typedef struct rp_map {
    uint32_t shift; /* a bin is 1 << shift ns */
    uint64_t last_ns;
    uint64_t bytes;  /* of the file */
    double per_byte; /* bins */
    rp_time *times;  /* [RP_TIMES] */
    int32_t *inner; /* [RP_TIMES][RP_OFFSETS + 1]: changes of how many accesses cover a whole bin */
    float *edge;    /* [RP_TIMES][RP_OFFSETS + 1]: bytes of accesses that cover a part of it */
    uint32_t *faults;
    float *reads;
} rp_map;

typedef struct rp_reuse {
    uint32_t n_slot, next;
    uint32_t *who; /* [n_slot]: object + 1 that was used there last */
    uint64_t *sum; /* [n_slot + 1]: Fenwick tree over bytes */
    uint64_t live; /* bytes of all objects that were used */
    uint64_t cold, cold_bytes;
    uint64_t n[RP_DISTANCES], bytes[RP_DISTANCES];
    double distance_sum;
    uint64_t hits_next, with_next; /* last successor was right; there was one */
    uint64_t sequential, sequential_bytes, jumps, gap_bytes, compared;
    uint64_t prev_end;
    uint32_t prev_object; /* + 1 */
    bool has_prev;
    uint64_t partial, partial_bytes; /* accesses of single rows: left out */
} rp_reuse;

/* The ordered accesses of decode tokens, compared with those of the first one. */
typedef struct rp_sequence {
    uint32_t token;
    uint8_t phase;
    bool open;
    uint64_t tensors, objects;             /* running hashes */
    uint64_t group_tensors, group_objects; /* of experts side by side: sums, so in any order */
    uint64_t base_tensors, base_objects;
    uint32_t length, n_base;
    uint64_t n_token, same_tensors, same_objects;
    uint64_t jumps, base_jumps;
    uint32_t *base; /* [RP_BASE] objects of the base token, in order; RP_PART: single rows of one */
} rp_sequence;

typedef struct rp_head {
    uint64_t n, bytes, written;
} rp_head;

typedef struct rp_heads {
    uint32_t n_layer, n_head; /* rows: layers, and one for what lies outside */
    rp_head *weights;         /* [n_layer][TTX_QKV_COUNT][n_head] */
    rp_head *cache;           /* [n_layer][2][n_head]: keys, values */
    uint64_t *queries;        /* [n_layer][n_head] */
} rp_heads;

typedef struct rp_favour {
    uint16_t layer, expert;
    uint32_t vocab, n;
} rp_favour;

typedef struct rp_pending {
    uint16_t layer, expert;
    uint32_t token, next; /* of the same layer and expert, + 1 */
} rp_pending;

typedef struct rp_routes {
    uint32_t n_layer, n_expert; /* 0: no experts */
    uint64_t *n, *decode;       /* [n_layer][n_expert] */
    double *weight, *score;
    uint64_t *routed; /* [n_layer]: routes, prompt and decode */
    uint64_t *first;  /* [n_layer][n_expert]: chosen with rank 0 */
    uint16_t *last;   /* [n_layer][32]: experts of the token before */
    uint32_t *last_n, *last_token, *now_n, *now_token, *now_decode;
    uint16_t *now;              /* [n_layer][32] */
    uint64_t *again, *again_of; /* [n_layer]: activations of decode that the token before had too */
    rp_pending *pending;
    size_t n_pending, cap_pending;
    uint64_t dropped;
    uint32_t *head; /* [n_expert]: pending routes of the current layer, + 1 */
    uint32_t head_layer;
    uint32_t *vocab; /* [cap_vocab]: of a position, + 1 */
    size_t cap_vocab;
    bool tokens_came; /* since the last route */
    rp_favour *favours;
    size_t n_favour, cap_favour;
} rp_routes;

typedef struct rp_io {
    rp_count cause[TTX_IO_CAUSE_COUNT];
    uint64_t latency[RP_LATENCIES];
    uint64_t unplaced, unplaced_bytes, minor, major, faults_unplaced;
    uint32_t granule; /* log2 of bytes a bit */
    size_t n_word;
    uint64_t *touched, *read; /* bits of the file */
    uint64_t *device;         /* the same of block devices; NULL: nothing was imported */
    rp_count devices;         /* their reads */
    uint64_t device_unplaced; /* bytes of them outside of tensors */
} rp_io;

/* The operands of the current launch: they share its time. */
typedef struct rp_launch {
    struct {
        uint32_t row, token, n;
        uint64_t bytes;
    } v[256];
    uint32_t n;
    uint64_t bytes, ns, stall_ns, long_ns, end_ns;
    uint16_t layer;
    bool waited; /* an operand was late or missed */
    uint32_t batch_token, batch_n;
} rp_launch;

typedef struct rp_window {
    rp_access *v;
    uint32_t n, cap;
} rp_window;

/* What tokens.csv says: texts of words, words of positions. */
typedef struct rp_texts {
    uint32_t *ids;      /* [RP_WORDS] words, hashed, + 1 */
    const char **texts; /* [RP_WORDS] */
    uint32_t n_word;
    uint32_t *positions; /* [RP_TEXTS] words + 1 */
    ttx_arena arena;
} rp_texts;

struct ttx_report {
    ttx_report_settings set;
    ttx_trace_meta meta;
    char warning[200];
    uint32_t n_layer; /* as tables have them */
    uint64_t shard_at[256], shard_size[256], file_bytes;
    uint32_t *object_of; /* [n_tensor]: its first object */
    rp_object *objects;
    uint32_t n_object;
    uint32_t *by_offset; /* [n_file_tensor]: tensors by their place */
    uint64_t *layer_gap; /* [n_layer + 1] ns before launches */
    uint64_t *layer_stall;
    rp_cube cube;
    rp_map map;
    rp_reuse reuse;
    rp_sequence seq;
    rp_heads heads;
    rp_routes routes;
    rp_io io;
    rp_texts texts;
    rp_launch launch;
    rp_access pending; /* being put together; row UINT32_MAX: none */
    rp_window decode, prompt;
    uint64_t kinds[256];
    uint64_t records, launches, accesses, bytes, file_bytes_read, out_of_range, lost;
    rp_count phases[2]; /* n: tokens, ns: of their batches, bytes: that devices read meanwhile */
    uint64_t last_batch;
    uint32_t last_key_row;
    uint64_t last_key;
};

/* ---- the pass, by what it fills ---- */

/* Takes the next n records; the end of the trace. */
void rp_scan(ttx_report *r, const ttx_record *v, size_t n);
void rp_scan_end(ttx_report *r);

int rp_cube_init(rp_cube *c, const ttx_report *r, ttx_err *err);
/* The row, made if it is new; memory that fails, or too many rows, give row 0. */
uint32_t rp_cube_row(ttx_report *r, uint32_t tensor, uint16_t layer, uint8_t op, uint8_t phase);
/* n tokens from `token` on share bytes and time; `times` records each. */
void rp_cube_add(rp_cube *c, uint32_t row, uint32_t token, uint32_t n, uint64_t times,
                 uint64_t bytes, uint64_t ns);
void rp_cube_token(rp_cube *c, uint32_t token, uint64_t ns, uint64_t device_bytes);

int rp_map_init(rp_map *m, uint64_t bytes, ttx_err *err);
void rp_map_free(rp_map *m);
/* The bin of a time. */
rp_time *rp_map_time(rp_map *m, uint64_t ns);
void rp_map_access(rp_map *m, const rp_access *a);
void rp_map_read(rp_map *m, uint64_t ns, uint64_t at, uint64_t size);
void rp_map_fault(rp_map *m, uint64_t ns, uint64_t at, bool major);
/* How many bytes accesses took in each bin of the file at time `t`: out[RP_OFFSETS]. */
void rp_map_line(const rp_map *m, uint32_t t, double *out);

int rp_reuse_init(ttx_report *r, ttx_err *err);
void rp_reuse_access(ttx_report *r, const rp_access *a);
void rp_sequence_access(ttx_report *r, const rp_access *a);
void rp_sequence_end(ttx_report *r); /* of a token */
/* Upper end of a bucket of distances. */
uint64_t rp_distance_of(uint32_t bucket);

int rp_routes_init(ttx_report *r, ttx_err *err);
void rp_routes_free(rp_routes *s);
void rp_routes_route(ttx_report *r, const ttx_record *rec);
void rp_routes_token(ttx_report *r, const ttx_record *rec);
void rp_routes_flush(ttx_report *r);
/* A sequence ends: what comes next has no token before it. */
void rp_routes_restart(rp_routes *s);
/* Adds an expert's bytes to the tokens that chose it, if they are known. */
bool rp_routes_spread(ttx_report *r, uint32_t row, const ttx_record *rec);

int rp_io_init(ttx_report *r, ttx_err *err);
void rp_io_read(ttx_report *r, const ttx_record *rec);
void rp_io_fault(ttx_report *r, const ttx_record *rec);
void rp_io_touch(ttx_report *r, const rp_access *a);
/* A read of a block device; ns UINT64_MAX: outside of the time of the run. */
void rp_io_device(ttx_report *r, uint64_t ns, uint64_t at, uint64_t size);
/* Bytes of bits that are set in [at, at + size). */
uint64_t rp_io_distinct(const rp_io *io, const uint64_t *bits, uint64_t at, uint64_t size);
/* Latency in ns below which a share of reads lies. */
double rp_io_latency(const rp_io *io, double share);

/* ---- afterwards ---- */

/* Where a record's range lies in the shards one after the other; false: nowhere. */
bool rp_place(const ttx_report *r, uint8_t shard, uint64_t offset, uint64_t *at);
/* The tensor that holds a place; TTX_REC_NO_TENSOR. */
uint32_t rp_tensor_at(const ttx_report *r, uint64_t at);
/* The object of a tensor's expert; RP_NO_OBJECT: no tensor of the file. */
uint32_t rp_object_of(const ttx_report *r, uint32_t tensor, uint16_t expert);
const char *rp_op_name(uint8_t op);

/* Sums over the objects, or rows, of each tensor. */
typedef struct rp_tensor_sum {
    uint32_t tensor;
    uint64_t records, accesses, bytes, written, ns, stall_ns, distinct;
    uint64_t reads, read_bytes, read_distinct, minor, major;
    uint64_t device_reads, device_bytes, device_distinct;
    uint64_t residency[TTX_RES_COUNT];
    int8_t heat; /* 1 hot, -1 cold, 0 neither */
    uint32_t rank;
} rp_tensor_sum;
/* One for each tensor of the table; the caller frees. *order: indexes from hot to cold of the
 * n_ranked tensors of the file; the caller frees. NULL without memory. */
rp_tensor_sum *rp_tensor_sums(const ttx_report *r, ttx_hot_by by, uint32_t **order,
                              uint32_t *n_ranked);

/* Objects in the order in which pinning pays, most accesses first; the caller frees. */
uint32_t *rp_pin_order(const ttx_report *r, uint32_t *n);
/* Pins objects in that order as far as they fit `bytes`; what does not fit is passed over. Returns
 * the bytes pinned; pinned[n] (may be NULL) tells which, *saved the bytes that need no read. */
uint64_t rp_pin(const ttx_report *r, const uint32_t *order, uint32_t n, uint64_t bytes,
                bool *pinned, uint64_t *saved);

/* Takes in tensor_stats.csv and block_reads.csv, when the records are read. Errors: TTX_E_RUNTIME:
 * a line that is none. */
int rp_side_load(ttx_report *r, ttx_err *err);

/* Reads tokens.csv, if there is one. Errors: memory. */
int rp_texts_load(ttx_report *r, ttx_err *err);
void rp_texts_free(rp_texts *t);
/* NULL: not known. */
const char *rp_text_of(const rp_texts *t, uint32_t vocab);

/* ---- pages ---- */

/* Everything before the data of a page, and behind it. */
typedef enum rp_page { RP_PAGE_RUN, RP_PAGE_COMPARE } rp_page;
void rp_page_begin(FILE *out, rp_page page);
void rp_page_end(FILE *out, rp_page page);

/* ---- JSON as it is written ---- */

typedef struct rp_json {
    FILE *f;
    bool comma;
} rp_json;
void rp_begin(rp_json *j, const char *name, char bracket);
void rp_end(rp_json *j, char bracket);
void rp_text(rp_json *j, const char *name, const char *text);
void rp_u64(rp_json *j, const char *name, uint64_t v);
void rp_num(rp_json *j, const char *name, double v);
void rp_bool(rp_json *j, const char *name, bool v);
/* A layer, head or expert: null where it is `none`. */
void rp_id(rp_json *j, const char *name, uint64_t v, uint64_t none);
double rp_ratio(double a, double b);

/* How pinned bytes, or an LRU cache of a size, would do. */
typedef struct rp_cache_point {
    double bytes, lru, lru_bytes, pinned; /* shares: of accesses, of their bytes, of their bytes */
} rp_cache_point;
enum { RP_CACHE_POINTS = 33 };
/* Sizes from none to all that was touched, in equal steps. False without memory. */
bool rp_cache_curve(const ttx_report *r, rp_cache_point v[RP_CACHE_POINTS]);
/* Where the curve bends most: the point farthest above the line from its first to its last. */
int rp_cache_knee(const rp_cache_point v[RP_CACHE_POINTS], bool pinned);

/* Parts of the statistics that the page leaves to its packed tables. */
void rp_statistics(const ttx_report *r, FILE *out, bool brief);
/* What the page of several runs needs of them. */
void rp_put_compared(const ttx_report *r, rp_json *j);
void rp_routes_json(const ttx_report *r, rp_json *j, bool brief);
void rp_put_io(const ttx_report *r, rp_json *j);
void rp_put_experts(const ttx_report *r, rp_json *j);
/* What objects, not rows, know about a layer; n_layer: outside of all. */
void rp_put_layer_io(const ttx_report *r, rp_json *j, uint32_t layer);
/* Which expert an object is, by its slice or by its tensor; TTX_REC_NO_EXPERT. */
uint16_t rp_expert_of(const ttx_report *r, const rp_object *o);

/* A word that an expert's tokens are more often than those of its layer's others. */
typedef struct rp_favoured {
    uint16_t layer, expert;
    uint32_t vocab, n;
    double part, lift; /* bits times n; times as often as by chance */
} rp_favoured;

/* Of all layers together, as shares. */
enum { RP_STRONGEST = 5 };
typedef struct rp_route_sum {
    double by_previous, by_frequency, by_chance; /* of the experts of decode tokens */
    double most_used; /* a layer's most used expert, of its activations */
    double entropy, specialisation;
    rp_favoured strongest[RP_STRONGEST]; /* the largest part first; n is 0 behind the last */
} rp_route_sum;
/* False without memory. All 0 without experts. */
bool rp_routes_sum(const ttx_report *r, rp_route_sum *sum);

#endif
