/* check_attn.c -- attention: near the formula in double precision, and the same bits for a query
 * whatever company it has.
 *
 * The oracle is softmax(q K^T) V over the stored (F16, Q8_0) keys and values. The tolerance is
 * that of F32: a score carries an error of a few roundings of sum |q k| (a lane's products, the sum
 * of the lanes, the scale, the distance to the maximum: 6 where two large scores decide), which
 * changes its weight by as much, relatively; a value is a weighted mean, with errors relative to
 * sum w |v|. A sink may make the sum inf, and the result 0, where e^-88 of each value is lost.
 *
 * For the bits, each query is computed again: alone; alone with NaN in every position that it does
 * not see; backwards among some of the others; and in chunks that are merged.
 */
#include "check_int.h"
#include "half.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct shape {
    int64_t d_k, d_v, n_q, n_pos;
    ttx_dtype k_type, v_type;
    int window; /* 0: none; else the queries are causal with that window; -1: random ranges */
    float softcap, magnitude; /* magnitude of q */
    bool sink;
} shape;

/* A random case, and rows of n_q results. */
typedef struct attn_case {
    ttx_attn a;
    int64_t n_pos;
    uint8_t *k, *v;
    int32_t *start, *end;
    void *scratch;
} attn_case;

/* Byte offset of a position's row. */
static size_t place(int64_t pos, size_t row_bytes, size_t chunk_bytes) {
    return (size_t)(pos / TTX_ATTN_CHUNK) * chunk_bytes +
           (size_t)(pos % TTX_ATTN_CHUNK) * row_bytes;
}

/* n rows, with a gap of rubbish between the chunks. */
static uint8_t *random_rows(check *c, ttx_dtype type, int64_t n, int64_t d, float offset,
                            size_t *row_bytes, size_t *chunk_bytes) {
    size_t row = *row_bytes = ttx_dtype_bytes(type, (uint64_t)d);
    size_t chunk = *chunk_bytes = row * TTX_ATTN_CHUNK + (size_t)rnd_below(c, 100);
    uint8_t *rows = fenced(c, place(n - 1, row, chunk) + row);
    float *x = malloc(sizeof *x * (size_t)d);
    memset(rows, 0xff, place(n - 1, row, chunk));
    for (int64_t i = 0; i < n; i++) {
        fill_normal(c, x, d);
        for (int64_t j = 0; j < d; j++) x[j] += offset;
        c->ref->kv_store(rows + place(i, row, chunk), x, d, type);
    }
    free(x);
    return rows;
}

static attn_case random_case(check *c, const shape *s) {
    attn_case t = {.n_pos = s->n_pos};
    t.k = random_rows(c, s->k_type, s->n_pos, s->d_k, 0, &t.a.k_bytes, &t.a.k_chunk);
    t.v = random_rows(c, s->v_type, s->n_pos, s->d_v, 0.5f, &t.a.v_bytes, &t.a.v_chunk);
    int64_t ldq = s->d_k + 3, ldo = s->d_v + 5;
    float *q = fenced_f32(c, s->n_q * ldq - 3), *sink = fenced_f32(c, s->n_q);
    fill_normal(c, q, s->n_q * ldq - 3);
    for (int64_t i = 0; i < s->n_q; i++) sink[i] = rnd_normal(c) * (i % 3 ? 1 : 100);
    for (int64_t i = 0; i < s->n_q * ldq - 3; i++) q[i] *= s->magnitude;
    t.start = fenced(c, sizeof(int32_t) * (size_t)s->n_q);
    t.end = fenced(c, sizeof(int32_t) * (size_t)s->n_q);
    for (int64_t i = 0; i < s->n_q; i++) {
        int end = (int)(s->n_pos - s->n_q + i + 1); /* causal: the last sees everything */
        if (s->window < 0 || end < 0) end = rnd_below(c, (int)s->n_pos + 1);
        int start = s->window > 0 && end > s->window ? end - s->window : 0;
        if (s->window < 0) start = rnd_below(c, end + 1);
        t.start[i] = start;
        t.end[i] = end;
    }
    t.scratch = fenced(c, ttx_attn_scratch(s->d_k, s->d_v));
    t.a = (ttx_attn){.q = q,
                     .ldq = ldq,
                     .start = t.start,
                     .end = t.end,
                     .n_q = s->n_q,
                     .k = t.k,
                     .v = t.v,
                     .k_bytes = t.a.k_bytes,
                     .v_bytes = t.a.v_bytes,
                     .k_chunk = t.a.k_chunk,
                     .v_chunk = t.a.v_chunk,
                     .k_type = s->k_type,
                     .v_type = s->v_type,
                     .d_k = s->d_k,
                     .d_v = s->d_v,
                     .scale = 1 / sqrtf((float)s->d_k),
                     .softcap = s->softcap,
                     .sink = s->sink ? sink : NULL,
                     .out = fenced_f32(c, s->n_q * ldo - 5),
                     .ldo = ldo};
    return t;
}

static double element(const uint8_t *row, ttx_dtype type, int64_t i) {
    uint16_t h;
    float f;
    if (type == TTX_Q8_0) {
        memcpy(&h, row + 34 * (i / 32), 2);
        return (double)ttx_f16_to_f32(h) * (int8_t)row[34 * (i / 32) + 2 + i % 32];
    }
    if (type == TTX_F16) {
        memcpy(&h, row + 2 * i, 2);
        return ttx_f16_to_f32(h);
    }
    memcpy(&f, row + 4 * i, 4);
    return f;
}

static void oracle(const ttx_attn *a, int64_t i, double *want, double *tol) {
    int64_t lo = a->start[i], n = a->end[i] - lo;
    double *s = malloc(sizeof *s * (size_t)(n + 1)), top = -INFINITY, sum = 0, err = 0;
    for (int64_t j = 0; j < n; j++) {
        double dot = 0, mag = 0;
        for (int64_t c = 0; c < a->d_k; c++) {
            double p = a->q[i * a->ldq + c] *
                       element(a->k + place(lo + j, a->k_bytes, a->k_chunk), a->k_type, c);
            dot += p;
            mag += fabs(p);
        }
        s[j] = dot * a->scale;
        if (a->softcap > 0) s[j] = a->softcap * tanh(s[j] / a->softcap);
        top = fmax(top, s[j]);
        err = fmax(err, mag * a->scale);
    }
    if (a->sink && n > 0) { /* the difference to it is rounded too */
        err = fmax(err, fabs(a->sink[i] - top));
        top = fmax(top, a->sink[i]);
    }
    for (int64_t j = 0; j < n; j++) sum += s[j] = exp(s[j] - top);
    if (a->sink) sum += exp(a->sink[i] - top);
    for (int64_t c = 0; c < a->d_v; c++) {
        double mag = 0;
        want[c] = 0;
        for (int64_t j = 0; j < n; j++) {
            double p =
                s[j] / sum * element(a->v + place(lo + j, a->v_bytes, a->v_chunk), a->v_type, c);
            want[c] += p;
            mag += fabs(p);
        }
        tol[c] =
            0x1p-24 * (12 + 6 * err) * mag + 1e-37 * (double)(1 + n); /* what F32 cannot hold */
    }
    free(s);
}

/* Fills with NaN bits what query i does not see, in copies of K and V. */
static void poison(const ttx_attn *a, int64_t n_pos, int64_t i, uint8_t *k, uint8_t *v) {
    memcpy(k, a->k, place(n_pos - 1, a->k_bytes, a->k_chunk) + a->k_bytes);
    memcpy(v, a->v, place(n_pos - 1, a->v_bytes, a->v_chunk) + a->v_bytes);
    for (int64_t j = 0; j < n_pos; j++)
        if (j < a->start[i] || j >= a->end[i]) {
            memset(k + place(j, a->k_bytes, a->k_chunk), 0xff, a->k_bytes);
            memset(v + place(j, a->v_bytes, a->v_chunk), 0xff, a->v_bytes);
        }
}

static ttx_attn only(const ttx_attn *a, int64_t i, int64_t n) {
    ttx_attn b = *a;
    b.q += i * a->ldq;
    b.start += i;
    b.end += i;
    b.n_q = n;
    if (b.sink) b.sink += i;
    return b;
}

static void check_alone(check *c, const attn_case *t, int64_t i) {
    ttx_attn b = only(&t->a, i, 1);
    b.out = fenced_f32(c, b.d_v);
    c->k->attention(&b, t->scratch);
    expect_same(c, "alone", b.out, t->a.out + i * t->a.ldo, b.d_v);
    uint8_t *k = fenced(c, place(t->n_pos - 1, b.k_bytes, b.k_chunk) + b.k_bytes);
    uint8_t *v = fenced(c, place(t->n_pos - 1, b.v_bytes, b.v_chunk) + b.v_bytes);
    poison(&t->a, t->n_pos, i, k, v);
    b.k = k;
    b.v = v;
    c->k->attention(&b, t->scratch);
    expect_same(c, "alone among NaN", b.out, t->a.out + i * t->a.ldo, b.d_v);
}

/* Some of the queries, in reverse; what only the last of them sees is inf. */
static void check_reversed(check *c, const attn_case *t) {
    ttx_attn b = t->a;
    int64_t n = 0, d = b.d_k, pick[512];
    for (int64_t i = b.n_q - 1; i >= 0 && n < 512; i -= 1 + rnd_below(c, 3)) pick[n++] = i;
    float *q = fenced_f32(c, n * d), *sink = fenced_f32(c, n);
    int32_t *start = fenced(c, sizeof *start * (size_t)n),
            *end = fenced(c, sizeof *end * (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        memcpy(q + i * d, t->a.q + pick[i] * t->a.ldq, sizeof *q * (size_t)d);
        start[i] = t->start[pick[i]];
        end[i] = t->end[pick[i]];
        sink[i] = b.sink ? b.sink[pick[i]] : 0;
    }
    b.q = q, b.ldq = d, b.start = start, b.end = end, b.n_q = n;
    b.sink = b.sink ? sink : NULL;
    b.ldo = b.d_v;
    b.out = fenced_f32(c, n * b.ldo);
    c->k->attention(&b, t->scratch);
    for (int64_t i = 0; i < n; i++)
        expect_same(c, "reversed", b.out + i * b.ldo, t->a.out + pick[i] * t->a.ldo, b.d_v);
}

static void check_chunks(check *c, const attn_case *t) {
    ttx_attn b = t->a;
    int64_t first = INT64_MAX, last = 0, len = b.n_q * ttx_attn_part_len(b.d_v);
    for (int64_t i = 0; i < b.n_q; i++) {
        if (b.start[i] < first) first = b.start[i];
        if (b.end[i] > last) last = b.end[i];
    }
    first /= TTX_ATTN_CHUNK;
    last = (last + TTX_ATTN_CHUNK - 1) / TTX_ATTN_CHUNK;
    if (last <= first) return;
    float *part = fenced_f32(c, (last - first) * len);
    for (int64_t i = last - 1; i >= first; i--)
        c->k->attention_chunk(&b, i, part + (i - first) * len, t->scratch);
    b.out = fenced_f32(c, b.n_q * b.ldo);
    c->k->attention_merge(&b, part, last - first);
    for (int64_t i = 0; i < b.n_q; i++)
        expect_same(c, "chunks", b.out + i * b.ldo, t->a.out + i * b.ldo, b.d_v);
}

static void check_shape(check *c, const shape *s) {
    if (!begin(c, "attention/%s %s d %d %d, %d queries, %d positions, window %d, cap %g%s",
               ttx_dtype_get(s->k_type)->name, ttx_dtype_get(s->v_type)->name, (int)s->d_k,
               (int)s->d_v, (int)s->n_q, (int)s->n_pos, s->window, s->softcap,
               s->sink ? ", sink" : ""))
        return;
    if (!present(c, c->k->attention && c->k->attention_chunk && c->k->attention_merge)) return;
    attn_case t = random_case(c, s);
    c->k->attention(&t.a, t.scratch);
    double *want = malloc(sizeof *want * (size_t)s->d_v),
           *tol = malloc(sizeof *tol * (size_t)s->d_v);
    for (int64_t i = 0; i < s->n_q; i++) {
        oracle(&t.a, i, want, tol);
        expect_near(c, "result", t.a.out + i * t.a.ldo, want, tol, s->d_v);
    }
    for (int64_t i = 0; i < s->n_q; i += 1 + s->n_q / 7) check_alone(c, &t, i);
    check_alone(c, &t, s->n_q - 1);
    check_reversed(c, &t);
    check_chunks(c, &t);
    free(want);
    free(tol);
    release(c);
}

/* As the KV cache: in huge pages. */
static uint8_t *huge(check *c, size_t bytes) {
    uint8_t *p = fenced(c, bytes);
    size_t skip = (4096 - (uintptr_t)p % 4096) % 4096;
    if (bytes > skip) madvise(p + skip, bytes - skip, MADV_HUGEPAGE);
    return p;
}

typedef struct attn_bench {
    check *c;
    attn_case t;
    int64_t n_head, n_group; /* KV heads, one after the other; queries that go with one */
    uint8_t *scratch[64];
} attn_bench;

/* The heads are shared among the threads. */
static void run_attn_bench(void *ctx, int thread, int n_threads) {
    attn_bench *b = ctx;
    for (int64_t h = thread; h < b->n_head; h += n_threads) {
        ttx_attn a = b->t.a;
        a.k += a.k_chunk * (size_t)(h * (b->t.n_pos / TTX_ATTN_CHUNK));
        a.v += a.v_chunk * (size_t)(h * (b->t.n_pos / TTX_ATTN_CHUNK));
        a.out += thread * a.n_q * a.ldo;
        b->c->k->attention(&a, b->scratch[thread]);
    }
}

/* n_q queries at the end of n_pos positions, of n_head KV heads that together exceed the caches
 * (decode), or of two (prompt). */
static void bench_shape(check *c, ttx_dtype type, int64_t d, int64_t n_q, int64_t n_pos,
                        bool causal) {
    attn_bench b = {.c = c};
    size_t row = ttx_dtype_bytes(type, (uint64_t)d);
    b.n_head = causal ? 2 : (int64_t)(128 * 1024 * 1024 / (2 * row * (size_t)n_pos));
    if (!begin(c, "bench/attention %s d %d: %d queries x %d", ttx_dtype_get(type)->name, (int)d,
               (int)n_q, (int)n_pos))
        return;
    shape s = {d, d, n_q, n_pos, type, type, 0, 0, 1, false};
    b.t = random_case(c, &s);
    ttx_attn *a = &b.t.a;
    int64_t n_chunk = n_pos / TTX_ATTN_CHUNK * b.n_head;
    a->k_chunk = a->v_chunk = row * TTX_ATTN_CHUNK;
    uint8_t *k = huge(c, row * (size_t)(n_pos * b.n_head));
    uint8_t *v = huge(c, row * (size_t)(n_pos * b.n_head));
    for (int64_t i = 0; i < n_chunk; i++) {
        memcpy(k + a->k_chunk * (size_t)i, a->k, a->k_chunk);
        memcpy(v + a->v_chunk * (size_t)i, a->v, a->v_chunk);
    }
    a->k = k;
    a->v = v;
    a->out = fenced_f32(c, c->n_threads * n_q * a->ldo);
    double pairs = 0;
    for (int64_t i = 0; i < n_q; i++) {
        if (!causal) b.t.end[i] = (int32_t)n_pos;
        pairs += b.t.end[i];
    }
    for (int i = 0; i < c->n_threads; i++) b.scratch[i] = aligned_alloc(64, ttx_attn_scratch(d, d));
    double sec = bench_time(c, run_attn_bench, &b), heads = (double)b.n_head;
    bench_line(c, sec, causal ? 0 : 2 * heads * (double)row * (double)n_pos,
               4 * heads * pairs * (double)d);
    for (int i = 0; i < c->n_threads; i++) free(b.scratch[i]);
    release(c);
}

static void bench_attention(check *c) {
    static const int decode_q[] = {1, 2, 3, 4, 7, 8, 16};
    if (c->k->isa == TTX_ISA_SCALAR) return; /* a reference; not worth the wait */
    for (int d = 64; d <= 128; d *= 2) {
        for (size_t i = 0; i < sizeof decode_q / sizeof *decode_q; i++)
            bench_shape(c, TTX_F16, d, decode_q[i], 4096, false);
        bench_shape(c, TTX_Q8_0, d, 1, 4096, false);
        bench_shape(c, TTX_Q8_0, d, 4, 4096, false);
        bench_shape(c, TTX_F32, d, 1, 4096, false);
        bench_shape(c, TTX_F32, d, 4, 4096, false);
    }
    for (int d = 64; d <= 256; d *= 2) {
        bench_shape(c, TTX_F16, d, 512, 512, true);
        bench_shape(c, TTX_F16, d, 512, 4096, true);
        bench_shape(c, TTX_Q8_0, d, 512, 512, true);
        bench_shape(c, TTX_F32, d, 512, 512, true);
    }
}

void check_attention(check *c) {
    static const ttx_dtype types[] = {TTX_F32, TTX_F16, TTX_Q8_0};
    static const int dims[] = {64, 80, 96, 128, 192, 256, 1, 7, 8, 12, 33, 24, 120};
    static const int n_queries[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 16, 47, 49, 100};
    static const int lengths[] = {1, 2, 7, 63, 64, 65, 130, 511, 512, 513, 1030, 1600};
    if (c->bench) {
        bench_attention(c);
        return;
    }
    for (int i = 0; i < 250; i++) {
        shape s = {.d_k = dims[i % 13], .d_v = dims[rnd_below(c, 4) ? i % 13 : rnd_below(c, 13)]};
        s.n_q = n_queries[rnd_below(c, 14)];
        s.n_pos = i < 24 ? lengths[i % 12] : 1 + rnd_below(c, rnd_below(c, 2) ? 1300 : 100);
        s.k_type = s.d_k % 32 ? types[rnd_below(c, 2)] : types[rnd_below(c, 3)];
        s.v_type = s.d_v % 32 ? types[rnd_below(c, 2)] : types[rnd_below(c, 3)];
        s.window = rnd_below(c, 3) - 1;
        if (s.window == 1) s.window = 1 + rnd_below(c, 200);
        s.softcap = rnd_below(c, 3) ? 0 : 20;
        s.magnitude = rnd_below(c, 4) ? 1 : 20;
        s.sink = rnd_below(c, 3) == 0;
        check_shape(c, &s);
    }
}
