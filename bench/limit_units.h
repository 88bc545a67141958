/* limit_units.h -- inline assembly for chains of the same instruction on different registers.
 *
 * ON_12(OP) and ON_24(OP) paste OP("0"), OP("1") ...: as many independent accumulators as hide the
 * latency. In assembly, because a compiler would fold what computes nothing. REPEAT is a whole
 * function's statement: set up, go round, leave no upper halves behind.
 */
#ifndef TTX_LIMIT_UNITS_H
#define TTX_LIMIT_UNITS_H

#define ON_4(OP, a, b, c, d) OP(a) OP(b) OP(c) OP(d)
#define ON_12(OP)                \
    ON_4(OP, "0", "1", "2", "3") \
    ON_4(OP, "4", "5", "6", "7") ON_4(OP, "8", "9", "10", "11")
#define ON_24(OP)                    \
    ON_12(OP)                        \
    ON_4(OP, "12", "13", "14", "15") \
    ON_4(OP, "16", "17", "18", "19") ON_4(OP, "20", "21", "22", "23")

#define CLOBBERS_15                                                                          \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define CLOBBERS_31                                                                               \
    CLOBBERS_15, "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm30", \
        "xmm31"

/* `rounds` >= 1, an lvalue. */
#define REPEAT(rounds, setup, body, cleanup, ...)                       \
    __asm__ volatile(setup "1:\n\t" body "dec %0\n\tjnz 1b\n\t" cleanup \
                     : "+r"(rounds)                                     \
                     :                                                  \
                     : "cc", __VA_ARGS__)

#endif
