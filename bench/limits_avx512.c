/* limits_avx512.c -- reading 64 bytes at a time; F32 multiply-adds with AVX-512. */
#define VEC_BYTES 64
#include "limit_readers.h"
#include "limit_units.h"

const limit_reader limit_readers_avx512[] = {READERS("avx512")};

/* Everywhere 1.0. */
#define ONES                                                                         \
    "vpternlogd $255, %%zmm31, %%zmm31, %%zmm31\n\tvpslld $25, %%zmm31, %%zmm31\n\t" \
    "vpsrld $2, %%zmm31, %%zmm31\n\t"
#define FMA(r) "vfmadd231ps %%zmm31, %%zmm31, %%zmm" r "\n\t"

static void run_fma(int64_t rounds) {
    REPEAT(rounds, ONES, ON_24(FMA), "vzeroupper\n\t", CLOBBERS_31);
}

const limit_unit limit_units_avx512[] = {{"avx512 fma", 24 * 16 * 2, run_fma}, {0}};
