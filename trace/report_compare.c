/* report_compare.c -- several runs side by side: whether the same is hot, comes in the same order,
 * and takes the same experts. Tensors are matched by name.
 */
#include "report_int.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct named {
    const char *name;
    double bytes, accesses;
    bool hot;
} named;

typedef struct side {
    named *v; /* sorted by name */
    uint32_t n;
} side;

typedef struct pair {
    uint32_t shared;    /* tensors of the same name */
    double hot_overlap; /* hot in both, of those hot in one */
    double bytes_correlation;
    double expert_correlation;
    double same_sequence; /* share of the base token's accesses that are equal from the start on */
    bool has_experts;
} pair;

static int by_name(const void *a, const void *b) {
    return strcmp(((const named *)a)->name, ((const named *)b)->name);
}

static bool make_side(const ttx_report *r, side *s) {
    uint32_t n, *order;
    rp_tensor_sum *sums = rp_tensor_sums(r, r->set.hot_by, &order, &n);
    s->v = malloc((r->meta.n_file_tensor + 1) * sizeof *s->v);
    s->n = 0;
    for (uint32_t i = 0; sums && s->v && i < n; i++)
        s->v[s->n++] = (named){r->meta.tensors[i].name, (double)sums[i].bytes,
                               (double)sums[i].accesses, sums[i].heat > 0};
    if (s->v) qsort(s->v, s->n, sizeof *s->v, by_name);
    bool ok = sums && s->v;
    free(sums);
    free(order);
    return ok;
}

/* Pearson's correlation from sums. */
typedef struct sums {
    double n, x, y, xx, yy, xy;
} sums;

static void add_point(sums *s, double x, double y) {
    s->n++;
    s->x += x;
    s->y += y;
    s->xx += x * x;
    s->yy += y * y;
    s->xy += x * y;
}

static double correlation(const sums *s) {
    double dx = s->n * s->xx - s->x * s->x, dy = s->n * s->yy - s->y * s->y;
    return dx > 0 && dy > 0 ? (s->n * s->xy - s->x * s->y) / sqrt(dx * dy) : NAN;
}

/* Usage of each expert as a share of its layer's activations: runs of any length compare. */
static void compare_experts(const ttx_report *a, const ttx_report *b, pair *p) {
    const rp_routes *x = &a->routes, *y = &b->routes;
    p->has_experts = x->n_expert && x->n_expert == y->n_expert && a->n_layer == b->n_layer;
    if (!p->has_experts) return;
    sums s = {0};
    for (uint32_t l = 0; l < a->n_layer; l++) {
        double nx = 0, ny = 0;
        const uint64_t *vx = x->n + (size_t)l * x->n_expert, *vy = y->n + (size_t)l * x->n_expert;
        for (uint32_t e = 0; e < x->n_expert; e++) {
            nx += (double)vx[e];
            ny += (double)vy[e];
        }
        if (nx <= 0 || ny <= 0) continue;
        for (uint32_t e = 0; e < x->n_expert; e++)
            add_point(&s, (double)vx[e] / nx, (double)vy[e] / ny);
    }
    p->expert_correlation = correlation(&s);
}

static const char *base_name(const ttx_report *r, uint32_t i) {
    return r->meta.tensors[r->objects[r->seq.base[i] & ~RP_PART].tensor].name;
}

static double compare_sequences(const ttx_report *a, const ttx_report *b) {
    uint32_t n = a->seq.n_base < b->seq.n_base ? a->seq.n_base : b->seq.n_base, i = 0;
    uint32_t most = a->seq.n_base > b->seq.n_base ? a->seq.n_base : b->seq.n_base;
    while (i < n && strcmp(base_name(a, i), base_name(b, i)) == 0) i++;
    return n ? rp_ratio(i, most) : NAN; /* a run without a decode token on record */
}

static pair compare(const ttx_report *a, const ttx_report *b) {
    pair p = {.hot_overlap = NAN, .bytes_correlation = NAN, .expert_correlation = NAN};
    side x = {0}, y = {0};
    if (make_side(a, &x) && make_side(b, &y)) {
        sums s = {0};
        uint32_t both = 0, one = 0;
        for (uint32_t i = 0, k = 0; i < x.n && k < y.n;) {
            int order = strcmp(x.v[i].name, y.v[k].name);
            if (order == 0) {
                add_point(&s, x.v[i].bytes, y.v[k].bytes);
                both += x.v[i].hot && y.v[k].hot;
            }
            i += order <= 0;
            k += order >= 0;
        }
        for (uint32_t i = 0; i < x.n; i++) one += x.v[i].hot;
        for (uint32_t i = 0; i < y.n; i++) one += y.v[i].hot;
        p.shared = (uint32_t)s.n;
        p.hot_overlap = rp_ratio(both, one - both);
        p.bytes_correlation = correlation(&s);
    }
    free(x.v);
    free(y.v);
    p.same_sequence = compare_sequences(a, b);
    compare_experts(a, b, &p);
    return p;
}

static double reuse_factor(const ttx_report *r) {
    uint64_t distinct = rp_io_distinct(&r->io, r->io.touched, 0, r->file_bytes);
    return rp_ratio((double)r->file_bytes_read, (double)distinct);
}

static double mean_distance(const ttx_report *r) {
    uint64_t n = 0;
    for (int i = 0; i < RP_DISTANCES; i++) n += r->reuse.n[i];
    return rp_ratio(r->reuse.distance_sum, (double)n);
}

/* The numbers of one run, in the order of `figures`. */
enum { N_FIGURES = 10 };
static const char *const figures[N_FIGURES] = {"records",
                                               "prompt_tokens",
                                               "decode_tokens",
                                               "decode_tokens_per_second",
                                               "weight_bytes",
                                               "sequential_share",
                                               "reuse_factor",
                                               "mean_reuse_distance",
                                               "same_tensor_sequence",
                                               "same_object_sequence"};

static void figures_of(const ttx_report *r, double v[N_FIGURES]) {
    double others = r->seq.n_token > 1 ? (double)(r->seq.n_token - 1) : 0;
    const double all[N_FIGURES] = {
        (double)r->records,
        (double)r->phases[0].n,
        (double)r->phases[1].n,
        rp_ratio((double)r->phases[1].n * 1e9, (double)r->phases[1].ns),
        (double)r->file_bytes_read,
        rp_ratio((double)r->reuse.sequential, (double)r->reuse.compared),
        reuse_factor(r),
        mean_distance(r),
        rp_ratio((double)r->seq.same_tensors, others),
        rp_ratio((double)r->seq.same_objects, others),
    };
    memcpy(v, all, sizeof all);
}

void ttx_report_compare_json(ttx_report *const *v, int n, FILE *out) {
    rp_json j = {.f = out};
    rp_begin(&j, NULL, '{');
    rp_u64(&j, "format", 1);
    rp_begin(&j, "runs", '[');
    for (int i = 0; i < n; i++) {
        double f[N_FIGURES];
        figures_of(v[i], f);
        rp_begin(&j, NULL, '{');
        rp_text(&j, "trace", v[i]->meta.dir);
        rp_text(&j, "model_file", v[i]->meta.model_file);
        rp_text(&j, "model_hash", v[i]->meta.model_hash);
        for (int k = 0; k < N_FIGURES; k++) rp_num(&j, figures[k], f[k]);
        rp_end(&j, '}');
    }
    rp_end(&j, ']');
    rp_begin(&j, "pairs", '[');
    for (int a = 0; a < n; a++)
        for (int b = a + 1; b < n; b++) {
            pair p = compare(v[a], v[b]);
            rp_begin(&j, NULL, '{');
            rp_u64(&j, "a", (uint64_t)a);
            rp_u64(&j, "b", (uint64_t)b);
            rp_bool(&j, "same_model", strcmp(v[a]->meta.model_hash, v[b]->meta.model_hash) == 0);
            rp_u64(&j, "shared_tensors", p.shared);
            rp_num(&j, "same_sequence", p.same_sequence);
            rp_num(&j, "hot_overlap", p.hot_overlap);
            rp_num(&j, "bytes_correlation", p.bytes_correlation);
            if (p.has_experts) rp_num(&j, "expert_correlation", p.expert_correlation);
            rp_end(&j, '}');
        }
    rp_end(&j, ']');
    rp_end(&j, '}');
    fputc('\n', out);
}

void ttx_report_compare_print(ttx_report *const *v, int n, FILE *out) {
    for (int i = 0; i < n; i++)
        fprintf(out, "%c: %s (%s)\n", 'A' + i % 26, v[i]->meta.dir, v[i]->meta.model_file);
    fprintf(out, "\n%-26s", "");
    for (int i = 0; i < n; i++) fprintf(out, " %14c", 'A' + i % 26);
    fputc('\n', out);
    for (int k = 0; k < N_FIGURES; k++) {
        fprintf(out, "%-26s", figures[k]);
        for (int i = 0; i < n; i++) {
            double f[N_FIGURES];
            figures_of(v[i], f);
            fprintf(out, f[k] < 1e9 ? " %14.6g" : " %14.0f", f[k]);
        }
        fputc('\n', out);
    }
    fputc('\n', out);
    for (int a = 0; a < n; a++)
        for (int b = a + 1; b < n; b++) {
            pair p = compare(v[a], v[b]);
            fprintf(out, "%c, %c: %u tensors of the same name", 'A' + a % 26, 'A' + b % 26,
                    p.shared);
            if (!isnan(p.same_sequence))
                fprintf(out, "; sequence equal for %.1f%% of a decode token",
                        100 * p.same_sequence);
            if (p.shared)
                fprintf(out, "; hot sets overlap %.1f%%; bytes correlate %.3f", 100 * p.hot_overlap,
                        p.bytes_correlation);
            if (p.has_experts) fprintf(out, "; expert usage correlates %.3f", p.expert_correlation);
            fputc('\n', out);
        }
}
