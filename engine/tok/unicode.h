/* unicode.h -- what the split patterns need to know of Unicode: code points out of bytes, and the
 * class of each.
 *
 * Classes are the major general categories, with White_Space taken out of them. The table's version
 * of Unicode is that of llama.cpp (see make_unicode.py).
 */
#ifndef TTX_UNICODE_H
#define TTX_UNICODE_H

#include <stddef.h>
#include <stdint.h>

enum {
    UC_OTHER = 0, /* control, format, private, surrogate, unassigned */
    UC_LETTER,
    UC_NUMBER,
    UC_PUNCT,
    UC_SYMBOL,
    UC_MARK,
    UC_SPACE
};

#define UC_REPLACEMENT 0xFFFDu

/* One of the above for any value; past U+10FFFF: UC_OTHER. */
unsigned ttx_unicode_class(uint32_t cp);

/* Decodes the code point at s[0..n), n >= 1, and returns its length in bytes. A byte that starts no
 * well-formed sequence counts for itself, as U+FFFD. Surrogates are decoded as they stand: they
 * survive a round trip, and so does llama.cpp's view of them. */
size_t ttx_utf8_decode(const uint8_t *s, size_t n, uint32_t *cp);

/* Writes at most 4 bytes, returns how many; cp <= 0x10FFFF. */
size_t ttx_utf8_encode(uint32_t cp, char *out);

/* Bytes of s[0..n) that end it with the start of a character that more bytes could complete:
 * 0..3. */
size_t ttx_utf8_partial(const uint8_t *s, size_t n);

#endif
