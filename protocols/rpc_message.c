#include "protocols/rpc_message.h"

#include <assert.h>
#include <string.h>
#include <strings.h>

#include "protocols/http_writer.h"
#include "protocols/url.h"

/* An honest peer sends none; a proxy before it may send one. */
#define RPC_INTERIM_MAX 8u

/* --- Content-Type (RFC 9110 section 8.3.1) --- */

struct cursor {
    const char *text;
    size_t size;
};

static bool cursor_at(const struct cursor *at, char wanted)
{
    return at->size > 0 && at->text[0] == wanted;
}

static void cursor_skip(struct cursor *at, size_t size)
{
    assert(size <= at->size);
    at->text += size;
    at->size -= size;
}

static void skip_blanks(struct cursor *at)
{
    while (cursor_at(at, ' ') || cursor_at(at, '\t')) cursor_skip(at, 1);
}

static bool is_token_octet(char c)
{
    return c > ' ' && c < 0x7f && strchr("\"(),/:;<=>?@[\\]{}", c) == NULL;
}

static struct cursor take_token(struct cursor *at)
{
    struct cursor token = {at->text, 0};
    while (token.size < at->size && is_token_octet(at->text[token.size])) token.size++;
    cursor_skip(at, token.size);
    return token;
}

static bool token_is(struct cursor token, const char *text)
{
    return token.size == strlen(text) && strncasecmp(token.text, text, token.size) == 0;
}

/* Whether the quoted string that follows is well formed; *is_one: it reads 1, however it is escaped. */
static bool take_quoted(struct cursor *at, bool *is_one)
{
    size_t count = 0;
    char last = '\0';
    cursor_skip(at, 1);
    while (at->size > 0 && !cursor_at(at, '"')) {
        if (cursor_at(at, '\\')) cursor_skip(at, 1);
        if (at->size == 0) return false;
        last = at->text[0];
        count++;
        cursor_skip(at, 1);
    }
    if (at->size == 0) return false;
    cursor_skip(at, 1);
    *is_one = count == 1 && last == '1';
    return true;
}

static bool take_value(struct cursor *at, bool *is_one)
{
    if (cursor_at(at, '"')) return take_quoted(at, is_one);
    struct cursor value = take_token(at);
    *is_one = token_is(value, "1");
    return value.size > 0;
}

/* One `; name=value`, of which all behind the semicolon may be missing. */
static bool take_parameter(struct cursor *at, bool *has_version)
{
    bool is_one = false;
    cursor_skip(at, 1);
    skip_blanks(at);
    if (at->size == 0 || cursor_at(at, ';')) return true;
    struct cursor name = take_token(at);
    if (name.size == 0 || !cursor_at(at, '=')) return false;
    cursor_skip(at, 1);
    if (!take_value(at, &is_one)) return false;
    skip_blanks(at);
    if (!token_is(name, "version")) return true;
    *has_version = true;
    return is_one;
}

bool rpc_is_content_type(const char *text, size_t size)
{
    struct cursor at = {text, size};
    bool has_version = false;
    skip_blanks(&at);
    struct cursor type = take_token(&at);
    if (!token_is(type, "application") || !cursor_at(&at, '/')) return false;
    cursor_skip(&at, 1);
    struct cursor subtype = take_token(&at);
    if (!token_is(subtype, "x-neosocksd-rpc")) return false;
    skip_blanks(&at);
    while (at.size > 0)
        if (!cursor_at(&at, ';') || !take_parameter(&at, &has_version)) return false;
    return has_version;
}

/* --- requests --- */

static bool is_token_text(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text <= ' ' || *text >= 0x7f) return false;
    return true;
}

bool rpc_peer_parse(const char *text, size_t size, struct rpc_peer *out)
{
    struct proxy_uri uri;
    struct rpc_peer peer = {0};
    if (address_parse(text, size, ADDRESS_PORT_REQUIRED, 0, &peer.address)) {
        *out = peer;
        return true;
    }
    if (proxy_uri_parse(text, size, &uri) != NULL || uri.scheme != PROXY_HTTP) return false;
    if (uri.credentials.password[0] != '\0' || !is_token_text(uri.credentials.user)) return false;
    peer.address = uri.address;
    memcpy(peer.token, uri.credentials.user, sizeof peer.token);
    *out = peer;
    return true;
}

size_t rpc_write_request(uint8_t *out, size_t size, const struct rpc_peer *peer, enum rpc_path path, size_t body_size,
                         bool deflated)
{
    struct http_writer w = {.out = out, .size = size};
    assert(size >= RPC_REQUEST_HEAD_SIZE_MAX);
    /* No Host, as with all versions of neosocksd: by way of an overlay the name that we know the peer by is not its
     * own, and an API refuses foreign names, which pages of browsers could have made up (DNS rebinding). */
    http_put_text(&w, path == RPC_CALL ? "POST /ruleset/rpcall HTTP/1.1\r\n" : "POST /ruleset/invoke HTTP/1.1\r\n");
    http_put_text(&w, "Accept-Encoding: deflate\r\nConnection: close\r\nContent-Length: ");
    http_put_number(&w, body_size);
    http_put_text(&w, "\r\nContent-Type: " RPC_CONTENT_TYPE "\r\n");
    if (deflated) http_put_text(&w, "Content-Encoding: deflate\r\n");
    if (peer->token[0] != '\0') {
        http_put_text(&w, "Authorization: Bearer ");
        http_put_text(&w, peer->token);
        http_put_text(&w, "\r\n");
    }
    http_put_text(&w, "\r\n");
    assert(!w.full); /* the longest name and token fit */
    return http_writer_finish(&w);
}

/* --- answers --- */

static bool answer_is_over(struct rpc_answer *answer, enum rpc_outcome outcome)
{
    answer->outcome = (uint8_t)outcome;
    return true;
}

/* Whether what is no valid head begins at least with a status line. */
static bool is_http(const uint8_t *data, size_t size)
{
    static const char sample[] = "HTTP/1.d ddd";
    if (size < sizeof sample) return false;
    for (size_t i = 0; i < sizeof sample - 1; i++) {
        bool digit = data[i] >= '0' && data[i] <= '9';
        if (sample[i] == 'd' ? !digit : data[i] != (uint8_t)sample[i]) return false;
    }
    size_t end = sizeof sample - 1;
    if (data[end] != ' ' && data[end] != '\r') return false;
    while (end < size && (data[end] == '\t' || (data[end] >= ' ' && data[end] != 0x7f))) end++;
    return end + 1 < size && data[end] == '\r' && data[end + 1] == '\n';
}

static bool read_coding(const uint8_t *data, const struct http_head *head, uint8_t *coding)
{
    const struct http_field *field = http_find_field(data, head, "Content-Encoding");
    *coding = RPC_IDENTITY;
    if (field == NULL || http_span_is(data, field->value, "identity")) return true;
    if (http_count_fields(data, head, "Content-Encoding") != 1) return false;
    *coding = RPC_DEFLATE;
    if (http_span_is(data, field->value, "deflate")) return true;
    *coding = RPC_GZIP;
    return http_span_is(data, field->value, "gzip") || http_span_is(data, field->value, "x-gzip");
}

static bool is_typed(const uint8_t *data, const struct http_head *head)
{
    const struct http_field *field = http_find_field(data, head, "Content-Type");
    if (field == NULL || http_count_fields(data, head, "Content-Type") != 1) return false;
    return rpc_is_content_type((const char *)data + field->value.at, field->value.size);
}

/* False: the framing breaks the rules, or promises too much. */
static bool begin_body(struct rpc_answer *answer, const uint8_t *data, const struct http_head *head)
{
    enum http_framing framing;
    uint64_t length = 0;
    if (http_body_judge(data, head, HTTP_BODY_UNTIL_CLOSE, &framing, &length) != 0) return false;
    if (head->status == 204 || head->status == 304) framing = HTTP_BODY_NONE;
    if (framing == HTTP_BODY_LENGTH && length > RPC_BODY_SIZE_MAX) return false;
    http_body_begin(&answer->body, framing, length);
    return true;
}

/* The head is complete. True: the body, if there is one, does not matter. */
static bool judge_head(struct rpc_answer *answer, const uint8_t *data, const struct http_head *head, size_t used)
{
    bool success = head->status / 100 == 2;
    const uint8_t *line_end = memchr(data, '\r', used);
    if (line_end == NULL) return answer_is_over(answer, RPC_MALFORMED);
    answer->status_line_size = (uint16_t)(line_end - data);
    answer->body_at = used;
    answer->outcome = success ? RPC_VALUES : RPC_MESSAGE;
    if (success && answer->path == RPC_INVOKE) return true; /* some versions send how long it took */
    if (!is_typed(data, head)) return answer_is_over(answer, success ? RPC_WRONG_TYPE : RPC_STATUS);
    if (!begin_body(answer, data, head)) return answer_is_over(answer, RPC_MALFORMED);
    if (success && !read_coding(data, head, &answer->coding)) return answer_is_over(answer, RPC_MALFORMED);
    return false;
}

/* Answers ahead of the answer (RFC 9110 section 15.2); a switch of protocols is none that we asked for. */
static bool is_interim(const struct http_head *head)
{
    return head->status / 100 == 1 && head->status != 101;
}

static void drop_head(struct rpc_answer *answer, uint8_t *data, size_t *size, size_t used)
{
    memmove(data, data + used, *size - used);
    *size -= used;
    answer->scanned = 0;
    answer->interim++;
}

/* True: nothing more is to be read. */
static bool read_head(struct rpc_answer *answer, uint8_t *data, size_t *size)
{
    struct http_head head;
    size_t used;
    for (;;) {
        enum parse_result result = http_parse_response(data, *size, &answer->scanned, &head, &used);
        if (result == PARSE_MORE) return false;
        if (result != PARSE_OK) return answer_is_over(answer, is_http(data, *size) ? RPC_MALFORMED : RPC_UNREADABLE);
        if (!is_interim(&head)) return judge_head(answer, data, &head, used);
        if (answer->interim == RPC_INTERIM_MAX) return answer_is_over(answer, RPC_MALFORMED);
        drop_head(answer, data, size, used);
    }
}

static bool body_is_over(struct rpc_answer *answer)
{
    bool mute = answer->outcome == RPC_MESSAGE && answer->body_size == 0;
    return answer_is_over(answer, mute ? RPC_STATUS : (enum rpc_outcome)answer->outcome);
}

/* What has not been read yet begins where the body ends so far. */
static bool read_body(struct rpc_answer *answer, uint8_t *data, size_t *size)
{
    uint8_t *body = data + answer->body_at;
    size_t at = answer->body_at + answer->body_size, end = *size, used, payload_at, payload_size;
    enum parse_result result;
    do {
        result = http_body_read(&answer->body, data + at, end - at, &used, &payload_at, &payload_size);
        if (result == PARSE_BAD || payload_size > RPC_BODY_SIZE_MAX - answer->body_size)
            return answer_is_over(answer, RPC_MALFORMED);
        if (payload_size > 0) memmove(body + answer->body_size, data + at + payload_at, payload_size);
        answer->body_size += payload_size;
        at += used;
    } while (result == PARSE_MORE && at < end);
    *size = answer->body_at + answer->body_size;
    return result == PARSE_OK && body_is_over(answer);
}

bool rpc_answer_read(struct rpc_answer *answer, uint8_t *data, size_t *size)
{
    if (answer->body_at == 0 && read_head(answer, data, size)) return true;
    return answer->body_at > 0 && read_body(answer, data, size);
}

void rpc_answer_end(struct rpc_answer *answer)
{
    if (answer->body_at > 0 && http_body_complete_at_close(&answer->body))
        body_is_over(answer);
    else
        answer_is_over(answer, RPC_UNREADABLE);
}
