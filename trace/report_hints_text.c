/* report_hints_text.c -- what hints.json says, for people. */
#include "report_advice.h"

#include <inttypes.h>

static double mib(uint64_t bytes) {
    return (double)bytes / 1048576;
}

static double percent(double a, double b) {
    return 100 * rp_ratio(a, b);
}

static void print_heat(const ttx_report *r, const rp_advice *a, int heat, FILE *out) {
    enum { SHOWN = 10 };
    uint32_t n = 0, shown = 0;
    uint64_t bytes = 0, size = 0;
    for (uint32_t i = 0; i < a->n_tensor; i++) {
        const rp_tensor_sum *s = &a->sums[i];
        if (s->heat != heat) continue;
        n++;
        bytes += s->bytes;
        size += r->meta.tensors[i].size;
    }
    fprintf(out, "\n%s: %u of %u tensors, %.1f%% of the bytes accessed, %.1f MiB in the file\n",
            heat > 0 ? "Hot" : "Cold", n, a->n_tensor,
            percent((double)bytes, (double)r->file_bytes_read), mib(size));
    for (uint32_t i = 0; i < a->n_tensor && shown < SHOWN; i++) {
        const rp_tensor_sum *s = &a->sums[a->order[heat > 0 ? i : a->n_tensor - 1 - i]];
        if (s->heat != heat) continue;
        const ttx_trace_tensor *t = &r->meta.tensors[s->tensor];
        fprintf(out, "  %-40s %10" PRIu64 " accesses %12.1f MiB, %.1f MiB saved a pinned MiB\n",
                t->name, s->accesses, mib(s->bytes), rp_ratio((double)s->bytes, (double)t->size));
        shown++;
    }
    if (n > shown) fprintf(out, "  ... and %u more\n", n - shown);
}

static void print_traffic(const rp_advice *a, FILE *out) {
    const rp_row *g = a->group;
    fprintf(out, "\nTraffic\n");
    for (int i = 0; i < RP_GROUPS; i++)
        fprintf(out, "  %-16s %12" PRIu64 " accesses %14.1f MiB %12.3f ms\n", rp_group_names[i],
                g[i].accesses, mib(g[i].bytes), (double)g[i].ns / 1e6);
    fprintf(out, "  keys and values are %.2f%% of weights and keys and values\n",
            percent((double)g[RP_CACHE].bytes, (double)(g[RP_CACHE].bytes + g[RP_WEIGHTS].bytes)));
    fprintf(out, "  slowest layers:");
    for (uint32_t i = 0; i < a->n_slowest && i < 5; i++) {
        uint32_t l = a->slowest[i];
        fprintf(out, "%s %u (%.3f ms, %.2f GB/s)", i ? "," : "", l, (double)a->layer_ns[l] / 1e6,
                rp_ratio((double)a->layer_bytes[l], (double)a->layer_ns[l]));
    }
    fputc('\n', out);
}

static void print_attention(const ttx_report *r, const rp_advice *a, FILE *out) {
    fprintf(out, "\nAttention: %u query heads, %u of keys and values; a layer's order:",
            r->meta.model.n_head, r->meta.model.n_head_kv);
    for (uint32_t i = 0; i < a->n_qkv; i++) fprintf(out, " %s", ttx_qkv_name(a->qkv_order[i]));
    fputc('\n', out);
    for (uint32_t k = TTX_QKV_Q; k < TTX_QKV_COUNT; k++)
        fprintf(out, "  %s %12" PRIu64 " records by head %12" PRIu64 " accesses %12.1f MiB\n",
                ttx_qkv_name(k), a->qkv[k].records, a->qkv[k].accesses, mib(a->qkv[k].bytes));
}

static void print_experts(const ttx_report *r, const rp_advice *a, FILE *out) {
    const rp_route_sum *s = &a->routes;
    uint64_t size = 0;
    if (!r->routes.n_expert) return;
    fprintf(out, "\nExperts: %u of %u used a token and layer\n", r->meta.model.n_expert_used,
            r->routes.n_expert);
    fprintf(out,
            "  chosen again by the next token: %.2f%%; among the most used of its layer, as many "
            "as a token uses: %.2f%%; by chance: %.2f%%\n",
            100 * s->by_previous, 100 * s->by_frequency, 100 * s->by_chance);
    fprintf(out,
            "  the most used expert of a layer has %.2f%% of its activations (if even: %.2f%%); "
            "entropy %.1f%% of an even use; words explain %.1f%% of the choice\n",
            100 * s->most_used, percent(1, r->routes.n_expert), 100 * s->entropy,
            100 * s->specialisation);
    for (uint32_t i = 0; i < RP_STRONGEST && s->strongest[i].n; i++) {
        const rp_favoured *f = &s->strongest[i];
        const char *text = rp_text_of(&r->texts, f->vocab);
        fprintf(out, "  layer %u expert %u favours token %u '%s': %u times, %.1f times chance\n",
                f->layer, f->expert, f->vocab, text ? text : "", f->n, f->lift);
    }
    for (uint32_t i = 0; i < a->n_warm; i++) size += a->warm[i].size;
    fprintf(out, "  to have ready, most used first (hints.json has all %u, %.1f MiB):", a->n_warm,
            mib(size));
    for (uint32_t i = 0; i < a->n_warm && i < 6; i++)
        fprintf(out, "%s layer %u expert %u (%" PRIu64 " tokens)", i ? "," : "", a->warm[i].layer,
                a->warm[i].expert, a->warm[i].tokens);
    fputc('\n', out);
}

static void print_order(const ttx_report *r, const rp_advice *a, FILE *out) {
    const rp_reuse *u = &r->reuse;
    const rp_sequence *s = &r->seq;
    fprintf(out, "\nOrder\n");
    fprintf(out,
            "  sequential (a gap of at most %d KiB): %.2f%% of accesses; %" PRIu64
            " jumps a token, 1 if the file were in this order\n",
            RP_NEAR >> 10, percent((double)u->sequential, (double)u->compared), s->base_jumps);
    fprintf(out,
            "  every byte was accessed %.2f times; reuse distance %.1f MiB in the mean, %.1f MiB "
            "for half, %.1f MiB for nine tenths\n",
            a->reread, a->distance_mean / 1048576, a->distance_p50 / 1048576,
            a->distance_p90 / 1048576);
    if (a->disk_reread > 0) fprintf(out, "  every byte read was read %.2f times\n", a->disk_reread);
    fprintf(out,
            "  decode tokens whose sequence equals the first one's: %.2f%% by tensors, %.2f%% "
            "by tensors and experts, of %" PRIu64 "\n",
            percent((double)s->same_tensors, a->others),
            percent((double)s->same_objects, a->others), s->n_token ? s->n_token - 1 : 0);
    fprintf(out, "  next access, foretold by what came last time: %.2f%%\n",
            percent((double)u->hits_next, (double)u->with_next));
}

static void print_cache(const rp_advice *a, FILE *out) {
    int lru = rp_cache_knee(a->curve, false), pin = rp_cache_knee(a->curve, true);
    if (!lru) lru = RP_CACHE_POINTS - 1; /* a scan: nothing until everything fits */
    fprintf(out,
            "\nCache: LRU pays from %.1f MiB (removes %.1f%% of bytes), pinning bends at %.1f MiB "
            "(%.1f%%)\n",
            a->curve[lru].bytes / 1048576, 100 * a->curve[lru].lru_bytes,
            a->curve[pin].bytes / 1048576, 100 * a->curve[pin].pinned);
    fprintf(out, "  %12s %10s %10s   of the bytes\n", "size", "LRU", "pinned");
    for (int i = 0; i < RP_CACHE_POINTS; i += 4)
        fprintf(out, "  %8.1f MiB %9.2f%% %9.2f%%\n", a->curve[i].bytes / 1048576,
                100 * a->curve[i].lru_bytes, 100 * a->curve[i].pinned);
}

static void print_pins(const ttx_report *r, const rp_advice *a, FILE *out) {
    fprintf(out, "\nPin, with %.1f MiB: %u ranges, %.1f MiB; saves %.1f%% of the bytes accessed\n",
            mib(a->ram), a->n_fit, mib(a->pinned),
            percent((double)a->saved, (double)r->file_bytes_read));
    for (uint32_t i = 0, shown = 0; i < a->n_pin && shown < 8; i++) {
        if (!a->fits[i]) continue;
        shown++;
        const rp_object *o = &r->objects[a->pins[i]];
        fprintf(out, "  %s", r->meta.tensors[o->tensor].name);
        if (o->expert != TTX_REC_NO_EXPERT) fprintf(out, " expert %u", o->expert);
        fprintf(out, ", %.1f MiB\n", mib(o->size));
    }
    if (a->n_fit > 8) fprintf(out, "  ... and %u more (hints.json)\n", a->n_fit - 8);
    uint32_t whole = 0;
    for (uint32_t i = 0; i < r->seq.n_base; i++) whole += !(r->seq.base[i] & RP_PART);
    fprintf(out, "Prefetch: %u ranges a token, in the order of hints.json\n", whole);
}

void ttx_report_hints_print(const ttx_report *r, FILE *out) {
    rp_advice a;
    if (rp_advise(r, &a)) {
        fprintf(
            out,
            "%s: %s, %" PRIu64 " records, %" PRIu64 " prompt and %" PRIu64 " generated tokens\n",
            r->meta.dir, r->meta.model.architecture, r->records, r->phases[0].n, r->phases[1].n);
        print_heat(r, &a, 1, out);
        print_heat(r, &a, -1, out);
        print_traffic(&a, out);
        print_attention(r, &a, out);
        print_experts(r, &a, out);
        print_order(r, &a, out);
        print_cache(&a, out);
        print_pins(r, &a, out);
        fputc('\n', out);
    }
    rp_advice_free(&a);
}
