/* trace_crc_test.c -- checksums: the published value, and folding against the tables. */
#include "check_harness.h"
#include "trace_crc.h"

#include <stdlib.h>

static int failures;

int main(void) {
    static uint8_t data[5000];
    static ttx_crc folds, tables;
    uint32_t seed = 1;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)((seed = seed * 69069 + 1) >> 24);
    ttx_crc_init(&folds);
    tables = folds;
    tables.clmul = false;
    CHECK_INT(ttx_crc32(&tables, 0, "123456789", 9), 0xcbf43926); /* as in every catalogue */
    if (!folds.clmul) puts("no carry-less multiplication here: only tables are tested");
    for (size_t n = 0; n < 400; n++)
        for (size_t at = 0; at < 70; at += 23) {
            uint32_t all = ttx_crc32(&tables, 7, data + at, n);
            CHECK_INT(ttx_crc32(&folds, 7, data + at, n), all);
            uint32_t half = ttx_crc32(&folds, 7, data + at, n / 2);
            CHECK_INT(ttx_crc32(&folds, half, data + at + n / 2, n - n / 2), all);
        }
    CHECK_INT(ttx_crc32(&folds, 0, data, sizeof data), ttx_crc32(&tables, 0, data, sizeof data));
    return failures != 0;
}
