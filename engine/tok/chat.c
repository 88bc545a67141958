/* chat.c -- the chat formats, as a table of what stands around the messages.
 *
 * A turn is: [close] [opening] [system] user, start of the answer. Formats differ in these strings,
 * and in where the system message goes: in a message of its own, or at the head of the user's.
 */
#include "chat.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

typedef struct chat_style {
    const char *name;
    /* Recognised by: the template has all of `has` and none of `lacks`. */
    const char *has[3], *lacks;
    const char *opening;                /* first turn, always */
    const char *sys_before, *sys_after; /* around the system message */
    bool sys_inside;                    /* within the user's message */
    bool sys_always;                    /* also if there is no system message */
    const char *user_before, *user_after;
    const char *close; /* after the model's answer, before the next turn */
    bool trim_sys, trim_user;
} chat_style;

/* The first that fits is it, so variants stand before what they vary. */
static const chat_style styles[] = {
    {.name = "chatml",
     .has = {"<|im_start|>"},
     .lacks = "<|im_sep|>",
     .sys_before = "<|im_start|>system\n",
     .sys_after = "<|im_end|>\n",
     .user_before = "<|im_start|>user\n",
     .user_after = "<|im_end|>\n<|im_start|>assistant\n",
     .close = "<|im_end|>\n"},
    {.name = "harmony",
     .has = {"<|start|>", "<|channel|>", "<|message|>"},
     .opening = "<|start|>system<|message|>You are ChatGPT, a large language model trained by "
                "OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: 2025-08-05\n\nReasoning: "
                "medium\n\n# Valid channels: analysis, commentary, final. Channel must be included "
                "for every message.<|end|>",
     .sys_before = "<|start|>developer<|message|># Instructions\n\n",
     .sys_after = "<|end|>",
     .user_before = "<|start|>user<|message|>",
     .user_after = "<|end|><|start|>assistant",
     .close = "<|end|>"},
    /* Mistral's tokenizers, oldest last: v7, v3 with Tekken, v3, v1. */
    {.name = "mistral",
     .has = {"[INST]", "[SYSTEM_PROMPT]", "[INST] "},
     .sys_before = "[SYSTEM_PROMPT] ",
     .sys_after = "[/SYSTEM_PROMPT]",
     .user_before = "[INST] ",
     .user_after = "[/INST]",
     .close = "</s>"},
    {.name = "mistral",
     .has = {"[INST]", "[SYSTEM_PROMPT]"},
     .sys_before = "[SYSTEM_PROMPT]",
     .sys_after = "[/SYSTEM_PROMPT]",
     .user_before = "[INST]",
     .user_after = "[/INST]",
     .close = "</s>"},
    {.name = "mistral",
     .has = {"\"[INST]\"", "[AVAILABLE_TOOLS]"},
     .lacks = " [INST]",
     .sys_after = "\n\n",
     .sys_inside = true,
     .user_before = "[INST]",
     .user_after = "[/INST]",
     .close = "</s>"},
    {.name = "mistral",
     .has = {"[INST]", "[AVAILABLE_TOOLS]"},
     .lacks = " [INST]",
     .sys_after = "\n\n",
     .sys_inside = true,
     .user_before = "[INST] ",
     .user_after = "[/INST]",
     .close = "</s>"},
    {.name = "mistral",
     .has = {" [INST]", "[AVAILABLE_TOOLS]"},
     .sys_after = "\n\n",
     .sys_inside = true,
     .user_before = " [INST] ",
     .user_after = " [/INST]",
     .close = "</s>"},
    {.name = "mistral",
     .has = {"' [INST] ' + system_message"},
     .sys_after = "\n\n",
     .sys_inside = true,
     .user_before = " [INST] ",
     .user_after = " [/INST]",
     .close = "</s>"},
    {.name = "llama2",
     .has = {"[INST]", "<<SYS>>"},
     .sys_before = "<<SYS>>\n",
     .sys_after = "\n<</SYS>>\n\n",
     .sys_inside = true,
     .user_before = "[INST] ",
     .user_after = " [/INST]",
     .close = " </s><s>",
     .trim_user = true},
    {.name = "mistral", /* the first Instruct models: like llama2, without system messages */
     .has = {"[INST]"},
     .sys_after = "\n\n",
     .sys_inside = true,
     .user_before = "[INST] ",
     .user_after = " [/INST]",
     .close = "</s>"},
    {.name = "llama3", /* from 3.1 on */
     .has = {"<|start_header_id|>", "<|end_header_id|>", "Cutting Knowledge Date"},
     .sys_before = "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
                   "2023\nToday Date: 26 Jul 2024\n\n",
     .sys_after = "<|eot_id|>",
     .sys_always = true,
     .user_before = "<|start_header_id|>user<|end_header_id|>\n\n",
     .user_after = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     .close = "<|eot_id|>",
     .trim_sys = true,
     .trim_user = true},
    {.name = "llama3",
     .has = {"<|start_header_id|>", "<|end_header_id|>"},
     .sys_before = "<|start_header_id|>system<|end_header_id|>\n\n",
     .sys_after = "<|eot_id|>",
     .user_before = "<|start_header_id|>user<|end_header_id|>\n\n",
     .user_after = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     .close = "<|eot_id|>",
     .trim_sys = true,
     .trim_user = true},
    {.name = "gemma",
     .has = {"<start_of_turn>"},
     .sys_after = "\n\n",
     .sys_inside = true,
     .user_before = "<start_of_turn>user\n",
     .user_after = "<end_of_turn>\n<start_of_turn>model\n",
     .close = "<end_of_turn>\n",
     .trim_user = true},
};

#define KNOWN "chatml, llama2, llama3, mistral, gemma, harmony"

static bool contains(gguf_str s, const char *part) {
    return memmem(s.s, s.n, part, strlen(part)) != NULL;
}

static bool fits(const chat_style *style, gguf_str template) {
    if (style->lacks && contains(template, style->lacks)) return false;
    for (int i = 0; i < 3 && style->has[i]; i++)
        if (!contains(template, style->has[i])) return false;
    return true;
}

/* ChatML templates may hold a system message for conversations that have none: it stands in the
 * template as it will in the text, "<|im_start|>system\n...<|im_end|>", where those that insert a
 * message leave the string literal before its end. */
static void find_default_system(ttx_chat_format *out, gguf_str template) {
    static const char *const heads[] = {"<|im_start|>system\n", "<|im_start|>system\\n"};
    for (int h = 0; h < 2; h++) {
        const char *s = template.s, *end = template.s + template.n;
        while ((s = memmem(s, (size_t)(end - s), heads[h], strlen(heads[h])))) {
            s += strlen(heads[h]);
            const char *stop = memmem(s, (size_t)(end - s), "<|im_end|>", 10);
            size_t n = stop ? (size_t)(stop - s) : 0;
            if (n == 0 || memchr(s, '\'', n) || memchr(s, '"', n) || memchr(s, '{', n)) continue;
            out->system = s;
            out->n_system = n;
            return;
        }
    }
}

int ttx_chat_detect(ttx_chat_format *out, const gguf_file *f, ttx_err *err) {
    gguf_str template = {0};
    *out = (ttx_chat_format){0};
    int code = gguf_get_str(f, "tokenizer.chat_template", false, &template, err);
    if (code) return code;
    if (!template.n)
        return ttx_fail(err, TTX_E_MODEL,
                        "%s: tokenizer.chat_template: expected one of the formats " KNOWN
                        "; the file has none (is it a base model?)",
                        gguf_path(f));
    for (size_t i = 0; i < sizeof styles / sizeof *styles; i++) {
        if (!fits(&styles[i], template)) continue;
        out->style = &styles[i];
        if (i == 0) find_default_system(out, template);
        return TTX_OK;
    }
    return ttx_fail(err, TTX_E_MODEL,
                    "%s: tokenizer.chat_template: expected one of the formats " KNOWN
                    ", found another",
                    gguf_path(f));
}

const char *ttx_chat_name(ttx_chat_format format) {
    return format.style->name;
}

/* ---- writing ---- */

typedef struct text {
    char *s;
    size_t n;
} text;

static void put_z(text *out, const char *s) {
    if (s) out->n = (size_t)(stpcpy(out->s + out->n, s) - out->s);
}

static void put_bytes(text *out, const char *s, size_t n, bool trim) {
    while (trim && n && isspace((unsigned char)*s)) s++, n--;
    while (trim && n && isspace((unsigned char)s[n - 1])) n--;
    memcpy(out->s + out->n, s, n);
    out->n += n;
}

/* A string literal of the template: its newlines may be written "\n". */
static void put_literal(text *out, const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool newline = s[i] == '\\' && i + 1 < n && s[i + 1] == 'n';
        out->s[out->n++] = newline ? '\n' : s[i];
        i += newline;
    }
}

static void put_system(text *out, ttx_chat_format format, const char *system) {
    const chat_style *style = format.style;
    if (!system && !format.system && !style->sys_always) return;
    put_z(out, style->sys_before);
    if (system)
        put_bytes(out, system, strlen(system), style->trim_sys);
    else if (format.system)
        put_literal(out, format.system, format.n_system);
    put_z(out, style->sys_after);
}

static size_t length(const char *z) {
    return z ? strlen(z) : 0;
}

int ttx_chat_turn(ttx_chat_format format, const char *system, const char *user, size_t n,
                  bool first, char **rendered, size_t *n_rendered, ttx_err *err) {
    const chat_style *style = format.style;
    size_t cap = length(style->opening) + length(style->sys_before) + length(style->sys_after) +
                 length(style->user_before) + length(style->user_after) + length(style->close) +
                 length(system) + format.n_system + n + 1;
    text out = {.s = malloc(cap)};
    *rendered = out.s;
    if (!out.s) return ttx_fail_nomem(err, "a turn of the conversation", cap);
    put_z(&out, first ? style->opening : style->close);
    if (first && !style->sys_inside) put_system(&out, format, system);
    put_z(&out, style->user_before);
    if (first && style->sys_inside) put_system(&out, format, system);
    put_bytes(&out, user, n, style->trim_user);
    put_z(&out, style->user_after);
    out.s[out.n] = '\0';
    *n_rendered = out.n;
    return TTX_OK;
}
