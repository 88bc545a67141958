/* record.h -- one event of a trace, in the 64 bytes that it has in memory and on disk.
 *
 * A trace is one stream of these: accesses of operations to their operands, routes, reads, page
 * faults, tokens. The file that holds the stream (trace_file.h) is a row of 64-byte slots too, so
 * that it can be mapped as an array. docs/trace-format.md is the definition; this is its C form.
 *
 *      0        8        16       24       32   36   40   44   48 50 52 54 56       60     63
 *      |timestmp|tensor_p|file_off|size_byt|dura|toke|tens|scor|nt|ly|hd|ex|k|o|p|q|r|s|sh|fl|
 */
#ifndef TTX_RECORD_H
#define TTX_RECORD_H

#include "op_kind.h"

#include <stdbool.h>
#include <stdint.h>

/* What a record is. 0 is no record; from TTX_REC_FRAME on, a slot is framing of the file. */
typedef enum ttx_rec_kind {
    TTX_REC_ACCESS = 1, /* an operation launched on one operand */
    TTX_REC_ROUTE,      /* an expert that a router chose for one token */
    TTX_REC_IO,         /* a read of the model file that ttx itself asked for */
    TTX_REC_FAULT,      /* a page fault */
    TTX_REC_TOKEN,      /* a token was evaluated */
    TTX_REC_RESTART,    /* the session went back: the next token has the position token_id */
    TTX_REC_LONG,       /* the launch whose first record comes next lasted size_bytes ns */
    TTX_REC_COUNT,
    TTX_REC_FRAME = 0xf0,
} ttx_rec_kind;

typedef enum ttx_phase { TTX_PHASE_PROMPT, TTX_PHASE_GENERATE, TTX_PHASE_COUNT } ttx_phase;

typedef enum ttx_qkv {
    TTX_QKV_NONE,
    TTX_QKV_Q,
    TTX_QKV_K,
    TTX_QKV_V,
    TTX_QKV_O,
    TTX_QKV_COUNT
} ttx_qkv;

/* Where the bytes were when they were asked for. */
typedef enum ttx_residency_state {
    TTX_RES_UNKNOWN,    /* in the page cache, or not: the system knows */
    TTX_RES_RESIDENT,   /* in memory since an earlier use */
    TTX_RES_PREFETCHED, /* read ahead, and there in time */
    TTX_RES_LATE,       /* read ahead, but had to be waited for */
    TTX_RES_MISSED,     /* read when it was asked for */
    TTX_RES_COUNT
} ttx_residency_state;

/* operation_type of an IO record: why it was read. */
typedef enum ttx_io_cause {
    TTX_IO_DEMAND,    /* the computation waits for it */
    TTX_IO_PREFETCH,  /* the plan says that it comes next */
    TTX_IO_SPECULATE, /* an expert that may be chosen */
    TTX_IO_LOAD,      /* pinned, or loaded before the first token */
    TTX_IO_CAUSE_COUNT
} ttx_io_cause;

/* operation_type of a FAULT record. */
typedef enum ttx_fault { TTX_FAULT_MINOR, TTX_FAULT_MAJOR, TTX_FAULT_COUNT } ttx_fault;

enum {
    TTX_RECF_FIRST = 1,   /* the first record of its launch */
    TTX_RECF_STRIDED = 2, /* size_bytes are spread over the tensor's rows, from file_offset on */
    TTX_RECF_WRITE = 4,   /* written, not read */
    TTX_RECF_GUESS = 8,   /* to guess experts of a layer to come: no part of the forward pass */
};

/* "None" in each field. A score that is none is NaN. */
#define TTX_REC_NO_TOKEN  UINT32_MAX
#define TTX_REC_NO_TENSOR UINT32_MAX
#define TTX_REC_NO_OFFSET UINT64_MAX
#define TTX_REC_NO_LAYER  UINT16_MAX
#define TTX_REC_NO_HEAD   UINT16_MAX
#define TTX_REC_NO_EXPERT UINT16_MAX
#define TTX_REC_NO_RANK   UINT8_MAX
#define TTX_REC_NO_SHARD  UINT8_MAX

typedef struct ttx_record {
    uint64_t timestamp_ns; /* since the start of the run */
    union {
        uint64_t tensor_ptr; /* address of the first byte */
        float expert_weight; /* ROUTE: what the expert's output is multiplied with */
        uint64_t end_ns;     /* TOKEN: when its batch was done */
    };
    union {
        uint64_t file_offset; /* from the start of its shard */
        uint64_t batch;       /* TOKEN: number of the batch, from 0 */
    };
    uint64_t size_bytes;
    uint32_t duration_ns; /* of the launch, on its first record, otherwise 0; saturates: see LONG */
    uint32_t token_id;    /* position of the first token that was served */
    union {
        uint32_t tensor_idx;
        uint32_t vocab_id; /* TOKEN */
    };
    float routing_score; /* by which the router selected the expert */
    uint16_t n_tokens;   /* how many were served */
    uint16_t layer_id;
    uint16_t attention_head; /* Q and O: query head; K and V: KV head */
    uint16_t expert_id;
    uint8_t kind;           /* ttx_rec_kind */
    uint8_t operation_type; /* ttx_op_kind; of other kinds: ttx_io_cause, ttx_fault */
    uint8_t phase;          /* ttx_phase */
    uint8_t qkv_type;       /* ttx_qkv */
    uint8_t expert_rank;    /* 0: chosen first; of a query head in attention: its KV head */
    uint8_t residency;      /* ttx_residency_state */
    uint8_t shard;
    uint8_t flags; /* TTX_RECF_ */
} ttx_record;

_Static_assert(sizeof(ttx_record) == 64, "a record is 64 bytes, in memory and on disk");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little-endian");

/* Names as tables write them: "ACCESS", "PROMPT", "Q", "resident" ...; NONE is "". NULL: no such
 * value. */
const char *ttx_rec_kind_name(uint32_t kind);
const char *ttx_phase_name(uint32_t phase);
const char *ttx_qkv_name(uint32_t qkv);
const char *ttx_residency_name(uint32_t residency);
/* By kind: the operation, the cause of a read, the type of a fault. */
const char *ttx_rec_op_name(uint32_t kind, uint32_t op);

#endif
