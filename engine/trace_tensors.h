/* trace_tensors.h -- a model as a trace describes it: its tensors, with roles, and its document. */
#ifndef TTX_TRACE_TENSORS_H
#define TTX_TRACE_TENSORS_H

#include "model.h"
#include "recorder.h"
#include "session.h"
#include "trace_meta.h"

struct cJSON;

typedef struct ttx_trace_tensors {
    ttx_trace_tensor *v; /* [n]: n_file of the file, then the caches */
    uint32_t n, n_file;
    ttx_trace_source *sources; /* [shards] */
    ttx_arena arena;
} ttx_trace_tensors;

/* Tensors of the file, then keys and values of every layer. The cache is of n_ctx positions.
 * Names are borrowed from the model. Errors: TTX_E_RUNTIME (no memory), TTX_E_USAGE (more shards,
 * layers or heads than a record can name). */
int ttx_trace_tensors_make(ttx_trace_tensors *t, const ttx_model *m, uint32_t n_ctx,
                           ttx_dtype k_type, ttx_dtype v_type, ttx_err *err);
void ttx_trace_tensors_free(ttx_trace_tensors *t); /* all zeros is fine */

/* "fnv1a64:" and 16 digits: over the header of each shard and its size, which tells models apart
 * without reading them whole. */
enum { TTX_MODEL_HASH = 32 };
void ttx_trace_model_hash(const ttx_model *m, char hash[TTX_MODEL_HASH]);

/* The document's keys about the model: model_file, model_hash, shards, model_metadata. NULL without
 * memory; the caller deletes it. */
struct cJSON *ttx_trace_model_document(const ttx_model *m);

#endif
