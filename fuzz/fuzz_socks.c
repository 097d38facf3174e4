/* SOCKS4, SOCKS5 of both sides and the header of UDP datagrams.
 *
 * Every parser sees every prefix of the input. Once it has answered, more octets must not change its mind: not the
 * answer, not what it consumed, not what it understood. What it understood is written back and read again. */
#include "fuzz/check.h"
#include "protocols/socks4.h"
#include "protocols/socks5.h"

#define INPUT_SIZE_MAX (SOCKS4_REQUEST_SIZE_MAX + 16u) /* the longest message and something behind it */

/* What a parser said, and its output written back. */
struct outcome {
    enum parse_result result;
    size_t used;
    size_t size; /* octets in written */
    uint8_t written[SOCKS4_REQUEST_SIZE_MAX];
};

static void on_request4(const uint8_t *data, size_t size, struct outcome *outcome)
{
    struct socks4_request request, again;
    size_t used;
    outcome->result = socks4_parse_request(data, size, &request, &outcome->used);
    if (outcome->result != PARSE_OK) return;
    outcome->size = socks4_write_request(outcome->written, sizeof(outcome->written), &request.target, request.user);
    if (request.target.kind == ADDRESS_NONE) { /* a name that no host has */
        assert(outcome->size == 0);
        return;
    }
    check_address(&request.target);
    assert(socks4_parse_request(outcome->written, outcome->size, &again, &used) == PARSE_OK);
    assert(used == outcome->size);
    assert(address_equal(&request.target, &again.target));
    assert(strcmp(request.user, again.user) == 0);
}

static void on_reply4(const uint8_t *data, size_t size, struct outcome *outcome)
{
    uint8_t code, again;
    size_t used;
    outcome->result = socks4_parse_reply(data, size, &code, &outcome->used);
    if (outcome->result != PARSE_OK) return;
    outcome->size = socks4_write_reply(outcome->written, sizeof(outcome->written), code);
    assert(socks4_parse_reply(outcome->written, outcome->size, &again, &used) == PARSE_OK);
    assert(used == outcome->size);
    assert(code == again);
}

static void on_greeting(const uint8_t *data, size_t size, struct outcome *outcome)
{
    uint8_t open, closed;
    size_t used;
    outcome->result = socks5_parse_greeting(data, size, false, &open, &outcome->used);
    assert(socks5_parse_greeting(data, size, true, &closed, &used) == outcome->result);
    assert(used == outcome->used);
    if (outcome->result != PARSE_OK) return;
    assert(open == SOCKS5_METHOD_NONE || open == closed);
    assert(closed == SOCKS5_METHOD_PASSWORD || closed == SOCKS5_METHOD_UNACCEPTABLE);
    outcome->size = socks5_write_method(outcome->written, sizeof(outcome->written), open);
    outcome->size += socks5_write_method(outcome->written + 2, sizeof(outcome->written) - 2, closed);
}

static void on_auth(const uint8_t *data, size_t size, struct outcome *outcome)
{
    struct credentials credentials, again;
    size_t used;
    outcome->result = socks5_parse_auth(data, size, &credentials, &outcome->used);
    if (outcome->result != PARSE_OK) return;
    assert(credentials.present);
    outcome->size = socks5_write_auth(outcome->written, sizeof(outcome->written), &credentials);
    assert(outcome->size == outcome->used);
    assert(memcmp(outcome->written, data, outcome->size) == 0);
    assert(socks5_parse_auth(outcome->written, outcome->size, &again, &used) == PARSE_OK);
    assert(strcmp(credentials.user, again.user) == 0);
    assert(strcmp(credentials.password, again.password) == 0);
}

static void on_request5(const uint8_t *data, size_t size, struct outcome *outcome)
{
    struct socks5_request request, again;
    size_t used;
    outcome->result = socks5_parse_request(data, size, &request, &outcome->used);
    if (outcome->result == PARSE_UNSUPPORTED) outcome->written[outcome->size++] = request.command;
    if (outcome->result != PARSE_OK) return;
    outcome->size = socks5_write_request(outcome->written, sizeof(outcome->written), request.command, &request.target);
    if (request.target.kind == ADDRESS_NONE) { /* a name that no host has */
        assert(request.by_name && outcome->size == 0);
        return;
    }
    assert(socks5_parse_request(outcome->written, outcome->size, &again, &used) == PARSE_OK);
    assert(used == outcome->size);
    assert(again.command == request.command);
    check_address(&request.target);
    assert(address_equal(&request.target, &again.target));
}

static void on_reply5(const uint8_t *data, size_t size, struct outcome *outcome)
{
    uint8_t code, code_again;
    struct address bound, again;
    size_t used;
    outcome->result = socks5_parse_reply(data, size, &code, &bound, &outcome->used);
    if (outcome->result == PARSE_UNSUPPORTED) outcome->written[outcome->size++] = code;
    if (outcome->result != PARSE_OK) return;
    outcome->size = socks5_write_reply(outcome->written, sizeof(outcome->written), code, &bound);
    assert(socks5_parse_reply(outcome->written, outcome->size, &code_again, &again, &used) == PARSE_OK);
    assert(used == outcome->size);
    assert(code == code_again);
    if (bound.kind == ADDRESS_NONE) return;
    check_address(&bound);
    assert(address_equal(&bound, &again));
}

static void on_method(const uint8_t *data, size_t size, struct outcome *outcome)
{
    uint8_t method;
    outcome->result = socks5_parse_method(data, size, &method, &outcome->used);
    if (outcome->result != PARSE_OK) return;
    outcome->size = socks5_write_method(outcome->written, sizeof(outcome->written), method);
    assert(memcmp(outcome->written, data, outcome->size) == 0);
}

static void on_auth_status(const uint8_t *data, size_t size, struct outcome *outcome)
{
    bool granted;
    outcome->result = socks5_parse_auth_status(data, size, &granted, &outcome->used);
    if (outcome->result != PARSE_OK) return;
    assert(granted == (data[1] == 0));
    outcome->size = socks5_write_auth_status(outcome->written, sizeof(outcome->written), granted);
}

static void on_udp_header(const uint8_t *data, size_t size, struct outcome *outcome)
{
    struct socks5_udp_header header, again;
    size_t used;
    outcome->result = socks5_parse_udp_header(data, size, &header, &outcome->used);
    assert(outcome->result != PARSE_MORE);
    /* Cut short is BAD for a datagram; to the general rule below it is what MORE is to a stream. */
    if (outcome->result == PARSE_BAD) outcome->result = PARSE_MORE;
    if (outcome->result != PARSE_OK) return;
    outcome->size = socks5_write_udp_header(outcome->written, sizeof(outcome->written), &header.target);
    assert(socks5_parse_udp_header(outcome->written, outcome->size, &again, &used) == PARSE_OK);
    assert(used == outcome->size);
    if (header.target.kind == ADDRESS_NONE) return;
    check_address(&header.target);
    assert(address_equal(&header.target, &again.target));
}

static const struct {
    void (*run)(const uint8_t *data, size_t size, struct outcome *outcome);
    size_t size_max; /* octets after which MORE is no answer any more */
} parsers[] = {
    {on_request4, SOCKS4_REQUEST_SIZE_MAX},
    {on_reply4, SOCKS4_REPLY_SIZE},
    {on_greeting, SOCKS5_GREETING_SIZE_MAX},
    {on_auth, SOCKS5_AUTH_SIZE_MAX},
    {on_request5, SOCKS5_REQUEST_SIZE_MAX},
    {on_reply5, SOCKS5_REPLY_SIZE_MAX},
    {on_method, 2},
    {on_auth_status, 2},
    {on_udp_header, SOCKS5_UDP_HEADER_SIZE_MAX},
};
#define PARSER_COUNT (sizeof(parsers) / sizeof(parsers[0]))

static void check_outcome(const struct outcome *outcome, size_t size, size_t size_max)
{
    assert(outcome->result <= PARSE_TOO_LARGE);
    assert(outcome->used <= size);
    assert(outcome->used <= size_max);
    assert((outcome->used > 0) == (outcome->result == PARSE_OK));
    assert(outcome->result != PARSE_MORE || size < size_max);
}

/* `early` was the answer to fewer octets. */
static void check_final(const struct outcome *early, const struct outcome *late)
{
    if (early->result == PARSE_MORE) return;
    assert(early->result == late->result);
    assert(early->used == late->used);
    assert(early->size == late->size);
    assert(memcmp(early->written, late->written, late->size) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct outcome early[PARSER_COUNT];
    for (size_t i = 0; i < PARSER_COUNT; i++) early[i].result = PARSE_MORE;
    if (size > INPUT_SIZE_MAX) size = INPUT_SIZE_MAX;
    for (size_t prefix = 0; prefix <= size; prefix++) {
        uint8_t *copy = check_copy(data, prefix);
        for (size_t i = 0; i < PARSER_COUNT; i++) {
            struct outcome late = {0};
            parsers[i].run(copy, prefix, &late);
            check_outcome(&late, prefix, parsers[i].size_max);
            check_final(&early[i], &late);
            early[i] = late;
        }
        free(copy);
    }
    return 0;
}
