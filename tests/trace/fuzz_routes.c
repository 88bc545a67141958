/* fuzz_routes.c -- a fuzzer's bytes as a route file: read, replayed, and its statistics written.
 *
 * The bytes live in a memory file. Built by clang with libFuzzer (TTX_FUZZ), or with replay_main.c,
 * which runs files given on the command line.
 */
#include "expert_stats.h"
#include "route_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS = 40, LAYERS = 6 }; /* that are asked for */

/* What a reader of routes may rely on. */
static void check_route(const ttx_route *r, int most) {
    if (r->k < 1 || r->k > most || most > TTX_MAX_EXPERTS_USED) abort();
    for (int32_t i = 0; i < r->k; i++) {
        if (r->expert[i] < 0 || r->expert[i] >= TTX_MAX_EXPERTS || !isfinite(r->weight[i])) abort();
        for (int32_t j = 0; j < i; j++)
            if (r->expert[i] == r->expert[j]) abort();
    }
}

static void replay(ttx_route_file *f, ttx_route_sink sink) {
    static const uint32_t steps[] = {100, 16777215, 16777216, UINT32_MAX};
    for (uint32_t i = 0; i < STEPS + sizeof steps / sizeof *steps; i++) {
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            ttx_route r = {.step = i < STEPS ? i : steps[i - STEPS], .layer = layer};
            r.decode = i > 9;
            if (!ttx_route_file_choose(f, &r)) continue;
            check_route(&r, ttx_route_file_k(f));
            sink.chosen(sink.ctx, &r);
        }
        if (i == STEPS / 2) sink.restart(sink.ctx);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    int fd = memfd_create("routes", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ttx_route_file *f = NULL;
    ttx_err err = {0};
    int rc = ttx_route_file_load(&f, path, &err);
    if (rc ? rc != TTX_E_MODEL || f || !err.msg[0] : err.msg[0]) abort();
    close(fd);
    if (rc) return 0;
    /* Statistics of a model that is smaller than some of the routes. */
    if (ttx_route_file_check(f, 1024, 1024, &err)) abort();
    ttx_expert_stats *s = NULL;
    FILE *nowhere = fopen("/dev/null", "w");
    if (!nowhere || ttx_expert_stats_new(&s, LAYERS, 16, &err)) abort();
    replay(f, ttx_expert_stats_sink(s));
    if (ttx_expert_stats_json(s, nowhere, &err)) abort();
    ttx_expert_stats_print(s, nowhere);
    ttx_expert_stats_print_layers(s, nowhere);
    fclose(nowhere);
    ttx_expert_stats_free(s);
    ttx_route_file_free(f);
    return 0;
}
