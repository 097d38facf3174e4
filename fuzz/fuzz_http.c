/* HTTP heads: the input is one head, read as a request and as a response.
 *
 * What is asserted: the answer does not depend on how the octets came; spans stay inside the head; a head that is
 * passed on reads again with the same meaning, has one framing and one Host, nothing in it that ends here, and nothing
 * that had to be repaired. */
#include "fuzz/check.h"
#include "protocols/http_connect.h"
#include "protocols/http_forward.h"

#define OUT_SIZE                                                                                                       \
    (HTTP_RESPONSE_HEAD_SIZE_MAX + 4096u) /* a blank behind each colon, a CR, and a few fields are added               \
                                           */

typedef enum parse_result parse_head(uint8_t *, size_t, size_t *, struct http_head *, size_t *);

static enum parse_result parse_request(uint8_t *data, size_t size, size_t *scanned, struct http_head *head,
                                       size_t *used)
{
    return http_parse_request(data, size, scanned, head, used);
}

/* The first n octets in a block of their own, so that the sanitizer sees whoever reads on. */
static enum parse_result parse_copy(parse_head *parse, const uint8_t *data, size_t size, size_t *scanned,
                                    struct http_head *head, size_t *used)
{
    uint8_t *copy = check_copy(data, size);
    enum parse_result result = parse(copy, size, scanned, head, used);
    free(copy);
    return result;
}

/* What goes on has the one form that nobody reads differently. */
static void require_plain_lines(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        assert(data[i] == '\t' || data[i] == '\r' || data[i] == '\n' || (data[i] >= 0x20 && data[i] != 0x7f));
        if (data[i] == '\r') assert(i + 1 < size && data[i + 1] == '\n');
        if (data[i] != '\n') continue;
        assert(i > 0 && data[i - 1] == '\r');
        if (i + 1 < size) assert(data[i + 1] != ' ' && data[i + 1] != '\t');
    }
}

static void require_same_head(const struct http_head *a, const struct http_head *b)
{
    assert(a->field_count == b->field_count && a->minor == b->minor && a->status == b->status);
    assert(memcmp(a->fields, b->fields, a->field_count * sizeof a->fields[0]) == 0);
    assert(memcmp(&a->target, &b->target, sizeof a->target) == 0);
    assert(memcmp(&a->reason, &b->reason, sizeof a->reason) == 0);
}

static void require_span(struct http_span span, size_t end)
{
    assert((size_t)span.at + span.size <= end);
}

/* The result for the whole input, after comparing it with pieces whose sizes the input's own octets choose. */
static enum parse_result parse_in_pieces(parse_head *parse, const uint8_t *data, size_t size, struct http_head *head)
{
    static struct http_head pieces;
    size_t scanned = 0, used, used_in_pieces = 0, scanned_in_pieces = 0, received = 0;
    enum parse_result result = parse_copy(parse, data, size, &scanned, head, &used), partial = PARSE_MORE;
    assert(used <= size && (used > 0) == (result == PARSE_OK));
    for (unsigned seed = 7; partial == PARSE_MORE; seed = seed * 31 + data[received - 1]) {
        partial = parse_copy(parse, data, received, &scanned_in_pieces, &pieces, &used_in_pieces);
        if (received == size) break;
        received += 1 + seed % 61;
        if (received > size) received = size;
    }
    assert(partial == result && used == used_in_pieces);
    if (result != PARSE_OK) return result;
    require_same_head(head, &pieces);
    for (size_t i = 0; i < head->field_count; i++) {
        assert(head->fields[i].name.size > 0);
        require_span(head->fields[i].name, used);
        require_span(head->fields[i].value, used);
    }
    require_span(head->target, used);
    require_span(head->reason, used);
    return result;
}

static void check_authorization(const uint8_t *data, const struct http_head *head, const struct address *target)
{
    static struct credentials credentials, again;
    if (http_parse_proxy_authorization(data, head, &credentials) != HTTP_AUTH_OK) return;
    uint8_t out[HTTP_CONNECT_SIZE_MAX];
    struct http_head written;
    size_t scanned = 0, used, size = http_write_connect(out, sizeof out, target, &credentials);
    assert(size > 0);
    assert(http_parse_request(out, size, &scanned, &written, &used) == PARSE_OK && used == size);
    assert(written.field_count == 2);
    assert(http_parse_proxy_authorization(out, &written, &again) == HTTP_AUTH_OK);
    assert(strcmp(credentials.user, again.user) == 0 && strcmp(credentials.password, again.password) == 0);
}

/* What is judged fit to connect to is asked for upstream in a form that means the same there. */
static void check_target(const struct address *target)
{
    uint8_t out[HTTP_CONNECT_SIZE_MAX];
    struct http_head written;
    struct address again;
    size_t scanned = 0, used, size = http_write_connect(out, sizeof out, target, NULL);
    assert(size > 0);
    assert(http_parse_request(out, size, &scanned, &written, &used) == PARSE_OK && used == size);
    assert(http_connect_judge(out, &written, &again) == 0);
    assert(address_equal(target, &again));
}

/* Of what Connection named, only that is there which we write ourselves. */
static void check_options(const uint8_t *data, const struct http_head *head, const uint8_t *out,
                          const struct http_head *written)
{
    static const char *const ours[] = {"Host", "Via", "Connection", "Upgrade", "Content-Length", "Transfer-Encoding"};
    for (size_t i = 0; i < head->field_count; i++) {
        if (!http_span_is(data, head->fields[i].name, "Connection")) continue;
        struct http_span rest = head->fields[i].value, item;
        while (http_list_next(data, &rest, &item)) {
            char name[32];
            if (item.size >= sizeof name) continue;
            memcpy(name, data + item.at, item.size);
            name[item.size] = '\0';
            bool own = false;
            for (size_t k = 0; k < sizeof ours / sizeof ours[0]; k++) own = own || http_span_is(data, item, ours[k]);
            assert(own || http_find_field(out, written, name) == NULL);
        }
    }
}

static void check_fields(const uint8_t *data, const struct http_head *head, const uint8_t *out,
                         const struct http_head *written, bool upgrade, bool interim)
{
    static const char *const gone[] = {
        "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Proxy-Authentication-Info",
        "TE",         "Trailer"};
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++) assert(http_find_field(out, written, gone[i]) == NULL);
    assert(http_count_fields(out, written, "Connection") == !interim);
    if (!upgrade) assert(http_find_field(out, written, "Upgrade") == NULL);
    if (!interim) {
        struct http_span value = http_find_field(out, written, "Connection")->value;
        assert(http_span_equals(out, value, upgrade ? "upgrade" : "close"));
    }
    assert(http_count_fields(out, written, "Via") >= 1);
    check_options(data, head, out, written);
}

static void check_forward_request(const uint8_t *data, const struct http_head *head)
{
    static uint8_t out[OUT_SIZE];
    static struct http_head written;
    struct http_forward_request request;
    if (http_forward_judge(data, head, &request) != 0) return;
    check_target(&request.target);
    size_t scanned = 0, used, size = http_forward_write_request(data, head, &request, out, sizeof out);
    assert(size > 0);
    assert(http_forward_write_request(data, head, &request, out, size) == size);
    require_plain_lines(out, size);
    enum parse_result result = http_parse_request(out, size, &scanned, &written, &used);
    if (result == PARSE_TOO_LARGE) return; /* our own fields were one too many for another one like us */
    assert(result == PARSE_OK && used == size);
    assert(http_span_equals(out, written.method, "OPTIONS") || out[written.target.at] == '/');
    assert(http_count_fields(out, &written, "Host") == 1);
    struct address host;
    assert(http_parse_host_port(out, http_find_field(out, &written, "Host")->value, 80, &host));
    assert(address_equal(&host, &request.target));
    enum http_framing framing;
    uint64_t length;
    assert(http_body_judge(out, &written, HTTP_BODY_NONE, &framing, &length) == 0);
    assert(framing == request.framing && length == request.length);
    check_fields(data, head, out, &written, request.upgrade, false);
}

static void check_request(const uint8_t *data, size_t size)
{
    static struct http_head head;
    struct address target = {.kind = ADDRESS_IPV4, .port = 1};
    if (parse_in_pieces(parse_request, data, size, &head) != PARSE_OK) return;
    check_authorization(data, &head, &target);
    if (http_connect_judge(data, &head, &target) == 0) check_target(&target);
    check_forward_request(data, &head);
}

static enum http_framing expected_framing(const struct http_forward_request *request,
                                          const struct http_forward_response *response)
{
    if (response->framing == HTTP_BODY_CHUNKED && request->client_is_http10) return HTTP_BODY_UNTIL_CLOSE;
    return response->framing;
}

static void check_forward_response(const uint8_t *data, const struct http_head *head,
                                   const struct http_forward_request *request)
{
    static uint8_t out[OUT_SIZE];
    static struct http_head written;
    struct http_forward_response response, again;
    if (http_forward_judge_response(data, head, request, &response) != 0) return;
    size_t scanned = 0, used, size = http_forward_write_response(data, head, request, &response, out, sizeof out);
    assert(size > 0);
    assert(http_forward_write_response(data, head, request, &response, out, size) == size);
    require_plain_lines(out, size);
    enum parse_result result = http_parse_response(out, size, &scanned, &written, &used);
    if (result == PARSE_TOO_LARGE) return;
    assert(result == PARSE_OK && used == size && written.status == head->status);
    assert(http_forward_judge_response(out, &written, request, &again) == 0);
    assert(again.framing == expected_framing(request, &response));
    assert(again.interim == response.interim && again.switched == response.switched);
    if (again.framing == HTTP_BODY_LENGTH) assert(again.length == response.length);
    assert(http_count_fields(out, &written, "Content-Length") + http_count_fields(out, &written, "Transfer-Encoding") <=
           1);
    check_fields(data, head, out, &written, response.switched, response.interim);
}

/* `data` is ours: folds are repaired in it, as the spans expect. */
static void check_response(uint8_t *data, size_t size)
{
    static struct http_head head;
    size_t scanned = 0, used;
    if (parse_in_pieces(http_parse_response, data, size, &head) != PARSE_OK) return;
    enum parse_result result = http_parse_response(data, size, &scanned, &head, &used);
    assert(result == PARSE_OK);
    for (unsigned flags = 0; flags < 8; flags++) {
        struct http_forward_request request = {
            .head_method = flags & 1, .upgrade = flags & 2, .client_is_http10 = flags & 4};
        check_forward_response(data, &head, &request);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = check_copy(data, size);
    check_request(data, size);
    check_response(copy, size);
    free(copy);
    return 0;
}
