/* op_kind.c -- see op_kind.h. */
#include "op_kind.h"

const char *ttx_op_name(ttx_op_kind op) {
    static const char *const names[TTX_OP_COUNT] = {
        [TTX_OP_GET_ROWS] = "GET_ROWS", [TTX_OP_RMS_NORM] = "RMS_NORM",
        [TTX_OP_MUL_MAT] = "MUL_MAT",   [TTX_OP_MUL_MAT_ID] = "MUL_MAT_ID",
        [TTX_OP_TOP_K] = "TOP_K",       [TTX_OP_ADD] = "ADD",
        [TTX_OP_SCALE] = "SCALE",       [TTX_OP_ROPE] = "ROPE",
        [TTX_OP_SET_ROWS] = "SET_ROWS", [TTX_OP_FLASH_ATTN_EXT] = "FLASH_ATTN_EXT",
        [TTX_OP_GLU] = "GLU",           [TTX_OP_SOFTCAP] = "SOFTCAP",
    };
    return names[op];
}
