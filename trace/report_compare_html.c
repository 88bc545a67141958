/* report_compare_html.c -- several runs side by side, as a page: comparison.json, and of each run
 * what the charts of trace/web/compare_main.js draw.
 */
#include "report_int.h"

#include <stdlib.h>

static void put_tensors(const ttx_report *r, rp_json *j) {
    uint32_t n, *order;
    rp_tensor_sum *v = rp_tensor_sums(r, r->set.hot_by, &order, &n);
    rp_begin(j, "tensors", '[');
    for (uint32_t i = 0; v && i < n; i++) {
        rp_begin(j, NULL, '{');
        rp_text(j, "tensor_name", r->meta.tensors[i].name);
        rp_u64(j, "bytes", v[i].bytes);
        rp_bool(j, "hot", v[i].heat > 0);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    free(v);
    free(order);
}

/* The first decode token, as places in the list of tensors. */
static void put_sequence(const ttx_report *r, rp_json *j) {
    rp_begin(j, "sequence", '[');
    for (uint32_t i = 0; i < r->seq.n_base; i++)
        rp_u64(j, NULL, r->objects[r->seq.base[i] & ~RP_PART].tensor);
    rp_end(j, ']');
}

static void put_tokens(const ttx_report *r, rp_json *j) {
    const rp_cube *c = &r->cube;
    rp_begin(j, "tokens", '[');
    for (uint64_t b = 0; b < c->n_bin; b++) {
        if (!c->tokens[b].n) continue;
        rp_begin(j, NULL, '{');
        rp_u64(j, "token", b << c->shift);
        rp_num(j, "ns", (double)c->tokens[b].ns / (double)c->tokens[b].n);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_experts(const ttx_report *r, rp_json *j) {
    const rp_routes *s = &r->routes;
    rp_begin(j, "experts", '[');
    for (uint32_t l = 0; s->n_expert && l < r->n_layer; l++) {
        if (!s->routed[2 * l] && !s->routed[2 * l + 1]) continue;
        rp_begin(j, NULL, '{');
        rp_u64(j, "layer_id", l);
        rp_begin(j, "tokens", '[');
        for (uint32_t e = 0; e < s->n_expert; e++)
            rp_u64(j, NULL, s->n[(size_t)l * s->n_expert + e]);
        rp_end(j, ']');
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

void ttx_report_compare_html(ttx_report *const *v, int n, FILE *out) {
    rp_json j = {.f = out};
    rp_page_begin(out, RP_PAGE_COMPARE);
    fputs("<script type=\"application/json\" id=\"comparison\">", out);
    ttx_report_compare_json(v, n, out);
    fputs("</script>\n<script type=\"application/json\" id=\"runs\">", out);
    rp_begin(&j, NULL, '[');
    for (int i = 0; i < n; i++) {
        rp_begin(&j, NULL, '{');
        rp_put_compared(v[i], &j);
        put_tensors(v[i], &j);
        put_sequence(v[i], &j);
        put_tokens(v[i], &j);
        put_experts(v[i], &j);
        rp_end(&j, '}');
    }
    rp_end(&j, ']');
    fputs("</script>\n", out);
    rp_page_end(out, RP_PAGE_COMPARE);
}
