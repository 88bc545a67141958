/* route_file_test.c -- route files: what is read is what is replayed, what is written can be read,
 * and every bad file is refused with one line and the right code. */
#include "check_harness.h"
#include "route_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TITLE   "# route_trace v1\n"
#define COLUMNS "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"
#define HEAD    TITLE "# model=m arch=a n_layer=2 n_expert=8 n_expert_used=2\n" COLUMNS
#define LONG    "0123456789012345678901234567890123456789012345678901234567890123456789"

static int failures;

static int load(ttx_route_file **f, const char *text, ttx_err *err) {
    FILE *out = fopen("routes.csv", "w");
    if (!out) return -1;
    fputs(text, out);
    fclose(out);
    return ttx_route_file_load(f, "routes.csv", err);
}

static void test_bad_files(void) {
    static const struct {
        const char *text, *line; /* after "routes.csv: " */
    } cases[] = {
        {"", "line 1: first line: expected '# route_trace v1'"},
        {"\x7f\x45LF\x02\x01", "line 1: first line: expected '# route_trace v1'"},
        {"# route_trace v2\n", "line 1: first line: expected '# route_trace v1'"},
        {COLUMNS "0,0,0,0,0,1,0.5,0,9\n", "line 1: first line: expected '# route_trace v1'"},
        {TITLE, "line 2: rows: expected at least one"},
        {HEAD, "line 4: rows: expected at least one"},
        {TITLE "0,0,0,0,0,1,0.5,0,9\n", "line 2: columns: expected turn,phase,step,layer,slot,"
                                        "expert,weight,residency,expert_bytes"},
        {TITLE "turn,phase,step,layer,slot,expert\n",
         "line 2: columns: expected turn,phase,step,layer,slot,expert,weight,residency,"
         "expert_bytes"},
        {HEAD LONG LONG LONG LONG LONG LONG LONG LONG "\n",
         "line 4: line: expected text, at most 510 characters"},
        {HEAD "garbage\n", "line 4: turn: expected a whole number"},
        {HEAD "-1,0,0,0,0,1,0.5,0,9\n", "line 4: turn: expected a whole number"},
        {HEAD "0,2,0,0,0,1,0.5,0,9\n", "line 4: phase: expected 0 or 1"},
        {HEAD "0,0,,0,0,1,0.5,0,9\n", "line 4: step: expected 0..16777215"},
        {HEAD "0,0,16777216,0,0,1,0.5,0,9\n", "line 4: step: expected 0..16777215"},
        {HEAD "0,0,99999999999999999999,0,0,1,0.5,0,9\n", "line 4: step: expected 0..16777215"},
        {HEAD "0,0,0,1024,0,1,0.5,0,9\n", "line 4: layer: expected 0..1023"},
        {HEAD "0,0,0,0,32,1,0.5,0,9\n", "line 4: slot: expected 0..31"},
        {HEAD "0,0,0,0,0,1024,0.5,0,9\n", "line 4: expert: expected 0..1023"},
        {HEAD "0,0,0,0,0,1x,0.5,0,9\n", "line 4: expert: expected 0..1023"},
        {HEAD "0,0,0,0,0,1,nan,0,9\n", "line 4: weight: expected a number"},
        {HEAD "0,0,0,0,0,1,1e99,0,9\n", "line 4: weight: expected a number"},
        {HEAD "0,0,0,0,0,1,,0,9\n", "line 4: weight: expected a number"},
        {HEAD "0,0,0,0,0,1,0.5,0\n", "line 4: residency: expected a whole number"},
        {HEAD "0,0,0,0,0,1,0.5\n", "line 4: weight: expected a number"},
        {HEAD "0,0,0,0,0,1,0.5,0,9,7\n", "line 4: expert_bytes: expected a whole number"},
        {HEAD "0,0,0,0,0,1,0.5,0,99999999999999999999\n",
         "line 4: expert_bytes: expected a whole number"},
        {HEAD "0,0,0,0,1,1,0.5,0,9\n",
         "line 4: slot: expected 0 for a new token and layer, then one after the other"},
        {HEAD "0,0,0,0,0,1,0.5,0,9\n0,0,0,0,2,2,0.5,0,9\n",
         "line 5: slot: expected 0 for a new token and layer, then one after the other"},
        {HEAD "0,0,0,0,0,1,0.5,0,9\n0,0,0,0,0,2,0.5,0,9\n",
         "line 5: slot: expected 0 for a new token and layer, then one after the other"},
        {HEAD "0,0,0,0,0,1,0.5,0,9\n0,0,0,0,1,1,0.5,0,9\n",
         "line 5: expert: expected another one for each slot"},
        {HEAD "0,0,0,0,0,1,0.5,0,9\n0,1,0,0,1,2,0.5,0,9\n",
         "line 5: phase: expected that of the row before"},
        {HEAD "0,0,0,0,0,1,0.5,0,9\n0,0,1,0,0,2,0.5,0,9\n0,0,0,0,0,1,0.5,0,9\n",
         "turn 0, step 0, layer 0: expected once, found twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ttx_route_file *f = NULL;
        ttx_err err = {0};
        char line[300];
        snprintf(line, sizeof line, "routes.csv: %s", cases[i].line);
        CHECK_INT(load(&f, cases[i].text, &err), TTX_E_MODEL);
        CHECK_STR(err.msg, line);
        CHECK(!f);
        ttx_route_file_free(f);
    }
    ttx_route_file *f = NULL;
    ttx_err err = {0};
    CHECK_INT(ttx_route_file_load(&f, "absent.csv", &err), TTX_E_RUNTIME);
    CHECK_STR(err.msg, "absent.csv: cannot open: No such file or directory");
    err = (ttx_err){0};
    CHECK_INT(ttx_route_file_load(&f, ".", &err), TTX_E_RUNTIME);
    CHECK_STR(err.msg, ".: cannot read: Is a directory");
}

/* A zero byte ends no line. */
static void test_zero_byte(void) {
    static const char text[] = HEAD "0,0,0,0,0,1,0.5,0,9\0garbage\n0,0,1,0,0,1,0.5,0,9\n";
    ttx_route_file *f = NULL;
    ttx_err err = {0};
    FILE *out = fopen("routes.csv", "w");
    CHECK(out && fwrite(text, 1, sizeof text - 1, out) == sizeof text - 1);
    if (out) fclose(out);
    CHECK_INT(ttx_route_file_load(&f, "routes.csv", &err), TTX_E_MODEL);
    CHECK_STR(err.msg, "routes.csv: line 4: line: expected text, at most 510 characters");
    ttx_route_file_free(f);
}

/* The experts chosen, best first, as digits; "-" if the file has none. */
static const char *chosen(ttx_route_file *f, uint32_t step, uint32_t layer) {
    static char text[TTX_MAX_EXPERTS_USED + 1];
    ttx_route r = {.step = step, .layer = layer};
    if (!ttx_route_file_choose(f, &r)) return "-";
    for (int32_t i = 0; i < r.k; i++) text[i] = (char)('0' + r.expert[i]);
    text[r.k] = 0;
    return text;
}

static void test_replay(void) {
    ttx_route_file *f = NULL;
    ttx_err err = {0};
    ttx_route r = {.step = 1, .layer = 1};
    CHECK_INT(load(&f,
                   HEAD "0,0,0,0,0,1,0.5,0,9\n0,0,0,0,1,2,0.25,0,9\n" /* no layer 1 at step 0 */
                        "0,0,1,0,0,3,0.5,0,9\n0,0,1,1,0,4,0.5,0,9\r\n\n0,0,1,1,1,0,0.125,0,9\n"
                        "0,1,2,0,0,5,1,0,9\n0,1,2,1,0,6,1,0,9\n"
                        "# a remark\n0,1,3,0,0,7,1,0,0\n0,1,4,1,0,1,1,0,0\n"
                        "1,0,0,0,0,6,1,0,9\n1,1,9,0,0,6,1,0,9", /* another turn, no last newline */
                   &err),
              TTX_OK);
    CHECK_STR(err.msg, "");
    if (!f) return;
    CHECK_INT(ttx_route_file_k(f), 2);
    CHECK_STR(chosen(f, 0, 0), "12");
    CHECK_STR(chosen(f, 0, 1), "-");
    CHECK_STR(chosen(f, 1, 0), "3");
    CHECK_STR(chosen(f, 1, 2), "-");
    CHECK_STR(chosen(f, 2, 1), "6");
    CHECK_STR(chosen(f, 3, 0), "7");
    CHECK_STR(chosen(f, 3, 1), "-");
    CHECK_STR(chosen(f, 4, 1), "1");
    CHECK_STR(chosen(f, 5, 0), "5"); /* the decode steps, 2 to 4, again */
    CHECK_STR(chosen(f, 6, 0), "7");
    CHECK_STR(chosen(f, 7, 0), "-");
    CHECK_STR(chosen(f, 8, 1), "6");
    CHECK(ttx_route_file_choose(f, &r));
    CHECK(r.weight[1] == 0.125F && r.score[1] == 0.125F);
    CHECK_INT(ttx_route_file_check(f, 2, 8, &err), TTX_OK);
    CHECK_INT(ttx_route_file_check(f, 1, 8, &err), TTX_E_MODEL);
    CHECK_STR(err.msg, "routes: expected at most the model's 1 layers, found 2");
    err = (ttx_err){0};
    CHECK_INT(ttx_route_file_check(f, 2, 7, &err), TTX_E_MODEL);
    CHECK_STR(err.msg, "routes: expected at most the model's 7 experts, found expert 7");
    ttx_route_file_free(f);
    f = NULL;
    /* A prompt alone repeats as a whole. */
    CHECK_INT(load(&f, HEAD "0,0,0,0,0,1,1,0,9\n0,0,1,0,0,2,1,0,9\n", &err), TTX_OK);
    CHECK_STR(chosen(f, 2, 0), "1");
    CHECK_STR(chosen(f, 3, 0), "2");
    ttx_route_file_free(f);
}

static void test_writer(void) {
    const uint64_t expert_bytes[] = {100, 200}, dense_bytes[] = {7, 8};
    char name[600];
    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = 0;
    name[2] = '\n';
    name[3] = ' ';
    ttx_route_info info = {name, "arch", 2, 8, 2, expert_bytes, dense_bytes};
    ttx_route_writer *w = NULL;
    ttx_route_file *f = NULL;
    ttx_err err = {0};
    CHECK_INT(ttx_route_writer_open(&w, "written.csv", &info, &err), TTX_OK);
    if (!w) return;
    ttx_route_sink sink = ttx_route_writer_sink(w);
    ttx_route r = {.k = 2, .expert = {3, 1}, .weight = {0.7F, 1.0F / 3}};
    sink.restart(sink.ctx); /* a sequence without a token is no turn */
    sink.chosen(sink.ctx, &r);
    r = (ttx_route){.layer = 1, .k = 1, .expert = {7}, .weight = {1e-30F}};
    sink.chosen(sink.ctx, &r);
    sink.restart(sink.ctx);
    r = (ttx_route){.decode = true, .step = 4, .k = 1, .expert = {5}, .weight = {1}};
    sink.chosen(sink.ctx, &r);
    CHECK(access("written.csv", F_OK) != 0);
    CHECK_INT(ttx_route_writer_close(w, TTX_OK, &err), TTX_OK);
    CHECK_INT(ttx_route_file_load(&f, "written.csv", &err), TTX_OK);
    CHECK_STR(err.msg, "");
    if (!f) return;
    CHECK_STR(chosen(f, 0, 0), "31");
    CHECK_STR(chosen(f, 0, 1), "7");
    CHECK_STR(chosen(f, 1, 0), "31"); /* the other turn's tokens are not this turn's */
    r = (ttx_route){.layer = 0};
    CHECK(ttx_route_file_choose(f, &r) && r.weight[0] == 0.7F && r.weight[1] == 1.0F / 3);
    ttx_route_file_free(f);

    char text[4096] = {0};
    FILE *in = fopen("written.csv", "r");
    CHECK(in && fread(text, 1, sizeof text - 1, in) > 0);
    if (in) fclose(in);
    CHECK(strstr(text, "\n# layer=1 expert_bytes=200 dense_bytes=8\n" COLUMNS
                       "0,0,0,0,0,3,0.699999988,0,100\n"));
    CHECK(strstr(text, "\n1,1,4,0,0,5,1,0,100\n"));

    /* A run that failed leaves what was there. */
    CHECK_INT(ttx_route_writer_open(&w, "written.csv", &info, &err), TTX_OK);
    CHECK_INT(ttx_route_writer_close(w, TTX_E_RUNTIME, &err), TTX_E_RUNTIME);
    CHECK_INT(ttx_route_file_load(&f, "written.csv", &err), TTX_OK);
    ttx_route_file_free(f);
    CHECK_INT(ttx_route_writer_open(&w, "absent/routes.csv", &info, &err), TTX_E_RUNTIME);
    CHECK(!w);
    CHECK_INT(ttx_route_writer_close(NULL, 5, NULL), 5);
}

int main(void) {
    char folder[] = "/tmp/route_file_test.XXXXXX";
    if (!mkdtemp(folder) || chdir(folder) != 0) return 1;
    test_bad_files();
    test_zero_byte();
    test_replay();
    test_writer();
    unlink("routes.csv");
    unlink("written.csv");
    rmdir(folder);
    return failures != 0;
}
