/* report_hints.c -- advice drawn from a trace: hot and cold, what to pin, what to fetch when, how
 * far the run could have been foreseen. docs/report.md documents hints.json.
 */
#include "report_int.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Everything that the two forms, JSON and text, say. */
typedef struct advice {
    rp_tensor_sum *sums;
    uint32_t *order, n; /* tensors from hot to cold */
    uint32_t *pins, n_pin, n_fit;
    bool *fits; /* [n_pin] */
    uint64_t ram, pinned, saved;
    rp_row group[8]; /* see groups[] */
    rp_cache_point curve[RP_CACHE_POINTS];
    bool has_curve;
    uint32_t *slowest, n_slowest; /* layers */
    uint64_t *layer_ns, *layer_bytes;
} advice;

enum { EMBEDDING, LAYERS, EARLY, LATE, CACHE, WEIGHTS, OTHER, GROUPS };
static const char *const groups[GROUPS] = {"embeddings", "layers",  "early_layers",  "late_layers",
                                           "kv_cache",   "weights", "outside_layers"};

static void add(rp_row *to, const rp_row *from) {
    to->records += from->records;
    to->accesses += from->accesses;
    to->bytes += from->bytes;
    to->ns += from->ns;
}

/* Early: the first third of the layers; late: the last third. */
static void sum_groups(const ttx_report *r, advice *a) {
    for (uint32_t i = 0; i < r->cube.n_row; i++) {
        const rp_row *w = &r->cube.rows[i];
        if (w->layer < r->n_layer) {
            a->layer_ns[w->layer] += w->ns;
            a->layer_bytes[w->layer] += w->bytes;
        }
        if (w->tensor == TTX_REC_NO_TENSOR) continue;
        bool file = w->tensor < r->meta.n_file_tensor;
        add(&a->group[file ? WEIGHTS : CACHE], w);
        if (!file) continue;
        if (strcmp(r->meta.tensors[w->tensor].component, "embedding") == 0)
            add(&a->group[EMBEDDING], w);
        add(&a->group[w->layer < r->n_layer ? LAYERS : OTHER], w);
        if (w->layer >= r->n_layer) continue;
        if (w->layer < r->n_layer / 3) add(&a->group[EARLY], w);
        if (w->layer >= r->n_layer - r->n_layer / 3) add(&a->group[LATE], w);
    }
}

static void rank_layers(const ttx_report *r, advice *a) {
    for (uint32_t l = 0; l < r->n_layer; l++) { /* the ten slowest, by insertion */
        uint32_t at = a->n_slowest;
        while (at && a->layer_ns[a->slowest[at - 1]] < a->layer_ns[l]) at--;
        if (at >= 10) continue;
        uint32_t n = a->n_slowest < 10 ? a->n_slowest : 9;
        memmove(a->slowest + at + 1, a->slowest + at, (n - at) * sizeof *a->slowest);
        a->slowest[at] = l;
        a->n_slowest = n + 1;
    }
}

static void fit_pins(const ttx_report *r, advice *a) {
    uint64_t total = 0;
    for (uint32_t i = 0; i < a->n_pin; i++) total += r->objects[a->pins[i]].size;
    a->ram = r->set.ram ? r->set.ram : total / 2;
    a->pinned = rp_pin(r, a->pins, a->n_pin, a->ram, a->fits, &a->saved);
    for (uint32_t i = 0; i < a->n_pin; i++) a->n_fit += a->fits[i];
}

static bool advise(const ttx_report *r, advice *a) {
    *a = (advice){0};
    a->sums = rp_tensor_sums(r, r->set.hot_by, &a->order, &a->n);
    a->pins = rp_pin_order(r, &a->n_pin);
    a->fits = calloc((size_t)a->n_pin + 1, sizeof *a->fits);
    a->slowest = calloc(16, sizeof *a->slowest);
    a->layer_ns = calloc((size_t)r->n_layer + 1, sizeof *a->layer_ns);
    a->layer_bytes = calloc((size_t)r->n_layer + 1, sizeof *a->layer_bytes);
    a->has_curve = rp_cache_curve(r, a->curve);
    if (!a->sums || !a->pins || !a->fits || !a->slowest || !a->layer_ns || !a->layer_bytes)
        return false;
    sum_groups(r, a);
    rank_layers(r, a);
    fit_pins(r, a);
    return true;
}

static void forget(advice *a) {
    free(a->sums);
    free(a->order);
    free(a->pins);
    free(a->fits);
    free(a->slowest);
    free(a->layer_ns);
    free(a->layer_bytes);
}

/* ---- JSON ---- */

static void put_object(const ttx_report *r, rp_json *j, const rp_object *o) {
    const ttx_trace_tensor *t = &r->meta.tensors[o->tensor];
    uint64_t offset = t->offset;
    if (o->expert != TTX_REC_NO_EXPERT) offset += o->expert * t->expert_bytes;
    rp_text(j, "tensor_name", t->name);
    if (o->expert != TTX_REC_NO_EXPERT) rp_u64(j, "expert_id", o->expert);
    rp_u64(j, "shard", t->shard);
    rp_u64(j, "file_offset", offset);
    rp_u64(j, "size_bytes", o->size);
}

static void put_tensors(const ttx_report *r, rp_json *j, const advice *a, int heat) {
    rp_begin(j, heat > 0 ? "hot" : "cold", '[');
    for (uint32_t i = 0; i < a->n; i++) {
        const rp_tensor_sum *s = &a->sums[a->order[i]];
        if (s->heat != heat) continue;
        const ttx_trace_tensor *t = &r->meta.tensors[s->tensor];
        rp_begin(j, NULL, '{');
        rp_text(j, "tensor_name", t->name);
        rp_u64(j, "accesses", s->accesses);
        rp_u64(j, "bytes", s->bytes);
        rp_u64(j, "size_bytes", t->size);
        rp_num(j, "saved_per_pinned_mib", rp_ratio((double)s->bytes * 1048576, (double)t->size));
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_pins(const ttx_report *r, rp_json *j, const advice *a) {
    rp_begin(j, "pin", '{');
    rp_u64(j, "ram", a->ram);
    rp_u64(j, "bytes", a->pinned);
    rp_u64(j, "saved_bytes", a->saved);
    rp_num(j, "saved_share", rp_ratio((double)a->saved, (double)r->file_bytes_read));
    rp_begin(j, "ranges", '[');
    for (uint32_t i = 0; i < a->n_pin; i++) {
        if (!a->fits[i]) continue;
        rp_begin(j, NULL, '{');
        put_object(r, j, &r->objects[a->pins[i]]);
        rp_u64(j, "accesses", r->objects[a->pins[i]].accesses);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    rp_end(j, '}');
}

static void put_prefetch(const ttx_report *r, rp_json *j) {
    rp_begin(j, "prefetch", '[');
    for (uint32_t i = 0; i < r->seq.n_base; i++) {
        rp_begin(j, NULL, '{');
        put_object(r, j, &r->objects[r->seq.base[i]]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static void put_curve(rp_json *j, const advice *a) {
    rp_begin(j, "cache", '{');
    rp_begin(j, "curve", '[');
    for (int i = 0; i < RP_CACHE_POINTS; i++) {
        rp_begin(j, NULL, '{');
        rp_num(j, "size", a->curve[i].bytes);
        rp_num(j, "lru_accesses", a->curve[i].lru);
        rp_num(j, "lru_bytes", a->curve[i].lru_bytes);
        rp_num(j, "pinned_bytes", a->curve[i].pinned);
        rp_end(j, '}');
    }
    rp_end(j, ']');
    rp_num(j, "lru_knee", a->curve[rp_cache_knee(a->curve, false)].bytes);
    rp_num(j, "pinned_knee", a->curve[rp_cache_knee(a->curve, true)].bytes);
    rp_end(j, '}');
}

static void put_traffic(rp_json *j, const ttx_report *r, const advice *a) {
    rp_begin(j, "traffic", '{');
    for (int g = 0; g < GROUPS; g++) {
        rp_begin(j, groups[g], '{');
        rp_u64(j, "accesses", a->group[g].accesses);
        rp_u64(j, "bytes", a->group[g].bytes);
        rp_u64(j, "ns", a->group[g].ns);
        rp_end(j, '}');
    }
    rp_end(j, '}');
    rp_begin(j, "slowest_layers", '[');
    for (uint32_t i = 0; i < a->n_slowest; i++) {
        uint32_t l = a->slowest[i];
        rp_begin(j, NULL, '{');
        rp_u64(j, "layer_id", l);
        rp_u64(j, "ns", a->layer_ns[l]);
        rp_u64(j, "bytes", a->layer_bytes[l]);
        rp_num(j, "bytes_per_ns", rp_ratio((double)a->layer_bytes[l], (double)a->layer_ns[l]));
        rp_u64(j, "waited_ns", r->layer_stall[l]);
        rp_end(j, '}');
    }
    rp_end(j, ']');
}

static double others(const ttx_report *r) {
    return r->seq.n_token > 1 ? (double)(r->seq.n_token - 1) : 0;
}

static void put_order(rp_json *j, const ttx_report *r) {
    const rp_reuse *u = &r->reuse;
    uint64_t distinct = rp_io_distinct(&r->io, r->io.touched, 0, r->file_bytes);
    rp_begin(j, "order", '{');
    rp_num(j, "sequential_share", rp_ratio((double)u->sequential, (double)u->compared));
    rp_num(j, "reread_factor", rp_ratio((double)r->file_bytes_read, (double)distinct));
    rp_u64(j, "jumps_a_token", r->seq.base_jumps);
    rp_u64(j, "jumps_a_token_reordered", r->seq.n_base ? 1 : 0);
    rp_end(j, '}');
    rp_begin(j, "predictability", '{');
    rp_u64(j, "decode_tokens", r->seq.n_token);
    rp_num(j, "same_tensor_sequence", rp_ratio((double)r->seq.same_tensors, others(r)));
    rp_num(j, "same_object_sequence", rp_ratio((double)r->seq.same_objects, others(r)));
    rp_num(j, "next_by_last_successor", rp_ratio((double)u->hits_next, (double)u->with_next));
    rp_end(j, '}');
}

void ttx_report_hints_json(const ttx_report *r, FILE *out) {
    advice a;
    rp_json j = {.f = out};
    rp_begin(&j, NULL, '{');
    rp_u64(&j, "format", 1);
    rp_text(&j, "trace", r->meta.dir);
    rp_text(&j, "model_file", r->meta.model_file);
    rp_text(&j, "model_hash", r->meta.model_hash);
    rp_text(&j, "hot_by", r->set.hot_by == TTX_HOT_BY_BYTES ? "bytes" : "access");
    if (advise(r, &a)) {
        put_tensors(r, &j, &a, 1);
        put_tensors(r, &j, &a, -1);
        put_pins(r, &j, &a);
        put_prefetch(r, &j);
        put_curve(&j, &a);
        put_traffic(&j, r, &a);
        put_order(&j, r);
        rp_routes_json(r, &j);
    }
    forget(&a);
    rp_end(&j, '}');
    fputc('\n', out);
}

/* ---- text ---- */

static double mib(uint64_t bytes) {
    return (double)bytes / 1048576;
}

static double percent(double a, double b) {
    return 100 * rp_ratio(a, b);
}

static void print_heat(const ttx_report *r, const advice *a, int heat, FILE *out) {
    enum { SHOWN = 10 };
    uint32_t n = 0;
    uint64_t bytes = 0, size = 0;
    for (uint32_t i = 0; i < a->n; i++) {
        const rp_tensor_sum *s = &a->sums[i];
        if (s->heat != heat) continue;
        n++;
        bytes += s->bytes;
        size += r->meta.tensors[i].size;
    }
    fprintf(out, "\n%s: %u of %u tensors, %.1f%% of the bytes accessed, %.1f MiB in the file\n",
            heat > 0 ? "Hot" : "Cold", n, a->n, percent((double)bytes, (double)r->file_bytes_read),
            mib(size));
    uint32_t shown = 0;
    for (uint32_t i = 0; i < a->n && shown < SHOWN; i++) {
        const rp_tensor_sum *s = &a->sums[a->order[heat > 0 ? i : a->n - 1 - i]];
        if (s->heat != heat) continue;
        const ttx_trace_tensor *t = &r->meta.tensors[s->tensor];
        fprintf(out, "  %-40s %10" PRIu64 " accesses %12.1f MiB, %.1f MiB saved a pinned MiB\n",
                t->name, s->accesses, mib(s->bytes), rp_ratio((double)s->bytes, (double)t->size));
        shown++;
    }
    if (n > shown) fprintf(out, "  ... and %u more\n", n - shown);
}

static void print_traffic(const ttx_report *r, const advice *a, FILE *out) {
    const rp_row *g = a->group;
    fprintf(out, "\nTraffic\n");
    for (int i = 0; i < GROUPS; i++)
        fprintf(out, "  %-16s %12" PRIu64 " accesses %14.1f MiB %12.3f ms\n", groups[i],
                g[i].accesses, mib(g[i].bytes), (double)g[i].ns / 1e6);
    fprintf(out, "  keys and values are %.2f%% of weights and keys and values\n",
            percent((double)g[CACHE].bytes, (double)(g[CACHE].bytes + g[WEIGHTS].bytes)));
    fprintf(out, "  slowest layers:");
    for (uint32_t i = 0; i < a->n_slowest && i < 5; i++) {
        uint32_t l = a->slowest[i];
        fprintf(out, "%s %u (%.3f ms, %.2f GB/s)", i ? "," : "", l, (double)a->layer_ns[l] / 1e6,
                rp_ratio((double)a->layer_bytes[l], (double)a->layer_ns[l]));
    }
    fputc('\n', out);
    (void)r;
}

static void print_order(const ttx_report *r, const advice *a, FILE *out) {
    const rp_reuse *u = &r->reuse;
    const rp_sequence *s = &r->seq;
    uint64_t distinct = rp_io_distinct(&r->io, r->io.touched, 0, r->file_bytes), n = 0;
    for (int i = 0; i < RP_DISTANCES; i++) n += u->n[i];
    fprintf(out, "\nOrder\n");
    fprintf(out,
            "  sequential (a gap of at most %d KiB): %.2f%% of accesses; %" PRIu64
            " jumps a token, 1 if the file were in this order\n",
            RP_NEAR >> 10, percent((double)u->sequential, (double)u->compared), s->base_jumps);
    fprintf(out, "  every byte was accessed %.2f times; mean reuse distance %.1f MiB\n",
            rp_ratio((double)r->file_bytes_read, (double)distinct),
            rp_ratio(u->distance_sum, (double)n) / 1048576);
    fprintf(out,
            "  decode tokens whose sequence equals the first one's: %.2f%% by tensors, %.2f%% "
            "by tensors and experts, of %" PRIu64 "\n",
            percent((double)s->same_tensors, others(r)),
            percent((double)s->same_objects, others(r)), s->n_token ? s->n_token - 1 : 0);
    fprintf(out, "  next access, foretold by what came last time: %.2f%%\n",
            percent((double)u->hits_next, (double)u->with_next));
    if (a->has_curve) {
        int lru = rp_cache_knee(a->curve, false), pin = rp_cache_knee(a->curve, true);
        if (!lru) lru = RP_CACHE_POINTS - 1; /* a scan: nothing until everything fits */
        fprintf(
            out,
            "  cache: LRU pays from %.1f MiB (removes %.1f%% of bytes), pinning bends at %.1f MiB "
            "(%.1f%%)\n",
            a->curve[lru].bytes / 1048576, 100 * a->curve[lru].lru_bytes,
            a->curve[pin].bytes / 1048576, 100 * a->curve[pin].pinned);
        fprintf(out, "    %12s %10s %10s   of the bytes\n", "size", "LRU", "pinned");
        for (int i = 0; i < RP_CACHE_POINTS; i += 4)
            fprintf(out, "    %8.1f MiB %9.2f%% %9.2f%%\n", a->curve[i].bytes / 1048576,
                    100 * a->curve[i].lru_bytes, 100 * a->curve[i].pinned);
    }
}

static void print_heads(const ttx_report *r, FILE *out) {
    rp_row sums[TTX_QKV_COUNT] = {0};
    for (uint32_t i = 0; i < r->cube.n_row; i++)
        if (r->cube.rows[i].tensor < r->meta.n_file_tensor)
            add(&sums[r->meta.tensors[r->cube.rows[i].tensor].qkv], &r->cube.rows[i]);
    fprintf(out, "\nAttention, in the order of the file's first layer:");
    for (uint32_t i = 0; i < r->seq.n_base && i < 64; i++) {
        const ttx_trace_tensor *t = &r->meta.tensors[r->objects[r->seq.base[i]].tensor];
        if (t->qkv && t->layer == 0) fprintf(out, " %s", ttx_qkv_name(t->qkv));
    }
    fputc('\n', out);
    for (uint32_t k = TTX_QKV_Q; k < TTX_QKV_COUNT; k++)
        fprintf(out, "  %s %12" PRIu64 " records by head %12" PRIu64 " accesses %12.1f MiB\n",
                ttx_qkv_name(k), sums[k].records, sums[k].accesses, mib(sums[k].bytes));
}

static void print_pins(const ttx_report *r, const advice *a, FILE *out) {
    fprintf(out, "\nPin, with %.1f MiB: %u ranges, %.1f MiB; saves %.1f%% of the bytes accessed\n",
            mib(a->ram), a->n_fit, mib(a->pinned),
            percent((double)a->saved, (double)r->file_bytes_read));
    for (uint32_t i = 0, shown = 0; i < a->n_pin && shown < 8; i++) {
        if (!a->fits[i]) continue;
        shown++;
        const rp_object *o = &r->objects[a->pins[i]];
        fprintf(out, "  %s", r->meta.tensors[o->tensor].name);
        if (o->expert != TTX_REC_NO_EXPERT) fprintf(out, " expert %u", o->expert);
        fputc('\n', out);
    }
    if (a->n_fit > 8) fprintf(out, "  ... and %u more (hints.json)\n", a->n_fit - 8);
    fprintf(out, "Prefetch: %u ranges a token, in the order of hints.json\n", r->seq.n_base);
}

static void print_experts(const ttx_report *r, FILE *out) {
    const rp_routes *s = &r->routes;
    if (!s->n_expert) return;
    uint64_t again = 0, of = 0, top = 0, all = 0, *sorted = calloc(s->n_expert, sizeof *sorted);
    double guessed = 0, layers = 0;
    for (uint32_t l = 0; l < r->n_layer; l++) {
        again += s->again[l];
        of += s->again_of[l];
        uint64_t most = 0;
        for (uint32_t e = 0; e < s->n_expert; e++) {
            uint64_t n = s->n[(size_t)l * s->n_expert + e];
            all += n;
            if (n > most) most = n;
        }
        top += most;
        if (!s->routed[2 * l + 1] || !sorted) continue;
        layers++;
        guessed += rp_top_share(s->decode + (size_t)l * s->n_expert, s->n_expert,
                                r->meta.model.n_expert_used, sorted);
    }
    free(sorted);
    fprintf(out, "\nExperts: %u of %u used a token and layer\n", r->meta.model.n_expert_used,
            s->n_expert);
    fprintf(out, "  chosen again by the next token: %.2f%% (by chance: %.2f%%)\n",
            percent((double)again, (double)of), percent(r->meta.model.n_expert_used, s->n_expert));
    fprintf(out, "  among the most used of its layer, as many as a token uses: %.2f%%\n",
            percent(guessed, layers));
    fprintf(out,
            "  the most used expert of a layer has %.2f%% of its activations (if even: "
            "%.2f%%)\n",
            percent((double)top, (double)all), percent(1, s->n_expert));
}

void ttx_report_hints_print(const ttx_report *r, FILE *out) {
    advice a;
    if (advise(r, &a)) {
        fprintf(
            out,
            "%s: %s, %" PRIu64 " records, %" PRIu64 " prompt and %" PRIu64 " generated tokens\n",
            r->meta.dir, r->meta.model.architecture, r->records, r->phases[0].n, r->phases[1].n);
        print_heat(r, &a, 1, out);
        print_heat(r, &a, -1, out);
        print_traffic(r, &a, out);
        print_heads(r, out);
        print_experts(r, out);
        print_order(r, &a, out);
        print_pins(r, &a, out);
        fputc('\n', out);
    }
    forget(&a);
}
