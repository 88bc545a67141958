/* chat_test.c -- which template is which format, and what each format writes. */
#include "chat.h"
#include "check_harness.h"
#include "vocab_file.h"

#include <stdlib.h>

static int failures;

/* Two turns: system (may be NULL) and "U1", the answer "A1", then "U2". */
static const char *conversation(const char *template, const char *system) {
    static char out[4096];
    vocab_file v = {0};
    ttx_err err = {0};
    ttx_chat_format format;
    char *first = NULL, *second = NULL;
    size_t n = 0;
    if (template) vf_str(&v, "tokenizer.chat_template", template);
    gguf_file *f = vf_open(&v);
    out[0] = '\0';
    if (ttx_chat_detect(&format, f, &err)) {
        snprintf(out, sizeof out, "%s", strstr(err.msg, ": ") + 2);
    } else if (ttx_chat_turn(format, system, " U1\n", 4, true, &first, &n, &err) ||
               ttx_chat_turn(format, system, "U2", 2, false, &second, &n, &err)) {
        snprintf(out, sizeof out, "%s", err.msg);
    } else {
        snprintf(out, sizeof out, "%s: %sA1%s", ttx_chat_name(format), first, second);
    }
    free(first);
    free(second);
    gguf_close(f);
    vf_free(&v);
    return out;
}

#define CHAT(template, system, expected) CHECK_STR(conversation(template, system), expected)

static void test_chatml(void) {
    const char *plain = "{{'<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>'}}";
    CHAT(plain, NULL,
         "chatml: <|im_start|>user\n U1\n<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
         "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n");
    CHAT(plain, "S",
         "chatml: <|im_start|>system\nS<|im_end|>\n<|im_start|>user\n U1\n<|im_end|>\n"
         "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n"
         "<|im_start|>assistant\n");
    /* the template's own system message, its newlines escaped or not */
    const char *with_default = "'<|im_start|>system\\n' + x + '<|im_end|>' "
                               "'<|im_start|>system\\nBe\\nkind.<|im_end|>\\n'";
    CHAT(with_default, NULL,
         "chatml: <|im_start|>system\nBe\nkind.<|im_end|>\n<|im_start|>user\n U1\n<|im_end|>\n"
         "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n"
         "<|im_start|>assistant\n");
    CHAT(with_default, "",
         "chatml: <|im_start|>system\n<|im_end|>\n<|im_start|>user\n U1\n<|im_end|>\n"
         "<|im_start|>assistant\nA1<|im_end|>\n<|im_start|>user\nU2<|im_end|>\n"
         "<|im_start|>assistant\n");
}

static void test_llama(void) {
    CHAT("[INST] <<SYS>>", "S",
         "llama2: [INST] <<SYS>>\nS\n<</SYS>>\n\nU1 [/INST]A1 </s><s>[INST] U2 [/INST]");
    CHAT("<|start_header_id|><|end_header_id|>", "\nS ",
         "llama3: <|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n");
    CHAT("<|start_header_id|><|end_header_id|>Cutting Knowledge Date", NULL,
         "llama3: <|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
         "2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

static void test_mistral(void) {
    CHAT("'[INST] '", "S", "mistral: [INST] S\n\n U1\n [/INST]A1</s>[INST] U2 [/INST]");
    CHAT("' [INST] ' + system_message", "S",
         "mistral:  [INST] S\n\n U1\n [/INST]A1</s> [INST] U2 [/INST]");
    CHAT("\"[INST] \" [AVAILABLE_TOOLS]", NULL,
         "mistral: [INST]  U1\n[/INST]A1</s>[INST] U2[/INST]");
    CHAT("\"[INST]\" [AVAILABLE_TOOLS]", NULL, "mistral: [INST] U1\n[/INST]A1</s>[INST]U2[/INST]");
    CHAT("[INST] [SYSTEM_PROMPT]", "S",
         "mistral: [SYSTEM_PROMPT] S[/SYSTEM_PROMPT][INST]  U1\n[/INST]A1</s>[INST] U2[/INST]");
    CHAT("[INST][SYSTEM_PROMPT]", "S",
         "mistral: [SYSTEM_PROMPT]S[/SYSTEM_PROMPT][INST] U1\n[/INST]A1</s>[INST]U2[/INST]");
}

static void test_others(void) {
    CHAT("<start_of_turn>", "S",
         "gemma: <start_of_turn>user\nS\n\nU1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
         "<start_of_turn>user\nU2<end_of_turn>\n<start_of_turn>model\n");
    CHAT("<|start|><|message|><|channel|>", "S",
         "harmony: <|start|>system<|message|>You are ChatGPT, a large language model trained by "
         "OpenAI.\nKnowledge cutoff: 2024-06\nCurrent date: 2025-08-05\n\nReasoning: medium\n\n"
         "# Valid channels: analysis, commentary, final. Channel must be included for every "
         "message.<|end|><|start|>developer<|message|># Instructions\n\nS<|end|>"
         "<|start|>user<|message|> U1\n<|end|><|start|>assistantA1<|end|>"
         "<|start|>user<|message|>U2<|end|><|start|>assistant");
}

static void test_refused(void) {
    CHAT(NULL, NULL,
         "tokenizer.chat_template: expected one of the formats chatml, llama2, llama3, mistral, "
         "gemma, harmony; the file has none (is it a base model?)");
    CHAT("### Instruction:", NULL,
         "tokenizer.chat_template: expected one of the formats chatml, llama2, llama3, mistral, "
         "gemma, harmony, found another");
    CHAT("<|im_start|>user<|im_sep|>", NULL,
         "tokenizer.chat_template: expected one of the formats chatml, llama2, llama3, mistral, "
         "gemma, harmony, found another");
}

int main(void) {
    test_chatml();
    test_llama();
    test_mistral();
    test_others();
    test_refused();
    printf("%s\n", failures ? "FAILED" : "passed");
    return failures != 0;
}
