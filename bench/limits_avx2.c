/* limits_avx2.c -- reading 32 bytes at a time; F32 multiply-adds and int8 products with AVX2. */
#define VEC_BYTES 32
#include "limit_readers.h"
#include "limit_units.h"

const limit_reader limit_readers_avx2[] = {READERS("avx2")};

/* Everywhere 1.0, or 1: no multiply-add of theirs is slow. */
#define ONES_F32                                                             \
    "vpcmpeqd %%ymm15, %%ymm15, %%ymm15\n\tvpslld $25, %%ymm15, %%ymm15\n\t" \
    "vpsrld $2, %%ymm15, %%ymm15\n\t"
#define ONES_I8 "vpcmpeqd %%ymm15, %%ymm15, %%ymm15\n\tvpabsb %%ymm15, %%ymm15\n\t"

#define FMA(r) "vfmadd231ps %%ymm15, %%ymm15, %%ymm" r "\n\t"

static void run_fma(int64_t rounds) {
    REPEAT(rounds, ONES_F32, ON_12(FMA), "vzeroupper\n\t", CLOBBERS_15);
}

/* 32 products: multiply bytes and add pairs, widen and add pairs, accumulate. */
#define DOT(r)                                 \
    "vpmaddubsw %%ymm15, %%ymm15, %%ymm13\n\t" \
    "vpmaddwd %%ymm15, %%ymm13, %%ymm13\n\t"   \
    "vpaddd %%ymm13, %%ymm" r ", %%ymm" r "\n\t"

static void run_int8(int64_t rounds) {
    REPEAT(rounds, ONES_I8, ON_12(DOT), "vzeroupper\n\t", CLOBBERS_15);
}

const limit_unit limit_units_avx2[] = {
    {"avx2 fma", 12 * 8 * 2, run_fma},
    {"avx2 int8", 12 * 32 * 2, run_int8},
    {0},
};
