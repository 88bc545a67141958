/* route_stats_main.c -- expert statistics of a route file, or what counting a route costs.
 *
 *     route_stats FILE.csv json|summary|layers     the statistics, on standard output
 *     route_stats FILE.csv time                    nanoseconds a route, best of some passes
 *
 * Has a reader of its own that believes what it reads, so that every turn is seen; the reader of
 * trace/route_file.c follows one turn.
 */
#include "expert_stats.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct recorded {
    ttx_route route;
    unsigned turn;
};

struct table {
    struct recorded *rows;
    size_t n, cap;
    uint32_t n_layer, n_expert;
};

static int read_table(struct table *t, FILE *in) {
    char line[512];
    while (fgets(line, sizeof line, in)) {
        unsigned turn, phase, step, layer, slot, expert;
        float weight;
        const char *of_model = strstr(line, "n_layer=");
        if (of_model) sscanf(of_model, "n_layer=%u n_expert=%u", &t->n_layer, &t->n_expert);
        if (sscanf(line, "%u,%u,%u,%u,%u,%u,%f", &turn, &phase, &step, &layer, &slot, &expert,
                   &weight) != 7)
            continue;
        if (slot == 0 && t->n == t->cap) {
            t->cap = t->cap ? 2 * t->cap : 1024;
            struct recorded *more = realloc(t->rows, t->cap * sizeof *more);
            if (!more) return -1;
            t->rows = more;
        }
        if (slot == 0) memset(&t->rows[t->n++], 0, sizeof *t->rows);
        struct recorded *r = &t->rows[t->n - 1];
        r->turn = turn;
        r->route.decode = phase == 1;
        r->route.step = step;
        r->route.layer = layer;
        r->route.expert[slot] = (int32_t)expert;
        r->route.weight[slot] = weight;
        r->route.k = (int32_t)slot + 1;
    }
    return t->n ? 0 : -1;
}

static void feed(const struct table *t, ttx_route_sink sink) {
    for (size_t i = 0; i < t->n; i++) {
        if (i && t->rows[i].turn != t->rows[i - 1].turn) sink.restart(sink.ctx);
        sink.chosen(sink.ctx, &t->rows[i].route);
    }
}

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double best_time(const struct table *t, ttx_route_sink sink) {
    double best = 1e9;
    for (int i = 0; i < 20; i++) {
        double start = seconds();
        feed(t, sink);
        sink.restart(sink.ctx);
        double took = seconds() - start;
        if (took < best) best = took;
    }
    return best / (double)t->n;
}

static int report(const struct table *t, ttx_expert_stats *s, const char *what, ttx_err *err) {
    ttx_route_sink sink = ttx_expert_stats_sink(s);
    if (strcmp(what, "time") == 0) {
        printf("%.1f ns a route\n", 1e9 * best_time(t, sink));
        return 0;
    }
    feed(t, sink);
    if (strcmp(what, "json") == 0) return ttx_expert_stats_json(s, stdout, err);
    if (strcmp(what, "layers") == 0)
        ttx_expert_stats_print_layers(s, stdout);
    else
        ttx_expert_stats_print(s, stdout);
    return 0;
}

int main(int argc, char **argv) {
    FILE *in = argc == 3 ? fopen(argv[1], "r") : NULL;
    struct table t = {0};
    ttx_expert_stats *s = NULL;
    ttx_err err = {0};
    int rc = in ? read_table(&t, in) : -1;
    if (rc) ttx_fail(&err, TTX_E_RUNTIME, "cannot read routes");
    if (!rc) rc = ttx_expert_stats_new(&s, t.n_layer, t.n_expert, &err);
    if (!rc) rc = report(&t, s, argv[2], &err);
    if (rc) fprintf(stderr, "route_stats: %s\n", err.msg);
    if (in) fclose(in);
    ttx_expert_stats_free(s);
    free(t.rows);
    return rc != 0;
}
