/* report_pack.h -- see report_pack.c: a stream of numbers as a JSON string. */
#ifndef TTX_REPORT_PACK_H
#define TTX_REPORT_PACK_H

#include <stdint.h>
#include <stdio.h>

typedef struct rp_pack {
    FILE *f;
    uint32_t bits;
    unsigned n_bits;
    uint64_t value, before, run;
    uint64_t written; /* characters */
} rp_pack;

/* Without a file it only counts. */
void rp_pack_begin(rp_pack *p, FILE *f);
void rp_pack_put(rp_pack *p, uint64_t v);
void rp_pack_end(rp_pack *p);

#endif
