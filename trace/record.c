/* record.c -- see record.h: the names of what records hold. */
#include "record.h"

#include <stddef.h>

#define NAME(table, i) ((i) < sizeof(table) / sizeof *(table) ? (table)[i] : NULL)

const char *ttx_rec_kind_name(uint32_t kind) {
    static const char *const names[TTX_REC_COUNT] = {
        [TTX_REC_ACCESS] = "ACCESS", [TTX_REC_ROUTE] = "ROUTE", [TTX_REC_IO] = "IO",
        [TTX_REC_FAULT] = "FAULT",   [TTX_REC_TOKEN] = "TOKEN", [TTX_REC_RESTART] = "RESTART",
        [TTX_REC_LONG] = "LONG",
    };
    return NAME(names, kind);
}

const char *ttx_phase_name(uint32_t phase) {
    static const char *const names[TTX_PHASE_COUNT] = {"PROMPT", "GENERATE"};
    return NAME(names, phase);
}

const char *ttx_qkv_name(uint32_t qkv) {
    static const char *const names[TTX_QKV_COUNT] = {"", "Q", "K", "V", "O"};
    return NAME(names, qkv);
}

const char *ttx_residency_name(uint32_t residency) {
    static const char *const names[TTX_RES_COUNT] = {"", "resident", "prefetched", "late",
                                                     "missed"};
    return NAME(names, residency);
}

const char *ttx_rec_op_name(uint32_t kind, uint32_t op) {
    static const char *const causes[TTX_IO_CAUSE_COUNT] = {"DEMAND", "PREFETCH", "SPECULATE",
                                                           "LOAD"};
    static const char *const faults[TTX_FAULT_COUNT] = {"MINOR_FAULT", "MAJOR_FAULT"};
    switch (kind) {
    case TTX_REC_ACCESS: return op < TTX_OP_COUNT ? ttx_op_name((ttx_op_kind)op) : NULL;
    case TTX_REC_IO: return NAME(causes, op);
    case TTX_REC_FAULT: return NAME(faults, op);
    default: return "";
    }
}
