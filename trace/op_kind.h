/* op_kind.h -- the names of operations, as plans and traces write them.
 *
 * The names are ggml's, so that a trace of ttx can be read beside one of llama.cpp.
 */
#ifndef TTX_OP_KIND_H
#define TTX_OP_KIND_H

typedef enum ttx_op_kind {
    TTX_OP_GET_ROWS, /* embedding lookup */
    TTX_OP_RMS_NORM, /* norm and multiplication with its weight */
    TTX_OP_MUL_MAT,
    TTX_OP_MUL_MAT_ID, /* the same with an expert's slice */
    TTX_OP_TOP_K,      /* from router scores to experts */
    TTX_OP_ADD,
    TTX_OP_SCALE,
    TTX_OP_ROPE,
    TTX_OP_SET_ROWS, /* new keys and values into the KV cache */
    TTX_OP_FLASH_ATTN_EXT,
    TTX_OP_GLU,
    TTX_OP_SOFTCAP,
    TTX_OP_COUNT
} ttx_op_kind;

const char *ttx_op_name(ttx_op_kind op);

#endif
