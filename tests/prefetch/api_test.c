/* api_test.c -- libttx streams a model that does not fit: the same logits, and an error that says
 * how little is too little.
 *
 *     api_test MODEL RAM_MIB     a model that does not fit in RAM_MIB, but can be streamed in it
 */
#include "check_harness.h"
#include "ttx.h"

#include <stdlib.h>
#include <string.h>

static int failures;

enum { N = 24 };

static ttx_lm *open_with(const char *path, uint64_t ram, int expected) {
    ttx_lm_settings set = ttx_lm_defaults();
    ttx_lm *lm;
    set.n_threads = 2;
    set.n_ctx = 128;
    set.ram = ram;
    CHECK_INT(ttx_lm_open(&lm, path, &set), expected);
    return lm;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    ttx_lm *plain = open_with(argv[1], 0, TTX_LM_OK);
    ttx_lm *streamed = open_with(argv[1], strtoull(argv[2], NULL, 10) << 20, TTX_LM_OK);
    ttx_lm *none = open_with(argv[1], 1 << 20, TTX_LM_RUNTIME);
    CHECK(strstr(ttx_lm_error(none), "memory budget: expected at least "));
    size_t bytes = ttx_lm_n_vocab(plain) * sizeof(float);
    for (int32_t i = 0; i < N && !failures; i++) {
        int32_t id = (i * 37 + 5) % 256;
        CHECK_INT(ttx_lm_eval(plain, &id, 1), TTX_LM_OK);
        CHECK_INT(ttx_lm_eval(streamed, &id, 1), TTX_LM_OK);
        CHECK(memcmp(ttx_lm_logits(plain), ttx_lm_logits(streamed), bytes) == 0);
    }
    ttx_lm_close(plain);
    ttx_lm_close(streamed);
    ttx_lm_close(none);
    printf("%d failures\n", failures);
    return failures != 0;
}
