/* unicode.c -- see unicode.h. Binary search in sorted ranges; ASCII, nearly all of most text, is
 * found by the same table but settled early. */
#include "unicode.h"

#include "unicode_table.h"

unsigned ttx_unicode_class(uint32_t cp) {
    if (cp < 0x80) {
        if ((cp | 0x20) - 'a' < 26) return UC_LETTER;
        if (cp == ' ' || cp - '\t' < 5) return UC_SPACE;
        if (cp - '0' < 10) return UC_NUMBER;
    }
    if (cp > 0x10FFFF) return UC_OTHER;
    size_t lo = 0, hi = sizeof unicode_ranges / sizeof *unicode_ranges;
    while (hi - lo > 1) { /* ranges[lo] starts at or before cp, ranges[hi] after it */
        size_t mid = lo + (hi - lo) / 2;
        if (unicode_ranges[mid] >> 3 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return unicode_ranges[lo] & 7;
}

/* Length that a lead byte announces; 0: not a lead byte. */
static size_t announced(uint8_t b) {
    if (b < 0x80) return 1;
    if (b < 0xC2) return 0; /* continuation, or overlong */
    if (b < 0xE0) return 2;
    if (b < 0xF0) return 3;
    return b < 0xF5 ? 4 : 0;
}

/* Whether b may be the second byte after `lead`: excludes overlong forms and values past U+10FFFF.
 */
static int second_fits(uint8_t lead, uint8_t b) {
    if ((b & 0xC0) != 0x80) return 0;
    if (lead == 0xE0) return b >= 0xA0;
    if (lead == 0xF0) return b >= 0x90;
    if (lead == 0xF4) return b < 0x90;
    return 1;
}

size_t ttx_utf8_decode(const uint8_t *s, size_t n, uint32_t *cp) {
    size_t len = announced(s[0]);
    *cp = len == 1 ? s[0] : UC_REPLACEMENT;
    if (len < 2 || len > n || !second_fits(s[0], s[1])) return 1;
    uint32_t v = s[0] & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80) return 1;
        v = v << 6 | (s[i] & 0x3Fu);
    }
    *cp = v;
    return len;
}

size_t ttx_utf8_encode(uint32_t cp, char *out) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    size_t len = cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (cp & 0x3F));
        cp >>= 6;
    }
    out[0] = (char)((0xF00u >> len & 0xF0u) | cp);
    return len;
}

size_t ttx_utf8_partial(const uint8_t *s, size_t n) {
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const uint8_t *p = s + n - back;
        if ((*p & 0xC0) == 0x80) continue;
        return announced(*p) > back && (back < 2 || second_fits(p[0], p[1])) ? back : 0;
    }
    return 0;
}
