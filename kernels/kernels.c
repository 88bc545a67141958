/* kernels.c -- which levels exist, which of them this CPU can run, and how a table is filled.
 *
 * A level counts only if both the CPU (cpuid) and the operating system (xgetbv: does it save the
 * registers?) support it. Asking for a level that has no table, or that the CPU lacks, is an error
 * and never falls back in silence: a measurement must be of what it says it is.
 */
#include "kernels_int.h"

#include <cpuid.h>
#include <stdio.h>
#include <string.h>

static const char *const names[TTX_ISA_COUNT] = {"scalar", "avx2", "avx512", "vnni", "amx"};

/* The levels with a table of their own, lowest first; each starts from the one before. */
static void fill_scalar(ttx_kernels *k) {
    ttx_mm_scalar_init(k);
    ttx_ops_scalar_init(k);
    ttx_attn_scalar_init(k);
}

static void fill_avx2(ttx_kernels *k) {
    ttx_mm_avx2_init(k);
    ttx_ops_avx2_init(k);
    ttx_attn_avx2_init(k);
}

static void fill_avx512(ttx_kernels *k) {
    ttx_mm_avx512_init(k);
    ttx_gemm_avx512_init(k);
    ttx_attn_avx512_init(k);
    ttx_ops_avx512_init(k);
}

static uint64_t xgetbv0(void) {
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (uint64_t)hi << 32 | lo;
}

static bool cpu_has_avx2(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    const uint32_t need = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((c & need) != need) return false;
    if ((xgetbv0() & 6) != 6) return false; /* SSE and AVX state */
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

/* F, DQ, BW and VL, and opmask and upper ZMM state saved by the operating system. */
static bool cpu_has_avx512(void) {
    uint32_t a, b, c, d;
    const uint32_t need = bit_AVX512F | bit_AVX512DQ | bit_AVX512BW | bit_AVX512VL;
    return cpu_has_avx2() && (xgetbv0() & 0xe6) == 0xe6 &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & need) == need;
}

static bool has_7_ecx(uint32_t bit) {
    uint32_t a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (c & bit);
}

static bool cpu_has_vnni(void) {
    return cpu_has_avx512() && has_7_ecx(bit_AVX512VNNI);
}

/* Beyond VNNI: not a level of its own, as it changes three types alone. */
static bool cpu_has_vbmi(void) {
    return cpu_has_vnni() && has_7_ecx(bit_AVX512VBMI);
}

static void fill_vnni(ttx_kernels *k) {
    ttx_gemm_vnni_init(k);
    ttx_mm_vnni_init(k);
    if (cpu_has_vbmi()) ttx_dot_nibbles_vbmi_init(k);
}

typedef void (*fill_fn)(ttx_kernels *k);
static const fill_fn fill[TTX_ISA_COUNT] = {
    [TTX_ISA_SCALAR] = fill_scalar,
    [TTX_ISA_AVX2] = fill_avx2,
    [TTX_ISA_AVX512] = fill_avx512,
    [TTX_ISA_VNNI] = fill_vnni,
};

static bool cpu_has(ttx_isa isa) {
    switch (isa) {
    case TTX_ISA_SCALAR: return true;
    case TTX_ISA_AVX2: return cpu_has_avx2();
    case TTX_ISA_AVX512: return cpu_has_avx512();
    case TTX_ISA_VNNI: return cpu_has_vnni();
    default: return false; /* no table yet, so nobody asks */
    }
}

ttx_isa ttx_isa_detect(void) {
    for (int i = TTX_ISA_COUNT - 1; i > TTX_ISA_SCALAR; i--)
        if (fill[i] && cpu_has((ttx_isa)i)) return (ttx_isa)i;
    return TTX_ISA_SCALAR;
}

const char *ttx_isa_name(ttx_isa isa) {
    return (unsigned)isa < TTX_ISA_COUNT ? names[isa] : "?";
}

int ttx_isa_by_name(const char *name) {
    for (int i = 0; i < TTX_ISA_COUNT; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

static int fail_level(ttx_isa isa, ttx_err *err) {
    char list[64] = "";
    for (int i = 0; i < TTX_ISA_COUNT; i++)
        if (fill[i] && cpu_has((ttx_isa)i)) {
            size_t n = strlen(list);
            snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", names[i]);
        }
    return ttx_fail(err, TTX_E_USAGE, "--isa %s: not available here, expected one of: %s",
                    ttx_isa_name(isa), list);
}

int ttx_kernels_init(ttx_kernels *k, ttx_isa isa, ttx_err *err) {
    memset(k, 0, sizeof *k);
    if ((unsigned)isa >= TTX_ISA_COUNT || !fill[isa] || !cpu_has(isa)) return fail_level(isa, err);
    for (int i = 0; i <= (int)isa; i++)
        if (fill[i]) fill[i](k);
    k->isa = isa;
    return TTX_OK;
}

size_t ttx_matmul_scratch(int64_t k) {
    size_t planes = (size_t)ttx_q16_blocks(k) * TTX_Q16_SCRATCH;
    return planes > TTX_MM_SCRATCH ? planes : TTX_MM_SCRATCH;
}

int ttx_kernels_forms(const ttx_kernels *k) {
    int forms = TTX_ACT_F32;
    for (int class = 0; class < TTX_CLASS_COUNT; class ++)
        for (int type = 0; type < TTX_DTYPE_COUNT; type++) forms |= k->act_form[class][type];
    return forms;
}

ttx_act ttx_act_columns(const ttx_act *x, int64_t c, int64_t n) {
    ttx_act y = *x;
    y.n_cols = n;
    y.panel = NULL;
    y.f32 += c * x->ld;
    if (x->q8) {
        y.q8 += c * x->k;
        y.d += c * (x->k / 32);
        y.sum += c * (x->k / 16);
    }
    if (x->q16) {
        y.q16 += c * x->k;
        y.d16 += c * ttx_q16_blocks(x->k);
        y.sum16 += c * (x->k / 16);
    }
    return y;
}
