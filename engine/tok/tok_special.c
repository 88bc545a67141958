/* tok_special.c -- tokens with a meaning of their own: which they are, and where they stand in a
 * text.
 *
 * A model file names some of them by id and types others as control or user-defined; the rest is
 * known by text, because many files get types wrong. The lists of texts are llama.cpp's: they
 * decide how text is cut up, and where generation ends.
 */
#include "tok_int.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- which they are ---- */

/* Roles that a file may leave out: then the first of these texts that is a token has it, and it is
 * made a control token. */
typedef struct role {
    const char *key; /* the id in the file */
    bool eog;
    const char *texts[12];
} role;

static const role roles[] = {
    {"tokenizer.ggml.eot_token_id",
     true,
     {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>",
      "<EOT>", "_<EOT>", "[EOT]", "<｜end▁of▁sentence｜>", "<end_of_utterance>"}},
    {"tokenizer.ggml.eom_token_id", true, {"<|eom_id|>"}},
    {"tokenizer.ggml.fim_pre_token_id",
     false,
     {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>",
      "<|code_prefix|>", "<|prefix|>"}},
    {"tokenizer.ggml.fim_suf_token_id",
     false,
     {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>",
      "<|code_suffix|>", "<|suffix|>"}},
    {"tokenizer.ggml.fim_mid_token_id",
     false,
     {"<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>",
      "<|code_middle|>", "<|middle|>"}},
    {"tokenizer.ggml.fim_pad_token_id",
     true,
     {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
    {"tokenizer.ggml.fim_rep_token_id",
     true,
     {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
    {"tokenizer.ggml.fim_sep_token_id", true, {"<|file_sep|>"}},
};

/* Tokens that end generation wherever they are in the vocabulary. */
static const char *const eog_texts[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
};

/* Harmony's frame: part of what the model says, so recognised and shown always. */
static const char *const frame_texts[] = {"<|channel|>", "<|message|>", "<|start|>",
                                          "<|constrain|>"};

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Reads an id; *id is untouched if the file does not have the key, -1 if it says "none". */
static int read_id(const ttx_tokenizer *t, const gguf_file *f, const char *key, int32_t *id,
                   ttx_err *err) {
    int64_t v = INT64_MIN;
    int code = gguf_get_i64(f, key, false, &v, err);
    if (code || v == INT64_MIN) return code;
    if (v == -1 || v == UINT32_MAX) {
        *id = -1;
        return TTX_OK;
    }
    if (v < 0 || v >= t->n_vocab)
        return ttx_fail(err, TTX_E_MODEL, "%s: %s: expected a token id below %d, found %lld",
                        gguf_path(f), key, t->n_vocab, (long long)v);
    *id = (int32_t)v;
    return TTX_OK;
}

static int assign_roles(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    for (size_t r = 0; r < COUNT(roles); r++) {
        int32_t id = -1;
        int code = read_id(t, f, roles[r].key, &id, err);
        if (code) return code;
        for (size_t i = 0; id < 0 && i < COUNT(roles[r].texts) && roles[r].texts[i]; i++) {
            id = tok_lookup_z(t, roles[r].texts[i]);
            if (id >= 0) t->attr[id] |= TOK_CONTROL;
        }
        if (id >= 0 && roles[r].eog) t->attr[id] |= TOK_EOG;
    }
    return TTX_OK;
}

static bool has(const ttx_tokenizer *t, const char *text) {
    return tok_lookup_z(t, text) >= 0;
}

static void assign_texts(ttx_tokenizer *t) {
    for (size_t i = 0; i < COUNT(eog_texts); i++) {
        int32_t id = tok_lookup_z(t, eog_texts[i]);
        if (id >= 0) t->attr[id] |= TOK_EOG | TOK_CONTROL;
    }
    for (size_t i = 0; i < COUNT(frame_texts); i++) {
        int32_t id = tok_lookup_z(t, frame_texts[i]);
        if (id >= 0) t->attr[id] = TOK_USER;
    }
    if (t->eos >= 0) t->attr[t->eos] |= TOK_EOG;
    /* Harmony again: <|end|> ends a message, <|return|> and <|call|> the turn. */
    bool call = has(t, "<|call|>") || has(t, "<|calls|>");
    int32_t end = tok_lookup_z(t, "<|end|>");
    if (end >= 0 && call && (has(t, "<|return|>") || has(t, "<|flush|>"))) t->attr[end] = TOK_USER;
    /* Where <|tool_response> is, </s> is markup. */
    int32_t s = tok_lookup_z(t, "</s>");
    if (s >= 0 && has(t, "<|tool_response>")) t->attr[s] = TOK_NORMAL;
}

/* BOS, EOS and whether they are added. The defaults are those of the original LLaMA and of GPT-2's
 * converters. */
static int load_ends(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    t->bos = !t->bpe ? 1 : t->split->no_bos ? -1 : 11;
    t->eos = t->bpe ? 11 : 2;
    t->unk = t->bpe ? -1 : 0;
    if (t->bos >= t->n_vocab) t->bos = -1;
    if (t->eos >= t->n_vocab) t->eos = -1;
    int code = read_id(t, f, "tokenizer.ggml.bos_token_id", &t->bos, err);
    if (!code) code = read_id(t, f, "tokenizer.ggml.eos_token_id", &t->eos, err);
    if (!code) code = read_id(t, f, "tokenizer.ggml.unknown_token_id", &t->unk, err);
    if (!code) code = gguf_get_bool(f, "tokenizer.ggml.add_bos_token", false, &t->add_bos, err);
    if (!code) code = gguf_get_bool(f, "tokenizer.ggml.add_eos_token", false, &t->add_eos, err);
    if (code) return code;
    if (t->add_bos && t->bos < 0)
        return ttx_fail(
            err, TTX_E_MODEL,
            "%s: tokenizer.ggml.add_bos_token is true: expected a bos_token_id, found none",
            gguf_path(f));
    if (t->add_eos && t->eos < 0)
        return ttx_fail(
            err, TTX_E_MODEL,
            "%s: tokenizer.ggml.add_eos_token is true: expected an eos_token_id, found none",
            gguf_path(f));
    return TTX_OK;
}

/* A SentencePiece text may hold any byte; each needs a token, or one for the unknown. */
static int check_bytes(const ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    for (int b = 0; b < 256 && !t->bpe && t->unk < 0; b++)
        if (t->byte_id[b] < 0)
            return ttx_fail(err, TTX_E_MODEL,
                            "%s: vocabulary: expected token <0x%02X> or an unknown token, found "
                            "neither",
                            gguf_path(f), b);
    return TTX_OK;
}

/* Phi-3 trains with the white space after its special tokens removed; files say so only in their
 * name. */
static int strip_by_name(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    gguf_str name = {0};
    char buf[64];
    int code = gguf_get_str(f, "general.name", false, &name, err);
    if (code || !name.s) return code;
    size_t n = name.n < sizeof buf - 1 ? (size_t)name.n : sizeof buf - 1;
    memcpy(buf, name.s, n);
    buf[n] = '\0';
    if (!strcasestr(buf, "phi-3") && !strcasestr(buf, "phi3")) return TTX_OK;
    static const char *const keep[] = {"<unk>", "<s>", "<|endoftext|>"};
    for (int32_t id = 0; id < t->n_vocab; id++)
        if (t->attr[id] & (TOK_CONTROL | TOK_USER | TOK_UNKNOWN)) t->attr[id] |= TOK_RSTRIP;
    int32_t end = tok_lookup_z(t, "</s>");
    if (end >= 0) t->attr[end] |= TOK_RSTRIP;
    for (size_t i = 0; i < COUNT(keep); i++) {
        int32_t id = tok_lookup_z(t, keep[i]);
        if (id >= 0) t->attr[id] &= (uint8_t)~TOK_RSTRIP;
    }
    return TTX_OK;
}

int tok_load_special(ttx_tokenizer *t, const gguf_file *f, ttx_err *err) {
    int code = load_ends(t, f, err);
    if (!code) code = assign_roles(t, f, err);
    if (code) return code;
    assign_texts(t);
    code = check_bytes(t, f, err);
    if (!code) code = strip_by_name(t, f, err);
    if (!code) code = tok_build_specials(t, err);
    return code;
}

/* ---- the sorted lists ---- */

static int compare_texts(const void *a, const void *b, void *ctx) {
    const ttx_tokenizer *t = ctx;
    const tok_str *x = &t->text[*(const int32_t *)a], *y = &t->text[*(const int32_t *)b];
    int c = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static int compare_lengths(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x < y) - (x > y);
}

/* Fills `sp` with the tokens that have one of the attributes `wanted` and none of `unwanted`. */
static int build_list(ttx_tokenizer *t, tok_specials *sp, uint8_t wanted, uint8_t unwanted,
                      ttx_err *err) {
    uint32_t n = 0;
    for (int32_t id = 0; id < t->n_vocab; id++)
        n += (t->attr[id] & wanted) && !(t->attr[id] & unwanted) && t->text[id].n > 0;
    sp->id = ttx_arena_array(&t->arena, n + 1, sizeof *sp->id);
    sp->cls = ttx_arena_array(&t->arena, n + 1, sizeof *sp->cls);
    sp->len = ttx_arena_array(&t->arena, n + 1, sizeof *sp->len);
    if (!sp->id || !sp->cls || !sp->len) return ttx_fail_nomem(err, "special tokens", n * 10ull);
    for (int32_t id = 0; id < t->n_vocab; id++) {
        if (!(t->attr[id] & wanted) || (t->attr[id] & unwanted) || t->text[id].n == 0) continue;
        sp->id[sp->n] = id;
        sp->len[sp->n++] = t->text[id].n;
        sp->first[(uint8_t)t->text[id].s[0]] = true;
    }
    qsort_r(sp->id, n, sizeof *sp->id, compare_texts, t);
    qsort(sp->len, n, sizeof *sp->len, compare_lengths);
    for (uint32_t i = 0; i < n; i++)
        if (i == 0 || sp->len[i] != sp->len[sp->n_len - 1]) sp->len[sp->n_len++] = sp->len[i];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t c = 0;
        while (sp->len[c] != t->text[sp->id[i]].n) c++;
        sp->cls[i] = (uint16_t)c;
    }
    return TTX_OK;
}

int tok_build_specials(ttx_tokenizer *t, ttx_err *err) {
    const uint8_t hidden = TOK_CONTROL | TOK_UNKNOWN;
    int code = build_list(t, &t->all, hidden | TOK_USER, 0, err);
    return code ? code : build_list(t, &t->user, TOK_USER, hidden, err);
}

/* ---- where they stand in a text ---- */

/* A position where special tokens match: bit i of `lengths` is the i-th length of the group. */
typedef struct candidate {
    uint32_t pos;
    uint64_t lengths;
} candidate;

enum { GROUP = 64 }; /* lengths handled at once: the bits of a candidate */

/* Within sp->id[lo, hi), whose first d bytes are alike: the first that is longer than d and has at
 * d a byte >= b. */
static uint32_t lower_bound(const ttx_tokenizer *t, const tok_specials *sp, uint32_t lo,
                            uint32_t hi, uint32_t d, unsigned b) {
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        const tok_str *s = &t->text[sp->id[mid]];
        if (s->n <= d || (uint8_t)s->s[d] < b)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* The lengths in [group * GROUP, +GROUP) that match at text[0..n). */
static uint64_t match_lengths(const ttx_tokenizer *t, const tok_specials *sp, uint32_t group,
                              const char *text, size_t n) {
    uint64_t lengths = 0;
    uint32_t lo = 0, hi = sp->n;
    for (uint32_t d = 0; d < n; d++) {
        unsigned b = (uint8_t)text[d];
        lo = lower_bound(t, sp, lo, hi, d, b);
        hi = lower_bound(t, sp, lo, hi, d, b + 1);
        if (lo == hi) break;
        /* The shortest of the range comes first. */
        if (t->text[sp->id[lo]].n == d + 1 && sp->cls[lo] / GROUP == group)
            lengths |= 1ull << sp->cls[lo] % GROUP;
    }
    return lengths;
}

/* Marks the token text[pos, pos + len), and the white space behind it if it swallows that. */
static void accept(const ttx_tokenizer *t, uint8_t *marks, const char *text, size_t n, size_t pos,
                   size_t len) {
    marks[pos] = TOK_HEAD;
    memset(marks + pos + 1, TOK_INSIDE, len - 1);
    if (!(t->attr[tok_lookup(t, text + pos, len)] & TOK_RSTRIP)) return;
    for (size_t i = pos + len; i < n && marks[i] == TOK_RAW && isspace((uint8_t)text[i]); i++)
        marks[i] = TOK_STRIPPED;
}

/* Longest first, then left to right: takes each candidate that nothing taken before overlaps. */
static void resolve(const ttx_tokenizer *t, const tok_specials *sp, uint32_t group,
                    const candidate *cand, size_t n_cand, const char *text, size_t n,
                    uint8_t *marks) {
    uint64_t any = 0;
    for (size_t i = 0; i < n_cand; i++) any |= cand[i].lengths;
    for (; any; any &= any - 1) {
        unsigned bit = (unsigned)__builtin_ctzll(any);
        size_t len = sp->len[group * GROUP + bit];
        for (size_t i = 0; i < n_cand; i++) {
            size_t pos = cand[i].pos;
            if (!(cand[i].lengths >> bit & 1) || marks[pos] != TOK_RAW) continue;
            bool is_free = true;
            for (size_t j = pos; j < pos + len && is_free; j++) is_free = marks[j] == TOK_RAW;
            if (is_free) accept(t, marks, text, n, pos, len);
        }
    }
}

/* All candidates of a group; the caller frees *cand, also after an error. */
static int find_candidates(const ttx_tokenizer *t, const tok_specials *sp, uint32_t group,
                           const char *text, size_t n, candidate **cand, size_t *n_cand,
                           ttx_err *err) {
    size_t cap = 0;
    for (size_t pos = 0; pos < n; pos++) {
        if (!sp->first[(uint8_t)text[pos]]) continue;
        uint64_t lengths = match_lengths(t, sp, group, text + pos, n - pos);
        if (!lengths) continue;
        if (*n_cand == cap) {
            cap = cap ? 2 * cap : 64;
            candidate *grown = realloc(*cand, cap * sizeof **cand);
            if (!grown) return ttx_fail_nomem(err, "special tokens of a text", cap * sizeof **cand);
            *cand = grown;
        }
        (*cand)[(*n_cand)++] = (candidate){.pos = (uint32_t)pos, .lengths = lengths};
    }
    return TTX_OK;
}

int tok_mark_specials(const ttx_tokenizer *t, const tok_specials *sp, const char *text, size_t n,
                      uint8_t **marks, ttx_err *err) {
    int code = TTX_OK;
    *marks = NULL;
    for (uint32_t group = 0; group * GROUP < sp->n_len && !code; group++) {
        candidate *cand = NULL;
        size_t n_cand = 0;
        code = find_candidates(t, sp, group, text, n, &cand, &n_cand, err);
        if (!code && n_cand && !*marks && !(*marks = calloc(n, 1)))
            code = ttx_fail_nomem(err, "special tokens of a text", n);
        if (!code && n_cand) resolve(t, sp, group, cand, n_cand, text, n, *marks);
        free(cand);
    }
    if (code) {
        free(*marks);
        *marks = NULL;
    }
    return code;
}
