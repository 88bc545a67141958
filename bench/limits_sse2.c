/* limits_sse2.c -- what every x86-64 CPU can read and compute. */
#define VEC_BYTES 16
#include "limit_readers.h"
#include "limit_units.h"

const limit_reader limit_readers_sse2[] = {READERS("sse2")};

/* As many multiplications as additions: units for both work at once. */
#define MUL(r) "mulps %%xmm15, %%xmm" r "\n\t"
#define ADD(r) "addps %%xmm14, %%xmm" r "\n\t"
#define PAIRS \
    MUL("0")  \
    ADD("1")  \
    MUL("2") ADD("3") MUL("4") ADD("5") MUL("6") ADD("7") MUL("8") ADD("9") MUL("10") ADD("11")

static void run_f32(int64_t rounds) {
    REPEAT(rounds, "xorps %%xmm15, %%xmm15\n\txorps %%xmm14, %%xmm14\n\t", PAIRS, "", CLOBBERS_15);
}

const limit_unit limit_units_sse2[] = {{"sse2 f32", 12 * 4, run_f32}, {0}};
