/* trace_crc.h -- CRC-32 as zlib has it (ITU-T V.42), of the blocks of a trace. */
#ifndef TTX_TRACE_CRC_H
#define TTX_TRACE_CRC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a checksum is made with; the caller's, filled once by ttx_crc_init. */
typedef struct ttx_crc {
    uint32_t table[8][256];
    bool clmul; /* carry-less multiplication is there: 20 times as fast */
} ttx_crc;
void ttx_crc_init(ttx_crc *c);

/* The checksum of n bytes, continuing `crc` (0 at the start). */
uint32_t ttx_crc32(const ttx_crc *c, uint32_t crc, const void *data, size_t n);

#endif
