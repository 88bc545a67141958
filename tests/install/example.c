/* example.c -- libttx in use: `example MODEL PROMPT` prints the prompt and 32 tokens more. */
#include <stdio.h>
#include <string.h>
#include <ttx.h>

static int complete(ttx_lm *lm, const char *prompt) {
    int32_t ids[1024], id;
    char text[256];
    size_t n, len;
    int rc = ttx_lm_tokenize(lm, prompt, strlen(prompt), ids, 1024, &n);
    if (!rc && n > 1024) n = 1024; /* a longer prompt would need a larger array */
    if (!rc) rc = ttx_lm_eval(lm, ids, n);
    fputs(prompt, stdout);
    for (int i = 0; !rc && i < 32; i++) {
        rc = ttx_lm_sample(lm, &id);
        if (rc || ttx_lm_is_end(lm, id)) break;
        rc = ttx_lm_piece(lm, id, text, sizeof text, &len);
        if (!rc && len <= sizeof text) fwrite(text, 1, len, stdout);
        if (!rc) rc = ttx_lm_eval(lm, &id, 1);
    }
    puts("");
    return rc;
}

int main(int argc, char **argv) {
    if (argc != 3) return fprintf(stderr, "usage: example MODEL PROMPT\n"), 2;
    ttx_lm_settings settings = ttx_lm_defaults();
    settings.temp = 0; /* always the most probable token */
    ttx_lm *lm;
    int rc = ttx_lm_open(&lm, argv[1], &settings);
    if (!rc) rc = complete(lm, argv[2]);
    if (rc) fprintf(stderr, "example: %s\n", lm ? ttx_lm_error(lm) : "out of memory");
    ttx_lm_close(lm);
    return rc;
}
