/* route_file.c -- see route_file.h. */
#include "route_file.h"

#include "outfile.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { N_FIELDS = 9, MAX_STEP = 1 << 24, MAX_LAYER = 1024 };

/* The rows of one (turn, step, layer). */
struct group {
    uint32_t turn, step, layer;
    bool decode;
    int32_t k;
    uint32_t first; /* of expert and weight */
};

struct ttx_route_file {
    struct group *groups; /* sorted by turn, step, layer */
    size_t n_groups, groups_cap;
    uint16_t *expert;
    float *weight;
    size_t n_rows, rows_cap;
    uint32_t max_layer, max_expert;
    int max_k;
    /* Turn 0: its steps, and those of them that decode. */
    uint32_t n_step, first_decode;
};

/* ---- reading ---- */

struct reader {
    ttx_route_file *f;
    const char *path;
    size_t line;
    ttx_err *err;
};

static int bad(const struct reader *r, const char *what, const char *expected) {
    return ttx_fail(r->err, TTX_E_MODEL, "%s: line %zu: %s: expected %s", r->path, r->line, what,
                    expected);
}

/* One more element for an array that doubles. */
static int grow(void **p, size_t n, size_t *cap, size_t size, ttx_err *err) {
    if (n < *cap) return TTX_OK;
    size_t more = *cap ? 2 * *cap : 4096;
    void *q = realloc(*p, more * size);
    if (!q) return ttx_fail_nomem(err, "routes", more * size);
    *p = q;
    *cap = more;
    return TTX_OK;
}

/* The columns of a row: eight whole numbers and, as the seventh column, the weight. */
struct row {
    uint32_t v[N_FIELDS];
    float weight;
};
enum { TURN, PHASE, STEP, LAYER, SLOT, EXPERT, WEIGHT, RESIDENCY, BYTES };

static int parse_row(const struct reader *r, const char *s, struct row *row) {
    static const char *const names[N_FIELDS] = {
        "turn", "phase", "step", "layer", "slot", "expert", "weight", "residency", "expert_bytes"};
    static const char *const expected[N_FIELDS] = {
        "a whole number", "0 or 1",   "0..16777215",    "0..1023",       "0..31",
        "0..1023",        "a number", "a whole number", "a whole number"};
    static const unsigned long long most[N_FIELDS] = {
        MAX_STEP, 1,   MAX_STEP - 1, MAX_LAYER - 1, TTX_MAX_EXPERTS_USED - 1, TTX_MAX_EXPERTS - 1,
        0,        255, UINT64_MAX};
    for (int i = 0; i < N_FIELDS; i++) {
        char *end = (char *)s;
        errno = 0;
        unsigned long long v = 0;
        if (i == WEIGHT)
            row->weight = strtof(s, &end);
        else if (*s >= '0' && *s <= '9')
            v = strtoull(s, &end, 10);
        bool ok = end != s && !errno && *end == (i + 1 < N_FIELDS ? ',' : 0);
        if (i == WEIGHT) ok = end != s && isfinite(row->weight) && *end == ',';
        if (!ok || (i != WEIGHT && v > most[i])) return bad(r, names[i], expected[i]);
        row->v[i] = (uint32_t)v;
        s = end + 1;
    }
    return TTX_OK;
}

static int add_row(const struct reader *r, const struct row *row) {
    ttx_route_file *f = r->f;
    const uint32_t *v = row->v;
    struct group *g = f->n_groups ? &f->groups[f->n_groups - 1] : NULL;
    bool same = g && g->turn == v[TURN] && g->step == v[STEP] && g->layer == v[LAYER];
    if (v[SLOT] != (same ? (uint32_t)g->k : 0))
        return bad(r, "slot", "0 for a new token and layer, then one after the other");
    if (same && g->decode != (v[PHASE] == 1)) return bad(r, "phase", "that of the row before");
    for (int32_t i = 0; same && i < g->k; i++)
        if (f->expert[g->first + (uint32_t)i] == v[EXPERT])
            return bad(r, "expert", "another one for each slot");
    size_t cap = f->rows_cap;
    int rc = grow((void **)&f->expert, f->n_rows, &cap, sizeof *f->expert, r->err);
    if (!rc) rc = grow((void **)&f->weight, f->n_rows, &f->rows_cap, sizeof *f->weight, r->err);
    if (!rc && !same) {
        rc = grow((void **)&f->groups, f->n_groups, &f->groups_cap, sizeof *f->groups, r->err);
        if (rc) return rc;
        g = &f->groups[f->n_groups++];
        *g = (struct group){v[TURN], v[STEP], v[LAYER], v[PHASE] == 1, 0, (uint32_t)f->n_rows};
    }
    if (rc) return rc;
    f->expert[f->n_rows] = (uint16_t)v[EXPERT];
    f->weight[f->n_rows++] = row->weight;
    g->k++;
    if (g->k > f->max_k) f->max_k = g->k;
    if (v[LAYER] > f->max_layer) f->max_layer = v[LAYER];
    if (v[EXPERT] > f->max_expert) f->max_expert = v[EXPERT];
    return TTX_OK;
}

static int read_lines(struct reader *r, FILE *in) {
    static const char columns[] = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes";
    char line[512];
    bool titled = false;
    for (r->line = 1; fgets(line, sizeof line, in); r->line++) {
        size_t n = strlen(line);
        if ((!n || line[n - 1] != '\n') && !feof(in)) /* too long, or a zero byte in it */
            return bad(r, "line", "text, at most 510 characters");
        line[strcspn(line, "\r\n")] = 0;
        if (r->line == 1 && strcmp(line, "# route_trace v1") != 0)
            return bad(r, "first line", "'# route_trace v1'");
        if (line[0] == '#' || !line[0]) continue;
        if (!titled) {
            if (strcmp(line, columns) != 0) return bad(r, "columns", columns);
            titled = true;
            continue;
        }
        struct row row = {0};
        int rc = parse_row(r, line, &row);
        if (!rc) rc = add_row(r, &row);
        if (rc) return rc;
    }
    if (ferror(in))
        return ttx_fail(r->err, TTX_E_RUNTIME, "%s: cannot read: %s", r->path, strerror(errno));
    if (r->line == 1) return bad(r, "first line", "'# route_trace v1'");
    return r->f->n_groups ? TTX_OK : bad(r, "rows", "at least one");
}

static int by_place(const void *a, const void *b) {
    const struct group *x = a, *y = b;
    if (x->turn != y->turn) return x->turn < y->turn ? -1 : 1;
    if (x->step != y->step) return x->step < y->step ? -1 : 1;
    return (x->layer > y->layer) - (x->layer < y->layer);
}

/* Sorts, refuses doubles, and finds the decode steps of the first turn. */
static int finish(const struct reader *r) {
    ttx_route_file *f = r->f;
    qsort(f->groups, f->n_groups, sizeof *f->groups, by_place);
    uint32_t turn = f->groups[0].turn;
    f->first_decode = UINT32_MAX;
    for (size_t i = 0; i < f->n_groups; i++) {
        const struct group *g = &f->groups[i];
        if (i && by_place(g - 1, g) == 0)
            return ttx_fail(r->err, TTX_E_MODEL,
                            "%s: turn %u, step %u, layer %u: expected once, found twice", r->path,
                            g->turn, g->step, g->layer);
        if (g->turn != turn) continue;
        if (g->decode && g->step < f->first_decode) f->first_decode = g->step;
        f->n_step = g->step + 1;
    }
    if (f->first_decode > f->n_step) f->first_decode = 0; /* no decode steps: all repeat */
    return TTX_OK;
}

int ttx_route_file_load(ttx_route_file **out, const char *path, ttx_err *err) {
    *out = NULL;
    FILE *in = fopen(path, "re");
    if (!in) return ttx_fail(err, TTX_E_RUNTIME, "%s: cannot open: %s", path, strerror(errno));
    ttx_route_file *f = calloc(1, sizeof *f);
    struct reader r = {f, path, 0, err};
    int rc = f ? read_lines(&r, in) : ttx_fail_nomem(err, "routes", sizeof *f);
    if (!rc) rc = finish(&r);
    fclose(in);
    if (rc) {
        ttx_route_file_free(f);
        return rc;
    }
    *out = f;
    return TTX_OK;
}

void ttx_route_file_free(ttx_route_file *f) {
    if (!f) return;
    free(f->groups);
    free(f->expert);
    free(f->weight);
    free(f);
}

/* ---- replay ---- */

int ttx_route_file_k(const ttx_route_file *f) {
    return f->max_k;
}

int ttx_route_file_check(const ttx_route_file *f, uint32_t n_layer, uint32_t n_expert,
                         ttx_err *err) {
    if (f->max_layer >= n_layer)
        return ttx_fail(err, TTX_E_MODEL,
                        "routes: expected at most the model's %u layers, found %u", n_layer,
                        f->max_layer + 1);
    if (f->max_expert >= n_expert)
        return ttx_fail(err, TTX_E_MODEL,
                        "routes: expected at most the model's %u experts, found expert %u",
                        n_expert, f->max_expert);
    return TTX_OK;
}

bool ttx_route_file_choose(void *file, ttx_route *r) {
    const ttx_route_file *f = file;
    struct group key = {.turn = f->groups[0].turn, .step = r->step, .layer = r->layer};
    if (key.step >= f->n_step)
        key.step = f->first_decode + (key.step - f->first_decode) % (f->n_step - f->first_decode);
    const struct group *g = bsearch(&key, f->groups, f->n_groups, sizeof *f->groups, by_place);
    if (!g) return false;
    r->k = g->k;
    for (int32_t i = 0; i < g->k; i++) {
        r->expert[i] = f->expert[g->first + (uint32_t)i];
        r->score[i] = r->weight[i] = f->weight[g->first + (uint32_t)i];
    }
    return true;
}

/* ---- writing ---- */

struct ttx_route_writer {
    ttx_outfile out;
    uint32_t turn;
    bool any; /* rows of this turn were written */
    uint32_t n_layer;
    uint64_t expert_bytes[MAX_LAYER];
};

static void write_route(void *ctx, const ttx_route *r) {
    ttx_route_writer *w = ctx;
    w->any = true;
    for (int32_t i = 0; i < r->k; i++)
        fprintf(w->out.f, "%u,%d,%u,%u,%d,%d,%.9g,0,%llu\n", w->turn, r->decode, r->step, r->layer,
                i, r->expert[i], (double)r->weight[i],
                r->layer < w->n_layer ? (unsigned long long)w->expert_bytes[r->layer] : 0);
}

static void next_turn(void *ctx) {
    ttx_route_writer *w = ctx;
    w->turn += w->any;
    w->any = false;
}

/* A name as one word of a header line, which has a length that a reader takes. */
static void put_name(FILE *out, const char *name) {
    for (size_t i = 0; i < 128 && name[i]; i++)
        fputc((unsigned char)name[i] > ' ' && name[i] != 0x7f ? name[i] : '_', out);
}

int ttx_route_writer_open(ttx_route_writer **out, const char *path, const ttx_route_info *info,
                          ttx_err *err) {
    *out = NULL;
    ttx_route_writer *w = calloc(1, sizeof *w);
    if (!w) return ttx_fail_nomem(err, "route writer", sizeof *w);
    int rc = ttx_outfile_open(&w->out, path, err);
    if (rc) {
        free(w);
        return rc;
    }
    w->n_layer = info->n_layer < MAX_LAYER ? info->n_layer : MAX_LAYER;
    memcpy(w->expert_bytes, info->expert_bytes, w->n_layer * sizeof *w->expert_bytes);
    fputs("# route_trace v1\n# model=", w->out.f);
    put_name(w->out.f, info->model);
    fputs(" arch=", w->out.f);
    put_name(w->out.f, info->arch);
    fprintf(w->out.f, " n_layer=%u n_expert=%u n_expert_used=%u\n", info->n_layer, info->n_expert,
            info->n_expert_used);
    for (uint32_t i = 0; i < info->n_layer; i++)
        fprintf(w->out.f, "# layer=%u expert_bytes=%llu dense_bytes=%llu\n", i,
                (unsigned long long)info->expert_bytes[i],
                (unsigned long long)info->dense_bytes[i]);
    fprintf(w->out.f, "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n");
    *out = w;
    return TTX_OK;
}

ttx_route_sink ttx_route_writer_sink(ttx_route_writer *w) {
    return (ttx_route_sink){write_route, next_turn, w};
}

int ttx_route_writer_close(ttx_route_writer *w, int rc, ttx_err *err) {
    if (!w) return rc;
    rc = ttx_outfile_close(&w->out, rc, err);
    free(w);
    return rc;
}
