/* trace_meta.h -- a trace directory: where its run is, and what trace_metadata.json says of it.
 *
 * What every reader needs (check, merge, export, report) stands in fields; the whole document stays
 * there for those who want more. docs/trace-format.md lists the keys.
 */
#ifndef TTX_TRACE_META_H
#define TTX_TRACE_META_H

#include "arena.h"
#include "err.h"
#include "record.h"

#define TTX_TRACE_META    "trace_metadata.json"
#define TTX_TRACE_RECORDS "tensor_access.bin"

/* An operand: a tensor of the model file, or keys or values of a layer's cache (those come after
 * the file's tensors, have no shard and no offset). Its position in the table is its tensor_idx. */
typedef struct ttx_trace_tensor {
    const char *name, *component;    /* "kv_cache" for the caches */
    uint64_t offset, size;           /* absolute in its shard; of a cache: bytes of all its heads */
    uint64_t expert_bytes;           /* of each expert that it holds; 0: none */
    uint32_t n_expert;               /* experts that it holds; 0: none */
    uint32_t row_bytes, block_bytes; /* of the type's rows and blocks; 0: of no file */
    uint16_t layer;                  /* TTX_REC_NO_LAYER: outside the layers */
    uint16_t n_head;                 /* heads that an access is split into at level head; 0: not */
    uint16_t expert;                 /* the one that it is (old files); TTX_REC_NO_EXPERT */
    uint8_t shard, qkv;
    bool strided; /* a head has a part of every row */
} ttx_trace_tensor;

typedef enum ttx_trace_level {
    TTX_LEVEL_STATS,
    TTX_LEVEL_TENSOR,
    TTX_LEVEL_HEAD,
    TTX_LEVEL_IO,
    TTX_LEVELS
} ttx_trace_level;

const char *ttx_trace_level_name(ttx_trace_level level);

/* The numbers of `model_metadata`; 0 where a model has none. */
typedef struct ttx_trace_model {
    const char *architecture;
    uint32_t n_layer, n_head, n_head_kv, n_embd, n_vocab, n_expert, n_expert_used;
} ttx_trace_model;

typedef struct ttx_trace_meta {
    char *dir; /* where the run is */
    ttx_trace_model model;
    const char *model_file, *model_hash, *start_time_utc;
    ttx_trace_level level;
    uint32_t n_tensor, n_file_tensor; /* all; those of the model file */
    ttx_trace_tensor *tensors;
    bool complete;                /* the run ended in order */
    uint64_t total_entries, lost; /* 0 unless complete */
    double duration_s;            /* 0 unless complete */
    struct cJSON *json;           /* the whole document */
    ttx_arena arena;
} ttx_trace_meta;

/* The run of a trace directory that readers take: `dir` itself, or the newest of dir/run_*. The
 * caller frees *out. Errors: TTX_E_RUNTIME (none there). */
int ttx_trace_find(char **out, const char *dir, ttx_err *err);

/* Reads the metadata of ttx_trace_find(dir). Errors: TTX_E_RUNTIME: no trace there, damaged, of a
 * later version. */
int ttx_trace_meta_load(ttx_trace_meta *m, const char *dir, ttx_err *err);
void ttx_trace_meta_free(ttx_trace_meta *m); /* all zeros is fine */

/* A file of the run: the caller frees. NULL without memory. */
char *ttx_trace_path(const ttx_trace_meta *m, const char *name);

#endif
