/* sampler.h -- from logits to the next token.
 *
 * The chain is llama.cpp's default order: repeat penalty, top-k, top-p, min-p, temperature, draw.
 * With a temperature of 0 or less the most probable token is taken (after penalties), ties to the
 * lower id. The same seed and logits give the same tokens on every machine.
 */
#ifndef TTX_SAMPLER_H
#define TTX_SAMPLER_H

#include "err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct ttx_sampler ttx_sampler;

typedef struct ttx_sampler_settings {
    uint32_t seed;
    float temp;
    int32_t top_k;         /* 0 or less: all */
    float top_p, min_p;    /* 1 and 0: off */
    float repeat_penalty;  /* 1: off */
    int32_t repeat_last_n; /* 0: off; -1: n_history_max */
} ttx_sampler_settings;

ttx_sampler_settings ttx_sampler_default_settings(void);

/* n_history_max: how far back a penalty can look (the context size). Errors: TTX_E_RUNTIME. */
int ttx_sampler_open(ttx_sampler **out, const ttx_sampler_settings *settings, uint32_t n_vocab,
                     uint32_t n_history_max, ttx_err *err);
void ttx_sampler_close(ttx_sampler *s); /* NULL is fine */

/* A token that penalties should know of: of the prompt, or one just generated. */
void ttx_sampler_accept(ttx_sampler *s, int32_t token);

/* Draws from F32 logits [n_vocab]. `banned`: a token that must not come (-1: none). Errors:
 * TTX_E_RUNTIME if no logit is a number. */
int ttx_sampler_draw(ttx_sampler *s, const float *logits, const int32_t *banned, size_t n_banned,
                     int32_t *token, ttx_err *err);

#endif
