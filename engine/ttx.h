/* ttx.h -- the public interface of libttx: a language model that can be fed and asked.
 *
 *     ttx_lm opens a GGUF file: weights, vocabulary, and one timeline (a KV cache).
 *     ttx_lm_tokenize / ttx_lm_piece   text to token ids and back
 *     ttx_lm_eval                      puts tokens onto the timeline
 *     ttx_lm_logits                    what the model thinks comes next
 *     ttx_lm_sample                    chooses a token from that
 *
 * Functions that can fail return 0 or one of the codes below; ttx_lm_error tells in one line what
 * was expected and what was found. A ttx_lm is used by one thread at a time. Nothing prints,
 * nothing exits. The library has no global state.
 */
#ifndef TTX_H
#define TTX_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TTX_API __attribute__((visibility("default")))

enum { TTX_LM_OK = 0, TTX_LM_RUNTIME = 1, TTX_LM_USAGE = 2, TTX_LM_MODEL = 3 };

typedef struct ttx_lm ttx_lm;

/* Fill with ttx_lm_defaults, then change what you care about. */
typedef struct ttx_lm_settings {
    int n_threads;  /* 0: every core */
    uint32_t n_ctx; /* positions; 0: min(trained, 4096, what memory allows) */
    uint32_t seed;
    float temp; /* 0: always the most probable token */
    int top_k;
    float top_p, min_p;
    /* Memory for everything, in bytes; 0: what is available. A model that does not fit is streamed:
     * what fits is kept, the rest is read from the file as it is needed. */
    uint64_t ram;
} ttx_lm_settings;

TTX_API ttx_lm_settings ttx_lm_defaults(void);

/* Opens a model. *out is set also on failure (unless memory is out: NULL), so that ttx_lm_error can
 * be asked; close it in any case. `settings` may be NULL. */
TTX_API int ttx_lm_open(ttx_lm **out, const char *path, const ttx_lm_settings *settings);
TTX_API void ttx_lm_close(ttx_lm *lm); /* NULL is fine */

/* The message of the last failed call; "" if there was none. Borrowed until the next call. */
TTX_API const char *ttx_lm_error(const ttx_lm *lm);

/* Token ids of n_bytes of text, with the model's own BOS/EOS rules; special tokens that are written
 * out ("<|im_start|>") are recognised. Writes at most `cap` ids; *n is how many there are. */
TTX_API int ttx_lm_tokenize(ttx_lm *lm, const char *text, size_t n_bytes, int32_t *ids, size_t cap,
                            size_t *n);
/* The bytes of one token (not NUL-terminated, perhaps part of a character): at most `cap`; *n is
 * how many there are. */
TTX_API int ttx_lm_piece(ttx_lm *lm, int32_t id, char *bytes, size_t cap, size_t *n);
/* Does this token end a text? */
TTX_API int ttx_lm_is_end(const ttx_lm *lm, int32_t id);

/* Evaluates n >= 1 tokens after those that are there. */
TTX_API int ttx_lm_eval(ttx_lm *lm, const int32_t *ids, size_t n);
/* Float32 [ttx_lm_n_vocab] after the last evaluated token. Borrowed until the next eval. */
TTX_API const float *ttx_lm_logits(const ttx_lm *lm);
/* A token drawn from that; an error before anything was evaluated. */
TTX_API int ttx_lm_sample(ttx_lm *lm, int32_t *id);

TTX_API uint32_t ttx_lm_n_vocab(const ttx_lm *lm);
TTX_API uint32_t ttx_lm_n_ctx(const ttx_lm *lm);
/* Tokens on the timeline; forgetting all from `pos` on. */
TTX_API uint32_t ttx_lm_pos(const ttx_lm *lm);
TTX_API void ttx_lm_rewind(ttx_lm *lm, uint32_t pos);

#ifdef __cplusplus
}
#endif
#endif
