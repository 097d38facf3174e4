/* The PROXY protocol's header: every prefix of the input. Once the parser has answered, more octets must not change its
 * mind. What it understood is written in both versions and read again; beside that, the input is taken for two ends and
 * three texts, of which each header that is written must be one. */
#include "fuzz/check.h"
#include "protocols/proxy_header.h"

#define INPUT_SIZE_MAX 600u /* of which every prefix is looked at; longer headers are for longer inputs */

struct outcome {
    enum parse_result result;
    size_t used;
    struct proxy_header header;
};

static bool end_is(const struct host_port *a, const struct host_port *b)
{
    return a->kind == b->kind && a->port == b->port && memcmp(a->octets, b->octets, sizeof a->octets) == 0;
}

static void check_end(const struct host_port *end)
{
    if (end->kind == ADDRESS_NONE) return;
    struct address address = host_port_address(end);
    check_address(&address);
}

static struct outcome run(const uint8_t *data, size_t size)
{
    struct outcome o = {.result = PARSE_BAD};
    uint8_t *copy = check_copy(data, size);
    o.result = proxy_header_parse(copy, size, &o.header, &o.used);
    assert(o.result == PARSE_OK || o.result == PARSE_MORE || o.result == PARSE_BAD || o.result == PARSE_TOO_LARGE);
    assert(o.used <= size && (o.used > 0) == (o.result == PARSE_OK));
    assert(o.result != PARSE_MORE || size < PROXY_HEADER_SIZE_MAX);
    free(copy);
    if (o.result != PARSE_OK) return o;
    assert((o.header.client.kind == ADDRESS_NONE) == (o.header.local.kind == ADDRESS_NONE));
    check_end(&o.header.client);
    check_end(&o.header.local);
    return o;
}

static void check_same(const struct outcome *early, const struct outcome *late)
{
    if (early->result == PARSE_MORE) return;
    assert(early->result == late->result && early->used == late->used);
    if (early->result != PARSE_OK) return;
    assert(end_is(&early->header.client, &late->header.client) && end_is(&early->header.local, &late->header.local));
}

static void check_written(const struct proxy_header *header, const struct proxy_header_facts *facts)
{
    uint8_t out[PROXY_HEADER_WRITTEN_SIZE_MAX];
    bool known = header->client.kind != ADDRESS_NONE && header->local.kind != ADDRESS_NONE;
    for (unsigned version = 1; version <= 2; version++) {
        size_t size = proxy_header_write(out, sizeof out, version, header, facts);
        struct outcome again = run(out, size);
        assert(again.result == PARSE_OK && again.used == size);
        bool told = known && (version == 2 || header->client.kind == header->local.kind);
        assert(told == (again.header.client.kind != ADDRESS_NONE));
        if (!told) continue;
        assert(end_is(&again.header.client, &header->client) && end_is(&again.header.local, &header->local));
    }
}

/* Takes `size` octets, or as many as there are. */
static const uint8_t *take(const uint8_t **at, const uint8_t *end, size_t size, size_t *taken)
{
    const uint8_t *from = *at;
    *taken = size < (size_t)(end - from) ? size : (size_t)(end - from);
    *at += *taken;
    return from;
}

static void make_end(const uint8_t **at, const uint8_t *end, struct host_port *out)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    size_t taken;
    *out = (struct host_port){.kind = ADDRESS_NONE};
    const uint8_t *octets = take(at, end, 18, &taken);
    if (taken < 18) return;
    out->kind = octets[0] & 1 ? ADDRESS_IPV4 : ADDRESS_IPV6;
    out->port = (uint16_t)(octets[16] << 8 | octets[17]);
    memcpy(out->octets, octets, out->kind == ADDRESS_IPV4 ? 4 : 16);
    if (out->kind == ADDRESS_IPV6 && memcmp(out->octets, mapped, sizeof mapped) == 0) out->octets[0] = 1;
}

static char *make_text(const uint8_t **at, const uint8_t *end)
{
    size_t taken;
    const uint8_t *octets = take(at, end, 100, &taken);
    char *text = calloc(taken + 1, 1);
    assert(text);
    if (taken > 0) memcpy(text, octets, taken);
    return text;
}

static void write_something(const uint8_t *data, size_t size)
{
    const uint8_t *at = data, *end = data + size;
    struct proxy_header header;
    make_end(&at, end, &header.client);
    make_end(&at, end, &header.local);
    char *authority = make_text(&at, end), *id = make_text(&at, end), *user = make_text(&at, end);
    check_written(&header, &(struct proxy_header_facts){.authority = authority, .unique_id = id, .user = user});
    free(authority);
    free(id);
    free(user);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct proxy_header_facts no_facts;
    struct outcome whole = run(data, size), early = {.result = PARSE_MORE};
    size_t most = size < INPUT_SIZE_MAX ? size : INPUT_SIZE_MAX;
    for (size_t prefix = 0; prefix <= most; prefix++) {
        struct outcome late = run(data, prefix);
        check_same(&early, &late);
        early = late;
    }
    check_same(&early, &whole);
    if (whole.result == PARSE_OK) check_written(&whole.header, &no_facts);
    write_something(data, size);
    return 0;
}
