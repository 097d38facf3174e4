#include "tests/sim_sequence.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static uint8_t *put_request(uint8_t *at, const struct sequence *q, uint32_t request, const char *authority,
                            const char *fields)
{
    const char *method = q->repeatable[request] ? "GET" : "POST";
    at += sprintf((char *)at, "%s http://%s/%u HTTP/1.1\r\nHost: x\r\n%s", method, authority, request, fields);
    if (!q->repeatable[request])
        at = put_framing(at, q->up[request], q->chunked_up[request]);
    else if (sim_chance(
                 300)) /* in the place of a body: a head that is not sent at once, or not received into one slot */
        at += sprintf((char *)at, "Pad: %0*u\r\n", (int)sim_between(1, SEQUENCE_PAD_MAX), 0u);
    at += sprintf((char *)at, "%s\r\n", request + 1 == q->count ? "Connection: close\r\n" : "");
    return q->repeatable[request] ? at : put_body(at, request, true, q->up[request], q->chunked_up[request]);
}

static uint32_t plan_body(void)
{
    return sim_chance(300) ? 0 : sim_chance(500) ? sim_below(100) : sim_below(SEQUENCE_BODY_MAX);
}

size_t sequence_plan(struct sequence *q, const char *authority, const char *fields, uint8_t *out, size_t size)
{
    uint8_t *at = out;
    memset(q, 0, sizeof *q);
    q->count = sim_between(2, SEQUENCE_MAX);
    for (uint32_t i = 0; i < q->count; i++) {
        q->repeatable[i] = sim_chance(600);
        q->up[i] = q->repeatable[i] ? 0 : plan_body();
        q->down[i] = plan_body();
        q->chunked_up[i] = sim_chance(400);
        q->chunked_down[i] = sim_chance(400);
        q->interim[i] = sim_chance(200);
        at = put_request(at, q, i, authority, fields);
        q->end[i] = (uint32_t)(at - out);
    }
    if ((size_t)(at - out) > size) sim_fail("a sequence is too long");
    return (size_t)(at - out);
}

static void body_begin(struct sequence_reader *r, const uint8_t *data, const struct http_head *head, uint32_t request)
{
    enum http_framing framing;
    uint64_t length;
    if (http_body_judge(data, head, HTTP_BODY_NONE, &framing, &length) != 0)
        sim_fail("request %u of a sequence is framed badly", request);
    http_body_begin(&r->body, framing, length);
    r->begun = r->in_body = true;
    r->request = request;
    r->seen = 0;
}

/* Compares what has come of a body. True: it is complete. */
static bool body_read(struct sequence_reader *r, const uint8_t *data, size_t size, bool up, uint32_t expected,
                      size_t *used)
{
    enum parse_result result = PARSE_MORE;
    for (*used = 0; result == PARSE_MORE;) {
        size_t part, at, run;
        const uint8_t *next = data + *used;
        result = http_body_read(&r->body, next, size - *used, &part, &at, &run);
        if (result == PARSE_BAD) sim_fail("a chunk of request %u of a sequence is broken", r->request);
        for (size_t i = 0; i < run; i++, r->seen++)
            if (r->seen >= expected || next[at + i] != octet_of(r->request, up, r->seen))
                sim_fail("%s of request %u of a sequence is wrong from octet %u on", up ? "the body" : "the response",
                         r->request, r->seen);
        *used += part;
        if (result == PARSE_MORE && *used == size) return false;
    }
    if (r->seen != expected)
        sim_fail("a body of request %u of a sequence has %u octets of %u", r->request, r->seen, expected);
    r->begun = r->in_body = false;
    return true;
}

/* False: the head is not complete. */
static bool request_head(const struct sequence *q, struct sequence_reader *r, const uint8_t *data, size_t size,
                         size_t *used)
{
    struct http_head head;
    size_t scanned = 0, head_size;
    enum parse_result parsed = http_parse_request(data, size, &scanned, &head, &head_size);
    if (parsed == PARSE_MORE) return false;
    if (parsed != PARSE_OK || head.target.size != 2) sim_fail("an upstream of a sequence got a malformed request");
    uint32_t request = (uint32_t)(data[head.target.at + 1] - '0');
    if (request >= q->count) sim_fail("request %u of a sequence is none that its client has sent", request);
    body_begin(r, data, &head, request);
    *used = head_size;
    return true;
}

static size_t write_answer(const struct sequence *q, uint32_t request, bool last, uint8_t *out)
{
    uint8_t *at = out;
    if (q->interim[request]) at += sprintf((char *)at, "HTTP/1.1 103 Early Hints\r\nIndex: x\r\n\r\n");
    at += sprintf((char *)at, "HTTP/1.1 200 OK\r\nIndex: %u\r\n%s", request, last ? "Connection: close\r\n" : "");
    at = put_framing(at, q->down[request], q->chunked_down[request]);
    at += sprintf((char *)at, "\r\n");
    at = put_body(at, request, false, q->down[request], q->chunked_down[request]);
    return (size_t)(at - out);
}

/* Once more: only what may be sent twice, and only while there is no word of an answer. */
static void check_turn(const struct sequence *q, uint32_t request, uint64_t closed_us)
{
    bool spoken = q->spoken_us[request] > 0, late = spoken && closed_us < q->spoken_us[request];
    if (request == q->heard) return;
    if (request + 1 != q->heard && !(late && request < q->heard))
        sim_fail("request %u of a sequence reached its upstream when %u was due", request, q->heard);
    if (!q->repeatable[request]) sim_fail("request %u of a sequence, which is a POST, was sent twice", request);
    if (q->times[request] > 1) sim_fail("request %u of a sequence was sent three times", request);
    if (spoken && !late) sim_fail("request %u of a sequence was sent again behind its answer", request);
}

bool sequence_hear_request(struct sequence *q, struct sequence_reader *r, const uint8_t *data, size_t size,
                           size_t *used, uint64_t closed_us, bool last, uint8_t *out, size_t out_size, size_t *answer)
{
    size_t body;
    *used = 0;
    if (!r->in_body && !request_head(q, r, data, size, used)) return false;
    check_turn(q, r->request, closed_us);
    bool whole = body_read(r, data + *used, size - *used, true, q->up[r->request], &body);
    *used += body;
    if (!whole) return false;
    if (q->times[r->request]++ == 0) q->heard_us[r->request] = sim_now_us();
    if (q->heard <= r->request) q->heard = r->request + 1;
    *answer = write_answer(q, r->request, last, out);
    if (*answer > out_size) sim_fail("a response of a sequence is too long");
    return true;
}

/* Reads heads up to that of the response. False: more must come, or *refused: the proxy itself has answered. */
static bool response_heads(const struct sequence *q, struct sequence_reader *r, uint8_t *data, size_t size,
                           size_t *used, bool *refused)
{
    struct http_head head = {.status = 100};
    for (*used = 0; head.status < 200;) {
        size_t scanned = 0, part;
        enum parse_result parsed = http_parse_response(data + *used, size - *used, &scanned, &head, &part);
        if (parsed == PARSE_MORE) return false;
        if (parsed != PARSE_OK) sim_fail("the client of a sequence got a malformed response");
        r->begun = true;
        *used += part;
        if (head.status < 200) continue;
        const uint8_t *text = data + *used - part;
        const struct http_field *index = http_find_field(text, &head, "Index");
        *refused = !index;
        if (!index) return false;
        uint32_t request = (uint32_t)(text[index->value.at] - '0');
        if (request != q->answered || request >= q->heard)
            sim_fail("the response to request %u of a sequence came when that to %u was due", request, q->answered);
        body_begin(r, text, &head, request);
    }
    return true;
}

bool sequence_hear_response(struct sequence *q, struct sequence_reader *r, uint8_t *data, size_t size, size_t *used,
                            bool *granted)
{
    bool refused = false;
    size_t body;
    if (size > 0 && q->answered < q->count && q->spoken_us[q->answered] == 0) q->spoken_us[q->answered] = sim_now_us();
    *granted = false;
    *used = 0;
    if (!r->in_body && !response_heads(q, r, data, size, used, &refused)) return refused;
    *granted = body_read(r, data + *used, size - *used, false, q->down[r->request], &body);
    *used += body;
    q->answered += *granted;
    return *granted;
}
