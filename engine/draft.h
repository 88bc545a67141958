/* draft.h -- drafts by prompt lookup: guesses of the next tokens, taken from the text itself.
 *
 * Where the last tokens have occurred before, what followed them then may follow again. A guess is
 * verified by evaluating it together with the token before it, as one batch of class exact; so it
 * changes how long a text takes, never the text. Source: Saxena, prompt lookup decoding (2023).
 *
 * How many tokens to guess is decided by what they cost and gain here: how often guesses were right
 * after matches of this length, and how long batches of each size took. Sizes that do not pay are
 * tried once, and again after some hundred steps, as a cache may have warmed meanwhile.
 */
#ifndef TTX_DRAFT_H
#define TTX_DRAFT_H

#include "err.h"

#include <stddef.h>
#include <stdint.h>

enum { TTX_DRAFT_MAX = 15 }; /* tokens guessed at once */

typedef struct ttx_draft ttx_draft;

/* For texts of up to n_ctx tokens; longer ones are not remembered to their end. The caller frees.
 * Errors: TTX_E_RUNTIME (no memory). */
int ttx_draft_open(ttx_draft **out, uint32_t n_ctx, ttx_err *err);
void ttx_draft_close(ttx_draft *d); /* NULL is fine */

/* The next token of the text, guessed or not: also tells whether the last guess was right. */
void ttx_draft_accept(ttx_draft *d, int32_t token);

/* Up to `max` tokens that may follow; returns how many (0: evaluate no more than the last token).
 * Allocates nothing. */
size_t ttx_draft_propose(ttx_draft *d, int32_t guess[TTX_DRAFT_MAX], size_t max);

/* A batch of n tokens (the last one and n - 1 guesses) took so many seconds. */
void ttx_draft_timed(ttx_draft *d, size_t n, double seconds);

#endif
