/* The half of limit_text.h that is about keys; limit_text.c has the terms. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "protocols/limit_text.h"

static const char *const kind_names[LIMIT_KINDS] = {
    [LIMIT_SOURCE] = "source",     [LIMIT_USER] = "user",   [LIMIT_RULE] = "rule",   [LIMIT_TARGET] = "target",
    [LIMIT_LISTENER] = "listener", [LIMIT_TOTAL] = "total", [LIMIT_NAMED] = "named",
};

const char *limit_kind_name(enum limit_kind kind)
{
    assert(kind < LIMIT_KINDS);
    return kind_names[kind];
}

static uint8_t lower(uint8_t octet)
{
    return octet >= 'A' && octet <= 'Z' ? (uint8_t)(octet | 0x20) : octet;
}

/* --- keys from what a session has --- */

static void key_clear(struct limit_key *key, enum limit_kind kind)
{
    memset(key, 0, sizeof *key); /* keys are compared and hashed by their octets */
    key->kind = (uint8_t)kind;
}

static void clear_host_bits(uint8_t *octets, unsigned size, unsigned bits)
{
    for (unsigned i = 0; i < size; i++) {
        unsigned kept = bits > 8 * i ? bits - 8 * i : 0;
        if (kept < 8) octets[i] &= (uint8_t)(0xff00u >> kept);
    }
}

static void key_set_network(struct limit_key *key, const struct address *address, uint8_t bits)
{
    uint8_t size = address->kind == ADDRESS_IPV4 ? 4 : 16;
    key->name[0] = address->kind == ADDRESS_IPV4 ? 4 : 6;
    key->name[1] = bits;
    memcpy(key->name + 2, address->ipv6, size);
    clear_host_bits(key->name + 2, size, bits);
    key->size = (uint8_t)(2 + size);
}

void limit_key_source(const struct address *client, const uint8_t bits[2], struct limit_key *key)
{
    assert(client->kind == ADDRESS_IPV4 || client->kind == ADDRESS_IPV6);
    key_clear(key, LIMIT_SOURCE);
    key_set_network(key, client, bits[client->kind == ADDRESS_IPV6]);
}

void limit_key_text(enum limit_kind kind, const char *text, size_t size, struct limit_key *key)
{
    assert(kind != LIMIT_SOURCE && kind < LIMIT_KINDS);
    key_clear(key, kind);
    if (kind == LIMIT_TOTAL) return;
    key->size = (uint8_t)(size < LIMIT_NAME_MAX ? size : LIMIT_NAME_MAX);
    memcpy(key->name, text, key->size);
    for (size_t i = 0; kind == LIMIT_TARGET && i < key->size; i++) key->name[i] = lower(key->name[i]);
}

bool limit_key_equal(const struct limit_key *a, const struct limit_key *b)
{
    return a->kind == b->kind && a->every == b->every && a->bits[0] == b->bits[0] && a->bits[1] == b->bits[1] &&
           a->size == b->size && memcmp(a->name, b->name, a->size) == 0;
}

/* --- from text --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* One octet of a name, escaped or not. False: neither. */
static bool read_octet(const char *text, size_t size, size_t *at, uint8_t *out)
{
    uint8_t octet = (uint8_t)text[*at];
    if (octet <= 0x20 || octet == 0x7f) return false;
    if (octet != '%') {
        *out = octet;
        ++*at;
        return true;
    }
    if (size - *at < 3) return false;
    int high = hex_digit(text[*at + 1]), low = hex_digit(text[*at + 2]);
    if (high < 0 || low < 0) return false;
    *out = (uint8_t)(high << 4 | low);
    *at += 3;
    return true;
}

/* Where the kind ends, if there is one. */
static size_t head_of(const char *text, size_t size)
{
    size_t head = 0;
    while (head < size && text[head] != ':' && text[head] != '/') head++;
    return head;
}

static enum limit_kind kind_of(const char *text, size_t size)
{
    for (unsigned kind = 0; kind < LIMIT_NAMED; kind++)
        if (strlen(kind_names[kind]) == size && memcmp(kind_names[kind], text, size) == 0) return (enum limit_kind)kind;
    return LIMIT_NAMED;
}

/* Whether one letter that is missing, too many, another one, or in its neighbour's place makes `name` of the text: then
 * it is meant, and a limit of that name would be nobody's, without a word. */
static bool is_nearly(const char *text, size_t size, const char *name)
{
    size_t length = strlen(name), head = 0, tail = 0, most = size < length ? size : length;
    while (head < most && text[head] == name[head]) head++;
    while (tail < most - head && text[size - 1 - tail] == name[length - 1 - tail]) tail++;
    size_t here = size - head - tail, there = length - head - tail;
    bool swapped = here == 2 && there == 2 && text[head] == name[head + 1] && text[head + 1] == name[head];
    return swapped || (here <= 1 && there <= 1);
}

static const char *find_near(const char *text, size_t size)
{
    static const char *const near[] = {
        [LIMIT_SOURCE] =
            "no kind of key; source is meant? A name of your own must differ from it by more than a letter",
        [LIMIT_USER] = "no kind of key; user is meant? A name of your own must differ from it by more than a letter",
        [LIMIT_RULE] = "no kind of key; rule is meant? A name of your own must differ from it by more than a letter",
        [LIMIT_TARGET] =
            "no kind of key; target is meant? A name of your own must differ from it by more than a letter",
        [LIMIT_LISTENER] =
            "no kind of key; listener is meant? A name of your own must differ from it by more than a letter",
        [LIMIT_TOTAL] = "no kind of key; total is meant? A name of your own must differ from it by more than a letter",
    };
    for (unsigned kind = 0; kind < LIMIT_NAMED; kind++)
        if (is_nearly(text, size, kind_names[kind])) return near[kind];
    return NULL;
}

/* An address has many texts, and sessions know one of them. */
static size_t write_plainly(char *host, size_t size, size_t room)
{
    struct address address;
    char text[ADDRESS_TEXT_SIZE];
    if (!address_from_host(host, size, 0, &address) || address.kind == ADDRESS_NAME) return size;
    size_t length = address_format_host(&address, text, sizeof text);
    assert(length <= room);
    memcpy(host, text, length);
    return length;
}

static const char *read_name(const char *text, size_t size, struct limit_key *key)
{
    char name[LIMIT_NAME_MAX];
    size_t used = 0;
    for (size_t at = 0; at < size;) {
        uint8_t octet;
        if (!read_octet(text, size, &at, &octet))
            return "a name has a blank, a control or a broken escape; write such an octet as %XX";
        if (used == sizeof name) return "a name is longer than 255 octets";
        name[used++] = (char)octet;
    }
    if (used == 0) return "a name is missing behind the colon";
    if (key->kind == LIMIT_NAMED && kind_of(name, head_of(name, used)) != LIMIT_NAMED)
        return "a name of your own must not begin like a key of another kind";
    const char *near = key->kind == LIMIT_NAMED ? find_near(name, head_of(name, used)) : NULL;
    if (near) return near;
    if (key->kind == LIMIT_TARGET) used = write_plainly(name, used, sizeof name);
    limit_key_text(key->kind, name, used, key);
    return NULL;
}

/* A decimal number of at most three digits behind `*at`. */
static bool read_bits(const char *text, size_t size, size_t *at, unsigned most, uint8_t *out)
{
    unsigned value = 0;
    size_t begin = *at;
    while (*at < size && *at - begin < 3 && text[*at] >= '0' && text[*at] <= '9')
        value = value * 10 + (unsigned)(text[(*at)++] - '0');
    if (*at == begin || value > most) return false;
    *out = (uint8_t)value;
    return true;
}

/* source/24/56: how many bits tell one source from another. */
static const char *read_every_source(const char *text, size_t size, struct limit_key *key)
{
    size_t at = 1;
    key->bits[0] = LIMIT_SOURCE_BITS_IPV4;
    key->bits[1] = LIMIT_SOURCE_BITS_IPV6;
    if (size == 0) return NULL;
    bool good = read_bits(text, size, &at, 32, &key->bits[0]) && at < size && text[at++] == '/' &&
                read_bits(text, size, &at, 128, &key->bits[1]) && at == size;
    return good ? NULL : "give source, or source/24/56: the bits of an IPv4 and of an IPv6 address that count";
}

static const char *read_network(const char *text, size_t size, struct limit_key *key)
{
    static const char wrong[] = "give an address such as 192.0.2.7 or 2001:db8::/48 behind source:";
    const char *slash = memchr(text, '/', size);
    size_t host = slash ? (size_t)(slash - text) : size, at = host + 1;
    struct address address;
    if (!address_from_host(text, host, 0, &address) || address.kind == ADDRESS_NAME) return wrong;
    bool ipv4 = address.kind == ADDRESS_IPV4;
    uint8_t bits = ipv4 ? LIMIT_SOURCE_BITS_IPV4 : LIMIT_SOURCE_BITS_IPV6;
    if (slash && (!read_bits(text, size, &at, ipv4 ? 32 : 128, &bits) || at != size)) return wrong;
    key_set_network(key, &address, bits);
    return NULL;
}

static const char *read_key(const char *text, size_t size, struct limit_key *key)
{
    size_t head = head_of(text, size);
    enum limit_kind kind = kind_of(text, head);
    key_clear(key, kind);
    if (kind == LIMIT_NAMED) return size > 0 ? read_name(text, size, key) : "a key is missing";
    if (head < size && text[head] == ':') {
        if (kind == LIMIT_TOTAL) return "total is one key: nothing stands behind it";
        text += head + 1;
        size -= head + 1;
        return kind == LIMIT_SOURCE ? read_network(text, size, key) : read_name(text, size, key);
    }
    key->every = kind != LIMIT_TOTAL;
    if (kind == LIMIT_SOURCE) return read_every_source(text + head, size - head, key);
    return head == size ? NULL : "only source takes numbers of bits";
}

const char *limit_key_parse(const char *text, size_t size, struct limit_key *key)
{
    struct limit_key read;
    const char *wrong = read_key(text, size, &read);
    if (!wrong) *key = read;
    return wrong;
}

/* --- to text --- */

static size_t format_octet(uint8_t octet, char *out)
{
    static const char digits[] = "0123456789ABCDEF";
    if (octet > 0x20 && octet < 0x7f && octet != '%') {
        out[0] = (char)octet;
        return 1;
    }
    out[0] = '%';
    out[1] = digits[octet >> 4];
    out[2] = digits[octet & 15];
    return 3;
}

static size_t format_network(const struct limit_key *key, char *out, size_t size)
{
    bool ipv4 = key->name[0] == 4;
    struct address address = {.kind = ipv4 ? ADDRESS_IPV4 : ADDRESS_IPV6};
    char host[ADDRESS_TEXT_SIZE];
    memcpy(address.ipv6, key->name + 2, ipv4 ? 4 : 16);
    address_format_host(&address, host, sizeof host);
    int used = ipv4 && key->name[1] == 32 ? snprintf(out, size, "source:%s", host)
                                          : snprintf(out, size, "source:%s/%u", host, key->name[1]);
    return (size_t)used;
}

static size_t format_every(const struct limit_key *key, char *out, size_t size)
{
    bool usual = key->bits[0] == LIMIT_SOURCE_BITS_IPV4 && key->bits[1] == LIMIT_SOURCE_BITS_IPV6;
    if (key->kind != LIMIT_SOURCE || usual) return (size_t)snprintf(out, size, "%s", kind_names[key->kind]);
    return (size_t)snprintf(out, size, "source/%u/%u", key->bits[0], key->bits[1]);
}

size_t limit_key_format(const struct limit_key *key, char *out, size_t size)
{
    size_t used = 0;
    assert(size >= LIMIT_KEY_TEXT_SIZE);
    if (key->every || key->kind == LIMIT_TOTAL) return format_every(key, out, size);
    if (key->kind == LIMIT_SOURCE) return format_network(key, out, size);
    if (key->kind != LIMIT_NAMED) used = (size_t)snprintf(out, size, "%s:", kind_names[key->kind]);
    for (unsigned i = 0; i < key->size; i++) used += format_octet(key->name[i], out + used);
    out[used] = '\0';
    return used;
}
