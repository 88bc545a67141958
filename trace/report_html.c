/* report_html.c -- the page: statistics, the packed tables, and the sources of trace/web/ that draw
 * them, in one file.
 *
 * The sources are embedded when ttx is built (report_assets.h); this file only fills in the data.
 */
#include "report_assets.h"
#include "report_int.h"
#include "report_pack.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Maps give up bins of time, and tables bins of tokens, rather than make the page too large: it
 * stays below 5 MB. */
enum { ACCESS_CHARACTERS = 3 << 18, EVENT_CHARACTERS = 1 << 18, PAGE_CELLS = 120000 };

static void begin_pack(rp_json *j, const char *name, rp_pack *p) {
    if (j->comma) fputc(',', j->f);
    fprintf(j->f, "\"%s\":", name);
    j->comma = true;
    rp_pack_begin(p, j->f);
}

/* ---- rows and cells ---- */

enum { ROW_TENSOR, ROW_LAYER, ROW_OP, ROW_PHASE, ROW_FIELDS };

static uint64_t row_field(const rp_row *w, int k) {
    switch (k) {
    case ROW_TENSOR: return w->tensor == TTX_REC_NO_TENSOR ? 0 : (uint64_t)w->tensor + 1;
    case ROW_LAYER: return w->layer == TTX_REC_NO_LAYER ? 0 : (uint64_t)w->layer + 1;
    case ROW_OP: return w->op;
    default: return w->phase;
    }
}

/* Counts (0), bytes (1) or ns (2) of n bins from `first` on, each `stride` after the other. */
static uint64_t sum_cells(const rp_count *v, size_t stride, uint64_t first, uint64_t n,
                          uint64_t n_bin, int what) {
    uint64_t sum = 0;
    for (uint64_t b = first; b < first + n && b < n_bin; b++) {
        const rp_count *c = &v[b * stride];
        sum += what == 0 ? c->n : what == 1 ? c->bytes : c->ns;
    }
    return sum;
}

static void put_cube(const ttx_report *r, rp_json *j) {
    static const char *const fields[] = {"row_tensor", "row_layer", "row_op", "row_phase"};
    static const char *const cells[] = {"cell_n", "cell_bytes", "cell_ns"};
    static const char *const tokens[] = {"token_n", "token_bytes", "token_ns"};
    const rp_cube *c = &r->cube;
    rp_pack p;
    uint32_t shift = c->shift;
    while (c->n_row * (c->n_token >> shift) > PAGE_CELLS) shift++;
    uint64_t n_bin = c->n_token ? ((c->n_token - 1) >> shift) + 1 : 0,
             step = 1ull << (shift - c->shift);
    rp_u64(j, "n_row", c->n_row);
    rp_u64(j, "n_bin", n_bin);
    rp_u64(j, "tokens_a_bin", 1ull << shift);
    rp_u64(j, "n_token", c->n_token);
    for (int k = 0; k < ROW_FIELDS; k++) {
        begin_pack(j, fields[k], &p);
        for (uint32_t i = 0; i < c->n_row; i++) rp_pack_put(&p, row_field(&c->rows[i], k));
        rp_pack_end(&p);
    }
    begin_pack(j, "row_accesses", &p);
    for (uint32_t i = 0; i < c->n_row; i++) rp_pack_put(&p, c->rows[i].accesses);
    rp_pack_end(&p);
    for (int k = 0; k < 3; k++) {
        begin_pack(j, cells[k], &p);
        for (uint32_t i = 0; i < c->n_row; i++)
            for (uint64_t b = 0; b < n_bin; b++)
                rp_pack_put(&p, sum_cells(c->cells + i, c->cap, b * step, step, c->n_bin, k));
        rp_pack_end(&p);
    }
    for (int k = 0; k < 3; k++) {
        begin_pack(j, tokens[k], &p);
        for (uint64_t b = 0; b < n_bin; b++)
            rp_pack_put(&p, sum_cells(c->tokens, 1, b * step, step, c->n_bin, k));
        rp_pack_end(&p);
    }
}

/* ---- the map ---- */

typedef uint64_t time_field(const rp_time *t);
static uint64_t time_launches(const rp_time *t) {
    return t->launches;
}
static uint64_t time_busy(const rp_time *t) {
    return t->busy_ns;
}
static uint64_t time_bytes(const rp_time *t) {
    return t->bytes;
}
static uint64_t time_reads(const rp_time *t) {
    return t->reads;
}
static uint64_t time_read_bytes(const rp_time *t) {
    return t->read_bytes;
}
static uint64_t time_minor(const rp_time *t) {
    return t->minor;
}
static uint64_t time_major(const rp_time *t) {
    return t->major;
}
static uint64_t time_tokens(const rp_time *t) {
    return t->tokens;
}
static uint64_t time_first(const rp_time *t) {
    return t->first > t->last ? 0 : t->first + 1ull;
}
static uint64_t time_last(const rp_time *t) {
    return t->first > t->last ? 0 : t->last + 1ull;
}

static void put_times(const rp_map *m, rp_json *j, uint32_t n) {
    static const struct {
        const char *name;
        time_field *get;
    } fields[] = {{"launches", time_launches},     {"busy_ns", time_busy},
                  {"bytes", time_bytes},           {"reads", time_reads},
                  {"read_bytes", time_read_bytes}, {"minor", time_minor},
                  {"major", time_major},           {"tokens", time_tokens},
                  {"first_token", time_first},     {"last_token", time_last}};
    rp_pack p;
    rp_begin(j, "times", '{');
    for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) {
        begin_pack(j, fields[k].name, &p);
        for (uint32_t t = 0; t < n; t++) rp_pack_put(&p, fields[k].get(&m->times[t]));
        rp_pack_end(&p);
    }
    rp_end(j, '}');
}

/* How dark a bin is: 0 nothing, 1..255 by the logarithm of its bytes over what fits the bin. */
static uint64_t shade(double v) {
    if (!(v > 0)) return 0;
    double s = 128 + 8 * log2(v);
    return s < 1 ? 1 : s > 255 ? 255 : (uint64_t)s;
}

enum { MAP_ACCESSES, MAP_READS, MAP_FAULTS, MAPS };

/* Lines of `step` bins of time each. */
static void pack_map(const rp_map *m, rp_pack *p, uint32_t n, int what, uint32_t step,
                     double *sum) {
    double *line = sum + RP_OFFSETS;
    for (uint32_t t = 0; t < n; t += step) {
        memset(sum, 0, RP_OFFSETS * sizeof *sum);
        for (uint32_t s = t; s < t + step && s < n; s++) {
            size_t at = (size_t)s * (RP_OFFSETS + 1);
            if (what == MAP_ACCESSES) rp_map_line(m, s, line);
            for (uint32_t b = 0; b < RP_OFFSETS; b++)
                sum[b] += what == MAP_ACCESSES ? line[b]
                          : what == MAP_READS  ? (double)m->reads[at + b]
                                               : (double)m->faults[at + b];
        }
        for (uint32_t b = 0; b < RP_OFFSETS; b++)
            rp_pack_put(p, shade(what == MAP_FAULTS ? sum[b] : sum[b] * m->per_byte));
    }
    rp_pack_end(p);
}

/* As fine as fits the page. */
static void put_map(const rp_map *m, rp_json *j, uint32_t n, int what, double *sum) {
    static const char *const names[MAPS] = {"map_accesses", "map_reads", "map_faults"};
    static const char *const steps[MAPS] = {"step_accesses", "step_reads", "step_faults"};
    uint64_t most = what == MAP_ACCESSES ? ACCESS_CHARACTERS : EVENT_CHARACTERS;
    uint32_t step = 1;
    rp_pack p;
    for (;; step *= 2) {
        rp_pack_begin(&p, NULL);
        pack_map(m, &p, n, what, step, sum);
        if (p.written <= most || step >= n) break;
    }
    rp_u64(j, steps[what], step);
    begin_pack(j, names[what], &p);
    pack_map(m, &p, n, what, step, sum);
}

static void put_maps(const ttx_report *r, rp_json *j) {
    const rp_map *m = &r->map;
    uint32_t n = (uint32_t)(m->last_ns >> m->shift) + 1;
    double *sum = malloc(2 * RP_OFFSETS * sizeof *sum);
    if (!sum) return;
    rp_u64(j, "n_time", n);
    rp_u64(j, "n_offset", RP_OFFSETS);
    rp_u64(j, "ns_a_time", 1ull << m->shift);
    rp_u64(j, "file_bytes", m->bytes);
    put_times(m, j, n);
    for (int k = 0; k < MAPS; k++) put_map(m, j, n, k, sum);
    free(sum);
}

/* ---- the window: accesses one by one ---- */

enum { WIN_TIME, WIN_TENSOR, WIN_EXPERT, WIN_OP, WIN_AT, WIN_SIZE, WIN_TOKEN, WIN_RES, WIN_FIELDS };

static uint64_t window_field(const rp_access *a, int k) {
    switch (k) {
    case WIN_TIME: return a->time_ns;
    case WIN_TENSOR: return a->tensor;
    case WIN_EXPERT: return a->expert == TTX_REC_NO_EXPERT ? 0 : a->expert + 1ull;
    case WIN_OP: return a->op;
    case WIN_AT: return a->at;
    case WIN_SIZE: return a->size;
    case WIN_TOKEN: return a->token;
    default: return a->residency;
    }
}

static void put_window(rp_json *j, const char *name, const rp_window *w) {
    static const char *const fields[WIN_FIELDS] = {"time", "tensor", "expert", "op",
                                                   "at",   "size",   "token",  "residency"};
    rp_pack p;
    rp_begin(j, name, '{');
    rp_u64(j, "n", w->n);
    for (int k = 0; k < WIN_FIELDS; k++) {
        begin_pack(j, fields[k], &p);
        for (uint32_t i = 0; i < w->n; i++) rp_pack_put(&p, window_field(&w->v[i], k));
        rp_pack_end(&p);
    }
    rp_end(j, '}');
}

/* ---- names ---- */

static void put_texts(const ttx_report *r, rp_json *j) {
    const rp_texts *t = &r->texts;
    rp_begin(j, "texts", '[');
    for (uint32_t i = 0; t->positions && i < RP_TEXTS && i < r->cube.n_token; i++)
        rp_text(j, NULL, t->positions[i] ? rp_text_of(t, t->positions[i] - 1) : NULL);
    rp_end(j, ']');
}

static void put_data(const ttx_report *r, FILE *out) {
    rp_json j = {.f = out};
    rp_begin(&j, NULL, '{');
    rp_begin(&j, "operations", '[');
    for (int op = 0; op < RP_OPS; op++) rp_text(&j, NULL, rp_op_name((uint8_t)op));
    rp_end(&j, ']');
    rp_begin(&j, "shard_at", '[');
    for (int i = 0; i < 256 && (i == 0 || r->shard_size[i]); i++) rp_u64(&j, NULL, r->shard_at[i]);
    rp_end(&j, ']');
    put_cube(r, &j);
    put_maps(r, &j);
    put_window(&j, "prompt_window", &r->prompt);
    put_window(&j, "decode_window", &r->decode);
    put_texts(r, &j);
    rp_end(&j, '}');
}

/* ---- the page ---- */

static void put_asset(FILE *out, const ttx_asset *a) {
    fwrite(a->data, 1, a->size, out);
}

void rp_page_begin(FILE *out, rp_page page) {
    fputs("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<title>ttx report</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n",
          out);
    put_asset(out, &ttx_asset_charts_css);
    put_asset(out, &ttx_asset_report_css);
    fputs("</style>\n</head>\n", out);
    put_asset(out, page == RP_PAGE_RUN ? &ttx_asset_report_body : &ttx_asset_compare_body);
}

void rp_page_end(FILE *out, rp_page page) {
    fputs("<script>\n", out);
    put_asset(out, &ttx_asset_charts_js);
    fputs("\n</script>\n<script>\n\"use strict\";\n", out);
    put_asset(out, page == RP_PAGE_RUN ? &ttx_asset_report_js : &ttx_asset_compare_js);
    fputs("</script>\n</body>\n</html>\n", out);
}

void ttx_report_html(const ttx_report *r, FILE *out) {
    rp_page_begin(out, RP_PAGE_RUN);
    fputs("<script type=\"application/json\" id=\"statistics\">", out);
    rp_statistics(r, out, true);
    fputs("</script>\n<script type=\"application/json\" id=\"tables\">", out);
    put_data(r, out);
    fputs("</script>\n", out);
    rp_page_end(out, RP_PAGE_RUN);
}
