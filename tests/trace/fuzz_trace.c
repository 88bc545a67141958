/* fuzz_trace.c -- readers of traces on damaged ones.
 *
 * A good trace is built here; the input is a list of edits of it, so that checksums can be made
 * right again afterwards and damage reaches what lies behind them. Readers, check, every export and
 * every report must return, with or without an error. Records are edited as they are, before they
 * are compressed, or after it. With libFuzzer, or with a main of its own that makes edits up:
 * fuzz_trace_edits [ROUNDS [SEED]]
 */
#include "export.h"
#include "report.h"
#include "trace_check.h"
#include "trace_file.h"
#include "trace_pack.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_LAYER = 2, N_TENSOR = 6, MAX_FILE = 1 << 14 };

static const char meta_text[] =
    "{\"trace_version\":1,\"complete\":true,\"start_time_utc\":\"2026-01-01T00:00:00Z\","
    "\"model_file\":\"m.gguf\",\"model_hash\":\"x\",\"model_metadata\":{\"architecture\":\"llama\","
    "\"num_layers\":2,\"num_heads\":4,\"num_kv_heads\":2,\"hidden_dim\":64,\"vocab_size\":100,"
    "\"num_experts\":4,\"num_experts_used\":2},\"trace_config\":{\"level\":\"head\"},\"tensors\":["
    "{\"name\":\"token_embd.weight\",\"component\":\"embedding\",\"shard\":0,\"offset\":100,"
    "\"size\":6400},"
    "{\"name\":\"blk.0.attn_q.weight\",\"component\":\"attention\",\"layer\":0,\"shard\":0,"
    "\"offset\":6500,\"size\":400,\"qkv\":1,\"n_head\":4},"
    "{\"name\":\"blk.1.ffn_up_exps.weight\",\"component\":\"expert\",\"layer\":1,\"shard\":0,"
    "\"offset\":7000,\"size\":400,\"n_expert\":4,\"expert_bytes\":100},"
    "{\"name\":\"blk.1.ffn_up.0.weight\",\"component\":\"expert\",\"layer\":1,\"shard\":0,"
    "\"offset\":7400,\"size\":100,\"n_expert\":1,\"expert_bytes\":100,\"expert\":0},"
    "{\"name\":\"cache_k_l0\",\"component\":\"kv_cache\",\"layer\":0,\"size\":640},"
    "{\"name\":\"cache_v_l0\",\"component\":\"kv_cache\",\"layer\":0,\"size\":640}],"
    "\"trace_stats\":{\"total_entries\":12,\"lost\":0,\"duration_seconds\":1}}";

static const char pattern_text[] =
    "{\"model_hash\":\"x\",\"per_token_pattern\":[{\"tensor_idx\":0},{\"tensor_idx\":1},"
    "{\"tensor_idx\":2,\"n_expert\":4,\"n_expert_used\":2},"
    "{\"tensor_idx\":3,\"n_expert\":4,\"n_expert_used\":1}]}";

static const char stats_text[] = "idx,name,accesses,bytes\n0,token_embd.weight,3,6400\n"
                                 "2,blk.1.ffn_up_exps.weight,2,200\n4,cache_k_l0,7,70\n,,9,99\n";
static const char blocks_text[] =
    "time_ns,shard,file_offset,size_bytes,tensor_name,layer_id,expert_id\n"
    "-5,0,512,512,token_embd.weight,,\n700,0,7100,100,blk.1.ffn_up_exps.weight,1,1\n";
static const char tokens_text[] = "token_id,vocab_id,text,phase,batch,start_ns,end_ns\n"
                                  "3,2,\"a \"\"b\"\", c\",GENERATE,0,1000,9000\n";

/* What can be edited: files of text, the records, and those of a compressed trace. */
enum { F_META, F_PATTERN, F_STATS, F_BLOCKS, F_TOKENS, F_RECORDS, F_PACKED, FILES };
static const char packed_records[] = TTX_TRACE_RECORDS TTX_TRACE_PACKED;
static const char *const names[FILES] = {
    TTX_TRACE_META, "access_pattern.json", "tensor_stats.csv", "block_reads.csv",
    "tokens.csv",   TTX_TRACE_RECORDS,     packed_records};
static const char *const texts[F_RECORDS] = {meta_text, pattern_text, stats_text, blocks_text,
                                             tokens_text};

static ttx_record make(uint32_t tensor, uint16_t layer, uint64_t offset, uint64_t size) {
    return (ttx_record){.timestamp_ns = 1000 + offset,
                        .file_offset = offset,
                        .size_bytes = size,
                        .duration_ns = 10,
                        .token_id = 3,
                        .tensor_idx = tensor,
                        .n_tokens = 1,
                        .layer_id = layer,
                        .attention_head = TTX_REC_NO_HEAD,
                        .expert_id = TTX_REC_NO_EXPERT,
                        .kind = TTX_REC_ACCESS,
                        .operation_type = TTX_OP_MUL_MAT,
                        .phase = TTX_PHASE_GENERATE,
                        .expert_rank = TTX_REC_NO_RANK,
                        .flags = TTX_RECF_FIRST};
}

/* HEADER, two blocks of six records, END. */
static size_t good_records(uint8_t *to) {
    ttx_record r[12];
    size_t n = 0, at = 0;
    r[n++] = make(0, TTX_REC_NO_LAYER, 164, 64);
    for (uint16_t h = 0; h < 4; h++) {
        r[n] = make(1, 0, 6500 + h * 100u, 100);
        r[n].flags = h ? 0 : TTX_RECF_FIRST;
        r[n++].attention_head = h;
    }
    for (uint16_t e = 1; e < 3; e++) {
        r[n] = make(2, 1, 7000 + e * 100u, 100);
        r[n++].expert_id = e;
    }
    r[n] = make(3, 1, 7400, 100);
    r[n++].expert_id = 0;
    for (int kind = TTX_REC_ROUTE; kind <= TTX_REC_TOKEN; kind++) {
        r[n] = make(2, 1, 7000, 100);
        r[n].operation_type = 0;
        r[n++].kind = (uint8_t)kind;
    }
    r[11].end_ns = 9000;
    r[11].batch = 0;
    r[11].timestamp_ns = 1000;
    for (int k = 0; k < 4; k++) {
        ttx_frame f = ttx_frame_make((uint8_t)(k == 0   ? TTX_FRAME_HEADER
                                               : k == 3 ? TTX_FRAME_END
                                                        : TTX_FRAME_BLOCK));
        f.first = k < 2 ? 0 : k == 2 ? 6 : 12;
        f.n_records = k == 1 || k == 2 ? 6 : 0;
        memcpy(to + at, &f, sizeof f);
        at += sizeof f;
        if (f.n_records) memcpy(to + at, r + (k - 1) * 6, 6 * sizeof *r);
        at += f.n_records * sizeof *r;
    }
    return at;
}

/* Makes the checksums of everything that looks like a frame right. */
static void reseal(uint8_t *p, size_t n) {
    ttx_crc c;
    ttx_crc_init(&c);
    for (size_t at = 0; at + sizeof(ttx_frame) <= n; at += sizeof(ttx_frame)) {
        ttx_frame f;
        memcpy(&f, p + at, sizeof f);
        if (f.kind < TTX_REC_FRAME || memcmp(f.magic, "TTXTRACE", 8) != 0) continue;
        size_t size = (size_t)f.n_records * sizeof(ttx_record);
        if (f.kind == TTX_FRAME_BLOCK && size <= n - at - sizeof f)
            f.crc = ttx_crc32(&c, 0, p + at + sizeof f, size);
        ttx_frame_seal(&c, &f);
        memcpy(p + at, &f, sizeof f);
    }
}

/* The records as --trace-compress writes them: each frame, with what belongs to it, on its own. 0:
 * built without zstd. */
static size_t pack(uint8_t *to, const uint8_t *p, size_t n) {
    ttx_packer *packer;
    size_t size = 0;
    if (ttx_packer_open(&packer, NULL)) return 0;
    for (size_t at = 0, end; at < n; at = end) {
        ttx_frame f = {0};
        if (n - at >= sizeof f) memcpy(&f, p + at, sizeof f);
        end = at + sizeof f;
        if (f.kind == TTX_FRAME_BLOCK && f.n_records < MAX_FILE / sizeof f)
            end += f.n_records * sizeof f;
        if (end > n) end = n;
        size += ttx_pack(packer, to + size, p + at, end - at);
    }
    ttx_packer_close(packer);
    return size;
}

/* ---- a directory of its own ---- */

static char home[] = "/tmp/ttx_fuzz_trace.XXXXXX";
static bool made;

static void put_file(const char *name, const void *data, size_t n) {
    char path[100];
    snprintf(path, sizeof path, "%s/%s", home, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, data, n) != (ssize_t)n) abort();
    close(fd);
}

static void unlink_file(const char *name) {
    char path[100];
    snprintf(path, sizeof path, "%s/%s", home, name);
    unlink(path);
}

static void remove_home(void) {
    for (int i = 0; i < FILES; i++) unlink_file(names[i]);
    rmdir(home);
}

static void report_everything(FILE *out) {
    ttx_report_settings set = ttx_report_default_settings();
    ttx_report *r;
    ttx_err err = {0};
    set.ram = 700;
    if (ttx_report_open(&r, home, &set, &err)) return;
    ttx_report *two[] = {r, r};
    ttx_report_statistics(r, out);
    ttx_report_html(r, out);
    ttx_report_hints_json(r, out);
    ttx_report_hints_print(r, out);
    ttx_report_compare_print(two, 2, out);
    ttx_report_compare_html(two, 2, out);
    ttx_report_free(r);
}

static void read_everything(bool report) {
    static ttx_trace_summary summary;
    ttx_trace_meta m;
    ttx_err err = {0};
    if (ttx_trace_meta_load(&m, home, &err)) return;
    ttx_trace_check(&m, &summary, &err);
    FILE *out = fopen("/dev/null", "we");
    for (int format = 0; out && format < TTX_EXPORT_FORMATS; format++)
        for (int all = 0; all < 2; all++) {
            ttx_export_settings set = {.format = (ttx_export_format)format, .all_kinds = all};
            char text[200];
            const char *cut;
            err = (ttx_err){0};
            ttx_export(&m, &set, out, text, &cut, &err);
        }
    if (out && report) report_everything(out);
    if (out) fclose(out);
    ttx_trace_meta_free(&m);
}

/* Edits of five bytes: place, what to do, value. */
static size_t edit(uint8_t *file, size_t n, const uint8_t *data, size_t size) {
    for (size_t i = 0; i + 5 <= size && n; i += 5) {
        size_t at = (data[i] | (size_t)data[i + 1] << 8) % n;
        if (data[i + 2] < 200)
            file[at] = data[i + 3];
        else if (data[i + 2] < 225)
            n = at;
        else if (data[i + 2] < 240 && n < MAX_FILE - 300) { /* n more bytes of one value */
            size_t more = data[i + 4];
            memmove(file + at + more, file + at, n - at);
            memset(file + at, data[i + 3], more);
            n += more;
        } else if (at + 8 <= n)
            memset(file + at, data[i + 3], 8);
    }
    return n;
}

/* The files of text, none of which is damaged. */
static void put_texts(bool stats) {
    for (int i = 0; i < F_RECORDS; i++) put_file(names[i], texts[i], strlen(texts[i]));
    if (!stats) return;
    char meta[sizeof meta_text + 8], *level; /* tensor_stats.csv is read at that level only */
    strcpy(meta, meta_text);
    if (!(level = strstr(meta, "\"head\""))) abort();
    memmove(level + 7, level + 6, strlen(level + 6) + 1);
    memcpy(level, "\"stats\"", 7);
    put_file(TTX_TRACE_META, meta, strlen(meta));
}

/* The first byte: which file is edited, whether checksums are made right again, and whether that
 * comes before compression or after it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t file[MAX_FILE], packed[4 * MAX_FILE];
    if (!made && !(made = mkdtemp(home) != NULL)) abort();
    if (!size) return 0;
    int which = data[0] % FILES;
    bool right = data[0] >= 64, text = which < F_RECORDS, before = right || data[0] >= 32;
    size_t n =
        text ? (size_t)(stpcpy((char *)file, texts[which]) - (char *)file) : good_records(file);
    if (!text) reseal(file, n);
    if (which != F_PACKED || before) n = edit(file, n, data + 1, size - 1);
    if (!text && right) reseal(file, n);
    put_texts(which == F_STATS);
    unlink_file(names[F_PACKED]);
    if (text) {
        uint8_t good[2048];
        size_t n_good = good_records(good);
        reseal(good, n_good);
        put_file(names[F_RECORDS], good, n_good);
    }
    if (which == F_PACKED) {
        unlink_file(names[F_RECORDS]);
        n = pack(packed, file, n);
        if (!before) n = edit(packed, n, data + 1, size - 1);
        put_file(names[F_PACKED], packed, n);
    } else {
        put_file(names[which], file, n);
    }
    read_everything(which == F_STATS || which == F_BLOCKS || which == F_TOKENS || size % 2);
    return 0;
}

#ifdef FUZZ_OWN_MAIN
static bool can_pack(void) {
    uint8_t to[1100], byte = 0;
    return pack(to, &byte, 1) > 0;
}

int main(int argc, char **argv) {
    long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 1000;
    uint64_t x = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    static ttx_trace_summary s;
    ttx_trace_meta m;
    ttx_err err = {0};
    /* no edits, as it is and compressed: it must be good */
    for (int which = F_RECORDS; which < (can_pack() ? FILES : F_PACKED); which++) {
        LLVMFuzzerTestOneInput((const uint8_t[]){(uint8_t)which}, 1);
        if (ttx_trace_meta_load(&m, home, &err) || ttx_trace_check(&m, &s, &err) || s.n_problems ||
            s.whole_tokens != 1 || s.records != 12) {
            printf("the trace without damage is refused: %s%s\n", err.msg, s.problems[0]);
            return 1;
        }
        ttx_trace_meta_free(&m);
    }
    for (long i = 0; i < rounds; i++) {
        uint8_t data[64];
        for (size_t k = 0; k < sizeof data; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            data[k] = (uint8_t)(x >> 56);
        }
        LLVMFuzzerTestOneInput(data, 1 + (size_t)(data[62] & 1) + 5 * (size_t)(1 + data[63] % 12));
    }
    remove_home();
    return 0;
}
#else
__attribute__((destructor)) static void at_end(void) {
    if (made) remove_home();
}
#endif
