/* io_picture.h -- what running a model means for memory and disk, from its header alone.
 *
 * One token cycle reads every dense weight once, one row of each embedding table, and k of the E
 * slices of each expert tensor. Tensors that ordinary decoding leaves alone (the layers of
 * multi-token prediction) are counted apart.
 */
#ifndef TTX_IO_PICTURE_H
#define TTX_IO_PICTURE_H

#include "component.h"

enum { TTX_PAGE = 4096, TTX_SLICE_KINDS = 24 };

/* Expert slices of one projection, type and size. */
typedef struct io_slices {
    const char *proj;
    const char *type;
    uint64_t bytes;   /* of a slice; 0 in the last kind of all, which collects what is left over */
    uint64_t n;       /* slices in the file */
    uint64_t total;   /* bytes of them all */
    uint64_t aligned; /* slices that start on a page */
    uint64_t pages;   /* pages that reading each one alone touches, summed */
    uint64_t min_pages, max_pages; /* of one slice */
} io_slices;

typedef struct io_component {
    uint64_t n_tensors;
    uint64_t bytes;
    uint64_t token_bytes; /* of one token cycle */
} io_component;

typedef struct io_picture {
    gguf_str arch;       /* empty if the file does not say */
    uint64_t file_bytes; /* of all shards */
    uint64_t tensor_bytes;
    io_component comp[TTX_COMP_COUNT];
    bool tied;           /* the token embedding is the output projection too */
    uint64_t idle_bytes; /* of tensors that decoding does not read */

    uint32_t n_expert, n_expert_used; /* 0: not said; without k, a token is taken to use all */
    uint64_t dense_token_bytes, expert_token_bytes, token_bytes;
    uint64_t expert_min, expert_max; /* bytes of one expert in one layer, over the layers */
    io_slices slices[TTX_SLICE_KINDS];
    uint32_t n_slices;

    uint64_t kv_token_bytes; /* F16 keys and values of one position; 0: the file does not tell */
    uint32_t kv_context;     /* min(trained, 4096) */
    uint64_t ram_bytes;      /* weights and that KV cache: to run without streaming */
} io_picture;

/* Errors: no memory. Absent or odd metadata leave their figures at 0. */
int io_picture_of(const gguf_file *f, io_picture *pic, ttx_err *err);

#endif
