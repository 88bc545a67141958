/* limits_vnni.c -- int8 dot products with AVX-512 VNNI. */
#include "limit_units.h"
#include "limits_int.h"

#define ONES   "vpternlogd $255, %%zmm31, %%zmm31, %%zmm31\n\tvpabsb %%zmm31, %%zmm31\n\t"
#define DOT(r) "vpdpbusd %%zmm31, %%zmm31, %%zmm" r "\n\t"

static void run_int8(int64_t rounds) {
    REPEAT(rounds, ONES, ON_24(DOT), "vzeroupper\n\t", CLOBBERS_31);
}

const limit_unit limit_units_vnni[] = {{"vnni int8", 24 * 64 * 2, run_int8}, {0}};
