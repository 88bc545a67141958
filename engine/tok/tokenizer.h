/* tokenizer.h -- text to token ids and back.
 *
 * A ttx_tokenizer is the vocabulary of one model file, SentencePiece (`tokenizer.ggml.model` =
 * llama) or byte-level BPE (gpt2). It is immutable once loaded and may be shared by threads. It
 * gives the ids that llama.cpp gives for the same text; only where the text is not UTF-8 does it
 * differ, because there every byte survives a round trip.
 *
 * A ttx_detok is the way back for a stream of ids: it hands out whole characters only.
 *
 * Not here: unigram, WordPiece and other vocabularies; chat formats (chat.h).
 */
#ifndef TTX_TOKENIZER_H
#define TTX_TOKENIZER_H

#include "err.h"
#include "gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ttx_tokenizer ttx_tokenizer;

enum {
    TTX_TOK_ADD_SPECIAL = 1,  /* BOS before and EOS after, as the model file asks for */
    TTX_TOK_PARSE_SPECIAL = 2 /* "<|im_end|>" in the text means the control token */
};

/* Loads the vocabulary of `f`, which must outlive the tokenizer: token texts are views into it.
 * Errors: TTX_E_MODEL (missing, inconsistent or not supported), TTX_E_RUNTIME (memory). */
int ttx_tokenizer_load(ttx_tokenizer **out, const gguf_file *f, ttx_err *err);
void ttx_tokenizer_free(ttx_tokenizer *t); /* NULL is fine */

/* Tokenizes text[0..n), any bytes. On success *ids (never NULL) is the caller's to free() and holds
 * *n_ids ids. Tokens that are user-defined are recognised in the text whatever the flags.
 * Errors: TTX_E_USAGE (1 GiB or more), TTX_E_RUNTIME (memory). */
int ttx_tokenize(const ttx_tokenizer *t, const char *text, size_t n, unsigned flags, int32_t **ids,
                 size_t *n_ids, ttx_err *err);

int32_t ttx_tok_n_vocab(const ttx_tokenizer *t);
/* -1 if the model has none. */
int32_t ttx_tok_bos(const ttx_tokenizer *t);
int32_t ttx_tok_eos(const ttx_tokenizer *t);
bool ttx_tok_add_bos(const ttx_tokenizer *t);
bool ttx_tok_add_eos(const ttx_tokenizer *t);
/* Whether the token ends generation: EOS, end of turn and their kin. */
bool ttx_tok_is_eog(const ttx_tokenizer *t, int32_t id);
/* Whether it is a control token: one that is hidden when text is shown. */
bool ttx_tok_is_control(const ttx_tokenizer *t, int32_t id);
/* The id of a token by its text in the vocabulary; -1 if there is none. */
int32_t ttx_tok_find(const ttx_tokenizer *t, const char *text);

/* The bytes that a token stands for; control tokens give their own text. Writes at most `cap` and
 * returns how many there are. An id outside the vocabulary gives none. */
size_t ttx_token_bytes(const ttx_tokenizer *t, int32_t id, char *buf, size_t cap);

typedef struct ttx_detok ttx_detok;

enum {
    TTX_DETOK_SPECIAL = 1, /* control tokens appear as their text; without it they vanish */
    /* The ids start a text: the space that a SentencePiece model puts before text (at the start
     * and after each special token) is taken away again. Without it they continue one. */
    TTX_DETOK_START = 2
};

/* Errors: TTX_E_RUNTIME (memory). The tokenizer must outlive it. */
int ttx_detok_new(ttx_detok **out, const ttx_tokenizer *t, unsigned flags, ttx_err *err);
void ttx_detok_free(ttx_detok *d); /* NULL is fine */

/* Adds one token; returns how many bytes are ready and points *bytes at them, valid until the next
 * call. The start of a character that a later token may complete is held back; bytes that cannot
 * be UTF-8 any more pass as they are. Allocates nothing. */
size_t ttx_detok_feed(ttx_detok *d, int32_t id, const char **bytes);
/* Ends the stream: what was held back, as it is. The detokenizer then stands where it began. */
size_t ttx_detok_flush(ttx_detok *d, const char **bytes);

#endif
