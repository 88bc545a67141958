/* router_margin.c -- how close the routers of a model come to a tie on given tokens.
 *
 *     router_margin MODEL TOKENS
 *
 * TOKENS: a JSON array of ids. Prints the smallest distance, over all positions and layers, between
 * the last expert that is chosen and the first that is not, as a difference of router logits; "inf"
 * if every expert is used. Two engines that agree to a millionth may choose differently below some
 * millionths, and everything after that choice differs: comparisons want tokens without such ties.
 *
 * The model is opened with one expert more than it uses; a route source notes its distance and
 * takes it away again before anything is computed with it.
 */
#include "model.h"
#include "models.h"
#include "runtime.h"
#include "session.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>

enum { MAX_TOKENS = 1 << 16 };

typedef struct margin {
    bool
        probabilities; /* scores are those of a softmax: their logarithms differ as the logits do */
    float least;
    uint32_t layer, position;
} margin;

static bool drop_last(void *ctx, ttx_route *r) {
    margin *m = ctx;
    int32_t k = --r->k;
    float last = r->score[k - 1], next = r->score[k];
    float d = m->probabilities ? logf(last / next) : last - next;
    if (d < m->least) {
        m->least = d;
        m->layer = r->layer;
        m->position = r->step;
    }
    return false; /* the router weighs the experts that are left */
}

/* Number of ids read; 0: none, or too many. */
static size_t read_ids(const char *path, int32_t *ids) {
    FILE *f = fopen(path, "r");
    size_t n = 0;
    if (!f) return 0;
    for (int c = fgetc(f); c != EOF && n < MAX_TOKENS; c = fgetc(f)) {
        if (!isdigit(c)) continue;
        ungetc(c, f);
        if (fscanf(f, "%d", &ids[n]) != 1) break;
        n++;
    }
    fclose(f);
    return n < MAX_TOKENS ? n : 0;
}

static int measure(gguf_file *file, const int32_t *ids, size_t n, margin *out, ttx_err *err) {
    ttx_model *model = NULL;
    ttx_runtime rt = {0};
    ttx_session *s = NULL;
    ttx_runtime_settings rs = ttx_runtime_default_settings();
    ttx_session_settings set = ttx_session_default_settings();
    ttx_route_source source = {drop_last, out};
    rs.n_threads = 1;
    set.n_ctx = (uint32_t)n;
    set.n_outputs = set.n_ubatch;
    set.k_type = set.v_type = TTX_F32;
    set.source = &source;
    int rc = ttx_model_load(&model, file, ttx_archs, err);
    if (rc) goto done;
    *out = (margin){.probabilities = model->hp.router == TTX_ROUTER_SOFTMAX, .least = INFINITY};
    if (model->hp.n_expert_used >= model->hp.n_expert) goto done;
    rc = ttx_model_set_experts_used(model, model->hp.n_expert_used + 1, err);
    if (!rc) rc = ttx_runtime_open(&rt, file, &rs, err);
    if (!rc) rc = ttx_session_open(&s, model, &rt, &set, err);
    /* All logits are asked for, or the last layer would run for the last token alone. */
    for (size_t i = 0; i < n && !rc; i += set.n_outputs) {
        size_t m = n - i < set.n_outputs ? n - i : set.n_outputs;
        rc = ttx_session_eval(s, ids + i, m, TTX_PROMPT, TTX_WANT_ALL, err);
    }
done:
    ttx_session_close(s);
    ttx_runtime_close(&rt);
    ttx_model_free(model);
    return rc;
}

int main(int argc, char **argv) {
    static int32_t ids[MAX_TOKENS];
    gguf_file *file = NULL;
    ttx_err err = {0};
    margin m = {0};
    size_t n = argc == 3 ? read_ids(argv[2], ids) : 0;
    if (!n) {
        fprintf(stderr, "usage: router_margin MODEL TOKENS\n");
        return 2;
    }
    int rc = gguf_open(&file, argv[1], &err);
    if (!rc) rc = measure(file, ids, n, &m, &err);
    if (rc)
        fprintf(stderr, "router_margin: %s\n", err.msg);
    else
        printf("%g at position %u, layer %u\n", (double)m.least, m.position, m.layer);
    gguf_close(file);
    return rc;
}
