/* Plain HTTP through a forwarding proxy: what is refused, what is dropped and what is written anew.
 *
 * The rule that keeps smuggling out: framing, Host and connection options are never copied. They are read, judged, and
 * written again from what was understood, so that the next recipient cannot understand something else. */
#include "protocols/http_forward.h"

#include <assert.h>
#include <string.h>

#include "protocols/http_connect.h"
#include "protocols/http_writer.h"

#define PORT_HTTP 80u

static struct http_span span_from(struct http_span span, size_t skip)
{
    assert(skip <= span.size);
    return (struct http_span){(uint16_t)(span.at + skip), (uint16_t)(span.size - skip)};
}

/* Octets in front of the first that is in `stops`, or all. */
static size_t measure_until(const uint8_t *data, struct http_span span, const char *stops)
{
    size_t size = 0;
    while (size < span.size && strchr(stops, data[span.at + size]) == NULL) size++;
    return size;
}

/* Splits "http://user@host:port/path?query#fragment" (RFC 9112 section 3.2.2). The user is cut off: whoever puts one
 * there hopes that somebody takes it for the host. So is the fragment, which is the client's own. */
static bool split_target(const uint8_t *data, struct http_span target, struct http_span *authority,
                         struct http_span *path)
{
    const size_t scheme = sizeof "http://" - 1;
    if (target.size < scheme) return false;
    if (!http_span_is(data, (struct http_span){target.at, (uint16_t)scheme}, "http://")) return false;
    *authority = span_from(target, scheme);
    *path = span_from(*authority, measure_until(data, *authority, "/?#"));
    authority->size = (uint16_t)(path->at - authority->at);
    path->size = (uint16_t)measure_until(data, *path, "#");
    const uint8_t *at = memrchr(data + authority->at, '@', authority->size);
    if (at != NULL) *authority = span_from(*authority, (size_t)(at - data) - authority->at + 1);
    return true;
}

/* h2c is left out: its settings travel in a field that ends here, and it would let the client speak a protocol to the
 * upstream that nobody on the way looks at (RFC 9113 has given it up as well). */
static bool wants_upgrade(const uint8_t *data, const struct http_head *head, const struct http_forward_request *request)
{
    if (request->framing == HTTP_BODY_CHUNKED || request->length > 0 || head->minor == 0) return false;
    if (!http_list_has(data, head, "Connection", "upgrade") || http_list_has(data, head, "Upgrade", "h2c"))
        return false;
    const struct http_field *upgrade = http_find_field(data, head, "Upgrade");
    return upgrade != NULL && upgrade->value.size > 0;
}

/* Either side: HTTP/1.0 has to ask for it, and an option that says otherwise wins (RFC 9112 section 9.3). */
static bool wants_persistence(const uint8_t *data, const struct http_head *head)
{
    if (http_list_has(data, head, "Connection", "close")) return false;
    return head->minor > 0 || http_list_has(data, head, "Connection", "keep-alive");
}

/* Methods whose second execution changes nothing (RFC 9110 section 9.2.2). */
static bool is_idempotent(const uint8_t *data, struct http_span method)
{
    static const char *const names[] = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (http_span_equals(data, method, names[i])) return true;
    return false;
}

/* Whether fields of that name speak of an authentication scheme that belongs to the connection. A challenge is a list,
 * and so are its parameters: each item's first word is looked at, so that none is missed. */
static bool binds_connection(const uint8_t *data, const struct http_head *head, const char *name)
{
    static const char *const schemes[] = {"NTLM", "Negotiate", "Nego2", "Kerberos", "PKU2U"};
    for (size_t i = 0; i < head->field_count; i++) {
        if (!http_span_is(data, head->fields[i].name, name)) continue;
        struct http_span rest = head->fields[i].value, item;
        while (http_list_next(data, &rest, &item)) {
            item.size = (uint16_t)measure_until(data, item, " \t");
            for (size_t j = 0; j < sizeof schemes / sizeof schemes[0]; j++)
                if (http_span_is(data, item, schemes[j])) return true;
        }
    }
    return false;
}

/* Each field is looked for among the connection options: the limit keeps one hostile head from costing milliseconds. */
static bool has_too_many_options(const uint8_t *data, const struct http_head *head)
{
    unsigned commas = 0;
    for (size_t i = 0; i < head->field_count; i++) {
        if (!http_span_is(data, head->fields[i].name, "Connection")) continue;
        struct http_span value = head->fields[i].value;
        for (size_t at = 0; at < value.size; at++) commas += data[value.at + at] == ',';
    }
    return commas > HTTP_OPTIONS_MAX;
}

unsigned http_forward_judge(const uint8_t *data, const struct http_head *head, struct http_forward_request *request)
{
    struct http_span authority, path;
    *request = (struct http_forward_request){0};
    if (http_span_equals(data, head->method, "CONNECT")) return 400;
    if (!split_target(data, head->target, &authority, &path)) return 400;
    if (!http_parse_host_port(data, authority, PORT_HTTP, &request->target)) return 400;
    if (http_count_fields(data, head, "Host") > 1 || has_too_many_options(data, head)) return 400;
    unsigned refusal = http_body_judge(data, head, HTTP_BODY_NONE, &request->framing, &request->length);
    if (refusal != 0) return refusal;
    request->head_method = http_span_equals(data, head->method, "HEAD");
    request->client_is_http10 = head->minor == 0;
    request->upgrade = wants_upgrade(data, head, request);
    request->persistent = wants_persistence(data, head);
    bool bodiless = request->framing != HTTP_BODY_CHUNKED && request->length == 0;
    request->repeatable = bodiless && !request->upgrade && is_idempotent(data, head->method);
    request->binds = binds_connection(data, head, "Authorization");
    return 0;
}

struct http_span http_forward_path(const uint8_t *data, const struct http_head *head)
{
    struct http_span authority, path = {0};
    return split_target(data, head->target, &authority, &path) ? path : (struct http_span){0};
}

/* Fields that end here (RFC 9110 section 7.6.1), and those that are written anew in every message. */
static bool is_hop_by_hop(const uint8_t *data, struct http_span name)
{
    static const char *const names[] = {
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "Upgrade",
        "Transfer-Encoding",
        "Proxy-Authentication-Info",
        "TE",
        "Trailer",
        "Content-Length",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (http_span_is(data, name, names[i])) return true;
    }
    return false;
}

/* Whether a Connection field names it, which makes any field one for the next hop only. */
static bool is_connection_option(const uint8_t *data, const struct http_head *head, struct http_span name)
{
    for (size_t i = 0; i < head->field_count; i++) {
        if (!http_span_is(data, head->fields[i].name, "Connection")) continue;
        struct http_span rest = head->fields[i].value, item;
        while (http_list_next(data, &rest, &item)) {
            if (http_spans_match(data, item, name)) return true;
        }
    }
    return false;
}

static void put_field(struct http_writer *w, const uint8_t *data, const struct http_field *field)
{
    http_put_span(w, data, field->name);
    http_put_text(w, ": ");
    http_put_span(w, data, field->value);
    http_put_text(w, "\r\n");
}

/* The fields that go on, in their order; `except` is one more name that does not, or NULL. */
static void put_fields(struct http_writer *w, const uint8_t *data, const struct http_head *head, const char *except)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct http_span name = head->fields[i].name;
        if (is_hop_by_hop(data, name) || is_connection_option(data, head, name)) continue;
        if (except != NULL && http_span_is(data, name, except)) continue;
        put_field(w, data, &head->fields[i]);
    }
}

/* Via names the version that the message came with (RFC 9110 section 7.6.3). */
static void put_via(struct http_writer *w, const struct http_head *head)
{
    http_put_text(w, "Via: 1.");
    http_put_number(w, head->minor);
    http_put_text(w, " neosocksd\r\n"); /* what clients and upstreams of neosocksd look for */
}

static void put_framing(struct http_writer *w, enum http_framing framing, uint64_t length)
{
    if (framing == HTTP_BODY_CHUNKED) http_put_text(w, "Transfer-Encoding: chunked\r\n");
    if (framing != HTTP_BODY_LENGTH) return;
    http_put_text(w, "Content-Length: ");
    http_put_number(w, length);
    http_put_text(w, "\r\n");
}

/* What an upgrade needs. */
static void put_upgrade(struct http_writer *w, const uint8_t *data, const struct http_head *head)
{
    http_put_text(w, "Connection: upgrade\r\n");
    for (size_t i = 0; i < head->field_count; i++) {
        if (http_span_is(data, head->fields[i].name, "Upgrade")) put_field(w, data, &head->fields[i]);
    }
}

static void put_persistence(struct http_writer *w, const struct http_forward_request *request, bool keep)
{
    if (!keep)
        http_put_text(w, "Connection: close\r\n");
    else if (request->client_is_http10)
        http_put_text(w, "Connection: keep-alive\r\n");
}

/* HTTP/1.0 is written on as such, for its clients know nothing newer: it would have to ask in words that not all
 * servers of its time understand. */
static bool asks_persistence(const struct http_forward_request *request)
{
    return request->keep_upstream && !request->client_is_http10 && !request->upgrade;
}

/* Origin-form, or the asterisk of an OPTIONS for the server as a whole (RFC 9112 section 3.2.4). */
static void put_path(struct http_writer *w, const uint8_t *data, const struct http_head *head, struct http_span path)
{
    if (path.size == 0 && http_span_equals(data, head->method, "OPTIONS")) {
        http_put_text(w, "*");
        return;
    }
    if (path.size == 0 || data[path.at] != '/') http_put_text(w, "/");
    http_put_span(w, data, path);
}

size_t http_forward_write_request(const uint8_t *data, const struct http_head *head,
                                  const struct http_forward_request *request, uint8_t *out, size_t size)
{
    struct http_span authority, path;
    bool split = split_target(data, head->target, &authority, &path);
    assert(split); /* http_forward_judge() has seen to it */
    struct http_writer w = {.out = out, .size = size};
    http_put_span(&w, data, head->method);
    http_put_text(&w, " ");
    put_path(&w, data, head, path);
    http_put_text(&w, head->minor == 0 ? " HTTP/1.0\r\nHost: " : " HTTP/1.1\r\nHost: ");
    http_put_span(&w, data, authority);
    http_put_text(&w, "\r\n");
    put_fields(&w, data, head, "Host");
    put_via(&w, head);
    put_framing(&w, request->framing, request->length);
    if (request->upgrade)
        put_upgrade(&w, data, head);
    else if (!asks_persistence(request))
        http_put_text(&w, "Connection: close\r\n"); /* one request is all that it is used for */
    http_put_text(&w, "\r\n");
    return http_writer_finish(&w);
}

/* RFC 9112 section 6.3, rules 1 and 2: these have no body, whatever their fields say. */
static bool has_no_body(const struct http_head *head, const struct http_forward_request *request)
{
    return request->head_method || head->status < 200 || head->status == 204 || head->status == 304;
}

unsigned http_forward_judge_response(const uint8_t *data, const struct http_head *head,
                                     const struct http_forward_request *request, struct http_forward_response *response)
{
    *response = (struct http_forward_response){.framing = HTTP_BODY_NONE};
    if (has_too_many_options(data, head)) return 502;
    response->switched = head->status == 101;
    response->interim = head->status < 200 && !response->switched;
    if (response->interim) return 0;
    if (response->switched) return request->upgrade ? 0 : 502;
    if (http_body_judge(data, head, HTTP_BODY_UNTIL_CLOSE, &response->framing, &response->length) != 0) return 502;
    if (has_no_body(head, request)) response->framing = HTTP_BODY_NONE;
    response->rechunk = response->framing == HTTP_BODY_CHUNKED && !request->client_is_http10;
    bool delimited = response->rechunk || response->framing == HTTP_BODY_LENGTH || response->framing == HTTP_BODY_NONE;
    response->keep = request->persistent && delimited;
    bool ends = response->framing != HTTP_BODY_UNTIL_CLOSE;
    response->keep_upstream = asks_persistence(request) && ends && wants_persistence(data, head);
    response->binds = binds_connection(data, head, "WWW-Authenticate");
    return 0;
}

/* The framing that the client is told. Where there is no body but could have been one (HEAD, 304), the length still
 * says how long it would have been; 1xx and 204 must not have one (RFC 9110 section 8.6). */
static enum http_framing deliver_framing(const uint8_t *data, const struct http_head *head,
                                         const struct http_forward_response *response)
{
    if (response->rechunk) return HTTP_BODY_CHUNKED;
    if (response->framing == HTTP_BODY_LENGTH) return HTTP_BODY_LENGTH;
    bool could_have = response->framing == HTTP_BODY_NONE && head->status >= 200 && head->status != 204;
    return could_have && http_find_field(data, head, "Content-Length") != NULL ? HTTP_BODY_LENGTH : HTTP_BODY_NONE;
}

size_t http_forward_write_response(const uint8_t *data, const struct http_head *head,
                                   const struct http_forward_request *request,
                                   const struct http_forward_response *response, uint8_t *out, size_t size)
{
    assert(!response->switched || request->upgrade);
    assert(!response->rechunk || !request->client_is_http10);
    struct http_writer w = {.out = out, .size = size};
    http_put_text(&w, "HTTP/1.1 ");
    http_put_number(&w, head->status);
    http_put_text(&w, " ");
    http_put_text(&w, http_reason(head->status));
    http_put_text(&w, "\r\n");
    put_fields(&w, data, head, NULL);
    put_via(&w, head);
    put_framing(&w, deliver_framing(data, head, response), response->length);
    if (response->switched)
        put_upgrade(&w, data, head);
    else if (!response->interim)
        put_persistence(&w, request, response->keep);
    http_put_text(&w, "\r\n");
    return http_writer_finish(&w);
}
