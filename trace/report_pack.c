/* report_pack.c -- tables of numbers, packed for the page.
 *
 * A stream of LEB128 numbers: the difference d to the value before, as 2 zigzag(d) (zigzag: 2d, or
 * -2d - 1), or that plus 1 and then by how many more than 2 the value stands there. The bytes are
 * written as base64. Most tables of a run
 * repeat themselves, so this is small; trace/web/report_data.js reads it.
 */
#include "report_pack.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_byte(rp_pack *p, uint8_t b) {
    p->bits = p->bits << 8 | b;
    p->n_bits += 8;
    while (p->n_bits >= 6) {
        p->n_bits -= 6;
        if (p->f) fputc(digits[p->bits >> p->n_bits & 63], p->f);
        p->written++;
    }
    p->bits &= (1u << p->n_bits) - 1;
}

static void put_number(rp_pack *p, uint64_t v) {
    for (; v >= 128; v >>= 7) put_byte(p, (uint8_t)(v | 128));
    put_byte(p, (uint8_t)v);
}

static void put_run(rp_pack *p) {
    if (!p->run) return;
    int64_t d = (int64_t)(p->value - p->before);
    uint64_t zigzag = d < 0 ? ((uint64_t)-d << 1) - 1 : (uint64_t)d << 1;
    put_number(p, zigzag << 1 | (p->run > 1));
    if (p->run > 1) put_number(p, p->run - 2);
    p->before = p->value;
    p->run = 0;
}

void rp_pack_begin(rp_pack *p, FILE *f) {
    *p = (rp_pack){.f = f};
    if (f) fputc('"', f);
}

void rp_pack_put(rp_pack *p, uint64_t v) {
    v &= (1ull << 53) - 1; /* what a number of the page holds exactly */
    if (p->run && v == p->value) {
        p->run++;
        return;
    }
    put_run(p);
    p->value = v;
    p->run = 1;
}

void rp_pack_end(rp_pack *p) {
    put_run(p);
    if (!p->f) return;
    if (p->n_bits) {
        unsigned left = p->n_bits;
        while (p->n_bits != 6) { /* zeros up to a whole digit */
            p->bits <<= 1;
            p->n_bits++;
        }
        p->n_bits = 0;
        fputc(digits[p->bits & 63], p->f);
        fputs(left == 2 ? "==" : "=", p->f);
    }
    fputc('"', p->f);
}
