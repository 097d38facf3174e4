/* HTTP body framing: the input is what follows a head, read as a chunked body and as one with a length.
 *
 * What is asserted: payload, answer and consumption do not depend on how the octets came; runs stay inside the piece;
 * the payload written as chunks again reads as the same payload. */
#include "fuzz/check.h"
#include "protocols/http_body.h"

#define SIZE_MAX_READ 65536u

struct reading {
    struct http_body body;
    enum parse_result result;
    size_t used;
    size_t size;
    uint8_t payload[SIZE_MAX_READ];
};

static void feed(struct reading *r, const uint8_t *data, size_t size)
{
    size_t done = 0;
    do {
        size_t used, at, run;
        r->result = http_body_read(&r->body, data + done, size - done, &used, &at, &run);
        assert(used <= size - done && at + run <= used);
        assert(r->result != PARSE_MORE || used > 0 || done == size);
        if (run > 0) memcpy(r->payload + r->size, data + done + at, run);
        r->size += run;
        done += used;
    } while (r->result == PARSE_MORE && done < size);
    r->used += done;
}

/* From a block of its own, so that the sanitizer sees whoever reads on; single octets are too many for that. */
static void feed_copy(struct reading *r, const uint8_t *data, size_t size)
{
    if (size == 1) {
        feed(r, data, size);
        return;
    }
    uint8_t *copy = check_copy(data, size);
    feed(r, copy, size);
    free(copy);
}

/* step: octets a piece; 0 lets the octets themselves choose. */
static void read_in_pieces(struct reading *r, enum http_framing framing, uint64_t length, const uint8_t *data,
                           size_t size, size_t step)
{
    http_body_begin(&r->body, framing, length);
    r->used = r->size = 0;
    size_t done = 0;
    do {
        size_t piece = step != 0 ? step : 1u + (done < size ? data[done] % 199u : 0);
        if (piece > size - done) piece = size - done;
        feed_copy(r, data + done, piece);
        done += piece;
    } while (r->result == PARSE_MORE && done < size);
    assert(http_body_complete_at_close(&r->body) == (r->result == PARSE_OK || framing == HTTP_BODY_UNTIL_CLOSE));
}

static void require_same(const struct reading *a, const struct reading *b)
{
    assert(a->result == b->result && a->used == b->used && a->size == b->size);
    assert(memcmp(a->payload, b->payload, a->size) == 0);
}

static void check(enum http_framing framing, uint64_t length, const uint8_t *data, size_t size, struct reading *whole)
{
    static struct reading pieces;
    read_in_pieces(whole, framing, length, data, size, size + 1);
    read_in_pieces(&pieces, framing, length, data, size, 1);
    require_same(whole, &pieces);
    read_in_pieces(&pieces, framing, length, data, size, 0);
    require_same(whole, &pieces);
    assert(whole->size <= whole->used && whole->used <= size);
}

/* Two chunks, if there is enough for two. */
static void check_rechunked(const struct reading *r)
{
    static struct reading again;
    static uint8_t out[SIZE_MAX_READ + 2 * HTTP_CHUNK_OVERHEAD + 5];
    size_t at = 0, done = 0;
    while (done < r->size) {
        size_t piece = done == 0 ? (r->size + 1) / 2 : r->size - done;
        at += http_write_chunk_head(out + at, sizeof out - at, piece);
        memcpy(out + at, r->payload + done, piece);
        memcpy(out + at + piece, "\r\n", 2);
        at += piece + 2;
        done += piece;
    }
    at += http_write_last_chunk(out + at, sizeof out - at);
    read_in_pieces(&again, HTTP_BODY_CHUNKED, 0, out, at, 0);
    assert(again.result == PARSE_OK && again.used == at && again.size == r->size);
    assert(memcmp(again.payload, r->payload, r->size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct reading whole;
    if (size > SIZE_MAX_READ) return 0;
    check(HTTP_BODY_CHUNKED, 0, data, size, &whole);
    check_rechunked(&whole);
    check(HTTP_BODY_LENGTH, size > 0 ? data[0] : 0, data, size, &whole);
    check(HTTP_BODY_UNTIL_CLOSE, 0, data, size, &whole);
    check(HTTP_BODY_NONE, 0, data, size, &whole);
    return 0;
}
