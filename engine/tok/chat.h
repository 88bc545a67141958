/* chat.h -- chat formats: how a model expects a conversation to be written.
 *
 * A model file carries its format as a Jinja template (`tokenizer.chat_template`). ttx does not run
 * Jinja: it recognises the template as one of the formats below and writes that format itself, one
 * turn at a time, so that a KV cache can grow with the conversation.
 *
 * Not here: tools, images, reasoning switches; any template that is none of these.
 */
#ifndef TTX_CHAT_H
#define TTX_CHAT_H

#include "err.h"
#include "gguf.h"

#include <stddef.h>

/* A format and what the template adds to it. A value; borrows from the model file. */
typedef struct ttx_chat_format {
    const struct chat_style *style;
    const char *system; /* what the template says where no system message is given; may be NULL */
    size_t n_system;
} ttx_chat_format;

/* Recognises the template of `f`. Errors: TTX_E_MODEL (no template, or none of those known). */
int ttx_chat_detect(ttx_chat_format *out, const gguf_file *f, ttx_err *err);

/* "chatml", "llama2", "llama3", "mistral", "gemma" or "harmony". */
const char *ttx_chat_name(ttx_chat_format format);

/* Writes one turn: what ends the model's answer before it (unless `first`), the system message
 * (first turn only; NULL: the template's own, if it has one), the user's text[0..n) and the start
 * of the model's answer. *rendered, of *n_rendered bytes, is the caller's to free; tokenize it with
 * TTX_TOK_PARSE_SPECIAL, the first turn with TTX_TOK_ADD_SPECIAL too: BOS is not in it. Generation
 * ends with an end-of-generation token, which must not be part of what stands before the next turn.
 *
 * harmony: the answer starts with the model choosing a channel, and the frame of the channels
 * ("<|channel|>analysis<|message|>...") is part of the generated text, as llama.cpp shows it
 * without a parser. Formats whose template tells the date are given the fixed one of the template's
 * publication, so that a run does not depend on the day.
 * Errors: TTX_E_RUNTIME (memory). */
int ttx_chat_turn(ttx_chat_format format, const char *system, const char *text, size_t n,
                  bool first, char **rendered, size_t *n_rendered, ttx_err *err);

#endif
