/* misuse.c -- libttx called wrongly: `misuse MODEL` returns 0 if every mistake has its code and its
 * line, and the timeline stands afterwards. */
#include <stdio.h>
#include <string.h>
#include <ttx.h>

static int failures;

static void expect(const ttx_lm *lm, const char *what, int found, int code, const char *message) {
    if (found == code && strstr(ttx_lm_error(lm), message) && (code || !*ttx_lm_error(lm))) return;
    failures++;
    printf("%s: expected %d '%s', found %d '%s'\n", what, code, message, found, ttx_lm_error(lm));
}

static void open_wrongly(const char *path, const ttx_lm_settings *settings, int code,
                         const char *message) {
    ttx_lm *lm;
    int rc = ttx_lm_open(&lm, path, settings);
    expect(lm, path, rc, code, message);
    ttx_lm_close(lm);
}

int main(int argc, char **argv) {
    ttx_lm_settings settings = ttx_lm_defaults();
    ttx_lm *lm;
    char bytes[8];
    size_t n = 0;
    int32_t id = -1, ids[17] = {0};
    if (argc != 2) return 2;
    open_wrongly("none", NULL, TTX_LM_RUNTIME, "none: No such file");
    open_wrongly("/", NULL, TTX_LM_RUNTIME, "expected a regular file");
    settings.n_ctx = UINT32_MAX;
    open_wrongly(argv[1], &settings, TTX_LM_USAGE, "context below");

    settings.n_ctx = 16;
    int rc = ttx_lm_open(&lm, argv[1], &settings);
    expect(lm, "open", rc, TTX_LM_OK, "");
    expect(lm, "sample of nothing", ttx_lm_sample(lm, &id), TTX_LM_USAGE, "nothing was evaluated");
    ids[1] = -1;
    expect(lm, "id -1", ttx_lm_eval(lm, ids, 2), TTX_LM_USAGE, "token 1: expected an id in 0..");
    ids[1] = (int32_t)ttx_lm_n_vocab(lm);
    expect(lm, "id too high", ttx_lm_eval(lm, ids, 2), TTX_LM_USAGE, "token 1: expected an id");
    ids[1] = 0;
    expect(lm, "17 of 16", ttx_lm_eval(lm, ids, 17), TTX_LM_USAGE, "17 more tokens do not fit");
    expect(lm, "piece", ttx_lm_piece(lm, -1, bytes, sizeof bytes, &n), TTX_LM_USAGE, "token: ");
    if (ttx_lm_pos(lm)) failures++, puts("what failed is on the timeline");

    expect(lm, "16 of 16", ttx_lm_eval(lm, ids, 16), TTX_LM_OK, "");
    expect(lm, "sample", ttx_lm_sample(lm, &id), TTX_LM_OK, "");
    expect(lm, "full", ttx_lm_eval(lm, &id, 1), TTX_LM_USAGE, "16 of 16 positions are taken");
    ttx_lm_rewind(lm, 99); /* nothing is there */
    if (ttx_lm_pos(lm) != 16) failures++, puts("rewinding forwards moved");
    ttx_lm_rewind(lm, 3);
    expect(lm, "after rewinding", ttx_lm_eval(lm, &id, 1), TTX_LM_OK, "");
    expect(lm, "no room", ttx_lm_tokenize(lm, "a b c", 5, ids, 1, &n), TTX_LM_OK, "");
    if (n < 2 || ttx_lm_pos(lm) != 4) failures++, puts("a count is wrong");
    ttx_lm_close(lm);
    ttx_lm_close(NULL);
    return failures != 0;
}
