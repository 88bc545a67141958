/* check_harness.h -- the few lines that a unit test needs: checks that go on after a failure and
 * say where it was, and an exit code.
 *
 *     static int failures;
 *     CHECK(x > 0); CHECK_INT(n, 3); CHECK_STR(err.msg, "...");
 *     return failures != 0;
 */
#ifndef CHECK_HARNESS_H
#define CHECK_HARNESS_H

#include <stdio.h>
#include <string.h>

#define CHECK(condition)   \
    ((condition) ? (void)0 \
                 : (void)(failures++, printf("%s:%d: %s\n", __FILE__, __LINE__, #condition)))

#define CHECK_INT(found, expected)                                                            \
    do {                                                                                      \
        long long f_ = (long long)(found), e_ = (long long)(expected);                        \
        if (f_ == e_) break;                                                                  \
        failures++;                                                                           \
        printf("%s:%d: %s: expected %lld, found %lld\n", __FILE__, __LINE__, #found, e_, f_); \
    } while (0)

#define CHECK_STR(found, expected)                                                                \
    do {                                                                                          \
        const char *f_ = (found), *e_ = (expected);                                               \
        if (strcmp(f_, e_) == 0) break;                                                           \
        failures++;                                                                               \
        printf("%s:%d: %s:\n  expected %s\n  found    %s\n", __FILE__, __LINE__, #found, e_, f_); \
    } while (0)

#endif
