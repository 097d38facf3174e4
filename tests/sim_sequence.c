#include "tests/sim_sequence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/http_body.h"
#include "tests/sim.h"

static uint8_t octet_of(uint32_t request, bool up, uint32_t at)
{
    return (uint8_t)((request * 37 + up * 101 + at * 7 + at / 251) | 1);
}

static uint8_t *put_body(uint8_t *at, uint32_t request, bool up, uint32_t size, bool is_chunked)
{
    for (uint32_t done = 0; done < size;) {
        uint32_t part = is_chunked ? sim_between(1, size - done) : size;
        if (is_chunked) at += sprintf((char *)at, "%x\r\n", part);
        for (uint32_t i = 0; i < part; i++) *at++ = octet_of(request, up, done + i);
        if (is_chunked) at += sprintf((char *)at, "\r\n");
        done += part;
        if (is_chunked && size - done > 0 && size - done < 40) { /* not an endless row of small ones */
            at += sprintf((char *)at, "%x\r\n", size - done);
            for (uint32_t i = done; i < size; i++) *at++ = octet_of(request, up, i);
            at += sprintf((char *)at, "\r\n");
            done = size;
        }
    }
    if (is_chunked) at += sprintf((char *)at, "0\r\n%s\r\n", sim_chance(300) ? "Trailer: x\r\n" : "");
    return at;
}

static uint8_t *put_framing(uint8_t *at, uint32_t size, bool is_chunked)
{
    if (is_chunked) return at + sprintf((char *)at, "Transfer-Encoding: chunked\r\n");
    return at + sprintf((char *)at, "Content-Length: %u\r\n", size);
}

static uint32_t plan_body(void)
{
    return sim_chance(300) ? 0 : sim_chance(500) ? sim_below(100) : sim_below(SEQUENCE_BODY_MAX);
}

size_t sequence_plan(struct sequence *q, const char *authority, uint8_t *out, size_t size)
{
    uint8_t *at = out;
    memset(q, 0, sizeof *q);
    q->count = sim_between(2, SEQUENCE_MAX);
    for (uint32_t i = 0; i < q->count; i++) {
        q->up[i] = plan_body();
        q->down[i] = plan_body();
        q->chunked_up[i] = sim_chance(400);
        q->chunked_down[i] = sim_chance(400);
        q->interim[i] = sim_chance(200);
        at += sprintf((char *)at, "POST http://%s/%u HTTP/1.1\r\nHost: x\r\n", authority, i);
        at = put_framing(at, q->up[i], q->chunked_up[i]);
        at += sprintf((char *)at, "%s\r\n", i + 1 == q->count ? "Connection: close\r\n" : "");
        at = put_body(at, i, true, q->up[i], q->chunked_up[i]);
        q->end[i] = (uint32_t)(at - out);
    }
    if ((size_t)(at - out) > size) sim_fail("a sequence is too long");
    return (size_t)(at - out);
}

/* Reads a body behind its head and compares it. Octets of it, SIZE_MAX: not complete. */
static size_t read_body(const uint8_t *data, size_t size, const struct http_head *head, const uint8_t *text,
                        uint32_t request, bool up, uint32_t expected)
{
    struct http_body body;
    enum http_framing framing;
    uint64_t length;
    size_t done = 0;
    uint32_t seen = 0;
    if (http_body_judge(text, head, HTTP_BODY_NONE, &framing, &length) != 0)
        sim_fail("request %u of a sequence is framed badly", request);
    http_body_begin(&body, framing, length);
    for (;;) {
        size_t used, at, run;
        enum parse_result result = http_body_read(&body, data + done, size - done, &used, &at, &run);
        if (result == PARSE_BAD) sim_fail("a chunk of request %u of a sequence is broken", request);
        for (size_t i = 0; i < run; i++)
            if (seen + i >= expected || data[done + at + i] != octet_of(request, up, (uint32_t)(seen + i)))
                sim_fail("%s of request %u of a sequence is wrong from octet %zu on", up ? "the body" : "the response",
                         request, seen + i);
        seen += (uint32_t)run;
        done += used;
        if (result == PARSE_OK) break;
        if (done == size) return SIZE_MAX;
    }
    if (seen != expected) sim_fail("a body of request %u of a sequence has %u octets of %u", request, seen, expected);
    return done;
}

bool sequence_hear_request(struct sequence *q, const uint8_t *data, size_t size, size_t *used, uint8_t *out,
                           size_t out_size, size_t *answer)
{
    struct http_head head;
    size_t scanned = 0, head_size;
    enum parse_result parsed = http_parse_request(data, size, &scanned, &head, &head_size);
    if (parsed == PARSE_MORE) return false;
    if (parsed != PARSE_OK || head.target.size != 2) sim_fail("an upstream of a sequence got a malformed request");
    uint32_t request = (uint32_t)(data[head.target.at + 1] - '0');
    if (request != q->heard || request >= q->count)
        sim_fail("request %u of a sequence reached its upstream when %u was due", request, q->heard);
    size_t body = read_body(data + head_size, size - head_size, &head, data, request, true, q->up[request]);
    if (body == SIZE_MAX) return false;
    *used = head_size + body;
    q->heard++;
    uint8_t *at = out;
    if (q->interim[request]) at += sprintf((char *)at, "HTTP/1.1 103 Early Hints\r\nIndex: x\r\n\r\n");
    at += sprintf((char *)at, "HTTP/1.1 200 OK\r\nIndex: %u\r\n", request);
    at = put_framing(at, q->down[request], q->chunked_down[request]);
    at += sprintf((char *)at, "\r\n");
    at = put_body(at, request, false, q->down[request], q->chunked_down[request]);
    *answer = (size_t)(at - out);
    if (*answer > out_size) sim_fail("a response of a sequence is too long");
    return true;
}

bool sequence_hear_response(struct sequence *q, uint8_t *data, size_t size, size_t *used, bool *granted)
{
    struct http_head head;
    size_t scanned = 0, head_size;
    enum parse_result parsed = http_parse_response(data, size, &scanned, &head, &head_size);
    *granted = false;
    if (parsed == PARSE_MORE) return false;
    if (parsed != PARSE_OK) sim_fail("the client of a sequence got a malformed response");
    *used = head_size;
    if (head.status < 200) { /* another head follows */
        size_t behind = 0;
        if (!sequence_hear_response(q, data + head_size, size - head_size, &behind, granted)) return false;
        *used = head_size + behind;
        return true;
    }
    const struct http_field *index = http_find_field(data, &head, "Index");
    if (!index) return true; /* the proxy's own word */
    uint32_t request = (uint32_t)(data[index->value.at] - '0');
    if (request != q->answered || request >= q->heard)
        sim_fail("the response to request %u of a sequence came when that to %u was due", request, q->answered);
    size_t body = read_body(data + head_size, size - head_size, &head, data, request, false, q->down[request]);
    if (body == SIZE_MAX) return false;
    *used = head_size + body;
    *granted = true;
    q->answered++;
    return true;
}
