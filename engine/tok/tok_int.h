/* tok_int.h -- inside the tokenizer.
 *
 * From text to ids in three steps, one file each: special tokens are cut out (tok_special.c), BPE
 * text is split into words (tok_split.c), and words, or for SentencePiece the whole text, are
 * merged pair by pair (tok_merge.c). tok_vocab.c loads what the steps need.
 */
#ifndef TTX_TOK_INT_H
#define TTX_TOK_INT_H

#include "arena.h"
#include "tokenizer.h"

/* ---- the vocabulary ---- */

enum { /* attributes of a token, a set */
       TOK_NORMAL = 1,
       TOK_UNKNOWN = 2,
       TOK_CONTROL = 4,
       TOK_USER = 8, /* recognised in any text */
       TOK_BYTE = 16,
       TOK_UNUSED = 32,
       TOK_EOG = 64,
       TOK_RSTRIP = 128 /* swallows the white space that follows it */
};

typedef struct tok_str {
    const char *s;
    uint32_t n;
} tok_str;

/* Open addressing, linear probing; the table is at most half full. Texts of up to 8 bytes, most of
 * a vocabulary, are compared without leaving the slot. */
typedef struct tok_slot {
    uint64_t head; /* the first 8 bytes, zeros after a shorter text */
    uint32_t tag;  /* length, and part of the hash */
    int32_t id;    /* -1: empty */
} tok_slot;

typedef struct tok_pair {
    int32_t left, right; /* left -1: empty */
    uint32_t rank;
    int32_t merged;
} tok_pair;

/* Special tokens, sorted by their bytes: a text position is matched by narrowing the range. */
typedef struct tok_specials {
    int32_t *id;
    uint16_t *cls; /* index into len */
    uint32_t n;
    uint32_t *len; /* the distinct lengths, longest first */
    uint32_t n_len;
    bool first[256]; /* bytes that some special token starts with */
} tok_specials;

struct tok_split;

struct ttx_tokenizer {
    bool bpe, add_bos, add_eos, add_space_prefix;
    bool ignore_merges; /* a word that is a token needs no merging */
    const struct tok_split *split;
    int32_t n_vocab, bos, eos, unk;
    uint32_t max_len; /* of a token's text */
    tok_str *text;
    uint8_t *attr;
    uint32_t *order; /* SentencePiece: merge order, from the score; smaller first */
    tok_slot *slots;
    uint64_t slot_mask;
    tok_pair *pairs; /* BPE: merges */
    uint64_t pair_mask;
    int32_t byte_id[256];   /* token of a single byte; -1: none */
    tok_specials all, user; /* with and without TTX_TOK_PARSE_SPECIAL */
    ttx_arena arena;
};

/* The lowest id whose text is s[0..n); -1 if there is none. */
int32_t tok_lookup(const ttx_tokenizer *t, const char *s, size_t n);
int32_t tok_lookup_z(const ttx_tokenizer *t, const char *s);
/* The merge of two tokens; NULL if there is none. left and right >= 0. */
const tok_pair *tok_find_pair(const ttx_tokenizer *t, int32_t left, int32_t right);

/* Byte-level BPE writes byte b as this code point, so that every text is printable. */
uint32_t tok_byte_to_cp(uint8_t b);
/* -1: stands for no byte. */
int tok_cp_to_byte(uint32_t cp);

/* Loading, in this order: texts and attributes; BPE merges; special ids and their sets. */
int tok_load_vocab(ttx_tokenizer *t, const gguf_file *f, ttx_err *err);
int tok_load_merges(ttx_tokenizer *t, const gguf_file *f, ttx_err *err);
int tok_load_special(ttx_tokenizer *t, const gguf_file *f, ttx_err *err);
int tok_build_specials(ttx_tokenizer *t, ttx_err *err);

/* ---- special tokens in a text ---- */

enum { TOK_RAW = 0, TOK_INSIDE, TOK_HEAD, TOK_STRIPPED };

/* Marks every byte of text[0..n): the first byte of a special token HEAD, its others INSIDE, white
 * space that it swallows STRIPPED, ordinary text RAW. *marks is NULL if all is RAW, else to be
 * freed. Longer tokens are found first, wherever they are, as llama.cpp does. */
int tok_mark_specials(const ttx_tokenizer *t, const tok_specials *sp, const char *text, size_t n,
                      uint8_t **marks, ttx_err *err);

/* ---- splitting ---- */

/* Code points of a text with their classes (unicode.h). off[n] is the length of the text. */
typedef struct tok_chars {
    uint32_t *cp, *off;
    uint8_t *cls;
    size_t n;
    size_t begin; /* of the piece being split: rules see nothing before it */
} tok_chars;

/* Where the match at `pos` ends; `pos` if there is none. Sees only [pos, end). */
typedef size_t (*tok_rule)(const tok_chars *c, size_t pos, size_t end);

enum { TOK_MAX_RULES = 6 };

typedef struct tok_split {
    const char *names; /* values of tokenizer.ggml.pre, with spaces between them */
    tok_rule rule[TOK_MAX_RULES];
    bool ignore_merges, add_bos, no_bos; /* no_bos: no BOS unless the file names one */
} tok_split;

/* NULL if there is none of that name. */
const tok_split *tok_find_split(const char *name, size_t n);

/* Decodes text[0..n) into `c`, whose arrays hold n + 1 elements. */
void tok_decode_chars(tok_chars *c, const char *text, size_t n);

/* Splits into words: `ends` and `scratch` hold c->n elements each; returns the number of words and
 * points *words at their ends, in code points. Each rule in turn splits every piece that those
 * before it left: its matches become pieces, and so do the gaps between them. */
size_t tok_split_words(const tok_split *s, tok_chars *c, uint32_t *ends, uint32_t *scratch,
                       const uint32_t **words);

/* ---- merging ---- */

typedef struct tok_sym {
    int32_t prev, next;
    uint32_t off, n; /* its bytes; n = 0: merged into its left neighbour */
    int32_t id;      /* -1: not in the vocabulary */
} tok_sym;

typedef struct tok_cand {
    uint64_t order;       /* rank, then position */
    uint32_t right, size; /* right symbol; bytes of both: tells whether either has changed since */
} tok_cand;

/* What one ttx_tokenize call works with. */
typedef struct tok_work {
    const ttx_tokenizer *t;
    tok_sym *sym;
    tok_cand *heap;
    size_t n_sym, n_heap, cap; /* cap symbols, twice as many candidates */
    int32_t *ids;
    size_t n_ids, cap_ids;
    ttx_err *err;
} tok_work;

int tok_emit(tok_work *w, int32_t id);
/* Tokenizes one BPE word, or a SentencePiece text whose spaces are escaped already. */
int tok_merge_text(tok_work *w, const char *text, size_t n);
void tok_work_free(tok_work *w);

#endif
