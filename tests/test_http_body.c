/* Framing of HTTP bodies: what the fields declare, and the machine that finds the payload, fed in every split. */
#include <stdlib.h>
#include <string.h>

#include "protocols/http_body.h"
#include "tests/support.h"

/* A body as it was read: its payload in one piece. */
struct reading {
    enum parse_result result;
    size_t used;
    size_t size;
    uint8_t payload[16384];
    struct http_body body;
};

static void begin(struct reading *r, enum http_framing framing, uint64_t length)
{
    http_body_begin(&r->body, framing, length);
    r->result = PARSE_MORE;
    r->used = r->size = 0;
}

/* Feeds one piece, which ends at an unmapped page, until it is used up or there is an answer. */
static void feed(struct reading *r, const char *data, size_t size)
{
    uint8_t *copy = support_guard(data, size);
    size_t done = 0;
    do {
        size_t used, at, run;
        r->result = http_body_read(&r->body, copy + done, size - done, &used, &at, &run);
        assert_true(at + run <= used && used <= size - done);
        assert_true(r->result != PARSE_MORE || used > 0 || done == size);
        assert_true(r->size + run <= sizeof r->payload);
        memcpy(r->payload + r->size, copy + done + at, run);
        r->size += run;
        done += used;
    } while (r->result == PARSE_MORE && done < size);
    r->used += done;
    support_unguard(copy, size);
}

static struct reading *read_whole(enum http_framing framing, uint64_t length, const char *data, size_t size)
{
    static struct reading r;
    begin(&r, framing, length);
    feed(&r, data, size);
    return &r;
}

static struct reading *read_chunked(const char *text)
{
    return read_whole(HTTP_BODY_CHUNKED, 0, text, strlen(text));
}

static const char chunked[] = "5\r\nhello\r\n"
                              "1;ext=\"a;b\"\r\n,\r\n"
                              "00A  \r\n\r\n0\r\n\r\n012\r\n"
                              "0;last\r\n"
                              "Trailer: x\r\n"
                              "Content-Length: 3\r\n"
                              "\r\n";
static const char payload[] = "hello,\r\n0\r\n\r\n012";

static void no_body_is_complete_at_once(void **state)
{
    (void)state;
    struct reading *r = read_whole(HTTP_BODY_NONE, 7, "next", 4);
    assert_int_equal(r->result, PARSE_OK);
    assert_int_equal(r->used, 0);
    assert_true(http_body_complete_at_close(&r->body));
    assert_int_equal(read_whole(HTTP_BODY_LENGTH, 0, "", 0)->result, PARSE_OK);
}

static void length_leaves_what_follows(void **state)
{
    (void)state;
    struct reading *r = read_whole(HTTP_BODY_LENGTH, 3, "abcdef", 6);
    assert_int_equal(r->result, PARSE_OK);
    assert_int_equal(r->used, 3);
    assert_memory_equal(r->payload, "abc", 3);
    assert_true(http_body_complete_at_close(&r->body));

    r = read_whole(HTTP_BODY_LENGTH, 7, "abcdef", 6);
    assert_int_equal(r->result, PARSE_MORE);
    assert_false(http_body_complete_at_close(&r->body));
    feed(r, "", 0);
    assert_int_equal(r->result, PARSE_MORE);
    feed(r, "gh", 2);
    assert_int_equal(r->result, PARSE_OK);
    assert_int_equal(r->used, 7);
    feed(r, "h", 1); /* a finished body stays finished */
    assert_int_equal(r->result, PARSE_OK);
    assert_int_equal(r->used, 7);
}

/* What is known to come next may be passed on by somebody else: the machine goes on behind it. */
static void runs_may_be_skipped(void **state)
{
    static struct reading r;
    (void)state;
    begin(&r, HTTP_BODY_NONE, 0);
    assert_int_equal(http_body_run(&r.body), 0);
    begin(&r, HTTP_BODY_UNTIL_CLOSE, 0);
    assert_true(http_body_run(&r.body) == UINT64_MAX);

    begin(&r, HTTP_BODY_LENGTH, 10);
    feed(&r, "abc", 3);
    assert_int_equal(http_body_run(&r.body), 7);
    assert_false(http_body_complete_at_close(&r.body));
    http_body_skip_run(&r.body);
    assert_int_equal(http_body_run(&r.body), 0);
    assert_true(http_body_complete_at_close(&r.body));
    feed(&r, "next", 4);
    assert_int_equal(r.result, PARSE_OK);
    assert_int_equal(r.used, 3);

    begin(&r, HTTP_BODY_CHUNKED, 0);
    assert_int_equal(http_body_run(&r.body), 0);
    feed(&r, "ff", 2);
    assert_int_equal(http_body_run(&r.body), 0); /* a further digit may follow */
    feed(&r, "\r\nabc", 5);
    assert_int_equal(http_body_run(&r.body), 252);
    http_body_skip_run(&r.body);
    assert_int_equal(http_body_run(&r.body), 0);
    assert_false(http_body_complete_at_close(&r.body));
    feed(&r, "\r\n2\r\n", 5);
    assert_int_equal(http_body_run(&r.body), 2);
    feed(&r, "de\r\n0\r\n\r\n", 9);
    assert_int_equal(r.result, PARSE_OK);
    assert_int_equal(r.size, 5);
    assert_memory_equal(r.payload, "abcde", 5);

    begin(&r, HTTP_BODY_CHUNKED, 0);
    feed(&r, "5\r\n", 3);
    http_body_skip_run(&r.body);
    feed(&r, "x", 1); /* a chunk that goes on behind its size */
    assert_int_equal(r.result, PARSE_BAD);
}

static void length_may_be_huge(void **state)
{
    (void)state;
    struct reading *r = read_whole(HTTP_BODY_LENGTH, UINT64_MAX, "abc", 3);
    assert_int_equal(r->result, PARSE_MORE);
    assert_true(r->body.remaining == UINT64_MAX - 3);
}

static void until_close_takes_all(void **state)
{
    (void)state;
    struct reading *r = read_whole(HTTP_BODY_UNTIL_CLOSE, 0, chunked, sizeof chunked - 1);
    assert_int_equal(r->result, PARSE_MORE);
    assert_int_equal(r->size, sizeof chunked - 1);
    assert_memory_equal(r->payload, chunked, r->size);
    assert_true(http_body_complete_at_close(&r->body));
}

static void assert_sample(const struct reading *r)
{
    assert_int_equal(r->result, PARSE_OK);
    assert_int_equal(r->used, sizeof chunked - 1);
    assert_int_equal(r->size, sizeof payload - 1);
    assert_memory_equal(r->payload, payload, r->size);
    assert_true(http_body_complete_at_close(&r->body));
}

static void chunks_are_unwrapped(void **state)
{
    (void)state;
    assert_sample(read_chunked(chunked));
    struct reading *r = read_chunked("0\r\n\r\nGET");
    assert_int_equal(r->result, PARSE_OK);
    assert_int_equal(r->used, 5);
    feed(r, "0\r\n", 3);
    assert_int_equal(r->result, PARSE_OK);
    assert_int_equal(r->used, 5);
}

static void chunks_in_every_split(void **state)
{
    (void)state;
    static struct reading r;
    size_t size = sizeof chunked - 1;
    for (size_t a = 0; a <= size; a++) {
        for (size_t b = a; b <= size; b++) { /* three pieces */
            begin(&r, HTTP_BODY_CHUNKED, 0);
            feed(&r, chunked, a);
            assert_int_equal(r.result, a < size ? PARSE_MORE : PARSE_OK);
            assert_int_equal(http_body_complete_at_close(&r.body), a == size);
            feed(&r, chunked + a, b - a);
            feed(&r, chunked + b, size - b);
            assert_sample(&r);
        }
    }
    begin(&r, HTTP_BODY_CHUNKED, 0);
    for (size_t at = 0; at < size; at++) feed(&r, chunked + at, 1);
    assert_sample(&r);
}

static void wrong_octets_give_the_same_in_every_split(void **state)
{
    (void)state;
    static struct reading whole, parts;
    size_t size = sizeof chunked - 1;
    char copy[sizeof chunked];
    memcpy(copy, chunked, sizeof chunked);
    for (size_t at = 0; at < size; at++) {
        for (unsigned c = 0; c < 256; c++) {
            copy[at] = (char)c;
            begin(&whole, HTTP_BODY_CHUNKED, 0);
            feed(&whole, copy, size);
            begin(&parts, HTTP_BODY_CHUNKED, 0);
            feed(&parts, copy, at + 1);
            if (parts.result == PARSE_MORE) feed(&parts, copy + at + 1, size - at - 1);
            assert_int_equal(whole.result, parts.result);
            assert_int_equal(whole.used, parts.used);
            assert_int_equal(whole.size, parts.size);
            assert_memory_equal(whole.payload, parts.payload, parts.size);
        }
        copy[at] = chunked[at];
    }
}

static void broken_chunks_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "\r\n",                  /* no size */
        " 5\r\n",                /* blank in front */
        "-5\r\n",                /* signs */
        "+5\r\n",                /* */
        "0x5\r\n",               /* prefix */
        "g\r\n",                 /* no digit */
        ";a\r\n",                /* extension without size */
        "5\n",                   /* bare LF */
        "5\r5",                  /* bare CR */
        "5 5\r\n",               /* what one reads as 5 and another as 85 */
        "5,\r\n",                /* */
        "5;a\nb",                /* LF in an extension */
        "5;a\rb",                /* CR in an extension */
        "5;a\x01",               /* control */
        "5 \n",                  /* LF behind a blank */
        "1\r\nab",               /* data longer than said */
        "1\r\na\n",              /* bare LF behind the data */
        "1\r\na\rb",             /* bare CR */
        "1\r\na5\r\n",           /* nothing behind the data */
        "1\r\na\r\n\r\n",        /* an empty line is no last chunk */
        "0\r\nA: b\n\r\n",       /* bare LF in trailers */
        "0\r\nA: b\r\n\n",       /* as their end */
        "0\r\nA: b\rc",          /* bare CR in trailers */
        "0\r\nA: \x7f",          /* DEL */
        "0\r\n\n",               /* bare LF as the end */
        "0\r\n\rX",              /* bare CR as the end */
        "8000000000000000\r\n",  /* beyond INT64_MAX */
        "ffffffffffffffff\r\n",  /* -1 for some */
        "10000000000000005\r\n", /* 5 in 64 bits */
        "00000000000000005\r\n", /* 17 digits */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct reading *r = read_chunked(bad[i]);
        if (r->result != PARSE_BAD) fail_msg("accepted: %s", bad[i]);
        assert_false(http_body_complete_at_close(&r->body));
        feed(r, "0\r\n\r\n", 5);
        assert_int_equal(r->result, PARSE_BAD); /* for good */
    }
}

static void chunk_sizes_at_their_limit(void **state)
{
    (void)state;
    struct reading *r = read_chunked("7fffffffffffffff\r\n");
    assert_int_equal(r->result, PARSE_MORE);
    assert_true(r->body.remaining == INT64_MAX);
    assert_int_equal(read_chunked("7FFFFFFFFFFFFFFF\r\n")->result, PARSE_MORE);
    r = read_chunked("0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n");
    assert_int_equal(r->result, PARSE_OK);
    assert_memory_equal(r->payload, "hello", 5);
}

/* `count` octets between a beginning and an end. */
static enum parse_result read_padded(const char *before, char filler, size_t count, const char *after)
{
    static char text[10000];
    size_t at = strlen(before), rest = strlen(after);
    assert_true(at + count + rest <= sizeof text);
    memcpy(text, before, at);
    memset(text + at, filler, count);
    memcpy(text + at + count, after, rest);
    return read_whole(HTTP_BODY_CHUNKED, 0, text, at + count + rest)->result;
}

static void extensions_are_bounded_line_by_line(void **state)
{
    (void)state;
    const size_t most = HTTP_CHUNK_EXTENSION_MAX;
    assert_int_equal(read_padded("0;", 'x', most - 1, "\r\n\r\n"), PARSE_OK);
    assert_int_equal(read_padded("0;", 'x', most, "\r\n\r\n"), PARSE_BAD);
    assert_int_equal(read_padded("0", ' ', most, "\r\n\r\n"), PARSE_OK);
    assert_int_equal(read_padded("0", ' ', most + 1, "\r\n\r\n"), PARSE_BAD);
    assert_int_equal(read_padded("1;xxxxxxxx\r\na\r\n0;", 'x', most - 1, "\r\n\r\n"), PARSE_OK);
}

static void trailers_are_bounded_together(void **state)
{
    (void)state;
    const size_t most = HTTP_TRAILERS_MAX;
    assert_int_equal(read_padded("0;ext\r\n", 'x', most, "\r\n\r\n"), PARSE_OK);
    assert_int_equal(read_padded("0;ext\r\n", 'x', most + 1, "\r\n\r\n"), PARSE_BAD);
    assert_int_equal(read_padded("0\r\na\r\n", 'x', most - 1, "\r\n\r\n"), PARSE_OK);
    assert_int_equal(read_padded("0\r\na\r\n", 'x', most, "\r\n\r\n"), PARSE_BAD);
}

/* What we write we read again, at every length of the size line. */
static void written_chunks_are_read_again(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits < 63; bits++) {
        uint8_t out[HTTP_CHUNK_OVERHEAD];
        uint64_t size = UINT64_C(1) << bits;
        size_t length = http_write_chunk_head(out, sizeof out, size);
        assert_true(length + 2 <= HTTP_CHUNK_OVERHEAD);
        struct reading *r = read_whole(HTTP_BODY_CHUNKED, 0, (const char *)out, length);
        assert_int_equal(r->result, PARSE_MORE);
        assert_true(r->body.remaining == size);
    }
    uint8_t out[8];
    assert_int_equal(http_write_chunk_head(out, 6, 0x1a2b), 6);
    assert_memory_equal(out, "1a2b\r\n", 6);
    assert_int_equal(http_write_last_chunk(out, sizeof out), 5);
    assert_memory_equal(out, "0\r\n\r\n", 5);
    uint8_t longest[HTTP_CHUNK_OVERHEAD];
    assert_int_equal(http_write_chunk_head(longest, sizeof longest, UINT64_MAX), HTTP_CHUNK_OVERHEAD - 2);
}

static unsigned judge(const char *fields, char minor, enum http_framing *framing, uint64_t *length)
{
    char text[512] = "POST / HTTP/1.?\r\n";
    *strchr(text, '?') = minor;
    strcat(strcat(text, fields), "\r\n");
    struct http_head head;
    size_t scanned = 0, used;
    const uint8_t *data = (const uint8_t *)text;
    assert_int_equal(http_parse_request(data, strlen(text), &scanned, &head, &used), PARSE_OK);
    return http_body_judge(data, &head, HTTP_BODY_UNTIL_CLOSE, framing, length);
}

static unsigned judge_response(const char *fields, uint64_t *length)
{
    char text[512] = "HTTP/1.1 200 OK\r\n";
    strcat(strcat(text, fields), "\r\n");
    struct http_head head;
    enum http_framing framing;
    size_t scanned = 0, used;
    uint8_t *data = (uint8_t *)text;
    assert_int_equal(http_parse_response(data, strlen(text), &scanned, &head, &used), PARSE_OK);
    return http_body_judge(data, &head, HTTP_BODY_UNTIL_CLOSE, &framing, length);
}

/* RFC 9110 section 8.6: in a response the same length may be said more than once, and nothing else. */
static void equal_lengths_of_a_response(void **state)
{
    (void)state;
    static const char *const good[] = {"Content-Length: 5\r\n", "Content-Length: 5\r\nContent-Length: 5\r\n",
                                       "Content-Length: 5, 5\r\n",
                                       "Content-Length: 5 ,05,\t5\r\ncontent-length: 5\r\n"};
    static const char *const bad[] = {
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5, 50\r\n",
        "Content-Length: 5,\r\n",
        "Content-Length: ,5\r\n",
        "Content-Length: ,\r\n",
        "Content-Length:\r\n",
        "Content-Length: 5\r\nContent-Length:\r\n",
        "Content-Length: 5;5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    };
    uint64_t length;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        if (judge_response(good[i], &length) != 0) fail_msg("refused: %s", good[i]);
        assert_int_equal(length, 5);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (judge_response(bad[i], &length) != 400) fail_msg("accepted: %s", bad[i]);
    assert_int_equal(judge_response("Content-Length: 5, 99999999999999999999\r\n", &length), 413);
}

static void assert_framing(const char *fields, enum http_framing expected, uint64_t expected_length)
{
    enum http_framing framing;
    uint64_t length;
    assert_int_equal(judge(fields, '1', &framing, &length), 0);
    assert_int_equal(framing, expected);
    assert_true(length == expected_length);
}

static void declared_framing(void **state)
{
    (void)state;
    assert_framing("", HTTP_BODY_UNTIL_CLOSE, 0);
    assert_framing("content-length: 0\r\n", HTTP_BODY_LENGTH, 0);
    assert_framing("Content-Length: \t007 \r\n", HTTP_BODY_LENGTH, 7);
    assert_framing("Content-Length: 9223372036854775807\r\n", HTTP_BODY_LENGTH, INT64_MAX);
    assert_framing("Transfer-Encoding: Chunked\r\n", HTTP_BODY_CHUNKED, 0);
}

static void ambiguous_framing_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\ncontent-length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: \r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 99999999999999999999x\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
    };
    enum http_framing framing;
    uint64_t length;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (judge(bad[i], '1', &framing, &length) != 400) fail_msg("accepted: %s", bad[i]);
    }
    assert_int_equal(judge("Transfer-Encoding: chunked\r\n", '0', &framing, &length), 400);
    assert_int_equal(judge("Content-Length: 9223372036854775808\r\n", '1', &framing, &length), 413);
    assert_int_equal(judge("Content-Length: 18446744073709551621\r\n", '1', &framing, &length), 413);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_body_is_complete_at_once),
        cmocka_unit_test(length_leaves_what_follows),
        cmocka_unit_test(runs_may_be_skipped),
        cmocka_unit_test(length_may_be_huge),
        cmocka_unit_test(until_close_takes_all),
        cmocka_unit_test(chunks_are_unwrapped),
        cmocka_unit_test(chunks_in_every_split),
        cmocka_unit_test(wrong_octets_give_the_same_in_every_split),
        cmocka_unit_test(broken_chunks_are_refused),
        cmocka_unit_test(chunk_sizes_at_their_limit),
        cmocka_unit_test(extensions_are_bounded_line_by_line),
        cmocka_unit_test(trailers_are_bounded_together),
        cmocka_unit_test(written_chunks_are_read_again),
        cmocka_unit_test(declared_framing),
        cmocka_unit_test(ambiguous_framing_is_refused),
        cmocka_unit_test(equal_lengths_of_a_response),
    };
    return cmocka_run_group_tests_name("http_body", tests, NULL, NULL);
}
