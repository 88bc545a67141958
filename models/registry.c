/* registry.c -- see models.h. A new architecture is one line here. */
#include "models.h"

extern const ttx_arch ttx_arch_llama, ttx_arch_qwen2, ttx_arch_qwen3, ttx_arch_gemma3,
    ttx_arch_qwen2moe, ttx_arch_qwen3moe, ttx_arch_olmoe, ttx_arch_gpt_oss;

const ttx_arch *const ttx_archs[] = {
    &ttx_arch_llama,  &ttx_arch_qwen2,    &ttx_arch_qwen3,
    &ttx_arch_gemma3, &ttx_arch_qwen2moe, &ttx_arch_qwen3moe,
    &ttx_arch_olmoe,  &ttx_arch_gpt_oss,  NULL,
};
