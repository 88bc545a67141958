/* npy_test.c -- .npy files: there and back, and bad ones, each with its exact message. */
#include "check_harness.h"
#include "npy.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static int failures;

static char path[64];
static FILE *file;

static void begin(void) {
    if (file) fclose(file);
    int fd = memfd_create("npy", 0);
    file = fdopen(fd, "w+b");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
}

static void round_trip(void) {
    enum { ROWS = 3, COLS = 5 };
    float v[ROWS * COLS];
    ttx_err err = {0};
    ttx_npy m;
    begin();
    for (int i = 0; i < ROWS * COLS; i++) v[i] = (float)i * -1.25f;
    CHECK_INT(ttx_npy_header(file, ROWS, COLS, &err), 0);
    CHECK_INT(ftell(file), 128); /* the format wants values at a multiple of 64 */
    fwrite(v, sizeof v, 1, file);
    fflush(file);
    CHECK_INT(ttx_npy_open(&m, path, &err), 0);
    CHECK_STR(err.msg, "");
    CHECK_INT(m.rows, ROWS);
    CHECK_INT(m.cols, COLS);
    CHECK(m.values && memcmp(m.values, v, sizeof v) == 0);
    ttx_npy_close(&m);
    CHECK(m.values == NULL);
    ttx_npy_close(&m);
}

/* The header as numpy writes it: the text, blanks and a line end, up to a multiple of 64. */
static void put(const char *magic, const char *dict, int n_values) {
    char h[256];
    size_t n = (10 + strlen(dict) + 1 + 63) / 64 * 64;
    begin();
    memset(h, ' ', sizeof h);
    memcpy(h, magic, 8);
    h[8] = (char)(n - 10);
    h[9] = 0;
    memcpy(h + 10, dict, strlen(dict));
    h[n - 1] = '\n';
    fwrite(h, 1, n, file);
    for (int i = 0; i < n_values; i++) fwrite(&(float){1}, 4, 1, file);
    fflush(file);
}

static void expect(int code, const char *message) {
    ttx_err err = {0};
    ttx_npy m;
    char full[400];
    snprintf(full, sizeof full, "%s: %s", path, message);
    CHECK_INT(ttx_npy_open(&m, path, &err), code);
    CHECK_STR(err.msg, code ? full : "");
    if (!code) ttx_npy_close(&m);
}

#define V1   "\x93NUMPY\x01\x00"
#define GOOD "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
static const char not_npy[] = "expected a .npy file (version 1), found another";

static void bad_files(void) {
    put(V1, GOOD, 6);
    expect(TTX_OK, "");
    put(V1, "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4'}", 6); /* any order */
    expect(TTX_OK, "");
    put(V1, GOOD, 5);
    expect(TTX_E_USAGE, "expected 2 x 3 values, found 5");
    put("\x93NUMPY\x02\x00", GOOD, 6);
    expect(TTX_E_USAGE, not_npy);
    put("GGUF\x03\0\0\0", GOOD, 6);
    expect(TTX_E_USAGE, not_npy);
    begin();
    expect(TTX_E_USAGE, not_npy); /* empty */
    begin();
    fwrite("\x93NUMPY\x01\x00\xff\x01 {'descr'", 1, 18, file); /* ends inside its header */
    fflush(file);
    expect(TTX_E_USAGE, not_npy);
    put(V1, "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }", 12);
    expect(TTX_E_USAGE, "expected a float32 matrix in C order, found '{'descr': '<f8', "
                        "'fortran_order': False, 'shape': (2, 3), }'");
    put(V1, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 6);
    expect(TTX_E_USAGE, "expected a float32 matrix in C order, found '{'descr': '<f4', "
                        "'fortran_order': True, 'shape': (2, 3), }'");
    put(V1, "{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }", 6);
    expect(TTX_E_USAGE, "expected a float32 matrix in C order, found '{'descr': '<f4', "
                        "'fortran_order': False, 'shape': (6,), }'");
    put(V1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3), }", 6);
    expect(TTX_E_USAGE, "expected 0 x 3 values, found 6");
    put(V1, "{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }", 6);
    expect(TTX_E_USAGE, "expected 18446744073709551615 x 3 values, found 6");
    put(V1, "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }", 6);
    expect(TTX_E_USAGE, "expected 4294967296 x 4294967296 values, found 6");
    put(V1, "\n{}\x1b[2J\n", 6); /* one line, nothing that moves a cursor */
    expect(TTX_E_USAGE, "expected a float32 matrix in C order, found '?{}?[2J'");
    snprintf(path, sizeof path, "/nowhere/x.npy");
    expect(TTX_E_RUNTIME, "cannot open: No such file or directory");
}

/* Values that do not lie at a multiple of their size cannot be read in place. */
static void unaligned(void) {
    char h[] = V1 "\x77\x00" GOOD;
    begin();
    fwrite(h, 1, 10 + strlen(GOOD), file);
    fprintf(file, "%*s\n", (int)(0x77 - strlen(GOOD) - 1), "");
    for (int i = 0; i < 6; i++) fwrite(&(float){1}, 4, 1, file);
    fflush(file);
    expect(TTX_E_USAGE, not_npy);
}

int main(void) {
    round_trip();
    bad_files();
    unaligned();
    fclose(file);
    return failures != 0;
}
