/* Bounded writing of HTTP text, for the writers of this folder. A writer that ran out of room stays full and finishes
 * with 0, so that its users need one check at the end and can never send half a head. */
#ifndef SLUICE_PROTOCOLS_HTTP_WRITER_H
#define SLUICE_PROTOCOLS_HTTP_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "protocols/http_head.h"

struct http_writer {
    uint8_t *out; /* borrowed */
    size_t size;  /* octets that `out` can take */
    size_t used;  /* octets written */
    bool full;    /* something did not fit */
};

static inline void http_put(struct http_writer *w, const void *data, size_t size)
{
    if (w->full || size > w->size - w->used) {
        w->full = true;
        return;
    }
    memcpy(w->out + w->used, data, size);
    w->used += size;
}

static inline void http_put_text(struct http_writer *w, const char *text)
{
    http_put(w, text, strlen(text));
}

static inline void http_put_span(struct http_writer *w, const uint8_t *data, struct http_span span)
{
    http_put(w, data + span.at, span.size);
}

/* Decimal, without leading zeros. */
static inline void http_put_number(struct http_writer *w, uint64_t number)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    http_put(w, digits + at, sizeof digits - at);
}

/* Octets written, 0 if they did not all fit. */
static inline size_t http_writer_finish(const struct http_writer *w)
{
    return w->full ? 0 : w->used;
}

#endif
