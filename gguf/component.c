/* component.c -- see component.h.
 *
 * A name is [enc.|dec.|v.|a.] [blk.N.] STEM [.E] [.weight|.bias|...]: the stem is looked up, first
 * match wins. Source of the names: the converters of llama.cpp (gguf-py's list of tensor names).
 */
#include "component.h"

#include <string.h>

#define EMB TTX_COMP_EMBEDDING
#define ATT TTX_COMP_ATTENTION
#define FFN TTX_COMP_FFN
#define EXP TTX_COMP_EXPERT
#define ROU TTX_COMP_ROUTER
#define NRM TTX_COMP_NORM
#define OUT TTX_COMP_OUTPUT
#define OTH TTX_COMP_OTHER

static const struct row {
    const char *stem; /* "*" at its start or end (or both): anything */
    ttx_component component;
    const char *proj;
} rows[] = {
    /* clang-format off */
    /* the common ones first: most files hold nothing else */
    {"attn_q", ATT, "q"},               {"attn_k", ATT, "k"},
    {"attn_v", ATT, "v"},               {"attn_output", ATT, "o"},
    {"attn_qkv", ATT, "qkv"},           {"attn_norm", NRM, ""},
    {"ffn_gate", FFN, "gate"},          {"ffn_up", FFN, "up"},
    {"ffn_down", FFN, "down"},          {"ffn_norm", NRM, ""},
    {"ffn_gate_exps", EXP, "gate"},     {"ffn_up_exps", EXP, "up"},
    {"ffn_down_exps", EXP, "down"},     {"ffn_gate_up_exps", EXP, "gate_up"},
    {"ffn_gate_inp", ROU, ""},          {"exp_probs_b", ROU, ""},
    {"token_embd", EMB, ""},            {"output", OUT, ""},

    /* norms by whatever name, before the prefixes below */
    {"*_norm", NRM, ""},                {"*_norm_1", NRM, ""},
    {"*_norm_2", NRM, ""},              {"*.norm", NRM, ""},
    {"*_norm_exps", NRM, ""},           {"nextn.enorm", NRM, ""},
    {"nextn.hnorm", NRM, ""},           {"*_ln", NRM, ""},
    {"ln1", NRM, ""},                   {"ln2", NRM, ""},
    {"pre_ln", NRM, ""},                {"post_ln", NRM, ""},

    /* experts, routers, shared experts */
    {"ffn_gate_chexps", EXP, "gate"},   {"ffn_up_chexps", EXP, "up"},
    {"ffn_down_chexps", EXP, "down"},   {"*_exps", EXP, ""},
    {"ffn_gate_inp_shexp", FFN, "shexp_gate"},
    {"ffn_gate_shexp", FFN, "gate"},    {"ffn_up_shexp", FFN, "up"},
    {"ffn_down_shexp", FFN, "down"},    {"ffn_gate_tid2eid", ROU, "tid2eid"},

    /* attention: latent, cross, linear, indexers */
    {"attn_o", ATT, "o"},               {"attn_out", ATT, "o"},
    {"attn_sinks", ATT, "sinks"},       {"attn_gate", ATT, "gate"},
    {"attn_q_a", ATT, "q_a"},           {"attn_q_b", ATT, "q_b"},
    {"attn_kv_a_mqa", ATT, "kv_a"},     {"attn_kv_b", ATT, "kv_b"},
    {"attn_k_b", ATT, "k_b"},           {"attn_v_b", ATT, "v_b"},
    {"cross_attn_q", ATT, "q"},         {"cross_attn_k", ATT, "k"},
    {"cross_attn_v", ATT, "v"},         {"cross_attn_o", ATT, "o"},
    {"attn_*", ATT, ""},                {"cross_attn_*", ATT, ""},
    {"indexer.*", ATT, "indexer"},      {"ffn*", FFN, ""},

    /* the ends */
    {"token_types", EMB, ""},           {"position_embd", EMB, ""},
    {"per_layer_token_embd", EMB, ""},  {"nextn.embed_tokens", EMB, ""},
    {"nextn.shared_head_head", OUT, ""},{"cls", OUT, ""},
    {"cls.output", OUT, ""},
    /* clang-format on */
};

const char *ttx_component_name(ttx_component c) {
    static const char *const names[TTX_COMP_COUNT] = {
        [EMB] = "embedding", [ATT] = "attention", [FFN] = "ffn",    [EXP] = "expert",
        [ROU] = "router",    [NRM] = "norm",      [OUT] = "output", [OTH] = "other"};
    return names[c];
}

static bool matches(const char *pattern, const char *s, size_t n) {
    size_t m = strlen(pattern);
    if (pattern[0] == '*') return n >= m - 1 && memcmp(s + n - (m - 1), pattern + 1, m - 1) == 0;
    if (pattern[m - 1] == '*') return n >= m - 1 && memcmp(s, pattern, m - 1) == 0;
    return n == m && memcmp(s, pattern, m) == 0;
}

/* "123" or "123.": the number, and in *end what follows; -1 if there is none. */
static int32_t number(const char *s, const char **end) {
    int32_t v = 0;
    const char *p = s;
    for (; *p >= '0' && *p <= '9' && p - s < 9; p++) v = v * 10 + (*p - '0');
    if (p == s || (*p != '.' && *p != 0)) return -1;
    *end = *p ? p + 1 : p;
    return v;
}

static const char *skip_tower(const char *s) {
    static const char *const towers[] = {"enc.", "dec.", "v.", "a."};
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++)
        if (strncmp(s, towers[i], strlen(towers[i])) == 0) return s + strlen(towers[i]);
    return s;
}

/* Length of the stem: without what says which array of a matrix this is. */
static size_t stem_length(const char *s) {
    static const char *const suffixes[] = {".weight", ".bias", ".scale", ".input_scale"};
    size_t n = strlen(s);
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t m = strlen(suffixes[i]);
        if (n > m && memcmp(s + n - m, suffixes[i], m) == 0) return n - m;
    }
    return n;
}

ttx_tensor_role ttx_role_of(const char *name) {
    ttx_tensor_role r = {TTX_COMP_OTHER, "", -1, -1};
    const char *s = skip_tower(name), *rest;
    if (strncmp(s, "blk.", 4) == 0 && (r.layer = number(s + 4, &rest)) >= 0) s = rest;
    size_t n = stem_length(s);

    /* "ffn_up.3": one expert of an old file */
    const char *dot = memchr(s, '.', n);
    int32_t expert = -1;
    if (dot && strncmp(s, "ffn_", 4) == 0 && (expert = number(dot + 1, &rest)) >= 0)
        n = (size_t)(dot - s);

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!matches(rows[i].stem, s, n)) continue;
        r.component = rows[i].component;
        r.proj = rows[i].proj;
        break;
    }
    if (expert >= 0 && r.component == TTX_COMP_FFN) {
        r.component = TTX_COMP_EXPERT;
        r.expert = expert;
    }
    return r;
}

uint64_t ttx_expert_slices(const gguf_tensor *t, const ttx_tensor_role *role, uint64_t *stride) {
    *stride = 0;
    if (role->component != TTX_COMP_EXPERT) return 0;
    uint64_t n = role->expert >= 0 ? 1 : t->ne[t->n_dims - 1];
    if (t->size % n) return 0; /* a row of blocks, which no expert owns alone */
    *stride = t->size / n;
    return n;
}
