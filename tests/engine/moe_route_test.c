/* moe_route_test.c -- who hears of the routers' choices, who can make them, and what a router says
 * when it cannot choose.
 *
 *   - sinks hear (layer, position, token, k) layer by layer and token by token; of the last layer
 *     only those whose logits are wanted; prompt and decode are told apart;
 *   - a replayed file is obeyed, whatever its k; saved again it has the same rows; where it has
 *     none the router chooses; after its end its decode steps repeat;
 *   - ties go to the lower index; the score that selects is not the weight that is applied.
 */
#include "check_harness.h"
#include "engine_rig.h"
#include "route_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failures;

/* ---- a sink ---- */

enum { MAX_HEARD = 4096 };

static struct {
    ttx_route v[MAX_HEARD];
    size_t n;
    int restarts;
} heard;

static void hear(void *ctx, const ttx_route *r) {
    (void)ctx;
    if (heard.n == MAX_HEARD) rig_die("sink", "too many routes");
    heard.v[heard.n++] = *r;
}

static void hear_restart(void *ctx) {
    (void)ctx;
    heard.restarts++;
}

static const ttx_route_sink ear = {hear, hear_restart, NULL};

static void eval(ttx_session *s, const int32_t *tokens, size_t n, ttx_class cls, ttx_want want) {
    ttx_err err = {0};
    if (ttx_session_eval(s, tokens, n, cls, want, &err)) rig_die("eval", err.msg);
}

/* The next routes of `heard` are those of tokens [from, to) in this layer. */
static size_t expect_layer(size_t at, uint32_t layer, const int32_t *tokens, uint32_t from,
                           uint32_t to, bool decode, int32_t k) {
    for (uint32_t i = from; i < to; i++, at++) {
        const ttx_route *r = &heard.v[at];
        CHECK(at < heard.n);
        CHECK_INT(r->layer, layer);
        CHECK_INT(r->step, i);
        CHECK_INT(r->token, tokens[i]);
        CHECK_INT(r->k, k);
        CHECK_INT(r->decode, decode);
        CHECK_INT(r->hashed, 0);
    }
    return at;
}

static void sinks_hear(void) {
    enum { N = 11, UBATCH = 4 };
    tiny_model t = tiny_model_of("qwen3moe");
    t.n_layer = 3;
    int32_t tokens[N + 6];
    rig_tokens(tokens, N + 6, t.n_vocab, 8);
    rig r = rig_open(&t, &(rig_settings){.n_threads = 2, .isa = -1});
    ttx_session *s = rig_session(
        &r, (ttx_session_settings){
                .n_ctx = 64, .n_ubatch = UBATCH, .n_outputs = 4, .sinks = &ear, .n_sinks = 1});
    heard.n = 0;
    size_t at = 0;
    eval(s, tokens, N, TTX_PROMPT, TTX_WANT_LAST); /* 4 + 4 + 3 */
    for (uint32_t from = 0; from < N; from += UBATCH) {
        uint32_t to = from + UBATCH < N ? from + UBATCH : N;
        at = expect_layer(at, 0, tokens, from, to, false, 4);
        at = expect_layer(at, 1, tokens, from, to, false, 4);
        if (to == N) at = expect_layer(at, 2, tokens, N - 1, N, false, 4);
    }
    CHECK_INT(heard.n, at);
    eval(s, tokens + N, 1, TTX_EXACT, TTX_WANT_LAST);
    for (uint32_t il = 0; il < 3; il++) at = expect_layer(at, il, tokens, N, N + 1, true, 4);
    eval(s, tokens + N + 1, 3, TTX_EXACT, TTX_WANT_ALL);
    for (uint32_t il = 0; il < 3; il++) at = expect_layer(at, il, tokens, N + 1, N + 4, true, 4);
    eval(s, tokens + N + 4, 2, TTX_PROMPT, TTX_WANT_NONE);
    for (uint32_t il = 0; il < 2; il++) at = expect_layer(at, il, tokens, N + 4, N + 6, false, 4);
    CHECK_INT(heard.n, at);
    CHECK_INT(heard.restarts, 0);
    ttx_session_rewind(s, 3);
    CHECK_INT(heard.restarts, 1);
    ttx_session_close(s);
    rig_close(&r);
}

/* ---- what a router chooses ---- */

/* The routes of some tokens, all wanted, in `heard`. */
static void listen(const tiny_model *t, size_t n) {
    rig r = rig_open(t, &(rig_settings){.isa = -1});
    ttx_session *s = rig_session(
        &r, (ttx_session_settings){
                .n_ctx = (uint32_t)n, .n_outputs = (uint32_t)n, .sinks = &ear, .n_sinks = 1});
    int32_t tokens[64];
    rig_tokens(tokens, n, t->n_vocab, 4);
    heard.n = 0;
    eval(s, tokens, n, TTX_PROMPT, TTX_WANT_ALL);
    ttx_session_close(s);
    rig_close(&r);
}

static void choices(void) {
    enum { N = 40 };
    tiny_model t = tiny_model_of("mixtral");
    t.flat_router = true; /* all alike: the lowest indices, in order */
    listen(&t, N);
    CHECK_INT(heard.n, N * t.n_layer);
    for (size_t i = 0; i < heard.n; i++) {
        const ttx_route *r = &heard.v[i];
        CHECK(r->expert[0] == 0 && r->expert[1] == 1);
        CHECK(r->weight[0] == 0.5f && r->weight[1] == 0.5f && r->score[0] == 0.125f);
    }
    t.flat_router = false;
    for (int bias = 0; bias < 2; bias++) { /* best first; the bias is in the score alone */
        size_t unlike = 0, descending = 0;
        t.select_bias = bias;
        listen(&t, N);
        for (size_t i = 0; i < heard.n; i++) {
            const ttx_route *r = &heard.v[i];
            float sum = r->weight[0] + r->weight[1];
            CHECK(r->score[0] >= r->score[1] && r->expert[0] != r->expert[1]);
            CHECK(fabsf(sum - 1) < 1e-6f);
            descending += r->weight[0] >= r->weight[1];
            unlike += fabsf(r->score[0] / (r->score[0] + r->score[1]) - r->weight[0]) > 1e-3f;
        }
        CHECK((descending == heard.n) == !bias);
        CHECK(bias ? unlike > heard.n / 2 : unlike == 0);
    }
    t.select_bias = false;
    t.hash_routing = true; /* the same token, the same experts, in each layer its own */
    listen(&t, N);
    for (size_t i = 0; i < heard.n; i++) {
        CHECK_INT(heard.v[i].hashed, 1);
        for (size_t j = 0; j < i; j++)
            if (heard.v[i].layer == heard.v[j].layer && heard.v[i].token == heard.v[j].token)
                CHECK(memcmp(heard.v[i].expert, heard.v[j].expert, 2 * sizeof(int32_t)) == 0);
    }
}

/* ---- replay ---- */

static char folder[] = "/tmp/moe_route_XXXXXX", source_path[64], saved_path[64];

static const char head[] = "# route_trace v1\n# model=x arch=y\n"
                           "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n";

enum { STEPS = 9, DECODE_FROM = 5, LAYERS = 2, EXPERTS = 8, MISSING = 3 };

static int32_t recorded_expert(uint32_t step, uint32_t layer, int32_t slot) {
    return (int32_t)(step + 3 * layer + (uint32_t)slot) % EXPERTS;
}

/* A file with k experts a token, without the last layer of step MISSING. */
static void write_source(int32_t k) {
    FILE *f = fopen(source_path, "w");
    if (!f) rig_die(source_path, "cannot write");
    fputs(head, f);
    for (uint32_t s = 0; s < STEPS; s++)
        for (uint32_t l = 0; l < LAYERS; l++)
            for (int32_t i = 0; i < k && !(s == MISSING && l == LAYERS - 1); i++)
                fprintf(f, "0,%d,%u,%u,%d,%d,%.9g,0,0\n", s >= DECODE_FROM, s, l, i,
                        recorded_expert(s, l, i), 0.5 / (1 + i + (double)s));
    fclose(f);
}

static void expect_recorded(const ttx_route *r, uint32_t step, int32_t k) {
    CHECK_INT(r->k, k);
    for (int32_t i = 0; i < k; i++) {
        CHECK_INT(r->expert[i], recorded_expert(step, r->layer, i));
        CHECK(r->weight[i] == (float)(0.5 / (1 + i + (double)step)));
    }
}

/* Evaluates with a file's routes and saves what was chosen; logits of the last token. */
static void replay(rig *r, const int32_t *tokens, size_t n, size_t call, float *logits) {
    ttx_err err = {0};
    ttx_route_file *f;
    ttx_route_writer *w;
    uint64_t bytes[LAYERS] = {0};
    ttx_route_info info = {"tiny", "llama", LAYERS, EXPERTS, 2, bytes, bytes};
    if (ttx_route_file_load(&f, source_path, &err)) rig_die(source_path, err.msg);
    CHECK_INT(ttx_route_file_check(f, LAYERS, EXPERTS, &err), 0);
    if (ttx_route_writer_open(&w, saved_path, &info, &err)) rig_die(saved_path, err.msg);
    ttx_route_sink sinks[2] = {ear, ttx_route_writer_sink(w)};
    ttx_route_source source = {ttx_route_file_choose, f};
    ttx_session *s =
        rig_session(r, (ttx_session_settings){.n_ctx = (uint32_t)n,
                                              .n_outputs = (uint32_t)call,
                                              .k_experts = (uint32_t)ttx_route_file_k(f),
                                              .sinks = sinks,
                                              .n_sinks = 2,
                                              .source = &source});
    heard.n = 0;
    for (size_t at = 0; at < n; at += call) {
        size_t m = n - at < call ? n - at : call;
        bool prompt = at < DECODE_FROM;
        eval(s, tokens + at, m, prompt ? TTX_PROMPT : TTX_EXACT, TTX_WANT_ALL);
        memcpy(logits, ttx_session_logits(s, m - 1), r->tiny.n_vocab * sizeof *logits);
    }
    ttx_session_close(s);
    if (ttx_route_writer_close(w, 0, &err)) rig_die(saved_path, err.msg);
    ttx_route_file_free(f);
}

/* The saved file, loaded again, chooses for every step and layer what was heard. */
static void check_saved(void) {
    ttx_err err = {0};
    ttx_route_file *f;
    if (ttx_route_file_load(&f, saved_path, &err)) rig_die(saved_path, err.msg);
    for (size_t i = 0; i < heard.n; i++) {
        const ttx_route *h = &heard.v[i];
        ttx_route r = {.layer = h->layer, .step = h->step};
        CHECK(ttx_route_file_choose(f, &r));
        CHECK_INT(r.k, h->k);
        CHECK(memcmp(r.expert, h->expert, (size_t)h->k * sizeof *r.expert) == 0);
        CHECK(memcmp(r.weight, h->weight, (size_t)h->k * sizeof *r.weight) == 0);
    }
    ttx_route_file_free(f);
}

static void replayed(int32_t k) {
    enum { N = STEPS + 6 };
    tiny_model t = tiny_model_of("mixtral");
    int32_t tokens[N];
    float logits[3][96];
    rig r = rig_open(&t, &(rig_settings){.n_threads = 2, .isa = -1});
    rig_tokens(tokens, N, t.n_vocab, 6);
    write_source(k);
    for (size_t call = 1; call <= 5; call += 4) { /* token by token; prompt and drafts */
        replay(&r, tokens, N, call, logits[call == 5]);
        CHECK_INT(heard.n, N * LAYERS);
        for (size_t i = 0; i < heard.n; i++) {
            const ttx_route *h = &heard.v[i];
            uint32_t step = h->step;
            if (step >= STEPS) step = DECODE_FROM + (step - DECODE_FROM) % (STEPS - DECODE_FROM);
            if (step == MISSING && h->layer == LAYERS - 1)
                CHECK_INT(h->k, t.n_expert_used); /* the router's */
            else
                expect_recorded(h, step, k);
        }
        check_saved();
    }
    CHECK(memcmp(logits[0], logits[1], sizeof *logits) == 0); /* prompts of 1 and 5 are one class */
    memcpy(logits[2], logits[0], sizeof *logits);
    if (rename(saved_path, source_path) != 0) rig_die(source_path, "cannot rename");
    replay(&r, tokens, N, 1, logits[0]); /* what was saved does the same */
    CHECK(memcmp(logits[0], logits[2], sizeof *logits) == 0);
    rig_close(&r);
}

/* A replay of what the routers chose changes nothing. */
static void own_routes(void) {
    enum { N = 12 };
    static const char *const archs[] = {"mixtral", "qwen2moe", "gpt-oss"};
    for (int a = 0; a < 3; a++) {
        tiny_model t = tiny_model_of(archs[a]);
        int32_t tokens[N];
        float want[96], found[96];
        rig r = rig_open(&t, &(rig_settings){.isa = -1});
        rig_tokens(tokens, N, t.n_vocab, 6);
        FILE *f = fopen(source_path, "w");
        if (!f) rig_die(source_path, "cannot write");
        fprintf(f, "%s99,0,16777215,0,0,0,1,0,0\n", head); /* its steps never come */
        fclose(f);
        replay(&r, tokens, N, 1, want);
        if (rename(saved_path, source_path) != 0) rig_die(source_path, "cannot rename");
        replay(&r, tokens, N, 1, found);
        CHECK(memcmp(want, found, sizeof want) == 0);
        rig_close(&r);
    }
}

int main(void) {
    if (!mkdtemp(folder)) rig_die(folder, "cannot make");
    snprintf(source_path, sizeof source_path, "%s/source.csv", folder);
    snprintf(saved_path, sizeof saved_path, "%s/saved.csv", folder);
    sinks_hear();
    choices();
    replayed(1); /* fewer than the model's 2 */
    replayed(5); /* and more */
    own_routes();
    unlink(source_path);
    unlink(saved_path);
    rmdir(folder);
    return failures != 0;
}
