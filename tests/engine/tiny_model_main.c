/* tiny_model_main.c -- writes a tiny model to a file, for tests that start programs.
 *
 *     tiny_model OUT.gguf [FIELD=VALUE]...     FIELD: one of tiny_model.h; type=Q8_0
 */
#include "tiny_model.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum kind { NUMBER, REAL, FLAG, TEXT } kind;

#define FIELD(name, kind) \
    { #name, kind, offsetof(tiny_model, name) }
static const struct {
    const char *name;
    kind kind;
    size_t at;
} fields[] = {
    FIELD(seed, NUMBER),        FIELD(n_vocab, NUMBER),    FIELD(n_ctx, NUMBER),
    FIELD(n_embd, NUMBER),      FIELD(n_layer, NUMBER),    FIELD(n_ff, NUMBER),
    FIELD(n_head, NUMBER),      FIELD(n_head_kv, NUMBER),  FIELD(d_head, NUMBER),
    FIELD(n_rot, NUMBER),       FIELD(n_swa, NUMBER),      FIELD(swa_period, NUMBER),
    FIELD(eps, REAL),           FIELD(rope_base, REAL),    FIELD(rope_base_swa, REAL),
    FIELD(rope_scaling, TEXT),  FIELD(rope_factor, REAL),  FIELD(n_ctx_orig, NUMBER),
    FIELD(softcap, REAL),       FIELD(tied, FLAG),         FIELD(rope_freqs, FLAG),
    FIELD(biases, FLAG),        FIELD(vocab, FLAG),        FIELD(type, NUMBER),
    FIELD(chat_template, TEXT), FIELD(n_expert, NUMBER),   FIELD(n_expert_used, NUMBER),
    FIELD(n_ff_exp, NUMBER),    FIELD(n_ff_shexp, NUMBER), FIELD(expert_type, NUMBER),
    FIELD(split_experts, FLAG), FIELD(select_bias, FLAG),  FIELD(hash_routing, FLAG),
    FIELD(flat_router, FLAG),
};
enum { N_FIELDS = sizeof fields / sizeof *fields };

static int set(tiny_model *t, const char *name, size_t n, const char *value) {
    for (int i = 0; i < N_FIELDS; i++) {
        if (strlen(fields[i].name) != n || memcmp(fields[i].name, name, n) != 0) continue;
        char *p = (char *)t + fields[i].at;
        bool is_type = strstr(fields[i].name, "type") != NULL;
        int type = is_type ? ttx_dtype_by_name(value) : -1;
        switch (fields[i].kind) {
        case NUMBER: *(uint32_t *)p = type < 0 ? (uint32_t)atol(value) : (uint32_t)type; break;
        case REAL: *(double *)p = atof(value); break;
        case FLAG: *(bool *)p = atoi(value) != 0; break;
        case TEXT: *(const char **)p = value; break;
        }
        return 0;
    }
    fprintf(stderr, "tiny_model: no field '%.*s'\n", (int)n, name);
    return 2;
}

int main(int argc, char **argv) {
    tiny_model t = tiny_model_of("llama");
    for (int i = 2; i < argc; i++)
        if (strncmp(argv[i], "arch=", 5) == 0) t = tiny_model_of(argv[i] + 5);
    for (int i = 2; i < argc; i++) {
        const char *eq = strchr(argv[i], '=');
        size_t n = eq ? (size_t)(eq - argv[i]) : strlen(argv[i]);
        if (strncmp(argv[i], "arch=", 5) == 0) continue;
        if (set(&t, argv[i], n, eq ? eq + 1 : "1")) return 2;
    }
    FILE *f = argc > 1 ? fopen(argv[1], "wb") : NULL;
    if (!f || !tiny_model_write(&t, f) || fclose(f) != 0) return perror("tiny_model"), 1;
    return 0;
}
