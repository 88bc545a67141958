/* report_cube.c -- rows (what one operation does with one tensor in one phase) over bins of tokens.
 *
 * Everything that the page filters by layer, operation, phase and token is a sum over these cells.
 */
#include "report_int.h"

#include <stdlib.h>
#include <string.h>

int rp_cube_init(rp_cube *c, const ttx_report *r, ttx_err *err) {
    c->n_find = ((size_t)r->meta.n_tensor + r->n_layer + 1) * RP_OPS * 2;
    c->cap = 1024;
    c->n_bin = RP_MAX_BINS;
    c->find = calloc(c->n_find, sizeof *c->find);
    c->rows = calloc(c->cap, sizeof *c->rows);
    c->cells = calloc((size_t)c->n_bin * c->cap, sizeof *c->cells);
    if (!c->find || !c->rows || !c->cells) return ttx_fail_nomem(err, "tables of the report", 0);
    c->n_row = 1; /* row 0: what no row could be made for */
    c->rows[0] =
        (rp_row){.tensor = TTX_REC_NO_TENSOR, .layer = TTX_REC_NO_LAYER, .op = RP_OP_OTHER};
    return TTX_OK;
}

static void add_count(rp_count *to, const rp_count *from) {
    to->n += from->n;
    to->bytes += from->bytes;
    to->ns += from->ns;
}

/* Two bins become one. */
static void widen(rp_cube *c) {
    for (uint32_t b = 0; b < c->n_bin; b++) {
        rp_count *from = c->cells + (size_t)b * c->cap, *to = c->cells + (size_t)(b / 2) * c->cap;
        rp_count token = c->tokens[b];
        if (b % 2)
            for (uint32_t i = 0; i < c->n_row; i++) add_count(&to[i], &from[i]);
        else if (b)
            memcpy(to, from, c->n_row * sizeof *to);
        if (b) memset(from, 0, c->n_row * sizeof *from);
        if (b) c->tokens[b] = (rp_count){0};
        if (b) add_count(&c->tokens[b / 2], &token);
    }
    c->shift++;
}

static bool grow(rp_cube *c) {
    uint32_t cap = c->cap * 2, n_bin = c->n_bin;
    if (cap > RP_MAX_ROWS) return false;
    rp_row *rows = realloc(c->rows, cap * sizeof *rows);
    if (!rows) return false;
    c->rows = rows;
    if ((size_t)n_bin * cap > RP_MAX_CELLS) {
        widen(c);
        n_bin /= 2;
    }
    rp_count *cells = calloc((size_t)n_bin * cap, sizeof *cells);
    if (!cells) return false;
    for (uint32_t b = 0; b < n_bin; b++)
        memcpy(cells + (size_t)b * cap, c->cells + (size_t)b * c->cap, c->n_row * sizeof *cells);
    free(c->cells);
    c->cells = cells;
    c->cap = cap;
    c->n_bin = n_bin;
    return true;
}

uint32_t rp_cube_row(ttx_report *r, uint32_t tensor, uint16_t layer, uint8_t op, uint8_t phase) {
    rp_cube *c = &r->cube;
    size_t entity = tensor;
    if (tensor == TTX_REC_NO_TENSOR)
        entity = r->meta.n_tensor + (size_t)(layer < r->n_layer ? layer : r->n_layer);
    uint32_t *found = &c->find[(entity * RP_OPS + op) * 2 + phase];
    if (*found) return *found - 1;
    if (c->n_row == c->cap && !grow(c)) return 0;
    if (tensor != TTX_REC_NO_TENSOR) layer = r->meta.tensors[tensor].layer;
    if (layer >= r->n_layer) layer = TTX_REC_NO_LAYER;
    c->rows[c->n_row] = (rp_row){.tensor = tensor, .layer = layer, .op = op, .phase = phase};
    *found = ++c->n_row;
    return c->n_row - 1;
}

/* Makes room for a position. */
static void reach(rp_cube *c, uint64_t token) {
    if (token >= c->n_token) c->n_token = token + 1;
    while (token >> c->shift >= c->n_bin) widen(c);
}

void rp_cube_add(rp_cube *c, uint32_t row, uint32_t token, uint32_t n, uint64_t times,
                 uint64_t bytes, uint64_t ns) {
    if (token == TTX_REC_NO_TOKEN) return;
    if (n == 0) n = 1;
    uint64_t end = (uint64_t)token + n;
    if (end > c->n_token) reach(c, end - 1);
    if (n == 1) {
        rp_count *cell = &c->cells[(size_t)(token >> c->shift) * c->cap + row];
        cell->n += times;
        cell->bytes += bytes;
        cell->ns += ns;
        return;
    }
    for (uint64_t t = token, done = 0; t < end;) {
        uint64_t bin = t >> c->shift, next = (bin + 1) << c->shift;
        if (next > end) next = end;
        uint64_t upto = next - token;
        rp_count *cell = &c->cells[bin * c->cap + row];
        cell->n += times * (upto - done);
        /* Differences of rounded sums: the parts add up to the whole. */
        cell->bytes += bytes * upto / n - bytes * done / n;
        cell->ns += ns * upto / n - ns * done / n;
        done = upto;
        t = next;
    }
}

void rp_cube_token(rp_cube *c, uint32_t token, uint64_t ns, uint64_t device_bytes) {
    if (token == TTX_REC_NO_TOKEN) return;
    reach(c, token);
    rp_count *bin = &c->tokens[token >> c->shift];
    bin->n++;
    bin->ns += ns;
    bin->bytes += device_bytes;
}
