/* kinds.h -- the choices that callers of operations make, without the kernels themselves.
 *
 * Split from kernels.h because only the op layer may call kernels, while everybody names an ISA
 * level, a class or an activation function.
 */
#ifndef TTX_KINDS_H
#define TTX_KINDS_H

typedef struct ttx_kernels ttx_kernels;

typedef enum ttx_isa {
    TTX_ISA_SCALAR,
    TTX_ISA_AVX2,   /* + fma, f16c */
    TTX_ISA_AVX512, /* f, bw, dq, vl */
    TTX_ISA_VNNI,   /* + avx512_vnni; and vbmi where the CPU has it */
    TTX_ISA_AMX,    /* + amx_int8, amx_bf16 */
    TTX_ISA_COUNT
} ttx_isa;

/* The highest level that this CPU and kernel can run. */
ttx_isa ttx_isa_detect(void);
const char *ttx_isa_name(ttx_isa isa);
/* -1 if `name` is none. */
int ttx_isa_by_name(const char *name);

/* The two classes of a call. EXACT: decode, and drafts under verification; a batch gives the bits
 * of one-token steps. PROMPT: everything else; faster algorithms for many columns are allowed. */
typedef enum ttx_class { TTX_EXACT, TTX_PROMPT, TTX_CLASS_COUNT } ttx_class;

/* How a gated activation combines gate and up. SWIGLU_OAI clamps both and shifts up by one:
 * gpt-oss. */
typedef enum ttx_glu { TTX_SWIGLU, TTX_GEGLU, TTX_SWIGLU_OAI } ttx_glu;

/* Constants of TTX_SWIGLU_OAI; source: OpenAI's gpt-oss model card. */
#define TTX_OAI_ALPHA 1.702f
#define TTX_OAI_LIMIT 7.0f

typedef enum ttx_rope_layout {
    TTX_ROPE_NORM, /* pairs (2i, 2i+1): llama */
    TTX_ROPE_NEOX  /* pairs (i, i + n_rot/2): qwen, gemma, gpt-oss */
} ttx_rope_layout;

#endif
