/* chat_render.c -- writes a conversation as ttx_chat_turn has it, for chat_compare.py.
 *
 *     chat_render TEMPLATE-FILE SYSTEM|- USER [ANSWER USER]...
 */
#include "chat.h"
#include "vocab_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    static char template[1 << 20];
    FILE *in = argc >= 4 ? fopen(argv[1], "rb") : NULL;
    if (!in || fread(template, 1, sizeof template - 1, in) == 0) return 2;
    fclose(in);
    vocab_file v = {0};
    vf_str(&v, "tokenizer.chat_template", template);
    gguf_file *f = vf_open(&v);
    ttx_err err = {0};
    ttx_chat_format format;
    const char *system = strcmp(argv[2], "-") == 0 ? NULL : argv[2];
    int code = ttx_chat_detect(&format, f, &err);
    for (int i = 3; i < argc && !code; i += 2) {
        char *turn;
        size_t n;
        code = ttx_chat_turn(format, system, argv[i], strlen(argv[i]), i == 3, &turn, &n, &err);
        if (code) break;
        fputs(turn, stdout);
        if (i + 1 < argc) fputs(argv[i + 1], stdout);
        free(turn);
    }
    if (code) fprintf(stderr, "%s\n", err.msg);
    gguf_close(f);
    vf_free(&v);
    return code;
}
