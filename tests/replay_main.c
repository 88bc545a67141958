/* replay_main.c -- runs a fuzz target over files, without a fuzzer: any compiler, any sanitizer.
 *
 *     fuzz_x_replay FILE|FOLDER...      prints how many inputs it ran
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st) != 0) return perror(path), -1;
    size_t n = (size_t)st.st_size;
    uint8_t *data = malloc(n ? n : 1); /* exact, so that a sanitizer sees its end */
    if (!data || fread(data, 1, n, f) != n) return perror(path), -1;
    fclose(f);
    LLVMFuzzerTestOneInput(data, n);
    free(data);
    return 1;
}

static int run_path(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return run_file(path);
    int total = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        char inner[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(inner, sizeof inner, "%s/%s", path, e->d_name);
        int n = run_path(inner);
        if (n < 0) return -1;
        total += n;
    }
    closedir(dir);
    return total;
}

int main(int argc, char **argv) {
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int n = run_path(argv[i]);
        if (n < 0) return 1;
        total += n;
    }
    printf("%d inputs\n", total);
    return total == 0; /* nothing to run is not a pass */
}
